//! Identity of rows: a hash table from key bytes to dense slots.
//!
//! Operators keep what they know about a key in columns indexed by its slot, so one lookup
//! serves all of them and a group costs no allocation. Slots of removed keys are reused.
//!
//! ```text
//!   key bytes --hash--> table: [slot] --> spans[slot] --> arena bytes
//! ```

use hashbrown::HashTable;
use std::sync::OnceLock;

pub use ahash::RandomState;
pub use fixed::FixedKeyTable;

mod fixed;

/// The process's hash seed, drawn at start: keys come from the internet, and a fixed seed
/// would let a sender make them collide.
pub fn random_state() -> &'static RandomState {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new)
}

const FREE: u32 = u32::MAX;

/// Maps byte strings to dense slots `0..slots_len()`.
pub struct KeyTable {
    table: HashTable<u32>,
    arena: Vec<u8>,
    // Invariant: `length == FREE` for slots on the free list.
    spans: Vec<Span>,
    free: Vec<u32>,
    garbage_bytes: usize,
}

#[derive(Clone, Copy)]
struct Span {
    offset: usize,
    length: u32,
    hash: u32,
}

impl Default for KeyTable {
    fn default() -> Self {
        KeyTable::new()
    }
}

impl KeyTable {
    pub fn new() -> KeyTable {
        KeyTable {
            table: HashTable::new(),
            arena: Vec::new(),
            spans: Vec::new(),
            free: Vec::new(),
            garbage_bytes: 0,
        }
    }

    /// Number of keys present.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of slots ever in use at once; columns indexed by slot need this length.
    pub fn slots_len(&self) -> usize {
        self.spans.len()
    }

    /// Slot of `key`, and whether it was inserted by this call.
    #[inline]
    pub fn insert(&mut self, key: &[u8]) -> (u32, bool) {
        let hash = random_state().hash_one(key);
        self.insert_hashed(hash, key)
    }

    /// As [`KeyTable::insert`] with the key's hash (by [`random_state`]) known already.
    #[inline]
    pub fn insert_hashed(&mut self, hash: u64, key: &[u8]) -> (u32, bool) {
        let (arena, spans) = (&self.arena, &self.spans);
        let tag = hash as u32;
        let found = self.table.find(hash, |slot| {
            let span = spans[*slot as usize];
            span.hash == tag && bytes_at(arena, span) == key
        });
        if let Some(slot) = found {
            return (*slot, false);
        }
        (self.insert_new(hash, key), true)
    }

    #[cold]
    fn grow(&mut self) {
        let (arena, spans) = (&self.arena, &self.spans);
        let additional = self.table.len().max(16);
        self.table
            .reserve(additional, |slot| random_state().hash_one(bytes_at(arena, spans[*slot as usize])));
    }

    fn insert_new(&mut self, hash: u64, key: &[u8]) -> u32 {
        let length = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
        assert!(length != FREE, "a key is shorter than 4 GiB");
        let span = Span { offset: self.arena.len(), length, hash: hash as u32 };
        self.arena.extend_from_slice(key);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.spans[slot as usize] = span;
                slot
            }
            None => {
                self.spans.push(span);
                u32::try_from(self.spans.len() - 1).expect("fewer than 2^32 keys per table")
            }
        };
        if self.table.len() == self.table.capacity() {
            self.grow();
        }
        let (arena, spans) = (&self.arena, &self.spans);
        self.table.insert_unique(hash, slot, |slot| {
            random_state().hash_one(bytes_at(arena, spans[*slot as usize]))
        });
        slot
    }

    pub fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = random_state().hash_one(key);
        self.table.find(hash, |slot| bytes_at(&self.arena, self.spans[*slot as usize]) == key).copied()
    }

    /// The bytes of the key in `slot`.
    ///
    /// # Panics
    /// If the slot holds no key.
    #[inline]
    pub fn key(&self, slot: u32) -> &[u8] {
        let span = self.spans[slot as usize];
        assert!(span.length != FREE, "slot holds a key");
        bytes_at(&self.arena, span)
    }

    /// Forgets the key in `slot`; the slot may be handed out again.
    ///
    /// # Panics
    /// If the slot holds no key.
    pub fn remove(&mut self, slot: u32) {
        let span = self.spans[slot as usize];
        assert!(span.length != FREE, "slot holds a key");
        let hash = random_state().hash_one(bytes_at(&self.arena, span));
        self.table
            .find_entry(hash, |candidate| *candidate == slot)
            .expect("every live slot is in the table")
            .remove();
        self.spans[slot as usize].length = FREE;
        self.free.push(slot);
        self.garbage_bytes += span.length as usize;
        if self.garbage_bytes > 4096 && self.garbage_bytes > self.arena.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage_bytes);
        for span in &mut self.spans {
            if span.length != FREE {
                let offset = arena.len();
                arena.extend_from_slice(bytes_at(&self.arena, *span));
                span.offset = offset;
            }
        }
        self.arena = arena;
        self.garbage_bytes = 0;
        if self.table.capacity() > 4 * self.table.len() + 64 {
            let (arena, spans) = (&self.arena, &self.spans);
            self.table.shrink_to(2 * self.table.len(), |slot| {
                random_state().hash_one(bytes_at(arena, spans[*slot as usize]))
            });
        }
        if self.table.is_empty() {
            self.spans = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Renumbers: the key of slot `live[i]` gets slot `i`, and everything else is forgotten.
    ///
    /// # Panics
    /// If `live` does not name every key once.
    pub fn renumber(&mut self, live: &[u32]) {
        assert_eq!(live.len(), self.len(), "renumbering keeps every key");
        let mut table = KeyTable::new();
        for slot in live {
            table.insert(self.key(*slot));
        }
        assert_eq!(table.len(), live.len(), "every live slot holds another key");
        *self = table;
    }

    /// Live slots with their keys, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.spans
            .iter()
            .enumerate()
            .filter(|(_, span)| span.length != FREE)
            .map(|(slot, span)| (slot as u32, bytes_at(&self.arena, *span)))
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.arena.capacity()
            + self.spans.capacity() * size_of::<Span>()
            + self.free.capacity() * 4
            + self.table.allocation_size()
    }
}

#[inline]
fn bytes_at(arena: &[u8], span: Span) -> &[u8] {
    &arena[span.offset..span.offset + span.length as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn behaves_like_a_hash_map_under_insert_and_remove() {
        let mut random = 7u64;
        let mut next = move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let mut table = KeyTable::new();
        let mut model: HashMap<Vec<u8>, u32> = HashMap::new();
        for _ in 0..20_000 {
            let key = vec![b'k'; (next() % 40) as usize]
                .into_iter()
                .chain((next() % 500).to_le_bytes())
                .collect::<Vec<u8>>();
            if next() % 3 == 0 {
                if let Some(slot) = model.remove(&key) {
                    assert_eq!(table.find(&key), Some(slot));
                    table.remove(slot);
                }
                assert_eq!(table.find(&key), None);
            } else {
                let (slot, new) = table.insert(&key);
                assert_eq!(new, !model.contains_key(&key));
                assert_eq!(*model.entry(key.clone()).or_insert(slot), slot);
                assert_eq!(table.key(slot), key);
            }
            assert_eq!(table.len(), model.len());
        }
        let mut live: Vec<_> = table.iter().map(|(s, k)| (k.to_vec(), s)).collect();
        let mut expected: Vec<_> = model.into_iter().collect();
        live.sort();
        expected.sort();
        assert_eq!(live, expected);
    }
}
