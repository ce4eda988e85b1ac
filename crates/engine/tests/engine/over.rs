//! Window functions and sessions in event time: rows leave once, when they are final; what lies behind is freed.

use fastrand::Rng;

use super::harness::{Harness, pause};

const EVENTS: &str = "CREATE TABLE e (k INT, v INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY";

struct Events {
    db: Harness,
    rng: Rng,
    newest: i64,
    number: i32,
}

impl Events {
    fn new(seed: u64) -> Events {
        let db = Harness::new(1 + seed as usize % 3);
        db.run(EVENTS);
        Events { db, rng: Rng::with_seed(seed), newest: 0, number: 0 }
    }

    /// Rows at most five seconds behind the newest, so that none is late. `v` tells them apart.
    fn insert(&mut self) {
        let first = self.newest;
        let rows: Vec<String> = (0..self.rng.usize(1..9))
            .map(|_| {
                let second = (first + self.rng.i64(-5..12)).max(0);
                self.newest = self.newest.max(second);
                self.number += 1;
                format!("({}, {}, to_timestamp({second}))", self.rng.i32(0..3), self.number)
            })
            .collect();
        self.db.run(&format!("INSERT INTO e VALUES {}", rows.join(", ")));
    }

    fn watermark(&self) -> i64 {
        self.newest - 5
    }
}

#[test]
fn a_row_leaves_when_its_frame_is_complete() {
    // Frame, and how long after its row's time it ends.
    let frames = [
        ("ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", 0),
        ("ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", 0),
        ("ROWS BETWEEN 4 PRECEDING AND 2 PRECEDING", 0),
        ("RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW", 0),
        ("RANGE BETWEEN INTERVAL '9 seconds' PRECEDING AND INTERVAL '3 seconds' PRECEDING", 0),
        ("RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND INTERVAL '7 seconds' FOLLOWING", 7),
        ("RANGE BETWEEN INTERVAL '2 seconds' FOLLOWING AND INTERVAL '4 seconds' FOLLOWING", 4),
        ("RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", 0),
        ("GROUPS BETWEEN 2 PRECEDING AND CURRENT ROW", 0),
    ];
    for seed in 0..45 {
        let mut events = Events::new(seed);
        let (frame, following) = frames[seed as usize % frames.len()];
        let partition = ["PARTITION BY k ", ""][events.rng.usize(..2)];
        // With ROWS, ties are broken by the other columns, in their order.
        let order = if frame.starts_with("ROWS") { "ts, k, v" } else { "ts" };
        let over = format!("OVER ({partition}ORDER BY {order} {frame})");
        let mut query = format!(
            "SELECT k, v, ts, count(*) {over} AS n, sum(v) {over} AS s, min(v) {over} AS lo, max(v) {over} AS hi, \
             rank() OVER ({partition}ORDER BY ts) AS r, dense_rank() OVER ({partition}ORDER BY ts) AS d, \
             lag(v, 2) OVER ({partition}ORDER BY ts, k, v) AS l, row_number() OVER ({partition}ORDER BY ts, k, v) AS rn"
        );
        if frame.starts_with("ROWS") {
            query += &format!(
                ", first_value(v) {over} AS f, last_value(v) {over} AS z, nth_value(v, 2) {over} AS x"
            );
        }
        query += " FROM e";
        events.db.run(&format!("CREATE MATERIALIZED VIEW v AS {query} EMIT ON WINDOW CLOSE"));
        for round in 0..25 {
            events.insert();
            if events.rng.u8(..8) == 0 {
                events.db.restart();
            }
            let last = events.watermark() - following;
            let batch =
                events.db.run(&format!("SELECT * FROM ({query}) AS q WHERE ts < to_timestamp({last})"));
            assert_eq!(events.db.run("SELECT * FROM v"), batch, "seed {seed}, round {round}: {query}");
        }
        assert_eq!(events.db.run("SELECT count(*) FROM late_rows"), ["0"]);
    }
}

#[test]
fn rows_that_look_forward_wait_for_what_they_look_at() {
    for seed in 0..10 {
        let mut events = Events::new(seed);
        let query = "SELECT k, v, ts, lead(v, 2) OVER (ORDER BY ts, k, v) AS l, \
                     sum(v) OVER (ORDER BY ts, k, v ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING) AS s FROM e";
        events.db.run(&format!("CREATE MATERIALIZED VIEW v AS {query} EMIT ON WINDOW CLOSE"));
        for _ in 0..25 {
            events.insert();
            let batch = events.db.run(&format!(
                "SELECT k, v, ts, l, s FROM (SELECT *, lead(ts, 2) OVER (ORDER BY ts, k, v) AS last FROM ({query}) AS q) AS r WHERE last < to_timestamp({})",
                events.watermark()
            ));
            assert_eq!(events.db.run("SELECT * FROM v"), batch, "seed {seed}");
        }
    }
}

#[test]
fn frames_free_what_lies_behind_them() {
    for workers in [1, 3] {
        let db = Harness::new(workers);
        db.run(EVENTS);
        db.run("CREATE MATERIALIZED VIEW v AS SELECT k, ts, count(*) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW) AS n FROM e EMIT ON WINDOW CLOSE");
        db.run("CREATE MATERIALIZED VIEW s AS SELECT k, window_start, count(*) AS n FROM SESSION(e PARTITION BY k, ts, INTERVAL '5 seconds') GROUP BY k, window_start, window_end");
        db.run(
            "INSERT INTO e SELECT x % 1000, x, to_timestamp(x / 100) FROM generate_series(0, 100000) AS g(x)",
        );
        db.run("INSERT INTO e VALUES (1, 1, to_timestamp(100000))");
        pause(std::time::Duration::from_millis(1100));
        db.run("INSERT INTO e VALUES (1, 1, to_timestamp(100001))");
        let status = db.database().status();
        for view in ["v", "s"] {
            assert!(status.views[view].state_rows <= 4, "{view}: {:?}", status.views[view]);
        }
        assert_eq!(db.run("SELECT count(*), max(n) FROM v"), ["100001 | 2"]);
    }
}

#[test]
fn sessions_are_emitted_once_when_the_watermark_passes_their_end() {
    let db = Harness::new(1);
    db.run(EVENTS);
    db.run("CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE e PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' SECONDS)) GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE");
    db.run("INSERT INTO e VALUES (1, 1, to_timestamp(0)), (1, 2, to_timestamp(10)), (2, 3, to_timestamp(5))");
    db.run("INSERT INTO e VALUES (3, 4, to_timestamp(20))");
    assert_eq!(db.run("SELECT * FROM v"), Vec::<String>::new(), "the watermark is at 15 s");
    // A row at just the end of a session belongs to it.
    db.run("INSERT INTO e VALUES (2, 5, to_timestamp(15)), (4, 6, to_timestamp(26))");
    assert_eq!(db.run("SELECT * FROM v"), ["1 | 1970-01-01T00:00:00Z | 1970-01-01T00:00:20Z | 2"]);
    db.run("INSERT INTO e VALUES (1, 7, to_timestamp(9))");
    assert_eq!(db.run("SELECT relation, views FROM late_rows"), ["e | v"]);
    db.run("INSERT INTO e VALUES (4, 8, to_timestamp(60))");
    assert_eq!(
        db.run("SELECT * FROM v"),
        [
            "1 | 1970-01-01T00:00:00Z | 1970-01-01T00:00:20Z | 2",
            "2 | 1970-01-01T00:00:05Z | 1970-01-01T00:00:25Z | 2",
            "3 | 1970-01-01T00:00:20Z | 1970-01-01T00:00:30Z | 1",
            "4 | 1970-01-01T00:00:26Z | 1970-01-01T00:00:36Z | 1",
        ]
    );
}

#[test]
fn closed_sessions_equal_the_batch_answer_at_every_step() {
    for seed in 0..24 {
        let mut events = Events::new(seed);
        let gap = events.rng.i64(1..9);
        let rows = format!(
            "SELECT k, v, window_start, window_end FROM SESSION(e PARTITION BY k, ts, INTERVAL '{gap} seconds')"
        );
        let groups = format!(
            "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM SESSION(e PARTITION BY k, ts, INTERVAL '{gap} seconds') GROUP BY k, window_start, window_end"
        );
        events.db.run(&format!("CREATE MATERIALIZED VIEW r AS {rows} EMIT ON WINDOW CLOSE"));
        events.db.run(&format!("CREATE MATERIALIZED VIEW g AS {groups} EMIT ON WINDOW CLOSE"));
        events.db.run(&format!("CREATE MATERIALIZED VIEW u AS {groups}"));
        for round in 0..25 {
            events.insert();
            if events.rng.u8(..8) == 0 {
                events.db.restart();
            }
            let closed = format!("WHERE window_end < to_timestamp({})", events.watermark());
            for (view, query) in [("r", &rows), ("g", &groups)] {
                let batch = events.db.run(&format!("SELECT * FROM ({query}) AS q {closed}"));
                assert_eq!(events.db.run(&format!("SELECT * FROM {view}")), batch, "seed {seed}, {round}");
            }
            assert_eq!(events.db.run("SELECT * FROM u"), events.db.run(&groups), "seed {seed}, {round}");
        }
    }
}

#[test]
fn steps_do_not_show_in_sessions_with_late_rows() {
    for seed in 0..12 {
        let mut events = Events::new(seed);
        let windows =
            "SESSION(e PARTITION BY k, ts, INTERVAL '6 seconds') GROUP BY k, window_start, window_end";
        events.db.run(&format!(
            "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, count(*) AS n FROM {windows}"
        ));
        events.db.run(&format!("CREATE MATERIALIZED VIEW w AS SELECT k, window_start, window_end, count(*) AS n FROM {windows} EMIT ON WINDOW CLOSE"));
        for number in 0..40 {
            events.newest += events.rng.i64(0..9);
            let rows: Vec<String> = (0..events.rng.usize(1..6))
                .map(|_| {
                    let second = (events.newest - events.rng.i64(0..30)).max(0);
                    format!("({}, {number}, to_timestamp({second}))", events.rng.i32(0..3))
                })
                .collect();
            events.db.run(&format!("INSERT INTO e VALUES {}", rows.join(", ")));
        }
        let views = ["SELECT * FROM v", "SELECT * FROM w", "SELECT * FROM late_rows"];
        let live: Vec<Vec<String>> = views.iter().map(|view| events.db.run(view)).collect();
        assert!(!live[2].is_empty(), "the test has late rows");
        // After a restart the log is replayed in steps of another size.
        events.db.restart();
        for (view, rows) in views.iter().zip(live) {
            assert_eq!(events.db.run(view), rows, "seed {seed}: {view}");
        }
    }
}

#[test]
fn sessions_with_gap_in_an_over_clause() {
    let db = Harness::new(1);
    db.run(EVENTS);
    let query = "SELECT k, v, first_value(ts) OVER (PARTITION BY k ORDER BY ts SESSION WITH GAP INTERVAL '10 seconds') AS first, \
                 count(*) OVER (PARTITION BY k ORDER BY ts SESSION WITH GAP INTERVAL '10 seconds') AS n FROM e";
    db.run(&format!("CREATE MATERIALIZED VIEW u AS {query}"));
    db.run(&format!("CREATE MATERIALIZED VIEW c AS {query} EMIT ON WINDOW CLOSE"));
    db.run("INSERT INTO e VALUES (1, 1, to_timestamp(0)), (1, 2, to_timestamp(30)), (2, 3, to_timestamp(3))");
    db.run("INSERT INTO e VALUES (1, 4, to_timestamp(36)), (1, 5, to_timestamp(26))");
    let first = ["1 | 1 | 1970-01-01T00:00:00Z | 1", "2 | 3 | 1970-01-01T00:00:03Z | 1"];
    let all = [
        first[0],
        "1 | 2 | 1970-01-01T00:00:26Z | 3",
        "1 | 4 | 1970-01-01T00:00:26Z | 3",
        "1 | 5 | 1970-01-01T00:00:26Z | 3",
        first[1],
    ];
    assert_eq!(db.run("SELECT * FROM u"), all);
    assert_eq!(db.run(query), all);
    assert_eq!(db.run("SELECT * FROM c"), first);
}

#[test]
fn what_is_never_final_is_refused_by_name() {
    let db = Harness::new(1);
    db.run(EVENTS);
    for (call, message) in [
        ("percent_rank() OVER (ORDER BY ts)", "never final"),
        ("sum(v) OVER (ORDER BY ts ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)", "UNBOUNDED FOLLOWING"),
        ("sum(v) OVER (ORDER BY v)", "watermark column"),
        ("sum(v) OVER (ORDER BY ts DESC)", "watermark column"),
    ] {
        let error = db.error(&format!(
            "CREATE MATERIALIZED VIEW v AS SELECT ts, {call} AS x FROM e EMIT ON WINDOW CLOSE"
        ));
        assert!(error.message.contains(message), "{call}: {}", error.message);
        assert!(error.hint.is_some(), "{call}");
    }
    let error = db.error("CREATE MATERIALIZED VIEW v AS SELECT lag(v, k) OVER (ORDER BY ts) AS x FROM e");
    assert!(error.message.contains("constant"), "{}", error.message);
    let error = db.error("SELECT * FROM SESSION(e, ts, 5)");
    assert_eq!(error.state.code(), "22023", "{error:?}");
    assert!(error.position.is_some());
}
