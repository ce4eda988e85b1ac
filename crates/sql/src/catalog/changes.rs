//! Look-ups and changes of the catalog, with the errors that users see.
//!
//! Invariants: a name means one thing; what a definition depends on exists; ids only grow.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Catalog, IndexDef, RelationId, TableDef, ViewDef};
use crate::statement::ObjectKind;
use crate::{Result, SqlError, SqlState, suggest};

/// A thing with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: ObjectKind,
    pub name: String,
}

impl Object {
    fn describe(&self) -> String {
        format!("{} \"{}\"", self.kind.word(), self.name)
    }
}

impl ObjectKind {
    /// As messages say it.
    pub fn word(self) -> &'static str {
        match self {
            ObjectKind::Table => "table",
            ObjectKind::View => "view",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::Index => "index",
            ObjectKind::Function => "function",
            ObjectKind::Source => "source",
        }
    }

    fn article(self) -> &'static str {
        match self {
            ObjectKind::Index => "an",
            _ => "a",
        }
    }
}

impl Catalog {
    /// What the name stands for.
    pub fn kind(&self, name: &str) -> Option<ObjectKind> {
        if let Some(table) = self.tables.get(name) {
            return Some(if table.is_source() { ObjectKind::Source } else { ObjectKind::Table });
        }
        if self.indexes.contains_key(name) {
            return Some(ObjectKind::Index);
        }
        self.views.get(name).map(|view| view_kind(view))
    }

    /// # Errors
    ///
    /// UndefinedTable, with a suggestion; WrongObjectType for a view or index.
    pub fn table(&self, name: &str) -> Result<&Arc<TableDef>> {
        self.tables.get(name).ok_or_else(|| match self.kind(name) {
            Some(kind) => SqlError::new(
                SqlState::WrongObjectType,
                format!("\"{name}\" is {} {}, not a table", kind.article(), kind.word()),
            ),
            None => self.undefined(name, "relation"),
        })
    }

    /// # Errors
    ///
    /// UndefinedTable, with a suggestion; WrongObjectType for a table or index.
    pub fn view(&self, name: &str) -> Result<&Arc<ViewDef>> {
        self.views.get(name).ok_or_else(|| match self.kind(name) {
            Some(kind) => SqlError::new(
                SqlState::WrongObjectType,
                format!("\"{name}\" is {} {}, not a view", kind.article(), kind.word()),
            ),
            None => self.undefined(name, "relation"),
        })
    }

    /// The name of the table or view with this id.
    pub fn name_of(&self, id: RelationId) -> Option<&str> {
        let table = self.tables.values().find(|table| table.id == id).map(|table| table.name.as_str());
        table.or_else(|| self.views.values().find(|view| view.id == id).map(|view| view.name.as_str()))
    }

    /// Adds a table. An id of 0 is replaced by a new one; another id is kept, as when a log is replayed.
    ///
    /// # Errors
    ///
    /// DuplicateTable.
    pub fn insert_table(&mut self, mut table: TableDef) -> Result<Arc<TableDef>> {
        self.check_free(&table.name)?;
        table.id = self.claim(table.id);
        let table = Arc::new(table);
        self.tables.insert(table.name.clone(), Arc::clone(&table));
        Ok(table)
    }

    /// Adds a view over relations that exist.
    ///
    /// # Errors
    ///
    /// DuplicateTable; UndefinedTable for what it depends on.
    pub fn insert_view(&mut self, mut view: ViewDef) -> Result<Arc<ViewDef>> {
        self.check_free(&view.name)?;
        for relation in &view.depends_on {
            self.check_relation(relation)?;
        }
        view.id = self.claim(view.id);
        let view = Arc::new(view);
        self.views.insert(view.name.clone(), Arc::clone(&view));
        Ok(view)
    }

    /// Adds an index over a relation that exists.
    ///
    /// # Errors
    ///
    /// DuplicateTable, UndefinedTable, UndefinedColumn.
    pub fn insert_index(&mut self, mut index: IndexDef) -> Result<Arc<IndexDef>> {
        self.check_free(&index.name)?;
        self.check_relation(&index.relation)?;
        let columns = self.columns(&index.relation);
        if let Some(unknown) =
            index.columns.iter().find(|column| !columns.iter().any(|known| known == *column))
        {
            let message = format!("column \"{unknown}\" of relation \"{}\" does not exist", index.relation);
            let error = SqlError::new(SqlState::UndefinedColumn, message);
            return Err(match suggest::closest(unknown, columns.iter().map(String::as_str)) {
                Some(near) => error.with_hint(suggest::did_you_mean(near)),
                None => error,
            });
        }
        index.id = self.claim(index.id);
        let index = Arc::new(index);
        self.indexes.insert(index.name.clone(), Arc::clone(&index));
        Ok(index)
    }

    /// Views and functions that call the function.
    pub fn callers(&self, function: &str) -> Vec<Object> {
        let calls = |names: &[String]| names.iter().any(|name| name == function);
        let views = self.views.values().filter(|view| calls(&view.calls));
        let views = views.map(|view| Object { kind: view_kind(view), name: view.name.clone() });
        let functions = self.functions.values().filter(|f| calls(&f.calls));
        let functions = functions.map(|f| Object { kind: ObjectKind::Function, name: f.name.clone() });
        views.chain(functions).collect()
    }

    /// What COMMENT ON said of a thing or of one of its columns.
    pub fn comment(&self, id: RelationId, column: Option<usize>) -> Option<&str> {
        self.comments.get(&(id, column)).map(String::as_str)
    }

    /// Views that read the relation and indexes on it, directly.
    pub fn dependants(&self, relation: &str) -> Vec<Object> {
        let indexes = self
            .indexes
            .values()
            .filter(|index| index.relation == relation)
            .map(|index| Object { kind: ObjectKind::Index, name: index.name.clone() });
        let views = self
            .views
            .values()
            .filter(|view| view.depends_on.iter().any(|name| name == relation))
            .map(|view| Object { kind: view_kind(view), name: view.name.clone() });
        indexes.chain(views).collect()
    }

    /// What a DROP takes with it, in the order in which to drop: dependants come first. Nothing is
    /// changed; hand the objects to [`Catalog::remove`] one by one.
    ///
    /// An index goes with its relation without CASCADE, as in PostgreSQL.
    ///
    /// # Errors
    ///
    /// UndefinedTable or UndefinedObject, WrongObjectType, DependentObjectsStillExist.
    pub fn drop_order(
        &self,
        kind: ObjectKind,
        names: &[String],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Vec<Object>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            if kind == ObjectKind::Function {
                match self.functions.contains_key(name) {
                    true => self.visit(&Object { kind, name: name.clone() }, &mut seen, &mut order),
                    false if if_exists => {}
                    false => {
                        let message = format!("function \"{name}\" does not exist");
                        let error = SqlError::new(SqlState::UndefinedFunction, message);
                        let names = self.functions.keys().map(String::as_str);
                        return Err(match suggest::closest(name, names) {
                            Some(near) => error.with_hint(suggest::did_you_mean(near)),
                            None => error,
                        });
                    }
                }
                continue;
            }
            match self.kind(name) {
                Some(found) if found == kind => {
                    self.visit(&Object { kind, name: name.clone() }, &mut seen, &mut order)
                }
                Some(found) => {
                    return Err(SqlError::new(
                        SqlState::WrongObjectType,
                        format!(
                            "\"{name}\" is {} {}, not {} {}",
                            found.article(),
                            found.word(),
                            kind.article(),
                            kind.word()
                        ),
                    )
                    .with_hint(format!("use DROP {}", found.word().to_uppercase())));
                }
                None if if_exists => {}
                None => return Err(self.undefined(name, kind.word())),
            }
        }
        let unasked = |object: &Object| {
            let asked = object.kind == kind && names.contains(&object.name);
            object.kind != ObjectKind::Index && !asked
        };
        if cascade || !order.iter().any(unasked) {
            return Ok(order);
        }
        let detail: Vec<String> = order
            .iter()
            .rev()
            .filter(|object| unasked(object))
            .map(|object| match order.iter().find(|needed| self.needs(object, needed)) {
                Some(needed) => format!("{} depends on {}", object.describe(), needed.describe()),
                None => object.describe(),
            })
            .collect();
        let dropped: Vec<String> = names
            .iter()
            .filter(|name| kind == ObjectKind::Function || self.kind(name).is_some())
            .map(|name| format!("{} \"{name}\"", kind.word()))
            .collect();
        Err(SqlError::new(
            SqlState::DependentObjectsStillExist,
            format!("cannot drop {} because other objects depend on it", dropped.join(", ")),
        )
        .with_detail(detail.join("\n"))
        .with_hint("use DROP ... CASCADE to drop the dependent objects too"))
    }

    /// True when `object` reads or calls `needed`.
    fn needs(&self, object: &Object, needed: &Object) -> bool {
        let view = self.views.get(&object.name).filter(|_| object.kind != ObjectKind::Function);
        match needed.kind {
            ObjectKind::Function => self.callers(&needed.name).contains(object),
            _ => view.is_some_and(|view| view.depends_on.contains(&needed.name)),
        }
    }

    /// Takes an object out. Its dependants must be gone; a missing object is no error.
    pub fn remove(&mut self, object: &Object) {
        debug_assert!(
            matches!(object.kind, ObjectKind::Index | ObjectKind::Function)
                || self.dependants(&object.name).is_empty(),
            "{} is dropped before what depends on it",
            object.describe()
        );
        match object.kind {
            ObjectKind::Table | ObjectKind::Source => drop(self.tables.remove(&object.name)),
            ObjectKind::View | ObjectKind::MaterializedView => drop(self.views.remove(&object.name)),
            ObjectKind::Index => drop(self.indexes.remove(&object.name)),
            ObjectKind::Function => drop(self.functions.remove(&object.name)),
        }
    }

    /// Depth first: whatever depends on the object is dropped before it.
    fn visit(&self, object: &Object, seen: &mut BTreeSet<(bool, String)>, order: &mut Vec<Object>) {
        if !seen.insert((object.kind == ObjectKind::Function, object.name.clone())) {
            return;
        }
        let dependants = match object.kind {
            ObjectKind::Index => Vec::new(),
            ObjectKind::Function => self.callers(&object.name),
            _ => self.dependants(&object.name),
        };
        for dependant in &dependants {
            self.visit(dependant, seen, order);
        }
        order.push(object.clone());
    }

    /// The id of a thing of this kind.
    pub fn id_of_object(&self, object: &Object) -> Option<RelationId> {
        match object.kind {
            ObjectKind::Function => self.functions.get(&object.name).map(|f| f.id),
            ObjectKind::Index => self.indexes.get(&object.name).map(|i| i.id),
            _ => self.id_of(&object.name),
        }
    }

    /// The id of a table or view.
    pub fn id_of(&self, name: &str) -> Option<RelationId> {
        let table = self.tables.get(name).map(|table| table.id);
        table.or_else(|| self.views.get(name).map(|view| view.id))
    }

    /// Names of a relation's columns; none for what does not exist.
    pub fn columns(&self, relation: &str) -> Vec<String> {
        if let Some(table) = self.tables.get(relation) {
            return table.columns.iter().map(|column| column.name.clone()).collect();
        }
        let fields = self.views.get(relation).map(|view| view.schema.fields().clone());
        fields.iter().flatten().map(|field| field.name().clone()).collect()
    }

    fn check_free(&self, name: &str) -> Result<()> {
        match self.kind(name) {
            None => Ok(()),
            Some(kind) => {
                let message = format!("relation \"{name}\" already exists");
                Err(SqlError::new(SqlState::DuplicateTable, message).with_detail(format!(
                    "it is {} {}",
                    kind.article(),
                    kind.word()
                )))
            }
        }
    }

    fn check_relation(&self, name: &str) -> Result<()> {
        match self.kind(name) {
            None => Err(self.undefined(name, "relation")),
            Some(ObjectKind::Index) => Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("\"{name}\" is an index, not a table or view"),
            )),
            Some(_) => Ok(()),
        }
    }

    fn undefined(&self, name: &str, kind: &str) -> SqlError {
        let state = if kind == "index" { SqlState::UndefinedObject } else { SqlState::UndefinedTable };
        let error = SqlError::new(state, format!("{kind} \"{name}\" does not exist"));
        let names =
            self.tables.keys().chain(self.views.keys()).chain(self.indexes.keys()).map(String::as_str);
        match suggest::closest(name, names) {
            Some(near) => error.with_hint(suggest::did_you_mean(near)),
            None => error,
        }
    }

    fn claim(&mut self, id: RelationId) -> RelationId {
        let id = if id.0 == 0 { self.next_id.max(1) } else { id.0 };
        self.next_id = self.next_id.max(id + 1);
        RelationId(id)
    }
}

fn view_kind(view: &ViewDef) -> ObjectKind {
    match view.materialized {
        true => ObjectKind::MaterializedView,
        false => ObjectKind::View,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Statement;

    fn catalog(script: &str) -> Catalog {
        let mut catalog = Catalog::default();
        for parsed in crate::parse(script).unwrap() {
            match parsed.statement {
                Statement::CreateTable { table, .. } => drop(catalog.insert_table(table).unwrap()),
                Statement::CreateView { mut view, .. } => {
                    // Enough for these tests: the last word of the query.
                    view.depends_on = vec![view.query.split(' ').next_back().unwrap().to_string()];
                    drop(catalog.insert_view(view).unwrap());
                }
                Statement::CreateIndex { index, .. } => drop(catalog.insert_index(index).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        catalog
    }

    fn shop() -> Catalog {
        catalog(
            "CREATE TABLE orders (id BIGINT PRIMARY KEY);
             CREATE TABLE stock (id BIGINT);
             CREATE INDEX by_id ON orders (id);
             CREATE MATERIALIZED VIEW daily AS SELECT * FROM orders;
             CREATE VIEW weekly AS SELECT * FROM daily;",
        )
    }

    fn dropped(catalog: &Catalog, kind: ObjectKind, name: &str, cascade: bool) -> Result<String> {
        let order = catalog.drop_order(kind, &[name.to_string()], false, cascade)?;
        Ok(order.iter().map(|object| object.name.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn dependants_are_dropped_first() {
        let mut catalog = shop();
        assert_eq!(dropped(&catalog, ObjectKind::Table, "stock", false).unwrap(), "stock");
        assert_eq!(
            dropped(&catalog, ObjectKind::Table, "orders", true).unwrap(),
            "by_id weekly daily orders"
        );
        for object in catalog.drop_order(ObjectKind::Table, &["orders".into()], false, true).unwrap() {
            catalog.remove(&object);
        }
        assert_eq!((catalog.tables.len(), catalog.views.len(), catalog.indexes.len()), (1, 0, 0));
    }

    #[test]
    fn without_cascade_dependants_are_named() {
        let error = dropped(&shop(), ObjectKind::Table, "orders", false).unwrap_err();
        assert_eq!(error.state, SqlState::DependentObjectsStillExist);
        assert_eq!(error.message, "cannot drop table \"orders\" because other objects depend on it");
        assert_eq!(
            error.detail.as_deref(),
            Some(
                "materialized view \"daily\" depends on table \"orders\"\n\
                 view \"weekly\" depends on materialized view \"daily\""
            )
        );
        assert!(error.hint.unwrap().contains("CASCADE"));
    }

    #[test]
    fn the_wrong_kind_is_said() {
        let error = dropped(&shop(), ObjectKind::View, "orders", false).unwrap_err();
        assert_eq!(error.to_string(), "\"orders\" is a table, not a view (hint: use DROP TABLE)");
        let error = dropped(&shop(), ObjectKind::View, "daily", false).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("use DROP MATERIALIZED VIEW"));
        assert_eq!(shop().table("daily").unwrap_err().state, SqlState::WrongObjectType);
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        let error = dropped(&shop(), ObjectKind::Table, "ordres", false).unwrap_err();
        assert_eq!(error.to_string(), "table \"ordres\" does not exist (hint: did you mean \"orders\"?)");
        assert_eq!(shop().drop_order(ObjectKind::Table, &["ordres".into()], true, false), Ok(Vec::new()));
        assert_eq!(shop().table("ordres").unwrap_err().state, SqlState::UndefinedTable);
    }

    #[test]
    fn ids_are_never_used_again() {
        let mut catalog = shop();
        let ids: Vec<u32> = catalog.tables.values().map(|table| table.id.0).collect();
        assert_eq!(ids, [1, 2]);
        let before = catalog.next_id;
        catalog.remove(&Object { kind: ObjectKind::View, name: "weekly".into() });
        let view = crate::parse("CREATE VIEW weekly AS SELECT 1").unwrap().remove(0);
        let Statement::CreateView { view, .. } = view.statement else { panic!() };
        assert_eq!(catalog.insert_view(view.clone()).unwrap().id.0, before);
        assert_eq!(catalog.insert_view(view).unwrap_err().state, SqlState::DuplicateTable);
        assert_eq!(catalog.name_of(RelationId(1)), Some("orders"));
    }

    #[test]
    fn an_index_needs_known_columns() {
        let mut catalog = shop();
        let index = crate::parse("CREATE INDEX i ON orders (di)").unwrap().remove(0);
        let Statement::CreateIndex { index, .. } = index.statement else { panic!() };
        let error = catalog.insert_index(index).unwrap_err();
        assert_eq!(
            error.to_string(),
            "column \"di\" of relation \"orders\" does not exist (hint: did you mean \"id\"?)"
        );
    }
}
