//! One input of a join and what is remembered of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use dataflow::{KeyPart, Result, StateReader, StateSize, StateWriter, Watermark, ZSet};

use super::{JoinSideTime, Role};
use crate::bag::Bag;
use crate::operators::{Expiry, microseconds};
use crate::packed_rows::PackedCodec;
use crate::row_codec::{EncodedRows, RowCodec};

pub(super) struct Side {
    pub key: Vec<usize>,
    pub role: Role,
    pub time: JoinSideTime,
    // Columns outside the key, in ascending order: what a kept row holds.
    rest: Vec<usize>,
    pub rest_codec: PackedCodec,
    // Per column: where its values come from when this is the remembered side.
    pub origin: Vec<Origin>,
    pub rows: Bag,
    // By entry of `rows`: total weight of the rows that it pairs with. Empty when nobody asks for it.
    pub partners: Vec<i64>,
    counts: bool,
    expiring: Expiring,
}

#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// The n-th key column, equal to the other side's.
    Key(usize),
    /// The n-th column of `rest`.
    Rest(usize),
}

/// When remembered rows are dropped. An entry that was removed meanwhile, and perhaps reused, is recognized by its
/// time.
#[derive(Default)]
struct Expiring {
    by_time: BinaryHeap<Reverse<(i64, u32)>>,
    // By entry.
    time_of: Vec<i64>,
}

/// An input change with its keys encoded.
pub(super) struct Delta<'a> {
    pub change: &'a ZSet,
    pub keys: EncodedRows,
    // Rows that may have partners; `None` means all.
    matchable: Option<NullBuffer>,
}

impl<'a> Delta<'a> {
    pub fn new(
        change: &'a ZSet,
        key: &[usize],
        codec: &RowCodec,
        null_equals_null: bool,
    ) -> Result<Delta<'a>> {
        let keys = codec.encode_columns(change.rows(), key)?;
        let mut matchable = None;
        if !null_equals_null {
            for column in key {
                let nulls = change.rows().column(*column).logical_nulls();
                matchable = NullBuffer::union(matchable.as_ref(), nulls.as_ref());
            }
        }
        Ok(Delta { change, keys, matchable })
    }

    pub fn is_matchable(&self, row: usize) -> bool {
        self.matchable.as_ref().is_none_or(|valid| valid.is_valid(row))
    }

    /// Row numbers that may have partners.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.change.len()).filter(|row| self.is_matchable(*row))
    }
}

impl Side {
    pub fn new(
        schema: &SchemaRef,
        key: Vec<usize>,
        role: Role,
        time: JoinSideTime,
        residual: bool,
    ) -> Result<Side> {
        let rest: Vec<usize> = (0..schema.fields().len()).filter(|column| !key.contains(column)).collect();
        let origin = (0..schema.fields().len())
            .map(|column| match key.iter().position(|k| *k == column) {
                Some(n) => Origin::Key(n),
                None => {
                    Origin::Rest(rest.iter().position(|r| *r == column).expect("a column is key or rest"))
                }
            })
            .collect();
        Ok(Side {
            rest_codec: PackedCodec::for_columns(schema, &rest)?,
            counts: residual && role != Role::Never,
            key,
            role,
            time,
            rest,
            origin,
            rows: Bag::new(),
            partners: Vec::new(),
            expiring: Expiring::default(),
        })
    }

    pub fn width(&self) -> usize {
        self.origin.len()
    }

    /// Adds the change's rows. `partners` has the weight of each row's partners, where it is counted.
    pub fn remember(&mut self, delta: &Delta<'_>, partners: Option<&[i64]>) -> Result<()> {
        let rest = self.rest_codec.encode_columns(delta.change.rows(), &self.rest)?;
        let ends = self.ends(delta.change)?;
        for row in delta.rows() {
            let partners = partners.map_or(0, |p| p[row]);
            let end = ends.as_ref().map(|(times, expiry)| end_of(times, *expiry, row));
            self.remember_row(delta.keys.get(row), rest.get(row), delta.change.weight(row), partners, end);
        }
        Ok(())
    }

    /// Adds the change's rows and says, for each key once and by its first row, whether the side had it before.
    pub fn remember_keys(&mut self, delta: &Delta<'_>) -> Result<Vec<(usize, bool)>> {
        let rest = self.rest_codec.encode_columns(delta.change.rows(), &self.rest)?;
        let ends = self.ends(delta.change)?;
        let mut seen = dataflow::KeyTable::new();
        let mut before = Vec::new();
        for row in delta.rows() {
            let key = delta.keys.get(row);
            if seen.insert(key).1 {
                before.push((row, self.rows.find_key(key).is_some()));
            }
            let end = ends.as_ref().map(|(times, expiry)| end_of(times, *expiry, row));
            self.remember_row(key, rest.get(row), delta.change.weight(row), 0, end);
        }
        Ok(before)
    }

    fn ends(&self, change: &ZSet) -> Result<Option<(TimestampMicrosecondArray, Expiry)>> {
        self.time
            .drop
            .map(|expiry| Ok((microseconds(change.rows().column(expiry.column))?, expiry)))
            .transpose()
    }

    fn remember_row(&mut self, key: &[u8], rest: &[u8], weight: i64, partners: i64, end: Option<i64>) {
        if !self.counts && end.is_none() {
            self.rows.add(key, rest, weight);
            return;
        }
        let update = self.rows.update(key, rest, weight);
        let entry = update.entry as usize;
        if update.after == 0 {
            self.rows.release(update.entry);
            self.rows.remove_key_if_empty(update.key);
            return;
        }
        if self.counts {
            set_partners(&mut self.partners, entry, partners);
        }
        if let Some(end) = end.filter(|_| update.before == 0) {
            self.expiring.add(end, update.entry);
        }
    }

    /// Takes out the entries whose time has come; they are still in `rows`.
    pub fn expired(&mut self, watermark: Watermark) -> Vec<u32> {
        let mut entries = Vec::new();
        while let Some(Reverse((end, entry))) = self.expiring.by_time.peek().copied() {
            if !watermark.closes(end) {
                break;
            }
            self.expiring.by_time.pop();
            let current = &mut self.expiring.time_of[entry as usize];
            if *current == end && self.rows.is_live(entry) {
                // Listed twice when it was removed and came back with the same time.
                *current = i64::MIN;
                entries.push(entry);
            }
        }
        entries
    }

    pub fn drop_entries(&mut self, entries: &[u32]) {
        for entry in entries {
            let key = self.rows.key_of(*entry);
            self.rows.remove_entry(*entry);
            self.rows.remove_key_if_empty(key);
        }
        if self.rows.is_empty() {
            self.partners = Vec::new();
            self.expiring = Expiring::default();
        }
    }

    /// The columns of remembered rows.
    pub fn columns(&self, entries: &[u32], key_codec: &RowCodec) -> Result<Vec<ArrayRef>> {
        let keys: Vec<&[u8]> = entries.iter().map(|e| self.rows.key(self.rows.key_of(*e))).collect();
        let rest: Vec<&[u8]> = entries.iter().map(|e| self.rows.row(*e)).collect();
        let (keys, rest) = (key_codec.decode(&keys)?, self.rest_codec.decode(&rest)?);
        Ok(self
            .origin
            .iter()
            .map(|origin| match origin {
                Origin::Key(n) => std::sync::Arc::clone(&keys[*n]),
                Origin::Rest(n) => std::sync::Arc::clone(&rest[*n]),
            })
            .collect())
    }

    /// Writes the rows of these keys, each with the count of its partners and with its end, if it has them.
    pub fn save(&self, key_codec: &RowCodec, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        let slots = self.rows.slots_of(key_codec, part)?;
        let mut before = 0i64;
        self.rows.save(&slots, out, |out, entry| {
            if self.counts {
                out.signed(self.partners[entry as usize]);
            }
            if self.time.drop.is_some() {
                // Rows that came together end together.
                let end = self.expiring.time_of[entry as usize];
                out.signed(end.wrapping_sub(before));
                before = end;
            }
        });
        Ok(())
    }

    pub fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        let Side { rows, partners, expiring, counts, time, .. } = self;
        let mut before = 0i64;
        rows.load(saved, |saved, entry| {
            if *counts {
                set_partners(partners, entry as usize, saved.signed()?);
            }
            if time.drop.is_some() {
                before = before.wrapping_add(saved.signed()?);
                expiring.add(before, entry);
            }
            Ok(())
        })?;
        Ok(())
    }

    pub fn state_size(&self) -> StateSize {
        let times = self.expiring.by_time.capacity() * size_of::<(i64, u32)>()
            + self.expiring.time_of.capacity() * size_of::<i64>();
        StateSize {
            rows: self.rows.len(),
            bytes: self.rows.size_bytes() + self.partners.capacity() * size_of::<i64>() + times,
        }
    }
}

impl Expiring {
    fn add(&mut self, end: i64, entry: u32) {
        if self.time_of.len() <= entry as usize {
            self.time_of.resize(entry as usize + 1, i64::MIN);
        }
        self.time_of[entry as usize] = end;
        self.by_time.push(Reverse((end, entry)));
    }
}

fn set_partners(partners: &mut Vec<i64>, entry: usize, count: i64) {
    if partners.len() <= entry {
        partners.resize(entry + 1, 0);
    }
    partners[entry] = count;
}

/// When a row may be dropped; a row without a time has no partner by it and goes with the first watermark.
fn end_of(times: &TimestampMicrosecondArray, expiry: Expiry, row: usize) -> i64 {
    if times.is_null(row) {
        return i64::MIN + 1;
    }
    expiry.end_us(times.value(row)).saturating_add(expiry.allowed_lateness_us)
}
