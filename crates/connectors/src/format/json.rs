//! JSON rows: one object, an array of objects, or objects one after another (NDJSON).
//!
//! One pass over the bytes, driven by the schema: a value is parsed into its column where it
//! stands, no tree is built. Senders write their keys in the same order row after row, so the
//! decoder expects the key that followed in the previous row and compares its bytes
//! ([`shape::RowShape`]); only a surprise costs a hash lookup.
//!
//! ```text
//!   body --rows.rs: where rows begin and end, recovery--> object --value.rs--> Column
//! ```
//!
//! What a value may be, by column type: numbers as JSON numbers or as strings; timestamps as
//! RFC 3339, PostgreSQL text or epoch numbers (see `value/time.rs`); booleans as
//! `true`/`false`/`0`/`1` or strings; text as strings, or numbers and booleans as they are written;
//! `jsonb` any value, kept as its text; lists as arrays. `null` is SQL's NULL in every column.
//! A key given twice counts with its last value.

mod cursor;
mod rows;
mod shape;
mod value;

#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use dataflow::DecodedRows;

use super::rows::{RowsBuilder, body_too_large, nullable};
use shape::RowShape;

pub(crate) use shape::did_you_mean;
pub(crate) use value::{check_value, push_document};

/// Deepest nesting of brackets that is read.
pub const DEPTH_MAX: usize = 128;

/// What to accept.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonOptions {
    /// Keys that name no column are skipped instead of rejecting their row.
    pub ignore_unknown: bool,
    /// Longer rows are rejected.
    pub row_bytes_max: usize,
    pub framing: JsonFraming,
}

/// Where a row ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFraming {
    /// As the body shows: an object, an array of objects, or NDJSON; objects may span lines.
    Auto,
    /// One object per line, nothing else; a file can be cut at any line end then.
    Lines,
}

impl Default for JsonOptions {
    fn default() -> Self {
        JsonOptions { ignore_unknown: false, row_bytes_max: super::ROW_BYTES_MAX, framing: JsonFraming::Auto }
    }
}

/// Decodes JSON rows of one table; made once, used for every body.
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    shape: RowShape,
    options: JsonOptions,
}

impl JsonDecoder {
    pub fn new(schema: &SchemaRef, options: JsonOptions) -> JsonDecoder {
        JsonDecoder { schema: nullable(schema), shape: RowShape::new(schema), options }
    }

    /// Decodes a whole body.
    pub fn decode(&self, body: &[u8]) -> DecodedRows {
        let byte_order_mark = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        self.decode_from(body, byte_order_mark)
    }

    /// Decodes `body[start..]`; a byte order mark there is not expected.
    pub(crate) fn decode_from(&self, body: &[u8], start: usize) -> DecodedRows {
        if body.len() > super::BODY_BYTES_MAX {
            return body_too_large(&self.schema, body);
        }
        let mut rows = RowsBuilder::new(&self.schema);
        rows::read_body(&self.shape, &self.options, body, start, &mut rows);
        rows.finish(&self.schema)
    }
}

/// Decodes one body; who has more than one makes a [`JsonDecoder`].
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use connectors::format::json::{JsonOptions, decode};
///
/// let schema = Arc::new(Schema::new(vec![
///     Field::new("user_id", DataType::Int64, true),
///     Field::new("action", DataType::Utf8, true),
/// ]));
/// let body = br#"{"user_id": 1, "action": "browse"}
/// {"user_id": "one"}"#;
/// let rows = decode(&schema, body, &JsonOptions::default());
/// assert_eq!(rows.batch.num_rows(), 1);
/// assert_eq!(rows.rejected[0].message, r#"column "user_id": "one" is not a valid bigint"#);
/// ```
pub fn decode(schema: &SchemaRef, body: &[u8], options: &JsonOptions) -> DecodedRows {
    JsonDecoder::new(schema, options.clone()).decode(body)
}
