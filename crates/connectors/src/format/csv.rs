//! CSV after RFC 4180, read strictly.
//!
//! - A field is quoted as a whole or not at all; a quote inside it is doubled. A quote in the middle of
//!   an unquoted field is malformed.
//! - An unquoted field equal to the null text (empty by default) is NULL, a quoted one is a value.
//! - Lines end with LF or CRLF. Empty lines are no rows, unless a row is a single field.
//! - A quote that is not closed within [`CsvOptions::row_bytes_max`] bytes makes its line malformed,
//!   and reading goes on at the next line, so that one stray quote does not swallow a file.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use dataflow::{DecodedRows, RejectReason};

use super::delimited::{Delimited, Fields, Refusal, RowFault, RowFormat, Settings, SplitRow};
use super::json::did_you_mean;

/// What the first line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A row like the others.
    Absent,
    /// Names that are passed over; fields go to the columns given.
    Skipped,
    /// Names that say which column each field goes to.
    Names,
}

/// How fields are written.
#[derive(Clone, Debug, PartialEq)]
pub struct CsvOptions {
    pub delimiter: u8,
    pub quote: u8,
    pub header: Header,
    /// The unquoted text that means NULL.
    pub null: String,
    /// Names in the header that are no columns are skipped instead of rejecting the rows.
    pub ignore_unknown: bool,
    /// Longer rows are rejected.
    pub row_bytes_max: usize,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions {
            delimiter: b',',
            quote: b'"',
            header: Header::Absent,
            null: String::new(),
            ignore_unknown: false,
            row_bytes_max: super::ROW_BYTES_MAX,
        }
    }
}

/// Decodes CSV rows of one table; made once, used for every body.
#[derive(Clone, Debug)]
pub struct CsvDecoder {
    delimited: Delimited,
    options: CsvOptions,
}

impl CsvDecoder {
    /// `columns` says which column of the schema each field goes to.
    ///
    /// # Panics
    /// If a column number is not in the schema or stands twice.
    pub fn new(schema: &SchemaRef, columns: &[usize], options: CsvOptions) -> CsvDecoder {
        let settings = Settings {
            delimiter: options.delimiter,
            special: options.quote,
            null: &options.null,
            row_bytes_max: options.row_bytes_max,
        };
        let delimited = Delimited::new(schema, columns, settings);
        CsvDecoder { delimited, options }
    }

    /// Decodes a whole body.
    pub fn decode(&self, body: &[u8]) -> DecodedRows {
        let (decoder, start) = self.begin(body);
        decoder.decode_from(body, start)
    }

    /// Decodes `body[start..]`, where neither byte order mark nor header is expected.
    pub(crate) fn decode_from(&self, body: &[u8], start: usize) -> DecodedRows {
        self.delimited.decode(self, body, start)
    }

    /// The decoder for the rows of a body and where they begin. `start` holds the whole header.
    pub(crate) fn begin(&self, start: &[u8]) -> (CsvDecoder, usize) {
        let bom = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        if self.options.header == Header::Absent || bom == start.len() {
            return (self.clone(), bom);
        }
        let mut fields = Fields::default();
        let header = self.split_row(start, bom, &mut fields);
        let mut decoder = self.clone();
        if self.options.header == Header::Names {
            let bound = match header.fault {
                Some((reason, fault)) => Err(refusal(reason, None, format!("in the header, {fault}"))),
                None => self.bind(&fields.texts(0, start)),
            };
            match bound {
                Ok(columns) => decoder.delimited.fields = columns,
                Err(refusal) => decoder.delimited.refusal = Some(refusal),
            }
        }
        (decoder, header.next)
    }

    /// The columns that the header's names mean.
    fn bind(&self, names: &[&[u8]]) -> Result<Vec<Option<usize>>, Refusal> {
        let schema = &self.delimited.schema;
        let mut exact = HashMap::new();
        let mut folded = HashMap::new();
        for (column, field) in schema.fields().iter().enumerate() {
            exact.entry(field.name().clone()).or_insert(column);
            folded.entry(field.name().to_lowercase()).or_insert(column);
        }
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
            let column = exact.get(&name).or_else(|| folded.get(&name.to_lowercase())).copied();
            match column {
                Some(column) if columns.contains(&Some(column)) => {
                    let message = "the header names the column twice".to_string();
                    return Err(refusal(RejectReason::Malformed, Some(name), message));
                }
                None if !self.options.ignore_unknown => {
                    let known = schema.fields().iter().map(|field| field.name().as_str());
                    let hint = match did_you_mean(&name, known) {
                        Some(near) => format!("; did you mean \"{near}\"?"),
                        None => String::new(),
                    };
                    let message = format!("the header names no column of the table{hint}");
                    return Err(refusal(RejectReason::UnknownColumn, Some(name), message));
                }
                column => columns.push(column),
            }
        }
        Ok(columns)
    }

    /// How many bytes from the front of `chunk` are whole rows; more bytes follow the chunk.
    pub(crate) fn whole_rows_len(&self, chunk: &[u8]) -> usize {
        let Some(first_quote) = memchr::memchr(self.options.quote, chunk) else {
            return memchr::memrchr(b'\n', chunk).map_or(0, |at| at + 1);
        };
        // Rows before the first quote need no look.
        let mut at = memchr::memrchr(b'\n', &chunk[..first_quote]).map_or(0, |at| at + 1);
        let mut fields = Fields::default();
        loop {
            let Some(length) = memchr::memchr(b'\n', &chunk[at..]) else {
                return at;
            };
            if memchr::memchr(self.options.quote, &chunk[at..at + length]).is_none() {
                at += length + 1;
                continue;
            }
            fields.clear();
            let row = self.split_row(chunk, at, &mut fields);
            // A quote still open at the chunk's end may be closed by what follows, unless the row
            // is too long already.
            let open = row.fault == Some(UNCLOSED) && chunk.len() - at <= self.options.row_bytes_max;
            if open || row.next > chunk.len() || chunk.get(row.next - 1) != Some(&b'\n') {
                return at;
            }
            at = row.next;
        }
    }
}

fn refusal(reason: RejectReason, column: Option<String>, message: String) -> Refusal {
    Refusal { reason, column, message }
}

const UNCLOSED: RowFault = (RejectReason::Malformed, "a quoted field is not closed");
const BEHIND_QUOTE: RowFault =
    (RejectReason::Malformed, "text follows the closing quote of a field; a quote inside a field is doubled");
const STRAY_QUOTE: RowFault = (
    RejectReason::Malformed,
    "a quote stands inside an unquoted field; quote the whole field and double the quote",
);

impl RowFormat for CsvDecoder {
    fn split_row(&self, body: &[u8], start: usize, fields: &mut Fields) -> SplitRow {
        let (quote, delimiter) = (self.options.quote, self.options.delimiter);
        let mut at = start;
        loop {
            if body.get(at) == Some(&quote) {
                let Some(end) = self.quoted_field(body, start, at, fields) else {
                    return malformed(body, start, start, UNCLOSED);
                };
                at = end;
                match body.get(at) {
                    Some(byte) if *byte == delimiter => {
                        at += 1;
                        continue;
                    }
                    None | Some(b'\n') => {}
                    Some(b'\r') if matches!(body.get(at + 1), None | Some(b'\n')) => {}
                    Some(_) => return malformed(body, start, at, BEHIND_QUOTE),
                }
            } else {
                let end =
                    memchr::memchr3(delimiter, b'\n', quote, &body[at..]).map_or(body.len(), |n| at + n);
                match body.get(end) {
                    Some(byte) if *byte == delimiter => {
                        fields.push(at, end);
                        at = end + 1;
                        continue;
                    }
                    Some(byte) if *byte == quote => return malformed(body, start, end, STRAY_QUOTE),
                    _ => {}
                }
                let carriage_return = end > at && body[end - 1] == b'\r';
                fields.push(at, end - usize::from(carriage_return));
                at = end - usize::from(carriage_return);
            }
            let end = at;
            while matches!(body.get(at), Some(b'\r' | b'\n')) {
                at += 1;
                if body[at - 1] == b'\n' {
                    break;
                }
            }
            return SplitRow { end, next: at.max(start + 1), fault: None, last: false };
        }
    }
}

impl CsvDecoder {
    /// Reads the quoted field at `at` of the row that began at `start`; returns the place behind its
    /// closing quote, or `None` when there is none.
    fn quoted_field(&self, body: &[u8], start: usize, at: usize, fields: &mut Fields) -> Option<usize> {
        let quote = self.options.quote;
        let limit = body.len().min(start.saturating_add(self.options.row_bytes_max));
        let first = at + 1;
        let mut piece = first;
        let unescaped_start = fields.unescaped.len();
        let mut doubled = false;
        loop {
            let close = piece + memchr::memchr(quote, body.get(piece..limit)?)?;
            if body.get(close + 1) == Some(&quote) {
                doubled = true;
                fields.unescaped.extend_from_slice(&body[piece..=close]);
                piece = close + 2;
                continue;
            }
            if doubled {
                fields.unescaped.extend_from_slice(&body[piece..close]);
                fields.push_unescaped(unescaped_start);
            } else {
                fields.push_value(first, close);
            }
            return Some(close + 1);
        }
    }
}

/// A row that ends with the line of `at`.
fn malformed(body: &[u8], start: usize, at: usize, fault: RowFault) -> SplitRow {
    let line_end = memchr::memchr(b'\n', &body[at..]).map(|length| at + length);
    let end = line_end.unwrap_or(body.len());
    let carriage_return = end > start && body[end - 1] == b'\r';
    let next = line_end.map_or(body.len(), |end| end + 1);
    SplitRow { end: end - usize::from(carriage_return), next, fault: Some(fault), last: false }
}

/// Decodes one body; who has more than one makes a [`CsvDecoder`].
pub fn decode(schema: &SchemaRef, columns: &[usize], body: &[u8], options: &CsvOptions) -> DecodedRows {
    CsvDecoder::new(schema, columns, options.clone()).decode(body)
}

#[cfg(test)]
mod tests;
