//! CREATE OR REPLACE VIEW, CREATE FUNCTION, COMMENT ON: definitions that touch what is there.

use std::sync::Arc;

use sql::catalog::Object;
use sql::statement::ObjectKind;
use sql::{FunctionDef, ParsedStatement, RelationId, SqlError, SqlState, ViewDef};

use super::{DefinitionPlanner, Install};
use crate::provider::QueryScope;

impl DefinitionPlanner<'_> {
    /// A plain view takes the place of one of the same name, if everything that stands on it can stay.
    pub(super) async fn replace_view(
        &self,
        statement: &ParsedStatement,
        view: &ViewDef,
        old: &Arc<ViewDef>,
    ) -> Result<Install, SqlError> {
        if old.materialized != view.materialized {
            let (there, other) = match old.materialized {
                true => ("materialized view", "view"),
                false => ("view", "materialized view"),
            };
            let message = format!("\"{}\" is a {there} and can't become a {other}", view.name);
            let hint = format!("use DROP {} \"{}\" CASCADE, then CREATE", there.to_uppercase(), view.name);
            return Err(SqlError::new(SqlState::WrongObjectType, message).with_hint(hint));
        }
        if old.materialized {
            return self.replace_materialized(statement, view, old).await;
        }
        let Install::View { view, .. } = self.create_view(statement, view, old.id).await? else {
            return Err(SqlError::internal("a view was planned as something else"));
        };
        if view.depends_on.contains(&view.name) {
            return Err(SqlError::new(
                SqlState::InvalidDefinition,
                format!("view \"{}\" would read itself", view.name),
            ));
        }
        let dependants = self.catalog.dependants(&view.name);
        let named = |kind: ObjectKind| {
            let of_kind = dependants.iter().filter(|d| d.kind == kind);
            of_kind.map(|d| format!("\"{}\"", d.name)).collect::<Vec<_>>().join(", ")
        };
        let materialized = named(ObjectKind::MaterializedView);
        if !materialized.is_empty() {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                format!(
                    "cannot replace view \"{}\": materialized view {materialized} keeps rows that were computed with its query",
                    view.name
                ),
            )
            .with_hint("drop the materialized view, replace the view, and create the materialized view anew"));
        }
        let plain = named(ObjectKind::View);
        if !plain.is_empty() {
            check_columns_stay(old, &view, &format!("view {plain}"))?;
        }
        Ok(Install::ReplaceView(view))
    }

    /// A materialized view takes the place of the one that is there. All that stand on it are computed anew.
    async fn replace_materialized(
        &self,
        statement: &ParsedStatement,
        view: &ViewDef,
        old: &Arc<ViewDef>,
    ) -> Result<Install, SqlError> {
        let Install::View { view, plan: Some(plan) } = self.create_view(statement, view, old.id).await?
        else {
            return Err(SqlError::internal("a materialized view was planned as something else"));
        };
        let name = &view.name;
        let mut order =
            self.catalog.drop_order(ObjectKind::MaterializedView, std::slice::from_ref(name), false, true)?;
        // Those that are read come first.
        order.reverse();
        let is_view = |object: &&Object| object.kind != ObjectKind::Index;
        let above: Vec<&Object> =
            order.iter().filter(is_view).filter(|object| object.name != *name).collect();
        let own =
            above.iter().map(|object| &object.name).chain([name]).find(|own| view.depends_on.contains(own));
        if let Some(own) = own {
            let message = format!("materialized view \"{name}\" would read itself");
            let error = SqlError::new(SqlState::InvalidDefinition, message);
            return Err(if own == name {
                error
            } else {
                error.with_detail(format!("\"{own}\" stands on it"))
            });
        }
        for index in self.catalog.indexes.values().filter(|index| index.relation == *name) {
            let gone = index.columns.iter().find(|column| view.schema.field_with_name(column).is_err());
            if let Some(column) = gone {
                let message = format!(
                    "cannot drop column \"{column}\" of materialized view \"{name}\" because index \"{}\" is on it",
                    index.name
                );
                return Err(
                    SqlError::new(SqlState::DependentObjectsStillExist, message).with_hint("drop the index")
                );
            }
        }
        let mut catalog = sql::Catalog::clone(self.catalog);
        let mut properties = self.views.clone();
        properties.insert(name.clone(), plan.root().properties.clone());
        catalog.views.insert(name.clone(), Arc::clone(&view));
        let mut views = vec![(Arc::clone(&view), plan)];
        for object in above {
            check_columns_stay(old, &view, &format!("{} \"{}\"", object.kind.word(), object.name))?;
            let Some(reader) = catalog.views.get(&object.name).map(Arc::clone) else { continue };
            let planned = Arc::new(catalog.clone());
            let planner = DefinitionPlanner { catalog: &planned, views: &properties, base: self.base };
            let text = ParsedStatement {
                statement: statement.statement.clone(),
                sql: reader.sql.clone(),
                offset: 0,
            };
            let again = planner.create_view(&text, &reader, reader.id).await.map_err(|error| SqlError {
                message: format!("{} \"{}\": {}", object.kind.word(), object.name, error.message),
                position: None,
                ..error
            })?;
            let Install::View { view: again, plan } = again else { continue };
            let same = reader.schema.fields().len() == again.schema.fields().len();
            if !same && again.materialized {
                let message = format!("materialized view \"{}\" would get other columns", object.name);
                return Err(SqlError::new(SqlState::DependentObjectsStillExist, message)
                    .with_hint("let it name its columns instead of *"));
            }
            if let Some(plan) = plan {
                properties.insert(object.name.clone(), plan.root().properties.clone());
                catalog.views.insert(object.name.clone(), Arc::clone(&again));
                views.push((again, plan));
            }
        }
        Ok(Install::Replace(views))
    }

    pub(super) async fn create_function(
        &self,
        statement: &ParsedStatement,
        function: &FunctionDef,
        or_replace: bool,
        id: RelationId,
    ) -> Result<Install, SqlError> {
        let name = &function.name;
        let old = self.catalog.functions.get(name);
        if old.is_some() && !or_replace {
            return Err(SqlError::new(
                SqlState::DuplicateObject,
                format!("function \"{name}\" already exists"),
            )
            .with_hint("use CREATE OR REPLACE FUNCTION, or another name; there is one function of a name"));
        }
        if self.base.scalar_functions().contains_key(name)
            || self.base.aggregate_functions().contains_key(name)
        {
            return Err(SqlError::new(SqlState::DuplicateObject, format!("function \"{name}\" is built in"))
                .with_hint("choose another name"));
        }
        let kept = self.catalog.callers(name).into_iter().filter(|o| o.kind == ObjectKind::MaterializedView);
        let kept = kept.map(|o| format!("\"{}\"", o.name)).collect::<Vec<_>>().join(", ");
        if old.is_some() && !kept.is_empty() {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                format!("cannot replace function \"{name}\": materialized view {kept} keeps rows that were computed with it"),
            )
            .with_hint("drop the materialized view, replace the function, and create the materialized view anew"));
        }
        let mut function =
            FunctionDef { id: old.map_or(id, |old| old.id), sql: statement.sql.clone(), ..function.clone() };
        // A call with NULLs binds what every call will.
        let arguments = function.arguments.iter().map(|a| format!("CAST(NULL AS {})", a.sql_type));
        let call = format!("SELECT \"{name}\"({})", arguments.collect::<Vec<_>>().join(", "));
        let mut catalog = sql::Catalog::clone(self.catalog);
        catalog.functions.insert(name.clone(), Arc::new(function.clone()));
        let scope = QueryScope::new(Arc::new(catalog), Arc::clone(self.base));
        let query = sql::parse_query(&call)?;
        sql::planner::bind_query(&scope.state(), &query, &call).await.map_err(|error| SqlError {
            message: format!("function \"{name}\": {}", error.message),
            position: None,
            ..error
        })?;
        function.calls = scope.calls().into_iter().filter(|called| called != name).collect();
        Ok(Install::Function(Arc::new(function)))
    }

    pub(super) fn comment(
        &self,
        kind: Option<ObjectKind>,
        name: &str,
        column: Option<&str>,
        text: Option<String>,
    ) -> Result<Install, SqlError> {
        let catalog = self.catalog;
        let found = catalog.kind(name);
        let kind = match kind {
            Some(ObjectKind::Function) => ObjectKind::Function,
            Some(kind) if found.is_some_and(|found| found != kind) => {
                let found = found.map_or("", ObjectKind::word);
                return Err(SqlError::new(
                    SqlState::WrongObjectType,
                    format!("\"{name}\" is a {found}, not a {}", kind.word()),
                )
                .with_hint(format!("use COMMENT ON {}", found.to_uppercase())));
            }
            Some(kind) => kind,
            None => found.unwrap_or(ObjectKind::Table),
        };
        let Some(id) = catalog.id_of_object(&Object { kind, name: name.to_string() }) else {
            let state = match kind {
                ObjectKind::Function => SqlState::UndefinedFunction,
                _ => SqlState::UndefinedTable,
            };
            return Err(SqlError::new(state, format!("{} \"{name}\" does not exist", kind.word())));
        };
        let column = match column {
            None => None,
            Some(column) => {
                let columns = catalog.columns(name);
                let number = columns.iter().position(|known| known == column).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UndefinedColumn,
                        format!("column \"{column}\" of relation \"{name}\" does not exist"),
                    )
                    .with_hint(format!("its columns are {}", columns.join(", ")))
                })?;
                Some(number)
            }
        };
        Ok(Install::Comment { of: (id, column), text })
    }
}

/// What others read keeps its columns: names, types and order.
fn check_columns_stay(old: &ViewDef, new: &ViewDef, reader: &str) -> Result<(), SqlError> {
    let kept = old.schema.fields().iter().zip(new.schema.fields());
    let differs = kept.clone().find(|(a, b)| a.name() != b.name() || a.data_type() != b.data_type());
    let missing = old.schema.fields().get(new.schema.fields().len());
    let Some(column) = differs.map(|(old, _)| old).or(missing) else { return Ok(()) };
    let kind = if new.materialized { "materialized view" } else { "view" };
    Err(SqlError::new(
        SqlState::InvalidDefinition,
        format!(
            "cannot change column \"{}\" of {kind} \"{}\" because {reader} reads it",
            column.name(),
            new.name
        ),
    )
    .with_hint("keep names, types and order of the columns; new ones come last"))
}
