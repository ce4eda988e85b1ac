//! A change of one partition: which rows it concerns, and their results before and after.

use dataflow::{Error, Result, StepContext};

use super::compile::Reach;
use super::evaluate::{row_order, session_end, session_start};
use super::frame::{OrderValue, View};
use super::slide::{Slide, SlideState};
use super::values::Source;
use super::{Effects, Over, Release};

/// A distinct row that comes or goes.
pub struct Change<'a> {
    pub bytes: &'a [u8],
    pub order_length: usize,
    pub input_row: usize,
    pub weight: i64,
    /// Where the row is, or is to be, in the partition before the step.
    pub position: usize,
    /// Its number in the store.
    pub row: u32,
}

/// Rows `from..to` of the partition before the step, which the changes `changes` concern.
struct Interval {
    from: usize,
    to: usize,
    changes: std::ops::Range<usize>,
}

impl Over {
    /// Brings a partition's changes, which are in order, into it, and notes what they change in results that are out.
    /// False when the watermark cannot have anything to do in the partition before the moment that is known as due.
    pub(super) fn update(
        &mut self,
        slot: u32,
        mut changes: Vec<Change<'_>>,
        sources: &[Source],
        effects: &mut Effects,
        ctx: &mut StepContext,
    ) -> Result<bool> {
        self.place(slot, &mut changes, sources, effects)?;
        let unsettled = self.unsettles(slot, &changes);
        let visible = self.partitions[slot as usize].published
            && !(matches!(self.spec.release, Release::Order(_)) && self.spec.emit == super::Emit::OnClose);
        if !visible {
            let mut shift = 0;
            for change in &changes {
                shift += self.apply(slot, change, shift, effects);
            }
            return Ok(unsettled);
        }
        let mut shift = 0isize;
        for interval in self.intervals(slot, &changes) {
            let (from, to) = (moved(interval.from, shift), moved(interval.to, shift));
            let old_first = effects.old.len();
            self.stand_before(slot, from);
            if from < to {
                self.old_results(slot, from, to, effects)?;
            }
            for change in &changes[interval.changes] {
                shift += self.apply(slot, change, shift, effects);
            }
            let to = moved(interval.to, shift);
            let new_first = effects.new.len();
            self.new_results(slot, from, to, effects, ctx)?;
            self.pair(slot, old_first, new_first, effects);
        }
        Ok(unsettled)
    }

    /// New rows behind what is due do not make it due sooner; a deletion may.
    fn unsettles(&self, slot: u32, changes: &[Change<'_>]) -> bool {
        let (Release::Order(_), Some(due)) = (self.spec.release, self.partitions[slot as usize].due) else {
            return true;
        };
        let first = changes.first().and_then(|change| self.view(slot).value(change.row));
        let behind = first.is_none_or(|first| first >= OrderValue::Whole(i128::from(due)));
        !behind || changes.iter().any(|change| change.weight < 0)
    }

    /// Finds the place of every change, and keeps the rows that are new.
    fn place(
        &mut self,
        slot: u32,
        changes: &mut [Change<'_>],
        sources: &[Source],
        effects: &mut Effects,
    ) -> Result<()> {
        let list = &self.partitions[slot as usize].list;
        let store = &mut self.store;
        // Rows come in order most of the time.
        let mut hint = list.end();
        for change in changes {
            let point = list.partition_point_near(hint, |row| store.bytes(row) < change.bytes);
            let present = (point < list.end()).then(|| list.get(point));
            let present = present.filter(|row| store.bytes(*row) == change.bytes);
            change.position = point;
            hint = point + 1;
            match present {
                Some(row) if i64::from(store.copies(row)) + change.weight >= 0 => change.row = row,
                None if change.weight > 0 => {
                    change.row = store.insert(change.bytes, change.order_length, sources, change.input_row);
                    effects.inserted.push(change.row);
                    // The first copy is counted here.
                    store.remove_copy(change.row);
                }
                _ => {
                    return Err(Error::Operator(
                        "a window function was given a deletion of a row that is not there".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Inserts or removes the copies of a row; how many more rows there are now.
    fn apply(&mut self, slot: u32, change: &Change<'_>, shift: isize, effects: &mut Effects) -> isize {
        let list = &mut self.partitions[slot as usize].list;
        let at = moved(change.position, shift);
        for _ in 0..change.weight {
            list.insert(at, change.row);
            self.store.add_copy(change.row);
        }
        for _ in change.weight..0 {
            list.remove(at);
            if self.store.remove_copy(change.row) {
                effects.released.push(change.row);
            }
        }
        change.weight as isize
    }

    /// What the changes concern, without overlaps, in order.
    fn intervals(&self, slot: u32, changes: &[Change<'_>]) -> Vec<Interval> {
        let view = self.view(slot);
        let mut intervals: Vec<Interval> = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let first = change.position;
            // Rows that go away stand here.
            let last = first + change.weight.min(0).unsigned_abs() as usize;
            let mut from = first;
            let mut to = last;
            if first > view.list.start() {
                for reach in &self.compiled.before {
                    from = from.min(reach_before(&view, reach, change, first));
                }
            }
            if last < view.list.end() {
                for reach in &self.compiled.after {
                    to = to.max(reach_after(&view, reach, change, last));
                }
            }
            let mut interval = Interval { from, to, changes: number..number + 1 };
            while let Some(previous) = intervals.last().filter(|previous| previous.to >= interval.from) {
                interval.from = interval.from.min(previous.from);
                interval.to = interval.to.max(previous.to);
                interval.changes.start = previous.changes.start;
                intervals.pop();
            }
            intervals.push(interval);
        }
        intervals
    }

    /// Brings the slides to a row that no change concerns: the one before `from`.
    fn stand_before(&mut self, slot: u32, from: usize) {
        let partition = &mut self.partitions[slot as usize];
        if partition.slides.is_empty() {
            return;
        }
        let before = from.checked_sub(1).filter(|before| *before >= partition.list.start());
        if partition.at == before && before.is_some() {
            return;
        }
        partition.at = before;
        match before {
            None => partition.slides.fill(Slide::default()),
            Some(before) => {
                let view = View { list: &partition.list, store: &self.store, order: self.compiled.order };
                self.compiled.calls.move_slides(&view, &mut partition.slides, before);
            }
        }
    }

    fn old_results(&mut self, slot: u32, from: usize, to: usize, effects: &mut Effects) -> Result<()> {
        let partition = &mut self.partitions[slot as usize];
        let view = View { list: &partition.list, store: &self.store, order: self.compiled.order };
        let calls = &self.compiled.calls;
        let copies = |number: usize| calls.slides[number].kind.copies();
        let kept: Vec<Slide> = partition
            .slides
            .iter()
            .enumerate()
            .map(|(number, slide)| if copies(number) { slide.clone() } else { Slide::default() })
            .collect();
        // What does not fit was reported when these results went out.
        let mut unreported = StepContext::default();
        calls.evaluate(
            &view,
            &mut partition.slides,
            (from, to),
            &mut effects.old_results,
            &mut unreported,
        )?;
        effects.old.extend(view.list.range(from, to).map(|row| (slot, row)));
        for (number, kept) in kept.into_iter().enumerate() {
            if copies(number) {
                partition.slides[number] = kept;
                continue;
            }
            let spec = &calls.slides[number];
            let slide = &mut partition.slides[number];
            match partition.at {
                None => *slide = Slide { state: SlideState::Empty, ..Slide::default() },
                Some(at) => {
                    let hint = (slide.start, slide.end);
                    let (start, end) = view.frame(&calls.frames[spec.frame], at, view.peers(at), hint);
                    slide.move_to(spec, &view, start, end);
                }
            }
        }
        Ok(())
    }

    pub(super) fn new_results(
        &mut self,
        slot: u32,
        from: usize,
        to: usize,
        effects: &mut Effects,
        ctx: &mut StepContext,
    ) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let partition = &mut self.partitions[slot as usize];
        let view = View { list: &partition.list, store: &self.store, order: self.compiled.order };
        let results = &mut effects.new_results;
        self.compiled.calls.evaluate(&view, &mut partition.slides, (from, to), results, ctx)?;
        effects.new.extend(view.list.range(from, to).map(|row| (slot, row)));
        partition.at = Some(to - 1);
        Ok(())
    }

    /// Notes which old and new results belong to the same row.
    fn pair(&self, slot: u32, old_first: usize, new_first: usize, effects: &mut Effects) {
        let view = self.view(slot);
        let (mut old, mut new) = (old_first, new_first);
        while old < effects.old.len() && new < effects.new.len() {
            let (a, b) = (effects.old[old].1, effects.new[new].1);
            if a == b {
                effects.pairs.push((old as u32, new as u32));
                (old, new) = (old + 1, new + 1);
            } else if row_order(&view, a, b).is_lt() {
                old += 1;
            } else {
                new += 1;
            }
        }
    }
}

fn moved(position: usize, by: isize) -> usize {
    position.checked_add_signed(by).expect("positions stay in the partition")
}

fn reach_before(view: &View<'_>, reach: &Reach, change: &Change<'_>, position: usize) -> usize {
    let key = &change.bytes[..change.order_length];
    let start = view.list.start();
    match reach {
        Reach::All => start,
        Reach::Rows(rows) => position.saturating_sub(*rows).max(start),
        Reach::Groups(groups) => view.groups_before(view.peers_start(key, position), *groups),
        Reach::Range(offset) => match view.value(change.row) {
            None => view.peers_start(key, position),
            Some(value) => view.first_at(view.preceding(value, offset), position),
        },
        Reach::Session(gap_us) => match view.value(change.row) {
            Some(OrderValue::Whole(time)) => session_start(view, position, time as i64, *gap_us),
            _ => position,
        },
    }
}

fn reach_after(view: &View<'_>, reach: &Reach, change: &Change<'_>, position: usize) -> usize {
    let key = &change.bytes[..change.order_length];
    let end = view.list.end();
    match reach {
        Reach::All => end,
        Reach::Rows(rows) => position.saturating_add(*rows).min(end),
        Reach::Groups(groups) => view.groups_after(view.peers_end(key, position), *groups),
        Reach::Range(offset) => match view.value(change.row) {
            None => view.peers_end(key, position),
            Some(value) => view.after(view.following(value, offset), position),
        },
        Reach::Session(gap_us) => match view.value(change.row) {
            Some(OrderValue::Whole(time)) => session_end(view, position, time as i64, *gap_us),
            _ => position,
        },
    }
}
