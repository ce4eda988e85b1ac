//! How the state of a hop aggregate is saved: all groups, those of panes or windows by their time, then those of the
//! running window.

use dataflow::{KeyPart, Result, StateReader, StateWriter, Watermark};

use super::{HopAggregate, Running};
use crate::operators::Emit;
use crate::operators::aggregate::STATE_VERSION;
use crate::operators::aggregate::columns::damaged;

impl HopAggregate {
    pub(super) fn save_part(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(STATE_VERSION);
        out.i64(self.closed_through.0);
        out.bool(self.shrinks);
        out.i64(self.running.from);
        out.i64(self.running.to);
        let index = match self.spec.emit {
            Emit::Updating => &self.windows,
            Emit::OnClose => &self.panes,
        };
        // The first key column tells pane or window; the others are those that keys are shared out by.
        let slots = self.groups.in_part(index.in_order(self.groups.live()), 1, part)?;
        self.groups.save(&slots, out)?;
        index.save(&slots, out);
        Ok(())
    }

    pub(super) fn load_part(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(STATE_VERSION)?;
        self.closed_through = self.closed_through.max(Watermark(saved.i64()?));
        self.shrinks |= saved.bool()?;
        let (from, to) = (saved.i64()?, saved.i64()?);
        if from > to {
            return Err(damaged("the running window ends before it starts"));
        }
        let slots = self.groups.load(saved)?;
        let index = match self.spec.emit {
            Emit::Updating => &mut self.windows,
            Emit::OnClose => &mut self.panes,
        };
        index.load(&slots, saved)?;
        for slot in slots.into_iter().filter(|slot| !index.contains(*slot)) {
            self.running.groups.insert(slot, Running::END);
        }
        let known = (self.running.from, self.running.to);
        if known == (i64::MIN, i64::MIN) {
            (self.running.from, self.running.to) = (from, to);
        } else if known != (from, to) {
            // An operator only slides over windows in which its keys have rows, so those of others may have come less
            // far. The next window to close is then added up anew from its panes.
            self.running.from = from.max(known.0);
            self.running.to = self.running.from;
            if let Some(slots) = self.running.groups.pop_first(|_| true) {
                self.groups.release(&slots);
            }
        }
        Ok(())
    }
}
