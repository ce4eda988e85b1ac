//! Rows of delimited fields, block by block: what CSV and COPY text share.
//!
//! A block of lines is split into fields first, 64 bytes at a time; then each column reads its
//! fields in one loop without asking for its type again. A line that holds the format's special
//! byte (quote, backslash) leaves the fast path and is split by the format itself.
//!
//! ```text
//!   body --split--> fields of 512 rows, row by row --fill--> column, column, column
//! ```
//!
//! A value that can't be read leaves a null behind and its row on the list of discarded rows,
//! which are taken out once at the end.

use arrow::datatypes::SchemaRef;
use dataflow::{DecodedRows, RejectReason};

use super::column::{Column, Values, narrow};
use super::rows::{RowsBuilder, body_too_large, nullable, too_large};
use super::scan::Needles;
use super::value::{self, Fault};

/// Rows split at once: their fields stay in the first-level cache.
const BLOCK_ROWS: usize = 512;

/// A split into fields and its meaning.
#[derive(Clone, Debug)]
pub(super) struct Delimited {
    pub(super) schema: SchemaRef,
    /// Per field of a row: the column it goes to.
    pub(super) fields: Vec<Option<usize>>,
    pub(super) delimiter: u8,
    /// The byte that sends a line to [`RowFormat::split_row`].
    pub(super) special: u8,
    /// An unquoted field with this text is NULL.
    pub(super) null: Vec<u8>,
    pub(super) row_bytes_max: usize,
    /// Set when no row can be read, for example because of the header: each is rejected with this.
    pub(super) refusal: Option<Refusal>,
}

/// See the fields of [`Delimited`].
pub(super) struct Settings<'a> {
    pub(super) delimiter: u8,
    pub(super) special: u8,
    pub(super) null: &'a str,
    pub(super) row_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) reason: RejectReason,
    pub(super) column: Option<String>,
    pub(super) message: String,
}

/// How a format splits a row that is not plain.
pub(super) trait RowFormat {
    /// Splits the row that begins at `start`, which holds the special byte somewhere.
    fn split_row(&self, body: &[u8], start: usize, fields: &mut Fields) -> SplitRow;
}

/// Why a row can't be split.
pub(super) type RowFault = (RejectReason, &'static str);

/// What [`RowFormat::split_row`] found.
pub(super) struct SplitRow {
    /// End of the row's bytes, without its line end.
    pub(super) end: usize,
    /// Where the next row begins.
    pub(super) next: usize,
    pub(super) fault: Option<RowFault>,
    /// The format's end mark stood here: nothing behind it is a row.
    pub(super) last: bool,
}

/// Where a field's bytes are.
#[derive(Clone, Copy)]
pub(super) struct Field {
    start: u32,
    /// Length and flags. Zero is NULL: an empty field that is a value carries [`Field::VALUE`].
    length: u32,
}

impl Field {
    /// The bytes stand in `Fields::unescaped` instead of in the body.
    const UNESCAPED: u32 = 1 << 31;
    /// The field was quoted, or is empty but not NULL.
    const VALUE: u32 = 1 << 30;
    const NULL: Field = Field { start: u32::MAX, length: 0 };
    const LENGTH_MASK: u32 = Field::VALUE - 1;
}

/// The fields of some rows, row by row.
#[derive(Default)]
pub(super) struct Fields {
    fields: Vec<Field>,
    /// Fields whose escapes were resolved.
    pub(super) unescaped: Vec<u8>,
}

impl Fields {
    /// A field as it stands in the body.
    #[inline(always)]
    pub(super) fn push(&mut self, start: usize, end: usize) {
        self.fields.push(Field { start: start as u32, length: (end - start) as u32 });
    }

    pub(super) fn push_null(&mut self) {
        self.fields.push(Field::NULL);
    }

    /// A field of the body that is a value even if it looks like NULL.
    pub(super) fn push_value(&mut self, start: usize, end: usize) {
        self.fields.push(Field { start: start as u32, length: (end - start) as u32 | Field::VALUE });
    }

    /// What was appended to `unescaped` from `start` on.
    pub(super) fn push_unescaped(&mut self, start: usize) {
        let length = (self.unescaped.len() - start) as u32;
        self.fields.push(Field { start: start as u32, length: length | Field::VALUE | Field::UNESCAPED });
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn clear(&mut self) {
        self.fields.clear();
        self.unescaped.clear();
    }

    /// The fields from `first` on, as bytes; for the header.
    pub(super) fn texts<'a>(&'a self, first: usize, body: &'a [u8]) -> Vec<&'a [u8]> {
        self.fields[first..]
            .iter()
            .map(|field| {
                let (bytes, start, end) = self.place(*field, body);
                &bytes[start..end]
            })
            .collect()
    }

    #[inline(always)]
    fn place<'a>(&'a self, field: Field, body: &'a [u8]) -> (&'a [u8], usize, usize) {
        let start = field.start as usize;
        let end = start + (field.length & Field::LENGTH_MASK) as usize;
        if field.length & Field::UNESCAPED == 0 { (body, start, end) } else { (&self.unescaped, start, end) }
    }
}

impl Delimited {
    /// Fields go to `columns` of the schema, in this order.
    ///
    /// # Panics
    /// If a column number is not in the schema or stands twice.
    pub(super) fn new(schema: &SchemaRef, columns: &[usize], settings: Settings<'_>) -> Delimited {
        for (position, column) in columns.iter().enumerate() {
            assert!(*column < schema.fields().len(), "column {column} is in the schema");
            assert!(!columns[..position].contains(column), "column {column} is named once");
        }
        Delimited {
            schema: nullable(schema),
            fields: columns.iter().map(|column| Some(*column)).collect(),
            delimiter: settings.delimiter,
            special: settings.special,
            null: settings.null.as_bytes().to_vec(),
            // Lengths of fields share their word with two flags.
            row_bytes_max: settings.row_bytes_max.min(Field::LENGTH_MASK as usize),
            refusal: None,
        }
    }

    /// Decodes `body[from..]`.
    pub(super) fn decode(&self, format: &impl RowFormat, body: &[u8], from: usize) -> DecodedRows {
        if body.len() > super::BODY_BYTES_MAX {
            return body_too_large(&self.schema, body);
        }
        let mut splitter = Splitter {
            delimited: self,
            format,
            body,
            rows: RowsBuilder::new(&self.schema),
            fields: Fields::default(),
            // PostgreSQL's text holds no NUL, so such rows are found together with invalid UTF-8.
            text: simdutf8::basic::from_utf8(body).is_ok() && memchr::memchr(0, body).is_none(),
            needles: Needles::new([self.delimiter, b'\n', self.special]),
            last: false,
        };
        let mut at = from;
        while at < body.len() && !splitter.last {
            let block_start = splitter.rows.len();
            at = splitter.split_block(at);
            splitter.fill_columns(block_start);
            if block_start == 0 && splitter.rows.len() > 0 {
                let estimate = (body.len() - from) / (at - from).max(1) * BLOCK_ROWS;
                splitter.rows.reserve(estimate + estimate / 16);
            }
        }
        let mut rows = splitter.rows;
        for column in 0..self.schema.fields().len() {
            if !self.fields.contains(&Some(column)) {
                rows.fill_absent(column);
            }
        }
        rows.finish(&self.schema)
    }
}

struct Splitter<'a, F> {
    delimited: &'a Delimited,
    format: &'a F,
    body: &'a [u8],
    rows: RowsBuilder,
    fields: Fields,
    /// The whole body is text; otherwise each row is checked.
    text: bool,
    needles: Needles,
    last: bool,
}

impl<F: RowFormat> Splitter<'_, F> {
    /// Splits rows from `start` on until the block is full; returns where the next one begins.
    fn split_block(&mut self, start: usize) -> usize {
        let body = self.body;
        let block_rows_end = self.rows.len() + BLOCK_ROWS;
        self.fields.clear();
        let (mut row_start, mut field_start, mut row_fields) = (start, start, 0);
        let mut window = start;
        'windows: while window < body.len() {
            let mut mask = match body.get(window..window + 64) {
                Some(block) => self.needles.mask(block.try_into().expect("64 bytes")),
                None => {
                    let rest = &body[window..];
                    let mut block = [0u8; 64];
                    block[..rest.len()].copy_from_slice(rest);
                    self.needles.mask(&block) & ((1u64 << rest.len()) - 1)
                }
            };
            while mask != 0 {
                let at = window + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let byte = body[at];
                if byte == self.delimited.delimiter {
                    self.fields.push(field_start, at);
                    field_start = at + 1;
                } else if byte == b'\n' {
                    let carriage_return = at > field_start && body[at - 1] == b'\r';
                    self.fields.push(field_start, at - usize::from(carriage_return));
                    self.end_row(row_start, at - usize::from(carriage_return), row_fields, None);
                    row_fields = self.fields.len();
                    row_start = at + 1;
                    field_start = at + 1;
                    if self.rows.len() == block_rows_end {
                        return row_start;
                    }
                } else {
                    self.fields.fields.truncate(row_fields);
                    let row = self.format.split_row(body, row_start, &mut self.fields);
                    assert!(row.next > row_start, "a row takes bytes");
                    if row.last {
                        self.last = true;
                        return row.next;
                    }
                    self.end_row(row_start, row.end, row_fields, row.fault);
                    row_fields = self.fields.len();
                    row_start = row.next;
                    field_start = row.next;
                    window = row.next;
                    if self.rows.len() == block_rows_end {
                        return row_start;
                    }
                    continue 'windows;
                }
            }
            window += 64;
        }
        if row_start < body.len() {
            let carriage_return = body.len() > field_start && body[body.len() - 1] == b'\r';
            let end = body.len() - usize::from(carriage_return);
            self.fields.push(field_start, end);
            self.end_row(row_start, end, row_fields, None);
        }
        body.len()
    }

    /// Keeps or rejects the row whose fields are those from `row_fields` on.
    #[inline(always)]
    fn end_row(&mut self, start: usize, end: usize, row_fields: usize, fault: Option<RowFault>) {
        let given = self.fields.len() - row_fields;
        let as_expected = given == self.delimited.fields.len()
            && fault.is_none()
            && end - start <= self.delimited.row_bytes_max
            && self.text
            && self.delimited.refusal.is_none();
        if as_expected {
            // A line of nothing is no row, unless a row is one field: then it is a NULL.
            self.rows.commit(start..end);
        } else {
            self.end_odd_row(start, end, row_fields, fault);
        }
    }

    #[inline(never)]
    fn end_odd_row(&mut self, start: usize, end: usize, row_fields: usize, fault: Option<RowFault>) {
        let given = self.fields.len() - row_fields;
        let expected = self.delimited.fields.len();
        let raw = &self.body[start..end];
        if raw.is_empty() && expected != 1 {
            self.fields.fields.truncate(row_fields);
            return;
        }
        let row_bytes_max = self.delimited.row_bytes_max;
        let (column, reason, message) = if raw.len() > row_bytes_max {
            (None, RejectReason::TooLarge, too_large(raw.len(), row_bytes_max))
        } else if let Some(refusal) = &self.delimited.refusal {
            (refusal.column.clone(), refusal.reason, refusal.message.clone())
        } else if let Err(error) = std::str::from_utf8(raw) {
            let message = format!("byte {} of the row is not valid UTF-8", error.valid_up_to());
            (None, RejectReason::InvalidUtf8, message)
        } else if let Some(nul) = memchr::memchr(0, raw) {
            (None, RejectReason::InvalidUtf8, format!("byte {nul} of the row is NUL, which no text holds"))
        } else if let Some((reason, message)) = fault {
            (None, reason, message.to_string())
        } else if given != expected {
            let fields = if given == 1 { "field" } else { "fields" };
            (None, RejectReason::Malformed, format!("the row has {given} {fields}, expected {expected}"))
        } else {
            self.rows.commit(start..end);
            return;
        };
        self.fields.fields.truncate(row_fields);
        self.rows.reject(raw, column.as_deref(), reason, message);
    }

    /// Reads the block's fields into the columns.
    fn fill_columns(&mut self, block_start: usize) {
        let stride = self.delimited.fields.len();
        debug_assert_eq!(self.fields.len(), (self.rows.len() - block_start) * stride, "whole rows");
        if !self.delimited.null.is_empty() {
            self.find_nulls();
        }
        let mut faults: Vec<(usize, usize, Fault)> = Vec::new();
        for (position, column) in self.delimited.fields.iter().enumerate() {
            let Some(column) = *column else { continue };
            let block = FieldsOfColumn { fields: &self.fields, body: self.body, position, stride };
            block.fill(&mut self.rows.columns[column], |row, fault| faults.push((row, position, fault)));
        }
        // One reason per row: that of its first column.
        faults.sort_unstable_by_key(|(row, position, _)| (*row, *position));
        faults.dedup_by_key(|(row, _, _)| *row);
        for (row, position, fault) in faults {
            let Some(column) = self.delimited.fields[position] else { continue };
            let (bytes, start, end) =
                self.fields.place(self.fields.fields[row * stride + position], self.body);
            let message = fault.describe(&bytes[start..end], &self.rows.columns[column].sql_type);
            let name = self.delimited.schema.field(column).name();
            self.rows.discard(block_start + row, self.body, name, fault.reason(), message);
        }
    }

    /// Turns unquoted fields that spell NULL into NULLs, and empty ones into values.
    fn find_nulls(&mut self) {
        for field in &mut self.fields.fields {
            if field.length & Field::VALUE != 0 || field.start == Field::NULL.start {
                continue;
            }
            let start = field.start as usize;
            if self.body[start..start + field.length as usize] == self.delimited.null {
                *field = Field::NULL;
            } else {
                field.length |= Field::VALUE;
            }
        }
    }
}

/// The fields of a block that go to one column.
struct FieldsOfColumn<'a> {
    fields: &'a Fields,
    body: &'a [u8],
    position: usize,
    stride: usize,
}

impl FieldsOfColumn<'_> {
    fn fill(&self, column: &mut Column, mut report: impl FnMut(usize, Fault)) {
        // Columns with a tight loop; nulls and faults go the slow way, value by value.
        macro_rules! tight {
            ($variant:ident, $read:expr) => {{
                self.each(column, &mut report, |column, bytes, start, end| {
                    let Values::$variant(values) = &mut column.values else { return Err(Fault::WrongType) };
                    #[allow(clippy::redundant_closure_call)]
                    values.push($read(bytes, start, end)?);
                    column.mark_valid();
                    Ok(())
                })
            }};
        }
        match &column.values {
            Values::Int64(_) => tight!(Int64, value::integer_at),
            Values::Int32(_) => {
                tight!(Int32, |bytes, start, end| narrow(value::integer_at(bytes, start, end)?))
            }
            Values::Int16(_) => {
                tight!(Int16, |bytes, start, end| narrow(value::integer_at(bytes, start, end)?))
            }
            Values::Float64(_) => {
                tight!(Float64, |bytes: &[u8], start, end| value::float64(&bytes[start..end]))
            }
            Values::Timestamp(_) => tight!(Timestamp, timestamp_at),
            Values::Text(_) => self.each(column, &mut report, |column, bytes, start, end| {
                let Values::Text(spans) = &mut column.values else { return Err(Fault::WrongType) };
                spans.push(bytes, start, end);
                column.mark_valid();
                Ok(())
            }),
            _ => self.each(column, &mut report, |column, bytes, start, end| {
                let text = &bytes[start..end];
                // Unescaped bytes may spell what the body did not.
                if std::str::from_utf8(text).is_err() {
                    return Err(Fault::Unrepresentable);
                }
                column.push_text(text)
            }),
        }
    }

    #[inline(always)]
    fn each(
        &self,
        column: &mut Column,
        report: &mut impl FnMut(usize, Fault),
        mut push: impl FnMut(&mut Column, &[u8], usize, usize) -> Result<(), Fault>,
    ) {
        let fields = &self.fields.fields;
        let rows = fields.len() / self.stride;
        let mut at = self.position;
        for row in 0..rows {
            let field = fields[at];
            at += self.stride;
            if field.length == 0 {
                column.push_null();
                continue;
            }
            let (bytes, start, end) = self.fields.place(field, self.body);
            if let Err(fault) = push(column, bytes, start, end) {
                report(row, fault);
                column.push_null();
            }
        }
    }
}

/// A timestamp; epoch numbers, common in event files, are read like integers.
#[inline(always)]
fn timestamp_at(bytes: &[u8], start: usize, end: usize) -> Result<i64, Fault> {
    match super::scan::short_integer(bytes, start, end) {
        Some(number) => value::epoch_integer(number as i64),
        None => value::timestamp(&bytes[start..end]),
    }
}
