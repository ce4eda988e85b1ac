use super::*;
use crate::operators::saving::{damaged, reopened, reopened_whole};
use std::collections::BTreeMap;

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use dataflow::Watermark;
use dataflow::picture::picture;

/// Window end, partition, value, name.
type Row = (Option<i64>, i64, Option<i64>, &'static str);
const NAMES: [&str; 4] = ["", "ann", "bob", "cleopatra the seventh of that name"];

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("w", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("p", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn zset(rows: &[(i64, Row)]) -> ZSet {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(_, row)| row.0).collect::<TimestampMicrosecondArray>()),
        Arc::new(rows.iter().map(|(_, row)| Some(row.1)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(_, row)| row.2).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(_, row)| Some(row.3)).collect::<StringArray>()),
    ];
    let batch = RecordBatch::try_new(input_schema(), columns).unwrap();
    ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
}

const DESCENDING: SortOptions = SortOptions { descending: true, nulls_first: false };
const WINDOW: Expiry = Expiry { column: 0, add_us: 0, allowed_lateness_us: 0 };

/// Top `limit` by descending v, per p.
fn spec(limit: usize) -> TopNSpec {
    TopNSpec {
        input: input_schema(),
        partition: vec![1],
        order: vec![(2, DESCENDING)],
        limit,
        offset: 0,
        row_number: None,
        output: input_schema(),
        expiry: None,
        emit: Emit::Updating,
        append_only: false,
    }
}

fn numbered(spec: TopNSpec) -> TopNSpec {
    let field: FieldRef = Arc::new(Field::new("rn", DataType::Int64, false));
    let fields: Vec<FieldRef> = input_schema().fields().iter().cloned().chain([Arc::clone(&field)]).collect();
    TopNSpec { row_number: Some(field), output: Arc::new(Schema::new(fields)), ..spec }
}

/// With the window as last partition column and the end of its partitions' life.
fn windowed(spec: TopNSpec, emit: Emit) -> TopNSpec {
    TopNSpec { partition: vec![1, 0], expiry: Some(WINDOW), emit, ..spec }
}

fn step(top_n: &mut TopN, rows: &[(i64, Row)]) -> String {
    picture(&[top_n.step(&[zset(rows)], &mut StepContext::default()).unwrap()])
}

fn step_at(top_n: &mut TopN, rows: &[(i64, Row)], before: i64, after: i64) -> (ZSet, StepContext<'static>) {
    let mut ctx = StepContext {
        watermark_before: Watermark(before),
        watermark: Watermark(after),
        ..StepContext::default()
    };
    let out = top_n.step(&[zset(rows)], &mut ctx).unwrap();
    (out, ctx)
}

fn v(value: i64) -> Row {
    (None, 1, Some(value), "")
}

#[test]
fn better_rows_push_worse_ones_out() {
    let mut top_n = TopN::new(spec(2)).unwrap();
    assert_eq!(
        step(&mut top_n, &[(1, v(5)), (1, v(3)), (1, v(4))]),
        "+ 1  NULL  1  4  \n+ 1  NULL  1  5  \n"
    );
    assert_eq!(step(&mut top_n, &[(1, v(9))]), "- 1  NULL  1  4  \n+ 1  NULL  1  9  \n");
    assert_eq!(step(&mut top_n, &[(1, v(2))]), "");
}

#[test]
fn a_retraction_lets_the_next_row_in() {
    let mut top_n = TopN::new(spec(1)).unwrap();
    step(&mut top_n, &[(1, v(5)), (1, v(3))]);
    assert_eq!(step(&mut top_n, &[(-1, v(5))]), "+ 1  NULL  1  3  \n- 1  NULL  1  5  \n");
    assert_eq!(step(&mut top_n, &[(-1, v(3))]), "- 1  NULL  1  3  \n");
    assert_eq!(top_n.state_size().rows, 0);
}

#[test]
fn an_update_within_a_step_is_seen_whole() {
    let mut top_n = TopN::new(spec(1)).unwrap();
    step(&mut top_n, &[(1, v(5)), (1, v(3))]);
    assert_eq!(step(&mut top_n, &[(-1, v(5)), (1, v(6))]), "- 1  NULL  1  5  \n+ 1  NULL  1  6  \n");
    assert_eq!(step(&mut top_n, &[(1, v(7)), (-1, v(7))]), "");
    assert_eq!(step(&mut top_n, &[(-1, v(6)), (1, v(6))]), "");
    assert_eq!(step(&mut top_n, &[(-1, v(8)), (1, v(8))]), "");
    assert_eq!(top_n.state_size().rows, 2);
}

#[test]
fn row_numbers_move_up() {
    let mut top_n = TopN::new(numbered(spec(2))).unwrap();
    assert_eq!(step(&mut top_n, &[(1, v(5)), (1, v(3))]), "+ 1  NULL  1  3    2\n+ 1  NULL  1  5    1\n");
    assert_eq!(
        step(&mut top_n, &[(1, v(9))]),
        "- 1  NULL  1  3    2\n- 1  NULL  1  5    1\n+ 1  NULL  1  5    2\n+ 1  NULL  1  9    1\n"
    );
}

#[test]
fn duplicates_take_a_place_each() {
    let mut top_n = TopN::new(spec(3)).unwrap();
    assert_eq!(step(&mut top_n, &[(2, v(5)), (2, v(3))]), "+ 1  NULL  1  3  \n+ 2  NULL  1  5  \n");
    assert_eq!(step(&mut top_n, &[(-1, v(5))]), "+ 1  NULL  1  3  \n- 1  NULL  1  5  \n");
    let mut top_n = TopN::new(numbered(spec(2))).unwrap();
    assert_eq!(step(&mut top_n, &[(3, v(5))]), "+ 1  NULL  1  5    1\n+ 1  NULL  1  5    2\n");
}

#[test]
fn the_offset_skips_rows_but_not_numbers() {
    let mut top_n = TopN::new(numbered(TopNSpec { offset: 1, ..spec(1) })).unwrap();
    assert_eq!(step(&mut top_n, &[(1, v(5)), (1, v(3)), (1, v(1))]), "+ 1  NULL  1  3    2\n");
}

#[test]
fn ties_do_not_depend_on_arrival() {
    let rows: [(i64, Row); 3] =
        [(1, (None, 1, Some(1), "b")), (1, (None, 1, Some(1), "a")), (1, (None, 1, Some(1), "c"))];
    let mut top_n = TopN::new(spec(1)).unwrap();
    assert_eq!(step(&mut top_n, &rows), "+ 1  NULL  1  1  a\n");
    let mut top_n = TopN::new(spec(1)).unwrap();
    let out: Vec<ZSet> =
        rows.iter().map(|row| top_n.step(&[zset(&[*row])], &mut StepContext::default()).unwrap()).collect();
    assert_eq!(picture(&out), "+ 1  NULL  1  1  a\n");
}

#[test]
fn null_values_sort_and_null_windows_stay() {
    let mut top_n = TopN::new(windowed(spec(1), Emit::Updating)).unwrap();
    let (out, _) = step_at(&mut top_n, &[(1, (None, 1, None, "")), (1, (None, 1, Some(0), ""))], 0, 10);
    assert_eq!(picture(&[out]), "+ 1  NULL  1  0  \n");
    let (out, _) = step_at(&mut top_n, &[(-1, (None, 1, Some(0), ""))], 10, 20);
    assert_eq!(picture(&[out]), "- 1  NULL  1  0  \n+ 1  NULL  1  NULL  \n");
}

#[test]
fn without_partition_columns_there_is_one_partition() {
    let mut top_n = TopN::new(TopNSpec { partition: vec![], append_only: true, ..spec(1) }).unwrap();
    let rows = [(1, (None, 1, Some(1), "")), (1, (None, 2, Some(2), ""))];
    assert_eq!(step(&mut top_n, &rows), "+ 1  NULL  2  2  \n");
}

#[test]
fn append_only_input_keeps_the_best_rows_only() {
    let mut top_n = TopN::new(TopNSpec { append_only: true, ..spec(3) }).unwrap();
    let rows: Vec<(i64, Row)> = (0..1000).map(|value| (1, v(value * 7 % 1000))).collect();
    for chunk in rows.chunks(100) {
        step(&mut top_n, chunk);
        assert_eq!(top_n.state_size().rows, 3);
    }
    let error = top_n.step(&[zset(&[(-1, v(1))])], &mut StepContext::default()).unwrap_err();
    assert_eq!(error.to_string(), "top-n over an append-only input was given a retraction");
}

#[test]
fn late_rows_are_counted_and_expired_state_is_freed() {
    let mut top_n = TopN::new(windowed(spec(1), Emit::Updating)).unwrap();
    let rows = [(1, (Some(10), 1, Some(1), "")), (1, (Some(20), 1, Some(1), ""))];
    let (out, _) = step_at(&mut top_n, &rows, 0, 0);
    assert_eq!(out.len(), 2);
    let (out, ctx) = step_at(&mut top_n, &[], 0, 10);
    assert!(out.is_empty());
    assert_eq!((top_n.state_size().rows, ctx.late_rows), (1, 0));
    let (out, ctx) =
        step_at(&mut top_n, &[(1, (Some(10), 1, Some(9), "")), (1, (Some(20), 1, Some(9), ""))], 10, 20);
    assert_eq!((out.len(), ctx.late_rows, top_n.state_size().rows), (2, 1, 0));
}

#[test]
fn on_window_close_emits_once_and_frees() {
    for append_only in [false, true] {
        let spec = numbered(TopNSpec { append_only, ..spec(2) });
        let mut top_n = TopN::new(windowed(spec, Emit::OnClose)).unwrap();
        let row = |window, value| (1, (Some(window), 1, Some(value), ""));
        let (out, _) = step_at(&mut top_n, &[row(10, 1), row(10, 3), row(20, 5)], 0, 5);
        assert!(out.is_empty());
        let (out, _) = step_at(&mut top_n, &[row(10, 2)], 5, 10);
        assert_eq!(out.rows().column(4).as_primitive::<arrow::datatypes::Int64Type>().values(), &[1, 2]);
        assert_eq!(out.rows().column(2).as_primitive::<arrow::datatypes::Int64Type>().values(), &[3, 2]);
        assert_eq!(top_n.state_size().rows, 1);
        let (out, ctx) = step_at(&mut top_n, &[row(10, 9)], 10, 19);
        assert_eq!((out.len(), ctx.late_rows), (0, 1));
        let (out, _) = step_at(&mut top_n, &[], 19, 20);
        assert_eq!((out.len(), top_n.state_size().rows), (1, 0));
        let (_, ctx) = step_at(&mut top_n, &[(1, (None, 1, Some(1), ""))], 20, 20);
        assert_eq!(ctx.errors, vec!["row without a value in column \"w\" belongs to no window that closes"]);
    }
}

#[test]
fn allowed_lateness_corrects_a_closed_window() {
    let expiry = Some(Expiry { allowed_lateness_us: 5, ..WINDOW });
    let mut top_n = TopN::new(TopNSpec { expiry, ..windowed(spec(1), Emit::OnClose) }).unwrap();
    let row = |value| (1, (Some(10), 1, Some(value), ""));
    assert_eq!(step_at(&mut top_n, &[row(1)], 0, 10).0.len(), 1);
    let (out, ctx) = step_at(&mut top_n, &[row(2)], 10, 14);
    assert_eq!((out.weights().unwrap().to_vec(), ctx.late_rows), (vec![1, -1], 0));
    let (out, ctx) = step_at(&mut top_n, &[row(3)], 15, 15);
    assert_eq!((out.len(), ctx.late_rows), (0, 1));
}

#[test]
fn empty_input_and_limit_zero_give_nothing() {
    let mut top_n = TopN::new(spec(2)).unwrap();
    assert_eq!(step(&mut top_n, &[]), "");
    let mut top_n = TopN::new(spec(0)).unwrap();
    assert_eq!(step(&mut top_n, &[(1, v(1))]), "");
    assert_eq!(top_n.state_size().rows, 0);
}

#[test]
fn wrong_specs_are_named() {
    let error = |spec| TopN::new(spec).err().unwrap().to_string();
    assert_eq!(
        error(TopNSpec { expiry: Some(WINDOW), ..spec(1) }),
        "column \"w\" bounds no window: it must be a timestamp and in PARTITION BY"
    );
    assert_eq!(
        error(TopNSpec { emit: Emit::OnClose, ..spec(1) }),
        "EMIT ON WINDOW CLOSE of a Top-N needs a window column in PARTITION BY"
    );
}

/// The answer by sorting: rows with their number if asked for, and their weight.
fn dumb(spec: &TopNSpec, rows: &BTreeMap<Row, i64>) -> BTreeMap<(Row, u64), i64> {
    let mut partitions: BTreeMap<Vec<Option<i64>>, Vec<Row>> = BTreeMap::new();
    for (row, weight) in rows {
        let key = spec.partition.iter().map(|c| if *c == 0 { row.0 } else { Some(row.1) }).collect();
        partitions.entry(key).or_default().extend((0..*weight).map(|_| *row));
    }
    let mut expected = BTreeMap::new();
    for (_, mut rows) in partitions {
        rows.sort_by(|a, b| {
            // Descending v with nulls last, then the other columns ascending with nulls first.
            let by_value = b.2.is_some().cmp(&a.2.is_some()).then(b.2.cmp(&a.2));
            by_value.then((a.0, a.1, a.3).cmp(&(b.0, b.1, b.3)))
        });
        for (position, row) in rows.into_iter().enumerate().skip(spec.offset).take(spec.limit) {
            let number = if spec.row_number.is_some() { position as u64 + 1 } else { 0 };
            *expected.entry((row, number)).or_default() += 1;
        }
    }
    expected
}

/// Adds a change of the output to the visible rows.
fn apply(visible: &mut BTreeMap<(Row, u64), i64>, change: &ZSet) {
    let rows = change.rows();
    let int = |column: usize, row: usize| {
        let values = rows.column(column).as_primitive::<arrow::datatypes::Int64Type>();
        values.is_valid(row).then(|| values.value(row))
    };
    let windows = rows.column(0).as_primitive::<TimestampMicrosecondType>();
    for row in 0..change.len() {
        let window = windows.is_valid(row).then(|| windows.value(row));
        let name = rows.column(3).as_string::<i32>().value(row);
        let name = NAMES.iter().find(|n| **n == name).unwrap();
        let number = if rows.num_columns() == 5 { int(4, row).unwrap() as u64 } else { 0 };
        let key = ((window, int(1, row).unwrap(), int(2, row), *name), number);
        *visible.entry(key).or_default() += change.weight(row);
    }
    visible.retain(|_, weight| *weight != 0);
}

fn random_spec(random: &mut fastrand::Rng) -> TopNSpec {
    let limit = *random.choice(&[1, 2, 3, 10, 30]).unwrap();
    let offset = *random.choice(&[0, 0, 1, 3]).unwrap();
    let spec = TopNSpec { offset, append_only: random.bool(), ..spec(limit) };
    if random.bool() { numbered(spec) } else { spec }
}

fn random_row(random: &mut fastrand::Rng, windows: std::ops::Range<i64>, values: i64) -> Row {
    let value = (random.u8(0..10) > 0).then(|| random.i64(0..values));
    (Some(random.i64(windows)), random.i64(0..2), value, NAMES[random.usize(0..4)])
}

#[test]
fn updating_equals_sorting() {
    for seed in 0..3000u64 {
        let make = |random: &mut fastrand::Rng| {
            let spec = random_spec(random);
            match random.u8(0..3) {
                0 => TopNSpec { partition: vec![], ..spec },
                1 => TopNSpec { partition: vec![0, 1], ..spec },
                _ => spec,
            }
        };
        let made = || TopN::new(make(&mut fastrand::Rng::with_seed(seed))).unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let spec = make(&mut random);
        let retracting = !spec.append_only;
        let values = *random.choice(&[3, 30, 1000]).unwrap();
        let dumb_spec = TopNSpec {
            input: input_schema(),
            order: vec![],
            partition: spec.partition.clone(),
            row_number: spec.row_number.clone(),
            output: input_schema(),
            ..spec
        };
        let mut top_n = TopN::new(spec).unwrap();
        let mut rows: BTreeMap<Row, i64> = BTreeMap::new();
        let mut visible = BTreeMap::new();
        for round in 0..random.usize(1..12) {
            // From emptying to filling, so that candidates overflow and run out.
            let growth = random.u8(0..5);
            let mut change = Vec::new();
            for _ in 0..random.usize(0..100) {
                let retracts = retracting && random.u8(0..4) >= growth && !rows.is_empty();
                if retracts {
                    // Mostly the best row of a partition.
                    let best = random.u8(0..4) > 0;
                    let nth = if best { rows.len() - 1 } else { random.usize(0..rows.len()) };
                    let row = *rows.keys().nth(nth).unwrap();
                    change.push((-1, row));
                    *rows.get_mut(&row).unwrap() -= 1;
                    rows.retain(|_, weight| *weight != 0);
                } else {
                    let row = random_row(&mut random, 0..2, values);
                    let weight = if random.u8(0..10) == 0 { 2 } else { 1 };
                    change.push((weight, row));
                    *rows.entry(row).or_default() += weight;
                }
            }
            if retracting {
                random.shuffle(&mut change);
            }
            if random.u8(..3) == 0 {
                let reopened = if dumb_spec.partition.is_empty() { reopened_whole } else { reopened };
                top_n = reopened(&top_n, made, &mut random);
                damaged(&top_n, made, &mut random);
            }
            let out = top_n.step(&[zset(&change)], &mut StepContext::default()).unwrap();
            apply(&mut visible, &out);
            assert_eq!(visible, dumb(&dumb_spec, &rows), "seed {seed} round {round}");
        }
        if retracting {
            assert_eq!(top_n.bag.len(), rows.len(), "seed {seed}");
        }
    }
}

#[test]
fn one_step_equals_many() {
    for seed in 0..500u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limit = random.usize(1..5);
        let mut changes: Vec<(i64, Row)> = Vec::new();
        for _ in 0..random.usize(0..200) {
            let row = random_row(&mut random, 0..2, 20);
            changes.push((1, row));
            if random.bool() {
                changes.push((-1, row));
            }
        }
        let mut whole = TopN::new(numbered(spec(limit))).unwrap();
        let whole = whole.step(&[zset(&changes)], &mut StepContext::default()).unwrap();
        let mut parts = TopN::new(numbered(spec(limit))).unwrap();
        let parts: Vec<ZSet> = changes
            .chunks(random.usize(1..50))
            .map(|chunk| parts.step(&[zset(chunk)], &mut StepContext::default()).unwrap())
            .collect();
        assert_eq!(picture(&[whole]), picture(&parts), "seed {seed}");
    }
}

/// Windows open and close; what is visible of a closed window stays as it was when it expired.
#[test]
fn windows_equal_sorting_of_what_was_in_time() {
    for seed in 0..3000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let emit = *random.choice(&[Emit::Updating, Emit::OnClose]).unwrap();
        let allowed_lateness_us = *random.choice(&[0, 0, 4]).unwrap();
        let expiry = Expiry { allowed_lateness_us, ..WINDOW };
        let make = |seed| {
            let spec = random_spec(&mut fastrand::Rng::with_seed(seed));
            TopNSpec { expiry: Some(expiry), ..windowed(spec, emit) }
        };
        let retracting = !make(seed).append_only;
        let mut top_n = TopN::new(make(seed)).unwrap();
        let mut rows: BTreeMap<Row, i64> = BTreeMap::new();
        let mut visible = BTreeMap::new();
        let mut watermark = 0;
        for round in 0..random.usize(1..15) {
            let before = watermark;
            watermark += random.i64(0..5);
            let mut change = Vec::new();
            let mut late = 0;
            for _ in 0..random.usize(0..30) {
                let alive: Vec<Row> = rows
                    .keys()
                    .filter(|row| !expiry.expired(row.0.unwrap(), Watermark(before)))
                    .copied()
                    .collect();
                if retracting && random.bool() && !alive.is_empty() {
                    let row = *random.choice(&alive).unwrap();
                    change.push((-1, row));
                    *rows.get_mut(&row).unwrap() -= 1;
                    rows.retain(|_, weight| *weight != 0);
                    continue;
                }
                let row = random_row(&mut random, before - 3..before + 8, 30);
                change.push((1, row));
                if expiry.expired(row.0.unwrap(), Watermark(before)) {
                    late += 1;
                } else {
                    *rows.entry(row).or_default() += 1;
                }
            }
            if random.u8(..3) == 0 {
                let made = || TopN::new(make(seed)).unwrap();
                top_n = reopened(&top_n, made, &mut random);
                damaged(&top_n, made, &mut random);
            }
            let (out, ctx) = step_at(&mut top_n, &change, before, watermark);
            apply(&mut visible, &out);
            assert_eq!(ctx.late_rows, late, "seed {seed} round {round}");
            let shown =
                |row: &Row| emit == Emit::Updating || expiry.closed(row.0.unwrap(), Watermark(watermark));
            let in_sight = rows.iter().filter(|(row, _)| shown(row)).map(|(row, w)| (*row, *w)).collect();
            assert_eq!(visible, dumb(&make(seed), &in_sight), "seed {seed} round {round}");
        }
        step_at(&mut top_n, &[], watermark, 1_000_000);
        assert_eq!(top_n.state_size().rows, 0, "seed {seed}");
    }
}
