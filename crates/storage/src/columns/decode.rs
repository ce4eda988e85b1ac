//! Bytes to columns, without trust.
//!
//! Every length is checked against the bytes that are left before memory is taken for it, and the
//! columns are built by Arrow's checked constructors.

use std::sync::Arc;

use arrow::array::{
    ArrayData, ArrayRef, NullArray, RecordBatch, RecordBatchOptions, make_array, make_view, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{DataType, IntervalUnit, SchemaRef, i256};
use arrow::error::ArrowError;

use super::integers::{self, Integer, Width};
use super::{
    COMPRESSED, DecodeError, FORMAT_VERSION, LZ4_RATIO_MAX, ROWS_MAX, Validity, fixed_size,
    is_stored_as_all_null, varint,
};

type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// How many columns a block has.
pub fn column_count(block: &[u8]) -> Result<usize> {
    read_head(&mut &block[..]).map(|(_, columns)| columns)
}

/// Rows and columns.
fn read_head(bytes: &mut &[u8]) -> Result<(usize, usize)> {
    let version = take(bytes, 1)?[0];
    if version > FORMAT_VERSION {
        return Err(DecodeError::NewerFormat { version });
    }
    if version == 0 {
        return Err(damaged("there is no format version 0"));
    }
    let rows = read_length(bytes)?;
    if rows > ROWS_MAX {
        return Err(damaged("it claims more rows than a batch can have"));
    }
    Ok((rows, read_length(bytes)?))
}

pub fn decode_batch(schema: &SchemaRef, block: &[u8]) -> Result<RecordBatch> {
    let mut bytes = block;
    let (rows, columns) = read_head(&mut bytes)?;
    if columns != schema.fields().len() {
        let expected = schema.fields().len();
        return Err(DecodeError::Damaged(format!("it has {columns} columns, the schema has {expected}")));
    }
    let mut arrays = Vec::with_capacity(columns);
    let mut plain = Vec::new();
    for field in schema.fields() {
        let array = read_column(&mut bytes, field.data_type(), rows, &mut plain)
            .map_err(|error| in_column(error, field.name()))?;
        arrays.push(array);
    }
    if !bytes.is_empty() {
        return Err(DecodeError::Damaged(format!("{} bytes follow the last column", bytes.len())));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).map_err(from_arrow)
}

fn read_column(
    bytes: &mut &[u8],
    data_type: &DataType,
    rows: usize,
    plain: &mut Vec<u8>,
) -> Result<ArrayRef> {
    let head = take(bytes, 1)?[0];
    if head & COMPRESSED == 0 {
        return read_section(bytes, head, data_type, rows);
    }
    let plain_length = read_length(bytes)?;
    let length = read_length(bytes)?;
    let compressed = take(bytes, length)?;
    if plain_length / LZ4_RATIO_MAX > length {
        return Err(damaged("it claims to be larger than compression allows"));
    }
    plain.resize(plain_length, 0);
    match lz4_flex::block::decompress_into(compressed, plain) {
        Ok(decompressed) if decompressed == plain_length => {}
        Ok(_) => return Err(damaged("it is shorter than it claims")),
        Err(error) => return Err(DecodeError::Damaged(format!("it can't be decompressed: {error}"))),
    }
    let mut section = plain.as_slice();
    let array = read_section(&mut section, head & !COMPRESSED, data_type, rows)?;
    if section.is_empty() { Ok(array) } else { Err(damaged("bytes follow the last value")) }
}

fn read_array(bytes: &mut &[u8], data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    let head = take(bytes, 1)?[0];
    read_section(bytes, head, data_type, rows)
}

fn read_section(bytes: &mut &[u8], head: u8, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    if head & 0xE0 != 0 {
        return Err(damaged("its head byte has unknown bits"));
    }
    let width = Width::from_code(head >> 2).ok_or_else(|| damaged("its integers have an unknown width"))?;
    let nulls = match head & 3 {
        validity if validity == Validity::NoNulls as u8 => None,
        validity if validity == Validity::Bitmap as u8 => Some(NullBuffer::new(read_bits(bytes, rows)?)),
        validity if validity == Validity::AllNull as u8 => {
            if !is_stored_as_all_null(data_type, rows) {
                return Err(damaged("it claims more null rows than are stored this way"));
            }
            return Ok(new_null_array(data_type, rows));
        }
        _ => return Err(damaged("its head byte has an unknown validity")),
    };
    let section = Section { data_type, rows, width, nulls };
    section.read(bytes)
}

/// What is known of an array when its values are read.
struct Section<'a> {
    data_type: &'a DataType,
    rows: usize,
    width: Width,
    nulls: Option<NullBuffer>,
}

impl Section<'_> {
    fn read(self, bytes: &mut &[u8]) -> Result<ArrayRef> {
        let rows = self.rows;
        match self.data_type {
            DataType::Null => {
                if self.nulls.is_some() {
                    return Err(damaged("a column of type null has no validity"));
                }
                Ok(Arc::new(NullArray::new(rows)))
            }
            DataType::Boolean => {
                let bits = read_bits(bytes, rows)?.into_inner();
                self.build(vec![bits], vec![])
            }
            DataType::Int8 | DataType::UInt8 => self.integers::<i8>(bytes),
            DataType::Int16 | DataType::UInt16 => self.integers::<i16>(bytes),
            DataType::Int32
            | DataType::UInt32
            | DataType::Date32
            | DataType::Time32(_)
            | DataType::Decimal32(..)
            | DataType::Interval(IntervalUnit::YearMonth) => self.integers::<i32>(bytes),
            DataType::Int64
            | DataType::UInt64
            | DataType::Date64
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Duration(_)
            | DataType::Decimal64(..) => self.integers::<i64>(bytes),
            DataType::Decimal128(..) => self.integers::<i128>(bytes),
            DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal256(..)
            | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano)
            | DataType::FixedSizeBinary(_) => self.fixed(bytes),
            DataType::Utf8 | DataType::Binary => self.bytes::<i32>(bytes),
            DataType::LargeUtf8 | DataType::LargeBinary => self.bytes::<i64>(bytes),
            DataType::Utf8View | DataType::BinaryView => self.views(bytes),
            DataType::List(field) | DataType::Map(field, _) => {
                let item = field.data_type().clone();
                self.lists::<i32>(bytes, &item)
            }
            DataType::LargeList(field) => {
                let item = field.data_type().clone();
                self.lists::<i64>(bytes, &item)
            }
            DataType::FixedSizeList(field, size) => {
                let items = usize::try_from(*size).ok().and_then(|size| rows.checked_mul(size));
                let items = items.ok_or_else(|| damaged("it has more elements than memory has bytes"))?;
                let values = read_array(bytes, field.data_type(), items)?;
                self.build(vec![], vec![values.to_data()])
            }
            DataType::Struct(fields) => {
                let mut children = Vec::with_capacity(fields.len());
                for field in fields {
                    let child = read_array(bytes, field.data_type(), rows);
                    children.push(child.map_err(|error| in_column(error, field.name()))?.to_data());
                }
                self.build(vec![], children)
            }
            DataType::Dictionary(key_type, value_type) => {
                let values_length = read_length(bytes)?;
                let values = read_array(bytes, value_type, values_length)?;
                let keys = Section { data_type: key_type, nulls: None, ..self };
                let keys = keys.read(bytes)?.to_data();
                self.build(keys.buffers().to_vec(), vec![values.to_data()])
            }
            DataType::Union(..)
            | DataType::RunEndEncoded(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => {
                Err(DecodeError::Damaged(format!("columns of type {} are not stored", self.data_type)))
            }
        }
    }

    /// Hands the parts to Arrow, which checks offsets, keys, UTF-8 and nulls.
    fn build(self, buffers: Vec<Buffer>, children: Vec<ArrayData>) -> Result<ArrayRef> {
        let data = ArrayData::builder(self.data_type.clone())
            .len(self.rows)
            .nulls(self.nulls)
            .buffers(buffers)
            .child_data(children)
            .build()
            .map_err(from_arrow)?;
        Ok(make_array(data))
    }

    fn integers<T: Integer>(self, bytes: &mut &[u8]) -> Result<ArrayRef> {
        if self.width.bytes() > T::WIDTH.bytes() {
            return Err(damaged("its integers are wider than their type"));
        }
        let buffer = integers::read_buffer::<T>(bytes, self.rows, self.width).ok_or_else(cut_off)?;
        self.build(vec![buffer], vec![])
    }

    fn fixed(self, bytes: &mut &[u8]) -> Result<ArrayRef> {
        let size = fixed_size(self.data_type).ok_or_else(|| damaged("its type has a negative size"))?;
        let length = self.rows.checked_mul(size).ok_or_else(cut_off)?;
        let values = take(bytes, length)?;
        // Copied into memory that is aligned for the type.
        let buffer = match self.data_type {
            DataType::Decimal256(..) => {
                let (values, _) = values.as_chunks::<32>();
                Buffer::from_vec(
                    values.iter().map(|value| i256::from_le_bytes(*value)).collect::<Vec<i256>>(),
                )
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let (values, _) = values.as_chunks::<16>();
                Buffer::from_vec(
                    values.iter().map(|value| i128::from_le_bytes(*value)).collect::<Vec<i128>>(),
                )
            }
            _ => Buffer::from(values),
        };
        self.build(vec![buffer], vec![])
    }

    fn bytes<O: TryFrom<u64> + arrow::datatypes::ArrowNativeType>(
        self,
        bytes: &mut &[u8],
    ) -> Result<ArrayRef> {
        let lengths = read_lengths(bytes, self.rows, self.width)?;
        let (offsets, total) = offsets::<O>(&lengths)?;
        let values = Buffer::from(take(bytes, total)?);
        self.build(vec![offsets, values], vec![])
    }

    fn views(self, bytes: &mut &[u8]) -> Result<ArrayRef> {
        if self.width.bytes() > 4 {
            return Err(damaged("its lengths are wider than four bytes"));
        }
        let lengths = integers::read::<i32>(bytes, self.rows, self.width).ok_or_else(cut_off)?;
        let mut total = 0u64;
        for length in &lengths {
            total += u64::try_from(*length).map_err(|_| damaged("a length is negative"))?;
        }
        if total > u64::from(u32::MAX) {
            return Err(damaged("its values are longer than 4 GiB"));
        }
        let values = take(bytes, total as usize)?;
        let mut views = Vec::with_capacity(self.rows);
        let mut start = 0;
        for length in lengths {
            let end = start + length as usize;
            views.push(make_view(&values[start..end], 0, start as u32));
            start = end;
        }
        self.build(vec![Buffer::from_vec(views), Buffer::from(values)], vec![])
    }

    fn lists<O: TryFrom<u64> + arrow::datatypes::ArrowNativeType>(
        self,
        bytes: &mut &[u8],
        item: &DataType,
    ) -> Result<ArrayRef> {
        let lengths = read_lengths(bytes, self.rows, self.width)?;
        let (offsets, total) = offsets::<O>(&lengths)?;
        let values = read_array(bytes, item, total)?;
        self.build(vec![offsets], vec![values.to_data()])
    }
}

fn read_lengths(bytes: &mut &[u8], rows: usize, width: Width) -> Result<Vec<i64>> {
    if width.bytes() > 8 {
        return Err(damaged("its lengths are wider than eight bytes"));
    }
    integers::read::<i64>(bytes, rows, width).ok_or_else(cut_off)
}

/// The lengths added up, as Arrow wants them, and their sum.
fn offsets<O: TryFrom<u64> + arrow::datatypes::ArrowNativeType>(lengths: &[i64]) -> Result<(Buffer, usize)> {
    let too_long = || damaged("its values are longer than its type allows");
    let mut offsets = Vec::with_capacity(lengths.len() + 1);
    let mut total = 0u64;
    offsets.push(O::default());
    for length in lengths {
        let length = u64::try_from(*length).map_err(|_| damaged("a length is negative"))?;
        total = total.checked_add(length).ok_or_else(too_long)?;
        offsets.push(O::try_from(total).map_err(|_| too_long())?);
    }
    let total = usize::try_from(total).map_err(|_| too_long())?;
    Ok((Buffer::from_vec(offsets), total))
}

fn read_bits(bytes: &mut &[u8], rows: usize) -> Result<BooleanBuffer> {
    let bits = take(bytes, rows.div_ceil(8))?;
    Ok(BooleanBuffer::new(Buffer::from(bits), 0, rows))
}

fn read_length(bytes: &mut &[u8]) -> Result<usize> {
    let value = varint::read_unsigned(bytes).ok_or_else(cut_off)?;
    // Far below what could overflow when it is multiplied with the size of a value.
    if value > 1 << 48 {
        return Err(damaged("a length is impossibly large"));
    }
    Ok(value as usize)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    bytes.split_off(..length).ok_or_else(cut_off)
}

fn cut_off() -> DecodeError {
    damaged("it is cut off")
}

fn damaged(what: &str) -> DecodeError {
    DecodeError::Damaged(what.to_owned())
}

fn in_column(error: DecodeError, name: &str) -> DecodeError {
    match error {
        DecodeError::Damaged(what) => DecodeError::Damaged(format!("column \"{name}\": {what}")),
        other => other,
    }
}

fn from_arrow(error: ArrowError) -> DecodeError {
    DecodeError::Damaged(error.to_string())
}
