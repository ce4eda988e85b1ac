//! How far matching has come in a partition: what there is to keep of it besides its rows, so that another matcher goes
//! on with them.
//!
//! The attempt under way is not kept: it follows from the rows, which are all there from its beginning, and is made
//! again by looking at them once more, one by one, so that also its sums of floats are the same to the last bit.

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::matcher::{Matcher, Partition};
use super::output::Evaluate;
use super::rows::RowRef;

/// Numbers of rows count from the partition's first row ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first row that is still there.
    pub base: u64,
    /// Where the attempt begins, or the next one will.
    pub start: u64,
    /// Rows before this one have their local conditions decided.
    pub tested: u64,
    /// Rows before this one belong to a match found.
    pub covered: u64,
    pub matches: i64,
    /// No more rows will come.
    pub complete: bool,
}

impl Partition {
    pub fn progress(&self) -> Progress {
        Progress {
            base: self.base,
            start: self.start,
            tested: self.tested,
            covered: self.covered,
            matches: self.matches,
            complete: self.complete,
        }
    }

    /// For each row from `start` to `tested` the set of variables whose local condition holds.
    pub fn held(&self) -> impl Iterator<Item = u64> {
        let place = |number: u64| (number - self.base) as usize;
        self.rows.range(place(self.start)..place(self.tested)).map(|row| row.holds)
    }

    /// The rows that are there, in their order.
    pub fn rows(&self) -> impl Iterator<Item = RowRef> {
        self.rows.iter().map(|row| row.at)
    }
}

impl Matcher {
    /// All columns of rows of the partitions.
    pub fn take(&self, rows: &[Option<RowRef>]) -> Result<RecordBatch> {
        self.rows.take(rows, &self.compiled().input)
    }

    /// Brings a partition that has nothing but its rows to where it was; `held` is what it held. False when it can't
    /// have been there. What fails was reported before, so give an evaluator that keeps it to itself.
    pub fn resume(
        &mut self,
        partition: &mut Partition,
        progress: Progress,
        held: &[u64],
        evaluator: &mut dyn Evaluate,
    ) -> Result<bool> {
        let Progress { base, start, tested, covered, matches, complete } = progress;
        let end = base.checked_add(partition.rows_len() as u64);
        let ordered = base <= start && start <= tested && end.is_some_and(|end| tested <= end);
        if !ordered || tested - start != held.len() as u64 {
            return Ok(false);
        }
        (partition.base, partition.start, partition.tested) = (base, start, tested);
        (partition.covered, partition.matches, partition.complete) = (covered, matches, complete);
        let place = (start - base) as usize;
        for (row, holds) in partition.rows.range_mut(place..).zip(held) {
            row.holds = *holds;
        }
        let mut found = Vec::new();
        self.find(partition, i64::MIN, &mut found, evaluator)?;
        Ok(found.is_empty() && partition.progress() == progress)
    }
}
