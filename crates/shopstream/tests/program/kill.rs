//! kill -9 under load, by clients that retry: no acknowledged row is lost, none is counted twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::server::{Server, cell, number, sql};

/// Rounds of kill and restart; `SHOPSTREAM_KILL_ROUNDS` asks for more.
const ROUNDS: usize = 100;
const CLIENTS: u64 = 4;

/// Sends requests of ten rows, each until it is acknowledged; the number of rows acknowledged.
fn client(id: u64, address: &parking::Address, stop: &AtomicBool, sent: &AtomicU64) {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
    let agent = ureq::Agent::new_with_config(config);
    let mut request = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let rows: String = (0..10)
            .map(|i| {
                format!(
                    "{{\"client\": {id}, \"n\": {}, \"event_id\": \"{id}-{}\"}}\n",
                    request * 10 + i,
                    request * 10 + i
                )
            })
            .collect();
        // Every other request relies on event ids alone.
        let key = request.is_multiple_of(2).then(|| format!("client-{id}-request-{request}"));
        loop {
            let mut post = agent
                .post(format!("{}/v1/tables/t/rows", address.get()))
                .header("content-type", "application/x-ndjson");
            if let Some(key) = &key {
                post = post.header("idempotency-key", key);
            }
            if post.send(&rows).is_ok_and(|r| r.status() == 202) {
                break;
            }
            std::thread::yield_now();
        }
        sent.fetch_add(10, Ordering::SeqCst);
        request += 1;
    }
}

mod parking {
    use std::sync::Mutex;

    /// Where the server is now; it has other ports after a restart.
    pub struct Address(Mutex<String>);

    impl Address {
        pub fn new(address: &str) -> Address {
            Address(Mutex::new(address.into()))
        }
        pub fn get(&self) -> String {
            self.0.lock().unwrap().clone()
        }
        pub fn set(&self, address: &str) {
            *self.0.lock().unwrap() = address.into();
        }
    }
}

#[test]
fn no_acknowledged_row_is_lost_and_none_counts_twice() {
    let rounds = std::env::var("SHOPSTREAM_KILL_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::tempdir().unwrap();
    // The kills come in checkpoints, too.
    let start = || Server::start_with(folder.path(), &["--checkpoint-interval", "30ms"]);
    let mut server = start();
    sql(
        &server.http,
        "CREATE TABLE t (client BIGINT, n BIGINT, event_id TEXT) APPEND ONLY WITH (dedup_key = 'event_id', dedup_window = '1 day')",
    );
    sql(
        &server.http,
        "CREATE MATERIALIZED VIEW per_client AS SELECT client, count(*) AS n, count(DISTINCT n) AS different FROM t GROUP BY client",
    );
    let address = Arc::new(parking::Address::new(&server.http));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let (address, stop, sent) = (Arc::clone(&address), Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || client(id, &address, &stop, &sent))
        })
        .collect();
    for round in 0..rounds {
        let before = sent.load(Ordering::SeqCst);
        // The kill comes while requests are under way, after a different amount of work each time.
        let enough = before + 20 + fastrand::u64(..300);
        let patience = Instant::now() + Duration::from_secs(20);
        while sent.load(Ordering::SeqCst) < enough {
            assert!(Instant::now() < patience, "round {round}: nothing is acknowledged any more");
            std::thread::yield_now();
        }
        server.kill();
        let acknowledged = sent.load(Ordering::SeqCst);
        server = start();
        address.set(&server.http);
        sql(&server.http, "FLUSH");
        // One statement sees one tick; the clients go on meanwhile.
        let answer = sql(
            &server.http,
            "SELECT CAST(coalesce(sum(n), 0) AS BIGINT) AS n, CAST(coalesce(sum(different), 0) AS BIGINT) AS different FROM per_client",
        );
        let (rows, different) = (cell(&answer, 0), cell(&answer, 1));
        assert!(rows >= acknowledged, "round {round}: {acknowledged} acknowledged, {rows} there");
        assert_eq!(rows, different, "round {round}: a row counts twice");
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|c| c.join().unwrap());
    sql(&server.http, "FLUSH");
    let total = sent.load(Ordering::SeqCst);
    assert_eq!(number(&server.http, "SELECT count(*) FROM t"), total, "in the end exactly what was sent");
    assert_eq!(number(&server.http, "SELECT CAST(sum(n) AS BIGINT) FROM per_client"), total);
    println!("{rounds} kills, {total} rows acknowledged, all there once");
    assert_eq!(server.stop(), Some(0));
}
