//! Against a second implementation that sorts all rows and looks at every frame, and what a change reaches.

mod saved;

use super::*;
use std::collections::BTreeMap;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use dataflow::picture::picture;

use crate::operators::aggregate::AggregateFunction;
use crate::operators::saving::reopened;

/// Partition, order value, value.
type Row = (i64, Option<i64>, Option<i64>);

fn schema(extra: usize) -> SchemaRef {
    let names = ["p", "o", "v"].map(str::to_string).into_iter();
    let fields = names.chain((0..extra).map(|i| format!("r{i}")));
    Arc::new(Schema::new(fields.map(|name| Field::new(name, DataType::Int64, true)).collect::<Vec<_>>()))
}

fn zset(rows: &[(Row, i64)]) -> ZSet {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(row, _)| Some(row.0)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| row.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| row.2).collect::<Int64Array>()),
    ];
    let batch = RecordBatch::try_new(schema(0), columns).unwrap();
    ZSet::new(batch, rows.iter().map(|(_, weight)| *weight).collect())
}

fn aggregate(function: AggregateFunction, distinct: bool, output: FieldRef) -> AggregateCall {
    AggregateCall { function, arguments: vec![2], filter: None, distinct, order_by: vec![], output }
}

fn over(functions: Vec<OverFunction>, descending: bool) -> Over {
    let calls = functions.into_iter().enumerate().map(|(i, function)| OverCall {
        function,
        output: Arc::new(Field::new(format!("r{i}"), DataType::Int64, true)),
    });
    let calls: Vec<OverCall> = calls.collect();
    Over::new(OverSpec {
        input: schema(0),
        partition: vec![0],
        order: vec![(1, SortOptions { descending, nulls_first: false })],
        output: schema(calls.len()),
        calls,
        release: Release::Never,
        emit: Emit::Updating,
    })
    .unwrap()
}

fn count(function: AggregateFunction, frame: &Frame) -> OverFunction {
    let output = Arc::new(Field::new("a", DataType::Int64, true));
    OverFunction::Aggregate { call: aggregate(function, false, output), frame: frame.clone() }
}

fn step(over: &mut Over, rows: &[(Row, i64)]) -> ZSet {
    over.step(&[zset(rows)], &mut StepContext::default()).unwrap()
}

fn rows_frame(before: usize) -> Frame {
    Frame { unit: Unit::Rows, start: Bound::Preceding(Offset::Count(before)), end: Bound::CurrentRow }
}

#[test]
fn a_change_reaches_only_the_rows_whose_frames_hold_it() {
    let mut over = over(vec![count(AggregateFunction::Sum, &rows_frame(1))], false);
    let rows: Vec<(Row, i64)> = (0..100).map(|i| ((1, Some(i * 10), Some(1)), 1)).collect();
    assert_eq!(step(&mut over, &rows).len(), 100);
    let change = step(&mut over, &[((1, Some(505), Some(7)), 1)]);
    assert_eq!(picture(&[change]), "+ 1  1  505  7  8\n- 1  1  510  1  2\n+ 1  1  510  1  8\n");
    let change = step(&mut over, &[((1, Some(505), Some(7)), -1)]);
    assert_eq!(picture(&[change]), "- 1  1  505  7  8\n+ 1  1  510  1  2\n- 1  1  510  1  8\n");
    // At the end: the new row only.
    assert_eq!(step(&mut over, &[((1, Some(2000), Some(1)), 1)]).len(), 1);
    assert_eq!(step(&mut over, &[]).len(), 0);
}

#[test]
fn duplicates_stand_one_after_the_other() {
    let mut over = over(vec![OverFunction::RowNumber], false);
    let first = step(&mut over, &[((1, Some(1), None), 2), ((1, None, None), 1)]);
    assert_eq!(picture(&[first]), "+ 1  1  1  NULL  1\n+ 1  1  1  NULL  2\n+ 1  1  NULL  NULL  3\n");
    let less = step(&mut over, &[((1, Some(1), None), -1)]);
    assert_eq!(picture(&[less]), "- 1  1  1  NULL  2\n+ 1  1  NULL  NULL  2\n- 1  1  NULL  NULL  3\n");
    step(&mut over, &[((1, Some(1), None), -1), ((1, None, None), -1)]);
    assert_eq!(over.state_size().rows, 0);
}

#[test]
fn a_deletion_of_nothing_is_an_error() {
    let mut over = over(vec![OverFunction::RowNumber], false);
    let error = over.step(&[zset(&[((1, Some(1), None), -1)])], &mut StepContext::default());
    assert!(error.unwrap_err().to_string().contains("not there"));
}

/// The results of every row of a sorted partition, by the book.
fn by_the_book(rows: &[Row], function: &OverFunction, descending: bool, at: usize) -> Option<i64> {
    let order = |row: &Row| (row.1.is_none(), row.1.map(|o| if descending { -o } else { o }));
    let own = order(&rows[at]);
    let group = |row: usize| rows[..=row].chunk_by(|a, b| a.1 == b.1).count() as i64;
    let frame = |frame: &Frame| -> Vec<usize> {
        let offset = |by: &Offset| match by {
            Offset::Count(n) => *n as i64,
            Offset::Whole(n) => *n as i64,
            _ => unreachable!(),
        };
        // How far each row is from this one, in the frame's unit; `None` in RANGE: only peers of NULL are near.
        let distance = |row: usize| -> Option<i64> {
            match frame.unit {
                Unit::Rows => Some(row as i64 - at as i64),
                Unit::Groups => Some(group(row) - group(at)),
                Unit::Range => match (order(&rows[row]).1, own.1) {
                    (Some(theirs), Some(ours)) => Some(theirs - ours),
                    (None, None) => Some(0),
                    _ => None,
                },
            }
        };
        let in_frame = |row: &usize| {
            let after = |bound: &Bound, low: bool| match bound {
                Bound::UnboundedPreceding => low,
                Bound::UnboundedFollowing => !low,
                other => {
                    let limit = match other {
                        Bound::Preceding(by) => -offset(by),
                        Bound::Following(by) => offset(by),
                        _ => 0,
                    };
                    let null = own.1.is_none() && frame.unit == Unit::Range;
                    match distance(*row) {
                        Some(d) if null => d == 0,
                        Some(d) => {
                            if low {
                                d >= limit
                            } else {
                                d <= limit
                            }
                        }
                        // NULLs come last: behind every value, and values before every NULL.
                        None if null => !low,
                        None => low,
                    }
                }
            };
            after(&frame.start, true) && after(&frame.end, false)
        };
        (0..rows.len()).filter(in_frame).collect()
    };
    let values = |wanted: &Frame| frame(wanted).into_iter().filter_map(|row| rows[row].2).collect::<Vec<_>>();
    match function {
        OverFunction::RowNumber => Some(at as i64 + 1),
        OverFunction::Rank => Some(rows.iter().position(|row| order(row) == own).unwrap() as i64 + 1),
        OverFunction::DenseRank => Some(group(at)),
        OverFunction::Shift { back, .. } => {
            usize::try_from(at as i64 - back).ok().and_then(|row| rows.get(row)).and_then(|row| row.2)
        }
        OverFunction::Nth { frame: wanted, nth, .. } => {
            let rows_in = frame(wanted);
            let row = if *nth >= 0 { rows_in.get(*nth as usize) } else { rows_in.last() };
            row.and_then(|row| rows[*row].2)
        }
        OverFunction::Aggregate { call, frame: wanted } => {
            let values = values(wanted);
            match call.function {
                AggregateFunction::Count if call.distinct => {
                    Some(values.iter().collect::<std::collections::BTreeSet<_>>().len() as i64)
                }
                AggregateFunction::Count => Some(values.len() as i64),
                AggregateFunction::Min => values.into_iter().min(),
                AggregateFunction::Max => values.into_iter().max(),
                _ => (!values.is_empty()).then(|| values.iter().sum()),
            }
        }
        _ => unreachable!(),
    }
}

fn random_frame(rng: &mut fastrand::Rng) -> Frame {
    let unit = [Unit::Rows, Unit::Range, Unit::Groups][rng.usize(..3)];
    let offset = |rng: &mut fastrand::Rng| match unit {
        Unit::Range => Offset::Whole(rng.i128(0..6)),
        _ => Offset::Count(rng.usize(..4)),
    };
    let mut bound = |start: bool| match rng.u8(..4) {
        0 if start => Bound::UnboundedPreceding,
        0 => Bound::UnboundedFollowing,
        1 => Bound::Preceding(offset(rng)),
        2 => Bound::Following(offset(rng)),
        _ => Bound::CurrentRow,
    };
    let (start, end) = (bound(true), bound(false));
    // A frame that ends before it starts is empty, here and there; both ways of an own-row bound are tried.
    Frame { unit, start, end }
}

fn random_function(rng: &mut fastrand::Rng) -> OverFunction {
    use AggregateFunction::*;
    let frame = random_frame(rng);
    match rng.u8(..11) {
        0 => OverFunction::RowNumber,
        1 => OverFunction::Rank,
        2 => OverFunction::DenseRank,
        3 => OverFunction::Shift { argument: 2, back: rng.i64(-3..4), default: None, ignore_nulls: false },
        4 => OverFunction::Nth { argument: 2, frame, nth: rng.i64(-1..3), ignore_nulls: false },
        5 => {
            let output = Arc::new(Field::new("a", DataType::Int64, true));
            OverFunction::Aggregate { call: aggregate(Count, true, output), frame }
        }
        n => count([Count, Sum, Sum, Min, Max][n as usize - 6], &frame),
    }
}

#[test]
fn equals_the_book_after_every_step() {
    for seed in 0..1500u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let descending = rng.bool();
        let functions: Vec<OverFunction> = (0..rng.usize(1..4)).map(|_| random_function(&mut rng)).collect();
        let mut over = over(functions.clone(), descending);
        let mut rows: Vec<Row> = Vec::new();
        let mut shown: Vec<ZSet> = Vec::new();
        for round in 0..rng.usize(1..10) {
            let mut changes: Vec<(Row, i64)> = Vec::new();
            for _ in 0..rng.usize(0..8) {
                if !rows.is_empty() && rng.u8(..3) == 0 {
                    changes.push((rows.swap_remove(rng.usize(..rows.len())), -1));
                } else {
                    let o = (rng.u8(..8) > 0).then(|| rng.i64(0..12));
                    let row = (rng.i64(0..2), o, (rng.u8(..5) > 0).then(|| rng.i64(-3..9)));
                    let copies = if rng.u8(..6) == 0 { 2 } else { 1 };
                    changes.push((row, copies));
                    rows.extend(std::iter::repeat_n(row, copies as usize));
                }
            }
            shown.push(step(&mut over, &changes));
            if rng.u8(..3) == 0 {
                over = reopened(&over, || self::over(functions.clone(), descending), &mut rng);
            }
            let mut expected: BTreeMap<String, i64> = BTreeMap::new();
            for p in 0..2 {
                let mut partition: Vec<Row> = rows.iter().copied().filter(|row| row.0 == p).collect();
                // NULLs of ORDER BY last; the other column ascending, NULLs first.
                partition.sort_by_key(|row| {
                    (row.1.is_none(), row.1.map(|o| if descending { -o } else { o }), row.2)
                });
                for at in 0..partition.len() {
                    let text = |value: Option<i64>| value.map_or("NULL".to_string(), |v| v.to_string());
                    let row = partition[at];
                    let mut cells = vec![row.0.to_string(), text(row.1), text(row.2)];
                    let results = functions.iter().map(|f| text(by_the_book(&partition, f, descending, at)));
                    cells.extend(results);
                    *expected.entry(cells.join("  ")).or_default() += 1;
                }
            }
            let expected: String = expected.iter().map(|(row, n)| format!("+ {n}  {row}\n")).collect();
            assert_eq!(picture(&shown), expected, "seed {seed}, round {round}: {functions:?}");
        }
        let kept = over.state_size().rows;
        assert_eq!(kept, rows.len(), "seed {seed}: nothing else is kept");
    }
}

#[test]
fn late_rows_are_counted_and_rows_leave_once() {
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let input = Arc::new(Schema::new(vec![Field::new("ts", time.clone(), true)]));
    let output =
        Arc::new(Schema::new(vec![Field::new("ts", time, true), Field::new("n", DataType::Int64, true)]));
    let call = OverCall { function: OverFunction::RowNumber, output: Arc::new(output.field(1).clone()) };
    let mut over = Over::new(OverSpec {
        input: Arc::clone(&input) as SchemaRef,
        partition: vec![],
        order: vec![(0, SortOptions::default())],
        calls: vec![call],
        output,
        release: Release::Order(Expiry { column: 0, add_us: 1, allowed_lateness_us: 0 }),
        emit: Emit::OnClose,
    })
    .unwrap();
    let mut step = |times: &[Option<i64>], before: i64, after: i64| {
        let column: ArrayRef =
            Arc::new(times.iter().copied().collect::<arrow::array::TimestampMicrosecondArray>());
        let rows = RecordBatch::try_new(Arc::clone(&input) as SchemaRef, vec![column]).unwrap();
        let mut ctx = StepContext {
            watermark_before: dataflow::Watermark(before),
            watermark: dataflow::Watermark(after),
            ..StepContext::default()
        };
        let out = over.step(&[ZSet::inserts(rows)], &mut ctx).unwrap();
        (out.len(), ctx.late_rows, ctx.errors_total, over.state_size().rows)
    };
    assert_eq!(step(&[Some(7), Some(5), None], 0, 6), (1, 0, 1, 1), "5 left, 7 waits, NULL is reported");
    assert_eq!(step(&[Some(6), Some(5)], 6, 7), (1, 1, 0, 1), "6 left, 5 is late, 7 could still get peers");
    assert_eq!(step(&[], 7, 100), (1, 0, 0, 0));
}
