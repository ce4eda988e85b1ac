mod saved;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
    StringViewArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use dataflow::picture::picture;
use dataflow::{Operator, StepContext, Watermark, ZSet};

use super::oracle::*;
use super::*;

fn spec(keys: &[usize], calls: Vec<AggregateCall>) -> AggregateSpec {
    let fields = keys.iter().map(|key| input().field(*key).clone());
    let output = fields.chain(calls.iter().map(|call| call.output.as_ref().clone())).collect::<Vec<_>>();
    AggregateSpec {
        input: input(),
        keys: keys.to_vec(),
        calls,
        output: Arc::new(Schema::new(output)),
        append_only: false,
        expiry: None,
        emit: Emit::Updating,
    }
}

fn row(key: impl Into<Option<i64>>, int: impl Into<Option<i32>>) -> Row {
    let (key, int) = (key.into(), int.into());
    Row { time: None, key, text: None, int, float: None, decimal: None, bool: None, filter: None }
}

fn context(before: i64, after: i64) -> StepContext<'static> {
    StepContext { watermark_before: Watermark(before), watermark: Watermark(after), ..StepContext::default() }
}

fn step(aggregate: &mut Aggregate, rows: &[(Row, i64)]) -> String {
    picture(&[aggregate.step(&[zset(rows)], &mut StepContext::default()).unwrap()])
}

fn count_and_sum() -> Vec<AggregateCall> {
    use AggregateFunction::*;
    vec![call(Count, &[], DataType::Int64), call(Sum, &[INT], DataType::Int64)]
}

#[test]
fn insertion_update_and_retraction_change_a_group_once() {
    let mut aggregate = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    assert_eq!(
        step(&mut aggregate, &[(row(1, 5), 1), (row(1, 7), 1), (row(2, 1), 1)]),
        "+ 1  1  2  12\n+ 1  2  1  1\n"
    );
    assert_eq!(step(&mut aggregate, &[(row(1, 7), -1), (row(1, 8), 1)]), "- 1  1  2  12\n+ 1  1  2  13\n");
    assert_eq!(step(&mut aggregate, &[(row(2, 1), -1)]), "- 1  2  1  1\n");
    assert_eq!(step(&mut aggregate, &[(row(1, 9), 1), (row(1, 9), -1)]), "");
    assert_eq!(aggregate.state_size().rows, 1);
}

#[test]
fn duplicate_rows_count_as_often_as_they_are() {
    let mut aggregate = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    assert_eq!(step(&mut aggregate, &[(row(1, 5), 2)]), "+ 1  1  2  10\n");
    assert_eq!(step(&mut aggregate, &[(row(1, 5), -1)]), "+ 1  1  1  5\n- 1  1  2  10\n");
}

#[test]
fn empty_input_changes_nothing() {
    let mut aggregate = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    assert_eq!(step(&mut aggregate, &[]), "");
    assert_eq!(aggregate.state_size().rows, 0);
}

#[test]
fn null_is_a_group_and_not_a_value() {
    let mut aggregate = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    let rows = [(row(None, 5), 1), (row(None, None), 1), (row(0, None), 1)];
    assert_eq!(step(&mut aggregate, &rows), "+ 1  0  1  NULL\n+ 1  NULL  2  5\n");
    assert_eq!(step(&mut aggregate, &[(row(None, 5), -1)]), "+ 1  NULL  1  NULL\n- 1  NULL  2  5\n");
}

#[test]
fn the_global_group_is_there_before_any_row() {
    let mut aggregate = Aggregate::new(spec(&[], count_and_sum())).unwrap();
    assert_eq!(step(&mut aggregate, &[]), "+ 1  0  NULL\n");
    assert_eq!(step(&mut aggregate, &[]), "");
    assert_eq!(step(&mut aggregate, &[(row(1, 5), 1)]), "- 1  0  NULL\n+ 1  1  5\n");
    assert_eq!(step(&mut aggregate, &[(row(1, 5), -1)]), "+ 1  0  NULL\n- 1  1  5\n");
    let mut aggregate = Aggregate::new(spec(&[], count_and_sum())).unwrap();
    assert_eq!(step(&mut aggregate, &[(row(1, 5), 1)]), "+ 1  1  5\n");
}

#[test]
fn without_calls_it_is_select_distinct() {
    let mut aggregate = Aggregate::new(spec(&[KEY], Vec::new())).unwrap();
    assert_eq!(step(&mut aggregate, &[(row(1, 5), 1), (row(1, 6), 1)]), "+ 1  1\n");
    assert_eq!(step(&mut aggregate, &[(row(1, 5), -1)]), "");
    assert_eq!(step(&mut aggregate, &[(row(1, 6), -1)]), "- 1  1\n");
}

#[test]
fn a_row_may_be_taken_away_before_it_comes() {
    let mut aggregate = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    assert_eq!(step(&mut aggregate, &[(row(1, 5), -1)]), "");
    assert_eq!(step(&mut aggregate, &[(row(1, 6), 1)]), "");
    assert_eq!(step(&mut aggregate, &[(row(1, 5), 1)]), "+ 1  1  1  6\n");
}

/// Of every call: all rows at once, two steps, and everything but one row taken away again.
#[test]
fn every_function_under_retraction() {
    let mut random = Random(99);
    let rows: Vec<(Row, i64)> = (0..12).map(|_| (Row { key: Some(1), ..random.row(0) }, 1)).collect();
    for call in calls() {
        for distinct in [false, true] {
            let call = AggregateCall { distinct: distinct && !call.arguments.is_empty(), ..call.clone() };
            let show = |rows: &[(Row, i64)]| {
                picture_of(
                    &BTreeMap::from([(vec!["1".to_owned()], rows.to_vec())]),
                    std::slice::from_ref(&call),
                    false,
                )
            };
            let mut aggregate = Aggregate::new(spec(&[KEY], vec![call.clone()])).unwrap();
            let mut outputs = Vec::new();
            for chunk in rows.chunks(7) {
                outputs.push(aggregate.step(&[zset(chunk)], &mut StepContext::default()).unwrap());
            }
            assert_eq!(picture(&outputs), show(&rows), "{call:?}");
            let gone: Vec<(Row, i64)> = rows[1..].iter().map(|(row, _)| (row.clone(), -1)).collect();
            outputs.push(aggregate.step(&[zset(&gone)], &mut StepContext::default()).unwrap());
            assert_eq!(picture(&outputs), show(&rows[..1]), "{call:?} after retraction");
            outputs.push(
                aggregate.step(&[zset(&[(rows[0].0.clone(), -1)])], &mut StepContext::default()).unwrap(),
            );
            assert_eq!(picture(&outputs), "", "{call:?} after all is gone");
            assert_eq!(aggregate.state_size().rows, 0, "{call:?}");
        }
    }
}

fn windowed(emit: Emit, allowed_lateness_us: i64) -> AggregateSpec {
    let expiry = Some(Expiry { column: TIME, add_us: 10 * SECOND, allowed_lateness_us });
    AggregateSpec { expiry, emit, append_only: true, ..spec(&[TIME], count_and_sum()) }
}

fn at(seconds: i64, int: i32) -> (Row, i64) {
    (Row { time: Some(seconds * SECOND), ..row(None, int) }, 1)
}

#[test]
fn on_close_gives_each_window_once_and_frees_it() {
    let mut aggregate = Aggregate::new(windowed(Emit::OnClose, 0)).unwrap();
    let mut ctx = context(i64::MIN, 9 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 1), at(0, 2), at(10, 4)])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "");
    let mut ctx = context(9 * SECOND, 10 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 8)])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "+ 1  1970-01-01T00:00:00Z  3  11\n");
    assert_eq!((ctx.late_rows, aggregate.state_size().rows), (0, 1));
    let mut ctx = context(10 * SECOND, 10 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 8), (row(None, 1), 1)])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "");
    assert_eq!((ctx.late_rows, aggregate.state_size().rows), (1, 1));
    let mut ctx = context(10 * SECOND, i64::MAX);
    let out = aggregate.step(&[zset(&[])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "+ 1  1970-01-01T00:00:10Z  1  4\n");
    assert_eq!(aggregate.state_size().rows, 0);
}

#[test]
fn allowed_lateness_corrects_closed_windows() {
    let mut aggregate = Aggregate::new(windowed(Emit::OnClose, 5 * SECOND)).unwrap();
    let mut ctx = context(i64::MIN, 12 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 1)])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "+ 1  1970-01-01T00:00:00Z  1  1\n");
    let mut ctx = context(12 * SECOND, 15 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 2), at(-1, 7)])], &mut ctx).unwrap();
    assert_eq!(
        picture(&[out]),
        "+ 1  1969-12-31T23:59:59Z  1  7\n- 1  1970-01-01T00:00:00Z  1  1\n+ 1  1970-01-01T00:00:00Z  2  3\n"
    );
    assert_eq!(aggregate.state_size().rows, 0);
    let mut ctx = context(15 * SECOND, 15 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 2)])], &mut ctx).unwrap();
    assert_eq!((picture(&[out]).as_str(), ctx.late_rows), ("", 1));
}

#[test]
fn updating_windows_are_freed_silently() {
    let mut aggregate = Aggregate::new(windowed(Emit::Updating, 0)).unwrap();
    let mut ctx = context(i64::MIN, 11 * SECOND);
    let out = aggregate.step(&[zset(&[at(0, 1), at(10, 2)])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "+ 1  1970-01-01T00:00:00Z  1  1\n+ 1  1970-01-01T00:00:10Z  1  2\n");
    assert_eq!(aggregate.state_size().rows, 1);
    let mut ctx = context(11 * SECOND, 11 * SECOND);
    let out = aggregate.step(&[zset(&[(at(0, 1).0, -3), at(10, 2)])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "- 1  1970-01-01T00:00:10Z  1  2\n+ 1  1970-01-01T00:00:10Z  2  4\n");
    assert_eq!(ctx.late_rows, 3);
}

#[test]
fn memory_of_closed_windows_goes_down() {
    let many = |start: i64| -> Vec<(Row, i64)> {
        (0..20_000)
            .map(|i| {
                (
                    Row {
                        text: Some(format!("a long text that is interned {i}")),
                        key: Some(i),
                        ..at(start, 1).0
                    },
                    1,
                )
            })
            .collect()
    };
    let mut calls = count_and_sum();
    calls.push(AggregateCall { distinct: true, ..call(AggregateFunction::Count, &[TEXT], DataType::Int64) });
    for keys in [vec![TIME, KEY], vec![TIME, TEXT], vec![TIME, KEY, TEXT, DECIMAL]] {
        let expiry = Some(Expiry { column: TIME, add_us: 10 * SECOND, allowed_lateness_us: 0 });
        let spec = AggregateSpec { expiry, emit: Emit::OnClose, ..spec(&keys, calls.clone()) };
        let mut aggregate = Aggregate::new(spec).unwrap();
        let few = [many(0), many(100)[..10].to_vec()].concat();
        aggregate.step(&[zset(&few)], &mut context(i64::MIN, 0)).unwrap();
        let full = aggregate.state_size();
        let out = aggregate.step(&[zset(&[])], &mut context(0, 50 * SECOND)).unwrap();
        assert_eq!((full.rows, out.len(), aggregate.state_size().rows), (20_010, 20_000, 10));
        assert!(aggregate.state_size().bytes * 20 < full.bytes, "{full:?}, {:?}", aggregate.state_size());
        let out = aggregate.step(&[zset(&many(100)[5..15])], &mut context(50 * SECOND, i64::MAX)).unwrap();
        assert_eq!(out.len(), 15);
        assert_eq!(picture(&[out]).matches("  2  2  1\n").count(), 5);
    }
}

#[test]
fn results_that_do_not_fit_become_null_and_are_reported() {
    use AggregateFunction::*;
    let input = Arc::new(Schema::new(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("d", DataType::Decimal128(38, 0), true),
        Field::new("u", DataType::UInt64, true),
    ]));
    let calls = vec![
        call(Sum, &[0], DataType::Int64),
        call(Sum, &[1], DataType::Decimal128(38, 0)),
        call(Avg, &[1], DataType::Decimal128(38, 4)),
        call(Sum, &[2], DataType::UInt64),
    ];
    let output =
        Arc::new(Schema::new(calls.iter().map(|call| call.output.as_ref().clone()).collect::<Vec<_>>()));
    let spec = AggregateSpec { input: Arc::clone(&input), calls, output, ..spec(&[], Vec::new()) };
    let mut aggregate = Aggregate::new(spec).unwrap();
    let largest = 10i128.pow(38) - 1;
    let rows = |weights: Vec<i64>| {
        let decimals =
            Decimal128Array::from(vec![largest; weights.len()]).with_precision_and_scale(38, 0).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![i64::MAX; weights.len()])),
            Arc::new(decimals),
            Arc::new(UInt64Array::from(vec![u64::MAX; weights.len()])),
        ];
        ZSet::new(RecordBatch::try_new(Arc::clone(&input), columns).unwrap(), weights)
    };
    let mut ctx = StepContext::default();
    let out = aggregate.step(&[rows(vec![1, 1, 9_000_000_000_000_000_000])], &mut ctx).unwrap();
    assert_eq!(picture(&[out]), "+ 1  NULL  NULL  NULL  NULL\n");
    assert_eq!(ctx.errors_total, 4);
    assert!(ctx.errors[0].contains("Sum"), "{:?}", ctx.errors);
    let mut ctx = StepContext::default();
    let out = aggregate.step(&[rows(vec![-9_000_000_000_000_000_000, -1])], &mut ctx).unwrap();
    // The average has four digits more than fit.
    let expected = format!("+ 1  {}  {largest}  NULL  {}\n- 1  NULL  NULL  NULL  NULL\n", i64::MAX, u64::MAX);
    assert_eq!((picture(&[out]), ctx.errors_total), (expected, 1));
}

#[test]
fn decimal_averages_are_cut_towards_zero() {
    let call = call(AggregateFunction::Avg, &[DECIMAL], DataType::Decimal128(14, 6));
    let mut aggregate = Aggregate::new(spec(&[], vec![call])).unwrap();
    let row = |decimal: i128| Row { decimal: Some(decimal), ..row(None, None) };
    assert_eq!(step(&mut aggregate, &[(row(100), 2), (row(0), 1)]), "+ 1  0.666666\n");
    assert_eq!(step(&mut aggregate, &[(row(-400), 1), (row(0), 2)]), "+ 1  -0.333333\n- 1  0.666666\n");
}

#[test]
fn both_zeros_are_one_group() {
    for keys in [vec![FLOAT], vec![FLOAT, DECIMAL]] {
        let calls = vec![
            call(AggregateFunction::Count, &[], DataType::Int64),
            AggregateCall { distinct: true, ..call(AggregateFunction::Count, &[FLOAT], DataType::Int64) },
        ];
        let mut aggregate = Aggregate::new(spec(&keys, calls)).unwrap();
        let rows: Vec<(Row, i64)> =
            [0.0, -0.0, 0.0].map(|float| (Row { float: Some(float), ..row(None, None) }, 1)).to_vec();
        assert!(step(&mut aggregate, &rows).ends_with("  3  1\n"));
    }
}

#[test]
fn keys_of_every_text_type_come_back() {
    let texts =
        [Some("short"), Some("a text longer than fits a word"), None, Some(""), Some("exactly14bytes")];
    let columns: [ArrayRef; 3] = [
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
    ];
    for column in columns {
        let field = Field::new("t", column.data_type().clone(), true);
        let input = Arc::new(Schema::new(vec![field.clone()]));
        let spec = AggregateSpec {
            input: Arc::clone(&input),
            keys: vec![0],
            output: Arc::clone(&input),
            ..spec(&[], Vec::new())
        };
        let mut aggregate = Aggregate::new(spec).unwrap();
        let rows = ZSet::inserts(RecordBatch::try_new(input, vec![Arc::clone(&column)]).unwrap());
        let out = aggregate.step(std::slice::from_ref(&rows), &mut StepContext::default()).unwrap();
        assert_eq!(out.rows().column(0).as_ref(), column.as_ref());
        let out = aggregate.step(&[rows.negate()], &mut StepContext::default()).unwrap();
        assert_eq!((out.len(), aggregate.state_size().rows), (5, 0));
    }
}

#[test]
fn contradictions_are_refused() {
    let wrong = |spec: AggregateSpec| Aggregate::new(spec).err().unwrap().to_string();
    assert!(
        wrong(AggregateSpec { emit: Emit::OnClose, ..spec(&[KEY], Vec::new()) }).contains("needs a window")
    );
    let expiry = Some(Expiry { column: KEY, add_us: 0, allowed_lateness_us: 0 });
    assert!(wrong(AggregateSpec { expiry, ..spec(&[KEY], Vec::new()) }).contains("timestamp"));
    let text = call(AggregateFunction::Sum, &[TEXT], DataType::Int64);
    assert!(wrong(spec(&[KEY], vec![text])).contains("can't be computed from Utf8"));
    let far = call(AggregateFunction::Count, &[99], DataType::Int64);
    assert!(wrong(spec(&[KEY], vec![far])).contains("column 99"));
}

/// Random keys, calls, steps, watermarks: the sum of all outputs is what the oracle computes from all rows.
#[test]
fn random_cases_equal_recomputation() {
    for case in 0..3000u64 {
        let seed = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(case + 1);
        random_case(seed);
    }
}

fn random_case(seed: u64) {
    let random = &mut Random(seed);
    let mut keys = vec![TIME, KEY, TEXT, INT, FLOAT, DECIMAL, BOOL];
    random.shuffle(&mut keys);
    keys.truncate(random.below(4));
    let append_only = random.one_in(3);
    let expiry = keys.contains(&TIME).then(|| {
        let allowed_lateness_us = if random.one_in(2) { 0 } else { random.below(8) as i64 * SECOND };
        Expiry { column: TIME, add_us: random.below(5) as i64 * SECOND, allowed_lateness_us }
    });
    let expiry = expiry.filter(|_| !random.one_in(4));
    let emit = if expiry.is_some() && random.one_in(2) { Emit::OnClose } else { Emit::Updating };
    let spec = AggregateSpec { append_only, expiry, emit, ..spec(&keys, random.calls()) };
    let note = format!("seed {seed:#x}, {spec:?}");
    let make = || Aggregate::new(spec.clone()).unwrap();
    let mut aggregate = make();
    let mut rng = fastrand::Rng::with_seed(seed);
    // Rows may go before they come when nothing is compared in between.
    let in_order = append_only || expiry.is_some() || random.one_in(2);
    let mut there: Vec<Row> = Vec::new();
    let mut changes: Vec<(Row, i64)> = Vec::new();
    for i in 0..random.below(60) {
        if !append_only && !there.is_empty() && random.one_in(3) {
            changes.push((there.swap_remove(random.below(there.len())), -1));
        } else {
            let row = random.row(i as i64 / 2);
            let weight = if random.one_in(5) { 2 } else { 1 };
            there.extend(std::iter::repeat_n(row.clone(), weight));
            changes.push((row, weight as i64));
        }
    }
    if !in_order {
        random.shuffle(&mut changes);
    }
    let mut groups: BTreeMap<Vec<String>, Vec<(Row, i64)>> = BTreeMap::new();
    let mut window_ends: BTreeMap<Vec<String>, Option<i64>> = BTreeMap::new();
    let mut outputs = Vec::new();
    let (mut at, mut watermark, mut late, mut late_expected) = (0, i64::MIN, 0, 0);
    loop {
        let length = random.below(12).min(changes.len() - at);
        let rows = &changes[at..at + length];
        at += length;
        let mut ctx = context(watermark, watermark);
        if random.one_in(2) {
            ctx.watermark = Watermark(watermark.max((at as i64 / 2 - random.below(10) as i64) * SECOND));
        }
        if at == changes.len() && random.one_in(2) {
            ctx.watermark = Watermark::MAX;
        }
        for (row, weight) in rows {
            let end = expiry.and_then(|expiry| row.time.map(|time| expiry.end_us(time)));
            if let (Some(expiry), Some(time)) = (expiry, row.time)
                && expiry.expired(time, Watermark(watermark))
            {
                late_expected += weight.unsigned_abs();
                continue;
            }
            if emit == Emit::OnClose && end.is_none() {
                continue;
            }
            let key = texts(&key_cells(row, &keys));
            window_ends.insert(key.clone(), end);
            groups.entry(key).or_default().push((row.clone(), *weight));
        }
        if keys.is_empty() {
            groups.entry(Vec::new()).or_default();
        }
        outputs.push(aggregate.step(&[zset(rows)], &mut ctx).unwrap());
        aggregate = sometimes_reopened(aggregate, make, !keys.is_empty(), &mut rng);
        late += ctx.late_rows;
        watermark = ctx.watermark.0;
        if in_order || at == changes.len() {
            let shown: BTreeMap<_, _> = groups
                .iter()
                .filter(|(key, _)| {
                    emit == Emit::Updating || window_ends[*key].is_some_and(|end| end <= watermark)
                })
                .map(|(key, rows)| (key.clone(), rows.clone()))
                .collect();
            assert_eq!(picture(&outputs), picture_of(&shown, &spec.calls, keys.is_empty()), "{note}");
            assert_eq!(late, late_expected, "{note}");
        }
        if at == changes.len() {
            break;
        }
    }
    survives_damage(&aggregate, make, &mut rng);
    if watermark == i64::MAX && expiry.is_some() && emit == Emit::OnClose {
        assert_eq!(aggregate.state_size().rows, 0, "{note}");
    }
}
