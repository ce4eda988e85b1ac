//! Partitions as bytes.
//!
//! ```text
//!   count, partitions: key | how far matching has come | number of rows | variables that hold, by row
//!   rows of all partitions, one after another, packed
//! ```
//!
//! Attempts under way are made again from the rows.

use dataflow::{Error, KeyPart, Result, StateReader, StateWriter, StepContext};
use sql::match_recognize::{Progress, RowRef};

use super::{MatchRecognize, OrNull, operator_error};
use crate::row_codec::{batch_of, portions};

const VERSION: u8 = 1;
/// Rows gathered and packed at once.
const PACKED_ROWS: usize = 65_536;

/// A partition whose rows are still to come.
struct Resumed {
    partition: usize,
    progress: Progress,
    rows: usize,
}

impl MatchRecognize {
    pub(super) fn save_partitions(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(VERSION);
        let slots = self.key_codec.slots_of(&self.keys, part)?;
        out.count(slots.len());
        let mut rows: Vec<Option<RowRef>> = Vec::new();
        for slot in slots {
            let partition = &self.partitions[slot as usize];
            out.bytes(self.keys.key(slot));
            save_progress(partition.progress(), out);
            out.count(partition.rows_len());
            partition.held().for_each(|holds| out.count(holds as usize));
            rows.extend(partition.rows().map(Some));
        }
        for rows in rows.chunks(PACKED_ROWS) {
            let batch = self.matcher.take(rows).map_err(operator_error)?;
            let packed = self.row_codec.encode(batch.columns(), batch.num_rows())?;
            (0..batch.num_rows()).for_each(|row| out.bytes(packed.get(row)));
        }
        Ok(())
    }

    pub(super) fn load_partitions(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(VERSION)?;
        let (mut resumed, mut held) = (Vec::new(), Vec::new());
        for _ in 0..saved.count()? {
            let (partition, new) = self.partition(saved.bytes()?);
            if !new {
                return Err(Error::State("a partition is there twice".into()));
            }
            let progress = load_progress(saved)?;
            let rows = saved.count()?;
            for _ in progress.start..progress.tested {
                held.push(saved.count()? as u64);
            }
            resumed.push(Resumed { partition, progress, rows });
        }
        self.load_rows(&resumed, saved)?;
        // What fails was reported when the rows were matched first.
        let mut unreported = StepContext::default();
        let evaluator = &mut OrNull { ctx: &mut unreported };
        let mut rest = held.as_slice();
        for Resumed { partition: number, progress, .. } in resumed {
            let partition = &mut self.partitions[number];
            let (held, others) = rest.split_at((progress.tested - progress.start) as usize);
            rest = others;
            let was_there =
                self.matcher.resume(partition, progress, held, evaluator).map_err(operator_error)?;
            if !was_there {
                return Err(Error::State("a partition's progress is not that of its rows".into()));
            }
            if let Some(deadline) = partition.deadline() {
                self.deadlines.insert((deadline, number as u32));
            }
        }
        Ok(())
    }

    fn load_rows(&mut self, resumed: &[Resumed], saved: &mut StateReader<'_>) -> Result<()> {
        let mut rows = Vec::new();
        for Resumed { partition, rows: count, .. } in resumed {
            for _ in 0..*count {
                rows.push((*partition, saved.bytes()?));
            }
        }
        for rows in portions(&rows, |(_, bytes)| bytes.len()) {
            let groups: Vec<(usize, usize)> =
                rows.chunk_by(|a, b| a.0 == b.0).map(|rows| (rows[0].0, rows.len())).collect();
            let rows: Vec<&[u8]> = rows.iter().map(|(_, bytes)| *bytes).collect();
            let schema = &self.matcher.compiled().input;
            let batch = batch_of(schema, self.row_codec.decode(&rows)?, rows.len())?;
            self.matcher.add(batch, &mut self.partitions, &groups).map_err(operator_error)?;
        }
        Ok(())
    }
}

fn save_progress(progress: Progress, out: &mut StateWriter) {
    let Progress { base, start, tested, covered, matches, complete } = progress;
    // Most are near each other.
    out.count(base as usize);
    out.count((start - base) as usize);
    out.count((tested - start) as usize);
    out.count(covered as usize);
    out.signed(matches);
    out.bool(complete);
}

fn load_progress(saved: &mut StateReader<'_>) -> Result<Progress> {
    let base = saved.count()? as u64;
    let start = base + saved.count()? as u64;
    let tested = start.saturating_add(saved.count()? as u64);
    let covered = saved.count()? as u64;
    Ok(Progress { base, start, tested, covered, matches: saved.signed()?, complete: saved.bool()? })
}
