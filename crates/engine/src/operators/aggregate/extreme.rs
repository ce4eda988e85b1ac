//! min and max.
//!
//! Values are coded so that the wanted one is always the smallest code: words for types of up to 64 bits, 128-bit
//! codes for decimals, bytes of arrow's row format for the rest. Floats sort by total order (NaN with
//! the sign clear is the largest), as they do in the row format. Append-only groups keep one code, others all
//! of them in order.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Decimal128Type};
use arrow::row::{RowConverter, SortField};
use dataflow::{Result, StateReader, StateWriter, StepContext};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::change::conform;
use super::columns::{
    load_bytes, load_flags, load_sets, load_wide, load_words, save_flags, save_integers, save_lengths,
    save_wide, save_words,
};
use super::multiset::Multiset;
use super::words::{WordOrder, array_from_words, each_word, is_word};
use super::{AggregateCall, AggregateFunction};

/// The cheapest accumulator for a min or max over `argument`.
///
/// # Errors
/// If the type has no order, or the result's type differs.
pub fn accumulator(
    call: &AggregateCall,
    argument: &DataType,
    append_only: bool,
) -> Result<Box<dyn Accumulator>> {
    if call.output.data_type() != argument {
        return Err(unsupported(call, argument));
    }
    let max = call.function == AggregateFunction::Max;
    let data_type = argument.clone();
    if let (true, Some(order)) = (is_word(argument), WordOrder::of(argument)) {
        let codec = WordCodec { data_type, order, flip: if max { u64::MAX } else { 0 } };
        return Ok(fixed(codec, append_only));
    }
    if let DataType::Decimal128(..) = argument {
        return Ok(fixed(DecimalCodec { data_type, flip: if max { u128::MAX } else { 0 } }, append_only));
    }
    let options = SortOptions { descending: max, nulls_first: true };
    let converter = RowConverter::new(vec![SortField::new_with_options(data_type.clone(), options)])?;
    if append_only {
        Ok(Box::new(BytesOfOne { data_type, converter, states: States::default(), heap_bytes: 0 }))
    } else {
        Ok(Box::new(BytesOfMany { data_type, converter, states: States::default(), heap_bytes: 0 }))
    }
}

fn fixed<C: Codec + 'static>(codec: C, append_only: bool) -> Box<dyn Accumulator> {
    if append_only {
        Box::new(FixedOfOne { codec, states: States::default() })
    } else {
        Box::new(FixedOfMany { codec, states: States::default(), entries: 0 })
    }
}

/// Codes values of a type so that the wanted extreme has the smallest code.
trait Codec: Send {
    type Code: Copy + Ord + Default + Send;

    fn each(&self, rows: &CallRows<'_>, f: impl FnMut(usize, Self::Code, i64));

    fn decode(&self, codes: Vec<Option<Self::Code>>) -> Result<ArrayRef>;

    fn save(codes: impl Iterator<Item = Self::Code>, out: &mut StateWriter);

    fn load(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<Self::Code>>;
}

struct WordCodec {
    data_type: DataType,
    order: WordOrder,
    flip: u64,
}

impl Codec for WordCodec {
    type Code = u64;

    #[inline(always)]
    fn each(&self, rows: &CallRows<'_>, mut f: impl FnMut(usize, u64, i64)) {
        let mut codes = vec![0u64; rows.slots.len()];
        let (order, flip) = (self.order, self.flip);
        each_word(&rows.columns[0], |row, word| codes[row] = order.encode(word) ^ flip);
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| f(slot, codes[row], weight));
    }

    fn decode(&self, codes: Vec<Option<u64>>) -> Result<ArrayRef> {
        let words: Vec<u64> =
            codes.iter().map(|code| code.map_or(0, |code| self.order.decode(code ^ self.flip))).collect();
        array_from_words(&self.data_type, &words, nulls(&codes))
    }

    fn save(codes: impl Iterator<Item = u64>, out: &mut StateWriter) {
        save_words(codes, out);
    }

    fn load(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<u64>> {
        load_words(count, saved)
    }
}

struct DecimalCodec {
    data_type: DataType,
    flip: u128,
}

const SIGN: u128 = 1 << 127;

impl Codec for DecimalCodec {
    type Code = u128;

    #[inline(always)]
    fn each(&self, rows: &CallRows<'_>, mut f: impl FnMut(usize, u128, i64)) {
        let values = rows.columns[0].as_primitive::<Decimal128Type>().values();
        let flip = self.flip ^ SIGN;
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| f(slot, values[row] as u128 ^ flip, weight));
    }

    fn decode(&self, codes: Vec<Option<u128>>) -> Result<ArrayRef> {
        let values = codes.iter().map(|code| code.map(|code| (code ^ self.flip ^ SIGN) as i128));
        Ok(Arc::new(Decimal128Array::from_iter(values).with_data_type(self.data_type.clone())))
    }

    fn save(codes: impl Iterator<Item = u128>, out: &mut StateWriter) {
        save_wide(codes, out);
    }

    fn load(count: usize, saved: &mut StateReader<'_>) -> Result<Vec<u128>> {
        load_wide(count, saved)
    }
}

fn nulls<C>(codes: &[Option<C>]) -> Option<NullBuffer> {
    let valid = BooleanBuffer::collect_bool(codes.len(), |row| codes[row].is_some());
    Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
}

/// Append-only, codes of fixed width: the smallest seen.
struct FixedOfOne<C: Codec> {
    codec: C,
    states: States<Option<C::Code>>,
}

impl<C: Codec> Accumulator for FixedOfOne<C> {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let states = &mut self.states.0;
        self.codec.each(rows, |slot, code, _| {
            let state = &mut states[slot];
            if state.is_none_or(|least| code < least) {
                *state = Some(code);
            }
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        assert!(sign > 0, "an extreme that keeps one value can't be taken back");
        for (from, into) in from.iter().zip(into) {
            let other = *self.states.of(*from);
            let state = &mut self.states.0[*into as usize];
            *state = (*state).into_iter().chain(other).min();
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        false
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_none()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        self.codec.decode(slots.iter().map(|slot| *self.states.of(*slot)).collect())
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_flags(self.states.at(slots).map(Option::is_some), out);
        C::save(self.states.at(slots).copied().flatten(), out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let present = present(slots, saved)?;
        self.states.put(&present, C::load(present.len(), saved)?.into_iter().map(Some));
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes()
    }
}

/// Any input, codes of fixed width: all of them.
struct FixedOfMany<C: Codec> {
    codec: C,
    states: States<Multiset<C::Code>>,
    entries: usize,
}

impl<C: Codec> Accumulator for FixedOfMany<C> {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let (states, entries) = (&mut self.states.0, &mut self.entries);
        self.codec.each(rows, |slot, code, weight| {
            let state = &mut states[slot];
            let before = state.len();
            state.add(&code, weight, |code| *code);
            *entries = *entries + state.len() - before;
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        for (from, into) in from.iter().zip(into) {
            let other = std::mem::take(&mut self.states.0[*from as usize]);
            let state = &mut self.states.0[*into as usize];
            let before = state.len();
            other.iter().for_each(|(code, count)| state.add(code, sign * count, |code| *code));
            self.entries = self.entries + state.len() - before;
            self.states.0[*from as usize] = other;
        }
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_empty()
    }

    fn reset(&mut self, slots: &[u32]) {
        self.entries -= slots.iter().map(|slot| self.states.of(*slot).len()).sum::<usize>();
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        self.codec.decode(slots.iter().map(|slot| self.states.of(*slot).first().copied()).collect())
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_counts(&self.states, slots, out);
        C::save(self.states.at(slots).flat_map(Multiset::iter).map(|(code, _)| *code), out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let (states, total) = (&mut self.states.0, &mut self.entries);
        load_sets(slots, saved, C::load, |slot, entries| {
            states[slot as usize] = Multiset::of_sorted(entries);
            *total += states[slot as usize].len();
        })
    }

    fn size_bytes(&self) -> usize {
        // A B-tree's nodes are two thirds full on average.
        self.states.size_bytes() + self.entries * (size_of::<C::Code>() + 8) * 3 / 2
    }
}

/// Append-only, values as bytes: the smallest seen.
struct BytesOfOne {
    data_type: DataType,
    converter: RowConverter,
    states: States<Option<Box<[u8]>>>,
    heap_bytes: usize,
}

impl Accumulator for BytesOfOne {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let coded = self.converter.convert_columns(&rows.columns[..1])?;
        let (states, heap_bytes) = (&mut self.states.0, &mut self.heap_bytes);
        rows.each(rows.selected(1).as_ref(), |row, slot, _| {
            let state = &mut states[slot];
            let value = coded.row(row);
            if state.as_deref().is_none_or(|least| value.data() < least) {
                *heap_bytes = *heap_bytes + value.data().len() - state.as_ref().map_or(0, |old| old.len());
                *state = Some(value.data().into());
            }
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        assert!(sign > 0, "an extreme that keeps one value can't be taken back");
        for (from, into) in from.iter().zip(into) {
            let (Some(other), state) = (self.states.of(*from), self.states.of(*into)) else { continue };
            if state.as_ref().is_none_or(|least| other < least) {
                self.heap_bytes = self.heap_bytes + other.len() - state.as_ref().map_or(0, |old| old.len());
                self.states.0[*into as usize] = Some(other.clone());
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        false
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_none()
    }

    fn reset(&mut self, slots: &[u32]) {
        let held = slots.iter().filter_map(|slot| self.states.of(*slot).as_ref());
        self.heap_bytes -= held.map(|value| value.len()).sum::<usize>();
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let values: Vec<Option<&[u8]>> = slots.iter().map(|slot| self.states.of(*slot).as_deref()).collect();
        decode_bytes(&self.converter, &self.data_type, &values)
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_flags(self.states.at(slots).map(Option::is_some), out);
        self.states.at(slots).flatten().for_each(|value| out.bytes(value));
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let present = present(slots, saved)?;
        let values = load_bytes(present.len(), saved)?;
        self.heap_bytes += values.iter().map(|value| value.len()).sum::<usize>();
        self.states.put(&present, values.into_iter().map(Some));
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.heap_bytes
    }
}

/// Any input, values as bytes: all of them.
struct BytesOfMany {
    data_type: DataType,
    converter: RowConverter,
    states: States<Multiset<Box<[u8]>>>,
    heap_bytes: usize,
}

/// Beside its bytes, what a value costs in a B-tree.
const ENTRY_BYTES: usize = 40;

impl Accumulator for BytesOfMany {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let coded = self.converter.convert_columns(&rows.columns[..1])?;
        let (states, heap_bytes) = (&mut self.states.0, &mut self.heap_bytes);
        rows.each(rows.selected(1).as_ref(), |row, slot, weight| {
            add_bytes(&mut states[slot], coded.row(row).data(), weight, heap_bytes);
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        merge_bytes(&mut self.states, from, into, sign, &mut self.heap_bytes);
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_empty()
    }

    fn reset(&mut self, slots: &[u32]) {
        reset_bytes(&mut self.states, slots, &mut self.heap_bytes);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let values: Vec<Option<&[u8]>> =
            slots.iter().map(|slot| self.states.of(*slot).first().map(|value| &**value)).collect();
        decode_bytes(&self.converter, &self.data_type, &values)
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_byte_sets(&self.states, slots, out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        load_byte_sets(&mut self.states, slots, &mut self.heap_bytes, saved)
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.heap_bytes
    }
}

/// Adds to a multiset of byte strings and keeps count of the memory.
#[inline]
pub fn add_bytes(set: &mut Multiset<Box<[u8]>>, value: &[u8], weight: i64, heap_bytes: &mut usize) {
    let before = set.len();
    set.add(value, weight, |value| Box::from(value));
    let cost = value.len() + ENTRY_BYTES;
    *heap_bytes = *heap_bytes + set.len() * cost - before * cost;
}

pub fn merge_bytes(
    states: &mut States<Multiset<Box<[u8]>>>,
    from: &[u32],
    into: &[u32],
    sign: i64,
    heap_bytes: &mut usize,
) {
    for (from, into) in from.iter().zip(into) {
        let other = std::mem::take(&mut states.0[*from as usize]);
        let state = &mut states.0[*into as usize];
        other.iter().for_each(|(value, count)| add_bytes(state, value, sign * count, heap_bytes));
        states.0[*from as usize] = other;
    }
}

pub fn reset_bytes(states: &mut States<Multiset<Box<[u8]>>>, slots: &[u32], heap_bytes: &mut usize) {
    for slot in slots {
        let held: usize = states.of(*slot).iter().map(|(value, _)| value.len() + ENTRY_BYTES).sum();
        *heap_bytes -= held;
    }
    states.reset(slots);
}

/// The slots that the saved flags tell to have a state.
fn present(slots: &[u32], saved: &mut StateReader<'_>) -> Result<Vec<u32>> {
    let flags = load_flags(slots.len(), saved)?;
    Ok(slots.iter().zip(flags).filter(|(_, present)| *present).map(|(slot, _)| *slot).collect())
}

/// Writes lengths and counts of these sets, the first columns that [`load_sets`] reads.
fn save_counts<K: Ord>(states: &States<Multiset<K>>, slots: &[u32], out: &mut StateWriter) {
    save_lengths(states.at(slots).map(Multiset::len), out);
    save_integers(states.at(slots).flat_map(Multiset::iter).map(|(_, count)| count), out);
}

pub fn save_byte_sets(states: &States<Multiset<Box<[u8]>>>, slots: &[u32], out: &mut StateWriter) {
    save_counts(states, slots, out);
    states.at(slots).flat_map(Multiset::iter).for_each(|(value, _)| out.bytes(value));
}

pub fn load_byte_sets(
    states: &mut States<Multiset<Box<[u8]>>>,
    slots: &[u32],
    heap_bytes: &mut usize,
    saved: &mut StateReader<'_>,
) -> Result<()> {
    load_sets(slots, saved, load_bytes, |slot, entries| {
        let set = Multiset::of_sorted(entries);
        *heap_bytes += set.iter().map(|(value, _)| value.len() + ENTRY_BYTES).sum::<usize>();
        states.0[slot as usize] = set;
    })
}

/// Values out of their row bytes; `None` is NULL.
fn decode_bytes(
    converter: &RowConverter,
    data_type: &DataType,
    values: &[Option<&[u8]>],
) -> Result<ArrayRef> {
    let null = converter.convert_columns(&[arrow::array::new_null_array(data_type, 1)])?;
    let parser = converter.parser();
    let rows = values.iter().map(|value| value.map_or(null.row(0), |bytes| parser.parse(bytes)));
    let mut columns = converter.convert_rows(rows)?;
    conform(columns.remove(0), data_type)
}
