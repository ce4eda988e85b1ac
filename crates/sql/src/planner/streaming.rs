//! The optimizer rules that a plan for continuous execution goes through.
//!
//! The engine recognizes aggregates, windows and joins in the plan, so rules that take them apart
//! (single distinct to group by, common subexpressions, leaf expressions) stay out, and so does
//! everything that pushes LIMIT into scans or looks at statistics: what is true of today's rows is
//! not true of tomorrow's.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_join::EliminateJoin;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::filter_null_join_keys::FilterNullJoinKeys;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use super::from_datafusion;
use crate::{Result, SqlError};

/// Coerces types and simplifies a bound plan, keeping its aggregates, windows and joins recognizable.
/// `ROW_NUMBER() ... WHERE rn <= n` stays a Filter over (Projection over) Window.
///
/// # Errors
///
/// Functions whose value changes while the rows stay: `now()`, `random()` and the like.
pub fn optimize_for_streaming(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    check_deterministic(&plan)?;
    check_scalar_subqueries(&plan)?;
    check_clock(&plan)?;
    let mut options = state.config_options().as_ref().clone();
    // Subqueries become joins, which the engine maintains, instead of values computed once.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    let options = Arc::new(options);
    let analyzed = state
        .analyzer()
        .execute_and_check(plan, &options, |_, _| {})
        .map_err(|error| from_datafusion(error, ""))?;
    let analyzed = super::grouping_sets::expand(analyzed).map_err(|error| from_datafusion(error, ""))?;
    let config = OptimizerContext::new_with_config_options(options).without_query_execution_start_time();
    let optimized =
        optimizer().optimize(analyzed, &config, |_, _| {}).map_err(|error| from_datafusion(error, ""))?;
    check_clock(&optimized)?;
    Ok(optimized)
}

/// In the order of DataFusion's own list.
fn optimizer() -> Optimizer {
    Optimizer::with_rules(vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateJoin::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(FilterNullJoinKeys::default()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(OptimizeProjections::new()),
    ])
}

/// A view equals its query over the rows; a value that changes by itself has no place in it.
fn check_deterministic(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr
                    && function.func.signature().volatility != Volatility::Immutable
                    && is_random(function.func.name(), function.func.signature().volatility)
                {
                    found = Some(function.func.name().to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map_err(|error| from_datafusion(error, ""))?;
    match found {
        None => Ok(()),
        Some(name) => Err(SqlError::unsupported(format!(
            "{name}() in a materialized view is not supported in this version"
        ))
        .with_hint("a view changes only when its rows do; use the rows' own time, or ask with a SELECT over the view")),
    }
}

/// Refuses a function whose value changes while the rows stay.
pub(super) fn refuse_clock(expr: &Expr, place: &str) -> Result<()> {
    let mut found = None;
    let visited = expr.apply(|expr| {
        if let Expr::ScalarFunction(function) = expr
            && (reads_clock(expr) || is_random(function.func.name(), function.func.signature().volatility))
        {
            found = Some(function.func.name().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(|error| from_datafusion(error, ""))?;
    match found {
        None => Ok(()),
        Some(name) => Err(SqlError::unsupported(format!("{name}() in {place} is not supported"))
            .with_hint("what matches depends on the rows alone; use the rows' own time")),
    }
}

/// A subquery used as a value becomes a join, which would multiply rows where the value is not one.
fn check_scalar_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarSubquery(subquery) = expr {
                    found |= subquery.subquery.max_rows().is_none_or(|rows| rows > 1);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map_err(|error| from_datafusion(error, ""))?;
    if !found {
        return Ok(());
    }
    Err(SqlError::unsupported("a subquery used as a value may give more than one row in a materialized view")
        .with_hint(
            "make it one row with an aggregate, as in (SELECT max(x) FROM t), or join the table instead",
        ))
}

fn is_random(name: &str, volatility: Volatility) -> bool {
    volatility == Volatility::Volatile || ["current_time", "localtime"].contains(&name)
}

/// The clock may be read by filters, where the engine makes rows come and go with it, and nowhere else.
fn check_clock(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::TableScan(_)) {
            node.apply_expressions(|expr| {
                found |= reads_clock(expr);
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(|error| from_datafusion(error, ""))?;
    match found {
        false => Ok(()),
        true => Err(SqlError::unsupported("now() in a materialized view is supported in WHERE and HAVING only")
            .with_hint(
                "compare there, as in ts > now() - INTERVAL '1 hour', or compute with now() in a SELECT over the view",
            )),
    }
}

/// True when the expression's value changes while time passes.
pub fn reads_clock(expr: &Expr) -> bool {
    let is_clock = |expr: &Expr| match expr {
        Expr::ScalarFunction(function) => ["now", "current_date"].contains(&function.func.name()),
        _ => false,
    };
    expr.exists(|expr| Ok(is_clock(expr))).unwrap_or(false)
}
