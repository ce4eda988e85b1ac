//! The one thread that writes the log.
//!
//! ```text
//!  requests --> dedup --> append to the segment --> one write + fdatasync for all that waited --> answers
//!                                                                                            \--> engine
//! ```
//!
//! While a sync runs, the next requests gather: the group commit needs no timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use arrow::array::RecordBatch;
use dataflow::Tick;
use parking_lot::Mutex;
use sql::{RelationId, SqlError, SqlState};
use storage::log::{Location, Log, LogError, Offset};
use tokio::sync::oneshot;

use crate::checkpoint::Save;
use crate::dedup::keep;
use crate::definition::Install;
use crate::driver::{Measurements, Replace};
use crate::record::{
    Definition, EncodedPart, Entry, KIND_CLOCK, KIND_DEFINITION, KIND_ROWS, RowsEntry, encode_part,
    encode_rows,
};
use crate::seen::Seen;

/// What the log thread is asked to do.
pub enum Request {
    Rows(Box<RowsRequest>),
    Definition {
        definition: Definition,
        install: Install,
        reply: oneshot::Sender<Result<Tick, SqlError>>,
    },
    /// Answers with the tick that shows everything that was handed in before.
    Barrier(oneshot::Sender<Result<Tick, SqlError>>),
    /// For the engine: it asks for the definition to be logged when what takes a view's place is ready.
    Replace(Box<Replace>),
    /// The saver wants to know who was seen before the record that comes next.
    SaveSeen {
        of: u64,
        saver: Sender<Save>,
    },
    /// For the engine: it answers when a checkpoint with everything that was handed in before is durable.
    Checkpoint(oneshot::Sender<Result<(), SqlError>>),
    /// For the engine, behind everything that was handed in before.
    Measure(oneshot::Sender<Measurements>),
    Shutdown,
}

pub struct RowsRequest {
    /// Part 0 holds the table's rows; it may be missing when all rows were rejected.
    pub entry: RowsEntry,
    pub encoded: Vec<EncodedPart>,
    pub reply: Option<oneshot::Sender<Result<Committed, SqlError>>>,
}

/// The rows are durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    pub tick: Tick,
    pub accepted: u64,
    pub duplicates: u64,
    pub replayed: bool,
}

/// What the engine's thread is to do.
pub enum Work {
    Record(Box<Logged>),
    Replace(Box<Replace>),
    Checkpoint(oneshot::Sender<Result<(), SqlError>>),
    /// Give the figures of every node of every running view.
    Measure(oneshot::Sender<Measurements>),
}

/// A durable record on its way to the engine.
pub struct Logged {
    pub offset: Offset,
    pub location: Location,
    pub entry: Entry,
    pub install: Option<Install>,
}

/// Facts about the log that others read.
pub struct LogFacts {
    pub bytes: AtomicU64,
    pub records: AtomicU64,
    pub fsyncs: AtomicU64,
    /// Rows that are durable but not yet visible.
    pub backlog_rows: AtomicU64,
    pub refused: Mutex<Option<String>>,
    /// Set by the engine while passing time could close windows.
    pub needs_clock: AtomicBool,
    /// When a row of a view that compares with now() comes or goes; `i64::MAX` when none will.
    pub clock_due_us: AtomicI64,
    /// The clock at the last tick; `i64::MIN` before the first record.
    pub clock_us: AtomicI64,
}

impl Default for LogFacts {
    fn default() -> Self {
        LogFacts {
            bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            fsyncs: AtomicU64::new(0),
            backlog_rows: AtomicU64::new(0),
            refused: Mutex::new(None),
            needs_clock: AtomicBool::new(false),
            clock_due_us: AtomicI64::new(i64::MAX),
            clock_us: AtomicI64::new(i64::MIN),
        }
    }
}

/// Most bytes of one group commit.
const GROUP_BYTES_MAX: usize = 64 << 20;
/// How often a clock record is written while sources are quiet and windows are open.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Writer {
    pub log: Log,
    pub seen: Seen,
    pub requests: Receiver<Request>,
    pub engine: Sender<Work>,
    pub facts: Arc<LogFacts>,
    pub now_us: fn() -> i64,
}

/// Answers that wait for the sync.
enum Pending {
    Rows { reply: Option<oneshot::Sender<Result<Committed, SqlError>>>, committed: Committed },
    Tick(oneshot::Sender<Result<Tick, SqlError>>, Tick),
}

#[derive(Default)]
struct GroupCommit {
    pending: Vec<Pending>,
    logged: Vec<Logged>,
    measure: Vec<oneshot::Sender<Measurements>>,
    save_seen: Vec<(u64, Sender<Save>)>,
    checkpoints: Vec<oneshot::Sender<Result<(), SqlError>>>,
    admitted: Vec<(RelationId, RecordBatch)>,
    bytes: usize,
}

impl Writer {
    /// Runs until shutdown; everything acknowledged is durable then.
    pub fn run(mut self) {
        loop {
            let mut group = GroupCommit::default();
            let mut stop = false;
            match self.requests.recv_timeout(CLOCK_INTERVAL) {
                Ok(request) => stop |= self.take(request, &mut group),
                Err(RecvTimeoutError::Timeout) => self.clock(&mut group),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while !stop && group.bytes < GROUP_BYTES_MAX {
                match self.requests.try_recv() {
                    Ok(request) => stop |= self.take(request, &mut group),
                    Err(_) => break,
                }
            }
            self.commit(group);
            if stop {
                return;
            }
        }
    }

    /// True for a shutdown request.
    fn take(&mut self, request: Request, group: &mut GroupCommit) -> bool {
        match request {
            Request::Shutdown => return true,
            Request::Barrier(reply) => {
                let tick = Tick(self.log.next_offset().0);
                group.pending.push(Pending::Tick(reply, tick));
            }
            Request::Measure(reply) => group.measure.push(reply),
            Request::SaveSeen { of, saver } => group.save_seen.push((of, saver)),
            Request::Checkpoint(reply) => group.checkpoints.push(reply),
            // The engine ends only after this thread.
            Request::Replace(replace) => drop(self.engine.send(Work::Replace(replace))),
            Request::Rows(mut request) => {
                let reply = request.reply.take();
                match self.append_rows(*request, group) {
                    Ok(committed) => group.pending.push(Pending::Rows { reply, committed }),
                    Err(error) => {
                        if let Some(reply) = reply {
                            // The sender may be gone; its rows were not accepted either way.
                            let _ = reply.send(Err(error));
                        }
                    }
                }
            }
            Request::Definition { definition, install, reply } => {
                let reads_clock = match &install {
                    Install::View { plan: Some(plan), .. } => plan.reads_clock(),
                    Install::CutOver { reads_clock, .. } => *reads_clock,
                    _ => false,
                };
                if reads_clock {
                    // What the view shows first is as of now, not as of the last record.
                    let now_us = (self.now_us)();
                    self.append_clock(now_us, group);
                }
                let payload = serde_json::to_vec(&definition).expect("a definition is plain text");
                match self.append(KIND_DEFINITION, definition.id, &payload, group) {
                    Ok((offset, location)) => {
                        if let Install::Table(table) = &install {
                            self.seen.add_table(table);
                        }
                        let entry = Entry::Definition(definition);
                        group.logged.push(Logged { offset, location, entry, install: Some(install) });
                        group.pending.push(Pending::Tick(reply, tick_after(offset)));
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
        }
        false
    }

    /// Writes the time, if passing time changes something, or if the last write failed: then this is the write that
    /// finds out whether there is space again.
    fn clock(&mut self, group: &mut GroupCommit) {
        let now_us = (self.now_us)();
        let due = self.facts.clock_due_us.load(Ordering::Relaxed) <= now_us;
        let failed = self.facts.refused.lock().is_some();
        if due || failed || self.facts.needs_clock.load(Ordering::Relaxed) {
            self.append_clock(now_us, group);
        }
    }

    fn append_clock(&mut self, now_us: i64, group: &mut GroupCommit) {
        if let Ok((offset, location)) = self.append(KIND_CLOCK, 0, &now_us.to_le_bytes(), group) {
            group.logged.push(Logged { offset, location, entry: Entry::Clock(now_us), install: None });
        }
    }

    fn append_rows(&mut self, request: RowsRequest, group: &mut GroupCommit) -> Result<Committed, SqlError> {
        let RowsRequest { mut entry, mut encoded, .. } = request;
        let table = entry.table;
        self.seen.tell_time(entry.arrival_us);
        if let Some(key) = &entry.request
            && let Some(answer) = self.seen.requests.find(table, &key.key)
        {
            if answer.body_crc != key.body_crc {
                return Err(SqlError::new(
                    SqlState::InvalidParameterValue,
                    format!("idempotency key \"{}\" was used before with another body", key.key),
                )
                .with_hint("send each new request with a key of its own"));
            }
            return Ok(Committed {
                tick: answer.tick,
                accepted: answer.accepted,
                duplicates: answer.duplicates,
                replayed: true,
            });
        }
        let internal = |e: dataflow::Error| SqlError::internal(e.to_string());
        if let Some(set) = self.seen.dedup.get_mut(&table)
            && let Some(part) = entry.parts.first_mut().filter(|p| p.relation == table && p.weights.is_none())
        {
            if let Some(fresh) = set.admit(&part.rows, entry.arrival_us).map_err(internal)? {
                let before = part.rows.num_rows() as u64;
                part.rows = keep(&part.rows, &fresh).map_err(internal)?;
                let after = part.rows.num_rows() as u64;
                entry.duplicates += before - after;
                entry.accepted -= before - after;
                if after == 0 {
                    entry.parts.remove(0);
                    encoded.remove(0);
                } else {
                    encoded[0] = encode_part(&entry.parts[0]);
                }
            }
            if let Some(part) = entry.parts.first().filter(|p| p.relation == table) {
                group.admitted.push((table, part.rows.clone()));
            }
        }
        if entry.parts.is_empty() && entry.request.is_none() && entry.position.is_none() {
            // Nothing to keep: every row was there already, as of the last record.
            let tick = Tick(self.log.next_offset().0);
            return Ok(Committed { tick, accepted: 0, duplicates: entry.duplicates, replayed: false });
        }
        let payload = encode_rows(&entry, &encoded);
        let (offset, location) = self.append(KIND_ROWS, table.0, &payload, group)?;
        let tick = tick_after(offset);
        self.seen.remember_request(&entry, tick);
        let committed =
            Committed { tick, accepted: entry.accepted, duplicates: entry.duplicates, replayed: false };
        group.logged.push(Logged { offset, location, entry: Entry::Rows(entry), install: None });
        Ok(committed)
    }

    fn append(
        &mut self,
        kind: u8,
        stream: u32,
        payload: &[u8],
        group: &mut GroupCommit,
    ) -> Result<(Offset, Location), SqlError> {
        let place = self.log.append(kind, stream, payload).map_err(|e| self.refuse(&e))?;
        group.bytes += payload.len();
        Ok(place)
    }

    fn commit(&mut self, mut group: GroupCommit) {
        let measure = std::mem::take(&mut group.measure);
        let save_seen = std::mem::take(&mut group.save_seen);
        let checkpoints = std::mem::take(&mut group.checkpoints);
        let writes = !group.logged.is_empty();
        let outcome = if writes { self.log.commit().map(|_| ()) } else { Ok(()) };
        let error = outcome.err().map(|e| self.refuse(&e));
        self.facts.bytes.store(self.log.bytes(), Ordering::Relaxed);
        self.facts.fsyncs.store(self.log.fsyncs(), Ordering::Relaxed);
        self.facts.records.store(self.log.next_offset().0, Ordering::Relaxed);
        match &error {
            None => {
                for logged in group.logged {
                    if let Entry::Rows(entry) = &logged.entry {
                        let rows: usize = entry.parts.iter().map(|p| p.rows.num_rows()).sum();
                        self.facts.backlog_rows.fetch_add(rows as u64, Ordering::Relaxed);
                        if let Some(position) = &entry.position {
                            self.seen.positions.insert(entry.table, position.clone());
                        }
                    }
                    // The engine ends only after this thread.
                    let _ = self.engine.send(Work::Record(Box::new(logged)));
                }
            }
            Some(error) => {
                tracing::error!(%error, "writes are refused");
                for logged in &group.logged {
                    if let Entry::Rows(RowsEntry { request: Some(request), table, .. }) = &logged.entry {
                        self.seen.requests.forget(*table, &request.key);
                    }
                }
                for (table, rows) in &group.admitted {
                    if let Some(set) = self.seen.dedup.get_mut(table)
                        && let Err(error) = set.forget(rows)
                    {
                        tracing::error!(%error, "a dedup set may refuse rows that were not accepted");
                    }
                }
            }
        }
        for pending in group.pending {
            match (pending, &error) {
                (Pending::Rows { reply: Some(reply), committed }, None) => drop(reply.send(Ok(committed))),
                (Pending::Rows { reply: Some(reply), .. }, Some(error)) => {
                    drop(reply.send(Err(error.clone())))
                }
                (Pending::Rows { reply: None, .. }, _) => {}
                (Pending::Tick(reply, tick), None) => drop(reply.send(Ok(tick))),
                (Pending::Tick(reply, _), Some(error)) => drop(reply.send(Err(error.clone()))),
            }
        }
        for reply in checkpoints {
            // The engine ends only after this thread.
            let _ = self.engine.send(Work::Checkpoint(reply));
        }
        for (of, saver) in save_seen {
            let from = self.log.next_offset();
            // The saver may have ended.
            let _ = saver.send(Save::Seen { of, from, state: self.seen.save() });
        }
        for reply in measure {
            // The engine ends only after this thread.
            let _ = self.engine.send(Work::Measure(reply));
        }
        // A commit of nothing says nothing about the disk.
        if error.is_none() && writes {
            *self.facts.refused.lock() = None;
        }
    }

    /// Remembers why writes fail, and says it as SQL would.
    fn refuse(&self, error: &LogError) -> SqlError {
        let state = match error {
            LogError::DiskFull { .. } => SqlState::DiskFull,
            // Sent again it would be as large.
            LogError::RecordTooLarge { .. } => {
                return SqlError::new(SqlState::ProgramLimitExceeded, error.to_string());
            }
            LogError::CommitTooLarge { .. } => {
                return SqlError::new(SqlState::ConfigurationLimitExceeded, error.to_string());
            }
            _ => SqlState::IoError,
        };
        *self.facts.refused.lock() = Some(error.to_string());
        SqlError::new(state, format!("the log can't be written: {error}"))
    }
}

/// Views that show the record are at this tick.
pub fn tick_after(offset: Offset) -> Tick {
    Tick(offset.0 + 1)
}
