//! Matching over partitions: attempts one after another, as rows become known.
//!
//! ```text
//!   rows of a partition   [ before | start ... next | known, waiting ]
//!                          PREV     the attempt
//! ```
//!
//! An attempt begins at `start` and looks at row after row until it is decided; where the next one begins is said
//! by AFTER MATCH SKIP. A row is looked at when the rows that NEXT may ask for are known, too. Rows behind
//! `start` are given back, but for those that PREV may ask for.
//!
//! What is found depends on the partition's rows in their order and on the times that have passed, never on how
//! the rows came in portions.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;

use super::attempt::{Attempt, Outcome, Row, Scratch, Surroundings, is_true};
use super::compiled::{Compiled, TermExpr};
use super::output::{Evaluate, Found, Kind};
use super::rows::{RowRef, Rows};
use super::{Anchor, RowsPerMatch, Skip, Term, Value, VariableSet};

/// A partition's rows that still matter, and the attempt that is under way.
#[derive(Debug, Default)]
pub struct Partition {
    pub(super) rows: VecDeque<Row>,
    /// Number of the first of `rows` in the partition, from 0.
    pub(super) base: u64,
    /// Rows before this one have their local conditions decided.
    pub(super) tested: u64,
    /// Where the attempt begins, or the next one will.
    pub(super) start: u64,
    /// Rows before this one belong to a match found.
    pub(super) covered: u64,
    pub(super) matches: i64,
    attempt: Option<Attempt>,
    /// No more rows will come.
    pub(super) complete: bool,
}

impl Partition {
    fn end(&self) -> u64 {
        self.base + self.rows.len() as u64
    }

    /// The number of the first row that may not be looked at yet.
    fn visible_end(&self, rows_after: u64) -> u64 {
        match self.complete {
            true => self.end(),
            false => self.end().saturating_sub(rows_after).max(self.base),
        }
    }

    /// No more rows will come.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// The time at which the attempt under way is over.
    pub fn deadline(&self) -> Option<i64> {
        self.attempt.as_ref().and_then(|attempt| attempt.deadline)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn rows_len(&self) -> usize {
        self.rows.len()
    }
}

/// Finds matches of one pattern.
#[derive(Debug)]
pub struct Matcher {
    compiled: Arc<Compiled>,
    pub(super) rows: Rows,
    scratch: Scratch,
}

impl Matcher {
    pub fn new(compiled: Arc<Compiled>) -> Matcher {
        Matcher { compiled, rows: Rows::default(), scratch: Scratch::default() }
    }

    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// Takes in rows sorted by partition and in the partition by ORDER BY, none of which belongs before rows that
    /// the partition has already. `groups` gives a partition and the number of its rows, in order.
    pub fn add(
        &mut self,
        batch: RecordBatch,
        partitions: &mut [Partition],
        groups: &[(usize, usize)],
    ) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let times = self.times(&batch)?;
        let chunk = self.rows.add(batch);
        let mut row = 0;
        for (partition, count) in groups {
            let partition = &mut partitions[*partition].rows;
            partition.extend((row..row + count).map(|row| Row {
                at: RowRef { chunk, row: row as u32 },
                time: times.as_ref().map_or(0, |times| times[row]),
                holds: 0,
            }));
            row += count;
        }
        assert_eq!(row, self.rows.batch(chunk).num_rows(), "every row has its partition");
        Ok(())
    }

    /// Microseconds of the time column; a row without a time is within no time.
    fn times(&self, batch: &RecordBatch) -> Result<Option<Vec<i64>>> {
        let Some(column) = self.compiled.pattern.time_column() else { return Ok(None) };
        let column = batch.column(column);
        let DataType::Timestamp(_, zone) = column.data_type() else { return Ok(None) };
        let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        Ok(Some(micros.iter().map(|time| time.unwrap_or(i64::MAX)).collect()))
    }

    /// Decides the local conditions of all rows that are known well enough, for many partitions at once.
    pub fn test_rows(
        &mut self,
        partitions: &mut [Partition],
        which: &[usize],
        evaluator: &mut dyn Evaluate,
    ) -> Result<()> {
        let compiled = Arc::clone(&self.compiled);
        let mut places: Vec<(usize, u64)> = Vec::new();
        for index in which {
            let partition = &mut partitions[*index];
            let end = partition.visible_end(compiled.rows_after);
            places.extend((partition.tested..end).map(|number| (*index, number)));
            partition.tested = partition.tested.max(end);
        }
        if places.is_empty() {
            return Ok(());
        }
        let mut holds = vec![0u64; places.len()];
        for (variable, condition) in compiled.conditions.iter().enumerate() {
            let Some(local) = &condition.local else {
                holds.iter_mut().for_each(|holds| *holds |= 1 << variable);
                continue;
            };
            let batch = self.local_terms(local, partitions, &places)?;
            let values = evaluator.evaluate(local.expr.as_ref(), &local.data_type, &batch)?;
            for (row, holds) in holds.iter_mut().enumerate() {
                *holds |= u64::from(is_true(&values, row)) << variable;
            }
        }
        for ((index, number), holds) in places.into_iter().zip(holds) {
            let partition = &mut partitions[index];
            let place = (number - partition.base) as usize;
            partition.rows[place].holds = holds;
        }
        Ok(())
    }

    fn local_terms(
        &self,
        condition: &TermExpr,
        partitions: &[Partition],
        places: &[(usize, u64)],
    ) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(condition.terms.len());
        for term in &condition.terms {
            let Term::Row { value: Value::Column(column), anchor: Anchor::Current, offset } =
                self.compiled.pattern.terms[*term]
            else {
                return datafusion::common::internal_err!("term {term} is local");
            };
            let at: Vec<Option<RowRef>> = places
                .iter()
                .map(|(index, number)| {
                    let partition = &partitions[*index];
                    let place = number.checked_add_signed(offset)?.checked_sub(partition.base)?;
                    partition.rows.get(place as usize).map(|row| row.at)
                })
                .collect();
            columns.push(self.rows.gather(column, &at, &self.compiled.input)?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&condition.schema), columns, &options)?)
    }

    /// Finds what is decided in one partition, when all times up to `passed` are over. What is found refers to rows:
    /// build the output before [`Matcher::trim`].
    pub fn find(
        &mut self,
        partition: &mut Partition,
        passed: i64,
        found: &mut Vec<Found>,
        evaluator: &mut dyn Evaluate,
    ) -> Result<()> {
        let compiled = Arc::clone(&self.compiled);
        let unmatched = matches!(compiled.rows, RowsPerMatch::All { unmatched: true, .. });
        loop {
            let Some((attempt, time_over)) = self.decide(partition, passed, evaluator)? else { break };
            let start = partition.start;
            let outcome = match attempt {
                Some(attempt) => attempt.finish(time_over, compiled.pattern.timeout_rows, &compiled),
                None => Outcome::Nothing,
            };
            let mut empty = false;
            partition.start = match outcome {
                Outcome::Match(mapped) => {
                    partition.matches += 1;
                    empty = mapped.is_empty();
                    let end = start + mapped.len() as u64;
                    let next = next_start(compiled.skip, start, &mapped, evaluator);
                    partition.covered = partition.covered.max(end);
                    let kind = if empty { Kind::Empty } else { Kind::Match };
                    found.push(report(partition, kind, mapped, &compiled));
                    next
                }
                Outcome::TimedOut(mapped) => {
                    found.push(report(partition, Kind::TimedOut, mapped, &compiled));
                    start + 1
                }
                Outcome::Nothing => start + 1,
            };
            if unmatched && !empty {
                for number in start.max(partition.covered)..partition.start {
                    let next = std::mem::replace(&mut partition.start, number);
                    found.push(report(partition, Kind::Unmatched, Vec::new(), &compiled));
                    partition.start = next;
                }
            }
        }
        Ok(())
    }

    /// Gives back the rows of a partition that are not needed any more.
    pub fn trim(&mut self, partition: &mut Partition) {
        let keep = partition.start.saturating_sub(self.compiled.rows_before);
        while partition.base < keep
            && let Some(row) = partition.rows.pop_front()
        {
            self.rows.release(row.at);
            partition.base += 1;
        }
    }

    /// The next attempt that is decided, and whether because its time is over. `None` for the attempt when the
    /// first row tells that there is none.
    #[allow(clippy::type_complexity)]
    fn decide(
        &mut self,
        partition: &mut Partition,
        passed: i64,
        evaluator: &mut dyn Evaluate,
    ) -> Result<Option<(Option<Attempt>, bool)>> {
        let visible = partition.tested;
        if partition.start >= visible {
            return Ok(None);
        }
        let mut attempt = partition.attempt.take();
        if attempt.is_none() {
            let first = partition.rows[(partition.start - partition.base) as usize];
            if first.holds & self.compiled.program.first == 0 && self.compiled.program.first != u64::MAX {
                return Ok(Some((None, false)));
            }
        }
        let mut around = Surroundings {
            compiled: &self.compiled,
            rows: &self.rows,
            partition: &partition.rows,
            base: partition.base,
            end: partition.complete.then(|| partition.end()),
            number: partition.matches + 1,
            scratch: &mut self.scratch,
            evaluator,
        };
        let mut attempt = match attempt.take() {
            Some(attempt) => attempt,
            None => {
                let first = partition.rows[(partition.start - partition.base) as usize];
                let within = self.compiled.pattern.within_us;
                let deadline = within.map(|within| first.time.saturating_add(within));
                Attempt::begin(partition.start, deadline, &mut around)?
            }
        };
        loop {
            if attempt.is_decided() {
                return Ok(Some((Some(attempt), false)));
            }
            if attempt.next < visible {
                let row = partition.rows[(attempt.next - partition.base) as usize];
                // The first row is always within.
                let late = attempt.deadline.is_some_and(|deadline| row.time >= deadline);
                if late && attempt.next > partition.start {
                    return Ok(Some((Some(attempt), true)));
                }
                attempt.take_row(&mut around)?;
                continue;
            }
            let all_seen = attempt.next == partition.end();
            let over = attempt.deadline.is_some_and(|deadline| deadline <= passed);
            if all_seen && (over || partition.complete) {
                return Ok(Some((Some(attempt), true)));
            }
            partition.attempt = Some(attempt);
            return Ok(None);
        }
    }

    pub fn output(&self, found: &[Found], evaluator: &mut dyn Evaluate) -> Result<RecordBatch> {
        super::output::output(&self.compiled, &self.rows, found, evaluator)
    }

    /// Gives back all rows of a partition.
    pub fn release(&mut self, partition: &mut Partition) {
        for row in partition.rows.drain(..) {
            self.rows.release(row.at);
        }
    }

    /// Copies the rows still needed together when many are kept for few.
    pub fn compact(&mut self, partitions: &mut [Partition]) -> Result<()> {
        if !self.rows.wants_compaction() {
            return Ok(());
        }
        let at: Vec<Option<RowRef>> =
            partitions.iter().flat_map(|p| p.rows.iter().map(|row| Some(row.at))).collect();
        let kept = self.rows.take(&at, &self.compiled.input)?;
        self.rows = Rows::default();
        if at.is_empty() {
            return Ok(());
        }
        let chunk = self.rows.add(kept);
        let rows = partitions.iter_mut().flat_map(|partition| partition.rows.iter_mut());
        for (number, row) in rows.enumerate() {
            row.at = RowRef { chunk, row: number as u32 };
        }
        Ok(())
    }

    pub fn rows_len(&self) -> usize {
        self.rows.rows_live()
    }

    pub fn size_bytes(&self) -> usize {
        self.rows.size_bytes()
    }
}

/// Where AFTER MATCH SKIP goes on. An empty match, and a place that is not ahead, count as TO NEXT ROW.
fn next_start(
    skip: Skip,
    start: u64,
    mapped: &[super::attempt::Mapped],
    evaluator: &mut dyn Evaluate,
) -> u64 {
    if mapped.is_empty() {
        return start + 1;
    }
    let in_set = |set: VariableSet| move |m: &super::attempt::Mapped| set & (1 << m.variable) != 0;
    let place = match skip {
        Skip::PastLastRow => return start + mapped.len() as u64,
        Skip::ToNextRow => return start + 1,
        Skip::ToFirst(set) => mapped.iter().position(in_set(set)),
        Skip::ToLast(set) => mapped.iter().rposition(in_set(set)),
    };
    match place {
        Some(place) if place > 0 => start + place as u64,
        _ => {
            evaluator.report(
                "AFTER MATCH SKIP TO a variable that has no row behind the match's first; went on at the next row",
            );
            start + 1
        }
    }
}

fn report(
    partition: &Partition,
    kind: Kind,
    mapped: Vec<super::attempt::Mapped>,
    compiled: &Compiled,
) -> Found {
    let first = partition.start.saturating_sub(compiled.rows_before).max(partition.base);
    let last = partition.start + (mapped.len() as u64).saturating_sub(1) + compiled.rows_after;
    let places = (first - partition.base) as usize..=(last - partition.base) as usize;
    let window = partition
        .rows
        .iter()
        .skip(*places.start())
        .take(places.end() + 1 - places.start())
        .map(|row| row.at)
        .collect();
    Found { kind, mapped, window, first: (partition.start - first) as usize, number: partition.matches }
}
