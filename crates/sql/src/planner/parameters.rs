//! Types of `$1`, `$2`, ... that only a cast tells: `$1::bigint`.
//!
//! DataFusion infers a parameter's type from what it is compared with, not from a cast around it; the parameter would be
//! read as text, and a binary value as garbage.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// What is known of a parameter.
#[derive(Clone, PartialEq)]
enum Known {
    /// Told by an operator beside it.
    Inferred(FieldRef),
    /// Told by every cast around it.
    Cast(FieldRef),
    /// Cast to different types: it is text, which can be cast to all of them.
    Contradiction,
}

/// The plan in which each parameter has the type that its casts agree on, where nothing else says one.
pub(super) fn typed_by_casts(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.get_parameter_names()?.is_empty() {
        return Ok(plan);
    }
    let mut known: HashMap<String, Known> = HashMap::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                learn(expr, &mut known);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|expr| match expr {
                Expr::Placeholder(mut placeholder) if placeholder.field.is_none() => {
                    let field = match known.get(&placeholder.id) {
                        Some(Known::Inferred(field) | Known::Cast(field)) => Some(Arc::clone(field)),
                        _ => None,
                    };
                    let changed = field.is_some();
                    placeholder.field = field;
                    let expr = Expr::Placeholder(placeholder);
                    Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })
    .map(|transformed| transformed.data)
}

fn learn(expr: &Expr, known: &mut HashMap<String, Known>) {
    match expr {
        Expr::Placeholder(placeholder) => {
            if let Some(field) = &placeholder.field {
                known.insert(placeholder.id.clone(), Known::Inferred(Arc::clone(field)));
            }
        }
        Expr::Cast(cast) => {
            let Expr::Placeholder(placeholder) = cast.expr.as_ref() else { return };
            let told = Known::Cast(Arc::clone(&cast.field));
            known
                .entry(placeholder.id.clone())
                .and_modify(|before| {
                    if matches!(before, Known::Cast(_)) && *before != told {
                        *before = Known::Contradiction;
                    }
                })
                .or_insert(told);
        }
        _ => {}
    }
}
