//! INTERSECT and EXCEPT as counting, which is exact for bags and for NULLs.
//!
//! DataFusion plans them as semi and anti joins: right without ALL, but with ALL a row that is there twice on the
//! left passes or falls twice, whatever the right side holds. Here each side is marked, both are put together, and
//! equal rows (NULLs are equal) are counted per side:
//!
//! ```text
//!   left:  columns, true  \                                                  INTERSECT      left > 0 and right > 0
//!                          UNION ALL -> GROUP BY columns: left, right ->     EXCEPT         left > 0 and right = 0
//!   right: columns, false /                                                  INTERSECT ALL  least(left, right) times
//!                                                                            EXCEPT ALL     left - right times
//! ```
//!
//! The same plan serves queries and materialized views: it is made of what both have.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{NullEquality, NullHandling, Result, UnnestOptions, plan_datafusion_err};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_nested::expr_fn::array_repeat;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{
    Distinct, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, cast, col, ident, lit, when,
};

/// Replaces what the planner made of INTERSECT and EXCEPT, in subqueries too.
///
/// Right after binding only set operations join semi or anti with NULLs as equal: IN and EXISTS are still
/// expressions then.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut retyped = false;
    let plan = plan.transform_up_with_subqueries(|node| {
        let join = match node {
            LogicalPlan::Join(join) if is_set_operation(&join) => join,
            // A column that became wider shows in all that stands on it.
            other if retyped => return other.recompute_schema().map(Transformed::yes),
            other => return Ok(Transformed::no(other)),
        };
        let before = Arc::clone(join.left.schema());
        let counted = counted(&join)?;
        retyped |= before
            .fields()
            .iter()
            .zip(counted.schema().fields())
            .any(|(before, after)| before.data_type() != after.data_type());
        Ok(Transformed::yes(counted))
    })?;
    Ok(plan.data)
}

fn is_set_operation(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && join.left.schema().fields().len() == join.right.schema().fields().len()
}

fn counted(join: &Join) -> Result<LogicalPlan> {
    // Without ALL the planner made the left side distinct. DISTINCT written by the user does the same: a row that is
    // there once on the left is in either result at most once.
    let (left, distinct) = match join.left.as_ref() {
        LogicalPlan::Distinct(Distinct::All(input)) => (input, true),
        _ => (&join.left, false),
    };
    let shown = join.left.schema();
    let types = common_types(left, &join.right)?;
    let width = types.len();
    let name = |column: usize| format!("column_{column}");

    let both = marked(left, &types, true)?.union(marked(&join.right, &types, false)?.build()?)?;
    let count = |side: Expr| {
        let counted = Some(Box::new(side));
        Expr::AggregateFunction(AggregateFunction::new_udf(
            count_udaf(),
            vec![lit(1i64)],
            false,
            counted,
            vec![],
            None,
        ))
    };
    let keys: Vec<Expr> = (0..width).map(|column| ident(name(column))).collect();
    let counts = both.aggregate(
        keys.clone(),
        [count(col("on_left")).alias("on_left"), count(!col("on_left")).alias("on_right")],
    )?;
    let intersect = join.join_type == JoinType::LeftSemi;
    let (left, right) = (|| col("on_left"), || col("on_right"));
    let kept = match (distinct, intersect) {
        (true, true) => counts.filter(left().gt(lit(0i64)).and(right().gt(lit(0i64))))?,
        (true, false) => counts.filter(left().gt(lit(0i64)).and(right().eq(lit(0i64))))?,
        (false, true) => {
            let least = when(left().lt(right()), left()).otherwise(right())?;
            repeated(counts.filter(left().gt(lit(0i64)).and(right().gt(lit(0i64))))?, keys, least)?
        }
        (false, false) => repeated(counts.filter(left().gt(right()))?, keys, left() - right())?,
    };
    let shown = shown.iter().enumerate().map(|(column, (relation, field))| {
        ident(name(column)).alias_qualified(relation.cloned(), field.name())
    });
    kept.project(shown.collect::<Vec<_>>())?.build()
}

/// The side's columns under common names and types, and which side it is.
fn marked(side: &LogicalPlan, types: &[DataType], on_left: bool) -> Result<LogicalPlanBuilder> {
    let mut columns: Vec<Expr> = Vec::with_capacity(types.len() + 1);
    for (number, ((relation, field), wanted)) in side.schema().iter().zip(types).enumerate() {
        let column = Expr::Column(datafusion::common::Column::new(relation.cloned(), field.name()));
        let column = if field.data_type() == wanted { column } else { cast(column, wanted.clone()) };
        columns.push(column.alias(format!("column_{number}")));
    }
    columns.push(lit(on_left).alias("on_left"));
    LogicalPlanBuilder::from(side.clone()).project(columns)
}

fn common_types(left: &LogicalPlan, right: &LogicalPlan) -> Result<Vec<DataType>> {
    let fields = left.schema().fields().iter().zip(right.schema().fields());
    let is_text = |data_type: &DataType| {
        matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
    };
    fields
        .map(|(left, right)| {
            let types = (left.data_type(), right.data_type());
            let common = type_union_coercion(types.0, types.1);
            // Values of two types are not made comparable by writing both down as text.
            common.filter(|common| !is_text(common) || is_text(types.0) || is_text(types.1)).ok_or_else(
                || {
                    plan_datafusion_err!(
                        "type mismatch: columns \"{}\" and \"{}\" of a set operation have types {} and {}",
                        left.name(),
                        right.name(),
                        left.data_type(),
                        right.data_type()
                    )
                },
            )
        })
        .collect()
}

/// Each row as often as `times` says, which is above zero.
fn repeated(rows: LogicalPlanBuilder, keys: Vec<Expr>, times: Expr) -> Result<LogicalPlanBuilder> {
    let mut columns = keys;
    columns.push(array_repeat(lit(true), times).alias("repeated"));
    let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
    rows.project(columns)?.unnest_column_with_options("repeated", options)
}
