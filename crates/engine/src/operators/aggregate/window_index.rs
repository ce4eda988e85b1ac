//! Which groups belong to which window, so that closing one never looks at the others.

use std::collections::BTreeMap;

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

    pub fn size_bytes(&self) -> usize {
        let listed: usize = self.windows.values().map(|slots| slots.capacity() * 4 + 40).sum();
        listed + self.entries.capacity() * size_of::<Entry>()
    }
}
