//! Joins whose rows matter for a limited time: late rows, freed state, rows that waited for a partner in vain.

use super::*;
use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::TimeUnit;

fn schema(prefix: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(format!("{prefix}k"), DataType::Int64, true),
        Field::new(format!("{prefix}ts"), DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

fn rows(prefix: &str, rows: &[(i64, i64)]) -> ZSet {
    let k: Int64Array = rows.iter().map(|(k, _)| Some(*k)).collect();
    let ts: TimestampMicrosecondArray = rows.iter().map(|(_, ts)| Some(*ts)).collect();
    ZSet::inserts(RecordBatch::try_new(schema(prefix), vec![Arc::new(k), Arc::new(ts)]).unwrap())
}

/// `l.k = r.k AND l.ts - r.ts BETWEEN from AND to`.
fn interval_join(kind: JoinKind, from: i64, to: i64, emit: Emit) -> Join {
    let fields: Vec<_> = schema("l").fields().iter().chain(schema("r").fields()).cloned().collect();
    let expiry = |add_us: i64| Expiry { column: 1, add_us, allowed_lateness_us: 0 };
    Join::new(JoinSpec {
        kind,
        left: schema("l"),
        right: schema("r"),
        on: vec![(0, 0)],
        null_equals_null: false,
        residual: Some(Box::new(move |rows, _| {
            let [l, r] = [1, 3].map(|c| microseconds(rows.column(c)).unwrap());
            Ok(l.iter().zip(r.iter()).map(|(l, r)| Some((from..=to).contains(&(l? - r?)))).collect())
        })),
        time: [
            JoinSideTime { late: Some(expiry(1)), drop: Some(expiry(1 - from)) },
            JoinSideTime { late: Some(expiry(1)), drop: Some(expiry(1 + to)) },
        ],
        emit,
        lookup: false,
        output: match kind {
            JoinKind::Semi | JoinKind::Anti => schema("l"),
            JoinKind::Mark => {
                let mark = Arc::new(Field::new("mark", DataType::Boolean, false));
                Arc::new(Schema::new(schema("l").fields().iter().cloned().chain([mark]).collect::<Vec<_>>()))
            }
            _ => Arc::new(Schema::new(fields)),
        },
    })
    .unwrap()
}

fn step_at(join: &mut Join, l: &[(i64, i64)], r: &[(i64, i64)], before: i64, after: i64) -> (ZSet, u64) {
    let mut ctx = StepContext {
        watermark_before: Watermark(before),
        watermark: Watermark(after),
        ..Default::default()
    };
    let out = join.step(&[rows("l", l), rows("r", r)], &mut ctx).unwrap();
    (out, ctx.late_rows)
}

fn rows_of(change: &ZSet) -> usize {
    change.len()
}

#[test]
fn state_goes_when_no_partner_can_come() {
    // The right row comes up to 10 after the left.
    let mut join = interval_join(JoinKind::Left, -10, 0, Emit::Updating);
    let (out, _) = step_at(&mut join, &[(1, 100)], &[], i64::MIN, 95);
    assert_eq!(rows_of(&out), 1, "padded at once");
    let (out, late) = step_at(&mut join, &[], &[(1, 110)], 95, 105);
    assert_eq!((rows_of(&out), late), (2, 0), "the pair, and the padded row goes");
    assert_eq!(join.state_size().rows, 2);
    step_at(&mut join, &[], &[], 105, 110);
    assert_eq!(join.state_size().rows, 2, "a right row stamped 110 is still on time");
    step_at(&mut join, &[], &[], 110, 111);
    assert_eq!(join.state_size().rows, 0);
    let (out, late) = step_at(&mut join, &[(1, 110)], &[(1, 90)], 111, 111);
    assert_eq!((rows_of(&out), late), (0, 2), "both are late and ignored");
}

#[test]
fn on_close_a_row_without_partner_is_given_once_and_last() {
    let mut join = interval_join(JoinKind::Left, -10, 0, Emit::OnClose);
    let (out, _) = step_at(&mut join, &[(1, 100), (2, 100)], &[], i64::MIN, 95);
    assert!(out.is_empty());
    let (out, _) = step_at(&mut join, &[], &[(1, 105)], 95, 110);
    assert_eq!(rows_of(&out), 1, "the pair");
    let (out, _) = step_at(&mut join, &[], &[], 110, 111);
    assert_eq!(rows_of(&out), 1, "only the one without partner");
    assert_eq!(join.state_size().rows, 0);
}

/// Disorder up to the watermark's delay: nothing is late, and the sum of the outputs equals the nested loop.
#[test]
fn disorder_within_the_watermark_changes_nothing() {
    for seed in 0..2500u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = *random.choice(&kinds::KINDS).unwrap();
        let (from, to) = (-random.i64(0..15), random.i64(0..15));
        let emit = if random.bool() { Emit::OnClose } else { Emit::Updating };
        let mut join = interval_join(kind, from, to, emit);
        let (mut now, mut watermark) = (100, i64::MIN);
        let (mut all_left, mut all_right) = (Vec::new(), Vec::new());
        let mut sum = BTreeMap::new();
        for round in 0..12 {
            let delay = 8;
            let mut some = |all: &mut Vec<(i64, i64)>| {
                let batch: Vec<(i64, i64)> = (0..random.usize(..5))
                    .map(|_| {
                        (random.i64(0..3), now - random.i64(0..=delay).min(now - watermark.max(now - delay)))
                    })
                    .collect();
                all.extend(&batch);
                batch
            };
            let (l, r) = (some(&mut all_left), some(&mut all_right));
            let after = if round == 11 { 10_000 } else { (now - delay).max(watermark) };
            if random.u8(..4) == 0 {
                join = reopened(&join, || interval_join(kind, from, to, emit), &mut random);
            }
            let (out, late) = step_at(&mut join, &l, &r, watermark, after);
            assert_eq!(late, 0, "seed {seed}");
            kinds::add(&mut sum, &out);
            watermark = after;
            now += random.i64(0..10);
        }
        assert_eq!(join.state_size().rows, 0, "seed {seed}");
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        let mut give = |row: String| *expected.entry(row).or_default() += 1;
        let ts = |us: i64| {
            let array = TimestampMicrosecondArray::from(vec![us]);
            arrow::util::display::array_value_to_string(&array, 0).unwrap()
        };
        let text = |(k, us): &(i64, i64)| format!("{k}  {}", ts(*us));
        let matches = |l: &(i64, i64), r: &(i64, i64)| l.0 == r.0 && (from..=to).contains(&(l.1 - r.1));
        for l in &all_left {
            let partners: Vec<_> = all_right.iter().filter(|r| matches(l, r)).collect();
            match kind {
                JoinKind::Semi | JoinKind::Anti => {
                    if partners.is_empty() == (kind == JoinKind::Anti) {
                        give(text(l));
                    }
                }
                JoinKind::Mark => give(format!("{}  {}", text(l), !partners.is_empty())),
                _ => {
                    partners.iter().for_each(|r| give(format!("{}  {}", text(l), text(r))));
                    if partners.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                        give(format!("{}  NULL  NULL", text(l)));
                    }
                }
            }
        }
        if matches!(kind, JoinKind::Right | JoinKind::Full) {
            for r in all_right.iter().filter(|r| !all_left.iter().any(|l| matches(l, r))) {
                give(format!("NULL  NULL  {}", text(r)));
            }
        }
        assert_eq!(sum, expected, "seed {seed} {kind:?} {emit:?} {from}..={to}");
    }
}
