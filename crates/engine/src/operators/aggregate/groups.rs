//! All that is kept per group: its key, how many rows it has, and one state per call.
//!
//! Columns indexed by the group's slot, filled call by call in tight loops over a batch. Slots of
//! released groups are reused; when few of many are left, the columns are packed together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{FieldRef, SchemaRef};
use dataflow::{Error, KeyPart, Result, StateReader, StateSize, StateWriter, StepContext, ZSet};

use super::accumulator::{Accumulator, CallRows, Expectation, accumulator};
use super::change::Shown;
use super::columns::{load_integers, save_integers};
use super::group_table::GroupTable;
use super::{AggregateCall, AggregateFunction};

/// Groups by key, with the states of their calls.
pub struct Groups {
    table: GroupTable,
    marks: Vec<Mark>,
    generation: u32,
    calls: Vec<Call>,
    /// There is one group without a key, and it is shown also without rows.
    global: bool,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    /// Sum of the weights of the group's rows.
    rows: i64,
    /// The generation that touched the group last.
    touched: u32,
    live: bool,
}

struct Call {
    columns: Vec<usize>,
    filter: Option<usize>,
    /// `None` for a plain count(*), which is the group's number of rows.
    accumulator: Option<Box<dyn Accumulator>>,
}

/// Freed slots below this number are not worth packing.
const PACKING_SLOTS_MIN: usize = 4096;

/// So many keys are made columns at a time to tell which are in a part.
const PICKING_SLOTS: usize = 1 << 14;

impl Groups {
    /// # Errors
    /// If a key column or a call is of a type that can't be handled.
    pub fn new(
        keys: Vec<FieldRef>,
        calls: &[AggregateCall],
        input: &SchemaRef,
        expect: Expectation,
    ) -> Result<Groups> {
        let global = keys.is_empty();
        let calls = calls
            .iter()
            .map(|call| {
                let plain = call.function == AggregateFunction::Count
                    && call.arguments.is_empty()
                    && call.filter.is_none()
                    && !call.distinct;
                Ok(Call {
                    columns: call
                        .arguments
                        .iter()
                        .copied()
                        .chain(call.order_by.iter().map(|(c, _)| *c))
                        .collect(),
                    filter: call.filter,
                    accumulator: if plain { None } else { Some(accumulator(call, input, expect)?) },
                })
            })
            .collect::<Result<Vec<Call>>>()?;
        let table = GroupTable::new(keys)?;
        let mut groups = Groups { table, marks: Vec::new(), generation: 0, calls, global };
        if global {
            groups.grow();
            groups.marks[0].live = true;
        }
        Ok(groups)
    }

    /// The slot of each row's group, and the groups that are new.
    pub fn assign(&mut self, columns: &[ArrayRef], rows_len: usize) -> Result<(Vec<u32>, Vec<u32>)> {
        let (mut slots, mut created) = (Vec::new(), Vec::new());
        self.table.assign(columns, rows_len, &mut slots, &mut created)?;
        self.grow();
        for slot in &created {
            self.marks[*slot as usize].live = true;
        }
        Ok((slots, created))
    }

    fn grow(&mut self) {
        let slots_len = self.table.slots_len();
        if self.marks.len() < slots_len {
            self.marks.resize(slots_len, Mark::default());
            for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
                call.grow(slots_len);
            }
        }
    }

    /// Each of the slots once, in order of first occurrence.
    pub fn touch(&mut self, slots: &[u32]) -> Vec<u32> {
        if self.generation == u32::MAX {
            self.marks.iter_mut().for_each(|mark| mark.touched = 0);
            self.generation = 0;
        }
        self.generation += 1;
        let mut touched = Vec::new();
        for slot in slots {
            let mark = &mut self.marks[*slot as usize];
            if mark.touched != self.generation {
                mark.touched = self.generation;
                touched.push(*slot);
            }
        }
        touched
    }

    /// Adds rows to their groups.
    pub fn update(&mut self, rows: &ZSet, slots: &[u32]) -> Result<()> {
        match rows.weights() {
            None => slots.iter().for_each(|slot| self.marks[*slot as usize].rows += 1),
            Some(weights) => {
                for (slot, weight) in slots.iter().zip(weights) {
                    self.marks[*slot as usize].rows += weight;
                }
            }
        }
        for call in &mut self.calls {
            let Some(accumulator) = &mut call.accumulator else { continue };
            let columns = call.columns.iter().map(|column| Arc::clone(rows.rows().column(*column))).collect();
            let filter = call.filter.map(|column| {
                let filter = rows.rows().column(column).as_boolean();
                match filter.nulls() {
                    None => filter.values().clone(),
                    Some(nulls) => filter.values() & nulls.inner(),
                }
            });
            accumulator.update(&CallRows { slots, weights: rows.weights(), columns, filter })?;
        }
        Ok(())
    }

    /// Adds the groups `from` to the groups `into`, pairwise, or takes them away with `sign` -1.
    /// Calls that can't be taken away are left out when `invertible_only`.
    pub fn merge(&mut self, from: &[u32], into: &[u32], sign: i64, invertible_only: bool) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            self.marks[*into as usize].rows += sign * self.marks[*from as usize].rows;
        }
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            if !invertible_only || call.invertible() {
                call.merge(from, into, sign)?;
            }
        }
        Ok(())
    }

    /// Empties the states of the calls that can't be taken away, so that they can be built anew.
    pub fn reset_not_invertible(&mut self, slots: &[u32]) {
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            if !call.invertible() {
                call.reset(slots);
            }
        }
    }

    /// Adds up the calls that can't be taken away.
    pub fn merge_not_invertible(&mut self, from: &[u32], into: &[u32]) -> Result<()> {
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            if !call.invertible() {
                call.merge(from, into, 1)?;
            }
        }
        Ok(())
    }

    pub fn invertible(&self) -> bool {
        self.calls.iter().filter_map(|call| call.accumulator.as_ref()).all(|call| call.invertible())
    }

    /// True when the group is part of the result.
    #[inline]
    pub fn is_shown(&self, slot: u32) -> bool {
        self.global || self.marks[slot as usize].rows > 0
    }

    /// True when nothing of the group is left: also no value that was taken away before it came.
    pub fn is_empty(&self, slot: u32) -> bool {
        let zero = |call: &Call| call.accumulator.as_ref().is_none_or(|call| call.is_zero(slot));
        !self.global && self.marks[slot as usize].rows == 0 && self.calls.iter().all(zero)
    }

    /// The slots among `slots` that are part of the result, with the results of their calls.
    pub fn show(&self, slots: impl Iterator<Item = u32>, ctx: &mut StepContext) -> Result<Shown> {
        let slots: Vec<u32> = slots.filter(|slot| self.is_shown(*slot)).collect();
        let results = self
            .calls
            .iter()
            .map(|call| match &call.accumulator {
                Some(accumulator) => accumulator.evaluate(&slots, ctx),
                None => {
                    let counts = slots.iter().map(|slot| self.marks[*slot as usize].rows);
                    Ok(Arc::new(Int64Array::from_iter_values(counts)) as ArrayRef)
                }
            })
            .collect::<Result<_>>()?;
        Ok(Shown { slots, results })
    }

    pub fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.table.keys(slots)
    }

    pub fn key_column(&self, slots: &[u32], column: usize) -> Result<ArrayRef> {
        self.table.key_column(slots, column)
    }

    /// The group with another first key column; see [`GroupTable::sibling`].
    pub fn sibling(&mut self, slot: u32, first: i64) -> (u32, bool) {
        let (slot, new) = self.table.sibling(slot, first);
        if new {
            self.grow();
            self.marks[slot as usize].live = true;
        }
        (slot, new)
    }

    pub fn find_sibling(&self, slot: u32, first: i64) -> Option<u32> {
        self.table.find_sibling(slot, first)
    }

    /// Makes these groups empty, as if no row had come.
    pub fn reset(&mut self, slots: &[u32]) {
        for slot in slots {
            self.marks[*slot as usize].rows = 0;
        }
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            call.reset(slots);
        }
    }

    /// Forgets these groups, whatever they hold.
    pub fn release(&mut self, slots: &[u32]) {
        for slot in slots {
            self.marks[*slot as usize] = Mark::default();
        }
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            call.reset(slots);
        }
        self.table.remove(slots);
    }

    /// Packs the columns when most of their slots are free. The answer lists, for every new slot, the old one; the
    /// caller renumbers what it keeps.
    pub fn pack(&mut self) -> Option<Vec<u32>> {
        if self.marks.len() < PACKING_SLOTS_MIN || self.table.len() * 4 > self.marks.len() {
            return None;
        }
        let live = self.live();
        self.table.renumber(&live);
        self.marks = live.iter().map(|slot| self.marks[*slot as usize]).collect();
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            call.renumber(&live);
        }
        Some(live)
    }

    /// The slots of all groups.
    pub fn live(&self) -> Vec<u32> {
        (0..self.marks.len() as u32).filter(|slot| self.marks[*slot as usize].live).collect()
    }

    /// Those of the slots whose keys are in the part; the first `own` key columns are the operator's matter.
    ///
    /// # Errors
    /// If there is no key to tell by.
    pub fn in_part(&self, slots: Vec<u32>, own: usize, part: KeyPart<'_>) -> Result<Vec<u32>> {
        if part.is_all() {
            return Ok(slots);
        }
        let mut picked = Vec::new();
        for slots in slots.chunks(PICKING_SLOTS) {
            let keys = self.table.keys(slots)?.split_off(own);
            if keys.is_empty() {
                return Err(Error::State("groups without a key can't be told apart".to_owned()));
            }
            match part.mask(&keys)? {
                None => picked.extend_from_slice(slots),
                Some(mask) => {
                    let is_picked = |row: usize| mask.is_valid(row) && mask.value(row);
                    picked.extend(
                        slots.iter().enumerate().filter(|(row, _)| is_picked(*row)).map(|(_, slot)| *slot),
                    );
                }
            }
        }
        Ok(picked)
    }

    /// Writes the groups in these slots.
    pub fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        self.table.save(slots, out);
        save_integers(slots.iter().map(|slot| self.marks[*slot as usize].rows), out);
        self.calls
            .iter()
            .filter_map(|call| call.accumulator.as_ref())
            .try_for_each(|call| call.save(slots, out))
    }

    /// The slots of the groups that [`Groups::save`] wrote, in their order.
    ///
    /// # Errors
    /// When something else wrote them, or one of them is here already.
    pub fn load(&mut self, saved: &mut StateReader<'_>) -> Result<Vec<u32>> {
        let slots = self.table.load(saved)?;
        self.grow();
        for (slot, rows) in slots.iter().zip(load_integers(slots.len(), saved)?) {
            self.marks[*slot as usize] = Mark { rows, touched: 0, live: true };
        }
        for call in self.calls.iter_mut().filter_map(|call| call.accumulator.as_mut()) {
            call.load(&slots, saved)?;
        }
        Ok(slots)
    }

    pub fn size(&self) -> StateSize {
        let calls: usize = self
            .calls
            .iter()
            .filter_map(|call| call.accumulator.as_ref())
            .map(|call| call.size_bytes())
            .sum();
        let marks = self.marks.capacity() * size_of::<Mark>();
        StateSize { rows: self.table.len(), bytes: self.table.size_bytes() + marks + calls }
    }
}
