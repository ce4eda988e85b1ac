//! A bag as bytes.
//!
//! ```text
//!   count, keys: bytes             numbered 0, 1, 2, ...
//!   count, rows: distance of the key's number to that of the row before, weight, bytes, what the owner adds
//! ```
//!
//! Rows stand in the order of their entries, not by key, so that writing reads memory from front to back.

use dataflow::{Error, KeyPart, Result, StateReader, StateWriter};

use super::{Bag, NONE, hash_of};
use crate::row_codec::RowCodec;

impl Bag {
    /// The slots of the keys that belong to the part. The codec is that of the keys.
    ///
    /// # Errors
    /// If the keys have no columns.
    pub fn slots_of(&self, codec: &RowCodec, part: KeyPart<'_>) -> Result<Vec<u32>> {
        codec.slots_of(&self.keys, part)
    }

    /// Writes the keys in these live slots and their rows. `add` writes what the owner knows about an entry.
    pub fn save(&self, slots: &[u32], out: &mut StateWriter, mut add: impl FnMut(&mut StateWriter, u32)) {
        // By slot.
        let mut numbers = vec![NONE; self.rows_of.len()];
        let mut rows = 0;
        out.count(slots.len());
        for (number, slot) in slots.iter().enumerate() {
            numbers[*slot as usize] = number as u32;
            rows += self.count(*slot);
            out.bytes(self.key(*slot));
        }
        out.count(rows);
        let mut before = 0;
        for (entry, kept) in self.entries.iter().enumerate() {
            // A free entry has no slot.
            let number = numbers.get(kept.key as usize).copied().unwrap_or(NONE);
            if number == NONE {
                continue;
            }
            out.signed(i64::from(number) - before);
            before = i64::from(number);
            out.signed(kept.weight);
            out.bytes(self.arena.get(kept.place, kept.length));
            add(out, entry as u32);
        }
    }

    /// Takes in what [`Bag::save`] wrote about keys that are not there yet; `add` reads what the owner added. Returns the
    /// slots of the keys, in the order in which they were written.
    ///
    /// # Errors
    /// When it was not written by [`Bag::save`].
    pub fn load<'a>(
        &mut self,
        saved: &mut StateReader<'a>,
        mut add: impl FnMut(&mut StateReader<'a>, u32) -> Result<()>,
    ) -> Result<Vec<u32>> {
        let mut slots = Vec::new();
        for _ in 0..saved.count()? {
            let (slot, new) = self.insert_key(short(saved.bytes()?)?);
            if !new {
                return Err(Error::State("a key is there twice".into()));
            }
            slots.push(slot);
        }
        let mut number = 0i64;
        for _ in 0..saved.count()? {
            number = number.wrapping_add(saved.signed()?);
            let slot = usize::try_from(number).ok().and_then(|number| slots.get(number));
            let slot = *slot.ok_or_else(|| Error::State("a row has no key".into()))?;
            let weight = saved.signed()?;
            if weight == 0 {
                return Err(Error::State("a row is there zero times".into()));
            }
            let row = short(saved.bytes()?)?;
            let entry = self.insert_row(slot, hash_of(slot, row), row, weight);
            add(saved, entry)?;
        }
        Ok(slots)
    }
}

/// Bytes whose length has 32 bits.
fn short(bytes: &[u8]) -> Result<&[u8]> {
    if bytes.len() < u32::MAX as usize {
        return Ok(bytes);
    }
    Err(Error::State("a row is longer than 4 GiB".into()))
}
