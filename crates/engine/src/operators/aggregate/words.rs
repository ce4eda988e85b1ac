//! Columns of up to 64 bits a value, as words: what keys, distinct values and extremes are made of.
//!
//! A word holds the value's bits, zero-extended; with [`WordOrder`] it can be compared as unsigned.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::DataType;
use dataflow::Result;

/// True when a value of this type fits one word.
pub fn is_word(data_type: &DataType) -> bool {
    *data_type == DataType::Boolean || matches!(data_type.primitive_width(), Some(1 | 2 | 4 | 8))
}

/// Calls `f` with every row's number and word; what stands in null rows is unspecified.
#[inline(always)]
pub fn each_word(array: &ArrayRef, mut f: impl FnMut(usize, u64)) {
    if let Some(booleans) = array.as_boolean_opt() {
        for (row, value) in booleans.values().iter().enumerate() {
            f(row, u64::from(value));
        }
        return;
    }
    let data = array.to_data();
    let length = data.len();
    match array.data_type().primitive_width() {
        Some(1) => (0..length).zip(data.buffer::<u8>(0)).for_each(|(row, v)| f(row, u64::from(*v))),
        Some(2) => (0..length).zip(data.buffer::<u16>(0)).for_each(|(row, v)| f(row, u64::from(*v))),
        Some(4) => (0..length).zip(data.buffer::<u32>(0)).for_each(|(row, v)| f(row, u64::from(*v))),
        Some(8) => (0..length).zip(data.buffer::<u64>(0)).for_each(|(row, v)| f(row, *v)),
        _ => unreachable!("callers check is_word"),
    }
}

/// As [`each_word`], with the two float zeros made one, as equality in SQL wants; NaN keeps its bits.
#[inline(always)]
pub fn each_equality_word(array: &ArrayRef, mut f: impl FnMut(usize, u64)) {
    match minus_zero(array.data_type()) {
        None => each_word(array, f),
        Some(minus_zero) => each_word(array, |row, word| f(row, if word == minus_zero { 0 } else { word })),
    }
}

fn minus_zero(data_type: &DataType) -> Option<u64> {
    match data_type {
        DataType::Float16 => Some(1 << 15),
        DataType::Float32 => Some(1 << 31),
        DataType::Float64 => Some(1 << 63),
        _ => None,
    }
}

/// The column whose values have these words.
///
/// # Errors
/// If the type does not fit words.
pub fn array_from_words(data_type: &DataType, words: &[u64], nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    if *data_type == DataType::Boolean {
        let values = BooleanBuffer::collect_bool(words.len(), |row| words[row] != 0);
        return Ok(Arc::new(BooleanArray::new(values, nulls)));
    }
    let buffer = match data_type.primitive_width() {
        Some(1) => Buffer::from_vec(words.iter().map(|word| *word as u8).collect::<Vec<u8>>()),
        Some(2) => Buffer::from_vec(words.iter().map(|word| *word as u16).collect::<Vec<u16>>()),
        Some(4) => Buffer::from_vec(words.iter().map(|word| *word as u32).collect::<Vec<u32>>()),
        _ => Buffer::from_vec(words.to_vec()),
    };
    let data =
        ArrayData::builder(data_type.clone()).len(words.len()).add_buffer(buffer).nulls(nulls).build()?;
    Ok(make_array(data))
}

/// How the words of a type sort; the same order as arrow's row format (floats: total order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordOrder {
    Unsigned,
    /// Two's complement with the sign in this bit.
    Signed(u32),
    /// IEEE 754 with the sign in this bit.
    Float(u32),
}

impl WordOrder {
    pub fn of(data_type: &DataType) -> Option<WordOrder> {
        use DataType::*;
        Some(match data_type {
            Boolean | UInt8 | UInt16 | UInt32 | UInt64 => WordOrder::Unsigned,
            Int8 => WordOrder::Signed(7),
            Int16 => WordOrder::Signed(15),
            Int32 | Date32 | Time32(_) => WordOrder::Signed(31),
            Int64 | Date64 | Time64(_) | Timestamp(..) | Duration(_) => WordOrder::Signed(63),
            Float16 => WordOrder::Float(15),
            Float32 => WordOrder::Float(31),
            Float64 => WordOrder::Float(63),
            _ => return None,
        })
    }

    /// A code that sorts, as unsigned, like the value.
    #[inline]
    pub fn encode(self, word: u64) -> u64 {
        match self {
            WordOrder::Unsigned => word,
            WordOrder::Signed(bit) => word ^ (1 << bit),
            WordOrder::Float(bit) => {
                let all = u64::MAX >> (63 - bit);
                if word >> bit == 0 { word ^ (1 << bit) } else { !word & all }
            }
        }
    }

    #[inline]
    pub fn decode(self, code: u64) -> u64 {
        match self {
            WordOrder::Unsigned => code,
            WordOrder::Signed(bit) => code ^ (1 << bit),
            WordOrder::Float(bit) => {
                let all = u64::MAX >> (63 - bit);
                if code >> bit == 1 { code ^ (1 << bit) } else { !code & all }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Float64Array, Int16Array, TimestampMicrosecondArray};

    fn words(array: &ArrayRef) -> Vec<u64> {
        let mut words = vec![0; array.len()];
        each_word(array, |row, word| words[row] = word);
        words
    }

    #[test]
    fn codes_sort_like_values_and_come_back() {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int16Array::from(vec![i16::MIN, -2, -1, 0, 1, i16::MAX])),
            Arc::new(Float64Array::from(vec![
                f64::NEG_INFINITY,
                -1.5,
                -0.0,
                0.0,
                1e-300,
                2.0,
                f64::INFINITY,
                f64::NAN,
            ])),
            Arc::new(Float32Array::from(vec![
                f32::NEG_INFINITY,
                -1.5,
                -0.0,
                0.0,
                1e-30,
                2.0,
                f32::INFINITY,
                f32::NAN,
            ])),
            Arc::new(
                TimestampMicrosecondArray::from(vec![i64::MIN, -1, 0, i64::MAX]).with_timezone("+00:00"),
            ),
            Arc::new(BooleanArray::from(vec![false, true])),
        ];
        for array in arrays {
            let order = WordOrder::of(array.data_type()).unwrap();
            let codes: Vec<u64> = words(&array).into_iter().map(|word| order.encode(word)).collect();
            assert!(codes.is_sorted_by(|a, b| a < b), "{array:?} gives {codes:?}");
            let back: Vec<u64> = codes.into_iter().map(|code| order.decode(code)).collect();
            assert_eq!(back, words(&array));
            let sliced = array.slice(1, array.len() - 1);
            assert_eq!(words(&sliced), back[1..]);
            assert_eq!(&array_from_words(array.data_type(), &back, None).unwrap(), &array);
        }
    }
}
