use super::*;
use dataflow::{StateReader, StateWriter};
use std::collections::BTreeMap;

fn contents(bag: &Bag, key: &[u8]) -> Vec<(Vec<u8>, i64)> {
    let mut rows: Vec<_> = bag.rows(key).map(|row| (row.row.to_vec(), row.weight)).collect();
    rows.sort();
    rows
}

/// The same contents through bytes, in two parts of which the second is read first.
fn reopened(bag: &Bag, random: &mut fastrand::Rng) -> Bag {
    let mut parts: [Vec<u32>; 2] = Default::default();
    for (slot, _) in bag.keys.iter() {
        parts[random.usize(..2)].push(slot);
    }
    let mut new = Bag::new();
    for slots in parts.iter().rev() {
        let mut out = StateWriter::new();
        bag.save(slots, &mut out, |out, entry| out.signed(bag.weight(entry)));
        let bytes = out.into_bytes();
        let mut saved = StateReader::new(&bytes);
        let mut added = Vec::new();
        let loaded = new.load(&mut saved, |saved, entry| {
            added.push((entry, saved.signed()?));
            Ok(())
        });
        saved.finish().unwrap();
        let keys: Vec<&[u8]> = loaded.unwrap().into_iter().map(|slot| new.key(slot)).collect();
        assert_eq!(keys, slots.iter().map(|slot| bag.key(*slot)).collect::<Vec<_>>());
        assert!(added.into_iter().all(|(entry, weight)| new.weight(entry) == weight));
    }
    new
}

#[test]
fn other_bytes_are_an_error() {
    let bytes_of = |write: &dyn Fn(&mut StateWriter)| {
        let mut out = StateWriter::new();
        write(&mut out);
        out.into_bytes()
    };
    let twice = bytes_of(&|out| out.all([b"k", b"k"].into_iter(), |out, key| out.bytes(key)));
    let row = |number: i64, weight: i64| {
        bytes_of(&move |out| {
            out.all([b"k"].into_iter(), |out, key| out.bytes(key));
            out.count(1);
            out.signed(number);
            out.signed(weight);
            out.bytes(b"row");
        })
    };
    let load = |bytes: &[u8]| Bag::new().load(&mut StateReader::new(bytes), |_, _| Ok(())).map(|_| ());
    assert!(load(&row(0, 1)).is_ok());
    for bytes in [twice, row(1, 1), row(-1, 1), row(0, 0), vec![0xFF; 8], vec![]] {
        assert!(matches!(load(&bytes), Err(dataflow::Error::State(_))), "{bytes:?}");
    }
}

#[test]
fn weights_add_up_and_vanish_at_zero() {
    let mut bag = Bag::new();
    bag.add(b"k", b"row", 2);
    bag.add(b"k", b"other", 1);
    bag.add(b"k", b"row", -1);
    assert_eq!(contents(&bag, b"k"), vec![(b"other".to_vec(), 1), (b"row".to_vec(), 1)]);
    bag.add(b"k", b"row", -1);
    bag.add(b"k", b"other", -1);
    assert_eq!((bag.len(), bag.keys_len()), (0, 0));
    assert_eq!(contents(&bag, b"k"), vec![]);
}

#[test]
fn a_retraction_may_come_before_its_insertion() {
    let mut bag = Bag::new();
    bag.add(b"k", b"row", -1);
    assert_eq!(contents(&bag, b"k"), vec![(b"row".to_vec(), -1)]);
    bag.add(b"k", b"row", 1);
    assert!(bag.is_empty());
}

#[test]
fn an_entry_stays_until_released() {
    let mut bag = Bag::new();
    let first = bag.update(b"k", b"row", 1);
    let second = bag.update(b"k", b"row", -1);
    assert_eq!((first.entry, second.before, second.after), (second.entry, 1, 0));
    assert_eq!(bag.row(second.entry), b"row");
    bag.release(second.entry);
    bag.update(b"k", b"x", 1);
    assert_eq!(bag.len(), 1);
}

#[test]
fn removing_a_key_frees_its_rows_and_memory() {
    let mut bag = Bag::new();
    for row in 0..100_000u32 {
        bag.add(b"hot", &row.to_be_bytes(), 1);
    }
    assert!(
        bag.size_bytes() < 100_000 * 70,
        "a 4-byte row costs under 70 bytes, not {}",
        bag.size_bytes() / 100_000
    );
    bag.add(b"cold", b"row", 1);
    let slot = bag.find_key(b"hot").unwrap();
    bag.remove_key(slot);
    assert_eq!((bag.len(), bag.keys_len()), (1, 1));
    assert_eq!(bag.find_key(b"hot"), None);
    let slot = bag.find_key(b"cold").unwrap();
    bag.remove_key(slot);
    assert_eq!(bag.size_bytes(), 0);
}

#[test]
fn behaves_like_a_map_of_multisets() {
    for seed in 0..200u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bag = Bag::new();
        let mut model: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, i64>> = BTreeMap::new();
        let keys = random.u8(1..20);
        let rows = random.u8(1..60);
        for _ in 0..500 {
            let key =
                vec![b'k'; random.usize(0..3)].into_iter().chain([random.u8(0..keys)]).collect::<Vec<u8>>();
            if random.u8(0..100) == 0 {
                if let Some(slot) = bag.find_key(&key) {
                    bag.remove_key(slot);
                    model.remove(&key);
                }
                continue;
            }
            if random.u8(0..100) == 0 {
                bag = reopened(&bag, &mut random);
            }
            let row = vec![random.u8(0..rows); random.usize(0..4)];
            let weight = random.i64(-2..3);
            bag.add(&key, &row, weight);
            let weights = model.entry(key.clone()).or_default();
            *weights.entry(row).or_default() += weight;
            weights.retain(|_, weight| *weight != 0);
            if weights.is_empty() {
                model.remove(&key);
            }
        }
        let total: usize = model.values().map(BTreeMap::len).sum();
        assert_eq!((bag.len(), bag.keys_len()), (total, model.len()), "seed {seed}");
        for (key, weights) in &model {
            let expected: Vec<_> = weights.iter().map(|(row, weight)| (row.clone(), *weight)).collect();
            assert_eq!(contents(&bag, key), expected, "seed {seed}");
        }
    }
}

#[test]
fn churn_with_rows_of_other_lengths_is_compacted() {
    let mut bag = Bag::new();
    for round in 0..40usize {
        for row in 0..1000u32 {
            let text = |round: usize| [vec![b'x'; 100 + round * 7], row.to_be_bytes().to_vec()].concat();
            if round > 0 {
                bag.add(b"k", &text(round - 1), -1);
            }
            bag.add(b"k", &text(round), 1);
        }
    }
    assert_eq!(bag.len(), 1000);
    assert!(bag.size_bytes() < 3_500_000, "{}", bag.size_bytes());
}
