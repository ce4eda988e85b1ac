//! All rows that an OVER keeps: their bytes, and the values that its calls read.

use dataflow::Result;

use super::values::{Source, ValueColumn};
use crate::bag::arena::{Arena, Place};

/// Rows by number. A row that stands several times in its partition is kept once.
#[derive(Default)]
pub struct RowStore {
    arena: Arena,
    rows: Vec<Stored>,
    free: Vec<u32>,
    pub values: Vec<ValueColumn>,
}

#[derive(Clone, Copy)]
struct Stored {
    place: Place,
    length: u32,
    /// The bytes of the ORDER BY columns come first.
    order_length: u32,
    /// How often the row stands in its partition.
    copies: u32,
    /// Number of the row in this step's input, if it came with it.
    fresh: u32,
}

const NOT_FRESH: u32 = u32::MAX;

impl RowStore {
    pub fn new(values: Vec<ValueColumn>) -> RowStore {
        RowStore { values, ..RowStore::default() }
    }

    /// Keeps a row once, with the values of input row `fresh`.
    pub fn insert(&mut self, bytes: &[u8], order_length: usize, sources: &[Source], fresh: usize) -> u32 {
        let stored = Stored {
            place: self.arena.insert(bytes),
            length: u32::try_from(bytes.len()).expect("a row is shorter than 4 GiB"),
            order_length: order_length as u32,
            copies: 1,
            fresh: fresh as u32,
        };
        let row = match self.free.pop() {
            Some(row) => {
                self.rows[row as usize] = stored;
                row
            }
            None => {
                self.rows.push(stored);
                u32::try_from(self.rows.len() - 1).expect("fewer than 2^32 rows per operator")
            }
        };
        for (column, source) in self.values.iter_mut().zip(sources) {
            column.set(row as usize, source, fresh);
        }
        row
    }

    pub fn copies(&self, row: u32) -> u32 {
        self.rows[row as usize].copies
    }

    pub fn add_copy(&mut self, row: u32) {
        self.rows[row as usize].copies += 1;
    }

    /// One copy less; true when it was the last, and the row is to be [released](RowStore::release).
    pub fn remove_copy(&mut self, row: u32) -> bool {
        let stored = &mut self.rows[row as usize];
        stored.copies -= 1;
        stored.copies == 0
    }

    /// Forgets a row of which no copy is left. Does nothing when there is one (again).
    pub fn release(&mut self, row: u32) {
        let stored = self.rows[row as usize];
        if stored.copies > 0 {
            return;
        }
        self.arena.remove(stored.place, stored.length);
        for column in &mut self.values {
            column.clear(row as usize);
        }
        self.free.push(row);
    }

    /// Gives memory back when much was released. Every row without copies must have been released.
    pub fn tidy(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        if self.free.len() == self.rows.len() {
            self.rows = Vec::new();
            self.free = Vec::new();
            self.arena = Arena::default();
            self.values.iter_mut().for_each(ValueColumn::shrink);
        } else if self.arena.wants_compaction() {
            let mut arena = Arena::default();
            for stored in self.rows.iter_mut().filter(|stored| stored.copies > 0) {
                stored.place = arena.insert(self.arena.get(stored.place, stored.length));
            }
            self.arena = arena;
        }
    }

    #[inline]
    pub fn bytes(&self, row: u32) -> &[u8] {
        let stored = &self.rows[row as usize];
        self.arena.get(stored.place, stored.length)
    }

    /// The bytes of the row's ORDER BY columns: equal in peers.
    #[inline]
    pub fn order_key(&self, row: u32) -> &[u8] {
        let stored = &self.rows[row as usize];
        self.arena.get(stored.place, stored.order_length)
    }

    /// Where the row stands in this step's input.
    pub fn fresh(&self, row: u32) -> Option<u32> {
        let fresh = self.rows[row as usize].fresh;
        (fresh != NOT_FRESH).then_some(fresh)
    }

    /// The step is over.
    pub fn forget_fresh(&mut self, row: u32) {
        if let Some(stored) = self.rows.get_mut(row as usize) {
            stored.fresh = NOT_FRESH;
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.arena.size_bytes()
            + self.rows.capacity() * size_of::<Stored>()
            + self.free.capacity() * 4
            + self.values.iter().map(ValueColumn::size_bytes).sum::<usize>()
    }

    /// The batch's columns that `values` are made of.
    pub fn sources(&self, columns: &[usize], batch: &arrow::array::RecordBatch) -> Result<Vec<Source>> {
        self.values.iter().zip(columns).map(|(values, column)| values.source(batch.column(*column))).collect()
    }
}
