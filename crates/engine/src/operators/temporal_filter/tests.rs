use super::*;
use crate::operators::saving::{damaged, reopened_whole};
use arrow::array::{Array, StringArray};
use dataflow::picture::picture;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, lit};
use datafusion::scalar::ScalarValue;

const SECOND: i64 = 1_000_000;

fn input() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true), Field::new("ts", time, true)]))
}

fn zset(rows: &[(&str, Option<i64>, i64)]) -> ZSet {
    let names = StringArray::from_iter_values(rows.iter().map(|(name, ..)| *name));
    let times = rows.iter().map(|(_, second, _)| second.map(|second| second * SECOND));
    let times = TimestampMicrosecondArray::from_iter(times).with_timezone("UTC");
    let batch = RecordBatch::try_new(input(), vec![Arc::new(names), Arc::new(times)]).unwrap();
    ZSet::new(batch, rows.iter().map(|(.., weight)| *weight).collect())
}

/// `ts <side> now() - INTERVAL '10 seconds'`
fn filter(side: Side) -> TemporalFilter {
    let interval = ScalarValue::IntervalMonthDayNano(Some(arrow::datatypes::IntervalMonthDayNano::new(
        0,
        0,
        10_000_000_000,
    )));
    let now = Arc::new(Column::new("now", 0));
    let threshold = BinaryExpr::new(now, datafusion::logical_expr::Operator::Minus, lit(interval));
    let spec = TemporalFilterSpec { column: 1, threshold: Arc::new(threshold), side, width: 2 };
    TemporalFilter::new(spec, &input()).unwrap()
}

fn step(filter: &mut TemporalFilter, now: i64, rows: &[(&str, Option<i64>, i64)]) -> String {
    let mut ctx = StepContext { now_us: Some(now * SECOND), ..Default::default() };
    picture(&[filter.step(&[zset(rows)], &mut ctx).unwrap()]).replace("1970-01-01T00:", "")
}

#[test]
fn rows_leave_when_the_threshold_reaches_them() {
    let mut filter = filter(Side::Above { inclusive: false });
    let rows = [("a", Some(90), 1), ("b", Some(91), 2), ("gone", Some(80), 1), ("null", None, 1)];
    assert_eq!(step(&mut filter, 95, &rows), "+ 1  a  01:30Z\n+ 2  b  01:31Z\n");
    assert_eq!(filter.state_size().rows, 2);
    assert_eq!(filter.clock_due_us(95 * SECOND).unwrap() / SECOND, 100);
    assert_eq!(step(&mut filter, 99, &[]), "");
    assert_eq!(step(&mut filter, 100, &[]), "- 1  a  01:30Z\n");
    // Taken away before its time; what is gone already can't be taken away again.
    assert_eq!(step(&mut filter, 100, &[("b", Some(91), -1), ("a", Some(90), -1)]), "- 1  b  01:31Z\n");
    assert_eq!(step(&mut filter, 200, &[]), "- 1  b  01:31Z\n");
    assert_eq!((filter.state_size().rows, filter.state_size().bytes), (0, 0));
    assert_eq!(filter.clock_due_us(200 * SECOND), None);
}

#[test]
fn a_row_on_the_threshold_is_there_when_equality_counts() {
    let mut strict = filter(Side::Above { inclusive: false });
    let mut inclusive = filter(Side::Above { inclusive: true });
    assert_eq!(step(&mut strict, 100, &[("a", Some(90), 1)]), "");
    assert_eq!(step(&mut inclusive, 100, &[("a", Some(90), 1)]), "+ 1  a  01:30Z\n");
    let mut strict = filter(Side::Below { inclusive: false });
    let mut inclusive = filter(Side::Below { inclusive: true });
    assert_eq!(step(&mut strict, 100, &[("a", Some(90), 1)]), "");
    assert_eq!(step(&mut inclusive, 100, &[("a", Some(90), 1)]), "+ 1  a  01:30Z\n");
    assert_eq!(step(&mut strict, 101, &[]), "+ 1  a  01:30Z\n");
}

#[test]
fn rows_come_when_the_threshold_has_passed_them() {
    let mut filter = filter(Side::Below { inclusive: false });
    let rows = [("a", Some(90), 1), ("b", Some(95), 1), ("c", Some(96), 1), ("null", None, 1)];
    assert_eq!(step(&mut filter, 101, &rows), "+ 1  a  01:30Z\n");
    assert_eq!(step(&mut filter, 102, &[("c", Some(96), -1), ("a", Some(90), -1)]), "- 1  a  01:30Z\n");
    assert_eq!(step(&mut filter, 106, &[]), "+ 1  b  01:35Z\n");
    assert_eq!(step(&mut filter, 107, &[("b", Some(95), -1)]), "- 1  b  01:35Z\n");
    assert_eq!(filter.state_size().rows, 0);
}

/// However the records are cut into steps, what is there in the end is what the last threshold lets through.
#[test]
fn random_cuts_give_what_the_comparison_gives() {
    let sides = [
        Side::Above { inclusive: false },
        Side::Above { inclusive: true },
        Side::Below { inclusive: false },
        Side::Below { inclusive: true },
    ];
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let side = sides[random.usize(..4)];
        let make = || super::tests::filter(side);
        let mut filter = make();
        let (mut now, mut there): (i64, Vec<Option<i64>>) = (20, Vec::new());
        let mut outputs = Vec::new();
        for round in 0..random.usize(1..20) {
            // Without a clock the last threshold holds.
            let clocked = round == 0 || random.u8(..4) > 0;
            now += if clocked { random.i64(0..4) } else { 0 };
            let mut rows = Vec::new();
            for _ in 0..random.usize(..6) {
                if !there.is_empty() && random.u8(..3) == 0 {
                    rows.push(("x", there.swap_remove(random.usize(..there.len())), -1));
                } else {
                    let second = (random.u8(..8) > 0).then(|| now - 10 + random.i64(-5..6));
                    there.push(second);
                    rows.push(("x", second, 1));
                }
            }
            if random.u8(..3) == 0 {
                // What was found before stays, though another moment would give another one.
                let due = random.bool().then(|| filter.clock_due_us(now * SECOND - 700));
                filter = reopened_whole(&filter, make, &mut random);
                assert!(due.is_none_or(|due| filter.clock_due_us(now * SECOND) == due), "seed {seed}");
                damaged(&filter, make, &mut random);
            }
            let now_us = clocked.then_some(now * SECOND);
            let mut ctx = StepContext { now_us, ..Default::default() };
            outputs.push(filter.step(&[zset(&rows)], &mut ctx).unwrap());
            let threshold = now - 10;
            let shown = there.iter().flatten().filter(|second| match side {
                Side::Above { inclusive: false } => **second > threshold,
                Side::Above { inclusive: true } => **second >= threshold,
                Side::Below { inclusive: false } => **second < threshold,
                Side::Below { inclusive: true } => **second <= threshold,
            });
            let expected: Vec<_> = shown.map(|second| ("x", Some(*second), 1)).collect();
            assert_eq!(picture(&outputs), picture(&[zset(&expected)]), "seed {seed}");
        }
    }
    assert!(zset(&[("x", None, 1)]).rows().column(1).is_null(0));
}
