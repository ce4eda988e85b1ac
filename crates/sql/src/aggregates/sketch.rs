//! Summaries of bounded size: how many different values, and which value stands at a fraction.
//!
//! Both are functions of the values alone: the order and the cut of the input do not show, and hashes are the same on
//! every machine and after every restart.

use std::collections::BTreeMap;

/// Bits of a hash that choose the register.
const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// Ranks run from 1 to this, 0 is an untouched register.
const RANK_MAX: usize = 64 - PRECISION as usize + 1;
/// Up to here the hashes themselves are kept, and the count is exact but for collisions of 64 bits.
const HASHES_MAX: usize = 1024;

/// The number of different values: HyperLogLog with 2^14 registers after Flajolet et al. (2007), exact while few.
///
/// The estimate is Ertl's "improved raw estimator" (2017, arXiv:1702.01284), which needs no tables of
/// empirical corrections. Its standard error is 1.04 / sqrt(2^14) = 0.81 %.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DistinctSketch {
    /// Sorted, each once.
    Hashes(Vec<u64>),
    Registers(Box<[u8; REGISTERS]>),
}

impl Default for DistinctSketch {
    fn default() -> Self {
        DistinctSketch::Hashes(Vec::new())
    }
}

impl DistinctSketch {
    /// Notes a value by its hash, see [`hash`].
    pub fn add(&mut self, hash: u64) {
        match self {
            DistinctSketch::Hashes(hashes) => {
                let Err(place) = hashes.binary_search(&hash) else { return };
                hashes.insert(place, hash);
                if hashes.len() > HASHES_MAX {
                    let mut registers = Box::new([0; REGISTERS]);
                    hashes.iter().for_each(|hash| raise(&mut registers, *hash));
                    *self = DistinctSketch::Registers(registers);
                }
            }
            DistinctSketch::Registers(registers) => raise(registers, hash),
        }
    }

    /// Becomes the sketch of the values of both.
    pub fn merge(&mut self, other: &DistinctSketch) {
        match other {
            DistinctSketch::Hashes(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            DistinctSketch::Registers(theirs) => {
                if let DistinctSketch::Hashes(hashes) = self {
                    let mut registers = theirs.clone();
                    hashes.iter().for_each(|hash| raise(&mut registers, *hash));
                    *self = DistinctSketch::Registers(registers);
                    return;
                }
                let DistinctSketch::Registers(ours) = self else { unreachable!("answered above") };
                ours.iter_mut().zip(theirs.iter()).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, DistinctSketch::Hashes(hashes) if hashes.is_empty())
    }

    /// The number of different values, estimated once there are more than 1024.
    pub fn count(&self) -> i64 {
        let registers = match self {
            DistinctSketch::Hashes(hashes) => return hashes.len() as i64,
            DistinctSketch::Registers(registers) => registers,
        };
        let mut counts = [0u32; RANK_MAX + 1];
        registers.iter().for_each(|rank| counts[usize::from(*rank)] += 1);
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - f64::from(counts[RANK_MAX]) / m);
        for rank in (1..RANK_MAX).rev() {
            z = 0.5 * (z + f64::from(counts[rank]));
        }
        z += m * sigma(f64::from(counts[0]) / m);
        (m * m / (2.0 * std::f64::consts::LN_2 * z)).round() as i64
    }

    /// The sketch as bytes: hashes, or registers, told apart by the length.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            DistinctSketch::Hashes(hashes) => hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect(),
            DistinctSketch::Registers(registers) => registers.to_vec(),
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> DistinctSketch {
        match <Box<[u8; REGISTERS]>>::try_from(bytes.to_vec().into_boxed_slice()) {
            Ok(registers) => DistinctSketch::Registers(registers),
            Err(bytes) => {
                let hashes =
                    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
                DistinctSketch::Hashes(hashes.collect())
            }
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            DistinctSketch::Hashes(hashes) => hashes.capacity() * 8,
            DistinctSketch::Registers(_) => REGISTERS,
        }
    }
}

fn raise(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = &mut registers[(hash >> (64 - PRECISION)) as usize];
    let rank = ((hash << PRECISION).leading_zeros() + 1).min(RANK_MAX as u32) as u8;
    *register = (*register).max(rank);
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// A hash that is the same everywhere and always.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        state = mixed(state ^ u64::from_le_bytes(word.try_into().expect("8 bytes")));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mixed(mixed(state ^ u64::from_le_bytes(last)))
}

/// The finalizer of SplitMix64.
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Counts of values in buckets whose bounds grow by a fixed ratio: DDSketch (Masson et al., VLDB 2019).
///
/// The value at a fraction is off by at most the accuracy, relative to itself. Counts are signed, so that what was
/// added can be taken away again and leaves no trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuantileSketch {
    /// Per bucket; the key sorts like the values, see [`bucket`]. Invariant: no count is zero.
    counts: BTreeMap<i32, i64>,
}

/// The bucket of zeros, and of values too small to tell from them.
const ZERO: i32 = 0;
/// Values up to this size count as zero.
const SMALLEST: f64 = 1e-300;
/// Added to the bucket's number, so that those of values below one stay on the right side of zero.
const OFFSET: i32 = 1 << 29;

/// The ratio of neighbouring bounds for an accuracy, e.g. 0.01.
fn ratio_ln(accuracy: f64) -> f64 {
    ((1.0 + accuracy) / (1.0 - accuracy)).ln()
}

fn bucket(value: f64, accuracy: f64) -> i32 {
    let size = value.abs();
    if size <= SMALLEST {
        return ZERO;
    }
    let number = if size.is_finite() { (size.ln() / ratio_ln(accuracy)).ceil() as i32 } else { OFFSET - 1 };
    if value > 0.0 { OFFSET + number } else { -(OFFSET + number) }
}

fn value_of(bucket: i32, accuracy: f64) -> f64 {
    if bucket == ZERO {
        return 0.0;
    }
    let number = bucket.abs() - OFFSET;
    if number == OFFSET - 1 {
        return f64::INFINITY.copysign(f64::from(bucket));
    }
    let upper = (f64::from(number) * ratio_ln(accuracy)).exp();
    let ratio = ratio_ln(accuracy).exp();
    (2.0 * upper / (ratio + 1.0)).copysign(f64::from(bucket))
}

impl QuantileSketch {
    /// Adds a value that is not NaN, or takes it away.
    pub fn add(&mut self, value: f64, accuracy: f64, weight: i64) {
        self.add_bucket(bucket(value, accuracy), weight);
    }

    fn add_bucket(&mut self, bucket: i32, weight: i64) {
        let count = self.counts.entry(bucket).or_default();
        *count += weight;
        if *count == 0 {
            self.counts.remove(&bucket);
        }
    }

    pub fn merge(&mut self, other: &QuantileSketch, sign: i64) {
        other.counts.iter().for_each(|(bucket, count)| self.add_bucket(*bucket, sign * count));
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The value at a fraction between 0 and 1; `None` without values.
    pub fn value_at(&self, fraction: f64, accuracy: f64) -> Option<f64> {
        let present = || self.counts.iter().filter(|(_, count)| **count > 0);
        let total: i64 = present().map(|(_, count)| count).sum();
        let rank = (fraction * (total - 1) as f64).floor() as i64;
        let mut before = 0;
        for (bucket, count) in present() {
            before += count;
            if before > rank {
                return Some(value_of(*bucket, accuracy));
            }
        }
        None
    }

    pub fn buckets(&self) -> usize {
        self.counts.len()
    }

    /// Buckets and their counts, flattened.
    pub fn to_numbers(&self) -> Vec<i64> {
        self.counts.iter().flat_map(|(bucket, count)| [i64::from(*bucket), *count]).collect()
    }

    pub fn merge_numbers(&mut self, numbers: &[i64]) {
        numbers.chunks_exact(2).for_each(|pair| self.add_bucket(pair[0] as i32, pair[1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_counts_are_exact_while_few_and_within_four_standard_errors_later() {
        let mut worst = 0.0f64;
        for round in 0..8u64 {
            let mut sketch = DistinctSketch::default();
            let mut next = 100u64;
            for value in 0..400_000u64 {
                sketch.add(hash(&(value << 8 | round).to_le_bytes()));
                if value + 1 == next {
                    let error = (sketch.count() - next as i64) as f64 / next as f64;
                    assert!(next > 1024 || error == 0.0, "{next} values are counted as {}", sketch.count());
                    worst = worst.max(error.abs());
                    next = next * 3 / 2;
                }
            }
        }
        println!("largest error of 8 x 20 distinct counts: {:.2} %", worst * 100.0);
        assert!(worst < 4.0 * 0.0081, "{worst}");
    }

    #[test]
    fn order_and_cut_do_not_show_in_a_distinct_count() {
        for values in [10u64, 1024, 1025, 5000] {
            let mut whole = DistinctSketch::default();
            let mut parts = vec![DistinctSketch::default(); 3];
            for value in 0..values {
                whole.add(hash(&value.to_le_bytes()));
            }
            for value in (0..values).rev().chain(0..values / 2) {
                parts[(value % 3) as usize].add(hash(&value.to_le_bytes()));
            }
            let mut merged = DistinctSketch::default();
            parts.iter().for_each(|part| merged.merge(&DistinctSketch::from_bytes(&part.to_bytes())));
            assert_eq!(merged, whole, "{values}");
        }
    }

    #[test]
    fn quantiles_are_within_their_accuracy_also_after_values_were_taken_away() {
        for accuracy in [0.1, 0.01, 0.001] {
            let values: Vec<f64> = (1..5000).map(|i| f64::from(i * i % 4999 - 2500) * 0.37).collect();
            let mut sketch = QuantileSketch::default();
            for value in &values {
                sketch.add(*value, accuracy, 1);
                sketch.add(value * 1.7 + 1.0, accuracy, 2);
            }
            values.iter().for_each(|value| sketch.add(value * 1.7 + 1.0, accuracy, -2));
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            for fraction in [0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0] {
                let exact = sorted[(fraction * (sorted.len() - 1) as f64).floor() as usize];
                let answer = sketch.value_at(fraction, accuracy).unwrap();
                assert!(
                    (answer - exact).abs() <= exact.abs() * accuracy * 1.000_001,
                    "{fraction}: {answer} {exact}"
                );
            }
            values.iter().for_each(|value| sketch.add(*value, accuracy, -1));
            assert!(sketch.is_empty());
        }
        let mut sketch = QuantileSketch::default();
        [f64::INFINITY, f64::NEG_INFINITY, 0.0, 1e300, -1e-200].iter().for_each(|v| sketch.add(*v, 0.01, 1));
        assert_eq!(sketch.value_at(0.0, 0.01), Some(f64::NEG_INFINITY));
        assert_eq!(sketch.value_at(0.5, 0.01), Some(0.0));
        assert_eq!(sketch.value_at(1.0, 0.01), Some(f64::INFINITY));
        assert_eq!(QuantileSketch::default().value_at(0.5, 0.01), None);
    }
}
