//! How fast rows are decoded: ns of CPU per row on one core, for CSV, COPY text and NDJSON, and rows per second
//! of files read by several threads.
//!
//! Rows are those of a clickstream (user, item, category, behavior, epoch seconds), generated from a
//! fixed seed. Not measured: disk (files come from the page cache).
//!
//! `cargo run -p connectors --example decode_speed -- [rows] [threads]`

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use connectors::format::csv::{CsvDecoder, CsvOptions};
use connectors::format::json::{JsonDecoder, JsonOptions};
use connectors::format::pg_text::{PgTextDecoder, PgTextOptions};
use connectors::source::{FileFormat, FileOptions, ParallelFiles};
use dataflow::DecodedRows;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let clicks = clicks();
    let all: Vec<usize> = (0..clicks.fields().len()).collect();

    let csv = generate(rows, |out, e| {
        writeln!(out, "{},{},{},{},{}", e.user, e.item, e.category, e.behavior, e.ts)
    });
    let decoder = CsvDecoder::new(&clicks, &all, CsvOptions::default());
    measure("csv, 5 columns", rows, &csv, 1 << 21, |body| decoder.decode(body));

    let quoted = generate(rows, |out, e| {
        writeln!(out, "{},{},{},\"{}\",{}", e.user, e.item, e.category, e.behavior, e.ts)
    });
    measure("csv, one quoted field", rows, &quoted, 1 << 21, |body| decoder.decode(body));

    let copy = generate(rows, |out, e| {
        writeln!(out, "{}\t{}\t{}\t{}\t{}", e.user, e.item, e.category, e.behavior, e.ts)
    });
    let copy_decoder = PgTextDecoder::new(&clicks, &all, PgTextOptions::default());
    measure("copy text, 5 columns", rows, &copy, 1 << 21, |body| copy_decoder.decode(body));

    let short = generate(rows, |out, e| {
        writeln!(
            out,
            r#"{{"user_id":{},"item_id":{},"category_id":{},"behavior":"{}","ts":{}}}"#,
            e.user, e.item, e.category, e.behavior, e.ts
        )
    });
    let json_decoder = JsonDecoder::new(&clicks, JsonOptions::default());
    measure("ndjson, 5 columns", rows, &short, 1 << 21, |body| json_decoder.decode(body));

    let spaced = generate(rows, |out, e| {
        writeln!(
            out,
            r#"{{"event_id": "ev-{:016x}", "user_id": {}, "item_id": {}, "price": {}.{:02}, "action": "{}", "ok": true, "ts": "2017-11-26T01:{:02}:{:02}.{:03}Z"}}"#,
            e.item * 7919,
            e.user,
            e.item,
            e.item % 1000,
            e.user % 100,
            e.behavior,
            e.ts % 60,
            e.item % 60,
            e.user % 1000
        )
    });
    let event_decoder = JsonDecoder::new(&events(), JsonOptions::default());
    measure("ndjson, 7 columns, python's spacing", rows, &spaced, 1 << 21, |body| event_decoder.decode(body));

    let dir = std::env::temp_dir().join(format!("decode_speed_{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    for (name, format, body) in [
        ("csv file", FileFormat::Csv(CsvOptions::default()), &csv),
        ("ndjson file", FileFormat::Ndjson(JsonOptions::default()), &short),
    ] {
        let path: PathBuf = dir.join("rows");
        std::fs::write(&path, body)?;
        let options = FileOptions { threads, ..FileOptions::default() };
        let start = Instant::now();
        let mut source = ParallelFiles::open(&[path], format, &clicks, &all, &options)?;
        let mut seen = 0;
        while let Some(batch) = source.next_batch()? {
            seen += batch.rows.batch.num_rows();
        }
        assert_eq!(seen, rows);
        let seconds = start.elapsed().as_secs_f64();
        println!("{name:<40} {:>10.0} thousand rows/s", rows as f64 / seconds / 1e3);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

struct Event {
    user: u64,
    item: u64,
    category: u64,
    behavior: &'static str,
    ts: u64,
}

fn generate(rows: usize, mut write: impl FnMut(&mut String, &Event) -> std::fmt::Result) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut out = String::new();
    for row in 0..rows {
        let event = Event {
            user: rng.u64(1..1_000_000),
            item: rng.u64(1..5_000_000),
            category: rng.u64(1_000..5_000_000),
            behavior: ["pv", "pv", "pv", "pv", "pv", "buy", "cart", "fav"][rng.usize(..8)],
            ts: 1_511_658_000 + row as u64 / 100,
        };
        write(&mut out, &event).expect("writing to a string succeeds");
    }
    out.into_bytes()
}

/// Decodes the body in pieces of about `piece` bytes, as a source does; prints the best of five.
fn measure(name: &str, rows: usize, body: &[u8], piece: usize, decode: impl Fn(&[u8]) -> DecodedRows) {
    let mut best = f64::MAX;
    let started = Instant::now();
    for _ in 0..5 {
        let start = cpu_seconds(started);
        let (mut at, mut seen) = (0, 0);
        while at < body.len() {
            let end = (at + piece).min(body.len());
            let end =
                end + body[end..].iter().position(|byte| *byte == b'\n').map_or(body.len() - end, |n| n + 1);
            seen += decode(&body[at..end]).batch.num_rows();
            at = end;
        }
        best = best.min(cpu_seconds(started) - start);
        assert_eq!(seen, rows, "every row is read");
    }
    println!(
        "{name:<40} {:>7.1} ns/row  {:>6.0} bytes/row  {:>7.0} MB/s",
        best * 1e9 / rows as f64,
        body.len() as f64 / rows as f64,
        body.len() as f64 / best / 1e6
    );
}

/// CPU time of this thread where Linux tells it, so that a busy machine does not show; else wall time.
fn cpu_seconds(started: Instant) -> f64 {
    let on_cpu_ns = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    on_cpu_ns.map_or(started.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

fn clicks() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("user_id", DataType::Int64, true),
        Field::new("item_id", DataType::Int64, true),
        Field::new("category_id", DataType::Int64, true),
        Field::new("behavior", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

fn events() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("event_id", DataType::Utf8, true),
        Field::new("user_id", DataType::Int64, true),
        Field::new("item_id", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(18, 2), true),
        Field::new("action", DataType::Utf8, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}
