//! What the watermark does: windows close, rows become final and leave, and what no later row looks at is freed.

use dataflow::{Result, StepContext, Watermark};

use super::compile::{Final, Retain};
use super::evaluate::session_end;
use super::frame::{OrderValue, View};
use super::{Effects, Over, Release};
use crate::operators::{Emit, Expiry};

impl Over {
    /// Emits what the watermark makes final, and drops rows that nobody needs.
    pub(super) fn settle_all(
        &mut self,
        touched: &[u32],
        ctx: &mut StepContext,
        effects: &mut Effects,
    ) -> Result<()> {
        match self.spec.release {
            Release::Never => {}
            Release::Partition(expiry) => {
                while let Some((value, slot)) = self.closing.first().copied()
                    && expiry.closed(value, ctx.watermark)
                {
                    self.closing.pop_first();
                    self.partitions[slot as usize].published = true;
                    let list = &self.partitions[slot as usize].list;
                    let (start, end) = (list.start(), list.end());
                    self.new_results(slot, start, end, effects, ctx)?;
                }
            }
            Release::Order(expiry) => {
                for slot in touched {
                    self.settle(*slot, expiry, effects, ctx)?;
                }
                while let Some((value, slot)) = self.due.first().copied()
                    && expiry.closed(value, ctx.watermark)
                {
                    self.settle(slot, expiry, effects, ctx)?;
                }
            }
        }
        Ok(())
    }

    /// Frees partitions whose windows are over for good, and such that have no rows left.
    pub(super) fn forget_all(&mut self, touched: &[u32], watermark: Watermark) {
        if let Release::Partition(expiry) = self.spec.release {
            while let Some((value, slot)) = self.windows.first().copied()
                && expiry.expired(value, watermark)
            {
                self.forget(slot);
            }
        }
        for slot in touched {
            let needed = matches!(self.spec.release, Release::Order(_)) && !self.compiled.forgettable;
            if !needed {
                self.forget_if_empty(*slot);
            }
        }
        for slot in std::mem::take(&mut self.emptied) {
            self.forget_if_empty(slot);
        }
    }

    fn forget_if_empty(&mut self, slot: u32) {
        // It may have been forgotten already.
        let partition = self.partitions.get(slot as usize);
        if partition.is_some_and(|partition| partition.live && partition.list.is_empty()) {
            self.forget(slot);
        }
    }

    /// One partition that is ordered by event time.
    fn settle(
        &mut self,
        slot: u32,
        expiry: Expiry,
        effects: &mut Effects,
        ctx: &mut StepContext,
    ) -> Result<()> {
        let emits = self.spec.emit == Emit::OnClose;
        let view = self.view(slot);
        let from = if emits { self.partitions[slot as usize].emitted } else { view.list.start() };
        let from = from.max(view.list.start());
        let complete = view
            .list
            .partition_point(|row| value_us(&view, row).is_some_and(|v| expiry.closed(v, ctx.watermark)));
        let mut end = from;
        while end < complete {
            match self.final_through(&view, end, complete, expiry, ctx.watermark) {
                Some(through) => end = through,
                None => break,
            }
        }
        if emits && end > from {
            self.new_results(slot, from, end, effects, ctx)?;
            self.partitions[slot as usize].emitted = end;
        }
        let keep = self.needed_from(slot, end, expiry, ctx.watermark);
        self.drop_before(slot, keep, effects);
        let due = self.next_due(slot, end, complete, expiry, ctx.watermark);
        let partition = &mut self.partitions[slot as usize];
        if partition.due != due {
            if let Some(old) = partition.due {
                self.due.remove(&(old, slot));
            }
            if let Some(new) = due {
                self.due.insert((new, slot));
            }
            partition.due = due;
        }
        if partition.list.is_empty() && self.compiled.forgettable {
            self.emptied.push(slot);
        }
        Ok(())
    }

    /// The position after the rows that are final with the one at `position`; `None` when it is not.
    fn final_through(
        &self,
        view: &View<'_>,
        position: usize,
        complete: usize,
        expiry: Expiry,
        watermark: Watermark,
    ) -> Option<usize> {
        let mut through = position + 1;
        for wanted in &self.compiled.finals {
            let known = match wanted {
                Final::Rows(rows) => position.saturating_add(*rows) < complete,
                Final::Groups(groups) => {
                    let mut end = view.peers(position).1;
                    let mut left = *groups;
                    while left > 0 && end < complete {
                        end = view.peers(end).1;
                        left -= 1;
                    }
                    left == 0
                }
                Final::Range(offset) => match view.value(view.list.get(position)) {
                    Some(value) => closed(view.following(value, offset), expiry, watermark),
                    None => false,
                },
                Final::Session(gap_us) => {
                    let time = value_us(view, view.list.get(position)).unwrap_or(i64::MAX);
                    through = session_end(view, position + 1, time, *gap_us);
                    through <= complete
                }
            };
            if !known {
                return None;
            }
        }
        Some(through)
    }

    /// The first row that a row from `next` on, there or to come, looks at.
    fn needed_from(&self, slot: u32, next: usize, expiry: Expiry, watermark: Watermark) -> usize {
        let view = self.view(slot);
        let (start, end) = (view.list.start(), view.list.end());
        if watermark == Watermark::MIN {
            return start;
        }
        // Its peers have the same rank, and are in its frame.
        let mut keep = if next < end { view.peers(next).0 } else { end };
        // The smallest value that is not late.
        let mut value = watermark.0.saturating_sub(expiry.add_us).saturating_add(1);
        if next < end {
            value = value.min(value_us(&view, view.list.get(next)).unwrap_or(value));
        }
        for retain in &self.compiled.retains {
            keep = keep.min(match retain {
                Retain::All => start,
                Retain::Rows(rows) => next.saturating_sub(*rows).max(start),
                Retain::Groups(groups) => view.groups_before(keep, *groups),
                Retain::Range(offset) => {
                    view.first_at(view.preceding(OrderValue::Whole(i128::from(value)), offset), start)
                }
            });
        }
        keep
    }

    fn drop_before(&mut self, slot: u32, keep: usize, effects: &mut Effects) {
        let partition = &mut self.partitions[slot as usize];
        if keep <= partition.list.start() {
            return;
        }
        let view = View { list: &partition.list, store: &self.store, order: self.compiled.order };
        for (number, slide) in partition.slides.iter_mut().enumerate() {
            if !self.compiled.remembers(number) {
                slide.leave(&self.compiled.calls.slides[number], &view, keep);
            }
        }
        for row in partition.list.drop_before(keep) {
            if self.store.remove_copy(row) {
                effects.released.push(row);
            }
        }
    }

    /// The order value at which the watermark changes something in the partition again.
    fn next_due(
        &self,
        slot: u32,
        next: usize,
        complete: usize,
        expiry: Expiry,
        watermark: Watermark,
    ) -> Option<i64> {
        let view = self.view(slot);
        let (start, end) = (view.list.start(), view.list.end());
        let mut due: Option<i64> = None;
        let mut at = |value: OrderValue| {
            let OrderValue::Whole(value) = value else { return };
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            if value != i64::MAX && !expiry.closed(value, watermark) {
                due = Some(due.map_or(value, |due| due.min(value)));
            }
        };
        let value = |position: usize| view.value(view.list.get(position));
        if complete < end
            && let Some(first) = value(complete)
        {
            at(first);
        }
        for wanted in &self.compiled.finals {
            if let Final::Session(gap_us) = wanted
                && next < end
                && let Some(first) = value_us(&view, view.list.get(next))
            {
                // Not before its last row of today; when it has grown by then, its last row of that day.
                let last = session_end(&view, next + 1, first, *gap_us) - 1;
                return value_us(&view, view.list.get(last));
            }
            if let Final::Range(offset) = wanted
                && next < complete
                && let Some(value) = value(next)
            {
                at(view.following(value, offset));
            }
        }
        for retain in &self.compiled.retains {
            if let Retain::Range(offset) = retain
                && start < end
                && let Some(value) = value(start)
            {
                at(view.following(value, offset));
            }
        }
        due
    }
}

fn value_us(view: &View<'_>, row: u32) -> Option<i64> {
    match view.value(row)? {
        OrderValue::Whole(us) => Some(us as i64),
        OrderValue::Float(_) => None,
    }
}

fn closed(value: OrderValue, expiry: Expiry, watermark: Watermark) -> bool {
    match value {
        OrderValue::Whole(value) => i64::try_from(value).is_ok_and(|value| expiry.closed(value, watermark)),
        OrderValue::Float(_) => false,
    }
}
