//! What only the inside shows.

use super::*;

fn run(database: &Arc<Database>, runtime: &tokio::runtime::Runtime, sql: &str) {
    let session = database.session();
    for statement in session.parse(sql).unwrap() {
        runtime.block_on(session.run(&statement, vec![])).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

#[test]
fn constraints_go_with_their_table() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { workers: 1, memory_bytes: 64 << 20, ..Options::new(folder.path()) };
    let database = Database::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run(&database, &runtime, "CREATE TABLE kept (n BIGINT, CHECK (n > 0)); INSERT INTO kept VALUES (1)");
    for _ in 0..3 {
        run(
            &database,
            &runtime,
            "CREATE TABLE dropped (n BIGINT, CHECK (n > 0)); INSERT INTO dropped VALUES (1)",
        );
        assert_eq!(database.constraints.read().len(), 2);
        run(&database, &runtime, "DROP TABLE dropped");
        assert_eq!(database.constraints.read().len(), 1, "those of the other table stay");
    }
}

#[test]
fn a_query_is_stopped_within_a_join_that_gives_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { workers: 2, memory_bytes: 256 << 20, ..Options::new(folder.path()) };
    let database = Database::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = database.session();
    let sql = "SELECT count(*) FROM generate_series(1, 1000000) a(x) JOIN generate_series(1, 1000000) b(x) ON a.x + b.x < 0";
    let statement = session.parse(sql).unwrap().remove(0);
    let outcome = runtime.block_on(session.run(&statement, vec![])).unwrap();
    let Outcome::Rows { mut stream, .. } = outcome else { panic!("a query gives rows") };
    let first =
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(300), stream.next()).await });
    assert!(first.is_err(), "it would take hours");
    drop(stream);
    // A runtime waits for what its threads compute at the moment.
    let queries = database.queries.lock().take().unwrap();
    let (ended, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(queries);
        ended.send(()).unwrap();
    });
    wait.recv_timeout(Duration::from_secs(20)).expect("no thread goes on computing");
}
