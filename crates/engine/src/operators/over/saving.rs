//! Partitions as bytes.
//!
//! ```text
//!   count, partitions: key | window, due, published, emitted | rows dropped, slides that remember them | rows
//!   count, rows in order: the same as the one before? | length of its ORDER BY columns, unless fixed | bytes
//! ```
//!
//! The values that calls read are decoded from the rows. Slides are built anew from the rows when they are needed, but
//! for those that remember rows that were dropped.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use dataflow::{Error, KeyPart, Result, StateReader, StateWriter, random_state};

use super::list::OrderedList;
use super::slide::{DistinctKey, Slide, SlideKind, SlideSpec, SlideState};
use super::values::{Scalar, Source, ValueKind};
use super::{Origin, Over};
use crate::operators::aggregate::exact_float::ExactFloatSum;
use crate::operators::aggregate::number::WholeState;
use crate::row_codec::{batch_of, portions};

const VERSION: u8 = 1;
/// So many rows of small partitions are decoded together.
const DECODED_ROWS: usize = 8192;

/// A row that was read, and is not kept yet.
struct SavedRow<'a> {
    slot: u32,
    bytes: &'a [u8],
    order_length: usize,
    copies: u32,
}

impl Over {
    pub(super) fn save_partitions(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(VERSION);
        let slots = self.partition_codec.slots_of(&self.keys, part)?;
        out.all(slots.into_iter(), |out, slot| self.save_partition(slot, out));
        Ok(())
    }

    fn save_partition(&self, slot: u32, out: &mut StateWriter) {
        let partition = &self.partitions[slot as usize];
        let list = &partition.list;
        out.bytes(self.keys.key(slot));
        out.option(partition.window, StateWriter::i64);
        out.option(partition.due, StateWriter::i64);
        out.bool(partition.published);
        out.count(partition.emitted);
        out.count(list.start());
        if list.start() > 0 {
            for (number, slide) in partition.slides.iter().enumerate() {
                if self.compiled.remembers(number) {
                    slide.save(out);
                }
            }
        }
        out.count(list.len());
        let mut last = None;
        for row in list.range(list.start(), list.end()) {
            let same = last == Some(row);
            out.bool(same);
            if !same {
                if self.order_length.is_none() {
                    out.count(self.store.order_key(row).len());
                }
                out.bytes(self.store.bytes(row));
            }
            last = Some(row);
        }
    }

    pub(super) fn load_partitions(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(VERSION)?;
        let mut rows = Vec::new();
        for _ in 0..saved.count()? {
            self.load_partition(saved, &mut rows)?;
            if rows.len() >= DECODED_ROWS {
                self.keep(&mut rows)?;
            }
        }
        self.keep(&mut rows)
    }

    fn load_partition<'a>(
        &mut self,
        saved: &mut StateReader<'a>,
        rows: &mut Vec<SavedRow<'a>>,
    ) -> Result<()> {
        let (key, known) = (saved.bytes()?, self.keys.len());
        let window = saved.option(StateReader::i64)?;
        let slot = self.partition(key, window);
        if self.keys.len() == known {
            return Err(Error::State("a partition is there twice".into()));
        }
        let partition = &mut self.partitions[slot as usize];
        partition.due = saved.option(StateReader::i64)?;
        if let Some(due) = partition.due {
            self.due.insert((due, slot));
        }
        partition.published = saved.bool()?;
        if let (Some(window), true) = (window, partition.published) {
            self.closing.remove(&(window, slot));
        }
        partition.emitted = saved.count()?;
        let dropped = saved.count()?;
        partition.list = OrderedList::starting_at(dropped);
        if dropped > 0 {
            for (number, spec) in self.compiled.calls.slides.iter().enumerate() {
                if self.compiled.remembers(number) {
                    let kind = self.store.values.get(spec.values).map(|values| values.kind());
                    partition.slides[number] = Slide::load(spec, kind, saved)?;
                }
            }
        }
        let first = rows.len();
        for _ in 0..saved.count()? {
            if saved.bool()? {
                let row = rows[first..].last_mut();
                row.ok_or_else(|| Error::State("no row is before the first".into()))?.copies += 1;
                continue;
            }
            let order_length = self.order_length.map_or_else(|| saved.count(), Ok)?;
            let bytes = saved.bytes()?;
            if order_length > bytes.len() {
                return Err(Error::State("a row is shorter than its ORDER BY columns".into()));
            }
            rows.push(SavedRow { slot, bytes, order_length, copies: 1 });
        }
        Ok(())
    }

    /// Puts the rows at the end of their partitions.
    fn keep(&mut self, rows: &mut Vec<SavedRow<'_>>) -> Result<()> {
        for rows in portions(rows, |row| row.bytes.len()) {
            let sources = self.sources(rows)?;
            for (number, saved) in rows.iter().enumerate() {
                let row = self.store.insert(saved.bytes, saved.order_length, &sources, number);
                self.store.forget_fresh(row);
                (1..saved.copies).for_each(|_| self.store.add_copy(row));
                let list = &mut self.partitions[saved.slot as usize].list;
                (0..saved.copies).for_each(|_| list.insert(list.end(), row));
            }
        }
        rows.clear();
        Ok(())
    }

    fn sources(&self, rows: &[SavedRow<'_>]) -> Result<Vec<Source>> {
        if self.compiled.value_columns.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&[u8]> = rows.iter().map(|row| self.keys.key(row.slot)).collect();
        let bytes: Vec<&[u8]> = rows.iter().map(|row| row.bytes).collect();
        let (keys, entries) = (self.partition_codec.decode(&keys)?, self.entry_codec.decode(&bytes)?);
        let column = |origin: &Origin| -> ArrayRef {
            match origin {
                Origin::Partition(n) => Arc::clone(&keys[*n]),
                Origin::Entry(n) => Arc::clone(&entries[*n]),
            }
        };
        let columns = self.origin.iter().map(column).collect();
        self.store.sources(&self.compiled.value_columns, &batch_of(&self.spec.input, columns, rows.len())?)
    }
}

impl Slide {
    fn save(&self, out: &mut StateWriter) {
        // The frame begins with the partition.
        out.count(self.end);
        // Only frames that begin elsewhere keep the rows of their extremes: those are all there.
        let rebuilt = matches!(self.state, SlideState::Empty | SlideState::Extreme(_));
        out.bool(!rebuilt);
        match &self.state {
            SlideState::Empty | SlideState::Extreme(_) => {}
            SlideState::Count(count) => out.i64(*count),
            SlideState::Whole(state) => state.save(out),
            SlideState::Float(state) => {
                state.0.save(out);
                out.i64(state.1);
            }
            SlideState::Bools(trues, falses) => {
                out.i64(*trues);
                out.i64(*falses);
            }
            SlideState::Running(best) => out.option(best.as_ref(), save_scalar),
            SlideState::Nth(seen, value) => {
                out.count(*seen);
                out.option(value.as_ref(), save_scalar);
            }
            SlideState::Distinct(counts) => out.all(counts.iter(), |out, (key, count)| {
                match key {
                    DistinctKey::Number(number) => out.i128(*number),
                    DistinctKey::Bytes(bytes) => out.bytes(bytes),
                }
                out.i64(*count);
            }),
        }
    }

    /// `kind` is that of the values; groups have none.
    fn load(spec: &SlideSpec, kind: Option<ValueKind>, saved: &mut StateReader<'_>) -> Result<Slide> {
        let end = saved.count()?;
        if !saved.bool()? {
            return Ok(Slide { end, ..Slide::default() });
        }
        let kind = kind.unwrap_or(ValueKind::Int);
        let state = match spec.kind {
            SlideKind::Count | SlideKind::Groups => SlideState::Count(saved.i64()?),
            SlideKind::Whole => SlideState::Whole(WholeState::load(saved)?),
            SlideKind::Float => SlideState::Float(Box::new((ExactFloatSum::load(saved)?, saved.i64()?))),
            SlideKind::Bools => SlideState::Bools(saved.i64()?, saved.i64()?),
            SlideKind::Extreme { .. } => {
                return Err(Error::State("an extreme of rows that were dropped is saved".into()));
            }
            SlideKind::RunningExtreme { .. } => {
                SlideState::Running(saved.option(|saved| load_scalar(kind, saved))?)
            }
            SlideKind::RunningNth { .. } => {
                SlideState::Nth(saved.count()?, saved.option(|saved| load_scalar(kind, saved))?)
            }
            SlideKind::Distinct => {
                let mut counts = HashMap::with_hasher(random_state().clone());
                for _ in 0..saved.count()? {
                    let key = match kind {
                        ValueKind::Bytes => DistinctKey::Bytes(saved.bytes()?.into()),
                        _ => DistinctKey::Number(saved.i128()?),
                    };
                    counts.insert(key, saved.i64()?);
                }
                SlideState::Distinct(counts)
            }
        };
        Ok(Slide { start: 0, end, state })
    }
}

fn save_scalar(out: &mut StateWriter, scalar: &Scalar) {
    match scalar {
        Scalar::Int(value) => out.i64(*value),
        Scalar::Wide(value) => out.i128(*value),
        Scalar::Float(value) => out.f64(*value),
        Scalar::Bytes(value) => out.bytes(value),
    }
}

fn load_scalar(kind: ValueKind, saved: &mut StateReader<'_>) -> Result<Scalar> {
    Ok(match kind {
        ValueKind::Int => Scalar::Int(saved.i64()?),
        ValueKind::Wide => Scalar::Wide(saved.i128()?),
        ValueKind::Float => Scalar::Float(saved.f64()?),
        ValueKind::Bytes => Scalar::Bytes(saved.bytes()?.into()),
    })
}
