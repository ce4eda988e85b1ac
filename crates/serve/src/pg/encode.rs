//! Arrow columns as PostgreSQL values, in text and in binary.
//!
//! ```text
//! RecordBatch --cast per column to the canonical type--> RowEncoder --row by row--> DataRow messages
//! ```
//!
//! Arrow is columns, the protocol is rows: the type of a column is decided once per batch
//! ([`Values`]), so that a row costs one jump per value and no allocation for the usual types.
//! Text is exactly what PostgreSQL prints; the tests hold its output.

use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array,
    Decimal256Array, DurationMicrosecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, LargeBinaryArray, LargeStringArray, ListArray,
    RecordBatch, StringArray, StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, DurationMicrosecondType, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, SchemaRef,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;

use super::calendar;
use super::errors::{PgError, code};
use super::numeric::Decimal;
use super::types::{PgType, arrow_of, canonical, element_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// A column as it was announced to the client.
#[derive(Clone, Debug)]
pub struct ResultColumn {
    pub name: String,
    pub pg_type: PgType,
    pub format: Format,
}

/// The columns of a result; `formats` as in Bind: none is all text, one is for all.
pub fn result_columns(schema: &SchemaRef, formats: &[Format]) -> Result<Vec<ResultColumn>, PgError> {
    let fields = schema.fields();
    if formats.len() > 1 && formats.len() != fields.len() {
        return Err(PgError::error(
            code::PROTOCOL_VIOLATION,
            format!(
                "bind message has {} result formats but query has {} columns",
                formats.len(),
                fields.len()
            ),
        ));
    }
    let format = |i: usize| formats.get(i).or(formats.first()).copied().unwrap_or(Format::Text);
    Ok(fields
        .iter()
        .enumerate()
        .map(|(i, field)| ResultColumn {
            name: field.name().clone(),
            pg_type: PgType::of_field(field),
            format: format(i),
        })
        .collect())
}

/// Rows of one batch, ready to be written one after another.
pub struct RowEncoder {
    columns: Vec<Column>,
    rows: usize,
}

struct Column {
    values: Values,
    oid_type: Type,
    format: Format,
}

impl RowEncoder {
    pub fn new(batch: &RecordBatch, announced: &[ResultColumn]) -> Result<RowEncoder, PgError> {
        if batch.num_columns() != announced.len() {
            return Err(PgError::error(
                code::INTERNAL,
                format!("result has {} columns, {} were announced", batch.num_columns(), announced.len()),
            ));
        }
        let columns = batch
            .columns()
            .iter()
            .zip(announced)
            .map(|(array, column)| {
                let values = Values::new(array, &column.pg_type.oid_type)
                    .map_err(|error| cast_error(&column.name, &error))?;
                Ok(Column { values, oid_type: column.pg_type.oid_type.clone(), format: column.format })
            })
            .collect::<Result<_, PgError>>()?;
        Ok(RowEncoder { columns, rows: batch.num_rows() })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends one DataRow message; on an error `out` is as before.
    pub fn write_row(&self, row: usize, out: &mut BytesMut) -> Result<(), PgError> {
        let start = out.len();
        let written = self.try_write_row(row, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn try_write_row(&self, row: usize, out: &mut BytesMut) -> Result<(), PgError> {
        out.put_u8(b'D');
        let length_at = out.len();
        out.put_u32(0);
        out.put_u16(self.columns.len() as u16);
        for column in &self.columns {
            if column.values.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            write_prefixed(out, |out| match column.format {
                Format::Text => column.values.write_text(row, out),
                Format::Binary => column.values.write_binary(row, &column.oid_type, out),
            })?;
        }
        let length = out.len() - length_at;
        if length > MESSAGE_BYTES_MAX {
            return Err(PgError::error(
                code::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "a row of the result has {length} bytes, more than the {MESSAGE_BYTES_MAX} of a message"
                ),
            ));
        }
        out[length_at..length_at + 4].copy_from_slice(&(length as u32).to_be_bytes());
        Ok(())
    }
}

/// PostgreSQL's own limit of a message (1 GB).
const MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;

/// Writes a value behind its length.
fn write_prefixed(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), PgError>,
) -> Result<(), PgError> {
    let length_at = out.len();
    out.put_u32(0);
    write(out)?;
    let length = out.len() - length_at - 4;
    out[length_at..length_at + 4].copy_from_slice(&(length.min(MESSAGE_BYTES_MAX) as u32).to_be_bytes());
    Ok(())
}

fn cast_error(column: &str, error: &ArrowError) -> PgError {
    PgError::error(
        code::NUMERIC_OUT_OF_RANGE,
        format!("column \"{column}\" has a value out of range: {error}"),
    )
    .with_hint("cast the column to numeric or text")
}

/// The values of a column in its canonical Arrow type.
enum Values {
    /// All null.
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Numeric(Decimal128Array, i8),
    WideNumeric(Decimal256Array, i8),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Bytes(BinaryArray),
    LargeBytes(LargeBinaryArray),
    BytesView(BinaryViewArray),
    FixedBytes(FixedSizeBinaryArray),
    Uuid(FixedSizeBinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Timestamptz(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    Duration(DurationMicrosecondArray),
    List(ListArray, Box<Values>),
    /// `1 2` instead of `{1,2}`: numbers of columns in the system catalogs.
    Vector(ListArray, Box<Values>),
}

impl Values {
    /// The array as values of `oid_type`; an array of another kind is cast first.
    fn new(array: &ArrayRef, oid_type: &Type) -> Result<Values, ArrowError> {
        let actual = PgType::of(array.data_type(), None).oid_type;
        let array = match canonical(array.data_type()) {
            None => displayed(array)?,
            Some(target) if target != *array.data_type() => strict_cast(array, &target)?,
            Some(_) => ArrayRef::clone(array),
        };
        let array = match arrow_of(oid_type) {
            // The plan announced another type than the stream delivers, int8 for int4 say.
            Some(announced) if !array.data_type().is_null() && !same_values(&actual, oid_type) => {
                strict_cast(&array, &announced)?
            }
            _ => array,
        };
        Values::of_canonical(&array, oid_type)
    }

    fn of_canonical(array: &ArrayRef, oid_type: &Type) -> Result<Values, ArrowError> {
        Ok(match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            DataType::Int16 => Values::Int2(array.as_primitive::<Int16Type>().clone()),
            DataType::Int32 => Values::Int4(array.as_primitive::<Int32Type>().clone()),
            DataType::Int64 => Values::Int8(array.as_primitive::<Int64Type>().clone()),
            DataType::Float32 => Values::Float4(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Values::Float8(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal128(_, scale) => {
                Values::Numeric(array.as_primitive::<Decimal128Type>().clone(), *scale)
            }
            DataType::Decimal256(_, scale) => {
                Values::WideNumeric(array.as_primitive::<Decimal256Type>().clone(), *scale)
            }
            DataType::Utf8 => Values::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 => Values::LargeText(array.as_string::<i64>().clone()),
            DataType::Utf8View => Values::TextView(array.as_string_view().clone()),
            DataType::Binary => Values::Bytes(array.as_binary::<i32>().clone()),
            DataType::LargeBinary => Values::LargeBytes(array.as_binary::<i64>().clone()),
            DataType::BinaryView => Values::BytesView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(_) if *oid_type == Type::UUID => {
                Values::Uuid(array.as_fixed_size_binary().clone())
            }
            DataType::FixedSizeBinary(_) => Values::FixedBytes(array.as_fixed_size_binary().clone()),
            DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Time64(TimeUnit::Microsecond) => {
                Values::Time(array.as_primitive::<Time64MicrosecondType>().clone())
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let array = array.as_primitive::<TimestampMicrosecondType>().clone();
                if zone.is_some() { Values::Timestamptz(array) } else { Values::Timestamp(array) }
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Values::Interval(array.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                Values::Duration(array.as_primitive::<DurationMicrosecondType>().clone())
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let element = element_of(oid_type).unwrap_or(Type::TEXT);
                let items = match list.values().data_type() {
                    // Inner arrays of a multidimensional one keep the array's type.
                    DataType::List(_) => Values::of_canonical(list.values(), oid_type)?,
                    _ => Values::of_canonical(list.values(), &element)?,
                };
                match *oid_type {
                    Type::INT2_VECTOR => Values::Vector(list, Box::new(items)),
                    _ => Values::List(list, Box::new(items)),
                }
            }
            other => {
                return Err(ArrowError::NotYetImplemented(format!("values of type {other} for clients")));
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Values::Null => true,
            Values::Bool(a) => a.is_null(row),
            Values::Int2(a) => a.is_null(row),
            Values::Int4(a) => a.is_null(row),
            Values::Int8(a) => a.is_null(row),
            Values::Float4(a) => a.is_null(row),
            Values::Float8(a) => a.is_null(row),
            Values::Numeric(a, _) => a.is_null(row),
            Values::WideNumeric(a, _) => a.is_null(row),
            Values::Text(a) => a.is_null(row),
            Values::LargeText(a) => a.is_null(row),
            Values::TextView(a) => a.is_null(row),
            Values::Bytes(a) => a.is_null(row),
            Values::LargeBytes(a) => a.is_null(row),
            Values::BytesView(a) => a.is_null(row),
            Values::FixedBytes(a) | Values::Uuid(a) => a.is_null(row),
            Values::Date(a) => a.is_null(row),
            Values::Time(a) => a.is_null(row),
            Values::Timestamp(a) | Values::Timestamptz(a) => a.is_null(row),
            Values::Interval(a) => a.is_null(row),
            Values::Duration(a) => a.is_null(row),
            Values::List(a, _) | Values::Vector(a, _) => a.is_null(row),
        }
    }

    fn text(&self, row: usize) -> Option<&str> {
        match self {
            Values::Text(a) => Some(a.value(row)),
            Values::LargeText(a) => Some(a.value(row)),
            Values::TextView(a) => Some(a.value(row)),
            _ => None,
        }
    }

    fn bytes(&self, row: usize) -> Option<&[u8]> {
        match self {
            Values::Bytes(a) => Some(a.value(row)),
            Values::LargeBytes(a) => Some(a.value(row)),
            Values::BytesView(a) => Some(a.value(row)),
            Values::FixedBytes(a) => Some(a.value(row)),
            _ => None,
        }
    }

    fn write_text(&self, row: usize, out: &mut BytesMut) -> Result<(), PgError> {
        match self {
            Values::Null => {}
            Values::Bool(a) => out.put_u8(if a.value(row) { b't' } else { b'f' }),
            Values::Int2(a) => write_integer(i64::from(a.value(row)), out),
            Values::Int4(a) => write_integer(i64::from(a.value(row)), out),
            Values::Int8(a) => write_integer(a.value(row), out),
            Values::Float4(a) => write_float(format_args!("{:e}", a.value(row)), FLOAT4_PLAIN_BELOW, out),
            Values::Float8(a) => write_float(format_args!("{:e}", a.value(row)), FLOAT8_PLAIN_BELOW, out),
            Values::Numeric(a, scale) => Decimal::from_i128(a.value(row), *scale).write_text(out),
            Values::WideNumeric(a, scale) => Decimal::from_i256(a.value(row), *scale).write_text(out),
            Values::Uuid(a) => write_uuid(a.value(row), out),
            Values::Date(a) => calendar::write_date(i64::from(a.value(row)), out),
            Values::Time(a) => calendar::write_time(a.value(row), out),
            Values::Timestamp(a) => calendar::write_timestamp(a.value(row), false, out),
            Values::Timestamptz(a) => calendar::write_timestamp(a.value(row), true, out),
            Values::Interval(_) | Values::Duration(_) => {
                let (months, days, micros) = self.interval(row);
                calendar::write_interval(months, days, micros, out);
            }
            Values::List(list, items) => write_array_text(list, items, row, out)?,
            Values::Vector(list, items) => {
                let offsets = list.value_offsets();
                for item in offsets[row] as usize..offsets[row + 1] as usize {
                    if item > offsets[row] as usize {
                        out.put_u8(b' ');
                    }
                    items.write_text(item, out)?;
                }
            }
            _ => match (self.text(row), self.bytes(row)) {
                (Some(text), _) => out.put_slice(text.as_bytes()),
                (_, Some(bytes)) => {
                    out.put_slice(b"\\x");
                    write_hex(bytes, out);
                }
                (None, None) => {}
            },
        }
        Ok(())
    }

    fn write_binary(&self, row: usize, oid_type: &Type, out: &mut BytesMut) -> Result<(), PgError> {
        match self {
            Values::Null => {}
            Values::Bool(a) => out.put_u8(u8::from(a.value(row))),
            Values::Int2(a) => out.put_i16(a.value(row)),
            Values::Int4(a) => out.put_i32(a.value(row)),
            Values::Int8(a) => out.put_i64(a.value(row)),
            Values::Float4(a) => out.put_f32(a.value(row)),
            Values::Float8(a) => out.put_f64(a.value(row)),
            Values::Numeric(a, scale) => Decimal::from_i128(a.value(row), *scale).write_binary(out),
            Values::WideNumeric(a, scale) => Decimal::from_i256(a.value(row), *scale).write_binary(out),
            Values::Uuid(a) => out.put_slice(a.value(row)),
            Values::Date(a) => out.put_i32(
                a.value(row).checked_sub(calendar::POSTGRES_EPOCH_DAYS).ok_or_else(timestamp_out_of_range)?,
            ),
            Values::Time(a) => out.put_i64(a.value(row)),
            Values::Timestamp(a) | Values::Timestamptz(a) => out.put_i64(
                a.value(row).checked_sub(calendar::POSTGRES_EPOCH_US).ok_or_else(timestamp_out_of_range)?,
            ),
            Values::Interval(_) | Values::Duration(_) => {
                let (months, days, micros) = self.interval(row);
                out.put_i64(micros);
                out.put_i32(days);
                out.put_i32(months);
            }
            Values::List(list, items) => write_array_binary(list, items, row, oid_type, out)?,
            Values::Vector(list, items) => write_array_binary(list, items, row, &Type::INT2_ARRAY, out)?,
            _ => match (self.text(row), self.bytes(row)) {
                (Some(text), _) if *oid_type == Type::UUID => {
                    out.put_slice(&parse_uuid(text).ok_or_else(|| {
                        PgError::error(
                            code::INVALID_TEXT,
                            format!("invalid input syntax for type uuid: \"{text}\""),
                        )
                    })?)
                }
                (Some(text), _) => {
                    if *oid_type == Type::JSONB {
                        // The version of jsonb's binary format, which is its text.
                        out.put_u8(1);
                    }
                    out.put_slice(text.as_bytes());
                }
                (_, Some(bytes)) => out.put_slice(bytes),
                (None, None) => {}
            },
        }
        Ok(())
    }

    /// Months, days and microseconds. A duration is what subtracting timestamps gives, and there
    /// PostgreSQL counts whole days.
    fn interval(&self, row: usize) -> (i32, i32, i64) {
        match self {
            Values::Interval(a) => {
                let value = a.value(row);
                (value.months, value.days, value.nanoseconds / 1_000)
            }
            Values::Duration(a) => {
                let micros = a.value(row);
                // At most 106,751,991 days fit into 64 bits of microseconds.
                (0, (micros / calendar::DAY_US) as i32, micros % calendar::DAY_US)
            }
            _ => (0, 0, 0),
        }
    }
}

fn timestamp_out_of_range() -> PgError {
    PgError::error(code::DATETIME_OUT_OF_RANGE, "timestamp out of range")
}

fn strict_cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, target, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Structs, maps and unions have no PostgreSQL type; they are shown.
fn displayed(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let texts: StringArray =
        (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string())).collect();
    Ok(std::sync::Arc::new(texts))
}

/// Types whose values are Arrow strings here.
fn is_textual(oid_type: &Type) -> bool {
    matches!(
        *oid_type,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::JSON | Type::JSONB | Type::UUID | Type::UNKNOWN
    )
}

/// True when values of both types are the same Arrow values.
fn same_values(actual: &Type, announced: &Type) -> bool {
    actual == announced
        || (is_textual(actual) && is_textual(announced))
        || (*actual == Type::BYTEA && *announced == Type::UUID)
        || matches!((element_of(actual), element_of(announced)), (Some(a), Some(b)) if same_values(&a, &b))
}

fn write_integer(value: i64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    out.put_slice(&digits[start..]);
}

// From this power of ten on PostgreSQL prints floats with an exponent.
const FLOAT4_PLAIN_BELOW: i32 = 6;
const FLOAT8_PLAIN_BELOW: i32 = 15;

/// PostgreSQL's shortest round-trip notation, out of Rust's (`-1.25e-7`), which has the same digits.
fn write_float(scientific: std::fmt::Arguments<'_>, plain_below: i32, out: &mut BytesMut) {
    let mut text = StackText::default();
    write!(text, "{scientific}").expect("the longest float has 24 characters");
    let text = text.as_str();
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let Some((mantissa, exponent)) = unsigned.split_once('e') else {
        // "NaN", "inf".
        out.put_slice(sign.as_bytes());
        out.put_slice(if unsigned == "inf" { "Infinity" } else { "NaN" }.as_bytes());
        return;
    };
    let exponent: i32 = exponent.parse().expect("Rust prints a number behind the e");
    let (first, rest) = mantissa.split_at(1);
    let rest = rest.trim_start_matches('.');
    out.put_slice(sign.as_bytes());
    if !(-4..plain_below).contains(&exponent) {
        out.put_slice(first.as_bytes());
        if !rest.is_empty() {
            out.put_u8(b'.');
            out.put_slice(rest.as_bytes());
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", exponent.abs()).expect("a buffer grows");
    } else if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        out.put_slice(first.as_bytes());
        out.put_slice(rest.as_bytes());
    } else {
        let whole = (exponent as usize).min(rest.len());
        out.put_slice(first.as_bytes());
        out.put_slice(&rest.as_bytes()[..whole]);
        out.put_bytes(b'0', exponent as usize - whole);
        if whole < rest.len() {
            out.put_u8(b'.');
            out.put_slice(&rest.as_bytes()[whole..]);
        }
    }
}

#[derive(Default)]
struct StackText {
    bytes: [u8; 32],
    length: usize,
}

impl StackText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("whole strings were written")
    }
}

impl std::fmt::Write for StackText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let target = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        target.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

fn write_hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len());
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

pub fn write_uuid(bytes: &[u8], out: &mut BytesMut) {
    let mut from = 0;
    for (i, length) in [4, 2, 2, 2, 6].into_iter().enumerate() {
        if i > 0 {
            out.put_u8(b'-');
        }
        write_hex(&bytes[from..from + length], out);
        from += length;
    }
}

/// The 16 bytes of a uuid in any of PostgreSQL's spellings: hyphens and braces are optional.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let mut bytes = [0u8; 16];
    let mut nibbles = 0;
    for character in text.bytes().filter(|b| *b != b'-') {
        let nibble = (character as char).to_digit(16)? as u8;
        let byte = bytes.get_mut(nibbles / 2)?;
        *byte = *byte << 4 | nibble;
        nibbles += 1;
    }
    (nibbles == 32).then_some(bytes)
}

/// `{a,"b c",NULL}`; inner arrays in braces of their own.
fn write_array_text(list: &ListArray, items: &Values, row: usize, out: &mut BytesMut) -> Result<(), PgError> {
    let offsets = list.value_offsets();
    out.put_u8(b'{');
    for item in offsets[row] as usize..offsets[row + 1] as usize {
        if item > offsets[row] as usize {
            out.put_u8(b',');
        }
        if items.is_null(item) {
            out.put_slice(b"NULL");
            continue;
        }
        let start = out.len();
        items.write_text(item, out)?;
        if !matches!(items, Values::List(..)) && needs_quotes(&out[start..]) {
            let plain = out.split_off(start);
            out.put_u8(b'"');
            for byte in &plain {
                if matches!(byte, b'"' | b'\\') {
                    out.put_u8(b'\\');
                }
                out.put_u8(*byte);
            }
            out.put_u8(b'"');
        }
    }
    out.put_u8(b'}');
    Ok(())
}

fn needs_quotes(element: &[u8]) -> bool {
    element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element.iter().any(|b| {
            matches!(b, b'{' | b'}' | b',' | b'"' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
        })
}

/// Dimensions, "holds nulls", element type, then per dimension its length and first index, then the
/// elements in row order, each behind its length.
fn write_array_binary(
    list: &ListArray,
    items: &Values,
    row: usize,
    oid_type: &Type,
    out: &mut BytesMut,
) -> Result<(), PgError> {
    let element = element_of(oid_type).unwrap_or(Type::TEXT);
    let mut shape = Shape { lengths: Vec::new(), leaves: Vec::new() };
    shape.visit(list, items, row, 0)?;
    let leaf_values = leaves_of(items);
    let holds_nulls = shape.leaves.iter().any(|leaf| leaf_values.is_null(*leaf));
    let dimensions: &[usize] = if shape.leaves.is_empty() { &[] } else { &shape.lengths };
    out.put_i32(dimensions.len() as i32);
    out.put_i32(i32::from(holds_nulls));
    out.put_u32(element.oid());
    for length in dimensions {
        out.put_i32(*length as i32);
        out.put_i32(1);
    }
    for leaf in shape.leaves {
        if leaf_values.is_null(leaf) {
            out.put_i32(-1);
        } else {
            write_prefixed(out, |out| leaf_values.write_binary(leaf, &element, out))?;
        }
    }
    Ok(())
}

fn leaves_of(items: &Values) -> &Values {
    match items {
        Values::List(_, inner) => leaves_of(inner),
        leaves => leaves,
    }
}

/// Lengths of an array's dimensions and where its elements stand in the innermost values.
struct Shape {
    lengths: Vec<usize>,
    leaves: Vec<usize>,
}

impl Shape {
    fn visit(&mut self, list: &ListArray, items: &Values, row: usize, depth: usize) -> Result<(), PgError> {
        let offsets = list.value_offsets();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        if self.lengths.len() == depth {
            self.lengths.push(range.len());
        }
        let rectangular = self.lengths[depth] == range.len();
        let Values::List(inner, inner_items) = items else {
            self.leaves.extend(range);
            return if rectangular { Ok(()) } else { Err(ragged()) };
        };
        if !rectangular {
            return Err(ragged());
        }
        for item in range {
            if inner.is_null(item) {
                return Err(ragged());
            }
            self.visit(inner, inner_items, item, depth + 1)?;
        }
        Ok(())
    }
}

fn ragged() -> PgError {
    PgError::error(
        code::FEATURE_NOT_SUPPORTED,
        "multidimensional arrays must have sub-arrays with matching dimensions",
    )
    .with_hint("ask for the column in text format, or unnest it")
}

#[cfg(test)]
mod tests;
