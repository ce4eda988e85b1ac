//! Rows as bytes that are only compared for equality: shorter than [`crate::row_codec`]'s, and not in order.
//!
//! ```text
//!   a bit per column, set for NULL | values of columns that are not NULL, one after another
//!                                    fixed width: as in memory
//!                                    text, bytes: length (LEB128), bytes
//!                                    others:      length, bytes of the row format
//! ```
//!
//! A row format in order pads text to blocks and gives each value a byte for NULL; where rows are kept by the million,
//! that is much of them. Equal rows have equal bytes; floats are equal when their bits are.
//!
//! Rule: bytes are only decoded by a codec of the same column types that wrote them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, make_array};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::SortOptions;
use arrow::datatypes::{ArrowNativeType, DataType, SchemaRef};
use dataflow::{Error, Result};

use crate::row_codec::{EncodedRows, RowCodec};

/// Encodes columns to packed rows and back.
pub struct PackedCodec {
    columns: Vec<Column>,
}

struct Column {
    data_type: DataType,
    kind: Kind,
}

enum Kind {
    /// Values of this many bytes.
    Fixed(usize),
    Boolean,
    /// Text and bytes with 32-bit offsets.
    Bytes,
    Other(RowCodec),
}

/// The packed rows of one batch.
pub struct PackedRows {
    bytes: Vec<u8>,
    // One more than there are rows.
    ends: Vec<usize>,
}

/// A column of a batch, ready to be written row by row.
enum Values<'a> {
    Fixed { width: usize, bytes: &'a [u8] },
    Boolean(&'a BooleanArray),
    Bytes { offsets: &'a [i32], bytes: &'a [u8] },
    Other(EncodedRows),
}

impl PackedRows {
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.ends[row]..self.ends[row + 1]]
    }
}

impl PackedCodec {
    /// Most bytes decoded at once: string columns count their bytes in 31 bits.
    const DECODED_BYTES_MAX: usize = i32::MAX as usize;

    /// A codec for the columns of `schema` with these numbers.
    ///
    /// # Errors
    /// If a type has no row format.
    pub fn for_columns(schema: &SchemaRef, columns: &[usize]) -> Result<PackedCodec> {
        let column = |number: &usize| {
            let data_type = schema.field(*number).data_type().clone();
            let kind = match &data_type {
                DataType::Boolean => Kind::Boolean,
                DataType::Utf8 | DataType::Binary => Kind::Bytes,
                DataType::FixedSizeBinary(width) => Kind::Fixed(*width as usize),
                other => match other.primitive_width() {
                    Some(width) => Kind::Fixed(width),
                    None => Kind::Other(RowCodec::new([(data_type.clone(), SortOptions::default())])?),
                },
            };
            Ok(Column { data_type, kind })
        };
        Ok(PackedCodec { columns: columns.iter().map(column).collect::<Result<_>>()? })
    }

    fn bitmap_bytes(&self) -> usize {
        self.columns.len().div_ceil(8)
    }

    /// Packs the columns of `batch` with these numbers.
    pub fn encode_columns(&self, batch: &RecordBatch, columns: &[usize]) -> Result<PackedRows> {
        let columns: Vec<ArrayRef> = columns.iter().map(|c| Arc::clone(batch.column(*c))).collect();
        self.encode(&columns, batch.num_rows())
    }

    /// Packs `columns`, which have `row_count` rows each.
    pub fn encode(&self, columns: &[ArrayRef], row_count: usize) -> Result<PackedRows> {
        let data: Vec<_> = columns.iter().map(|column| column.to_data()).collect();
        let mut values = Vec::with_capacity(columns.len());
        for ((column, array), data) in self.columns.iter().zip(columns).zip(&data) {
            values.push(match &column.kind {
                Kind::Fixed(width) => Values::Fixed {
                    width: *width,
                    bytes: &data.buffers()[0].as_slice()[data.offset() * width..],
                },
                Kind::Boolean => Values::Boolean(array.as_boolean()),
                Kind::Bytes => Values::Bytes {
                    offsets: &data.buffers()[0].typed_data::<i32>()[data.offset()..],
                    bytes: data.buffers()[1].as_slice(),
                },
                Kind::Other(codec) => Values::Other(codec.encode(&[Arc::clone(array)], row_count)?),
            });
        }
        // Where NULLs are told by the values (dictionaries), the row format tells them.
        let nulls: Vec<Option<&NullBuffer>> =
            columns.iter().map(|column| column.nulls().filter(|nulls| nulls.null_count() > 0)).collect();
        let mut lengths = vec![self.bitmap_bytes(); row_count];
        for (values, nulls) in values.iter().zip(&nulls) {
            values.add_lengths(*nulls, &mut lengths);
        }
        let mut ends = Vec::with_capacity(row_count + 1);
        let mut end = 0;
        ends.push(0);
        ends.extend(lengths.iter().map(|length| {
            end += length;
            end
        }));
        let mut bytes = vec![0; end];
        let mut at: Vec<usize> = ends[..row_count].iter().map(|start| start + self.bitmap_bytes()).collect();
        for (number, (values, nulls)) in values.iter().zip(&nulls).enumerate() {
            if let Some(nulls) = nulls {
                for row in 0..row_count {
                    bytes[ends[row] + number / 8] |= u8::from(nulls.is_null(row)) << (number % 8);
                }
            }
            values.write(*nulls, &mut bytes, &mut at);
        }
        Ok(PackedRows { bytes, ends })
    }

    /// The columns of rows that this codec packed.
    ///
    /// # Errors
    /// If the rows are too large for one batch.
    pub fn decode(&self, rows: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let bytes: usize = rows.iter().map(|row| row.len()).sum();
        if bytes > PackedCodec::DECODED_BYTES_MAX {
            return Err(Error::Operator(format!(
                "one step changed {} rows of together {bytes} bytes; a batch holds at most 2 GiB",
                rows.len()
            )));
        }
        let mut at = vec![self.bitmap_bytes(); rows.len()];
        let decode = |(number, column): (usize, &Column)| column.decode(number, rows, &mut at);
        self.columns.iter().enumerate().map(decode).collect()
    }
}

impl Values<'_> {
    fn add_lengths(&self, nulls: Option<&NullBuffer>, lengths: &mut [usize]) {
        let fixed = match self {
            Values::Fixed { width, .. } => Some(*width),
            Values::Boolean(_) => Some(1),
            _ => None,
        };
        match (fixed, nulls) {
            (Some(width), None) => lengths.iter_mut().for_each(|length| *length += width),
            _ => {
                for (row, length) in lengths.iter_mut().enumerate() {
                    if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                        *length += match self {
                            Values::Fixed { width, .. } => *width,
                            Values::Boolean(_) => 1,
                            Values::Bytes { offsets, .. } => {
                                prefixed((offsets[row + 1] - offsets[row]) as usize)
                            }
                            Values::Other(rows) => prefixed(rows.get(row).len()),
                        };
                    }
                }
            }
        }
    }

    /// Writes each row's value at its place, and moves the place on.
    fn write(&self, nulls: Option<&NullBuffer>, out: &mut [u8], at: &mut [usize]) {
        let is_valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        match self {
            Values::Fixed { width, bytes } => match width {
                // A copy of known length is one instruction.
                8 => write_fixed::<8>(bytes, is_valid, out, at),
                4 => write_fixed::<4>(bytes, is_valid, out, at),
                16 => write_fixed::<16>(bytes, is_valid, out, at),
                _ => {
                    for (row, at) in at.iter_mut().enumerate().filter(|(row, _)| is_valid(*row)) {
                        out[*at..*at + width].copy_from_slice(&bytes[row * width..][..*width]);
                        *at += width;
                    }
                }
            },
            Values::Boolean(values) => {
                for (row, at) in at.iter_mut().enumerate().filter(|(row, _)| is_valid(*row)) {
                    out[*at] = u8::from(values.value(row));
                    *at += 1;
                }
            }
            Values::Bytes { offsets, bytes } => {
                for (row, at) in at.iter_mut().enumerate().filter(|(row, _)| is_valid(*row)) {
                    write_prefixed(&bytes[offsets[row] as usize..offsets[row + 1] as usize], out, at);
                }
            }
            Values::Other(rows) => {
                for (row, at) in at.iter_mut().enumerate().filter(|(row, _)| is_valid(*row)) {
                    write_prefixed(rows.get(row), out, at);
                }
            }
        }
    }
}

fn write_fixed<const WIDTH: usize>(
    bytes: &[u8],
    is_valid: impl Fn(usize) -> bool,
    out: &mut [u8],
    at: &mut [usize],
) {
    for (row, at) in at.iter_mut().enumerate() {
        if is_valid(row) {
            out[*at..*at + WIDTH].copy_from_slice(&bytes[row * WIDTH..][..WIDTH]);
            *at += WIDTH;
        }
    }
}

impl Column {
    /// The values that stand `at` these places of the rows; moves the places on.
    fn decode(&self, number: usize, rows: &[&[u8]], at: &mut [usize]) -> Result<ArrayRef> {
        let nulls = nulls_of(number, rows);
        let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        Ok(match &self.kind {
            Kind::Fixed(width) => {
                let mut values = MutableBuffer::from_len_zeroed(rows.len() * width);
                match width {
                    8 => read_fixed::<8>(rows, is_valid, &mut values, at),
                    4 => read_fixed::<4>(rows, is_valid, &mut values, at),
                    16 => read_fixed::<16>(rows, is_valid, &mut values, at),
                    _ => {
                        for (row, at) in at.iter_mut().enumerate().filter(|(row, _)| is_valid(*row)) {
                            values[row * width..][..*width].copy_from_slice(&rows[row][*at..*at + width]);
                            *at += width;
                        }
                    }
                }
                self.array(vec![values.into()], rows.len(), nulls)?
            }
            Kind::Boolean => {
                let mut values = BooleanBufferBuilder::new(rows.len());
                for (row, at) in at.iter_mut().enumerate() {
                    let valid = is_valid(row);
                    values.append(valid && rows[row][*at] != 0);
                    *at += usize::from(valid);
                }
                Arc::new(BooleanArray::new(values.finish(), nulls))
            }
            Kind::Bytes => {
                let mut offsets: Vec<i32> = Vec::with_capacity(rows.len() + 1);
                let mut values: Vec<u8> = Vec::new();
                offsets.push(0);
                for (row, at) in at.iter_mut().enumerate() {
                    if is_valid(row) {
                        values.extend_from_slice(read_prefixed(rows[row], at));
                    }
                    // All rows together are shorter than 2 GiB.
                    offsets.push(values.len() as i32);
                }
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets)).into_inner().into_inner();
                self.array(vec![offsets, Buffer::from_vec(values)], rows.len(), nulls)?
            }
            Kind::Other(codec) => {
                // What was NULL is written as some row's value, and covered.
                let null = codec.encode(&[arrow::array::new_null_array(&self.data_type, 1)], 1)?;
                let values: Vec<&[u8]> = at
                    .iter_mut()
                    .enumerate()
                    .map(|(row, at)| if is_valid(row) { read_prefixed(rows[row], at) } else { null.get(0) })
                    .collect();
                codec.decode(&values)?.remove(0)
            }
        })
    }

    /// An array of this column's type; text is checked to be UTF-8.
    fn array(&self, buffers: Vec<Buffer>, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let data = arrow::array::ArrayData::builder(self.data_type.clone()).len(rows).nulls(nulls);
        Ok(make_array(buffers.into_iter().fold(data, |data, buffer| data.add_buffer(buffer)).build()?))
    }
}

fn read_fixed<const WIDTH: usize>(
    rows: &[&[u8]],
    is_valid: impl Fn(usize) -> bool,
    values: &mut [u8],
    at: &mut [usize],
) {
    for (row, at) in at.iter_mut().enumerate() {
        if is_valid(row) {
            values[row * WIDTH..][..WIDTH].copy_from_slice(&rows[row][*at..*at + WIDTH]);
            *at += WIDTH;
        }
    }
}

fn nulls_of(number: usize, rows: &[&[u8]]) -> Option<NullBuffer> {
    let is_null = |row: &[u8]| row[number / 8] >> (number % 8) & 1 == 1;
    if !rows.iter().any(|row| is_null(row)) {
        return None;
    }
    Some(rows.iter().map(|row| !is_null(row)).collect())
}

/// Bytes of a value of this length and of the length itself.
#[inline]
fn prefixed(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    length + bits.div_ceil(7).as_usize()
}

#[inline]
fn write_prefixed(value: &[u8], out: &mut [u8], at: &mut usize) {
    let mut length = value.len();
    while length >= 0x80 {
        out[*at] = length as u8 | 0x80;
        length >>= 7;
        *at += 1;
    }
    out[*at] = length as u8;
    *at += 1;
    out[*at..*at + value.len()].copy_from_slice(value);
    *at += value.len();
}

#[inline]
fn read_prefixed<'a>(row: &'a [u8], at: &mut usize) -> &'a [u8] {
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = row[*at];
        *at += 1;
        length |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            break;
        }
        shift += 7;
    }
    let value = &row[*at..*at + length];
    *at += length;
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, Decimal128Array, Float64Array, Int16Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::compute::{cast, concat, take};
    use arrow::datatypes::{Field, Int32Type, Schema};

    /// Columns of every kind, with and without NULLs, of `rows` random rows.
    fn columns(rng: &mut fastrand::Rng, rows: usize) -> Vec<ArrayRef> {
        let nulls = rng.u8(0..3);
        let mut some = |value: i64| (nulls == 0 || rng.u8(0..2 + nulls) > 0).then_some(value);
        let numbers: Vec<Option<i64>> = (0..rows as i64).map(|row| some(row * 7919 % 13 - 6)).collect();
        let text = |number: &i64| "ü".repeat((number + 6) as usize * if *number == 5 { 20 } else { 1 });
        let strings: StringArray = numbers.iter().map(|n| n.as_ref().map(text)).collect();
        let lists = numbers.iter().map(|n| n.map(|n| (0..n.max(0) as i32).map(Some).collect::<Vec<_>>()));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        vec![
            Arc::new(Int64Array::from(numbers.clone())),
            Arc::new(strings.clone()),
            Arc::new(numbers.iter().map(|n| n.map(|n| n > 0)).collect::<BooleanArray>()),
            Arc::new(numbers.iter().map(|n| n.map(|n| n as i16)).collect::<Int16Array>()),
            Arc::new(numbers.iter().map(|n| n.map(|n| n as f64 / 3.0)).collect::<Float64Array>()),
            Arc::new(
                numbers
                    .iter()
                    .map(|n| n.map(i128::from))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
            Arc::new(TimestampMicrosecondArray::from(numbers.clone()).with_timezone("UTC")),
            cast(&strings, &DataType::Binary).unwrap(),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            cast(&strings, &dictionary).unwrap(),
            cast(&strings, &DataType::LargeUtf8).unwrap(),
        ]
    }

    fn schema_of(columns: &[ArrayRef]) -> SchemaRef {
        let field = |(n, c): (usize, &ArrayRef)| Field::new(format!("c{n}"), c.data_type().clone(), true);
        Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()))
    }

    #[test]
    fn rows_come_back_and_are_equal_when_their_bytes_are() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let rows = rng.usize(0..60);
            let skipped = rng.usize(0..=rows);
            let columns: Vec<ArrayRef> =
                columns(&mut rng, rows).iter().map(|c| c.slice(skipped, rows - skipped)).collect();
            let all: Vec<usize> = (0..columns.len()).collect();
            let codec = PackedCodec::for_columns(&schema_of(&columns), &all).unwrap();
            let ordered = RowCodec::for_columns(&schema_of(&columns), &all).unwrap();
            let packed = codec.encode(&columns, rows - skipped).unwrap();
            let in_order = ordered.encode(&columns, rows - skipped).unwrap();
            let wanted: Vec<usize> = (0..rng.usize(0..20).min((rows - skipped) * 20))
                .map(|_| rng.usize(0..rows - skipped))
                .collect();
            let picked: Vec<&[u8]> = wanted.iter().map(|row| packed.get(*row)).collect();
            for a in &wanted {
                for b in &wanted {
                    assert_eq!(packed.get(*a) == packed.get(*b), in_order.get(*a) == in_order.get(*b));
                }
            }
            let numbers: arrow::array::UInt32Array = wanted.iter().map(|row| *row as u32).collect();
            for (back, column) in codec.decode(&picked).unwrap().iter().zip(&columns) {
                let expected = take(column, &numbers, None).unwrap();
                assert_eq!(back.data_type(), column.data_type());
                assert_eq!(back, &expected, "{}", column.data_type());
            }
        }
    }

    #[test]
    fn text_of_any_length_comes_back() {
        let texts: Vec<String> =
            [0, 1, 127, 128, 129, 16_383, 16_384, 70_000].map(|n| "x".repeat(n)).to_vec();
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        let twice = concat(&[&column, &column]).unwrap();
        let codec = PackedCodec::for_columns(&schema_of(&[Arc::clone(&twice)]), &[0]).unwrap();
        let packed = codec.encode(&[Arc::clone(&twice)], 16).unwrap();
        let rows: Vec<&[u8]> = (0..16).map(|row| packed.get(row)).collect();
        assert_eq!(&codec.decode(&rows).unwrap()[0], &twice);
        assert!((0..8).all(|row| rows[row] == rows[row + 8]));
        assert_eq!(rows[2].len(), 1 + 1 + 127);
        assert_eq!(rows[3].len(), 1 + 2 + 128);
    }

    #[test]
    fn rows_without_columns_are_still_rows() {
        let codec = PackedCodec::for_columns(&schema_of(&[]), &[]).unwrap();
        let packed = codec.encode(&[], 3).unwrap();
        assert_eq!([packed.get(0), packed.get(2)], [&[] as &[u8]; 2]);
        assert!(codec.decode(&[b"", b""]).unwrap().is_empty());
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(b"".as_slice()), None]));
        let codec = PackedCodec::for_columns(&schema_of(&[Arc::clone(&bytes)]), &[0]).unwrap();
        let packed = codec.encode(&[bytes], 2).unwrap();
        assert_ne!(packed.get(0), packed.get(1), "empty is not NULL");
    }
}
