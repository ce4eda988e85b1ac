//! ASOF joins: each left row beside the one right row of its key that is nearest in time.
//!
//! ```text
//!   left.ts >= right.ts              right   a     b           c
//!                                    left      1 2   3     4     5      1a 2a 3b 4b 5c
//!   a right row at x changes                       [x    )
//!   only what lies before the next                   3 4                3x 4x
//! ```
//!
//! Both sides are kept per key in the order of their times, so that a partner is the last right row at or before a
//! left row. For `<=` and `<` the order is turned round, and nothing else changes. Of right rows of one time that one
//! counts which is largest by its other columns, the first column first and NULL smallest: the answer does not depend on
//! the order of arrival.
//!
//! A step takes the change of the right side first: times at which another row counts than before begin stretches of
//! left rows that get another partner, and each such row is replaced once, however many changes the step holds. Then it
//! takes the change of the left side against the right side as it is now.
//!
//! State: the rows of both sides with a key and a time. With watermarks on both times (`late`) it is freed:
//! - `>=`, `>`: left rows older than the watermark, and right rows older than the newest that is older than the watermark;
//! - `<=`, `<`: right rows older than the watermark, and the left rows that have such a partner. Left rows wait until
//!   they have one.
//!
//! A left row is final then, and leaves only then with [`Emit::OnClose`]. Rows behind the watermark are late, on either
//! side: what they would meet or change may be gone.
//! A row whose key or time is NULL has no partner and is not kept.
//! Cost per changed row: a search in the order, and for right rows the left rows that get another partner.

mod output;
mod state;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{
    Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, Watermark, ZSet,
};
use sql::asof_join::AsofComparison;

use super::join::on_time;
use super::{Emit, Expiry};
use crate::row_codec::{EncodedRows, RowCodec};
use output::Pairs;
use state::{State, Winners};

/// Of the saved state.
const FORMAT_VERSION: u8 = 1;

pub struct AsofJoinSpec {
    pub left: SchemaRef,
    pub right: SchemaRef,
    /// Pairs of a left and a right column number that must be equal, of the same type.
    pub on: Vec<(usize, usize)>,
    /// The columns that are compared, of the same type.
    pub time: (usize, usize),
    pub comparison: AsofComparison,
    /// Left rows without partner stand beside NULLs; else they are left out.
    pub outer: bool,
    /// When rows of the left and the right side are late, and final.
    pub late: Option<[Expiry; 2]>,
    pub emit: Emit,
    /// Left columns, then right columns.
    pub output: SchemaRef,
}

/// Input ports: 0 is left, 1 is right.
pub struct AsofJoin {
    spec: AsofJoinSpec,
    key_codec: RowCodec,
    time_codec: RowCodec,
    time_type: DataType,
    sides: [Side; 2],
    state: State,
}

/// How the rows of one side are kept: the time, then the columns that are neither time nor key.
struct Side {
    key: Vec<usize>,
    entry_columns: Vec<usize>,
    entry_codec: RowCodec,
    // Per column: where its values are kept.
    origin: Vec<Origin>,
}

#[derive(Clone, Copy)]
enum Origin {
    Key(usize),
    Entry(usize),
}

/// A change with its rows encoded.
struct Delta<'a> {
    change: &'a ZSet,
    keys: EncodedRows,
    entries: EncodedRows,
    /// Rows with a key and a time; `None` means all.
    matchable: Option<NullBuffer>,
}

impl Side {
    fn new(schema: &SchemaRef, key: Vec<usize>, time: usize, order: SortOptions) -> Result<Side> {
        let rest = (0..schema.fields().len()).filter(|column| *column != time && !key.contains(column));
        let entry_columns: Vec<usize> = std::iter::once(time).chain(rest).collect();
        let typed = |(number, column): (usize, &usize)| {
            let options = if number == 0 { order } else { SortOptions::default() };
            (schema.field(*column).data_type().clone(), options)
        };
        let origin = (0..schema.fields().len())
            .map(|column| match entry_columns.iter().position(|c| *c == column) {
                Some(n) => Origin::Entry(n),
                None => Origin::Key(key.iter().position(|k| *k == column).expect("a key or an entry column")),
            })
            .collect();
        let entry_codec = RowCodec::new(entry_columns.iter().enumerate().map(typed))?;
        Ok(Side { key, entry_columns, entry_codec, origin })
    }

    fn delta<'a>(&self, change: &'a ZSet, key_codec: &RowCodec) -> Result<Delta<'a>> {
        let mut matchable = None;
        for column in self.key.iter().chain(&self.entry_columns[..1]) {
            let nulls = change.rows().column(*column).logical_nulls();
            matchable = NullBuffer::union(matchable.as_ref(), nulls.as_ref());
        }
        Ok(Delta {
            change,
            keys: key_codec.encode_columns(change.rows(), &self.key)?,
            entries: self.entry_codec.encode_columns(change.rows(), &self.entry_columns)?,
            matchable,
        })
    }

    /// The columns of kept rows, by the bytes of their keys and entries.
    fn columns(&self, keys: &[ArrayRef], entries: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let entries = self.entry_codec.decode(entries)?;
        let column = |origin: &Origin| match origin {
            Origin::Key(n) => Arc::clone(&keys[*n]),
            Origin::Entry(n) => Arc::clone(&entries[*n]),
        };
        Ok(self.origin.iter().map(column).collect())
    }
}

impl Delta<'_> {
    fn is_matchable(&self, row: usize) -> bool {
        self.matchable.as_ref().is_none_or(|valid| valid.is_valid(row))
    }
}

impl AsofJoin {
    /// # Errors
    /// If the types of two compared columns differ or can't be ordered, or results are to be final without a watermark.
    pub fn new(spec: AsofJoinSpec) -> Result<AsofJoin> {
        for (left, right) in spec.on.iter().chain([&spec.time]) {
            let (left, right) = (spec.left.field(*left), spec.right.field(*right));
            if left.data_type() != right.data_type() {
                return Err(Error::Operator(format!(
                    "columns \"{}\" of type {} and \"{}\" of type {} need a cast to one type",
                    left.name(),
                    left.data_type(),
                    right.name(),
                    right.data_type()
                )));
            }
        }
        if spec.emit == Emit::OnClose && spec.late.is_none() {
            return Err(Error::Operator("EMIT ON WINDOW CLOSE needs watermarks on both sides".to_owned()));
        }
        let time_type = spec.left.field(spec.time.0).data_type().clone();
        if !time_type.is_primitive() {
            return Err(Error::Operator(format!("ASOF compares times or numbers, not {time_type}")));
        }
        let order = SortOptions { descending: !spec.comparison.looks_back(), nulls_first: true };
        let time_codec = RowCodec::new([(time_type.clone(), order)])?;
        let time_length = time_codec.encode(&[arrow::array::new_null_array(&time_type, 1)], 1)?.get(0).len();
        let left_key: Vec<usize> = spec.on.iter().map(|(left, _)| *left).collect();
        let right_key: Vec<usize> = spec.on.iter().map(|(_, right)| *right).collect();
        Ok(AsofJoin {
            key_codec: RowCodec::for_columns(&spec.left, &left_key)?,
            sides: [
                Side::new(&spec.left, left_key, spec.time.0, order)?,
                Side::new(&spec.right, right_key, spec.time.1, order)?,
            ],
            state: State::new(spec.comparison, time_length),
            time_codec,
            time_type,
            spec,
        })
    }

    fn take_right(&mut self, change: &ZSet, out: &mut Vec<ZSet>) -> Result<()> {
        let delta = self.sides[1].delta(change, &self.key_codec)?;
        let mut rows: Vec<(u32, u32)> = Vec::with_capacity(change.len());
        for row in (0..change.len()).filter(|row| delta.is_matchable(*row)) {
            rows.push((self.state.insert_key(delta.keys.get(row)), row as u32));
        }
        let changed = self.state.change_right(rows, |row| (delta.entries.get(row), change.weight(row)));
        if self.spec.emit == Emit::OnClose {
            return Ok(());
        }
        for winners in changed.chunk_by(|a, b| a.slot == b.slot) {
            self.replace(winners, out)?;
        }
        Ok(())
    }

    /// Gives other partners to the left rows of a key, after the change of the right side.
    fn replace(&self, winners: &[Winners], out: &mut Vec<ZSet>) -> Result<()> {
        let mut pairs = Pairs::default();
        for stretch in self.state.stretches(winners) {
            for (entry, weight) in self.state.left_rows(&stretch) {
                for (partner, sign) in [(stretch.old, -1), (stretch.new, 1)] {
                    if partner.is_some() || self.spec.outer {
                        pairs.push(stretch.slot, entry, partner, sign * weight);
                    }
                }
                if pairs.is_full() {
                    self.give(&mut pairs, out)?;
                }
            }
        }
        self.give(&mut pairs, out)
    }

    fn take_left(&mut self, change: &ZSet, out: &mut Vec<ZSet>) -> Result<()> {
        let delta = self.sides[0].delta(change, &self.key_codec)?;
        let mut slots = vec![None; change.len()];
        for row in (0..change.len()).filter(|row| delta.is_matchable(*row)) {
            let slot = self.state.insert_key(delta.keys.get(row));
            self.state.change_left(slot, delta.entries.get(row), change.weight(row));
            slots[row] = Some(slot);
        }
        let mut fresh = output::Fresh::default();
        for (row, slot) in slots.into_iter().enumerate() {
            if slot.is_some() && self.spec.emit == Emit::OnClose {
                continue;
            }
            // One that can never have a partner needs not wait for it.
            let partner = slot.and_then(|slot| self.state.partner(slot, delta.entries.get(row)));
            if partner.is_some() || self.spec.outer {
                fresh.push(row, partner, change.weight(row));
            }
        }
        self.give_fresh(&delta, fresh, out)
    }

    /// Gives what the watermark makes final, and frees what can't matter any more.
    fn settle(&mut self, watermark: Watermark, out: &mut Vec<ZSet>) -> Result<()> {
        let Some([late, _]) = self.spec.late else { return Ok(()) };
        let all = watermark == Watermark::MAX;
        let cutoff = self.encoded_time(if all {
            i64::MAX
        } else {
            // A row is late when `time + add_us + allowed_lateness_us <= watermark`.
            watermark.0.saturating_sub(late.allowed_lateness_us).saturating_sub(late.add_us).saturating_add(1)
        })?;
        if all {
            for slot in self.state.all_slots() {
                self.settle_key(slot, &cutoff, all, out)?;
            }
        }
        while let Some(slot) = self.state.next_due(&cutoff) {
            self.settle_key(slot, &cutoff, all, out)?;
        }
        Ok(())
    }

    fn settle_key(&mut self, slot: u32, cutoff: &[u8], all: bool, out: &mut Vec<ZSet>) -> Result<()> {
        if self.spec.emit == Emit::OnClose {
            let mut pairs = Pairs::default();
            for (entry, weight) in self.state.final_left_rows(slot, cutoff, all) {
                let partner = self.state.partner(slot, entry);
                if partner.is_some() || self.spec.outer {
                    pairs.push(slot, entry, partner, weight);
                }
                if pairs.is_full() {
                    self.give(&mut pairs, out)?;
                }
            }
            self.give(&mut pairs, out)?;
        }
        self.state.free(slot, cutoff, all);
        Ok(())
    }

    /// A moment as it is at the beginning of entries.
    fn encoded_time(&self, us: i64) -> Result<Box<[u8]>> {
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![us]));
        let time = cast(&time, &self.time_type)?;
        Ok(self.time_codec.encode(&[time], 1)?.get(0).into())
    }
}

impl Operator for AsofJoin {
    fn name(&self) -> &'static str {
        "asof join"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [left, right] = inputs else {
            return Err(Error::Operator(format!("asof join takes two inputs, not {}", inputs.len())));
        };
        let (left, right) = match self.spec.late {
            Some([late_left, late_right]) => {
                (on_time(left, late_left, ctx)?, on_time(right, late_right, ctx)?)
            }
            None => (left.clone(), right.clone()),
        };
        let mut out = Vec::new();
        if !right.is_empty() {
            self.take_right(&right, &mut out)?;
        }
        if !left.is_empty() {
            self.take_left(&left, &mut out)?;
        }
        self.state.forget_empty_keys(self.spec.late.is_some());
        if ctx.watermark != Watermark::MIN {
            self.settle(ctx.watermark, &mut out)?;
        }
        ZSet::concat(&self.spec.output, &out)
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(FORMAT_VERSION);
        self.state.save(&self.key_codec.slots_of(&self.state.keys, part)?, out);
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)?;
        self.state.load(saved, self.spec.late.is_some())
    }

    fn state_size(&self) -> StateSize {
        self.state.size()
    }
}

#[cfg(test)]
mod tests;
