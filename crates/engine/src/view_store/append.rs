//! Rows that only come: a list of batches.
//!
//! Small batches are merged into larger ones of like size, as in an LSM tree, so that a million ticks of one
//! row cost neither a million batches nor copying everything each time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{Error, Result, ZSet};

use super::ApplyReport;
use super::saved::{ImagePart, PartId, next_version};
use super::snapshot::Snapshot;

pub struct AppendStore {
    schema: SchemaRef,
    // Invariant: none is empty.
    batches: Vec<Arc<RecordBatch>>,
    // By batch: what tells it from others.
    ids: Vec<u64>,
    rows: usize,
}

impl AppendStore {
    /// Batches of so many rows are not merged any more.
    const BATCH_ROWS: usize = 64 * 1024;
    /// Nor such that hold so many bytes.
    const BATCH_BYTES: usize = 64 * 1024 * 1024;

    pub fn new(schema: SchemaRef) -> AppendStore {
        AppendStore { schema, batches: Vec::new(), ids: Vec::new(), rows: 0 }
    }

    /// True when a change holds no retraction.
    pub fn accepts(change: &ZSet) -> bool {
        change.weights().is_none_or(|weights| weights.iter().all(|weight| *weight > 0))
    }

    /// Appends the rows of a change without retractions.
    ///
    /// # Panics
    /// If it holds one.
    pub fn append(&mut self, change: &ZSet) -> Result<ApplyReport> {
        assert!(AppendStore::accepts(change), "retractions are not for an append store");
        let rows = match change.weights() {
            None => change.rows().clone(),
            Some(weights) => {
                let repeated = weights.iter().enumerate();
                let repeated = repeated.flat_map(|(row, w)| std::iter::repeat_n(row as u32, *w as usize));
                take_record_batch(change.rows(), &UInt32Array::from_iter_values(repeated))?
            }
        };
        let inserted = rows.num_rows();
        if inserted > 0 {
            self.rows += inserted;
            self.push(rows);
            self.merge()?;
        }
        Ok(ApplyReport { inserted: inserted as u64, ..ApplyReport::default() })
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn size_bytes(&self) -> usize {
        self.batches.iter().map(|batch| bytes_of(batch)).sum()
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of_batches(self.schema(), self.batches.clone(), self.rows)
    }

    pub fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.batches.iter().map(Arc::as_ref)
    }

    fn merge(&mut self) -> Result<()> {
        while let [.., older, newer] = self.batches.as_slice() {
            let rows = older.num_rows() + newer.num_rows();
            let bytes = bytes_of(older) + bytes_of(newer);
            let done = older.num_rows() >= AppendStore::BATCH_ROWS / 2 && rows > AppendStore::BATCH_ROWS;
            if older.num_rows() > 2 * newer.num_rows() || done || bytes > AppendStore::BATCH_BYTES {
                break;
            }
            let merged = concat_batches(&self.schema, [older.as_ref(), newer.as_ref()])?;
            let columns = merged.columns().iter().map(without_foreign_bytes).collect();
            let merged = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            let kept = self.batches.len() - 2;
            self.batches.truncate(kept);
            self.ids.truncate(kept);
            self.push(merged);
        }
        Ok(())
    }

    fn push(&mut self, batch: RecordBatch) {
        self.batches.push(Arc::new(batch));
        self.ids.push(next_version());
    }

    pub(super) fn image(&self) -> Vec<ImagePart> {
        self.ids.iter().zip(&self.batches).map(|(id, batch)| ImagePart::of_batch(*id, batch)).collect()
    }

    pub(super) fn load(&mut self, rows: RecordBatch) -> Result<PartId> {
        if rows.num_rows() == 0 {
            return Err(Error::State("a batch of no rows".into()));
        }
        self.rows += rows.num_rows();
        self.push(rows);
        Ok((*self.ids.last().expect("was just added"), 0))
    }
}

/// Bytes of the batch's rows; buffers shared with other batches count by the part used.
fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum()
}

/// Views keep the buffers of everything they were cut from; copy what is theirs.
fn without_foreign_bytes(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}
