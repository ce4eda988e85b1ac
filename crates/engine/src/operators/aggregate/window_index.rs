//! Which groups belong to which window, so that closing one never looks at the others.

use std::collections::BTreeMap;

use dataflow::{Result, StateReader, StateWriter};

use super::columns::damaged;

/// Slots by the time that their window ends (or by any other time).
#[derive(Default)]
pub struct WindowIndex {
    windows: BTreeMap<i64, Vec<u32>>,
    // Per slot. Invariant: `windows[entry.end][entry.position]` is the slot, unless position is NONE.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    end: i64,
    position: u32,
}

const NONE: Entry = Entry { end: i64::MAX, position: u32::MAX };

impl WindowIndex {
    /// Adds a slot that is in no window.
    pub fn insert(&mut self, slot: u32, end: i64) {
        if self.entries.len() <= slot as usize {
            self.entries.resize(slot as usize + 1, NONE);
        }
        let slots = self.windows.entry(end).or_default();
        self.entries[slot as usize] = Entry { end, position: slots.len() as u32 };
        slots.push(slot);
    }

    /// Takes the slot out of its window, if it is in one.
    pub fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        let Entry { end, position } = std::mem::replace(entry, NONE);
        if position == NONE.position {
            return;
        }
        let slots = self.windows.get_mut(&end).expect("an entry's window exists");
        slots.swap_remove(position as usize);
        if let Some(moved) = slots.get(position as usize) {
            self.entries[*moved as usize].position = position;
        }
        if slots.is_empty() {
            self.windows.remove(&end);
        }
    }

    /// When the slot's window ends; far in the future for a slot without a window.
    pub fn end_of(&self, slot: u32) -> i64 {
        self.entries.get(slot as usize).map_or(NONE.end, |entry| entry.end)
    }

    /// Removes the first window if `condition` holds for its end, and gives its groups.
    pub fn pop_first(&mut self, condition: impl FnOnce(i64) -> bool) -> Option<Vec<u32>> {
        let first = self.windows.first_entry().filter(|first| condition(*first.key()))?;
        let slots = first.remove();
        for slot in &slots {
            self.entries[*slot as usize] = NONE;
        }
        Some(slots)
    }

    /// Groups of the windows that end in this range, window by window.
    pub fn range(&self, range: impl std::ops::RangeBounds<i64>) -> impl Iterator<Item = (i64, &[u32])> {
        self.windows.range(range).map(|(end, slots)| (*end, slots.as_slice()))
    }

    /// Groups of the window with this end.
    pub fn slots(&self, end: i64) -> &[u32] {
        self.windows.get(&end).map_or(&[], Vec::as_slice)
    }

    /// Slot `live[i]` becomes slot `i`; slots in windows are all live.
    pub fn renumber(&mut self, live: &[u32]) {
        let old = std::mem::take(&mut self.entries);
        self.entries = live.iter().map(|slot| old.get(*slot as usize).copied().unwrap_or(NONE)).collect();
        for (slot, entry) in self.entries.iter().enumerate() {
            if entry.position != NONE.position {
                let slots = self.windows.get_mut(&entry.end).expect("an entry's window exists");
                slots[entry.position as usize] = slot as u32;
            }
        }
    }

    /// These slots with those of one window together: so they take the least when they are saved.
    pub fn in_order(&self, slots: Vec<u32>) -> Vec<u32> {
        if self.windows.is_empty() {
            return slots;
        }
        let mut ordered: Vec<u32> = self.windows.values().flatten().copied().collect();
        ordered.extend(slots.into_iter().filter(|slot| !self.contains(*slot)));
        ordered
    }

    /// True when the slot is in a window.
    pub fn contains(&self, slot: u32) -> bool {
        self.entries.get(slot as usize).is_some_and(|entry| entry.position != NONE.position)
    }

    /// Writes the windows of these slots: a window, and how many slots in a row are in it.
    pub fn save(&self, slots: &[u32], out: &mut StateWriter) {
        let window = |slot: u32| self.contains(slot).then(|| self.end_of(slot));
        let mut runs: Vec<(Option<i64>, usize)> = Vec::new();
        for slot in slots {
            match runs.last_mut() {
                Some((end, length)) if *end == window(*slot) => *length += 1,
                _ => runs.push((window(*slot), 1)),
            }
        }
        out.all(runs.into_iter(), |out, (end, length)| {
            out.option(end, StateWriter::i64);
            out.count(length);
        });
    }

    /// Puts these slots, which are in no window, into those that as many slots were in when they were saved.
    ///
    /// # Errors
    /// When their number is another.
    pub fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let mut rest = slots;
        for _ in 0..saved.count()? {
            let end = saved.option(StateReader::i64)?;
            let (run, others) = rest
                .split_at_checked(saved.count()?)
                .ok_or_else(|| damaged("windows have more groups than there are"))?;
            if let Some(end) = end {
                run.iter().for_each(|slot| self.insert(*slot, end));
            }
            rest = others;
        }
        if rest.is_empty() { Ok(()) } else { Err(damaged("groups have no window")) }
    }

    pub fn size_bytes(&self) -> usize {
        let listed: usize = self.windows.values().map(|slots| slots.capacity() * 4 + 40).sum();
        listed + self.entries.capacity() * size_of::<Entry>()
    }
}
