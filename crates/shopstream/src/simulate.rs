//! `shopstream simulate`: a shop whose every event is decided by a seed.
//!
//! [`shop::Shop`] decides what happens, without clock or network; this file gives it the pace of a clock,
//! sends its rows in batches and prints its books. Two runs with the same plan hand out the same bytes.
//!
//! Ids of orders, payments, refunds, movements and events begin with the start time, so that a second run
//! with another start adds to the first instead of repeating it.

pub mod books;
mod rng;
mod rows;
mod shop;
mod visitors;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::books::Books;
use self::rows::Table;
use self::shop::{Plan, SECOND, Shop};
use crate::cli::SimulateFlags;
use crate::client::Client;
use crate::config::{ClientSettings, Config};
use crate::failure::{Failure, Result};
use crate::stop;

/// How often rows are sent.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Simulated time sent at once while catching up; well under the minute that late rows are late by.
const CATCH_UP_US: i64 = 30 * SECOND;
const BATCH_BYTES_MAX: usize = 4 << 20;

pub fn run(flags: &SimulateFlags, config: &Config) -> Result {
    let plan = plan(flags)?;
    let duration_us = flags.duration.map(|duration| duration.as_micros() as i64);
    let shop = Shop::open(plan.clone());
    let books = if flags.dry_run {
        print_rows(shop, duration_us.unwrap_or(0))?
    } else {
        stop::listen()?;
        let client = Client::new(&ClientSettings::new(config)?, flags.client.retry_for);
        let pace = Pace::new(flags);
        let (books, failure) = send_rows(shop, &client, &plan, pace, duration_us);
        eprintln!("{}", books.summary());
        if let Some(failure) = failure {
            write_report(flags, &books)?;
            return Err(failure);
        }
        books
    };
    write_report(flags, &books)
}

fn plan(flags: &SimulateFlags) -> Result<Plan> {
    let start_us = match &flags.start {
        Some(text) => chrono::DateTime::parse_from_rfc3339(text)
            .map_err(|_| {
                Failure::usage(format!("--start {text}: expected a time such as 2026-01-05T09:00:00Z"))
            })?
            .timestamp_micros(),
        None => {
            let now_us = now_us();
            let ahead_us = match (flags.speed > 1.0, flags.duration) {
                // Faster than the clock: begin early enough to end now, for rows from the future are refused.
                (true, Some(duration)) => duration.as_micros() as f64 * (1.0 - 1.0 / flags.speed),
                (true, None) => {
                    return Err(Failure::usage("--speed above 1 runs ahead of the clock")
                        .hint("give --duration, so that it ends now, or --start"));
                }
                _ => 0.0,
            };
            // Whole milliseconds, as they are written.
            (now_us - ahead_us as i64 - flags.backfill.as_micros() as i64).div_euclid(1000) * 1000
        }
    };
    Ok(Plan {
        seed: flags.seed,
        rate: flags.rate,
        start_us,
        items: flags.items,
        duplicate_ratio: flags.duplicate_ratio,
        disorder_ratio: flags.disorder_ratio,
        late_ratio: flags.late_ratio,
        broken_ratio: flags.broken_ratio,
        skew_ratio: flags.skew_ratio,
    })
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Which simulated time it is: the back-fill is over at once, then time goes by at `speed`.
struct Pace {
    began: Instant,
    backfill_us: i64,
    speed: f64,
}

impl Pace {
    fn new(flags: &SimulateFlags) -> Pace {
        Pace { began: Instant::now(), backfill_us: flags.backfill.as_micros() as i64, speed: flags.speed }
    }

    fn simulated_us(&self) -> i64 {
        self.backfill_us + (self.began.elapsed().as_micros() as f64 * self.speed) as i64
    }
}

/// Runs until the duration is over, a request to stop, or a failure to send; the books say what was sent.
fn send_rows(
    mut shop: Shop,
    client: &Client,
    plan: &Plan,
    pace: Pace,
    duration_us: Option<i64>,
) -> (Books, Option<Failure>) {
    let mut outgoing = Outgoing::new(client, plan);
    let mut at_us = 0;
    let end_us = duration_us.unwrap_or(i64::MAX);
    let mut failure = None;
    while at_us < end_us && !stop::asked() {
        let now_us = pace.simulated_us().min(end_us);
        let until_us = now_us.min(at_us + CATCH_UP_US);
        shop.rows_until(until_us, |table, json| outgoing.add(table, json));
        at_us = until_us;
        failure = outgoing.flush().err();
        if failure.is_some() {
            break;
        }
        if until_us == now_us {
            stop::sleep(BATCH_INTERVAL);
        }
    }
    let mut books = shop.close(|table, json| outgoing.add(table, json));
    if failure.is_none() {
        failure = outgoing.flush().err();
    }
    books.complete = failure.is_none();
    books.server = outgoing.counts;
    (books, failure)
}

/// Rows waiting to be sent, by table.
struct Outgoing<'a> {
    client: &'a Client,
    run: String,
    requests: u64,
    bodies: BTreeMap<Table, Vec<Vec<u8>>>,
    counts: BTreeMap<&'static str, books::ServerCounts>,
}

impl<'a> Outgoing<'a> {
    fn new(client: &'a Client, plan: &Plan) -> Outgoing<'a> {
        // The process and the present time make keys of two runs differ, also when they send the same rows.
        let run = format!("simulate-{}-{}-{:x}", plan.seed, std::process::id(), now_us());
        Outgoing { client, run, requests: 0, bodies: BTreeMap::new(), counts: BTreeMap::new() }
    }

    fn add(&mut self, table: Table, json: &str) {
        let bodies = self.bodies.entry(table).or_default();
        if bodies.last().is_none_or(|body| body.len() + json.len() > BATCH_BYTES_MAX) {
            bodies.push(vec![]);
        }
        if let Some(body) = bodies.last_mut() {
            body.extend_from_slice(json.as_bytes());
            body.push(b'\n');
        }
    }

    fn flush(&mut self) -> Result {
        let mut bodies = std::mem::take(&mut self.bodies);
        for table in Table::ALL {
            for body in bodies.remove(&table).unwrap_or_default() {
                self.requests += 1;
                let key = format!("{}-{}", self.run, self.requests);
                let answer = self.client.post_rows(table.name(), "application/x-ndjson", &key, &body)?;
                let counts = self.counts.entry(table.name()).or_default();
                counts.accepted += answer.accepted;
                counts.duplicates += answer.duplicates;
                counts.rejected += answer.rejected;
            }
        }
        Ok(())
    }
}

fn print_rows(mut shop: Shop, duration_us: i64) -> Result<Books> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut result = Ok(());
    let mut print = |table: Table, json: &str| {
        if result.is_ok() {
            result = writeln!(out, "{}\t{json}", table.name());
        }
    };
    shop.rows_until(duration_us, &mut print);
    let books = shop.close(&mut print);
    result.and_then(|()| out.flush()).map_err(|error| Failure::io("write to", "standard output", &error))?;
    Ok(books)
}

fn write_report(flags: &SimulateFlags, books: &Books) -> Result {
    let Some(path) = &flags.report else { return Ok(()) };
    let json = serde_json::to_string_pretty(books)
        .map_err(|error| Failure::failed(format!("print the report: {error}")))?;
    std::fs::write(path, json + "\n").map_err(|error| Failure::io("write report", path.display(), &error))
}

#[cfg(test)]
mod tests;
