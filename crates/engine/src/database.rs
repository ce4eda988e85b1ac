//! The database: opens a data directory, takes rows, answers sessions.
//!
//! ```text
//!  ingest, sessions --> writer thread (log) --> driver thread (engine) --> published --> snapshots, subscriptions
//! ```

mod connectors;
mod opening;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use dataflow::{DecodedRows, Tick};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::{Mutex, RwLock};
use sql::planner::QueryStop;
use sql::statement::{Alteration, ObjectKind};
use sql::{Catalog, ParsedStatement, RelationId, SqlError, SqlState, Statement, TableDef};
use storage::checkpoints::Checkpoints;
use storage::disk::{DirLock, Disk, RealDisk};
use storage::log::{Log, LogError, LogOptions, LogReader, Offset};
use tokio::sync::{mpsc, oneshot};

use self::opening::{Start, Started};
use crate::api::*;
use crate::checkpoint::Saver;
use crate::constraints::Constraints;
use crate::definition::{DefinitionPlanner, Install, ViewProperties};
use crate::driver::{Checkpointing, Job, Measurements, Replace, Shared, Views};
use crate::plan::StreamPlan;
use crate::point_read::PointReads;
use crate::published::{Published, RelationSnapshot, Snapshot, Wanted};
use crate::record::{Definition, Part, RequestKey, RowsEntry, encode_part};
use crate::session::Session;
use crate::sources::Sources;
use crate::system::{self, rejected_part};
use crate::writer::{Committed, LogFacts, Request, RowsRequest, Work, Writer};

/// Rows that may wait between the log and the views; producers are slowed down beyond.
pub(crate) const BACKLOG_ROWS_MAX: u64 = 4_000_000;
/// How long a producer is held before it is told to come back later.
const BACKLOG_WAIT: Duration = Duration::from_secs(5);
/// How long a statement waits for its own rows to become visible.
const VISIBLE_WAIT: Duration = Duration::from_secs(60);
/// Queries that may compute at once.
const QUERY_THREADS: usize = 8;
/// Batches a query may be ahead of its reader.
const QUERY_BATCHES_AHEAD: usize = 2;
const SEGMENT_BYTES_MAX: u64 = 256 << 20;
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Microseconds since 1970, for arrival times; nothing that closes windows reads the clock.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub struct Database {
    shared: Arc<Shared>,
    base: Arc<SessionState>,
    reader: LogReader,
    requests: Mutex<Option<Sender<Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    constraints: RwLock<HashMap<RelationId, Arc<Constraints>>>,
    /// One definition at a time.
    definitions: tokio::sync::Mutex<()>,
    pub(crate) point_reads: PointReads,
    /// One changing statement at a time.
    dml: tokio::sync::Mutex<()>,
    /// Where queries run: a plan that computes for long between two rows holds up its thread, and that must not be
    /// one that serves others.
    queries: Mutex<Option<tokio::runtime::Runtime>>,
    sources: Mutex<Sources>,
    started_from: Offset,
    _lock: Option<DirLock>,
}

pub struct Subscription {
    pub schema: arrow::datatypes::SchemaRef,
    pub tick: Tick,
    /// `None` when resumed.
    pub snapshot: Option<Vec<RecordBatch>>,
    /// Ends when the subscriber falls too far behind or the relation is dropped.
    pub changes: mpsc::Receiver<Result<Change, SqlError>>,
}

/// What a definition did.
#[derive(Default)]
pub(crate) struct Defined {
    pub notices: Vec<Notice>,
    /// The view that is still being built.
    pub building: Option<RelationId>,
    pub replaced: Option<Replaced>,
}

/// A view that is going to be replaced.
pub(crate) struct Replaced {
    pub notices: Vec<Notice>,
    answer: oneshot::Receiver<Result<Tick, SqlError>>,
}

impl Database {
    /// Opens or creates the data directory, replays the log, starts the engine's threads. Blocking.
    ///
    /// # Errors
    /// `CannotConnectNow` when another process holds the directory, `DataCorrupted` when the log is damaged other than
    /// by a torn tail.
    pub fn open(options: Options) -> Result<Arc<Database>, SqlError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let io = |e: std::io::Error| {
            SqlError::new(SqlState::IoError, format!("data directory {}: {e}", options.data_dir.display()))
        };
        std::fs::create_dir_all(&options.data_dir).map_err(io)?;
        let lock = DirLock::acquire(disk.as_ref(), &options.data_dir)
            .map_err(|e| SqlError::new(SqlState::CannotConnectNow, e.to_string()))?;
        Database::open_on(disk, options, Some(lock))
    }

    /// [`Database::open`] on any disk, without the directory's lock.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        lock: Option<DirLock>,
    ) -> Result<Arc<Database>, SqlError> {
        let log_options = LogOptions { segment_bytes_max: SEGMENT_BYTES_MAX };
        let (log, recovery) =
            Log::open(Arc::clone(&disk), &options.data_dir.join("log"), log_options).map_err(log_error)?;
        if let Some(torn) = &recovery.torn_tail {
            tracing::warn!(?torn, "cut an unfinished record off the log: it was never acknowledged");
        }
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(options.memory_bytes)))
            // A query that outgrows its memory fails; spilling would let one fill the disk that the log needs.
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(|e| SqlError::internal(e.to_string()))?;
        let planner = sql::planner::PlannerConfig { target_partitions: workers, batch_size: 8192, runtime };
        let base = Arc::new(sql::planner::session_state(&planner));
        let facts = Arc::new(LogFacts::default());
        let reader = log.reader();
        let start =
            Start { base: &base, reader: &reader, facts: &facts, workers, batching: options.batching };
        let dir = options.data_dir.join("checkpoints");
        let checkpoints = match Checkpoints::open(disk, &dir) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(%error, "there are no checkpoints; every start reads the whole log");
                None
            }
        };
        let (checkpoints, found) = checkpoints.map_or((None, Vec::new()), |(c, found)| (Some(c), found));
        let Started { shared, mut driver, seen, restored } = start.newest(checkpoints.as_ref(), found)?;
        let started_from = Offset(restored.start());
        let end = Tick(log.next_offset().0);
        driver.step();
        driver.publish(end, std::time::Instant::now());
        facts.bytes.store(log.bytes(), Ordering::Relaxed);
        facts.records.store(log.next_offset().0, Ordering::Relaxed);

        let (requests, to_writer): (Sender<Request>, Receiver<Request>) = channel();
        let (to_driver, records): (Sender<Work>, Receiver<Work>) = channel();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(|e| SqlError::internal(format!("thread {name} can't be started: {e}")))
        };
        let mut threads = Vec::new();
        if let Some(checkpoints) = checkpoints {
            let (saver, told) = channel();
            let (done, outcomes) = channel();
            let waiting = Arc::new(AtomicUsize::new(0));
            let last = restored.last.as_ref().map(|(_, manifest)| Arc::clone(manifest));
            driver.checkpoint_with(Checkpointing::new(
                options.checkpoint_interval,
                saver,
                outcomes,
                requests.clone(),
                Arc::clone(&waiting),
                last,
            ));
            let saver = Saver::new(checkpoints, reader.clone(), restored, waiting);
            threads.push(spawn("checkpoint", Box::new(move || saver.run(&told, &done)))?);
        }
        driver.go_live(requests.clone());
        let sources = Sources::new(seen.positions.clone());
        let writer = Writer { log, seen, requests: to_writer, engine: to_driver, facts, now_us };
        threads.push(spawn("log-writer", Box::new(move || writer.run()))?);
        threads.push(spawn("engine", Box::new(move || driver.run(records)))?);
        let queries = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(QUERY_THREADS)
            .thread_name("query")
            .build()
            .map_err(|e| SqlError::internal(format!("query threads can't be started: {e}")))?;
        Ok(Arc::new(Database {
            shared,
            base,
            reader,
            requests: Mutex::new(Some(requests)),
            threads: Mutex::new(threads),
            constraints: RwLock::default(),
            definitions: tokio::sync::Mutex::default(),
            point_reads: PointReads::default(),
            dml: tokio::sync::Mutex::default(),
            queries: Mutex::new(Some(queries)),
            sources: Mutex::new(sources),
            started_from,
            _lock: lock,
        }))
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.shared.catalog.read())
    }

    pub(crate) fn planner(&self) -> Arc<SessionState> {
        Arc::clone(&self.base)
    }

    pub(crate) fn snapshot(&self, wanted: &Wanted) -> Result<Snapshot, SqlError> {
        let ids = wanted.scans.iter().chain(wanted.keys.iter().map(|read| &read.relation));
        for id in ids {
            if let Some(job) = self.shared.jobs.creating(*id) {
                return Err(job.not_ready());
            }
        }
        self.shared.published.snapshot(wanted, &self.reader)
    }

    pub(crate) fn published(&self) -> &Published {
        &self.shared.published
    }

    pub(crate) fn view_properties(&self) -> Arc<ViewProperties> {
        Arc::clone(&self.shared.view_properties.read())
    }

    /// Tables, views and system relations by name; indexes are not relations.
    pub fn relation(&self, name: &str) -> Option<RelationInfo> {
        let catalog = self.catalog();
        if let Some(table) = catalog.tables.get(name) {
            let kind = if system::is_system(table.id) { RelationKind::System } else { RelationKind::Table };
            return Some(RelationInfo {
                name: name.to_string(),
                kind,
                schema: table.schema(),
                key: table.primary_key.clone(),
                sql: table.sql.clone(),
            });
        }
        let view = catalog.views.get(name)?;
        let key = self.shared.view_properties.read().get(name).and_then(|p| p.key.clone());
        Some(RelationInfo {
            name: name.to_string(),
            kind: if view.materialized { RelationKind::MaterializedView } else { RelationKind::View },
            schema: Arc::clone(&view.schema),
            key: key.unwrap_or_default(),
            sql: view.sql.clone(),
        })
    }

    pub fn relations(&self) -> Vec<RelationInfo> {
        let catalog = self.catalog();
        catalog.tables.keys().chain(catalog.views.keys()).filter_map(|name| self.relation(name)).collect()
    }

    pub fn table(&self, name: &str) -> Option<Arc<TableDef>> {
        self.catalog().tables.get(name).cloned()
    }

    pub(crate) fn no_relation(&self, name: &str) -> SqlError {
        let catalog = self.catalog();
        let names = catalog.tables.keys().chain(catalog.views.keys()).map(String::as_str);
        let error = SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"));
        match sql::suggest::closest(name, names) {
            Some(close) => error.with_hint(format!("did you mean \"{close}\"?")),
            None => error,
        }
    }

    /// A table that users may write to.
    pub(crate) fn writable(&self, name: &str) -> Result<Arc<TableDef>, SqlError> {
        let catalog = self.catalog();
        match catalog.tables.get(name) {
            Some(table) if system::is_system(table.id) => Err(SqlError::new(
                SqlState::InsufficientPrivilege,
                format!("relation \"{name}\" is kept by the system and can't be written to"),
            )),
            Some(table) if table.is_source() => Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("source \"{name}\" gets its rows from its connector and can't be written to"),
            )
            .with_hint("CREATE TABLE ... WITH (connector = ...) takes rows from both")),
            Some(table) => Ok(Arc::clone(table)),
            None if catalog.views.contains_key(name) => Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("\"{name}\" is a view; rows are written to tables"),
            )),
            None => Err(self.no_relation(name)),
        }
    }

    pub(crate) fn constraints(&self, table: &Arc<TableDef>) -> Result<Arc<Constraints>, SqlError> {
        if let Some(constraints) = self.constraints.read().get(&table.id) {
            return Ok(Arc::clone(constraints));
        }
        let constraints = Arc::new(Constraints::new(Arc::clone(table), &self.base)?);
        self.constraints.write().insert(table.id, Arc::clone(&constraints));
        Ok(constraints)
    }

    /// Checks the rows against the table's constraints, makes them durable, and answers. Rows that fail
    /// a constraint go to `rejected_rows` in the same log write.
    ///
    /// # Errors
    /// Unknown table; the log refuses writes; `ConfigurationLimitExceeded` when the engine is too far behind and the
    /// sender should come back later. Nothing was accepted then.
    pub async fn ingest(
        &self,
        table: &str,
        rows: DecodedRows,
        meta: IngestMeta,
    ) -> Result<Receipt, SqlError> {
        let table = self.writable(table)?;
        self.wait_for_backlog().await?;
        let constraints = self.constraints(&table)?;
        let request = match &meta.idempotency_key {
            Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
                return Err(SqlError::new(
                    SqlState::InvalidParameterValue,
                    format!(
                        "an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, this one has {}",
                        key.len()
                    ),
                ));
            }
            Some(key) => Some(RequestKey { key: key.clone(), body_crc: crc32fast::hash(&meta.body) }),
            None => None,
        };
        let arrival_us = now_us();
        let (stored, rejected) = constraints.apply(rows, arrival_us, &meta.body)?;
        let accepted = stored.num_rows() as u64;
        let mut parts = Vec::with_capacity(2);
        if accepted > 0 {
            parts.push(Part { relation: table.id, rows: stored, weights: None });
        }
        if !rejected.is_empty() {
            parts.push(rejected_part(&table.name, &meta.origin, arrival_us, &rejected)?);
        }
        let encoded = parts.iter().map(encode_part).collect();
        let entry = RowsEntry {
            table: table.id,
            arrival_us,
            request,
            accepted,
            duplicates: 0,
            position: None,
            parts,
        };
        let committed = self.submit(RowsRequest { entry, encoded, reply: None }).await?;
        Ok(Receipt {
            accepted: committed.accepted,
            duplicates: committed.duplicates,
            rejected,
            tick: committed.tick,
            replayed: committed.replayed,
        })
    }

    async fn wait_for_backlog(&self) -> Result<(), SqlError> {
        let started = std::time::Instant::now();
        while self.shared.facts.backlog_rows.load(Ordering::Relaxed) > BACKLOG_ROWS_MAX {
            if started.elapsed() > BACKLOG_WAIT {
                return Err(SqlError::new(
                    SqlState::ConfigurationLimitExceeded,
                    format!("more than {BACKLOG_ROWS_MAX} accepted rows wait for the views"),
                )
                .with_hint("send more slowly, or again in a few seconds"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn send(&self, request: Request) -> Result<(), SqlError> {
        let stopped = || SqlError::new(SqlState::AdminShutdown, "the database is shutting down");
        self.requests.lock().as_ref().ok_or_else(stopped)?.send(request).map_err(|_| stopped())
    }

    /// Hands a record to the log; answers when it is durable.
    pub(crate) async fn submit(&self, mut request: RowsRequest) -> Result<Committed, SqlError> {
        let (reply, answer) = oneshot::channel();
        request.reply = Some(reply);
        self.send(Request::Rows(Box::new(request)))?;
        answer.await.map_err(|_| SqlError::new(SqlState::AdminShutdown, "the database is shutting down"))?
    }

    /// Carries a definition out; it is durable and visible when this returns.
    ///
    /// A view over much data may still be on its way then: [`Database::wait_built`].
    pub(crate) async fn define(&self, statement: &ParsedStatement) -> Result<Defined, SqlError> {
        let turn = self.definitions.lock().await;
        if let Some(job) = self.shared.jobs.replacing() {
            return Err(job.not_replaced());
        }
        let install = self.plan_definition(statement).await?;
        if let Install::Replace(views) = install {
            return self
                .begin_replacing(statement, views)
                .map(|replaced| Defined { replaced: Some(replaced), ..Defined::default() });
        }
        let fed = match &install {
            Install::Table(table) if table.connector.is_some() => Some(Arc::clone(table)),
            _ => None,
        };
        if let Some(table) = &fed {
            self.sources.lock().check(table)?;
        }
        self.check_built(&install)?;
        let (id, dropped) = match &install {
            Install::Nothing => {
                return Ok(Defined { notices: skipped(&statement.statement), ..Defined::default() });
            }
            Install::Table(table) => (table.id, None),
            Install::View { view, .. } => (view.id, None),
            Install::Index(index) => (index.id, None),
            Install::Function(function) => (function.id, None),
            // They create nothing: the id stays free.
            Install::ReplaceView(_)
            | Install::Redefine(_)
            | Install::Comment { .. }
            | Install::Replace(_)
            | Install::CutOver { .. } => (RelationId(0), None),
            Install::Drop(objects) => (RelationId(0), Some(objects.clone())),
        };
        if let Some(name) = dropped
            .iter()
            .flatten()
            .filter(|object| object.kind == ObjectKind::Table)
            .map(|object| &object.name)
            .find(|n| self.relation(n).is_some_and(|r| r.kind == RelationKind::System))
        {
            return Err(SqlError::new(
                SqlState::InsufficientPrivilege,
                format!("relation \"{name}\" is kept by the system and can't be dropped"),
            ));
        }
        let altered: Vec<Arc<TableDef>> = match &install {
            Install::Redefine(changed) => changed.tables.clone(),
            _ => Vec::new(),
        };
        // A connector goes on under the new definition, from where its durable rows end.
        for table in altered.iter().filter(|table| table.connector.is_some()) {
            let old = self.catalog().name_of(table.id).map(str::to_string);
            if let Some(old) = old {
                self.stop_source(&old).await;
            }
        }
        let notices = notices(&install);
        let definition_id = id.0;
        let definition = Definition { sql: statement.sql.clone(), id: definition_id };
        let (reply, answer) = oneshot::channel();
        self.send(Request::Definition { definition, install, reply })?;
        let tick = answer
            .await
            .map_err(|_| SqlError::new(SqlState::AdminShutdown, "the database is shutting down"))??;
        self.wait_tick(tick, Duration::from_secs(24 * 3600)).await?;
        for table in &altered {
            self.constraints.write().remove(&table.id);
        }
        for table in fed.iter().chain(altered.iter().filter(|table| table.connector.is_some())) {
            self.start_source(table)?;
        }
        if let Some(objects) = dropped {
            for object in &objects {
                self.stop_source(&object.name).await;
            }
            // A request that is under way with a dropped table may put it back; it goes with the next drop.
            let catalog = self.catalog();
            let tables: HashSet<RelationId> = catalog.tables.values().map(|table| table.id).collect();
            self.constraints.write().retain(|id, _| tables.contains(id));
        }
        let building =
            self.shared.jobs.creating(RelationId(definition_id)).map(|_| RelationId(definition_id));
        drop(turn);
        Ok(Defined { notices, building, replaced: None })
    }

    /// Begins to build what takes a view's place; the answer comes when it has.
    fn begin_replacing(&self, statement: &ParsedStatement, views: Views) -> Result<Replaced, SqlError> {
        if let Some(job) = views.iter().find_map(|(view, _)| self.shared.jobs.creating(view.id)) {
            return Err(job.not_ready());
        }
        let Some((view, plan)) = views.first() else { return Err(SqlError::internal("a view is replaced")) };
        let unbounded = crate::plan::unbounded_state(plan).into_iter();
        let notices = unbounded.map(|state| state.notice(&view.name)).collect();
        let job = Arc::new(Job::new(&view.name, true));
        let definition = Definition { sql: statement.sql.clone(), id: view.id.0 };
        self.shared.jobs.add(view.id, Arc::clone(&job));
        let (reply, answer) = oneshot::channel();
        self.send(Request::Replace(Box::new(Replace { definition, views, job, reply })))?;
        Ok(Replaced { notices, answer })
    }

    /// Returns when a view was replaced and readers see the new one.
    ///
    /// # Errors
    /// Why the old one is still there.
    pub(crate) async fn wait_replaced(&self, replaced: Replaced) -> Result<(), SqlError> {
        let stopped = |_| SqlError::new(SqlState::AdminShutdown, "the database is shutting down");
        let tick = replaced.answer.await.map_err(stopped)??;
        self.wait_tick(tick, Duration::from_secs(24 * 3600)).await?;
        Ok(())
    }

    /// Calls off a job that `SHOW JOBS` shows.
    ///
    /// # Errors
    /// There is none of this number.
    pub(crate) fn cancel_job(&self, id: u32) -> Result<(), SqlError> {
        let job = self.shared.jobs.of(RelationId(id)).ok_or_else(|| {
            SqlError::new(SqlState::UndefinedObject, format!("there is no job {id}"))
                .with_hint("SHOW JOBS lists them")
        })?;
        job.cancel();
        Ok(())
    }

    /// Views and indexes stand on views that are there.
    fn check_built(&self, install: &Install) -> Result<(), SqlError> {
        let read: Vec<RelationId> = match install {
            Install::View { plan: Some(plan), .. } => plan.sources().collect(),
            Install::Index(index) => self.catalog().id_of(&index.relation).into_iter().collect(),
            _ => Vec::new(),
        };
        match read.into_iter().find_map(|id| self.shared.jobs.creating(id)) {
            Some(job) => Err(job.not_ready()),
            None => Ok(()),
        }
    }

    /// Returns when a view is built.
    ///
    /// # Errors
    /// What went wrong.
    pub(crate) async fn wait_built(&self, view: RelationId) -> Result<(), SqlError> {
        self.shared.jobs.wait(view).await
    }

    pub(crate) fn jobs(&self) -> Vec<(RelationId, Arc<Job>)> {
        self.shared.jobs.all()
    }

    pub(crate) async fn plan_definition(&self, statement: &ParsedStatement) -> Result<Install, SqlError> {
        let catalog = self.catalog();
        let properties = Arc::clone(&self.shared.view_properties.read());
        let id = RelationId(catalog.next_id.max(system::FIRST_USER_ID));
        let planner = DefinitionPlanner { catalog: &catalog, views: &properties, base: &self.base };
        planner.plan(statement, id).await
    }

    /// Runs a query on its own threads; dropping the stream stops it, between two rows and within joins.
    pub(crate) fn on_query_threads(
        &self,
        start: impl FnOnce() -> datafusion::error::Result<SendableRecordBatchStream> + Send + 'static,
        stop: QueryStop,
    ) -> BoxStream<'static, datafusion::error::Result<RecordBatch>> {
        let (sender, receiver) = mpsc::channel(QUERY_BATCHES_AHEAD);
        let query = async move {
            match start() {
                Err(error) => drop(sender.send(Err(error)).await),
                Ok(mut stream) => {
                    while let Some(batch) = stream.next().await {
                        if sender.send(batch).await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        let task =
            self.queries.lock().as_ref().map(|runtime| StopOnDrop { task: runtime.spawn(query), stop });
        futures::stream::unfold((receiver, task), |(mut receiver, task)| async move {
            receiver.recv().await.map(|batch| (batch, (receiver, task)))
        })
        .boxed()
    }

    pub(crate) async fn dml_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.dml.lock().await
    }

    /// Returns when views show everything that was acknowledged before the call.
    pub async fn flush(&self) -> Result<Tick, SqlError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Barrier(reply))?;
        let tick = answer
            .await
            .map_err(|_| SqlError::new(SqlState::AdminShutdown, "the database is shutting down"))??;
        self.wait_visible(tick).await
    }

    /// Figures of every operator of the running views, by view.
    pub(crate) async fn measurements(&self) -> Result<Measurements, SqlError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Measure(reply))?;
        answer.await.map_err(|_| SqlError::new(SqlState::AdminShutdown, "the database is shutting down"))
    }

    /// The plan of a running materialized view.
    pub(crate) fn view_plan(&self, id: RelationId) -> Option<Arc<StreamPlan>> {
        self.shared.plans.read().get(&id).cloned()
    }

    pub(crate) async fn wait_visible(&self, tick: Tick) -> Result<Tick, SqlError> {
        self.wait_tick(tick, VISIBLE_WAIT).await
    }

    /// Returns when views show `tick`.
    ///
    /// # Errors
    /// `QueryCanceled` when that takes longer than `timeout`.
    pub async fn wait_tick(&self, tick: Tick, timeout: Duration) -> Result<Tick, SqlError> {
        let mut current = self.shared.published.tick.subscribe();
        let waited = tokio::time::timeout(timeout, current.wait_for(|now| *now >= tick)).await;
        match waited {
            Ok(Ok(now)) => Ok(*now),
            Ok(Err(_)) => Err(SqlError::new(SqlState::AdminShutdown, "the database is shutting down")),
            Err(_) => Err(SqlError::new(
                SqlState::QueryCanceled,
                format!("tick {tick} was not reached within {} ms", timeout.as_millis()),
            )),
        }
    }

    /// The clock at the last tick, which now() stands for in materialized views; `None` before the first record.
    pub fn clock_us(&self) -> Option<i64> {
        Some(self.shared.facts.clock_us.load(Ordering::Relaxed)).filter(|us| *us != i64::MIN)
    }

    pub fn status(&self) -> Status {
        let catalog = self.catalog();
        let facts = &self.shared.facts;
        let statistics = self.shared.statistics.read().clone();
        let rejected = self.shared.published.size(system::REJECTED_ROWS).0;
        let tables = catalog
            .tables
            .values()
            .map(|table| {
                let mut status = statistics.tables.get(&table.id).cloned().unwrap_or_default();
                status.bytes = self.shared.published.size(table.id).1;
                (table.name.clone(), status)
            })
            .collect();
        let views = catalog
            .views
            .values()
            .filter(|view| view.materialized)
            .map(|view| {
                let mut status = statistics.views.get(&view.id).cloned().unwrap_or_default();
                (status.rows, status.bytes) = self.shared.published.size(view.id);
                (view.name.clone(), status)
            })
            .collect();
        Status {
            tick: self.shared.published.tick(),
            ready: true,
            writes_refused: facts.refused.lock().clone(),
            log_bytes: facts.bytes.load(Ordering::Relaxed),
            log_records: facts.records.load(Ordering::Relaxed),
            backlog_records: facts.backlog_rows.load(Ordering::Relaxed),
            last_tick_duration: statistics.last_tick,
            tables,
            views,
            sources: self.source_statuses(),
            rejected_rows: rejected,
            late_rows: statistics.late_rows,
            fsyncs: facts.fsyncs.load(Ordering::Relaxed),
            checkpoints: statistics.checkpoints,
        }
    }

    /// The relation's rows at one tick, and every change after that tick, without gap or overlap.
    /// With `after`, the snapshot is left out when the changes since that tick are still kept.
    ///
    /// # Errors
    /// Unknown relation; plain views, which have no changes of their own.
    pub fn subscribe(&self, relation: &str, after: Option<Tick>) -> Result<Subscription, SqlError> {
        let catalog = self.catalog();
        let (id, schema) = if let Some(table) = catalog.tables.get(relation) {
            (table.id, table.schema())
        } else if let Some(view) = catalog.views.get(relation) {
            if !view.materialized {
                return Err(SqlError::new(
                    SqlState::WrongObjectType,
                    format!("view \"{relation}\" is computed when it is read and has no changes to follow"),
                )
                .with_hint("use CREATE MATERIALIZED VIEW"));
            }
            (view.id, Arc::clone(&view.schema))
        } else {
            return Err(self.no_relation(relation));
        };
        if let Some(job) = self.shared.jobs.creating(id) {
            return Err(job.not_ready());
        }
        let (tick, snapshot, changes) = self
            .shared
            .published
            .subscribe(id, after, &self.reader)
            .ok_or_else(|| self.no_relation(relation))?;
        let snapshot =
            snapshot.map(|s: RelationSnapshot| s.batches(None).collect::<Result<Vec<_>, _>>()).transpose()?;
        Ok(Subscription { schema, tick, snapshot, changes })
    }

    pub fn session(self: &Arc<Self>) -> Session {
        Session::new(Arc::clone(self))
    }

    /// Stops taking writes, makes everything durable, stops the threads. Blocking.
    /// The record from which on the log was read at the start: 0 unless there was a checkpoint.
    pub fn started_from(&self) -> Offset {
        self.started_from
    }

    /// Returns when a checkpoint is durable that has everything that was acknowledged before.
    ///
    /// # Errors
    /// When it can't be written; the log has everything all the same.
    pub async fn checkpoint(&self) -> Result<(), SqlError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Checkpoint(reply))?;
        answer.await.map_err(|_| SqlError::new(SqlState::AdminShutdown, "the database is shutting down"))?
    }

    pub fn shutdown(&self) {
        self.sources.lock().stop_all();
        if let Some(requests) = self.requests.lock().take() {
            let _ = requests.send(Request::Shutdown);
        }
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine had stopped");
            }
        }
    }
}

struct StopOnDrop {
    task: tokio::task::JoinHandle<()>,
    stop: QueryStop,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop.stop();
        self.task.abort();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(queries) = self.queries.lock().take() {
            queries.shutdown_background();
        }
        self.shutdown();
    }
}

/// What `IF NOT EXISTS` and `IF EXISTS` passed over.
fn skipped(statement: &Statement) -> Vec<Notice> {
    let exists =
        |name: &str| Notice { message: format!("relation \"{name}\" already exists, skipping"), hint: None };
    match statement {
        Statement::CreateTable { table, .. } => vec![exists(&table.name)],
        Statement::CreateView { view, .. } => vec![exists(&view.name)],
        Statement::CreateIndex { index, .. } => vec![exists(&index.name)],
        Statement::Alter {
            name,
            change: Alteration::AddColumn { column, if_not_exists: true },
            if_exists: false,
            ..
        } => {
            let message =
                format!("column \"{}\" of relation \"{name}\" already exists, skipping", column.name);
            vec![Notice { message, hint: None }]
        }
        Statement::Alter { kind, name, .. } => {
            let message = format!("{} \"{name}\" does not exist, skipping", kind.word());
            vec![Notice { message, hint: None }]
        }
        Statement::Drop { kind, names, .. } => {
            let missing = names.iter().map(|name| Notice {
                message: format!("{} \"{name}\" does not exist, skipping", kind.word()),
                hint: None,
            });
            missing.collect()
        }
        _ => Vec::new(),
    }
}

/// What to tell the user of a definition that is carried out.
fn notices(install: &Install) -> Vec<Notice> {
    match install {
        Install::View { view, plan: Some(plan) } => {
            crate::plan::unbounded_state(plan).into_iter().map(|state| state.notice(&view.name)).collect()
        }
        _ => Vec::new(),
    }
}

fn log_error(error: LogError) -> SqlError {
    let state = match &error {
        LogError::Damaged { .. } => SqlState::DataCorrupted,
        LogError::DiskFull { .. } => SqlState::DiskFull,
        _ => SqlState::IoError,
    };
    SqlError::new(state, error.to_string())
}

#[cfg(test)]
mod tests;
