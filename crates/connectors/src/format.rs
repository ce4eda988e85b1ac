//! Formats: bytes to columns at once.
//!
//! Rows of text are split first (JSON by its grammar, CSV and COPY text by [`delimited`] in
//! blocks), then each value is parsed into the column that will hold it. All of them share one
//! reading of values ([`value`]), so that `"12"` in JSON and `12` in CSV are the same number.
//!
//! Limit that all share: a body is shorter than 2 GiB, because columns have 32-bit offsets.

pub mod csv;
pub mod json;
pub mod parquet;
pub mod pg_text;

mod column;
mod delimited;
pub(crate) mod rows;
mod scan;
mod value;

#[cfg(test)]
pub(crate) mod picture;

/// Default longest row, in bytes.
pub const ROW_BYTES_MAX: usize = 1 << 20;

/// Longest body decoded in one call: columns have 32-bit offsets.
pub const BODY_BYTES_MAX: usize = i32::MAX as usize;
