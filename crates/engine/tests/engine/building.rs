//! Views over data that is there already are built while everything else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::Batching;
use fastrand::Rng;
use sql::SqlState;

use super::harness::{Client, Harness, pause, until};

const QUERIES: [&str; 7] = [
    "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k",
    "SELECT t.k, t.v, u.name FROM t JOIN u ON t.k = u.k",
    "SELECT count(*) AS n FROM t LEFT JOIN u ON t.k = u.k AND u.name > 'b' WHERE u.k IS NULL",
    "SELECT k, v, rn FROM (SELECT k, v, id, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM t) WHERE rn <= 2",
    "SELECT DISTINCT v FROM t WHERE k NOT IN (SELECT k FROM u)",
    "SELECT n, count(*) AS groups FROM v0 GROUP BY n",
    "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY id) AS running, id FROM t WHERE k < 3",
];

/// Not only counted: each pair is made.
const PAIRS: &str = "SELECT count(*) AS n, sum(a.v + b.v) AS s FROM t a JOIN t b ON a.k = b.k";

/// Builds every view by a thread, however little there is to read.
fn always_building(workers: usize) -> Harness {
    let mut db = Harness::new(workers);
    db.batching = Batching { at_once_bytes: 0, ..Batching::default() };
    db.restart();
    db
}

/// Someone writes all the time. Whatever a view takes from the log and whatever comes meanwhile: no gap, no overlap.
#[test]
fn without_gap_or_overlap() {
    let mut rng = Rng::with_seed(fastrand::u64(..));
    println!("seed {}", rng.get_seed());
    let mut db = always_building(2);
    db.run("CREATE TABLE t (id BIGINT PRIMARY KEY, k INT, v INT)");
    db.run("CREATE TABLE u (k INT, name TEXT)");
    db.run("INSERT INTO t SELECT g, g % 7, g % 11 FROM generate_series(1, 3000) AS g");
    db.run("INSERT INTO u SELECT g, chr(97 + g) FROM generate_series(0, 4) AS g");
    for round in 0..2 {
        let stop = AtomicBool::new(false);
        let database = Arc::clone(db.database());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let client = Client::of(&database);
                while !stop.load(Ordering::Relaxed) {
                    let (id, k, v) = (rng.i64(1..4000), rng.i32(0..9), rng.i32(0..20));
                    let statement = match rng.u8(..6) {
                        0 => format!("DELETE FROM t WHERE id = {id}"),
                        1 => format!("UPDATE t SET v = {v} WHERE k = {k}"),
                        2 => format!("INSERT INTO u VALUES ({k}, 'x')"),
                        3 => format!("DELETE FROM u WHERE k = {k}"),
                        _ => format!("INSERT INTO t VALUES ({id}, {k}, {v}), ({}, {k}, 1)", id + 1),
                    };
                    client.run(&statement);
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
    let db = always_building(1);
    db.run("CREATE TABLE t (k INT, v INT)");
    db.run("INSERT INTO t SELECT 1, g FROM generate_series(1, 5000) AS g");
    // 25 million pairs take a while.
    db.run(&format!("SET background_ddl = on; CREATE MATERIALIZED VIEW pairs AS {PAIRS}"));
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
    assert_eq!(db.run("SELECT * FROM total"), ["5001"]);
    db.run("DROP MATERIALIZED VIEW pairs");
    assert!(db.run("SHOW JOBS").is_empty());
    assert_eq!(db.try_run("SELECT * FROM pairs").unwrap_err().state, SqlState::UndefinedTable);
    // Its name is free, and who doesn't ask for the background waits.
    db.run("DELETE FROM t WHERE v > 100");
    db.run(&format!("CREATE MATERIALIZED VIEW pairs AS {PAIRS}"));
    assert_eq!(db.run("SELECT n FROM pairs"), [(100 * 100 + 1).to_string()]);
    assert!(db.try_run("SET background_ddl = perhaps").is_err());
}

/// A column that is added meanwhile, and another name: the view has what it would have had.
#[test]
fn definitions_change_meanwhile() {
    let mut db = always_building(1);
    db.run("CREATE TABLE t (k INT, v INT)");
    db.run("INSERT INTO t SELECT 1, g FROM generate_series(1, 1000) AS g");
    db.run("SET background_ddl = on; CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n FROM t a JOIN t b ON a.k = b.k");
    db.run("ALTER TABLE t ADD COLUMN w INT");
    db.run("ALTER MATERIALIZED VIEW pairs RENAME TO couples");
    db.run("INSERT INTO t VALUES (1, 2, 3)");
    db.run("FLUSH");
    until("the end of the job", || db.run("SHOW JOBS").is_empty());
    assert_eq!(db.run("SELECT * FROM couples"), [(1001 * 1001).to_string()]);
    db.restart();
    assert_eq!(db.run("SELECT * FROM couples"), [(1001 * 1001).to_string()]);
}

/// What is read meanwhile is the old view, and then the new one, with all that stand on it, at one tick.
#[test]
fn a_view_is_replaced_with_those_above() {
    let mut rng = Rng::with_seed(fastrand::u64(..));
    println!("seed {}", rng.get_seed());
    for at_once_bytes in [0, 1 << 20] {
        let mut db = Harness::new(2);
        db.batching = Batching { at_once_bytes, ..Batching::default() };
        db.restart();
        db.run("CREATE TABLE t (id BIGINT PRIMARY KEY, k INT, v INT)");
        db.run("INSERT INTO t SELECT g, g % 7, g % 11 FROM generate_series(1, 2000) AS g");
        db.run("CREATE MATERIALIZED VIEW base AS SELECT k, count(*) AS n FROM t GROUP BY k");
        db.run("CREATE INDEX base_n ON base (n)");
        db.run("CREATE VIEW plain AS SELECT k FROM base WHERE n > 1");
        db.run("CREATE MATERIALIZED VIEW above AS SELECT n, count(*) AS ks FROM base GROUP BY n");
        db.run("CREATE MATERIALIZED VIEW top AS SELECT max(ks) AS m, (SELECT count(*) FROM plain) AS ks FROM above");
        db.run("CREATE MATERIALIZED VIEW beside AS SELECT k, count(*) AS n FROM t GROUP BY k");
        let stop = AtomicBool::new(false);
        let database = Arc::clone(db.database());
        let replacement = "SELECT k, sum(v)::bigint AS n, max(id) AS newest FROM t WHERE v > 2 GROUP BY k";
        std::thread::scope(|scope| {
            // Views of one tick agree, whichever of the two it is.
            scope.spawn(|| {
                let client = Client::of(&database);
                while !stop.load(Ordering::Relaxed) {
                    let (id, k, v) = (rng.i64(1..2500), rng.i32(0..9), rng.i32(0..20));
                    let write = match rng.u8(..3) {
                        0 => format!("DELETE FROM t WHERE id = {id}"),
                        _ => format!("INSERT INTO t VALUES ({id}, {k}, {v})"),
                    };
                    let differs = "SELECT count(*) FROM (SELECT n, count(*) AS ks FROM base GROUP BY n EXCEPT SELECT n, ks FROM above) d";
                    client.run(&write);
                    assert_eq!(client.run(differs), ["0"], "base and above are of different ticks");
                }
            });
            db.run(&format!("CREATE OR REPLACE MATERIALIZED VIEW base AS {replacement}"));
            stop.store(true, Ordering::Relaxed);
        });
        drop(database);
        db.run("FLUSH");
        let check = |db: &Harness| {
            assert_eq!(db.run("SELECT * FROM base"), db.run(replacement));
            assert_eq!(
                db.run("SELECT * FROM above"),
                db.run("SELECT n, count(*) AS ks FROM base GROUP BY n")
            );
            let top = "SELECT max(ks) AS m, (SELECT count(*) FROM plain) AS ks FROM above";
            assert_eq!(db.run("SELECT * FROM top"), db.run(top));
            assert_eq!(db.run("SELECT * FROM beside"), db.run("SELECT k, count(*) AS n FROM t GROUP BY k"));
            let some = db.run("SELECT n FROM base").pop().unwrap();
            assert!(!db.run(&format!("SELECT k FROM base WHERE n = {some}")).is_empty(), "by its index");
        };
        check(&db);
        for round in 0..2 {
            db.run("INSERT INTO t SELECT g, g % 5, 7 FROM generate_series(100, 300) AS g");
            db.run("DELETE FROM t WHERE v = 3");
            db.run("FLUSH");
            check(&db);
            assert!(db.run("SHOW JOBS").is_empty());
            if round == 0 {
                db.restart();
                check(&db);
            }
        }
        db.run("DROP MATERIALIZED VIEW base CASCADE");
        db.run("INSERT INTO t VALUES (1, 1, 1)");
        db.run("FLUSH");
        assert_eq!(db.run("SELECT * FROM beside"), db.run("SELECT k, count(*) AS n FROM t GROUP BY k"));
    }
}

#[test]
fn what_can_not_be_replaced_says_why() {
    let db = Harness::new(1);
    db.run("CREATE TABLE t (k INT, v INT)");
    db.run("CREATE VIEW plain AS SELECT k FROM t");
    db.run("CREATE MATERIALIZED VIEW base AS SELECT k, v FROM t");
    db.run("CREATE MATERIALIZED VIEW all_of_it AS SELECT * FROM base");
    db.run("CREATE VIEW seen AS SELECT k FROM all_of_it");
    for (sql, state, words) in [
        (
            "CREATE OR REPLACE MATERIALIZED VIEW plain AS SELECT 1 AS one",
            SqlState::WrongObjectType,
            "can't become a materialized view",
        ),
        ("CREATE OR REPLACE VIEW base AS SELECT k FROM t", SqlState::WrongObjectType, "can't become a view"),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW base AS SELECT * FROM base",
            SqlState::InvalidDefinition,
            "would read itself",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW base AS SELECT k, 1 AS v FROM seen",
            SqlState::InvalidDefinition,
            "would read itself",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW base AS SELECT k FROM t",
            SqlState::InvalidDefinition,
            "cannot change column \"v\"",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW base AS SELECT k, v, 1 AS more FROM t",
            SqlState::DependentObjectsStillExist,
            "\"all_of_it\" would get other columns",
        ),
    ] {
        let error = db.try_run(sql).expect_err(sql);
        assert_eq!(error.state, state, "{sql}: {error:?}");
        assert!(error.message.contains(words), "{sql}: {error:?}");
    }
    db.run("CREATE MATERIALIZED VIEW free AS SELECT k FROM t");
    db.run("CREATE INDEX free_k ON free (k)");
    let error = db.try_run("CREATE OR REPLACE MATERIALIZED VIEW free AS SELECT v FROM t").unwrap_err();
    assert!(error.message.contains("because index \"free_k\" is on it"), "{error:?}");
    db.run("DROP INDEX free_k");
    // With nobody above, its columns may be any.
    db.run("CREATE OR REPLACE MATERIALIZED VIEW free AS SELECT v AS w, k + 1 AS l FROM t");
    db.run("INSERT INTO t VALUES (1, 2)");
    db.run("FLUSH");
    assert_eq!(db.run("SELECT w, l FROM free"), ["2 | 2"]);
    assert_eq!(db.try_run("CANCEL JOB 5").unwrap_err().state, SqlState::UndefinedObject);
}

/// The old view stays until the new one is there; definitions wait; calling it off changes nothing.
#[test]
fn a_replacement_is_called_off() {
    let mut db = always_building(1);
    db.run("CREATE TABLE t (k INT, v INT)");
    db.run("INSERT INTO t SELECT 1, g FROM generate_series(1, 5000) AS g");
    db.run("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t");
    let changes = db.database().subscribe("v", None).unwrap();
    db.run(&format!("SET background_ddl = on; CREATE OR REPLACE MATERIALIZED VIEW v AS {PAIRS}"));
    assert_eq!(db.run("SELECT * FROM v"), ["5000"]);
    let jobs = db.run("SHOW JOBS");
    assert!(jobs.len() == 1 && jobs[0].contains("CREATE OR REPLACE MATERIALIZED VIEW v"), "{jobs:?}");
    for sql in [
        "DROP TABLE t CASCADE",
        "CREATE MATERIALIZED VIEW w AS SELECT n FROM v",
        "ALTER TABLE t ADD COLUMN w INT",
    ] {
        let error = db.try_run(sql).expect_err(sql);
        assert!(error.message.contains("\"v\" is being replaced"), "{sql}: {error:?}");
    }
    let id = jobs[0].split(" | ").next().unwrap();
    db.run(&format!("CANCEL JOB {id}"));
    until("the end of the job", || db.run("SHOW JOBS").is_empty());
    db.run("INSERT INTO t VALUES (2, 1)");
    db.run("FLUSH");
    assert_eq!(db.run("SELECT * FROM v"), ["5001"]);
    db.restart();
    assert_eq!(db.run("SELECT * FROM v"), ["5001"]);
    drop(changes);
    db.run("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT max(v) AS n FROM t");
    assert_eq!(db.run("SELECT * FROM v"), ["5000"]);
    db.restart();
    assert_eq!(db.run("SELECT * FROM v"), ["5000"]);
}

/// Called off at any moment, also while its definition is on its way to the log: the view is what a restart makes of it.
#[test]
fn a_replacement_is_called_off_at_any_moment() {
    let mut db = always_building(1);
    db.run("CREATE TABLE t (k INT)");
    db.run("INSERT INTO t VALUES (1), (2), (3)");
    db.run("CREATE MATERIALIZED VIEW v AS SELECT 0 AS version, count(*) AS n FROM t");
    let (mut replaced, mut called_off) = (0, 0);
    for version in 1..60u64 {
        let before = db.run("SELECT * FROM v");
        db.run(&format!(
            "SET background_ddl = on; CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT {version} AS version, count(*) AS n FROM t"
        ));
        if let Some(job) = db.run("SHOW JOBS").first() {
            let id = job.split(" | ").next().unwrap();
            // A little later each time.
            pause(Duration::from_micros(version * 250));
            if let Err(error) = db.try_run(&format!("CANCEL JOB {id}")) {
                assert_eq!(error.state, SqlState::UndefinedObject, "{error:?}");
            }
        }
        until("the end of the job", || db.run("SHOW JOBS").is_empty());
        db.run("FLUSH");
        let rows = db.run("SELECT * FROM v");
        let new = [format!("{version} | 3")];
        assert!(rows == before || rows == new, "{rows:?} after {before:?}");
        *(if rows == new { &mut replaced } else { &mut called_off }) += 1;
        db.restart();
        assert_eq!(db.run("SELECT * FROM v"), rows, "after a restart, version {version}");
    }
    println!("{replaced} replaced, {called_off} called off");
}
