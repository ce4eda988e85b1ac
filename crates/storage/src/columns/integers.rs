//! Integers as distances to their minimum, in the narrowest width that holds all of them.

use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::ArrowNativeType;

use super::{CONSTANT_ROWS_MAX, varint};

/// Bytes per number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// All numbers are the minimum.
    Constant,
    One,
    Two,
    Four,
    Eight,
    Sixteen,
}

impl Width {
    /// The three bits that stand for it in a head byte.
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Width> {
        [Width::Constant, Width::One, Width::Two, Width::Four, Width::Eight, Width::Sixteen]
            .get(usize::from(code))
            .copied()
    }

    pub fn bytes(self) -> usize {
        match self {
            Width::Constant => 0,
            Width::One => 1,
            Width::Two => 2,
            Width::Four => 4,
            Width::Eight => 8,
            Width::Sixteen => 16,
        }
    }

    fn holding(range: u128, count: usize) -> Width {
        match range {
            0 if count <= CONSTANT_ROWS_MAX => Width::Constant,
            0..=0xFF => Width::One,
            0x100..=0xFFFF => Width::Two,
            0x1_0000..=0xFFFF_FFFF => Width::Four,
            0x1_0000_0000..=0xFFFF_FFFF_FFFF_FFFF => Width::Eight,
            _ => Width::Sixteen,
        }
    }
}

/// A signed integer type; unsigned columns are read as signed ones of the same size, which only moves
/// the minimum.
pub trait Integer: ArrowNativeType + Ord {
    const WIDTH: Width;
    fn to_i128(self) -> i128;
    /// Keeps the low bits.
    fn from_i128(value: i128) -> Self;
    /// Low bits of `self - minimum`.
    fn distance(self, minimum: Self) -> u64;
    fn distance_wide(self, minimum: Self) -> u128;
    fn add_distance(self, distance: u64) -> Self;
    fn add_distance_wide(self, distance: u128) -> Self;
}

macro_rules! integer {
    ($type:ty, $width:expr) => {
        impl Integer for $type {
            const WIDTH: Width = $width;
            #[inline]
            fn to_i128(self) -> i128 {
                i128::from(self)
            }
            #[inline]
            fn from_i128(value: i128) -> Self {
                value as $type
            }
            #[inline]
            fn distance(self, minimum: Self) -> u64 {
                self.wrapping_sub(minimum) as u64
            }
            #[inline]
            fn distance_wide(self, minimum: Self) -> u128 {
                self.wrapping_sub(minimum) as u128
            }
            #[inline]
            fn add_distance(self, distance: u64) -> Self {
                self.wrapping_add(distance as $type)
            }
            #[inline]
            fn add_distance_wide(self, distance: u128) -> Self {
                self.wrapping_add(distance as $type)
            }
        }
    };
}

integer!(i8, Width::One);
integer!(i16, Width::Two);
integer!(i32, Width::Four);
integer!(i64, Width::Eight);
integer!(i128, Width::Sixteen);

/// Appends `values` and returns their width, which the reader must be told.
///
/// What stands in null rows is not stored: it becomes the minimum.
pub fn write<T: Integer>(values: &[T], nulls: Option<&NullBuffer>, out: &mut Vec<u8>) -> Width {
    let Some(nulls) = nulls else {
        return write_all(values, out);
    };
    let minimum = nulls.valid_indices().map(|row| values[row]).min();
    let minimum = minimum.unwrap_or_default();
    let values: Vec<T> =
        values.iter().zip(nulls.iter()).map(|(value, valid)| if valid { *value } else { minimum }).collect();
    write_all(&values, out)
}

fn write_all<T: Integer>(values: &[T], out: &mut Vec<u8>) -> Width {
    let Some((first, rest)) = values.split_first() else {
        varint::write_signed(0, out);
        return Width::Constant;
    };
    let (minimum, maximum) = rest
        .iter()
        .fold((*first, *first), |(minimum, maximum), value| (minimum.min(*value), maximum.max(*value)));
    let range = maximum.to_i128().wrapping_sub(minimum.to_i128()) as u128;
    let width = Width::holding(range, values.len());
    // As wide as the type: nothing to gain from distances.
    let minimum = if width == T::WIDTH { T::default() } else { minimum };
    varint::write_signed(minimum.to_i128(), out);
    let start = out.len();
    out.resize(start + values.len() * width.bytes(), 0);
    let bytes = &mut out[start..];
    match width {
        Width::Constant => {}
        Width::One => {
            bytes.iter_mut().zip(values).for_each(|(byte, value)| *byte = value.distance(minimum) as u8);
        }
        Width::Two => {
            fill::<2>(bytes, values.iter().map(|value| (value.distance(minimum) as u16).to_le_bytes()))
        }
        Width::Four => {
            fill::<4>(bytes, values.iter().map(|value| (value.distance(minimum) as u32).to_le_bytes()))
        }
        Width::Eight => fill::<8>(bytes, values.iter().map(|value| value.distance(minimum).to_le_bytes())),
        Width::Sixteen => {
            fill::<16>(bytes, values.iter().map(|value| value.distance_wide(minimum).to_le_bytes()))
        }
    }
    width
}

#[inline]
fn fill<const N: usize>(bytes: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
    bytes.as_chunks_mut::<N>().0.iter_mut().zip(values).for_each(|(chunk, value)| *chunk = value);
}

/// Takes `count` integers from the front of `bytes`; `None` if they are not there.
pub fn read<T: Integer>(bytes: &mut &[u8], count: usize, width: Width) -> Option<Vec<T>> {
    let minimum = T::from_i128(varint::read_signed(bytes)?);
    if width == Width::Constant {
        return (count <= CONSTANT_ROWS_MAX).then(|| vec![minimum; count]);
    }
    let numbers = bytes.split_off(..count.checked_mul(width.bytes())?)?;
    Some(match width {
        Width::Constant => return None,
        Width::One => numbers.iter().map(|byte| minimum.add_distance(u64::from(*byte))).collect(),
        Width::Two => {
            chunks(numbers).map(|two| minimum.add_distance(u64::from(u16::from_le_bytes(two)))).collect()
        }
        Width::Four => {
            chunks(numbers).map(|four| minimum.add_distance(u64::from(u32::from_le_bytes(four)))).collect()
        }
        Width::Eight => {
            chunks(numbers).map(|eight| minimum.add_distance(u64::from_le_bytes(eight))).collect()
        }
        Width::Sixteen => {
            chunks(numbers).map(|all| minimum.add_distance_wide(u128::from_le_bytes(all))).collect()
        }
    })
}

/// As [`read`], as a buffer for a column.
pub fn read_buffer<T: Integer>(bytes: &mut &[u8], count: usize, width: Width) -> Option<Buffer> {
    read::<T>(bytes, count, width).map(Buffer::from_vec)
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}
