//! Parameters of prepared statements: PostgreSQL values, in text and in binary, as Arrow scalars.
//!
//! A value is read by the type the client gave it (or, where it gave none, by the type the statement
//! needs), then cast to what the statement needs. Nothing here trusts a length from the client.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};
use bytes::{Buf, BytesMut};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;

use super::calendar;
use super::encode::{Format, parse_uuid, write_uuid};
use super::errors::{PgError, code};
use super::numeric::{Decimal, NumericError};
use super::types::{PgType, arrow_of, element_of};

/// The type that a parameter is read by: the client's, else what the statement needs. What
/// neither of them knows is text, as in PostgreSQL.
pub fn parameter_type(given_oid: u32, needed: &Field) -> Result<Type, PgError> {
    if given_oid == 0 || given_oid == Type::UNKNOWN.oid() {
        return Ok(PgType::of_field(needed).oid_type);
    }
    Type::from_oid(given_oid).filter(|oid_type| arrow_of(oid_type).is_some()).ok_or_else(|| {
        PgError::error(
            code::FEATURE_NOT_SUPPORTED,
            format!("parameters of type OID {given_oid} are not supported"),
        )
        .with_hint("send the value as text")
    })
}

/// One parameter as the scalar the statement needs; `number` (from 1) is for the error.
pub fn decode_parameter(
    number: usize,
    oid_type: &Type,
    format: Format,
    bytes: Option<&[u8]>,
    needed: &DataType,
) -> Result<ScalarValue, PgError> {
    let Some(bytes) = bytes else {
        let data_type = if needed.is_null() { arrow_of(oid_type) } else { Some(needed.clone()) };
        return ScalarValue::try_from(&data_type.unwrap_or(DataType::Null)).map_err(|error| {
            PgError::error(code::FEATURE_NOT_SUPPORTED, format!("parameter ${number}: {error}"))
        });
    };
    let value = match format {
        Format::Text => decode_text(oid_type, text_of(bytes)?, needed),
        Format::Binary => decode_binary(oid_type, bytes, needed),
    }
    .map_err(|mut error| {
        error.message = format!("parameter ${number}: {}", error.message);
        error
    })?;
    if needed.is_null() || value.data_type() == *needed {
        return Ok(value);
    }
    value.cast_to(needed).map_err(|_| {
        let shown = value.to_string().chars().take(80).collect::<String>();
        PgError::error(
            code::INVALID_TEXT,
            format!(
                "parameter ${number}: {} value {shown} is not a {}",
                oid_type.name(),
                PgType::of(needed, None).oid_type.name()
            ),
        )
    })
}

fn text_of(bytes: &[u8]) -> Result<&str, PgError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| PgError::error(code::INVALID_ENCODING, "invalid byte sequence for encoding \"UTF8\""))?;
    if text.contains('\0') {
        return Err(PgError::error(
            code::INVALID_ENCODING,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(text)
}

fn decode_text(oid_type: &Type, text: &str, needed: &DataType) -> Result<ScalarValue, PgError> {
    let invalid = || invalid_text(oid_type, text);
    let trimmed = text.trim();
    Ok(match *oid_type {
        Type::BOOL => ScalarValue::Boolean(Some(parse_bool(trimmed).ok_or_else(invalid)?)),
        Type::INT2 => ScalarValue::Int16(Some(parse_integer(oid_type, trimmed)?)),
        Type::INT4 => ScalarValue::Int32(Some(parse_integer(oid_type, trimmed)?)),
        Type::INT8 | Type::OID => ScalarValue::Int64(Some(parse_integer(oid_type, trimmed)?)),
        Type::FLOAT4 => ScalarValue::Float32(Some(trimmed.parse().map_err(|_| invalid())?)),
        Type::FLOAT8 => ScalarValue::Float64(Some(trimmed.parse().map_err(|_| invalid())?)),
        Type::NUMERIC => {
            let number = Decimal::parse(trimmed).map_err(|error| numeric_error(error, trimmed))?;
            decimal_scalar(&number, needed).map_err(|error| numeric_error(error, trimmed))?
        }
        Type::BYTEA => ScalarValue::Binary(Some(parse_bytea(text).ok_or_else(invalid)?)),
        Type::DATE => ScalarValue::Date32(Some(
            calendar::parse_date(trimmed)
                .and_then(|days| i32::try_from(days).ok())
                .ok_or_else(|| invalid_datetime(oid_type, text))?,
        )),
        Type::TIME => ScalarValue::Time64Microsecond(Some(
            calendar::parse_time(trimmed).ok_or_else(|| invalid_datetime(oid_type, text))?,
        )),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            let zoned = *oid_type == Type::TIMESTAMPTZ;
            let micros =
                calendar::parse_timestamp(trimmed, zoned).ok_or_else(|| invalid_datetime(oid_type, text))?;
            timestamp_scalar(micros, zoned)
        }
        Type::INTERVAL => ScalarValue::Utf8(Some(sql::duration::spelled_out(text)))
            .cast_to(&DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))
            .map_err(|_| invalid_datetime(oid_type, text))?,
        Type::UUID => uuid_scalar(&parse_uuid(trimmed).ok_or_else(invalid)?, needed),
        _ => match element_of(oid_type) {
            None => ScalarValue::Utf8(Some(text.to_string())),
            Some(element) => {
                let items = parse_array(trimmed).ok_or_else(invalid)?;
                let item_needed = item_type(needed);
                let values = items
                    .iter()
                    .map(|item| {
                        item.as_deref().map(|item| decode_text(&element, item, &item_needed)).transpose()
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                list_scalar(&element, values, &item_needed)?
            }
        },
    })
}

fn decode_binary(oid_type: &Type, mut bytes: &[u8], needed: &DataType) -> Result<ScalarValue, PgError> {
    let exactly = |length: usize| {
        if bytes.len() == length {
            Ok(())
        } else {
            Err(invalid_binary(oid_type, format!("has {} bytes instead of {length}", bytes.len())))
        }
    };
    Ok(match *oid_type {
        Type::BOOL => {
            exactly(1)?;
            ScalarValue::Boolean(Some(bytes[0] != 0))
        }
        Type::INT2 => {
            exactly(2)?;
            ScalarValue::Int16(Some(bytes.get_i16()))
        }
        Type::INT4 => {
            exactly(4)?;
            ScalarValue::Int32(Some(bytes.get_i32()))
        }
        Type::INT8 => {
            exactly(8)?;
            ScalarValue::Int64(Some(bytes.get_i64()))
        }
        Type::OID => {
            exactly(4)?;
            ScalarValue::Int64(Some(i64::from(bytes.get_u32())))
        }
        Type::FLOAT4 => {
            exactly(4)?;
            ScalarValue::Float32(Some(bytes.get_f32()))
        }
        Type::FLOAT8 => {
            exactly(8)?;
            ScalarValue::Float64(Some(bytes.get_f64()))
        }
        Type::NUMERIC => {
            let number = Decimal::read_binary(bytes).map_err(|error| numeric_error(error, "in binary"))?;
            decimal_scalar(&number, needed).map_err(|error| numeric_error(error, "in binary"))?
        }
        Type::BYTEA => ScalarValue::Binary(Some(bytes.to_vec())),
        Type::DATE => {
            exactly(4)?;
            let days = bytes.get_i32().checked_add(calendar::POSTGRES_EPOCH_DAYS);
            ScalarValue::Date32(Some(days.ok_or_else(|| out_of_range(oid_type))?))
        }
        Type::TIME => {
            exactly(8)?;
            let micros = bytes.get_i64();
            if !(0..=calendar::DAY_US).contains(&micros) {
                return Err(out_of_range(oid_type));
            }
            ScalarValue::Time64Microsecond(Some(micros))
        }
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            exactly(8)?;
            let micros = bytes.get_i64();
            // The extremes stand for infinity, which Arrow's timestamps do not have.
            let finite =
                (micros != i64::MIN).then(|| micros.checked_add(calendar::POSTGRES_EPOCH_US)).flatten();
            timestamp_scalar(finite.ok_or_else(|| out_of_range(oid_type))?, *oid_type == Type::TIMESTAMPTZ)
        }
        Type::INTERVAL => {
            exactly(16)?;
            let (micros, days, months) = (bytes.get_i64(), bytes.get_i32(), bytes.get_i32());
            let nanoseconds = micros.checked_mul(1_000).ok_or_else(|| out_of_range(oid_type))?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        }
        Type::UUID => {
            exactly(16)?;
            uuid_scalar(bytes, needed)
        }
        Type::JSONB => {
            if bytes.first() != Some(&1) {
                return Err(invalid_binary(oid_type, "has an unknown version".to_string()));
            }
            ScalarValue::Utf8(Some(text_of(&bytes[1..])?.to_string()))
        }
        _ => match element_of(oid_type) {
            None => ScalarValue::Utf8(Some(text_of(bytes)?.to_string())),
            Some(element) => decode_binary_array(oid_type, &element, bytes, needed)?,
        },
    })
}

fn decode_binary_array(
    oid_type: &Type,
    element: &Type,
    mut bytes: &[u8],
    needed: &DataType,
) -> Result<ScalarValue, PgError> {
    let item_needed = item_type(needed);
    let short = || invalid_binary(oid_type, "ends too early".to_string());
    let (dimensions, element_oid) = match bytes.len() {
        0..12 => return Err(short()),
        _ => {
            let dimensions = bytes.get_i32();
            bytes.advance(4);
            (dimensions, bytes.get_u32())
        }
    };
    if element_oid != element.oid() {
        return Err(invalid_binary(oid_type, format!("has elements of type OID {element_oid}")));
    }
    match dimensions {
        0 => return list_scalar(element, Vec::new(), &item_needed),
        1 if bytes.len() >= 8 => {}
        1 => return Err(short()),
        _ => {
            return Err(PgError::error(
                code::FEATURE_NOT_SUPPORTED,
                "multidimensional array parameters are not supported",
            ));
        }
    }
    let count = bytes.get_i32();
    bytes.advance(4);
    // Each element has at least its length; a count beyond that is not believed.
    if count < 0 || count as usize > bytes.len() / 4 {
        return Err(short());
    }
    let mut values = Vec::with_capacity(count as usize);
    for _ in 0..count {
        if bytes.len() < 4 {
            return Err(short());
        }
        let length = bytes.get_i32();
        if length == -1 {
            values.push(None);
            continue;
        }
        let length =
            usize::try_from(length).ok().filter(|length| *length <= bytes.len()).ok_or_else(short)?;
        values.push(Some(decode_binary(element, &bytes[..length], &item_needed)?));
        bytes.advance(length);
    }
    list_scalar(element, values, &item_needed)
}

fn item_type(needed: &DataType) -> DataType {
    match needed {
        DataType::List(item) | DataType::LargeList(item) => item.data_type().clone(),
        _ => DataType::Null,
    }
}

/// A list of the items' own type; for numeric that of the column, or the widest scale among them.
fn list_scalar(
    element: &Type,
    values: Vec<Option<ScalarValue>>,
    item_needed: &DataType,
) -> Result<ScalarValue, PgError> {
    let invalid = |error: datafusion::error::DataFusionError| {
        PgError::error(code::INVALID_TEXT, format!("array of {}: {error}", element.name()))
    };
    let widest_scale = |values: &[Option<ScalarValue>]| {
        let scale = |value: &ScalarValue| {
            if let DataType::Decimal128(_, scale) = value.data_type() { scale } else { 0 }
        };
        values.iter().flatten().map(scale).max().unwrap_or(0)
    };
    let data_type = match (element, item_needed) {
        (&Type::NUMERIC, DataType::Decimal128(..) | DataType::Decimal256(..)) => item_needed.clone(),
        (&Type::NUMERIC, _) => DataType::Decimal128(38, widest_scale(&values)),
        _ => arrow_of(element).unwrap_or(DataType::Utf8),
    };
    let items: ArrayRef = if values.is_empty() {
        new_empty_array(&data_type)
    } else {
        let null = ScalarValue::try_from(&data_type).map_err(invalid)?;
        let typed = values
            .into_iter()
            .map(|value| value.map_or(Ok(null.clone()), |value| value.cast_to(&data_type)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        ScalarValue::iter_to_array(typed).map_err(invalid)?
    };
    let field = Arc::new(Field::new_list_field(data_type, true));
    let offsets = OffsetBuffer::from_lengths([items.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::new(field, offsets, items, None))))
}

fn timestamp_scalar(micros: i64, zoned: bool) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), zoned.then(|| "UTC".into()))
}

fn uuid_scalar(bytes: &[u8], needed: &DataType) -> ScalarValue {
    if *needed == DataType::FixedSizeBinary(16) {
        return ScalarValue::FixedSizeBinary(16, Some(bytes.to_vec()));
    }
    let mut text = BytesMut::with_capacity(36);
    write_uuid(bytes, &mut text);
    ScalarValue::Utf8(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// The number with the precision and scale the statement needs, or else with its own scale.
fn decimal_scalar(number: &Decimal, needed: &DataType) -> Result<ScalarValue, NumericError> {
    match needed {
        DataType::Decimal128(precision, scale) => {
            Ok(ScalarValue::Decimal128(Some(number.to_i128(*precision, *scale)?), *precision, *scale))
        }
        DataType::Decimal256(precision, scale) => {
            Ok(ScalarValue::Decimal256(Some(number.to_i256(*precision, *scale)?), *precision, *scale))
        }
        _ => {
            let scale = i8::try_from(number.scale().min(38)).unwrap_or(38);
            Ok(ScalarValue::Decimal128(Some(number.to_i128(38, scale)?), 38, scale))
        }
    }
}

fn numeric_error(error: NumericError, text: &str) -> PgError {
    let shown: String = text.chars().take(80).collect();
    match error {
        NumericError::Malformed => {
            PgError::error(code::INVALID_TEXT, format!("invalid input syntax for type numeric: \"{shown}\""))
        }
        NumericError::OutOfRange => {
            PgError::error(code::NUMERIC_OUT_OF_RANGE, format!("numeric field overflow: \"{shown}\""))
        }
    }
}

fn parse_integer<T: TryFrom<i128>>(oid_type: &Type, text: &str) -> Result<T, PgError> {
    let value: i128 = text.parse().map_err(|_| invalid_text(oid_type, text))?;
    T::try_from(value).map_err(|_| {
        PgError::error(
            code::NUMERIC_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type {}", oid_type.name()),
        )
    })
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// `\xdeadbeef`, or the older form with `\\` and octal `\ooo`.
fn parse_bytea(text: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u8> =
            hex.bytes().filter(|b| !b.is_ascii_whitespace()).map(nibble).collect::<Option<_>>()?;
        return digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
        } else if rest.first() == Some(&b'\\') {
            bytes.push(b'\\');
            rest = &rest[1..];
        } else {
            let octal = rest.get(..3)?;
            if !octal.iter().all(|b| (b'0'..=b'7').contains(b)) {
                return None;
            }
            let value = octal.iter().fold(0u32, |value, b| value * 8 + u32::from(b - b'0'));
            bytes.push(u8::try_from(value).ok()?);
            rest = &rest[3..];
        }
    }
    Some(bytes)
}

/// Elements of `{a,"b c",NULL}`; `None` for what is not a one-dimensional array.
fn parse_array(text: &str) -> Option<Vec<Option<String>>> {
    let mut characters = text.strip_prefix('{')?.strip_suffix('}')?.chars().peekable();
    let mut items = Vec::new();
    let blank = |c: &char| c.is_ascii_whitespace();
    while characters.next_if(blank).is_some() {}
    if characters.peek().is_none() {
        return Some(items);
    }
    loop {
        while characters.next_if(blank).is_some() {}
        let mut item = String::new();
        let mut quoted = false;
        if characters.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match characters.next()? {
                    '"' => break,
                    '\\' => item.push(characters.next()?),
                    other => item.push(other),
                }
            }
            while characters.next_if(blank).is_some() {}
        } else {
            while let Some(next) = characters.next_if(|c| *c != ',') {
                match next {
                    '\\' => item.push(characters.next()?),
                    '{' | '}' | '"' => return None,
                    other => item.push(other),
                }
            }
            item.truncate(item.trim_end().len());
            if item.is_empty() {
                return None;
            }
        }
        items.push(if !quoted && item.eq_ignore_ascii_case("null") { None } else { Some(item) });
        match characters.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn invalid_text(oid_type: &Type, text: &str) -> PgError {
    let shown: String = text.chars().take(80).collect();
    PgError::error(
        code::INVALID_TEXT,
        format!("invalid input syntax for type {}: \"{shown}\"", oid_type.name()),
    )
}

fn invalid_datetime(oid_type: &Type, text: &str) -> PgError {
    let shown: String = text.chars().take(80).collect();
    PgError::error(
        code::INVALID_DATETIME,
        format!("invalid input syntax for type {}: \"{shown}\"", oid_type.name()),
    )
    .with_hint("write it as 2021-01-31 12:30:00+00")
}

fn invalid_binary(oid_type: &Type, what: String) -> PgError {
    PgError::error(code::INVALID_BINARY, format!("binary value of type {} {what}", oid_type.name()))
}

fn out_of_range(oid_type: &Type) -> PgError {
    PgError::error(code::DATETIME_OUT_OF_RANGE, format!("{} out of range", oid_type.name()))
}

#[cfg(test)]
mod tests;
