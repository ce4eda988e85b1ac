//! A keyed table taken through its bytes.

use super::*;
use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use dataflow::picture::picture;
use sql::{Column, RelationId, TableOptions};

fn table(primary_key: Vec<usize>, on_conflict: OnConflict) -> TableDef {
    let column = |name: &str, data_type| Column {
        name: name.into(),
        data_type,
        sql_type: String::new(),
        not_null: false,
        default: None,
        generated: None,
    };
    TableDef {
        id: RelationId(1),
        name: "t".into(),
        columns: vec![
            column("a", DataType::Int64),
            column("b", DataType::Utf8),
            column("c", DataType::Boolean),
        ],
        primary_key,
        append_only: false,
        on_conflict,
        watermark: None,
        checks: vec![],
        options: TableOptions::default(),
        connector: None,
        added: Vec::new(),
        sql: String::new(),
    }
}

fn part(table: &TableDef, rng: &mut fastrand::Rng) -> Part {
    let count = rng.usize(1..12);
    let texts = ["x", "y", "a text that is longer than others"];
    let a: Int64Array = (0..count).map(|_| (rng.u8(..9) > 0).then(|| rng.i64(0..5))).collect();
    let b: StringArray = (0..count).map(|_| (rng.u8(..9) > 0).then(|| texts[rng.usize(..3)])).collect();
    let c: BooleanArray = (0..count).map(|_| (rng.u8(..9) > 0).then(|| rng.bool())).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(a), Arc::new(b), Arc::new(c)];
    Part {
        relation: table.id,
        rows: RecordBatch::try_new(table.schema(), columns).unwrap(),
        weights: rng.bool().then(|| (0..count).map(|_| if rng.u8(..3) == 0 { 1 } else { -1 }).collect()),
    }
}

fn saved(state: &TableState) -> Vec<u8> {
    let mut out = StateWriter::new();
    state.save(&mut out).unwrap();
    out.into_bytes()
}

#[test]
fn what_was_reopened_makes_the_same_changes() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let conflicts = [OnConflict::Overwrite, OnConflict::DoNothing, OnConflict::DoUpdateIfNotNull];
        let key = [vec![], vec![0], vec![1, 0]][rng.usize(..3)].clone();
        let table = table(key, conflicts[rng.usize(..3)]);
        let mut kept = TableState::new(&table).unwrap();
        let mut new = TableState::new(&table).unwrap();
        for round in 0..12 {
            let part = part(&table, &mut rng);
            let (a, b) = (kept.apply(&part).unwrap(), new.apply(&part).unwrap());
            assert_eq!(picture(&[a]), picture(&[b]), "seed {seed}, round {round}");
            let bytes = saved(&new);
            new = TableState::new(&table).unwrap();
            let mut read = StateReader::new(&bytes);
            new.load(&mut read).unwrap();
            read.finish().unwrap();
            assert_eq!(new.state_size().rows, kept.state_size().rows);
        }
    }
}

#[test]
fn other_bytes_are_an_error() {
    let mut rng = fastrand::Rng::with_seed(1);
    let keyed = table(vec![0], OnConflict::Overwrite);
    let mut state = TableState::new(&keyed).unwrap();
    let rows = part(&keyed, &mut rng).rows;
    state.apply(&Part { relation: keyed.id, rows, weights: None }).unwrap();
    let bytes = saved(&state);
    let open = |table: &TableDef, bytes: &[u8]| {
        let mut saved = StateReader::new(bytes);
        TableState::new(table).unwrap().load(&mut saved).and_then(|()| saved.finish())
    };
    assert!(open(&keyed, &bytes).is_ok());
    for cut in 0..bytes.len() {
        assert!(open(&keyed, &bytes[..cut]).is_err(), "{cut} bytes");
    }
    assert!(open(&table(vec![], OnConflict::Overwrite), &bytes).is_err(), "the key was dropped");
    assert!(state.load(&mut StateReader::new(&bytes)).is_err(), "keys are there already");
    assert!(open(&keyed, &[9, 1, 0]).is_err(), "a version to come");
}
