//! A store's rows as parts that are saved by themselves, so that a part that did not change is saved once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use dataflow::{Error, Result, StateReader, StateWriter};

use super::Store;
use super::chunk::Chunk;
use crate::packed_rows::PackedCodec;

/// Tells a part from all others, and from what it is after it changed, as long as the process runs.
pub type PartId = (u64, u64);

/// Gives every store, and every picture of one, a number of its own.
pub(super) fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A store's rows at one moment, in parts.
pub struct Image {
    /// Rows only came so far; they are kept in the order in which they came.
    pub append_only: bool,
    pub parts: Vec<ImagePart>,
}

pub struct ImagePart {
    pub id: PartId,
    rows: PartRows,
}

enum PartRows {
    Chunk(Arc<Chunk>),
    Batch(Arc<RecordBatch>),
}

impl ImagePart {
    pub(super) fn of_chunk(number: usize, chunk: &Arc<Chunk>) -> ImagePart {
        ImagePart { id: (chunk.version, number as u64), rows: PartRows::Chunk(Arc::clone(chunk)) }
    }

    pub(super) fn of_batch(id: u64, batch: &Arc<RecordBatch>) -> ImagePart {
        ImagePart { id: (id, 0), rows: PartRows::Batch(Arc::clone(batch)) }
    }

    /// Writes the part's rows.
    ///
    /// # Errors
    /// When a column's type can't be kept as bytes.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        match &self.rows {
            PartRows::Chunk(chunk) => chunk.save(out),
            PartRows::Batch(batch) => {
                let columns: Vec<usize> = (0..batch.num_columns()).collect();
                let rows = PackedCodec::for_columns(&batch.schema(), &columns)?
                    .encode(batch.columns(), batch.num_rows())?;
                out.all(0..batch.num_rows(), |out, row| out.bytes(rows.get(row)));
            }
        }
        Ok(())
    }
}

impl Store {
    /// The rows as they are now, in parts. Costs a counter per 1024 rows.
    pub fn image(&mut self) -> Image {
        match self {
            Store::View(store) => Image { append_only: false, parts: store.image() },
            Store::Append(store) => Image { append_only: true, parts: store.image() },
        }
    }

    /// A store with the same columns, key and indexes, and no rows.
    ///
    /// # Errors
    /// When a column can't be kept.
    pub fn emptied(&self) -> Result<Store> {
        Ok(match self {
            Store::View(store) => Store::View(store.emptied()?),
            Store::Append(store) => Store::append_only(store.schema()),
        })
    }

    /// Takes in the next part of a store with the same columns and key, in the order in which [`Image`] has them, and says
    /// which of its own parts that is. Nothing else was put into the store before.
    ///
    /// # Errors
    /// When it is not what [`ImagePart::save`] wrote; the store is then not to be used any more.
    pub fn load(&mut self, append_only: bool, saved: &mut StateReader<'_>) -> Result<PartId> {
        match self {
            Store::Append(store) if append_only => {
                let schema = store.schema();
                let columns: Vec<usize> = (0..schema.fields().len()).collect();
                let rows = saved.all(StateReader::bytes)?;
                let columns = PackedCodec::for_columns(&schema, &columns)?.decode(&rows)?;
                store.load(crate::row_codec::batch_of(&schema, columns, rows.len())?)
            }
            _ if append_only => Err(Error::State("rows that only came are kept by key now".into())),
            _ => self.as_view_mut()?.load(saved),
        }
    }
}
