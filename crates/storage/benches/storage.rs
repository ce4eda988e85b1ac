//! Nanoseconds per row of the write path: columns to bytes, bytes to columns, append and commit.
//!
//! Data: clicks of five columns (three integers, a short text, a timestamp), seed 7, in batches as a tick
//! sees them. Not measured: building the batches. `cargo bench -p storage`; a tiny run with `-- --test`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use storage::columns::{decode_batch, encode_batch};
use storage::disk::RealDisk;
use storage::log::{Log, LogOptions};

fn main() {
    let tiny = std::env::args().any(|argument| argument == "--test");
    let time = if tiny { Duration::ZERO } else { Duration::from_millis(500) };
    println!("{:>8} {:>12} {:>14} {:>14}", "rows", "bytes/row", "encode ns/row", "decode ns/row");
    for rows in [1, 100, 1_000, 10_000, 100_000] {
        let batch = clicks(rows);
        let block = encode_batch(&batch);
        let encode = measure(time, || drop(black_box(encode_batch(black_box(&batch)))));
        let decode = measure(time, || {
            black_box(decode_batch(&batch.schema(), black_box(&block)).expect("the block was just encoded"));
        });
        let per_row = |duration: f64| duration / rows as f64;
        println!(
            "{rows:>8} {:>12.1} {:>14.1} {:>14.1}",
            block.len() as f64 / rows as f64,
            per_row(encode),
            per_row(decode)
        );
    }

    let folder = tempfile::tempdir().expect("a folder for the log");
    let (mut log, _) =
        Log::open(Arc::new(RealDisk), folder.path(), LogOptions::default()).expect("a new log opens");
    println!("\n{:>8} {:>16} {:>16}", "bytes", "append ns", "commit us");
    for bytes in [40, 1_000, 16_000, 1_000_000] {
        let payload: Vec<u8> = (0..bytes).map(|number| (number * 31) as u8).collect();
        let (mut appends, mut commits, mut rounds) = (Duration::ZERO, Duration::ZERO, 0);
        let per_commit = 10;
        while rounds == 0 || (appends + commits < time && log.bytes() < 2 << 30) {
            let start = Instant::now();
            for _ in 0..per_commit {
                log.append(1, 1, &payload).expect("the log takes records");
            }
            appends += start.elapsed();
            let start = Instant::now();
            log.commit().expect("the disk has space");
            commits += start.elapsed();
            rounds += 1;
        }
        println!(
            "{bytes:>8} {:>16.0} {:>16.0}",
            appends.as_nanos() as f64 / f64::from(rounds * per_commit),
            commits.as_micros() as f64 / f64::from(rounds)
        );
    }
}

/// Nanoseconds per call; the fastest of five runs.
fn measure(time: Duration, mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let (start, mut calls) = (Instant::now(), 0);
        while calls == 0 || start.elapsed() < time / 5 {
            call();
            calls += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}

fn clicks(rows: usize) -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(7);
    let mut numbers = |limit: i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.i64(0..limit))))
    };
    let (users, items, categories) = (numbers(1_000_000), numbers(4_000_000), numbers(9_000));
    let behaviors = ["pv", "pv", "pv", "buy", "cart", "fav"];
    let behaviors = StringArray::from_iter_values((0..rows).map(|row| behaviors[row * 7 % 11 % 6]));
    let times = (0..rows).map(|row| 1_511_539_200_000_000 + row as i64 * 1000);
    let times = TimestampMicrosecondArray::from_iter_values(times);
    RecordBatch::try_from_iter([
        ("user_id", users),
        ("item_id", items),
        ("category_id", categories),
        ("behavior", Arc::new(behaviors)),
        ("ts", Arc::new(times)),
    ])
    .expect("columns of one length")
}
