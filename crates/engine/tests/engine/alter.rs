//! ALTER in the middle of a random history: views of every age equal their queries, before and after a restart.

use super::harness::Harness;

/// A table, its name of the moment, and how many columns were added.
struct Table {
    name: String,
    options: &'static str,
    append_only: bool,
    added: usize,
    renamed: usize,
}

/// A view, and its query with `{}` for the table's name.
struct View {
    name: String,
    table: usize,
    query: String,
}

fn check(db: &Harness, tables: &[Table], views: &[View], seed: u64) {
    for view in views {
        let query = view.query.replace("{}", &tables[view.table].name);
        let (shown, expected) = (db.run(&format!("SELECT * FROM {}", view.name)), db.run(&query));
        assert_eq!(shown, expected, "{} is {query} (seed {seed})", view.name);
    }
}

#[test]
fn views_of_every_age_equal_their_queries() {
    let seed = std::env::var("SHOPSTREAM_ORACLE_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut db = Harness::new(1 + rng.usize(..3));
    let new = |name: &str, options, append_only| Table {
        name: name.to_string(),
        options,
        append_only,
        added: 0,
        renamed: 0,
    };
    let mut tables = vec![
        new("keyed", "k INT PRIMARY KEY, v INT)", false),
        new("merged", "k INT PRIMARY KEY, v INT) ON CONFLICT DO UPDATE IF NOT NULL", false),
        new("first", "k INT PRIMARY KEY, v INT) ON CONFLICT DO NOTHING", false),
        new("bag", "k INT, v INT)", false),
        new("events", "k INT, v INT) APPEND ONLY", true),
    ];
    let mut views = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        db.run(&format!("CREATE TABLE {} ({}", table.name, table.options));
        let name = format!("all_{number}");
        db.run(&format!("CREATE MATERIALIZED VIEW {name} AS SELECT * FROM {}", table.name));
        views.push(View { name, table: number, query: "SELECT k, v FROM {}".to_string() });
    }
    for step in 0..150 {
        let number = rng.usize(..tables.len());
        let table = &mut tables[number];
        let value = |rng: &mut fastrand::Rng| match rng.u8(..4) {
            0 => "NULL".to_string(),
            _ => rng.i32(..5).to_string(),
        };
        match rng.u8(..20) {
            0 if table.added < 4 => {
                table.added += 1;
                let default = match rng.u8(..3) {
                    0 => String::new(),
                    1 => " DEFAULT NULL".to_string(),
                    _ => format!(" NOT NULL DEFAULT {} * 10", rng.i32(1..5)),
                };
                db.run(&format!("ALTER TABLE {} ADD COLUMN a{} BIGINT{default}", table.name, table.added));
            }
            1 => {
                table.renamed += 1;
                let to = format!("renamed_{number}_{}", table.renamed);
                db.run(&format!("ALTER TABLE {} RENAME TO {to}", table.name));
                table.name = to;
            }
            2 => {
                let name = format!("view_{step}");
                let last = if table.added == 0 { "v".to_string() } else { format!("a{}", table.added) };
                let query = match rng.bool() {
                    true => format!("SELECT v, count(*) AS n, sum({last}) AS s FROM {{}} GROUP BY v"),
                    false => format!("SELECT t.k, t.{last} AS last FROM {{}} AS t WHERE t.v > 1"),
                };
                let text = query.replace("{}", &table.name);
                db.run(&format!("CREATE MATERIALIZED VIEW {name} AS {text}"));
                views.push(View { name, table: number, query });
            }
            3 => db.restart(),
            4..=6 if !table.append_only => {
                db.run(&format!("DELETE FROM {} WHERE k = {}", table.name, rng.i32(..20)));
            }
            7..=8 if !table.append_only => {
                let column = match table.added {
                    0 => "v".to_string(),
                    _ => format!("a{}", 1 + rng.usize(..table.added)),
                };
                let key = rng.i32(..20);
                db.run(&format!("UPDATE {} SET {column} = {} WHERE k = {key}", table.name, rng.i32(..5)));
            }
            _ => {
                let rows =
                    (0..1 + rng.usize(..4)).map(|_| format!("({}, {})", rng.i32(..20), value(&mut rng)));
                let rows = rows.collect::<Vec<_>>().join(", ");
                db.run(&format!("INSERT INTO {} (k, v) VALUES {rows}", table.name));
                if table.added > 0 && rng.bool() {
                    let column = format!("a{}", 1 + rng.usize(..table.added));
                    let row = format!("({}, {})", rng.i32(..20), rng.i32(..5));
                    db.run(&format!("INSERT INTO {} (k, {column}) VALUES {row}", table.name));
                }
            }
        }
        if step % 5 == 0 {
            check(&db, &tables, &views, seed);
        }
    }
    let before: Vec<Vec<String>> =
        tables.iter().map(|table| db.run(&format!("SELECT * FROM {}", table.name))).collect();
    db.restart();
    check(&db, &tables, &views, seed);
    for (table, before) in tables.iter().zip(&before) {
        assert_eq!(db.run(&format!("SELECT * FROM {}", table.name)), *before, "{} (seed {seed})", table.name);
    }
}

#[test]
fn what_follows_a_table_starts_anew_with_its_new_columns() {
    let db = Harness::new(1);
    db.run("CREATE TABLE t (a INT PRIMARY KEY)");
    db.run("INSERT INTO t VALUES (1)");
    let mut before = db.database().subscribe("t", None).unwrap();
    assert_eq!(before.schema.fields().len(), 1);
    db.run("ALTER TABLE t ADD COLUMN b INT DEFAULT 5");
    assert!(
        before.changes.try_recv().is_err_and(|e| e == tokio::sync::mpsc::error::TryRecvError::Disconnected)
    );
    let after = db.database().subscribe("t", None).unwrap();
    let snapshot = after.snapshot.expect("the rows that are there");
    assert_eq!(snapshot[0].num_columns(), 2);
}
