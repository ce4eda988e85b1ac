//! A database in a temporary directory, and its answers as sorted text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::DecodedRows;
use datafusion::scalar::ScalarValue;
use engine::{Batching, Database, IngestMeta, Notice, Options, Outcome, Receipt, Session};
use fastrand::Rng;
use futures::StreamExt;
use sql::{ParsedStatement, SqlError};
use storage::disk::FaultyDisk;

pub struct Harness {
    pub directory: tempfile::TempDir,
    pub workers: usize,
    pub batching: Batching,
    /// Zero: only when asked.
    pub checkpoint_interval: Duration,
    disk: Option<FaultyDisk>,
    database: Option<Arc<Database>>,
    runtime: tokio::runtime::Runtime,
}

impl Harness {
    pub fn new(workers: usize) -> Harness {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut harness = Harness {
            directory: tempfile::tempdir().unwrap(),
            workers,
            batching: Batching::default(),
            checkpoint_interval: Duration::ZERO,
            disk: None,
            database: None,
            runtime,
        };
        harness.restart();
        harness
    }

    /// On a copy of these files.
    pub fn copied(folder: &std::path::Path) -> Harness {
        let mut harness = Harness::new(2);
        harness.database = None;
        for part in ["log", "checkpoints"] {
            let (from, to) = (folder.join(part), harness.directory.path().join(part));
            std::fs::remove_dir_all(&to).unwrap();
            std::fs::create_dir(&to).unwrap();
            for file in std::fs::read_dir(from).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        harness.restart();
        harness
    }

    /// On a disk that fails when it is told to.
    pub fn on(disk: &FaultyDisk) -> Harness {
        let mut harness = Harness::new(1);
        harness.disk = Some(disk.clone());
        harness.restart();
        harness
    }

    /// Cuts the power. What was not synced may be lost, wholly or in part.
    pub fn crash(&mut self) {
        // Threads that still run must not write to the disk of the next life.
        self.disk.iter().for_each(FaultyDisk::power_off);
        self.database = None;
        self.disk.iter().for_each(FaultyDisk::crash);
    }

    /// Restarts with other numbers of workers and rows at once, from a checkpoint or not.
    pub fn restart_at_random(&mut self, rng: &mut Rng) {
        if rng.u8(..3) == 0 && self.database.is_some() {
            self.run("CHECKPOINT");
        }
        // All the time, or when asked.
        self.checkpoint_interval = Duration::from_millis(rng.u64(..2));
        self.workers = rng.usize(1..4);
        let mut rows = || if rng.bool() { rng.usize(1..20) } else { Batching::default().step_rows };
        let (step_rows, part_rows) = (rows(), rows());
        let at_once_bytes = if rng.bool() { 0 } else { Batching::default().at_once_bytes };
        let save_nodes = if rng.bool() { 1 } else { usize::MAX };
        self.batching = Batching { step_rows, part_rows, at_once_bytes, save_nodes };
        self.restart();
    }

    pub fn database(&self) -> &Arc<Database> {
        self.database.as_ref().unwrap()
    }

    /// Closes and opens the data directory.
    pub fn restart(&mut self) {
        self.database = None;
        let options = Options {
            workers: self.workers,
            batching: self.batching,
            checkpoint_interval: self.checkpoint_interval,
            ..Options::new(self.directory.path())
        };
        self.database = Some(match &self.disk {
            Some(disk) => Database::open_on(Arc::new(disk.clone()), options, None).unwrap(),
            None => Database::open(options).unwrap(),
        });
    }

    /// Rows of the last statement, one text per row, sorted; command tags for statements without rows.
    pub fn try_run(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        let session = self.database().session();
        self.runtime.block_on(async {
            let mut out = Vec::new();
            for statement in session.parse(sql)? {
                out = match session.run(&statement, vec![]).await? {
                    Outcome::Command { tag, .. } => vec![tag],
                    Outcome::CopyIn { .. } => vec!["COPY".into()],
                    Outcome::Rows { mut stream, .. } => {
                        let mut rows = Vec::new();
                        while let Some(batch) = stream.next().await {
                            rows.extend(texts(&batch?));
                        }
                        rows.sort();
                        rows
                    }
                };
            }
            Ok(out)
        })
    }

    /// Rows of one statement as cells, unsorted, and whether it gives rows at all.
    pub fn try_cells(&self, sql: &str) -> Result<(Vec<Vec<String>>, bool), SqlError> {
        let session = self.database().session();
        self.runtime.block_on(async {
            let mut out = (Vec::new(), false);
            for statement in session.parse(sql)? {
                out = match session.run(&statement, vec![]).await? {
                    Outcome::Rows { mut stream, .. } => {
                        let mut rows = Vec::new();
                        while let Some(batch) = stream.next().await {
                            rows.extend(cells(&batch?));
                        }
                        (rows, true)
                    }
                    _ => (Vec::new(), false),
                };
            }
            Ok(out)
        })
    }

    /// What a client is told of the statement.
    pub fn describe(&self, sql: &str) -> engine::Description {
        let session = self.database().session();
        let statement = session.parse(sql).unwrap_or_else(|e| panic!("{sql}\n{e:?}")).remove(0);
        let described = self.runtime.block_on(session.describe(&statement, &[]));
        described.unwrap_or_else(|e| panic!("{sql}\n{e:?}"))
    }

    /// As [`Harness::run`] of one statement with parameters.
    pub fn run_with(&self, sql: &str, parameters: Vec<ScalarValue>) -> Vec<String> {
        let session = self.database().session();
        let statement = session.parse(sql).unwrap_or_else(|e| panic!("{sql}\n{e:?}")).remove(0);
        let answer = self.runtime.block_on(answer(&session, &statement, parameters));
        match answer.unwrap_or_else(|e| panic!("{sql}\n{e:?}")) {
            Answer::Command { tag, .. } => vec![tag],
            Answer::Rows { batches, .. } => {
                let mut rows: Vec<String> = batches.iter().flat_map(texts).collect();
                rows.sort();
                rows
            }
        }
    }

    /// The answer to each statement.
    pub fn answers(&self, sql: &str) -> Result<Vec<(ParsedStatement, Answer)>, SqlError> {
        let session = self.database().session();
        let mut answers = Vec::new();
        for statement in session.parse(sql)? {
            let answer = self.runtime.block_on(answer(&session, &statement, vec![]))?;
            answers.push((statement, answer));
        }
        Ok(answers)
    }

    pub fn run(&self, sql: &str) -> Vec<String> {
        self.try_run(sql).unwrap_or_else(|e| panic!("{sql}\n{e:?}"))
    }

    pub fn error(&self, sql: &str) -> SqlError {
        match self.try_run(sql) {
            Ok(rows) => panic!("{sql} should fail, gave {rows:?}"),
            Err(error) => error,
        }
    }

    pub fn ingest(&self, table: &str, rows: RecordBatch, meta: IngestMeta) -> Result<Receipt, SqlError> {
        let count = rows.num_rows() as u32;
        let absent = vec![None; rows.num_columns()];
        let rows = DecodedRows {
            batch: rows,
            absent,
            row_numbers: (0..count).collect(),
            raw_ranges: vec![],
            rejected: vec![],
        };
        self.runtime.block_on(self.database().ingest(table, rows, meta))
    }
}

/// A session of its own, for another thread.
pub struct Client {
    session: Session,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub fn of(database: &Arc<Database>) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Client { session: database.session(), runtime }
    }

    /// Rows of the last statement.
    pub fn run(&self, sql: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for statement in self.session.parse(sql).unwrap() {
            let answer = self.runtime.block_on(answer(&self.session, &statement, vec![]));
            rows = match answer.unwrap_or_else(|e| panic!("{sql}\n{e:?}")) {
                Answer::Rows { batches, .. } => batches.iter().flat_map(texts).collect(),
                Answer::Command { tag, .. } => vec![tag],
            };
        }
        rows
    }
}

/// Lets time pass where time itself is tested, or what is published once a second.
#[allow(clippy::disallowed_methods, reason = "a test has nothing else to do meanwhile")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Waits for what comes in its own time.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        pause(Duration::from_millis(20));
    }
}

/// All that a statement gives.
pub enum Answer {
    Command { tag: String, notices: Vec<Notice> },
    Rows { schema: SchemaRef, batches: Vec<RecordBatch> },
}

async fn answer(
    session: &Session,
    statement: &ParsedStatement,
    parameters: Vec<ScalarValue>,
) -> Result<Answer, SqlError> {
    Ok(match session.run(statement, parameters).await? {
        Outcome::Command { tag, notices } => Answer::Command { tag, notices },
        Outcome::CopyIn { .. } => Answer::Command { tag: "COPY".into(), notices: vec![] },
        Outcome::Rows { schema, mut stream, .. } => {
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await {
                batches.push(batch?);
            }
            Answer::Rows { schema, batches }
        }
    })
}

/// Rows as text. Floats are cut to ten digits: the batch engine adds them in another order.
fn texts(batch: &RecordBatch) -> Vec<String> {
    cells(batch).into_iter().map(|row| row.join(" | ")).collect()
}

fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    (0..batch.num_rows())
        .map(|row| {
            let cells = batch.columns().iter().map(|column| match column.data_type() {
                DataType::Float64 if column.is_valid(row) => {
                    digits(column.as_primitive::<Float64Type>().value(row))
                }
                DataType::Float32 if column.is_valid(row) => {
                    digits(f64::from(column.as_primitive::<Float32Type>().value(row)))
                }
                _ => ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string(),
            });
            cells.collect()
        })
        .collect()
}

fn digits(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.9e}") }
}
