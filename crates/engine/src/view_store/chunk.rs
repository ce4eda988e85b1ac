//! A thousand slots for rows: the unit that snapshots share and that a change copies.

use dataflow::{Error, Result, StateReader, StateWriter};

/// Slots per chunk: large enough that a snapshot is short, small enough that copying one is cheap.
pub const CHUNK_SLOTS: usize = 1 << CHUNK_SLOTS_LOG2;
pub const CHUNK_SLOTS_LOG2: u32 = 10;

#[derive(Clone, Default)]
pub struct Chunk {
    arena: Vec<u8>,
    spans: Vec<Span>,
    // Weights by slot; empty while each row is there once.
    weights: Vec<i64>,
    garbage_bytes: usize,
    /// Of the store when the chunk was changed last.
    pub version: u64,
}

#[derive(Clone, Copy)]
struct Span {
    offset: u32,
    // `FREE`, or the row's length; with `VACATED` set while a change is being applied that has retracted
    // the row and may put another in its place.
    length: u32,
}

const FREE: u32 = u32::MAX;
const VACATED: u32 = 1 << 31;
const ROW_BYTES_MAX: usize = (VACATED - 1) as usize - 1;

impl Chunk {
    const GARBAGE_BYTES_MIN: usize = 1024;

    /// Slots ever used.
    pub fn slots_len(&self) -> usize {
        self.spans.len()
    }

    /// The bytes of the row in `slot`, vacated or not; `None` if the slot is free.
    #[inline]
    pub fn row(&self, slot: usize) -> Option<&[u8]> {
        let span = self.spans[slot];
        if span.length == FREE {
            return None;
        }
        let (offset, length) = (span.offset as usize, (span.length & !VACATED) as usize);
        Some(&self.arena[offset..offset + length])
    }

    #[inline]
    pub fn is_vacated(&self, slot: usize) -> bool {
        let length = self.spans[slot].length;
        length != FREE && length & VACATED != 0
    }

    #[inline]
    pub fn vacate(&mut self, slot: usize) {
        self.spans[slot].length |= VACATED;
    }

    /// How often the row in `slot` is there.
    #[inline]
    pub fn weight(&self, slot: usize) -> i64 {
        if self.weights.is_empty() { 1 } else { self.weights[slot] }
    }

    pub fn set_weight(&mut self, slot: usize, weight: i64) {
        if self.weights.is_empty() {
            if weight == 1 {
                return;
            }
            self.weights = vec![1; self.spans.len()];
        }
        self.weights[slot] = weight;
    }

    /// Adds a free slot.
    pub fn add_slot(&mut self) {
        self.spans.push(Span { offset: 0, length: FREE });
        if !self.weights.is_empty() {
            self.weights.push(1);
        }
    }

    /// Puts a row into a slot in place of what was there.
    pub fn write(&mut self, slot: usize, row: &[u8]) -> Result<()> {
        let span = self.spans[slot];
        if span.length != FREE {
            let (offset, length) = (span.offset as usize, (span.length & !VACATED) as usize);
            if length == row.len() {
                self.arena[offset..offset + length].copy_from_slice(row);
                self.spans[slot].length = length as u32;
                return Ok(());
            }
            self.clear(slot);
        }
        let too_large = row.len() > ROW_BYTES_MAX || self.arena.len() + row.len() > u32::MAX as usize;
        if too_large {
            return Err(Error::Operator(format!(
                "a row of {} bytes is too large: {CHUNK_SLOTS} rows of a view hold at most 4 GiB together",
                row.len()
            )));
        }
        self.spans[slot] = Span { offset: self.arena.len() as u32, length: row.len() as u32 };
        self.arena.extend_from_slice(row);
        Ok(())
    }

    /// Makes a slot free.
    pub fn clear(&mut self, slot: usize) {
        let length = self.spans[slot].length;
        if length == FREE {
            return;
        }
        self.spans[slot].length = FREE;
        self.set_weight(slot, 1);
        self.garbage_bytes += (length & !VACATED) as usize;
        if self.garbage_bytes > Chunk::GARBAGE_BYTES_MIN && self.garbage_bytes > self.arena.len() / 2 {
            self.compact();
        }
    }

    /// Writes the rows with their slots. No change is being applied.
    pub fn save(&self, out: &mut StateWriter) {
        out.all(0..self.slots_len(), |out, slot| match self.row(slot) {
            Some(row) => {
                out.count(row.len() + 1);
                out.raw(row);
            }
            None => out.count(0),
        });
        out.all(self.weights.iter(), |out, weight| out.i64(*weight));
    }

    /// What [`Chunk::save`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn load(saved: &mut StateReader<'_>) -> Result<Chunk> {
        let mut chunk = Chunk::default();
        let slots = saved.count()?;
        if slots > CHUNK_SLOTS {
            return Err(Error::State(format!("a chunk of {slots} rows")));
        }
        for slot in 0..slots {
            chunk.add_slot();
            if let Some(length) = saved.count()?.checked_sub(1) {
                chunk.write(slot, saved.raw(length)?)?;
            }
        }
        chunk.arena.shrink_to_fit();
        chunk.weights = saved.all(StateReader::i64)?;
        if ![0, slots].contains(&chunk.weights.len()) {
            return Err(Error::State("a chunk whose rows don't have one weight each".into()));
        }
        Ok(chunk)
    }

    pub fn size_bytes(&self) -> usize {
        size_of::<Chunk>()
            + self.arena.capacity()
            + self.spans.capacity() * size_of::<Span>()
            + self.weights.capacity() * size_of::<i64>()
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage_bytes);
        for span in self.spans.iter_mut().filter(|span| span.length != FREE) {
            let (offset, length) = (span.offset as usize, (span.length & !VACATED) as usize);
            span.offset = arena.len() as u32;
            arena.extend_from_slice(&self.arena[offset..offset + length]);
        }
        self.arena = arena;
        self.garbage_bytes = 0;
    }
}
