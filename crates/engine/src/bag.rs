//! A keyed multiset of rows: what a join, a Top-N or a distinct remembers.
//!
//! ```text
//!   key bytes -> KeyTable -> key slot -> first entry -> next entry -> ...
//!                                          |  weight, place in the arena
//!                                          v
//!                                        row bytes
//! ```
//!
//! The rows of a key are a linked list through one array of entries, so a key costs no allocation. A key
//! with many rows has them in a hash table too, so that finding one stays O(1). A row costs its bytes,
//! rounded up to 8, and 32 more (some 44 under a key with many rows), a key its bytes and about 40.
//!
//! Invariant: an entry's weight is not zero, except between [`Bag::update`] and [`Bag::release`].

pub mod arena;
mod saving;

use dataflow::{KeyTable, random_state};
use hashbrown::HashTable;

use arena::{Arena, Place};

const NONE: u32 = u32::MAX;

pub struct Bag {
    keys: KeyTable,
    // By key slot.
    rows_of: Vec<KeyRows>,
    // The most distinct rows that a key ever had.
    rows_per_key_max: u32,
    entries: Vec<Entry>,
    // First free entry; free entries are linked by `next`.
    free: u32,
    entries_live: usize,
    // Entries under keys with `hashed`, by the hash of key slot and row bytes.
    hashed: HashTable<(u32, u32)>,
    arena: Arena,
}

#[derive(Clone, Copy)]
struct KeyRows {
    first: u32,
    count: u32,
    hashed: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    weight: i64,
    place: Place,
    length: u32,
    // Of key slot and row bytes.
    hash: u32,
    // `NONE` marks a free entry.
    key: u32,
    next: u32,
    previous: u32,
}

/// What [`Bag::update`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BagUpdate {
    /// The key's slot, dense and reused after removal.
    pub key: u32,
    /// The row's entry, valid until released.
    pub entry: u32,
    pub before: i64,
    pub after: i64,
}

/// A row of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BagRow<'a> {
    pub entry: u32,
    pub row: &'a [u8],
    pub weight: i64,
}

impl Default for Bag {
    fn default() -> Self {
        Bag::new()
    }
}

impl Bag {
    /// Rows a key has before they are hashed; fewer are found faster by looking at each.
    const SCANNED_ROWS_MAX: u32 = 4;

    pub fn new() -> Bag {
        Bag {
            keys: KeyTable::new(),
            rows_of: Vec::new(),
            rows_per_key_max: 0,
            entries: Vec::new(),
            free: NONE,
            entries_live: 0,
            hashed: HashTable::new(),
            arena: Arena::default(),
        }
    }

    /// Adds `weight` to the row's; removes the row at zero, and the key with its last row.
    pub fn add(&mut self, key: &[u8], row: &[u8], weight: i64) {
        let update = self.update(key, row, weight);
        if update.after == 0 {
            self.release(update.entry);
            self.remove_key_if_empty(update.key);
        }
    }

    /// Adds `weight` to the row's and keeps it even at zero, until [`Bag::release`].
    pub fn update(&mut self, key: &[u8], row: &[u8], weight: i64) -> BagUpdate {
        let (key, _) = self.insert_key(key);
        self.update_at(key, row, weight)
    }

    /// As [`Bag::update`], for a key whose slot is known.
    pub fn update_at(&mut self, key: u32, row: &[u8], weight: i64) -> BagUpdate {
        let rows = self.rows_of[key as usize];
        let hash = hash_of(key, row);
        let found = if rows.hashed {
            self.find_hashed(hash, key, row)
        } else {
            self.find_scanned(rows.first, hash, row)
        };
        if let Some(entry) = found {
            let kept = &mut self.entries[entry as usize];
            let before = kept.weight;
            kept.weight += weight;
            return BagUpdate { key, entry, before, after: kept.weight };
        }
        let entry = self.insert_row(key, hash, row, weight);
        BagUpdate { key, entry, before: 0, after: weight }
    }

    /// The slot of `key`, which then exists, with no rows if it is new, until removed.
    pub fn insert_key(&mut self, key: &[u8]) -> (u32, bool) {
        let (slot, new) = self.keys.insert(key);
        if new {
            let none = KeyRows { first: NONE, count: 0, hashed: false };
            if self.rows_of.len() <= slot as usize {
                self.rows_of.resize(slot as usize + 1, none);
            }
            self.rows_of[slot as usize] = none;
        }
        (slot, new)
    }

    pub fn find_key(&self, key: &[u8]) -> Option<u32> {
        self.keys.find(key)
    }

    /// The bytes of the key in a live slot.
    pub fn key(&self, slot: u32) -> &[u8] {
        self.keys.key(slot)
    }

    /// The rows of `key`, in no particular order.
    pub fn rows(&self, key: &[u8]) -> impl Iterator<Item = BagRow<'_>> {
        let first = self.keys.find(key).map_or(NONE, |slot| self.rows_of[slot as usize].first);
        self.list(first)
    }

    /// The rows of the key in a live slot.
    pub fn rows_at(&self, slot: u32) -> impl Iterator<Item = BagRow<'_>> {
        self.list(self.rows_of[slot as usize].first)
    }

    /// Number of distinct rows of the key in a live slot.
    pub fn count(&self, slot: u32) -> usize {
        self.rows_of[slot as usize].count as usize
    }

    /// The most distinct rows that a key has or once had.
    pub fn rows_per_key_max(&self) -> usize {
        self.rows_per_key_max as usize
    }

    /// The bytes of a live entry.
    #[inline]
    pub fn row(&self, entry: u32) -> &[u8] {
        let entry = &self.entries[entry as usize];
        self.arena.get(entry.place, entry.length)
    }

    #[inline]
    pub fn weight(&self, entry: u32) -> i64 {
        self.entries[entry as usize].weight
    }

    /// True for the number of an entry that is in use.
    pub fn is_live(&self, entry: u32) -> bool {
        self.entries.get(entry as usize).is_some_and(|e| e.key != NONE)
    }

    /// The key slot of a live entry.
    pub fn key_of(&self, entry: u32) -> u32 {
        self.entries[entry as usize].key
    }

    /// Removes the entry if its weight is zero. Does nothing for an entry that is free already.
    pub fn release(&mut self, entry: u32) {
        let releasable = self.entries.get(entry as usize).is_some_and(|e| e.key != NONE && e.weight == 0);
        if releasable {
            self.remove_entry(entry);
        }
    }

    /// Removes a live entry whatever its weight.
    pub fn remove_entry(&mut self, entry: u32) {
        let kept = self.entries[entry as usize];
        assert!(kept.key != NONE, "the entry is live");
        let rows = &mut self.rows_of[kept.key as usize];
        rows.count -= 1;
        if kept.previous == NONE {
            rows.first = kept.next;
        } else {
            self.entries[kept.previous as usize].next = kept.next;
        }
        if kept.next != NONE {
            self.entries[kept.next as usize].previous = kept.previous;
        }
        if self.rows_of[kept.key as usize].hashed {
            self.hashed
                .find_entry(spread(kept.hash), |(_, candidate)| *candidate == entry)
                .expect("every row of a hashed key is in the table")
                .remove();
        }
        self.arena.remove(kept.place, kept.length);
        let freed = &mut self.entries[entry as usize];
        freed.key = NONE;
        freed.weight = 0;
        freed.next = self.free;
        self.free = entry;
        self.entries_live -= 1;
        if self.entries_live == 0 {
            // Give everything back: a window closed, or a table was emptied.
            self.entries = Vec::new();
            self.free = NONE;
            self.hashed = HashTable::new();
            self.arena = Arena::default();
        } else if self.arena.wants_compaction() {
            self.compact();
        }
    }

    /// Removes the key in a live slot with all its rows.
    pub fn remove_key(&mut self, slot: u32) {
        let mut entry = self.rows_of[slot as usize].first;
        while entry != NONE {
            let next = self.entries[entry as usize].next;
            self.remove_entry(entry);
            entry = next;
        }
        self.forget_key(slot);
    }

    /// Removes the key in a live slot if it has no rows, and says whether it did.
    pub fn remove_key_if_empty(&mut self, slot: u32) -> bool {
        let empty = self.rows_of[slot as usize].count == 0;
        if empty {
            self.forget_key(slot);
        }
        empty
    }

    /// Number of distinct rows.
    pub fn len(&self) -> usize {
        self.entries_live
    }

    pub fn is_empty(&self) -> bool {
        self.entries_live == 0
    }

    pub fn keys_len(&self) -> usize {
        self.keys.len()
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.keys.size_bytes()
            + self.rows_of.capacity() * size_of::<KeyRows>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.hashed.allocation_size()
            + self.arena.size_bytes()
    }

    /// All rows, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = BagRow<'_>> {
        let live = self.entries.iter().enumerate().filter(|(_, entry)| entry.key != NONE);
        live.map(|(entry, kept)| BagRow {
            entry: entry as u32,
            row: self.arena.get(kept.place, kept.length),
            weight: kept.weight,
        })
    }

    fn list(&self, first: u32) -> impl Iterator<Item = BagRow<'_>> {
        let mut at = first;
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let entry = &self.entries[at as usize];
            let row = self.arena.get(entry.place, entry.length);
            let item = BagRow { entry: at, row, weight: entry.weight };
            at = entry.next;
            Some(item)
        })
    }

    fn find_scanned(&self, first: u32, hash: u32, row: &[u8]) -> Option<u32> {
        let mut at = first;
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.hash == hash && self.arena.get(entry.place, entry.length) == row {
                return Some(at);
            }
            at = entry.next;
        }
        None
    }

    fn find_hashed(&self, hash: u32, key: u32, row: &[u8]) -> Option<u32> {
        let found = self.hashed.find(spread(hash), |(candidate_hash, candidate)| {
            let entry = &self.entries[*candidate as usize];
            *candidate_hash == hash && entry.key == key && self.arena.get(entry.place, entry.length) == row
        });
        found.map(|(_, entry)| *entry)
    }

    fn insert_hashed(&mut self, hash: u32, entry: u32) {
        self.hashed.insert_unique(spread(hash), (hash, entry), |(hash, _)| spread(*hash));
    }

    fn hash_rows_of(&mut self, key: u32) {
        self.rows_of[key as usize].hashed = true;
        let mut entry = self.rows_of[key as usize].first;
        while entry != NONE {
            let Entry { hash, next, .. } = self.entries[entry as usize];
            self.insert_hashed(hash, entry);
            entry = next;
        }
    }

    /// Adds a row that the key does not have.
    fn insert_row(&mut self, key: u32, hash: u32, row: &[u8], weight: i64) -> u32 {
        let rows = self.rows_of[key as usize];
        let entry = self.insert_entry(key, hash, row, weight);
        if rows.hashed {
            self.insert_hashed(hash, entry);
        } else if rows.count >= Bag::SCANNED_ROWS_MAX {
            self.hash_rows_of(key);
        }
        entry
    }

    fn insert_entry(&mut self, key: u32, hash: u32, row: &[u8], weight: i64) -> u32 {
        let rows = &mut self.rows_of[key as usize];
        let next = rows.first;
        let length = u32::try_from(row.len()).expect("a row is shorter than 4 GiB");
        let new = Entry { weight, place: self.arena.insert(row), length, hash, key, next, previous: NONE };
        let entry = if self.free == NONE {
            self.entries.push(new);
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 rows per bag")
        } else {
            let entry = self.free;
            self.free = self.entries[entry as usize].next;
            self.entries[entry as usize] = new;
            entry
        };
        rows.first = entry;
        rows.count += 1;
        self.rows_per_key_max = self.rows_per_key_max.max(rows.count);
        if next != NONE {
            self.entries[next as usize].previous = entry;
        }
        self.entries_live += 1;
        entry
    }

    fn forget_key(&mut self, slot: u32) {
        self.keys.remove(slot);
        if self.keys.is_empty() {
            self.keys = KeyTable::new();
            self.rows_of = Vec::new();
        }
    }

    fn compact(&mut self) {
        let mut arena = Arena::default();
        for entry in self.entries.iter_mut().filter(|entry| entry.key != NONE) {
            entry.place = arena.insert(self.arena.get(entry.place, entry.length));
        }
        self.arena = arena;
    }
}

#[inline]
fn hash_of(key: u32, row: &[u8]) -> u32 {
    random_state().hash_one((key, row)) as u32
}

/// Makes a table's 64-bit hash of the 32 bits kept beside each entry, so that growing a table does not
/// read the rows.
#[inline]
pub fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests;
