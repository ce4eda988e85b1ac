//! `/metrics` in the Prometheus text format, and the counters of this server itself.
//!
//! Names begin with `shopstream_` and end in a base unit. Labels are tables, views, routes and status
//! classes: names from the catalog and from the code, never values from requests.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use engine::Status;
use parking_lot::Mutex;

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Copy, Debug, Default)]
struct RouteCount {
    // By hundreds of the status: 1xx to 5xx.
    answers: [u64; 5],
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    count: u64,
}

#[derive(Default)]
pub struct Metrics {
    // Few keys, locked for nanoseconds.
    routes: Mutex<BTreeMap<(String, &'static str), RouteCount>>,
    streams: Arc<AtomicUsize>,
    body_bytes: AtomicU64,
}

/// Counts an open event stream as long as it lives.
pub struct StreamGuard(Arc<AtomicUsize>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// `None` when as many are open as are allowed.
    pub fn open_stream(&self, streams_max: usize) -> Option<StreamGuard> {
        self.streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < streams_max).then_some(open + 1)
            })
            .ok()
            .map(|_| StreamGuard(Arc::clone(&self.streams)))
    }

    pub fn count_body(&self, bytes: usize) {
        self.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// `route` is a pattern, not a path; `method` one of the known ones.
    pub fn count_answer(&self, route: &str, method: &'static str, status: u16, duration: Duration) {
        let mut routes = self.routes.lock();
        let count = routes.entry((route.to_string(), method)).or_default();
        count.answers[usize::from(status / 100).clamp(1, 5) - 1] += 1;
        count.count += 1;
        count.seconds += duration.as_secs_f64();
        for (bound, bucket) in BUCKETS.iter().zip(&mut count.buckets) {
            if duration.as_secs_f64() <= *bound {
                *bucket += 1;
            }
        }
    }

    /// The whole text.
    pub fn render(&self, status: &Status, bytes_in_flight: usize) -> String {
        let mut page = Page::default();
        page.single(
            "shopstream_tick_total",
            "counter",
            "Steps of the engine that were published.",
            status.tick.0,
        );
        page.single(
            "shopstream_ready",
            "gauge",
            "1 when the server answers with current data.",
            u8::from(status.ready),
        );
        page.single(
            "shopstream_writes_refused",
            "gauge",
            "1 after a failed fsync or damaged data: writes are refused, reads go on.",
            u8::from(status.writes_refused.is_some()),
        );
        page.single("shopstream_log_bytes", "gauge", "Bytes of the log on disk.", status.log_bytes);
        page.single(
            "shopstream_log_records_total",
            "counter",
            "Records written to the log.",
            status.log_records,
        );
        page.single(
            "shopstream_log_fsyncs_total",
            "counter",
            "Times the log was made durable.",
            status.fsyncs,
        );
        let checkpoints = &status.checkpoints;
        page.single(
            "shopstream_checkpoint_records",
            "gauge",
            "Records of the log that a start need not read.",
            checkpoints.from,
        );
        page.single(
            "shopstream_checkpoint_bytes",
            "gauge",
            "Bytes of the states that the last checkpoint refers to.",
            checkpoints.bytes,
        );
        page.single(
            "shopstream_checkpoint_duration_seconds",
            "gauge",
            "How long the last checkpoint took, beside everything else.",
            checkpoints.last_duration.as_secs_f64(),
        );
        page.single(
            "shopstream_checkpoints_total",
            "counter",
            "Checkpoints written since the start.",
            checkpoints.written,
        );
        page.single(
            "shopstream_checkpoints_failed_total",
            "counter",
            "Checkpoints that could not be written since the start.",
            checkpoints.failed,
        );
        page.single(
            "shopstream_backlog_records",
            "gauge",
            "Durable records that views do not show yet.",
            status.backlog_records,
        );
        page.single(
            "shopstream_last_tick_duration_seconds",
            "gauge",
            "Duration of the last step.",
            status.last_tick_duration.as_secs_f64(),
        );
        page.single(
            "shopstream_rejected_rows_total",
            "counter",
            "Rows that went to rejected_rows.",
            status.rejected_rows,
        );
        page.single(
            "shopstream_late_rows_total",
            "counter",
            "Rows that went to late_rows.",
            status.late_rows,
        );
        self.render_tables(&mut page, status);
        self.render_views(&mut page, status);
        self.render_sources(&mut page, status);
        self.render_http(&mut page, bytes_in_flight);
        if let Some(bytes) = resident_bytes() {
            page.single("process_resident_memory_bytes", "gauge", "Memory of the process.", bytes);
        }
        page.text
    }

    fn render_tables(&self, page: &mut Page, status: &Status) {
        let tables = &status.tables;
        page.head("shopstream_table_rows_total", "counter", "Rows received, by what became of them.");
        for (name, table) in tables {
            let outcomes = [
                ("accepted", table.rows_accepted),
                ("rejected", table.rows_rejected),
                ("duplicate", table.rows_duplicate),
                ("late", table.rows_late),
            ];
            for (outcome, value) in outcomes {
                page.line("shopstream_table_rows_total", &[("table", name), ("outcome", outcome)], value);
            }
        }
        page.head("shopstream_table_bytes", "gauge", "Bytes a table's rows take in memory.");
        for (name, table) in tables {
            page.line("shopstream_table_bytes", &[("table", name)], table.bytes);
        }
        page.head(
            "shopstream_table_watermark_timestamp_seconds",
            "gauge",
            "Event time up to which a table is complete.",
        );
        for (name, table) in tables {
            if let Some(time) = table.watermark_us {
                page.line(
                    "shopstream_table_watermark_timestamp_seconds",
                    &[("table", name)],
                    time as f64 / 1e6,
                );
            }
        }
        page.head("shopstream_table_max_event_timestamp_seconds", "gauge", "Newest event time of a table.");
        for (name, table) in tables {
            if let Some(time) = table.max_event_us {
                page.line(
                    "shopstream_table_max_event_timestamp_seconds",
                    &[("table", name)],
                    time as f64 / 1e6,
                );
            }
        }
        page.head("shopstream_table_idle", "gauge", "1 when a table no longer holds windows back.");
        for (name, table) in tables {
            page.line("shopstream_table_idle", &[("table", name)], u8::from(table.idle));
        }
    }

    fn render_sources(&self, page: &mut Page, status: &Status) {
        if status.sources.is_empty() {
            return;
        }
        page.head(
            "shopstream_source_rows_total",
            "counter",
            "Rows that a connector brought since the start.",
        );
        for (name, source) in &status.sources {
            let labels = [("source", name.as_str()), ("connector", source.connector.as_str())];
            page.line("shopstream_source_rows_total", &labels, source.rows);
        }
        page.head("shopstream_source_state", "gauge", "1 for the state that a source is in.");
        for (name, source) in &status.sources {
            page.line("shopstream_source_state", &[("source", name), ("state", source.state.word())], 1);
        }
    }

    fn render_views(&self, page: &mut Page, status: &Status) {
        let views = &status.views;
        page.head("shopstream_view_rows", "gauge", "Rows of a view.");
        for (name, view) in views {
            page.line("shopstream_view_rows", &[("view", name)], view.rows);
        }
        page.head("shopstream_view_bytes", "gauge", "Bytes of a view's rows.");
        for (name, view) in views {
            page.line("shopstream_view_bytes", &[("view", name)], view.bytes);
        }
        page.head("shopstream_view_state_rows", "gauge", "Rows of the state behind a view.");
        for (name, view) in views {
            page.line("shopstream_view_state_rows", &[("view", name)], view.state_rows);
        }
        page.head("shopstream_view_state_bytes", "gauge", "Bytes of the state behind a view.");
        for (name, view) in views {
            page.line("shopstream_view_state_bytes", &[("view", name)], view.state_bytes);
        }
        page.head(
            "shopstream_view_busy_seconds_total",
            "counter",
            "Time spent on keeping a view up to date.",
        );
        for (name, view) in views {
            page.line("shopstream_view_busy_seconds_total", &[("view", name)], view.busy.as_secs_f64());
        }
        page.head("shopstream_view_suspended", "gauge", "1 when an error stopped a view.");
        for (name, view) in views {
            page.line("shopstream_view_suspended", &[("view", name)], u8::from(view.suspended.is_some()));
        }
    }

    fn render_http(&self, page: &mut Page, bytes_in_flight: usize) {
        let routes = self.routes.lock().clone();
        page.head("shopstream_http_requests_total", "counter", "Answers, by route and class of status.");
        for ((route, method), count) in &routes {
            for (class, value) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(count.answers) {
                if value > 0 {
                    let labels = [("route", route.as_str()), ("method", *method), ("status", *class)];
                    page.line("shopstream_http_requests_total", &labels, value);
                }
            }
        }
        let name = "shopstream_http_request_duration_seconds";
        page.head(name, "histogram", "Time until the answer began.");
        for ((route, method), count) in &routes {
            for (bound, value) in BUCKETS.iter().zip(count.buckets) {
                let bound = bound.to_string();
                let labels = [("route", route.as_str()), ("method", *method), ("le", bound.as_str())];
                page.line(&format!("{name}_bucket"), &labels, value);
            }
            let labels = [("route", route.as_str()), ("method", *method), ("le", "+Inf")];
            page.line(&format!("{name}_bucket"), &labels, count.count);
            page.line(&format!("{name}_sum"), &labels[..2], count.seconds);
            page.line(&format!("{name}_count"), &labels[..2], count.count);
        }
        page.single(
            "shopstream_http_body_bytes_total",
            "counter",
            "Bytes of request bodies, as they came.",
            self.body_bytes.load(Ordering::Relaxed),
        );
        page.single(
            "shopstream_http_body_bytes_in_flight",
            "gauge",
            "Bytes of request bodies that wait to be durable.",
            bytes_in_flight,
        );
        page.single(
            "shopstream_http_streams_open",
            "gauge",
            "Open event streams.",
            self.streams.load(Ordering::Relaxed),
        );
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{escaped}\"");
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }
}

/// Resident memory as the kernel counts it; `None` where there is no /proc.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{TableStatus, ViewStatus};

    #[test]
    fn renders_tables_views_and_routes() {
        let metrics = Metrics::default();
        metrics.count_answer("/v1/views/{view}", "GET", 200, Duration::from_millis(3));
        metrics.count_answer("/v1/views/{view}", "GET", 404, Duration::from_millis(300));
        let status = Status {
            ready: true,
            tables: [("a\"b".to_string(), TableStatus { rows_accepted: 5, ..TableStatus::default() })].into(),
            views: [("hot_items".to_string(), ViewStatus { rows: 3, ..ViewStatus::default() })].into(),
            ..Status::default()
        };
        let text = metrics.render(&status, 42);
        for line in [
            "shopstream_ready 1",
            "shopstream_table_rows_total{table=\"a\\\"b\",outcome=\"accepted\"} 5",
            "shopstream_view_rows{view=\"hot_items\"} 3",
            "shopstream_http_requests_total{route=\"/v1/views/{view}\",method=\"GET\",status=\"4xx\"} 1",
            "shopstream_http_request_duration_seconds_bucket{route=\"/v1/views/{view}\",method=\"GET\",le=\"0.005\"} 1",
            "shopstream_http_request_duration_seconds_count{route=\"/v1/views/{view}\",method=\"GET\"} 2",
            "shopstream_http_body_bytes_in_flight 42",
        ] {
            assert!(text.lines().any(|found| found == line), "missing {line} in\n{text}");
        }
    }

    #[test]
    fn every_family_has_help_and_type_and_a_proper_name() {
        let text = Metrics::default().render(&Status::default(), 0);
        let mut typed = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                typed.push(rest.split(' ').next().unwrap());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = typed.last().unwrap();
                assert!(name.starts_with(family), "{name} stands under {family}");
                assert!(name.starts_with("shopstream_") || name == "process_resident_memory_bytes");
            }
        }
    }

    #[test]
    fn streams_are_limited_and_counted_down() {
        let metrics = Metrics::default();
        let first = metrics.open_stream(1);
        assert!(first.is_some());
        assert!(metrics.open_stream(1).is_none());
        drop(first);
        assert!(metrics.open_stream(1).is_some());
    }
}
