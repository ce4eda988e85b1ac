//! Views over data that is there already are built while everything else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::Batching;
use fastrand::Rng;
use sql::SqlState;

use super::harness::{Harness, pause};

const QUERIES: [&str; 7] = [
    "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k",
    "SELECT t.k, t.v, u.name FROM t JOIN u ON t.k = u.k",
    "SELECT count(*) AS n FROM t LEFT JOIN u ON t.k = u.k AND u.name > 'b' WHERE u.k IS NULL",
    "SELECT k, v, rn FROM (SELECT k, v, id, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM t) WHERE rn <= 2",
    "SELECT DISTINCT v FROM t WHERE k NOT IN (SELECT k FROM u)",
    "SELECT n, count(*) AS groups FROM v0 GROUP BY n",
    "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY id) AS running, id FROM t WHERE k < 3",
];

/// Someone writes all the time. Whatever a view takes from the log and whatever comes meanwhile: no gap, no overlap.
#[test]
fn without_gap_or_overlap() {
    let mut rng = Rng::with_seed(fastrand::u64(..));
    println!("seed {}", rng.get_seed());
    let mut db = Harness::new(2);
    db.batching = Batching { at_once_bytes: 0, ..Batching::default() };
    db.restart();
    db.run("CREATE TABLE t (id BIGINT PRIMARY KEY, k INT, v INT)");
    db.run("CREATE TABLE u (k INT, name TEXT)");
    db.run("INSERT INTO t SELECT g, g % 7, g % 11 FROM generate_series(1, 3000) AS g");
    db.run("INSERT INTO u SELECT g, chr(97 + g) FROM generate_series(0, 4) AS g");
    for round in 0..2 {
        let stop = AtomicBool::new(false);
        let database = Arc::clone(db.database());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let session = database.session();
                while !stop.load(Ordering::Relaxed) {
                    let (id, k, v) = (rng.i64(1..4000), rng.i32(0..9), rng.i32(0..20));
                    let statement = match rng.u8(..6) {
                        0 => format!("DELETE FROM t WHERE id = {id}"),
                        1 => format!("UPDATE t SET v = {v} WHERE k = {k}"),
                        2 => format!("INSERT INTO u VALUES ({k}, 'x')"),
                        3 => format!("DELETE FROM u WHERE k = {k}"),
                        _ => format!("INSERT INTO t VALUES ({id}, {k}, {v}), ({}, {k}, 1)", id + 1),
                    };
                    for statement in session.parse(&statement).unwrap() {
                        drop(runtime.block_on(session.run(&statement, vec![])).unwrap());
                    }
                }
            });
            for (number, query) in QUERIES.iter().enumerate() {
                let name = format!("v{}", round * QUERIES.len() + number);
                db.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
            }
            stop.store(true, Ordering::Relaxed);
        });
        drop(database);
        db.run("FLUSH");
        for (number, query) in QUERIES.iter().enumerate() {
            for round in 0..=round {
                let name = format!("v{}", round * QUERIES.len() + number);
                assert_eq!(db.run(&format!("SELECT * FROM {name}")), db.run(query), "{name}: {query}");
            }
        }
        assert!(db.run("SHOW JOBS").is_empty());
        db.restart();
    }
    for (number, query) in QUERIES.iter().enumerate() {
        assert_eq!(db.run(&format!("SELECT * FROM v{number}")), db.run(query), "after a restart: {query}");
    }
}

#[test]
fn a_view_on_its_way_is_not_read_but_seen_and_dropped() {
    let mut db = Harness::new(1);
    db.batching = Batching { at_once_bytes: 0, ..Batching::default() };
    db.restart();
    db.run("CREATE TABLE t (k INT, v INT)");
    db.run("INSERT INTO t SELECT 1, g FROM generate_series(1, 3000) AS g");
    // Nine million pairs take a while.
    db.run("SET background_ddl = on; CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n FROM t a JOIN t b ON a.k = b.k");
    let jobs = db.run("SHOW JOBS");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(jobs[0].contains("CREATE MATERIALIZED VIEW pairs"), "{jobs:?}");
    for sql in [
        "SELECT * FROM pairs",
        "SELECT n FROM pairs WHERE n = 3",
        "CREATE MATERIALIZED VIEW above AS SELECT n + 1 AS m FROM pairs",
        "CREATE INDEX i ON pairs (n)",
    ] {
        let error = db.try_run(sql).expect_err(sql);
        assert_eq!(error.state, SqlState::ObjectNotInPrerequisiteState, "{sql}: {error:?}");
        assert!(error.message.contains("materialized view \"pairs\" is being built"), "{sql}: {error:?}");
    }
    let error = db.database().subscribe("pairs", None).err().unwrap();
    assert_eq!(error.state, SqlState::ObjectNotInPrerequisiteState);
    // Everything else goes on.
    db.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM t");
    db.run("INSERT INTO t VALUES (2, 1)");
    db.run("FLUSH");
    assert_eq!(db.run("SELECT * FROM total"), ["3001"]);
    db.run("DROP MATERIALIZED VIEW pairs");
    assert!(db.run("SHOW JOBS").is_empty());
    assert_eq!(db.try_run("SELECT * FROM pairs").unwrap_err().state, SqlState::UndefinedTable);
    // Its name is free, and who doesn't ask for the background waits.
    db.run("DELETE FROM t WHERE v > 100");
    db.run("CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n FROM t a JOIN t b ON a.k = b.k");
    assert_eq!(db.run("SELECT * FROM pairs"), [(100 * 100 + 1).to_string()]);
    assert!(db.try_run("SET background_ddl = perhaps").is_err());
}

/// A column that is added meanwhile, and another name: the view has what it would have had.
#[test]
fn definitions_change_meanwhile() {
    let mut db = Harness::new(1);
    db.batching = Batching { at_once_bytes: 0, ..Batching::default() };
    db.restart();
    db.run("CREATE TABLE t (k INT, v INT)");
    db.run("INSERT INTO t SELECT 1, g FROM generate_series(1, 1000) AS g");
    db.run("SET background_ddl = on; CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n FROM t a JOIN t b ON a.k = b.k");
    db.run("ALTER TABLE t ADD COLUMN w INT");
    db.run("ALTER MATERIALIZED VIEW pairs RENAME TO couples");
    db.run("INSERT INTO t VALUES (1, 2, 3)");
    db.run("FLUSH");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !db.run("SHOW JOBS").is_empty() {
        assert!(Instant::now() < deadline, "the view is not built");
        pause(Duration::from_millis(10));
    }
    assert_eq!(db.run("SELECT * FROM couples"), [(1001 * 1001).to_string()]);
    db.restart();
    assert_eq!(db.run("SELECT * FROM couples"), [(1001 * 1001).to_string()]);
}
