//! Identity of rows with short keys: a hash table from `N` words to dense slots.
//!
//! What [`KeyTable`](super::KeyTable) is for byte strings, with the key kept in place: no arena, no length,
//! and growing never touches the keys, because the index keeps 32 bits of each hash.
//!
//! ```text
//!   words --hash--> index: [hash tag | slot + 1] --> keys[slot]
//! ```

use std::sync::OnceLock;

use super::random_state;

/// Maps `[u64; N]` to dense slots `0..slots_len()`.
pub struct FixedKeyTable<const N: usize> {
    // Open addressing with linear probing; 0 marks an empty place, else `tag << 32 | slot + 1`.
    // Invariant: the length is a power of two and at most 5/8 of the places are taken.
    index: Vec<u64>,
    // Right shift that makes a place out of a tag.
    shift: u32,
    keys: Vec<[u64; N]>,
    free: Vec<u32>,
    len: usize,
    seeds: [u64; 3],
}

const INDEX_LEN_MIN: usize = 16;

impl<const N: usize> Default for FixedKeyTable<N> {
    fn default() -> Self {
        FixedKeyTable::new()
    }
}

impl<const N: usize> FixedKeyTable<N> {
    pub fn new() -> FixedKeyTable<N> {
        FixedKeyTable {
            index: vec![0; INDEX_LEN_MIN],
            shift: 32 - INDEX_LEN_MIN.trailing_zeros(),
            keys: Vec::new(),
            free: Vec::new(),
            len: 0,
            seeds: seeds(),
        }
    }

    /// Number of keys present.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of slots ever in use at once; columns indexed by slot need this length.
    pub fn slots_len(&self) -> usize {
        self.keys.len()
    }

    /// The part of the key's hash that the table works with.
    #[inline]
    pub fn tag(&self, key: &[u64; N]) -> u32 {
        let mut hash = self.seeds[0];
        for word in key {
            hash = folded_multiply(hash ^ word, self.seeds[1]);
        }
        (folded_multiply(hash, self.seeds[2]) >> 32) as u32
    }

    /// Slot of `key`, and whether it was inserted by this call.
    #[inline]
    pub fn insert(&mut self, key: &[u64; N]) -> (u32, bool) {
        self.insert_tagged(self.tag(key), key)
    }

    /// As [`FixedKeyTable::insert`] with the key's [`FixedKeyTable::tag`] known already.
    #[inline]
    pub fn insert_tagged(&mut self, tag: u32, key: &[u64; N]) -> (u32, bool) {
        let mask = self.index.len() - 1;
        let mut place = (tag >> self.shift) as usize & mask;
        loop {
            let entry = self.index[place];
            if entry == 0 {
                return (self.insert_new(place, tag, key), true);
            }
            if (entry >> 32) as u32 == tag {
                let slot = (entry as u32) - 1;
                if self.keys[slot as usize] == *key {
                    return (slot, false);
                }
            }
            place = (place + 1) & mask;
        }
    }

    #[cold]
    fn insert_new(&mut self, place: usize, tag: u32, key: &[u64; N]) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.keys[slot as usize] = *key;
                slot
            }
            None => {
                assert!(self.keys.len() < u32::MAX as usize - 1, "fewer than 2^32 keys per table");
                self.keys.push(*key);
                (self.keys.len() - 1) as u32
            }
        };
        self.index[place] = u64::from(tag) << 32 | u64::from(slot + 1);
        self.len += 1;
        if self.len * 8 > self.index.len() * 5 {
            self.resize_index(self.index.len() * 2);
        }
        slot
    }

    /// Makes room for so many more keys, so that the index does not grow again and again.
    pub fn reserve(&mut self, additional: usize) {
        let length = ((self.len + additional) * 2).next_power_of_two();
        if length > self.index.len() {
            self.resize_index(length);
        }
        self.keys.reserve(additional.saturating_sub(self.free.len()));
    }

    fn resize_index(&mut self, length: usize) {
        let old = std::mem::replace(&mut self.index, vec![0; length]);
        self.shift = 32 - length.trailing_zeros().min(32);
        let mask = length - 1;
        for entry in old.into_iter().filter(|entry| *entry != 0) {
            let mut place = ((entry >> 32) as u32 >> self.shift) as usize & mask;
            while self.index[place] != 0 {
                place = (place + 1) & mask;
            }
            self.index[place] = entry;
        }
    }

    pub fn find(&self, key: &[u64; N]) -> Option<u32> {
        let tag = self.tag(key);
        let mask = self.index.len() - 1;
        let mut place = (tag >> self.shift) as usize & mask;
        loop {
            let entry = self.index[place];
            if entry == 0 {
                return None;
            }
            let slot = (entry as u32) - 1;
            if (entry >> 32) as u32 == tag && self.keys[slot as usize] == *key {
                return Some(slot);
            }
            place = (place + 1) & mask;
        }
    }

    /// The key in `slot`; unspecified when the slot holds none.
    #[inline]
    pub fn key(&self, slot: u32) -> &[u64; N] {
        &self.keys[slot as usize]
    }

    /// Forgets the key in `slot`; the slot may be handed out again.
    ///
    /// # Panics
    /// If the slot holds no key.
    pub fn remove(&mut self, slot: u32) {
        let tag = self.tag(&self.keys[slot as usize]);
        let mask = self.index.len() - 1;
        let wanted = u64::from(tag) << 32 | u64::from(slot + 1);
        let mut hole = (tag >> self.shift) as usize & mask;
        while self.index[hole] != wanted {
            assert!(self.index[hole] != 0, "slot holds a key");
            hole = (hole + 1) & mask;
        }
        // Entries that only stand behind the hole because it was taken move up.
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let entry = self.index[place];
            if entry == 0 {
                break;
            }
            let home = ((entry >> 32) as u32 >> self.shift) as usize & mask;
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.index[hole] = entry;
                hole = place;
            }
        }
        self.index[hole] = 0;
        self.free.push(slot);
        self.len -= 1;
        if self.len == 0 && self.keys.len() > 1024 {
            *self = FixedKeyTable::new();
        }
    }

    /// A table of these keys, in slots 0, 1, 2, ...
    ///
    /// # Panics
    /// If a key occurs twice.
    pub fn from_keys(keys: impl ExactSizeIterator<Item = [u64; N]>) -> FixedKeyTable<N> {
        let mut table = FixedKeyTable::new();
        table.resize_index((keys.len() * 2).next_power_of_two().max(INDEX_LEN_MIN));
        for key in keys {
            assert!(table.insert(&key).1, "keys are distinct");
        }
        table
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.index.capacity() * 8 + self.keys.capacity() * 8 * N + self.free.capacity() * 4
    }
}

/// Drawn once per process from its hash seed, for the same reason as that one.
fn seeds() -> [u64; 3] {
    static SEEDS: OnceLock<[u64; 3]> = OnceLock::new();
    *SEEDS.get_or_init(|| [1u64, 2, 3].map(|i| random_state().hash_one(i) | 1))
}

/// Both halves of the 128-bit product, so that every input bit reaches every output bit.
#[inline]
fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn random() -> impl FnMut() -> u64 {
        let mut state = 7u64;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        }
    }

    #[test]
    fn behaves_like_a_hash_map_under_insert_and_remove() {
        let mut next = random();
        let mut table = FixedKeyTable::<2>::new();
        let mut model: HashMap<[u64; 2], u32> = HashMap::new();
        for _ in 0..50_000 {
            let key = [next() % 40, next() % 50];
            if next().is_multiple_of(3) {
                if let Some(slot) = model.remove(&key) {
                    assert_eq!(table.find(&key), Some(slot));
                    table.remove(slot);
                }
                assert_eq!(table.find(&key), None);
            } else {
                let (slot, new) = table.insert(&key);
                assert_eq!(new, !model.contains_key(&key));
                assert_eq!(*model.entry(key).or_insert(slot), slot);
                assert_eq!(*table.key(slot), key);
            }
            assert_eq!(table.len(), model.len());
        }
        for (key, slot) in &model {
            assert_eq!(table.find(key), Some(*slot));
        }
    }

    #[test]
    fn a_table_made_anew_is_small_again() {
        let mut table = FixedKeyTable::<1>::new();
        for key in 0..100_000u64 {
            table.insert(&[key]);
        }
        let full = table.size_bytes();
        for slot in 10..100_000 {
            table.remove(slot);
        }
        let kept: Vec<[u64; 1]> = (0..10).rev().map(|slot| *table.key(slot)).collect();
        let table = FixedKeyTable::from_keys(kept.into_iter());
        assert_eq!(table.find(&[9]), Some(0));
        assert_eq!(table.find(&[0]), Some(9));
        assert_eq!(table.find(&[10]), None);
        assert_eq!((table.len(), table.slots_len()), (10, 10));
        assert!(table.size_bytes() < full / 100);
    }
}
