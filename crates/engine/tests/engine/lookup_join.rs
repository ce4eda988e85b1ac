//! Joins FOR SYSTEM_TIME AS OF PROCTIME() follow the order of the log, however its records are grouped into steps.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::harness::Harness;

const LOOKUP: &str = "SELECT s.id, s.item, i.price FROM sales s LEFT JOIN items FOR SYSTEM_TIME AS OF PROCTIME() AS i ON s.item = i.item";

/// Each sale with the price of its moment; a restart replays many records at once, and a view that is made late reads them.
#[test]
fn a_row_keeps_what_it_met() {
    for seed in 0..6 {
        let mut rng = Rng::with_seed(seed);
        let mut db = Harness::new(1);
        db.run("CREATE TABLE items (item INT PRIMARY KEY, price INT)");
        db.run("CREATE TABLE sales (id INT, item INT) APPEND ONLY");
        db.run(&format!("CREATE MATERIALIZED VIEW early AS {LOOKUP}"));
        let mut prices: BTreeMap<i32, i32> = BTreeMap::new();
        let mut expected: Vec<String> = Vec::new();
        let mut views = vec!["early".to_string()];
        for round in 0..40 {
            let item = rng.i32(0..4);
            match rng.u8(..6) {
                0 | 1 => {
                    let price = rng.i32(1..100);
                    db.run(&format!("INSERT INTO items VALUES ({item}, {price})"));
                    prices.insert(item, price);
                }
                2 => {
                    db.run(&format!("DELETE FROM items WHERE item = {item}"));
                    prices.remove(&item);
                }
                _ => {
                    let items: Vec<i32> = (0..rng.usize(1..4)).map(|_| rng.i32(0..4)).collect();
                    let rows: Vec<String> = items.iter().map(|item| format!("({round}, {item})")).collect();
                    db.run(&format!("INSERT INTO sales VALUES {}", rows.join(", ")));
                    expected.extend(items.iter().map(|item| {
                        let price = prices.get(item).map_or("NULL".to_string(), i32::to_string);
                        format!("{round} | {item} | {price}")
                    }));
                }
            }
            if rng.u8(..10) == 0 {
                let name = format!("v{round}");
                db.run(&format!("CREATE MATERIALIZED VIEW {name} AS {LOOKUP}"));
                views.push(name);
            }
            if rng.u8(..8) == 0 {
                db.workers = rng.usize(1..4);
                db.restart();
            }
        }
        db.restart();
        expected.sort();
        for view in &views {
            assert_eq!(db.run(&format!("SELECT * FROM {view}")), expected, "seed {seed}, view {view}");
        }
    }
}
