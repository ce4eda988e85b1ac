//! Nexmark: a query of bench/nexmark over events that are made on the way, or over files of them.
//!
//! `shopstream bench nexmark --query q5 [--events 10000000] [--workers 2] [--threads 2] [--step-events 16384]`
//! `shopstream bench nexmark --query q5 --files DIR [--format csv] ...`, DIR with person/, auction/ and bid/
//! `... --results keep`: the result is kept as a readable view and not thrown away, as Flink's blackhole sink does
//!
//! ```text
//!   threads: events 0 .. 49,999 | 50,000 .. 99,999 | ...  -> columns --\
//!   or:      files, read and decoded ahead, oldest rows first        ---+--> engine (this thread and its workers)
//! ```
//!
//! Only the tables that the query reads are made or read. Events per second count events of all three kinds, as the
//! benchmark does: ten million events hold 9.2 million bids.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use connectors::format::csv::CsvOptions;
use connectors::format::json::JsonOptions;
use connectors::source::nexmark::{Events, NexmarkOptions, NexmarkTable};
use connectors::source::{FileFormat, FileOptions, FileOrder, ParallelFiles};
use engine::Transient;
use serde_json::json;

use super::{number, option, usage};
use crate::failure::{Failure, Result};

const TABLES: &str = include_str!("../../../../bench/nexmark/tables.sql");

macro_rules! queries {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../../../bench/nexmark/", $name, ".sql")))),*]
    };
}

const QUERIES: &[(&str, &str)] = queries!(
    "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14", "q15",
    "q16", "q17", "q18", "q19", "q20", "q21", "q22"
);

/// Queries over windows, which give one final row per window as Flink's do.
const ON_CLOSE: [&str; 4] = ["q5", "q8", "q11", "q12"];

/// The bids by the time of their arrival.
const ARRIVING: &str = "arriving_bid";

/// Events that are made at once.
const PORTION: u64 = 50_000;

pub fn run(arguments: &[String]) -> Result {
    let name = option(arguments, "--query").unwrap_or("q0");
    let events: u64 = number(arguments, "--events", 10_000_000)?;
    let workers = number(arguments, "--workers", 2)?;
    let threads: usize = number(arguments, "--threads", 2)?;
    let step_events: u64 = number(arguments, "--step-events", 16_384)?;
    let folder = option(arguments, "--files").map(PathBuf::from);
    let (_, query) = QUERIES.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let names: Vec<&str> = QUERIES.iter().map(|(name, _)| *name).collect();
        Failure::usage(format!("there is no Nexmark query \"{name}\""))
            .hint(format!("queries: {}", names.join(", ")))
    })?;
    let on_close = match option(arguments, "--emit").unwrap_or("default") {
        "default" => ON_CLOSE.contains(&name),
        "close" => true,
        "updating" => false,
        other => return Err(Failure::usage(format!("--emit is close or updating, not {other}"))),
    };
    let mut engine = Transient::new(workers);
    match option(arguments, "--results").unwrap_or("discard") {
        "discard" => engine.discard_results(),
        "keep" => {}
        other => return Err(Failure::usage(format!("--results is discard or keep, not {other}"))),
    }
    engine.define(TABLES).map_err(failed)?;
    let emit = if on_close { " EMIT ON WINDOW CLOSE" } else { "" };
    engine.define(&format!("CREATE MATERIALIZED VIEW {name} AS {query}{emit}")).map_err(failed)?;
    let mut tables = engine.sources(name);
    if tables.iter().any(|table| table == "side_input") {
        engine.feed("side_input", side_input(&engine)?).map_err(failed)?;
        tables.retain(|table| table != "side_input");
    }
    let started = Instant::now();
    let mut meter = Meter { rows: 0, pending: 0, step_events };
    match &folder {
        Some(folder) => {
            let format = option(arguments, "--format").unwrap_or("csv");
            from_files(&mut engine, &mut meter, &tables, folder, format, threads)?;
        }
        None => from_generator(&mut engine, &mut meter, &tables, events, threads)?,
    }
    engine.finish().map_err(failed)?;
    let seconds = started.elapsed().as_secs_f64();
    let report = json!({
        "scenario": "nexmark", "query": name, "source": if folder.is_some() { "files" } else { "generator" },
        "emit": if on_close { "on close" } else { "updating" }, "rows": meter.rows,
        "events": events, "late": engine.late_rows(), "seconds": seconds,
        "events_per_second": (events as f64 / seconds).round(), "cpu_seconds": usage::cpu_seconds(),
        "peak_memory_mb": usage::peak_memory_mb().round(), "result_rows": engine.row_count(name),
    });
    println!("{report}");
    Ok(())
}

fn failed(error: sql::SqlError) -> Failure {
    Failure::failed(error.to_string())
}

/// Counts what is fed, and when the next step is due.
struct Meter {
    rows: usize,
    pending: u64,
    step_events: u64,
}

impl Meter {
    fn feed(&mut self, engine: &mut Transient, table: &str, rows: RecordBatch) -> Result {
        self.rows += rows.num_rows();
        self.pending += rows.num_rows() as u64;
        engine.feed(table, rows).map_err(failed)
    }

    fn step(&mut self, engine: &mut Transient) -> Result {
        if self.pending >= self.step_events {
            self.pending = 0;
            engine.step().map_err(failed)?;
        }
        Ok(())
    }
}

/// A table and what makes its rows.
#[derive(Clone)]
struct Maker {
    table: String,
    schema: SchemaRef,
    events: Events,
}

impl Maker {
    fn new(engine: &Transient, table: &str, events: u64) -> Result<Maker> {
        let kind = match table {
            "person" => NexmarkTable::Person,
            "auction" => NexmarkTable::Auction,
            _ => NexmarkTable::Bid,
        };
        let schema = engine.table(table).map(|t| t.schema());
        let schema =
            schema.ok_or_else(|| Failure::failed(format!("table {table} is not one of Nexmark's")))?;
        let options = NexmarkOptions { table: kind, event_num: Some(events), ..NexmarkOptions::default() };
        Ok(Maker { table: table.to_string(), schema, events: Events::new(options) })
    }

    /// The table's rows among the events from `first` up to `end`.
    fn make(&self, first: u64, end: u64) -> Result<RecordBatch> {
        let (numbers, _) = self.events.numbers(first, end, (end - first) as usize);
        let now = now_us();
        let columns = self.schema.fields().iter().map(|field| match field.name().as_str() {
            "p_time" => Arc::new(TimestampMicrosecondArray::from(vec![now; numbers.len()])) as ArrayRef,
            name => self.events.column(name, &numbers, now),
        });
        RecordBatch::try_new(SchemaRef::clone(&self.schema), columns.collect())
            .map_err(|e| Failure::failed(e.to_string()))
    }
}

fn side_input(engine: &Transient) -> Result<RecordBatch> {
    let table = engine.table("side_input").ok_or_else(|| Failure::failed("side_input was just created"))?;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..10_000).map(|n| format!("value {n}"))));
    RecordBatch::try_new(table.schema(), vec![keys, values]).map_err(|e| Failure::failed(e.to_string()))
}

/// Events made by threads of their own, each every n-th portion, fed in order.
fn from_generator(
    engine: &mut Transient,
    meter: &mut Meter,
    tables: &[String],
    events: u64,
    threads: usize,
) -> Result {
    let makers = tables.iter().map(|t| Maker::new(engine, t, events)).collect::<Result<Vec<_>>>()?;
    let threads = threads.max(1) as u64;
    std::thread::scope(|scope| {
        let portions: Vec<Receiver<Result<Vec<RecordBatch>>>> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = sync_channel(2);
                let makers = makers.clone();
                scope.spawn(move || {
                    let mut first = thread * PORTION;
                    while first < events {
                        let end = (first + PORTION).min(events);
                        // The other side is gone after an error of its own.
                        if sender.send(makers.iter().map(|m| m.make(first, end)).collect()).is_err() {
                            return;
                        }
                        first += threads * PORTION;
                    }
                });
                receiver
            })
            .collect();
        for portion in 0..events.div_ceil(PORTION) {
            let made = portions[(portion % threads) as usize].recv();
            let made = made.map_err(|_| Failure::failed("a thread that makes events ended"))??;
            for (maker, rows) in makers.iter().zip(made) {
                if rows.num_rows() > 0 {
                    meter.feed(engine, &maker.table, rows)?;
                }
            }
            meter.step(engine)?;
        }
        Ok(())
    })
}

/// A table's files, and how far in event time they were read.
struct Input {
    table: String,
    schema: SchemaRef,
    files: ParallelFiles,
    time_column: usize,
    newest_us: i64,
    ended: bool,
}

impl Input {
    fn open(engine: &Transient, table: &str, folder: &Path, format: &str, threads: usize) -> Result<Input> {
        let schema = |name: &str| {
            let schema = engine.table(name).map(|t| t.input_schema());
            schema.ok_or_else(|| Failure::failed(format!("table {name} is not one of Nexmark's")))
        };
        // What arrives is bids.
        let source = if table == ARRIVING { "bid" } else { table };
        let read = schema(source)?;
        let time_column = read.index_of("date_time").map_err(|e| Failure::failed(e.to_string()))?;
        let folder = folder.join(source);
        let listed = std::fs::read_dir(&folder).map_err(|e| Failure::io("read", folder.display(), &e))?;
        let mut paths: Vec<PathBuf> = listed.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
        paths.sort();
        let format = match format {
            "csv" => FileFormat::Csv(CsvOptions::default()),
            "ndjson" => FileFormat::Ndjson(JsonOptions::default()),
            other => return Err(Failure::usage(format!("format is csv or ndjson, not {other}"))),
        };
        let columns: Vec<usize> = (0..read.fields().len()).collect();
        let options = FileOptions { threads, order: FileOrder::RoundRobin, ..Default::default() };
        let files = ParallelFiles::open(&paths, format, &read, &columns, &options)
            .map_err(|e| Failure::failed(e.to_string()))?;
        let schema = schema(table)?;
        Ok(Input { table: table.to_string(), schema, files, time_column, newest_us: i64::MIN, ended: false })
    }

    /// The table's next rows; `None` at the end of its files.
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.files.next_batch().map_err(|e| Failure::failed(e.to_string()))? else {
            self.ended = true;
            return Ok(None);
        };
        if let Some(rejected) = batch.rows.rejected.first() {
            return Err(Failure::failed(format!("table {}: {}", self.table, rejected.message)));
        }
        let rows = batch.rows.batch;
        let times = engine::operators::microseconds(rows.column(self.time_column))
            .map_err(|e| Failure::failed(e.to_string()))?;
        self.newest_us = arrow::compute::max(&times).unwrap_or(self.newest_us);
        if self.table != ARRIVING {
            return Ok(Some(rows));
        }
        let arrival: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![now_us(); rows.num_rows()]));
        let bidder = rows.column_by_name("bidder").ok_or_else(|| Failure::failed("bids have a bidder"))?;
        RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![Arc::clone(bidder), arrival])
            .map(Some)
            .map_err(|e| Failure::failed(e.to_string()))
    }
}

fn from_files(
    engine: &mut Transient,
    meter: &mut Meter,
    tables: &[String],
    folder: &Path,
    format: &str,
    threads: usize,
) -> Result {
    let open = |table: &String| Input::open(engine, table, folder, format, threads);
    let mut inputs = tables.iter().map(open).collect::<Result<Vec<_>>>()?;
    // The table that is furthest behind goes first, so that joins wait for as little as possible.
    while let Some(input) = inputs.iter_mut().filter(|i| !i.ended).min_by_key(|i| i.newest_us) {
        if let Some(rows) = input.next()? {
            meter.feed(engine, &input.table, rows)?;
            meter.step(engine)?;
        }
    }
    Ok(())
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64
}
