//! Output in parts: the same sum, and no part of it that takes away what is not there.

use std::sync::Mutex;

use dataflow::PartSink;

use super::kinds::join_of;
use super::*;

/// Adds a change to the sum of all, and says whether a row is there less than zero times.
fn add(sum: &mut BTreeMap<String, i64>, change: &ZSet) -> bool {
    for line in picture(std::slice::from_ref(change)).lines() {
        let mut words = line.splitn(3, ' ');
        let sign = if words.next() == Some("-") { -1 } else { 1 };
        let weight: i64 = words.next().unwrap().parse().unwrap();
        *sum.entry(words.next().unwrap_or_default().to_string()).or_default() += sign * weight;
    }
    sum.values().all(|weight| *weight >= 0)
}

#[test]
fn parts_sum_up_and_none_takes_away_what_is_not_there() {
    use JoinKind::*;
    let mut given = 0;
    for seed in 0..2000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = *random.choice(&[Inner, Left, Right, Full, Semi, Anti, Mark]).unwrap();
        let residual = random.bool();
        let predicate = || -> Residual {
            Box::new(|rows, _| {
                Ok(lt(rows.column(1).as_primitive::<Int64Type>(), &Int64Array::new_scalar(2))?)
            })
        };
        let made = || join_of(kind, true, false, residual.then(predicate));
        let (mut whole, mut divided) = (made(), made());
        let mut lefts: Vec<LeftRow> = Vec::new();
        let mut rights: Vec<RightRow> = Vec::new();
        let (mut expected, mut sum) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..random.usize(1..6) {
            let mut l = Vec::new();
            let mut r = Vec::new();
            for _ in 0..random.usize(0..10) {
                if !lefts.is_empty() && random.u8(..3) == 0 {
                    l.push((-1, lefts.swap_remove(random.usize(..lefts.len()))));
                } else {
                    lefts.push((Some(random.i64(0..2)), random.i64(0..4)));
                    l.push((1, *lefts.last().unwrap()));
                }
                if !rights.is_empty() && random.u8(..3) == 0 {
                    r.push((-1, rights.swap_remove(random.usize(..rights.len()))));
                } else {
                    rights.push((Some(*random.choice(&["x", "y"]).unwrap()), Some(random.i64(0..2))));
                    r.push((1, *rights.last().unwrap()));
                }
            }
            // In whatever order: a row may come before the one that it replaces, or after.
            random.shuffle(&mut l);
            random.shuffle(&mut r);
            if random.u8(..3) == 0 {
                divided = reopened(&divided, made, &mut random);
            }
            let inputs = [left(&l), right(&r)];
            assert!(add(&mut expected, &whole.step(&inputs, &mut StepContext::default()).unwrap()));
            let parts = Mutex::new(Vec::new());
            let give = |part: ZSet| parts.lock().unwrap().push(part);
            let rows = random.usize(1..8);
            let mut ctx = StepContext { parts: Some(PartSink { give: &give, rows }), ..Default::default() };
            let rest = divided.step(&inputs, &mut ctx).unwrap();
            for part in parts.into_inner().unwrap() {
                given += 1;
                assert!(add(&mut sum, &part), "seed {seed}: {kind:?}, residual {residual}: {sum:?}");
            }
            assert!(add(&mut sum, &rest), "seed {seed}: {kind:?}, residual {residual}: {sum:?}");
            let there = |sum: &BTreeMap<String, i64>| -> Vec<(String, i64)> {
                sum.iter().filter(|(_, w)| **w != 0).map(|(row, w)| (row.clone(), *w)).collect()
            };
            assert_eq!(there(&sum), there(&expected), "seed {seed}: {kind:?}, residual {residual}");
        }
    }
    assert!(given > 2000, "only {given} parts");
}
