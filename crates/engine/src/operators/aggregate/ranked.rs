//! An ordered multiset that finds its n-th value: what percentiles, mode, first and last keep per group.
//!
//! Values stand in sorted chunks, each with the number of its values, so that a value is added and the n-th is found
//! without walking over all of them: with n values in chunks of c the cost is a search over n / c chunks, a search
//! within one, and moving c entries.

/// A chunk that is longer is cut in two.
const CHUNK_MAX: usize = 256;

/// Byte strings with their counts, in order; one whose count is not above zero is not there for readers.
#[derive(Clone, Debug, Default)]
pub struct Ranked {
    // Invariant: chunks are not empty and in order, no count is zero.
    chunks: Vec<Chunk>,
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    entries: Vec<(Box<[u8]>, i64)>,
    /// Sum of the counts above zero.
    present: i64,
}

/// Beside its bytes, what a value costs.
const ENTRY_BYTES: usize = 32;

impl Ranked {
    /// Changes the count of `value` by `weight`; gives how many bytes more are kept.
    pub fn add(&mut self, value: &[u8], weight: i64) -> isize {
        if weight == 0 {
            return 0;
        }
        let cost = (value.len() + ENTRY_BYTES) as isize;
        let after = self.chunks.partition_point(|chunk| *chunk.entries[0].0 <= *value);
        let at = after.saturating_sub(1);
        if self.chunks.is_empty() {
            self.chunks.push(Chunk::default());
        }
        let chunk = &mut self.chunks[at];
        match chunk.entries.binary_search_by(|(entry, _)| (**entry).cmp(value)) {
            Ok(place) => {
                let count = &mut chunk.entries[place].1;
                chunk.present -= (*count).max(0);
                *count += weight;
                chunk.present += (*count).max(0);
                if *count != 0 {
                    return 0;
                }
                chunk.entries.remove(place);
                if chunk.entries.is_empty() {
                    self.chunks.remove(at);
                }
                -cost
            }
            Err(place) => {
                chunk.entries.insert(place, (value.into(), weight));
                chunk.present += weight.max(0);
                if chunk.entries.len() > CHUNK_MAX {
                    let entries = chunk.entries.split_off(CHUNK_MAX / 2);
                    let present = entries.iter().map(|(_, count)| (*count).max(0)).sum();
                    chunk.present -= present;
                    self.chunks.insert(at + 1, Chunk { entries, present });
                }
                cost
            }
        }
    }

    /// Out of values in order, each once, with counts that are not zero.
    pub fn of_sorted(mut entries: impl Iterator<Item = (Box<[u8]>, i64)>) -> Ranked {
        let mut chunks = Vec::new();
        loop {
            let entries: Vec<_> = entries.by_ref().take(CHUNK_MAX / 2).collect();
            if entries.is_empty() {
                return Ranked { chunks };
            }
            let counts = entries.iter().map(|(_, count)| (*count).max(0));
            let present = counts.fold(0, i64::saturating_add);
            chunks.push(Chunk { entries, present });
        }
    }

    /// Distinct values, also those with counts below zero.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// All entries in order, those with counts below zero too.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], i64)> {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter().map(|(value, count)| (&**value, *count)))
    }

    /// How many values are present, each as often as it is there.
    pub fn count(&self) -> i64 {
        self.chunks.iter().map(|chunk| chunk.present).sum()
    }

    /// The value with this number, from 0, among those present.
    pub fn nth(&self, number: i64) -> Option<&[u8]> {
        let mut before = 0;
        for chunk in &self.chunks {
            if before + chunk.present <= number {
                before += chunk.present;
                continue;
            }
            for (value, count) in chunk.entries.iter().filter(|(_, count)| *count > 0) {
                before += count;
                if before > number {
                    return Some(value);
                }
            }
        }
        None
    }

    pub fn first(&self) -> Option<&[u8]> {
        self.iter().find(|(_, count)| *count > 0).map(|(value, _)| value)
    }

    pub fn last(&self) -> Option<&[u8]> {
        self.iter().rev().find(|(_, count)| *count > 0).map(|(value, _)| value)
    }

    /// The most frequent value; of several the first.
    pub fn mode(&self) -> Option<&[u8]> {
        let mut best: Option<(&[u8], i64)> = None;
        for (value, count) in self.iter().filter(|(_, count)| *count > 0) {
            if best.is_none_or(|(_, most)| count > most) {
                best = Some((value, count));
            }
        }
        best.map(|(value, _)| value)
    }

    /// Bytes of all entries, as [`Ranked::add`] counts them.
    pub fn heap_bytes(&self) -> usize {
        self.iter().map(|(value, _)| value.len() + ENTRY_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn finds_what_a_sorted_list_finds() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20 {
            let (mut ranked, mut plain) = (Ranked::default(), BTreeMap::<u32, i64>::new());
            let (mut bytes, range) = (0isize, random.u32(1..3000));
            for step in 0..4000 {
                let value = random.u32(..range);
                let weight = [1, 1, 2, -1, -2][random.usize(..5)];
                bytes += ranked.add(&value.to_be_bytes(), weight);
                let count = plain.entry(value).or_default();
                *count += weight;
                if *count == 0 {
                    plain.remove(&value);
                }
                if step % 97 == 0 {
                    let sorted: Vec<u32> = plain
                        .iter()
                        .flat_map(|(value, count)| std::iter::repeat_n(*value, (*count).max(0) as usize))
                        .collect();
                    let number =
                        |value: Option<&[u8]>| value.map(|v| u32::from_be_bytes(v.try_into().unwrap()));
                    assert_eq!(ranked.count(), sorted.len() as i64);
                    assert_eq!(number(ranked.first()), sorted.first().copied());
                    assert_eq!(number(ranked.last()), sorted.last().copied());
                    for place in [0, sorted.len() / 3, sorted.len().saturating_sub(1)] {
                        assert_eq!(number(ranked.nth(place as i64)), sorted.get(place).copied());
                    }
                    let most = plain.values().copied().max().filter(|count| *count > 0);
                    let mode = most.and_then(|most| plain.iter().find(|(_, count)| **count == most));
                    assert_eq!(number(ranked.mode()), mode.map(|(value, _)| *value));
                    assert_eq!(ranked.heap_bytes() as isize, bytes);
                    assert_eq!(ranked.len(), ranked.iter().count());
                    if step % 5 == 0 {
                        let entries: Vec<_> = ranked.iter().map(|(v, count)| (v.into(), count)).collect();
                        ranked = Ranked::of_sorted(entries.into_iter());
                    }
                }
            }
            let rest: Vec<(u32, i64)> = plain.into_iter().collect();
            rest.iter().for_each(|(value, count)| bytes += ranked.add(&value.to_be_bytes(), -count));
            assert!(ranked.is_empty());
            assert_eq!(bytes, 0);
        }
    }
}
