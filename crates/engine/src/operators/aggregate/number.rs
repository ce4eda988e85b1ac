//! Counting and adding: count, sum, avg.
//!
//! Whole numbers and decimals are added up in 192 bits and floats exactly (see [`ExactFloatSum`]), so that no
//! intermediate sum overflows or rounds, and a retraction always leads back. Only the result is fitted
//! into its type: one that does not fit is NULL, and reported.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type, i256,
};
use dataflow::{Result, StateReader, StateWriter, StepContext};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::columns::{load_integers, load_wide, save_integers, save_wide};
use super::exact_float::ExactFloatSum;
use super::{AggregateCall, AggregateFunction};

/// count(x): rows in which every argument has a value.
pub struct Count {
    arguments: usize,
    counts: States<i64>,
}

impl Count {
    pub fn new(arguments: usize) -> Count {
        Count { arguments, counts: States::default() }
    }
}

impl Accumulator for Count {
    fn grow(&mut self, slots_len: usize) {
        self.counts.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let counts = &mut self.counts.0;
        rows.each(rows.selected(self.arguments).as_ref(), |_, slot, weight| counts[slot] += weight);
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            self.counts.0[*into as usize] += sign * self.counts.of(*from);
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        *self.counts.of(slot) == 0
    }

    fn reset(&mut self, slots: &[u32]) {
        self.counts.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| *self.counts.of(*slot)))))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.counts.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_integers(self.counts.at(slots).copied(), out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        self.counts.put(slots, load_integers(slots.len(), saved)?);
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.counts.size_bytes()
    }
}

/// A sum of whole numbers in 192 bits, and how many were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeState {
    // The sum is `high * 2^128 + low`.
    low: u128,
    high: i64,
    pub count: i64,
}

impl WholeState {
    #[inline]
    fn add(&mut self, value: i128) {
        let (low, carry) = self.low.overflowing_add(value as u128);
        self.low = low;
        self.high += (value >> 127) as i64 + i64::from(carry);
    }

    #[inline]
    pub fn add_weighted(&mut self, value: i128, weight: i64) {
        self.count += weight;
        match value.checked_mul(i128::from(weight)) {
            Some(product) => self.add(product),
            None => {
                // By halves of the value: each product fits 128 bits.
                let upper = (value >> 64) * i128::from(weight);
                self.add(i128::from(value as u64) * i128::from(weight));
                let (low, carry) = self.low.overflowing_add((upper as u128) << 64);
                self.low = low;
                self.high += (upper >> 64) as i64 + i64::from(carry);
            }
        }
    }

    pub fn save(&self, out: &mut StateWriter) {
        out.i128(self.low as i128);
        out.i64(self.high);
        out.i64(self.count);
    }

    /// # Errors
    /// When it ends early.
    pub fn load(saved: &mut StateReader<'_>) -> Result<WholeState> {
        Ok(WholeState { low: saved.i128()? as u128, high: saved.i64()?, count: saved.i64()? })
    }

    fn merge(&mut self, other: WholeState, sign: i64) {
        let (low, carry) =
            if sign > 0 { self.low.overflowing_add(other.low) } else { self.low.overflowing_sub(other.low) };
        self.low = low;
        self.high += sign * (other.high + i64::from(carry));
        self.count += sign * other.count;
    }

    fn sum(&self) -> Option<i128> {
        let sum = self.low as i128;
        (self.high == (sum >> 127) as i64).then_some(sum)
    }

    fn wide_sum(&self) -> i256 {
        i256::from_parts(self.low, i128::from(self.high))
    }

    /// What of `high` the low half does not tell: 0 for a sum that fits 128 bits.
    fn excess(&self) -> i64 {
        self.high.wrapping_sub((self.low as i128 >> 127) as i64)
    }
}

/// Turned when a sum is saved, so that small sums of both signs are near each other.
const SIGN: u128 = 1 << 127;

/// What a sum becomes in the end.
#[derive(Clone, Copy, Debug)]
pub enum WholeResult {
    Int64,
    UInt64,
    Decimal {
        precision: u8,
        scale: i8,
    },
    AverageFloat,
    /// The sum times `factor`, divided by the count and cut towards zero, as DataFusion's avg does.
    AverageDecimal {
        precision: u8,
        scale: i8,
        factor: i128,
    },
}

impl WholeResult {
    /// # Errors
    /// If the argument's and result's types do not go together.
    pub fn of(call: &AggregateCall, argument: &DataType) -> Result<WholeResult> {
        use DataType::*;
        let average = call.function == AggregateFunction::Avg;
        let integer = argument.is_integer();
        match (average, argument, call.output.data_type()) {
            (false, _, Int64) if integer => Ok(WholeResult::Int64),
            (false, _, UInt64) if integer => Ok(WholeResult::UInt64),
            (false, Decimal128(_, from), Decimal128(precision, scale)) if from == scale => {
                Ok(WholeResult::Decimal { precision: *precision, scale: *scale })
            }
            (true, _, Float64) if integer => Ok(WholeResult::AverageFloat),
            (true, Decimal128(_, from), Decimal128(precision, scale)) if scale >= from => {
                let factor = 10i128.pow((*scale - *from) as u32);
                Ok(WholeResult::AverageDecimal { precision: *precision, scale: *scale, factor })
            }
            _ => Err(unsupported(call, argument)),
        }
    }

    /// The result as a whole number or unscaled decimal; `None` when it does not fit its type.
    ///
    /// # Panics
    /// If the result is a float, or the state has no values.
    pub fn whole(self, state: &WholeState) -> Option<i128> {
        let fits = |precision: u8| {
            let limit = 10i128.pow(u32::from(precision));
            move |value: &i128| -limit < *value && *value < limit
        };
        match self {
            WholeResult::Int64 => state.sum().filter(|sum| i64::try_from(*sum).is_ok()),
            WholeResult::UInt64 => state.sum().filter(|sum| u64::try_from(*sum).is_ok()),
            WholeResult::Decimal { precision, .. } => state.sum().filter(fits(precision)),
            WholeResult::AverageDecimal { precision, factor, .. } => {
                let average = match state.sum().and_then(|sum| sum.checked_mul(factor)) {
                    Some(scaled) => scaled / i128::from(state.count),
                    None => {
                        let scaled = state.wide_sum().checked_mul(i256::from_i128(factor))?;
                        scaled.checked_div(i256::from_i128(i128::from(state.count)))?.to_i128()?
                    }
                };
                Some(average).filter(fits(precision))
            }
            WholeResult::AverageFloat => unreachable!("an average of integers is a float"),
        }
    }

    /// An average of integers.
    pub fn average(state: &WholeState) -> Option<f64> {
        Some(state.sum()? as f64 / state.count as f64)
    }
}

/// sum and avg of integers and decimals.
pub struct WholeSum {
    name: String,
    argument: DataType,
    result: WholeResult,
    states: States<WholeState>,
}

impl WholeSum {
    /// # Errors
    /// If the argument's and result's types do not go together.
    pub fn new(call: &AggregateCall, argument: &DataType) -> Result<WholeSum> {
        let result = WholeResult::of(call, argument)?;
        Ok(WholeSum {
            name: call.output.name().clone(),
            argument: argument.clone(),
            result,
            states: States::default(),
        })
    }

    fn add<T: ArrowPrimitiveType>(&mut self, rows: &CallRows<'_>)
    where
        T::Native: Into<i128>,
    {
        let values = rows.columns[0].as_primitive::<T>().values();
        let selection = rows.selected(1);
        let states = &mut self.states.0;
        if rows.weights.is_none() {
            rows.each(selection.as_ref(), |row, slot, _| {
                let state = &mut states[slot];
                state.add(values[row].into());
                state.count += 1;
            });
        } else {
            rows.each(selection.as_ref(), |row, slot, weight| {
                states[slot].add_weighted(values[row].into(), weight);
            });
        }
    }

    fn decimals(
        &self,
        slots: &[u32],
        (precision, scale): (u8, i8),
        ctx: &mut StepContext,
    ) -> Result<ArrayRef> {
        let values = self.fitted(slots, ctx, |state| self.result.whole(state));
        let array = Decimal128Array::from_iter(values);
        Ok(Arc::new(array.with_precision_and_scale(precision, scale)?))
    }

    /// The results; groups without values give NULL, those whose value does not fit too, with a report.
    fn fitted<V>(
        &self,
        slots: &[u32],
        ctx: &mut StepContext,
        value: impl Fn(&WholeState) -> Option<V>,
    ) -> Vec<Option<V>> {
        let fit = |slot: &u32| {
            let state = self.states.of(*slot);
            if state.count <= 0 {
                return None;
            }
            let value = value(state);
            if value.is_none() {
                ctx.report_error(|| format!("\"{}\" does not fit its type and became NULL", self.name));
            }
            value
        };
        slots.iter().map(fit).collect()
    }
}

impl Accumulator for WholeSum {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        match &self.argument {
            DataType::Int8 => self.add::<Int8Type>(rows),
            DataType::Int16 => self.add::<Int16Type>(rows),
            DataType::Int32 => self.add::<Int32Type>(rows),
            DataType::Int64 => self.add::<Int64Type>(rows),
            DataType::UInt8 => self.add::<UInt8Type>(rows),
            DataType::UInt16 => self.add::<UInt16Type>(rows),
            DataType::UInt32 => self.add::<UInt32Type>(rows),
            DataType::UInt64 => self.add::<UInt64Type>(rows),
            _ => self.add::<Decimal128Type>(rows),
        }
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let other = *self.states.of(*from);
            self.states.0[*into as usize].merge(other, sign);
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        *self.states.of(slot) == WholeState::default()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], ctx: &mut StepContext) -> Result<ArrayRef> {
        match self.result {
            WholeResult::Int64 => {
                let values = self.fitted(slots, ctx, |state| self.result.whole(state).map(|sum| sum as i64));
                Ok(Arc::new(Int64Array::from(values)))
            }
            WholeResult::UInt64 => {
                let values = self.fitted(slots, ctx, |state| self.result.whole(state).map(|sum| sum as u64));
                Ok(Arc::new(UInt64Array::from(values)))
            }
            WholeResult::AverageFloat => {
                let values = self.fitted(slots, ctx, WholeResult::average);
                Ok(Arc::new(Float64Array::from(values)))
            }
            WholeResult::Decimal { precision, scale }
            | WholeResult::AverageDecimal { precision, scale, .. } => {
                self.decimals(slots, (precision, scale), ctx)
            }
        }
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_integers(self.states.at(slots).map(|state| state.count), out);
        save_wide(self.states.at(slots).map(|state| state.low ^ SIGN), out);
        let fit = self.states.at(slots).all(|state| state.excess() == 0);
        out.bool(fit);
        if !fit {
            save_integers(self.states.at(slots).map(WholeState::excess), out);
        }
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let counts = load_integers(slots.len(), saved)?;
        let sums = load_wide(slots.len(), saved)?;
        let states = counts.iter().zip(&sums).map(|(count, sum)| {
            let low = sum ^ SIGN;
            WholeState { low, high: (low as i128 >> 127) as i64, count: *count }
        });
        self.states.put(slots, states);
        let fit = saved.bool()?;
        if !fit {
            for (slot, excess) in slots.iter().zip(load_integers(slots.len(), saved)?) {
                let high = &mut self.states.0[*slot as usize].high;
                *high = high.wrapping_add(excess);
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes()
    }
}

/// sum and avg of floats; avg divides the rounded exact sum by the count.
pub struct FloatSum {
    average: bool,
    states: States<(ExactFloatSum, i64)>,
}

impl FloatSum {
    /// # Errors
    /// If the result is not a double.
    pub fn new(call: &AggregateCall) -> Result<FloatSum> {
        if *call.output.data_type() != DataType::Float64 {
            return Err(unsupported(call, &DataType::Float64));
        }
        Ok(FloatSum { average: call.function == AggregateFunction::Avg, states: States::default() })
    }

    fn add<T: ArrowPrimitiveType>(&mut self, rows: &CallRows<'_>)
    where
        T::Native: Into<f64>,
    {
        let values = rows.columns[0].as_primitive::<T>().values();
        let states = &mut self.states.0;
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| {
            let (sum, count) = &mut states[slot];
            sum.add(values[row].into(), weight);
            *count += weight;
        });
    }
}

impl Accumulator for FloatSum {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        match rows.columns[0].data_type() {
            DataType::Float32 => self.add::<Float32Type>(rows),
            _ => self.add::<Float64Type>(rows),
        }
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let (other, other_count) = self.states.of(*from).clone();
            let (sum, count) = &mut self.states.0[*into as usize];
            sum.merge(&other, sign);
            *count += sign * other_count;
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        let (sum, count) = self.states.of(slot);
        *count == 0 && sum.is_zero()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let value = |slot: &u32| {
            let (sum, count) = self.states.of(*slot);
            (*count > 0).then(|| if self.average { sum.value() / *count as f64 } else { sum.value() })
        };
        Ok(Arc::new(Float64Array::from_iter(slots.iter().map(value))))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_integers(self.states.at(slots).map(|(_, count)| *count), out);
        self.states.at(slots).for_each(|(sum, _)| sum.save(out));
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        for (slot, count) in slots.iter().zip(load_integers(slots.len(), saved)?) {
            self.states.0[*slot as usize] = (ExactFloatSum::load(saved)?, count);
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        // Groups with a second limb are rare enough to leave them out of this figure.
        self.states.size_bytes()
    }
}
