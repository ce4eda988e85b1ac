use super::*;
use crate::operators::saving::{damaged, reopened, reopened_whole};
use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::compute::kernels::cmp::lt;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use dataflow::picture::picture;

type LeftRow = (Option<i64>, i64);
type RightRow = (Option<&'static str>, Option<i64>);

fn left_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("a", DataType::Int64, true),
    ]))
}

fn right_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("b", DataType::Utf8, true), Field::new("k", DataType::Int64, true)]))
}

fn output_schema() -> SchemaRef {
    let fields: Vec<_> = left_schema().fields().iter().chain(right_schema().fields()).cloned().collect();
    Arc::new(Schema::new(fields))
}

fn join(null_equals_null: bool, residual: Option<Residual>) -> Join {
    Join::new(JoinSpec {
        kind: JoinKind::Inner,
        time: Default::default(),
        emit: Emit::Updating,
        lookup: false,
        left: left_schema(),
        right: right_schema(),
        on: vec![(0, 1)],
        null_equals_null,
        residual,
        output: output_schema(),
    })
    .unwrap()
}

fn left(rows: &[(i64, LeftRow)]) -> ZSet {
    let k: Int64Array = rows.iter().map(|(_, row)| row.0).collect();
    let a: Int64Array = rows.iter().map(|(_, row)| Some(row.1)).collect();
    let batch = RecordBatch::try_new(left_schema(), vec![Arc::new(k), Arc::new(a)]).unwrap();
    ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
}

fn right(rows: &[(i64, RightRow)]) -> ZSet {
    let b: StringArray = rows.iter().map(|(_, row)| row.0).collect();
    let k: Int64Array = rows.iter().map(|(_, row)| row.1).collect();
    let batch = RecordBatch::try_new(right_schema(), vec![Arc::new(b), Arc::new(k)]).unwrap();
    ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
}

fn step(join: &mut Join, l: &[(i64, LeftRow)], r: &[(i64, RightRow)]) -> ZSet {
    join.step(&[left(l), right(r)], &mut StepContext::default()).unwrap()
}

#[test]
fn rows_meet_whichever_comes_first() {
    let mut join = join(false, None);
    assert_eq!(picture(&[step(&mut join, &[(1, (Some(1), 10))], &[])]), "");
    assert_eq!(picture(&[step(&mut join, &[], &[(1, (Some("x"), Some(1)))])]), "+ 1  1  10  x  1\n");
    assert_eq!(picture(&[step(&mut join, &[(1, (Some(1), 20))], &[])]), "+ 1  1  20  x  1\n");
    assert_eq!(join.state_size().rows, 3);
}

#[test]
fn both_sides_in_one_step_meet_once() {
    let mut join = join(false, None);
    let out = step(&mut join, &[(1, (Some(1), 10))], &[(1, (None, Some(1)))]);
    assert_eq!(picture(&[out]), "+ 1  1  10  NULL  1\n");
}

#[test]
fn an_update_of_one_side_replaces_the_joined_rows() {
    let mut join = join(false, None);
    step(&mut join, &[(1, (Some(1), 10)), (1, (Some(1), 11))], &[(1, (Some("x"), Some(1)))]);
    let out = step(&mut join, &[], &[(-1, (Some("x"), Some(1))), (1, (Some("y"), Some(1)))]);
    assert_eq!(picture(&[out]), "- 1  1  10  x  1\n+ 1  1  10  y  1\n- 1  1  11  x  1\n+ 1  1  11  y  1\n");
}

#[test]
fn retracting_everything_frees_the_state() {
    let mut join = join(false, None);
    step(&mut join, &[(2, (Some(1), 10))], &[(3, (Some("x"), Some(1)))]);
    let out = step(&mut join, &[(-2, (Some(1), 10))], &[(-3, (Some("x"), Some(1)))]);
    assert_eq!(picture(&[out]), "- 6  1  10  x  1\n");
    assert_eq!(join.state_size().rows, 0);
}

#[test]
fn weights_multiply() {
    let mut join = join(false, None);
    let out = step(&mut join, &[(2, (Some(1), 10))], &[(3, (Some("x"), Some(1)))]);
    assert_eq!(picture(&[out]), "+ 6  1  10  x  1\n");
}

#[test]
fn null_keys_match_only_when_asked() {
    let (l, r): (LeftRow, RightRow) = ((None, 10), (Some("x"), None));
    let mut plain = join(false, None);
    assert_eq!(picture(&[step(&mut plain, &[(1, l)], &[(1, r)])]), "");
    assert_eq!(plain.state_size().rows, 0);
    let mut distinct_from = join(true, None);
    assert_eq!(picture(&[step(&mut distinct_from, &[(1, l)], &[(1, r)])]), "+ 1  NULL  10  x  NULL\n");
}

#[test]
fn empty_inputs_change_nothing() {
    let mut join = join(false, None);
    assert!(step(&mut join, &[], &[]).is_empty());
    assert_eq!(join.state_size().rows, 0);
}

#[test]
fn a_cross_join_has_no_key() {
    let mut cross = Join::new(JoinSpec {
        kind: JoinKind::Inner,
        time: Default::default(),
        emit: Emit::Updating,
        lookup: false,
        left: left_schema(),
        right: right_schema(),
        on: vec![],
        null_equals_null: false,
        residual: None,
        output: output_schema(),
    })
    .unwrap();
    let out = step(&mut cross, &[(1, (None, 1)), (1, (Some(2), 2))], &[(1, (Some("x"), None))]);
    assert_eq!(picture(&[out]), "+ 1  2  2  x  NULL\n+ 1  NULL  1  x  NULL\n");
}

#[test]
fn key_columns_may_repeat_and_be_the_whole_row() {
    let schema = left_schema();
    let output: SchemaRef =
        Arc::new(Schema::new([schema.fields().to_vec(), schema.fields().to_vec()].concat()));
    let mut join = Join::new(JoinSpec {
        kind: JoinKind::Inner,
        time: Default::default(),
        emit: Emit::Updating,
        lookup: false,
        left: Arc::clone(&schema),
        right: schema,
        on: vec![(0, 0), (1, 0)],
        null_equals_null: false,
        residual: None,
        output,
    })
    .unwrap();
    let inputs =
        [left(&[(1, (Some(1), 1)), (1, (Some(2), 3))]), left(&[(1, (Some(1), 7)), (1, (Some(2), 7))])];
    let out = join.step(&inputs, &mut StepContext::default()).unwrap();
    assert_eq!(picture(&[out]), "+ 1  1  1  1  7\n");
}

#[test]
fn a_hot_key_is_joined_in_bounded_pieces() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static LARGEST: AtomicUsize = AtomicUsize::new(0);
    let residual: Residual = Box::new(|rows, _| {
        LARGEST.fetch_max(rows.num_rows(), Ordering::Relaxed);
        let a = rows.column(1).as_primitive::<Int64Type>();
        Ok(lt(a, &Int64Array::new_scalar(1))?)
    });
    let mut join = join(false, Some(residual));
    let many: Vec<(i64, LeftRow)> = (0..1000).map(|a| (1, (Some(1), a))).collect();
    let others: Vec<(i64, RightRow)> = (0..300).map(|_| (1, (Some("x"), Some(1)))).collect();
    step(&mut join, &many, &[]);
    let out = step(&mut join, &[], &others);
    assert_eq!(picture(&[out]), "+ 300  1  0  x  1\n");
    assert_eq!(LARGEST.load(Ordering::Relaxed), JOINED_ROWS_MAX);
}

#[test]
fn key_types_must_agree() {
    let spec = JoinSpec {
        kind: JoinKind::Inner,
        time: Default::default(),
        emit: Emit::Updating,
        lookup: false,
        left: left_schema(),
        right: right_schema(),
        on: vec![(0, 0)],
        null_equals_null: false,
        residual: None,
        output: output_schema(),
    };
    let error = Join::new(spec).err().unwrap().to_string();
    assert_eq!(error, "join columns \"k\" of type Int64 and \"b\" of type Utf8 need a cast to one type");
}

/// Random changes of both sides in random steps against the nested loop over the final rows.
#[test]
fn equals_the_nested_loop_join() {
    const TEXTS: [Option<&str>; 3] = [None, Some("x"), Some("y")];
    for seed in 0..3000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let null_equals_null = random.bool();
        let with_residual = random.bool();
        let residual = || -> Option<Residual> {
            with_residual.then(|| -> Residual {
                Box::new(|rows, _| {
                    Ok(lt(rows.column(1).as_primitive::<Int64Type>(), &Int64Array::new_scalar(2))?)
                })
            })
        };
        let mut join = join(null_equals_null, residual());
        let mut lefts: BTreeMap<LeftRow, i64> = BTreeMap::new();
        let mut rights: BTreeMap<RightRow, i64> = BTreeMap::new();
        let mut outs = Vec::new();
        for _ in 0..random.usize(1..6) {
            let key = |random: &mut fastrand::Rng| random.bool().then(|| random.i64(0..3));
            let mut l = Vec::new();
            for _ in 0..random.usize(0..8) {
                let row = (key(&mut random), random.i64(0..4));
                let weight = *random.choice(&[1, 1, 1, 2, -1]).unwrap();
                *lefts.entry(row).or_default() += weight;
                l.push((weight, row));
            }
            let mut r = Vec::new();
            for _ in 0..random.usize(0..8) {
                let row = (TEXTS[random.usize(0..3)], key(&mut random));
                let weight = *random.choice(&[1, 1, 1, 2, -1]).unwrap();
                *rights.entry(row).or_default() += weight;
                r.push((weight, row));
            }
            if random.u8(..3) == 0 {
                join = reopened(&join, || super::tests::join(null_equals_null, residual()), &mut random);
            }
            outs.push(step(&mut join, &l, &r));
        }
        let mut expected: Vec<(i64, LeftRow, RightRow)> = Vec::new();
        for (l, left_weight) in &lefts {
            for (r, right_weight) in &rights {
                let matches =
                    l.0 == r.1 && (null_equals_null || l.0.is_some()) && (!with_residual || l.1 < 2);
                if matches && left_weight * right_weight != 0 {
                    expected.push((left_weight * right_weight, *l, *r));
                }
            }
        }
        let text = |value: Option<i64>| value.map_or("NULL".to_string(), |v| v.to_string());
        let mut lines: Vec<String> = expected
            .iter()
            .map(|(weight, l, r)| {
                let sign = if *weight > 0 { '+' } else { '-' };
                let row =
                    [text(l.0), l.1.to_string(), r.0.unwrap_or("NULL").to_string(), text(r.1)].join("  ");
                format!("{sign} {}  {row}", weight.abs())
            })
            .collect();
        lines.sort();
        let mut actual: Vec<String> = picture(&outs).lines().map(str::to_string).collect();
        actual.sort();
        assert_eq!(actual, lines, "seed {seed}");
        let kept = lefts.iter().filter(|(row, w)| **w != 0 && (null_equals_null || row.0.is_some())).count()
            + rights.iter().filter(|(row, w)| **w != 0 && (null_equals_null || row.1.is_some())).count();
        assert_eq!(join.state_size().rows, kept, "seed {seed}");
    }
}

mod kinds;
mod parts;
mod saved;
mod time;
