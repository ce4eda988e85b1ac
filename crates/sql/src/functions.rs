//! Scalar functions that shops and PostgreSQL's clients expect and DataFusion lacks, or has in
//! another form: times count microseconds in UTC, `to_char` takes PostgreSQL's patterns.

mod calendar;
mod date_bin;
pub(crate) mod json;
mod json_values;
mod patterns;
mod plain;
mod session;
mod strings;
mod time;
mod to_char;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};

pub use json::JsonOperators;
pub(crate) use strings::identifier as quoted_name;

/// All functions of this module, to be registered over DataFusion's own.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let functions = [
        ScalarUDF::new_from_impl(time::Now::new()),
        ScalarUDF::new_from_impl(time::ToTimestamp::new()),
        ScalarUDF::new_from_impl(date_bin::DateBin::new()),
        ScalarUDF::new_from_impl(to_char::ToChar::new()),
        ScalarUDF::new_from_impl(json::JsonGet::new(json::Answer::Json)),
        ScalarUDF::new_from_impl(json::JsonGet::new(json::Answer::Text)),
        ScalarUDF::new_from_impl(session::PgTypeof::new()),
        ScalarUDF::new_from_impl(session::SessionText::version()),
        ScalarUDF::new_from_impl(session::SessionText::current_database()),
        ScalarUDF::new_from_impl(session::SessionText::current_schema()),
    ];
    functions
        .into_iter()
        .chain(json_values::all())
        .chain(calendar::all())
        .chain(strings::all())
        .chain(patterns::all())
        .map(Arc::new)
        .collect()
}

/// True when every argument is a single value, so that the answer may be one too.
fn all_scalar(args: &[ColumnarValue]) -> bool {
    args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
}

/// Computes the arrays of `rows` rows, one row when all arguments are single values.
fn arrays(args: &[ColumnarValue], rows: usize) -> Result<Vec<arrow::array::ArrayRef>> {
    let rows = if all_scalar(args) { 1 } else { rows };
    args.iter().map(|arg| arg.to_array(rows)).collect()
}

/// The array as an answer, as a single value when all arguments were.
fn answer(args: &[ColumnarValue], array: arrow::array::ArrayRef) -> Result<ColumnarValue> {
    match all_scalar(args) {
        true => Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&array, 0)?)),
        false => Ok(ColumnarValue::Array(array)),
    }
}
