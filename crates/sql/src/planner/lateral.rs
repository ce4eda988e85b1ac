//! LATERAL without a join: a function of the row before it is computed in the row's own pipeline.
//!
//! ```text
//!   t CROSS JOIN LATERAL unnest(t.tags) AS u(tag)     ->     t -> t.*, t.tags AS list -> unnest list -> t.*, tag
//! ```
//!
//! This works while the right side reads nothing but the row: constants, projections, filters and unnest. What
//! reads a table stays as it is, for the planner's own decorrelation.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, NullHandling, Result, ScalarValue, TableReference};
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, Unnest,
};

/// Rewrites every such join, in subqueries too.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = &node
            && let Some(plan) = in_one_pipeline(join)?
        {
            return Ok(Transformed::yes(plan));
        }
        Ok(Transformed::no(node))
    })?;
    Ok(rewritten.data)
}

fn in_one_pipeline(join: &Join) -> Result<Option<LogicalPlan>> {
    let on_true = matches!(&join.filter, None | Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)));
    let outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left if on_true => true,
        _ => return Ok(None),
    };
    if !join.on.is_empty() || !is_lateral(&join.right) {
        return Ok(None);
    }
    let pipeline = Pipeline { left: join.left.schema(), outer };
    let Some(plan) = pipeline.over(&join.right, &join.left)? else { return Ok(None) };
    // The left columns get their names back.
    let shown = join.left.schema().iter().enumerate().map(|(number, (relation, field))| {
        Expr::Column(Column::from_name(left_name(number))).alias_qualified(relation.cloned(), field.name())
    });
    let own = join
        .right
        .schema()
        .iter()
        .map(|(relation, field)| Expr::Column(Column::new(relation.cloned(), field.name())));
    let plan = LogicalPlanBuilder::from(plan).project(shown.chain(own).collect::<Vec<_>>())?;
    let plan = match &join.filter {
        Some(filter) if !on_true => plan.filter(filter.clone())?,
        _ => plan,
    };
    plan.build().map(Some)
}

fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        LogicalPlan::Projection(projection) => is_lateral(&projection.input),
        _ => false,
    }
}

/// Names under which the left row travels, so that nothing of the right side hides it.
fn left_name(number: usize) -> String {
    format!("__lateral_{number}")
}

struct Pipeline<'a> {
    left: &'a DFSchema,
    /// LEFT JOIN: a row without results stays, with NULLs.
    outer: bool,
}

impl Pipeline<'_> {
    /// `right` computed over the rows of `left`, with the left columns first; `None` when it reads more than the row.
    fn over(&self, right: &LogicalPlan, left: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match right {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
                let renamed = self.left.iter().enumerate().map(|(number, (relation, field))| {
                    Expr::Column(Column::new(relation.cloned(), field.name())).alias(left_name(number))
                });
                LogicalPlanBuilder::from(left.clone()).project(renamed.collect::<Vec<_>>())?.build().map(Some)
            }
            LogicalPlan::Subquery(subquery) => self.over(&subquery.subquery, left),
            LogicalPlan::Projection(projection) => {
                let Some(input) = self.over(&projection.input, left)? else { return Ok(None) };
                let computed = projection.expr.iter().map(|expr| self.bound(expr.clone()));
                let exprs = self.row().map(Ok).chain(computed).collect::<Result<Vec<_>>>()?;
                Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection).map(Some)
            }
            LogicalPlan::Filter(filter) if !self.outer => {
                let Some(input) = self.over(&filter.input, left)? else { return Ok(None) };
                let predicate = self.bound(filter.predicate.clone())?;
                Filter::try_new(predicate, Arc::new(input)).map(LogicalPlan::Filter).map(Some)
            }
            LogicalPlan::Unnest(unnest) => {
                let Some(input) = self.over(&unnest.input, left)? else { return Ok(None) };
                let mut options = unnest.options.clone();
                if self.outer {
                    options.null_handling = NullHandling::PreserveAndExpandEmpty;
                }
                let columns = unnest.exec_columns.clone();
                Unnest::try_new(Arc::new(input), columns, options).map(LogicalPlan::Unnest).map(Some)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = self.over(&alias.input, left)? else { return Ok(None) };
                let named = alias.input.schema().iter().map(|(relation, field)| {
                    let column = Expr::Column(Column::new(relation.cloned(), field.name()));
                    column.alias_qualified(Some::<TableReference>(alias.alias.clone()), field.name())
                });
                let exprs: Vec<Expr> = self.row().chain(named).collect();
                Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The left row, unchanged.
    fn row(&self) -> impl Iterator<Item = Expr> {
        (0..self.left.fields().len()).map(|number| Expr::Column(Column::from_name(left_name(number))))
    }

    /// References to the row outside become columns of the pipeline.
    fn bound(&self, expr: Expr) -> Result<Expr> {
        let name = expr.schema_name().to_string();
        let (qualifier, is_alias) = match &expr {
            Expr::Alias(alias) => (alias.relation.clone(), true),
            _ => (None, false),
        };
        let bound = expr.transform_up(|expr| match &expr {
            Expr::OuterReferenceColumn(_, column) => match self.left.maybe_index_of_column(column) {
                Some(number) => Ok(Transformed::yes(Expr::Column(Column::from_name(left_name(number))))),
                // A query further out is meant.
                None => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(match bound.transformed && !is_alias && bound.data.schema_name().to_string() != name {
            true => bound.data.alias_qualified(qualifier, name),
            false => bound.data,
        })
    }
}
