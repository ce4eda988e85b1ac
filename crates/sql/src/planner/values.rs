//! Rows of VALUES have to agree in the SQL types of their columns, also where Arrow does not tell these apart.
//!
//! ```text
//!   VALUES ('[]'::jsonb), ('{}')    ->    VALUES ('[]'::jsonb), (CAST('{}' AS jsonb))
//! ```

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{CastKind, DataType as SqlType, Expr, SetExpr, Value, Values};

use crate::types::from_ast;

/// Casts what stands beside a cast to a type that is text to Arrow to the same type, and to text where there are two.
pub(super) fn agree(body: &mut SetExpr) {
    let SetExpr::Values(Values { rows, .. }) = body else { return };
    if rows.len() < 2 {
        return;
    }
    let width = rows.iter().map(|row| row.content.len()).min().unwrap_or(0);
    for column in 0..width {
        let mut types = rows.iter().filter_map(|row| text_type(&row.content[column]));
        let Some(first) = types.next().cloned() else { continue };
        let wanted = if types.all(|other| *other == first) { first } else { SqlType::Text };
        for row in rows.iter_mut() {
            let expr = &mut row.content[column];
            if text_type(expr) != Some(&wanted) {
                let inner = std::mem::replace(expr, Expr::value(Value::Null));
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(inner),
                    data_type: wanted.clone(),
                    array: false,
                    format: None,
                };
            }
        }
    }
}

/// The type that is cast to, if Arrow takes it for text.
fn text_type(expr: &Expr) -> Option<&SqlType> {
    match expr {
        Expr::Nested(expr) => text_type(expr),
        Expr::Cast { data_type, .. } => {
            from_ast(data_type).is_ok_and(|found| found.data_type == DataType::Utf8).then_some(data_type)
        }
        _ => None,
    }
}
