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

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use dataflow::{KeyTable, RandomState, Result, StepContext, random_state};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::accumulator::{Accumulator, CallRows, Expectation, States};
use super::change::conform;
use super::words::{array_from_words, each_equality_word, is_word};
use super::{AggregateCall, AggregateFunction};

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
            let entries: Vec<(u64, i64)> = match &self.sets {
                Sets::Plain(sets) => sets.of(*from).iter().map(|code| (*code, 1)).collect(),
                Sets::Counted(sets) => sets.of(*from).iter().copied().collect(),
            };
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
        match &self.sets {
            Sets::Plain(sets) => sets.of(slot).is_empty(),
            Sets::Counted(sets) => sets.of(slot).is_empty(),
        }
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

enum Codes {
    /// One column of this type, which a word holds.
    Words(DataType),
    Numbers(Numbers),
}

/// Fewer free numbers than this are not worth renumbering.
const RENUMBERING_MIN: usize = 4096;

/// Numbers for values of any type, given out while some set holds them.
struct Numbers {
    types: Vec<DataType>,
    converter: RowConverter,
    values: KeyTable,
    // Per number: how many sets hold the value.
    holders: Vec<u32>,
    // Numbers that may have no holder.
    unused: Vec<u32>,
}

impl Numbers {
    fn new(types: Vec<DataType>) -> Result<Numbers> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Ok(Numbers {
            types,
            converter: RowConverter::new(fields)?,
            values: KeyTable::new(),
            holders: Vec::new(),
            unused: Vec::new(),
        })
    }
}

impl Codes {
    fn of(&mut self, columns: &[ArrayRef]) -> Result<Vec<u64>> {
        match self {
            Codes::Words(_) => {
                let mut codes = vec![0; columns[0].len()];
                each_equality_word(&columns[0], |row, word| codes[row] = word);
                Ok(codes)
            }
            Codes::Numbers(numbers) => {
                let columns: Vec<ArrayRef> = columns.iter().map(super::group_table::equality_form).collect();
                let rows = numbers.converter.convert_columns(&columns)?;
                let mut codes = Vec::with_capacity(rows.num_rows());
                for row in rows.iter() {
                    let (number, new) = numbers.values.insert(row.data());
                    if new {
                        if numbers.holders.len() <= number as usize {
                            numbers.holders.resize(number as usize + 1, 0);
                        }
                        numbers.holders[number as usize] = 0;
                        numbers.unused.push(number);
                    }
                    codes.push(u64::from(number));
                }
                Ok(codes)
            }
        }
    }

    /// A set holds the value from now on.
    #[inline]
    fn keep(&mut self, code: u64) {
        if let Codes::Numbers(numbers) = self {
            numbers.holders[code as usize] += 1;
        }
    }

    /// A set does not hold the value any more.
    #[inline]
    fn drop(&mut self, code: u64) {
        if let Codes::Numbers(numbers) = self {
            let holders = &mut numbers.holders[code as usize];
            *holders -= 1;
            if *holders == 0 {
                numbers.unused.push(code as u32);
            }
        }
    }

    /// Forgets values that no set holds. Apart from `drop`, because a value may go and come within a step.
    fn drop_unused(&mut self) {
        if let Codes::Numbers(numbers) = self {
            let mut unused = std::mem::take(&mut numbers.unused);
            unused.sort_unstable();
            unused.dedup();
            for number in unused.drain(..) {
                if numbers.holders[number as usize] == 0 {
                    numbers.values.remove(number);
                }
            }
            numbers.unused = unused;
        }
    }

    /// New numbers for the values in use, by old number, when few of many are left.
    fn renumber(&mut self) -> Option<Vec<u32>> {
        let Codes::Numbers(numbers) = self else { return None };
        let slots_len = numbers.values.slots_len();
        if slots_len < RENUMBERING_MIN || numbers.values.len() * 4 > slots_len {
            return None;
        }
        let used: Vec<u32> = numbers.values.iter().map(|(number, _)| number).collect();
        let mut renumbered = vec![0; slots_len];
        for (new, old) in used.iter().enumerate() {
            renumbered[*old as usize] = new as u32;
        }
        numbers.values.renumber(&used);
        numbers.holders = used.iter().map(|number| numbers.holders[*number as usize]).collect();
        Some(renumbered)
    }

    /// The columns again, out of codes.
    fn values(&self, codes: &[u64]) -> Result<Vec<ArrayRef>> {
        match self {
            Codes::Words(data_type) => Ok(vec![array_from_words(data_type, codes, None)?]),
            Codes::Numbers(numbers) => {
                let parser = numbers.converter.parser();
                let rows = codes.iter().map(|code| parser.parse(numbers.values.key(*code as u32)));
                let columns = numbers.converter.convert_rows(rows)?;
                columns
                    .into_iter()
                    .zip(&numbers.types)
                    .map(|(column, data_type)| conform(column, data_type))
                    .collect()
            }
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Codes::Words(_) => 0,
            Codes::Numbers(numbers) => numbers.values.size_bytes() + numbers.holders.capacity() * 4,
        }
    }
}
