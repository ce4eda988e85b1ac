//! Event time: windows close, late rows are found again, and the cut into steps does not show.

use fastrand::Rng;

use super::harness::{Harness, pause};

const EVENTS: &str =
    "CREATE TABLE e (item INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY";

fn insert(db: &Harness, rows: &[(i32, i64)]) {
    let rows: Vec<String> = rows.iter().map(|(item, s)| format!("({item}, to_timestamp({s}))")).collect();
    db.run(&format!("INSERT INTO e VALUES {}", rows.join(", ")));
}

#[test]
fn a_window_is_emitted_once_when_the_watermark_passes_its_end() {
    let db = Harness::new(1);
    db.run(EVENTS);
    db.run("CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n FROM TUMBLE(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE");
    insert(&db, &[(1, 10), (1, 59), (1, 64)]);
    assert_eq!(db.run("SELECT * FROM v"), Vec::<String>::new(), "the watermark is at 59 s");
    insert(&db, &[(1, 58), (1, 65)]);
    assert_eq!(db.run("SELECT * FROM v"), ["1970-01-01T00:00:00Z | 3"]);
    insert(&db, &[(1, 59)]);
    assert_eq!(db.run("SELECT * FROM v"), ["1970-01-01T00:00:00Z | 3"], "a late row changes nothing");
    assert_eq!(db.run("SELECT relation, views FROM late_rows"), ["e | v"]);
}

#[test]
fn lateness_is_judged_by_the_record_before_it_whatever_the_steps() {
    // Rows that arrive in one record are judged by the watermark before that record.
    for workers in [1, 3] {
        let mut db = Harness::new(workers);
        db.run(EVENTS);
        db.run("CREATE MATERIALIZED VIEW v AS SELECT window_start, item, count(*) AS n FROM HOP(e, ts, INTERVAL '10 seconds', INTERVAL '30 seconds') GROUP BY window_start, window_end, item");
        let mut rng = Rng::with_seed(11);
        let mut second = 0;
        for _ in 0..60 {
            second += rng.i64(0..9);
            let rows: Vec<(i32, i64)> =
                (0..rng.usize(1..6)).map(|_| (rng.i32(0..3), (second - rng.i64(0..40)).max(0))).collect();
            insert(&db, &rows);
        }
        let live = db.run("SELECT * FROM v");
        let late = db.run("SELECT * FROM late_rows");
        assert!(!late.is_empty(), "the test has late rows");
        // After a restart the log is replayed in steps of another size.
        db.restart();
        assert_eq!(db.run("SELECT * FROM v"), live);
        assert_eq!(db.run("SELECT * FROM late_rows"), late);
        // A view that is created later sees the same records.
        db.run("CREATE MATERIALIZED VIEW v2 AS SELECT window_start, item, count(*) AS n, 1 AS x FROM HOP(e, ts, INTERVAL '10 seconds', INTERVAL '30 seconds') GROUP BY window_start, window_end, item");
        assert_eq!(db.run("SELECT window_start, item, n FROM v2"), live);
    }
}

#[test]
fn late_rows_are_the_tables_rows_once_for_all_views() {
    for workers in [1, 3] {
        let mut db = Harness::new(workers);
        db.run(EVENTS);
        db.run("CREATE TABLE f (item INT, note TEXT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY");
        let both = "(SELECT item, ts FROM e UNION ALL SELECT item, ts FROM f)";
        for view in [
            "a AS SELECT window_start, count(*) AS n FROM TUMBLE(f, ts, INTERVAL '1 minute') WHERE item > 1 GROUP BY window_start, window_end".to_string(),
            "b AS SELECT window_start, item * 2 AS twice, count(*) AS n FROM HOP(f, ts, INTERVAL '10 seconds', INTERVAL '30 seconds') GROUP BY window_start, window_end, item * 2".to_string(),
            "c AS SELECT item + 1 AS next, window_end FROM CUMULATE(f, ts, INTERVAL '20 seconds', INTERVAL '1 minute') WHERE item < 4 EMIT ON WINDOW CLOSE".to_string(),
            format!("u AS SELECT window_start, count(*) AS n FROM TUMBLE({both}, ts, INTERVAL '1 minute') GROUP BY window_start, window_end"),
        ] {
            db.run(&format!("CREATE MATERIALIZED VIEW {view}"));
        }
        insert(&db, &[(7, 200)]);
        db.run("INSERT INTO f VALUES (3, 'on time', to_timestamp(200))");
        db.run("INSERT INTO f VALUES (2, 'late', to_timestamp(10)), (4, 'on time', to_timestamp(199)), (1, 'late', to_timestamp(20)), (5, 'late', to_timestamp(30))");
        let late = [
            r#"f | a, b, c, u | {"item":2,"note":"late","ts":"1970-01-01T00:00:10Z"}"#,
            r#"f | a, b, u | {"item":5,"note":"late","ts":"1970-01-01T00:00:30Z"}"#,
            r#"f | b, c, u | {"item":1,"note":"late","ts":"1970-01-01T00:00:20Z"}"#,
        ];
        let all = "SELECT relation, views, row FROM late_rows";
        assert_eq!(db.run(all), late);
        assert_eq!(db.run("SELECT DISTINCT watermark FROM late_rows"), ["1970-01-01T00:03:15Z"]);
        assert_eq!(db.database().status().tables["f"].rows_late, 3, "counted once");
        // The other branch of the union.
        insert(&db, &[(8, 1)]);
        assert_eq!(
            db.run("SELECT views, row FROM late_rows WHERE relation = 'e'"),
            [r#"u | {"item":8,"ts":"1970-01-01T00:00:01Z"}"#]
        );
        db.restart();
        assert_eq!(db.run(&format!("{all} WHERE relation = 'f'")), late);
    }
}

#[test]
fn rows_from_the_future_are_rejected_and_push_no_watermark() {
    let db = Harness::new(1);
    db.run(EVENTS);
    assert_eq!(db.error("INSERT INTO e VALUES (1, '2999-01-01')").state.code(), "22023");
    insert(&db, &[(1, 100)]);
    assert!(db.run("SHOW WATERMARKS")[0].contains("1970-01-01T00:01:35Z"));
}

#[test]
fn closed_windows_free_their_state() {
    let db = Harness::new(2);
    db.run(EVENTS);
    db.run("CREATE MATERIALIZED VIEW v AS SELECT window_start, item, count(*) AS n FROM TUMBLE(e, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, item");
    db.run("INSERT INTO e SELECT x % 1000, to_timestamp(x / 100) FROM generate_series(0, 100000) AS g(x)");
    insert(&db, &[(1, 100_000)]);
    pause(std::time::Duration::from_millis(1100));
    insert(&db, &[(1, 100_001)]);
    let status = db.database().status();
    assert!(status.views["v"].state_rows <= 2, "{:?}", status.views["v"]);
    assert_eq!(status.views["v"].rows, 100_002, "the view keeps the results");
}

#[test]
fn cumulate_and_flink_spelling() {
    let db = Harness::new(1);
    db.run(EVENTS);
    db.run("CREATE MATERIALIZED VIEW a AS SELECT window_end, count(DISTINCT item) AS uv FROM CUMULATE(e, ts, INTERVAL '10 minutes', INTERVAL '1 day') GROUP BY window_start, window_end");
    db.run("CREATE MATERIALIZED VIEW b AS SELECT window_end, count(DISTINCT item) AS uv FROM TABLE(CUMULATE(TABLE e, DESCRIPTOR(ts), INTERVAL '10' MINUTES, INTERVAL '1' DAY)) GROUP BY window_start, window_end");
    insert(&db, &[(1, 10), (2, 700), (1, 1300)]);
    let rows = db.run("SELECT * FROM a");
    assert_eq!(rows.len(), 144);
    assert_eq!(
        &rows[..3],
        ["1970-01-01T00:10:00Z | 1", "1970-01-01T00:20:00Z | 2", "1970-01-01T00:30:00Z | 2"]
    );
    assert_eq!(rows, db.run("SELECT * FROM b"));
}

#[test]
fn the_best_rows_of_closed_windows_equal_the_batch_answer() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let db = Harness::new(1 + seed as usize % 3);
        db.run(EVENTS);
        let (slide, size) = (5 * rng.i64(1..4), rng.i64(1..5));
        let direction = ["DESC", "ASC"][rng.usize(..2)];
        let call = ["count(*)", "sum(item)", "max(item)", "count(DISTINCT item)"][rng.usize(..4)];
        let query = format!(
            "SELECT window_start, window_end, g, n, rn FROM (SELECT window_start, window_end, g, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n {direction}, g) AS rn FROM (SELECT window_start, window_end, item % 7 AS g, {call} AS n FROM HOP(e, ts, INTERVAL '{slide} seconds', INTERVAL '{} seconds') GROUP BY window_start, window_end, item % 7) AS a) AS b WHERE rn <= {}",
            slide * size,
            rng.i64(1..4)
        );
        db.run(&format!("CREATE MATERIALIZED VIEW v AS {query} EMIT ON WINDOW CLOSE"));
        let mut second = 0;
        for _ in 0..12 {
            second += rng.i64(0..9);
            let rows: Vec<(i32, i64)> =
                (0..rng.usize(1..9)).map(|_| (rng.i32(0..20), second + rng.i64(0..5))).collect();
            insert(&db, &rows);
        }
        insert(&db, &[(0, 10_000)]);
        let batch = db.run(&format!("SELECT * FROM ({query}) AS q WHERE window_end <= to_timestamp(9995)"));
        assert!(!batch.is_empty());
        assert_eq!(db.run("SELECT * FROM v"), batch, "seed {seed}: {query}");
    }
}
