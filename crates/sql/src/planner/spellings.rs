//! PostgreSQL's spellings that DataFusion reads as something else, as calls of our functions.

use datafusion::sql::sqlparser::ast::{Expr, FunctionArguments, ObjectNamePart, Value};

use super::set_returning::{call, plain_arguments};

/// Rewrites `x AT TIME ZONE z`, `date_trunc(unit, x, zone)`, `substring(x FROM 'pattern')`, `ARRAY[x, ...]` and
/// `x LIKE p ESCAPE e`.
pub(super) fn rewrite(expr: &mut Expr) {
    if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } = expr
        && let Some(escape) =
            escape_char.take_if(|escape| escape.clone().into_string().as_deref() != Some("\\"))
    {
        **pattern = call("like_escape", vec![pattern.as_ref().clone(), Expr::Value(escape)]);
        return;
    }
    let rewritten = match expr {
        Expr::AtTimeZone { timestamp, time_zone } => {
            call("timezone", vec![time_zone.as_ref().clone(), timestamp.as_ref().clone()])
        }
        Expr::Substring { expr, substring_from: Some(from), substring_for: None, .. } if is_text(from) => {
            call("regexp_substr", vec![expr.as_ref().clone(), from.as_ref().clone()])
        }
        // The planner would look for the columns of an array literal in its own FROM only, not in those around.
        Expr::Array(array) if !array.elem.is_empty() => call("make_array", array.elem.clone()),
        Expr::Function(function) => {
            let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return };
            let FunctionArguments::List(list) = &function.args else { return };
            let Some(arguments) = plain_arguments(&list.args) else { return };
            match (name.value.to_ascii_lowercase().as_str(), arguments.as_slice()) {
                // Truncated where the zone's clocks are, and back.
                ("date_trunc", [unit, time, zone]) => {
                    let local = call("timezone", vec![zone.clone(), time.clone()]);
                    let truncated = call("date_trunc", vec![unit.clone(), local]);
                    call("timezone", vec![zone.clone(), truncated])
                }
                _ => return,
            }
        }
        _ => return,
    };
    *expr = rewritten;
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}
