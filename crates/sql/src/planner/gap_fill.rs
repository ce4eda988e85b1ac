//! `GAP_FILL(t PARTITION BY k, ts, step, LOCF(a), INTERPOLATE(b))`: between two rows of a key that are more than a step
//! apart, a row for every step.
//!
//! ```text
//!   rows        12:00  a=5 b=1                                    12:03  a=7 b=4
//!   result      12:00  a=5 b=1   12:01  a=5 b=2   12:02  a=5 b=3   12:03  a=7 b=4
//! ```
//!
//! It is a query over what there is already: each row, with the time of the next one, gives the series of times up to that.
//! So views follow every change of the rows as they follow those of window functions. Of rows of one time the last one
//! counts, by the other columns. A gap of more than a million steps is left open. Columns that are neither key nor time nor filled are NULL in the rows between.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr as BoundExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, ObjectName, ObjectNamePart, SetExpr, Spanned, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::relations::{self, check_columns, located};
use super::set_returning::plain_arguments;
use crate::parser::rename::quoted;
use crate::types::{field_type_name, name_of};
use crate::{SqlError, SqlState, duration};

const USAGE: &str = "GAP_FILL(table [PARTITION BY column, ...], time_column, step [, LOCF(column)] [, INTERPOLATE(column)] ...)";
/// A gap of more steps is left open.
const STEPS_MAX: i128 = 1_000_000;
const DAY_US: i128 = 86_400_000_000;
// Names that no column of a table has.
const NEXT: &str = "gap_fill: next";
const TIME: &str = "gap_fill: time";

pub(super) fn is_gap_fill(name: &ObjectName) -> bool {
    let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return false };
    ident.value.eq_ignore_ascii_case("gap_fill")
}

#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// The value of the row before.
    Carried,
    /// On the line between the values of the row before and of the row after.
    Interpolated,
}

pub(super) fn plan(
    arguments: &[FunctionArg],
    span: Span,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let usage = |message: &str, span: Span| {
        let error = SqlError::new(SqlState::SyntaxError, message);
        located(error.with_hint(format!("write {USAGE}")), span)
    };
    let Some(mut expressions) = plain_arguments(arguments) else {
        return Err(usage("GAP_FILL has no named arguments", span));
    };
    let Some(step_at) = expressions.iter().position(|expr| matches!(expr, Expr::Interval(_))) else {
        return Err(usage("GAP_FILL needs a step, like INTERVAL '1 minute'", span));
    };
    if step_at < 2 {
        return Err(usage("GAP_FILL needs a table, a time column and a step", span));
    }
    let fills = expressions.split_off(step_at + 1);
    let (Some(step), Some(time)) = (expressions.pop(), expressions.pop()) else {
        return internal_err!("counted above");
    };
    let Expr::Subquery(subquery) = expressions.remove(0) else {
        return Err(usage("the first argument must be a table, view or subquery", span));
    };
    let step_us = duration::constant_us(&step).map_err(|error| located(error, step.span()))?;
    let Some(step_us) = step_us.filter(|us| *us > 0) else {
        return Err(usage("the step of GAP_FILL must be a positive interval", step.span()));
    };
    let derived = |subquery| TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
    let input = context.plan(derived(subquery.clone()))?;
    let schema = input.schema();
    let mut column = |expr: Expr| {
        let span = expr.span();
        match context.sql_to_expr(expr, schema)? {
            BoundExpr::Column(column) => Ok((schema.index_of_column(&column)?, column)),
            _ => Err(usage("GAP_FILL takes columns, not expressions", span)),
        }
    };
    let keys = expressions.into_iter().map(|key| Ok(column(key)?.0)).collect::<Result<Vec<usize>>>()?;
    let time_span = time.span();
    let (time, time_column) = column(time)?;
    check_columns(&input, &time_column, "GAP_FILL").map_err(|error| located(error, time_span))?;
    let mut filled: Vec<(usize, Fill)> = Vec::new();
    for fill in fills {
        let span = fill.span();
        let Some((how, argument)) = of_call(fill) else {
            return Err(usage("columns are filled with LOCF(column) or INTERPOLATE(column)", span));
        };
        let (index, named) = column(argument)?;
        if index == time || keys.contains(&index) || filled.iter().any(|(other, _)| *other == index) {
            let message = format!("column \"{}\" is filled already", named.name);
            return Err(located(SqlError::new(SqlState::InvalidDefinition, message), span));
        }
        let data_type = schema.field(index).data_type();
        if how == Fill::Interpolated && !data_type.is_numeric() {
            let message = format!(
                "INTERPOLATE takes numbers, and column \"{}\" has type {}",
                named.name,
                name_of(data_type)
            );
            let error = SqlError::new(SqlState::DatatypeMismatch, message).with_hint("use LOCF");
            return Err(located(error, span));
        }
        filled.push((index, how));
    }

    let name = |index: usize| quoted(schema.field(index).name());
    let next_of = |index: usize| quoted(&format!("{NEXT} {index}"));
    let (ts, next, at) = (name(time), quoted(NEXT), quoted(TIME));
    let mut leads = format!("lead({ts}) OVER w AS {next}");
    for (index, _) in filled.iter().filter(|(_, how)| *how == Fill::Interpolated) {
        leads.push_str(&format!(", lead({}) OVER w AS {}", name(*index), next_of(*index)));
    }
    let columns = 0..schema.fields().len();
    let output = |index: usize| {
        let own = format!("f.{}", name(index));
        let value = match filled.iter().find(|(column, _)| *column == index).map(|(_, how)| how) {
            _ if keys.contains(&index) => own,
            // The series has nanoseconds.
            _ if index == time => format!("CAST(s.{at} AS {})", field_type_name(schema.field(index))),
            Some(Fill::Carried) => own,
            Some(Fill::Interpolated) => {
                let field = schema.field(index);
                let seconds =
                    |to: String| format!("CAST(EXTRACT(EPOCH FROM ({to} - f.{ts})) AS DOUBLE PRECISION)");
                let (from, to) = (
                    format!("CAST({own} AS DOUBLE PRECISION)"),
                    format!("CAST(f.{} AS DOUBLE PRECISION)", next_of(index)),
                );
                let (passed, whole) = (seconds(format!("s.{at}")), seconds(format!("f.{next}")));
                let mut between = format!("{from} + ({to} - {from}) * ({passed} / {whole})");
                if field.data_type().is_integer() {
                    between = format!("round({between})");
                }
                let sql_type = field_type_name(field);
                format!("CASE WHEN s.{at} = f.{ts} THEN {own} ELSE CAST({between} AS {sql_type}) END")
            }
            None => format!("CASE WHEN s.{at} = f.{ts} THEN {own} END"),
        };
        format!("{value} AS {}", name(index))
    };
    let outputs = columns.clone().map(output).collect::<Vec<_>>().join(", ");
    // Rows of one time in an order that does not depend on that of their arrival.
    let ties = columns.filter(|index| {
        *index != time && !keys.contains(index) && is_ordered(schema.field(*index).data_type())
    });
    let order = std::iter::once(ts.clone()).chain(ties.map(name)).collect::<Vec<_>>().join(", ");
    let partition = match keys.as_slice() {
        [] => String::new(),
        keys => {
            format!("PARTITION BY {} ", keys.iter().map(|key| name(*key)).collect::<Vec<_>>().join(", "))
        }
    };
    // A wrong time, or a step meant otherwise, must not become more rows than there is memory.
    let widest_us = i128::from(step_us) * STEPS_MAX;
    let (days, us) = (widest_us / DAY_US, widest_us % DAY_US);
    let text = format!(
        "SELECT {outputs} FROM (SELECT i.*, {leads} FROM (SELECT 1) AS i WHERE {ts} IS NOT NULL \
         WINDOW w AS ({partition}ORDER BY {order})) AS f \
         CROSS JOIN LATERAL generate_series(f.{ts}, CASE WHEN f.{next} > f.{ts} AND \
         f.{next} <= f.{ts} + INTERVAL '{days} days {us} microseconds' \
         THEN f.{next} - INTERVAL '1 microsecond' ELSE f.{ts} END, \
         INTERVAL '{step_us} microseconds') AS s({at})"
    );
    let mut query = crate::parse_query(&text).map_err(|error| located(error, span))?;
    if let ControlFlow::Break(error) = relations::prepare_query(&mut query) {
        return Err(error);
    }
    let Some(TableFactor::Derived { subquery: place, .. }) =
        first_relation(&mut query.body).and_then(|relation| match relation {
            TableFactor::Derived { subquery, .. } => first_relation(&mut subquery.body),
            _ => None,
        })
    else {
        return internal_err!("the query of GAP_FILL has a subquery in a subquery");
    };
    *place = subquery;
    context.plan(derived(query))
}

/// `LOCF(column)` and `INTERPOLATE(column)`, taken apart.
fn of_call(expr: Expr) -> Option<(Fill, Expr)> {
    let Expr::Function(function) = expr else { return None };
    let how = match function.name.to_string().to_ascii_lowercase().as_str() {
        "locf" => Fill::Carried,
        "interpolate" => Fill::Interpolated,
        _ => return None,
    };
    let datafusion::sql::sqlparser::ast::FunctionArguments::List(list) = &function.args else { return None };
    let mut arguments = plain_arguments(&list.args)?;
    arguments.pop().filter(|_| arguments.is_empty()).map(|argument| (how, argument))
}

fn first_relation(body: &mut SetExpr) -> Option<&mut TableFactor> {
    match body {
        SetExpr::Select(select) => select.from.first_mut().map(|table| &mut table.relation),
        _ => None,
    }
}

fn is_ordered(data_type: &DataType) -> bool {
    !data_type.is_nested()
}
