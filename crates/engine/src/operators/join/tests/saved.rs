//! A join whose state goes through its bytes now and then, beside one that keeps it: the same outputs, whatever is given.

use super::*;
use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::TimeUnit;

/// Key, time, value.
type Row = (Option<i64>, Option<i64>, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn zset(rows: &[(i64, Row)]) -> ZSet {
    let k: Int64Array = rows.iter().map(|(_, row)| row.0).collect();
    let ts: TimestampMicrosecondArray = rows.iter().map(|(_, row)| row.1).collect();
    let v: Int64Array = rows.iter().map(|(_, row)| Some(row.2)).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(ts), Arc::new(v)]).unwrap();
    ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
}

fn output_of(kind: JoinKind) -> SchemaRef {
    let one = || schema().fields().iter().cloned().collect::<Vec<_>>();
    let more = match kind {
        JoinKind::Semi | JoinKind::Anti => vec![],
        JoinKind::Mark => vec![Arc::new(Field::new("mark", DataType::Boolean, false))],
        _ => one(),
    };
    Arc::new(Schema::new([one(), more].concat()))
}

/// Any join: by key, by key and time, or by nothing; whatever is asked of it need not make sense.
fn spec(random: &mut fastrand::Rng) -> JoinSpec {
    let kind = *random.choice(&kinds::KINDS).unwrap();
    let timed = random.u8(..3) > 0;
    let allowed_lateness_us = *random.choice(&[0, 0, 3]).unwrap();
    let mut expiry = || Some(Expiry { column: 1, add_us: random.i64(-2..8), allowed_lateness_us });
    let mut side = || JoinSideTime { late: expiry(), drop: expiry() };
    let time = if timed { [side(), side()] } else { Default::default() };
    let residual: Residual = Box::new(|rows, _| {
        Ok(lt(rows.column(2).as_primitive::<Int64Type>(), rows.column(5).as_primitive::<Int64Type>())?)
    });
    JoinSpec {
        kind,
        left: schema(),
        right: schema(),
        on: random.choice([vec![(0, 0)], vec![(0, 0), (1, 1)], vec![]]).unwrap(),
        null_equals_null: random.bool(),
        residual: random.bool().then_some(residual),
        time,
        emit: if random.bool() { Emit::OnClose } else { Emit::Updating },
        lookup: matches!(kind, JoinKind::Inner | JoinKind::Left) && random.u8(..3) == 0,
        output: output_of(kind),
    }
}

#[test]
fn goes_on_as_the_one_that_was_saved() {
    let mut lookups = 0;
    for seed in 0..6000u64 {
        let made = || spec(&mut fastrand::Rng::with_seed(seed));
        let make = || Join::new(made()).unwrap();
        let JoinSpec { kind, on, lookup, .. } = made();
        lookups += usize::from(lookup);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut kept, mut saved) = (make(), make());
        let mut there: [BTreeMap<Row, i64>; 2] = Default::default();
        let mut watermark = i64::MIN;
        for round in 0..random.i64(1..12) {
            let mut change = |rows| {
                kinds::change(&mut random, rows, |random| {
                    let key = (random.u8(..5) > 0).then(|| random.i64(0..3));
                    let time = (random.u8(..8) > 0).then(|| 3 * round + random.i64(-4..6));
                    (key, time, random.i64(0..4))
                })
            };
            let [left, right] = &mut there;
            let inputs = [zset(&change(left)), zset(&change(right))];
            if random.u8(..3) == 0 {
                saved = if on.is_empty() { reopened_whole } else { reopened }(&saved, make, &mut random);
            }
            if random.u8(..10) == 0 {
                damaged(&saved, make, &mut random);
            }
            let after = if random.bool() { watermark } else { watermark.max(3 * round - random.i64(0..6)) };
            let step = |join: &mut Join| {
                let mut ctx = StepContext {
                    watermark_before: Watermark(watermark),
                    watermark: Watermark(after),
                    ..Default::default()
                };
                let mut sum = BTreeMap::new();
                kinds::add(&mut sum, &join.step(&inputs, &mut ctx).unwrap());
                (sum, ctx.late_rows, join.state_size().rows)
            };
            assert_eq!(
                step(&mut saved),
                step(&mut kept),
                "seed {seed} round {round} {kind:?} lookup={lookup}"
            );
            watermark = after;
        }
    }
    assert!(lookups > 300, "only {lookups} lookups");
}

#[test]
fn another_version_is_an_error() {
    let mut join = Join::new(spec(&mut fastrand::Rng::with_seed(1))).unwrap();
    let error = join.load(&mut dataflow::StateReader::new(&[2, 0, 0, 0, 0])).unwrap_err();
    assert!(matches!(error, Error::State(_)), "{error}");
}

#[test]
fn a_cross_join_has_no_parts() {
    let join = Join::new(JoinSpec { on: vec![], ..spec(&mut fastrand::Rng::with_seed(1)) }).unwrap();
    let part = |_: &[ArrayRef]| unreachable!("there are no keys");
    let saved = join.save(dataflow::KeyPart::of(&part), &mut dataflow::StateWriter::new());
    assert!(matches!(saved, Err(Error::State(_))));
}
