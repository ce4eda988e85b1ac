//! Steps in, pictures out; and random steps against one matching over all rows.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use dataflow::picture::picture;
use dataflow::{Operator, StepContext, Watermark, ZSet};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNodeCore};
use fastrand::Rng;
use sql::match_recognize::{Compiled, MatchRecognize as Node, Sorter, Strict, match_all};

use super::MatchRecognize;
use super::updating::UpdatingMatchRecognize;
use crate::operators::saving::reopened;

/// Key, time and value; the pattern's columns are in this order.
type Row = (Option<i64>, i64, Option<i64>);

/// Compiles the clauses over a table of the columns k, ts and v.
fn compile(clauses: &str) -> Arc<Compiled> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("v", DataType::Int64, true),
    ]));
    let context = sql::session_context(&Default::default());
    context.register_table("t", Arc::new(MemTable::try_new(schema, vec![vec![]]).unwrap())).unwrap();
    let text = format!("SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts {clauses})");
    let query = sql::parse_query(&text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let plan = runtime.block_on(sql::bind_query(&context.state(), &query, &text)).unwrap();
    let mut found = None;
    plan.apply(|plan| {
        if let LogicalPlan::Extension(extension) = plan {
            found = Node::from_extension(extension).cloned();
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    let node: Node = found.expect("the query has a pattern");
    let output = Arc::clone(UserDefinedLogicalNodeCore::schema(&node).inner());
    let input: SchemaRef = Arc::new(node.input.schema().as_arrow().clone());
    Arc::new(Compiled::new(Arc::clone(&node.pattern), input, output).unwrap())
}

fn zset(compiled: &Compiled, rows: &[(i64, Row)]) -> ZSet {
    let columns = compiled.input.fields().iter().map(|field| -> arrow::array::ArrayRef {
        match field.name().as_str() {
            "k" => Arc::new(rows.iter().map(|(_, row)| row.0).collect::<Int64Array>()),
            "ts" => Arc::new(
                rows.iter().map(|(_, row)| Some(row.1 * 1_000_000)).collect::<TimestampMicrosecondArray>(),
            ),
            "v" => Arc::new(rows.iter().map(|(_, row)| row.2).collect::<Int64Array>()),
            // COUNT(*) counts a column of ones.
            _ => Arc::new(Int64Array::from(vec![1; rows.len()])),
        }
    });
    let columns = columns.collect();
    let batch = RecordBatch::try_new(Arc::clone(&compiled.input), columns).unwrap();
    ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
}

fn step(operator: &mut dyn Operator, change: ZSet, watermark: Watermark) -> ZSet {
    let mut ctx = StepContext { watermark, ..StepContext::default() };
    let output = operator.step(&[change], &mut ctx).unwrap();
    assert_eq!(ctx.errors_total, 0, "{:?}", ctx.errors);
    output
}

fn seconds(seconds: i64) -> Watermark {
    Watermark(seconds * 1_000_000)
}

const ABSENCE: &str =
    "MEASURES SUM(a.v) AS s PATTERN (a+ NOT b) WITHIN INTERVAL '10 seconds' DEFINE a AS v > 0, b AS v = 0";

#[test]
fn a_match_leaves_once_when_its_time_is_over() {
    let compiled = compile(ABSENCE);
    let mut operator = MatchRecognize::new(Arc::clone(&compiled)).unwrap();
    let rows = [(1, (Some(1), 1, Some(5))), (1, (Some(2), 2, Some(7))), (1, (None, 2, Some(1)))];
    assert_eq!(picture(&[step(&mut operator, zset(&compiled, &rows), seconds(3))]), "");
    assert_eq!(operator.state_size().rows, 3);
    // A payment for key 2; a duplicate counts twice.
    let rows = [(1, (Some(2), 4, Some(0))), (2, (Some(1), 5, Some(6)))];
    assert_eq!(picture(&[step(&mut operator, zset(&compiled, &rows), seconds(10))]), "");
    let none = ZSet::empty(Arc::clone(&compiled.input));
    assert_eq!(picture(&[step(&mut operator, none.clone(), seconds(11))]), "+ 1  1  17\n");
    assert_eq!(picture(&[step(&mut operator, none.clone(), seconds(12))]), "+ 1  NULL  1\n");
    assert_eq!(picture(&[step(&mut operator, none, Watermark::MAX)]), "");
    assert_eq!(operator.state_size().rows, 0);
}

#[test]
fn retractions_change_what_was_matched() {
    let compiled = compile(ABSENCE);
    let mut operator = UpdatingMatchRecognize::new(Arc::clone(&compiled)).unwrap();
    let mut change =
        |rows: &[(i64, Row)]| picture(&[step(&mut operator, zset(&compiled, rows), Watermark::MIN)]);
    assert_eq!(change(&[(1, (Some(1), 1, Some(5))), (2, (None, 1, Some(2)))]), "+ 1  1  5\n+ 1  NULL  4\n");
    assert_eq!(change(&[(1, (Some(1), 4, Some(0)))]), "- 1  1  5\n");
    assert_eq!(change(&[(-1, (Some(1), 4, Some(0))), (1, (Some(1), 4, Some(3)))]), "+ 1  1  8\n");
    assert_eq!(change(&[(-1, (None, 1, Some(2)))]), "+ 1  NULL  2\n- 1  NULL  4\n");
    assert_eq!(
        change(&[(-1, (None, 1, Some(2))), (-1, (Some(1), 1, Some(5)))]),
        "+ 1  1  3\n- 1  1  8\n- 1  NULL  2\n"
    );
    assert_eq!(change(&[]), "");
    assert_eq!(change(&[(-1, (Some(1), 4, Some(3)))]), "- 1  1  3\n");
    assert_eq!(operator.state_size().rows, 0);
}

const PATTERNS: [&str; 6] = [
    ABSENCE,
    "MEASURES COUNT(*) AS n, LAST(v) AS l PATTERN (a b* c?) DEFINE a AS v > 0, b AS v >= PREV(v), c AS v IS NULL",
    "MEASURES CLASSIFIER() AS c, MATCH_NUMBER() AS m, FINAL SUM(v) AS s ALL ROWS PER MATCH WITH UNMATCHED ROWS \
     AFTER MATCH SKIP TO NEXT ROW PATTERN (a+? b) WITHIN INTERVAL '6 seconds' DEFINE a AS SUM(v) < 7, b AS v > FIRST(v)",
    "MEASURES MATCH_TIMED_OUT() AS late, CLASSIFIER() AS c, v AS v ONE ROW PER MATCH WITH TIMEOUT ROWS \
     PATTERN (PERMUTE(a, b) c) WITHIN INTERVAL '5 seconds' DEFINE a AS v = 1, b AS v = 2, c AS v = 0",
    "MEASURES COUNT(*) AS n, v AS v PATTERN (^ a (b | ())+) DEFINE b AS v <> a.v AND NEXT(v) > 0",
    "MEASURES COUNT(a.*) AS n, COUNT(b.v) AS m PATTERN ((a | b)* c) DEFINE a AS COUNT(a.*) < 3, b AS v > 1, c AS v = 0",
];

/// Rows in order of time, cut into steps anywhere: what leaves is what matching all rows at once gives.
#[test]
fn steps_do_not_show() {
    for seed in 0..600 {
        let mut rng = Rng::with_seed(seed);
        let compiled = compile_once(seed as usize % PATTERNS.len());
        let mut operator = MatchRecognize::new(Arc::clone(&compiled)).unwrap();
        let mut updating = UpdatingMatchRecognize::new(Arc::clone(&compiled)).unwrap();
        let (mut all, mut outputs, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        let mut time = 0;
        for _ in 0..rng.usize(1..30) {
            let from = time;
            time += rng.i64(0..4);
            let mut rows: Vec<(i64, Row)> = (0..if time > from { rng.usize(0..6) } else { 0 })
                .map(|_| {
                    let key = rng.choice([None, Some(1), Some(2), Some(3)]).unwrap();
                    let value = (rng.u8(..6) > 0).then(|| rng.i64(0..4));
                    // The watermark lets out the rows before it.
                    (1 + i64::from(rng.u8(..9) == 0), (key, rng.i64(from..time), value))
                })
                .collect();
            rng.shuffle(&mut rows);
            if rng.u8(..3) == 0 {
                let make = || MatchRecognize::new(Arc::clone(&compiled)).unwrap();
                operator = reopened(&operator, make, &mut rng);
                let make = || UpdatingMatchRecognize::new(Arc::clone(&compiled)).unwrap();
                updating = reopened(&updating, make, &mut rng);
            }
            outputs.push(step(&mut operator, zset(&compiled, &rows), seconds(time)));
            changes.push(step(&mut updating, zset(&compiled, &rows), seconds(time)));
            all.extend(rows);
            if rng.u8(..4) == 0 && !all.is_empty() {
                // Deleted and inserted again.
                let (weight, row) = all[rng.usize(..all.len())];
                changes.push(step(&mut updating, zset(&compiled, &[(-weight, row)]), seconds(time)));
                changes.push(step(&mut updating, zset(&compiled, &[(weight, row)]), seconds(time)));
            }
        }
        outputs.push(step(&mut operator, ZSet::empty(Arc::clone(&compiled.input)), Watermark::MAX));
        let rows = zset(&compiled, &all);
        let sorter = Sorter::new(&compiled.pattern, &compiled.input).unwrap();
        let sorted = sorter.sort(rows.rows(), |row| rows.weight(row)).unwrap();
        let sizes: Vec<usize> = sorted.partitions.iter().map(|(_, count)| *count).collect();
        let expected = match_all(&compiled, sorted.rows, sizes, &mut Strict).unwrap();
        let expected = picture(&[ZSet::inserts(expected)]);
        assert_eq!(picture(&outputs), expected, "seed {seed}: {all:?}");
        assert_eq!(picture(&changes), expected, "seed {seed}, updating: {all:?}");
        assert!(operator.state_size().rows <= all.len());
    }
}

fn compile_once(number: usize) -> Arc<Compiled> {
    thread_local! {
        static COMPILED: Vec<Arc<Compiled>> = PATTERNS.iter().map(|clauses| compile(clauses)).collect();
    }
    COMPILED.with(|compiled| Arc::clone(&compiled[number]))
}
