//! bool_and and bool_or, out of the numbers of true and of false rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use dataflow::{Result, StateReader, StateWriter, StepContext};

use super::accumulator::{Accumulator, CallRows, States};
use super::columns::{load_integers, save_integers};

/// bool_and or bool_or.
pub struct Bools {
    all: bool,
    states: States<(i64, i64)>,
}

impl Bools {
    pub fn new(all: bool) -> Bools {
        Bools { all, states: States::default() }
    }
}

impl Accumulator for Bools {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let values = rows.columns[0].as_boolean().values();
        let states = &mut self.states.0;
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| {
            let (trues, falses) = &mut states[slot];
            let value = values.value(row);
            *trues += weight * i64::from(value);
            *falses += weight * i64::from(!value);
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let (trues, falses) = *self.states.of(*from);
            let state = &mut self.states.0[*into as usize];
            *state = (state.0 + sign * trues, state.1 + sign * falses);
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        *self.states.of(slot) == (0, 0)
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let value = |slot: &u32| {
            let (trues, falses) = *self.states.of(*slot);
            (trues > 0 || falses > 0).then_some(if self.all { falses <= 0 } else { trues > 0 })
        };
        Ok(Arc::new(BooleanArray::from_iter(slots.iter().map(value))))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_integers(self.states.at(slots).map(|(trues, _)| *trues), out);
        save_integers(self.states.at(slots).map(|(_, falses)| *falses), out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let trues = load_integers(slots.len(), saved)?;
        let falses = load_integers(slots.len(), saved)?;
        self.states.put(slots, trues.into_iter().zip(falses));
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes()
    }
}
