//! The rows of a store at one moment, as batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use dataflow::Result;

use super::chunk::Chunk;
use super::layout::RowLayout;
use crate::row_codec::batch_of;

/// An immutable picture of a store's rows; cloning it is one counter.
#[derive(Clone)]
pub struct Snapshot {
    rows: usize,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Chunks { layout: Arc<RowLayout>, chunks: Arc<[Arc<Chunk>]> },
    Batches { schema: SchemaRef, batches: Arc<[Arc<RecordBatch>]> },
}

impl Snapshot {
    pub(super) fn of_chunks(layout: Arc<RowLayout>, chunks: Vec<Arc<Chunk>>, rows: usize) -> Snapshot {
        Snapshot { rows, source: Source::Chunks { layout, chunks: chunks.into() } }
    }

    pub(super) fn of_batches(schema: SchemaRef, batches: Vec<Arc<RecordBatch>>, rows: usize) -> Snapshot {
        Snapshot { rows, source: Source::Batches { schema, batches: batches.into() } }
    }

    /// Number of rows, counting equal ones.
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn schema(&self) -> SchemaRef {
        match &self.source {
            Source::Chunks { layout, .. } => Arc::clone(&layout.schema),
            Source::Batches { schema, .. } => Arc::clone(schema),
        }
    }

    /// The rows in batches of at most `batch_rows` (at least one), with the columns of `projection` in its
    /// order, or all. A row of weight w comes w times. Nothing comes for no rows.
    ///
    /// The iterator owns its share of the snapshot.
    pub fn batches(&self, projection: Option<&[usize]>, batch_rows: usize) -> Batches {
        let schema = self.schema();
        let projection = projection.map_or_else(|| (0..schema.fields().len()).collect(), <[usize]>::to_vec);
        let fields: Vec<_> = projection.iter().map(|column| Arc::clone(&schema.fields()[*column])).collect();
        Batches {
            schema: Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
            source: self.source.clone(),
            projection,
            batch_rows: batch_rows.max(1),
            part: 0,
            row: 0,
            repeated: 0,
        }
    }
}

/// The batches of a snapshot.
pub struct Batches {
    source: Source,
    schema: SchemaRef,
    projection: Vec<usize>,
    batch_rows: usize,
    // Number of the chunk or batch, and of the slot or row in it, that comes next.
    part: usize,
    row: usize,
    // How often the row in this slot came already.
    repeated: i64,
}

impl Batches {
    /// Row bytes per batch, so that long rows make short batches.
    const BATCH_BYTES: usize = 32 * 1024 * 1024;

    /// The schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let Batches { source, schema, projection, batch_rows, part, row, repeated } = self;
        match source {
            Source::Chunks { layout, chunks } => {
                let mut rows: Vec<&[u8]> = Vec::new();
                let mut bytes_len = 0;
                'full: while let Some(chunk) = chunks.get(*part) {
                    while *row < chunk.slots_len() {
                        let weight = chunk.weight(*row);
                        if let Some(bytes) = chunk.row(*row) {
                            while *repeated < weight {
                                if rows.len() == *batch_rows || bytes_len > Batches::BATCH_BYTES {
                                    break 'full;
                                }
                                rows.push(bytes);
                                bytes_len += bytes.len();
                                *repeated += 1;
                            }
                        }
                        *repeated = 0;
                        *row += 1;
                    }
                    *part += 1;
                    *row = 0;
                }
                if rows.is_empty() {
                    return None;
                }
                let columns = layout.decode(&rows, projection);
                Some(columns.and_then(|columns| batch_of(schema, columns, rows.len())))
            }
            Source::Batches { batches, .. } => {
                let batch = batches.get(*part)?;
                let length = (batch.num_rows() - *row).min(*batch_rows);
                let slice = batch.slice(*row, length);
                *row += length;
                if *row == batch.num_rows() {
                    *part += 1;
                    *row = 0;
                }
                let columns = projection.iter().map(|column| Arc::clone(slice.column(*column))).collect();
                Some(batch_of(schema, columns, length))
            }
        }
    }
}
