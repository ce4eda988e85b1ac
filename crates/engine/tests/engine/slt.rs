//! Every tests/slt file, three ways: as it is, with a restart after each statement, and at three workers.

use std::path::PathBuf;
use std::sync::Arc;

use sqllogictest::{DBOutput, DefaultColumnType, Runner};

use super::harness::Harness;

struct Db {
    harness: Harness,
    restart_after_each: bool,
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
        if self.restart_after_each {
            self.harness.restart();
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

fn run(workers: usize, restart_after_each: bool) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the .slt files are found");
    for file in files {
        let mut runner = Runner::new(|| async {
            let harness = Harness::new(workers);
            attach(&harness);
            Ok(Db { harness, restart_after_each })
        });
        runner.run_file(&file).unwrap_or_else(|e| panic!("{} ({workers} workers): {e}", file.display()));
    }
}

#[test]
fn as_written() {
    run(1, false);
}

#[test]
fn restarted_after_each_statement() {
    run(1, true);
}

#[test]
fn at_three_workers() {
    run(3, false);
}
