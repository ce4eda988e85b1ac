//! The results of a stretch of rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use dataflow::{Result, StepContext};

use super::frame::{Frame, OrderValue, View};
use super::slide::{Slide, SlideSpec, SlideState};
use super::values::{Scalar, ValueColumn};
use crate::operators::aggregate::AggregateCall;
use crate::operators::aggregate::accumulator::{CallRows, Expectation, accumulator};
use crate::operators::aggregate::number::WholeResult;

/// A call with its columns found.
pub enum Call {
    RowNumber,
    Rank,
    /// Counts groups with this slide.
    DenseRank(usize),
    PercentRank,
    CumeDist,
    Ntile(usize),
    /// lag (`back` is positive) and lead (negative).
    Shift {
        values: usize,
        back: i64,
        default: Option<Scalar>,
        ignore_nulls: bool,
    },
    /// The n-th row of the frame: from its start (0, 1, ...) or its end (-1, -2, ...).
    Nth {
        values: usize,
        frame: usize,
        nth: i64,
        ignore_nulls: bool,
    },
    /// count(*).
    Rows(usize),
    Slide {
        slide: usize,
        finish: Finish,
    },
    /// Every other aggregate: each frame's rows are gone through anew.
    Gather(Box<GatherCall>),
    SessionStart {
        gap_us: i64,
    },
    SessionEnd {
        gap_us: i64,
    },
}

/// From the state of a slide to the result.
#[derive(Clone, Copy, Debug)]
pub enum Finish {
    Count,
    Whole(WholeResult),
    FloatSum,
    FloatAverage,
    BoolAnd,
    BoolOr,
    /// The value in the state's best row.
    Extreme,
    Scalar,
    Distinct,
}

pub struct GatherCall {
    pub call: AggregateCall,
    pub input: SchemaRef,
    pub frame: usize,
    /// The call's arguments and ORDER BY columns, and its filter, among the kept values.
    pub values: Vec<usize>,
    pub filter: Option<usize>,
}

/// Results of a call in the order in which rows were evaluated.
pub enum ResultColumn {
    Values(ValueColumn),
    Arrays(Vec<ArrayRef>, arrow::datatypes::DataType),
}

impl ResultColumn {
    pub fn finish(&mut self) -> Result<ArrayRef> {
        match self {
            ResultColumn::Values(values) => values.finish(),
            ResultColumn::Arrays(arrays, data_type) => {
                let arrays = std::mem::take(arrays);
                if arrays.is_empty() {
                    return Ok(arrow::array::new_empty_array(data_type));
                }
                let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
                Ok(concat(&arrays)?)
            }
        }
    }
}

/// What is computed for every row.
pub struct Calls {
    pub calls: Vec<Call>,
    pub frames: Vec<Frame>,
    pub slides: Vec<SlideSpec>,
    pub names: Vec<String>,
}

/// Rows gathered at once, so that wide frames do not fill the memory.
const GATHERED_ROWS_MAX: usize = 65_536;

impl Calls {
    /// Brings all slides to the frame of the row at `position`.
    pub fn move_slides(&self, view: &View<'_>, slides: &mut [Slide], position: usize) {
        let peers = view.peers(position);
        for (slide, spec) in slides.iter_mut().zip(&self.slides) {
            let hint = (slide.start, slide.end);
            let (start, end) = view.frame(&self.frames[spec.frame], position, peers, hint);
            slide.move_to(spec, view, start, end);
        }
    }

    /// Appends the results of the rows `from..to` to `results`, one column per call.
    pub fn evaluate(
        &self,
        view: &View<'_>,
        slides: &mut [Slide],
        (from, to): (usize, usize),
        results: &mut [ResultColumn],
        ctx: &mut StepContext,
    ) -> Result<()> {
        let mut frames: Vec<(usize, usize)> = vec![(view.list.start(), view.list.start()); self.frames.len()];
        for (slide, spec) in slides.iter().zip(&self.slides) {
            frames[spec.frame] = (slide.start, slide.end);
        }
        let mut peers = (0, 0);
        let mut session = Session::default();
        for position in from..to {
            if position == from || position >= peers.1 {
                peers = view.peers(position);
            }
            for (bounds, frame) in frames.iter_mut().zip(&self.frames) {
                *bounds = view.frame(frame, position, peers, *bounds);
            }
            for (slide, spec) in slides.iter_mut().zip(&self.slides) {
                let (start, end) = frames[spec.frame];
                if (slide.start, slide.end) != (start, end) || matches!(slide.state, SlideState::Empty) {
                    slide.move_to(spec, view, start, end);
                }
            }
            for (number, call) in self.calls.iter().enumerate() {
                let ResultColumn::Values(out) = &mut results[number] else { continue };
                match call {
                    Call::SessionStart { gap_us } => {
                        out.push_int(session.around(view, position, *gap_us).0);
                    }
                    Call::SessionEnd { gap_us } => {
                        out.push_int(session.around(view, position, *gap_us).1.saturating_add(*gap_us));
                    }
                    _ => self.push(call, number, view, slides, position, peers, &frames, out, ctx),
                }
            }
        }
        for (call, out) in self.calls.iter().zip(results) {
            if let (Call::Gather(gather), ResultColumn::Arrays(arrays, _)) = (call, out) {
                gather.evaluate(view, &self.frames[gather.frame], (from, to), arrays, ctx)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the inner loop's variables, as they are")]
    #[inline]
    fn push(
        &self,
        call: &Call,
        number: usize,
        view: &View<'_>,
        slides: &[Slide],
        position: usize,
        peers: (usize, usize),
        frames: &[(usize, usize)],
        out: &mut ValueColumn,
        ctx: &mut StepContext,
    ) {
        let total = view.list.end();
        match call {
            Call::RowNumber => out.push_int(position as i64 + 1),
            Call::Rank => out.push_int(peers.0 as i64 + 1),
            Call::DenseRank(slide) => match &slides[*slide].state {
                SlideState::Count(groups) => out.push_int(*groups),
                _ => unreachable!("groups are counted"),
            },
            Call::PercentRank => {
                out.push_float(if total > 1 { peers.0 as f64 / (total - 1) as f64 } else { 0.0 });
            }
            Call::CumeDist => out.push_float(peers.1 as f64 / total as f64),
            Call::Ntile(buckets) => out.push_int(ntile(position, total, *buckets)),
            Call::Shift { values, back, default, ignore_nulls } => {
                let column = &view.store.values[*values];
                match shifted(view, column, position, *back, *ignore_nulls) {
                    Some(row) => out.push_from(column, row),
                    None => out.push_scalar(default.as_ref()),
                }
            }
            Call::Nth { values, frame, nth, ignore_nulls } => {
                let column = &view.store.values[*values];
                match nth_row(view, column, frames[*frame], *nth, *ignore_nulls) {
                    Some(row) => out.push_from(column, row),
                    None => out.push_null(),
                }
            }
            Call::Rows(frame) => out.push_int((frames[*frame].1 - frames[*frame].0) as i64),
            Call::Slide { slide, finish } => {
                let values = &view.store.values[self.slides[*slide].values];
                if !finish.push(&slides[*slide].state, values, out) {
                    out.push_null();
                    ctx.report_error(|| {
                        format!("\"{}\" does not fit its type and became NULL", self.names[number])
                    });
                }
            }
            Call::Gather(_) | Call::SessionStart { .. } | Call::SessionEnd { .. } => {
                unreachable!("computed apart")
            }
        }
    }
}

impl Finish {
    /// Appends the result; false when it does not fit its type, and nothing was appended.
    #[inline]
    fn push(self, state: &SlideState, values: &ValueColumn, out: &mut ValueColumn) -> bool {
        match (self, state) {
            (Finish::Count, SlideState::Count(count)) => out.push_int(*count),
            (Finish::Count, SlideState::Whole(state)) => out.push_int(state.count),
            (Finish::Count, SlideState::Float(state)) => out.push_int(state.1),
            (Finish::Whole(_), SlideState::Whole(state)) if state.count == 0 => out.push_null(),
            (Finish::Whole(WholeResult::AverageFloat), SlideState::Whole(state)) => {
                let Some(average) = WholeResult::average(state) else { return false };
                out.push_float(average);
            }
            (Finish::Whole(result), SlideState::Whole(state)) => {
                let Some(value) = result.whole(state) else { return false };
                match result {
                    WholeResult::Int64 => out.push_int(value as i64),
                    WholeResult::UInt64 => out.push_int(value as u64 as i64),
                    _ => out.push_wide(value),
                }
            }
            (Finish::FloatSum | Finish::FloatAverage, SlideState::Float(state)) => match state.1 {
                0 => out.push_null(),
                count if matches!(self, Finish::FloatAverage) => {
                    out.push_float(state.0.value() / count as f64);
                }
                _ => out.push_float(state.0.value()),
            },
            (Finish::BoolAnd | Finish::BoolOr, SlideState::Bools(0, 0)) => out.push_null(),
            (Finish::BoolAnd, SlideState::Bools(_, falses)) => out.push_int(i64::from(*falses == 0)),
            (Finish::BoolOr, SlideState::Bools(trues, _)) => out.push_int(i64::from(*trues > 0)),
            (Finish::Extreme, SlideState::Extreme(best)) => match best.front() {
                Some((_, row)) => out.push_from(values, *row),
                None => out.push_null(),
            },
            (Finish::Scalar, SlideState::Running(value) | SlideState::Nth(_, value)) => {
                out.push_scalar(value.as_ref());
            }
            (Finish::Distinct, SlideState::Distinct(counts)) => out.push_int(counts.len() as i64),
            _ => unreachable!("a slide's state is of its kind"),
        }
        true
    }
}

fn ntile(position: usize, total: usize, buckets: usize) -> i64 {
    let (size, larger) = (total / buckets, total % buckets);
    // The first `larger` buckets have one row more.
    let in_larger = larger * (size + 1);
    let bucket = match position < in_larger {
        true => position / (size + 1),
        false => larger + (position - in_larger) / size.max(1),
    };
    bucket as i64 + 1
}

/// The row `back` rows before the one at `position` (after it, when negative), NULLs left out if asked for.
fn shifted(
    view: &View<'_>,
    column: &ValueColumn,
    position: usize,
    back: i64,
    ignore_nulls: bool,
) -> Option<u32> {
    let (start, end) = (view.list.start(), view.list.end());
    let distance = usize::try_from(back.unsigned_abs()).ok()?;
    if !ignore_nulls || distance == 0 {
        let wanted =
            if back >= 0 { position.checked_sub(distance)? } else { position.checked_add(distance)? };
        return (start <= wanted && wanted < end).then(|| view.list.get(wanted));
    }
    let mut left = distance;
    let mut at = position;
    loop {
        if back > 0 {
            if at == start {
                return None;
            }
            at -= 1;
        } else {
            at += 1;
            if at == end {
                return None;
            }
        }
        let row = view.list.get(at);
        left -= usize::from(column.is_present(row));
        if left == 0 {
            return Some(row);
        }
    }
}

fn nth_row(
    view: &View<'_>,
    column: &ValueColumn,
    (start, end): (usize, usize),
    nth: i64,
    ignore_nulls: bool,
) -> Option<u32> {
    // Rows that were dropped are only in frames of calls that remember what they need.
    let start = start.max(view.list.start());
    let distance = usize::try_from(if nth >= 0 { nth } else { -(nth + 1) }).ok()?;
    if !ignore_nulls {
        let index = if nth >= 0 { start.checked_add(distance)? } else { end.checked_sub(distance + 1)? };
        return (start <= index && index < end).then(|| view.list.get(index));
    }
    let present = |row: &u32| column.is_present(*row);
    if nth >= 0 {
        view.list.range(start, end).filter(present).nth(distance)
    } else {
        (start..end).rev().map(|at| view.list.get(at)).filter(present).nth(distance)
    }
}

/// The session that was looked at last.
#[derive(Default)]
struct Session {
    positions: std::ops::Range<usize>,
    first_us: i64,
    last_us: i64,
}

impl Session {
    /// Times of the first and the last row of the session that the row is in.
    fn around(&mut self, view: &View<'_>, position: usize, gap_us: i64) -> (i64, i64) {
        if !self.positions.contains(&position) {
            let (start, end) = session_around(view, position, gap_us);
            self.positions = start..end;
            self.first_us = time_us(view, start);
            self.last_us = time_us(view, end - 1);
        }
        (self.first_us, self.last_us)
    }
}

pub fn time_us(view: &View<'_>, position: usize) -> i64 {
    match view.value(view.list.get(position)) {
        Some(OrderValue::Whole(us)) => us as i64,
        _ => unreachable!("rows of sessions have a time"),
    }
}

/// The rows of the session that the row at `position` is in.
pub fn session_around(view: &View<'_>, position: usize, gap_us: i64) -> (usize, usize) {
    let time = time_us(view, position);
    (session_start(view, position, time, gap_us), session_end(view, position + 1, time, gap_us))
}

/// Start of the session that reaches `position` from the front, where a row at `time` is or would be.
pub fn session_start(view: &View<'_>, position: usize, mut time: i64, gap_us: i64) -> usize {
    let mut start = position;
    while start > view.list.start() {
        let before = time_us(view, start - 1);
        if time.saturating_sub(before) > gap_us {
            break;
        }
        (start, time) = (start - 1, before);
    }
    start
}

/// End of the session whose row at `time` stands before `position`.
pub fn session_end(view: &View<'_>, position: usize, mut time: i64, gap_us: i64) -> usize {
    let mut end = position;
    for row in view.list.range(position, view.list.end()) {
        let Some(OrderValue::Whole(next)) = view.value(row) else {
            unreachable!("rows of sessions have a time")
        };
        if (next as i64).saturating_sub(time) > gap_us {
            break;
        }
        (end, time) = (end + 1, next as i64);
    }
    end
}

impl GatherCall {
    fn evaluate(
        &self,
        view: &View<'_>,
        frame: &Frame,
        (from, to): (usize, usize),
        out: &mut Vec<ArrayRef>,
        ctx: &mut StepContext,
    ) -> Result<()> {
        let mut position = from;
        let mut bounds = (from, from);
        while position < to {
            let first = position;
            let (mut slots, mut rows) = (Vec::new(), Vec::new());
            while position < to && rows.len() < GATHERED_ROWS_MAX {
                bounds = view.frame(frame, position, view.peers(position), bounds);
                rows.extend(view.list.range(bounds.0.max(view.list.start()), bounds.1));
                slots.resize(rows.len(), (position - first) as u32);
                position += 1;
            }
            let gather = |values: &usize| -> Result<ArrayRef> {
                let column = &view.store.values[*values];
                let mut gathered = column.like()?;
                rows.iter().for_each(|row| gathered.push_from(column, *row));
                gathered.finish()
            };
            let columns = self.values.iter().map(gather).collect::<Result<Vec<_>>>()?;
            let filter = match &self.filter {
                None => None,
                Some(values) => {
                    let filter = gather(values)?;
                    let filter = filter.as_boolean();
                    Some(match filter.nulls() {
                        None => filter.values().clone(),
                        Some(nulls) => filter.values() & nulls.inner(),
                    })
                }
            };
            let expect = Expectation { append_only: true, subtracts: false };
            let mut states = accumulator(&self.call, &self.input, expect)?;
            states.grow(position - first);
            if !slots.is_empty() {
                states.update(&CallRows { slots: &slots, weights: None, columns, filter })?;
            }
            let all: Vec<u32> = (0..(position - first) as u32).collect();
            out.push(Arc::clone(&states.evaluate(&all, ctx)?));
        }
        Ok(())
    }
}

/// The order of two rows' bytes, for walking two lists at once.
pub fn row_order(view: &View<'_>, a: u32, b: u32) -> Ordering {
    view.store.bytes(a).cmp(view.store.bytes(b))
}
