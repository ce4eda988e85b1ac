//! From rows as they were sent to the exact change of a table.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::row::{RowConverter, SortField};
use dataflow::{Error, KeyTable, StateReader, StateSize, StateWriter, ZSet};
use sql::{OnConflict, SqlError, TableDef};
use std::sync::Arc;

use crate::packed_rows::PackedCodec;
use crate::record::{Part, RowsSchema};

/// What a table has to remember to turn inserts into changes.
pub enum TableState {
    /// No key: every row counts, as it is.
    Plain,
    Keyed(Box<KeyedTable>),
}

impl TableState {
    pub fn new(table: &TableDef) -> dataflow::Result<TableState> {
        if table.primary_key.is_empty() {
            return Ok(TableState::Plain);
        }
        Ok(TableState::Keyed(Box::new(KeyedTable::new(table)?)))
    }

    /// The change that a part of a record makes.
    pub fn apply(&mut self, part: &Part) -> dataflow::Result<ZSet> {
        match (self, &part.weights) {
            (TableState::Plain, None) => Ok(ZSet::inserts(part.rows.clone())),
            (TableState::Plain, Some(weights)) => Ok(ZSet::new(part.rows.clone(), weights.clone())),
            (TableState::Keyed(table), weights) => table.apply(&part.rows, weights.as_deref()),
        }
    }

    /// The same rows under the table's new definition.
    ///
    /// # Errors
    /// When they don't fit it.
    pub fn redefined(self, table: &TableDef, rows: &RowsSchema) -> Result<TableState, SqlError> {
        let internal = |e: dataflow::Error| SqlError::internal(e.to_string());
        let TableState::Keyed(old) = self else { return Ok(self) };
        let mut new = KeyedTable::new(table).map_err(internal)?;
        for batch in old.batches() {
            let rows = rows.widen(batch.map_err(internal)?)?;
            // As they are, whatever the table does with a key that is there.
            new.apply(&rows, Some(&vec![1; rows.num_rows()])).map_err(internal)?;
        }
        Ok(TableState::Keyed(Box::new(new)))
    }

    /// Writes what is remembered.
    ///
    /// # Errors
    /// Never, as of now.
    pub fn save(&self, out: &mut StateWriter) -> dataflow::Result<()> {
        out.u8(STATE_VERSION);
        out.bool(matches!(self, TableState::Keyed(_)));
        if let TableState::Keyed(table) = self {
            table.save(out);
        }
        Ok(())
    }

    /// Takes in what a table of the same definition saved; the keys are not known yet.
    ///
    /// # Errors
    /// When it was not written by [`TableState::save`] of this version.
    pub fn load(&mut self, saved: &mut StateReader<'_>) -> dataflow::Result<()> {
        saved.version(STATE_VERSION)?;
        match (self, saved.bool()?) {
            (TableState::Plain, false) => Ok(()),
            (TableState::Keyed(table), true) => table.load(saved),
            _ => Err(Error::State("the table's primary key was added or dropped".into())),
        }
    }

    pub fn state_size(&self) -> StateSize {
        match self {
            TableState::Plain => StateSize::default(),
            TableState::Keyed(table) => {
                StateSize { rows: table.keys.len(), bytes: table.keys.size_bytes() + table.row_bytes }
            }
        }
    }
}

const STATE_VERSION: u8 = 1;

/// The current row of every key, packed.
pub struct KeyedTable {
    on_conflict: OnConflict,
    key_columns: Vec<usize>,
    key_converter: RowConverter,
    row_codec: PackedCodec,
    keys: KeyTable,
    // By slot of `keys`.
    rows: Vec<Box<[u8]>>,
    row_bytes: usize,
    // Null-ness by column, for DO UPDATE IF NOT NULL.
    schema: arrow::datatypes::SchemaRef,
}

impl KeyedTable {
    fn new(table: &TableDef) -> dataflow::Result<KeyedTable> {
        let field = |c: usize| {
            SortField::new_with_options(table.columns[c].data_type.clone(), SortOptions::default())
        };
        let all: Vec<usize> = (0..table.columns.len()).collect();
        Ok(KeyedTable {
            on_conflict: table.on_conflict,
            key_columns: table.primary_key.clone(),
            key_converter: RowConverter::new(table.primary_key.iter().map(|c| field(*c)).collect())?,
            row_codec: PackedCodec::for_columns(&table.schema(), &all)?,
            keys: KeyTable::new(),
            rows: Vec::new(),
            row_bytes: 0,
            schema: table.schema(),
        })
    }

    fn apply(&mut self, rows: &RecordBatch, weights: Option<&[i64]>) -> dataflow::Result<ZSet> {
        if self.on_conflict == OnConflict::DoUpdateIfNotNull && weights.is_none() && rows.num_rows() > 1 {
            // Each row may build on the one before.
            let parts = (0..rows.num_rows())
                .map(|row| self.apply(&rows.slice(row, 1), None))
                .collect::<dataflow::Result<Vec<_>>>()?;
            return ZSet::concat(&self.schema, &parts);
        }
        let merged;
        let rows = if self.on_conflict == OnConflict::DoUpdateIfNotNull && weights.is_none() {
            merged = self.merge_with_current(rows)?;
            &merged
        } else {
            rows
        };
        let key_columns: Vec<_> = self.key_columns.iter().map(|c| Arc::clone(rows.column(*c))).collect();
        let keys = self.key_converter.convert_columns(&key_columns)?;
        let values = self.row_codec.encode(rows.columns(), rows.num_rows())?;
        // Old rows as bytes, new rows by number: both become columns at the end.
        let mut removed: Vec<Box<[u8]>> = Vec::new();
        let mut inserted: Vec<u32> = Vec::new();
        for row in 0..rows.num_rows() {
            let weight = weights.map_or(1, |w| w[row]);
            let (key, value) = (keys.row(row), values.get(row));
            if weight < 0 {
                // The key decides, not the image: the row may have been overwritten since it was read.
                if let Some(slot) = self.keys.find(key.as_ref()) {
                    let old = std::mem::take(&mut self.rows[slot as usize]);
                    self.row_bytes -= old.len();
                    removed.push(old);
                    self.keys.remove(slot);
                }
                continue;
            }
            let (slot, new) = self.keys.insert(key.as_ref());
            if new {
                self.rows.resize(self.rows.len().max(slot as usize + 1), Box::default());
            } else if (self.on_conflict == OnConflict::DoNothing && weights.is_none())
                || *self.rows[slot as usize] == *value
            {
                continue;
            } else {
                let old = std::mem::take(&mut self.rows[slot as usize]);
                self.row_bytes -= old.len();
                removed.push(old);
            }
            self.row_bytes += value.len();
            self.rows[slot as usize] = value.into();
            inserted.push(row as u32);
        }
        if removed.is_empty() && inserted.len() == rows.num_rows() {
            return Ok(ZSet::inserts(conform(rows, &self.schema)?));
        }
        let old = self.row_codec.decode(&removed.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let old = RecordBatch::try_new(Arc::clone(&self.schema), old)?;
        let new = conform(&take_record_batch(rows, &UInt32Array::from(inserted))?, &self.schema)?;
        // Insertions first: no running total goes below zero on the way.
        ZSet::concat(&self.schema, &[ZSet::inserts(new), ZSet::inserts(old).negate()])
    }

    /// Keys and rows as they are kept: neither has to be encoded again.
    fn save(&self, out: &mut StateWriter) {
        out.count(self.keys.len());
        for (slot, key) in self.keys.iter() {
            out.bytes(key);
            out.bytes(&self.rows[slot as usize]);
        }
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> dataflow::Result<()> {
        for _ in 0..saved.count()? {
            let (key, row) = (saved.bytes()?, saved.bytes()?);
            let (slot, new) = self.keys.insert(key);
            if !new {
                return Err(Error::State("a key of a table comes twice".into()));
            }
            self.rows.resize(self.rows.len().max(slot as usize + 1), Box::default());
            self.rows[slot as usize] = row.into();
            self.row_bytes += row.len();
        }
        Ok(())
    }

    fn batches(&self) -> impl Iterator<Item = dataflow::Result<RecordBatch>> {
        // The bytes of a removed row are taken out of its slot.
        let rows: Vec<&[u8]> =
            self.rows.iter().map(AsRef::as_ref).filter(|row: &&[u8]| !row.is_empty()).collect();
        let batches: Vec<_> = rows
            .chunks(65_536)
            .map(|rows| Ok(RecordBatch::try_new(Arc::clone(&self.schema), self.row_codec.decode(rows)?)?))
            .collect();
        batches.into_iter()
    }

    /// A one-row batch with its nulls filled from the row that is there.
    fn merge_with_current(&self, row: &RecordBatch) -> dataflow::Result<RecordBatch> {
        let key_columns: Vec<_> = self.key_columns.iter().map(|c| Arc::clone(row.column(*c))).collect();
        let keys = self.key_converter.convert_columns(&key_columns)?;
        let Some(slot) = self.keys.find(keys.row(0).as_ref()) else { return Ok(row.clone()) };
        let current = self.row_codec.decode(&[&self.rows[slot as usize]])?;
        let columns = row
            .columns()
            .iter()
            .zip(&current)
            .map(|(new, old)| if new.is_null(0) { Arc::clone(old) } else { Arc::clone(new) })
            .collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The same columns under the table's schema: names and nullability as declared.
fn conform(rows: &RecordBatch, schema: &arrow::datatypes::SchemaRef) -> dataflow::Result<RecordBatch> {
    Ok(RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec())?)
}

#[cfg(test)]
mod tests;
