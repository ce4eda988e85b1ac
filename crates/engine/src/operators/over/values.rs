//! Columns of values that are read and written one at a time.
//!
//! Arrow's arrays are made for whole batches. A window function looks at single rows of a partition, in an order that
//! only the partition knows, so its arguments are kept here: whole numbers, dates and times as `i64`, decimals as
//! `i128`, floats as `f64`, and everything else as row bytes, which compare as SQL does.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use dataflow::{Error, Result};

use crate::row_codec::{EncodedRows, RowCodec};

/// A column that grows by slots, each of which has a value or none.
pub struct ValueColumn {
    data_type: DataType,
    values: Values,
    present: Vec<bool>,
    codec: Option<RowCodec>,
}

enum Values {
    /// Unsigned 64-bit numbers with their highest bit turned, so that `i64`'s order is theirs.
    Int(Vec<i64>),
    Wide(Vec<i128>),
    Float(Vec<f64>),
    Bytes(Vec<Box<[u8]>>),
}

/// How a column keeps its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    Int,
    Wide,
    Float,
    Bytes,
}

impl ValueKind {
    pub fn of(data_type: &DataType) -> ValueKind {
        use DataType::*;
        match data_type {
            Boolean | Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_) => ValueKind::Int,
            t if t.is_integer() => ValueKind::Int,
            Decimal128(..) => ValueKind::Wide,
            Float32 | Float64 => ValueKind::Float,
            _ => ValueKind::Bytes,
        }
    }
}

/// A value out of a column, on its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Int(i64),
    Wide(i128),
    Float(f64),
    Bytes(Box<[u8]>),
}

/// A batch's column, ready to be read value by value.
pub struct Source {
    values: SourceValues,
    array: ArrayRef,
}

enum SourceValues {
    Int(Int64Array),
    Unsigned(UInt64Array),
    Wide(Decimal128Array),
    Float(Float64Array),
    Bytes(EncodedRows),
}

const TURN: i64 = i64::MIN;

impl ValueColumn {
    /// # Errors
    /// If the type has no row format.
    pub fn new(data_type: &DataType) -> Result<ValueColumn> {
        let (values, codec) = match ValueKind::of(data_type) {
            ValueKind::Int => (Values::Int(Vec::new()), None),
            ValueKind::Wide => (Values::Wide(Vec::new()), None),
            ValueKind::Float => (Values::Float(Vec::new()), None),
            ValueKind::Bytes => {
                let codec = RowCodec::new([(data_type.clone(), SortOptions::default())])?;
                (Values::Bytes(Vec::new()), Some(codec))
            }
        };
        Ok(ValueColumn { data_type: data_type.clone(), values, present: Vec::new(), codec })
    }

    /// An empty column of the same type.
    ///
    /// # Errors
    /// As [`ValueColumn::new`].
    pub fn like(&self) -> Result<ValueColumn> {
        ValueColumn::new(&self.data_type)
    }

    pub fn kind(&self) -> ValueKind {
        match self.values {
            Values::Int(_) => ValueKind::Int,
            Values::Wide(_) => ValueKind::Wide,
            Values::Float(_) => ValueKind::Float,
            Values::Bytes(_) => ValueKind::Bytes,
        }
    }

    fn unsigned(&self) -> bool {
        self.data_type == DataType::UInt64
    }

    /// Readies a batch's column of this type.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn source(&self, array: &ArrayRef) -> Result<Source> {
        let values = match &self.values {
            Values::Int(_) if self.unsigned() => {
                SourceValues::Unsigned(array.as_primitive::<UInt64Type>().clone())
            }
            Values::Int(_) => {
                let array = match array.data_type() {
                    DataType::Date32 | DataType::Time32(_) => cast(array, &DataType::Int32)?,
                    _ => Arc::clone(array),
                };
                SourceValues::Int(cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            Values::Wide(_) => SourceValues::Wide(array.as_primitive::<Decimal128Type>().clone()),
            Values::Float(_) => {
                SourceValues::Float(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            Values::Bytes(_) => {
                let codec = self.codec.as_ref().expect("bytes have a codec");
                SourceValues::Bytes(codec.encode(std::slice::from_ref(array), array.len())?)
            }
        };
        Ok(Source { values, array: Arc::clone(array) })
    }

    /// Puts the source's value into the slot, which is an old one or the next.
    pub fn set(&mut self, slot: usize, source: &Source, row: usize) {
        let present = source.array.is_valid(row);
        match (&mut self.values, &source.values) {
            (Values::Int(to), SourceValues::Int(from)) => put(to, slot, from.value(row)),
            (Values::Int(to), SourceValues::Unsigned(from)) => put(to, slot, from.value(row) as i64 ^ TURN),
            (Values::Wide(to), SourceValues::Wide(from)) => put(to, slot, from.value(row)),
            (Values::Float(to), SourceValues::Float(from)) => put(to, slot, from.value(row)),
            (Values::Bytes(to), SourceValues::Bytes(from)) => put(to, slot, from.get(row).into()),
            _ => unreachable!("a source is read by the column that made it"),
        }
        put(&mut self.present, slot, present);
    }

    /// Gives up what the slot holds.
    pub fn clear(&mut self, slot: usize) {
        if let Values::Bytes(values) = &mut self.values {
            values[slot] = Box::default();
        }
    }

    /// Forgets all slots.
    pub fn shrink(&mut self) {
        self.present = Vec::new();
        match &mut self.values {
            Values::Int(values) => *values = Vec::new(),
            Values::Wide(values) => *values = Vec::new(),
            Values::Float(values) => *values = Vec::new(),
            Values::Bytes(values) => *values = Vec::new(),
        }
    }

    #[inline]
    pub fn is_present(&self, slot: u32) -> bool {
        self.present[slot as usize]
    }

    /// A whole number, date, time, truth value or unscaled decimal.
    #[inline]
    pub fn whole(&self, slot: u32) -> i128 {
        match &self.values {
            Values::Int(values) if self.unsigned() => i128::from((values[slot as usize] ^ TURN) as u64),
            Values::Int(values) => i128::from(values[slot as usize]),
            Values::Wide(values) => values[slot as usize],
            _ => unreachable!("a whole number is asked of a column of numbers"),
        }
    }

    #[inline]
    pub fn float(&self, slot: u32) -> f64 {
        match &self.values {
            Values::Float(values) => values[slot as usize],
            _ => unreachable!("a float is asked of a column of floats"),
        }
    }

    /// The order of two slots that have values.
    #[inline]
    pub fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        match &self.values {
            Values::Int(values) => values[a].cmp(&values[b]),
            Values::Wide(values) => values[a].cmp(&values[b]),
            Values::Float(values) => values[a].total_cmp(&values[b]),
            Values::Bytes(values) => values[a].cmp(&values[b]),
        }
    }

    /// The order of a slot that has a value and a scalar.
    pub fn compare_scalar(&self, slot: u32, scalar: &Scalar) -> Ordering {
        let slot = slot as usize;
        match (&self.values, scalar) {
            (Values::Int(values), Scalar::Int(other)) => values[slot].cmp(other),
            (Values::Wide(values), Scalar::Wide(other)) => values[slot].cmp(other),
            (Values::Float(values), Scalar::Float(other)) => values[slot].total_cmp(other),
            (Values::Bytes(values), Scalar::Bytes(other)) => values[slot].cmp(other),
            _ => unreachable!("a scalar is compared with the column it came from"),
        }
    }

    /// The slot's value; `None` for NULL.
    pub fn scalar(&self, slot: u32) -> Option<Scalar> {
        let slot = slot as usize;
        self.present[slot].then(|| match &self.values {
            Values::Int(values) => Scalar::Int(values[slot]),
            Values::Wide(values) => Scalar::Wide(values[slot]),
            Values::Float(values) => Scalar::Float(values[slot]),
            Values::Bytes(values) => Scalar::Bytes(values[slot].clone()),
        })
    }

    // Growing at the end: a column of results.

    pub fn push_null(&mut self) {
        self.present.push(false);
        match &mut self.values {
            Values::Int(values) => values.push(0),
            Values::Wide(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Bytes(values) => values.push(Box::default()),
        }
    }

    /// # Panics
    /// If the column holds no whole numbers.
    #[inline]
    pub fn push_int(&mut self, value: i64) {
        let turn = if self.unsigned() { TURN } else { 0 };
        self.present.push(true);
        match &mut self.values {
            Values::Int(values) => values.push(value ^ turn),
            Values::Wide(values) => values.push(i128::from(value)),
            Values::Float(values) => values.push(value as f64),
            Values::Bytes(_) => unreachable!("a number is a result of a numeric call"),
        }
    }

    /// # Panics
    /// If the column holds no decimals.
    pub fn push_wide(&mut self, value: i128) {
        match &mut self.values {
            Values::Wide(values) => values.push(value),
            _ => unreachable!("a decimal is a result of a decimal call"),
        }
        self.present.push(true);
    }

    /// # Panics
    /// If the column holds no floats.
    #[inline]
    pub fn push_float(&mut self, value: f64) {
        match &mut self.values {
            Values::Float(values) => values.push(value),
            _ => unreachable!("a float is a result of a float call"),
        }
        self.present.push(true);
    }

    /// The value in a slot of a column of the same type.
    #[inline]
    pub fn push_from(&mut self, from: &ValueColumn, slot: u32) {
        let slot = slot as usize;
        match (&mut self.values, &from.values) {
            (Values::Int(to), Values::Int(from)) => to.push(from[slot]),
            (Values::Wide(to), Values::Wide(from)) => to.push(from[slot]),
            (Values::Float(to), Values::Float(from)) => to.push(from[slot]),
            (Values::Bytes(to), Values::Bytes(from)) => to.push(from[slot].clone()),
            _ => unreachable!("results have their argument's type"),
        }
        self.present.push(from.present[slot]);
    }

    pub fn push_scalar(&mut self, value: Option<&Scalar>) {
        match (&mut self.values, value) {
            (_, None) => return self.push_null(),
            (Values::Int(to), Some(Scalar::Int(value))) => to.push(*value),
            (Values::Wide(to), Some(Scalar::Wide(value))) => to.push(*value),
            (Values::Float(to), Some(Scalar::Float(value))) => to.push(*value),
            (Values::Bytes(to), Some(Scalar::Bytes(value))) => to.push(value.clone()),
            _ => unreachable!("results have their argument's type"),
        }
        self.present.push(true);
    }

    /// The column as an array; the column is empty afterwards.
    ///
    /// # Errors
    /// If the values are too large for one array.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let present = std::mem::take(&mut self.present);
        let nulls = arrow::buffer::NullBuffer::from(present);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let array: ArrayRef = match &mut self.values {
            Values::Int(values) => {
                let values = std::mem::take(values);
                if self.data_type == DataType::UInt64 {
                    let values: Vec<u64> = values.into_iter().map(|v| (v ^ TURN) as u64).collect();
                    Arc::new(UInt64Array::new(values.into(), nulls))
                } else {
                    let array: ArrayRef = Arc::new(Int64Array::new(values.into(), nulls));
                    match &self.data_type {
                        DataType::Date32 | DataType::Time32(_) => {
                            cast(&cast(&array, &DataType::Int32)?, &self.data_type)?
                        }
                        other => cast(&array, other)?,
                    }
                }
            }
            Values::Wide(values) => {
                let DataType::Decimal128(precision, scale) = self.data_type else {
                    return Err(Error::Operator("wide values are decimals".to_owned()));
                };
                let array = Decimal128Array::new(std::mem::take(values).into(), nulls);
                Arc::new(array.with_precision_and_scale(precision, scale)?)
            }
            Values::Float(values) => {
                let array: ArrayRef = Arc::new(Float64Array::new(std::mem::take(values).into(), nulls));
                cast(&array, &self.data_type)?
            }
            Values::Bytes(values) => {
                let codec = self.codec.as_ref().expect("bytes have a codec");
                let absent = codec.encode(&[arrow::array::new_null_array(&self.data_type, 1)], 1)?;
                let values = std::mem::take(values);
                let present = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                let rows: Vec<&[u8]> = values
                    .iter()
                    .enumerate()
                    .map(|(row, bytes)| if present(row) { bytes } else { absent.get(0) })
                    .collect();
                codec.decode(&rows)?.remove(0)
            }
        };
        Ok(array)
    }

    pub fn size_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Int(values) => values.capacity() * 8,
            Values::Wide(values) => values.capacity() * 16,
            Values::Float(values) => values.capacity() * 8,
            Values::Bytes(values) => {
                values.capacity() * size_of::<Box<[u8]>>() + values.iter().map(|v| v.len()).sum::<usize>()
            }
        };
        values + self.present.capacity()
    }
}

fn put<T>(values: &mut Vec<T>, slot: usize, value: T) {
    if slot == values.len() {
        values.push(value);
    } else {
        values[slot] = value;
    }
}
