//! Rows while they are decoded: columns, what was absent, what was rejected.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use dataflow::{DecodedRows, RejectReason, RejectedRow};

use super::column::Column;

/// The target's columns, all of them nullable: whether null is allowed is for ingest to judge.
pub(crate) fn nullable(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| field.is_nullable()) {
        return Arc::clone(schema);
    }
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// Collects [`DecodedRows`].
///
/// Invariant: all columns have `row_numbers.len()` values between rows.
pub(crate) struct RowsBuilder {
    pub(crate) columns: Vec<Column>,
    pub(crate) row_numbers: Vec<u32>,
    pub(crate) raw_ranges: Vec<Range<u32>>,
    pub(crate) rejected: Vec<RejectedRow>,
    // Per column: bits up to the last absent row; later rows had it.
    absent: Vec<Option<BooleanBufferBuilder>>,
    // Rows of the batch to take out again when it is finished, ascending.
    discarded: Vec<usize>,
    rows_seen: u32,
}

impl RowsBuilder {
    pub(crate) fn new(schema: &SchemaRef) -> RowsBuilder {
        RowsBuilder {
            columns: schema.fields().iter().map(|field| Column::new(field)).collect(),
            row_numbers: Vec::new(),
            raw_ranges: Vec::new(),
            rejected: Vec::new(),
            absent: schema.fields().iter().map(|_| None).collect(),
            discarded: Vec::new(),
            rows_seen: 0,
        }
    }

    /// Rows kept so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.row_numbers.len()
    }

    pub(crate) fn reserve(&mut self, rows: usize) {
        self.row_numbers.reserve(rows);
        self.raw_ranges.reserve(rows);
        for column in &mut self.columns {
            column.reserve(rows);
        }
    }

    /// The number of the next row of the body.
    #[inline]
    pub(crate) fn next_row_number(&mut self) -> u32 {
        let number = self.rows_seen;
        self.rows_seen += 1;
        number
    }

    /// Accepts the row whose values were appended to all columns.
    #[inline]
    pub(crate) fn commit(&mut self, raw: Range<usize>) {
        let number = self.next_row_number();
        self.row_numbers.push(number);
        self.raw_ranges.push(raw.start as u32..raw.end as u32);
    }

    /// Takes back the values of the row begun.
    pub(crate) fn roll_back(&mut self) {
        let rows = self.len();
        for column in &mut self.columns {
            column.truncate(rows);
        }
    }

    /// Appends null to `column` and notes that the row begun did not give it.
    ///
    /// Only for a row that is committed next: the note is not taken back by [`RowsBuilder::roll_back`].
    pub(crate) fn push_absent(&mut self, column: usize) {
        let row = self.row_numbers.len();
        self.columns[column].push_null();
        let bits = self.absent[column].get_or_insert_with(|| BooleanBufferBuilder::new(row + 64));
        bits.append_n(row - bits.len(), false);
        bits.append(true);
    }

    /// Fills a column that no row gives: null everywhere, and absent.
    pub(crate) fn fill_absent(&mut self, column: usize) {
        let rows = self.len();
        debug_assert_eq!(self.columns[column].len(), 0, "no row gave this column");
        if rows == 0 {
            return;
        }
        for _ in 0..rows {
            self.columns[column].push_null();
        }
        let mut bits = BooleanBufferBuilder::new(rows);
        bits.append_n(rows, true);
        self.absent[column] = Some(bits);
    }

    /// Notes a row that can't be used.
    pub(crate) fn reject(&mut self, raw: &[u8], column: Option<&str>, reason: RejectReason, message: String) {
        let row_number = self.next_row_number();
        self.reject_numbered(row_number, raw, column, reason, message);
    }

    /// Notes a row of `length` bytes that is too long to be read; `start` is its beginning.
    pub(crate) fn reject_too_large(&mut self, start: &[u8], length: usize, row_bytes_max: usize) {
        let row_number = self.next_row_number();
        let message = too_large(length, row_bytes_max);
        self.push_rejected(row_number, start, length, None, RejectReason::TooLarge, message);
    }

    fn reject_numbered(
        &mut self,
        row_number: u32,
        raw: &[u8],
        column: Option<&str>,
        reason: RejectReason,
        message: String,
    ) {
        self.push_rejected(row_number, raw, raw.len(), column, reason, message);
    }

    fn push_rejected(
        &mut self,
        row_number: u32,
        raw: &[u8],
        length: usize,
        column: Option<&str>,
        reason: RejectReason,
        mut message: String,
    ) {
        if let Some(column) = column {
            message = format!("column \"{column}\": {message}");
        }
        if length > RejectedRow::RAW_BYTES_MAX {
            let kept = RejectedRow::RAW_BYTES_MAX;
            message.push_str(&format!(" (of the row's {length} bytes, the first {kept} are kept)"));
        }
        self.rejected.push(RejectedRow {
            row_number,
            column: column.map(str::to_string),
            reason,
            message,
            raw: raw[..raw.len().min(RejectedRow::RAW_BYTES_MAX)].to_vec(),
        });
    }

    /// Rejects a row that was committed already; its values are taken out at the end.
    pub(crate) fn discard(
        &mut self,
        row: usize,
        body: &[u8],
        column: &str,
        reason: RejectReason,
        message: String,
    ) {
        debug_assert!(self.discarded.last().is_none_or(|last| *last < row), "ascending");
        let range = self.raw_ranges[row].clone();
        let raw = &body[range.start as usize..range.end as usize];
        self.reject_numbered(self.row_numbers[row], raw, Some(column), reason, message);
        self.discarded.push(row);
    }

    pub(crate) fn finish(mut self, schema: &SchemaRef) -> DecodedRows {
        let rows = self.row_numbers.len();
        let absent: Vec<Option<BooleanBuffer>> = self
            .absent
            .into_iter()
            .map(|bits| {
                bits.map(|mut bits| {
                    bits.append_n(rows - bits.len(), false);
                    bits.finish()
                })
            })
            .collect();
        let arrays = self.columns.into_iter().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
            .expect("columns were made from the schema");
        self.rejected.sort_by_key(|row| row.row_number);
        let decoded = DecodedRows {
            batch,
            absent,
            row_numbers: self.row_numbers,
            raw_ranges: self.raw_ranges,
            rejected: self.rejected,
        };
        if self.discarded.is_empty() { decoded } else { without_rows(decoded, &self.discarded) }
    }
}

/// The rows but those at `discarded` (ascending).
pub(crate) fn without_rows(decoded: DecodedRows, discarded: &[usize]) -> DecodedRows {
    let mut keep = vec![true; decoded.batch.num_rows()];
    for row in discarded {
        keep[*row] = false;
    }
    let mask = BooleanArray::from(keep.clone());
    let absent = decoded
        .absent
        .into_iter()
        .map(|bits| {
            let bits = filter(&BooleanArray::new(bits?, None), &mask).expect("same length");
            let bits = arrow::array::AsArray::as_boolean(bits.as_ref()).values().clone();
            Some(bits).filter(|bits| bits.count_set_bits() > 0)
        })
        .collect();
    fn kept<T>(values: Vec<T>, keep: &[bool]) -> Vec<T> {
        values.into_iter().zip(keep).filter(|(_, keep)| **keep).map(|(value, _)| value).collect()
    }
    DecodedRows {
        batch: filter_record_batch(&decoded.batch, &mask).expect("same length"),
        absent,
        row_numbers: kept(decoded.row_numbers, &keep),
        raw_ranges: kept(decoded.raw_ranges, &keep),
        rejected: decoded.rejected,
    }
}

/// The message for a row that is too long.
pub(crate) fn too_large(length: usize, row_bytes_max: usize) -> String {
    format!("the row is {length} bytes long, more than the {row_bytes_max} allowed")
}

/// The whole body as one rejected row: it is too long for 32-bit offsets.
pub(crate) fn body_too_large(schema: &SchemaRef, body: &[u8]) -> DecodedRows {
    let mut rows = RowsBuilder::new(schema);
    let message =
        format!("the body is longer than {} bytes; send it in smaller parts", super::BODY_BYTES_MAX);
    rows.reject(body, None, RejectReason::TooLarge, message);
    rows.finish(schema)
}
