//! The output change of groups: out of what they were and what they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{Result, ZSet};

/// Groups at one moment: their slots and, in the same order, the results of their calls.
pub struct Shown {
    pub slots: Vec<u32>,
    pub results: Vec<ArrayRef>,
}

/// `-old` and `+new` of every group whose results differ, or that appears or disappears.
///
/// Both sides list groups in the order of `touched`, which holds each slot once; `keys` gives the key columns
/// of slots.
pub fn change(
    schema: &SchemaRef,
    touched: &[u32],
    old: &Shown,
    new: &Shown,
    keys: impl FnOnce(&[u32]) -> Result<Vec<ArrayRef>>,
) -> Result<ZSet> {
    let comparators = old
        .results
        .iter()
        .zip(&new.results)
        .map(|(old, new)| make_comparator(old, new, SortOptions::default()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut kept_old: Vec<u32> = Vec::with_capacity(old.slots.len());
    let mut kept_new: Vec<u32> = Vec::with_capacity(new.slots.len());
    let (mut i, mut j) = (0, 0);
    for slot in touched {
        match (old.slots.get(i) == Some(slot), new.slots.get(j) == Some(slot)) {
            (true, true) => {
                if comparators.iter().any(|compare| compare(i, j).is_ne()) {
                    kept_old.push(i as u32);
                    kept_new.push(j as u32);
                }
                (i, j) = (i + 1, j + 1);
            }
            (true, false) => {
                kept_old.push(i as u32);
                i += 1;
            }
            (false, true) => {
                kept_new.push(j as u32);
                j += 1;
            }
            (false, false) => {}
        }
    }
    assert!(i == old.slots.len() && j == new.slots.len(), "both sides list groups in the order of touched");
    if kept_old.is_empty() && kept_new.is_empty() {
        return Ok(ZSet::empty(Arc::clone(schema)));
    }
    let slots: Vec<u32> = kept_old
        .iter()
        .map(|i| old.slots[*i as usize])
        .chain(kept_new.iter().map(|j| new.slots[*j as usize]))
        .collect();
    let mut weights = vec![-1; kept_old.len()];
    weights.resize(slots.len(), 1);
    let mut columns = keys(&slots)?;
    let (kept_old, kept_new) = (UInt32Array::from(kept_old), UInt32Array::from(kept_new));
    for (old, new) in old.results.iter().zip(&new.results) {
        columns.push(match (kept_old.is_empty(), kept_new.is_empty()) {
            (true, _) => rows_at(new, &kept_new)?,
            (_, true) => rows_at(old, &kept_old)?,
            _ => concat(&[&rows_at(old, &kept_old)?, &rows_at(new, &kept_new)?])?,
        });
    }
    Ok(ZSet::new(batch(schema, columns)?, weights))
}

fn rows_at(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    if rows.len() == column.len() {
        // The numbers are distinct and ascending, so these are all rows.
        return Ok(Arc::clone(column));
    }
    Ok(take(column, rows, None)?)
}

/// A batch of the schema's exact types.
pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| conform(column, field.data_type()))
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The column in this type: arrow's row format gives dictionaries back as plain values, for one.
pub fn conform(column: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type { Ok(column) } else { Ok(cast(&column, data_type)?) }
}
