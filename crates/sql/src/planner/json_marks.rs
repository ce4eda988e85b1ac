//! Tells JSON from text where JSON is made of values.
//!
//! Both are kept as text, and `jsonb_build_object('a', x)` has to quote the one and to take over the other. What is
//! JSON is known here: columns by their declared type, and what functions of JSON give.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::functions::json;

/// Functions that make JSON of their arguments.
const MAKERS: [&str; 5] =
    ["jsonb_build_object", "jsonb_build_array", "to_jsonb", "json_object_of_arrays", json::ELEMENT];
/// Other functions whose answer is JSON.
const JSON: [&str; 4] = ["json_get", "json_path", "jsonb_extract_path", "jsonb_strip_nulls"];

/// Marks the arguments that are JSON, in subqueries too.
pub(super) fn mark(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut retyped = false;
    let marked = plan.transform_up_with_subqueries(|node| {
        let schemas: Vec<_> = node.inputs().into_iter().map(|input| Arc::clone(input.schema())).collect();
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            expr.transform_up(|expr| marked_call(expr, &schemas))?.map_data(|expr| Ok(name.restore(expr)))
        })?;
        retyped |= node.transformed;
        match retyped {
            true => node.data.recompute_schema().map(Transformed::yes),
            false => Ok(node),
        }
    })?;
    Ok(marked.data)
}

fn marked_call(expr: Expr, schemas: &[impl AsRef<DFSchema>]) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
    if !MAKERS.contains(&call.func.name()) {
        return Ok(Transformed::no(expr));
    }
    if call.func.name() == json::ELEMENT {
        // It only stood for the question.
        let value = call.args.first().cloned().unwrap_or_else(|| expr.clone());
        return Ok(Transformed::yes(if is_json(&value, schemas) { raw(value) } else { value }));
    }
    if !call.args.iter().any(|arg| is_json(arg, schemas)) {
        return Ok(Transformed::no(expr));
    }
    let args = call.args.iter().map(|arg| match is_json(arg, schemas) {
        true => raw(arg.clone()),
        false => arg.clone(),
    });
    let call = ScalarFunction::new_udf(Arc::clone(&call.func), args.collect());
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

fn raw(value: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(json::raw_udf(), vec![value]))
}

fn is_json(expr: &Expr, schemas: &[impl AsRef<DFSchema>]) -> bool {
    match expr {
        Expr::Alias(alias) => is_json(&alias.expr, schemas),
        Expr::ScalarFunction(call) => {
            let name = call.func.name();
            name != json::ELEMENT && (MAKERS.contains(&name) || JSON.contains(&name))
        }
        Expr::Column(column) => schemas.iter().any(|schema| {
            let field = schema.as_ref().field_from_column(column);
            let declared = field.ok().and_then(|field| field.metadata().get("sql_type").cloned());
            declared.is_some_and(|name| name == "jsonb" || name == "json")
        }),
        _ => false,
    }
}
