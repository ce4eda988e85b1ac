//! Operators, one file each, named by the SQL word.
//!
//! All of them see columns by number: planning puts a projection below an operator that computes its
//! keys, arguments and filters, so that no operator evaluates expressions.

pub mod aggregate;
pub mod asof_join;
pub mod changelog;
pub mod constant;
pub mod hop_aggregate;
pub mod join;
pub mod match_recognize;
pub mod over;
#[cfg(test)]
pub mod saving;
pub mod temporal_buffer;
pub mod temporal_filter;
pub mod top_n;

use dataflow::{Error, KeyPart, Watermark};

/// Where a group's or partition's life ends: when the watermark reaches the key column's value plus
/// `add_us`. For a column that holds the window's end `add_us` is 0, for its start it is the window's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Number of the column, of type `Timestamp(Microsecond, _)`, in the operator's input.
    pub column: usize,
    pub add_us: i64,
    /// Keep the state this much longer and correct the closed window (`late = 'amend'`); 0 otherwise.
    pub allowed_lateness_us: i64,
}

impl Expiry {
    pub fn end_us(&self, value_us: i64) -> i64 {
        value_us.saturating_add(self.add_us)
    }
    /// True when the window with this key value gives its final result (EMIT ON WINDOW CLOSE).
    pub fn closed(&self, value_us: i64, watermark: Watermark) -> bool {
        watermark.closes(self.end_us(value_us))
    }
    /// True when the state is to be freed and further rows are late.
    pub fn expired(&self, value_us: i64, watermark: Watermark) -> bool {
        watermark.closes(self.end_us(value_us).saturating_add(self.allowed_lateness_us))
    }
}

/// When results leave a windowed operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Every change at once.
    Updating,
    /// One final row per window, when the watermark passes its end.
    OnClose,
}

/// Says that all keys are meant.
///
/// # Errors
/// When not, and what an operator remembers has no key.
fn undivided(part: KeyPart<'_>) -> dataflow::Result<()> {
    if part.is_all() {
        return Ok(());
    }
    Err(Error::State("there is no key to divide it by".into()))
}

/// A timestamp column in microseconds, whatever its zone.
///
/// # Errors
/// When the column is of another type: planning let something through.
pub fn microseconds(
    column: &arrow::array::ArrayRef,
) -> dataflow::Result<arrow::array::TimestampMicrosecondArray> {
    use arrow::array::{Array, AsArray};
    column
        .as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>()
        .map(|a| a.clone().with_timezone_opt(None::<&str>))
        .ok_or_else(|| Error::Operator(format!("time column has type {}, not timestamp", column.data_type())))
}
