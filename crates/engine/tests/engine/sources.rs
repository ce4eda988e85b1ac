//! Connectors: their rows arrive exactly once, whatever stops in between, and their troubles are seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use connectors::source::Registry;
use dataflow::{Connectors, DecodedRows, Poll, Source, SourceError, SourceRows, SourceSpec};

use super::harness::Harness;

const BID: &str = "CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, date_time TIMESTAMP, seen TIMESTAMPTZ DEFAULT now(), \
     WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') WITH (connector = 'nexmark', nexmark.table.type = 'Bid', \
     nexmark.event.num = 50000, nexmark.max.chunk.size = 500, nexmark.min.event.gap.in.ns = 0, max_ahead = '1 day') FORMAT NATIVE ENCODE NATIVE";

/// Until a condition holds; the engine works in other threads.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

fn state(db: &Harness, source: &str) -> &'static str {
    db.database().status().sources.get(source).map_or("none", |s| s.state.word())
}

#[test]
fn a_source_goes_on_where_its_log_ends() {
    let mut db = Harness::new(2);
    db.database().attach_connectors(Arc::new(Registry)).unwrap();
    db.run(BID);
    db.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(price) AS cents, count(seen) AS seen FROM bid");
    // Stopped in the middle, again and again.
    let mut restarts = 0;
    while state(&db, "bid") != "finished" {
        let before = db.database().status().tables["bid"].rows_accepted;
        until("progress", || {
            let status = db.database().status();
            status.tables["bid"].rows_accepted > before || state(&db, "bid") == "finished"
        });
        if restarts < 5 {
            restarts += 1;
            db.restart();
            db.database().attach_connectors(Arc::new(Registry)).unwrap();
        }
    }
    assert_eq!(restarts, 5);
    db.run("FLUSH");
    let interrupted = db.run("SELECT * FROM total");
    assert!(interrupted[0].starts_with("46000 | "), "{interrupted:?}");
    assert!(
        interrupted[0].ends_with(" | 46000"),
        "DEFAULT fills what the source leaves out: {interrupted:?}"
    );
    let rows = db.run("SELECT auction, bidder, price, date_time FROM bid");

    let whole = Harness::new(1);
    whole.database().attach_connectors(Arc::new(Registry)).unwrap();
    whole.run(BID);
    until("the end", || state(&whole, "bid") == "finished");
    whole.run("FLUSH");
    assert!(
        rows == whole.run("SELECT auction, bidder, price, date_time FROM bid"),
        "the same rows as without restarts"
    );
    assert_eq!(whole.run("SHOW SOURCES"), ["bid | nexmark | finished | 46000 | 50000 | NULL"]);
}

#[test]
fn definitions_of_sources_are_checked() {
    let mut db = Harness::new(1);
    assert_eq!(db.error(BID).state.code(), "0A000", "without connectors");
    db.database().attach_connectors(Arc::new(Registry)).unwrap();
    let error = db.error("CREATE SOURCE s (a INT) WITH (connector = 'nexmrak')");
    assert_eq!((error.state.code(), error.position), ("22023", Some(31)));
    let error =
        db.error("CREATE SOURCE s (price INT) WITH (connector = 'nexmark', nexmark.table.type = 'Bids')");
    assert_eq!((error.state.code(), error.position), ("22023", Some(58)));
    let error =
        db.error("CREATE SOURCE s (prize INT) WITH (connector = 'nexmark', nexmark.table.type = 'Bid')");
    assert!(error.message.contains("no column \"prize\"") && error.hint.unwrap().contains("price"));
    assert_eq!(db.error("CREATE SOURCE s (a INT)").state.code(), "42P17");
    assert_eq!(db.error("CREATE TABLE s (a INT) FORMAT PLAIN ENCODE JSON").state.code(), "42P17");
    assert!(db.run("SHOW SOURCES").is_empty(), "nothing was made");

    assert_eq!(db.run(BID), ["CREATE SOURCE"]);
    for write in ["INSERT INTO bid (price) VALUES (1)", "DELETE FROM bid", "UPDATE bid SET price = 1"] {
        assert_eq!(db.error(write).state.code(), "42809", "{write}");
    }
    assert!(db.error("DROP TABLE bid").hint.unwrap().contains("DROP SOURCE"));
    assert_eq!(db.run("DROP SOURCE bid"), ["DROP SOURCE"]);
    assert_eq!(state(&db, "bid"), "none");
    db.restart();
    db.database().attach_connectors(Arc::new(Registry)).unwrap();
    assert!(db.run("SHOW SOURCES").is_empty());
    // Made anew, it begins anew.
    db.run(BID);
    until("the end", || state(&db, "bid") == "finished");
    db.run("FLUSH");
    assert_eq!(db.run("SELECT count(*) FROM bid"), ["46000"]);
}

#[test]
fn a_table_with_a_connector_takes_rows_from_others_too() {
    let db = Harness::new(1);
    db.database().attach_connectors(Arc::new(Registry)).unwrap();
    db.run("CREATE TABLE person (id BIGINT PRIMARY KEY, city TEXT) WITH (connector = 'nexmark', nexmark.table.type = 'Person', nexmark.event.num = 100, nexmark.min.event.gap.in.ns = 0)");
    until("the end", || state(&db, "person") == "finished");
    db.run("INSERT INTO person VALUES (1, 'Berlin'), (1000, 'Bonn')");
    db.run("DELETE FROM person WHERE id = 1001");
    assert_eq!(db.run("SELECT * FROM person"), ["1 | Berlin", "1000 | Bonn"]);
}

/// Numbers from 1 to 1000 in batches of 10; troublesome as its options say.
struct Troubled {
    opened: AtomicU64,
}

struct Numbers {
    next: i64,
    fails_at: i64,
    panics: bool,
}

impl Connectors for Troubled {
    fn check(&self, _: &SourceSpec) -> Result<(), SourceError> {
        Ok(())
    }

    fn open(&self, spec: &SourceSpec, position: Option<&str>) -> Result<Box<dyn Source>, SourceError> {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed) as i64;
        let next = position.map_or(1, |p| p.parse().unwrap());
        match spec.connector.as_str() {
            "closed" => Err(SourceError::permanent("the shop is closed").with_hint("come back tomorrow")),
            // Fails three times on its way, in the middle of something that was not handed on.
            "flaky" => {
                let fails_at = if opened < 3 { next + 150 } else { i64::MAX };
                Ok(Box::new(Numbers { next, fails_at, panics: false }))
            }
            _ => Ok(Box::new(Numbers { next, fails_at: 500, panics: true })),
        }
    }
}

impl Source for Numbers {
    fn poll(&mut self) -> Result<Poll, SourceError> {
        if self.next > 1000 {
            return Ok(Poll::End);
        }
        if self.next >= self.fails_at {
            assert!(!self.panics, "a mistake of the connector");
            return Err(SourceError::transient("the line went dead"));
        }
        let numbers: Vec<i64> = (self.next..self.next + 10).collect();
        self.next += 10;
        let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
            "n",
            arrow::datatypes::DataType::Int64,
            true,
        )]);
        let batch =
            RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(numbers))]).unwrap();
        let rows = DecodedRows {
            batch,
            absent: vec![None],
            row_numbers: (0..10).collect(),
            raw_ranges: vec![],
            rejected: vec![],
        };
        Ok(Poll::Rows(SourceRows { rows, body: vec![], position: self.next.to_string() }))
    }
}

#[test]
fn a_source_that_fails_is_tried_again_from_its_last_durable_row() {
    let db = Harness::new(1);
    let connectors = Arc::new(Troubled { opened: AtomicU64::new(0) });
    db.database().attach_connectors(Arc::<Troubled>::clone(&connectors)).unwrap();
    db.run("CREATE SOURCE numbers (n BIGINT, CHECK (n <> 7)) WITH (connector = 'flaky')");
    until("the end", || state(&db, "numbers") == "finished");
    assert_eq!(connectors.opened.load(Ordering::Relaxed), 4);
    db.run("FLUSH");
    assert_eq!(db.run("SELECT count(*), sum(n), count(DISTINCT n) FROM numbers"), ["999 | 500493 | 999"]);
    assert_eq!(db.run("SELECT relation, reason, origin FROM rejected_rows"), ["numbers | check | flaky"]);
    assert_eq!(db.run("SHOW SOURCES"), ["numbers | flaky | finished | 999 | 1001 | the line went dead"]);
}

#[test]
fn a_source_that_cannot_go_on_says_why() {
    let db = Harness::new(1);
    db.database().attach_connectors(Arc::new(Troubled { opened: AtomicU64::new(0) })).unwrap();
    db.run("CREATE SOURCE shut (n BIGINT) WITH (connector = 'closed')");
    db.run("CREATE SOURCE broken (n BIGINT) WITH (connector = 'mistaken')");
    until("failures", || state(&db, "shut") == "failed" && state(&db, "broken") == "failed");
    assert_eq!(
        db.run("SHOW SOURCES"),
        [
            "broken | mistaken | failed | 500 | 501 | the connector panicked",
            "shut | closed | failed | 0 | NULL | the shop is closed (hint: come back tomorrow)"
        ]
    );
    db.run("FLUSH");
    assert_eq!(db.run("SELECT count(*) FROM broken"), ["500"]);
    db.run("DROP SOURCE shut; DROP SOURCE broken");
}
