//! A Top-N as bytes: the rows of its partitions, then of each partition whether it is visible and its window.
//!
//! Rankings are made anew of the rows: they may have other candidates than before behind those that decide.

use dataflow::{KeyPart, Result, StateReader, StateWriter};

use super::ranking::{self, Ranked};
use super::{Partition, TopN};

const FORMAT_VERSION: u8 = 1;

impl TopN {
    pub(super) fn write_state(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(FORMAT_VERSION);
        let slots = self.bag.slots_of(&self.partition_codec, part)?;
        self.bag.save(&slots, out, |_, _| {});
        for slot in slots {
            let partition = &self.partitions[slot as usize];
            out.bool(partition.published);
            out.option(partition.window, StateWriter::i64);
        }
        Ok(())
    }

    pub(super) fn read_state(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)?;
        for slot in self.bag.load(saved, |_, _| Ok(()))? {
            let published = saved.bool()?;
            let window = saved.option(StateReader::i64)?;
            let (ranking, complete) = match (self.spec.append_only, published) {
                (true, _) => self.rank_all(slot),
                (false, true) => self.select_candidates(slot),
                // Waits in the bag.
                (false, false) => (Vec::new(), true),
            };
            self.begin(slot, Partition { ranking, complete, published, window, group: 0 });
        }
        Ok(())
    }

    /// The ranking of a partition that has no rows beside it, and whether it lacks rows.
    fn rank_all(&self, slot: u32) -> (Vec<Ranked>, bool) {
        let rows = self.bag.rows_at(slot).filter(|row| row.weight > 0);
        let items = rows.map(|row| (Ranked { entry: row.entry, weight: row.weight }, row.row));
        let (sorted, _) = ranking::smallest(items, usize::MAX);
        let ranking: Vec<Ranked> = sorted.into_iter().map(|(ranked, _)| ranked).collect();
        let complete = ranking::row_count(&ranking) < self.rows_needed as u64;
        (ranking, complete)
    }
}
