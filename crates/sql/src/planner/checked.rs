//! Integer arithmetic that reports overflow instead of wrapping around.
//!
//! DataFusion has no session option for it, only a flag on each physical `+`, `-` and `*`, which
//! [`checked_physical_expr`] sets. Its optimizer computes constants without the flag, so
//! [`ConstantArithmetic`] does those before it gets there.

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{BinaryExpr as LogicalBinary, Cast, Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::types::with_seconds;

fn can_overflow(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
}

/// The expression with overflow checks on all its arithmetic.
pub fn checked_physical_expr(expr: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    let unchanged = Arc::clone(&expr);
    expr.transform_up(|node| match node.downcast_ref::<BinaryExpr>() {
        Some(binary) if can_overflow(*binary.op()) => {
            let checked =
                BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()))
                    .with_fail_on_overflow(true);
            Ok(Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>))
        }
        _ => Ok(Transformed::no(node)),
    })
    .map_or(unchanged, |transformed| transformed.data)
}

/// The plan with overflow checks in its projections and filters, where arithmetic ends up.
pub(super) fn checked_plan(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            if !projection.expr().iter().any(|projected| has_arithmetic(&projected.expr)) {
                return Ok(Transformed::no(node));
            }
            let exprs: Vec<ProjectionExpr> = projection
                .expr()
                .iter()
                .map(|projected| ProjectionExpr {
                    expr: checked_physical_expr(Arc::clone(&projected.expr)),
                    alias: projected.alias.clone(),
                })
                .collect();
            let checked = ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?;
            return Ok(Transformed::yes(Arc::new(checked) as Arc<dyn ExecutionPlan>));
        }
        if let Some(filter) = node.downcast_ref::<FilterExec>()
            && has_arithmetic(filter.predicate())
        {
            let checked = FilterExecBuilder::from(filter)
                .with_predicate(checked_physical_expr(Arc::clone(filter.predicate())))
                .build()?;
            return Ok(Transformed::yes(Arc::new(checked) as Arc<dyn ExecutionPlan>));
        }
        Ok(Transformed::no(node))
    })
    .map(|transformed| transformed.data)
}

fn has_arithmetic(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|node| Ok(node.downcast_ref::<BinaryExpr>().is_some_and(|binary| can_overflow(*binary.op()))))
        .unwrap_or(true)
}

/// Computes `+`, `-` and `*` of integer constants, with overflow as an error; gives constant times their seconds.
#[derive(Debug)]
pub(super) struct ConstantArithmetic;

impl AnalyzerRule for ConstantArithmetic {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| {
                // The column keeps the name that its expression gave it.
                let name =
                    datafusion::logical_expr::expr_rewriter::NamePreserver::new_for_projection().save(&expr);
                expr.transform_up(fold)?.map_data(|folded| Ok(name.restore(folded)))
            })
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "constant_arithmetic"
    }
}

fn fold(expr: Expr) -> Result<Transformed<Expr>> {
    let folded = match &expr {
        Expr::BinaryExpr(LogicalBinary { left, op, right }) if can_overflow(*op) => {
            match (integer(left), integer(right)) {
                (Some((a, a_type)), Some((b, b_type))) if a_type == b_type => {
                    let (sign, value) = match op {
                        Operator::Plus => ("+", a.checked_add(b)),
                        Operator::Minus => ("-", a.checked_sub(b)),
                        _ => ("*", a.checked_mul(b)),
                    };
                    match value.and_then(|value| literal(value, &a_type)) {
                        Some(value) => Some(value),
                        None => {
                            let message = format!("Overflow happened on: {a} {sign} {b}");
                            return Err(ArrowError::ArithmeticOverflow(message).into());
                        }
                    }
                }
                _ => None,
            }
        }
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(_, _)) => {
            return Ok(match cast.expr.as_ref() {
                Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) => match with_seconds(text) {
                    Some(text) => {
                        let literal = Expr::Literal(ScalarValue::Utf8(Some(text)), metadata.clone());
                        Transformed::yes(Expr::Cast(Cast::new_from_field(
                            Box::new(literal),
                            Arc::clone(&cast.field),
                        )))
                    }
                    None => Transformed::no(expr),
                },
                _ => Transformed::no(expr),
            });
        }
        // Constants of other widths come as casts.
        Expr::Cast(cast) if cast.field.metadata().is_empty() => {
            integer(&cast.expr).and_then(|(value, _)| literal(value, cast.field.data_type()))
        }
        _ => None,
    };
    Ok(match folded {
        Some(value) => Transformed::yes(Expr::Literal(value, None)),
        None => Transformed::no(expr),
    })
}

fn integer(expr: &Expr) -> Option<(i128, DataType)> {
    let Expr::Literal(value, _) = expr else { return None };
    let number = match value {
        ScalarValue::Int16(Some(n)) => i128::from(*n),
        ScalarValue::Int32(Some(n)) => i128::from(*n),
        ScalarValue::Int64(Some(n)) => i128::from(*n),
        _ => return None,
    };
    Some((number, value.data_type()))
}

fn literal(value: i128, data_type: &DataType) -> Option<ScalarValue> {
    match data_type {
        DataType::Int16 => i16::try_from(value).ok().map(|n| ScalarValue::Int16(Some(n))),
        DataType::Int32 => i32::try_from(value).ok().map(|n| ScalarValue::Int32(Some(n))),
        DataType::Int64 => i64::try_from(value).ok().map(|n| ScalarValue::Int64(Some(n))),
        _ => None,
    }
}
