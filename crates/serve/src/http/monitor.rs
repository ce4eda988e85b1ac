//! The state of the server over the last minutes: one sample a second, shared by all readers.
//!
//! Rates and "in the last five minutes" need history, which counters do not have.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use engine::{Database, Status};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::until_stopped;
use super::values::timestamp_text;

/// Window of "rejected and late in the last five minutes".
const WINDOW: Duration = Duration::from_secs(300);
/// Window of the rate of ingest: long enough to be calm, short enough to be live.
const RATE_WINDOW: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    accepted: u64,
    rejected: u64,
    late: u64,
}

/// Samples of the last five minutes and the status text made of them.
pub struct Monitor {
    history: Mutex<VecDeque<(Instant, Sample)>>,
    latest: watch::Sender<Bytes>,
}

impl Default for Monitor {
    fn default() -> Self {
        Monitor { history: Mutex::default(), latest: watch::Sender::new(Bytes::new()) }
    }
}

impl Monitor {
    /// The status as JSON, once a second.
    pub fn watch(&self) -> watch::Receiver<Bytes> {
        self.latest.subscribe()
    }

    /// Takes a sample each second until the server stops.
    pub async fn run(self: Arc<Self>, db: Arc<Database>, mut stopping: watch::Receiver<bool>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = seconds.tick() => self.sample(&db.status()),
                () = until_stopped(&mut stopping) => return,
            }
        }
    }

    /// Adds a sample and publishes the status.
    pub fn sample(&self, status: &Status) {
        self.record(Instant::now(), status);
        self.latest.send_replace(Bytes::from(self.to_json(status).to_string()));
    }

    fn record(&self, now: Instant, status: &Status) {
        let mut history = self.history.lock();
        history.push_back((now, sample_of(status)));
        while history.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            history.pop_front();
        }
    }

    /// The answer of `GET /v1/status`.
    pub fn to_json(&self, status: &Status) -> Value {
        let (rates, window) = self.derive(Instant::now(), status);
        let now = chrono::Utc::now();
        let tables: Map<String, Value> = status
            .tables
            .iter()
            .map(|(name, table)| {
                let described = json!({
                    "rows_accepted": table.rows_accepted,
                    "rows_rejected": table.rows_rejected,
                    "rows_duplicate": table.rows_duplicate,
                    "rows_late": table.rows_late,
                    "bytes": table.bytes,
                    "watermark": table.watermark_us.and_then(timestamp_text),
                    "max_event_time": table.max_event_us.and_then(timestamp_text),
                    "idle": table.idle,
                });
                (name.clone(), described)
            })
            .collect();
        let views: Map<String, Value> = status
            .views
            .iter()
            .map(|(name, view)| {
                let described = json!({
                    "rows": view.rows,
                    "bytes": view.bytes,
                    "state_rows": view.state_rows,
                    "state_bytes": view.state_bytes,
                    "watermark": view.watermark_us.and_then(timestamp_text),
                    "busy_seconds": view.busy.as_secs_f64(),
                    "suspended": view.suspended,
                });
                (name.clone(), described)
            })
            .collect();
        json!({
            "server_time": timestamp_text(now.timestamp_micros()),
            "version": env!("CARGO_PKG_VERSION"),
            "tick": status.tick.0,
            "ready": status.ready,
            "writes_refused": status.writes_refused,
            "rows_accepted": sample_of(status).accepted,
            "rows_rejected": status.rejected_rows,
            "rows_late": status.late_rows,
            "rows_per_second": rates,
            "window_seconds": WINDOW.as_secs(),
            "window_rows_rejected": window.rejected,
            "window_rows_late": window.late,
            "backlog_records": status.backlog_records,
            "last_tick_seconds": status.last_tick_duration.as_secs_f64(),
            "log": {"bytes": status.log_bytes, "records": status.log_records, "fsyncs": status.fsyncs},
            "tables": tables,
            "views": views,
        })
    }

    /// Rows per second over the last seconds, and what happened in the window.
    fn derive(&self, now: Instant, status: &Status) -> (f64, Sample) {
        let history = self.history.lock();
        let current = sample_of(status);
        let oldest = history.front().map_or(current, |(_, sample)| *sample);
        let window = Sample {
            accepted: current.accepted.saturating_sub(oldest.accepted),
            rejected: current.rejected.saturating_sub(oldest.rejected),
            late: current.late.saturating_sub(oldest.late),
        };
        let recent =
            history.iter().rfind(|(at, _)| now.duration_since(*at) >= RATE_WINDOW).or(history.front());
        let rate = recent.map_or(0.0, |(at, sample)| {
            let seconds = now.duration_since(*at).as_secs_f64();
            if seconds < 0.1 {
                return 0.0;
            }
            current.accepted.saturating_sub(sample.accepted) as f64 / seconds
        });
        ((rate * 10.0).round() / 10.0, window)
    }
}

fn sample_of(status: &Status) -> Sample {
    Sample {
        accepted: status.tables.values().map(|table| table.rows_accepted).sum(),
        rejected: status.rejected_rows,
        late: status.late_rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::TableStatus;

    fn status(accepted: u64, rejected: u64) -> Status {
        let table = TableStatus { rows_accepted: accepted, max_event_us: Some(0), ..TableStatus::default() };
        Status {
            tables: [("behavior".to_string(), table)].into(),
            rejected_rows: rejected,
            ..Status::default()
        }
    }

    #[test]
    fn the_rate_is_of_the_last_seconds_and_counts_are_of_five_minutes() {
        let monitor = Monitor::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..=400 {
            // One row rejected a second; 10 rows a second, and 100 a second at the end.
            let accepted = if second < 390 { second * 10 } else { 3_900 + (second - 390) * 100 };
            monitor.record(at(second), &status(accepted, second));
        }
        let (rate, window) = monitor.derive(at(400), &status(4_900, 400));
        assert_eq!(rate, 100.0);
        assert_eq!(window.rejected, 300);
        assert_eq!(monitor.history.lock().len(), 301);
    }

    #[test]
    fn a_young_server_has_rates_too() {
        let monitor = Monitor::default();
        let start = Instant::now();
        assert_eq!(monitor.derive(start, &status(5, 0)).0, 0.0);
        monitor.record(start, &status(0, 0));
        assert_eq!(monitor.derive(start + Duration::from_secs(2), &status(20, 0)).0, 10.0);
    }

    #[test]
    fn the_status_names_tables_and_times() {
        let monitor = Monitor::default();
        let mut watch = monitor.watch();
        monitor.sample(&status(7, 1));
        assert!(watch.has_changed().unwrap());
        let json: Value = serde_json::from_slice(&watch.borrow_and_update()).unwrap();
        assert_eq!(json["tables"]["behavior"]["rows_accepted"], 7);
        assert_eq!(json["tables"]["behavior"]["max_event_time"], "1970-01-01T00:00:00Z");
        assert_eq!(json["rows_accepted"], 7);
        assert_eq!(json["window_rows_rejected"], 0);
    }
}
