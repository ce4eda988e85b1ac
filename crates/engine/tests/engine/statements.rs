//! Statements and their errors, through a session.

use super::harness::Harness;

#[test]
fn insert_update_delete_and_returning() {
    let db = Harness::new(1);
    db.run("CREATE TABLE p (id BIGINT PRIMARY KEY, name TEXT NOT NULL, price DECIMAL(10,2) DEFAULT 1.50, CHECK (price >= 0))");
    assert_eq!(
        db.run("INSERT INTO p (id, name) VALUES (1, 'a'), (2, 'b') RETURNING id, price"),
        ["1 | 1.50", "2 | 1.50"]
    );
    assert_eq!(db.run("UPDATE p SET price = price * 2 WHERE id = 2 RETURNING *"), ["2 | b | 3.00"]);
    assert_eq!(db.run("INSERT INTO p VALUES (1, 'again', 9)"), ["INSERT 0 1"]);
    assert_eq!(db.run("SELECT * FROM p"), ["1 | again | 9.00", "2 | b | 3.00"]);
    assert_eq!(db.run("DELETE FROM p WHERE id = 1"), ["DELETE 1"]);
    assert_eq!(db.run("SELECT * FROM p"), ["2 | b | 3.00"]);
    assert_eq!(db.error("INSERT INTO p VALUES (3, NULL, 1)").state.code(), "23502");
    assert_eq!(db.error("INSERT INTO p VALUES (3, 'x', -1)").state.code(), "23514");
    assert_eq!(db.error("INSERT INTO p VALUES ('x', 'x', 1)").state.code(), "22P02");
    assert_eq!(db.run("SELECT count(*) FROM p"), ["1"], "a failed statement writes nothing");
}

#[test]
fn conflicts_are_resolved_as_declared() {
    let db = Harness::new(1);
    db.run("CREATE TABLE a (k INT PRIMARY KEY, v INT, w INT) ON CONFLICT DO NOTHING");
    db.run("CREATE TABLE b (k INT PRIMARY KEY, v INT, w INT) ON CONFLICT DO UPDATE IF NOT NULL");
    for t in ["a", "b"] {
        db.run(&format!("INSERT INTO {t} VALUES (1, 10, NULL), (1, NULL, 5), (1, 7, NULL)"));
    }
    assert_eq!(db.run("SELECT * FROM a"), ["1 | 10 | NULL"]);
    assert_eq!(db.run("SELECT * FROM b"), ["1 | 7 | 5"]);
}

#[test]
fn definitions_survive_a_restart_and_drop_cascades() {
    let mut db = Harness::new(2);
    db.run("CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY a; CREATE VIEW w AS SELECT * FROM v WHERE n > 1");
    db.run("INSERT INTO t VALUES (1), (1), (2)");
    db.restart();
    assert_eq!(db.run("SELECT * FROM w"), ["1 | 2"]);
    assert_eq!(db.error("DROP TABLE t").state.code(), "2BP01");
    db.run("DROP TABLE t CASCADE");
    assert_eq!(db.error("SELECT * FROM v").state.code(), "42P01");
    db.run("CREATE TABLE t (a TEXT)");
    db.restart();
    assert_eq!(db.run("SELECT * FROM t"), Vec::<String>::new());
}

#[test]
fn errors_name_the_thing_and_its_place() {
    let db = Harness::new(1);
    db.run("CREATE TABLE orders (id INT, amount INT)");
    let error = db.error("SELECT ammount FROM orders");
    assert_eq!((error.state.code(), error.position), ("42703", Some(8)));
    assert!(error.hint.unwrap().contains("amount"));
    let error = db.error("SELECT 1; SELECT * FROM ordres");
    assert_eq!((error.state.code(), error.position), ("42P01", Some(25)));
    assert_eq!(db.error("SELEC 1").state.code(), "42601");
    assert_eq!(db.error("COPY orders TO '/tmp/x'").state.code(), "0A000");
    assert_eq!(db.error("CREATE MATERIALIZED VIEW v AS SELECT now() AS n FROM orders").state.code(), "0A000");
    assert_eq!(db.error("DROP TABLE rejected_rows").state.code(), "42501");
}

#[test]
fn a_failing_expression_costs_one_value_and_is_recorded() {
    let db = Harness::new(1);
    db.run("CREATE TABLE t (a INT, b INT)");
    db.run("CREATE MATERIALIZED VIEW v AS SELECT a, a / b AS q FROM t");
    db.run("INSERT INTO t VALUES (6, 3), (1, 0), (8, 2)");
    assert_eq!(db.run("SELECT * FROM v"), ["1 | NULL", "6 | 2", "8 | 4"]);
    db.run("FLUSH");
    db.run("FLUSH");
    assert_eq!(db.run("SELECT relation, reason FROM rejected_rows"), ["v | expression"]);
}

#[test]
fn money_is_exact() {
    let db = Harness::new(2);
    db.run("CREATE TABLE m (a DECIMAL(18,2)) APPEND ONLY");
    db.run("CREATE MATERIALIZED VIEW s AS SELECT sum(a) AS total FROM m");
    for _ in 0..10 {
        db.run("INSERT INTO m SELECT 0.10 FROM generate_series(1, 100000)");
    }
    assert_eq!(db.run("SELECT * FROM s"), ["100000.00"]);
}
