//! Power cuts anywhere: in the log, in a checkpoint, while views are made.
//!
//! One client sends statements, so only the last one can be in doubt. After each cut: what was acknowledged is there, the
//! statement in doubt is there wholly or not at all, and every view equals its query.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use storage::disk::FaultyDisk;

use super::harness::Harness;

const VIEWS: [&str; 8] = [
    "SELECT k, count(*) AS n, sum(v) AS s FROM kept GROUP BY k",
    "SELECT count(*) AS n, sum(v) AS s, max(id) AS newest FROM seen",
    "SELECT a.id, a.v, b.n FROM kept a JOIN (SELECT k, count(*) AS n FROM seen GROUP BY k) b ON a.k = b.k",
    "SELECT k, v, id, rn FROM (SELECT k, v, id, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM kept) WHERE rn <= 2",
    "SELECT id FROM kept WHERE k NOT IN (SELECT k FROM seen WHERE v > 5)",
    "SELECT n, count(*) AS groups FROM v0 GROUP BY n",
    "SELECT id, sum(v) OVER (PARTITION BY k ORDER BY id) AS running FROM kept",
    "SELECT k, min(v) AS lowest, count(DISTINCT v) AS different FROM seen GROUP BY k",
];

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    kept: BTreeMap<i64, (i64, i64)>,
    seen: BTreeMap<i64, (i64, i64)>,
}

impl Model {
    fn of(db: &Harness) -> Model {
        let rows = |table: &str| -> BTreeMap<i64, (i64, i64)> {
            let rows = db.run(&format!("SELECT id, k, v FROM {table}"));
            let count = rows.len();
            let number = |text: &str| text.parse().unwrap();
            let rows: BTreeMap<_, _> = rows
                .iter()
                .map(|row| {
                    let cells: Vec<&str> = row.split(" | ").collect();
                    (number(cells[0]), (number(cells[1]), number(cells[2])))
                })
                .collect();
            assert_eq!(rows.len(), count, "no row of {table} is there twice");
            rows
        };
        Model { kept: rows("kept"), seen: rows("seen") }
    }

    /// A random statement, and what it makes of this.
    fn statement(&self, rng: &mut Rng, next_id: &mut i64) -> (String, Model) {
        let mut after = self.clone();
        let (k, v) = (rng.i64(0..5), rng.i64(0..10));
        let statement = match rng.u8(..8) {
            0 => {
                after.kept.retain(|_, row| row.0 != k);
                format!("DELETE FROM kept WHERE k = {k}")
            }
            1 => {
                after.kept.values_mut().filter(|row| row.0 == k).for_each(|row| row.1 = v);
                format!("UPDATE kept SET v = {v} WHERE k = {k}")
            }
            2 => {
                // Those that came before are not counted again.
                let first = rng.i64(0..(*next_id).max(1));
                for id in first..first + 20 {
                    after.seen.entry(id).or_insert((k, v));
                }
                *next_id = (*next_id).max(first + 20);
                format!(
                    "INSERT INTO seen SELECT g, {k}, {v} FROM generate_series({first}, {}) AS g",
                    first + 19
                )
            }
            3 | 4 => {
                let first = *next_id;
                *next_id += 30;
                for id in first..first + 30 {
                    after.seen.insert(id, (id % 5, v));
                }
                format!(
                    "INSERT INTO seen SELECT g, g % 5, {v} FROM generate_series({first}, {}) AS g",
                    first + 29
                )
            }
            _ => {
                let first = rng.i64(0..40);
                for id in first..first + 4 {
                    after.kept.insert(id, (k, v));
                }
                let row = |id: i64| format!("({id}, {k}, {v})");
                let rows: Vec<String> = (first..first + 4).map(row).collect();
                format!("INSERT INTO kept VALUES {}", rows.join(", "))
            }
        };
        (statement, after)
    }
}

fn case(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let disk = FaultyDisk::new(seed);
    let mut db = Harness::on(&disk);
    db.run("CREATE TABLE kept (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)");
    db.run(
        "CREATE TABLE seen (id BIGINT, k BIGINT, v BIGINT) APPEND ONLY WITH (dedup_key = 'id', dedup_window = '1 day')",
    );
    let (mut model, mut next_id, mut views) = (Model::default(), 0, 0);
    for _ in 0..rng.usize(2..6) {
        disk.crash_at(rng.u64(1..150));
        let mut after = model.clone();
        for _ in 0..rng.usize(1..40) {
            let create = views < VIEWS.len() && rng.u8(..5) == 0;
            let (statement, result) = match rng.u8(..12) {
                0 => ("CHECKPOINT".to_string(), model.clone()),
                _ if create => {
                    let view = VIEWS[views];
                    (format!("CREATE MATERIALIZED VIEW IF NOT EXISTS v{views} AS {view}"), model.clone())
                }
                _ => model.statement(&mut rng, &mut next_id),
            };
            after = result;
            if db.try_run(&statement).is_err() {
                assert!(disk.is_down(), "{statement}");
                break;
            }
            views += usize::from(statement.starts_with("CREATE"));
            model = after.clone();
        }
        db.crash();
        // It may not have come to the cut that was planned.
        disk.heal();
        db.restart_at_random(&mut rng);
        let found = Model::of(&db);
        assert!(found == model || found == after, "{found:#?}\nand not {model:#?}\nnor {after:#?}");
        model = found;
        for (number, query) in VIEWS.iter().enumerate().take(views) {
            let view = db.run(&format!("SELECT * FROM v{number}"));
            assert_eq!(view, db.run(query), "view {number}");
        }
    }
}

#[test]
fn power_cuts_lose_and_double_nothing() {
    let seconds = std::env::var("SHOPSTREAM_CRASH_SECONDS").map_or(5, |text| text.parse().unwrap());
    let given = std::env::var("SHOPSTREAM_CRASH_SEED").ok().map(|text| text.parse().unwrap());
    let ends = Instant::now() + Duration::from_secs(seconds);
    let (mut seed, mut cases) = (given.unwrap_or_else(|| fastrand::u64(..)), 0);
    while cases == 0 || Instant::now() < ends {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("again with SHOPSTREAM_CRASH_SEED={seed}; threads may take other turns");
            std::panic::resume_unwind(panic);
        }
        seed = seed.wrapping_add(1);
        cases += 1;
    }
    println!("{cases} cases of several power cuts each");
}
