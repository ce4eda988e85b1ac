//! Outer, semi, anti and mark joins against the nested loop over the final rows.

use super::*;

pub(super) const KINDS: [JoinKind; 7] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti,
    JoinKind::Mark,
];

fn output_of(kind: JoinKind) -> SchemaRef {
    match kind {
        JoinKind::Semi | JoinKind::Anti => left_schema(),
        JoinKind::Mark => {
            let mut fields: Vec<_> = left_schema().fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new("mark", DataType::Boolean, false)));
            Arc::new(Schema::new(fields))
        }
        _ => output_schema(),
    }
}

pub(super) fn join_of(kind: JoinKind, on: bool, null_equals_null: bool, residual: Option<Residual>) -> Join {
    Join::new(JoinSpec {
        kind,
        left: left_schema(),
        right: right_schema(),
        on: if on { vec![(0, 1)] } else { vec![] },
        null_equals_null,
        residual,
        time: Default::default(),
        emit: Emit::Updating,
        lookup: false,
        output: output_of(kind),
    })
    .unwrap()
}

/// `a < 2 AND b IS NOT NULL`, which looks at both sides.
fn predicate() -> Residual {
    Box::new(|rows, _| {
        let small = lt(rows.column(1).as_primitive::<Int64Type>(), &Int64Array::new_scalar(2))?;
        Ok(arrow::compute::and(&small, &arrow::compute::is_not_null(rows.column(2))?)?)
    })
}

#[test]
fn a_row_without_partner_is_padded_until_one_comes() {
    let mut join = join_of(JoinKind::Left, true, false, None);
    let out = step(&mut join, &[(1, (Some(1), 10)), (1, (None, 5))], &[]);
    assert_eq!(picture(&[out]), "+ 1  1  10  NULL  NULL\n+ 1  NULL  5  NULL  NULL\n");
    let out = step(&mut join, &[], &[(1, (Some("x"), Some(1)))]);
    assert_eq!(picture(&[out]), "- 1  1  10  NULL  NULL\n+ 1  1  10  x  1\n");
    let out = step(&mut join, &[], &[(1, (Some("y"), Some(1)))]);
    assert_eq!(picture(&[out]), "+ 1  1  10  y  1\n");
    let out = step(&mut join, &[], &[(-1, (Some("x"), Some(1))), (-1, (Some("y"), Some(1)))]);
    assert_eq!(picture(&[out]), "+ 1  1  10  NULL  NULL\n- 1  1  10  x  1\n- 1  1  10  y  1\n");
}

#[test]
fn a_semi_join_gives_a_row_once_however_many_partners() {
    let mut join = join_of(JoinKind::Semi, true, false, None);
    let out = step(&mut join, &[(2, (Some(1), 10))], &[(1, (Some("x"), Some(1))), (3, (None, Some(1)))]);
    assert_eq!(picture(&[out]), "+ 2  1  10\n");
    assert!(step(&mut join, &[], &[(-1, (Some("x"), Some(1)))]).is_empty());
    let out = step(&mut join, &[], &[(-3, (None, Some(1)))]);
    assert_eq!(picture(&[out]), "- 2  1  10\n");
}

/// All kinds, with and without keys and predicate, random changes in random steps.
#[test]
fn every_kind_equals_the_nested_loop() {
    const TEXTS: [Option<&str>; 3] = [None, Some("x"), Some("y")];
    for seed in 0..6000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = KINDS[random.usize(..KINDS.len())];
        let (on, null_equals_null, with_predicate) = (random.u8(..4) > 0, random.bool(), random.bool());
        let make = || join_of(kind, on, null_equals_null, with_predicate.then(predicate));
        let mut join = make();
        let mut lefts: BTreeMap<LeftRow, i64> = BTreeMap::new();
        let mut rights: BTreeMap<RightRow, i64> = BTreeMap::new();
        let mut sum: BTreeMap<String, i64> = BTreeMap::new();
        for round in 0..random.usize(1..7) {
            let key = |random: &mut fastrand::Rng| (random.u8(..4) > 0).then(|| random.i64(0..3));
            let l = change(&mut random, &mut lefts, |r| (key(r), r.i64(0..4)));
            let r = change(&mut random, &mut rights, |r| (TEXTS[r.usize(0..3)], key(r)));
            if random.u8(..3) == 0 {
                join = if on { reopened } else { reopened_whole }(&join, make, &mut random);
            }
            add(&mut sum, &step(&mut join, &l, &r));
            let expected = nested_loop(kind, &lefts, &rights, |l, r| {
                let keys = !on || (l.0 == r.1 && (null_equals_null || l.0.is_some()));
                keys && (!with_predicate || (l.1 < 2 && r.0.is_some()))
            });
            assert_eq!(
                sum, expected,
                "seed {seed} round {round} {kind:?} on={on} predicate={with_predicate}"
            );
        }
    }
}

/// A random change of a multiset that stays one, with rows that come and go within it.
pub(super) fn change<R: Ord + Copy>(
    random: &mut fastrand::Rng,
    rows: &mut BTreeMap<R, i64>,
    mut row: impl FnMut(&mut fastrand::Rng) -> R,
) -> Vec<(i64, R)> {
    let mut change = Vec::new();
    for _ in 0..random.usize(0..7) {
        let present: Vec<R> = rows.iter().filter(|(_, w)| **w > 0).map(|(r, _)| *r).collect();
        let (row, weight) = if !present.is_empty() && random.u8(..3) == 0 {
            let row = present[random.usize(..present.len())];
            (row, -random.i64(1..=rows[&row]))
        } else {
            (row(random), random.i64(1..3))
        };
        *rows.entry(row).or_default() += weight;
        rows.retain(|_, w| *w != 0);
        change.push((weight, row));
    }
    change
}

pub(super) fn add(sum: &mut BTreeMap<String, i64>, change: &ZSet) {
    for line in picture(std::slice::from_ref(change)).lines() {
        let (sign, rest) = line.split_at(2);
        let (count, row) = rest.split_once("  ").unwrap();
        let count: i64 = count.trim().parse().unwrap();
        *sum.entry(row.to_string()).or_default() += if sign == "+ " { count } else { -count };
    }
    sum.retain(|_, w| *w != 0);
}

pub(super) fn nested_loop(
    kind: JoinKind,
    lefts: &BTreeMap<LeftRow, i64>,
    rights: &BTreeMap<RightRow, i64>,
    matches: impl Fn(&LeftRow, &RightRow) -> bool,
) -> BTreeMap<String, i64> {
    let text = |value: Option<i64>| value.map_or("NULL".to_string(), |v| v.to_string());
    let left_text = |l: &LeftRow| format!("{}  {}", text(l.0), l.1);
    let right_text = |r: &RightRow| format!("{}  {}", r.0.unwrap_or("NULL"), text(r.1));
    let mut out: BTreeMap<String, i64> = BTreeMap::new();
    let mut give = |row: String, weight: i64| *out.entry(row).or_default() += weight;
    for (l, weight) in lefts {
        let partners: Vec<_> = rights.iter().filter(|(r, _)| matches(l, r)).collect();
        match kind {
            JoinKind::Semi if !partners.is_empty() => give(left_text(l), *weight),
            JoinKind::Anti if partners.is_empty() => give(left_text(l), *weight),
            JoinKind::Mark => give(format!("{}  {}", left_text(l), !partners.is_empty()), *weight),
            JoinKind::Semi | JoinKind::Anti => {}
            _ => {
                for (r, other) in &partners {
                    give(format!("{}  {}", left_text(l), right_text(r)), weight * **other);
                }
                if partners.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                    give(format!("{}  NULL  NULL", left_text(l)), *weight);
                }
            }
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        for (r, weight) in rights.iter().filter(|(r, _)| !lefts.keys().any(|l| matches(l, r))) {
            give(format!("NULL  NULL  {}", right_text(r)), *weight);
        }
    }
    out
}
