//! How columns of states are saved: numbers in blocks, each as the distance from the least of its block, in as few
//! bytes as the largest distance needs.
//!
//! How long a column is has to be known from elsewhere. Every value takes a byte at least (flags a bit), so that a
//! wrong length can't make a reader fill memory.

use dataflow::{Error, Result, StateReader, StateWriter};

const BLOCK: usize = 1024;

pub fn damaged(what: &str) -> Error {
    Error::State(what.to_owned())
}

/// Calls `f` with the values block by block; only the last may be shorter than [`BLOCK`].
#[inline(always)]
fn each_block<V: Copy + Default>(mut values: impl Iterator<Item = V>, mut f: impl FnMut(&[V])) {
    let mut block = [V::default(); BLOCK];
    loop {
        let mut length = 0;
        for (place, value) in block.iter_mut().zip(&mut values) {
            *place = value;
            length += 1;
        }
        if length > 0 {
            f(&block[..length]);
        }
        if length < BLOCK {
            return;
        }
    }
}

/// Writes a column of words.
#[inline(always)]
pub fn save_words(values: impl Iterator<Item = u64>, out: &mut StateWriter) {
    each_block(values, |block| save_block(block, out));
}

fn save_block(block: &[u64], out: &mut StateWriter) {
    let (least, most) = block.iter().fold((u64::MAX, 0), |(l, m), word| (l.min(*word), m.max(*word)));
    out.u64(least);
    match most - least {
        0..=0xff => {
            out.u8(1);
            block.iter().for_each(|word| out.u8((word - least) as u8));
        }
        0x100..=0xffff_ffff => {
            out.u8(4);
            block.iter().for_each(|word| out.u32((word - least) as u32));
        }
        _ => {
            out.u8(8);
            block.iter().for_each(|word| out.u64(word - least));
        }
    }
}

/// A column of `count` words.
pub fn load_words(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<u64>> {
    let mut words = Vec::new();
    while words.len() < count {
        let length = BLOCK.min(count - words.len());
        load_block(length, saved, |word| words.push(word))?;
    }
    Ok(words)
}

#[inline(always)]
fn load_block(length: usize, saved: &mut StateReader<'_>, mut f: impl FnMut(u64)) -> Result<()> {
    let least = saved.u64()?;
    let mut take = |distance: u64| f(least.wrapping_add(distance));
    match saved.u8()? {
        1 => (0..length).try_for_each(|_| saved.u8().map(|byte| take(byte.into()))),
        4 => (0..length).try_for_each(|_| saved.u32().map(|word| take(word.into()))),
        8 => (0..length).try_for_each(|_| saved.u64().map(&mut take)),
        other => Err(Error::State(format!("numbers are not {other} bytes wide"))),
    }
}

const SIGN: u64 = 1 << 63;

/// Writes a column of numbers with a sign.
#[inline(always)]
pub fn save_integers(values: impl Iterator<Item = i64>, out: &mut StateWriter) {
    // With the sign turned, so that -1 and 1 are near each other.
    save_words(values.map(|value| value as u64 ^ SIGN), out);
}

/// A column of `count` numbers with a sign.
pub fn load_integers(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<i64>> {
    Ok(load_words(count, saved)?.into_iter().map(|word| (word ^ SIGN) as i64).collect())
}

/// Writes a column of 128-bit words; they take less when their differences fit 64 bits.
#[inline(always)]
pub fn save_wide(values: impl Iterator<Item = u128>, out: &mut StateWriter) {
    each_block(values, |block| {
        let (least, most) = block.iter().fold((u128::MAX, 0), |(l, m), word| (l.min(*word), m.max(*word)));
        out.i128(least as i128);
        let narrow = u64::try_from(most - least).is_ok();
        out.bool(narrow);
        if narrow {
            save_words(block.iter().map(|word| (word - least) as u64), out);
        } else {
            block.iter().for_each(|word| out.i128((word - least) as i128));
        }
    });
}

/// A column of `count` 128-bit words.
pub fn load_wide(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<u128>> {
    let mut words = Vec::new();
    while words.len() < count {
        let length = BLOCK.min(count - words.len());
        let least = saved.i128()? as u128;
        if saved.bool()? {
            load_block(length, saved, |word| words.push(least.wrapping_add(word.into())))?;
        } else {
            for _ in 0..length {
                words.push(least.wrapping_add(saved.i128()? as u128));
            }
        }
    }
    Ok(words)
}

/// Writes a column of booleans, eight to a byte.
pub fn save_flags(mut flags: impl Iterator<Item = bool>, out: &mut StateWriter) {
    while let Some(first) = flags.next() {
        let rest = flags.by_ref().take(7).enumerate();
        out.u8(rest.fold(u8::from(first), |byte, (bit, flag)| byte | u8::from(flag) << (bit + 1)));
    }
}

/// A column of `count` booleans.
pub fn load_flags(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<bool>> {
    let mut flags = Vec::new();
    while flags.len() < count {
        let byte = saved.u8()?;
        flags.extend((0..8.min(count - flags.len())).map(|bit| byte >> bit & 1 == 1));
    }
    Ok(flags)
}

/// Writes how many entries each set has.
pub fn save_lengths(lengths: impl Iterator<Item = usize>, out: &mut StateWriter) {
    save_words(lengths.map(|length| length as u64), out);
}

/// How many entries each of `count` sets has, and all together.
pub fn load_lengths(count: usize, saved: &mut StateReader<'_>) -> Result<(Vec<usize>, usize)> {
    let lengths: Vec<usize> = load_words(count, saved)?.into_iter().map(|length| length as usize).collect();
    let total = lengths.iter().try_fold(0usize, |total, length| total.checked_add(*length));
    Ok((lengths, total.ok_or_else(|| damaged("sets are too large"))?))
}

/// Reads sets of values with counts: lengths, counts, then the values as `load_values` reads them. Calls `set` with
/// the slot and the entries of every set that has some; they are in order, each once, and no count is zero.
pub fn load_sets<V: Ord>(
    slots: &[u32],
    saved: &mut StateReader<'_>,
    load_values: impl FnOnce(usize, &mut StateReader<'_>) -> Result<Vec<V>>,
    mut set: impl FnMut(u32, &mut dyn Iterator<Item = (V, i64)>),
) -> Result<()> {
    let (lengths, total) = load_lengths(slots.len(), saved)?;
    let counts = load_integers(total, saved)?;
    let values = load_values(total, saved)?;
    if counts.contains(&0) {
        return Err(damaged("a value is there zero times"));
    }
    let mut rest = values.as_slice();
    for length in &lengths {
        let (own, others) = rest.split_at(*length);
        check_order(own)?;
        rest = others;
    }
    let mut entries = values.into_iter().zip(counts);
    for (slot, length) in slots.iter().zip(lengths).filter(|(_, length)| *length > 0) {
        set(*slot, &mut entries.by_ref().take(length));
    }
    Ok(())
}

/// # Errors
/// Unless each value is larger than the one before.
pub fn check_order<V: Ord>(values: &[V]) -> Result<()> {
    if values.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(damaged("values are not in order")) }
}

/// `count` byte strings.
pub fn load_bytes(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<Box<[u8]>>> {
    (0..count).map(|_| Ok(saved.bytes()?.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_and_take_little() {
        let mut random = fastrand::Rng::with_seed(1);
        for count in [0usize, 1, 7, 8, 9, 1023, 1024, 1025, 5000] {
            for bits in [0, 3, 8, 9, 31, 32, 33, 63, 64, 65, 100, 127, 128] {
                let base = random.u128(..);
                let wide: Vec<u128> = (0..count)
                    .map(|_| base.wrapping_add(random.u128(..).checked_shr(128 - bits).unwrap_or(0)))
                    .collect();
                let words: Vec<u64> = wide.iter().map(|word| *word as u64).collect();
                let integers: Vec<i64> = (0..count).map(|_| random.i64(..) >> bits.min(63)).collect();
                let flags: Vec<bool> = words.iter().map(|word| word % 3 == 0).collect();
                let mut out = StateWriter::new();
                save_integers(integers.iter().copied(), &mut out);
                let length = out.len();
                let width = [8, 4, 1][usize::from(bits >= 33) + usize::from(bits >= 57)];
                assert!(length <= count * width + count.div_ceil(BLOCK) * 9, "{bits} {length} {count}");
                save_wide(wide.iter().copied(), &mut out);
                save_words(words.iter().copied(), &mut out);
                save_flags(flags.iter().copied(), &mut out);
                let bytes = out.into_bytes();
                let mut saved = StateReader::new(&bytes);
                assert_eq!(load_integers(count, &mut saved).unwrap(), integers);
                assert_eq!(load_wide(count, &mut saved).unwrap(), wide);
                assert_eq!(load_words(count, &mut saved).unwrap(), words);
                assert_eq!(load_flags(count, &mut saved).unwrap(), flags);
                saved.finish().unwrap();
            }
        }
    }

    #[test]
    fn lengths_that_nothing_fills_are_an_error() {
        let bytes = [1u8; 100];
        assert!(load_words(usize::MAX, &mut StateReader::new(&bytes)).is_err());
        assert!(load_wide(usize::MAX, &mut StateReader::new(&bytes)).is_err());
        assert!(load_flags(usize::MAX, &mut StateReader::new(&bytes)).is_err());
        assert!(load_bytes(usize::MAX, &mut StateReader::new(&bytes)).is_err());
        let mut out = StateWriter::new();
        save_lengths([usize::MAX / 2, usize::MAX].into_iter(), &mut out);
        assert!(load_lengths(2, &mut StateReader::new(&out.into_bytes())).is_err());
    }
}
