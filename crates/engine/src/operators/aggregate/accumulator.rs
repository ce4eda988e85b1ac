//! What a call keeps per group: one column of states, indexed by the group's slot.
//!
//! Every accumulator is linear: its state is a function of the sum of all weighted rows, so a
//! retraction undoes an insertion wherever steps are cut. The exceptions are the cheap forms for
//! append-only inputs (extremes that keep one value, distinct sets without counts), which only take weights
//! above zero.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{Error, Result, StateReader, StateWriter, StepContext};

use super::bits::Bits;
use super::bools::Bools;
use super::collect::Collect;
use super::distinct::Distinct;
use super::extreme;
use super::moments::Moments;
use super::number::{self, FloatSum, WholeSum};
use super::ordered::Ordered;
use super::sketches::{DistinctEstimate, PercentileEstimate};
use super::{AggregateCall, AggregateFunction};

/// The states of one call, for all groups.
pub trait Accumulator: Send {
    /// Makes room for slots `0..slots_len`; new states are those of an empty group.
    fn grow(&mut self, slots_len: usize);

    /// Adds rows to the groups whose slots they name.
    fn update(&mut self, rows: &CallRows<'_>) -> Result<()>;

    /// Adds the states of the slots `from` to those of the slots `into` (pairwise), or with
    /// `sign` -1 takes them away, which only [invertible](Accumulator::invertible) accumulators can.
    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()>;

    fn invertible(&self) -> bool {
        true
    }

    /// True when all that came into the slot was taken away again.
    fn is_zero(&self, slot: u32) -> bool;

    /// Makes the slots empty groups again and frees what they held.
    fn reset(&mut self, slots: &[u32]);

    /// The results of these slots.
    fn evaluate(&self, slots: &[u32], ctx: &mut StepContext) -> Result<ArrayRef>;

    /// The state of slot `live[i]` moves to slot `i`; all others are dropped.
    fn renumber(&mut self, live: &[u32]);

    /// Writes the states of these slots.
    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()>;

    /// Takes in what an accumulator of the same call saved of as many slots. These slots are there and empty.
    ///
    /// # Errors
    /// When it was written by something else.
    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()>;

    fn size_bytes(&self) -> usize;
}

/// The rows of one step as a call sees them.
pub struct CallRows<'a> {
    /// Per row: the slot of its group.
    pub slots: &'a [u32],
    /// Per row; `None` when all are 1.
    pub weights: Option<&'a [i64]>,
    /// The call's arguments, then its ORDER BY columns.
    pub columns: Vec<ArrayRef>,
    /// Rows that pass the call's FILTER; `None` when all do.
    pub filter: Option<BooleanBuffer>,
}

impl CallRows<'_> {
    /// Rows that pass the filter and have a value in each of the first `columns` columns.
    pub fn selected(&self, columns: usize) -> Option<BooleanBuffer> {
        let mut selection = self.filter.clone();
        for column in &self.columns[..columns] {
            if let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
                selection = Some(match selection {
                    None => nulls.inner().clone(),
                    Some(selection) => &selection & nulls.inner(),
                });
            }
        }
        selection
    }

    /// Calls `f(row, slot, weight)` for the selected rows.
    #[inline(always)]
    pub fn each(&self, selection: Option<&BooleanBuffer>, mut f: impl FnMut(usize, usize, i64)) {
        match (selection, self.weights) {
            (None, None) => {
                for (row, slot) in self.slots.iter().enumerate() {
                    f(row, *slot as usize, 1);
                }
            }
            (None, Some(weights)) => {
                for (row, (slot, weight)) in self.slots.iter().zip(weights).enumerate() {
                    f(row, *slot as usize, *weight);
                }
            }
            (Some(selection), None) => {
                for row in selection.set_indices() {
                    f(row, self.slots[row] as usize, 1);
                }
            }
            (Some(selection), Some(weights)) => {
                for row in selection.set_indices() {
                    f(row, self.slots[row] as usize, weights[row]);
                }
            }
        }
    }
}

/// What is known about the rows that will come.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// No row is ever taken away.
    pub append_only: bool,
    /// States are taken away from each other again (running windows), so that even
    /// append-only distinct sets need counts.
    pub subtracts: bool,
}

/// The accumulator for a call.
///
/// # Errors
/// If the call's argument and result types do not go together.
pub fn accumulator(
    call: &AggregateCall,
    input: &SchemaRef,
    expect: Expectation,
) -> Result<Box<dyn Accumulator>> {
    use AggregateFunction::*;
    let arguments: Vec<DataType> =
        call.arguments.iter().map(|column| input.field(*column).data_type().clone()).collect();
    let wanted = match call.function {
        Count => arguments.len(),
        StringAgg => 2,
        Statistic(statistic) => statistic.arguments(),
        _ => 1,
    };
    if arguments.len() != wanted {
        let (name, given) = (call.output.name(), arguments.len());
        return Err(Error::Operator(format!("aggregate \"{name}\" takes {wanted} arguments, not {given}")));
    }
    // Duplicates can't change the smallest, the largest, or whether any or all are true.
    let indifferent = matches!(
        call.function,
        Min | Max
            | BoolAnd
            | BoolOr
            | BitAnd
            | BitOr
            | FirstValue { .. }
            | LastValue { .. }
            | ApproxCountDistinct
    );
    let distinct = call.distinct && !indifferent;
    if distinct {
        let inner = match call.function {
            Count => None,
            _ => {
                // What passes the set of distinct values comes and goes, whatever the input does.
                let plain = AggregateCall { distinct: false, ..call.clone() };
                Some(accumulator(&plain, input, Expectation { append_only: false, ..expect })?)
            }
        };
        return Ok(Box::new(Distinct::new(call, input, inner, expect)?));
    }
    let result = call.output.data_type();
    match call.function {
        Count => Ok(Box::new(number::Count::new(arguments.len()))),
        Sum | Avg => match &arguments[0] {
            DataType::Float32 | DataType::Float64 => Ok(Box::new(FloatSum::new(call)?)),
            argument => Ok(Box::new(WholeSum::new(call, argument)?)),
        },
        Min | Max => extreme::accumulator(call, &arguments[0], expect.append_only),
        BoolAnd | BoolOr if arguments[0] == DataType::Boolean && *result == DataType::Boolean => {
            Ok(Box::new(Bools::new(call.function == BoolAnd)))
        }
        BoolAnd | BoolOr => Err(unsupported(call, &arguments[0])),
        StringAgg | ArrayAgg => Ok(Box::new(Collect::new(call, input)?)),
        BitAnd | BitOr | BitXor => Ok(Box::new(Bits::new(call, input)?)),
        FirstValue { .. } | LastValue { .. } | PercentileCont(_) | PercentileDisc(_) | Mode => {
            Ok(Box::new(Ordered::new(call, input, expect.append_only)?))
        }
        Statistic(statistic) => Ok(Box::new(Moments::new(call, statistic, input)?)),
        ApproxCountDistinct if expect.append_only => Ok(Box::new(DistinctEstimate::new(call, input)?)),
        ApproxCountDistinct => {
            let exact = AggregateCall { function: Count, distinct: true, ..call.clone() };
            Ok(Box::new(Distinct::new(&exact, input, None, expect)?))
        }
        ApproxPercentile(fraction, accuracy) => {
            Ok(Box::new(PercentileEstimate::new(call, (fraction, accuracy), input)?))
        }
    }
}

/// The planner let a call through that we can't compute.
pub fn unsupported(call: &AggregateCall, argument: &DataType) -> Error {
    Error::Operator(format!(
        "aggregate \"{}\" ({:?}) can't be computed from {argument} to {}; cast its argument",
        call.output.name(),
        call.function,
        call.output.data_type(),
    ))
}

/// One state per slot, for accumulators whose states own nothing else.
#[derive(Debug, Default)]
pub struct States<S>(pub Vec<S>);

impl<S: Default> States<S> {
    pub fn grow(&mut self, slots_len: usize) {
        if self.0.len() < slots_len {
            self.0.resize_with(slots_len, S::default);
        }
    }

    #[inline]
    pub fn of(&self, slot: u32) -> &S {
        &self.0[slot as usize]
    }

    /// The states of these slots, in their order.
    pub fn at<'a>(&'a self, slots: &'a [u32]) -> impl Iterator<Item = &'a S> {
        slots.iter().map(|slot| &self.0[*slot as usize])
    }

    /// Gives each of the slots its state.
    pub fn put(&mut self, slots: &[u32], states: impl IntoIterator<Item = S>) {
        for (slot, state) in slots.iter().zip(states) {
            self.0[*slot as usize] = state;
        }
    }

    pub fn reset(&mut self, slots: &[u32]) {
        for slot in slots {
            self.0[*slot as usize] = S::default();
        }
    }

    pub fn renumber(&mut self, live: &[u32]) {
        self.0 = live.iter().map(|slot| std::mem::take(&mut self.0[*slot as usize])).collect();
    }

    pub fn size_bytes(&self) -> usize {
        self.0.capacity() * size_of::<S>()
    }
}
