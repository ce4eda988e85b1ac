//! Binding and planning with DataFusion, set up to speak the dialect.
//!
//! ```text
//! ast --relations: TUMBLE, HOP, CUMULATE--> logical plan --+--> batch: DataFusion optimizes and runs it
//!                                                          \--> optimize_for_streaming: the engine lowers it
//! ```

mod asof_join;
mod checked;
mod compatibility;
mod definitions;
mod errors;
mod gap_fill;
mod grouping_sets;
mod json_marks;
mod lateral;
mod match_recognize;
mod outputs;
mod parameters;
mod relations;
mod rewrites;
mod set_operations;
mod set_returning;
mod spellings;
mod stop;
mod streaming;
mod subqueries;
#[cfg(test)]
mod tests;
mod using;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::config::Dialect;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::context::{QueryPlanner, SessionContext};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as PlannerStatement;
use datafusion::sql::sqlparser::ast;

pub use self::checked::checked_physical_expr;
pub use self::compatibility::{EMPTY_CATALOGS, mentions_catalogs};
pub use self::definitions::bind_table;
pub use self::errors::from_datafusion;
pub use self::outputs::{BoundOutput, bind_output};
pub use self::stop::QueryStop;
pub use self::streaming::{optimize_for_streaming, reads_clock};
use crate::asof_join::AsofJoinPlanner;
use crate::changelog::Changelog;
use crate::functions_sql::SqlFunctions;
use crate::lookup_join::PlainLookups;
use crate::match_recognize::MatchRecognizePlanner;
use crate::session_tvf::SessionTvfPlanner;
use crate::types::DialectTypes;
use crate::window_tvf::WindowTvfPlanner;
use crate::{
    Catalog, DEFAULT_DATABASE, DEFAULT_SCHEMA, Result, SqlError, SqlState, aggregates, functions, suggest,
};

/// What a session's planner needs to know.
#[derive(Clone, Debug)]
pub struct PlannerConfig {
    /// Threads a batch query may use.
    pub target_partitions: usize,
    /// Rows in a batch.
    pub batch_size: usize,
    /// Memory pool, disk manager and caches, shared by all sessions.
    pub runtime: Arc<RuntimeEnv>,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        PlannerConfig { target_partitions: 1, batch_size: 8192, runtime: Arc::new(RuntimeEnv::default()) }
    }
}

/// A session state of the dialect, with an empty catalog `dev`.`public`.
pub fn session_state(config: &PlannerConfig) -> SessionState {
    let mut session = SessionConfig::new()
        .with_default_catalog_and_schema(DEFAULT_DATABASE, DEFAULT_SCHEMA)
        .with_target_partitions(config.target_partitions.max(1))
        .with_batch_size(config.batch_size.max(1));
    let options = session.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    // A literal such as 0.1 is a numeric, so that money stays exact, as in PostgreSQL.
    options.sql_parser.parse_float_as_decimal = true;
    options.execution.time_zone = Some("UTC".to_string());

    let mut builder = SessionStateBuilder::new_with_default_features()
        .with_config(session)
        .with_runtime_env(Arc::clone(&config.runtime))
        .with_relation_planners(vec![
            Arc::new(relations::WindowRelations),
            Arc::new(match_recognize::MatchRelations),
            Arc::new(asof_join::AsofRelations),
        ])
        .with_type_planner(Arc::new(DialectTypes))
        .with_query_planner(Arc::new(BatchPlanner))
        .with_optimizer_rule(Arc::new(PlainLookups))
        .with_analyzer_rule(Arc::new(checked::ConstantArithmetic));
    // Ours come before DataFusion's planners and, by name, replace its functions.
    builder.expr_planners().get_or_insert_with(Vec::new).insert(0, Arc::new(functions::JsonOperators));
    builder.expr_planners().get_or_insert_with(Vec::new).insert(0, Arc::new(aggregates::AggregateCalls));
    builder.scalar_functions().get_or_insert_with(Vec::new).extend(functions::all());
    builder.scalar_functions().get_or_insert_with(Vec::new).extend(rewrites::markers());
    let ours = aggregates::all();
    let functions = builder.aggregate_functions().get_or_insert_with(Vec::new);
    // Not only their names, also their aliases go: a state built out of this one registers all it finds, in any order,
    // and DataFusion's function behind an alias would take its own name back.
    functions.retain(|theirs| ours.iter().all(|ours| ours.name() != theirs.name()));
    functions.extend(ours);
    builder.build()
}

/// [`session_state`] as a context, which registers tables and runs plans.
pub fn session_context(config: &PlannerConfig) -> SessionContext {
    SessionContext::new_with_state(session_state(config))
}

/// Binds a query: names become columns, types are checked. `sql` is the text the query was parsed
/// from (for a parsed statement its own text), and error positions count within it.
pub async fn bind_query(state: &SessionState, query: &ast::Query, sql: &str) -> Result<LogicalPlan> {
    bind_statement(state, ast::Statement::Query(Box::new(query.clone())), sql).await
}

/// Binds any statement that sqlparser knows, e.g. an INSERT; which ones to allow is the caller's matter.
pub async fn bind_statement(
    state: &SessionState,
    mut statement: ast::Statement,
    sql: &str,
) -> Result<LogicalPlan> {
    if let Some(functions) = state.config().get_extension::<SqlFunctions>() {
        functions.expand(&mut statement)?;
    }
    if compatibility::mentions_catalogs(sql) {
        compatibility::rewrite(&mut statement);
    }
    let catalog = state.config().get_extension::<Catalog>();
    let prepared = relations::prepare(&mut statement, catalog.as_deref());
    prepared.map_err(|error| from_datafusion(error, sql))?;
    let bound = state.statement_to_plan(PlannerStatement::Statement(Box::new(statement))).await;
    let bound = bound.and_then(|plan| asof_join::rewrite(plan, state));
    let bound = bound.and_then(parameters::type_parameters).and_then(set_operations::rewrite);
    let bound = bound.and_then(subqueries::rewrite);
    match bound.and_then(rewrites::rewrite).and_then(lateral::rewrite).and_then(json_marks::mark) {
        Ok(plan) => Ok(plan),
        Err(error) => Err(with_hint(state, from_datafusion(error, sql))),
    }
}

/// Binds an expression over the columns of `schema`, as kept for DEFAULT, CHECK and generated columns.
pub fn bind_expr(state: &SessionState, sql: &str, schema: &DFSchema) -> Result<Expr> {
    let mut expr = crate::parse_expr(sql)?;
    relations::prepare_expr(&mut expr).map_err(|error| from_datafusion(error, sql))?;
    let expr = ast::ExprWithAlias { expr, alias: None };
    state
        .create_logical_expr_from_sql_expr(expr, schema)
        .map_err(|error| with_hint(state, from_datafusion(error, sql)))
}

/// Suggests what an unknown table or function may have meant; columns have their hint already.
fn with_hint(state: &SessionState, mut error: SqlError) -> SqlError {
    if error.hint.is_none() {
        error.hint = match error.state {
            SqlState::UndefinedTable => table_hint(state, &error.message),
            SqlState::UndefinedFunction => function_hint(state, &error.message),
            _ => None,
        };
    }
    error
}

/// The known table or view that an unknown one may have meant.
fn table_hint(state: &SessionState, message: &str) -> Option<String> {
    let wrong = message.split('"').nth(1)?;
    let names = state.catalog_list().catalog(DEFAULT_DATABASE)?.schema(DEFAULT_SCHEMA)?.table_names();
    suggest::closest(wrong, names.iter().map(String::as_str)).map(suggest::did_you_mean)
}

fn function_hint(state: &SessionState, message: &str) -> Option<String> {
    let wrong = message.strip_prefix("function ")?.strip_suffix(" does not exist")?;
    let scalar = state.scalar_functions().keys();
    let others = state.aggregate_functions().keys().chain(state.window_functions().keys());
    suggest::closest(wrong, scalar.chain(others).map(String::as_str)).map(suggest::did_you_mean)
}

/// Lets joins and row multipliers yield between batches: they can make billions of rows out of one input batch
/// without ever reading another, and a query that never yields can't be cancelled.
fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let multiplies = |name: &str| {
        name.contains("Join")
            || name.contains("Unnest")
            || name.contains("WindowTvf")
            || name.contains("MatchRecognize")
    };
    let plan = plan.transform_up(|node| {
        if multiplies(node.name()) {
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
        }
        Ok(Transformed::no(node))
    })?;
    Ok(plan.data)
}

/// Plans batch queries: DataFusion's planner, our window functions, and arithmetic that does not wrap.
#[derive(Debug)]
struct BatchPlanner;

#[async_trait]
impl QueryPlanner for BatchPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Changelog::refuse_in_query(logical_plan)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let plan = DefaultPhysicalPlanner::with_extension_planners(vec![
            Arc::new(WindowTvfPlanner),
            Arc::new(MatchRecognizePlanner),
            Arc::new(SessionTvfPlanner),
            Arc::new(AsofJoinPlanner),
        ])
        .create_physical_plan(logical_plan, session)
        .await?;
        let plan = match session.config().get_extension::<QueryStop>() {
            Some(query) => stop::stoppable(plan, &query)?,
            None => plan,
        };
        cooperative(checked::checked_plan(plan)?)
    }
}
