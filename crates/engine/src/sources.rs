//! Connectors at work: a thread for each table that has one.
//!
//! ```text
//!   poll -> constraints -> encode ---------------------\
//!                    wait until the record before is durable, and for room in the backlog
//!                                                       \-> { rows, position } to the log's writer
//! ```
//!
//! While a record is being synced the next one is prepared, but it is handed in only when the one before is durable:
//! so the last position in the log has everything before it in the log, too, and whoever goes on there loses nothing and
//! counts nothing twice, after a full disk as after a crash.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use dataflow::{Connectors, Poll, SourceError, SourceRows, SourceSpec};
use parking_lot::{Condvar, Mutex};
use sql::{RelationId, SqlError, SqlState, TableDef};
use tokio::sync::oneshot;

use crate::api::{SourceState, SourceStatus};
use crate::constraints::Constraints;
use crate::database::{BACKLOG_ROWS_MAX, now_us};
use crate::record::{Part, RowsEntry, encode_part};
use crate::system::rejected_part;
use crate::writer::{Committed, LogFacts, Request, RowsRequest};

/// Pauses between attempts; each is twice as long as the one before.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often a reader that waits for room looks again.
const BACKLOG_LOOK: Duration = Duration::from_millis(5);
const POSITION_BYTES_MAX: usize = 1 << 20;

/// All connectors of a database.
pub struct Sources {
    pub connectors: Option<Arc<dyn Connectors>>,
    /// Where the log says that they are to go on; taken when they start.
    positions: HashMap<RelationId, String>,
    running: BTreeMap<String, Running>,
}

/// A connector's thread.
pub struct Running {
    stop: Arc<Stop>,
    status: Arc<Mutex<SourceStatus>>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Waits for the thread's end. Blocking.
    pub fn join(self) {
        self.stop.set();
        if self.thread.join().is_err() {
            tracing::error!("the thread of a source had stopped");
        }
    }
}

impl Sources {
    pub fn new(positions: HashMap<RelationId, String>) -> Sources {
        Sources { connectors: None, positions, running: BTreeMap::new() }
    }

    /// Checks what CREATE says about a connector.
    ///
    /// # Errors
    /// `InvalidParameterValue` for options, `InvalidDefinition` for the rest, with the position of what is at fault.
    pub fn check(&self, table: &TableDef) -> Result<(), SqlError> {
        let Some(connectors) = &self.connectors else {
            return Err(SqlError::unsupported("connectors are not available in this program")
                .with_hint("run the statement in a server: shopstream serve"));
        };
        let spec = spec(table);
        connectors.check(&spec).map_err(|error| definition_error(table, &error))
    }

    /// Starts a table's connector behind the last position that the log holds of it.
    pub fn start(
        &mut self,
        constraints: Arc<Constraints>,
        requests: Sender<Request>,
        facts: Arc<LogFacts>,
    ) -> Result<(), SqlError> {
        let table = constraints.table();
        let Some(connectors) = self.connectors.clone() else { return Ok(()) };
        let (name, spec, durable) = (table.name.clone(), spec(table), self.positions.remove(&table.id));
        let status = Arc::new(Mutex::new(SourceStatus {
            connector: spec.connector.clone(),
            state: SourceState::Running,
            rows: 0,
            position: durable.clone(),
            error: None,
        }));
        let stop = Arc::new(Stop::default());
        let reader = Reader {
            connectors,
            spec,
            constraints,
            requests,
            facts,
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
            durable,
            sent: None,
        };
        let thread =
            std::thread::Builder::new().name(format!("source-{name}")).spawn(move || reader.run()).map_err(
                |e| SqlError::internal(format!("thread of source \"{name}\" can't be started: {e}")),
            )?;
        self.running.insert(name, Running { stop, status, thread });
        Ok(())
    }

    pub fn take(&mut self, table: &str) -> Option<Running> {
        self.running.remove(table)
    }

    pub fn statuses(&self) -> BTreeMap<String, SourceStatus> {
        self.running.iter().map(|(name, running)| (name.clone(), running.status.lock().clone())).collect()
    }

    /// Asks all to stop, then waits for each. Blocking.
    pub fn stop_all(&mut self) {
        self.running.values().for_each(|running| running.stop.set());
        while let Some((_, running)) = self.running.pop_first() {
            running.join();
        }
    }
}

fn spec(table: &TableDef) -> SourceSpec {
    let connector = table.connector.as_ref().expect("only tables with a connector come here");
    SourceSpec {
        relation: table.name.clone(),
        connector: connector.name.clone(),
        options: connector.options.clone(),
        format: connector.format.clone(),
        schema: table.input_schema(),
        optional: table
            .columns
            .iter()
            .filter(|c| c.generated.is_none())
            .map(|c| c.default.is_some())
            .collect(),
    }
}

/// A connector's complaint as an error of the statement, at the option that it is about.
fn definition_error(table: &TableDef, error: &SourceError) -> SqlError {
    let state = match error.option {
        Some(_) => SqlState::InvalidParameterValue,
        None => SqlState::InvalidDefinition,
    };
    let mut answer = SqlError::new(state, format!("source \"{}\": {}", table.name, error.message));
    answer.hint.clone_from(&error.hint);
    let lower = table.sql.to_ascii_lowercase();
    let place = error.option.as_deref().and_then(|option| lower.rfind(option));
    let byte = place.or_else(|| lower.rfind("connector")).unwrap_or(0);
    answer.at(table.sql[..byte].chars().count() + 1)
}

/// Set once; wakes whoever waits.
#[derive(Default)]
struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.set.lock() = true;
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.set.lock()
    }

    /// Waits, unless it is set before.
    fn wait(&self, time: Duration) {
        let mut set = self.set.lock();
        if !*set && !time.is_zero() {
            self.changed.wait_for(&mut set, time);
        }
    }
}

struct Reader {
    connectors: Arc<dyn Connectors>,
    spec: SourceSpec,
    constraints: Arc<Constraints>,
    requests: Sender<Request>,
    facts: Arc<LogFacts>,
    status: Arc<Mutex<SourceStatus>>,
    stop: Arc<Stop>,
    /// Position of the last rows that are durable.
    durable: Option<String>,
    /// What was handed to the log and not yet answered.
    sent: Option<Sent>,
}

/// A record on its way to the log.
struct Sent {
    answer: oneshot::Receiver<Result<Committed, SqlError>>,
    position: String,
}

/// Why reading ended.
enum Ended {
    Finished,
    Stopped,
    Failed(SourceError),
}

impl Reader {
    fn run(mut self) {
        let mut pause = RETRY_FIRST;
        while !self.stop.is_set() {
            let before = self.durable.clone();
            let ended = catch_unwind(AssertUnwindSafe(|| self.read()))
                .unwrap_or_else(|_| Ended::Failed(SourceError::permanent("the connector panicked")));
            // Whatever happened, what is under way is known to be durable or not before anybody reads on.
            let ended = match (self.settle(), ended) {
                (Err(error), Ended::Finished) => Ended::Failed(error),
                (_, ended) => ended,
            };
            match ended {
                Ended::Stopped => return,
                Ended::Finished => return self.status.lock().state = SourceState::Finished,
                Ended::Failed(error) => {
                    tracing::warn!(source = self.spec.relation, %error, retry = error.retry, "a source failed");
                    let mut status = self.status.lock();
                    status.error = Some(error.to_string());
                    if !error.retry {
                        return status.state = SourceState::Failed;
                    }
                    status.state = SourceState::Retrying;
                }
            }
            if self.durable != before {
                pause = RETRY_FIRST;
            }
            self.stop.wait(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// From the last durable position on, until there is nothing more or something goes wrong.
    fn read(&mut self) -> Ended {
        match self.read_on() {
            Ok(ended) => ended,
            Err(error) => Ended::Failed(error),
        }
    }

    fn read_on(&mut self) -> Result<Ended, SourceError> {
        let mut source = self.connectors.open(&self.spec, self.durable.as_deref())?;
        loop {
            if self.stop.is_set() {
                return Ok(Ended::Stopped);
            }
            match source.poll()? {
                Poll::Rows(rows) => {
                    let position = rows.position.clone();
                    let Some(mut request) = self.prepare(rows)? else { continue };
                    self.settle()?;
                    if !self.wait_for_room() {
                        return Ok(Ended::Stopped);
                    }
                    let (reply, answer) = oneshot::channel();
                    request.reply = Some(reply);
                    if self.requests.send(Request::Rows(Box::new(request))).is_err() {
                        return Ok(Ended::Stopped);
                    }
                    self.sent = Some(Sent { answer, position });
                }
                Poll::Wait(time) => {
                    self.settle()?;
                    self.stop.wait(time);
                }
                Poll::End => {
                    self.settle()?;
                    return Ok(Ended::Finished);
                }
            }
        }
    }

    /// The record of some rows; `None` when there is nothing to write.
    fn prepare(&self, from: SourceRows) -> Result<Option<RowsRequest>, SourceError> {
        let table = self.constraints.table();
        let SourceRows { rows, body, position } = from;
        if position.len() > POSITION_BYTES_MAX {
            let length = position.len();
            return Err(SourceError::permanent(format!("a position of {length} bytes is too long")));
        }
        let arrival_us = now_us();
        let internal = |e: SqlError| SourceError::permanent(e.to_string());
        let (stored, rejected) = self.constraints.apply(rows, arrival_us, &body).map_err(internal)?;
        let accepted = stored.num_rows() as u64;
        let mut parts = Vec::with_capacity(2);
        if accepted > 0 {
            parts.push(Part { relation: table.id, rows: stored, weights: None });
        }
        if !rejected.is_empty() {
            let part = rejected_part(&table.name, &self.spec.connector, arrival_us, &rejected);
            parts.push(part.map_err(internal)?);
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let encoded = parts.iter().map(encode_part).collect();
        let entry = RowsEntry {
            table: table.id,
            arrival_us,
            request: None,
            accepted,
            duplicates: 0,
            position: Some(position),
            parts,
        };
        Ok(Some(RowsRequest { entry, encoded, reply: None }))
    }

    /// Waits until what was sent is durable.
    fn settle(&mut self) -> Result<(), SourceError> {
        let Some(Sent { answer, position }) = self.sent.take() else { return Ok(()) };
        match answer.blocking_recv() {
            Ok(Ok(committed)) => {
                let mut status = self.status.lock();
                status.state = SourceState::Running;
                status.rows += committed.accepted;
                status.position = Some(position.clone());
                drop(status);
                self.durable = Some(position);
                Ok(())
            }
            // The disk may have room again, and a broken one stays broken: trying is harmless.
            Ok(Err(error)) => Err(SourceError::transient(error.to_string())),
            Err(_) => Err(SourceError::transient("the database is shutting down")),
        }
    }

    /// False when it was told to stop meanwhile.
    fn wait_for_room(&self) -> bool {
        while self.facts.backlog_rows.load(Ordering::Relaxed) > BACKLOG_ROWS_MAX {
            if self.stop.is_set() {
                return false;
            }
            self.stop.wait(BACKLOG_LOOK);
        }
        true
    }
}
