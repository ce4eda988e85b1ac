//! The generator keeps the benchmark's rules, and a position means what it says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use dataflow::{Connectors, Poll, SourceSpec};

use super::*;
use crate::source::Registry;

fn spec(table: NexmarkTable, options: &[(&str, &str)]) -> SourceSpec {
    let fields: Vec<Field> = table.columns().into_iter().map(|(n, t)| Field::new(n, t, true)).collect();
    let mut all: BTreeMap<String, String> =
        options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    all.insert("nexmark.table.type".into(), table.name().into());
    all.entry("nexmark.min.event.gap.in.ns".into()).or_insert("0".into());
    SourceSpec {
        relation: "t".into(),
        connector: "nexmark".into(),
        options: all,
        format: None,
        optional: vec![false; fields.len()],
        schema: Arc::new(Schema::new(fields)),
    }
}

/// All rows from a position on, and the positions behind each batch.
fn read(spec: &SourceSpec, position: Option<&str>) -> (RecordBatch, Vec<(String, usize)>) {
    let mut source = Registry.open(spec, position).unwrap();
    let (mut batches, mut positions, mut rows) = (Vec::new(), Vec::new(), 0);
    loop {
        match source.poll().unwrap() {
            Poll::Rows(more) => {
                rows += more.rows.batch.num_rows();
                positions.push((more.position, rows));
                batches.push(more.rows.batch);
            }
            Poll::Wait(_) => {}
            Poll::End => return (concat_batches(&spec.schema, &batches).unwrap(), positions),
        }
    }
}

fn ints(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Vec<&'a str> {
    batch.column_by_name(name).unwrap().as_string::<i32>().iter().map(Option::unwrap).collect()
}

#[test]
fn proportions_ids_and_order_are_the_benchmarks() {
    let [people, auctions, bids] =
        NexmarkTable::ALL.map(|table| read(&spec(table, &[("nexmark.event.num", "50000")]), None).0);
    assert_eq!([&people, &auctions, &bids].map(RecordBatch::num_rows), [1000, 3000, 46_000]);
    assert_eq!(ints(&people, "id"), (1000..2000).collect::<Vec<_>>());
    assert_eq!(ints(&auctions, "id"), (1000..4000).collect::<Vec<_>>());
    let times = bids.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>().values();
    assert!(times.is_sorted(), "without out-of-order groups, time goes forward");
    assert_eq!(times[0], 1_436_918_400_000_000, "event 4 happens in the first millisecond");
    assert_eq!(*times.last().unwrap(), 1_436_918_404_999_000, "ten thousand events a second");
}

#[test]
fn bids_prefer_hot_auctions_and_recent_ones() {
    let (bids, _) = read(&spec(NexmarkTable::Bid, &[("nexmark.event.num", "100000")]), None);
    let auctions = ints(&bids, "auction");
    let hot = auctions.iter().filter(|a| (**a - 1000) % 100 == 0).count() as f64 / auctions.len() as f64;
    assert!((0.48..0.53).contains(&hot), "half of the bids are on hot auctions, here {hot}");
    let bidders = ints(&bids, "bidder");
    let hot = bidders.iter().filter(|b| (**b - 1000) % 100 == 1).count() as f64 / bidders.len() as f64;
    assert!((0.74..0.78).contains(&hot), "three of four bids are by hot bidders, here {hot}");
    let prices = ints(&bids, "price");
    assert!(prices.iter().all(|p| (100..=100_000_000).contains(p)));
    let cheap = prices.iter().filter(|p| **p < 10_000).count() as f64 / prices.len() as f64;
    assert!((0.32..0.35).contains(&cheap), "a third of the prices is below 100.00, here {cheap}");
    // Bids look at auctions that exist or are about to.
    for (row, auction) in auctions.iter().enumerate() {
        let newest = row as i64 / 46 * 3 + 2;
        assert!((newest - 110..=newest + 10).contains(&(auction - 1000)), "bid {row} is on {auction}");
    }
}

#[test]
fn texts_have_the_shapes_that_queries_look_for() {
    let (bids, _) = read(&spec(NexmarkTable::Bid, &[("nexmark.event.num", "20000")]), None);
    let channels = texts(&bids, "channel");
    for hot in ["Google", "Facebook", "Baidu", "Apple"] {
        assert!(channels.contains(&hot));
    }
    let urls = texts(&bids, "url");
    assert!(urls.iter().all(|u| u.starts_with("https://www.nexmark.com/") && u.split('/').count() == 7));
    let by_channel: HashMap<&str, &str> = channels.iter().copied().zip(urls.iter().copied()).collect();
    assert!(channels.iter().zip(&urls).all(|(c, u)| by_channel[c] == *u), "a channel has one url");
    let with_id = urls.iter().filter(|u| u.contains("&channel_id=")).count() as f64 / urls.len() as f64;
    assert!((0.40..0.50).contains(&with_id), "nine of ten channels that are not hot say their id: {with_id}");
    let mean = texts(&bids, "extra").iter().map(|e| e.len()).sum::<usize>() as f64 / bids.num_rows() as f64;
    assert!((66.0..70.0).contains(&mean), "bids are filled up to 100 bytes: {mean}");
    let (people, _) = read(&spec(NexmarkTable::Person, &[("nexmark.event.num", "20000")]), None);
    assert_eq!(texts(&people, "state").into_iter().collect::<BTreeSet<_>>().len(), 6);
    assert!(texts(&people, "credit_card").iter().all(|c| c.len() == 19));
    let (auctions, _) = read(&spec(NexmarkTable::Auction, &[("nexmark.event.num", "20000")]), None);
    let starts = auctions.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>();
    let ends = auctions.column_by_name("expires").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert!(starts.values().iter().zip(ends.values()).all(|(start, end)| start < end));
}

#[test]
fn a_position_gives_exactly_the_rows_after_it() {
    for table in NexmarkTable::ALL {
        let options = [
            ("nexmark.event.num", "7001"),
            ("nexmark.max.chunk.size", "97"),
            ("nexmark.out.of.order.group.size", "100"),
        ];
        let spec = spec(table, &options);
        let (whole, positions) = read(&spec, None);
        assert!(positions.len() > 1);
        for (position, rows) in positions {
            let mut source = Registry.open(&spec, Some(&position)).unwrap();
            if rows == whole.num_rows() {
                assert!(matches!(source.poll().unwrap(), Poll::End));
                continue;
            }
            let (rest, _) = read(&spec, Some(&position));
            assert_eq!(rest, whole.slice(rows, whole.num_rows() - rows), "{table:?} from {position}");
        }
    }
}

#[test]
fn out_of_order_groups_hold_the_same_rows_in_another_order() {
    let sorted = |batch: &RecordBatch| {
        let mut rows: Vec<(i64, i64)> = ints(batch, "price").into_iter().zip(ints(batch, "bidder")).collect();
        rows.sort();
        rows
    };
    let (ordered, _) = read(&spec(NexmarkTable::Bid, &[("nexmark.event.num", "19060")]), None);
    for group in ["20", "953"] {
        let options = [("nexmark.event.num", "19060"), ("nexmark.out.of.order.group.size", group)];
        let (shuffled, _) = read(&spec(NexmarkTable::Bid, &options), None);
        assert_eq!(sorted(&shuffled), sorted(&ordered), "group {group}");
        let times = shuffled.column_by_name("date_time").unwrap();
        let sorted = times.as_primitive::<TimestampMicrosecondType>().values().is_sorted();
        assert_eq!(sorted, group == "953", "group {group}: only the multiple of 953 has no shuffle");
    }
}

#[test]
fn columns_can_be_left_out_and_have_other_types() {
    let mut spec = spec(NexmarkTable::Bid, &[("nexmark.event.num", "500")]);
    spec.schema = Arc::new(Schema::new(vec![
        Field::new("date_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("price", DataType::Decimal128(18, 2), true),
        Field::new("auction", DataType::Int32, true),
    ]));
    let (rows, _) = read(&spec, None);
    assert_eq!((rows.num_rows(), rows.schema()), (460, Arc::clone(&spec.schema)));
    assert_eq!(rows.column(2).null_count(), 0);
    // A column that the generator doesn't know is an error, unless it has a DEFAULT.
    let fields =
        spec.schema.fields().iter().cloned().chain([Arc::new(Field::new("seen", DataType::Int64, true))]);
    spec.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    spec.optional = vec![false; 4];
    assert!(Registry.check(&spec).unwrap_err().message.contains("has no column \"seen\""));
    spec.optional[3] = true;
    let Poll::Rows(more) = Registry.open(&spec, None).unwrap().poll().unwrap() else { panic!("rows") };
    let absent: Vec<bool> = more.rows.absent.iter().map(|a| a.as_ref().is_some_and(|a| a.value(0))).collect();
    assert_eq!(absent, [false, false, false, true]);
}

#[test]
fn mistakes_are_named() {
    let error = |table: NexmarkTable, option: (&str, &str)| {
        Registry.check(&spec(table, &[option])).unwrap_err().to_string()
    };
    let text = error(NexmarkTable::Bid, ("nexmark.event.nmu", "5"));
    assert!(
        text.starts_with("unknown option \"nexmark.event.nmu\" of connector \"nexmark\" (hint:"),
        "{text}"
    );
    let text = error(NexmarkTable::Bid, ("nexmark.hot.bidder.ratio", "0"));
    assert!(text.contains("takes a whole number from 1"), "{text}");
    let mut wrong = spec(NexmarkTable::Person, &[]);
    wrong.schema = Arc::new(Schema::new(vec![Field::new("prize", DataType::Int64, true)]));
    wrong.optional = vec![false];
    assert!(Registry.check(&wrong).unwrap_err().message.contains("has no column \"prize\""));
    wrong.options.insert("nexmark.table.type".into(), "Bids".into());
    assert!(Registry.check(&wrong).unwrap_err().message.contains("no Nexmark table 'Bids'"));
    wrong.connector = "kafkaesque".into();
    assert_eq!(Registry.check(&wrong).unwrap_err().option.as_deref(), Some("connector"));
    assert!(Registry.open(&spec(NexmarkTable::Bid, &[]), Some("soon")).is_err());
}

#[test]
fn a_paced_source_is_not_ahead_of_its_time() {
    let options = [("nexmark.min.event.gap.in.ns", "1000000000000"), ("nexmark.event.num", "100")];
    let mut source = Registry.open(&spec(NexmarkTable::Person, &options), None).unwrap();
    match source.poll().unwrap() {
        Poll::Wait(time) => assert!(time > Duration::ZERO && time <= Duration::from_millis(100)),
        other => panic!("no event is due for a quarter of an hour, got {other:?}"),
    }
}
