//! MATCH_RECOGNIZE in views: random patterns over rows out of order and over rows that change, against the query
//! run as a batch, however the rows are cut into records, at several workers, with restarts in the middle.

use fastrand::Rng;

use super::harness::{Harness, pause};

const EVENTS: &str = "CREATE TABLE e (id INT, k INT, v INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY";
const KEYED: &str = "CREATE TABLE e (id INT PRIMARY KEY, k INT, v INT, ts TIMESTAMPTZ)";

fn pattern(rng: &mut Rng, depth: u8) -> String {
    let variable = |rng: &mut Rng| ["a", "b", "c"][rng.usize(..3)].to_string();
    if depth == 0 {
        return variable(rng);
    }
    let part = |rng: &mut Rng| pattern(rng, depth - 1);
    match rng.u8(..7) {
        0 | 1 => format!("({} {})", part(rng), part(rng)),
        2 => format!("({} | {})", part(rng), part(rng)),
        3 => format!("PERMUTE({}, {})", part(rng), part(rng)),
        4 => variable(rng),
        _ => format!("({}){}", part(rng), ["*", "+", "?", "+?", "{1,2}", "{2}", "*?"][rng.usize(..7)]),
    }
}

fn query(rng: &mut Rng, within: bool) -> String {
    let depth = rng.u8(1..4);
    let mut text = pattern(rng, depth);
    if within && rng.u8(..3) == 0 {
        text.push_str([" NOT c", " NOT (b | c)"][rng.usize(..2)]);
    }
    let conditions = [
        "v >= 1",
        "v = 0 OR v IS NULL",
        "v > PREV(v)",
        "v >= FIRST(v)",
        "SUM(v) < 6",
        "COUNT(*) < 4",
        "v < 3 AND ts < FIRST(ts) + INTERVAL '6 seconds'",
        "v <> PREV(v, 2) OR PREV(v, 2) IS NULL",
        "MAX(v) - MIN(v) <= 2",
    ];
    let define: Vec<String> = ["a", "b", "c"]
        .into_iter()
        .filter(|name| text.contains(name))
        .map(|name| format!("{name} AS {}", conditions[rng.usize(..conditions.len())]))
        .collect();
    let timeouts = if within && rng.u8(..3) == 0 { " WITH TIMEOUT ROWS" } else { "" };
    let rows = match rng.u8(..4) {
        0 | 1 => format!("ONE ROW PER MATCH{timeouts}"),
        2 => format!("ALL ROWS PER MATCH OMIT EMPTY MATCHES{timeouts}"),
        _ => "ALL ROWS PER MATCH WITH UNMATCHED ROWS".to_string(),
    };
    let skip = ["PAST LAST ROW", "TO NEXT ROW"][rng.usize(..2)];
    let within = if within { format!(" WITHIN INTERVAL '{} seconds'", rng.u8(2..20)) } else { String::new() };
    let partition = ["PARTITION BY k", "PARTITION BY k", ""][rng.usize(..3)];
    format!(
        "SELECT * FROM e MATCH_RECOGNIZE ({partition} ORDER BY ts MEASURES MATCH_NUMBER() AS m, CLASSIFIER() AS c, \
         COUNT(*) AS n, SUM(a.v) AS s, FIRST(id) AS f, FINAL LAST(id) AS l {rows} AFTER MATCH SKIP {skip} \
         PATTERN ({text}){within} DEFINE {})",
        define.join(", ")
    )
    .replace("a.v", if text.contains('a') { "a.v" } else { "v" })
}

fn value(rng: &mut Rng) -> String {
    if rng.u8(..8) == 0 { "NULL".into() } else { rng.i32(0..4).to_string() }
}

fn show(seed: u64) -> impl Fn(&str) {
    move |what| eprintln!("{what}: replay with SHOPSTREAM_MATCH_SEED={seed}")
}

/// Runs cases for a while, or the one that the environment names.
fn search(case: fn(u64)) {
    if let Ok(seed) = std::env::var("SHOPSTREAM_MATCH_SEED") {
        return case(seed.parse().expect("a seed is a number"));
    }
    let seconds = std::env::var("SHOPSTREAM_ORACLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let mut cases = 0;
    while std::time::Instant::now() < until || cases == 0 {
        let seed = fastrand::u64(..);
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            show(seed)("failed");
            std::panic::resume_unwind(panic);
        }
        cases += 1;
    }
    println!("match_recognize: {cases} random cases, no difference");
}

/// Every pattern has WITHIN, so that all is final when time has passed; then the view is its query over the rows
/// that were not late.
#[test]
fn matches_of_a_stream_equal_the_batch_answer_when_time_has_passed() {
    search(stream_case);
}

fn stream_case(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut db = Harness::new(1 + rng.usize(..3));
    db.run(EVENTS);
    let queries: Vec<String> = (0..12).map(|_| query(&mut rng, true)).collect();
    let create = |db: &Harness, n: usize| {
        db.run(&format!("CREATE MATERIALIZED VIEW v{n} AS {}", queries[n]));
    };
    // Most views before the rows, some in the middle, some after them.
    (0..6).for_each(|n| create(&db, n));
    let (mut second, mut id) = (0, 0);
    for round in 0..12 {
        let rows: Vec<String> = (0..rng.usize(1..8))
            .map(|_| {
                second += rng.i64(0..3);
                id += 1;
                // Some are out of order, few are late.
                let back = rng.i64(0..7);
                format!(
                    "({id}, {}, {}, to_timestamp({}))",
                    rng.i32(0..3),
                    value(&mut rng),
                    100 + second - back
                )
            })
            .collect();
        db.run(&format!("INSERT INTO e VALUES {}", rows.join(", ")));
        if round == 5 {
            (6..9).for_each(|n| create(&db, n));
        }
        if rng.u8(..6) == 0 {
            db.restart();
        }
    }
    (9..12).for_each(|n| create(&db, n));
    // A row of a partition of its own moves time on. Without PARTITION BY it is a row like the others, so the last
    // beginnings wait for the row after it.
    db.run("INSERT INTO e VALUES (-1, 77, 9, to_timestamp(5000))");
    db.run("INSERT INTO e VALUES (-2, 78, 9, to_timestamp(9000))");
    let on_time = format!("(SELECT * FROM e WHERE id NOT IN ({}))", late_ids(&db).join(", "));
    for (n, query) in queries.iter().enumerate() {
        let batch = query.replace("FROM e MATCH", &format!("FROM {on_time} MATCH"));
        let (view, batch) = (db.run(&format!("SELECT * FROM v{n}")), db.run(&batch));
        assert_eq!(view, batch, "seed {seed}, view {n}: {query}");
    }
    let live: Vec<Vec<String>> = (0..12).map(|n| db.run(&format!("SELECT * FROM v{n}"))).collect();
    db.restart();
    for (n, live) in live.into_iter().enumerate() {
        assert_eq!(db.run(&format!("SELECT * FROM v{n}")), live, "seed {seed}, view {n} after a restart");
    }
    suspended_none(&db, seed);
}

/// Ids of the late rows, and of the one that moved time on.
fn late_ids(db: &Harness) -> Vec<String> {
    let mut ids = vec!["-2".to_string()];
    for row in db.run("SELECT \"row\" FROM late_rows") {
        let (_, rest) = row.split_once("\"id\":").unwrap_or_else(|| panic!("a late row has its id: {row}"));
        let id: String = rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
        ids.push(id);
    }
    ids
}

/// Over rows that change, the view is its query at every tick.
#[test]
fn matches_over_changing_rows_equal_the_batch_answer() {
    search(changing_case);
}

fn changing_case(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut db = Harness::new(1 + rng.usize(..3));
    db.run(KEYED);
    let queries: Vec<String> = (0..8)
        .map(|_| {
            let within = rng.bool();
            query(&mut rng, within)
        })
        .collect();
    for (n, query) in queries.iter().enumerate() {
        db.run(&format!("CREATE MATERIALIZED VIEW v{n} AS {query}"));
    }
    for _ in 0..8 {
        for _ in 0..rng.usize(1..4) {
            let id = rng.i32(0..25);
            let statement = match rng.u8(..5) {
                0 => format!("DELETE FROM e WHERE id = {id}"),
                1 => format!("UPDATE e SET v = {} WHERE id % 5 = {}", value(&mut rng), rng.u8(..5)),
                _ => {
                    let rows: Vec<String> = (0..rng.usize(1..6))
                        .map(|_| {
                            let time = match rng.u8(..9) {
                                0 => "NULL".to_string(),
                                _ => format!("to_timestamp({})", rng.i32(0..40)),
                            };
                            format!("({}, {}, {}, {time})", rng.i32(0..25), rng.i32(0..3), value(&mut rng))
                        })
                        .collect();
                    format!("INSERT INTO e VALUES {}", rows.join(", "))
                }
            };
            db.run(&statement);
        }
        if rng.u8(..5) == 0 {
            db.restart();
        }
        for (n, query) in queries.iter().enumerate() {
            let (view, batch) = (db.run(&format!("SELECT * FROM v{n}")), db.run(query));
            assert_eq!(view, batch, "seed {seed}, view {n}: {query}");
        }
    }
    suspended_none(&db, seed);
}

fn suspended_none(db: &Harness, seed: u64) {
    let status = db.database().status();
    let suspended: Vec<_> = status.views.iter().filter(|(_, view)| view.suspended.is_some()).collect();
    assert!(suspended.is_empty(), "seed {seed}: {suspended:?}");
}

#[test]
fn decided_matches_free_their_rows() {
    let db = Harness::new(2);
    db.run(EVENTS);
    db.run(
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM e MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts \
         MEASURES a.ts AS at PATTERN (a NOT b) WITHIN INTERVAL '10 seconds' DEFINE a AS v = 1, b AS v = 2)",
    );
    db.run("INSERT INTO e SELECT x, x % 1000, 1 + x % 7, to_timestamp(x / 100) FROM generate_series(0, 100000) AS g(x)");
    db.run("INSERT INTO e VALUES (0, 0, 0, to_timestamp(10000))");
    db.run("INSERT INTO e VALUES (0, 0, 0, to_timestamp(10001))");
    pause(std::time::Duration::from_millis(1100));
    db.run("INSERT INTO e VALUES (0, 0, 0, to_timestamp(10002))");
    let status = db.database().status();
    assert!(status.views["v"].state_rows < 10, "{:?}", status.views["v"]);
    let expected = db.run(
        "SELECT count(*) FROM e AS a WHERE v = 1 AND NOT EXISTS (SELECT 1 FROM e AS b WHERE b.k = a.k AND b.v = 2 \
         AND b.ts > a.ts AND b.ts < a.ts + INTERVAL '10 seconds')",
    );
    assert_ne!(expected, ["0"]);
    assert_eq!(db.run("SELECT count(*) FROM v WHERE at < to_timestamp(990)").len(), 1);
}

#[test]
fn a_pattern_with_too_many_ways_stops_its_view_and_nothing_else() {
    let db = Harness::new(1);
    db.run("CREATE TABLE n (x INT) APPEND ONLY");
    db.run(
        "CREATE MATERIALIZED VIEW heavy AS SELECT * FROM n MATCH_RECOGNIZE (ORDER BY x MEASURES COUNT(*) AS c \
         PATTERN ((a | b)* z) DEFINE a AS SUM(a.x) > 0, b AS SUM(b.x) > 0, z AS SUM(a.x) = SUM(b.x) + 1)",
    );
    db.run("CREATE MATERIALIZED VIEW light AS SELECT count(*) AS c FROM n");
    db.run("INSERT INTO n SELECT power(2, x)::int FROM generate_series(1, 25) AS g(x)");
    assert_eq!(db.run("SELECT c FROM light"), ["25"]);
    // The second one comes after the statistics of the first.
    db.run("FLUSH; FLUSH");
    let status = db.database().status();
    let reason = status.views["heavy"].suspended.clone().expect("it is suspended");
    assert!(reason.contains("more than 10000 ways"), "{reason}");
}

/// The examples of the docs run in their order.
#[test]
fn the_examples_of_the_docs_run() {
    let db = Harness::new(1);
    // Run once more here, because of what they say about rows.
    let page = include_str!("../../../../docs/sql/pattern-matching.md");
    let examples: Vec<&str> =
        page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        db.run(example);
    }
    db.run("INSERT INTO order_events VALUES (1, 'create', '2024-01-01 10:00:00+00'), (2, 'create', '2024-01-01 10:00:00+00'), (1, 'pay', '2024-01-01 10:01:00+00')");
    db.run("INSERT INTO order_events VALUES (9, 'note', '2024-01-03 10:00:00+00')");
    assert_eq!(db.run("SELECT order_id FROM unpaid"), ["2"]);
    assert_eq!(
        db.run("SELECT order_id, reached, timed_out FROM progress"),
        ["1 | paid | true", "2 | created | true"]
    );
}

#[test]
fn explain_says_what_is_kept() {
    let db = Harness::new(1);
    db.run(EVENTS);
    let explain = |tail: &str| {
        db.run(&format!(
            "EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT * FROM e MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts \
             MEASURES a.ts AS at PATTERN (a b*) {tail} DEFINE a AS v = 1, b AS v = 2)"
        ))
        .join("\n")
    };
    let text = explain("WITHIN INTERVAL '10 seconds'");
    assert!(
        text.contains("match_recognize partition=[k] pattern=(a b*) within=10 seconds emit=when final"),
        "{text}"
    );
    assert!(text.contains("until it is decided or its time is over"), "{text}");
    assert!(explain("").contains("without WITHIN whenever that may be"));
}
