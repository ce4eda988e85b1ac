//! From pairs of row bytes to batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::{nullif, take};
use dataflow::{Result, ZSet};

use super::{AsofJoin, Delta, Origin};
use crate::operators::join::JOINED_ROWS_MAX;
use crate::row_codec::batch_of;

/// Right rows beside left rows; one that stands beside many is kept once.
#[derive(Default)]
struct Partners<'a> {
    rows: Vec<&'a [u8]>,
    // Per left row: number in `rows`.
    of: Vec<Option<u32>>,
}

/// Kept left rows with their partners, on their way out.
#[derive(Default)]
pub(super) struct Pairs<'a> {
    slots: Vec<u32>,
    left: Vec<&'a [u8]>,
    partners: Partners<'a>,
    weights: Vec<i64>,
}

/// Left rows of this step's change with their partners.
#[derive(Default)]
pub(super) struct Fresh<'a> {
    rows: Vec<u32>,
    partners: Partners<'a>,
    weights: Vec<i64>,
}

impl<'a> Partners<'a> {
    /// How many of the last rows are looked at: a stretch of left rows alternates between the old and the new partner.
    const LOOKED_AT: usize = 2;

    fn push(&mut self, partner: Option<&'a [u8]>) {
        let number = partner.map(|partner| {
            let recent = self.rows.iter().enumerate().rev().take(Partners::LOOKED_AT);
            let known =
                recent.filter(|(_, row)| std::ptr::eq(**row, partner)).map(|(number, _)| number).next();
            let number = known.unwrap_or_else(|| {
                self.rows.push(partner);
                self.rows.len() - 1
            });
            number as u32
        });
        self.of.push(number);
    }
}

impl<'a> Pairs<'a> {
    pub fn push(&mut self, slot: u32, left: &'a [u8], partner: Option<&'a [u8]>, weight: i64) {
        self.slots.push(slot);
        self.left.push(left);
        self.partners.push(partner);
        self.weights.push(weight);
    }

    pub fn is_full(&self) -> bool {
        self.slots.len() >= JOINED_ROWS_MAX
    }
}

impl<'a> Fresh<'a> {
    pub fn push(&mut self, row: usize, partner: Option<&'a [u8]>, weight: i64) {
        self.rows.push(row as u32);
        self.partners.push(partner);
        self.weights.push(weight);
    }
}

impl AsofJoin {
    /// Turns the pairs into rows, and forgets them.
    pub(super) fn give(&self, pairs: &mut Pairs<'_>, out: &mut Vec<ZSet>) -> Result<()> {
        let Pairs { slots, left, partners, weights } = std::mem::take(pairs);
        if slots.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = slots.iter().map(|slot| self.state.key(*slot)).collect();
        let keys = self.key_codec.decode(&keys)?;
        let left = self.sides[0].columns(&keys, &left)?;
        self.give_columns(left, &keys, &partners, weights, out)
    }

    pub(super) fn give_fresh(&self, delta: &Delta<'_>, fresh: Fresh<'_>, out: &mut Vec<ZSet>) -> Result<()> {
        if fresh.rows.is_empty() {
            return Ok(());
        }
        let indices = UInt32Array::from(fresh.rows);
        let columns = delta.change.rows().columns().iter();
        let left = columns.map(|column| Ok(take(column, &indices, None)?)).collect::<Result<Vec<_>>>()?;
        let keys: Vec<ArrayRef> = self.sides[0].key.iter().map(|column| Arc::clone(&left[*column])).collect();
        self.give_columns(left, &keys, &fresh.partners, fresh.weights, out)
    }

    fn give_columns(
        &self,
        mut columns: Vec<ArrayRef>,
        keys: &[ArrayRef],
        partners: &Partners<'_>,
        weights: Vec<i64>,
        out: &mut Vec<ZSet>,
    ) -> Result<()> {
        let rows = weights.len();
        if partners.rows.is_empty() {
            let right = self.spec.right.fields().iter();
            columns.extend(right.map(|field| new_null_array(field.data_type(), rows)));
        } else {
            let side = &self.sides[1];
            let entries = side.entry_codec.decode(&partners.rows)?;
            let indices = UInt32Array::from(partners.of.clone());
            let alone: BooleanArray = partners.of.iter().map(|partner| Some(partner.is_none())).collect();
            for origin in &side.origin {
                columns.push(match origin {
                    Origin::Key(n) => nullif(&keys[*n], &alone)?,
                    Origin::Entry(n) => take(&entries[*n], &indices, None)?,
                });
            }
        }
        let rows = batch_of(&self.spec.output, columns, rows)?;
        out.push(ZSet::new(rows, weights));
        Ok(())
    }
}
