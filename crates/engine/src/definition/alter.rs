//! ALTER: what is there gets another name or another column, and everything that names it follows.
//!
//! Identities stay, so plans, state and the log are not touched by a new name; texts are, because plain views are bound
//! when they are read and all definitions can be shown. A column that is added has one value in all rows that are there,
//! which is kept beside the definition: rows in the log stay as they were written.
//!
//! Views that read a table before a column was added go on reading the columns that they knew.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, Volatility};
use datafusion::scalar::ScalarValue;
use sql::parser::rename;
use sql::statement::{Alteration, ObjectKind};
use sql::{Catalog, Column, IndexDef, ParsedStatement, SqlError, SqlState, Statement, TableDef, ViewDef};

use super::{DefinitionPlanner, Install, exists};
use crate::constraints::Constraints;
use crate::system::FIRST_USER_ID;

/// Definitions in the place of those with the same identity.
#[derive(Clone, Default)]
pub struct Redefinition {
    pub tables: Vec<Arc<TableDef>>,
    pub views: Vec<Arc<ViewDef>>,
    pub indexes: Vec<Arc<IndexDef>>,
}

impl Redefinition {
    pub fn apply(&self, catalog: &mut Catalog) {
        for table in &self.tables {
            catalog.tables.retain(|_, old| old.id != table.id);
        }
        for view in &self.views {
            catalog.views.retain(|_, old| old.id != view.id);
        }
        for index in &self.indexes {
            catalog.indexes.retain(|_, old| old.id != index.id);
        }
        catalog.tables.extend(self.tables.iter().map(|table| (table.name.clone(), Arc::clone(table))));
        catalog.views.extend(self.views.iter().map(|view| (view.name.clone(), Arc::clone(view))));
        catalog.indexes.extend(self.indexes.iter().map(|index| (index.name.clone(), Arc::clone(index))));
    }
}

impl DefinitionPlanner<'_> {
    pub(super) async fn alter(
        &self,
        kind: ObjectKind,
        name: &str,
        if_exists: bool,
        change: &Alteration,
    ) -> Result<Install, SqlError> {
        let Some(found) = self.catalog.kind(name) else {
            return match if_exists {
                true => Ok(Install::Nothing),
                false => Err(self.catalog.undefined(name, kind.word())),
            };
        };
        // ALTER TABLE of a view or an index is what drivers send.
        if found != kind && kind != ObjectKind::Table {
            let (found, kind) = (found.word(), kind.word());
            return Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("\"{name}\" is a {found}, not a {kind}"),
            )
            .with_hint(format!("use ALTER {}", found.to_uppercase())));
        }
        if self.catalog.tables.get(name).is_some_and(|table| table.id.0 < FIRST_USER_ID) {
            let message = format!("relation \"{name}\" is kept by the system and can't be altered");
            return Err(SqlError::new(SqlState::InsufficientPrivilege, message));
        }
        match change {
            Alteration::RenameTo(to) => self.rename(found, name, to).await,
            Alteration::RenameColumn { from, to } => self.rename_column(found, name, from, to),
            Alteration::AddColumn { column, if_not_exists } => {
                self.add_column(found, name, column, *if_not_exists).await
            }
        }
    }

    async fn rename(&self, found: ObjectKind, name: &str, to: &str) -> Result<Install, SqlError> {
        exists(self.catalog, to, false, found.word())?;
        let mut changed = Redefinition::default();
        if let Some(table) = self.catalog.tables.get(name) {
            let table = TableDef { name: to.to_string(), ..TableDef::clone(table) };
            changed.tables.push(Arc::new(TableDef { sql: table.to_sql(), ..table }));
        } else if let Some(view) = self.catalog.views.get(name) {
            let sql = rename::created(&view.sql, to)?;
            changed.views.push(Arc::new(ViewDef { name: to.to_string(), sql, ..ViewDef::clone(view) }));
        } else if let Some(index) = self.catalog.indexes.get(name) {
            let sql = rename::created(&index.sql, to)?;
            changed.indexes.push(Arc::new(IndexDef { name: to.to_string(), sql, ..IndexDef::clone(index) }));
            return Ok(Install::Redefine(changed));
        }
        for index in self.catalog.indexes.values().filter(|index| index.relation == name) {
            let sql = rename::indexed_relation(&index.sql, to)?;
            changed.indexes.push(Arc::new(IndexDef {
                relation: to.to_string(),
                sql,
                ..IndexDef::clone(index)
            }));
        }
        let mut rewritten = Vec::new();
        for view in self.catalog.views.values().filter(|view| view.depends_on.iter().any(|on| on == name)) {
            let mut follower = ViewDef::clone(view);
            for on in follower.depends_on.iter_mut().filter(|on| *on == name) {
                *on = to.to_string();
            }
            let query = rename::relation_in_query(&view.query, name, to);
            if let Some(query) = query.map_err(|error| cannot_follow(name, view, &error))? {
                follower.sql = view.sql.replacen(&view.query, &query, 1);
                follower.query = query;
                rewritten.push(view.id);
            }
            changed.views.push(Arc::new(follower));
        }
        // What was rewritten has to mean something under the new name.
        let mut after = Catalog::clone(self.catalog);
        changed.apply(&mut after);
        let views: BTreeMap<_, _> = self
            .views
            .iter()
            .map(|(view, properties)| (if view == name { to } else { view }.to_string(), properties.clone()))
            .collect();
        let planner = DefinitionPlanner { catalog: &Arc::new(after), views: &views, base: self.base };
        for view in changed.views.iter().filter(|view| rewritten.contains(&view.id)) {
            planner.read_anew(view).await.map_err(|error| cannot_follow(name, view, &error))?;
        }
        Ok(Install::Redefine(changed))
    }

    /// The view as its query says now.
    async fn read_anew(&self, view: &ViewDef) -> Result<Arc<ViewDef>, SqlError> {
        let statement = ParsedStatement { statement: Statement::Flush, sql: view.sql.clone(), offset: 0 };
        match self.create_view(&statement, view, view.id).await? {
            Install::View { view, .. } => Ok(view),
            _ => Err(SqlError::internal("a view was planned as something else")),
        }
    }

    fn rename_column(
        &self,
        found: ObjectKind,
        name: &str,
        from: &str,
        to: &str,
    ) -> Result<Install, SqlError> {
        let table = self.altered_table(found, name, "RENAME COLUMN")?;
        let undefined = || {
            let names = table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
            SqlError::new(
                SqlState::UndefinedColumn,
                format!("column \"{from}\" of table \"{name}\" does not exist"),
            )
            .with_hint(format!("its columns are {names}"))
        };
        let column = table.column_index(from).ok_or_else(undefined)?;
        if table.column_index(to).is_some() {
            return Err(duplicate_column(name, to));
        }
        let readers: Vec<String> = self
            .catalog
            .views
            .values()
            .filter(|view| view.depends_on.iter().any(|on| on == name))
            .map(|view| format!("\"{}\"", view.name))
            .collect();
        if !readers.is_empty() {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                format!(
                    "cannot rename column \"{from}\" of table \"{name}\": {} by {}",
                    if readers.len() == 1 { "the table is read" } else { "it is read" },
                    readers.join(", ")
                ),
            )
            .with_hint("give the column its name in a view: SELECT column AS name; or drop the views and create them anew"));
        }
        let mut table = TableDef::clone(table);
        table.columns[column].name = to.to_string();
        for column in &mut table.columns {
            if let Some(generated) = &mut column.generated {
                *generated = rename::column_in_expr(generated, from, to)?;
            }
        }
        for check in &mut table.checks {
            check.condition = rename::column_in_expr(&check.condition, from, to)?;
        }
        let mut changed = Redefinition::default();
        for index in self.catalog.indexes.values().filter(|index| index.relation == name) {
            let mut index = IndexDef::clone(index);
            if let Some(column) = index.columns.iter_mut().find(|column| *column == from) {
                *column = to.to_string();
                index.sql = rename::indexed_column(&index.sql, from, to)?;
                changed.indexes.push(Arc::new(index));
            }
        }
        let table = Arc::new(TableDef { sql: table.to_sql(), ..table });
        Constraints::new(Arc::clone(&table), self.base)?;
        changed.tables.push(table);
        Ok(Install::Redefine(changed))
    }

    async fn add_column(
        &self,
        found: ObjectKind,
        name: &str,
        column: &Column,
        if_not_exists: bool,
    ) -> Result<Install, SqlError> {
        let table = self.altered_table(found, name, "ADD COLUMN")?;
        match table.column_index(&column.name) {
            Some(_) if if_not_exists => return Ok(Install::Nothing),
            Some(_) => return Err(duplicate_column(name, &column.name)),
            None => {}
        }
        let mut wider = TableDef::clone(table);
        wider.columns.push(column.clone());
        let mut wider = sql::planner::bind_table(self.base, &wider)?;
        let value = self.value_of_added(&wider.columns[wider.columns.len() - 1])?;
        if column.not_null && value.is_null() {
            return Err(SqlError::new(
                SqlState::NotNullViolation,
                format!(
                    "column \"{}\" of table \"{name}\" would be NULL in the rows that are there",
                    column.name
                ),
            )
            .with_hint("give it a DEFAULT, or leave NOT NULL out"));
        }
        wider.added.push(value);
        let wider = Arc::new(TableDef { sql: wider.to_sql(), ..wider });
        Constraints::new(Arc::clone(&wider), self.base)?;
        let mut changed = Redefinition { tables: vec![wider], ..Redefinition::default() };
        // Plain views are bound when they are read: `SELECT *` has the column from now on.
        let mut after = Catalog::clone(self.catalog);
        changed.apply(&mut after);
        let planner = DefinitionPlanner { catalog: &Arc::new(after), ..*self };
        let readers = self.catalog.views.values();
        for view in readers.filter(|view| !view.materialized && view.depends_on.iter().any(|on| on == name)) {
            let reader = planner.read_anew(view).await.map_err(|error| {
                let message = format!("view \"{}\" would not work any more: {}", view.name, error.message);
                SqlError { message, position: None, ..error }
            })?;
            changed.views.push(Arc::new(ViewDef { sql: view.sql.clone(), ..ViewDef::clone(&reader) }));
        }
        Ok(Install::Redefine(changed))
    }

    fn altered_table(&self, found: ObjectKind, name: &str, what: &str) -> Result<&Arc<TableDef>, SqlError> {
        self.catalog.tables.get(name).ok_or_else(|| {
            SqlError::new(
                SqlState::WrongObjectType,
                format!("{what} is for tables, and \"{name}\" is a {}", found.word()),
            )
            .with_hint("use CREATE OR REPLACE VIEW, or drop it and create it anew")
        })
    }

    /// What rows that are there have in the column: its DEFAULT, which has to be the same at every restart.
    fn value_of_added(&self, column: &Column) -> Result<ScalarValue, SqlError> {
        let convert = |error| sql::planner::from_datafusion(error, "");
        let Some(text) = &column.default else {
            return ScalarValue::try_from(&column.data_type).map_err(convert);
        };
        let none = DFSchema::empty();
        let expr = sql::bind_expr(self.base, text, &none)?;
        let changing = expr.exists(|expr| {
            Ok(matches!(expr, Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable))
        });
        if changing.map_err(convert)? {
            return Err(SqlError::new(
                SqlState::InvalidDefinition,
                format!("the DEFAULT of the added column \"{}\" has to be constant", column.name),
            )
            .with_hint("rows that are there get it, too; add the column without DEFAULT, and UPDATE it"));
        }
        let expr = expr.cast_to(&column.data_type, &none).map_err(convert)?;
        let expr = self.base.create_physical_expr(expr, &none).map_err(convert)?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
            .map_err(|e| SqlError::internal(e.to_string()))?;
        match expr.evaluate(&row).map_err(convert)? {
            ColumnarValue::Scalar(value) => Ok(value),
            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0).map_err(convert),
        }
    }
}

fn duplicate_column(table: &str, column: &str) -> SqlError {
    let message = format!("column \"{column}\" of table \"{table}\" already exists");
    SqlError::new(SqlState::DuplicateColumn, message).with_hint("choose another name, or add IF NOT EXISTS")
}

fn cannot_follow(renamed: &str, view: &ViewDef, error: &SqlError) -> SqlError {
    SqlError::new(
        SqlState::DependentObjectsStillExist,
        format!("cannot rename \"{renamed}\": view \"{}\" can't follow: {}", view.name, error.message),
    )
    .with_hint("drop the view, rename, and create the view anew")
}
