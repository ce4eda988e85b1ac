//! DISTINCT inside a call: only a value's first occurrence in its group counts.
//!
//! Values are coded as words: the value itself where it fits (integers, timestamps, floats), else a number
//! that a table of all values in use gives out. Each group has a set of codes, with counts when
//! rows can be taken away. What enters or leaves a set is handed to the inner accumulator; count(distinct)
//! needs none, it is the size of the set.
//!
//! ```text
//!   rows --> code --> set of the group --(new: +1, gone: -1)--> sum, avg, string_agg, array_agg
//! ```

mod codes;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{RandomState, Result, StateReader, StateWriter, StepContext, random_state};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::accumulator::{Accumulator, CallRows, Expectation, States};
use super::columns::{
    check_order, damaged, load_integers, load_lengths, load_words, save_integers, save_lengths, save_words,
};
use super::words::is_word;
use super::{AggregateCall, AggregateFunction};
use codes::{Codes, Numbers};

/// A call over the distinct values of its arguments and ORDER BY columns.
pub struct Distinct {
    codes: Codes,
    sets: Sets,
    hasher: RandomState,
    // Per group: values whose count is above zero. Used when the sets have counts.
    present: States<i64>,
    // Entries in all sets, for the size.
    entries: usize,
    inner: Option<Box<dyn Accumulator>>,
    /// How many of the columns must have a value for the row to take part.
    columns_not_null: usize,
}

enum Sets {
    /// Nothing is ever taken away.
    Plain(States<HashTable<u64>>),
    Counted(States<HashTable<(u64, i64)>>),
}

impl Distinct {
    /// # Errors
    /// If a column's type can't be compared.
    pub fn new(
        call: &AggregateCall,
        input: &SchemaRef,
        inner: Option<Box<dyn Accumulator>>,
        expect: Expectation,
    ) -> Result<Distinct> {
        let columns = call.arguments.iter().chain(call.order_by.iter().map(|(column, _)| column));
        let types: Vec<DataType> = columns.map(|column| input.field(*column).data_type().clone()).collect();
        let keeps_nulls = call.function == AggregateFunction::ArrayAgg;
        let columns_not_null = match call.function {
            AggregateFunction::ArrayAgg => 0,
            AggregateFunction::Count | AggregateFunction::Statistic(_) => call.arguments.len(),
            _ => 1,
        };
        let codes = match types.as_slice() {
            [only] if is_word(only) && !keeps_nulls => Codes::Words(only.clone()),
            _ => Codes::Numbers(Numbers::new(types)?),
        };
        let counted = !expect.append_only || expect.subtracts;
        Ok(Distinct {
            codes,
            sets: if counted { Sets::Counted(States::default()) } else { Sets::Plain(States::default()) },
            hasher: random_state().clone(),
            present: States::default(),
            entries: 0,
            inner,
            columns_not_null,
        })
    }

    /// Numbers the values anew when few of many are left.
    fn renumber_values(&mut self) {
        let Some(renumbered) = self.codes.renumber() else { return };
        let hasher = &self.hasher;
        match &mut self.sets {
            Sets::Plain(sets) => {
                for set in sets.0.iter_mut().filter(|set| !set.is_empty()) {
                    for code in std::mem::take(set) {
                        let code = u64::from(renumbered[code as usize]);
                        set.insert_unique(hasher.hash_one(code), code, |code| hasher.hash_one(code));
                    }
                }
            }
            Sets::Counted(sets) => {
                for set in sets.0.iter_mut().filter(|set| !set.is_empty()) {
                    for (code, count) in std::mem::take(set) {
                        let code = u64::from(renumbered[code as usize]);
                        set.insert_unique(hasher.hash_one(code), (code, count), |(code, _)| {
                            hasher.hash_one(code)
                        });
                    }
                }
            }
        }
    }

    /// Codes and counts in the set of a group.
    fn held(&self, slot: u32) -> impl Iterator<Item = (u64, i64)> {
        let (plain, counted) = match &self.sets {
            Sets::Plain(sets) => (Some(sets.of(slot).iter().map(|code| (*code, 1))), None),
            Sets::Counted(sets) => (None, Some(sets.of(slot).iter().copied())),
        };
        plain.into_iter().flatten().chain(counted.into_iter().flatten())
    }

    fn length(&self, slot: u32) -> usize {
        match &self.sets {
            Sets::Plain(sets) => sets.of(slot).len(),
            Sets::Counted(sets) => sets.of(slot).len(),
        }
    }

    /// Changes the count of a code in a group; the result tells whether the value came (1) or went (-1).
    #[inline]
    fn change(&mut self, slot: u32, code: u64, weight: i64) -> i64 {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(code);
        match &mut self.sets {
            Sets::Plain(sets) => {
                debug_assert!(weight > 0, "nothing is taken away from a set without counts");
                let set = &mut sets.0[slot as usize];
                match set.entry(hash, |other| *other == code, |other| hasher.hash_one(other)) {
                    Entry::Occupied(_) => 0,
                    Entry::Vacant(vacant) => {
                        vacant.insert(code);
                        self.entries += 1;
                        self.codes.keep(code);
                        1
                    }
                }
            }
            Sets::Counted(sets) => {
                let set = &mut sets.0[slot as usize];
                let after;
                match set.entry(hash, |(other, _)| *other == code, |(other, _)| hasher.hash_one(other)) {
                    Entry::Occupied(mut entry) => {
                        entry.get_mut().1 += weight;
                        after = entry.get().1;
                        if after == 0 {
                            entry.remove();
                            self.entries -= 1;
                            self.codes.drop(code);
                        }
                    }
                    Entry::Vacant(vacant) => {
                        after = weight;
                        if weight != 0 {
                            vacant.insert((code, weight));
                            self.entries += 1;
                            self.codes.keep(code);
                        }
                    }
                }
                let came = i64::from(after > 0) - i64::from(after - weight > 0);
                self.present.0[slot as usize] += came;
                came
            }
        }
    }
}

/// What came and went: positions of the values, their groups, and 1 or -1.
#[derive(Default)]
struct Moves {
    positions: Vec<u32>,
    slots: Vec<u32>,
    weights: Vec<i64>,
}

impl Moves {
    #[inline]
    fn push(&mut self, position: usize, slot: u32, weight: i64) {
        if weight != 0 {
            self.positions.push(position as u32);
            self.slots.push(slot);
            self.weights.push(weight);
        }
    }

    fn apply(self, columns: &[ArrayRef], inner: &mut dyn Accumulator) -> Result<()> {
        let positions = UInt32Array::from(self.positions);
        let columns =
            columns.iter().map(|column| take(column, &positions, None)).collect::<Result<_, _>>()?;
        let weights = Some(self.weights.as_slice());
        inner.update(&CallRows { slots: &self.slots, weights, columns, filter: None })
    }
}

impl Accumulator for Distinct {
    fn grow(&mut self, slots_len: usize) {
        match &mut self.sets {
            Sets::Plain(sets) => sets.grow(slots_len),
            Sets::Counted(sets) => {
                sets.grow(slots_len);
                self.present.grow(slots_len);
            }
        }
        if let Some(inner) = &mut self.inner {
            inner.grow(slots_len);
        }
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let selection = rows.selected(self.columns_not_null);
        let codes = self.codes.of(&rows.columns)?;
        let mut moves = Moves::default();
        if self.inner.is_some() {
            rows.each(selection.as_ref(), |row, slot, weight| {
                moves.push(row, slot as u32, self.change(slot as u32, codes[row], weight));
            });
        } else {
            rows.each(selection.as_ref(), |row, slot, weight| {
                self.change(slot as u32, codes[row], weight);
            });
        }
        self.codes.drop_unused();
        match &mut self.inner {
            Some(inner) if !moves.slots.is_empty() => moves.apply(&rows.columns, inner.as_mut()),
            _ => Ok(()),
        }
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        let mut merged: Vec<u64> = Vec::new();
        let mut moves = Moves::default();
        for (from, into) in from.iter().zip(into) {
            let entries: Vec<(u64, i64)> = self.held(*from).collect();
            for (code, count) in entries {
                let came = self.change(*into, code, sign * count);
                if came != 0 && self.inner.is_some() {
                    moves.push(merged.len(), *into, came);
                    merged.push(code);
                }
            }
        }
        match &mut self.inner {
            Some(inner) if !merged.is_empty() => moves.apply(&self.codes.values(&merged)?, inner.as_mut()),
            _ => Ok(()),
        }?;
        self.codes.drop_unused();
        Ok(())
    }

    fn invertible(&self) -> bool {
        matches!(self.sets, Sets::Counted(_))
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.length(slot) == 0
    }

    fn reset(&mut self, slots: &[u32]) {
        for slot in slots {
            match &mut self.sets {
                Sets::Plain(sets) => {
                    let set = std::mem::take(&mut sets.0[*slot as usize]);
                    self.entries -= set.len();
                    set.into_iter().for_each(|code| self.codes.drop(code));
                }
                Sets::Counted(sets) => {
                    let set = std::mem::take(&mut sets.0[*slot as usize]);
                    self.entries -= set.len();
                    set.into_iter().for_each(|(code, _)| self.codes.drop(code));
                    self.present.0[*slot as usize] = 0;
                }
            }
        }
        self.codes.drop_unused();
        self.renumber_values();
        if let Some(inner) = &mut self.inner {
            inner.reset(slots);
        }
    }

    fn evaluate(&self, slots: &[u32], ctx: &mut StepContext) -> Result<ArrayRef> {
        if let Some(inner) = &self.inner {
            return inner.evaluate(slots, ctx);
        }
        let count = |slot: &u32| match &self.sets {
            Sets::Plain(sets) => sets.of(*slot).len() as i64,
            Sets::Counted(_) => *self.present.of(*slot),
        };
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(count))))
    }

    fn renumber(&mut self, live: &[u32]) {
        match &mut self.sets {
            Sets::Plain(sets) => sets.renumber(live),
            Sets::Counted(sets) => {
                sets.renumber(live);
                self.present.renumber(live);
            }
        }
        if let Some(inner) = &mut self.inner {
            inner.renumber(live);
        }
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        let numbers =
            self.codes.save(slots.iter().flat_map(|slot| self.held(*slot)).map(|(code, _)| code), out);
        save_lengths(slots.iter().map(|slot| self.length(*slot)), out);
        // In order, because that of a hash table is another in every process.
        let mut entries: Vec<(u64, i64)> = Vec::new();
        for slot in slots {
            let before = entries.len();
            entries.extend(self.held(*slot));
            entries[before..].sort_unstable();
        }
        let written = |code: u64| numbers.as_ref().map_or(code, |numbers| u64::from(numbers[code as usize]));
        save_words(entries.iter().map(|(code, _)| written(*code)), out);
        if let Sets::Counted(_) = self.sets {
            save_integers(entries.iter().map(|(_, count)| *count), out);
        }
        self.inner.as_ref().map_or(Ok(()), |inner| inner.save(slots, out))
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let numbers = self.codes.load(saved)?;
        let (lengths, total) = load_lengths(slots.len(), saved)?;
        let codes = load_words(total, saved)?;
        let counts = match self.sets {
            Sets::Plain(_) => vec![1; total],
            Sets::Counted(_) => load_integers(total, saved)?,
        };
        let mut rest = codes.as_slice();
        let mut counts = counts.into_iter();
        for (slot, length) in slots.iter().zip(lengths) {
            let (own, others) = rest.split_at(length);
            check_order(own)?;
            for (code, count) in own.iter().zip(&mut counts) {
                let code = match &numbers {
                    None => *code,
                    Some(numbers) => match numbers.get(*code as usize) {
                        Some(number) => u64::from(*number),
                        None => return Err(damaged("a set holds a value that is not there")),
                    },
                };
                self.change(*slot, code, count);
            }
            rest = others;
        }
        self.codes.drop_unused();
        self.inner.as_mut().map_or(Ok(()), |inner| inner.load(slots, saved))
    }

    fn size_bytes(&self) -> usize {
        // Hash tables are two thirds full on average, and have a byte beside each entry.
        let sets = match &self.sets {
            Sets::Plain(sets) => sets.size_bytes() + self.entries * 9 * 3 / 2,
            Sets::Counted(sets) => sets.size_bytes() + self.entries * 17 * 3 / 2,
        };
        let inner = self.inner.as_ref().map_or(0, |inner| inner.size_bytes());
        sets + inner + self.present.size_bytes() + self.codes.size_bytes()
    }
}
