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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sql::{RelationId, SqlError, SqlState, ViewDef};
use storage::log::{LogReader, Offset};
use tokio::sync::watch;

use super::Driver;
use super::backfill::{Backfill, Past};
use crate::api::Batching;
use crate::plan::StreamPlan;

/// Times that the thread catches up with what came meanwhile; then the engine waits for the rest, which does not get less.
const ROUNDS_MAX: usize = 12;
/// Rows of a step, so that a step is soon over when a tick wants the processor, and its batches are small.
const STEP_ROWS: usize = 64 * 1024;

/// A view that is being built, as others see it.
pub struct Job {
    pub view: String,
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

    fn add(&self, view: RelationId, job: Arc<Job>) {
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

/// The engine's end of a view that is being built.
pub(super) struct BuildThread {
    pub view: Arc<ViewDef>,
    pub plan: Arc<StreamPlan>,
    tables: Vec<RelationId>,
    job: Arc<Job>,
    rounds: usize,
    portions: Option<Sender<Portion>>,
    built: Receiver<Result<Backfill, SqlError>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl BuildThread {
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
        let tables = self.source_tables(&plan);
        let records = self.records_of(&tables, Offset(0)..until);
        let bytes: u64 = records.iter().map(|(_, past)| past.bytes()).sum();
        let at_once = bytes <= self.batching.at_once_bytes;
        let batching = match at_once {
            true => self.batching,
            false => Batching { step_rows: self.batching.step_rows.min(STEP_ROWS), ..self.batching },
        };
        let mut backfill = self.begin_backfill(&view, &plan, batching)?;
        if at_once {
            for (offset, past) in records {
                backfill.take(offset, past, &self.reader)?;
            }
            self.adopt(backfill)?;
            // It may have begun anew.
            self.shared.jobs.remove(view.id);
            return Ok(());
        }
        let job = Arc::new(Job {
            view: view.name.clone(),
            started: Instant::now(),
            cancelled: AtomicBool::new(false),
            bytes: AtomicU64::new(bytes),
            bytes_done: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failed: Mutex::new(None),
        });
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
        portions
            .send((backfill, records))
            .map_err(|_| SqlError::internal("the thread waits for its portion"))?;
        self.shared.jobs.add(view.id, Arc::clone(&job));
        self.catalog.views.insert(view.name.clone(), Arc::clone(&view));
        let building = BuildThread {
            view: Arc::clone(&view),
            plan,
            tables,
            job,
            rounds: 0,
            portions: Some(portions),
            built,
            thread: Some(thread),
        };
        self.building.insert(view.id, building);
        Ok(())
    }

    /// Looks after the views that are being built: gives them what came meanwhile, takes those that caught up.
    pub(super) fn take_built(&mut self) {
        let ids: Vec<RelationId> = self.building.keys().copied().collect();
        for id in ids {
            let Some(building) = self.building.get_mut(&id) else { continue };
            let built = match building.built.try_recv() {
                Ok(built) => built,
                Err(TryRecvError::Empty) => continue,
                // It failed before.
                Err(TryRecvError::Disconnected) if building.thread.is_none() => continue,
                Err(TryRecvError::Disconnected) => {
                    Err(SqlError::internal("the thread that built it stopped"))
                }
            };
            if let Err(error) = built.and_then(|backfill| self.go_on(id, backfill)) {
                tracing::error!(view = id.0, %error, "a view can't be built");
                // Its name stays taken, and says why.
                if let Some(building) = self.building.get_mut(&id) {
                    building.stop();
                    self.shared.jobs.fail(&building.job, error);
                }
            }
        }
    }

    fn go_on(&mut self, id: RelationId, mut backfill: Backfill) -> Result<(), SqlError> {
        let records = self.records_of(&backfill.tables, backfill.through..self.next);
        let bytes: u64 = records.iter().map(|(_, past)| past.bytes()).sum();
        let building = self.building.get_mut(&id).ok_or_else(|| SqlError::internal("it is being built"))?;
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
        for (offset, past) in records {
            backfill.take(offset, past, &self.reader)?;
        }
        let seconds = building.job.started.elapsed().as_secs_f64();
        // Relations may have been renamed since.
        backfill.plan = Arc::clone(&building.plan);
        tracing::info!(view = building.view.name, rows = backfill.rows, seconds, "built");
        self.adopt(backfill)?;
        self.building.remove(&id);
        self.share_catalog();
        self.refresh_slow_statistics();
        // Readers may come now.
        self.shared.jobs.remove(id);
        Ok(())
    }

    /// A table has other columns: views that are being built over it begin anew.
    pub(super) fn rebuild_readers_of(&mut self, table: RelationId) {
        let readers = self.building.iter().filter(|(_, building)| building.tables.contains(&table));
        let readers: Vec<RelationId> = readers.map(|(id, _)| *id).collect();
        for id in readers {
            let Some(mut building) = self.building.remove(&id) else { continue };
            building.stop();
            if let Err(error) = self.add_view(building.view, building.plan, self.next) {
                tracing::error!(view = id.0, %error, "a view can't be built");
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
                tracing::error!(view = building.view.name, "the thread that built a view had stopped");
            }
        }
    }
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
            return Err(SqlError::new(SqlState::QueryCanceled, "it was dropped"));
        }
        backfill.take(offset, past, reader)?;
        job.bytes_done.fetch_add(past.bytes(), Ordering::Relaxed);
        job.rows.store(backfill.rows, Ordering::Relaxed);
    }
    backfill.step()?;
    Ok(backfill)
}
