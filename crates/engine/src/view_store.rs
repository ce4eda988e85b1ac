//! The published rows of a materialized view or of a table with a primary key.
//!
//! The engine's thread applies one change per tick; readers hold immutable snapshots.
//!
//! ```text
//!   change --> Store::apply --> slots of chunks (Arc each) --> Store::snapshot --> batches
//!                 |                                                ^
//!                 key bytes -> slot, secondary indexes             shares the chunks; a chunk is copied
//!                                                                  by apply only while a snapshot has it
//! ```
//!
//! Two kinds: [`ViewStore`] for rows that change, found by key; [`AppendStore`] for rows that only come
//! (results of closed windows), which costs no index. A retraction turns the second into the first.
//!
//! Rule: a snapshot shows the same rows for as long as it is held.

mod append;
mod chunk;
mod index;
mod layout;
mod rows;
mod saved;
mod snapshot;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dataflow::{Result, ZSet};

pub use append::AppendStore;
pub use index::IndexId;
pub use rows::ViewStore;
pub use saved::{Image, ImagePart, PartId};
pub use snapshot::{Batches, Snapshot};

/// What one change did to the rows; an update counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

pub enum Store {
    View(ViewStore),
    Append(AppendStore),
}

impl Store {
    /// A store of rows identified by the columns `key`, or by all columns when there are none.
    pub fn view(schema: SchemaRef, key: Vec<usize>) -> Result<Store> {
        Ok(Store::View(ViewStore::new(schema, key)?))
    }

    /// A store of rows that are expected never to be retracted.
    pub fn append_only(schema: SchemaRef) -> Store {
        Store::Append(AppendStore::new(schema))
    }

    /// Applies a change; the order of insertions and retractions within it does not matter.
    ///
    /// # Errors
    /// If a row would be there less than zero times, or a key twice. The store is then not to be used
    /// any more.
    pub fn apply(&mut self, change: &ZSet) -> Result<ApplyReport> {
        match self {
            Store::View(store) => store.apply(change),
            Store::Append(store) if AppendStore::accepts(change) => store.append(change),
            Store::Append(_) => self.as_view_mut()?.apply(change),
        }
    }

    /// The rows as they are now. Costs a counter per 1024 rows.
    pub fn snapshot(&self) -> Snapshot {
        match self {
            Store::View(store) => store.snapshot(),
            Store::Append(store) => store.snapshot(),
        }
    }

    /// Number of rows, counting equal ones.
    pub fn len(&self) -> usize {
        match self {
            Store::View(store) => store.len(),
            Store::Append(store) => store.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Store::View(store) => store.size_bytes(),
            Store::Append(store) => store.size_bytes(),
        }
    }

    pub fn schema(&self) -> SchemaRef {
        match self {
            Store::View(store) => store.schema(),
            Store::Append(store) => store.schema(),
        }
    }

    /// The columns that [`Store::get`] finds a row by; `None` for a store without a key.
    pub fn key(&self) -> Option<&[usize]> {
        match self {
            Store::View(store) if store.has_key() => Some(store.key()),
            _ => None,
        }
    }

    /// The row with this key, given as one row of the key columns in the order of the key; `None` for a
    /// store without a key.
    ///
    /// # Errors
    /// If `key` is not one row of the key's types.
    pub fn get(&self, key: &RecordBatch) -> Result<Option<RecordBatch>> {
        match self {
            Store::View(store) if store.has_key() => store.get(key),
            _ => Ok(None),
        }
    }

    /// An index over `columns`, filled with the rows that are there and kept up to date.
    pub fn create_index(&mut self, columns: Vec<usize>) -> Result<IndexId> {
        self.as_view_mut()?.create_index(columns)
    }

    /// Removes an index; its id is not given out again.
    pub fn drop_index(&mut self, index: IndexId) {
        if let Store::View(store) = self {
            store.drop_index(index);
        }
    }

    /// All rows whose indexed columns equal `key`, one row of these columns.
    ///
    /// # Errors
    /// If there is no such index, or `key` is not one row of its types.
    pub fn lookup(&self, index: IndexId, key: &RecordBatch) -> Result<RecordBatch> {
        match self {
            Store::View(store) => store.lookup(index, key),
            Store::Append(_) => Err(index::no_such_index(index)),
        }
    }

    /// The store as one whose rows can be found; a list of batches is turned into that first.
    fn as_view_mut(&mut self) -> Result<&mut ViewStore> {
        if let Store::Append(store) = self {
            let mut view = ViewStore::new(store.schema(), Vec::new())?;
            for batch in store.batches() {
                view.apply(&ZSet::inserts(batch.clone()))?;
            }
            *self = Store::View(view);
        }
        match self {
            Store::View(store) => Ok(store),
            Store::Append(_) => unreachable!("was replaced above"),
        }
    }
}

#[cfg(test)]
mod tests;
