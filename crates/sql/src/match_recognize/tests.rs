//! The matcher against the reference, on random patterns and rows, whole and in portions; and queries with their
//! answers.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::output::Kind;
use super::reference::{Condition, Reference, Result as Reached, Row};
use super::*;
use crate::planner::{PlannerConfig, bind_query, session_context};

/// A generator of numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// Conditions in SQL and in Rust.
const CONDITIONS: [(&str, Condition); 14] = [
    ("v >= 0", |t| t.value().is_some_and(|v| v >= 0)),
    ("v = 0", |t| t.value() == Some(0)),
    ("v < 2", |t| t.value().is_some_and(|v| v < 2)),
    ("v IS NULL OR v > 1", |t| t.value().is_none_or(|v| v > 1)),
    ("v >= PREV(v)", |t| {
        let before = t.number().checked_sub(1).and_then(|n| t.rows[n].value);
        matches!((t.value(), before), (Some(v), Some(before)) if v >= before)
    }),
    ("v > PREV(v, 2) OR PREV(v, 2) IS NULL", |t| {
        let before = t.number().checked_sub(2).and_then(|n| t.rows[n].value);
        before.is_none_or(|before| t.value().is_some_and(|v| v > before))
    }),
    ("v >= FIRST(v)", |t| {
        let first = t.path.first().and_then(|(n, _)| t.rows[*n].value);
        matches!((t.value(), first), (Some(v), Some(first)) if v >= first)
    }),
    ("SUM(v) < 5", |t| {
        let values: Vec<i64> = t.of("abcd").into_iter().flatten().collect();
        !values.is_empty() && values.iter().sum::<i64>() < 5
    }),
    ("COUNT(*) <= 3", |t| t.path.len() <= 3),
    ("a.v IS NULL OR v <> a.v OR COUNT(a.*) > 2", |t| {
        let a = t.of("a");
        match a.last().copied().flatten() {
            None => true,
            Some(last) => a.len() > 2 || t.value().is_some_and(|v| v != last),
        }
    }),
    ("COUNT(b.v) < 2 AND v >= 0", |t| {
        t.of("b").iter().flatten().count() < 2 && t.value().is_some_and(|v| v >= 0)
    }),
    ("LAST(a.v, 1) IS NULL OR LAST(a.v, 1) < 2", |t| {
        let a = t.of("a");
        let before = a.len().checked_sub(2).and_then(|n| a[n]);
        before.is_none_or(|before| before < 2)
    }),
    ("LAST(CLASSIFIER(), 1) IS NULL OR LAST(CLASSIFIER(), 1) <> 'b'", |t| {
        t.path.len().checked_sub(2).is_none_or(|n| t.path[n].1 != "b")
    }),
    ("NEXT(v) >= v", |t| {
        let next = t.rows.get(t.number() + 1).and_then(|row| row.value);
        matches!((t.value(), next), (Some(v), Some(next)) if next >= v)
    }),
];
const LOOKS_AHEAD: usize = 13;

/// The text of a random pattern over a, b, c, d.
fn random_pattern(random: &mut Random, depth: u64) -> String {
    let variable = |random: &mut Random| ["a", "b", "c", "d"][random.below(4) as usize].to_string();
    if depth == 0 {
        return variable(random);
    }
    let part = |random: &mut Random| random_pattern(random, depth - 1);
    match random.below(10) {
        0 | 1 => format!("({} {})", part(random), part(random)),
        2 => format!("({} | {})", part(random), part(random)),
        3 => format!("({} | ())", part(random)),
        4..=7 => {
            let quantifier =
                ["*", "+", "?", "{2}", "{1,2}", "{,2}", "{0,3}", "{2,}"][random.below(8) as usize];
            let reluctant = if random.below(3) == 0 { "?" } else { "" };
            format!("({}){quantifier}{reluctant}", part(random))
        }
        8 => format!("PERMUTE({}, {})", part(random), part(random)),
        _ => match random.below(3) {
            0 => format!("{{- {} -}}", part(random)),
            1 => format!("(^ {})", part(random)),
            _ => part(random),
        },
    }
}

fn variable_number(name: &str) -> usize {
    usize::from(name.as_bytes()[0] - b'a')
}

struct Case {
    sql: String,
    pattern: Pattern,
    conditions: Vec<usize>,
    rows: Vec<Row>,
    within: Option<i64>,
    timeouts: bool,
    skip: u64,
}

impl Case {
    fn random(seed: u64) -> Case {
        let mut random = Random(seed);
        let depth = 1 + random.below(3);
        let mut text = random_pattern(&mut random, depth);
        if random.below(2) == 0 {
            let depth = random.below(3);
            text = format!("{text} {}", random_pattern(&mut random, depth));
        }
        let within = (random.below(3) > 0).then(|| 2 + random.below(8) as i64);
        if within.is_some() && random.below(3) == 0 {
            text = format!("{text} NOT {}", ["a", "(b | c)", "d"][random.below(3) as usize]);
        }
        let timeouts = within.is_some() && random.below(2) == 0;
        // NEXT holds results back; keep it rare.
        let menu = if random.below(6) == 0 { CONDITIONS.len() } else { LOOKS_AHEAD } as u64;
        let conditions: Vec<usize> = (0..4).map(|_| random.below(menu) as usize).collect();
        let skip = random.below(4);
        let mut time = 0;
        let rows = (0..random.below(12))
            .map(|_| {
                time += random.below(3) as i64;
                let value = (random.below(8) > 0).then(|| random.below(4) as i64);
                Row { time, value }
            })
            .collect();
        let named = |name: &&str| text.contains(*name);
        let used: Vec<&str> = ["a", "b", "c", "d"].into_iter().filter(named).collect();
        // Some conditions speak of a and b, which then have to be in the pattern.
        let both = used.contains(&"a") && used.contains(&"b");
        let conditions: Vec<usize> =
            conditions.into_iter().map(|c| if both || c == LOOKS_AHEAD { c } else { c.min(8) }).collect();
        let define: Vec<String> = used
            .iter()
            .map(|name| format!("{name} AS {}", CONDITIONS[conditions[variable_number(name)]].0))
            .collect();
        let define = define.join(", ");
        let skips = [
            "PAST LAST ROW",
            "TO NEXT ROW",
            &format!("TO FIRST {}", used[0]),
            &format!("TO LAST {}", used[0]),
        ][skip as usize]
            .to_string();
        let within_text = within.map_or(String::new(), |w| format!("WITHIN INTERVAL '{w} seconds'"));
        let timeout_text = if timeouts { "WITH TIMEOUT ROWS" } else { "" };
        let sql = format!(
            "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts, id MEASURES MATCH_NUMBER() AS m \
             ONE ROW PER MATCH {timeout_text} AFTER MATCH SKIP {skips} PATTERN ({text}) {within_text} DEFINE {define})"
        );
        let clauses = crate::parser::match_recognize::parse_body(
            &format!("ORDER BY ts PATTERN ({text})"),
            datafusion::sql::sqlparser::tokenizer::Location { line: 1, column: 1 },
        );
        let pattern = clauses.unwrap_or_else(|error| panic!("{text}: {error}")).pattern;
        Case { sql, pattern, conditions, rows, within, timeouts, skip }
    }

    fn looks_ahead(&self) -> bool {
        let mut looks = false;
        self.pattern.each_variable(&mut |name| {
            looks |= self.conditions[variable_number(name)] == LOOKS_AHEAD;
        });
        looks
    }

    /// What the reference finds in the first `known` rows: the kind, the number and the mapping.
    fn expected(&self, known: usize, passed: i64, complete: bool) -> Vec<String> {
        let conditions = |name: &str| CONDITIONS[self.conditions[variable_number(name)]].1;
        let rows = &self.rows[..known];
        let mut found = Vec::new();
        let (mut start, mut number) = (0, 0);
        let rows_after = usize::from(self.looks_ahead());
        while start < if complete { known } else { known.saturating_sub(rows_after) } {
            let mut reference = Reference {
                rows,
                conditions: &conditions,
                within: self.within,
                passed,
                complete,
                rows_after,
                start,
                timed_out: None,
            };
            let show = |path: &[(usize, String)]| {
                path.iter().map(|(n, variable)| format!("{n}{variable}")).collect::<Vec<_>>().join(" ")
            };
            match reference.attempt(&self.pattern, start) {
                Reached::Open => break,
                Reached::No => {
                    if let (Some(path), true) = (&reference.timed_out, self.timeouts) {
                        found.push(format!("late: {}", show(path)));
                    }
                    start += 1;
                }
                Reached::Match(path) => {
                    number += 1;
                    found.push(format!("{number}: {}", show(&path)));
                    let mut first = String::from("z");
                    self.pattern.each_variable(&mut |name| first = first.clone().min(name.to_string()));
                    let place = match self.skip {
                        0 => path.len(),
                        1 => 1,
                        2 => path.iter().position(|(_, variable)| *variable == first).unwrap_or(0),
                        _ => path.iter().rposition(|(_, variable)| *variable == first).unwrap_or(0),
                    };
                    start += place.max(1);
                }
            }
        }
        found
    }
}

fn show(found: &[Found], compiled: &Compiled, numbers: &[usize]) -> Vec<String> {
    let mut shown = Vec::new();
    for (found, start) in found.iter().zip(numbers) {
        let path: Vec<String> = found
            .mapped
            .iter()
            .enumerate()
            .map(|(n, mapped)| format!("{}{}", start + n, compiled.variables[mapped.variable as usize]))
            .collect();
        let path = path.join(" ");
        shown.push(match found.kind {
            Kind::TimedOut => format!("late: {path}"),
            _ => format!("{}: {path}", found.number),
        });
    }
    shown
}

fn table(rows: &[Row]) -> MemTable {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("v", DataType::Int64, true),
    ]));
    let id: Int64Array = (0..rows.len() as i64).map(Some).collect();
    let ts: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.time * 1_000_000)).collect();
    let v: Int64Array = rows.iter().map(|row| row.value).collect();
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(id), Arc::new(ts), Arc::new(v)];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    MemTable::try_new(schema, vec![vec![batch]]).unwrap()
}

async fn plan(context: &SessionContext, sql: &str) -> crate::Result<LogicalPlan> {
    bind_query(&context.state(), &*crate::parse_query(sql)?, sql).await
}

fn node(plan: &LogicalPlan) -> MatchRecognize {
    let mut found = None;
    plan.apply(|plan| {
        if let LogicalPlan::Extension(extension) = plan {
            found = MatchRecognize::from_extension(extension).cloned();
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found.expect("the query has a pattern")
}

/// Feeds the rows in portions and compares after each; at the end the rows are complete. Gives what was found.
async fn check(seed: u64) -> Vec<String> {
    let case = Case::random(seed);
    let context = session_context(&PlannerConfig::default());
    context.register_table("t", Arc::new(table(&case.rows))).unwrap();
    let plan = plan(&context, &case.sql)
        .await
        .unwrap_or_else(|error| panic!("seed {seed}: {}: {error:?}", case.sql));
    let node = node(&plan);
    let batches = context.execute_logical_plan(node.input.clone()).await.unwrap().collect().await.unwrap();
    let input = arrow::compute::concat_batches(
        &batches
            .first()
            .map_or_else(|| Arc::new(node.input.schema().as_arrow().clone()), |batch| batch.schema()),
        &batches,
    )
    .unwrap();
    let output = Arc::clone(UserDefinedLogicalNodeCore::schema(&node).inner());
    let compiled = Arc::new(Compiled::new(Arc::clone(&node.pattern), input.schema(), output).unwrap());
    let mut random = Random(seed ^ 0x5EED);
    let mut matcher = Matcher::new(Arc::clone(&compiled));
    let mut partitions = vec![Partition::default()];
    let (mut known, mut starts, mut all) = (0, Vec::new(), Vec::new());
    loop {
        let complete = known == case.rows.len();
        let count = if complete { 0 } else { (random.below(4) as usize).min(case.rows.len() - known) };
        matcher.add(input.slice(known, count), &mut partitions, &[(0, count)]).unwrap();
        known += count;
        // A row at the watermark may still come, so the last known time is not over.
        let newest = case.rows[..known].last().map_or(i64::MIN, |row| row.time);
        let next = case.rows.get(known).map_or(newest.saturating_add(3), |row| row.time);
        let passed = if complete { i64::MAX } else { newest.max(next - 1) };
        let passed_us = passed.saturating_mul(1_000_000);
        if complete {
            partitions[0].complete();
        }
        matcher.test_rows(&mut partitions, &[0], &mut Strict).unwrap();
        let mut found = Vec::new();
        matcher.find(&mut partitions[0], passed_us, &mut found, &mut Strict).unwrap();
        for found in &found {
            // The row's id says where the match begins.
            let at = found.window[found.first];
            let id = matcher.rows.batch(at.chunk).columns().iter().enumerate().find_map(|(n, column)| {
                use arrow::array::AsArray;
                use arrow::datatypes::Int64Type;
                (node.pattern.names[n] == "id")
                    .then(|| column.as_primitive::<Int64Type>().value(at.row as usize))
            });
            starts.push(id.unwrap() as usize);
        }
        matcher.output(&found, &mut Strict).unwrap();
        all.extend(found);
        matcher.trim(&mut partitions[0]);
        matcher.compact(&mut partitions).unwrap();
        let expected = case.expected(known, passed, complete);
        let shown = show(&all, &compiled, &starts);
        assert_eq!(shown, expected, "seed {seed}, {known} rows known: {}\n{:?}", case.sql, case.rows);
        if complete {
            return shown;
        }
    }
}

#[tokio::test]
async fn finds_what_the_reference_finds_however_rows_come_in() {
    let seconds = std::env::var("SHOPSTREAM_PATTERN_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    if let Ok(seed) = std::env::var("SHOPSTREAM_PATTERN_SEED") {
        check(seed.parse().expect("a seed is a number")).await;
        return;
    }
    // The first hundreds are always the same; then every run searches elsewhere.
    let (mut matches, mut late, mut cases) = (0, 0, 400);
    for seed in 0..cases {
        let found = check(seed).await;
        late += found.iter().filter(|found| found.starts_with("late")).count();
        matches += found.iter().filter(|found| found.len() > 4 && !found.starts_with("late")).count();
    }
    assert!(matches > 400 && late > 20, "{matches} matches and {late} timeouts are enough to tell");
    let mut seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    while std::time::Instant::now() < until {
        seed = seed.wrapping_add(1);
        check(seed).await;
        cases += 1;
    }
    println!("match_recognize: {cases} random cases, {matches} matches and {late} timeouts in the first 400");
}

// Queries and answers.

const ROWS: &str = "(VALUES ('x', 1, 10), ('x', 2, 8), ('x', 3, 6), ('x', 4, 7), ('x', 5, 9), ('x', 6, 5),
    ('y', 1, 3), ('y', 2, 3), ('y', 3, 1), ('y', 4, 2)) AS t(k, n, p)";

async fn run(sql: &str) -> crate::Result<String> {
    let context = session_context(&PlannerConfig { batch_size: 3, ..PlannerConfig::default() });
    let sql = sql.replace("$ROWS", &format!("(SELECT * FROM {ROWS})"));
    let plan = plan(&context, &sql).await?;
    let frame =
        context.execute_logical_plan(plan).await.map_err(|error| crate::from_datafusion(error, &sql))?;
    let batches = frame.collect().await.map_err(|error| crate::from_datafusion(error, &sql))?;
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let lines = text.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim_end().to_string()
    });
    Ok(cells.collect::<Vec<_>>().join("\n"))
}

async fn answer(sql: &str) -> String {
    run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

async fn error(sql: &str) -> SqlErrorText {
    match run(sql).await {
        Ok(rows) => panic!("{sql} gave {rows}"),
        Err(error) => SqlErrorText {
            code: error.state.code(),
            message: error.message.clone(),
            at: error.position.map(|position| sql.chars().skip(position - 1).take(5).collect()),
            hint: error.hint,
        },
    }
}

#[derive(Debug)]
struct SqlErrorText {
    code: &'static str,
    message: String,
    at: Option<String>,
    hint: Option<String>,
}

#[tokio::test]
async fn a_v_shape_gives_one_row_per_match() {
    let sql = "SELECT * FROM $ROWS AS r MATCH_RECOGNIZE (
        PARTITION BY k ORDER BY n
        MEASURES FIRST(n) AS from_n, LAST(down.p) AS bottom, LAST(up.n) AS to_n, COUNT(*) AS rows,
                 SUM(up.p) AS climbed, MATCH_NUMBER() AS m, CLASSIFIER() AS last_var
        PATTERN (start down+ up+)
        DEFINE down AS p < PREV(p), up AS up.p > PREV(up.p)) AS m ORDER BY k, from_n";
    assert_eq!(
        answer(sql).await,
        "k from_n bottom to_n rows climbed m last_var\nx 1 6 5 5 16 1 up\ny 2 1 4 3 2 1 up"
    );
}

#[tokio::test]
async fn all_rows_have_running_and_final_measures() {
    let sql = "SELECT * FROM $ROWS MATCH_RECOGNIZE (
        PARTITION BY k ORDER BY n
        MEASURES CLASSIFIER() AS c, COUNT(*) AS so_far, FINAL COUNT(*) AS total, RUNNING SUM(p) AS s, FINAL LAST(n) AS e
        ALL ROWS PER MATCH
        PATTERN (start {- down -}+ up)
        DEFINE down AS p < PREV(p), up AS p > PREV(p)) ORDER BY k, n";
    assert_eq!(
        answer(sql).await,
        "k n c so_far total s e p\nx 1 start 1 4 10 4 10\nx 4 up 4 4 31 4 7\ny 2 start 1 3 3 4 3\ny 4 up 3 3 6 4 2"
    );
}

#[tokio::test]
async fn empty_matches_and_unmatched_rows_are_shown_as_asked() {
    let sql = |rows: &str| {
        format!(
            "SELECT n, m, c FROM (SELECT * FROM $ROWS WHERE k = 'y') MATCH_RECOGNIZE (ORDER BY n
             MEASURES MATCH_NUMBER() AS m, CLASSIFIER() AS c {rows} PATTERN (low*) DEFINE low AS p < 3) ORDER BY n"
        )
        .replace("$ROWS WHERE", &format!("{ROWS} WHERE"))
    };
    let show = answer(&sql("ALL ROWS PER MATCH")).await;
    assert_eq!(show, "n m c\n1 1\n2 2\n3 3 low\n4 3 low");
    assert_eq!(answer(&sql("ALL ROWS PER MATCH OMIT EMPTY MATCHES")).await, "n m c\n3 3 low\n4 3 low");
    let unmatched = sql("ALL ROWS PER MATCH WITH UNMATCHED ROWS").replace("low*", "low low");
    assert_eq!(answer(&unmatched).await, "n m c\n1\n2\n3 1 low\n4 1 low");
}

#[tokio::test]
async fn subsets_navigation_and_permutations() {
    let sql = "SELECT * FROM $ROWS MATCH_RECOGNIZE (
        PARTITION BY k ORDER BY n
        MEASURES AVG(both.p) AS mean, FIRST(both.n, 1) AS second, PREV(FIRST(a.p), 1) AS before,
                 NEXT(LAST(b.p)) AS after, LAST(CLASSIFIER(), 1) AS last_but_one, COUNT(DISTINCT both.p) AS d
        PATTERN (PERMUTE(a, b, c)) SUBSET both = (a, b)
        DEFINE a AS p = 9, b AS p = 5, c AS p = 7) AS m";
    assert_eq!(answer(sql).await, "k mean second before after last_but_one d\nx 7.0 6 7  a 2");
}

#[tokio::test]
async fn a_long_partition_costs_no_stack_and_no_exponent() {
    let sql = "SELECT * FROM (SELECT x FROM generate_series(1, 5000) AS g(x)) MATCH_RECOGNIZE (ORDER BY x
        MEASURES COUNT(*) AS n, SUM(a.x) AS s PATTERN (^ (a+)+ z?) DEFINE a AS SUM(a.x) > 0 AND x > 0, z AS x < 0)";
    assert_eq!(answer(sql).await, "n s\n5000 12502500");
    // The textbook case for backtracking: exponential there.
    let sql = "SELECT * FROM (SELECT x FROM generate_series(1, 60) AS g(x)) MATCH_RECOGNIZE (ORDER BY x
        MEASURES COUNT(*) AS n PATTERN (^ (a | a | a)* (a*)* (a?){40} z) DEFINE a AS x > 0, z AS x < 0)";
    assert!(answer(sql).await.lines().count() <= 1, "no match");
}

#[tokio::test]
async fn mistakes_are_named_with_their_place() {
    let case =
        |body: &str| format!("SELECT * FROM $ROWS MATCH_RECOGNIZE ({body})").replace("$ROWS", ROWS_INLINE);
    const ROWS_INLINE: &str = "(SELECT 1 AS k, 2 AS n, 3 AS p)";
    let cases = [
        ("PATTERN (a)", "42P17", "MATCH_RECOGNIZE needs ORDER BY"),
        ("ORDER BY n PATTERN (a DEFINE a AS p > 1", "42601", "syntax error"),
        ("ORDER BY n PATTERN (a) DEFINE b AS p > 1", "42704", "DEFINE has \"b\", which is not in PATTERN"),
        ("ORDER BY n PATTERN (a) DEFINE a AS q > 1", "42703", "column \"q\" does not exist"),
        (
            "ORDER BY n PATTERN (a) DEFINE a AS p + 1",
            "42804",
            "condition of \"a\" has type bigint, not boolean",
        ),
        ("ORDER BY n PATTERN (a NOT b) DEFINE b AS p > 1", "42P17", "NOT in PATTERN needs WITHIN"),
        (
            "ORDER BY n PATTERN (a NOT b c) WITHIN INTERVAL '1 minute' DEFINE b AS p > 1",
            "42P17",
            "NOT in PATTERN has to be the last element",
        ),
        (
            "ORDER BY n PATTERN (a b) WITHIN INTERVAL '1 minute' DEFINE b AS p > 1",
            "42804",
            "WITHIN needs a time as the first column of ORDER BY, which is of type bigint",
        ),
        (
            "ORDER BY n PATTERN (a) DEFINE a AS FINAL LAST(p) > 1",
            "42P17",
            "FINAL belongs to MEASURES, not to DEFINE",
        ),
        (
            "ORDER BY n MEASURES LAST(a.p + b.p) AS x PATTERN (a b)",
            "42P17",
            "a.p + b.p is about rows of several pattern variables",
        ),
        ("ORDER BY n MEASURES p AS x, n AS x PATTERN (a b)", "42701", "gives two columns of the name \"x\""),
        ("ORDER BY n AFTER MATCH SKIP TO LAST z PATTERN (a b)", "42704", "which is not in PATTERN"),
        ("ORDER BY n PATTERN (a{3,2})", "22023", "quantifier {3,2} matches nothing"),
        (
            "ORDER BY n PATTERN (PERMUTE(a, b, c, d, e, f, g))",
            "53400",
            "PERMUTE takes at most 6 elements, not 7",
        ),
        ("ORDER BY n PATTERN (((a{100}){100}){100})", "53400", "PATTERN is too large"),
    ];
    for (body, code, message) in cases {
        let found = error(&case(body)).await;
        assert!(found.message.contains(message), "{body}: {found:?}");
        assert_eq!(found.code, code, "{body}: {found:?}");
    }
    let found = error(&case("ORDER BY n PATTERN (a b) DEFINE b AS p > a.q")).await;
    assert_eq!(found.at.as_deref(), Some("q)"), "{found:?}");
    assert!(error("SELECT * FROM match_recognize(1)").await.hint.is_some());
}

#[tokio::test]
async fn patterns_are_read_as_written() {
    let cases = [
        ("a b|c*", "(a b | c*)"),
        ("a?|b", "(a? | b)"),
        ("a??|b", "(a?? | b)"),
        ("{-a?-} b", "{- a? -} b"),
        ("a{2,}? (b|())+", "a{2,}? (b | ())+"),
        ("^ \"A\" {,3} $", "^ A{0,3} $"),
        ("PERMUTE(a, b c) NOT (x|y)", "PERMUTE(a, b c) NOT (x | y)"),
        ("A B+?", "a b+?"),
    ];
    for (text, shown) in cases {
        let body = format!("ORDER BY n PATTERN ({text})");
        let start = datafusion::sql::sqlparser::tokenizer::Location { line: 3, column: 7 };
        let clauses = crate::parser::match_recognize::parse_body(&body, start).unwrap();
        assert_eq!(clauses.pattern.to_string(), shown, "{text}");
    }
}
