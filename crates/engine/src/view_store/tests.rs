use super::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use dataflow::picture::picture;
use dataflow::{StateReader, StateWriter};

/// Columns a, k, b; where there is a key, it is k.
type Row = (Option<i64>, Option<&'static str>, Option<i64>);
const TEXTS: [Option<&str>; 6] = [
    None,
    Some(""),
    Some("x"),
    Some("12345678"),
    Some("a text longer than thirty-two bytes, so that it takes more blocks"),
    Some("y"),
];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("k", DataType::Utf8, true),
        Field::new("b", DataType::Int64, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn zset(rows: &[(i64, Row)]) -> ZSet {
    let only: Vec<Row> = rows.iter().map(|(_, row)| *row).collect();
    ZSet::new(batch(&only), rows.iter().map(|(weight, _)| *weight).collect())
}

fn keyed() -> Store {
    Store::view(schema(), vec![1]).unwrap()
}

fn keyless() -> Store {
    Store::view(schema(), vec![]).unwrap()
}

fn row(a: i64, k: &'static str) -> Row {
    (Some(a), Some(k), None)
}

fn contents(snapshot: &Snapshot) -> String {
    let parts: Vec<ZSet> = snapshot.batches(None, 7).map(|batch| ZSet::inserts(batch.unwrap())).collect();
    picture(&parts)
}

fn key(k: Option<&str>) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("k", DataType::Utf8, true)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec![k]))]).unwrap()
}

fn show(batch: RecordBatch) -> String {
    picture(&[ZSet::inserts(batch)])
}

#[test]
fn a_keyed_row_is_inserted_updated_and_deleted() {
    let mut store = keyed();
    let report = store.apply(&zset(&[(1, row(1, "x")), (1, row(2, "y"))])).unwrap();
    assert_eq!(report, ApplyReport { inserted: 2, ..ApplyReport::default() });
    let report = store.apply(&zset(&[(-1, row(1, "x")), (1, row(3, "x")), (-1, row(2, "y"))])).unwrap();
    assert_eq!(report, ApplyReport { updated: 1, deleted: 1, ..ApplyReport::default() });
    assert_eq!(contents(&store.snapshot()), "+ 1  3  x  NULL\n");
    assert_eq!(store.len(), 1);
}

#[test]
fn the_order_within_a_change_does_not_matter() {
    let change = [(-1, row(1, "x")), (1, row(2, "x")), (-1, row(2, "x")), (1, row(3, "x"))];
    for first in 0..24usize {
        let mut order: Vec<_> = change.to_vec();
        let mut permuted = Vec::new();
        let mut rest = first;
        for left in (1..=4).rev() {
            permuted.push(order.remove(rest % left));
            rest /= left;
        }
        let mut store = keyed();
        store.apply(&zset(&[(1, row(1, "x"))])).unwrap();
        store.apply(&zset(&permuted)).unwrap();
        assert_eq!(contents(&store.snapshot()), "+ 1  3  x  NULL\n", "{permuted:?}");
        assert_eq!(store.len(), 1);
    }
}

#[test]
fn weights_beyond_one_are_consolidated() {
    let mut store = keyed();
    store.apply(&zset(&[(2, row(1, "x")), (-1, row(1, "x"))])).unwrap();
    assert_eq!(contents(&store.snapshot()), "+ 1  1  x  NULL\n");
    store.apply(&zset(&[(3, row(1, "x")), (-4, row(1, "x"))])).unwrap();
    assert_eq!((contents(&store.snapshot()).as_str(), store.len()), ("", 0));
}

#[test]
fn broken_changes_name_the_row() {
    let mut store = keyed();
    store.apply(&zset(&[(1, row(1, "x"))])).unwrap();
    let error = store.apply(&zset(&[(-1, row(2, "x"))])).unwrap_err().to_string();
    assert_eq!(error, "row {a: 2, k: x, b: NULL} was retracted 1 times more than it was inserted");
    let mut store = keyed();
    store.apply(&zset(&[(1, row(1, "x"))])).unwrap();
    let error = store.apply(&zset(&[(1, row(2, "x"))])).unwrap_err().to_string();
    assert_eq!(error, "row {a: 2, k: x, b: NULL} was inserted while there is a row with the same key (k)");
    let error = keyless().apply(&zset(&[(1, row(1, "x")), (-3, row(1, "x"))])).unwrap_err().to_string();
    assert_eq!(error, "row {a: 1, k: x, b: NULL} was retracted 2 times more than it was inserted");
}

#[test]
fn rows_without_a_key_have_weights() {
    let mut store = keyless();
    store.apply(&zset(&[(-1, row(1, "x")), (3, row(1, "x")), (1, row(2, "y"))])).unwrap();
    assert_eq!(contents(&store.snapshot()), "+ 2  1  x  NULL\n+ 1  2  y  NULL\n");
    assert_eq!(store.len(), 3);
    store.apply(&zset(&[(-2, row(1, "x"))])).unwrap();
    assert_eq!(contents(&store.snapshot()), "+ 1  2  y  NULL\n");
}

#[test]
fn null_is_a_key_like_others() {
    let mut store = keyed();
    store.apply(&zset(&[(1, (Some(1), None, None)), (1, (Some(2), Some(""), None))])).unwrap();
    store.apply(&zset(&[(-1, (Some(1), None, None)), (1, (Some(3), None, None))])).unwrap();
    assert_eq!(contents(&store.snapshot()), "+ 1  2    NULL\n+ 1  3  NULL  NULL\n");
    assert_eq!(show(store.get(&key(None)).unwrap().unwrap()), "+ 1  3  NULL  NULL\n");
}

#[test]
fn snapshots_go_to_other_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Snapshot>();
    sent::<Batches>();
    sent::<Store>();
}

#[test]
fn nothing_changes_nothing() {
    let mut store = keyed();
    assert_eq!(store.apply(&ZSet::empty(schema())).unwrap(), ApplyReport::default());
    assert_eq!(store.snapshot().batches(None, 10).count(), 0);
}

#[test]
fn a_point_read_finds_the_row() {
    let mut store = keyed();
    store.apply(&zset(&[(1, row(1, "x")), (1, row(2, "y"))])).unwrap();
    assert_eq!(show(store.get(&key(Some("y"))).unwrap().unwrap()), "+ 1  2  y  NULL\n");
    assert!(store.get(&key(Some("z"))).unwrap().is_none());
    let error = store.get(&batch(&[row(1, "x")])).unwrap_err().to_string();
    assert_eq!(error, "a key is one row of (Utf8)");
}

#[test]
fn an_index_finds_rows_and_follows_changes() {
    for mut store in [keyed(), keyless()] {
        store.apply(&zset(&[(1, row(1, "x")), (1, row(1, "y")), (1, row(2, "z"))])).unwrap();
        let index = store.create_index(vec![0]).unwrap();
        let a = |value| batch(&[row(value, "")]).project(&[0]).unwrap();
        assert_eq!(show(store.lookup(index, &a(1)).unwrap()), "+ 1  1  x  NULL\n+ 1  1  y  NULL\n");
        store
            .apply(&zset(&[(-1, row(1, "x")), (1, row(2, "x")), (-1, row(2, "z")), (1, row(1, "w"))]))
            .unwrap();
        assert_eq!(show(store.lookup(index, &a(1)).unwrap()), "+ 1  1  w  NULL\n+ 1  1  y  NULL\n");
        assert_eq!(show(store.lookup(index, &a(2)).unwrap()), "+ 1  2  x  NULL\n");
        assert_eq!(store.lookup(index, &a(3)).unwrap().num_rows(), 0);
        store.drop_index(index);
        let error = store.lookup(index, &a(1)).unwrap_err().to_string();
        assert_eq!(error, "index 0 does not exist in this store");
    }
}

#[test]
fn a_projection_decodes_in_its_order() {
    let mut store = keyed();
    store.apply(&zset(&[(1, (Some(1), TEXTS[4], Some(7)))])).unwrap();
    let snapshot = store.snapshot();
    let one = |projection: &[usize]| snapshot.batches(Some(projection), 10).next().unwrap().unwrap();
    assert_eq!(show(one(&[2, 1])), format!("+ 1  7  {}\n", TEXTS[4].unwrap()));
    assert_eq!(show(one(&[0])), "+ 1  1\n");
    assert_eq!((one(&[]).num_rows(), one(&[]).num_columns()), (1, 0));
    assert_eq!(one(&[2]).schema().field(0).name(), "b");
}

#[test]
fn a_snapshot_stays_as_it_was_and_shares_what_did_not_change() {
    let mut store = keyed();
    let names: Vec<String> = (0..5000).map(|n| format!("key {n:05}")).collect();
    let all = |a: i64, names: &[String]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![a; names.len()])),
            Arc::new(StringArray::from(names.to_vec())),
            Arc::new(Int64Array::from(vec![a; names.len()])),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    };
    store.apply(&ZSet::inserts(all(1, &names))).unwrap();
    let before = store.snapshot();
    let change = concat_batches(&schema(), [&all(1, &names[..10]), &all(2, &names[..10])]).unwrap();
    store.apply(&ZSet::new(change, [vec![-1; 10], vec![1; 10]].concat())).unwrap();
    store.apply(&ZSet::new(all(1, &names[4000..]), vec![-1; 1000])).unwrap();
    assert_eq!(before.len(), 5000);
    let mut sum = 0;
    for batch in before.batches(Some(&[0]), 1000) {
        let batch = batch.unwrap();
        assert_eq!(batch.num_rows(), 1000);
        sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    assert_eq!(sum, 5000);
    let after: i64 = store
        .snapshot()
        .batches(Some(&[0]), 64)
        .map(|batch| batch.unwrap().column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>())
        .sum();
    assert_eq!((after, store.snapshot().len()), (4010, 4000));
}

#[test]
fn deleting_everything_gives_the_memory_back() {
    let mut store = keyless();
    let rows: Vec<(i64, Row)> = (0..10_000).map(|n| (1, row(n, "x"))).collect();
    store.apply(&zset(&rows)).unwrap();
    assert!(store.size_bytes() < 10_000 * 90, "{}", store.size_bytes() / 10_000);
    let retracted: Vec<(i64, Row)> = rows.iter().map(|(_, row)| (-1, *row)).collect();
    store.apply(&zset(&retracted)).unwrap();
    assert_eq!(store.size_bytes(), 0);
}

#[test]
fn an_append_store_takes_inserts_and_turns_at_a_retraction() {
    let mut store = Store::append_only(schema());
    for a in 0..1000 {
        store.apply(&zset(&[(1, row(a % 3, "x"))])).unwrap();
    }
    store.apply(&zset(&[(2, row(7, "y"))])).unwrap();
    let Store::Append(appended) = &store else { panic!("no retraction came") };
    assert!(appended.batches().count() <= 12, "{}", appended.batches().count());
    let snapshot = store.snapshot();
    let expected = "+ 334  0  x  NULL\n+ 333  1  x  NULL\n+ 333  2  x  NULL\n+ 2  7  y  NULL\n";
    assert_eq!((contents(&snapshot).as_str(), store.len()), (expected, 1002));
    store.apply(&zset(&[(-1, row(7, "y")), (-334, row(0, "x"))])).unwrap();
    assert!(matches!(store, Store::View(_)));
    assert_eq!(contents(&store.snapshot()), "+ 333  1  x  NULL\n+ 333  2  x  NULL\n+ 1  7  y  NULL\n");
    assert_eq!(contents(&snapshot), expected);
}

#[test]
fn appended_batches_are_merged_up_to_a_size() {
    let mut store = AppendStore::new(schema());
    let rows: Vec<Row> = (0..10_000).map(|a| row(a, "x")).collect();
    for _ in 0..50 {
        store.append(&ZSet::inserts(batch(&rows))).unwrap();
    }
    assert_eq!(store.len(), 500_000);
    assert!(store.batches().count() <= 14, "{}", store.batches().count());
    assert!(store.batches().all(|batch| batch.num_rows() <= 100_000));
    let projected: usize =
        store.snapshot().batches(Some(&[1]), 30_000).map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(projected, 500_000);
}

/// What a store should hold.
#[derive(Clone, Default)]
struct Model(BTreeMap<Row, i64>);

impl Model {
    fn picture(&self) -> String {
        let rows: Vec<(i64, Row)> = self.0.iter().map(|(row, weight)| (*weight, *row)).collect();
        picture(&[zset(&rows)])
    }

    fn add(&mut self, row: Row, weight: i64) {
        *self.0.entry(row).or_default() += weight;
        self.0.retain(|_, weight| *weight != 0);
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Keyed,
    Keyless,
    Append,
}

fn empty(kind: Kind) -> Store {
    match kind {
        Kind::Keyed => Store::view(schema(), vec![1, 0]).unwrap(),
        Kind::Keyless => keyless(),
        Kind::Append => Store::append_only(schema()),
    }
}

/// A new store with the rows of this one, of which only the parts are written that are not `known` already.
fn reopened(store: &mut Store, kind: Kind, index: bool, known: &mut HashMap<PartId, Vec<u8>>) -> Store {
    let image = store.image();
    let mut new = empty(kind);
    if index {
        new.create_index(vec![2, 1]).unwrap();
    }
    let mut now = HashMap::new();
    for part in &image.parts {
        let mut out = StateWriter::new();
        part.save(&mut out).unwrap();
        let fresh = out.into_bytes();
        let bytes = known.remove(&part.id).unwrap_or_else(|| fresh.clone());
        assert_eq!(bytes, fresh, "a part with the same id has the same rows");
        let mut read = StateReader::new(&bytes);
        let id = new.load(image.append_only, &mut read).unwrap();
        read.finish().unwrap();
        now.insert(id, bytes);
    }
    *known = now;
    new
}

#[test]
fn equals_the_multiset_of_its_changes_and_snapshots_do_not_move() {
    for seed in 0..3000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = *random.choice(&[Kind::Keyed, Kind::Keyless, Kind::Append]).unwrap();
        let mut store = empty(kind);
        let mut known = HashMap::new();
        let mut model = Model::default();
        let mut held: Vec<(Snapshot, String)> = Vec::new();
        let values = *random.choice(&[2, 10, 300]).unwrap();
        let mut index = None;
        for round in 0..random.usize(1..10) {
            let mut change: Vec<(i64, Row)> = Vec::new();
            for _ in 0..random.usize(0..40) {
                let new: Row =
                    (Some(random.i64(0..values)), *random.choice(&TEXTS).unwrap(), Some(random.i64(0..4)));
                let retracts = random.bool() && !model.0.is_empty();
                if retracts {
                    let row = *model.0.keys().nth(random.usize(0..model.0.len())).unwrap();
                    change.push((-1, row));
                    model.add(row, -1);
                    continue;
                }
                let same_key = model.0.keys().find(|row| (row.0, row.1) == (new.0, new.1)).copied();
                if let (Kind::Keyed, Some(old)) = (kind, same_key) {
                    change.push((-1, old));
                    model.add(old, -1);
                }
                let weight = if kind == Kind::Keyed { 1 } else { random.i64(1..3) };
                change.push((weight, new));
                model.add(new, weight);
            }
            random.shuffle(&mut change);
            if kind == Kind::Append && random.bool() {
                // Only the net insertions, so that some append stores stay as they are.
                let mut net = Model::default();
                change.iter().for_each(|(weight, row)| net.add(*row, *weight));
                change = net.0.into_iter().map(|(row, weight)| (weight, row)).collect();
            }
            store.apply(&zset(&change)).unwrap();
            match random.u8(0..6) {
                0 => store = reopened(&mut store, kind, index.is_some(), &mut known),
                1 => known.extend(store.image().parts.iter().map(|part| {
                    let mut out = StateWriter::new();
                    part.save(&mut out).unwrap();
                    (part.id, out.into_bytes())
                })),
                _ => {}
            }
            let expected = model.picture();
            assert_eq!(contents(&store.snapshot()), expected, "seed {seed} round {round} {kind:?}");
            assert_eq!(store.len() as i64, model.0.values().sum::<i64>(), "seed {seed}");
            if random.bool() {
                held.push((store.snapshot(), expected));
            }
            if random.u8(0..4) == 0 && index.is_none() {
                index = Some(store.create_index(vec![2, 1]).unwrap());
            }
            if let Some(index) = index {
                let (b, k) = (Some(random.i64(0..4)), *random.choice(&TEXTS).unwrap());
                let probe = batch(&[(None, k, b)]).project(&[2, 1]).unwrap();
                let mut found = model.clone();
                found.0.retain(|row, _| (row.1, row.2) == (k, b));
                assert_eq!(show(store.lookup(index, &probe).unwrap()), found.picture(), "seed {seed}");
            }
            if kind == Kind::Keyed {
                let (a, k) = (Some(random.i64(0..values)), *random.choice(&TEXTS).unwrap());
                let probe = batch(&[(a, k, None)]).project(&[1, 0]).unwrap();
                let mut found = model.clone();
                found.0.retain(|row, _| (row.0, row.1) == (a, k));
                let got = store.get(&probe).unwrap().map_or(String::new(), show);
                assert_eq!(got, found.picture(), "seed {seed}");
            }
            for (snapshot, expected) in &held {
                assert_eq!(&contents(snapshot), expected, "seed {seed} round {round}");
            }
        }
    }
}

/// Every type whose width in a row is computed, with nulls, decoded column by column.
#[test]
fn single_columns_of_all_types_decode() {
    use arrow::compute::cast;
    use arrow::datatypes::TimeUnit;
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(1), Some(100)]));
    let text: Vec<Option<String>> =
        [0, 1, 8, 9, 31, 32, 33, 64, 65, 200].iter().map(|n| Some("é".repeat(*n))).chain([None]).collect();
    let long: ArrayRef = Arc::new(StringArray::from(text));
    let from_numbers = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(20, 2),
        DataType::Decimal256(40, 2),
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Time64(TimeUnit::Microsecond),
    ];
    let from_text = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, DataType::Binary];
    let cases = from_numbers.iter().map(|t| (&numbers, t)).chain(from_text.iter().map(|t| (&long, t)));
    for (values, data_type) in cases {
        let column = if matches!(data_type, DataType::Date32) {
            cast(&cast(values, &DataType::Int32).unwrap(), data_type).unwrap()
        } else {
            cast(values, data_type).unwrap()
        };
        let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..column.len() as i64));
        let schema = Arc::new(Schema::new(vec![
            Field::new("first", data_type.clone(), true),
            Field::new("id", DataType::Int64, false),
            Field::new("last", data_type.clone(), true),
        ]));
        let columns = vec![Arc::clone(&column), Arc::clone(&id), Arc::clone(&column)];
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let mut store = Store::view(schema, vec![0, 1]).unwrap();
        store.apply(&ZSet::inserts(rows.clone())).unwrap();
        let decoded = store.snapshot().batches(Some(&[2, 1]), 100).next().unwrap().unwrap();
        assert_eq!(decoded, rows.project(&[2, 1]).unwrap(), "{data_type}");
        let nth = rows.slice(2, 1);
        assert_eq!(store.get(&nth.project(&[0, 1]).unwrap()).unwrap().unwrap(), nth, "{data_type}");
    }
}

/// Lists have no width of their own; keys then are encoded apart.
#[test]
fn lists_are_stored_too() {
    use arrow::array::ListBuilder;
    let mut lists = ListBuilder::new(arrow::array::Int64Builder::new());
    for list in [vec![1, 2], vec![], vec![3]] {
        lists.append_value(list.into_iter().map(Some));
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    let id: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("list", lists.data_type().clone(), true),
    ]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![id, lists]).unwrap();
    for key in [vec![0], vec![1], vec![1, 0]] {
        let mut store = Store::view(Arc::clone(&schema), key.clone()).unwrap();
        store.apply(&ZSet::inserts(rows.clone())).unwrap();
        let one = rows.slice(0, 1);
        assert_eq!(store.get(&one.project(&key).unwrap()).unwrap().unwrap(), one);
        store.apply(&ZSet::new(one, vec![-1])).unwrap();
        let decoded = store.snapshot().batches(Some(&[1]), 100).next().unwrap().unwrap();
        assert_eq!(decoded, rows.slice(1, 2).project(&[1]).unwrap());
    }
}
