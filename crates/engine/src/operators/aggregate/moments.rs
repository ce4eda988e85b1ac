//! Variance, covariance, correlation and linear regression, out of exact sums.
//!
//! A group keeps the exact sums of x and of x * x, and for two arguments those of y, y * y and x * y, see
//! [`ExactFloatSum`]. Only the result is rounded. So neither the order of rows nor any number of retractions shows,
//! and values far from zero do not cancel, as they would in sums of doubles.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use dataflow::{Result, StateReader, StateWriter, StepContext};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::columns::{load_integers, save_integers};
use super::exact_float::ExactFloatSum;
use super::{AggregateCall, AggregateFunction};

/// A statistic of one column, or of the dependent column `y` and the independent one `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    CovarPop,
    CovarSamp,
    Corr,
    RegrCount,
    RegrAvgX,
    RegrAvgY,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    RegrSlope,
    RegrIntercept,
    RegrR2,
}

impl Statistic {
    /// By the planner's name of the function.
    pub fn named(name: &str) -> Option<Statistic> {
        use Statistic::*;
        Some(match name {
            "var" | "var_samp" | "variance" => VarSamp,
            "var_pop" => VarPop,
            "stddev" | "stddev_samp" => StddevSamp,
            "stddev_pop" => StddevPop,
            "covar_samp" | "covar" => CovarSamp,
            "covar_pop" => CovarPop,
            "corr" => Corr,
            "regr_count" => RegrCount,
            "regr_avgx" => RegrAvgX,
            "regr_avgy" => RegrAvgY,
            "regr_sxx" => RegrSxx,
            "regr_syy" => RegrSyy,
            "regr_sxy" => RegrSxy,
            "regr_slope" => RegrSlope,
            "regr_intercept" => RegrIntercept,
            "regr_r2" => RegrR2,
            _ => return None,
        })
    }

    pub fn arguments(self) -> usize {
        use Statistic::*;
        if matches!(self, VarPop | VarSamp | StddevPop | StddevSamp) { 1 } else { 2 }
    }
}

/// The sums of one group. A single column is `x`.
#[derive(Clone, Debug, Default)]
struct Sums {
    count: i64,
    x: ExactFloatSum,
    xx: ExactFloatSum,
    pair: Option<Box<Pair>>,
}

#[derive(Clone, Debug, Default)]
struct Pair {
    y: ExactFloatSum,
    yy: ExactFloatSum,
    xy: ExactFloatSum,
}

impl Sums {
    fn add(&mut self, x: f64, weight: i64) {
        self.count += weight;
        self.x.add(x, weight);
        self.xx.add_product(x, x, weight);
    }

    fn add_pair(&mut self, x: f64, y: f64, weight: i64) {
        self.add(x, weight);
        let pair = self.pair.get_or_insert_default();
        pair.y.add(y, weight);
        pair.yy.add_product(y, y, weight);
        pair.xy.add_product(x, y, weight);
    }

    fn merge(&mut self, other: &Sums, sign: i64) {
        self.count += sign * other.count;
        self.x.merge(&other.x, sign);
        self.xx.merge(&other.xx, sign);
        if let Some(theirs) = &other.pair {
            let pair = self.pair.get_or_insert_default();
            pair.y.merge(&theirs.y, sign);
            pair.yy.merge(&theirs.yy, sign);
            pair.xy.merge(&theirs.xy, sign);
        }
    }

    fn is_zero(&self) -> bool {
        let pair = self.pair.as_ref().is_none_or(|p| p.y.is_zero() && p.yy.is_zero() && p.xy.is_zero());
        self.count == 0 && self.x.is_zero() && self.xx.is_zero() && pair
    }

    /// `count` times the sum of squared (or multiplied) deviations from the means: `n * sum(ab) - sum(a) * sum(b)`.
    fn deviation(&self, ab: &ExactFloatSum, a: &ExactFloatSum, b: &ExactFloatSum) -> f64 {
        let (ab, a, b) = (ab.parts(), a.parts(), b.parts());
        let mut total = ExactFloatSum::default();
        ab.iter().for_each(|part| total.add(*part, self.count));
        for left in &a {
            for right in &b {
                total.add_product(*left, *right, -1);
            }
        }
        total.value()
    }

    fn statistic(&self, statistic: Statistic) -> Option<f64> {
        use Statistic::*;
        let n = self.count as f64;
        let empty = Pair::default();
        let pair = self.pair.as_deref().unwrap_or(&empty);
        let dx = || self.deviation(&self.xx, &self.x, &self.x);
        let dy = || self.deviation(&pair.yy, &pair.y, &pair.y);
        let dxy = || self.deviation(&pair.xy, &self.x, &pair.y);
        if self.count < 1 {
            return None;
        }
        let several = self.count > 1;
        match statistic {
            VarPop => Some(dx() / n / n),
            VarSamp => several.then(|| dx() / n / (n - 1.0)),
            StddevPop => Some((dx() / n / n).sqrt()),
            StddevSamp => several.then(|| (dx() / n / (n - 1.0)).sqrt()),
            CovarPop => Some(dxy() / n / n),
            CovarSamp => several.then(|| dxy() / n / (n - 1.0)),
            RegrAvgX => Some(self.x.value() / n),
            RegrAvgY => Some(pair.y.value() / n),
            RegrSxx => Some(dx() / n),
            RegrSyy => Some(dy() / n),
            RegrSxy => Some(dxy() / n),
            RegrCount => None,
            Corr => {
                let (dx, dy) = (dx(), dy());
                let defined = several && dx != 0.0 && dy != 0.0;
                defined.then(|| (dxy() / dx.sqrt() / dy.sqrt()).clamp(-1.0, 1.0))
            }
            RegrR2 => {
                let (dx, dy, dxy) = (dx(), dy(), dxy());
                (several && dx != 0.0 && dy != 0.0).then(|| (dxy / dx) * (dxy / dy))
            }
            RegrSlope => {
                let dx = dx();
                (several && dx != 0.0).then(|| dxy() / dx)
            }
            RegrIntercept => {
                let dx = dx();
                (several && dx != 0.0).then(|| (pair.y.value() - dxy() / dx * self.x.value()) / n)
            }
        }
    }
}

/// The statistics of one call.
pub struct Moments {
    statistic: Statistic,
    states: States<Sums>,
}

impl Moments {
    /// # Errors
    /// If an argument is not a number, or the result not of the statistic's type.
    pub fn new(call: &AggregateCall, statistic: Statistic, input: &SchemaRef) -> Result<Moments> {
        let wanted = if statistic == Statistic::RegrCount { DataType::UInt64 } else { DataType::Float64 };
        let argument = |column: &usize| input.field(*column).data_type();
        if let Some(other) = call.arguments.iter().map(argument).find(|t| !t.is_numeric()) {
            return Err(unsupported(call, other));
        }
        if *call.output.data_type() != wanted || call.function != AggregateFunction::Statistic(statistic) {
            return Err(unsupported(call, argument(&call.arguments[0])));
        }
        Ok(Moments { statistic, states: States::default() })
    }
}

fn doubles(column: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

impl Accumulator for Moments {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let arguments = self.statistic.arguments();
        let selection = rows.selected(arguments);
        let states = &mut self.states.0;
        let first = doubles(&rows.columns[0])?;
        if arguments == 1 {
            rows.each(selection.as_ref(), |row, slot, weight| states[slot].add(first.value(row), weight));
        } else {
            // The dependent column comes first.
            let second = doubles(&rows.columns[1])?;
            rows.each(selection.as_ref(), |row, slot, weight| {
                states[slot].add_pair(second.value(row), first.value(row), weight);
            });
        }
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let other = self.states.of(*from).clone();
            self.states.0[*into as usize].merge(&other, sign);
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_zero()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        if self.statistic == Statistic::RegrCount {
            let counts = slots.iter().map(|slot| self.states.of(*slot).count.max(0) as u64);
            return Ok(Arc::new(UInt64Array::from_iter_values(counts)));
        }
        let values = slots.iter().map(|slot| self.states.of(*slot).statistic(self.statistic));
        Ok(Arc::new(Float64Array::from_iter(values)))
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_integers(self.states.at(slots).map(|sums| sums.count), out);
        for sums in self.states.at(slots) {
            sums.x.save(out);
            sums.xx.save(out);
            out.option(sums.pair.as_ref(), |out, pair| {
                [&pair.y, &pair.yy, &pair.xy].into_iter().for_each(|sum| sum.save(out));
            });
        }
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        for (slot, count) in slots.iter().zip(load_integers(slots.len(), saved)?) {
            let (x, xx) = (ExactFloatSum::load(saved)?, ExactFloatSum::load(saved)?);
            let pair = saved.option(|saved| {
                let mut sum = || ExactFloatSum::load(saved);
                Ok(Box::new(Pair { y: sum()?, yy: sum()?, xy: sum()? }))
            })?;
            self.states.0[*slot as usize] = Sums { count, x, xx, pair };
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        let pairs = if self.statistic.arguments() == 2 { size_of::<Pair>() } else { 0 };
        self.states.size_bytes() + self.states.0.len() * pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_far_from_zero_do_not_cancel_and_retractions_leave_no_trace() {
        let mut sums = Sums::default();
        for i in 0..1000 {
            sums.add(1e9 + f64::from(i % 3), 1);
            sums.add(1e-9 * f64::from(i), 1);
            sums.add(-3.7e150, 1);
        }
        for i in 0..1000 {
            sums.add(1e-9 * f64::from(i), -1);
            sums.add(-3.7e150, -1);
        }
        // 334 times 0, 333 times 1 and 2: n * sum of squares - square of the sum.
        let exact = f64::from(1000 * (333 + 4 * 333) - 999 * 999) / 1000.0 / 1000.0;
        assert_eq!(sums.statistic(Statistic::VarPop), Some(exact));
        for i in 0..1000 {
            sums.add(1e9 + f64::from(i % 3), -1);
        }
        assert!(sums.is_zero());
        assert_eq!(sums.statistic(Statistic::VarPop), None);
    }

    #[test]
    fn a_line_is_found_exactly() {
        let mut sums = Sums::default();
        for i in 0..100 {
            let x = 1e6 + f64::from(i) * 0.25;
            sums.add_pair(x, 3.0 * x - 7.0, 2);
        }
        assert_eq!(sums.statistic(Statistic::RegrSlope), Some(3.0));
        assert_eq!(sums.statistic(Statistic::RegrIntercept), Some(-7.0));
        assert!(sums.statistic(Statistic::Corr).is_some_and(|corr| (1.0 - corr).abs() < 1e-15));
        assert_eq!(sums.statistic(Statistic::RegrR2), Some(1.0));
        assert_eq!(sums.count, 200);
        sums.add_pair(f64::NAN, 1.0, 1);
        assert!(sums.statistic(Statistic::RegrSlope).unwrap().is_nan());
        sums.add_pair(f64::NAN, 1.0, -1);
        assert_eq!(sums.statistic(Statistic::RegrSlope), Some(3.0));
    }
}
