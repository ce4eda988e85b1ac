//! Arrow batches as bytes: columns, narrowed and compressed, without their schema.
//!
//! ```text
//!   block   = version, rows, columns, column ...
//!   column  = head byte (validity, width, compressed?), section
//!   section = validity bitmap, then by type: integers | bits | raw | lengths + bytes | children
//! ```
//!
//! Integers are stored as their distance to the smallest one, in the narrowest of 0, 1, 2, 4, 8 or 16
//! bytes that holds all of them; a section longer than 256 bytes is compressed with LZ4 if that pays.
//! Whoever decodes brings the schema, so a block of one row is a few bytes. Byte tables are in
//! docs/format.md.
//!
//! Rules: a decoded batch equals the encoded one, row by row, null by null; damaged bytes give an error
//! or a batch, never a panic, and never more memory than a fixed multiple of the input (plus what
//! [`CONSTANT_ROWS_MAX`] rows take).

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, IntervalUnit, SchemaRef};

mod decode;
mod encode;
mod integers;
mod varint;

/// Version of the block format, its first byte.
const FORMAT_VERSION: u8 = 1;

/// Most rows of a block.
const ROWS_MAX: usize = u32::MAX as usize;

/// Sections up to this size are not worth compressing.
const PLAIN_BYTES_MAX: usize = 256;

/// More rows than this always cost bytes in the block, even if all values are equal, so that the size
/// of the input bounds the memory for decoding it.
const CONSTANT_ROWS_MAX: usize = 1 << 16;

/// Memory that an array may take of which nothing is stored but that all of it is null.
const NULL_BYTES_MAX: usize = 64 << 20;

/// LZ4 can't make more than this many bytes out of one.
const LZ4_RATIO_MAX: usize = 255;

/// Bits 0 and 1 of a head byte: which rows are null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    NoNulls = 0,
    Bitmap = 1,
    /// The section ends here.
    AllNull = 2,
}

/// Bit 7 of a column's head byte.
const COMPRESSED: u8 = 0x80;

/// Bytes that are not a block, or not one of this schema.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later version of the program; use that one.
    #[error(
        "column block has format version {version}, this program reads version {FORMAT_VERSION}; use a newer program"
    )]
    NewerFormat { version: u8 },
    /// The bytes are not those that were written, or belong to another schema.
    #[error("column block is damaged, or of another schema: {0}")]
    Damaged(String),
}

/// True for the types that [`encode_batch`] takes: all that SQL can declare, and what they consist of.
pub fn supports(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..)
        | DataType::RunEndEncoded(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => supports(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| supports(field.data_type())),
        DataType::Dictionary(keys, values) => keys.is_integer() && supports(values),
        _ => true,
    }
}

/// The batch as a block.
///
/// # Panics
/// If a column has a type that [`supports`] says no to, or the batch has 2^32 rows or more.
pub fn encode_batch(batch: &RecordBatch) -> Vec<u8> {
    encode::encode_batch(batch)
}

/// How many columns the batch has that was encoded as `block`.
///
/// # Errors
/// As [`decode_batch`].
pub fn column_count(block: &[u8]) -> Result<usize, DecodeError> {
    decode::column_count(block)
}

/// The batch that was encoded as `block`, with `schema` as it was then.
///
/// # Errors
/// Whatever is wrong with the block. Only a checksum around it tells every damage; without one, some
/// damage gives other values.
pub fn decode_batch(schema: &SchemaRef, block: &[u8]) -> Result<RecordBatch, DecodeError> {
    decode::decode_batch(schema, block)
}

/// True if an array that is null in every row is stored as just that. Reader and writer must agree: two
/// bytes must not ask for terabytes, which a long list of fixed size would take.
fn is_stored_as_all_null(data_type: &DataType, rows: usize) -> bool {
    let bytes = bytes_per_null_row(data_type).and_then(|bytes| bytes.checked_mul(rows));
    rows <= CONSTANT_ROWS_MAX && bytes.is_some_and(|bytes| bytes <= NULL_BYTES_MAX)
}

/// Upper estimate; `None` if it is beyond all numbers.
fn bytes_per_null_row(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeList(field, size) => {
            bytes_per_null_row(field.data_type())?.checked_mul(usize::try_from(*size).ok()?)
        }
        DataType::FixedSizeBinary(size) => usize::try_from(*size).ok()?.checked_add(1),
        DataType::Struct(fields) => fields
            .iter()
            .try_fold(1usize, |sum, field| sum.checked_add(bytes_per_null_row(field.data_type())?)),
        // The largest value has 32 bytes.
        _ => Some(33),
    }
}

/// Bytes per value of the types that are stored as they are.
fn fixed_size(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Float16 => Some(2),
        DataType::Float32 => Some(4),
        DataType::Float64 | DataType::Interval(IntervalUnit::DayTime) => Some(8),
        DataType::Interval(IntervalUnit::MonthDayNano) => Some(16),
        DataType::Decimal256(..) => Some(32),
        DataType::FixedSizeBinary(size) => usize::try_from(*size).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
