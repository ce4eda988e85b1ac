//! EXISTS and IN outside of WHERE, as counts.
//!
//! ```text
//!   SELECT EXISTS (q)     ->     SELECT (SELECT count(*) FROM q) > 0
//!   SELECT x IN (q)       ->     CASE WHEN EXISTS (q WHERE c = x) THEN true
//!                                     WHEN x IS NULL AND EXISTS (q) OR EXISTS (q WHERE c IS NULL) THEN NULL
//!                                     ELSE false END
//! ```
//!
//! DataFusion makes joins of them in filters only; scalar subqueries it decorrelates in the SELECT list, too.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue, Spans};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Subquery, lit, when};

/// Rewrites the SELECT lists of the plan and of its subqueries.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Projection(projection) = &node else { return Ok(Transformed::no(node)) };
        let schema = Arc::clone(projection.input.schema());
        let names = NamePreserver::new_for_projection();
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let counted = expr.transform_up(|expr| as_counts(expr, &schema))?;
            Ok(counted.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(rewritten.data)
}

fn as_counts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let found = exists(subquery.subquery.as_ref().clone())?;
            Transformed::yes(if negated { !found } else { found })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let found = contains(*expr, subquery.subquery.as_ref(), schema)?;
            Transformed::yes(if negated { !found } else { found })
        }
        other => Transformed::no(other),
    })
}

/// True when the plan has a row.
fn exists(plan: LogicalPlan) -> Result<Expr> {
    let rows =
        LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64))])?.build()?;
    let subquery = Subquery {
        outer_ref_columns: rows.all_out_ref_exprs(),
        subquery: Arc::new(rows),
        spans: Spans::new(),
    };
    Ok(Expr::ScalarSubquery(subquery).gt(lit(0_i64)))
}

/// `x IN (plan)`, NULL where a NULL leaves it open.
fn contains(x: Expr, plan: &LogicalPlan, schema: &DFSchema) -> Result<Expr> {
    let (relation, field) = plan.schema().qualified_field(0);
    let column = Expr::Column(Column::new(relation.cloned(), field.name()));
    let filtered =
        |condition: Expr| exists(LogicalPlanBuilder::from(plan.clone()).filter(condition)?.build()?);
    let nullable = x.nullable(schema)?;
    // Seen from inside of the subquery, the row's columns are outside.
    let outer = x.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => {
                let field = Arc::clone(schema.field_from_column(&column)?);
                Transformed::yes(Expr::OuterReferenceColumn(field, column))
            }
            other => Transformed::no(other),
        })
    })?;
    let found = filtered(column.clone().eq(outer.data))?;
    let unknown = match (nullable, field.is_nullable()) {
        (false, false) => return Ok(found),
        (true, false) => x.is_null().and(exists(plan.clone())?),
        (false, true) => filtered(column.is_null())?,
        (true, true) => x.is_null().and(exists(plan.clone())?).or(filtered(column.is_null())?),
    };
    when(found, lit(true)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))
}
