//! bit_and, bit_or and bit_xor of integers, out of how many values have each bit.

use arrow::array::ArrayRef;
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{Result, StateReader, StateWriter, StepContext};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::columns::{load_flags, load_integers, save_flags, save_integers};
use super::words::{array_from_words, each_word};
use super::{AggregateCall, AggregateFunction};

/// How many values there are, and per bit how many have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    values: i64,
    bits: Box<[i64]>,
}

/// bit_and, bit_or or bit_xor.
pub struct Bits {
    function: AggregateFunction,
    data_type: DataType,
    width: usize,
    // `None` until a value comes.
    states: States<Option<Counts>>,
}

impl Bits {
    /// # Errors
    /// If the argument is not an integer.
    pub fn new(call: &AggregateCall, input: &SchemaRef) -> Result<Bits> {
        let data_type = input.field(call.arguments[0]).data_type().clone();
        if !data_type.is_integer() || *call.output.data_type() != data_type {
            return Err(unsupported(call, &data_type));
        }
        let width = data_type.primitive_width().unwrap_or(8) * 8;
        Ok(Bits { function: call.function, data_type, width, states: States::default() })
    }

    fn state(&mut self, slot: usize) -> &mut Counts {
        let width = self.width;
        self.states.0[slot].get_or_insert_with(|| Counts { values: 0, bits: vec![0; width].into() })
    }
}

impl Accumulator for Bits {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let mut words = vec![0u64; rows.slots.len()];
        each_word(&rows.columns[0], |row, word| words[row] = word);
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| {
            let state = self.state(slot);
            state.values += weight;
            let mut word = words[row];
            while word != 0 {
                state.bits[word.trailing_zeros() as usize] += weight;
                word &= word - 1;
            }
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let Some(other) = self.states.of(*from).clone() else { continue };
            let state = self.state(*into as usize);
            state.values += sign * other.values;
            state.bits.iter_mut().zip(&other.bits).for_each(|(ours, theirs)| *ours += sign * theirs);
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).as_ref().is_none_or(|s| s.values == 0 && s.bits.iter().all(|bit| *bit == 0))
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let shown = |slot: &u32| self.states.of(*slot).as_ref().filter(|state| state.values > 0);
        let word = |state: &Counts| {
            let is_set = |count: i64| match self.function {
                AggregateFunction::BitAnd => count == state.values,
                AggregateFunction::BitOr => count > 0,
                _ => count % 2 != 0,
            };
            state
                .bits
                .iter()
                .enumerate()
                .fold(0u64, |word, (bit, count)| word | u64::from(is_set(*count)) << bit)
        };
        let words: Vec<u64> = slots.iter().map(|slot| shown(slot).map_or(0, word)).collect();
        let valid = BooleanBuffer::collect_bool(slots.len(), |row| shown(&slots[row]).is_some());
        array_from_words(&self.data_type, &words, Some(NullBuffer::new(valid)))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        let present = || self.states.at(slots).flatten();
        save_flags(self.states.at(slots).map(Option::is_some), out);
        save_integers(present().map(|state| state.values), out);
        save_integers(present().flat_map(|state| state.bits.iter().copied()), out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let flags = load_flags(slots.len(), saved)?;
        let present: Vec<u32> =
            slots.iter().zip(flags).filter(|(_, present)| *present).map(|(slot, _)| *slot).collect();
        let values = load_integers(present.len(), saved)?;
        let bits = load_integers(present.len() * self.width, saved)?;
        let states = values.into_iter().zip(bits.chunks_exact(self.width));
        self.states.put(&present, states.map(|(values, bits)| Some(Counts { values, bits: bits.into() })));
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.states.0.iter().flatten().count() * self.width * 8
    }
}
