//! Pairs of rows, and rows that gain their first or lose their last partner.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::length::length;
use arrow::compute::take;
use arrow::datatypes::{DataType, Int32Type};
use dataflow::{Result, StepContext, Watermark, ZSet};

use super::side::{Delta, Origin};
use super::{JOINED_BYTES_MAX, Join, Output, Role};
use crate::row_codec::batch_of;

/// Pairs of a changed and a remembered row, not yet turned into columns.
#[derive(Default)]
struct Pairs<'a> {
    bytes: usize,
    changed: Vec<u32>,
    remembered: Vec<u32>,
    rest: Vec<&'a [u8]>,
}

/// What a change does to counts of partners.
pub(super) struct Partners {
    /// Per row of the change: weight of its partners.
    pub of_changed: Vec<i64>,
    /// Per remembered row of the other side that the change touches: by how much its count moves.
    pub of_remembered: HashMap<u32, i64>,
}

/// A key of a change that its side did not have before or does not have now.
pub(super) struct TurnedKey {
    row: usize,
    matched: bool,
}

/// Remembered rows on their way out, in batches of bounded size.
#[derive(Default)]
struct Leaving {
    entries: Vec<u32>,
    weights: Vec<i64>,
    marks: Vec<bool>,
}

impl Join {
    /// Gives the pairs of a changed and a remembered row.
    pub(super) fn pair(
        &self,
        delta: &Delta<'_>,
        port: usize,
        ctx: &mut StepContext,
        out: &mut Output<'_>,
    ) -> Result<()> {
        self.each_pairs(delta, port, |pairs| self.flush(delta, port, pairs, ctx, out).map(|_| ()))
    }

    /// As [`Join::pair`], where pairs are wanted, and counts them.
    pub(super) fn count_partners(
        &self,
        delta: &Delta<'_>,
        port: usize,
        ctx: &mut StepContext,
        out: &mut Output<'_>,
    ) -> Result<Partners> {
        let mut counts = Partners { of_changed: vec![0; delta.change.len()], of_remembered: HashMap::new() };
        let other = &self.sides[1 - port];
        let count_remembered = other.role != Role::Never;
        self.each_pairs(delta, port, |pairs| {
            let passed = self.flush(delta, port, pairs, ctx, out)?;
            for (n, (row, entry)) in pairs.changed.iter().zip(&pairs.remembered).enumerate() {
                if passed.as_ref().is_some_and(|mask| !mask.value(n)) {
                    continue;
                }
                counts.of_changed[*row as usize] += other.rows.weight(*entry);
                if count_remembered {
                    *counts.of_remembered.entry(*entry).or_default() += delta.change.weight(*row as usize);
                }
            }
            Ok(())
        })?;
        Ok(counts)
    }

    /// True when a change has so many pairs.
    pub(super) fn pairs_reach(&self, many: usize, delta: &Delta<'_>, port: usize) -> bool {
        let other = &self.sides[1 - port].rows;
        let at_most = delta.change.len().saturating_mul(other.rows_per_key_max());
        if at_most < many {
            return false;
        }
        let count = |row| other.find_key(delta.keys.get(row)).map_or(0, |key| other.count(key));
        delta.rows().map(count).sum::<usize>() >= many
    }

    /// Calls `take` with pairs of equal key, in pieces of bounded size.
    fn each_pairs<'s>(
        &'s self,
        delta: &Delta<'_>,
        port: usize,
        mut take: impl FnMut(&Pairs<'s>) -> Result<()>,
    ) -> Result<()> {
        let other = &self.sides[1 - port];
        if other.rows.is_empty() {
            return Ok(());
        }
        let mut pairs = Pairs::default();
        let string_bytes = string_bytes(delta.change.rows())?;
        for row in delta.rows() {
            let Some(key) = other.rows.find_key(delta.keys.get(row)) else { continue };
            let own_bytes = string_bytes.as_ref().map_or(0, |bytes| bytes[row]);
            for kept in other.rows.rows_at(key) {
                pairs.changed.push(row as u32);
                pairs.remembered.push(kept.entry);
                pairs.rest.push(kept.row);
                pairs.bytes += own_bytes + kept.row.len();
                if pairs.changed.len() == self.piece_rows || pairs.bytes >= JOINED_BYTES_MAX {
                    take(&pairs)?;
                    pairs.clear();
                }
            }
        }
        if pairs.changed.is_empty() { Ok(()) } else { take(&pairs) }
    }

    /// Turns pairs into rows, applies the residual, and puts those that pass out if the kind gives pairs. Returns
    /// which passed; `None` means all.
    fn flush(
        &self,
        delta: &Delta<'_>,
        port: usize,
        pairs: &Pairs<'_>,
        ctx: &mut StepContext,
        out: &mut Output<'_>,
    ) -> Result<Option<BooleanArray>> {
        let (changed, other) = (&self.sides[port], &self.sides[1 - port]);
        let indices = UInt32Array::from(pairs.changed.clone());
        let gathered: Vec<ArrayRef> = delta
            .change
            .rows()
            .columns()
            .iter()
            .map(|column| Ok(take(column, &indices, None)?))
            .collect::<Result<_>>()?;
        let rest = other.rest_codec.decode(&pairs.rest)?;
        let remembered: Vec<ArrayRef> = other
            .origin
            .iter()
            .map(|origin| match origin {
                Origin::Key(n) => Arc::clone(&gathered[changed.key[*n]]),
                Origin::Rest(n) => Arc::clone(&rest[*n]),
            })
            .collect();
        let columns = if port == 0 { [gathered, remembered] } else { [remembered, gathered] }.concat();
        let rows = batch_of(&self.joined, columns, indices.len())?;
        let mask = self.residual.as_ref().map(|residual| residual(&rows, ctx)).transpose()?;
        let mask = mask.map(|mask| match mask.nulls() {
            Some(nulls) => BooleanArray::new(mask.values() & nulls.inner(), None),
            None => mask,
        });
        if self.kind.gives_pairs() {
            let weights = (pairs.changed.iter().zip(&pairs.remembered))
                .map(|(row, entry)| delta.change.weight(*row as usize) * other.rows.weight(*entry))
                .collect();
            // Outer joins have nullable columns in their output.
            let rows = rows.with_schema(Arc::clone(&self.output))?;
            let mut result = ZSet::new(rows, weights);
            if let Some(mask) = &mask {
                result = result.filter(mask)?;
            }
            if !result.is_empty() {
                out.push(result)?;
            }
        }
        Ok(mask)
    }

    /// The changed rows that leave on their own, where a row has partners if the other side has its key.
    pub(super) fn give_by_key(&self, delta: &Delta<'_>, port: usize, out: &mut Output<'_>) -> Result<()> {
        let other = &self.sides[1 - port].rows;
        let matched = |row: usize| delta.is_matchable(row) && other.find_key(delta.keys.get(row)).is_some();
        self.give_changed(delta, port, matched, out)
    }

    /// The changed rows that leave on their own.
    pub(super) fn give_changed(
        &self,
        delta: &Delta<'_>,
        port: usize,
        matched: impl Fn(usize) -> bool,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let role = self.sides[port].role;
        let wanted: Vec<u32> = (0..delta.change.len())
            .filter(|row| match role {
                Role::Never => false,
                // One that can never have a partner needs not wait.
                Role::Unmatched if self.waits(port) => !delta.is_matchable(*row),
                Role::Marked if self.waits(port) => !delta.is_matchable(*row),
                Role::Unmatched => !matched(*row),
                Role::Matched => matched(*row),
                Role::Marked => true,
            })
            .map(|row| row as u32)
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let marks =
            (role == Role::Marked).then(|| wanted.iter().map(|row| Some(matched(*row as usize))).collect());
        let indices = UInt32Array::from(wanted);
        let rows = delta.change.take(&indices)?;
        let weights = (0..rows.len()).map(|row| rows.weight(row)).collect();
        out.push(self.alone(port, rows.rows().columns().to_vec(), weights, marks)?)
    }

    /// Adds the change's rows and says which keys came or went.
    pub(super) fn remember_by_key(&mut self, delta: &Delta<'_>, port: usize) -> Result<Vec<TurnedKey>> {
        if self.sides[1 - port].role == Role::Never {
            self.sides[port].remember(delta, None)?;
            return Ok(Vec::new());
        }
        let before = self.sides[port].remember_keys(delta)?;
        let rows = &self.sides[port].rows;
        Ok(before
            .into_iter()
            .map(|(row, had)| (row, had, rows.find_key(delta.keys.get(row)).is_some()))
            .filter(|(_, had, has)| had != has)
            .map(|(row, _, matched)| TurnedKey { row, matched })
            .collect())
    }

    /// Remembered rows whose key found its first or lost its last partner.
    pub(super) fn give_turned_keys(
        &self,
        delta: &Delta<'_>,
        port: usize,
        turned: &[TurnedKey],
        out: &mut Output<'_>,
    ) -> Result<()> {
        let mut leaving = Leaving::default();
        for key in turned {
            let Some(slot) = self.sides[port].rows.find_key(delta.keys.get(key.row)) else { continue };
            for kept in self.sides[port].rows.rows_at(slot) {
                self.turn(port, kept.entry, kept.weight, key.matched, &mut leaving, out)?;
            }
        }
        self.give(port, &mut leaving, out)
    }

    /// Moves the counts of remembered rows; gives those that found their first or lost their last partner.
    pub(super) fn give_turned_rows(
        &mut self,
        port: usize,
        moves: HashMap<u32, i64>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let mut leaving = Leaving::default();
        let mut moves: Vec<(u32, i64)> = moves.into_iter().collect();
        // The order of a hash map must not show.
        moves.sort_unstable();
        for (entry, by) in moves {
            let count = &mut self.sides[port].partners[entry as usize];
            let before = *count > 0;
            *count += by;
            let after = *count > 0;
            if before != after {
                let weight = self.sides[port].rows.weight(entry);
                self.turn(port, entry, weight, after, &mut leaving, out)?;
            }
        }
        self.give(port, &mut leaving, out)
    }

    fn turn(
        &self,
        port: usize,
        entry: u32,
        weight: i64,
        matched: bool,
        leaving: &mut Leaving,
        out: &mut Output<'_>,
    ) -> Result<()> {
        match self.sides[port].role {
            Role::Never => {}
            Role::Unmatched | Role::Marked if self.waits(port) => {}
            Role::Unmatched => leaving.push(entry, if matched { -weight } else { weight }, matched),
            Role::Matched => leaving.push(entry, if matched { weight } else { -weight }, matched),
            Role::Marked => {
                leaving.push(entry, -weight, !matched);
                leaving.push(entry, weight, matched);
            }
        }
        if leaving.entries.len() >= self.piece_rows { self.give(port, leaving, out) } else { Ok(()) }
    }

    fn give(&self, port: usize, leaving: &mut Leaving, out: &mut Output<'_>) -> Result<()> {
        if leaving.entries.is_empty() {
            return Ok(());
        }
        let side = &self.sides[port];
        let columns = side.columns(&leaving.entries, &self.key_codec)?;
        let marks = (side.role == Role::Marked).then(|| BooleanArray::from(leaving.marks.clone()));
        out.push(self.alone(port, columns, std::mem::take(&mut leaving.weights), marks)?)?;
        leaving.entries.clear();
        leaving.marks.clear();
        Ok(())
    }

    /// Frees the rows that can have no more partners, and gives those that waited for one in vain.
    pub(super) fn drop_expired(&mut self, watermark: Watermark, out: &mut Output<'_>) -> Result<()> {
        // Both sides look before either forgets.
        let expired = [self.sides[0].expired(watermark), self.sides[1].expired(watermark)];
        for (port, entries) in expired.iter().enumerate() {
            if !self.waits(port) {
                continue;
            }
            let (side, other) = (&self.sides[port], &self.sides[1 - port]);
            let mut leaving = Leaving::default();
            for entry in entries {
                let matched = match side.partners.get(*entry as usize) {
                    Some(count) => *count > 0,
                    None => other.rows.find_key(side.rows.key(side.rows.key_of(*entry))).is_some(),
                };
                let weight = side.rows.weight(*entry);
                match side.role {
                    Role::Unmatched if !matched => leaving.push(*entry, weight, false),
                    Role::Marked => leaving.push(*entry, weight, matched),
                    _ => {}
                }
                if leaving.entries.len() >= self.piece_rows {
                    self.give(port, &mut leaving, out)?;
                }
            }
            self.give(port, &mut leaving, out)?;
        }
        for (side, entries) in self.sides.iter_mut().zip(&expired) {
            side.drop_entries(entries);
        }
        Ok(())
    }
}

/// By row, the bytes of its strings; `None` without string columns.
fn string_bytes(rows: &RecordBatch) -> Result<Option<Vec<usize>>> {
    let mut sums = None;
    for column in rows.columns().iter().filter(|c| matches!(c.data_type(), DataType::Utf8 | DataType::Binary))
    {
        let lengths = length(column)?;
        let sums = sums.get_or_insert_with(|| vec![0; rows.num_rows()]);
        for (sum, bytes) in sums.iter_mut().zip(lengths.as_primitive::<Int32Type>()) {
            *sum += bytes.unwrap_or_default() as usize;
        }
    }
    Ok(sums)
}

impl Pairs<'_> {
    fn clear(&mut self) {
        self.bytes = 0;
        self.changed.clear();
        self.remembered.clear();
        self.rest.clear();
    }
}

impl Leaving {
    fn push(&mut self, entry: u32, weight: i64, mark: bool) {
        self.entries.push(entry);
        self.weights.push(weight);
        self.marks.push(mark);
    }
}
