//! Rows that change, found by key.
//!
//! With a key, a row is there once and a change of it is "retract the old, insert the new", in any order.
//! Changes are taken row by row: a retraction vacates the slot, an insertion fills a vacated or new slot.
//! What does not fit (an insertion before its retraction, a row that comes and goes) is put aside, tried
//! again at the end of the change, then consolidated; what still does not fit is an error.
//! Without a key, the whole row is the key and its weight is counted.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dataflow::{Error, Result, StateReader, ZSet, random_state};
use hashbrown::HashTable;

use super::ApplyReport;
use super::chunk::{CHUNK_SLOTS, CHUNK_SLOTS_LOG2, Chunk};
use super::index::{IndexId, SecondaryIndex, no_such_index};
use super::layout::RowLayout;
use super::saved::{ImagePart, PartId, next_version};
use super::snapshot::Snapshot;
use crate::bag::spread;
use crate::row_codec::EncodedRows;

pub struct ViewStore {
    layout: Arc<RowLayout>,
    keyed: bool,
    chunks: Vec<Arc<Chunk>>,
    // Hash of the key bytes, and slot, of every row.
    slots: HashTable<(u32, u32)>,
    free: Vec<u32>,
    rows: usize,
    // Of chunks that change from now on.
    version: u64,
    // By IndexId; `None` once dropped.
    indexes: Vec<Option<SecondaryIndex>>,
}

/// Rows whose memory is read ahead together.
const WARMED_ROWS: usize = 32;
/// Smaller stores are in the cache anyway.
const WARMED_STORE_ROWS_MIN: usize = 16 * 1024;

/// The encoded rows of a change.
struct Encoded {
    rows: EncodedRows,
    key_lengths: Vec<usize>,
    hashes: Vec<u32>,
    // Keys of each index, by IndexId.
    index_keys: Vec<Option<EncodedRows>>,
}

/// A change being applied to a store with a key.
#[derive(Default)]
struct Pending {
    // Slots that lost their row, with the hash of its key.
    vacated: Vec<(u32, u32)>,
    // Row numbers and weights that did not fit so far.
    aside: Vec<(usize, i64)>,
    report: ApplyReport,
}

impl ViewStore {
    /// # Errors
    /// If a column type can't be kept as row bytes.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<ViewStore> {
        Ok(ViewStore {
            keyed: !key.is_empty(),
            layout: Arc::new(RowLayout::new(schema, key)?),
            chunks: Vec::new(),
            slots: HashTable::new(),
            free: Vec::new(),
            rows: 0,
            version: next_version(),
            indexes: Vec::new(),
        })
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.layout.schema)
    }

    /// Key columns; all of them for rows without a key.
    pub fn key(&self) -> &[usize] {
        &self.layout.key
    }

    /// False when rows are identified by all their columns.
    pub fn has_key(&self) -> bool {
        self.keyed
    }

    /// Number of rows, counting equal ones.
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Applies a change; see [`super::Store::apply`].
    pub fn apply(&mut self, change: &ZSet) -> Result<ApplyReport> {
        if change.is_empty() {
            return Ok(ApplyReport::default());
        }
        let rows = self.layout.encode(change.rows())?;
        let key_lengths = self.layout.key_lengths(change.rows(), &rows)?;
        let index_keys = |index: &Option<SecondaryIndex>| {
            index.as_ref().map(|index| index.encode(change.rows())).transpose()
        };
        let encoded = Encoded {
            hashes: rows.iter().zip(&key_lengths).map(|(row, length)| hash_of(&row[..*length])).collect(),
            key_lengths,
            rows,
            index_keys: self.indexes.iter().map(index_keys).collect::<Result<_>>()?,
        };
        let report = if self.keyed {
            self.apply_keyed(change, &encoded)
        } else {
            self.apply_weights(change, &encoded)
        }?;
        debug_assert_eq!(self.slots.len(), self.slots_used());
        if self.slots.is_empty() {
            // The last row is gone: give everything back.
            self.chunks = Vec::new();
            self.free = Vec::new();
            self.slots = HashTable::new();
        }
        Ok(report)
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of_chunks(Arc::clone(&self.layout), self.chunks.clone(), self.rows)
    }

    pub(super) fn image(&mut self) -> Vec<ImagePart> {
        self.version = next_version();
        self.chunks.iter().enumerate().map(|(number, chunk)| ImagePart::of_chunk(number, chunk)).collect()
    }

    /// A store with the same key and indexes, and no rows.
    pub(super) fn emptied(&self) -> Result<ViewStore> {
        let key = if self.keyed { self.layout.key.clone() } else { Vec::new() };
        let mut new = ViewStore::new(self.schema(), key)?;
        let again =
            |index: &SecondaryIndex| SecondaryIndex::new(&new.layout.schema, index.columns().to_vec());
        new.indexes =
            self.indexes.iter().map(|index| index.as_ref().map(again).transpose()).collect::<Result<_>>()?;
        Ok(new)
    }

    /// Takes in the chunk that comes next; see [`super::Store::load`].
    pub(super) fn load(&mut self, saved: &mut StateReader<'_>) -> Result<PartId> {
        let mut chunk = Chunk::load(saved)?;
        // What it is as saved, and not what it becomes by the next change.
        chunk.version = std::mem::replace(&mut self.version, next_version());
        let first = u32::try_from(self.chunks.len() * CHUNK_SLOTS)
            .map_err(|_| Error::State("a view has fewer than 2^32 rows".into()))?;
        let (mut slots, mut rows): (Vec<u32>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        for slot in 0..chunk.slots_len() {
            match chunk.row(slot) {
                Some(row) => {
                    slots.push(first + slot as u32);
                    rows.push(row);
                    self.rows += usize::try_from(chunk.weight(slot))
                        .map_err(|_| Error::State("a row is there less than zero times".into()))?;
                }
                None => self.free.push(first + slot as u32),
            }
        }
        let lengths = self.layout.key_lengths_of(&rows)?;
        self.slots.reserve(rows.len(), |(hash, _)| spread(*hash));
        for ((slot, row), length) in slots.iter().zip(&rows).zip(lengths) {
            let hash = hash_of(&row[..length]);
            self.slots.insert_unique(spread(hash), (hash, *slot), |(hash, _)| spread(*hash));
        }
        for index in self.indexes.iter_mut().flatten() {
            let keys = index.encode(&self.layout.batch(&rows)?)?;
            slots.iter().zip(keys.iter()).for_each(|(slot, key)| index.set(*slot, key));
        }
        let id = (chunk.version, self.chunks.len() as u64);
        self.chunks.push(Arc::new(chunk));
        Ok(id)
    }

    /// The row (or equal rows) with this key; see [`super::Store::get`].
    pub fn get(&self, key: &RecordBatch) -> Result<Option<RecordBatch>> {
        self.check_key(key, &self.layout.key)?;
        let encoded = self.layout.encode_key(key)?;
        self.get_encoded(encoded.get(0))
    }

    /// As [`ViewStore::get`], by the key's row bytes.
    pub fn get_encoded(&self, key: &[u8]) -> Result<Option<RecordBatch>> {
        self.find(hash_of(key), key).map(|slot| self.batch(std::iter::once(slot))).transpose()
    }

    /// Adds an index over `columns`; see [`super::Store::create_index`].
    pub fn create_index(&mut self, columns: Vec<usize>) -> Result<IndexId> {
        let mut index = SecondaryIndex::new(&self.layout.schema, columns)?;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (mut slots, mut rows): (Vec<u32>, Vec<&[u8]>) = (Vec::new(), Vec::new());
            for slot in 0..chunk.slots_len() {
                if let Some(row) = chunk.row(slot) {
                    slots.push((number * CHUNK_SLOTS + slot) as u32);
                    rows.push(row);
                }
            }
            let keys = index.encode(&self.layout.batch(&rows)?)?;
            for (slot, key) in slots.into_iter().zip(keys.iter()) {
                index.set(slot, key);
            }
        }
        self.indexes.push(Some(index));
        Ok(IndexId(self.indexes.len() - 1))
    }

    pub fn drop_index(&mut self, index: IndexId) {
        if let Some(index) = self.indexes.get_mut(index.0) {
            *index = None;
        }
    }

    /// The rows found through an index; see [`super::Store::lookup`].
    pub fn lookup(&self, index: IndexId, key: &RecordBatch) -> Result<RecordBatch> {
        let Some(Some(index)) = self.indexes.get(index.0) else {
            return Err(no_such_index(index));
        };
        self.check_key(key, index.columns())?;
        let encoded = index.encode_key(key)?;
        self.batch(index.slots(encoded.get(0)))
    }

    /// Memory held, in bytes. Chunks that only snapshots hold are not counted.
    pub fn size_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.size_bytes()).sum();
        let indexes: usize = self.indexes.iter().flatten().map(SecondaryIndex::size_bytes).sum();
        chunks + self.slots.allocation_size() + self.free.capacity() * 4 + indexes
    }

    fn apply_keyed(&mut self, change: &ZSet, encoded: &Encoded) -> Result<ApplyReport> {
        let mut pending = Pending::default();
        for row in 0..change.len() {
            if row % WARMED_ROWS == 0 {
                self.warm(row, encoded);
            }
            self.try_row(row, change.weight(row), encoded, &mut pending)?;
        }
        // Insertions that came before their retraction.
        let aside = std::mem::take(&mut pending.aside);
        let (retractions, insertions): (Vec<_>, Vec<_>) =
            aside.into_iter().partition(|(_, weight)| *weight < 0);
        for (row, weight) in retractions.into_iter().chain(insertions) {
            self.try_row(row, weight, encoded, &mut pending)?;
        }
        if !pending.aside.is_empty() {
            self.settle(encoded, &mut pending)?;
        }
        for (hash, slot) in std::mem::take(&mut pending.vacated) {
            if self.chunk(slot).is_vacated(slot_in_chunk(slot)) {
                self.free_slot(hash, slot);
                pending.report.deleted += 1;
            }
        }
        let report = pending.report;
        self.rows = self.rows + report.inserted as usize - report.deleted as usize;
        Ok(report)
    }

    /// Takes a row of a change if it fits what is stored now, else puts it aside.
    #[inline]
    fn try_row(&mut self, row: usize, weight: i64, encoded: &Encoded, pending: &mut Pending) -> Result<()> {
        let bytes = encoded.rows.get(row);
        let key = &bytes[..encoded.key_lengths[row]];
        let hash = encoded.hashes[row];
        let found = self.find(hash, key);
        match (weight, found) {
            (-1, Some(slot)) => {
                let chunk = self.chunk(slot);
                let at = slot_in_chunk(slot);
                if !chunk.is_vacated(at) && chunk.row(at) == Some(bytes) {
                    self.chunk_mut(slot).vacate(at);
                    pending.vacated.push((hash, slot));
                    return Ok(());
                }
            }
            (1, Some(slot)) if self.chunk(slot).is_vacated(slot_in_chunk(slot)) => {
                self.chunk_mut(slot).write(slot_in_chunk(slot), bytes)?;
                self.index_row(slot, row, encoded);
                pending.report.updated += 1;
                return Ok(());
            }
            (1, None) => {
                let slot = self.new_slot(hash);
                self.chunk_mut(slot).write(slot_in_chunk(slot), bytes)?;
                self.index_row(slot, row, encoded);
                pending.report.inserted += 1;
                return Ok(());
            }
            _ => {}
        }
        pending.aside.push((row, weight));
        Ok(())
    }

    /// Consolidates the rows put aside and applies what is left of them.
    fn settle(&mut self, encoded: &Encoded, pending: &mut Pending) -> Result<()> {
        let mut aside = std::mem::take(&mut pending.aside);
        aside.sort_by(|a, b| encoded.rows.get(a.0).cmp(encoded.rows.get(b.0)));
        let mut sums: Vec<(usize, i64)> = Vec::new();
        for (row, weight) in aside {
            match sums.last_mut() {
                Some((last, sum)) if encoded.rows.get(*last) == encoded.rows.get(row) => *sum += weight,
                _ => sums.push((row, weight)),
            }
        }
        // Retractions make room for insertions.
        sums.sort_by_key(|(_, weight)| *weight > 0);
        for (row, sum) in sums.into_iter().filter(|(_, sum)| *sum != 0) {
            self.try_row(row, sum, encoded, pending)?;
        }
        let Some((row, weight)) = pending.aside.first() else { return Ok(()) };
        let row = self.layout.describe(encoded.rows.get(*row));
        Err(Error::Operator(if *weight < 0 {
            format!("row {row} was retracted {} times more than it was inserted", -weight)
        } else {
            let key: Vec<&str> =
                self.layout.key.iter().map(|c| self.layout.schema.field(*c).name().as_str()).collect();
            format!("row {row} was inserted while there is a row with the same key ({})", key.join(", "))
        }))
    }

    fn apply_weights(&mut self, change: &ZSet, encoded: &Encoded) -> Result<ApplyReport> {
        let mut report = ApplyReport::default();
        // Slots whose row may be gone, with the hash of its key.
        let mut suspects: Vec<(u32, u32)> = Vec::new();
        for row in 0..change.len() {
            if row % WARMED_ROWS == 0 {
                self.warm(row, encoded);
            }
            let bytes = encoded.rows.get(row);
            let weight = change.weight(row);
            let hash = encoded.hashes[row];
            let (slot, before) = match self.find(hash, bytes) {
                Some(slot) => (slot, self.chunk(slot).weight(slot_in_chunk(slot))),
                None => {
                    let slot = self.new_slot(hash);
                    self.chunk_mut(slot).write(slot_in_chunk(slot), bytes)?;
                    self.index_row(slot, row, encoded);
                    (slot, 0)
                }
            };
            let after = before + weight;
            self.chunk_mut(slot).set_weight(slot_in_chunk(slot), after);
            if after <= 0 {
                suspects.push((hash, slot));
            }
            self.rows = self.rows.wrapping_add_signed(weight as isize);
            if weight > 0 {
                report.inserted += weight as u64;
            } else {
                report.deleted += weight.unsigned_abs();
            }
        }
        for (hash, slot) in suspects {
            let chunk = self.chunk(slot);
            let Some(row) = chunk.row(slot_in_chunk(slot)) else { continue };
            let weight = chunk.weight(slot_in_chunk(slot));
            if weight < 0 {
                let row = self.layout.describe(row);
                return Err(Error::Operator(format!(
                    "row {row} was retracted {} times more than it was inserted",
                    -weight
                )));
            }
            if weight == 0 {
                self.free_slot(hash, slot);
            }
        }
        Ok(report)
    }

    #[inline]
    fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        let found = self.slots.find(spread(hash), |(candidate, slot)| {
            *candidate == hash
                && self.chunk(*slot).row(slot_in_chunk(*slot)).is_some_and(|row| row.starts_with(key))
        });
        found.map(|(_, slot)| *slot)
    }

    /// Reads what the next rows will need. Reading one row's memory does not wait for another's here, so
    /// that the cache misses of a large view overlap: it halves the cost of a change.
    fn warm(&self, first: usize, encoded: &Encoded) {
        if self.slots.len() < WARMED_STORE_ROWS_MIN {
            return;
        }
        let mut slots = [None; WARMED_ROWS];
        for (slot, hash) in slots.iter_mut().zip(&encoded.hashes[first..]) {
            let found = self.slots.find(spread(*hash), |(candidate, _)| candidate == hash);
            *slot = found.map(|(_, slot)| *slot);
        }
        let mut read = 0;
        for slot in slots.into_iter().flatten() {
            let row = self.chunk(slot).row(slot_in_chunk(slot));
            read ^= row.and_then(<[u8]>::last).copied().unwrap_or(0);
        }
        std::hint::black_box(read);
    }

    fn new_slot(&mut self, hash: u32) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            if self.chunks.last().is_none_or(|chunk| chunk.slots_len() == CHUNK_SLOTS) {
                self.chunks.push(Arc::new(Chunk::default()));
            }
            let number = self.chunks.len() - 1;
            let chunk = Arc::make_mut(&mut self.chunks[number]);
            chunk.version = self.version;
            chunk.add_slot();
            u32::try_from(number * CHUNK_SLOTS + chunk.slots_len() - 1)
                .expect("fewer than 2^32 rows per view")
        });
        self.slots.insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
        slot
    }

    fn free_slot(&mut self, hash: u32, slot: u32) {
        self.slots
            .find_entry(spread(hash), |(_, candidate)| *candidate == slot)
            .expect("every row is found by its key")
            .remove();
        self.chunk_mut(slot).clear(slot_in_chunk(slot));
        for index in self.indexes.iter_mut().flatten() {
            index.remove(slot);
        }
        self.free.push(slot);
    }

    #[inline]
    fn index_row(&mut self, slot: u32, row: usize, encoded: &Encoded) {
        for (index, keys) in self.indexes.iter_mut().zip(&encoded.index_keys) {
            if let (Some(index), Some(keys)) = (index, keys) {
                index.set(slot, keys.get(row));
            }
        }
    }

    #[inline]
    fn chunk(&self, slot: u32) -> &Chunk {
        &self.chunks[(slot >> CHUNK_SLOTS_LOG2) as usize]
    }

    /// The chunk for writing: copied first if a snapshot holds it.
    #[inline]
    fn chunk_mut(&mut self, slot: u32) -> &mut Chunk {
        let chunk = Arc::make_mut(&mut self.chunks[(slot >> CHUNK_SLOTS_LOG2) as usize]);
        chunk.version = self.version;
        chunk
    }

    fn batch(&self, slots: impl Iterator<Item = u32>) -> Result<RecordBatch> {
        let mut rows: Vec<&[u8]> = Vec::new();
        for slot in slots {
            let (chunk, at) = (self.chunk(slot), slot_in_chunk(slot));
            let row = chunk.row(at).expect("found slots hold rows");
            rows.extend(std::iter::repeat_n(row, chunk.weight(at) as usize));
        }
        self.layout.batch(&rows)
    }

    fn check_key(&self, key: &RecordBatch, columns: &[usize]) -> Result<()> {
        let expected = columns.iter().map(|column| self.layout.schema.field(*column).data_type());
        let given = key.columns().iter().map(|column| column.data_type());
        if key.num_rows() != 1 || !expected.clone().eq(given) {
            let expected: Vec<String> = expected.map(ToString::to_string).collect();
            return Err(Error::Operator(format!("a key is one row of ({})", expected.join(", "))));
        }
        Ok(())
    }

    fn slots_used(&self) -> usize {
        let slots: usize = self.chunks.iter().map(|chunk| chunk.slots_len()).sum();
        slots - self.free.len()
    }
}

#[inline]
fn slot_in_chunk(slot: u32) -> usize {
    slot as usize & (CHUNK_SLOTS - 1)
}

#[inline]
fn hash_of(key: &[u8]) -> u32 {
    random_state().hash_one(key) as u32
}
