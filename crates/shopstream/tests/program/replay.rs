//! kill -9 in the middle of loading the Taobao file: the views end up as if nothing had happened.
//! Reads the folder `SHOPSTREAM_DATA`; without it the check is skipped, and says so.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::data::{PACK_TABLE, W1, W3, data, expected_lines, taobao_answers, w2};
use super::server::{Ports, Server, number, sql};

const ROWS: u64 = 110_300;
/// Kills of the server.
const KILLS: usize = 5;

/// `shopstream load`, which goes on trying while the server is away.
struct Load(Child);

impl Load {
    fn start(server: &str, file: &Path) -> Load {
        let child = Command::new(env!("CARGO_BIN_EXE_shopstream"))
            .args(["load", "--table", "user_behavior", "--batch-rows", "700", "--server", server])
            .arg(file)
            .env_remove("SHOPSTREAM_CONFIG")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Load(child)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rows of the table that were accepted, without reading them.
fn accepted(server: &str) -> u64 {
    let metrics = ureq::get(format!("{server}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    let name = r#"shopstream_table_rows_total{table="user_behavior",outcome="accepted"} "#;
    metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().unwrap())
}

fn check(server: &str, folder: &Path, how: &str) {
    sql(server, "FLUSH");
    for (query, answer) in taobao_answers() {
        let answered = sql(server, &query);
        let text = |cell: &serde_json::Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_string);
        let mut lines: Vec<String> = answered["rows"]
            .as_array()
            .unwrap_or_else(|| panic!("{answered}"))
            .iter()
            .map(|row| row.as_array().unwrap().iter().map(text).collect::<Vec<_>>().join(","))
            .collect();
        lines.sort();
        assert_eq!(answered["truncated"], false);
        assert_eq!(lines, expected_lines(folder, answer), "{query} {how}");
    }
    assert_eq!(number(server, "SELECT count(*) FROM user_behavior"), ROWS, "{how}");
    assert_eq!(number(server, "SELECT count(*) FROM late_rows"), 0, "nothing is late {how}");
    assert_eq!(number(server, "SELECT count(*) FROM rejected_rows"), 0, "nothing is rejected {how}");
}

#[test]
fn killed_while_the_taobao_file_is_loaded() {
    let Some(folder) = data() else { return };
    let seed =
        std::env::var("SHOPSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into()
        });
    println!("SHOPSTREAM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let file = folder.join("taobao/UserBehavior.csv.gz");
    let data_dir = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let mut server = Server::start_at(data_dir.path(), ports);
    for statement in [PACK_TABLE, W1, &w2(), W3] {
        sql(&server.http, statement);
    }
    // Moments as numbers of rows that are there; the kill comes at any point of a request.
    let mut moments: Vec<u64> = (0..KILLS).map(|_| rng.u64(1..ROWS * 9 / 10)).collect();
    moments.sort_unstable();
    let mut load = Load::start(&server.http, &file);
    for (round, moment) in moments.iter().enumerate() {
        let patience = Instant::now() + Duration::from_secs(30);
        while accepted(&server.http) < *moment {
            assert!(Instant::now() < patience, "kill {round}: {moment} rows don't arrive (seed {seed})");
        }
        let pause = Instant::now() + Duration::from_micros(rng.u64(..8_000));
        while Instant::now() < pause {
            std::hint::spin_loop();
        }
        server.kill();
        if round == KILLS / 2 {
            // The client dies too; the command is repeated, and what had arrived does not count again.
            drop(load);
            load = Load::start(&server.http, &file);
        }
        server = Server::start_at(data_dir.path(), ports);
    }
    assert!(load.0.wait().unwrap().success(), "the load ends well (seed {seed})");
    check(&server.http, &folder, &format!("after {KILLS} kills (seed {seed})"));
    server.kill();
    server = Server::start_at(data_dir.path(), ports);
    check(&server.http, &folder, &format!("after one more (seed {seed})"));
    // Loading it again changes nothing.
    assert!(Load::start(&server.http, &file).0.wait().unwrap().success());
    check(&server.http, &folder, &format!("loaded again (seed {seed})"));
    assert_eq!(server.stop(), Some(0));
}
