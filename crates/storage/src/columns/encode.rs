//! Columns to bytes.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, GenericByteArray, GenericByteViewArray, GenericListArray,
    OffsetSizeTrait, RecordBatch,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType, IntervalUnit,
    LargeBinaryType, LargeUtf8Type, StringViewType, Utf8Type,
};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::integers::{self, Width};
use super::{
    COMPRESSED, FORMAT_VERSION, PLAIN_BYTES_MAX, ROWS_MAX, Validity, fixed_size, is_stored_as_all_null,
    varint,
};

pub fn encode_batch(batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + batch.num_rows() * batch.num_columns() * 4);
    assert!(batch.num_rows() <= ROWS_MAX, "a batch has fewer than 2^32 rows");
    out.push(FORMAT_VERSION);
    varint::write_unsigned(batch.num_rows() as u128, &mut out);
    varint::write_unsigned(batch.num_columns() as u128, &mut out);
    for column in batch.columns() {
        let head = out.len();
        write_array(column, &mut out);
        if out.len() - head - 1 > PLAIN_BYTES_MAX {
            compress_section(head, &mut out);
        }
    }
    out
}

/// Replaces the section after the head byte by its compressed form, if that is shorter.
fn compress_section(head: usize, out: &mut Vec<u8>) {
    // The tables are large compared to a section: one per thread is cleared, not allocated anew.
    thread_local! {
        static TABLES: RefCell<(CompressTable, CompressTable, Vec<u8>)> =
            RefCell::new((CompressTable::small(), CompressTable::large(), Vec::new()));
    }
    TABLES.with_borrow_mut(|(small, large, compressed)| {
        let section = &out[head + 1..];
        let table = if section.len() < usize::from(u16::MAX) { small } else { large };
        compressed.resize(get_maximum_output_size(section.len()), 0);
        let length = compress_into_with_table(section, compressed, table)
            .expect("the output is as large as compression can make it");
        if length + length / 16 + 8 < section.len() {
            let plain_length = section.len();
            out[head] |= COMPRESSED;
            out.truncate(head + 1);
            varint::write_unsigned(plain_length as u128, out);
            varint::write_unsigned(length as u128, out);
            out.extend_from_slice(&compressed[..length]);
        }
        if compressed.capacity() > 16 << 20 {
            *compressed = Vec::new();
        }
    });
}

/// Appends head byte and section of an array; only its own rows, if it is a slice of a longer one.
fn write_array(array: &ArrayRef, out: &mut Vec<u8>) {
    let head = out.len();
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    let validity = match nulls {
        None => Validity::NoNulls,
        Some(nulls)
            if nulls.null_count() == nulls.len() && is_stored_as_all_null(array.data_type(), nulls.len()) =>
        {
            Validity::AllNull
        }
        Some(_) => Validity::Bitmap,
    };
    out.push(validity as u8);
    if validity == Validity::AllNull {
        return;
    }
    if let (Validity::Bitmap, Some(nulls)) = (validity, nulls) {
        write_bits(nulls.inner(), out);
    }
    let width = write_values(array, nulls, out);
    out[head] |= width.code() << 2;
}

/// Appends the values; returns the width of the integers among them.
fn write_values(array: &ArrayRef, nulls: Option<&NullBuffer>, out: &mut Vec<u8>) -> Width {
    match array.data_type() {
        DataType::Null => {}
        DataType::Boolean => {
            let array: &BooleanArray = array.as_boolean();
            write_bits(array.values(), out);
        }
        DataType::Int8 | DataType::UInt8 => return write_integers::<i8>(array, nulls, out),
        DataType::Int16 | DataType::UInt16 => return write_integers::<i16>(array, nulls, out),
        DataType::Int32
        | DataType::UInt32
        | DataType::Date32
        | DataType::Time32(_)
        | DataType::Decimal32(..)
        | DataType::Interval(IntervalUnit::YearMonth) => return write_integers::<i32>(array, nulls, out),
        DataType::Int64
        | DataType::UInt64
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Decimal64(..) => return write_integers::<i64>(array, nulls, out),
        DataType::Decimal128(..) => return write_integers::<i128>(array, nulls, out),
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal256(..)
        | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano)
        | DataType::FixedSizeBinary(_) => {
            let data = array.to_data();
            let size = fixed_size(array.data_type()).expect("all types of this arm have a fixed size");
            let start = data.offset() * size;
            out.extend_from_slice(&data.buffers()[0].as_slice()[start..start + data.len() * size]);
        }
        DataType::Utf8 => return write_bytes::<Utf8Type>(array.as_bytes(), out),
        DataType::LargeUtf8 => return write_bytes::<LargeUtf8Type>(array.as_bytes(), out),
        DataType::Binary => return write_bytes::<BinaryType>(array.as_bytes(), out),
        DataType::LargeBinary => return write_bytes::<LargeBinaryType>(array.as_bytes(), out),
        DataType::Utf8View => return write_views::<StringViewType>(array.as_byte_view(), out),
        DataType::BinaryView => return write_views::<BinaryViewType>(array.as_byte_view(), out),
        DataType::List(_) => return write_lists::<i32>(array.as_list(), out),
        DataType::LargeList(_) => return write_lists::<i64>(array.as_list(), out),
        DataType::Map(..) => {
            let array = array.as_map();
            let entries = array.entries().slice(array.offsets()[0] as usize, span(array.offsets()));
            let width = write_lengths(array.offsets(), out);
            write_array(&(Arc::new(entries) as ArrayRef), out);
            return width;
        }
        DataType::FixedSizeList(..) => {
            let array = array.as_fixed_size_list();
            let size = array.value_length() as usize;
            write_array(&array.values().slice(array.value_offset(0) as usize, array.len() * size), out);
        }
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                write_array(column, out);
            }
        }
        DataType::Dictionary(..) => {
            let array = array.as_any_dictionary();
            varint::write_unsigned(array.values().len() as u128, out);
            write_array(array.values(), out);
            return write_values(&array.keys().slice(0, array.len()), nulls, out);
        }
        DataType::Union(..)
        | DataType::RunEndEncoded(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => {
            panic!("columns of type {} are not stored; see columns::supports", array.data_type())
        }
    }
    Width::Constant
}

fn write_integers<T: integers::Integer>(
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    out: &mut Vec<u8>,
) -> Width {
    let data = array.to_data();
    integers::write::<T>(data.buffer::<T>(0).get(..data.len()).unwrap_or_default(), nulls, out)
}

fn write_bits(bits: &BooleanBuffer, out: &mut Vec<u8>) {
    let bytes = bits.len().div_ceil(8);
    if bits.offset().is_multiple_of(8) {
        let start = bits.offset() / 8;
        out.extend_from_slice(&bits.values()[start..start + bytes]);
    } else {
        out.extend_from_slice(&bits.sliced().as_slice()[..bytes]);
    }
    // Bits beyond the last row are not ours: equal rows give equal bytes.
    if !bits.len().is_multiple_of(8)
        && let Some(last) = out.last_mut()
    {
        *last &= (1 << (bits.len() % 8)) - 1;
    }
}

fn write_bytes<T: ByteArrayType>(array: &GenericByteArray<T>, out: &mut Vec<u8>) -> Width {
    let offsets = array.value_offsets();
    let width = write_lengths(offsets, out);
    let start = offsets[0].as_usize();
    out.extend_from_slice(&array.value_data()[start..start + span(offsets)]);
    width
}

fn write_views<T: ByteViewType>(array: &GenericByteViewArray<T>, out: &mut Vec<u8>) -> Width {
    let lengths: Vec<i32> = array.lengths().map(|length| length as i32).collect();
    let width = integers::write(&lengths, None, out);
    for bytes in array.bytes_iter() {
        out.extend_from_slice(bytes);
    }
    width
}

fn write_lists<O: OffsetSizeTrait>(array: &GenericListArray<O>, out: &mut Vec<u8>) -> Width {
    let offsets = array.value_offsets();
    let width = write_lengths(offsets, out);
    write_array(&array.values().slice(offsets[0].as_usize(), span(offsets)), out);
    width
}

fn write_lengths<O: OffsetSizeTrait>(offsets: &[O], out: &mut Vec<u8>) -> Width {
    let lengths: Vec<i64> =
        offsets.windows(2).map(|pair| pair[1].as_usize() as i64 - pair[0].as_usize() as i64).collect();
    integers::write(&lengths, None, out)
}

/// Bytes or elements between the first and the last offset.
fn span<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    offsets[offsets.len() - 1].as_usize() - offsets[0].as_usize()
}
