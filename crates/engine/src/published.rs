//! What readers see: the contents of all relations at one tick.
//!
//! The engine changes everything under one short write lock per tick; a reader takes the read lock only to copy
//! handles ([`Snapshot`]) and reads without it. So all that one reader sees is of one tick, and nobody waits for a query.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use dataflow::{StateReader, Tick, ZSet};
use datafusion::scalar::ScalarValue;
use parking_lot::RwLock;
use sql::{RelationId, SqlError, SqlState};
use storage::log::{Location, LogReader};
use tokio::sync::{mpsc, watch};

use crate::api::Change;
use crate::key_read::KeyRead;
use crate::record::{Entry, RowsSchema, Schemas, decode};
use crate::view_store::{self, Image, IndexId, PartId, Store};

/// Changes of one relation kept for subscribers that come back: rows, and bytes of them.
const HISTORY_ROWS_MAX: usize = 100_000;
const HISTORY_BYTES_MAX: usize = 16 << 20;
/// Ticks that a subscriber may lag before it is told to start anew, and bytes of their changes. One change waits
/// whatever its size.
const SUBSCRIBER_TICKS_MAX: usize = 1024;
const SUBSCRIBER_BYTES_MAX: usize = 16 << 20;

pub struct Published {
    inner: RwLock<Inner>,
    pub tick: watch::Sender<Tick>,
}

struct Inner {
    tick: Tick,
    relations: HashMap<RelationId, Relation>,
}

struct Relation {
    schema: SchemaRef,
    /// Of the last columns: what rows in the log have there that were written without.
    added: Arc<[ScalarValue]>,
    contents: Contents,
    /// Names, columns and numbers of the indexes of the store.
    indexes: Vec<(String, Vec<usize>, IndexId)>,
    subscribers: Vec<mpsc::Sender<Result<Change, SqlError>>>,
    sent: Sent,
    /// Recent changes, once somebody subscribed.
    history: Option<History>,
}

/// How much a subscriber has not taken yet: it gets every change, so what waits for it are the newest ones.
#[derive(Default)]
struct Sent {
    bytes_total: usize,
    // Totals before each of the newest changes. Invariant: at most as many as a subscriber may lag.
    before: VecDeque<usize>,
}

impl Sent {
    fn add(&mut self, bytes: usize) {
        if self.before.len() == SUBSCRIBER_TICKS_MAX {
            self.before.pop_front();
        }
        self.before.push_back(self.bytes_total);
        self.bytes_total += bytes;
    }

    /// Bytes of the newest `count` changes.
    fn newest(&self, count: usize) -> usize {
        match self.before.len().checked_sub(count).and_then(|first| self.before.get(first)) {
            Some(before) => self.bytes_total - before,
            None => 0,
        }
    }
}

struct History {
    /// Changes after this tick are complete.
    since: Tick,
    /// Each with its bytes.
    changes: VecDeque<(Change, usize)>,
    rows: usize,
    bytes: usize,
}

pub enum Contents {
    Store(Store),
    /// An append-only table: its rows are read from the log.
    Log {
        locations: Arc<RwLock<Vec<Location>>>,
        rows: u64,
    },
}

/// What takes the place of a relation's rows. Who follows their changes is told to start anew.
pub struct Replacement {
    id: RelationId,
    schema: SchemaRef,
    store: Store,
    indexes: Vec<(String, Vec<usize>, IndexId)>,
}

impl Replacement {
    /// With indexes of these names and columns.
    ///
    /// # Errors
    /// When a column can't be indexed.
    pub fn new(
        id: RelationId,
        schema: SchemaRef,
        mut store: Store,
        indexes: Vec<(String, Vec<usize>)>,
    ) -> dataflow::Result<Replacement> {
        let index = |(name, columns): (String, Vec<usize>)| {
            let number = store.create_index(columns.clone())?;
            Ok((name, columns, number))
        };
        let indexes = indexes.into_iter().map(index).collect::<dataflow::Result<Vec<_>>>()?;
        Ok(Replacement { id, schema, store, indexes })
    }
}

/// Handles to some relations at one tick.
#[derive(Clone, Default)]
pub struct Snapshot {
    relations: HashMap<RelationId, RelationSnapshot>,
    /// Rows that were asked for by key, where they could be found.
    found: HashMap<KeyRead, Vec<RecordBatch>>,
}

/// What a query is going to read.
#[derive(Default)]
pub struct Wanted {
    /// Relations whose rows are scanned.
    pub scans: BTreeSet<RelationId>,
    pub keys: HashSet<KeyRead>,
}

#[derive(Clone)]
pub enum RelationSnapshot {
    Store(view_store::Snapshot),
    Log(LogRows),
}

/// The rows of an append-only table up to a tick.
#[derive(Clone)]
pub struct LogRows {
    relation: RelationId,
    rows: RowsSchema,
    locations: Arc<RwLock<Vec<Location>>>,
    records: usize,
    reader: LogReader,
}

/// What the engine publishes in one go.
#[derive(Default)]
pub struct Publication {
    /// Rows that take the place of others, before the changes.
    pub replacements: Vec<Replacement>,
    pub changes: Vec<(RelationId, ZSet)>,
    /// Log records that hold rows of append-only tables.
    pub locations: Vec<(RelationId, Location)>,
}

impl Publication {
    pub fn is_empty(&self) -> bool {
        self.replacements.is_empty() && self.changes.is_empty() && self.locations.is_empty()
    }
}

impl Default for Published {
    fn default() -> Published {
        let inner = Inner { tick: Tick(0), relations: HashMap::new() };
        Published { inner: RwLock::new(inner), tick: watch::Sender::new(Tick(0)) }
    }
}

impl Published {
    pub fn add(&self, id: RelationId, schema: SchemaRef, contents: Contents) {
        let relation = Relation {
            schema,
            added: Arc::from([]),
            contents,
            indexes: Vec::new(),
            subscribers: Vec::new(),
            sent: Sent::default(),
            history: None,
        };
        self.inner.write().relations.insert(id, relation);
    }

    /// Other names or more columns. Who follows the relation's changes is told to start anew.
    ///
    /// # Errors
    /// When the rows that are there don't have these columns.
    pub fn redefine(&self, id: RelationId, rows: &RowsSchema) -> Result<(), SqlError> {
        let internal = |e: dataflow::Error| SqlError::internal(e.to_string());
        // Readers go on meanwhile; nobody else writes.
        let kept = self.inner.read().relations.get(&id).and_then(|relation| match &relation.contents {
            Contents::Store(store) => {
                Some((store.snapshot(), store.key().map(<[usize]>::to_vec).unwrap_or_default()))
            }
            Contents::Log { .. } => None,
        });
        let mut wider = None;
        if let Some((snapshot, key)) = kept {
            let mut store = Store::view(Arc::clone(&rows.schema), key).map_err(internal)?;
            for batch in snapshot.batches(None, 65_536) {
                store.apply(&ZSet::inserts(rows.widen(batch.map_err(internal)?)?)).map_err(internal)?;
            }
            wider = Some(store);
        }
        let mut inner = self.inner.write();
        let Some(relation) = inner.relations.get_mut(&id) else { return Ok(()) };
        if let Some(mut store) = wider {
            for (_, columns, number) in &mut relation.indexes {
                *number = store.create_index(columns.clone()).map_err(internal)?;
            }
            relation.contents = Contents::Store(store);
        }
        relation.schema = Arc::clone(&rows.schema);
        relation.added = Arc::clone(&rows.added);
        relation.subscribers.clear();
        relation.history = None;
        Ok(())
    }

    /// All relations.
    pub fn relations(&self) -> Vec<RelationId> {
        self.inner.read().relations.keys().copied().collect()
    }

    /// The rows of all relations, or of those that are read from the log their number.
    pub fn images(&self) -> Vec<(RelationId, Image, u64)> {
        let image = |(id, relation): (&RelationId, &mut Relation)| match &mut relation.contents {
            Contents::Store(store) => (*id, store.image(), 0),
            Contents::Log { rows, .. } => (*id, Image { append_only: true, parts: Vec::new() }, *rows),
        };
        self.inner.write().relations.iter_mut().map(image).collect()
    }

    /// Takes a relation's rows away: those that were saved come instead.
    ///
    /// # Errors
    /// When a column can't be kept.
    pub fn empty(&self, id: RelationId) -> dataflow::Result<()> {
        if let Some(Relation { contents: Contents::Store(store), .. }) =
            self.inner.write().relations.get_mut(&id)
        {
            *store = store.emptied()?;
        }
        Ok(())
    }

    /// Takes in a part of a relation's rows; see [`Store::load`].
    ///
    /// # Errors
    /// When it can't be read, or there is no such relation.
    pub fn load(&self, id: RelationId, append_only: bool, saved: &[u8]) -> dataflow::Result<PartId> {
        let mut inner = self.inner.write();
        let Some(Relation { contents: Contents::Store(store), .. }) = inner.relations.get_mut(&id) else {
            return Err(dataflow::Error::State(format!("relation {} keeps no rows", id.0)));
        };
        let mut saved = StateReader::new(saved);
        let part = store.load(append_only, &mut saved)?;
        saved.finish()?;
        Ok(part)
    }

    /// How many rows a relation has that is read from the log.
    pub fn load_count(&self, id: RelationId, count: u64) {
        if let Some(Relation { contents: Contents::Log { rows, .. }, .. }) =
            self.inner.write().relations.get_mut(&id)
        {
            *rows = count;
        }
    }

    pub fn remove(&self, id: RelationId) {
        if let Some(relation) = self.inner.write().relations.remove(&id) {
            for subscriber in relation.subscribers {
                let gone = SqlError::new(SqlState::UndefinedTable, "the relation was dropped");
                let _ = subscriber.try_send(Err(gone));
            }
        }
    }

    /// Moves all relations to `tick` at once. Gives the relations whose contents refused their change, which is a broken
    /// rule of ours: the caller suspends them.
    pub fn publish(&self, tick: Tick, publication: Publication) -> Vec<(RelationId, String)> {
        let mut failed = Vec::new();
        let mut inner = self.inner.write();
        assert!(tick >= inner.tick, "ticks grow");
        inner.tick = tick;
        for Replacement { id, schema, store, indexes } in publication.replacements {
            let Some(relation) = inner.relations.get_mut(&id) else { continue };
            relation.schema = schema;
            relation.contents = Contents::Store(store);
            relation.indexes = indexes;
            relation.subscribers.clear();
            relation.history = None;
        }
        for (id, location) in publication.locations {
            if let Some(Relation { contents: Contents::Log { locations, .. }, .. }) =
                inner.relations.get_mut(&id)
            {
                locations.write().push(location);
            }
        }
        for (id, change) in publication.changes {
            let Some(relation) = inner.relations.get_mut(&id) else { continue };
            match &mut relation.contents {
                Contents::Log { rows, .. } => *rows += change.len() as u64,
                Contents::Store(store) => {
                    if let Err(error) = store.apply(&change) {
                        failed.push((id, error.to_string()));
                        continue;
                    }
                }
            }
            relation.announce(tick, &change);
        }
        drop(inner);
        self.tick.send_replace(tick);
        failed
    }

    pub fn tick(&self) -> Tick {
        self.inner.read().tick
    }

    /// Everything that is wanted, at one tick. Rows that can't be found by key are to be scanned for.
    ///
    /// # Errors
    /// A broken rule of ours.
    pub fn snapshot(&self, wanted: &Wanted, reader: &LogReader) -> Result<Snapshot, SqlError> {
        let inner = self.inner.read();
        let mut snapshot = Snapshot::default();
        let mut scans = wanted.scans.clone();
        for read in &wanted.keys {
            let Some(relation) = inner.relations.get(&read.relation) else { continue };
            match relation.find_all(read).map_err(|e| SqlError::internal(e.to_string()))? {
                Some(rows) => drop(snapshot.found.insert(read.clone(), rows)),
                None => drop(scans.insert(read.relation)),
            }
        }
        for id in scans {
            if let Some(relation) = inner.relations.get(&id) {
                snapshot.relations.insert(id, relation.snapshot(id, reader));
            }
        }
        Ok(snapshot)
    }

    /// The row with this key, one row of the columns `key`; `None` when the relation is not kept by this key.
    #[allow(clippy::type_complexity)]
    pub fn find(
        &self,
        id: RelationId,
        columns: &[usize],
        key: &RecordBatch,
    ) -> Option<dataflow::Result<Option<RecordBatch>>> {
        let inner = self.inner.read();
        match &inner.relations.get(&id)?.contents {
            Contents::Store(store) if store.key() == Some(columns) => Some(store.get(key)),
            _ => None,
        }
    }

    /// Adds an index to a relation that is kept in a store; false for one that is read from the log.
    pub fn create_index(&self, id: RelationId, name: &str, columns: Vec<usize>) -> dataflow::Result<bool> {
        let mut inner = self.inner.write();
        match inner.relations.get_mut(&id) {
            Some(Relation { contents: Contents::Store(store), indexes, .. }) => {
                let number = store.create_index(columns.clone())?;
                indexes.push((name.to_string(), columns, number));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    pub fn rename_index(&self, id: RelationId, name: &str, to: &str) {
        if let Some(relation) = self.inner.write().relations.get_mut(&id) {
            relation
                .indexes
                .iter_mut()
                .filter(|(index, _, _)| index == name)
                .for_each(|(index, _, _)| *index = to.into());
        }
    }

    pub fn drop_index(&self, id: RelationId, name: &str) {
        let mut inner = self.inner.write();
        if let Some(Relation { contents: Contents::Store(store), indexes, .. }) = inner.relations.get_mut(&id)
        {
            for (_, _, number) in indexes.extract_if(.., |(index, _, _)| index == name) {
                store.drop_index(number);
            }
        }
    }

    /// Rows and bytes of a relation's contents.
    pub fn size(&self, id: RelationId) -> (u64, u64) {
        let inner = self.inner.read();
        match inner.relations.get(&id).map(|r| &r.contents) {
            Some(Contents::Store(store)) => (store.len() as u64, store.size_bytes() as u64),
            Some(Contents::Log { rows, locations }) => {
                (*rows, locations.read().iter().map(|l| u64::from(l.length)).sum())
            }
            None => (0, 0),
        }
    }

    /// The contents at one tick and every change after it, without gap or overlap; the snapshot is left out when
    /// all changes since `after` are still kept.
    #[allow(clippy::type_complexity)]
    pub fn subscribe(
        &self,
        id: RelationId,
        after: Option<Tick>,
        reader: &LogReader,
    ) -> Option<(Tick, Option<RelationSnapshot>, mpsc::Receiver<Result<Change, SqlError>>)> {
        let mut inner = self.inner.write();
        let tick = inner.tick;
        let relation = inner.relations.get_mut(&id)?;
        let (sender, receiver) = mpsc::channel(SUBSCRIBER_TICKS_MAX);
        let history = relation.history.get_or_insert(History {
            since: tick,
            changes: VecDeque::new(),
            rows: 0,
            bytes: 0,
        });
        let resumed = after.filter(|after| *after >= history.since && *after <= tick).filter(|after| {
            let missed = history.changes.iter().map(|(change, _)| change).filter(|c| c.tick > *after);
            missed.clone().count() <= SUBSCRIBER_TICKS_MAX / 2
                && missed.cloned().all(|change| sender.try_send(Ok(change)).is_ok())
        });
        let snapshot = resumed.is_none().then(|| relation.snapshot(id, reader));
        relation.subscribers.push(sender);
        Some((resumed.unwrap_or(tick), snapshot, receiver))
    }
}

impl Relation {
    /// The rows with these keys; `None` if there is neither such a key nor such an index.
    fn find_all(&self, read: &KeyRead) -> dataflow::Result<Option<Vec<RecordBatch>>> {
        let Contents::Store(store) = &self.contents else { return Ok(None) };
        let by_key = store.key() == Some(&read.columns);
        let index = self.indexes.iter().find(|(_, columns, _)| *columns == read.columns);
        let mut rows = Vec::new();
        for key in read.batches(&self.schema) {
            match index {
                _ if by_key => rows.extend(store.get(&key?)?),
                Some((_, _, index)) => rows.push(store.lookup(*index, &key?)?),
                None => return Ok(None),
            }
        }
        Ok(Some(rows))
    }

    fn snapshot(&self, id: RelationId, reader: &LogReader) -> RelationSnapshot {
        match &self.contents {
            Contents::Store(store) => RelationSnapshot::Store(store.snapshot()),
            Contents::Log { locations, .. } => RelationSnapshot::Log(LogRows {
                relation: id,
                rows: RowsSchema { schema: Arc::clone(&self.schema), added: Arc::clone(&self.added) },
                records: locations.read().len(),
                locations: Arc::clone(locations),
                reader: reader.clone(),
            }),
        }
    }

    fn announce(&mut self, tick: Tick, change: &ZSet) {
        if self.subscribers.is_empty() && self.history.is_none() {
            return;
        }
        let bytes = bytes_of(change);
        let change = Change { tick, change: change.clone() };
        let sent = &self.sent;
        self.subscribers.retain(|subscriber| {
            let waiting = subscriber.max_capacity() - subscriber.capacity();
            // Its receiver sees the end of the channel after what it has not read yet.
            let lags = waiting > 0 && sent.newest(waiting) + bytes > SUBSCRIBER_BYTES_MAX;
            !lags && subscriber.try_send(Ok(change.clone())).is_ok()
        });
        self.sent.add(bytes);
        let Some(history) = &mut self.history else { return };
        history.rows += change.change.len();
        history.bytes += bytes;
        history.changes.push_back((change, bytes));
        while history.rows > HISTORY_ROWS_MAX || history.bytes > HISTORY_BYTES_MAX {
            let Some((oldest, bytes)) = history.changes.pop_front() else { break };
            history.rows -= oldest.change.len();
            history.bytes -= bytes;
            history.since = oldest.tick;
        }
    }
}

fn bytes_of(change: &ZSet) -> usize {
    let columns = change.rows().columns().iter();
    let rows: usize = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    rows + change.weights().map_or(0, std::mem::size_of_val)
}

impl Snapshot {
    pub fn relation(&self, id: RelationId) -> Option<&RelationSnapshot> {
        self.relations.get(&id)
    }

    pub fn found(&self, read: &KeyRead) -> Option<&Vec<RecordBatch>> {
        self.found.get(read)
    }
}

impl RelationSnapshot {
    /// Columns of the rows.
    pub fn schema(&self) -> SchemaRef {
        match self {
            RelationSnapshot::Store(snapshot) => snapshot.schema(),
            RelationSnapshot::Log(rows) => Arc::clone(&rows.rows.schema),
        }
    }

    /// All rows, in batches of bounded size; `projection` picks columns.
    pub fn batches(
        &self,
        projection: Option<Vec<usize>>,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch, SqlError>> + Send> {
        match self {
            RelationSnapshot::Store(snapshot) => {
                let batches = snapshot.batches(projection.as_deref(), 8192);
                Box::new(batches.map(|b| b.map_err(|e| SqlError::internal(e.to_string()))))
            }
            RelationSnapshot::Log(rows) => Box::new(rows.clone().batches(projection)),
        }
    }
}

impl LogRows {
    fn batches(
        self,
        projection: Option<Vec<usize>>,
    ) -> impl Iterator<Item = Result<RecordBatch, SqlError>> + Send {
        let schemas = Schemas::from([(self.relation, self.rows.clone())]);
        (0..self.records).flat_map(move |record| {
            let location = self.locations.read()[record];
            let parts = self.read(location, &schemas);
            let projection = projection.clone();
            let project = move |batch: RecordBatch| match &projection {
                Some(columns) => batch.project(columns).map_err(|e| SqlError::internal(e.to_string())),
                None => Ok(batch),
            };
            match parts {
                Ok(batches) => batches.into_iter().map(project).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        })
    }

    fn read(&self, location: Location, schemas: &Schemas) -> Result<Vec<RecordBatch>, SqlError> {
        let record =
            self.reader.read_at(location).map_err(|e| SqlError::new(SqlState::IoError, e.to_string()))?;
        match decode(record.kind, record.stream, &record.payload, schemas)? {
            Entry::Rows(entry) => Ok(entry.parts.into_iter().map(|part| part.rows).collect()),
            _ => Ok(Vec::new()),
        }
    }
}
