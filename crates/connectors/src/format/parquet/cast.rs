//! One Arrow array into the type of a column.
//!
//! - Timestamps of any unit become microseconds (finer digits are cut); integers become timestamps
//!   by their size, as in JSON.
//! - Doubles become decimals through their shortest decimal text, rounded half away from zero at
//!   the scale: 2.55 is 2.55, although the double is a little less.
//! - NaN and infinities are refused everywhere.
//! - Whatever is not listed goes through its text, by the same reading as CSV.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::Result;
use crate::format::column::{Column, narrow};
use crate::format::value::{self, Fault};

pub(super) struct Converted {
    pub(super) array: ArrayRef,
    /// Rows whose value has no place in the type; they are null in `array`.
    pub(super) faults: Vec<(usize, Fault)>,
}

/// Whether values of type `from` can become `to` at all.
pub(super) fn is_readable(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Dictionary(_, values), to) => is_readable(values, to),
        (DataType::List(from) | DataType::LargeList(from), DataType::List(to)) => {
            is_readable(from.data_type(), to.data_type())
        }
        (from, to) => !from.is_nested() && !to.is_nested(),
    }
}

pub(super) fn convert(source: &ArrayRef, field: &Field) -> Result<Converted> {
    let source = plain(source)?;
    let to = field.data_type();
    Ok(match (source.data_type(), to) {
        (DataType::Float64, _) => from_float::<Float64Type>(&source, field)?,
        (DataType::Float32, _) => from_float::<Float32Type>(&source, field)?,
        (from, DataType::Int16) if from.is_integer() => {
            each::<Int64Type, Int16Type>(&as_int64(&source)?, to, narrow)
        }
        (from, DataType::Int32) if from.is_integer() => {
            each::<Int64Type, Int32Type>(&as_int64(&source)?, to, narrow)
        }
        (DataType::UInt64, _) => through_text(&source, field)?,
        (from, DataType::Int64) if from.is_integer() => {
            Converted { array: as_int64(&source)?, faults: vec![] }
        }
        (from, DataType::Timestamp(..)) if from.is_integer() => {
            each::<Int64Type, TimestampMicrosecondType>(&as_int64(&source)?, to, value::epoch_integer)
        }
        (DataType::Timestamp(unit, _), DataType::Timestamp(..)) => {
            let unit = *unit;
            let ticks = cast(&source, &DataType::Int64)?;
            each::<Int64Type, TimestampMicrosecondType>(&ticks, to, |ticks| in_us(ticks, unit))
        }
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(..)) => {
            let ticks = cast(&cast(&source, &DataType::Date32)?, &DataType::Int32)?;
            let days = cast(&ticks, &DataType::Int64)?;
            each::<Int64Type, TimestampMicrosecondType>(&days, to, |days| {
                days.checked_mul(86_400_000_000).ok_or(Fault::OutOfRange)
            })
        }
        (DataType::Date64, DataType::Date32)
        | (DataType::Time32(_) | DataType::Time64(_), DataType::Time64(_)) => {
            Converted { array: cast(&source, to)?, faults: vec![] }
        }
        (DataType::List(_), DataType::List(item)) => from_list(source.as_list(), field, item)?,
        (DataType::Binary, DataType::Binary) => Converted { array: source, faults: vec![] },
        (from, to) if from == to && *to != DataType::Utf8 => Converted { array: source, faults: vec![] },
        _ => through_text(&source, field)?,
    })
}

/// Without dictionaries and the larger cousins of a type.
fn plain(source: &ArrayRef) -> Result<ArrayRef> {
    let to = match source.data_type() {
        DataType::Dictionary(_, values) => return plain(&cast(source, values)?),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::LargeList(item) => DataType::List(Arc::clone(item)),
        DataType::Float16 => DataType::Float32,
        _ => return Ok(Arc::clone(source)),
    };
    Ok(cast(source, &to)?)
}

/// Any integer but UInt64 as Int64, which holds all of them.
fn as_int64(source: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(source, &DataType::Int64)?)
}

fn in_us(ticks: i64, unit: TimeUnit) -> Result<i64, Fault> {
    let scaled = match unit {
        TimeUnit::Second => ticks.checked_mul(1_000_000),
        TimeUnit::Millisecond => ticks.checked_mul(1000),
        TimeUnit::Microsecond => Some(ticks),
        TimeUnit::Nanosecond => Some(ticks.div_euclid(1000)),
    };
    scaled.ok_or(Fault::OutOfRange)
}

/// Converts value by value.
fn each<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    source: &ArrayRef,
    to: &DataType,
    convert: impl Fn(F::Native) -> Result<T::Native, Fault>,
) -> Converted {
    let source = source.as_primitive::<F>();
    let mut faults = Vec::new();
    let mut values = Vec::with_capacity(source.len());
    for (row, value) in source.values().iter().enumerate() {
        let converted = if source.is_null(row) { Ok(T::Native::default()) } else { convert(*value) };
        values.push(converted.unwrap_or_else(|fault| {
            faults.push((row, fault));
            T::Native::default()
        }));
    }
    let nulls = nulls_with_faults(source.nulls(), source.len(), &faults);
    let array = PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(to.clone());
    Converted { array: Arc::new(array), faults }
}

fn nulls_with_faults(
    nulls: Option<&NullBuffer>,
    rows: usize,
    faults: &[(usize, Fault)],
) -> Option<NullBuffer> {
    if faults.is_empty() {
        return nulls.cloned();
    }
    let mut valid: Vec<bool> = (0..rows).map(|row| nulls.is_none_or(|nulls| nulls.is_valid(row))).collect();
    for (row, _) in faults {
        valid[*row] = false;
    }
    Some(NullBuffer::from(valid))
}

/// What a float offers to the conversions below.
trait Float: Copy + std::fmt::Display + Into<f64> {}
impl Float for f32 {}
impl Float for f64 {}

fn from_float<F>(source: &ArrayRef, field: &Field) -> Result<Converted>
where
    F: ArrowPrimitiveType,
    F::Native: Float,
{
    let to = field.data_type();
    Ok(match to {
        DataType::Float64 => each::<F, Float64Type>(source, to, |number| finite(number.into())),
        DataType::Float32 => each::<F, Float32Type>(source, to, |number| {
            let narrow = finite(number.into())? as f32;
            if narrow.is_finite() { Ok(narrow) } else { Err(Fault::OutOfRange) }
        }),
        DataType::Int64 => each::<F, Int64Type>(source, to, |number| whole(number.into())),
        DataType::Int32 => each::<F, Int32Type>(source, to, |number| narrow(whole(number.into())?)),
        DataType::Int16 => each::<F, Int16Type>(source, to, |number| narrow(whole(number.into())?)),
        DataType::Decimal128(precision, scale) => {
            each::<F, Decimal128Type>(source, to, |number| rounded_decimal(number, *precision, *scale))
        }
        DataType::Timestamp(..) => each::<F, TimestampMicrosecondType>(source, to, |number| {
            value::timestamp(finite(number.into())?.to_string().as_bytes())
        }),
        _ => {
            let mut converted = through_text(source, field)?;
            // Text would hold NaN; nothing else does.
            for (row, number) in source.as_primitive::<F>().iter().enumerate() {
                let faulty = number.is_some_and(|number| !number.into().is_finite());
                if faulty && !converted.faults.iter().any(|(other, _)| *other == row) {
                    converted.faults.push((row, Fault::OutOfRange));
                }
            }
            converted
        }
    })
}

fn finite(number: f64) -> Result<f64, Fault> {
    if number.is_finite() { Ok(number) } else { Err(Fault::OutOfRange) }
}

fn whole(number: f64) -> Result<i64, Fault> {
    // 2^63 is the first double that i64 does not hold.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !(-LIMIT..LIMIT).contains(&number) {
        return Err(Fault::OutOfRange);
    }
    if number.fract() != 0.0 { Err(Fault::NotWhole) } else { Ok(number as i64) }
}

/// The decimal nearest to the number's shortest text; halves go away from zero.
fn rounded_decimal<F: Float>(number: F, precision: u8, scale: i8) -> Result<i128, Fault> {
    finite(number.into())?;
    let mut text = String::with_capacity(32);
    write!(text, "{number}").map_err(|_| Fault::OutOfRange)?;
    let places = usize::try_from(scale).map_err(|_| Fault::OutOfRange)?;
    let Some(point) = text.find('.') else {
        return value::decimal(text.as_bytes(), precision, scale);
    };
    let Some(first_cut) = text.as_bytes().get(point + 1 + places) else {
        return value::decimal(text.as_bytes(), precision, scale);
    };
    let away = i128::from(*first_cut >= b'5');
    let kept = value::decimal(&text.as_bytes()[..point + 1 + places], precision, scale)?;
    let rounded = if text.starts_with('-') { kept - away } else { kept + away };
    match 10i128.checked_pow(u32::from(precision)) {
        Some(limit) if rounded.abs() >= limit => Err(Fault::OutOfRange),
        _ => Ok(rounded),
    }
}

/// Formats each value and reads it as CSV does.
fn through_text(source: &ArrayRef, field: &Field) -> Result<Converted> {
    let mut column = Column::new(field);
    let mut faults = Vec::new();
    column.reserve(source.len());
    let mut push = |column: &mut Column, row: usize, text: Option<&[u8]>| {
        let pushed = match text {
            None => {
                column.push_null();
                Ok(())
            }
            Some(text) if std::str::from_utf8(text).is_err() => Err(Fault::Unrepresentable),
            Some(text) => column.push_text(text),
        };
        if let Err(fault) = pushed {
            faults.push((row, fault));
            column.push_null();
        }
    };
    match source.data_type() {
        DataType::Utf8 => {
            for (row, text) in source.as_string::<i32>().iter().enumerate() {
                push(&mut column, row, text.map(str::as_bytes));
            }
        }
        DataType::Binary => {
            for (row, bytes) in source.as_binary::<i32>().iter().enumerate() {
                push(&mut column, row, bytes);
            }
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(source, &options)?;
            let mut text = String::new();
            for row in 0..source.len() {
                if source.is_null(row) {
                    push(&mut column, row, None);
                    continue;
                }
                text.clear();
                formatter.value(row).write(&mut text)?;
                push(&mut column, row, Some(text.as_bytes()));
            }
        }
    }
    Ok(Converted { array: column.finish(), faults })
}

fn from_list(source: &ListArray, field: &Field, item: &Arc<Field>) -> Result<Converted> {
    let mut inner = item.as_ref().clone();
    if let Some(name) = field.metadata().get("sql_type").and_then(|name| name.strip_suffix("[]")) {
        inner = inner.with_metadata([("sql_type".to_string(), name.to_string())].into_iter().collect());
    }
    let converted = convert(source.values(), &inner)?;
    let offsets = source.value_offsets();
    let mut faults: Vec<(usize, Fault)> = Vec::new();
    for (element, fault) in converted.faults {
        let row = offsets.partition_point(|offset| *offset as usize <= element);
        // Elements outside every list belong to no row.
        if row > 0 && row < offsets.len() && faults.last().is_none_or(|(last, _)| *last != row - 1) {
            faults.push((row - 1, fault));
        }
    }
    let nulls = nulls_with_faults(source.nulls(), source.len(), &faults);
    let array = ListArray::try_new(Arc::clone(item), source.offsets().clone(), converted.array, nulls)?;
    Ok(Converted { array: Arc::new(array), faults })
}
