use super::*;
use std::collections::BTreeMap;

use crate::operators::saving::{damaged, reopened};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use dataflow::picture::picture;
use sql::asof_join::AsofComparison::{self, *};

/// Key, time, value; the right side has the value before the time.
type Row = (Option<i64>, Option<i64>, i64);

fn time_type() -> DataType {
    sql::catalog::timestamptz()
}

fn schema(side: usize) -> SchemaRef {
    let [k, t, v] = [("k", DataType::Int64), ("t", time_type()), ("v", DataType::Int64)]
        .map(|(name, data_type)| Field::new(name, data_type, true));
    Arc::new(Schema::new(if side == 0 { vec![k, t, v] } else { vec![v, k, t] }))
}

fn join(comparison: AsofComparison, outer: bool, emit: Emit, late: bool) -> AsofJoin {
    let fields: Vec<_> = schema(0).fields().iter().chain(schema(1).fields()).cloned().collect();
    let expiry = |column| Expiry { column, add_us: 1, allowed_lateness_us: 0 };
    AsofJoin::new(AsofJoinSpec {
        left: schema(0),
        right: schema(1),
        on: vec![(0, 1)],
        time: (1, 2),
        comparison,
        outer,
        late: late.then_some([expiry(1), expiry(2)]),
        emit,
        output: Arc::new(Schema::new(fields)),
    })
    .unwrap()
}

fn updating(comparison: AsofComparison, outer: bool) -> AsofJoin {
    join(comparison, outer, Emit::Updating, false)
}

fn change(side: usize, rows: &[(i64, Row)]) -> ZSet {
    let k: ArrayRef = Arc::new(rows.iter().map(|(_, row)| row.0).collect::<Int64Array>());
    let t = rows.iter().map(|(_, row)| row.1).collect::<TimestampMicrosecondArray>();
    let t: ArrayRef = Arc::new(t.with_timezone("UTC"));
    let v: ArrayRef = Arc::new(rows.iter().map(|(_, row)| Some(row.2)).collect::<Int64Array>());
    let columns = if side == 0 { vec![k, t, v] } else { vec![v, k, t] };
    let batch = RecordBatch::try_new(schema(side), columns).unwrap();
    ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
}

fn step(join: &mut AsofJoin, left: &[(i64, Row)], right: &[(i64, Row)]) -> String {
    timed(join, left, right, &mut StepContext::default())
}

fn timed(join: &mut AsofJoin, left: &[(i64, Row)], right: &[(i64, Row)], ctx: &mut StepContext) -> String {
    short(&picture(&[join.step(&[change(0, left), change(1, right)], ctx).unwrap()]))
}

/// Times as their microseconds.
fn short(picture: &str) -> String {
    let mut text = picture.to_string();
    for us in (0..100).rev() {
        let time = if us == 0 {
            "1970-01-01T00:00:00Z".to_string()
        } else {
            format!("1970-01-01T00:00:00.{us:06}Z")
        };
        text = text.replace(&time, &us.to_string());
    }
    text
}

fn row(k: i64, t: i64, v: i64) -> Row {
    (Some(k), Some(t), v)
}

#[test]
fn the_nearest_row_that_fulfils_the_inequality_is_the_partner() {
    let left = [(1, row(1, 5, 0))];
    let right =
        [(1, row(1, 3, 30)), (1, row(1, 5, 50)), (1, row(1, 7, 70)), (1, row(1, 9, 90)), (1, row(2, 5, 1))];
    for (comparison, expected) in [
        (GtEq, "+ 1  1  5  0  50  1  5\n"),
        (Gt, "+ 1  1  5  0  30  1  3\n"),
        (LtEq, "+ 1  1  5  0  50  1  5\n"),
        (Lt, "+ 1  1  5  0  70  1  7\n"),
    ] {
        assert_eq!(step(&mut updating(comparison, false), &left, &right), expected, "{comparison}");
        let mut join = updating(comparison, false);
        assert_eq!(step(&mut join, &[], &right), "");
        assert_eq!(step(&mut join, &left, &[]), expected, "{comparison}");
        let mut join = updating(comparison, false);
        assert_eq!(step(&mut join, &left, &[]), "");
        assert_eq!(step(&mut join, &[], &right), expected, "{comparison}");
    }
}

#[test]
fn a_right_row_changes_the_left_rows_before_the_next_one() {
    let mut join = updating(GtEq, true);
    step(&mut join, &[(1, row(1, 2, 0)), (1, row(1, 4, 0)), (1, row(1, 6, 0))], &[(1, row(1, 5, 50))]);
    assert_eq!(
        step(&mut join, &[], &[(1, row(1, 3, 30))]),
        "+ 1  1  4  0  30  1  3\n- 1  1  4  0  NULL  NULL  NULL\n"
    );
    assert_eq!(
        step(&mut join, &[], &[(-1, row(1, 5, 50))]),
        "+ 1  1  6  0  30  1  3\n- 1  1  6  0  50  1  5\n"
    );
    assert_eq!(step(&mut join, &[], &[(1, row(1, 9, 90))]), "");
}

#[test]
fn of_equal_times_the_largest_row_counts_and_the_others_wait() {
    let mut join = updating(GtEq, false);
    step(&mut join, &[(1, row(1, 5, 0))], &[(1, row(1, 3, 8)), (1, row(1, 3, 9))]);
    assert_eq!(step(&mut join, &[], &[(1, row(1, 3, 7))]), "");
    assert_eq!(step(&mut join, &[], &[(-1, row(1, 3, 9))]), "+ 1  1  5  0  8  1  3\n- 1  1  5  0  9  1  3\n");
}

#[test]
fn duplicates_of_the_left_multiply_and_of_the_right_do_not() {
    let mut join = updating(GtEq, false);
    assert_eq!(step(&mut join, &[(3, row(1, 5, 0))], &[(2, row(1, 3, 30))]), "+ 3  1  5  0  30  1  3\n");
    assert_eq!(step(&mut join, &[], &[(-1, row(1, 3, 30))]), "");
    assert_eq!(step(&mut join, &[(-1, row(1, 5, 0))], &[]), "- 1  1  5  0  30  1  3\n");
    assert_eq!(step(&mut join, &[], &[(-1, row(1, 3, 30))]), "- 2  1  5  0  30  1  3\n");
}

#[test]
fn rows_without_key_or_time_have_no_partner() {
    let nulls: [(i64, Row); 2] = [(1, (None, Some(5), 0)), (1, (Some(1), None, 1))];
    let mut join = updating(GtEq, true);
    assert_eq!(
        step(&mut join, &nulls, &nulls),
        "+ 1  1  NULL  1  NULL  NULL  NULL\n+ 1  NULL  5  0  NULL  NULL  NULL\n"
    );
    assert_eq!(join.state_size().rows, 0);
    assert_eq!(step(&mut updating(GtEq, false), &nulls, &nulls), "");
}

#[test]
fn empty_input_gives_nothing() {
    assert_eq!(step(&mut updating(Lt, true), &[], &[]), "");
}

#[test]
fn deleting_everything_frees_the_state() {
    for comparison in [GtEq, Gt, LtEq, Lt] {
        let mut join = updating(comparison, true);
        step(&mut join, &[(2, row(1, 5, 0))], &[(1, row(1, 5, 1)), (1, row(2, 4, 1))]);
        assert_eq!(join.state_size().rows, 3);
        step(&mut join, &[(-2, row(1, 5, 0))], &[(-1, row(1, 5, 1)), (-1, row(2, 4, 1))]);
        assert_eq!(join.state_size().rows, 0);
        assert_eq!(join.state.keys.len(), 0);
    }
}

fn context(before: i64, after: i64) -> StepContext<'static> {
    StepContext { watermark_before: Watermark(before), watermark: Watermark(after), ..Default::default() }
}

#[test]
fn looking_back_rows_leave_when_the_watermark_has_passed_them() {
    let mut join = join(GtEq, true, Emit::OnClose, true);
    let left = [(1, row(1, 2, 0)), (1, row(1, 5, 1)), (1, row(1, 9, 2))];
    let right = [(1, row(1, 3, 30)), (1, row(1, 4, 40)), (1, row(1, 8, 80))];
    // 5 is not before the watermark.
    assert_eq!(
        timed(&mut join, &left, &right, &mut context(i64::MIN, 5)),
        "+ 1  1  2  0  NULL  NULL  NULL\n"
    );
    // The right row at 3 is nobody's partner any more.
    assert_eq!(join.state_size().rows, 4);
    assert_eq!(timed(&mut join, &[], &[(1, row(1, 5, 50))], &mut context(5, 6)), "+ 1  1  5  1  50  1  5\n");
    let mut late = context(6, 6);
    assert_eq!(timed(&mut join, &[(1, row(1, 5, 7))], &[(1, row(1, 4, 7))], &mut late), "");
    assert_eq!(late.late_rows, 2);
    assert_eq!(timed(&mut join, &[], &[], &mut context(6, 20)), "+ 1  1  9  2  80  1  8\n");
    // The newest right row stays for rows to come.
    assert_eq!(join.state_size().rows, 1);
    assert_eq!(
        timed(&mut join, &[(1, row(1, 30, 3))], &[], &mut context(20, 40)),
        "+ 1  1  30  3  80  1  8\n"
    );
}

#[test]
fn looking_ahead_rows_leave_when_the_watermark_has_passed_their_partner() {
    let mut join = join(Lt, true, Emit::OnClose, true);
    let left = [(1, row(1, 2, 0)), (1, row(1, 5, 1))];
    assert_eq!(timed(&mut join, &left, &[(1, row(1, 5, 50))], &mut context(i64::MIN, 5)), "");
    assert_eq!(timed(&mut join, &[], &[(1, row(1, 9, 90))], &mut context(5, 8)), "+ 1  1  2  0  50  1  5\n");
    assert_eq!(join.state_size().rows, 2);
    assert_eq!(timed(&mut join, &[(1, row(1, 9, 2))], &[], &mut context(8, 10)), "+ 1  1  5  1  90  1  9\n");
    // The row at 9 waits for a partner, until the end of the input.
    assert_eq!(join.state_size().rows, 1);
    assert_eq!(timed(&mut join, &[], &[], &mut context(10, i64::MAX)), "+ 1  1  9  2  NULL  NULL  NULL\n");
    assert_eq!(join.state_size().rows, 0);
}

#[test]
fn with_watermarks_updated_results_free_their_state_too() {
    for comparison in [GtEq, Lt] {
        let mut join = join(comparison, false, Emit::Updating, true);
        for moment in 0..50 {
            let rows = [(1, row(moment % 3, moment, moment))];
            timed(&mut join, &rows, &rows, &mut context(moment - 5, moment - 4));
        }
        assert!(join.state_size().rows < 20, "{comparison}: {}", join.state_size().rows);
    }
}

fn fulfils(comparison: AsofComparison, left: i64, right: i64) -> bool {
    match comparison {
        GtEq => left >= right,
        Gt => left > right,
        LtEq => left <= right,
        Lt => left < right,
    }
}

/// The dumb way: every left row with every right row.
fn oracle(
    left: &[Row],
    right: &[Row],
    comparison: AsofComparison,
    outer: bool,
) -> BTreeMap<(Row, Option<Row>), i64> {
    let mut expected = BTreeMap::new();
    for l in left {
        let candidates = right.iter().filter(|r| match (l.0, l.1, r.0, r.1) {
            (Some(k), Some(t), Some(other), Some(u)) => k == other && fulfils(comparison, t, u),
            _ => false,
        });
        let nearest = candidates.max_by_key(|r| {
            let time = r.1.unwrap();
            (if comparison.looks_back() { time } else { -time }, r.2)
        });
        if nearest.is_some() || outer {
            *expected.entry((*l, nearest.copied())).or_default() += 1;
        }
    }
    expected
}

fn add(sum: &mut BTreeMap<(Row, Option<Row>), i64>, change: &ZSet) {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    let rows = change.rows();
    let number = |column: usize, row: usize| {
        let array = rows.column(column).as_primitive::<Int64Type>();
        array.is_valid(row).then(|| array.value(row))
    };
    let time = |column: usize, row: usize| {
        let array = rows.column(column).as_primitive::<TimestampMicrosecondType>();
        array.is_valid(row).then(|| array.value(row))
    };
    for n in 0..change.len() {
        let left = (number(0, n), time(1, n), number(2, n).unwrap());
        let right = number(3, n).map(|v| (number(4, n), time(5, n), v));
        let weight = sum.entry((left, right)).or_default();
        *weight += change.weight(n);
        if *weight == 0 {
            sum.remove(&(left, right));
        }
    }
}

#[test]
fn any_changes_in_any_steps_equal_the_nested_loop() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let comparison = [GtEq, Gt, LtEq, Lt][rng.usize(..4)];
        let outer = rng.bool();
        let mut join = updating(comparison, outer);
        let (keys, times) = (rng.i64(1..4), rng.i64(3..30));
        let mut rows: [Vec<Row>; 2] = Default::default();
        let mut sum = BTreeMap::new();
        for _ in 0..rng.usize(1..25) {
            let mut changes: [Vec<(i64, Row)>; 2] = Default::default();
            for _ in 0..rng.usize(..20) {
                let side = rng.usize(..2);
                if rng.u8(..3) == 0 && !rows[side].is_empty() {
                    let at = rng.usize(..rows[side].len());
                    changes[side].push((-1, rows[side].swap_remove(at)));
                } else {
                    let maybe = |value: i64, rng: &mut fastrand::Rng| (rng.u8(..10) > 0).then_some(value);
                    let (k, t) = (rng.i64(..keys), rng.i64(..times));
                    let row = (maybe(k, &mut rng), maybe(t, &mut rng), rng.i64(..3));
                    rows[side].push(row);
                    changes[side].push((1, row));
                }
            }
            if rng.u8(..4) == 0 {
                join = reopened(&join, || updating(comparison, outer), &mut rng);
                damaged(&join, || updating(comparison, outer), &mut rng);
            }
            let [left, right] = &changes;
            let inputs = [change(0, left), change(1, right)];
            add(&mut sum, &join.step(&inputs, &mut StepContext::default()).unwrap());
            assert_eq!(sum, oracle(&rows[0], &rows[1], comparison, outer), "seed {seed}, {comparison}");
        }
        let kept = rows.iter().enumerate().map(|(side, rows)| {
            let kept = rows.iter().filter(|row| row.0.is_some() && row.1.is_some()).map(|row| (side, *row));
            kept.collect::<std::collections::BTreeSet<_>>().len()
        });
        assert_eq!(join.state_size().rows, kept.sum::<usize>(), "seed {seed}");
    }
}

/// Rows out of order but not late, with a watermark that follows: whatever is freed, nothing is missing in the end.
#[test]
fn final_results_equal_the_nested_loop_whatever_was_freed() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let comparison = [GtEq, Gt, LtEq, Lt][rng.usize(..4)];
        let outer = rng.bool();
        let emit = if rng.bool() { Emit::OnClose } else { Emit::Updating };
        let make = || super::tests::join(comparison, outer, emit, true);
        // One goes through its bytes, the other one keeps its state.
        let (mut join, mut kept) = (make(), make());
        let mut rows: [Vec<Row>; 2] = Default::default();
        let mut sum = BTreeMap::new();
        let mut watermark = i64::MIN;
        for moment in 0..rng.i64(5..60) {
            let mut changes: [Vec<(i64, Row)>; 2] = Default::default();
            for _ in 0..rng.usize(..6) {
                let side = rng.usize(..2);
                let k = (rng.u8(..10) > 0).then(|| rng.i64(..3));
                let row = (k, Some(rng.i64(moment.max(5) - 5..moment + 3)), rng.i64(..3));
                rows[side].push(row);
                changes[side].push((1, row));
            }
            let next = if rng.bool() { watermark } else { watermark.max(moment - 4) };
            if rng.u8(..4) == 0 {
                join = reopened(&join, make, &mut rng);
                damaged(&join, make, &mut rng);
            }
            let [left, right] = &changes;
            let mut ctx = context(watermark, next);
            let inputs = [change(0, left), change(1, right)];
            let out = join.step(&inputs, &mut ctx).unwrap();
            let other = kept.step(&inputs, &mut context(watermark, next)).unwrap();
            assert_eq!(picture(std::slice::from_ref(&out)), picture(&[other]), "seed {seed}");
            assert_eq!(join.state_size().rows, kept.state_size().rows, "seed {seed}");
            assert_eq!(ctx.late_rows, 0, "seed {seed}");
            let retracts = (0..out.len()).any(|row| out.weight(row) < 0);
            assert!(emit == Emit::Updating || !retracts, "seed {seed}: final rows stay");
            add(&mut sum, &out);
            watermark = next;
        }
        let out = join.step(&[change(0, &[]), change(1, &[])], &mut context(watermark, i64::MAX)).unwrap();
        add(&mut sum, &out);
        assert_eq!(sum, oracle(&rows[0], &rows[1], comparison, outer), "seed {seed}, {comparison} {emit:?}");
        assert_eq!(join.state_size().rows, 0, "seed {seed}");
    }
}

/// A key with many rows on both sides, loaded the worst way round: each left row is replaced once per step.
#[test]
fn a_hot_key_is_replaced_once_per_step() {
    let mut join = updating(GtEq, false);
    let left: Vec<(i64, Row)> = (0..2000).map(|t| (1, row(1, t, 0))).collect();
    let right: Vec<(i64, Row)> = (0..2000).rev().map(|t| (1, row(1, t, 1))).collect();
    join.step(&[change(0, &left), change(1, &[(1, row(1, 0, 0))])], &mut StepContext::default()).unwrap();
    let out = join.step(&[change(0, &[]), change(1, &right)], &mut StepContext::default()).unwrap();
    assert_eq!(out.len(), 2 * 2000);
}
