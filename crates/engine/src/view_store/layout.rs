//! How a view's rows are written as bytes: key columns first.
//!
//! ```text
//!   schema   a  b  c  d    key = (c, a)
//!   stored   c  a | b  d       the key's bytes are a prefix of the row's
//! ```
//!
//! The row format gives every column its end, so single columns can be found in a row and decoded alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::{Error, Result};

use crate::row_codec::{EncodedRows, RowCodec, batch_of};

pub struct RowLayout {
    pub schema: SchemaRef,
    /// Key columns; all of them in order for rows without a key.
    pub key: Vec<usize>,
    // Schema columns in stored order.
    stored: Vec<usize>,
    // Position in stored order of each schema column.
    position: Vec<usize>,
    row_codec: RowCodec,
    key_codec: RowCodec,
    // Per column in stored order.
    column_codecs: Vec<RowCodec>,
    // `None` if a column's end can't be told from its bytes.
    widths: Option<Vec<Width>>,
}

/// Bytes of a column in a row.
#[derive(Clone, Copy)]
enum Width {
    Fixed(usize),
    /// Written in blocks, as text and binary are.
    Blocks,
}

impl RowLayout {
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<RowLayout> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let key = if key.is_empty() { all.clone() } else { key };
        let mut stored = key.clone();
        stored.extend(all.iter().filter(|column| !key.contains(column)));
        if stored.len() != all.len() {
            return Err(Error::Operator("a key names a column twice".to_string()));
        }
        let position = all
            .iter()
            .map(|column| stored.iter().position(|c| c == column).expect("every column is stored"))
            .collect();
        Ok(RowLayout {
            row_codec: RowCodec::for_columns(&schema, &stored)?,
            key_codec: RowCodec::for_columns(&schema, &key)?,
            column_codecs: stored
                .iter()
                .map(|c| RowCodec::for_columns(&schema, &[*c]))
                .collect::<Result<_>>()?,
            widths: stored.iter().map(|c| width(schema.field(*c).data_type())).collect(),
            schema,
            key,
            stored,
            position,
        })
    }

    /// Encodes rows with the schema's columns.
    pub fn encode(&self, rows: &RecordBatch) -> Result<EncodedRows> {
        self.row_codec.encode_columns(rows, &self.stored)
    }

    /// Encodes rows of the key columns only.
    pub fn encode_key(&self, keys: &RecordBatch) -> Result<EncodedRows> {
        self.key_codec.encode(keys.columns(), keys.num_rows())
    }

    /// The lengths of the keys in `encoded`, the encoded `rows`.
    pub fn key_lengths(&self, rows: &RecordBatch, encoded: &EncodedRows) -> Result<Vec<usize>> {
        if self.key.len() == self.stored.len() {
            return Ok(encoded.iter().map(<[u8]>::len).collect());
        }
        match &self.widths {
            Some(widths) => {
                let widths = &widths[..self.key.len()];
                Ok(encoded
                    .iter()
                    .map(|row| widths.iter().fold(0, |at, width| at + width.of(&row[at..])))
                    .collect())
            }
            None => Ok(self.key_codec.encode_columns(rows, &self.key)?.iter().map(<[u8]>::len).collect()),
        }
    }

    /// The lengths of the keys of encoded rows.
    pub fn key_lengths_of(&self, rows: &[&[u8]]) -> Result<Vec<usize>> {
        if self.key.len() == self.stored.len() {
            return Ok(rows.iter().map(|row| row.len()).collect());
        }
        match &self.widths {
            Some(widths) => {
                let widths = &widths[..self.key.len()];
                Ok(rows
                    .iter()
                    .map(|row| widths.iter().fold(0, |at, width| at + width.of(&row[at..])))
                    .collect())
            }
            None => {
                let keys = self.key_codec.encode_columns(&self.batch(rows)?, &self.key)?;
                Ok(keys.iter().map(<[u8]>::len).collect())
            }
        }
    }

    /// The columns named by `projection`, in its order, of encoded rows.
    pub fn decode(&self, rows: &[&[u8]], projection: &[usize]) -> Result<Vec<ArrayRef>> {
        match &self.widths {
            Some(widths) if projection.len() < self.stored.len() => {
                self.decode_some(rows, projection, widths)
            }
            _ => {
                let columns = self.row_codec.decode(rows)?;
                Ok(projection.iter().map(|column| Arc::clone(&columns[self.position[*column]])).collect())
            }
        }
    }

    fn decode_some(&self, rows: &[&[u8]], projection: &[usize], widths: &[Width]) -> Result<Vec<ArrayRef>> {
        let wanted: Vec<usize> = projection.iter().map(|column| self.position[*column]).collect();
        let last = wanted.iter().max().map_or(0, |position| position + 1);
        let mut parts: Vec<Vec<&[u8]>> = vec![Vec::new(); last];
        for position in &wanted {
            parts[*position].reserve_exact(rows.len());
        }
        for row in rows {
            let mut rest: &[u8] = row;
            for (position, width) in widths[..last].iter().enumerate() {
                let (part, after) = rest.split_at(width.of(rest));
                // Room was reserved for the wanted ones only.
                if parts[position].capacity() > 0 {
                    parts[position].push(part);
                }
                rest = after;
            }
        }
        wanted
            .into_iter()
            .map(|position| Ok(self.column_codecs[position].decode(&parts[position])?.remove(0)))
            .collect()
    }

    /// All columns of encoded rows.
    pub fn batch(&self, rows: &[&[u8]]) -> Result<RecordBatch> {
        let all: Vec<usize> = (0..self.stored.len()).collect();
        batch_of(&self.schema, self.decode(rows, &all)?, rows.len())
    }

    /// A row for people: `{a: 1, b: NULL}`.
    pub fn describe(&self, row: &[u8]) -> String {
        const SHOWN_CHARS_MAX: usize = 300;
        let options = FormatOptions::default().with_null("NULL");
        let text = self.batch(&[row]).and_then(|batch| {
            let mut fields = Vec::new();
            for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
                let value = ArrayFormatter::try_new(column, &options)?;
                fields.push(format!("{}: {}", field.name(), value.value(0)));
            }
            Ok(format!("{{{}}}", fields.join(", ")))
        });
        match text {
            Ok(text) => text.chars().take(SHOWN_CHARS_MAX).collect(),
            Err(error) => format!("(row that can't be shown: {error})"),
        }
    }
}

/// The row format's widths (see the arrow-row crate): a byte for NULL before a fixed value; blocks for bytes.
fn width(data_type: &DataType) -> Option<Width> {
    match data_type {
        DataType::Boolean => Some(Width::Fixed(2)),
        DataType::FixedSizeBinary(length) => Some(Width::Fixed(1 + usize::try_from(*length).ok()?)),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => Some(Width::Blocks),
        other => other.primitive_width().map(|width| Width::Fixed(1 + width)),
    }
}

impl Width {
    /// The width of the column that `bytes` begin with.
    #[inline]
    fn of(self, bytes: &[u8]) -> usize {
        match self {
            Width::Fixed(width) => width,
            Width::Blocks => blocks_width(bytes),
        }
    }
}

/// Blocks: a sentinel, then four blocks of 8 bytes, then blocks of 32, each followed by 255 if another
/// one comes, else by its length.
fn blocks_width(bytes: &[u8]) -> usize {
    const NON_EMPTY: u8 = 2;
    const CONTINUED: u8 = 255;
    if bytes[0] != NON_EMPTY {
        return 1;
    }
    let mut end = 1;
    for block in 0.. {
        end += if block < 4 { 9 } else { 33 };
        if bytes[end - 1] != CONTINUED {
            break;
        }
    }
    end
}
