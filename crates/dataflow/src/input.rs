//! Rows between a format (JSON, CSV, Parquet, COPY) and the engine's ingest.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;

/// What a format made of a body: columns for the rows that could be read, a reason for those
/// that could not.
#[derive(Debug)]
pub struct DecodedRows {
    /// The readable rows, with exactly the columns asked for, in their order and types, all of them nullable.
    pub batch: RecordBatch,
    /// Per column: set bits mark rows in which the column was not given at all, so that its DEFAULT
    /// applies; `None` when it was given (as a value or as null) in every row.
    pub absent: Vec<Option<BooleanBuffer>>,
    /// Per row of `batch`: its 0-based number in the body, counting unreadable rows too.
    pub row_numbers: Vec<u32>,
    /// Per row of `batch`: where its bytes stand in the body; empty for formats without row bytes (Parquet).
    pub raw_ranges: Vec<Range<u32>>,
    /// Rows that could not be read.
    pub rejected: Vec<RejectedRow>,
}

/// A row that can't be used, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedRow {
    /// 0-based number in the body.
    pub row_number: u32,
    /// The column at fault, where one is.
    pub column: Option<String>,
    pub reason: RejectReason,
    /// For people: lower case, names the value (shortened) and what was expected.
    pub message: String,
    /// The row as it was sent, cut to [`RejectedRow::RAW_BYTES_MAX`].
    pub raw: Vec<u8>,
}

impl RejectedRow {
    /// Longest raw row kept; what is longer is cut here, and the message says so.
    pub const RAW_BYTES_MAX: usize = 64 * 1024;
}

/// Stable codes, documented in docs/: the `reason` column of `rejected_rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The bytes are not a row of the format at all.
    Malformed,
    InvalidUtf8,
    WrongType,
    OutOfRange,
    UnknownColumn,
    MissingColumn,
    NotNull,
    Check,
    TooFarAhead,
    TooLarge,
    IdempotencyConflict,
    Expression,
}

impl RejectReason {
    pub fn code(self) -> &'static str {
        match self {
            RejectReason::Malformed => "malformed",
            RejectReason::InvalidUtf8 => "invalid_utf8",
            RejectReason::WrongType => "wrong_type",
            RejectReason::OutOfRange => "out_of_range",
            RejectReason::UnknownColumn => "unknown_column",
            RejectReason::MissingColumn => "missing_column",
            RejectReason::NotNull => "not_null",
            RejectReason::Check => "check",
            RejectReason::TooFarAhead => "too_far_ahead",
            RejectReason::TooLarge => "too_large",
            RejectReason::IdempotencyConflict => "idempotency_conflict",
            RejectReason::Expression => "expression",
        }
    }
}
