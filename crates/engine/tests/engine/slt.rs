//! Every tests/slt file, in several ways: as it is, with a restart after each statement, from the log or from a checkpoint,
//! at three workers, and with restarts at random, after which the records share other steps.

use std::path::PathBuf;
use std::sync::Arc;

use sqllogictest::{DBOutput, DefaultColumnType, Runner};

use fastrand::Rng;

use super::harness::Harness;

struct Db {
    harness: Harness,
    restarts: Restarts,
}

enum Restarts {
    None,
    AfterEach,
    /// Nothing of the log is read again.
    FromCheckpoints,
    Random(Rng),
}

#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl sqllogictest::DB for Db {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let (rows, is_query) = self.harness.try_cells(sql).map_err(|e| Failed(e.to_string()))?;
        let restarted = match &mut self.restarts {
            Restarts::None => false,
            Restarts::AfterEach => {
                self.harness.restart();
                true
            }
            Restarts::FromCheckpoints => {
                let records = self.harness.database().status().log_records;
                self.harness.run("CHECKPOINT");
                self.harness.restart();
                // Sources go on meanwhile.
                assert!(self.harness.database().started_from().0 >= records, "{records} are not read again");
                true
            }
            Restarts::Random(rng) => {
                let now = rng.u8(..4) == 0;
                if now {
                    self.harness.restart_at_random(rng);
                }
                now
            }
        };
        if restarted {
            attach(&self.harness);
        }
        if !is_query {
            return Ok(DBOutput::StatementComplete(0));
        }
        let width = rows.first().map_or(1, Vec::len);
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows })
    }
}

/// Sources of the files begin to be read, or go on.
fn attach(harness: &Harness) {
    harness.database().attach_connectors(Arc::new(connectors::source::Registry)).unwrap();
}

fn run(workers: usize, restarts: impl Fn() -> Restarts) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the .slt files are found");
    for file in files {
        let mut runner = Runner::new(|| async {
            let harness = Harness::new(workers);
            attach(&harness);
            Ok(Db { harness, restarts: restarts() })
        });
        runner.run_file(&file).unwrap_or_else(|e| panic!("{} ({workers} workers): {e}", file.display()));
    }
}

/// With the checkpoints that they have, and without.
#[test]
fn data_directories_of_earlier_versions() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let expected: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "slt")).collect();
    assert!(!expected.is_empty(), "there are fixtures");
    for file in expected {
        for with_checkpoints in [true, false] {
            let mut runner = Runner::new(|| async {
                let mut harness = Harness::copied(&file.with_extension(""));
                if !with_checkpoints {
                    std::fs::remove_dir_all(harness.directory.path().join("checkpoints")).unwrap();
                    harness.restart();
                    assert_eq!(harness.database().started_from().0, 0);
                }
                Ok(Db { harness, restarts: Restarts::None })
            });
            runner.run_file(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        }
    }
}

#[test]
fn as_written() {
    run(1, || Restarts::None);
}

#[test]
fn restarted_after_each_statement() {
    run(1, || Restarts::AfterEach);
}

#[test]
fn from_a_checkpoint_after_each_statement() {
    run(1, || Restarts::FromCheckpoints);
}

#[test]
fn at_three_workers() {
    run(3, || Restarts::None);
}

#[test]
fn restarted_at_random() {
    let seed =
        std::env::var("SHOPSTREAM_SLT_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("SHOPSTREAM_SLT_SEED={seed}");
    run(2, || Restarts::Random(Rng::with_seed(seed)));
}
