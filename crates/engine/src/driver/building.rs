//! Views that are built while the others go on.
//!
//! ```text
//!   engine thread   CREATE at 100    | records 100..180 come            | the rest, 180..182; adopted and shown
//!   build thread            0..100   | asks, gets 100..180              |
//! ```
//!
//! A thread takes the records that were there, and then those that came meanwhile. When few are left the engine takes
//! these between two ticks: the view is then where it would be had it existed from the beginning, without gap or overlap.
//! A crash forgets it all; the definition is in the log, and at the next start the view is built with the others.
//!
//! What replaces a view, and all that stand on it, is built in the same way, while the old ones are read. Its definition
//! goes to the log when it is ready, and the moment that it comes out is the one at which all of them change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use dataflow::Tick;
use parking_lot::{Mutex, RwLock};
use sql::{RelationId, SqlError, SqlState, ViewDef};
use storage::log::{LogReader, Offset};
use tokio::sync::{oneshot, watch};

use super::Driver;
use super::backfill::{Backfill, Past};
use crate::api::Batching;
use crate::definition::Install;
use crate::plan::StreamPlan;
use crate::record::Definition;
use crate::writer::{Request, tick_after};

/// Times that the thread catches up with what came meanwhile; then the engine waits for the rest, which does not get less.
const ROUNDS_MAX: usize = 12;
/// Rows of a step, so that a step is soon over when a tick wants the processor, and its batches are small.
const STEP_ROWS: usize = 64 * 1024;

/// A view that is being built, as others see it.
pub struct Job {
    pub view: String,
    /// There is one to be read meanwhile.
    pub replaces: bool,
    pub started: Instant,
    cancelled: AtomicBool,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    rows: AtomicU64,
    failed: Mutex<Option<SqlError>>,
}

/// How far a job is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Of the bytes that are to be read, 0 to 1.
    pub share: f64,
    pub rows: u64,
    pub rows_per_second: f64,
    /// `None` before anything was done.
    pub left: Option<Duration>,
    pub failed: Option<String>,
}

impl Job {
    pub fn new(view: &str, replaces: bool) -> Job {
        Job {
            view: view.to_string(),
            replaces,
            started: Instant::now(),
            cancelled: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failed: Mutex::new(None),
        }
    }

    /// Ends it soon. A view that was to be created stays as one that can't be read, until it is dropped.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// What other definitions are told while a view is being replaced.
    pub fn not_replaced(&self) -> SqlError {
        let message =
            format!("materialized view \"{}\" is being replaced; definitions wait for it", self.view);
        SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
            .with_hint("SHOW JOBS says how long it takes; CANCEL JOB stops it")
    }

    pub fn progress(&self) -> Progress {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-6);
        let (all, done) = (self.bytes.load(Ordering::Relaxed), self.bytes_done.load(Ordering::Relaxed));
        let share = if all == 0 { 1.0 } else { (done as f64 / all as f64).min(1.0) };
        let rows = self.rows.load(Ordering::Relaxed);
        Progress {
            share,
            rows,
            rows_per_second: rows as f64 / seconds,
            left: (share > 0.0).then(|| Duration::from_secs_f64(seconds * (1.0 - share) / share)),
            failed: self.failed.lock().as_ref().map(|error| error.message.clone()),
        }
    }

    /// What readers of the view are told.
    pub fn not_ready(&self) -> SqlError {
        let state = SqlState::ObjectNotInPrerequisiteState;
        if let Some(error) = &*self.failed.lock() {
            return SqlError::new(
                state,
                format!("materialized view \"{}\" could not be built: {}", self.view, error.message),
            )
            .with_hint("drop it");
        }
        let percent = (self.progress().share * 100.0).floor();
        SqlError::new(state, format!("materialized view \"{}\" is being built: {percent} %", self.view))
            .with_hint("SHOW JOBS says how long it takes; DROP MATERIALIZED VIEW stops it")
    }
}

/// All views that are being built, and those that could not be.
pub struct Jobs {
    running: RwLock<BTreeMap<RelationId, Arc<Job>>>,
    changed: watch::Sender<u64>,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs { running: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl Jobs {
    pub fn of(&self, view: RelationId) -> Option<Arc<Job>> {
        self.running.read().get(&view).cloned()
    }

    /// The job of a view that can't be read yet.
    pub fn creating(&self, view: RelationId) -> Option<Arc<Job>> {
        self.of(view).filter(|job| !job.replaces)
    }

    pub fn replacing(&self) -> Option<Arc<Job>> {
        self.running.read().values().find(|job| job.replaces).cloned()
    }

    pub fn all(&self) -> Vec<(RelationId, Arc<Job>)> {
        self.running.read().iter().map(|(id, job)| (*id, Arc::clone(job))).collect()
    }

    /// Returns when the view is ready to be read, or dropped.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn wait(&self, view: RelationId) -> Result<(), SqlError> {
        let mut changed = self.changed.subscribe();
        loop {
            let Some(job) = self.of(view) else { return Ok(()) };
            if job.failed.lock().is_some() {
                return Err(job.not_ready());
            }
            if changed.changed().await.is_err() {
                return Err(SqlError::new(SqlState::AdminShutdown, "the database is shutting down"));
            }
        }
    }

    pub fn add(&self, view: RelationId, job: Arc<Job>) {
        self.running.write().insert(view, job);
        self.changed.send_modify(|times| *times += 1);
    }

    fn remove(&self, view: RelationId) {
        if self.running.write().remove(&view).is_some() {
            self.changed.send_modify(|times| *times += 1);
        }
    }

    fn fail(&self, job: &Job, error: SqlError) {
        *job.failed.lock() = Some(error);
        self.changed.send_modify(|times| *times += 1);
    }
}

type Portion = (Backfill, Vec<(Offset, Past)>);
pub type Views = Vec<(Arc<ViewDef>, Arc<StreamPlan>)>;
type Answer = oneshot::Sender<Result<Tick, SqlError>>;

/// A materialized view that is to take the place of the one that is there, with those that stand on it.
pub struct Replace {
    pub definition: Definition,
    pub views: Views,
    pub job: Arc<Job>,
    pub reply: Answer,
}

/// The engine's end of views that are being built.
pub(super) struct BuildThread {
    /// Those that are read first; one, unless a view is replaced.
    pub views: Views,
    tables: Vec<RelationId>,
    job: Arc<Job>,
    rounds: usize,
    portions: Option<Sender<Portion>>,
    built: Receiver<Result<Backfill, SqlError>>,
    thread: Option<std::thread::JoinHandle<()>>,
    replaces: Option<Cutting>,
}

/// A replacement on its way.
struct Cutting {
    definition: Definition,
    reply: Option<Answer>,
    /// It has almost all records, and takes its place when its definition comes out of the log.
    ready: Option<Backfill>,
    /// Whether the log takes the definition.
    logged: Option<oneshot::Receiver<Result<Tick, SqlError>>>,
}

impl BuildThread {
    pub fn replaces(&self) -> bool {
        self.replaces.is_some()
    }

    /// Ends the thread after the record that it is at. It may take a while, and nobody has to wait for it.
    fn stop(&mut self) -> Option<std::thread::JoinHandle<()>> {
        self.job.cancelled.store(true, Ordering::Relaxed);
        self.portions = None;
        self.thread.take()
    }
}

impl Driver {
    pub(super) fn is_building(&self) -> bool {
        self.building.values().any(|building| building.thread.is_some())
    }

    /// Adds a materialized view: at once where little is to be read, else by a thread.
    pub(super) fn add_view(
        &mut self,
        view: Arc<ViewDef>,
        plan: Arc<StreamPlan>,
        until: Offset,
    ) -> Result<(), SqlError> {
        // Also without a past: nodes that the view shares with others may have given rows that need no input, the one
        // group of an aggregate without keys or constant rows.
        let views = vec![(Arc::clone(&view), plan)];
        let records = self.records_of(&self.tables_of(&views), Offset(0)..until);
        if bytes_of(&records) <= self.batching.at_once_bytes {
            self.build_at_once(&views, records)?;
            // It may have begun anew.
            self.shared.jobs.remove(view.id);
            return Ok(());
        }
        let job = Arc::new(Job::new(&view.name, false));
        let building = self.begin_building(views, records, Arc::clone(&job))?;
        self.building.insert(view.id, building);
        self.shared.jobs.add(view.id, job);
        self.catalog.views.insert(view.name.clone(), view);
        Ok(())
    }

    fn build_at_once(&mut self, views: &Views, records: Vec<(Offset, Past)>) -> Result<(), SqlError> {
        let mut backfill = self.begin_backfill(views, self.batching)?;
        backfill.take_all(records, &self.reader)?;
        self.adopt(backfill)
    }

    /// Puts views in the place of those that are there, at once: their definition is out of the log.
    pub(super) fn replace_views(&mut self, views: &Views, until: Offset) -> Result<(), SqlError> {
        let records = self.records_of(&self.tables_of(views), Offset(0)..until);
        self.build_at_once(views, records)
    }

    /// Begins to build what is to take a view's place. The answer comes when it has.
    pub(super) fn begin_replacing(&mut self, replace: Replace) {
        let Replace { definition, views, job, reply } = replace;
        let Some(id) = views.first().map(|(view, _)| view.id) else { return };
        let records = self.records_of(&self.tables_of(&views), Offset(0)..self.next);
        match self.begin_building(views, records, job) {
            Ok(mut building) => {
                building.replaces =
                    Some(Cutting { definition, reply: Some(reply), ready: None, logged: None });
                self.building.insert(id, building);
            }
            Err(error) => {
                self.shared.jobs.remove(id);
                // Nobody may be waiting any more.
                let _ = reply.send(Err(error));
            }
        }
    }

    fn begin_building(
        &self,
        views: Views,
        records: Vec<(Offset, Past)>,
        job: Arc<Job>,
    ) -> Result<BuildThread, SqlError> {
        job.bytes.store(bytes_of(&records), Ordering::Relaxed);
        let batching = Batching { step_rows: self.batching.step_rows.min(STEP_ROWS), ..self.batching };
        let backfill = self.begin_backfill(&views, batching)?;
        let (portions, to_build) = channel::<Portion>();
        let (done, built) = channel();
        let reader = self.reader.clone();
        let watched = Arc::clone(&job);
        let thread = std::thread::Builder::new().name("build-view".into()).spawn(move || {
            while let Ok((backfill, records)) = to_build.recv() {
                if done.send(build(backfill, records, &reader, &watched)).is_err() {
                    return;
                }
            }
        });
        let thread = thread.map_err(|e| SqlError::internal(format!("a thread can't be started: {e}")))?;
        let tables = backfill.tables.clone();
        portions
            .send((backfill, records))
            .map_err(|_| SqlError::internal("the thread waits for its portion"))?;
        let portions = Some(portions);
        let thread = Some(thread);
        Ok(BuildThread { views, tables, job, rounds: 0, portions, built, thread, replaces: None })
    }

    /// Looks after the views that are being built: gives them what came meanwhile, takes those that caught up.
    pub(super) fn take_built(&mut self) {
        let ids: Vec<RelationId> = self.building.keys().copied().collect();
        for id in ids {
            if let Err(error) = self.go_on_with(id) {
                self.give_up(id, error);
            }
        }
    }

    fn go_on_with(&mut self, id: RelationId) -> Result<(), SqlError> {
        let Some(building) = self.building.get_mut(&id) else { return Ok(()) };
        if building.thread.is_none() {
            // It failed before.
            return Ok(());
        }
        // What the log may hold by now can't be called off any more.
        if let Some(logged) = building.replaces.as_mut().and_then(|cutting| cutting.logged.as_mut()) {
            return match logged.try_recv() {
                Ok(Err(refused)) => Err(refused),
                _ => Ok(()),
            };
        }
        match building.built.try_recv() {
            Ok(built) => self.go_on(id, built?),
            Err(TryRecvError::Disconnected) => Err(SqlError::internal("the thread that built it stopped")),
            Err(TryRecvError::Empty) if building.job.cancelled.load(Ordering::Relaxed) => Err(cancelled()),
            Err(TryRecvError::Empty) => Ok(()),
        }
    }

    fn give_up(&mut self, id: RelationId, error: SqlError) {
        tracing::error!(view = id.0, %error, "a view can't be built");
        let Some(building) = self.building.get_mut(&id) else { return };
        building.stop();
        let Some(cutting) = &mut building.replaces else {
            // Its name stays taken, and says why.
            self.shared.jobs.fail(&building.job, error);
            return;
        };
        if let Some(reply) = cutting.reply.take() {
            // Nobody may be waiting any more.
            let _ = reply.send(Err(error));
        }
        self.building.remove(&id);
        self.shared.jobs.remove(id);
    }

    fn go_on(&mut self, id: RelationId, mut backfill: Backfill) -> Result<(), SqlError> {
        let records = self.records_of(&backfill.tables, backfill.through..self.next);
        let bytes = bytes_of(&records);
        let building = self.building.get_mut(&id).ok_or_else(|| SqlError::internal("it is being built"))?;
        if building.job.cancelled.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        building.rounds += 1;
        building.job.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > self.batching.at_once_bytes && building.rounds < ROUNDS_MAX {
            if let Some(portions) = &building.portions {
                portions
                    .send((backfill, records))
                    .map_err(|_| SqlError::internal("the thread that built it stopped"))?;
            }
            return Ok(());
        }
        if let Some(cutting) = &mut building.replaces {
            let (reply, logged) = oneshot::channel();
            let reads_clock = backfill.views.iter().any(|built| built.plan.reads_clock());
            cutting.ready = Some(backfill);
            cutting.logged = Some(logged);
            let definition = cutting.definition.clone();
            let install = Install::CutOver { view: id, reads_clock };
            let requests = self.rejects.as_ref();
            return match requests.map(|r| r.send(Request::Definition { definition, install, reply })) {
                Some(Ok(())) => Ok(()),
                _ => Err(SqlError::new(SqlState::AdminShutdown, "the database is shutting down")),
            };
        }
        backfill.take_all(records, &self.reader)?;
        // Relations may have been renamed since.
        for (built, (view, plan)) in backfill.views.iter_mut().zip(&building.views) {
            (built.view, built.plan) = (Arc::clone(view), Arc::clone(plan));
        }
        let seconds = building.job.started.elapsed().as_secs_f64();
        tracing::info!(view = building.job.view, rows = backfill.rows, seconds, "built");
        self.adopt(backfill)?;
        self.end_building(id);
        self.share_catalog();
        Ok(())
    }

    /// The definition of a view that was replaced is out of the log: this is the moment.
    pub(super) fn cut_over(&mut self, id: RelationId, offset: Offset) -> Result<(), SqlError> {
        let building = self.building.get_mut(&id);
        let cutting = building.and_then(|building| building.replaces.as_mut());
        let mut backfill = cutting
            .and_then(|cutting| cutting.ready.take())
            .ok_or_else(|| SqlError::internal("what takes a view's place is ready"))?;
        let records = self.records_of(&backfill.tables, backfill.through..offset);
        backfill.take_all(records, &self.reader)?;
        self.adopt(backfill)?;
        let Some(building) = self.building.get_mut(&id) else { return Ok(()) };
        if let Some(cutting) = &mut building.replaces
            && let Some(reply) = cutting.reply.take()
        {
            // Nobody may be waiting any more.
            let _ = reply.send(Ok(tick_after(offset)));
        }
        self.end_building(id);
        Ok(())
    }

    fn end_building(&mut self, id: RelationId) {
        if let Some(mut building) = self.building.remove(&id) {
            building.portions = None;
        }
        self.refresh_slow_statistics();
        self.shared.jobs.remove(id);
    }

    /// A table has other columns: views that are being built over it begin anew.
    pub(super) fn rebuild_readers_of(&mut self, table: RelationId) {
        let readers = self.building.iter().filter(|(_, building)| building.tables.contains(&table));
        let readers: Vec<RelationId> = readers.map(|(id, _)| *id).collect();
        for id in readers {
            let Some(mut building) = self.building.remove(&id) else { continue };
            building.stop();
            for (view, plan) in building.views {
                if let Err(error) = self.add_view(view, plan, self.next) {
                    tracing::error!(view = id.0, %error, "a view can't be built");
                }
            }
        }
    }

    pub(super) fn forget_building(&mut self, view: RelationId) {
        if let Some(mut building) = self.building.remove(&view) {
            building.stop();
            self.shared.jobs.remove(view);
        }
    }

    pub(super) fn stop_building(&mut self) {
        for (_, mut building) in std::mem::take(&mut self.building) {
            if building.stop().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(view = building.job.view, "the thread that built a view had stopped");
            }
        }
    }
}

fn cancelled() -> SqlError {
    SqlError::new(SqlState::QueryCanceled, "it was called off")
}

/// Bytes of the log that are read for records.
fn bytes_of(records: &[(Offset, Past)]) -> u64 {
    records.iter().map(|(_, past)| past.bytes()).sum()
}

/// Takes the records, unless that was called off.
fn build(
    mut backfill: Backfill,
    records: Vec<(Offset, Past)>,
    reader: &LogReader,
    job: &Job,
) -> Result<Backfill, SqlError> {
    for (offset, past) in records {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        backfill.take(offset, past, reader)?;
        job.bytes_done.fetch_add(past.bytes(), Ordering::Relaxed);
        job.rows.store(backfill.rows, Ordering::Relaxed);
    }
    backfill.step()?;
    Ok(backfill)
}
