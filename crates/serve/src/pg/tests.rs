//! A server in the test's own process, and clients: tokio-postgres for what drivers do, plain sockets for
//! what they never do. What other clients see is tested in tests/e2e.

use std::net::SocketAddr;

use bytes::BytesMut;
use engine::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::*;

#[test]
fn a_cancel_request_needs_the_secret_and_hits_only_the_running_statement() {
    let backends = Backends::default();
    let backend = backends.open().unwrap();
    backends.cancel(backend.process, backend.secret.wrapping_add(1));
    assert!(!backend.cancelled.load(Ordering::Acquire));
    backends.cancel(backend.process, backend.secret);
    assert!(backend.cancelled.load(Ordering::Acquire));
    backend.begin_statement();
    assert!(!backend.cancelled.load(Ordering::Acquire));
    backends.close(&backend);
    backends.cancel(backend.process, backend.secret);
    assert!(!backend.cancelled.load(Ordering::Acquire), "a closed connection is not found");
}

#[test]
fn the_password_is_not_printed() {
    let config = PgConfig { password: Some("hunter2".to_string()), ..PgConfig::default() };
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// Runs for minutes when nobody stops it.
const LONG_QUERY: &str = "SELECT sum(value % 7) FROM generate_series(1, 400000000000) g(value)";

struct TestServer {
    address: SocketAddr,
    db: Arc<Database>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
    _data: tempfile::TempDir,
}

impl TestServer {
    async fn start(config: PgConfig) -> TestServer {
        let data = tempfile::tempdir().unwrap();
        let options = Options { workers: 1, memory_bytes: 64 << 20, ..Options::new(data.path()) };
        let db = tokio::task::spawn_blocking(move || Database::open(options)).await.unwrap().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // Also when the test drops its server.
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(listener, Arc::clone(&db), config, shutdown));
        TestServer { address, db, stop: Some(stop), serving, _data: data }
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("root").dbname("dev");
        config
    }

    async fn connect(&self) -> Client {
        connect(&self.config()).await.unwrap()
    }

    async fn end(mut self) {
        drop(self.stop.take());
        self.serving.await.unwrap().unwrap();
        let db = self.db;
        tokio::task::spawn_blocking(move || db.shutdown()).await.unwrap();
    }
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn code_of(error: &tokio_postgres::Error) -> String {
    error.code().unwrap_or_else(|| panic!("no SQLSTATE: {error}")).code().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_checked() {
    let server =
        TestServer::start(PgConfig { password: Some("s3cret pässword".to_string()), ..PgConfig::default() })
            .await;
    let client = connect(server.config().password("s3cret pässword")).await.unwrap();
    assert_eq!(client.query_one("SELECT 1::bigint", &[]).await.unwrap().get::<_, i64>(0), 1);

    for (user, password) in [("root", "wrong"), ("root", ""), ("eve", "s3cret pässword")] {
        let error = connect(server.config().user(user).password(password)).await.err().unwrap();
        assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD), "{user}: {error}");
    }
    // A client without a password does not get in.
    assert!(connect(&server.config()).await.is_err());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_addresses_are_not_listened_on_without_a_password() {
    let server = TestServer::start(PgConfig::default()).await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = serve(listener, Arc::clone(&server.db), PgConfig::default(), std::future::pending())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("without a password"), "{error}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_prepares_binds_and_reads_binary() {
    let server = TestServer::start(PgConfig::default()).await;
    let client = server.connect().await;
    let statement = client
        .prepare_typed(
            "SELECT $1 + 1 AS n, $2 || '!' AS t, $3 AS f",
            &[
                tokio_postgres::types::Type::INT8,
                tokio_postgres::types::Type::TEXT,
                tokio_postgres::types::Type::FLOAT8,
            ],
        )
        .await
        .unwrap();
    for n in [1i64, -5] {
        let row = client.query_one(&statement, &[&n, &"a", &0.5f64]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>("n"), row.get::<_, &str>("t"), row.get::<_, f64>("f")),
            (n + 1, "a!", 0.5)
        );
    }
    let tags: Vec<_> = client.simple_query("SELECT 1; SELECT 2, NULL").await.unwrap();
    let texts: Vec<Option<&str>> = tags
        .iter()
        .filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
        .flat_map(|row| (0..row.len()).map(|i| row.get(i)))
        .collect();
    assert_eq!(texts, [Some("1"), Some("2"), None]);
    let error = client.query("SELECT * FROM no_such_table", &[]).await.unwrap_err();
    assert_eq!(code_of(&error), "42P01");
    drop((statement, client));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_and_cancels_stop_a_query_and_spare_the_connection() {
    let server = TestServer::start(PgConfig::default()).await;
    let client = server.connect().await;
    client.batch_execute("SET statement_timeout = 200").await.unwrap();
    let begun = std::time::Instant::now();
    let error = client.simple_query(LONG_QUERY).await.unwrap_err();
    assert_eq!(code_of(&error), "57014");
    assert!(error.as_db_error().unwrap().message().contains("timeout"));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    client.batch_execute("SET statement_timeout = 0").await.unwrap();
    let cancel = client.cancel_token();
    let (done, cancelled) = tokio::join!(client.simple_query(LONG_QUERY), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel_query(NoTls).await
    });
    cancelled.unwrap();
    assert_eq!(code_of(&done.unwrap_err()), "57014");
    assert_eq!(client.query_one("SELECT 2::bigint", &[]).await.unwrap().get::<_, i64>(0), 2);
    drop(client);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_server_ends_queries_and_connections_with_a_reason() {
    let server = TestServer::start(PgConfig::default()).await;
    let busy = server.connect().await;
    let idle = server.connect().await;
    let running = tokio::spawn(async move { busy.simple_query(LONG_QUERY).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = std::time::Instant::now();
    server.end().await;
    assert!(begun.elapsed() < SHUTDOWN_GRACE, "{:?}", begun.elapsed());
    assert_eq!(code_of(&running.await.unwrap().unwrap_err()), "57P01");
    assert!(idle.simple_query("SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_is_let_go() {
    let config = PgConfig { startup_timeout: Duration::from_millis(100), ..PgConfig::default() };
    let server = TestServer::start(config).await;
    for first_bytes in [&b""[..], b"\0\0\0", b"\0\0\0\x08\x04\xd2\x16\x2f"] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(first_bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open after {first_bytes:?}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_told_so() {
    let server = TestServer::start(PgConfig { connections_max: 2, ..PgConfig::default() }).await;
    let first = server.connect().await;
    let second = server.connect().await;
    let error = connect(&server.config()).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    drop(first);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while connect(&server.config()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(second);
    server.end().await;
}

/// A slow reader makes the query wait: the server's buffer stays near its limit, however large the result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_read_is_not_produced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut wire = wire::Wire::new(listener.accept().await.unwrap().0);
    let (_stopping, stop) = watch::channel(false);
    let backend = Backends::default().open().unwrap();
    let guard = wire::Guard {
        backend,
        stop,
        deadline: Some(tokio::time::Instant::now() + Duration::from_millis(300)),
    };
    let message = [b'D'; 1_000];
    let mut written = 0usize;
    let interrupt = loop {
        wire.output().extend_from_slice(&message);
        written += message.len();
        if wire.output_is_full()
            && let Err(interrupt) = wire.flush_guarded(&guard).await
        {
            break interrupt;
        }
        assert!(wire.output().len() < 2 * wire::OUTPUT_FLUSH_BYTES);
    };
    assert_eq!(interrupt, wire::Interrupt::TimedOut);
    // What was appended arrives whole and in order once the client reads.
    let reader = tokio::spawn(async move {
        let mut received = BytesMut::new();
        while client.read_buf(&mut received).await.unwrap() > 0 {}
        received.len()
    });
    assert!(wire.flush().await);
    drop(wire);
    assert_eq!(reader.await.unwrap(), written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_socket_is_noticed_while_work_runs_even_behind_unread_messages() {
    for unread in [0, 100_000] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = wire::Wire::new(listener.accept().await.unwrap().0);
        let (_stopping, stop) = watch::channel(false);
        let guard = wire::Guard { backend: Backends::default().open().unwrap(), stop, deadline: None };
        tokio::spawn(async move {
            client.write_all(&vec![b'S'; unread]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
        let work = std::future::pending::<()>();
        let done = tokio::time::timeout(Duration::from_secs(5), wire.guarded(&guard, work)).await;
        assert_eq!(done.expect("noticed in time"), Err(wire::Interrupt::Closed), "{unread} bytes unread");
    }
}
