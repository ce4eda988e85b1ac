//! Types of `$1`, `$2`, ...: what a statement says about each, as PostgreSQL deduces it.
//!
//! DataFusion finds the type of a parameter that is compared with something. The rest is found here: in casts
//! (`$1::bigint`), arguments of functions, CASE, IN, BETWEEN, `= ANY($1)` and LIMIT. The first place that says
//! something counts, and all uses of the parameter get that type; what nothing is said about has no type, and is
//! text to a client.
//!
//! Rule: a parameter has one type in the whole plan, so `LogicalPlan::get_parameter_fields` never finds two.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList, Like, Placeholder, ScalarFunction};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Case, Cast, Expr, ExprSchemable, LogicalPlan, TryCast};

/// The types found so far, by the parameter's name (`$1`).
type Found = BTreeMap<String, FieldRef>;

/// The plan with a type at each parameter that the statement says something about.
pub(super) fn type_parameters(plan: LogicalPlan) -> Result<LogicalPlan> {
    let names = plan.get_parameter_names()?;
    if names.is_empty() {
        return Ok(plan);
    }
    let mut found = Found::new();
    collect(&plan, &mut found)?;
    apply(plan, &found)
}

fn collect(plan: &LogicalPlan, found: &mut Found) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let input = merge_schema(&node.inputs());
        if let LogicalPlan::Limit(limit) = node {
            for expr in limit.skip.iter().chain(&limit.fetch) {
                note(expr, &Field::new("", DataType::Int64, true), found);
            }
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                look_at(expr, &input, found);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Writes the type down if `expr` is a parameter without one.
fn note(expr: &Expr, field: &Field, found: &mut Found) {
    if let Expr::Placeholder(Placeholder { id, .. }) = expr
        && !field.data_type().is_null()
    {
        found.entry(id.clone()).or_insert_with(|| {
            let metadata = field.metadata().clone();
            // Signatures may ask for other layouts of text; clients and values know one.
            let data_type = match field.data_type() {
                DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
                other => other.clone(),
            };
            Arc::new(Field::new(id, data_type, true).with_metadata(metadata))
        });
    }
}

fn is_parameter(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(_))
}

/// What one expression says about the parameters right below it.
fn look_at(expr: &Expr, input: &DFSchema, found: &mut Found) {
    let field_of = |expr: &Expr| expr.to_field(input).ok().map(|(_, field)| field);
    // The parameters among `exprs` are what the first of the others is.
    let alike = |exprs: &[&Expr], found: &mut Found| {
        if !exprs.iter().any(|expr| is_parameter(expr)) {
            return;
        }
        let known = exprs.iter().filter(|expr| !is_parameter(expr)).find_map(|expr| field_of(expr));
        if let Some(field) = known {
            exprs.iter().for_each(|expr| note(expr, &field, found));
        }
    };
    match expr {
        Expr::Placeholder(Placeholder { field: Some(field), .. }) => note(expr, field, found),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => note(expr, field, found),
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => alike(&[left, right], found),
        Expr::Like(Like { expr, pattern, .. }) | Expr::SimilarTo(Like { expr, pattern, .. }) => {
            alike(&[expr, pattern], found)
        }
        Expr::Between(Between { expr, low, high, .. }) => alike(&[expr, low, high], found),
        Expr::InList(InList { expr, list, .. }) => {
            alike(&std::iter::once(expr.as_ref()).chain(list).collect::<Vec<_>>(), found)
        }
        Expr::Case(Case { expr: operand, when_then_expr, else_expr }) => {
            let whens = when_then_expr.iter().map(|(when, _)| when.as_ref());
            match operand {
                Some(operand) => {
                    alike(&std::iter::once(operand.as_ref()).chain(whens).collect::<Vec<_>>(), found)
                }
                None => whens.for_each(|when| note(when, &Field::new("", DataType::Boolean, true), found)),
            }
            let results = when_then_expr.iter().map(|(_, then)| then.as_ref());
            let results = results.chain(else_expr.iter().map(AsRef::as_ref));
            alike(&results.collect::<Vec<_>>(), found);
        }
        Expr::Not(inner) => note(inner, &Field::new("", DataType::Boolean, true), found),
        Expr::ScalarFunction(function) => look_at_call(function, input, found),
        _ => {}
    }
}

/// Arguments of a function: those of `coalesce` and its like agree; others are what the signature wants.
fn look_at_call(call: &ScalarFunction, input: &DFSchema, found: &mut Found) {
    if !call.args.iter().any(is_parameter) {
        return;
    }
    let fields: Vec<FieldRef> = call
        .args
        .iter()
        .map(|arg| match arg.to_field(input) {
            Ok((_, field)) if !is_parameter(arg) => field,
            _ => Arc::new(Field::new("", DataType::Null, true)),
        })
        .collect();
    // `x = ANY($1)` is a call of array_has.
    if call.func.name() == "array_has"
        && let [list, item] = call.args.as_slice()
    {
        match (fields[0].data_type(), fields[1].data_type()) {
            (DataType::Null, item) if !item.is_null() => {
                let element = Field::new_list_field(item.clone(), true);
                note(list, &list_of(element, &fields[1]), found);
            }
            (DataType::List(element), DataType::Null) => note(item, element, found),
            _ => {}
        }
        return;
    }
    let Ok(wanted) = fields_with_udf(&fields, call.func.as_ref()) else { return };
    for (arg, wanted) in call.args.iter().zip(&wanted) {
        note(arg, wanted, found);
    }
}

/// The field of a list whose elements have the type that SQL calls like `item`'s.
fn list_of(element: Field, item: &Field) -> Field {
    let list = Field::new("", DataType::List(Arc::new(element)), true);
    match crate::types::sql_type_of(item) {
        Some(name) => crate::types::with_sql_type(list, &format!("{name}[]")),
        None => list,
    }
}

fn apply(plan: LogicalPlan, found: &Found) -> Result<LogicalPlan> {
    if found.is_empty() {
        return Ok(plan);
    }
    let typed = plan.transform_up_with_subqueries(|node| {
        let node = node.map_expressions(|expr| {
            expr.transform_up(|expr| match expr {
                Expr::Placeholder(Placeholder { id, field }) => match found.get(&id) {
                    Some(known) if field.as_ref() != Some(known) => {
                        Ok(Transformed::yes(Expr::Placeholder(Placeholder {
                            id,
                            field: Some(Arc::clone(known)),
                        })))
                    }
                    _ => Ok(Transformed::no(Expr::Placeholder(Placeholder { id, field }))),
                },
                other => Ok(Transformed::no(other)),
            })
        })?;
        if !node.transformed {
            return Ok(node);
        }
        node.map_data(|node| match node {
            // Their schema is found out anew from the rows.
            LogicalPlan::Values(values) => {
                datafusion::logical_expr::LogicalPlanBuilder::values(values.values)?.build()
            }
            node => node.recompute_schema(),
        })
    })?;
    Ok(typed.data)
}
