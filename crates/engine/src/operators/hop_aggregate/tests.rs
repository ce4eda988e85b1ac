use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use dataflow::picture::picture;
use dataflow::{KeyPart, Operator, StateReader, StateWriter, StepContext, Watermark};

use super::*;
use crate::operators::aggregate::oracle::*;
use crate::operators::aggregate::{AggregateCall, AggregateFunction};

/// Rows that a window took, with their weights.
type Taken = Vec<(Row, i64)>;

fn hop(kind: HopKind, slide_s: i64, size_s: i64) -> HopSpec {
    HopSpec {
        kind,
        time_column: TIME,
        slide_us: slide_s * SECOND,
        size_us: size_s * SECOND,
        offset_us: 0,
        allowed_lateness_us: 0,
        window_start_key: Some(0),
        window_end_key: Some(1),
        best: None,
    }
}

/// Key columns of the output: those of the input, with the window's bounds at their places.
fn spec(keys: &[usize], hop: &HopSpec, calls: Vec<AggregateCall>, emit: Emit) -> AggregateSpec {
    let mut fields: Vec<Field> = Vec::new();
    let mut own = keys.iter().map(|key| input().field(*key).clone());
    let columns = keys.len() + hop.window_start_key.iter().count() + hop.window_end_key.iter().count();
    for position in 0..columns {
        fields.push(if Some(position) == hop.window_start_key {
            Field::new("window_start", time_type(), false)
        } else if Some(position) == hop.window_end_key {
            Field::new("window_end", time_type(), false)
        } else {
            own.next().unwrap()
        });
    }
    fields.extend(calls.iter().map(|call| call.output.as_ref().clone()));
    AggregateSpec {
        input: input(),
        keys: keys.to_vec(),
        calls,
        output: Arc::new(Schema::new(fields)),
        append_only: false,
        expiry: None,
        emit,
    }
}

fn count_and_max() -> Vec<AggregateCall> {
    use AggregateFunction::*;
    vec![call(Count, &[], DataType::Int64), call(Max, &[INT], DataType::Int32)]
}

fn at(seconds: i64, int: i32) -> (Row, i64) {
    let row = Row {
        time: Some(seconds * SECOND),
        key: None,
        text: None,
        int: Some(int),
        float: None,
        decimal: None,
        bool: None,
        filter: None,
    };
    (row, 1)
}

struct Run {
    operator: HopAggregate,
    watermark: i64,
    late_rows: u64,
}

impl Run {
    fn new(hop: HopSpec, append_only: bool, emit: Emit) -> Run {
        let spec = AggregateSpec { append_only, ..spec(&[], &hop, count_and_max(), emit) };
        Run { operator: HopAggregate::new(spec, hop).unwrap(), watermark: i64::MIN, late_rows: 0 }
    }

    /// The change of one step, times cut down to seconds.
    fn step(&mut self, rows: &[(Row, i64)], watermark_s: i64) -> String {
        let watermark = watermark_s.saturating_mul(SECOND);
        let mut ctx = StepContext {
            watermark_before: Watermark(self.watermark),
            watermark: Watermark(watermark),
            ..StepContext::default()
        };
        self.watermark = watermark;
        let output = self.operator.step(&[zset(rows)], &mut ctx).unwrap();
        self.late_rows += ctx.late_rows;
        picture(&[output]).replace("1970-01-01T00:00:", "").replace("1969-12-31T23:59:", "-")
    }
}

#[test]
fn hop_windows_close_in_order_and_share_rows() {
    for append_only in [true, false] {
        let mut run = Run::new(hop(HopKind::Hop, 2, 6), append_only, Emit::OnClose);
        assert_eq!(run.step(&[at(0, 9), at(1, 1), at(3, 5)], 1), "");
        assert_eq!(run.step(&[at(5, 7)], 2), "+ 1  -56Z  02Z  2  9\n");
        assert_eq!(run.step(&[], 5), "+ 1  -58Z  04Z  3  9\n");
        assert_eq!(run.step(&[], 9), "+ 1  00Z  06Z  4  9\n+ 1  02Z  08Z  2  7\n");
        assert_eq!(run.operator.state_size().rows, 2, "one pane and the running window");
        assert_eq!(run.step(&[], 10), "+ 1  04Z  10Z  1  7\n");
        assert_eq!(run.operator.state_size().rows, 0);
    }
}

#[test]
fn cumulate_windows_grow_and_start_again() {
    for append_only in [true, false] {
        let mut run = Run::new(hop(HopKind::Cumulate, 2, 6), append_only, Emit::OnClose);
        assert_eq!(run.step(&[at(0, 9), at(5, 1), at(6, 5)], 2), "+ 1  00Z  02Z  1  9\n");
        assert_eq!(run.step(&[], 6), "+ 1  00Z  04Z  1  9\n+ 1  00Z  06Z  2  9\n");
        assert_eq!(run.step(&[], 8), "+ 1  06Z  08Z  1  5\n");
        assert_eq!(run.step(&[], 100), "+ 1  06Z  10Z  1  5\n+ 1  06Z  12Z  1  5\n");
        assert_eq!(run.operator.state_size().rows, 0);
    }
}

#[test]
fn a_late_row_still_counts_in_open_windows() {
    let mut run = Run::new(hop(HopKind::Hop, 2, 4), true, Emit::OnClose);
    assert_eq!(run.step(&[at(0, 1), at(2, 2)], 4), "+ 1  -58Z  02Z  1  1\n+ 1  00Z  04Z  2  2\n");
    assert_eq!(run.step(&[at(1, 7), at(2, 8), at(3, 9), at(4, 3)], 4), "");
    assert_eq!(run.late_rows, 3, "one for no window, two for one of two");
    assert_eq!(run.step(&[], 8), "+ 1  02Z  06Z  4  9\n+ 1  04Z  08Z  1  3\n");
    assert_eq!(run.operator.state_size().rows, 0);
}

#[test]
fn allowed_lateness_corrects_closed_windows() {
    for append_only in [true, false] {
        let hop = HopSpec { allowed_lateness_us: 3 * SECOND, ..hop(HopKind::Hop, 2, 4) };
        let mut run = Run::new(hop, append_only, Emit::OnClose);
        assert_eq!(run.step(&[at(2, 2)], 6), "+ 1  00Z  04Z  1  2\n+ 1  02Z  06Z  1  2\n");
        assert_eq!(
            run.step(&[at(3, 7)], 7),
            "- 1  00Z  04Z  1  2\n+ 1  00Z  04Z  2  7\n- 1  02Z  06Z  1  2\n+ 1  02Z  06Z  2  7\n"
        );
        assert_eq!(run.late_rows, 0);
        assert_eq!(run.step(&[at(3, 8)], 9), "- 1  02Z  06Z  2  7\n+ 1  02Z  06Z  3  8\n");
        assert_eq!((run.late_rows, run.operator.state_size().rows), (1, 0));
    }
}

#[test]
fn updating_windows_change_at_once_and_are_freed() {
    let mut run = Run::new(hop(HopKind::Hop, 2, 4), false, Emit::Updating);
    assert_eq!(run.step(&[at(0, 1), at(1, 4)], 1), "+ 1  -58Z  02Z  2  4\n+ 1  00Z  04Z  2  4\n");
    let gone = (at(1, 4).0, -1);
    assert_eq!(
        run.step(&[gone], 2),
        "+ 1  -58Z  02Z  1  1\n- 1  -58Z  02Z  2  4\n+ 1  00Z  04Z  1  1\n- 1  00Z  04Z  2  4\n"
    );
    assert_eq!(run.operator.state_size().rows, 1);
    assert_eq!(run.step(&[(at(0, 1).0, -1)], 2), "- 1  00Z  04Z  1  1\n");
    assert_eq!((run.late_rows, run.operator.state_size().rows), (1, 0));
}

/// Were empty windows visited one by one, this would not end.
#[test]
fn a_watermark_far_ahead_costs_nothing() {
    let mut run =
        Run::new(HopSpec { slide_us: 1, size_us: 7, ..hop(HopKind::Hop, 1, 1) }, true, Emit::OnClose);
    assert_eq!(run.step(&[at(0, 1)], 3000).lines().count(), 7);
    assert_eq!(run.step(&[at(3001, 1)], i64::MAX).lines().count(), 7);
    assert_eq!(run.step(&[at(0, 1)], i64::MAX), "");
    assert_eq!((run.late_rows, run.operator.state_size().rows), (1, 0));
}

#[test]
fn times_out_of_range_and_null_are_in_no_window() {
    let hop = hop(HopKind::Hop, 2, 4);
    let mut operator = HopAggregate::new(spec(&[], &hop, count_and_max(), Emit::Updating), hop).unwrap();
    let time = |time| (Row { time, ..at(0, 1).0 }, 1);
    let mut ctx = StepContext::default();
    let out =
        operator.step(&[zset(&[time(None), time(Some(i64::MAX)), time(Some(i64::MIN))])], &mut ctx).unwrap();
    assert_eq!((out.len(), ctx.late_rows, ctx.errors_total), (0, 0, 2));
}

#[test]
fn contradictions_are_refused() {
    let wrong = |hop: HopSpec| {
        let spec = spec(&[KEY], &super::tests::hop(HopKind::Hop, 2, 4), count_and_max(), Emit::OnClose);
        HopAggregate::new(spec, hop).err().unwrap().to_string()
    };
    assert!(wrong(hop(HopKind::Hop, 0, 4)).contains("out of range"));
    assert!(wrong(hop(HopKind::Cumulate, 3, 4)).contains("multiple"));
    assert!(wrong(HopSpec { time_column: KEY, ..hop(HopKind::Hop, 2, 4) }).contains("timestamp"));
    assert!(wrong(HopSpec { window_end_key: Some(7), ..hop(HopKind::Hop, 2, 4) }).contains("no place"));
}

/// Two operators that each know half of the keys are saved, and one opened that knows all.
#[test]
fn parts_of_several_operators_come_together() {
    let mut differed = 0;
    for seed in 1..200u64 {
        let random = &mut Random(seed.wrapping_mul(0xD134_2543_DE82_EF95));
        let kind = if random.one_in(3) { HopKind::Cumulate } else { HopKind::Hop };
        let hop = hop(kind, 2, 2 * (1 + random.below(4) as i64));
        let emit = if random.one_in(4) { Emit::Updating } else { Emit::OnClose };
        let append_only = random.one_in(2);
        let spec = AggregateSpec { append_only, ..spec(&[KEY], &hop, random.calls(), emit) };
        let make = || HopAggregate::new(spec.clone(), hop.clone()).unwrap();
        let (mut whole, mut halves) = (make(), [make(), make()]);
        let mut watermark = i64::MIN;
        for n in 0..12 {
            if n == 6 {
                differed += usize::from(halves[0].running.to != halves[1].running.to);
                let mut both = make();
                for half in &halves {
                    let mut out = StateWriter::new();
                    half.save(KeyPart::ALL, &mut out).unwrap();
                    both.load(&mut StateReader::new(&out.into_bytes())).unwrap();
                }
                halves = [both, make()];
            }
            let rows: Vec<(Row, i64)> = (0..random.below(4))
                .map(|_| {
                    let time = Some((n * 3 + random.below(6) as i64) * SECOND);
                    (Row { time, ..random.row(0) }, 1)
                })
                .collect();
            let of_half = |rows: &[(Row, i64)], half: usize| -> Vec<(Row, i64)> {
                let belongs = |row: &Row| usize::from(row.key.unwrap_or(0) > 0 && n < 6) == half;
                rows.iter().filter(|(row, _)| belongs(row)).cloned().collect()
            };
            let before = watermark;
            watermark = watermark.max((n * 3 + random.below(8) as i64 - 4) * SECOND);
            let step = |operator: &mut HopAggregate, rows: &[(Row, i64)]| {
                let mut ctx = StepContext {
                    watermark_before: Watermark(before),
                    watermark: Watermark(watermark),
                    ..StepContext::default()
                };
                operator.step(&[zset(rows)], &mut ctx).unwrap()
            };
            let expected = picture(&[step(&mut whole, &rows)]);
            let outputs = [0, 1].map(|half| step(&mut halves[half], &of_half(&rows, half)));
            assert_eq!(picture(&outputs), expected, "step {n}, seed {seed}, {spec:?}, {hop:?}");
        }
    }
    assert!(differed > 10, "running windows reached differently far in {differed} cases only");
}

/// Random windows, keys, calls, steps and watermarks: the sum of all outputs is what the oracle computes from all
/// rows that each window took.
#[test]
fn random_cases_equal_recomputation() {
    for case in 0..3000u64 {
        random_case(0xD134_2543_DE82_EF95u64.wrapping_mul(case + 1));
    }
}

fn random_case(seed: u64) {
    let random = &mut Random(seed);
    let mut keys = vec![KEY, TEXT, INT, DECIMAL];
    random.shuffle(&mut keys);
    keys.truncate(random.below(3));
    let kind = if random.one_in(3) { HopKind::Cumulate } else { HopKind::Hop };
    let slide = 1 + random.below(6) as i64;
    let size = match kind {
        HopKind::Hop => 1 + random.below(15) as i64,
        HopKind::Cumulate => slide * (1 + random.below(5) as i64),
    };
    let mut places: Vec<usize> = (0..keys.len() + 2).collect();
    random.shuffle(&mut places);
    let hop = HopSpec {
        offset_us: (random.below(9) as i64 - 4) * SECOND,
        allowed_lateness_us: if random.one_in(2) { 0 } else { random.below(10) as i64 * SECOND },
        window_start_key: Some(places[0]),
        window_end_key: Some(places[1]),
        ..hop(kind, slide, size)
    };
    let emit = if random.one_in(3) { Emit::Updating } else { Emit::OnClose };
    let append_only = random.one_in(2);
    let spec = AggregateSpec { append_only, ..spec(&keys, &hop, random.calls(), emit) };
    let note = format!("seed {seed:#x}, {hop:?}, {spec:?}");
    let make = || HopAggregate::new(spec.clone(), hop.clone()).unwrap();
    let mut operator = make();
    let mut rng = fastrand::Rng::with_seed(seed);
    // Per end of a window and key: the key columns, and the rows the window took.
    let mut windows: BTreeMap<(i64, Vec<String>), Taken> = BTreeMap::new();
    let mut there: Vec<Row> = Vec::new();
    let mut outputs = Vec::new();
    let (mut watermark, mut late, mut late_expected) = (i64::MIN, 0, 0);
    let steps = 1 + random.below(10);
    for n in 0..steps {
        let mut rows = Vec::new();
        for _ in 0..random.below(10) {
            if !append_only && !there.is_empty() && random.one_in(3) {
                rows.push((there.swap_remove(random.below(there.len())), -1));
            } else {
                let mut row = random.row(n as i64 * 3);
                if random.one_in(2) {
                    // The generator spreads times widely; some stay together.
                    row.time = row.time.map(|_| (n as i64 * 3 + random.below(6) as i64) * SECOND);
                }
                there.push(row.clone());
                rows.push((row, 1));
            }
        }
        for (row, weight) in &rows {
            let Some(time) = row.time else { continue };
            let mut is_late = false;
            for (start, end) in all_windows(&hop) {
                if time < start || end <= time {
                    continue;
                }
                if end + hop.allowed_lateness_us <= watermark {
                    is_late = true;
                    continue;
                }
                let mut own = texts(&key_cells(row, &keys)).into_iter();
                let key = (0..keys.len() + 2)
                    .map(|position| match position {
                        _ if position == places[0] => Cell::Time(start).text(),
                        _ if position == places[1] => Cell::Time(end).text(),
                        _ => own.next().unwrap(),
                    })
                    .collect();
                windows.entry((end, key)).or_default().push((row.clone(), *weight));
            }
            late_expected += if is_late { weight.unsigned_abs() } else { 0 };
        }
        let mut ctx = StepContext { watermark_before: Watermark(watermark), ..StepContext::default() };
        ctx.watermark = match random.below(4) {
            0 => Watermark(watermark),
            _ if n + 1 == steps => Watermark::MAX,
            _ => Watermark(watermark.max((n as i64 * 3 + random.below(12) as i64 - 6) * SECOND)),
        };
        outputs.push(operator.step(&[zset(&rows)], &mut ctx).unwrap());
        operator = sometimes_reopened(operator, make, !keys.is_empty(), &mut rng);
        late += ctx.late_rows;
        watermark = ctx.watermark.0;
        let shown: BTreeMap<Vec<String>, Vec<(Row, i64)>> = windows
            .iter()
            .filter(|((end, _), _)| emit == Emit::Updating || *end <= watermark)
            .map(|((_, key), rows)| (key.clone(), rows.clone()))
            .collect();
        assert_eq!(picture(&outputs), picture_of(&shown, &spec.calls, false), "step {n}, {note}");
        assert_eq!(late, late_expected, "step {n}, {note}");
    }
    survives_damage(&operator, make, &mut rng);
    if watermark == i64::MAX {
        assert_eq!(operator.state_size().rows, 0, "{note}");
    }
}

/// All windows around the times that the tests use.
fn all_windows(hop: &HopSpec) -> Vec<(i64, i64)> {
    (-120..120)
        .flat_map(|n| match hop.kind {
            HopKind::Hop => {
                let start = hop.offset_us + n * hop.slide_us;
                vec![(start, start + hop.size_us)]
            }
            HopKind::Cumulate => {
                let start = hop.offset_us + n * hop.size_us;
                (1..=hop.size_us / hop.slide_us).map(|i| (start, start + i * hop.slide_us)).collect()
            }
        })
        .collect()
}
