//! Event-time progress as bytes: of tables by their id, of groups by their tables. Probes and the clocks' settings come
//! from the definitions, and are there before.

use std::collections::BTreeSet;

use dataflow::{Error, Result, StateReader, StateWriter, Watermark};
use sql::RelationId;

use super::{TableClock, Watermarks};

const VERSION: u8 = 1;

impl Watermarks {
    /// Writes how far time has come.
    ///
    /// # Errors
    /// Never, as of now.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.u8(VERSION);
        out.option(self.now_us, StateWriter::i64);
        out.option(self.told_us, StateWriter::i64);
        let mut clocks: Vec<_> = self.tables.iter().collect();
        clocks.sort_unstable_by_key(|(table, _)| **table);
        out.all(clocks.into_iter(), |out, (table, clock)| {
            out.u32(table.0);
            clock.save(out);
        });
        out.all(self.groups.iter(), |out, group| {
            out.all(group.tables.iter(), |out, table| out.u32(table.0));
            out.i64(group.watermark.0);
            out.i64(group.stepped.0);
        });
        Ok(())
    }

    /// Sets the clocks of the tables that were added, and the groups, also those that nobody has asked for yet.
    ///
    /// # Errors
    /// When it was not written by [`Watermarks::save`] of this version, or has the clock of a table that was not added.
    pub fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(VERSION)?;
        self.now_us = saved.option(StateReader::i64)?;
        self.told_us = saved.option(StateReader::i64)?;
        for _ in 0..saved.count()? {
            let table = RelationId(saved.u32()?);
            let clock = self.tables.get_mut(&table);
            clock.ok_or_else(|| Error::State(format!("table {} has no watermark", table.0)))?.load(saved)?;
        }
        for _ in 0..saved.count()? {
            let tables: BTreeSet<RelationId> =
                saved.all(StateReader::u32)?.into_iter().map(RelationId).collect();
            let index = self.group(&tables);
            // Not less than its tables' clocks say: a floor may be above them.
            self.groups[index].watermark = Watermark(saved.i64()?);
            self.groups[index].stepped = Watermark(saved.i64()?);
        }
        Ok(())
    }
}

impl TableClock {
    fn save(&self, out: &mut StateWriter) {
        out.i64(self.watermark.0);
        out.option(self.max_event_us, StateWriter::i64);
        out.bool(self.idle);
        out.bool(self.live);
        out.i64(self.last_heard_us);
        out.i64(self.quiet_us);
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.watermark = Watermark(saved.i64()?);
        self.max_event_us = saved.option(StateReader::i64)?;
        self.idle = saved.bool()?;
        self.live = saved.bool()?;
        self.last_heard_us = saved.i64()?;
        self.quiet_us = saved.i64()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;
    use crate::plan::Grid;
    use crate::watermarks::Probe;

    const SECOND: i64 = 1_000_000;

    fn tables(ids: &[u32]) -> BTreeSet<RelationId> {
        ids.iter().copied().map(RelationId).collect()
    }

    /// Watermarks of three tables, with these groups.
    fn watermarks(groups: &[&[u32]]) -> Watermarks {
        let mut watermarks = Watermarks::default();
        for id in 1..=3 {
            watermarks.tables.insert(RelationId(id), TableClock::new(&table(id)).unwrap());
        }
        for group in groups {
            let group = watermarks.group(&tables(group));
            watermarks.add_probe(Probe { group, grid: Grid::POINT, allowed_lateness_us: 0 });
        }
        watermarks
    }

    fn reopened(old: &Watermarks, mut new: Watermarks) -> Watermarks {
        let mut out = StateWriter::new();
        old.save(&mut out).unwrap();
        let bytes = out.into_bytes();
        let mut saved = StateReader::new(&bytes);
        new.load(&mut saved).unwrap();
        saved.finish().unwrap();
        new
    }

    #[test]
    fn what_was_reopened_goes_on_as_what_was_saved() {
        let groups: [&[u32]; 5] = [&[1], &[1, 2], &[2, 3], &[], &[1, 2, 3]];
        let mut reordered = groups;
        reordered.reverse();
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut kept, mut new) = (watermarks(&groups), watermarks(&groups));
            let mut now = 1_000 * SECOND;
            for _ in 0..60 {
                now += rng.i64(0..2 * SECOND);
                let table = RelationId(rng.u32(1..4));
                match rng.u8(..10) {
                    0..4 => {
                        let event = (rng.u8(..5) > 0).then(|| now - rng.i64(-SECOND..50 * SECOND));
                        let arrival = if rng.bool() { now } else { now + 100_000 * SECOND };
                        for marks in [&mut kept, &mut new] {
                            marks.tell_time(now);
                            marks.on_rows(table, event, arrival);
                        }
                    }
                    4..8 => [&mut kept, &mut new].into_iter().for_each(|marks| marks.on_clock(now)),
                    8 => [&mut kept, &mut new].into_iter().for_each(Watermarks::mark_step),
                    _ => {
                        let group = tables(groups[rng.usize(..groups.len())]);
                        for marks in [&mut kept, &mut new] {
                            let group = marks.group(&group);
                            marks.raise(group, Watermark(now - 10 * SECOND));
                        }
                    }
                }
                if rng.u8(..4) == 0 {
                    // Without the last group: it comes later.
                    let known = if rng.bool() { &reordered[..] } else { &reordered[1..] };
                    new = reopened(&new, watermarks(known));
                    new = reopened(&new, watermarks(&reordered));
                }
                assert_eq!((kept.now_us(), kept.told_us()), (new.now_us(), new.told_us()), "seed {seed}");
                assert_eq!(kept.needs_clock(), new.needs_clock(), "seed {seed}");
                for group in groups {
                    let (a, b) = (kept.group(&tables(group)), new.group(&tables(group)));
                    assert_eq!(kept.of_group(a), new.of_group(b), "seed {seed}, group {group:?}");
                    assert_eq!(kept.moved(a), new.moved(b), "seed {seed}, group {group:?}");
                    assert_eq!(kept.holders(a), new.holders(b), "seed {seed}, group {group:?}");
                }
            }
        }
    }

    #[test]
    fn other_bytes_are_an_error() {
        let mut out = StateWriter::new();
        watermarks(&[&[1]]).save(&mut out).unwrap();
        let bytes = out.into_bytes();
        for cut in 0..bytes.len() {
            assert!(watermarks(&[]).load(&mut StateReader::new(&bytes[..cut])).is_err(), "{cut} bytes");
        }
        assert!(watermarks(&[]).load(&mut StateReader::new(&[9])).is_err());
        assert!(Watermarks::default().load(&mut StateReader::new(&bytes)).is_err(), "tables come first");
    }
}
