//! What serving sees of the database. Everything here is cheap to call from async code unless it says
//! otherwise; futures end when their data is durable, visible or cancelled.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use dataflow::{RejectedRow, Tick, ZSet};
use futures::Stream;
use sql::SqlError;

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: std::path::PathBuf,
    /// Shards of keyed state; 0 means one per core.
    pub workers: usize,
    /// Memory for queries, in bytes.
    pub memory_bytes: usize,
    pub batching: Batching,
    /// How often the engine's state is saved while records come; zero: only when asked.
    pub checkpoint_interval: Duration,
}

/// How much goes through the operators at once. No result depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// A step that has so many rows takes no further record.
    pub step_rows: usize,
    /// Rows that an operator gives at once; of more, parts go through the operators above it one after another.
    pub part_rows: usize,
    /// What a new view takes between two ticks, in bytes of the log: some ten milliseconds. The rest is taken before,
    /// while ticks go on.
    pub at_once_bytes: u64,
    /// Nodes whose state is saved between two steps, however fast that is.
    pub save_nodes: usize,
}

impl Default for Batching {
    fn default() -> Batching {
        Batching {
            step_rows: 256 * 1024,
            part_rows: 256 * 1024,
            at_once_bytes: 1 << 20,
            save_nodes: usize::MAX,
        }
    }
}

impl Options {
    /// What is usual, with as many shards as there are cores.
    pub fn new(data_dir: impl Into<std::path::PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            workers: 0,
            memory_bytes: 1 << 30,
            batching: Batching::default(),
            checkpoint_interval: Duration::from_secs(10),
        }
    }
}

/// What the sender of rows says besides the rows.
#[derive(Clone, Debug, Default)]
pub struct IngestMeta {
    /// A repeated request with the same key and table gets the first answer and is not counted again.
    pub idempotency_key: Option<String>,
    /// Where the rows came from, for `rejected_rows`: "http", "copy", "sql", a file name.
    pub origin: String,
    /// The body, of which rejected rows are cut (`DecodedRows::raw_ranges`).
    pub body: Vec<u8>,
}

/// The answer to accepted rows: they are on stable storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub accepted: u64,
    /// Rows not counted because their dedup key was seen before.
    pub duplicates: u64,
    pub rejected: Vec<RejectedRow>,
    /// Views show these rows at this tick and later; give it as `wait_tick`.
    pub tick: Tick,
    /// The request's idempotency key was seen before: this is the answer given then.
    pub replayed: bool,
}

pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// The answer to one statement.
pub enum Outcome {
    /// A result set. Dropping the stream stops the query.
    Rows { schema: SchemaRef, stream: BatchStream, tag: RowsTag },
    /// Done; the tag as PostgreSQL prints it: `CREATE TABLE`, `INSERT 0 3`.
    Command { tag: String, notices: Vec<Notice> },
    /// The client is to send rows now; decoded, they go to [`crate::Database::ingest`].
    CopyIn { copy: CopyTarget },
}

/// Something the user should know although the statement succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub message: String,
    pub hint: Option<String>,
}

/// How the command tag of a result set reads: `SELECT n`, `INSERT 0 n` (RETURNING), `SHOW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsTag {
    Select,
    Insert,
    Update,
    Delete,
    Show,
    Explain,
}

#[derive(Clone, Debug)]
pub struct CopyTarget {
    pub table: String,
    /// Columns in the order they will be sent.
    pub columns: Vec<String>,
    pub format: sql::statement::CopyFormat,
    pub header: bool,
    pub delimiter: u8,
    pub null: String,
}

/// A parsed and bound statement.
#[derive(Clone, Debug)]
pub struct Description {
    /// Types of `$1`, `$2`, ..., with the SQL type's name where Arrow's does not say it.
    pub parameters: Vec<FieldRef>,
    /// Columns of the result, `None` for a statement without rows.
    pub columns: Option<SchemaRef>,
}

/// One published change of a relation; all changes of a tick come together.
#[derive(Clone, Debug)]
pub struct Change {
    pub tick: Tick,
    pub change: ZSet,
}

/// How much of the log a start would read, and what that costs.
#[derive(Clone, Debug, Default)]
pub struct CheckpointStatus {
    /// The record from which on it would be read; 0 without a checkpoint.
    pub from: u64,
    /// Since this start.
    pub written: u64,
    pub failed: u64,
    /// Bytes of all states that the last one refers to.
    pub bytes: u64,
    /// From the first state that was saved to the last byte on stable storage.
    pub last_duration: Duration,
}

/// Everything `/metrics` and the live page show of the engine.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub tick: Tick,
    pub ready: bool,
    /// Set after an fsync failure or detected damage: writes are refused, reads go on.
    pub writes_refused: Option<String>,
    pub log_bytes: u64,
    pub log_records: u64,
    /// Durable records not yet visible.
    pub backlog_records: u64,
    pub last_tick_duration: Duration,
    pub tables: BTreeMap<String, TableStatus>,
    pub views: BTreeMap<String, ViewStatus>,
    /// Connectors, by the table or source that they fill.
    pub sources: BTreeMap<String, SourceStatus>,
    pub rejected_rows: u64,
    pub late_rows: u64,
    pub fsyncs: u64,
    pub checkpoints: CheckpointStatus,
}

#[derive(Clone, Debug, Default)]
pub struct TableStatus {
    pub rows_accepted: u64,
    pub rows_rejected: u64,
    pub rows_duplicate: u64,
    pub rows_late: u64,
    pub bytes: u64,
    /// Microseconds since 1970; `None` without a WATERMARK or before the first row.
    pub watermark_us: Option<i64>,
    /// Newest event time seen.
    pub max_event_us: Option<i64>,
    pub idle: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ViewStatus {
    pub rows: u64,
    pub bytes: u64,
    pub state_rows: u64,
    pub state_bytes: u64,
    /// Error that suspended the view.
    pub suspended: Option<String>,
    pub watermark_us: Option<i64>,
    pub busy: Duration,
}

/// What a connector is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceStatus {
    pub connector: String,
    pub state: SourceState,
    /// Rows accepted since the server started.
    pub rows: u64,
    /// Where it would go on: the position of the last durable rows.
    pub position: Option<String>,
    /// The last error; it stays to be read when the source runs again.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    Running,
    /// A bounded source was read to its end.
    Finished,
    /// Tried again after a pause.
    Retrying,
    /// Needs a person: the definition or what it points to is wrong.
    Failed,
}

impl SourceState {
    pub fn word(self) -> &'static str {
        match self {
            SourceState::Running => "running",
            SourceState::Finished => "finished",
            SourceState::Retrying => "retrying",
            SourceState::Failed => "failed",
        }
    }
}

/// A relation as REST and SSE need it.
#[derive(Clone, Debug)]
pub struct RelationInfo {
    pub name: String,
    pub kind: RelationKind,
    pub schema: SchemaRef,
    /// Columns that identify a row, empty if none are known.
    pub key: Vec<usize>,
    pub sql: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    View,
    MaterializedView,
    /// `rejected_rows`, `late_rows`.
    System,
}
