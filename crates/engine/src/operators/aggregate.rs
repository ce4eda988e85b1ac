//! GROUP BY: one output row per group, kept up to date under insertions and retractions.
//!
//! ```text
//!   rows --(late ones dropped)--> key --> slot --> states of the calls   (columns, one loop per call)
//!                                           |
//!              old results of touched slots, new results --> -old +new
//! ```
//!
//! A group changes at most once per step, however many rows touched it: `-old` and `+new`, or nothing
//! when they are equal. A group without rows disappears; the one group of an aggregate without keys
//! is there from the first step on and never goes.
//!
//! State: per group the key, the number of its rows, and what [`accumulator`] says for each call.
//! With an [`Expiry`] groups are listed by the end of their window. When the watermark passes that end, EMIT ON
//! WINDOW CLOSE gives the group's row; when it passes the end plus the allowed lateness, the group is freed. Rows
//! whose window was freed before the step are late: counted and dropped. A NULL in the expiry column belongs to no
//! window: such a group is kept when results are updated, and can never be emitted on close, so it is dropped.
//!
//! Rules of the calls: NULL arguments are skipped (array_agg keeps them), nothing but NULLs gives NULL (0 for count).
//! Sums are exact, see [`number`] and [`exact_float`]. Extremes and groups treat floats by total
//! order, except that -0.0 and 0.0 are one group and one DISTINCT value.
//!
//! Cost: one hash lookup per row and one addition per row and call; min, max, string_agg and array_agg over
//! inputs with retractions cost a search in the group's ordered values.

pub(super) mod accumulator;
mod bits;
mod bools;
pub(super) mod change;
mod collect;
pub(super) mod columns;
mod distinct;
pub(super) mod exact_float;
mod extreme;
mod group_table;
pub(super) mod groups;
mod moments;
mod multiset;
pub(super) mod number;
mod ordered;
mod ranked;
mod sketches;
pub(super) mod window_index;
mod words;

#[cfg(test)]
pub(super) mod oracle;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit, TimestampMicrosecondType};
use dataflow::{
    Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, Watermark, ZSet,
};

use crate::operators::{Emit, Expiry};

pub(super) use accumulator::Expectation;
use change::{Shown, batch, change};
use groups::Groups;
pub use moments::Statistic;
use window_index::WindowIndex;

/// What a call computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    StringAgg,
    ArrayAgg,
    BitAnd,
    BitOr,
    BitXor,
    FirstValue {
        ignore_nulls: bool,
    },
    LastValue {
        ignore_nulls: bool,
    },
    PercentileCont(Fraction),
    PercentileDisc(Fraction),
    Mode,
    Statistic(Statistic),
    ApproxCountDistinct,
    /// At this fraction, and how far off the answer may be.
    ApproxPercentile(Fraction, Fraction),
}

/// A constant between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction(u64);

impl Fraction {
    pub fn new(value: f64) -> Fraction {
        assert!((0.0..=1.0).contains(&value), "planning checks fractions");
        Fraction(value.to_bits())
    }

    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// One aggregate call: `sum(DISTINCT price ORDER BY ...) FILTER (WHERE ...)`.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    /// Input columns; none for count(*). string_agg: value, delimiter.
    pub arguments: Vec<usize>,
    /// Boolean input column: only rows where it is true count (FILTER).
    pub filter: Option<usize>,
    pub distinct: bool,
    /// ORDER BY inside the call: input columns.
    pub order_by: Vec<(usize, SortOptions)>,
    /// Name, type and nullability of the result as the planner typed it.
    pub output: FieldRef,
}

/// What an [`Aggregate`] does.
#[derive(Clone, Debug)]
pub struct AggregateSpec {
    pub input: SchemaRef,
    /// Group columns of the input, in output order; empty for one group over everything, which always gives one row.
    pub keys: Vec<usize>,
    pub calls: Vec<AggregateCall>,
    /// Key columns first, then one column per call.
    pub output: SchemaRef,
    /// Whether every input change is known to be an insertion.
    pub append_only: bool,
    /// When groups end; its column is one of `keys`.
    pub expiry: Option<Expiry>,
    pub emit: Emit,
}

impl AggregateSpec {
    /// # Errors
    /// If columns are missing, or output fields do not match.
    pub(super) fn check(&self, key_columns: usize) -> Result<()> {
        let columns = self.input.fields().len();
        let calls = self.calls.iter().flat_map(|call| {
            call.arguments.iter().chain(&call.filter).chain(call.order_by.iter().map(|(column, _)| column))
        });
        if let Some(column) = self.keys.iter().chain(calls).find(|column| **column >= columns) {
            return Err(Error::Operator(format!("aggregate reads column {column} of an input of {columns}")));
        }
        if self.output.fields().len() != key_columns + self.calls.len() {
            let (given, wanted) = (self.output.fields().len(), key_columns + self.calls.len());
            return Err(Error::Operator(format!(
                "aggregate gives {wanted} columns, its schema names {given}"
            )));
        }
        for filter in self.calls.iter().filter_map(|call| call.filter) {
            let field = self.input.field(filter);
            if *field.data_type() != DataType::Boolean {
                return Err(Error::Operator(format!("FILTER column \"{}\" is not boolean", field.name())));
            }
        }
        Ok(())
    }
}

/// GROUP BY with aggregate calls; also SELECT DISTINCT, when there are none.
pub struct Aggregate {
    spec: AggregateSpec,
    groups: Groups,
    /// The key column, by number among the keys, that the expiry looks at.
    expiry_key: usize,
    windows: WindowIndex,
    /// The last watermark: windows that end by it gave their result.
    closed_through: Watermark,
    /// The global group's first row went out.
    started: bool,
    /// A retraction came, or may come: groups can become empty.
    shrinks: bool,
}

impl Aggregate {
    /// # Errors
    /// If the spec contradicts itself, or asks for a type that can't be handled.
    pub fn new(spec: AggregateSpec) -> Result<Aggregate> {
        spec.check(spec.keys.len())?;
        let expiry_key = match spec.expiry {
            None if spec.emit == Emit::OnClose => {
                return Err(Error::Operator("EMIT ON WINDOW CLOSE needs a window in GROUP BY".to_owned()));
            }
            None => 0,
            Some(expiry) => {
                let position = spec.keys.iter().position(|key| *key == expiry.column);
                let is_time = |key: &usize| is_time(spec.input.field(spec.keys[*key]).data_type());
                position.filter(is_time).ok_or_else(|| {
                    Error::Operator(
                        "windows must end by a timestamp (microseconds) column of GROUP BY".to_owned(),
                    )
                })?
            }
        };
        let keys = spec.keys.iter().map(|key| Arc::new(spec.input.field(*key).clone())).collect();
        let expect = Expectation { append_only: spec.append_only, subtracts: false };
        let groups = Groups::new(keys, &spec.calls, &spec.input, expect)?;
        Ok(Aggregate {
            shrinks: !spec.append_only,
            groups,
            expiry_key,
            windows: WindowIndex::default(),
            closed_through: Watermark::MIN,
            started: false,
            spec,
        })
    }

    /// The rows whose windows are still open for them.
    fn in_time<'a>(&self, input: &'a ZSet, ctx: &mut StepContext) -> Result<Cow<'a, ZSet>> {
        let Some(expiry) = self.spec.expiry else { return Ok(Cow::Borrowed(input)) };
        let times = input.rows().column(expiry.column).as_primitive::<TimestampMicrosecondType>();
        let drops_null = self.spec.emit == Emit::OnClose;
        let keep = BooleanBuffer::collect_bool(times.len(), |row| {
            if times.is_null(row) {
                !drops_null
            } else {
                !expiry.expired(times.value(row), ctx.watermark_before)
            }
        });
        if keep.count_set_bits() == keep.len() {
            return Ok(Cow::Borrowed(input));
        }
        for row in (0..keep.len()).filter(|row| !keep.value(*row) && times.is_valid(*row)) {
            ctx.late_rows += input.weight(row).unsigned_abs();
        }
        Ok(Cow::Owned(input.filter(&BooleanArray::new(keep, None))?))
    }

    /// Brings the rows into their groups; the change of the groups whose results are out already.
    fn apply(&mut self, rows: &ZSet, ctx: &mut StepContext) -> Result<ZSet> {
        let keys: Vec<ArrayRef> =
            self.spec.keys.iter().map(|key| Arc::clone(rows.rows().column(*key))).collect();
        let (slots, created) = self.groups.assign(&keys, rows.len())?;
        if let Some(expiry) = self.spec.expiry {
            let times = self.groups.key_column(&created, self.expiry_key)?;
            for (slot, time) in created.iter().zip(times.as_primitive::<TimestampMicrosecondType>()) {
                if let Some(time) = time {
                    self.windows.insert(*slot, expiry.end_us(time));
                }
            }
        }
        self.shrinks |= !rows.all_inserts();
        let corrects = self.spec.emit == Emit::Updating
            || self.spec.expiry.is_some_and(|expiry| expiry.allowed_lateness_us > 0);
        if !corrects && !self.shrinks {
            self.groups.update(rows, &slots)?;
            return Ok(ZSet::empty(Arc::clone(&self.spec.output)));
        }
        let global = self.spec.keys.is_empty();
        let touched = self.groups.touch(if global { &[0] } else { &slots });
        let is_out = |slot: &u32| {
            self.spec.emit == Emit::Updating || self.closed_through.closes(self.windows.end_of(*slot))
        };
        let out: Vec<u32> = touched.iter().copied().filter(is_out).collect();
        let old = if global && !self.started {
            // Nothing was shown yet, although the group is there.
            let mut nothing = self.groups.show([0].into_iter(), &mut StepContext::default())?;
            nothing.slots.clear();
            nothing.results.iter_mut().for_each(|result| *result = result.slice(0, 0));
            nothing
        } else {
            // Reports of values that do not fit were made when these results went out.
            self.groups.show(out.iter().copied(), &mut StepContext::default())?
        };
        self.started = true;
        self.groups.update(rows, &slots)?;
        let new = self.groups.show(out.iter().copied(), ctx)?;
        let output = change(&self.spec.output, &out, &old, &new, |slots| self.groups.keys(slots))?;
        let emptied: Vec<u32> = touched.into_iter().filter(|slot| self.groups.is_empty(*slot)).collect();
        emptied.iter().for_each(|slot| self.windows.remove(*slot));
        self.groups.release(&emptied);
        Ok(output)
    }

    /// The rows of the windows that the watermark closed since the last step.
    fn close(&mut self, ctx: &mut StepContext) -> Result<ZSet> {
        let before = self.closed_through;
        self.closed_through = before.max(ctx.watermark);
        if self.spec.emit == Emit::Updating || before == self.closed_through {
            return Ok(ZSet::empty(Arc::clone(&self.spec.output)));
        }
        // At the very first step there may be windows that end at the smallest time of all.
        let from = if before == Watermark::MIN { Bound::Unbounded } else { Bound::Excluded(before.0) };
        let closing = self.windows.range((from, Bound::Included(self.closed_through.0)));
        let shown = self.groups.show(closing.flat_map(|(_, slots)| slots.iter().copied()), ctx)?;
        if shown.slots.is_empty() {
            return Ok(ZSet::empty(Arc::clone(&self.spec.output)));
        }
        let Shown { slots, results } = shown;
        let mut columns = self.groups.keys(&slots)?;
        columns.extend(results);
        Ok(ZSet::inserts(batch(&self.spec.output, columns)?))
    }

    /// Frees the groups whose windows are over for good.
    fn expire(&mut self, expiry: Expiry) {
        let late_by = expiry.allowed_lateness_us;
        let watermark = self.closed_through;
        let mut freed = false;
        while let Some(slots) = self.windows.pop_first(|end| watermark.closes(end.saturating_add(late_by))) {
            self.groups.release(&slots);
            freed = true;
        }
        if freed && let Some(live) = self.groups.pack() {
            self.windows.renumber(&live);
        }
    }
}

/// Of the form in which groups are saved.
pub(super) const STATE_VERSION: u8 = 1;

pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _))
}

impl Operator for Aggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let rows = self.in_time(&inputs[0], ctx)?;
        let first = self.spec.keys.is_empty() && !self.started;
        let changed = if rows.is_empty() && !first {
            ZSet::empty(Arc::clone(&self.spec.output))
        } else {
            self.apply(&rows, ctx)?
        };
        let Some(expiry) = self.spec.expiry else {
            if let Some(live) = self.groups.pack() {
                self.windows.renumber(&live);
            }
            return Ok(changed);
        };
        let closed = self.close(ctx)?;
        self.expire(expiry);
        ZSet::concat(&self.spec.output, &[changed, closed])
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(STATE_VERSION);
        out.i64(self.closed_through.0);
        out.bool(self.started);
        out.bool(self.shrinks);
        let slots = self.groups.in_part(self.windows.in_order(self.groups.live()), 0, part)?;
        self.groups.save(&slots, out)?;
        self.windows.save(&slots, out);
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(STATE_VERSION)?;
        self.closed_through = self.closed_through.max(Watermark(saved.i64()?));
        self.started |= saved.bool()?;
        self.shrinks |= saved.bool()?;
        let slots = self.groups.load(saved)?;
        self.windows.load(&slots, saved)
    }

    fn state_size(&self) -> StateSize {
        self.groups.size() + StateSize { rows: 0, bytes: self.windows.size_bytes() }
    }
}
