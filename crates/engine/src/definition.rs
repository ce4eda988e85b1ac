//! Definitions carried out: from a parsed CREATE or DROP to what the engine installs.
//!
//! The same path serves a statement of a session and the statements that the log holds at start.

mod alter;
mod replace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use alter::Redefinition;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sql::catalog::Lateness;
use sql::catalog::Object;
use sql::types::{sql_type_of, with_sql_type};
use sql::{
    Catalog, FunctionDef, IndexDef, ParsedStatement, RelationId, SqlError, SqlState, Statement, TableDef,
    ViewDef,
};

use crate::constraints::Constraints;
use crate::operators::Emit;
use crate::plan::{LowerOptions, Properties, Relations, SourceInfo, StreamPlan, TimeKind, lower};
use crate::provider::QueryScope;

/// What the engine is to do for a definition.
#[derive(Clone)]
pub enum Install {
    Table(Arc<TableDef>),
    /// A plain view has no plan.
    View {
        view: Arc<ViewDef>,
        plan: Option<Arc<StreamPlan>>,
    },
    Index(Arc<IndexDef>),
    Function(Arc<FunctionDef>),
    /// A plain view in the place of the one that is there.
    ReplaceView(Arc<ViewDef>),
    /// A materialized view in the place of the one that is there, then those that stand on it, computed anew.
    Replace(Vec<(Arc<ViewDef>, Arc<StreamPlan>)>),
    /// What was built beside a materialized view takes its place.
    CutOver {
        view: RelationId,
        reads_clock: bool,
    },
    Comment {
        of: (RelationId, Option<usize>),
        text: Option<String>,
    },
    /// ALTER.
    Redefine(Redefinition),
    /// Dependants first.
    Drop(Vec<Object>),
    /// `IF NOT EXISTS` of something that exists, `IF EXISTS` of something that doesn't.
    Nothing,
}

/// What planning needs to know of the materialized views that exist.
pub type ViewProperties = BTreeMap<String, Properties>;

/// What a definition is planned against; nothing of it is changed.
#[derive(Clone, Copy)]
pub struct DefinitionPlanner<'a> {
    pub catalog: &'a Arc<Catalog>,
    pub views: &'a ViewProperties,
    pub base: &'a Arc<SessionState>,
}

impl DefinitionPlanner<'_> {
    /// What carries out the statement; `id` is for what it creates.
    ///
    /// # Errors
    /// Everything that is wrong with the statement: it is not logged then.
    pub async fn plan(&self, statement: &ParsedStatement, id: RelationId) -> Result<Install, SqlError> {
        let DefinitionPlanner { catalog, base, .. } = *self;
        match &statement.statement {
            Statement::CreateTable { table, if_not_exists } => {
                if exists(catalog, &table.name, *if_not_exists, "table")? {
                    return Ok(Install::Nothing);
                }
                let table = sql::planner::bind_table(base, table)?;
                let table = Arc::new(TableDef { id, sql: statement.sql.clone(), ..table });
                Constraints::new(Arc::clone(&table), base)?;
                Ok(Install::Table(table))
            }
            Statement::CreateView { view, if_not_exists, or_replace } => {
                if *or_replace && let Some(old) = catalog.views.get(&view.name) {
                    return self.replace_view(statement, view, old).await;
                }
                if exists(catalog, &view.name, *if_not_exists, "view")? {
                    return Ok(Install::Nothing);
                }
                self.create_view(statement, view, id).await
            }
            Statement::CreateIndex { index, if_not_exists } => {
                if exists(catalog, &index.name, *if_not_exists, "index")? {
                    return Ok(Install::Nothing);
                }
                check_index(catalog, index)?;
                Ok(Install::Index(Arc::new(IndexDef { id, sql: statement.sql.clone(), ..index.clone() })))
            }
            Statement::Drop { kind, names, if_exists, cascade } => {
                let order = catalog.drop_order(*kind, names, *if_exists, *cascade)?;
                Ok(if order.is_empty() { Install::Nothing } else { Install::Drop(order) })
            }
            Statement::CreateFunction { function, or_replace } => {
                self.create_function(statement, function, *or_replace, id).await
            }
            Statement::Comment { kind, name, column, text } => {
                self.comment(*kind, name, column.as_deref(), text.clone())
            }
            Statement::Alter { kind, name, if_exists, change } => {
                self.alter(*kind, name, *if_exists, change).await
            }
            _ => Err(SqlError::internal("this statement defines nothing")),
        }
    }

    /// [`DefinitionPlanner::plan`] for callers that are not async. It runs on a thread of its own, because the caller
    /// may stand inside some executor, and those don't nest.
    pub fn plan_blocking(&self, statement: &ParsedStatement, id: RelationId) -> Result<Install, SqlError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| futures::executor::block_on(self.plan(statement, id)));
            thread.join().unwrap_or_else(|_| Err(SqlError::internal("planning a definition failed")))
        })
    }

    async fn create_view(
        &self,
        statement: &ParsedStatement,
        view: &ViewDef,
        id: RelationId,
    ) -> Result<Install, SqlError> {
        // Positions in the query are counted from its own start; move them to the whole request's.
        let start = statement.sql.find(&view.query).map_or(0, |at| statement.sql[..at].chars().count());
        let shifted = |e: SqlError| e.shifted(start);
        let query = sql::parse_query(&view.query).map_err(shifted)?;
        let scope = QueryScope::new(Arc::clone(self.catalog), Arc::clone(self.base));
        let state = scope.state_for(&view.query);
        let bound = sql::planner::bind_query(&state, &query, &view.query).await.map_err(shifted)?;
        let depends_on = scope.names();
        let calls = scope.calls();
        let mut view = ViewDef { id, sql: statement.sql.clone(), depends_on, calls, ..view.clone() };
        check_columns(&bound, &view.name)?;
        if !view.materialized {
            view.schema = crate::session::plain_schema(bound.schema());
            return Ok(Install::View { view: Arc::new(view), plan: None });
        }
        refuse_volatile(&bound)?;
        let announced = Arc::clone(bound.schema());
        let optimized = sql::planner::optimize_for_streaming(&state, bound)?;
        let plan = self.lower(&optimized, &view)?;
        view.schema = announced_schema(&plan.root().schema, &announced);
        Ok(Install::View { view: Arc::new(view), plan: Some(Arc::new(plan)) })
    }

    fn lower(&self, optimized: &LogicalPlan, view: &ViewDef) -> Result<StreamPlan, SqlError> {
        let options = LowerOptions {
            emit: if view.emit_on_window_close { Emit::OnClose } else { Emit::Updating },
            allowed_lateness_us: view.lateness.allowed_us,
        };
        if view.lateness != Lateness::default() && view.lateness.allowed_us <= 0 {
            return Err(SqlError::new(
                SqlState::InvalidParameterValue,
                "allowed_lateness has to be positive",
            ));
        }
        lower(optimized, &CatalogRelations { catalog: self.catalog, views: self.views }, options)
    }
}

fn exists(catalog: &Catalog, name: &str, tolerated: bool, kind: &str) -> Result<bool, SqlError> {
    let taken = catalog.tables.contains_key(name)
        || catalog.views.contains_key(name)
        || catalog.indexes.contains_key(name);
    if taken && !tolerated {
        return Err(SqlError::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists"))
            .with_hint(format!(
                "choose another name for the {kind}, drop the old one, or add IF NOT EXISTS"
            )));
    }
    Ok(taken)
}

/// The schema of the rows, with the SQL names of types that the bound query knew.
fn announced_schema(rows: &SchemaRef, bound: &DFSchema) -> SchemaRef {
    assert_eq!(rows.fields().len(), bound.fields().len(), "lowering keeps the columns");
    let fields = rows.fields().iter().zip(bound.fields()).map(|(row, bound)| match sql_type_of(bound) {
        Some(name) => with_sql_type(Field::clone(row), name),
        None => Field::clone(row),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

struct CatalogRelations<'a> {
    catalog: &'a Catalog,
    views: &'a ViewProperties,
}

impl Relations for CatalogRelations<'_> {
    fn source(&self, name: &str) -> Option<SourceInfo> {
        if let Some(table) = self.catalog.tables.get(name) {
            let mut time = vec![None; table.columns.len()];
            let mut watermarks = BTreeSet::new();
            if let Some(watermark) = &table.watermark {
                time[watermark.column] = Some(TimeKind::Event);
                watermarks.insert(table.id);
            }
            return Some(SourceInfo {
                relation: table.id,
                schema: table.schema(),
                properties: Properties {
                    append_only: table.append_only,
                    key: (!table.primary_key.is_empty()).then(|| table.primary_key.clone()),
                    time,
                    watermarks,
                    delay_us: 0,
                    closed: false,
                },
            });
        }
        let view = self.catalog.views.get(name).filter(|v| v.materialized)?;
        let properties = self.views.get(name)?.clone();
        // What clients are told of the columns plays no part in computing.
        let fields = view.schema.fields().iter().map(|f| Field::clone(f).with_metadata(Default::default()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Some(SourceInfo { relation: view.id, schema, properties })
    }
}

fn check_columns(plan: &LogicalPlan, view: &str) -> Result<(), SqlError> {
    let mut seen = BTreeSet::new();
    for field in plan.schema().fields() {
        if !seen.insert(field.name()) {
            return Err(SqlError::new(
                SqlState::DuplicateColumn,
                format!("view \"{view}\" has two columns named \"{}\"", field.name()),
            )
            .with_hint("name one of them with AS"));
        }
    }
    Ok(())
}

/// A maintained view can't depend on when it is read.
fn refuse_volatile(plan: &LogicalPlan) -> Result<(), SqlError> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    use datafusion::logical_expr::{Expr, Volatility};
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            expression.apply(|e| {
                if let Expr::ScalarFunction(f) = e
                    && f.func.signature().volatility != Volatility::Immutable
                    && is_clock_or_random(f.func.name())
                {
                    found.get_or_insert_with(|| f.func.name().to_string());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|e| SqlError::internal(e.to_string()))?;
    match found {
        None => Ok(()),
        Some(name) => {
            Err(SqlError::unsupported(format!("{name}() is not supported in a materialized view yet"))
                .with_hint("use CREATE VIEW, which is computed when it is read, or windows over event time"))
        }
    }
}

fn is_clock_or_random(name: &str) -> bool {
    ["current_time", "random", "uuid"].contains(&name)
}

fn check_index(catalog: &Catalog, index: &IndexDef) -> Result<(), SqlError> {
    let columns: Vec<String> = if let Some(table) = catalog.tables.get(&index.relation) {
        table.columns.iter().map(|c| c.name.clone()).collect()
    } else if let Some(view) = catalog.views.get(&index.relation) {
        if !view.materialized {
            return Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("view \"{}\" is not materialized and can't have an index", view.name),
            )
            .with_hint("use CREATE MATERIALIZED VIEW"));
        }
        view.schema.fields().iter().map(|f| f.name().clone()).collect()
    } else {
        return Err(SqlError::new(
            SqlState::UndefinedTable,
            format!("relation \"{}\" does not exist", index.relation),
        ));
    };
    match index.columns.iter().find(|c| !columns.contains(c)) {
        None => Ok(()),
        Some(missing) => Err(SqlError::new(
            SqlState::UndefinedColumn,
            format!("column \"{missing}\" of relation \"{}\" does not exist", index.relation),
        )
        .with_hint(format!("its columns are {}", columns.join(", ")))),
    }
}
