//! Benchmarks' queries as views: made before, amid and after the data, each equal to its batch answer.

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
                (Err(error), None) => panic!("{name} is supported, but: {error}"),
            }
        }
    }

    /// Compares each view with its query over the rows that there are now. `batch` rewrites a query that can't be asked
    /// as it stands. Gives the names of the queries without rows.
    pub fn check(&self, db: &Harness, moment: &str, batch: impl Fn(&str) -> String) -> Vec<String> {
        db.run("FLUSH");
        let mut empty = Vec::new();
        for (number, (name, query)) in self.queries.iter().enumerate() {
            let views: Vec<&String> = self.views.iter().filter(|(n, _)| *n == number).map(|(_, v)| v).collect();
            if views.is_empty() {
                continue;
            }
            let wanted = db.run(&batch(query));
            if wanted.iter().all(|row| row == "NULL") {
                empty.push(name.clone());
            }
            for view in views {
                let rows = db.run(&format!("SELECT * FROM {view}"));
                compare(&rows, &wanted, &format!("{view}, {moment}"));
            }
        }
        let status = db.database().status();
        let suspended: Vec<_> = status.views.iter().filter(|(_, v)| v.suspended.is_some()).collect();
        assert!(suspended.is_empty(), "{moment}: {suspended:?}");
        empty
    }

    pub fn supported(&self) -> usize {
        self.queries.len() - self.pending.len()
    }
}

/// Equality that, when it fails, shows the first rows in which two long answers differ.
fn compare(rows: &[String], wanted: &[String], what: &str) {
    if rows == wanted {
        return;
    }
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        let mut rest = b.to_vec();
        let missing = a.iter().filter(|row| match rest.iter().position(|other| other == *row) {
            Some(at) => {
                rest.swap_remove(at);
                false
            }
            None => true,
        });
        missing.take(3).cloned().collect()
    };
    // Long answers differ in few rows; the search above is quadratic.
    let (rows, wanted) = (&rows[..rows.len().min(20_000)], &wanted[..wanted.len().min(20_000)]);
    panic!(
        "{what}: {} rows instead of {}\nonly in the view: {:#?}\nonly in the batch answer: {:#?}",
        rows.len(),
        wanted.len(),
        only(rows, wanted),
        only(wanted, rows)
    );
}
