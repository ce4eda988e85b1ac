//! Nexmark q0 to q22 (bench/nexmark) equal their batch answers, whenever their views were made.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use connectors::source::nexmark::{Events, NexmarkOptions, NexmarkTable};
use engine::IngestMeta;
use fastrand::Rng;

use super::harness::Harness;
use super::queries::{Pending, Queries, difference, file};

/// What the engine can't maintain.
const PENDING: &[Pending] = &[];

const EVENTS: u64 = 24_000;

/// Events of all three kinds: some 24 seconds of an auction house, a little out of order.
struct Feed {
    tables: Vec<(String, Events)>,
    position: u64,
}

impl Feed {
    fn new() -> Feed {
        let tables = NexmarkTable::ALL.map(|table| {
            let options = NexmarkOptions {
                table,
                event_num: Some(EVENTS),
                event_rate: 1000,
                out_of_order_group_size: 100,
                in_flight_auctions: 30,
                active_people: 50,
                ..NexmarkOptions::default()
            };
            (table.name().to_lowercase(), Events::new(options))
        });
        Feed { tables: tables.into(), position: 0 }
    }

    /// The next events, each kind as a record of its own; false when there are no more.
    fn ingest(&mut self, db: &Harness, events: u64) -> bool {
        let until = (self.position + events).min(EVENTS);
        for (table, source) in &self.tables {
            let (numbers, _) = source.numbers(self.position, until, (until - self.position) as usize);
            if numbers.is_empty() {
                continue;
            }
            let columns = source.options().table.columns();
            let schema =
                Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>());
            let arrays = columns.iter().map(|(name, _)| source.column(name, &numbers, 0)).collect();
            let rows = RecordBatch::try_new(Arc::new(schema), arrays).unwrap();
            if table == "bid" {
                let p_time: ArrayRef =
                    Arc::new(TimestampMicrosecondArray::from(vec![
                        source.time_us(self.position);
                        rows.num_rows()
                    ]));
                let bidder: ArrayRef = Arc::clone(rows.column(1));
                assert!(bidder.as_any().is::<Int64Array>());
                let arriving = Schema::new(vec![
                    Field::new("bidder", DataType::Int64, true),
                    Field::new("p_time", DataType::Timestamp(TimeUnit::Microsecond, None), true),
                ]);
                let arriving = RecordBatch::try_new(Arc::new(arriving), vec![bidder, p_time]).unwrap();
                db.ingest("arriving_bid", arriving, IngestMeta::default()).unwrap();
            }
            let receipt = db.ingest(table, rows, IngestMeta::default()).unwrap();
            assert_eq!(receipt.rejected, vec![], "{table}");
        }
        self.position = until;
        until < EVENTS
    }
}

/// The side input of q13 does not change here, so that the join by time is a join.
fn batch(query: &str) -> String {
    query.replace(" FOR SYSTEM_TIME AS OF PROCTIME()", "")
}

fn run(workers: usize, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut queries = Queries::read("nexmark", 0..23, PENDING);
    let mut db = Harness::new(workers);
    db.run(&file("nexmark", "tables.sql"));
    db.run("INSERT INTO side_input SELECT x, 'value ' || x FROM generate_series(0, 9999) AS g(x)");
    let mut feed = Feed::new();
    queries.create(&db, "before");
    while feed.position < EVENTS / 2 {
        feed.ingest(&db, rng.u64(1..3000));
    }
    queries.create(&db, "amid");
    queries.check(&db, "in the middle", batch);
    feed.ingest(&db, rng.u64(1..3000));
    db.restart();
    while feed.ingest(&db, rng.u64(1..3000)) {}
    queries.create(&db, "after");
    let empty = queries.check(&db, "at the end", batch);
    assert_eq!(empty, Vec::<String>::new(), "each query has something to answer");
    db.restart();
    queries.check(&db, "after a restart", batch);
    println!("nexmark: {} of 23 queries at {workers} workers, seed {seed}", queries.supported());
}

#[test]
fn queries_equal_their_batch_answers() {
    run(1, fastrand::u64(..));
}

#[test]
fn queries_equal_their_batch_answers_at_three_workers() {
    run(3, fastrand::u64(..));
}

/// Windows that are emitted once, when they close: the same rows as far as windows have closed.
#[test]
fn closed_windows_equal_the_batch_answer() {
    for workers in [1, 3] {
        let mut db = Harness::new(workers);
        db.run(&file("nexmark", "tables.sql"));
        // Query, and how to tell closed windows: the last event is at 23.999, the last person and the last auction
        // a little earlier, and watermarks are four seconds behind; q12 has none to wait for. A row at the very end
        // of a session would still prolong it.
        let views = [
            ("q5", "window_end <= TIMESTAMP '2015-07-15 00:00:19'"),
            ("q8", "window_start < TIMESTAMP '2015-07-15 00:00:05'"),
            ("q11", "window_end < TIMESTAMP '2015-07-15 00:00:19.999'"),
            ("q12", "window_end <= TIMESTAMP '2015-07-15 00:00:20'"),
        ];
        for (name, _) in views {
            let query = file("nexmark", &format!("{name}.sql"));
            db.run(&format!("CREATE MATERIALIZED VIEW {name}_closed AS {query} EMIT ON WINDOW CLOSE"));
        }
        let mut feed = Feed::new();
        let mut rounds = 0;
        while feed.ingest(&db, 1700) {
            rounds += 1;
            if rounds == 7 {
                db.restart();
            }
        }
        db.run("FLUSH");
        for (name, closed) in views {
            let query = file("nexmark", &format!("{name}.sql"));
            let wanted = db.run(&format!("SELECT * FROM ({query}) AS q WHERE {closed}"));
            assert!(!wanted.is_empty());
            let rows = db.run(&format!("SELECT * FROM {name}_closed"));
            let different = difference(&rows, &wanted, &format!("{name} at {workers} workers"));
            assert!(different.is_none(), "{}", different.unwrap_or_default());
        }
    }
}
