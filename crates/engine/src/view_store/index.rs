//! A secondary index: from the bytes of some columns to the slots of the rows that have them.
//!
//! The slots of a key are a doubly linked list through arrays indexed by slot, so that a change costs the
//! same however many rows share a key.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dataflow::{Error, KeyTable, Result};

use crate::row_codec::{EncodedRows, RowCodec};

/// Number of an index of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IndexId(pub usize);

pub fn no_such_index(index: IndexId) -> Error {
    Error::Operator(format!("index {} does not exist in this store", index.0))
}

const NONE: u32 = u32::MAX;

pub struct SecondaryIndex {
    columns: Vec<usize>,
    codec: RowCodec,
    keys: KeyTable,
    // First slot of each key, by the key's number.
    first: Vec<u32>,
    // By slot; `key` is NONE for slots that are not in the index.
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    key: u32,
    next: u32,
    previous: u32,
}

impl SecondaryIndex {
    pub fn new(schema: &SchemaRef, columns: Vec<usize>) -> Result<SecondaryIndex> {
        let codec = RowCodec::for_columns(schema, &columns)?;
        Ok(SecondaryIndex { columns, codec, keys: KeyTable::new(), first: Vec::new(), links: Vec::new() })
    }

    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The index keys of rows with the schema's columns.
    pub fn encode(&self, rows: &RecordBatch) -> Result<EncodedRows> {
        self.codec.encode_columns(rows, &self.columns)
    }

    /// The index keys of rows of the indexed columns only.
    pub fn encode_key(&self, keys: &RecordBatch) -> Result<EncodedRows> {
        self.codec.encode(keys.columns(), keys.num_rows())
    }

    /// Says that the row in `slot` has this key now.
    pub fn set(&mut self, slot: u32, key: &[u8]) {
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, Link { key: NONE, next: NONE, previous: NONE });
        }
        let before = self.links[slot as usize].key;
        if before != NONE {
            if self.keys.key(before) == key {
                return;
            }
            self.remove(slot);
        }
        let (number, new) = self.keys.insert(key);
        if self.first.len() <= number as usize {
            self.first.resize(number as usize + 1, NONE);
        }
        let next = if new { NONE } else { self.first[number as usize] };
        if next != NONE {
            self.links[next as usize].previous = slot;
        }
        self.links[slot as usize] = Link { key: number, next, previous: NONE };
        self.first[number as usize] = slot;
    }

    /// Says that the slot is free now.
    pub fn remove(&mut self, slot: u32) {
        let link = self.links[slot as usize];
        assert!(link.key != NONE, "the slot is in the index");
        self.links[slot as usize].key = NONE;
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        if link.previous != NONE {
            self.links[link.previous as usize].next = link.next;
        } else {
            self.first[link.key as usize] = link.next;
            if link.next == NONE {
                self.keys.remove(link.key);
            }
        }
    }

    /// The slots of rows with this key.
    pub fn slots(&self, key: &[u8]) -> impl Iterator<Item = u32> {
        let first = self.keys.find(key).map_or(NONE, |number| self.first[number as usize]);
        std::iter::successors((first != NONE).then_some(first), |slot| {
            let next = self.links[*slot as usize].next;
            (next != NONE).then_some(next)
        })
    }

    pub fn size_bytes(&self) -> usize {
        self.keys.size_bytes() + self.first.capacity() * 4 + self.links.capacity() * size_of::<Link>()
    }
}
