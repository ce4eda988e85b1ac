//! A change: rows with signed weights.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take};
use arrow::datatypes::SchemaRef;

use crate::Result;

/// Rows with a signed weight each: +1 inserts a row, -1 deletes one, an update is both.
///
/// Weights are left out while all of them are +1, which is what append-only inputs give; operators
/// take a cheaper path then. A row may occur several times, and weights may cancel out;
/// nobody may rely on a Z-set being consolidated.
#[derive(Clone, Debug)]
pub struct ZSet {
    rows: RecordBatch,
    // Invariant: same length as `rows`; no zero weights.
    weights: Option<Arc<[i64]>>,
}

impl ZSet {
    /// No change.
    pub fn empty(schema: SchemaRef) -> ZSet {
        ZSet { rows: RecordBatch::new_empty(schema), weights: None }
    }

    /// Every row inserted once.
    pub fn inserts(rows: RecordBatch) -> ZSet {
        ZSet { rows, weights: None }
    }

    /// Rows with their weights; rows of weight zero are dropped.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn new(rows: RecordBatch, weights: Vec<i64>) -> ZSet {
        assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        if weights.iter().all(|w| *w == 1) {
            return ZSet { rows, weights: None };
        }
        if weights.contains(&0) {
            let keep = BooleanArray::from_iter(weights.iter().map(|w| Some(*w != 0)));
            let rows = filter_record_batch(&rows, &keep).expect("mask has the batch's length");
            let weights: Vec<i64> = weights.into_iter().filter(|w| *w != 0).collect();
            return ZSet::new(rows, weights);
        }
        ZSet { rows, weights: Some(weights.into()) }
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// True when every weight is +1 (the converse of "holds a retraction or a duplicate").
    pub fn all_inserts(&self) -> bool {
        self.weights.is_none()
    }

    /// The weights, or `None` when every one is +1.
    pub fn weights(&self) -> Option<&[i64]> {
        self.weights.as_deref()
    }

    #[inline]
    pub fn weight(&self, row: usize) -> i64 {
        match &self.weights {
            None => 1,
            Some(weights) => weights[row],
        }
    }

    /// Same weights, other columns: what a projection does.
    ///
    /// # Panics
    /// If the number of rows differs.
    pub fn with_rows(&self, rows: RecordBatch) -> ZSet {
        assert_eq!(rows.num_rows(), self.rows.num_rows(), "a projection keeps the rows");
        ZSet { rows, weights: self.weights.clone() }
    }

    /// Rows where `mask` is true; null counts as false.
    pub fn filter(&self, mask: &BooleanArray) -> Result<ZSet> {
        if mask.null_count() == 0 && mask.true_count() == mask.len() {
            return Ok(self.clone());
        }
        let rows = filter_record_batch(&self.rows, mask)?;
        let weights = self.weights.as_ref().map(|weights| {
            (0..mask.len())
                .filter(|i| mask.is_valid(*i) && mask.value(*i))
                .map(|i| weights[i])
                .collect::<Arc<[i64]>>()
        });
        Ok(ZSet { rows, weights })
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<ZSet> {
        let rows = take_rows(&self.rows, indices)?;
        let weights = self
            .weights
            .as_ref()
            .map(|weights| indices.values().iter().map(|i| weights[*i as usize]).collect());
        Ok(ZSet { rows, weights })
    }

    /// Rows `offset..offset + length`, sharing memory.
    pub fn slice(&self, offset: usize, length: usize) -> ZSet {
        ZSet {
            rows: self.rows.slice(offset, length),
            weights: self.weights.as_ref().map(|w| w[offset..offset + length].into()),
        }
    }

    /// All weights with the opposite sign.
    pub fn negate(&self) -> ZSet {
        let weights = (0..self.len()).map(|i| -self.weight(i)).collect();
        ZSet { rows: self.rows.clone(), weights: Some(weights) }
    }

    /// One Z-set out of several of the same schema.
    pub fn concat(schema: &SchemaRef, parts: &[ZSet]) -> Result<ZSet> {
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        let Some(first) = parts.next() else {
            return Ok(ZSet::empty(Arc::clone(schema)));
        };
        let rest: Vec<&ZSet> = parts.collect();
        if rest.is_empty() {
            return Ok(first.clone());
        }
        let all: Vec<&ZSet> = std::iter::once(first).chain(rest).collect();
        let rows = concat_batches(schema, all.iter().map(|part| &part.rows))?;
        let weights = if all.iter().all(|part| part.weights.is_none()) {
            None
        } else {
            Some(all.iter().flat_map(|part| (0..part.len()).map(|i| part.weight(i))).collect())
        };
        Ok(ZSet { rows, weights })
    }
}
/// The rows at `indices`, in that order; also of a batch without columns, which counts its rows all the same.
pub fn take_rows(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(|column| take(column, indices, None));
    let columns = columns.collect::<std::result::Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}
