//! Aggregates over a frame that moves: rows enter at its end and leave at its start.
//!
//! Going from one row's frame to the next costs the rows that differ. A frame that jumps is built anew when that is
//! cheaper. Sums are exact, so that taking a row out leads back to what was before it came.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use dataflow::{RandomState, random_state};

use super::frame::View;
use super::values::{Scalar, ValueKind};
use crate::operators::aggregate::exact_float::ExactFloatSum;
use crate::operators::aggregate::number::WholeState;

/// What slides, over which of the kept values, in which frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlideSpec {
    pub kind: SlideKind,
    /// Number among the kept values.
    pub values: usize,
    /// Number of the frame.
    pub frame: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlideKind {
    /// Rows with a value.
    Count,
    /// Sum and number of whole values.
    Whole,
    /// Sum and number of floats.
    Float,
    /// Numbers of true and of false.
    Bools,
    Extreme {
        largest: bool,
    },
    /// The same in a frame that begins with the partition: one value is enough.
    RunningExtreme {
        largest: bool,
    },
    /// The value of the n-th row (from 0) of a frame that begins with the partition.
    RunningNth {
        row: usize,
        ignore_nulls: bool,
    },
    /// How many rows have each value.
    Distinct,
    /// Groups of peers in a frame that begins with the partition and ends with the current row.
    Groups,
}

/// One slide of one partition, and where it stands.
#[derive(Clone, Debug, Default)]
pub struct Slide {
    pub start: usize,
    pub end: usize,
    pub state: SlideState,
}

#[derive(Clone, Debug, Default)]
pub enum SlideState {
    #[default]
    Empty,
    Count(i64),
    Whole(WholeState),
    Float(Box<(ExactFloatSum, i64)>),
    Bools(i64, i64),
    /// Positions and rows, each better than all that come after it.
    Extreme(VecDeque<(usize, u32)>),
    Running(Option<Scalar>),
    /// Rows seen, and the value once it came.
    Nth(usize, Option<Scalar>),
    Distinct(HashMap<DistinctKey, i64, RandomState>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DistinctKey {
    Number(i128),
    Bytes(Box<[u8]>),
}

impl SlideKind {
    fn empty(self) -> SlideState {
        match self {
            SlideKind::Count | SlideKind::Groups => SlideState::Count(0),
            SlideKind::Whole => SlideState::Whole(WholeState::default()),
            SlideKind::Float => SlideState::Float(Box::default()),
            SlideKind::Bools => SlideState::Bools(0, 0),
            SlideKind::Extreme { .. } => SlideState::Extreme(VecDeque::new()),
            SlideKind::RunningExtreme { .. } => SlideState::Running(None),
            SlideKind::RunningNth { .. } => SlideState::Nth(0, None),
            SlideKind::Distinct => SlideState::Distinct(HashMap::with_hasher(random_state().clone())),
        }
    }

    /// Whether rows can be taken out at the end, and put in at the start.
    fn goes_back(self) -> bool {
        !matches!(
            self,
            SlideKind::Extreme { .. } | SlideKind::RunningExtreme { .. } | SlideKind::RunningNth { .. }
        )
    }

    /// Whether a copy costs less than going back.
    pub fn copies(self) -> bool {
        self != SlideKind::Distinct
    }
}

impl Slide {
    /// Makes the slide hold the rows `start..end`.
    pub fn move_to(&mut self, spec: &SlideSpec, view: &View<'_>, start: usize, end: usize) {
        let back = start < self.start || end < self.end;
        let far = start.abs_diff(self.start) + end.abs_diff(self.end) > end - start;
        let fresh = matches!(self.state, SlideState::Empty);
        if fresh || (far && self.start >= view.list.start()) || (back && !spec.kind.goes_back()) {
            // Rows that were dropped can't come in again, so those who remember them never get here.
            *self = Slide { start, end: start, state: spec.kind.empty() };
        }
        while self.end < end {
            self.add(spec, view, self.end);
            self.end += 1;
        }
        while self.start > start {
            self.start -= 1;
            self.add(spec, view, self.start);
        }
        while self.start < start {
            self.remove(spec, view, self.start);
            self.start += 1;
        }
        while self.end > end {
            self.end -= 1;
            self.remove(spec, view, self.end);
        }
    }

    /// Lets go of the rows before `position`, which will be dropped; no later frame holds them.
    pub fn leave(&mut self, spec: &SlideSpec, view: &View<'_>, position: usize) {
        if self.end <= position {
            *self = Slide { start: position, end: position, state: SlideState::Empty };
        } else if self.start < position {
            self.move_to(spec, view, position, self.end);
        }
    }

    fn add(&mut self, spec: &SlideSpec, view: &View<'_>, position: usize) {
        if spec.kind == SlideKind::Groups {
            if let SlideState::Count(count) = &mut self.state {
                *count += i64::from(starts_group(view, position));
            }
            return;
        }
        let row = view.list.get(position);
        let values = &view.store.values[spec.values];
        let present = values.is_present(row);
        if let (SlideState::Nth(seen, value), SlideKind::RunningNth { row: wanted, ignore_nulls }) =
            (&mut self.state, spec.kind)
        {
            if present || !ignore_nulls {
                if *seen == wanted {
                    *value = values.scalar(row);
                }
                *seen += 1;
            }
            return;
        }
        if !present {
            return;
        }
        match &mut self.state {
            SlideState::Count(count) => *count += 1,
            SlideState::Whole(state) => state.add_weighted(values.whole(row), 1),
            SlideState::Float(state) => {
                state.0.add(values.float(row), 1);
                state.1 += 1;
            }
            SlideState::Bools(trues, falses) => match values.whole(row) {
                0 => *falses += 1,
                _ => *trues += 1,
            },
            SlideState::Extreme(best) => {
                let SlideKind::Extreme { largest } = spec.kind else { unreachable!("the state's own kind") };
                let worse = if largest { Ordering::Less } else { Ordering::Greater };
                while best.back().is_some_and(|(_, last)| {
                    let order = values.compare(*last, row);
                    order == worse || order == Ordering::Equal
                }) {
                    best.pop_back();
                }
                best.push_back((position, row));
            }
            SlideState::Running(best) => {
                let SlideKind::RunningExtreme { largest } = spec.kind else {
                    unreachable!("the state's own kind")
                };
                let better = if largest { Ordering::Greater } else { Ordering::Less };
                if best.as_ref().is_none_or(|best| values.compare_scalar(row, best) == better) {
                    *best = values.scalar(row);
                }
            }
            SlideState::Distinct(counts) => *counts.entry(distinct_key(view, spec, row)).or_default() += 1,
            SlideState::Nth(..) | SlideState::Empty => unreachable!("made before rows are added"),
        }
    }

    fn remove(&mut self, spec: &SlideSpec, view: &View<'_>, position: usize) {
        if let SlideState::Extreme(best) = &mut self.state {
            if best.front().is_some_and(|(first, _)| *first == position) {
                best.pop_front();
            }
            return;
        }
        if spec.kind == SlideKind::Groups {
            if let SlideState::Count(count) = &mut self.state {
                *count -= i64::from(starts_group(view, position));
            }
            return;
        }
        let row = view.list.get(position);
        let values = &view.store.values[spec.values];
        if !values.is_present(row) {
            return;
        }
        match &mut self.state {
            SlideState::Count(count) => *count -= 1,
            SlideState::Whole(state) => state.add_weighted(values.whole(row), -1),
            SlideState::Float(state) => {
                state.0.add(values.float(row), -1);
                state.1 -= 1;
            }
            SlideState::Bools(trues, falses) => match values.whole(row) {
                0 => *falses -= 1,
                _ => *trues -= 1,
            },
            SlideState::Distinct(counts) => {
                let key = distinct_key(view, spec, row);
                let count = counts.get_mut(&key).expect("a row that leaves came before");
                *count -= 1;
                if *count == 0 {
                    counts.remove(&key);
                }
            }
            _ => unreachable!("kinds that can't go back are built anew"),
        }
    }
}

/// True when the row at `position` has no peer right before it.
fn starts_group(view: &View<'_>, position: usize) -> bool {
    position == 0
        || view.store.order_key(view.list.get(position - 1)) != view.store.order_key(view.list.get(position))
}

fn distinct_key(view: &View<'_>, spec: &SlideSpec, row: u32) -> DistinctKey {
    let values = &view.store.values[spec.values];
    match values.kind() {
        ValueKind::Int | ValueKind::Wide => DistinctKey::Number(values.whole(row)),
        // The two zeros are one value, as in GROUP BY.
        ValueKind::Float => DistinctKey::Number(i128::from((values.float(row) + 0.0).to_bits())),
        ValueKind::Bytes => match values.scalar(row) {
            Some(Scalar::Bytes(bytes)) => DistinctKey::Bytes(bytes),
            _ => unreachable!("the row has a value, of bytes"),
        },
    }
}
