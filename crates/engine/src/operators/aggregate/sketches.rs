//! approx_count_distinct and approx_percentile: states of bounded size per group.
//!
//! A sketch of distinct values can't forget one, so it serves inputs that are only added to; where rows can be taken
//! away the values are counted exactly instead. The buckets of a percentile are counts, which retractions undo.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use dataflow::{Result, StateReader, StateWriter, StepContext};
use sql::aggregates::ValueHasher;
use sql::aggregates::sketch::{DistinctSketch, QuantileSketch};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::columns::{check_order, damaged, load_integers, load_sets, save_integers, save_lengths};
use super::{AggregateCall, Fraction};

/// What a register of a [`DistinctSketch`] holds at most: the place of the first set bit of 50, or one more.
const RANK_MAX: u8 = 51;

/// approx_count_distinct over rows that are never taken away.
pub struct DistinctEstimate {
    hasher: ValueHasher,
    states: States<DistinctSketch>,
}

impl DistinctEstimate {
    /// # Errors
    /// If the argument's values can't be compared.
    pub fn new(call: &AggregateCall, input: &SchemaRef) -> Result<DistinctEstimate> {
        let hasher = ValueHasher::new(input.field(call.arguments[0]).data_type())?;
        Ok(DistinctEstimate { hasher, states: States::default() })
    }
}

impl Accumulator for DistinctEstimate {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let mut hashes = vec![0; rows.slots.len()];
        self.hasher.each(&rows.columns[0], |row, hash| hashes[row] = hash)?;
        let states = &mut self.states.0;
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| {
            debug_assert!(weight > 0, "a sketch of distinct values forgets none");
            states[slot].add(hashes[row]);
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        assert!(sign > 0, "a sketch of distinct values can't be taken back");
        for (from, into) in from.iter().zip(into) {
            let other = std::mem::take(&mut self.states.0[*from as usize]);
            self.states.0[*into as usize].merge(&other);
            self.states.0[*from as usize] = other;
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        false
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_empty()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.states.of(*slot).count()))))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        for sketch in self.states.at(slots) {
            out.bool(matches!(sketch, DistinctSketch::Registers(_)));
            match sketch {
                DistinctSketch::Hashes(hashes) => out.all(hashes.iter(), |out, hash| out.u64(*hash)),
                DistinctSketch::Registers(registers) => out.bytes(registers.as_slice()),
            }
        }
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        for slot in slots {
            let sketch = if saved.bool()? {
                let registers: Box<[u8]> = saved.bytes()?.into();
                if registers.iter().any(|rank| *rank > RANK_MAX) {
                    return Err(damaged("a register is out of range"));
                }
                let registers = registers.try_into().map_err(|_| damaged("registers are missing"))?;
                DistinctSketch::Registers(registers)
            } else {
                let hashes = (0..saved.count()?).map(|_| saved.u64()).collect::<Result<Vec<u64>>>()?;
                check_order(&hashes)?;
                DistinctSketch::Hashes(hashes)
            };
            self.states.0[*slot as usize] = sketch;
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.states.0.iter().map(DistinctSketch::heap_bytes).sum::<usize>()
    }
}

/// approx_percentile.
pub struct PercentileEstimate {
    fraction: f64,
    accuracy: f64,
    states: States<QuantileSketch>,
}

impl PercentileEstimate {
    /// # Errors
    /// If the argument is not a number.
    pub fn new(
        call: &AggregateCall,
        (fraction, accuracy): (Fraction, Fraction),
        input: &SchemaRef,
    ) -> Result<PercentileEstimate> {
        let argument = input.field(call.arguments[0]).data_type();
        if !argument.is_numeric() || *call.output.data_type() != DataType::Float64 {
            return Err(unsupported(call, argument));
        }
        let descending = call.order_by.first().is_some_and(|(_, options)| options.descending);
        let fraction = if descending { 1.0 - fraction.value() } else { fraction.value() };
        Ok(PercentileEstimate { fraction, accuracy: accuracy.value(), states: States::default() })
    }
}

impl Accumulator for PercentileEstimate {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let values = cast(&rows.columns[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let (states, accuracy) = (&mut self.states.0, self.accuracy);
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| {
            if values.is_valid(row) && !values.value(row).is_nan() {
                states[slot].add(values.value(row), accuracy, weight);
            }
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let other = std::mem::take(&mut self.states.0[*from as usize]);
            self.states.0[*into as usize].merge(&other, sign);
            self.states.0[*from as usize] = other;
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_empty()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let value = |slot: &u32| self.states.of(*slot).value_at(self.fraction, self.accuracy);
        Ok(Arc::new(Float64Array::from_iter(slots.iter().map(value))))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_lengths(self.states.at(slots).map(QuantileSketch::buckets), out);
        let numbers: Vec<i64> = self.states.at(slots).flat_map(QuantileSketch::to_numbers).collect();
        save_integers(numbers.iter().skip(1).step_by(2).copied(), out);
        save_integers(numbers.iter().step_by(2).copied(), out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let buckets = |count, saved: &mut StateReader<'_>| {
            let buckets = load_integers(count, saved)?;
            let in_range = buckets.iter().all(|bucket| i32::try_from(*bucket).is_ok());
            if in_range { Ok(buckets) } else { Err(damaged("buckets are out of range")) }
        };
        load_sets(slots, saved, buckets, |slot, entries| {
            entries.for_each(|(bucket, count)| self.states.0[slot as usize].merge_numbers(&[bucket, count]));
        })
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.states.0.iter().map(|state| state.buckets() * 24).sum::<usize>()
    }
}
