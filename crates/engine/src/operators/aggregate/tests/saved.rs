//! States that the random cases don't reach, taken through their bytes.

use super::*;
use crate::operators::saving;

/// Calls whose states the random cases don't fill: the opened operator gives what the saved one gives.
#[test]
fn large_and_special_states_are_saved() {
    use AggregateFunction::*;
    let fraction = Fraction::new;
    let calls = vec![
        call(Sum, &[FLOAT], DataType::Float64),
        call(Statistic(super::Statistic::Corr), &[FLOAT, INT], DataType::Float64),
        call(ApproxCountDistinct, &[INT], DataType::Int64),
        call(ApproxPercentile(fraction(0.3), fraction(0.01)), &[FLOAT], DataType::Float64),
        call(PercentileCont(fraction(0.7)), &[FLOAT], DataType::Float64),
        AggregateCall { distinct: true, ..call(Count, &[TEXT], DataType::Int64) },
        AggregateCall { distinct: true, ..call(Sum, &[INT], DataType::Int64) },
        call(Max, &[TEXT], DataType::Utf8),
    ];
    let mut rng = fastrand::Rng::with_seed(3);
    for (append_only, keys) in [(true, vec![KEY]), (false, vec![TEXT]), (true, vec![KEY, TEXT, DECIMAL])] {
        let spec = AggregateSpec { append_only, ..spec(&keys, calls.clone()) };
        let make = || Aggregate::new(spec.clone()).unwrap();
        let (mut saved, mut opened) = (make(), make());
        let specials = [f64::NAN, f64::INFINITY, f64::MAX, -f64::MAX, 5e-324, 1e-200, -1e17, -0.0, 0.1];
        for step in 0..6 {
            let mut rows: Vec<(Row, i64)> = Vec::new();
            for _ in 0..2000 {
                let key = rng.i64(0..3);
                let float = match key {
                    0 => specials[rng.usize(2..specials.len())],
                    _ => rng.f64() * 1000.0,
                };
                let row = Row {
                    float: Some(float),
                    text: Some(format!("text number {}", rng.u32(..50))),
                    ..row(key, rng.i32(..))
                };
                rows.push((row, rng.i64(1..3)));
            }
            if step == 4 && !append_only {
                rows.iter_mut().for_each(|(_, weight)| *weight = -*weight);
            }
            rows.push((Row { float: Some(specials[step % 2]), ..row(2, 1) }, 1));
            let input = [zset(&rows)];
            let expected = picture(&[saved.step(&input, &mut StepContext::default()).unwrap()]);
            let output = picture(&[opened.step(&input, &mut StepContext::default()).unwrap()]);
            assert_eq!(output, expected, "step {step}, keys {keys:?}");
            opened = saving::reopened(&opened, make, &mut rng);
            survives_damage(&opened, make, &mut rng);
        }
    }
}

#[test]
fn sums_of_any_size_are_saved() {
    let data_type = DataType::Decimal128(38, 0);
    let input = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("d", data_type.clone(), true),
    ]));
    let calls = vec![call(AggregateFunction::Sum, &[1], data_type)];
    let output = Arc::new(Schema::new(vec![input.field(0).clone(), calls[0].output.as_ref().clone()]));
    let spec = AggregateSpec { input: Arc::clone(&input), calls, output, keys: vec![0], ..spec(&[], vec![]) };
    let make = || Aggregate::new(spec.clone()).unwrap();
    let largest = 10i128.pow(38) - 1;
    for unit in [1, 1 << 70, largest] {
        let keys: Vec<i64> = (0..2500).collect();
        let rows = |weight: i64| {
            let decimals = keys.iter().map(|key| if key % 2 == 0 { unit } else { -unit });
            let decimals =
                Decimal128Array::from_iter_values(decimals).with_precision_and_scale(38, 0).unwrap();
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys.clone())), Arc::new(decimals)];
            let weights = keys.iter().map(|key| weight * (key + 1)).collect();
            ZSet::new(RecordBatch::try_new(Arc::clone(&input), columns).unwrap(), weights)
        };
        let mut aggregate = make();
        aggregate.step(&[rows(1_000_000)], &mut StepContext::default()).unwrap();
        let mut opened = saving::reopened(&aggregate, make, &mut fastrand::Rng::with_seed(1));
        let shown = opened.step(&[rows(-999_999)], &mut StepContext::default()).unwrap();
        let expected = aggregate.step(&[rows(-999_999)], &mut StepContext::default()).unwrap();
        assert_eq!(picture(&[shown]), picture(&[expected]));
        let gone = opened.step(&[rows(-1)], &mut StepContext::default()).unwrap();
        assert_eq!((gone.is_empty(), opened.state_size().rows), (false, 0));
    }
}

#[test]
fn what_can_not_be_taken_in_is_an_error() {
    let mut aggregate = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    step(&mut aggregate, &[(row(1, 5), 1)]);
    let mut out = StateWriter::new();
    aggregate.save(KeyPart::ALL, &mut out).unwrap();
    let bytes = out.into_bytes();
    let wrong = |opened: &mut Aggregate, bytes: &[u8]| {
        opened.load(&mut StateReader::new(bytes)).unwrap_err().to_string()
    };
    assert!(wrong(&mut aggregate, &bytes).contains("there already"));
    let mut new = Aggregate::new(spec(&[KEY], count_and_sum())).unwrap();
    assert!(wrong(&mut new, &[&[9], &bytes[1..]].concat()).contains("version 9"));
    let global = Aggregate::new(spec(&[], count_and_sum())).unwrap();
    let pick = |_: &[ArrayRef]| unreachable!("there is no key");
    assert!(global.save(KeyPart::of(&pick), &mut StateWriter::new()).is_err());
}
