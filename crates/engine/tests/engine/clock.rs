//! Views that compare with now(): rows come and go with the clock, which is in the log.

use std::time::Duration;

use super::harness::{Harness, pause, until};

/// The view's rows, and its query's as of the tick's clock; taken again when a tick came in between, and a few times
/// more when they differ: the clock and the rows are not read at one moment.
fn view_and_query(db: &Harness, view: &str, query: &str) -> (Vec<String>, Vec<String>) {
    let mut attempts = 0;
    loop {
        let before = db.database().clock_us();
        let rows = db.run(&format!("SELECT * FROM {view}"));
        let now = chrono::DateTime::from_timestamp_micros(before.unwrap_or(0)).unwrap();
        let time = now.format("TIMESTAMPTZ '%Y-%m-%d %H:%M:%S%.6f+00'").to_string();
        let expected = db.run(&query.replace("now()", &time));
        attempts += 1;
        if db.database().clock_us() == before && (rows == expected || attempts > 50) {
            return (rows, expected);
        }
        pause(Duration::from_millis(20));
    }
}

#[test]
fn rows_come_and_go_without_any_write() {
    let mut db = Harness::new(1);
    db.run("CREATE TABLE e (id INT, ts TIMESTAMPTZ)");
    let queries = [
        ("recent", "SELECT id FROM e WHERE ts > now() - INTERVAL '3 seconds'"),
        ("coming", "SELECT id FROM e WHERE ts <= now() AND id < 100"),
        (
            "around",
            "SELECT id FROM e WHERE ts BETWEEN now() - INTERVAL '2 seconds' AND now() + INTERVAL '1 second'",
        ),
        ("counted", "SELECT count(*) AS n FROM e WHERE ts + INTERVAL '3 seconds' > now()"),
    ];
    for (name, query) in queries {
        db.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
    }
    let rows: Vec<String> = (-4..5).map(|x| format!("({x}, now() + INTERVAL '{x} seconds')")).collect();
    db.run(&format!("INSERT INTO e VALUES {}, (9, NULL), (1000, now())", rows.join(", ")));
    let check = |db: &Harness| {
        for (name, query) in queries {
            let (rows, expected) = view_and_query(db, name, query);
            assert_eq!(rows, expected, "{name}");
        }
    };
    check(&db);
    assert!(!db.run("SELECT * FROM recent").is_empty());
    let records = db.database().status().log_records;
    until("the last row's leaving", || {
        check(&db);
        db.run("SELECT * FROM recent").is_empty() && db.run("SELECT * FROM coming").len() == 9
    });
    // At most one clock record per second, and none once nothing can change any more.
    let written = db.database().status().log_records - records;
    assert!((3..=14).contains(&written), "{written} records");
    let status = db.database().status();
    until("freeing", || db.database().status().views["recent"].state_rows == 0);
    pause(Duration::from_millis(2500));
    assert_eq!(db.database().status().log_records, status.log_records);
    db.restart();
    check(&db);
    // A view that is created later is where it would be.
    db.run("CREATE MATERIALIZED VIEW later AS SELECT id FROM e WHERE ts <= now() AND id < 100 AND id > -100");
    assert_eq!(db.run("SELECT * FROM later").len(), 9);
}

#[test]
fn a_random_history_equals_its_query_at_every_moment() {
    let mut rng = fastrand::Rng::with_seed(fastrand::u64(..));
    let seed = rng.get_seed();
    let mut db = Harness::new(1 + rng.usize(..3));
    db.run("CREATE TABLE e (id BIGINT PRIMARY KEY, g INT, ts TIMESTAMPTZ)");
    let queries = [
        ("a", "SELECT * FROM e WHERE ts > now() - INTERVAL '700 milliseconds'"),
        (
            "b",
            "SELECT g, count(*) AS n, max(id) AS m FROM e WHERE ts < now() - INTERVAL '300 milliseconds' GROUP BY g",
        ),
        ("c", "SELECT g, count(*) AS n FROM e GROUP BY g HAVING max(ts) > now() - INTERVAL '1 second'"),
        (
            "d",
            "SELECT l.id FROM e l JOIN e r ON l.g = r.g WHERE l.ts > now() - INTERVAL '500 milliseconds' AND r.ts <= now()",
        ),
    ];
    for (i, (name, query)) in queries.iter().enumerate() {
        if i < 2 {
            db.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
        }
    }
    for round in 0..40 {
        if round == 12 {
            for (name, query) in &queries[2..] {
                db.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
            }
        }
        let id = rng.i64(0..40);
        let ms = rng.i64(-1500..1500);
        let statement = match rng.u8(..4) {
            0 => format!("DELETE FROM e WHERE id = {id}"),
            1 => format!("INSERT INTO e VALUES ({id}, {}, NULL)", id % 3),
            _ => format!("INSERT INTO e VALUES ({id}, {}, now() + INTERVAL '{ms} milliseconds')", id % 3),
        };
        db.run(&statement);
        pause(Duration::from_millis(rng.u64(..60)));
        if rng.u8(..10) == 0 {
            db.restart();
        }
        let there = if round < 12 { 2 } else { 4 };
        for (name, query) in &queries[..there] {
            let (rows, expected) = view_and_query(&db, name, query);
            assert_eq!(rows, expected, "seed {seed}, round {round}, {name}");
        }
    }
}

#[test]
fn now_elsewhere_is_refused_with_the_way_out() {
    let db = Harness::new(1);
    db.run("CREATE TABLE e (id INT, ts TIMESTAMPTZ)");
    for query in [
        "SELECT now() - ts AS age FROM e",
        "SELECT id FROM e WHERE ts <> now()",
        "SELECT id FROM e WHERE ts > now() - INTERVAL '1 hour' OR id = 1",
        "SELECT id FROM e WHERE TIMESTAMPTZ '2024-01-01' - now() < INTERVAL '1 day'",
        "SELECT max(now()) AS m FROM e",
        "SELECT id FROM e WHERE ts > now() - INTERVAL '1 month'",
    ] {
        let error = db.error(&format!("CREATE MATERIALIZED VIEW v AS {query}"));
        assert_eq!(error.state.code(), "0A000", "{query}: {error:?}");
        assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("now()")), "{query}: {error:?}");
    }
}
