//! GROUPING SETS, CUBE and ROLLUP as one plain GROUP BY per set, put together.
//!
//! ```text
//!   GROUP BY ROLLUP (a, b)   ->   GROUP BY a, b    a, b, grouping_id 0   \
//!                                 GROUP BY a       a, NULL, 1             UNION ALL
//!                                 no GROUP BY      NULL, NULL, 3         /
//! ```
//!
//! GROUPING() was turned into bits of the grouping id before: a set bit is a column that the set leaves out.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, ident, lit};

/// Replaces every aggregate over grouping sets, in subqueries too.
pub(super) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(sets)] => {
                let sets = sets_of(sets);
                Ok(Transformed::yes(union_of_sets(&aggregate, &sets)?))
            }
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(expanded.data)
}

/// The grouped expressions of each set, in the standard's order.
fn sets_of(sets: &GroupingSet) -> Vec<Vec<Expr>> {
    match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(columns) => (0..=columns.len()).rev().map(|n| columns[..n].to_vec()).collect(),
        GroupingSet::Cube(columns) => (0..1u64 << columns.len())
            .rev()
            .map(|chosen| {
                let last = columns.len() - 1;
                let picked = |(i, _): &(usize, &Expr)| chosen >> (last - i) & 1 == 1;
                columns.iter().enumerate().filter(picked).map(|(_, column)| column.clone()).collect()
            })
            .collect(),
    }
}

fn union_of_sets(aggregate: &Aggregate, sets: &[Vec<Expr>]) -> Result<LogicalPlan> {
    let Some(Expr::GroupingSet(all)) = aggregate.group_expr.first() else {
        return internal_err!("an aggregate over grouping sets has them");
    };
    let columns = all.distinct_expr();
    let schema = &aggregate.schema;
    let name = |column: usize| format!("column_{column}");
    let mut union: Option<LogicalPlanBuilder> = None;
    for set in sets {
        let mut grouped: Vec<Expr> = Vec::with_capacity(set.len());
        for expression in set {
            if !grouped.contains(expression) {
                grouped.push(expression.clone());
            }
        }
        let keys = grouped.len();
        let mut calls = aggregate.aggr_expr.clone();
        if keys == 0 && calls.is_empty() {
            // The one group without a key needs something to compute.
            calls.push(datafusion::functions_aggregate::expr_fn::count(lit(1i64)));
        }
        let plain = Aggregate::try_new(Arc::clone(&aggregate.input), grouped.clone(), calls)?;
        let results = plain.schema.columns();
        let mut shown = Vec::with_capacity(schema.fields().len());
        let mut left_out = 0u64;
        for (number, column) in columns.iter().enumerate() {
            let value = match grouped.iter().position(|expression| expression == *column) {
                Some(position) => Expr::Column(results[position].clone()),
                None => {
                    left_out |= 1 << (columns.len() - 1 - number);
                    Expr::Literal(ScalarValue::try_from(schema.field(number).data_type())?, None)
                }
            };
            shown.push(value.alias(name(number)));
        }
        let id = ScalarValue::UInt64(Some(left_out)).cast_to(schema.field(columns.len()).data_type())?;
        shown.push(Expr::Literal(id, None).alias(name(columns.len())));
        for call in 0..aggregate.aggr_expr.len() {
            shown.push(Expr::Column(results[keys + call].clone()).alias(name(columns.len() + 1 + call)));
        }
        let part = LogicalPlanBuilder::from(LogicalPlan::Aggregate(plain)).project(shown)?;
        union = Some(match union {
            None => part,
            Some(before) => before.union(part.build()?)?,
        });
    }
    let Some(union) = union else { return internal_err!("GROUPING SETS without a set") };
    let shown = schema.iter().enumerate().map(|(number, (relation, field))| {
        let Column { name: column, .. } = Column::from_name(name(number));
        ident(column).alias_qualified(relation.cloned(), field.name())
    });
    union.project(shown.collect::<Vec<_>>())?.build()
}
