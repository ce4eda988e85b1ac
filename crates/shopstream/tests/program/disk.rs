//! A disk that is full, and one whose fsync fails, as clients of HTTP and Postgres see them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Database, Options};
use serde_json::{Value, json};
use storage::disk::Disk;
use storage::disk::faulty::{Fault, FaultyDisk, Operation};
use tokio::net::TcpListener;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::server::{Ports, Server, number, serve_arguments, sql};

/// What HTTP answers, whatever the status.
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build();
    ureq::Agent::new_with_config(config)
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    let header = response.headers().get("retry-after");
    let retry_after = header.and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.body_mut().read_to_string().unwrap();
    Answer { status: response.status().as_u16(), retry_after, body: serde_json::from_str(&text).unwrap() }
}

fn post(http: &str, rows: &str) -> Answer {
    let request = agent().post(format!("{http}/v1/tables/t/rows"));
    answer(request.header("content-type", "application/x-ndjson").send(rows))
}

fn ready(http: &str) -> u16 {
    answer(agent().get(format!("{http}/health/ready")).call()).status
}

/// `count` rows of a kilobyte, from number `first` on.
fn rows(first: u64, count: u64) -> String {
    (first..first + count).map(|n| format!("{}\n", json!({"n": n, "text": noise(n, 1000)}))).collect()
}

/// A text that does not compress.
fn noise(seed: u64, length: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect()
}

/// The SQLSTATE that a statement fails with; `None` when it succeeds.
async fn sqlstate(pg: u16, statement: &str) -> Option<String> {
    let (client, connection) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={pg} user=root dbname=dev"), NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    match client.simple_query(statement).await {
        Ok(messages) => {
            assert!(messages.iter().any(|m| matches!(m, SimpleQueryMessage::CommandComplete(_))));
            None
        }
        Err(error) => Some(error.code().unwrap_or_else(|| panic!("{statement}: {error}")).code().to_string()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A server whose data is in a memory file system of four megabytes, in a mount namespace of its own; `None` where
/// this system does not let us have one.
fn server_on_small_disk(folder: &Path) -> Option<Server> {
    let ports = Ports::free();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_shopstream"));
    // SAFETY: asks for the user's number only.
    let root = unsafe { libc::geteuid() } == 0;
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !root {
        command.arg("--map-root-user");
    }
    let script = r#"mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@""#;
    command.args(["sh", "-c", script, "sh"]).arg(folder).arg(program);
    command.args(serve_arguments(&folder.join("data"), ports));
    Server::spawn(command, ports)
}

#[test]
fn a_full_disk_refuses_rows_keeps_answering_and_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = server_on_small_disk(folder.path()) else {
        println!("skipped: no memory file system can be mounted (unshare --mount, util-linux)");
        return;
    };
    let http = server.http.clone();
    sql(&http, "CREATE TABLE t (n BIGINT, text TEXT) APPEND ONLY");
    sql(&http, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, count(DISTINCT n) AS different FROM t");
    let first = post(&http, &rows(0, 100));
    assert_eq!(first.status, 202, "{}", first.body);
    // The file system as the server sees it.
    let filler = PathBuf::from(format!("/proc/{}/root{}/filler", server.pid(), folder.path().display()));
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 64 * 1024]).is_ok() {}
    drop(file);

    let runtime = runtime();
    for _ in 0..3 {
        let full = post(&http, &rows(1_000_000, 200));
        assert_eq!((full.status, full.body["code"].as_str()), (507, Some("disk-full")), "{}", full.body);
        assert!(full.retry_after.is_some(), "a client is told when to come back");
        let insert = format!("INSERT INTO t VALUES (-1, '{}')", noise(1, 100_000));
        let state = runtime.block_on(sqlstate(server.pg, &insert));
        assert_eq!(state.as_deref(), Some("53100"), "disk_full");
    }
    assert_eq!(ready(&http), 503, "the server says that it takes no rows");
    assert_eq!(number(&http, "SELECT n FROM v"), 100, "reads go on, and show no row that was refused");
    assert_eq!(runtime.block_on(sqlstate(server.pg, "SELECT * FROM v")), None);

    std::fs::remove_file(&filler).unwrap();
    // It finds out by itself, without a client that tries.
    let patience = Instant::now() + Duration::from_secs(5);
    while ready(&http) != 200 {
        assert!(Instant::now() < patience, "still not ready five seconds after there was space");
        std::thread::yield_now();
    }
    let again = post(&http, &rows(100, 100));
    assert_eq!(again.status, 202, "{}", again.body);
    assert_eq!(runtime.block_on(sqlstate(server.pg, "INSERT INTO t VALUES (200, 'x')")), None);
    sql(&http, "FLUSH");
    assert_eq!(number(&http, "SELECT n FROM v"), 201);
    assert_eq!(number(&http, "SELECT different FROM v"), 201);
    assert_eq!(server.stop(), Some(0));
}

/// HTTP and Postgres over a disk that can be told to fail, within this process.
struct InProcess {
    database: Arc<Database>,
    http: String,
    pg: u16,
}

impl InProcess {
    fn start(disk: &FaultyDisk, runtime: &tokio::runtime::Runtime) -> InProcess {
        let options = Options { workers: 2, memory_bytes: 256 << 20, ..Options::new("/data") };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let database = Database::open_on(disk, options, None).unwrap();
        let (http, pg) = runtime.block_on(async {
            let bind = || TcpListener::bind("127.0.0.1:0");
            (bind().await.unwrap(), bind().await.unwrap())
        });
        let address = format!("http://{}", http.local_addr().unwrap());
        let port = pg.local_addr().unwrap().port();
        let forever = std::future::pending::<()>;
        runtime.spawn(serve::http::serve(http, Arc::clone(&database), Default::default(), forever()));
        runtime.spawn(serve::pg::serve(pg, Arc::clone(&database), Default::default(), forever()));
        InProcess { database, http: address, pg: port }
    }
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_and_reads_go_on() {
    for nth in [1, 2] {
        let disk = FaultyDisk::new(7);
        let runtime = runtime();
        let server = InProcess::start(&disk, &runtime);
        sql(&server.http, "CREATE TABLE t (n BIGINT, text TEXT) APPEND ONLY");
        sql(&server.http, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t");
        assert_eq!(post(&server.http, &rows(0, 10)).status, 202);
        disk.fail(Operation::Sync, nth, Fault::Io);
        let mut acknowledged = 10;
        for attempt in 1..4 {
            let answer = post(&server.http, &rows(attempt * 10, 10));
            if attempt < nth {
                assert_eq!(answer.status, 202, "{}", answer.body);
                acknowledged += 10;
                continue;
            }
            assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("writes-refused")));
            assert!(answer.body["detail"].as_str().unwrap().contains("/data/log/"), "{}", answer.body);
        }
        let syncs = disk.count(Operation::Sync);
        for statement in ["INSERT INTO t VALUES (-1, 'x')", "CREATE TABLE other (n BIGINT)"] {
            let state = runtime.block_on(sqlstate(server.pg, statement));
            assert_eq!(state.as_deref(), Some("58030"), "io_error for {statement}");
        }
        // Not even when nothing happens for a while: a second sync could report success for bytes that are gone.
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            assert_eq!(ready(&server.http), 503);
            std::thread::yield_now();
        }
        assert_eq!(disk.count(Operation::Sync), syncs, "the file is not synced again");
        assert_eq!(number(&server.http, "SELECT n FROM v"), acknowledged, "reads go on");
        assert_eq!(runtime.block_on(sqlstate(server.pg, "SELECT * FROM v")), None);

        server.database.shutdown();
        runtime.shutdown_timeout(Duration::from_secs(5));
        disk.crash();
        let runtime = self::runtime();
        let server = InProcess::start(&disk, &runtime);
        // What was refused may be there or not; what was acknowledged is.
        let rows = number(&server.http, "SELECT n FROM v");
        assert!(
            rows == acknowledged || rows == acknowledged + 10,
            "{acknowledged} acknowledged, {rows} there"
        );
        assert_eq!(post(&server.http, &self::rows(1000, 1)).status, 202, "writing goes on after a restart");
        server.database.shutdown();
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}
