//! Benchmarks' queries as views: made before, amid and after the data, each equal to its batch answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::harness::Harness;

/// A query that can't be maintained yet: its name and the words of the refusal. It is tried all the same: as soon as it
/// can be made it is checked like the others, and should be taken off its list.
pub type Pending = (&'static str, &'static str);

pub struct Queries {
    queries: Vec<(String, String)>,
    pending: &'static [Pending],
    /// Views made so far: query's number and view's name.
    views: Vec<(usize, String)>,
}

/// `bench/NAME/FILE`, without its semicolon.
pub fn file(benchmark: &str, file: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bench").join(benchmark);
    let path = folder.join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

impl Queries {
    pub fn read(benchmark: &str, numbers: impl Iterator<Item = u32>, pending: &'static [Pending]) -> Queries {
        let queries = numbers.map(|n| (format!("q{n}"), file(benchmark, &format!("q{n}.sql")))).collect();
        Queries { queries, pending, views: Vec::new() }
    }

    /// Makes a view of each query, named by when it was made.
    pub fn create(&mut self, db: &Harness, when: &str) {
        let mut failed = Vec::new();
        for (number, (name, query)) in self.queries.iter().enumerate() {
            let view = format!("{name}_{when}");
            let refused = self.pending.iter().find(|(pending, _)| pending == name);
            match (db.try_run(&format!("CREATE MATERIALIZED VIEW {view} AS {query}")), refused) {
                (Ok(_), None) => self.views.push((number, view)),
                (Ok(_), Some(_)) => {
                    eprintln!("{name} is no longer pending: take it off the list");
                    self.views.push((number, view));
                }
                (Err(error), Some((_, words))) => {
                    assert_eq!(error.state.code(), "0A000", "{name} is refused by name: {error}");
                    if !error.message.contains(words) {
                        eprintln!("{name} is pending for another reason now: {error}");
                    }
                }
                (Err(error), None) => failed.push(format!("{name} is supported, but: {error}")),
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
    }

    /// Compares each view with its query over the rows that there are now. `batch` rewrites a query that can't be asked
    /// as it stands. Gives the names of the queries without rows.
    pub fn check(&self, db: &Harness, moment: &str, batch: impl Fn(&str) -> String) -> Vec<String> {
        db.run("FLUSH");
        let (mut empty, mut different) = (Vec::new(), Vec::new());
        for (number, (name, query)) in self.queries.iter().enumerate() {
            let views: Vec<&String> =
                self.views.iter().filter(|(n, _)| *n == number).map(|(_, v)| v).collect();
            if views.is_empty() {
                continue;
            }
            let wanted = db.run(&batch(query));
            if wanted.iter().all(|row| row == "NULL") {
                empty.push(name.clone());
            }
            for view in views {
                let rows = db.run(&format!("SELECT * FROM {view}"));
                different.extend(difference(&rows, &wanted, &format!("{view}, {moment}")));
            }
        }
        let status = db.database().status();
        let suspended: Vec<_> = status.views.iter().filter(|(_, v)| v.suspended.is_some()).collect();
        assert!(suspended.is_empty(), "{moment}: {suspended:?}");
        assert!(different.is_empty(), "{}", different.join("\n"));
        empty
    }

    pub fn supported(&self) -> usize {
        self.queries.len() - self.pending.len()
    }
}

/// `None` when they are equal; else, of two long answers, the first rows in which they differ.
pub fn difference(rows: &[String], wanted: &[String], what: &str) -> Option<String> {
    if rows == wanted {
        return None;
    }
    let count = |rows: &[String]| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(row.clone()).or_default() += 1);
        counts
    };
    let (have, want) = (count(rows), count(wanted));
    let only = |a: &BTreeMap<String, i64>, b: &BTreeMap<String, i64>| -> Vec<String> {
        let more = a.iter().filter(|(row, n)| **n > b.get(*row).copied().unwrap_or(0));
        more.take(3).map(|(row, n)| format!("{n} x {row}")).collect()
    };
    Some(format!(
        "{what}: {} rows instead of {}\nonly in the view: {:#?}\nonly in the batch answer: {:#?}",
        rows.len(),
        wanted.len(),
        only(&have, &want),
        only(&want, &have)
    ))
}
