//! Windows that close, rows that become final, sessions: what was reopened at any step goes on as what was not.

use super::*;
use arrow::array::{Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimeUnit;
use dataflow::Watermark;

use crate::operators::saving::damaged;

/// Partition, time, whole number, float and text.
type Row = (i64, i64, Option<i64>, f64, &'static str);

const COLUMNS: [&str; 5] = ["p", "ts", "v", "f", "s"];

fn schema(results: &[DataType]) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let types = [DataType::Int64, time, DataType::Int64, DataType::Float64, DataType::Utf8];
    let fields = COLUMNS.iter().map(|name| (*name).to_string()).zip(types);
    let results = results.iter().enumerate().map(|(i, data_type)| (format!("r{i}"), data_type.clone()));
    let fields = fields.chain(results).map(|(name, data_type)| Field::new(name, data_type, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn zset(rows: &[(Row, i64)]) -> ZSet {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(row, _)| Some(row.0)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| Some(row.1)).collect::<TimestampMicrosecondArray>()),
        Arc::new(rows.iter().map(|(row, _)| row.2).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| Some(row.3)).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|(row, _)| Some(row.4)).collect::<StringArray>()),
    ];
    let batch = RecordBatch::try_new(schema(&[]), columns).unwrap();
    ZSet::new(batch, rows.iter().map(|(_, weight)| *weight).collect())
}

/// A call over a frame that ends with the current row or soon after, and its type.
fn random_call(rng: &mut fastrand::Rng) -> (OverFunction, DataType) {
    use AggregateFunction::*;
    let unit = [Unit::Rows, Unit::Range, Unit::Groups][rng.usize(..3)];
    let offset = match unit {
        Unit::Range => Offset::Whole(rng.i128(0..6)),
        _ => Offset::Count(rng.usize(..4)),
    };
    let start = if rng.u8(..3) > 0 { Bound::UnboundedPreceding } else { Bound::Preceding(offset.clone()) };
    let end = if rng.u8(..3) > 0 { Bound::CurrentRow } else { Bound::Following(offset) };
    let frame = Frame { unit, start, end };
    let (argument, argument_type) =
        [(2, DataType::Int64), (3, DataType::Float64), (4, DataType::Utf8)][rng.usize(..3)].clone();
    let aggregate = |function, argument, distinct, data_type: &DataType| {
        let output = Arc::new(Field::new("a", data_type.clone(), true));
        let call = AggregateCall {
            function,
            arguments: vec![argument],
            filter: None,
            distinct,
            order_by: vec![],
            output,
        };
        (OverFunction::Aggregate { call, frame: frame.clone() }, data_type.clone())
    };
    match rng.u8(..10) {
        0 => (OverFunction::RowNumber, DataType::Int64),
        1 => (OverFunction::DenseRank, DataType::Int64),
        2 => {
            let back = rng.i64(-2..3);
            (OverFunction::Shift { argument, back, default: None, ignore_nulls: false }, argument_type)
        }
        3 => {
            let (nth, ignore_nulls) = (rng.i64(0..3), rng.bool());
            (OverFunction::Nth { argument, frame, nth, ignore_nulls }, argument_type)
        }
        4 => aggregate(Count, argument, true, &DataType::Int64),
        5 => aggregate(Count, 4, false, &DataType::Int64),
        6 => aggregate(Sum, 2, false, &DataType::Int64),
        7 => aggregate(Sum, 3, false, &DataType::Float64),
        n => aggregate([Min, Max][n as usize - 8], argument, false, &argument_type),
    }
}

fn random_spec(rng: &mut fastrand::Rng) -> OverSpec {
    let expiry = Expiry { column: 1, add_us: 1, allowed_lateness_us: 0 };
    let sessions = rng.u8(..4) == 0;
    let mut release = Release::Order(expiry);
    let emit = if rng.bool() { Emit::OnClose } else { Emit::Updating };
    let calls: Vec<(OverFunction, DataType)> = if sessions {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        release = Release::Order(Expiry { add_us: 4, ..expiry });
        let gap_us = 3;
        vec![
            (OverFunction::SessionStart { gap_us }, time.clone()),
            (OverFunction::SessionEnd { gap_us }, time),
        ]
    } else {
        (0..rng.usize(1..4)).map(|_| random_call(rng)).collect()
    };
    let mut partition = vec![0];
    let mut order = vec![(1, SortOptions { descending: false, nulls_first: false })];
    if !sessions && (emit == Emit::Updating || rng.u8(..3) == 0) {
        // The time is that of a window, to which each row of a partition belongs.
        partition.push(1);
        order = vec![
            (4, SortOptions { descending: rng.bool(), nulls_first: false }),
            (2, SortOptions::default()),
        ];
        release = Release::Partition(Expiry { add_us: 3, allowed_lateness_us: rng.i64(0..6), ..expiry });
    }
    let types: Vec<DataType> = calls.iter().map(|(_, data_type)| data_type.clone()).collect();
    let output = schema(&types);
    let calls = calls.into_iter().enumerate().map(|(i, (function, _))| OverCall {
        function,
        output: Arc::new(output.field(COLUMNS.len() + i).clone()),
    });
    OverSpec { input: schema(&[]), partition, order, calls: calls.collect(), output, release, emit }
}

#[test]
fn reopened_at_any_step_it_goes_on() {
    let texts = ["", "a", "a text of more than one block of the row format, to be sure"];
    let floats = [0.5, -0.0, 1e300, -1e300, 1e-300, f64::INFINITY, f64::NAN];
    let (mut tried, mut dropped) = (0, 0);
    for seed in 0..1500u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let spec = random_spec(&mut rng);
        // A RANGE with an offset needs one column of numbers.
        let Ok(mut kept) = Over::new(spec.clone()) else { continue };
        tried += 1;
        let make = || Over::new(spec.clone()).unwrap();
        let mut new = make();
        let final_rows = matches!(spec.release, Release::Order(_)) && spec.emit == Emit::OnClose;
        let mut rows: Vec<Row> = Vec::new();
        let (mut before, mut now) = (Watermark::MIN, 0);
        for round in 0..rng.usize(2..16) {
            let mut changes: Vec<(Row, i64)> = Vec::new();
            for _ in 0..rng.usize(0..8) {
                if !rows.is_empty() && !final_rows && rng.u8(..4) == 0 {
                    changes.push((rows.swap_remove(rng.usize(..rows.len())), -1));
                    continue;
                }
                let value = (rng.u8(..5) > 0).then(|| rng.i64(-3..9));
                let (float, text) =
                    (floats[rng.usize(..if seed % 5 == 0 { 7 } else { 5 })], texts[rng.usize(..3)]);
                let row = (rng.i64(0..4), now + rng.i64(-2..7), value, float, text);
                changes.push((row, 1 + i64::from(rng.u8(..6) == 0)));
                rows.extend(std::iter::repeat_n(row, changes[changes.len() - 1].1 as usize));
            }
            now += rng.i64(0..4);
            // The watermark does not go on in every step.
            let watermark = if rng.u8(..3) > 0 { Watermark(now) } else { before };
            let step = |over: &mut Over| {
                let mut ctx = StepContext { watermark_before: before, watermark, ..StepContext::default() };
                let out = over.step(&[zset(&changes)], &mut ctx).unwrap();
                (picture(&[out]), ctx.late_rows, ctx.errors_total, over.state_size().rows)
            };
            assert_eq!(step(&mut kept), step(&mut new), "seed {seed}, round {round}: {spec:?}");
            before = watermark;
            // Rows that are late now were never there.
            if let Some(expiry) = spec.release.expiry() {
                rows.retain(|row| !expiry.expired(row.1, watermark));
            }
            dropped += new.partitions.iter().filter(|p| p.list.start() > 0).count();
            if rng.u8(..3) == 0 {
                new = reopened(&new, make, &mut rng);
            }
        }
    }
    assert!(tried > 1000 && dropped > 1000, "{tried} specifications, {dropped} partitions with rows dropped");
}

#[test]
fn damage_does_not_panic_where_rows_are_not_decoded() {
    let functions = vec![OverFunction::RowNumber, OverFunction::DenseRank];
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut over = over(functions.clone(), false);
        let rows: Vec<(super::Row, i64)> = (0..20).map(|i| ((i % 3, Some(i), None), 1)).collect();
        super::step(&mut over, &rows);
        damaged(&over, || super::over(functions.clone(), false), &mut rng);
    }
}
