//! PostgreSQL's COPY text format: a line per row, tabs between fields, `\N` for NULL, backslash
//! escapes, and `\.` as the end mark.

use arrow::datatypes::SchemaRef;
use dataflow::{DecodedRows, RejectReason};

use super::delimited::{Delimited, Fields, RowFormat, Settings, SplitRow};
use super::value::hex_digit;

/// How fields are written.
#[derive(Clone, Debug, PartialEq)]
pub struct PgTextOptions {
    pub delimiter: u8,
    /// The text that means NULL.
    pub null: String,
    /// The first line is passed over.
    pub header: bool,
    /// Longer rows are rejected.
    pub row_bytes_max: usize,
}

impl Default for PgTextOptions {
    fn default() -> Self {
        PgTextOptions {
            delimiter: b'\t',
            null: "\\N".to_string(),
            header: false,
            row_bytes_max: super::ROW_BYTES_MAX,
        }
    }
}

/// Decodes COPY text for one table; made once, used for every body.
#[derive(Clone, Debug)]
pub struct PgTextDecoder {
    delimited: Delimited,
    options: PgTextOptions,
}

impl PgTextDecoder {
    /// `columns` says which column of the schema each field goes to.
    ///
    /// # Panics
    /// If a column number is not in the schema or stands twice.
    pub fn new(schema: &SchemaRef, columns: &[usize], options: PgTextOptions) -> PgTextDecoder {
        let settings = Settings {
            delimiter: options.delimiter,
            special: b'\\',
            null: &options.null,
            row_bytes_max: options.row_bytes_max,
        };
        let delimited = Delimited::new(schema, columns, settings);
        PgTextDecoder { delimited, options }
    }

    /// Decodes a whole body, up to the end mark if there is one.
    pub fn decode(&self, body: &[u8]) -> DecodedRows {
        let start = match self.options.header {
            true => memchr::memchr(b'\n', body).map_or(body.len(), |at| at + 1),
            false => 0,
        };
        self.delimited.decode(self, body, start)
    }
}

impl RowFormat for PgTextDecoder {
    fn split_row(&self, body: &[u8], start: usize, fields: &mut Fields) -> SplitRow {
        let rest = &body[start..];
        if rest.starts_with(b"\\.") && matches!(rest.get(2), None | Some(b'\n' | b'\r')) {
            return SplitRow { end: start + 2, next: start + 2, fault: None, last: true };
        }
        let mut at = start;
        let mut fault = None;
        loop {
            let field_start = at;
            let unescaped_start = fields.unescaped.len();
            let mut piece = at;
            let mut escaped = false;
            let stop = loop {
                let stop = memchr::memchr3(self.options.delimiter, b'\n', b'\\', &body[at..])
                    .map_or(body.len(), |n| at + n);
                if body.get(stop) != Some(&b'\\') {
                    break stop;
                }
                escaped = true;
                fields.unescaped.extend_from_slice(&body[piece..stop]);
                at = unescape(body, stop + 1, &mut fields.unescaped);
                piece = at;
            };
            let line_ends = body.get(stop) != Some(&self.options.delimiter);
            let carriage_return = line_ends && stop > piece && body[stop - 1] == b'\r';
            let end = stop - usize::from(carriage_return);
            if body[field_start..end] == *self.options.null.as_bytes() {
                fields.unescaped.truncate(unescaped_start);
                fields.push_null();
            } else if escaped {
                fields.unescaped.extend_from_slice(&body[piece..end]);
                let text = &fields.unescaped[unescaped_start..];
                if std::str::from_utf8(text).is_err() || text.contains(&0) {
                    fault =
                        Some((RejectReason::InvalidUtf8, "an escape spells bytes that are no UTF-8 text"));
                }
                fields.push_unescaped(unescaped_start);
            } else {
                fields.push_value(field_start, end);
            }
            if line_ends {
                let next = if stop < body.len() { stop + 1 } else { stop };
                return SplitRow { end, next, fault, last: false };
            }
            at = stop + 1;
        }
    }
}

/// Appends what the escape behind a backslash means; returns the place behind it.
fn unescape(body: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let Some(byte) = body.get(at) else {
        // A backslash at the very end stands for itself.
        out.push(b'\\');
        return at;
    };
    let plain = match byte {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'0'..=b'7' => {
            let digits = body[at..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let code =
                body[at..at + digits].iter().fold(0u32, |code, digit| code * 8 + u32::from(digit - b'0'));
            out.push(code as u8);
            return at + digits;
        }
        b'x' => {
            let digits = body[at + 1..].iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
            if digits == 0 {
                out.push(b'x');
                return at + 1;
            }
            let code = body[at + 1..at + 1 + digits]
                .iter()
                .fold(0u8, |code, digit| code << 4 | hex_digit(*digit).unwrap_or(0));
            out.push(code);
            return at + 1 + digits;
        }
        other => *other,
    };
    out.push(plain);
    at + 1
}

/// Decodes one body; who has more than one makes a [`PgTextDecoder`].
pub fn decode(schema: &SchemaRef, columns: &[usize], body: &[u8], options: &PgTextOptions) -> DecodedRows {
    PgTextDecoder::new(schema, columns, options.clone()).decode(body)
}
