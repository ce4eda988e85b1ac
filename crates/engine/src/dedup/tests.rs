//! What was seen before is recognized by those who open it.

use super::*;
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use sql::{Column, OnConflict, TableOptions};

fn table() -> TableDef {
    let column = Column {
        name: "id".into(),
        data_type: DataType::Utf8,
        sql_type: String::new(),
        not_null: false,
        default: None,
        generated: None,
    };
    TableDef {
        id: RelationId(1),
        name: "t".into(),
        columns: vec![column],
        primary_key: vec![],
        append_only: true,
        on_conflict: OnConflict::Overwrite,
        watermark: None,
        checks: vec![],
        options: TableOptions { dedup_key: Some(0), dedup_window_us: 100, ..TableOptions::default() },
        connector: None,
        added: Vec::new(),
        sql: String::new(),
    }
}

fn reopened(old: &mut DedupSet, pieces: &mut Vec<Vec<u8>>, rng: &mut fastrand::Rng) -> DedupSet {
    let mut out = StateWriter::new();
    old.save_head(&mut out);
    // What was saved before, unless everything is anew.
    if pieces.is_empty() || old.is_overflown() || rng.u8(..5) == 0 {
        pieces.clear();
        pieces.push(ids(old, true));
    } else {
        pieces.push(ids(old, false));
    }
    pieces.iter().for_each(|piece| out.raw(piece));
    let (bytes, count) = (out.into_bytes(), pieces.len());
    let open = |bytes: &[u8]| {
        let (mut new, mut saved) = (DedupSet::new(&table()).unwrap(), StateReader::new(bytes));
        new.load_head(&mut saved)?;
        (0..count).try_for_each(|_| new.load_ids(&mut saved))?;
        saved.finish().map(|()| new)
    };
    let cut = rng.usize(..bytes.len());
    assert!(open(&bytes[..cut]).is_err(), "{cut} bytes");
    open(&bytes).unwrap()
}

fn ids(set: &mut DedupSet, all: bool) -> Vec<u8> {
    let mut out = StateWriter::new();
    set.save_ids(all, &mut out);
    out.into_bytes()
}

#[test]
fn a_reopened_set_knows_the_same_ids() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut kept, mut new) = (DedupSet::new(&table()).unwrap(), DedupSet::new(&table()).unwrap());
        let (mut now, mut pieces) = (0, Vec::new());
        for _ in 0..20 {
            now += rng.i64(0..30);
            let ids: StringArray =
                (0..10).map(|_| (rng.u8(..9) > 0).then(|| "id".repeat(rng.usize(1..40)))).collect();
            let rows = RecordBatch::try_new(table().schema(), vec![Arc::new(ids)]).unwrap();
            assert_eq!(kept.admit(&rows, now).unwrap(), new.admit(&rows, now).unwrap(), "seed {seed}");
            if rng.u8(..4) == 0 {
                let rows = rows.slice(0, 2);
                [&mut kept, &mut new].into_iter().for_each(|set| set.forget(&rows).unwrap());
            }
            if rng.bool() {
                new = reopened(&mut new, &mut pieces, &mut rng);
            }
        }
    }
}

#[test]
fn a_machine_with_other_hashes_does_not_take_the_ids_for_its_own() {
    let mut out = StateWriter::new();
    DedupSet::new(&table()).unwrap().save_head(&mut out);
    let mut bytes = out.into_bytes();
    // Behind the version and the seeds.
    bytes[1 + 64] ^= 1;
    let error = DedupSet::new(&table()).unwrap().load_head(&mut StateReader::new(&bytes)).unwrap_err();
    assert!(error.to_string().contains("other hashes"), "{error}");
}

#[test]
fn reopened_requests_give_the_same_answers() {
    let request = |key: &str| RequestKey { key: key.to_string(), body_crc: 7 };
    let answer = |accepted| Answer { body_crc: 7, accepted, duplicates: 1, tick: Tick(3) };
    let (table, other) = (RelationId(1), RelationId(2));
    let mut old = Requests::default();
    old.remember(table, &request("a"), 10, answer(1));
    old.remember(other, &request("a"), 20, answer(2));
    old.remember(table, &request("b"), 30, answer(3));
    let mut out = StateWriter::new();
    assert!(old.save(false, &mut out));
    assert!(!old.save(false, &mut StateWriter::new()));
    old.remember(table, &request("d"), 40, answer(5));
    old.forget(table, "d");
    assert!(old.save(false, &mut out));
    let bytes = out.into_bytes();
    for cut in 0..bytes.len() {
        let (mut cut_off, mut saved) = (Requests::default(), StateReader::new(&bytes[..cut]));
        let opened = (0..2).try_for_each(|_| cut_off.load(&mut saved));
        assert!(opened.is_err(), "{cut} bytes");
    }
    let mut new = Requests::default();
    let mut saved = StateReader::new(&bytes);
    new.load(&mut saved).unwrap();
    new.load(&mut saved).unwrap();
    saved.finish().unwrap();
    assert_eq!(new.find(table, "a"), Some(&answer(1)));
    assert_eq!(new.find(other, "a"), Some(&answer(2)));
    assert_eq!(new.find(table, "b"), Some(&answer(3)));
    assert_eq!(new.find(table, "d"), None);
    new.remember(table, &request("c"), 10 + Requests::WINDOW_US, answer(4));
    assert_eq!((new.find(table, "a"), new.find(other, "a")), (None, Some(&answer(2))));
}
