//! The durable way in, over HTTP: how many rows per second, and how soon they are visible.
//!
//! `shopstream bench ingest --server URL --table T --rows N [--batch 5000] [--connections 2] FILE.ndjson`
//! `shopstream bench latency --server URL --table T --rate 20000 --seconds 20 FILE.ndjson`

use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{number, option, usage};
use crate::failure::{Failure, Result};

struct Target {
    agent: ureq::Agent,
    server: String,
    table: String,
}

impl Target {
    fn new(arguments: &[String]) -> Target {
        Target {
            agent: ureq::Agent::new_with_defaults(),
            server: option(arguments, "--server").unwrap_or("http://127.0.0.1:8080").to_string(),
            table: option(arguments, "--table").unwrap_or("user_behavior").to_string(),
        }
    }

    /// Sends a body; the number of rows accepted and the tick that shows them.
    fn post(&self, body: &[u8]) -> Result<(u64, u64)> {
        let url = format!("{}/v1/tables/{}/rows", self.server, self.table);
        let failure = |e: ureq::Error| Failure::failed(format!("POST {url}: {e}"));
        let mut response = self
            .agent
            .post(&url)
            .header("content-type", "application/x-ndjson")
            .send(body)
            .map_err(failure)?;
        let text = response.body_mut().read_to_string().map_err(failure)?;
        let answer: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Failure::failed(format!("answer of {url}: {e}")))?;
        let field = |name: &str| answer[name].as_u64().unwrap_or(0);
        Ok((field("accepted"), field("tick")))
    }

    /// Returns when views show `tick`.
    fn wait(&self, tick: u64) -> Result {
        let url = format!("{}/v1/views/rejected_rows?limit=1&select=reason&wait_tick={tick}", self.server);
        let failure = |e: ureq::Error| Failure::failed(format!("GET {url}: {e}"));
        self.agent.get(&url).call().map_err(failure)?.body_mut().read_to_string().map_err(failure)?;
        Ok(())
    }
}

/// Bodies of `batch` lines each, `rows` lines in all.
fn bodies(arguments: &[String], batch: usize, rows: usize) -> Result<Vec<Vec<u8>>> {
    let file = arguments.last().ok_or_else(|| Failure::usage("an NDJSON file is needed"))?;
    let reader = std::fs::File::open(file).map_err(|e| Failure::io("open", file, &e))?;
    let mut reader = BufReader::with_capacity(1 << 20, reader);
    let mut bodies = Vec::new();
    let (mut body, mut lines, mut total) = (Vec::new(), 0, 0);
    while total < rows {
        if reader.read_until(b'\n', &mut body).map_err(|e| Failure::io("read", file, &e))? == 0 {
            break;
        }
        lines += 1;
        total += 1;
        if lines == batch {
            bodies.push(std::mem::take(&mut body));
            lines = 0;
        }
    }
    if !body.is_empty() {
        bodies.push(body);
    }
    Ok(bodies)
}

pub fn throughput(arguments: &[String]) -> Result {
    let batch = number(arguments, "--batch", 5000)?;
    let rows = number(arguments, "--rows", 3_000_000)?;
    let connections: usize = number(arguments, "--connections", 2)?;
    let bodies = bodies(arguments, batch, rows)?;
    let target = Target::new(arguments);
    let next = AtomicU64::new(0);
    let (accepted, newest) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let cpu = usage::cpu_seconds();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match target.post(body) {
                        Ok((count, tick)) => {
                            accepted.fetch_add(count, Ordering::Relaxed);
                            newest.fetch_max(tick, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            failed.lock().expect("no thread panics").get_or_insert(failure);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(failure) = failed.into_inner().expect("no thread panics") {
        return Err(failure);
    }
    let acknowledged = started.elapsed().as_secs_f64();
    target.wait(newest.load(Ordering::Relaxed))?;
    let visible = started.elapsed().as_secs_f64();
    let accepted = accepted.load(Ordering::Relaxed);
    let report = json!({
        "scenario": "ingest", "rows": accepted, "batch": batch, "connections": connections,
        "seconds": acknowledged, "seconds_until_visible": visible,
        "acknowledged_rows_per_second": (accepted as f64 / acknowledged).round(),
        "rows_per_second": (accepted as f64 / visible).round(), "client_cpu_seconds": usage::cpu_seconds() - cpu,
    });
    println!("{report}");
    Ok(())
}

pub fn latency(arguments: &[String]) -> Result {
    let rate: usize = number(arguments, "--rate", 20_000)?;
    let seconds: usize = number(arguments, "--seconds", 20)?;
    // A hundred requests per second.
    let batch = (rate / 100).max(1);
    let bodies = bodies(arguments, batch, rate * seconds)?;
    let target = Target::new(arguments);
    let (mut acknowledged, mut visible) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for (number, body) in bodies.iter().enumerate() {
        let due = started + Duration::from_millis(10) * number as u32;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            crate::stop::sleep(early);
        }
        let sent = Instant::now();
        let (_, tick) = target.post(body)?;
        let acked = Instant::now();
        target.wait(tick)?;
        acknowledged.push((acked - sent).as_secs_f64() * 1e3);
        visible.push(acked.elapsed().as_secs_f64() * 1e3);
    }
    let sent = bodies.len() * batch;
    let rate = sent as f64 / started.elapsed().as_secs_f64();
    let report = json!({
        "scenario": "latency", "rows": sent, "rows_per_second": rate.round(),
        "sent_to_acknowledged_ms": percentiles(acknowledged), "acknowledged_to_visible_ms": percentiles(visible),
    });
    println!("{report}");
    Ok(())
}

fn percentiles(mut values: Vec<f64>) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    let at =
        |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1)));
    json!({ "p50": at(0.50), "p90": at(0.90), "p99": at(0.99), "max": values.last() })
}
