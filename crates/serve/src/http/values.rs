//! Rows as JSON and as CSV.
//!
//! | Type | JSON | CSV |
//! | --- | --- | --- |
//! | integers | number (64-bit ones too) | digits |
//! | floats | number; `"NaN"`, `"Infinity"`, `"-Infinity"` | as JSON, unquoted |
//! | decimals | string, so that no reader rounds it | digits |
//! | `TIMESTAMPTZ` | string, RFC 3339 with `Z` | the same |
//! | `JSONB` | the value itself | its text |
//! | `BYTEA` | string, `\x` and hexadecimal digits | the same |
//! | arrays, rows | array, object | their JSON |
//! | NULL | null | empty |

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Field, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

/// Name and type of each column, as answers carry them.
pub fn columns_json(schema: &SchemaRef) -> Value {
    schema
        .fields()
        .iter()
        .map(|field| json!({"name": field.name(), "type": type_name(field), "nullable": field.is_nullable()}))
        .collect()
}

/// The type as PostgreSQL prints it.
pub fn type_name(field: &Field) -> String {
    match field.metadata().get("sql_type") {
        Some(name) => name.clone(),
        None => type_name_of(field.data_type()),
    }
}

fn type_name_of(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_string(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_string(),
        DataType::Int32 | DataType::UInt16 => "integer".to_string(),
        DataType::Int64 | DataType::UInt32 => "bigint".to_string(),
        DataType::UInt64 => "numeric(20,0)".to_string(),
        DataType::Float16 | DataType::Float32 => "real".to_string(),
        DataType::Float64 => "double precision".to_string(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_string(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytea".to_string()
        }
        DataType::Date32 | DataType::Date64 => "date".to_string(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".to_string(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_string(),
        DataType::Timestamp(_, None) => "timestamp without time zone".to_string(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_string(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", type_name(item))
        }
        DataType::Dictionary(_, values) => type_name_of(values),
        DataType::Null => "unknown".to_string(),
        _ => "record".to_string(),
    }
}

pub fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

pub fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested()
}

fn is_jsonb(field: &Field) -> bool {
    field.metadata().get("sql_type").is_some_and(|name| name == "jsonb" || name == "json")
}

/// Writes rows of one schema; the names are escaped once.
pub struct JsonRows {
    // `"name":` of each column, and whether its text is JSON.
    columns: Vec<(Vec<u8>, bool)>,
}

impl JsonRows {
    pub fn new(schema: &SchemaRef) -> JsonRows {
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let mut name = Vec::new();
                write_json_string(&mut name, field.name());
                name.push(b':');
                (name, is_jsonb(field))
            })
            .collect();
        JsonRows { columns }
    }

    /// `{"a":1,"b":"x"}` over the first columns (all of those given to [`JsonRows::new`]).
    pub fn write_object(&self, out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
        out.push(b'{');
        for (index, (name, jsonb)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            write_json(out, batch.column(index), row, *jsonb);
        }
        out.push(b'}');
    }

    /// `[1,"x"]`
    pub fn write_array(&self, out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
        out.push(b'[');
        for (index, (_, jsonb)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json(out, batch.column(index), row, *jsonb);
        }
        out.push(b']');
    }
}

pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text).expect("writing a string into memory can't fail");
}

fn write_json(out: &mut Vec<u8>, array: &ArrayRef, row: usize, jsonb: bool) {
    if array.is_null(row) {
        out.extend_from_slice(b"null");
        return;
    }
    match array.data_type() {
        DataType::Null => out.extend_from_slice(b"null"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = text_of(array, row);
            // Stored JSON is checked when it comes in; text that isn't JSON after all stays a string.
            if jsonb && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
                out.extend_from_slice(text.as_bytes());
            } else {
                write_json_string(out, text);
            }
        }
        DataType::Dictionary(_, _) => {
            let (values, key) = dictionary_entry(array, row);
            write_json(out, &values, key, jsonb);
        }
        DataType::List(_) => write_json_list(out, &array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => write_json_list(out, &array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => write_json_list(out, &array.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let record = array.as_struct();
            out.push(b'{');
            for (index, field) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json_string(out, field.name());
                out.push(b':');
                write_json(out, record.column(index), row, is_jsonb(field));
            }
            out.push(b'}');
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let value = float_of(array, row);
            // JSON has no word for these.
            let quote: &[u8] = if value.is_finite() { b"" } else { b"\"" };
            out.extend_from_slice(quote);
            write_plain(out, array, row);
            out.extend_from_slice(quote);
        }
        DataType::Boolean => write_plain(out, array, row),
        data_type if data_type.is_integer() => write_plain(out, array, row),
        _ => {
            let mut text = Vec::new();
            write_plain(&mut text, array, row);
            write_json_string(out, &String::from_utf8_lossy(&text));
        }
    }
}

fn write_json_list(out: &mut Vec<u8>, items: &ArrayRef) {
    out.push(b'[');
    for index in 0..items.len() {
        if index > 0 {
            out.push(b',');
        }
        write_json(out, items, index, false);
    }
    out.push(b']');
}

/// The dictionary's values and which of them the row has; the row must not be null.
fn dictionary_entry(array: &ArrayRef, row: usize) -> (ArrayRef, usize) {
    // One row only: normalizing the keys of all of them for each would be quadratic.
    let one = array.slice(row, 1);
    let dictionary = one.as_any_dictionary();
    (ArrayRef::clone(dictionary.values()), dictionary.normalized_keys()[0])
}

fn text_of(array: &ArrayRef, row: usize) -> &str {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string_view().value(row),
    }
}

fn float_of(array: &ArrayRef, row: usize) -> f64 {
    match array.data_type() {
        DataType::Float16 => array.as_primitive::<Float16Type>().value(row).to_f64(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)),
        _ => array.as_primitive::<Float64Type>().value(row),
    }
}

/// A value that is not null as bare text.
fn write_plain(out: &mut Vec<u8>, array: &ArrayRef, row: usize) {
    macro_rules! number {
        ($type:ty) => {
            write!(out, "{}", array.as_primitive::<$type>().value(row))
        };
    }
    let written = match array.data_type() {
        DataType::Boolean => write!(out, "{}", array.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => write_float(out, array, row),
        DataType::Decimal128(_, _) => {
            write!(out, "{}", array.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        DataType::Decimal256(_, _) => {
            write!(out, "{}", array.as_primitive::<Decimal256Type>().value_as_string(row))
        }
        DataType::Timestamp(unit, zone) => {
            write_timestamp(out, timestamp_of(array, *unit, row), zone.is_some())
        }
        DataType::Date32 => {
            match Date32Type::to_naive_date_opt(array.as_primitive::<Date32Type>().value(row)) {
                Some(date) => write!(out, "{date}"),
                None => write_formatted(out, array, row),
            }
        }
        DataType::Date64 => {
            match Date64Type::to_naive_date_opt(array.as_primitive::<Date64Type>().value(row)) {
                Some(date) => write!(out, "{date}"),
                None => write_formatted(out, array, row),
            }
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            out.extend_from_slice(text_of(array, row).as_bytes());
            Ok(())
        }
        DataType::Binary => write_hex(out, array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => write_hex(out, array.as_binary::<i64>().value(row)),
        DataType::BinaryView => write_hex(out, array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => write_hex(out, array.as_fixed_size_binary().value(row)),
        _ => write_formatted(out, array, row),
    };
    written.expect("writing into memory can't fail");
}

fn write_float(out: &mut Vec<u8>, array: &ArrayRef, row: usize) -> std::io::Result<()> {
    let value = float_of(array, row);
    if value.is_nan() {
        return write!(out, "NaN");
    }
    if value.is_infinite() {
        return write!(out, "{}", if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    // The shortest text of the number's own width: 0.1 as REAL is not 0.10000000149011612.
    let printed = match array.data_type() {
        DataType::Float32 => {
            serde_json::to_writer(&mut *out, &array.as_primitive::<Float32Type>().value(row))
        }
        _ => serde_json::to_writer(&mut *out, &value),
    };
    printed.map_err(std::io::Error::from)
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) -> std::io::Result<()> {
    out.extend_from_slice(b"\\x");
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

fn timestamp_of(array: &ArrayRef, unit: TimeUnit, row: usize) -> Option<DateTime<chrono::Utc>> {
    match unit {
        TimeUnit::Second => {
            DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(row), 0)
        }
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => {
            Some(DateTime::from_timestamp_nanos(array.as_primitive::<TimestampNanosecondType>().value(row)))
        }
    }
}

fn write_timestamp(
    out: &mut Vec<u8>,
    time: Option<DateTime<chrono::Utc>>,
    with_zone: bool,
) -> std::io::Result<()> {
    match time {
        Some(time) if with_zone => write!(out, "{}", time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        Some(time) => {
            let text = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            write!(out, "{}", text.trim_end_matches('Z'))
        }
        None => write!(out, "out of range"),
    }
}

/// An RFC 3339 text of microseconds since 1970.
pub fn timestamp_text(microseconds: i64) -> Option<String> {
    DateTime::from_timestamp_micros(microseconds)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn write_formatted(out: &mut Vec<u8>, array: &ArrayRef, row: usize) -> std::io::Result<()> {
    let options = FormatOptions::default().with_display_error(true);
    match ArrayFormatter::try_new(array, &options) {
        Ok(formatter) => write!(out, "{}", formatter.value(row)),
        Err(error) => write!(out, "{error}"),
    }
}

/// The text of a value, `None` for NULL; a cast to the column's type reads it back.
pub fn plain_text(array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    if let DataType::Dictionary(_, _) = array.data_type() {
        let (values, key) = dictionary_entry(array, row);
        return plain_text(&values, key);
    }
    let mut text = Vec::new();
    write_plain(&mut text, array, row);
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The first line of a CSV answer.
pub fn write_csv_header(out: &mut Vec<u8>, schema: &SchemaRef) {
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_csv_text(out, field.name());
    }
    out.extend_from_slice(b"\r\n");
}

/// One CSV line (RFC 4180) of the first `columns` columns.
pub fn write_csv_row(out: &mut Vec<u8>, batch: &RecordBatch, columns: usize, row: usize) {
    for index in 0..columns {
        if index > 0 {
            out.push(b',');
        }
        let array = batch.column(index);
        if array.is_null(row) {
            continue;
        }
        let data_type = array.data_type();
        if is_text(data_type) || is_nested(data_type) {
            let mut text = Vec::new();
            if is_text(data_type) {
                text.extend(plain_text(array, row).unwrap_or_default().into_bytes());
            } else {
                write_json(&mut text, array, row, false);
            }
            write_csv_text(out, &String::from_utf8_lossy(&text));
        } else {
            write_plain(out, array, row);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A text cell: what a spreadsheet would run as a formula gets a `'` in front (OWASP: quoting
/// alone does not help), and what CSV needs quoted is quoted.
fn write_csv_text(out: &mut Vec<u8>, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    // An empty text is quoted, so that it differs from NULL.
    let quoted = text.is_empty() || text.contains([',', '"', '\n', '\r']);
    if quoted {
        out.push(b'"');
    }
    if formula {
        out.push(b'\'');
    }
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    if quoted {
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests;
