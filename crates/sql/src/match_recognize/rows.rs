//! The rows that matching may still look at, as columns, shared by all partitions.
//!
//! Rows come in chunks and stay where they came; a partition holds references. A chunk goes with its last
//! referenced row, and [`Rows::wants_compaction`] says when too many rows are kept for the sake of few.

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;

/// A row: number of its chunk, and of the row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef {
    pub chunk: u32,
    pub row: u32,
}

#[derive(Debug, Default)]
pub(super) struct Rows {
    chunks: Vec<Option<Chunk>>,
    free: Vec<u32>,
    rows_held: usize,
    rows_live: usize,
}

#[derive(Debug)]
struct Chunk {
    batch: RecordBatch,
    live: usize,
}

impl Rows {
    /// More chunks than this are copied into one.
    const CHUNKS_MAX: usize = 1024;

    /// Takes in a chunk, all of whose rows are referenced.
    pub(super) fn add(&mut self, batch: RecordBatch) -> u32 {
        let live = batch.num_rows();
        self.rows_held += live;
        self.rows_live += live;
        let chunk = Some(Chunk { batch, live });
        match self.free.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                number
            }
            None => {
                self.chunks.push(chunk);
                self.chunks.len() as u32 - 1
            }
        }
    }

    /// A partition no longer refers to the row.
    pub(super) fn release(&mut self, at: RowRef) {
        let slot = &mut self.chunks[at.chunk as usize];
        let chunk = slot.as_mut().expect("a referenced chunk is there");
        chunk.live -= 1;
        self.rows_live -= 1;
        if chunk.live == 0 {
            self.rows_held -= chunk.batch.num_rows();
            *slot = None;
            self.free.push(at.chunk);
        }
    }

    pub(super) fn batch(&self, chunk: u32) -> &RecordBatch {
        &self.chunks[chunk as usize].as_ref().expect("a referenced chunk is there").batch
    }

    pub(super) fn wants_compaction(&self) -> bool {
        self.rows_held > 4 * self.rows_live + 8192 || self.chunks.len() - self.free.len() > Self::CHUNKS_MAX
    }

    /// One column of the rows named; null where none is.
    pub(super) fn gather(
        &self,
        column: usize,
        at: &[Option<RowRef>],
        schema: &SchemaRef,
    ) -> Result<ArrayRef> {
        if let Some(slice) = self.contiguous(column, at) {
            return Ok(slice);
        }
        let null = new_null_array(schema.field(column).data_type(), 1);
        let mut used: Vec<u32> = at.iter().flatten().map(|at| at.chunk).collect();
        used.sort_unstable();
        used.dedup();
        let mut arrays: Vec<&dyn Array> = vec![null.as_ref()];
        arrays.extend(used.iter().map(|chunk| self.batch(*chunk).column(column).as_ref()));
        let indices: Vec<(usize, usize)> = at
            .iter()
            .map(|at| match at {
                None => (0, 0),
                Some(at) => (used.binary_search(&at.chunk).expect("just listed") + 1, at.row as usize),
            })
            .collect();
        Ok(interleave(&arrays, &indices)?)
    }

    /// Without copying, when the rows follow each other in a chunk.
    fn contiguous(&self, column: usize, at: &[Option<RowRef>]) -> Option<ArrayRef> {
        let first = (*at.first()?)?;
        let follows = at
            .iter()
            .enumerate()
            .all(|(n, at)| *at == Some(RowRef { chunk: first.chunk, row: first.row.wrapping_add(n as u32) }));
        follows.then(|| self.batch(first.chunk).column(column).slice(first.row as usize, at.len()))
    }

    /// All columns of the rows named, as a batch.
    pub(super) fn take(&self, at: &[Option<RowRef>], schema: &SchemaRef) -> Result<RecordBatch> {
        let columns = (0..schema.fields().len())
            .map(|column| self.gather(column, at, schema))
            .collect::<Result<Vec<_>>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(at.len()));
        Ok(RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)?)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.chunks.iter().flatten().map(|chunk| chunk.batch.get_array_memory_size()).sum()
    }

    pub(super) fn rows_live(&self) -> usize {
        self.rows_live
    }
}
