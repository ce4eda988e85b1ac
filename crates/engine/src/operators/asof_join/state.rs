//! What an ASOF join remembers: the rows of both sides, each in one order by key, then time.
//!
//! ```text
//!   left    slot  time  other columns -> weight          slot: number of the key, 4 bytes, big-endian
//!   right   slot  time  other columns -> weight          time: of fixed length, the nearest partner before the row
//! ```
//!
//! Entries are handed out without their slot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use dataflow::{Error, KeyTable, Result, StateReader, StateSize, StateWriter};
use sql::asof_join::AsofComparison;

const SLOT_BYTES: usize = size_of::<u32>();

/// Memory of an entry besides its bytes: pointer, length, weight, the tree's share and the allocator's.
const ENTRY_BYTES: usize = 56;

pub(super) struct State {
    comparison: AsofComparison,
    time_length: usize,
    pub(super) keys: KeyTable,
    // By slot.
    slots: Vec<Slot>,
    left: Rows,
    right: Rows,
    // The time at which the watermark changes something under a key, as entries begin with it.
    due: BTreeSet<(Box<[u8]>, u32)>,
    // Slots whose rows changed in this step.
    touched: BTreeSet<u32>,
}

#[derive(Clone, Default)]
struct Slot {
    left: usize,
    right: usize,
    due: Option<Box<[u8]>>,
}

#[derive(Default)]
struct Rows {
    // Invariant: no weight is zero.
    weights: BTreeMap<Box<[u8]>, i64>,
    bytes: usize,
}

/// The right row that counts at one time of a key, before and after a change.
pub(super) struct Winners {
    pub slot: u32,
    time: Box<[u8]>,
    before: Option<Box<[u8]>>,
    after: Option<Box<[u8]>>,
}

/// Left rows of a key that follow each other and get another partner.
pub(super) struct Stretch<'a> {
    pub slot: u32,
    pub old: Option<&'a [u8]>,
    pub new: Option<&'a [u8]>,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Rows {
    /// Adds to an entry's weight; by how much the number of entries grew.
    fn add(&mut self, entry: Vec<u8>, weight: i64) -> isize {
        use std::collections::btree_map::Entry;
        let length = entry.len();
        match self.weights.entry(entry.into_boxed_slice()) {
            Entry::Vacant(vacant) => {
                vacant.insert(weight);
                self.bytes += length;
                1
            }
            Entry::Occupied(mut occupied) => {
                *occupied.get_mut() += weight;
                if *occupied.get() != 0 {
                    return 0;
                }
                occupied.remove();
                self.bytes -= length;
                -1
            }
        }
    }

    /// Takes in an entry that was saved, which begins with a time.
    fn load(&mut self, slot: u32, time_length: usize, saved: &mut StateReader<'_>) -> Result<()> {
        let weight = saved.signed()?;
        let entry = saved.bytes()?;
        self.bytes += SLOT_BYTES + entry.len();
        let old = self.weights.insert(joined(slot, entry).into_boxed_slice(), weight);
        if weight == 0 || entry.len() < time_length || old.is_some() {
            return Err(Error::State("a row is not as rows are written".into()));
        }
        Ok(())
    }

    /// The entries from `from` up to, not including, `to`.
    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], i64)> {
        let range = self.weights.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        range.map(|(entry, weight)| (&entry[SLOT_BYTES..], *weight))
    }

    /// Removes these entries; their number.
    fn remove_range(&mut self, from: &[u8], to: &[u8]) -> usize {
        let range = self.weights.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let entries: Vec<Box<[u8]>> = range.map(|(entry, _)| entry.clone()).collect();
        for entry in &entries {
            self.weights.remove(entry);
            self.bytes -= entry.len();
        }
        entries.len()
    }
}

impl State {
    pub fn new(comparison: AsofComparison, time_length: usize) -> State {
        State {
            comparison,
            time_length,
            keys: KeyTable::new(),
            slots: Vec::new(),
            left: Rows::default(),
            right: Rows::default(),
            due: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The key's slot, which is there until [`State::forget_empty_keys`] at least.
    pub fn insert_key(&mut self, key: &[u8]) -> u32 {
        let (slot, new) = self.keys.insert(key);
        if new {
            if self.slots.len() <= slot as usize {
                self.slots.resize(slot as usize + 1, Slot::default());
            }
            self.slots[slot as usize] = Slot::default();
        }
        self.touched.insert(slot);
        slot
    }

    pub fn key(&self, slot: u32) -> &[u8] {
        self.keys.key(slot)
    }

    pub fn change_left(&mut self, slot: u32, entry: &[u8], weight: i64) {
        let grown = self.left.add(joined(slot, entry), weight);
        let count = &mut self.slots[slot as usize].left;
        *count = count.strict_add_signed(grown);
    }

    /// Changes the right side by rows, given as slot and number. Says where another row counts than before, in order,
    /// for keys with left rows.
    pub fn change_right<'r>(
        &mut self,
        mut rows: Vec<(u32, u32)>,
        row: impl Fn(usize) -> (&'r [u8], i64),
    ) -> Vec<Winners> {
        let time_length = self.time_length;
        rows.sort_unstable_by(|a, b| (a.0, row(a.1 as usize).0, a.1).cmp(&(b.0, row(b.1 as usize).0, b.1)));
        let time = |number: u32| &row(number as usize).0[..time_length];
        let mut changed = Vec::new();
        for group in rows.chunk_by(|a, b| a.0 == b.0 && time(a.1) == time(b.1)) {
            let (slot, time) = (group[0].0, time(group[0].1));
            let asked = self.slots[slot as usize].left > 0;
            let before = if asked { self.winner(slot, time).map(Box::from) } else { None };
            for (_, number) in group {
                let (entry, weight) = row(*number as usize);
                let grown = self.right.add(joined(slot, entry), weight);
                let count = &mut self.slots[slot as usize].right;
                *count = count.strict_add_signed(grown);
            }
            let after = if asked { self.winner(slot, time).map(Box::from) } else { None };
            if before != after {
                changed.push(Winners { slot, time: time.into(), before, after });
            }
        }
        changed
    }

    /// The right row that counts at a time.
    fn winner(&self, slot: u32, time: &[u8]) -> Option<&[u8]> {
        let from = joined(slot, time);
        let to = successor(from.clone());
        self.right.range(&from, &to).next_back().map(|(entry, _)| entry)
    }

    /// The right row beside a left row.
    pub fn partner(&self, slot: u32, left: &[u8]) -> Option<&[u8]> {
        let time = joined(slot, &left[..self.time_length]);
        let to = if self.comparison.is_strict() { time } else { successor(time) };
        self.right.range(&slot.to_be_bytes(), &to).next_back().map(|(entry, _)| entry)
    }

    /// The left rows that get another partner by changes of the right side under one key, which were made already.
    pub fn stretches<'a>(&'a self, winners: &'a [Winners]) -> Vec<Stretch<'a>> {
        let mut stretches = Vec::new();
        // Where the stretch before ends, and its partners.
        type Partner<'a> = Option<&'a [u8]>;
        let mut last: Option<(Vec<u8>, [Partner<'_>; 2])> = None;
        for (number, winner) in winners.iter().enumerate() {
            let slot = winner.slot;
            let here = joined(slot, &winner.time);
            let [old, new] = match last {
                // Nothing that stayed is in between.
                Some((end, partners)) if end == here => partners,
                _ => {
                    let unchanged = self.right.range(&slot.to_be_bytes(), &here).next_back();
                    let unchanged = unchanged.map(|(entry, _)| entry);
                    [unchanged; 2]
                }
            };
            let old = winner.before.as_deref().or(old);
            let new = winner.after.as_deref().or(new);
            let next_right = self.right.range(&successor(here.clone()), &slot_end(slot)).next();
            let next_right = next_right.map(|(entry, _)| &entry[..self.time_length]);
            let next_changed = winners.get(number + 1).map(|winner| &winner.time[..]);
            let next = match (next_right, next_changed) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let end = next.map_or_else(|| slot_end(slot), |time| joined(slot, time));
            if old != new {
                let bound = |time: Vec<u8>| if self.comparison.is_strict() { successor(time) } else { time };
                let to = if next.is_some() { bound(end.clone()) } else { end.clone() };
                stretches.push(Stretch { slot, old, new, from: bound(here), to });
            }
            last = Some((end, [old, new]));
        }
        stretches
    }

    pub fn left_rows(&self, stretch: &Stretch<'_>) -> impl Iterator<Item = (&[u8], i64)> {
        self.left.range(&stretch.from, &stretch.to)
    }

    /// Forgets keys that this step left without rows. With `timed`, notes when the others' rows may be freed.
    pub fn forget_empty_keys(&mut self, timed: bool) {
        for slot in std::mem::take(&mut self.touched) {
            self.refresh(slot, timed);
        }
    }

    fn refresh(&mut self, slot: u32, timed: bool) {
        let due = if timed { self.due_of(slot).map(Box::from) } else { None };
        let state = &mut self.slots[slot as usize];
        if state.due != due {
            if let Some(old) = state.due.take() {
                self.due.remove(&(old, slot));
            }
            state.due.clone_from(&due);
            self.due.extend(due.map(|due| (due, slot)));
        }
        if state.left == 0 && state.right == 0 {
            self.keys.remove(slot);
            if self.keys.is_empty() {
                self.keys = KeyTable::new();
                self.slots = Vec::new();
            }
        }
    }

    /// When the watermark has passed this time, something under the key is final.
    fn due_of(&self, slot: u32) -> Option<&[u8]> {
        let (from, to) = (slot.to_be_bytes(), slot_end(slot));
        let time = |(entry, _)| -> &[u8] {
            let entry: &[u8] = entry;
            &entry[..self.time_length]
        };
        if self.comparison.looks_back() {
            let left = self.left.range(&from, &to).next().map(time);
            // Then the first one is no row's partner any more.
            let second = self.right.range(&from, &to).nth(1).map(time);
            match (left, second) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        } else {
            self.right.range(&from, &to).next_back().map(time)
        }
    }

    pub fn all_slots(&self) -> Vec<u32> {
        self.keys.iter().map(|(slot, _)| slot).collect()
    }

    /// A key under which something older than `cutoff` is to be settled.
    pub fn next_due(&self, cutoff: &[u8]) -> Option<u32> {
        let (due, slot) = if self.comparison.looks_back() { self.due.first() } else { self.due.last() }
            .map(|(d, s)| (d, *s))?;
        let is_older = if self.comparison.looks_back() { **due < *cutoff } else { **due > *cutoff };
        is_older.then_some(slot)
    }

    /// Where the left rows stand whose partner no right row from `cutoff` on can change.
    fn final_left(&self, slot: u32, cutoff: &[u8], all: bool) -> (Vec<u8>, Vec<u8>) {
        let (start, end) = (slot.to_be_bytes().to_vec(), slot_end(slot));
        if all {
            return (start, end);
        }
        if self.comparison.looks_back() {
            return (start, joined(slot, cutoff));
        }
        // Those before the newest right row that is older.
        match self.right.range(&successor(joined(slot, cutoff)), &slot_end(slot)).next() {
            None => (end.clone(), end),
            Some((entry, _)) => {
                let time = joined(slot, &entry[..self.time_length]);
                (if self.comparison.is_strict() { successor(time) } else { time }, end)
            }
        }
    }

    pub fn final_left_rows(&self, slot: u32, cutoff: &[u8], all: bool) -> impl Iterator<Item = (&[u8], i64)> {
        let (from, to) = self.final_left(slot, cutoff, all);
        self.left.range(&from, &to).collect::<Vec<_>>().into_iter()
    }

    /// Drops what no row from `cutoff` on can meet or change.
    pub fn free(&mut self, slot: u32, cutoff: &[u8], all: bool) {
        let (from, to) = self.final_left(slot, cutoff, all);
        let left = self.left.remove_range(&from, &to);
        let (start, end) = (slot.to_be_bytes().to_vec(), slot_end(slot));
        let (from, to) = if all {
            (start, end)
        } else if self.comparison.looks_back() {
            let older = self.right.range(&start, &joined(slot, cutoff)).next_back();
            let newest = older.map_or_else(|| start.clone(), |(entry, _)| joined(slot, entry));
            (start, newest)
        } else {
            (successor(joined(slot, cutoff)), end)
        };
        let right = self.right.remove_range(&from, &to);
        let state = &mut self.slots[slot as usize];
        state.left -= left;
        state.right -= right;
        self.refresh(slot, true);
    }

    /// Writes the keys in these slots, in ascending order, with the numbers of their rows; then the rows of the left side,
    /// in their order, then those of the right.
    pub fn save(&self, slots: &[u32], out: &mut StateWriter) {
        let mut chosen = vec![false; self.slots.len()];
        out.count(slots.len());
        for slot in slots {
            let Slot { left, right, .. } = self.slots[*slot as usize];
            chosen[*slot as usize] = true;
            out.bytes(self.key(*slot));
            out.count(left);
            out.count(right);
        }
        for (entry, weight) in self.left.weights.iter().chain(&self.right.weights) {
            let (slot, entry) = entry.split_first_chunk().expect("an entry begins with its slot");
            if chosen[u32::from_be_bytes(*slot) as usize] {
                out.signed(*weight);
                out.bytes(entry);
            }
        }
    }

    /// Takes in what [`State::save`] wrote about keys that are not there yet. With `timed`, notes when rows may be freed.
    ///
    /// # Errors
    /// When it was not written by [`State::save`].
    pub fn load(&mut self, saved: &mut StateReader<'_>, timed: bool) -> Result<()> {
        let mut keys: Vec<(u32, usize, usize)> = Vec::new();
        for _ in 0..saved.count()? {
            let known = self.keys.len();
            let slot = self.insert_key(saved.bytes()?);
            if self.keys.len() == known {
                return Err(Error::State("a key is there twice".into()));
            }
            let (left, right) = (saved.count()?, saved.count()?);
            self.slots[slot as usize] = Slot { left, right, due: None };
            keys.push((slot, left, right));
        }
        for (slot, left, _) in &keys {
            (0..*left).try_for_each(|_| self.left.load(*slot, self.time_length, saved))?;
        }
        for (slot, _, right) in &keys {
            (0..*right).try_for_each(|_| self.right.load(*slot, self.time_length, saved))?;
        }
        self.forget_empty_keys(timed);
        Ok(())
    }

    pub fn size(&self) -> StateSize {
        let rows = self.left.weights.len() + self.right.weights.len();
        let due: usize = self.due.iter().map(|(due, _)| 2 * due.len() + ENTRY_BYTES).sum();
        StateSize {
            rows,
            bytes: self.left.bytes
                + self.right.bytes
                + rows * ENTRY_BYTES
                + self.keys.size_bytes()
                + self.slots.capacity() * size_of::<Slot>()
                + due,
        }
    }
}

fn joined(slot: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT_BYTES + rest.len());
    bytes.extend_from_slice(&slot.to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

/// The first bytes that come after everything that begins with `prefix`.
fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.pop_if(|byte| *byte == u8::MAX).is_some() {}
    *prefix.last_mut().expect("a slot is less than the largest number") += 1;
    prefix
}

fn slot_end(slot: u32) -> Vec<u8> {
    successor(slot.to_be_bytes().to_vec())
}
