//! GROUP BY over overlapping windows: HOP and CUMULATE, with panes that windows share.
//!
//! A row belongs to many windows, but costs one lookup: it is added to its pane, a stretch of time short enough
//! that every window is a run of whole panes (see [`geometry`]).
//!
//! ```text
//!   EMIT ON WINDOW CLOSE                        updating
//!   row --> (pane, key)                         row --> (pane, key) of this step
//!               | when a window closes                      | once per touched pane
//!               v                                           v
//!   running window: - panes left, + panes entered   groups of all open windows: -old +new
//! ```
//!
//! On close, the running window holds the last closed window, so that a slide costs only the panes that leave and
//! enter. Calls whose states can't be taken away (min and max that keep one value) are added up anew from all
//! panes of the window. A pane is freed when the last window that needs it is over. Windows close in order, those
//! without rows give nothing, and a watermark that jumps ahead does not visit them.
//!
//! A row is ignored by windows that are over (end plus allowed lateness at or before the watermark) and still counts in the
//! others; it is reported late once if any window ignored it. Within the allowed lateness a row corrects closed windows:
//! their results are added up again from their panes. Rows whose time is NULL are in no window.

mod geometry;
mod saved;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, Scalar, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{SortOptions, filter, sort_to_indices};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, SchemaRef, TimestampMicrosecondType};
use dataflow::{
    Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, Watermark, ZSet,
};

use crate::operators::Emit;
use crate::operators::aggregate::change::{Shown, batch, change};
use crate::operators::aggregate::groups::Groups;
use crate::operators::aggregate::window_index::WindowIndex;
use crate::operators::aggregate::{AggregateSpec, Expectation, is_time};
use geometry::{Geometry, PaneFate};

/// How windows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopKind {
    /// A window of `size_us` starts every `slide_us`.
    Hop,
    /// Every `size_us` a start, and from each start windows that end after one, two, ... times `slide_us`.
    Cumulate,
}

/// The windows of a [`HopAggregate`].
#[derive(Clone, Debug)]
pub struct HopSpec {
    pub kind: HopKind,
    /// Input column of type `Timestamp(Microsecond, _)`.
    pub time_column: usize,
    pub slide_us: i64,
    pub size_us: i64,
    /// Moves all windows.
    pub offset_us: i64,
    /// Where the window's bounds go among the output's key columns; the aggregate's keys fill the others in order.
    pub window_start_key: Option<usize>,
    pub window_end_key: Option<usize>,
    /// Correct closed windows this much longer (`late = 'amend'`); 0 otherwise.
    pub allowed_lateness_us: i64,
    /// On close: the consumer only looks at a window's best rows, so the others need not be built.
    pub best: Option<Best>,
}

/// The first rows of a window in the order of one call's results, with all ties at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    /// Number of the call.
    pub call: usize,
    pub order: SortOptions,
    pub rows: usize,
}

impl Best {
    /// Cuts what is shown down to the best; rows that tie with the last of them stay.
    fn select(self, shown: Shown) -> Result<Shown> {
        let column = &shown.results[self.call];
        if self.rows == 0 || shown.slots.len() <= self.rows {
            return Ok(shown);
        }
        let first = sort_to_indices(column, Some(self.order), Some(self.rows))?;
        let last = first.value(self.rows - 1) as usize;
        if column.is_null(last) || (column.null_count() > 0 && self.order.nulls_first) {
            return Ok(shown);
        }
        let bound = Scalar::new(column.slice(last, 1));
        let keep = if self.order.descending { gt_eq(column, &bound)? } else { lt_eq(column, &bound)? };
        let slots = shown.slots.iter().enumerate().filter(|(i, _)| keep.is_valid(*i) && keep.value(*i));
        Ok(Shown {
            slots: slots.map(|(_, slot)| *slot).collect(),
            results: shown.results.iter().map(|r| filter(r, &keep)).collect::<Result<_, _>>()?,
        })
    }
}

/// GROUP BY window and keys, over HOP or CUMULATE.
pub struct HopAggregate {
    spec: AggregateSpec,
    hop: HopSpec,
    geometry: Geometry,
    /// Groups of panes, of windows and of the running window, told apart by their first key column.
    groups: Groups,
    /// On close: groups of panes, by the pane's start.
    panes: WindowIndex,
    /// Updating: groups of windows, by the window's end.
    windows: WindowIndex,
    running: Running,
    /// Windows that end by it have given their result.
    closed_through: Watermark,
    shrinks: bool,
}

/// The last closed window, or what the next one needs of it.
struct Running {
    // All under the same end, 0.
    groups: WindowIndex,
    // Panes that are part of it: start of the first to end of the last.
    from: i64,
    to: i64,
}

impl Running {
    const TAG: i64 = i64::MIN;
    const END: i64 = 0;

    fn slots(&self) -> &[u32] {
        self.groups.slots(Running::END)
    }
}

impl HopAggregate {
    /// `spec.input` has one row per event, not per window; `spec.keys` are the keys beside the window, and
    /// `spec.expiry` is `None`.
    ///
    /// # Errors
    /// If the specs contradict themselves or each other, or ask for a type that can't be handled.
    pub fn new(spec: AggregateSpec, hop: HopSpec) -> Result<HopAggregate> {
        let bounds = [hop.window_start_key, hop.window_end_key];
        let key_columns = spec.keys.len() + bounds.iter().flatten().count();
        spec.check(key_columns)?;
        if bounds.iter().flatten().any(|key| *key >= key_columns)
            || (bounds[0].is_some() && bounds[0] == bounds[1])
        {
            return Err(Error::Operator("window bounds have no place among the key columns".to_owned()));
        }
        if spec.expiry.is_some() {
            return Err(Error::Operator(
                "a hop aggregate's windows are its own; expiry must be absent".to_owned(),
            ));
        }
        let columns = spec.input.fields().len();
        if hop.time_column >= columns || !is_time(spec.input.field(hop.time_column).data_type()) {
            return Err(Error::Operator(
                "windows need a time column of type timestamp (microseconds)".to_owned(),
            ));
        }
        let geometry = Geometry::new(&hop)?;
        let tag: FieldRef = Arc::new(Field::new("window", DataType::Int64, false));
        let keys = spec.keys.iter().map(|key| Arc::new(spec.input.field(*key).clone()));
        let expect = Expectation { append_only: spec.append_only, subtracts: spec.emit == Emit::OnClose };
        let groups =
            Groups::new(std::iter::once(tag).chain(keys).collect(), &spec.calls, &spec.input, expect)?;
        Ok(HopAggregate {
            shrinks: !spec.append_only,
            spec,
            hop,
            geometry,
            groups,
            panes: WindowIndex::default(),
            windows: WindowIndex::default(),
            running: Running { groups: WindowIndex::default(), from: i64::MIN, to: i64::MIN },
            closed_through: Watermark::MIN,
        })
    }

    /// The rows that at least one open window wants, with the starts of their panes.
    fn in_time(&self, input: &ZSet, ctx: &mut StepContext) -> Result<(ZSet, Vec<i64>)> {
        let times = input.rows().column(self.hop.time_column).as_primitive::<TimestampMicrosecondType>();
        let mut panes = Vec::with_capacity(times.len());
        let mut keep = Vec::with_capacity(times.len());
        let mut fate = PaneFate { pane: 0, keep: false, late: false };
        // Where `fate` holds; nowhere yet.
        let mut known = 0..0;
        for (row, time) in times.values().iter().enumerate() {
            let kept = times.is_valid(row) && {
                if !known.contains(time) {
                    match self.geometry.pane_of(*time) {
                        Some(pane) => {
                            fate = PaneFate::of(
                                pane,
                                &self.geometry,
                                self.hop.allowed_lateness_us,
                                ctx.watermark_before,
                            );
                            known = pane..pane + self.geometry.pane_us;
                        }
                        None => {
                            ctx.report_error(|| {
                                format!("time {time} us is out of range; the row is in no window")
                            });
                            keep.push(false);
                            continue;
                        }
                    }
                }
                if fate.late {
                    ctx.late_rows += input.weight(row).unsigned_abs();
                }
                fate.keep
            };
            keep.push(kept);
            if kept {
                panes.push(fate.pane);
            }
        }
        if panes.len() == keep.len() {
            return Ok((input.clone(), panes));
        }
        let mask = BooleanArray::new(BooleanBuffer::from(keep), None);
        Ok((input.filter(&mask)?, panes))
    }

    /// Slots of the rows' pane groups, and those that are new with the starts of their panes.
    fn assign(&mut self, rows: &ZSet, panes: &[i64]) -> Result<(Vec<u32>, Vec<u32>)> {
        let tags: ArrayRef =
            Arc::new(Int64Array::from_iter_values(panes.iter().map(|pane| self.geometry.pane_tag(*pane))));
        let keys = self.spec.keys.iter().map(|key| Arc::clone(rows.rows().column(*key)));
        self.groups.assign(&std::iter::once(tags).chain(keys).collect::<Vec<_>>(), rows.len())
    }

    /// The output's key columns for these groups, whose windows end at `ends`.
    fn output_keys(&self, slots: &[u32], ends: &[i64]) -> Result<Vec<ArrayRef>> {
        let mut keys = self.groups.keys(slots)?.into_iter().skip(1);
        let columns = self.spec.output.fields().len() - self.spec.calls.len();
        let times = |times: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(times)) as ArrayRef;
        let column = |position: usize| {
            if self.hop.window_start_key == Some(position) {
                times(ends.iter().map(|end| self.geometry.start_of(*end)).collect())
            } else if self.hop.window_end_key == Some(position) {
                times(ends.to_vec())
            } else {
                keys.next().expect("keys fill the places that bounds leave")
            }
        };
        // Times take the zone of their output field when the batch is made.
        Ok((0..columns).map(column).collect())
    }

    /// As [`HopAggregate::output_keys`], for groups of windows, which know their end.
    fn output_keys_of_windows(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let tags = self.groups.key_column(slots, 0)?;
        let ends: Vec<i64> = tags
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .map(|tag| self.geometry.end_of_tag(*tag))
            .collect();
        self.output_keys(slots, &ends)
    }

    fn nothing(&self) -> ZSet {
        ZSet::empty(Arc::clone(&self.spec.output))
    }

    fn is_over(&self, end: i64, watermark: Watermark) -> bool {
        watermark.closes(end + self.hop.allowed_lateness_us)
    }

    // Updating.

    /// Adds the step's rows up by pane, and those sums to the windows of each pane.
    fn update_windows(&mut self, rows: &ZSet, panes: &[i64], ctx: &mut StepContext) -> Result<ZSet> {
        let (slots, partials) = self.assign(rows, panes)?;
        self.groups.update(rows, &slots)?;
        let starts = self.pane_starts(&partials)?;
        let (mut from, mut into) = (Vec::new(), Vec::new());
        for (partial, pane) in partials.iter().zip(starts) {
            for end in self.geometry.ends(pane) {
                if self.is_over(end, ctx.watermark_before) {
                    continue;
                }
                let (window, new) = self.groups.sibling(*partial, self.geometry.window_tag(end));
                if new {
                    self.windows.insert(window, end);
                }
                from.push(*partial);
                into.push(window);
            }
        }
        let touched = self.groups.touch(&into);
        let old = self.groups.show(touched.iter().copied(), &mut StepContext::default())?;
        self.groups.merge(&from, &into, 1, false)?;
        let new = self.groups.show(touched.iter().copied(), ctx)?;
        let output =
            change(&self.spec.output, &touched, &old, &new, |slots| self.output_keys_of_windows(slots))?;
        let mut freed = partials;
        freed.extend(touched.into_iter().filter(|slot| self.groups.is_empty(*slot)));
        freed.iter().for_each(|slot| self.windows.remove(*slot));
        self.groups.release(&freed);
        Ok(output)
    }

    fn pane_starts(&self, slots: &[u32]) -> Result<Vec<i64>> {
        let tags = self.groups.key_column(slots, 0)?;
        let start = |tag: &i64| self.geometry.end_of_tag(*tag + 1);
        Ok(tags.as_primitive::<Int64Type>().values().iter().map(start).collect())
    }

    // On close.

    /// Adds the step's rows to their panes; the corrections of closed windows.
    fn update_panes(&mut self, rows: &ZSet, panes: &[i64], ctx: &mut StepContext) -> Result<ZSet> {
        let (slots, created) = self.assign(rows, panes)?;
        for (slot, pane) in created.iter().zip(self.pane_starts(&created)?) {
            self.panes.insert(*slot, pane);
        }
        self.shrinks |= !rows.all_inserts();
        let least = panes.iter().copied().min().unwrap_or(i64::MAX);
        let amends =
            self.hop.allowed_lateness_us > 0 && self.closed_through.closes(self.geometry.first_end(least));
        let behind = least < self.running.to;
        if !self.shrinks && !amends && !behind {
            self.groups.update(rows, &slots)?;
            return Ok(self.nothing());
        }
        let touched = self.groups.touch(&slots);
        // Panes that are part of the running window change there too.
        let in_running: Vec<u32> = touched
            .iter()
            .copied()
            .filter(|slot| (self.running.from..self.running.to).contains(&self.panes.end_of(*slot)))
            .collect();
        let amended = if amends { self.closed_windows(&touched, ctx.watermark_before) } else { Vec::new() };
        self.add_up(&amended)?;
        let old = self.groups.show(amended.iter().copied(), &mut StepContext::default())?;
        self.merge_running(&in_running, -1)?;
        self.groups.update(rows, &slots)?;
        self.merge_running(&in_running, 1)?;
        self.drop_empty_running(&in_running);
        self.groups.reset(&amended);
        self.add_up(&amended)?;
        let new = self.groups.show(amended.iter().copied(), ctx)?;
        let output =
            change(&self.spec.output, &amended, &old, &new, |slots| self.output_keys_of_windows(slots))?;
        self.groups.release(&amended);
        let emptied: Vec<u32> = touched.into_iter().filter(|slot| self.groups.is_empty(*slot)).collect();
        emptied.iter().for_each(|slot| self.panes.remove(*slot));
        self.groups.release(&emptied);
        Ok(output)
    }

    /// Empty groups for the closed windows, not yet over, that the panes' groups are part of.
    fn closed_windows(&mut self, pane_slots: &[u32], watermark: Watermark) -> Vec<u32> {
        let mut groups = Vec::new();
        for slot in pane_slots {
            for end in self.geometry.ends(self.panes.end_of(*slot)) {
                if self.closed_through.closes(end) && !self.is_over(end, watermark) {
                    let (group, new) = self.groups.sibling(*slot, self.geometry.window_tag(end));
                    if new {
                        groups.push(group);
                    }
                }
            }
        }
        groups
    }

    /// Adds to each of these groups of windows the panes of its window.
    fn add_up(&mut self, groups: &[u32]) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let tags = self.groups.key_column(groups, 0)?;
        let (mut from, mut into) = (Vec::new(), Vec::new());
        for (group, tag) in groups.iter().zip(tags.as_primitive::<Int64Type>().values()) {
            let end = self.geometry.end_of_tag(*tag);
            for (pane, _) in self.panes.range(self.geometry.start_of(end)..end) {
                if let Some(slot) = self.groups.find_sibling(*group, self.geometry.pane_tag(pane)) {
                    from.push(slot);
                    into.push(*group);
                }
            }
        }
        self.groups.merge(&from, &into, 1, false)
    }

    /// Adds pane groups to the running window's, or takes them away.
    fn merge_running(&mut self, pane_slots: &[u32], sign: i64) -> Result<()> {
        let mut into = Vec::with_capacity(pane_slots.len());
        for slot in pane_slots {
            let (group, new) = self.groups.sibling(*slot, Running::TAG);
            if new {
                self.running.groups.insert(group, Running::END);
            }
            into.push(group);
        }
        self.groups.merge(pane_slots, &into, sign, true)
    }

    /// Frees the running window's groups that these pane groups were taken from, where nothing is left.
    fn drop_empty_running(&mut self, pane_slots: &[u32]) {
        self.groups.reset_not_invertible(self.running.slots());
        let mut emptied = Vec::new();
        for slot in pane_slots {
            if let Some(group) = self.groups.find_sibling(*slot, Running::TAG)
                && self.groups.is_empty(group)
            {
                emptied.push(group);
            }
        }
        emptied.sort_unstable();
        emptied.dedup();
        emptied.iter().for_each(|slot| self.running.groups.remove(*slot));
        self.groups.release(&emptied);
    }

    /// Takes the panes before `start` out of the running window.
    fn leave(&mut self, start: i64) -> Result<()> {
        if start >= self.running.to {
            if let Some(slots) = self.running.groups.pop_first(|_| true) {
                self.groups.release(&slots);
            }
            (self.running.from, self.running.to) = (start, start);
        } else if start > self.running.from {
            let leaving = self.pane_slots(self.running.from, start);
            self.merge_running(&leaving, -1)?;
            self.drop_empty_running(&leaving);
            self.running.from = start;
        }
        Ok(())
    }

    fn pane_slots(&self, from: i64, to: i64) -> Vec<u32> {
        self.panes.range(from..to).flat_map(|(_, slots)| slots.iter().copied()).collect()
    }

    /// Slides the running window to the one that ends at `end`, and gives its rows.
    fn close_window(&mut self, end: i64, ctx: &mut StepContext) -> Result<ZSet> {
        let start = self.geometry.start_of(end);
        self.leave(start)?;
        let entering = self.pane_slots(self.running.to, end);
        self.merge_running(&entering, 1)?;
        self.running.to = end;
        if !self.groups.invertible() {
            let panes = self.pane_slots(start, end);
            let into: Vec<u32> = panes
                .iter()
                .map(|slot| {
                    self.groups.find_sibling(*slot, Running::TAG).expect("the pane is part of the window")
                })
                .collect();
            self.groups.reset_not_invertible(self.running.slots());
            self.groups.merge_not_invertible(&panes, &into)?;
        }
        let shown = self.groups.show(self.running.slots().iter().copied(), ctx)?;
        let Shown { slots, results } = match self.hop.best {
            Some(best) => best.select(shown)?,
            None => shown,
        };
        if slots.is_empty() {
            return Ok(self.nothing());
        }
        let mut columns = self.output_keys(&slots, &vec![end; slots.len()])?;
        columns.extend(results);
        Ok(ZSet::inserts(batch(&self.spec.output, columns)?))
    }

    /// Closes all windows that have rows and end by the watermark, in order.
    fn close(&mut self, outputs: &mut Vec<ZSet>, ctx: &mut StepContext) -> Result<()> {
        let watermark = self.closed_through.max(ctx.watermark);
        if watermark == self.closed_through {
            return Ok(());
        }
        let mut done = self.closed_through.0;
        loop {
            let next = self.geometry.next_end(done);
            let Some((pane, _)) = self.panes.range(self.geometry.start_of(next)..).next() else { break };
            let end = next.max(self.geometry.first_end(pane));
            if !watermark.closes(end) {
                break;
            }
            outputs.push(self.close_window(end, ctx)?);
            done = end;
        }
        self.closed_through = watermark;
        self.leave(self.geometry.start_of(self.geometry.next_end(watermark.0)))?;
        Ok(())
    }

    /// Frees what no window needs any more.
    fn expire(&mut self) {
        let (geometry, watermark, lateness) =
            (self.geometry, self.closed_through, self.hop.allowed_lateness_us);
        while let Some(slots) = self.windows.pop_first(|end| watermark.closes(end + lateness)) {
            self.groups.release(&slots);
        }
        while let Some(slots) =
            self.panes.pop_first(|pane| watermark.closes(geometry.last_end(pane) + lateness))
        {
            self.groups.release(&slots);
        }
        if let Some(live) = self.groups.pack() {
            self.panes.renumber(&live);
            self.windows.renumber(&live);
            self.running.groups.renumber(&live);
        }
    }
}

impl Operator for HopAggregate {
    fn name(&self) -> &'static str {
        match self.hop.kind {
            HopKind::Hop => "hop aggregate",
            HopKind::Cumulate => "cumulate aggregate",
        }
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let mut outputs = Vec::new();
        let (rows, panes) = self.in_time(&inputs[0], ctx)?;
        match self.spec.emit {
            Emit::Updating => {
                if !rows.is_empty() {
                    outputs.push(self.update_windows(&rows, &panes, ctx)?);
                }
                self.closed_through = self.closed_through.max(ctx.watermark);
            }
            Emit::OnClose => {
                if !rows.is_empty() {
                    outputs.push(self.update_panes(&rows, &panes, ctx)?);
                }
                self.close(&mut outputs, ctx)?;
            }
        }
        self.expire();
        ZSet::concat(&self.spec.output, &outputs)
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        self.save_part(part, out)
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.load_part(saved)
    }

    fn state_size(&self) -> StateSize {
        let lists = self.panes.size_bytes() + self.windows.size_bytes() + self.running.groups.size_bytes();
        self.groups.size() + StateSize { rows: 0, bytes: lists }
    }
}
