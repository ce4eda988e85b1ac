//! A column while it is filled.
//!
//! Plain vectors instead of Arrow's builders, because a row that turns out to be bad in its third
//! column must be taken back from the first two ([`Column::truncate`]).

use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, PrimitiveArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit,
};

use super::value::{self, Fault};

/// One column of the batch to be.
pub(crate) struct Column {
    pub(super) values: Values,
    // Invariant: as long as `values` when present; absent while no null was seen.
    pub(super) validity: Option<BooleanBufferBuilder>,
    data_type: DataType,
    pub(super) sql_type: String,
}

/// The values by type; nulls hold a default.
pub(crate) enum Values {
    Boolean(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Text(Spans),
    /// The text of a JSON value.
    Json(Spans),
    Bytes(Spans),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    Interval(Vec<IntervalMonthDayNano>),
    List {
        ends: Vec<i32>,
        child: Box<Column>,
        field: FieldRef,
    },
    /// A type that no format can read: every value is refused, so that only nulls remain.
    Unreadable {
        length: usize,
    },
}

/// Byte strings one behind the other.
pub(crate) struct Spans {
    // Invariant: starts with 0; the last one is `bytes.len()`. Fits i32 because bodies do.
    offsets: Vec<i32>,
    pub(super) bytes: Vec<u8>,
}

impl Spans {
    fn new() -> Spans {
        Spans { offsets: vec![0], bytes: Vec::new() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Ends the value that was appended to `bytes`.
    #[inline]
    pub(super) fn close(&mut self) {
        self.offsets.push(self.bytes.len() as i32);
    }

    /// Takes back what was appended to `bytes` since the last value was closed.
    pub(super) fn reopen(&mut self) {
        self.bytes.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    /// Appends `source[start..end]`; short values are copied as one block of 16 bytes.
    #[inline(always)]
    pub(super) fn push(&mut self, source: &[u8], start: usize, end: usize) {
        match source.get(start..start + 16) {
            Some(block) if end - start <= 16 => {
                let block: &[u8; 16] = block.try_into().expect("16 bytes");
                let length = self.bytes.len() + (end - start);
                self.bytes.extend_from_slice(block);
                self.bytes.truncate(length);
            }
            _ => self.bytes.extend_from_slice(&source[start..end]),
        }
        self.close();
    }

    fn truncate(&mut self, length: usize) {
        self.offsets.truncate(length + 1);
        self.reopen();
    }

    fn reserve(&mut self, rows: usize, bytes: usize) {
        self.offsets.reserve(rows);
        self.bytes.reserve(bytes);
    }
}

impl Column {
    pub(crate) fn new(field: &Field) -> Column {
        let sql_type = match field.metadata().get("sql_type") {
            Some(name) => name.clone(),
            None => sql_type_of(field.data_type()),
        };
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Utf8 if matches!(sql_type.as_str(), "jsonb" | "json") => Values::Json(Spans::new()),
            DataType::Utf8 => Values::Text(Spans::new()),
            DataType::Binary => Values::Bytes(Spans::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Values::Timestamp(Vec::new()),
            DataType::Interval(IntervalUnit::MonthDayNano) => Values::Interval(Vec::new()),
            DataType::List(item) => {
                // The element's type name: the metadata of a list stands on the outer field.
                let mut inner = item.as_ref().clone();
                if let Some(name) = sql_type.strip_suffix("[]") {
                    let mut metadata = inner.metadata().clone();
                    metadata.entry("sql_type".to_string()).or_insert_with(|| name.to_string());
                    inner = inner.with_metadata(metadata);
                }
                Values::List {
                    ends: Vec::new(),
                    child: Box::new(Column::new(&inner)),
                    field: Arc::clone(item),
                }
            }
            _ => Values::Unreadable { length: 0 },
        };
        Column { values, validity: None, data_type: field.data_type().clone(), sql_type }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Boolean(values) => values.len(),
            Values::Int16(values) => values.len(),
            Values::Int32(values) | Values::Date(values) => values.len(),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp(values) => values.len(),
            Values::Float32(values) => values.len(),
            Values::Float64(values) => values.len(),
            Values::Decimal { values, .. } => values.len(),
            Values::Text(spans) | Values::Json(spans) | Values::Bytes(spans) => spans.len(),
            Values::Interval(values) => values.len(),
            Values::List { ends, .. } => ends.len(),
            Values::Unreadable { length } => *length,
        }
    }

    /// Makes room for `rows` more values.
    pub(crate) fn reserve(&mut self, rows: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.reserve(rows),
            Values::Int16(values) => values.reserve(rows),
            Values::Int32(values) | Values::Date(values) => values.reserve(rows),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp(values) => values.reserve(rows),
            Values::Float32(values) => values.reserve(rows),
            Values::Float64(values) => values.reserve(rows),
            Values::Decimal { values, .. } => values.reserve(rows),
            Values::Text(spans) | Values::Json(spans) | Values::Bytes(spans) => spans.reserve(rows, rows * 8),
            Values::Interval(values) => values.reserve(rows),
            Values::List { ends, .. } => ends.reserve(rows),
            Values::Unreadable { .. } => {}
        }
    }

    /// Says that the value just appended is one.
    #[inline(always)]
    pub(super) fn mark_valid(&mut self) {
        if let Some(validity) = &mut self.validity {
            validity.append(true);
        }
    }

    pub(crate) fn push_null(&mut self) {
        let length = self.len();
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text(spans) | Values::Json(spans) | Values::Bytes(spans) => spans.close(),
            Values::Interval(values) => values.push(IntervalMonthDayNano::ZERO),
            Values::List { ends, child, .. } => ends.push(child.len() as i32),
            Values::Unreadable { length } => *length += 1,
        }
        let validity = self.validity.get_or_insert_with(|| {
            let mut validity = BooleanBufferBuilder::new(length + 64);
            validity.append_n(length, true);
            validity
        });
        validity.append(false);
    }

    /// Appends the value that `text` spells; text is valid UTF-8.
    ///
    /// On a fault nothing is appended.
    pub(crate) fn push_text(&mut self, text: &[u8]) -> Result<(), Fault> {
        match &mut self.values {
            Values::Boolean(values) => values.append(value::boolean(text)?),
            Values::Int16(values) => values.push(narrow(value::integer(text)?)?),
            Values::Int32(values) => values.push(narrow(value::integer(text)?)?),
            Values::Int64(values) => values.push(value::integer(text)?),
            Values::Float32(values) => values.push(value::float32(text)?),
            Values::Float64(values) => values.push(value::float64(text)?),
            Values::Decimal { values, precision, scale } => {
                values.push(value::decimal(text, *precision, *scale)?);
            }
            Values::Text(spans) => {
                if memchr::memchr(0, text).is_some() {
                    return Err(Fault::Unrepresentable);
                }
                spans.push(text, 0, text.len());
            }
            Values::Json(spans) => {
                super::json::check_value(text)?;
                spans.push(text, 0, text.len());
            }
            Values::Bytes(spans) => {
                if let Err(fault) = value::bytea(text, &mut spans.bytes) {
                    spans.reopen();
                    return Err(fault);
                }
                spans.close();
            }
            Values::Date(values) => values.push(value::date(text)?),
            Values::Time(values) => values.push(value::time_of_day(text)?),
            Values::Timestamp(values) => values.push(value::timestamp(text)?),
            Values::Interval(values) => values.push(value::interval(text)?),
            Values::List { .. } => return self.push_list_text(text),
            Values::Unreadable { .. } => return Err(Fault::WrongType),
        }
        self.mark_valid();
        Ok(())
    }

    /// A list as PostgreSQL writes it, `{1,2}`, or as JSON does, `[1,2]`.
    fn push_list_text(&mut self, text: &[u8]) -> Result<(), Fault> {
        if text.trim_ascii_start().first() == Some(&b'[') {
            return super::json::push_document(self, text);
        }
        let elements = value::array_elements(text)?;
        let Values::List { ends, child, .. } = &mut self.values else {
            return Err(Fault::WrongType);
        };
        let start = child.len();
        for element in elements {
            let pushed = match element {
                None => {
                    child.push_null();
                    Ok(())
                }
                Some(element) if element.is_empty() || std::str::from_utf8(&element).is_ok() => {
                    child.push_text(&element)
                }
                Some(_) => Err(Fault::WrongType),
            };
            if let Err(fault) = pushed {
                child.truncate(start);
                return Err(fault);
            }
        }
        ends.push(child.len() as i32);
        self.mark_valid();
        Ok(())
    }

    /// Takes back all values from `length` on.
    pub(crate) fn truncate(&mut self, length: usize) {
        if self.len() <= length {
            return;
        }
        match &mut self.values {
            Values::Boolean(values) => values.truncate(length),
            Values::Int16(values) => values.truncate(length),
            Values::Int32(values) | Values::Date(values) => values.truncate(length),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp(values) => {
                values.truncate(length)
            }
            Values::Float32(values) => values.truncate(length),
            Values::Float64(values) => values.truncate(length),
            Values::Decimal { values, .. } => values.truncate(length),
            Values::Text(spans) | Values::Json(spans) | Values::Bytes(spans) => spans.truncate(length),
            Values::Interval(values) => values.truncate(length),
            Values::List { ends, child, .. } => {
                ends.truncate(length);
                child.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Values::Unreadable { length: held } => *held = length,
        }
        if let Some(validity) = &mut self.validity {
            validity.truncate(length);
        }
    }

    pub(crate) fn finish(self) -> ArrayRef {
        let length = self.len();
        let nulls = self.validity.map(|mut validity| {
            assert_eq!(validity.len(), length, "one validity bit per value");
            NullBuffer::new(validity.finish())
        });
        match self.values {
            Values::Boolean(mut values) => {
                let values: BooleanBuffer = values.finish();
                Arc::new(BooleanArray::new(values, nulls))
            }
            Values::Int16(values) => Arc::new(Int16Array::new(values.into(), nulls)),
            Values::Int32(values) => Arc::new(Int32Array::new(values.into(), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Float32(values) => Arc::new(Float32Array::new(values.into(), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Decimal { values, .. } => {
                typed(Decimal128Array::new(values.into(), nulls), self.data_type)
            }
            Values::Text(spans) | Values::Json(spans) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(spans.offsets));
                Arc::new(StringArray::new(offsets, spans.bytes.into(), nulls))
            }
            Values::Bytes(spans) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(spans.offsets));
                Arc::new(BinaryArray::new(offsets, spans.bytes.into(), nulls))
            }
            Values::Date(values) => Arc::new(Date32Array::new(values.into(), nulls)),
            Values::Time(values) => Arc::new(Time64MicrosecondArray::new(values.into(), nulls)),
            Values::Timestamp(values) => {
                typed(TimestampMicrosecondArray::new(values.into(), nulls), self.data_type)
            }
            Values::Interval(values) => Arc::new(IntervalMonthDayNanoArray::new(values.into(), nulls)),
            Values::List { ends, child, field } => {
                let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::new(field, offsets, child.finish(), nulls))
            }
            Values::Unreadable { length } => new_null_array(&self.data_type, length),
        }
    }
}

fn typed<T: ArrowPrimitiveType>(array: PrimitiveArray<T>, data_type: DataType) -> ArrayRef {
    Arc::new(array.with_data_type(data_type))
}

/// An integer in a narrower type.
#[inline(always)]
pub(crate) fn narrow<T: TryFrom<i64>>(number: i64) -> Result<T, Fault> {
    T::try_from(number).map_err(|_| Fault::OutOfRange)
}

/// PostgreSQL's name of a type, for columns whose metadata does not say it.
fn sql_type_of(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_string(),
        DataType::Int16 => "smallint".to_string(),
        DataType::Int32 => "integer".to_string(),
        DataType::Int64 => "bigint".to_string(),
        DataType::Float32 => "real".to_string(),
        DataType::Float64 => "double precision".to_string(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Utf8 => "text".to_string(),
        DataType::Binary => "bytea".to_string(),
        DataType::Date32 => "date".to_string(),
        DataType::Time64(_) => "time".to_string(),
        DataType::Timestamp(_, None) => "timestamp".to_string(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_string(),
        DataType::Interval(_) => "interval".to_string(),
        DataType::List(item) => format!("{}[]", sql_type_of(item.data_type())),
        other => other.to_string(),
    }
}
