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
        if old.materialized || view.materialized {
            return Err(SqlError::unsupported(
                "CREATE OR REPLACE of a materialized view that exists is not supported yet",
            )
            .with_hint(format!("use DROP MATERIALIZED VIEW \"{}\" CASCADE, then CREATE", view.name)));
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
            let kept = old.schema.fields().iter().zip(view.schema.fields());
            let differs = kept.clone().find(|(a, b)| a.name() != b.name() || a.data_type() != b.data_type());
            let missing = old.schema.fields().get(view.schema.fields().len());
            if let Some(column) = differs.map(|(old, _)| old).or(missing) {
                return Err(SqlError::new(
                    SqlState::InvalidDefinition,
                    format!(
                        "cannot change column \"{}\" of view \"{}\" because view {plain} reads it",
                        column.name(),
                        view.name
                    ),
                )
                .with_hint("keep names, types and order of the columns; new ones come last"));
            }
        }
        Ok(Install::ReplaceView(view))
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
