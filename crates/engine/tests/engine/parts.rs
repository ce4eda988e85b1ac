//! Output in parts, of every size, at every number of workers: the same rows.

use engine::Batching;

use super::harness::Harness;

#[test]
fn joins_above_joins_of_one_table() {
    let mut db = Harness::new(1);
    db.run("CREATE TABLE shops (id BIGINT PRIMARY KEY, name TEXT)");
    db.run("CREATE TABLE visits (shop BIGINT, n BIGINT)");
    let query = "SELECT id, EXISTS (SELECT 1 FROM visits v WHERE v.shop = shops.id) AS seen,
       NOT EXISTS (SELECT 1 FROM visits v WHERE v.shop = shops.id AND v.n > 5) AS few,
       CASE WHEN EXISTS (SELECT 1 FROM visits) THEN 'some' ELSE 'none' END AS any_visit,
       id IN (SELECT shop FROM visits) AS listed
FROM shops";
    db.run(&format!("CREATE MATERIALIZED VIEW visited AS {query}"));
    db.run("INSERT INTO shops VALUES (1, 'a'), (2, 'b'), (3, NULL)");
    db.run("INSERT INTO visits VALUES (1, 3), (1, 9), (2, 1)");
    db.run("INSERT INTO visits VALUES (NULL, 1)");
    db.run("DELETE FROM visits WHERE shop = 1");
    let expected = db.run(query);
    for workers in 1..4 {
        for step_rows in [1, 3, 100] {
            for part_rows in [1, 2, 3, 100] {
                db.workers = workers;
                db.batching = Batching { step_rows, part_rows, ..Batching::default() };
                db.restart();
                let rows = db.run("SELECT * FROM visited");
                assert_eq!(rows, expected, "{workers} workers, {:?}", db.batching);
            }
        }
    }
}
