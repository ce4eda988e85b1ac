//! Starts from checkpoints: what they save, and what happens when they can't be used.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use engine::{Batching, IngestMeta};
use fastrand::Rng;

use super::harness::Harness;

fn with_data() -> Harness {
    let db = Harness::new(2);
    db.run("CREATE TABLE t (id BIGINT PRIMARY KEY, k INT, v INT)");
    db.run("CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k");
    db.run("CREATE MATERIALIZED VIEW pairs AS SELECT a.id, b.id AS other FROM t a JOIN t b ON a.k = b.v");
    db.run("INSERT INTO t SELECT g, g % 7, g % 11 FROM generate_series(1, 300) AS g");
    db
}

fn check(db: &Harness) {
    db.run("FLUSH");
    assert_eq!(
        db.run("SELECT * FROM sums"),
        db.run("SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k")
    );
    let pairs = db.run("SELECT a.id, b.id AS other FROM t a JOIN t b ON a.k = b.v");
    assert_eq!(db.run("SELECT * FROM pairs"), pairs);
}

fn files(db: &Harness, prefix: &str) -> Vec<PathBuf> {
    let dir = db.directory.path().join("checkpoints");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    paths.sort();
    paths
}

#[test]
fn a_start_reads_only_what_came_after() {
    let mut db = with_data();
    assert_eq!(db.database().started_from().0, 0);
    db.run("CHECKPOINT");
    let records = db.database().status().log_records;
    db.restart();
    assert_eq!(db.database().started_from().0, records);
    check(&db);
    db.run("UPDATE t SET v = v + 1 WHERE k < 3; DELETE FROM t WHERE id > 290");
    db.restart();
    assert_eq!(db.database().started_from().0, records);
    check(&db);
    db.run("INSERT INTO t VALUES (1, 5, 5), (1000, 6, 6)");
    check(&db);
}

/// The newest is damaged: the one before serves. Both are: the log does.
#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let mut db = with_data();
    db.run("CHECKPOINT");
    let first = db.database().status().log_records;
    db.run("DELETE FROM t WHERE k = 2");
    db.run("CHECKPOINT");
    db.run("UPDATE t SET v = 3 WHERE k = 1");
    let [old, new] = &files(&db, "checkpoint-")[..] else { panic!("two are kept") };
    for (path, from) in [(new, first), (old, 0)] {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
        db.restart();
        assert_eq!(db.database().started_from().0, from);
        check(&db);
    }
    // The next one is whole again.
    db.run("CHECKPOINT");
    db.restart();
    assert_eq!(db.database().started_from().0, db.database().status().log_records);
    check(&db);
}

/// Any byte of any file may be another, or the end missing.
#[test]
fn no_damage_gives_other_rows() {
    let mut rng = Rng::new();
    println!("seed {}", rng.get_seed());
    let mut db = with_data();
    db.run("CHECKPOINT");
    db.run("DELETE FROM t WHERE k = 2");
    db.run("CHECKPOINT");
    db.run("UPDATE t SET v = 3 WHERE k = 1");
    for _ in 0..20 {
        let all: Vec<PathBuf> = [files(&db, "checkpoint-"), files(&db, "blobs-")].concat();
        let path = &all[rng.usize(..all.len())];
        let whole = fs::read(path).unwrap();
        let mut bytes = whole.clone();
        if bytes.is_empty() {
            continue;
        }
        let at = rng.usize(..bytes.len());
        if rng.bool() {
            bytes[at] ^= 1 << rng.u8(..8);
        } else {
            bytes.truncate(at);
        }
        fs::write(path, bytes).unwrap();
        db.restart();
        check(&db);
        fs::write(path, whole).unwrap();
    }
}

/// A log that was put back from an older copy has not all records that the checkpoint knows of.
#[test]
fn a_checkpoint_that_is_ahead_of_the_log_is_passed_over() {
    let mut db = with_data();
    let segment = fs::read_dir(db.directory.path().join("log")).unwrap().next().unwrap().unwrap().path();
    let copy = fs::read(&segment).unwrap();
    db.run("DELETE FROM t WHERE k = 2");
    db.run("CHECKPOINT");
    db.crash();
    fs::write(&segment, copy).unwrap();
    db.restart();
    assert_eq!(db.database().started_from().0, 0);
    assert_eq!(db.run("SELECT count(*) FROM t"), ["300"]);
    check(&db);
    // It goes on otherwise, beyond where the checkpoint was.
    for id in 1000..1010 {
        db.run(&format!("INSERT INTO t VALUES ({id}, 1, 1)"));
    }
    db.crash();
    db.restart();
    assert_eq!(db.database().started_from().0, 0);
    assert_eq!(db.run("SELECT count(*) FROM t"), ["310"]);
    check(&db);
}

#[test]
fn who_was_seen_is_remembered() {
    let mut db = Harness::new(1);
    db.run("CREATE TABLE e (id TEXT, n BIGINT) APPEND ONLY WITH (dedup_key = 'id')");
    db.run("INSERT INTO e VALUES ('a', 1), ('b', 2)");
    let rows = || {
        let ids = arrow::array::StringArray::from(vec!["c", "d"]);
        let numbers = arrow::array::Int64Array::from(vec![3, 4]);
        let columns: [(&str, arrow::array::ArrayRef, bool); 2] =
            [("id", std::sync::Arc::new(ids), true), ("n", std::sync::Arc::new(numbers), true)];
        arrow::array::RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    let meta = || IngestMeta { idempotency_key: Some("request 1".into()), ..IngestMeta::default() };
    let first = db.ingest("e", rows(), meta()).unwrap();
    db.run("CHECKPOINT");
    db.restart();
    assert!(db.database().started_from().0 > 0);
    let again = db.ingest("e", rows(), meta()).unwrap();
    assert!(again.replayed);
    assert_eq!((again.accepted, again.tick), (first.accepted, first.tick));
    db.run("INSERT INTO e VALUES ('a', 9), ('c', 9), ('e', 5)");
    assert_eq!(db.run("SELECT id, n FROM e"), ["a | 1", "b | 2", "c | 3", "d | 4", "e | 5"]);
    let status = db.database().status();
    let e = status.tables.iter().find(|(name, _)| *name == "e").unwrap().1;
    assert_eq!((e.rows_accepted, e.rows_duplicate), (5, 2));
    // Saved in pieces, of which each restart reads all.
    for n in 6..12 {
        db.run(&format!("INSERT INTO e VALUES ('{n}', {n}), ('a', 9)"));
        db.run("CHECKPOINT");
        db.restart();
        db.run("INSERT INTO e SELECT g::text, 0 FROM generate_series(6, 11) AS g WHERE g <= (SELECT max(n) FROM e)");
        assert!(db.ingest("e", rows(), meta()).unwrap().replayed);
        assert_eq!(db.run("SELECT count(*), max(n) FROM e"), [format!("{n} | {n}")]);
    }
}

/// A few ids do not hold on to all that was saved beside them.
#[test]
fn what_nobody_needs_any_more_goes() {
    let db = with_data();
    db.run("CREATE TABLE e (id BIGINT) APPEND ONLY WITH (dedup_key = 'id')");
    let size =
        |db: &Harness| files(db, "blobs-").iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    db.run("CHECKPOINT");
    let first = size(&db);
    for n in 0..40 {
        db.run(&format!("UPDATE t SET v = {n}; INSERT INTO e VALUES ({n})"));
        db.run("CHECKPOINT");
    }
    assert!(size(&db) < 5 * first, "{} bytes after {first}", size(&db));
}

/// A view that failed stays as it was, with its reason, and can be dropped; one that could not be built is built.
#[test]
fn views_that_stopped_or_were_not_built() {
    let mut db = with_data();
    db.batching = Batching { at_once_bytes: 0, ..Batching::default() };
    db.restart();
    db.run("SET background_ddl = true; CREATE MATERIALIZED VIEW late AS SELECT v, count(*) AS n FROM t GROUP BY v");
    db.run("CHECKPOINT");
    db.restart();
    super::harness::until("the view is built", || db.try_run("SELECT * FROM late").is_ok());
    assert_eq!(db.run("SELECT * FROM late"), db.run("SELECT v, count(*) AS n FROM t GROUP BY v"));
    check(&db);
}

/// Rows that came before a column, in the same stretch that is read again.
#[test]
fn definitions_behind_a_checkpoint() {
    let mut db = with_data();
    db.run("CHECKPOINT");
    db.run("INSERT INTO t VALUES (1000, 1, 1); DELETE FROM t WHERE id = 5");
    db.run("ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'none'");
    db.run("INSERT INTO t VALUES (1001, 1, 1, 'new')");
    db.run("CREATE MATERIALIZED VIEW notes AS SELECT note, count(*) AS n FROM t GROUP BY note");
    db.run("DROP MATERIALIZED VIEW pairs; ALTER TABLE t RENAME TO things");
    db.run("INSERT INTO things VALUES (1002, 1, 1, 'new')");
    db.restart();
    assert!(db.database().started_from().0 > 0);
    assert_eq!(db.run("SELECT * FROM notes"), ["new | 2", "none | 300"]);
    assert_eq!(
        db.run("SELECT k, v, note FROM things WHERE id >= 1000"),
        ["1 | 1 | new", "1 | 1 | new", "1 | 1 | none"]
    );
    assert!(db.error("SELECT * FROM pairs").message.contains("pairs"));
}

/// Checkpoints all the time, a node between two steps, while rows come.
#[test]
fn saved_while_everything_moves() {
    let mut rng = Rng::new();
    println!("seed {}", rng.get_seed());
    let mut db = with_data();
    let mut from = 0;
    for round in 0..6 {
        db.checkpoint_interval = Duration::from_millis(1);
        db.batching = Batching { save_nodes: 1, ..Batching::default() };
        db.workers = rng.usize(1..4);
        db.restart();
        assert!(round == 0 || db.database().started_from().0 > from, "a checkpoint was made");
        from = db.database().started_from().0;
        check(&db);
        for _ in 0..40 {
            let (id, k, v) = (rng.i64(1..400), rng.i32(0..9), rng.i32(0..20));
            db.run(&match rng.u8(..4) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!("UPDATE t SET v = {v} WHERE k = {k}"),
                _ => format!("INSERT INTO t VALUES ({id}, {k}, {v}), ({}, {k}, 1)", id + 1),
            });
        }
        check(&db);
    }
}
