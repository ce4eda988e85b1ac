//! For tests: an operator's state taken through its bytes.

use arrow::array::BooleanArray;
use dataflow::{KeyPart, Operator, StateReader, StateWriter};
use datafusion::common::hash_utils::{RandomState, create_hashes};

/// A new operator with the state of this one: saved in one piece, or in several parts by key, which are read in another
/// order than they were written.
pub fn reopened<O: Operator>(operator: &O, make: impl Fn() -> O, rng: &mut fastrand::Rng) -> O {
    let parts = rng.u64(1..4);
    reopened_in(parts, operator, make, rng)
}

/// As [`reopened`], for what has no key: in one piece.
pub fn reopened_whole<O: Operator>(operator: &O, make: impl Fn() -> O, rng: &mut fastrand::Rng) -> O {
    reopened_in(1, operator, make, rng)
}

fn reopened_in<O: Operator>(parts: u64, operator: &O, make: impl Fn() -> O, rng: &mut fastrand::Rng) -> O {
    let seed = RandomState::with_seed(rng.u64(..));
    let mut saved = Vec::new();
    for part in 0..parts {
        let pick = |keys: &[arrow::array::ArrayRef]| {
            let mut hashes = vec![0; keys[0].len()];
            create_hashes(keys, &seed, &mut hashes).unwrap();
            Ok(hashes.iter().map(|hash| Some(hash % parts == part)).collect::<BooleanArray>())
        };
        let mut out = StateWriter::new();
        operator.save(if parts == 1 { KeyPart::ALL } else { KeyPart::of(&pick) }, &mut out).unwrap();
        saved.push(out.into_bytes());
    }
    rng.shuffle(&mut saved);
    let mut new = make();
    for bytes in &saved {
        let mut read = StateReader::new(bytes);
        new.load(&mut read).unwrap();
        read.finish().unwrap();
    }
    // What is cut off anywhere is an error, and no panic.
    let cut = rng.usize(0..saved[0].len().max(1));
    if cut < saved[0].len() {
        let mut read = StateReader::new(&saved[0][..cut]);
        let opened = make().load(&mut read).and_then(|()| read.finish());
        assert!(opened.is_err(), "{cut} of {} bytes", saved[0].len());
    }
    assert_eq!(new.state_size().rows, operator.state_size().rows, "rows remembered");
    new
}

/// Reads the operator's state with some bytes changed: whatever comes of it, it is no panic.
pub fn damaged<O: Operator>(operator: &O, make: impl Fn() -> O, rng: &mut fastrand::Rng) {
    let mut out = StateWriter::new();
    operator.save(KeyPart::ALL, &mut out).unwrap();
    let mut bytes = out.into_bytes();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len());
        bytes[at] = if rng.bool() { u8::MAX } else { rng.u8(..) };
    }
    let _ = make().load(&mut StateReader::new(&bytes));
}
