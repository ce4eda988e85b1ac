//! What a client is told of a statement before it runs: types of parameters and columns.

use sql::types::field_type_name;

use super::harness::Harness;

const TABLES: &str =
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, item INT, price DECIMAL(18,2), code VARCHAR(10), note TEXT,
    at TIMESTAMPTZ, data JSONB, tag UUID, words TEXT[], tags UUID[])";

fn harness() -> Harness {
    let db = Harness::new(1);
    db.run(TABLES);
    db
}

fn parameters(db: &Harness, sql: &str) -> String {
    let described = db.describe(sql);
    described.parameters.iter().map(|f| field_type_name(f)).collect::<Vec<_>>().join(", ")
}

fn columns(db: &Harness, sql: &str) -> String {
    let columns = db.describe(sql).columns.unwrap();
    let shown = columns.fields().iter().map(|f| format!("{} {}", f.name(), field_type_name(f)));
    shown.collect::<Vec<_>>().join(", ")
}

#[test]
fn types_of_parameters_are_those_that_postgresql_deduces() {
    let db = harness();
    for (sql, types) in [
        ("SELECT $1::bigint", "bigint"),
        ("SELECT $1::numeric(10,2) + 1, $2::date, $3::jsonb", "numeric(10,2), date, jsonb"),
        ("SELECT CAST($1 AS uuid[])", "uuid[]"),
        ("SELECT $1", "text"),
        (
            "SELECT * FROM orders WHERE id = $1 AND code = $2 AND tag = $3",
            "bigint, character varying(10), uuid",
        ),
        (
            "SELECT * FROM orders WHERE $1 < price AND at BETWEEN $2 AND $3",
            "numeric(18,2), timestamp with time zone, timestamp with time zone",
        ),
        ("SELECT * FROM orders WHERE id IN ($1, $2) LIMIT $3 OFFSET $4", "bigint, bigint, bigint, bigint"),
        ("SELECT * FROM orders WHERE $1 IN (item, 7) AND $2 BETWEEN id AND 10", "integer, bigint"),
        ("SELECT * FROM orders WHERE id = ANY($1) AND tag = ANY($2)", "bigint[], uuid[]"),
        ("SELECT * FROM orders WHERE note LIKE $1 AND $2", "text, boolean"),
        (
            "SELECT coalesce(price, $1), upper($2), CASE WHEN $3 THEN id ELSE $4 END FROM orders",
            "numeric(18,2), text, boolean, bigint",
        ),
        ("SELECT data ->> $1 FROM orders", "text"),
        // The first place counts, and one parameter may stand in several.
        ("SELECT $1::int FROM orders WHERE id = $1 OR item = $1", "integer"),
        (
            "SELECT * FROM (SELECT id FROM orders WHERE price > $2) x WHERE id IN (SELECT $1::bigint)",
            "bigint, numeric(18,2)",
        ),
        (
            "INSERT INTO orders (id, code, data, tag) VALUES ($1, $2, $3, $4)",
            "bigint, character varying(10), jsonb, uuid",
        ),
        ("INSERT INTO orders (id, note) SELECT $1::bigint, $2", "bigint, text"),
        ("UPDATE orders SET price = $1, data = $2 WHERE id = $3", "numeric(18,2), jsonb, bigint"),
        ("DELETE FROM orders WHERE tag = $1", "uuid"),
    ] {
        assert_eq!(parameters(&db, sql), types, "{sql}");
    }
}

#[test]
fn columns_keep_their_sql_types_on_the_way_through_views() {
    let db = harness();
    db.run(
        "CREATE MATERIALIZED VIEW m AS SELECT id, data, tag AS t, code, words, tags, data ->> 'a' AS a, data -> 'b' AS b, price FROM orders WHERE id > 0;
         CREATE MATERIALIZED VIEW by_tag AS SELECT t, count(*) AS n FROM m GROUP BY t;
         CREATE VIEW w AS SELECT data AS d, t FROM m",
    );
    let all = "id bigint, data jsonb, t uuid, code character varying(10), words text[], tags uuid[], a text, b jsonb, price numeric(18,2)";
    assert_eq!(columns(&db, "SELECT * FROM m"), all);
    assert_eq!(columns(&db, "SELECT * FROM by_tag"), "t uuid, n bigint");
    assert_eq!(columns(&db, "SELECT * FROM w ORDER BY d LIMIT 1"), "d jsonb, t uuid");
    assert_eq!(
        columns(
            &db,
            "SELECT o.tag, m.data AS x, upper(o.code) AS u FROM orders o LEFT JOIN m ON o.id = m.id"
        ),
        "tag uuid, x jsonb, u text"
    );
    assert_eq!(
        columns(
            &db,
            "SELECT tag::text AS a, '{}'::jsonb AS b, note::varchar(3) AS c, NULL::uuid AS d, data::text::jsonb AS e FROM orders"
        ),
        "a text, b jsonb, c character varying(3), d uuid, e jsonb"
    );
    assert_eq!(columns(&db, "SELECT tag FROM orders UNION ALL SELECT t FROM m"), "tag uuid");
    db.run("INSERT INTO orders (id, data, tag, words) VALUES (1, '{\"a\": 1, \"b\": [2]}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', ARRAY['x', 'y'])");
    assert_eq!(db.run("SELECT t, n FROM by_tag"), ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | 1"]);
    assert_eq!(db.run("SELECT a, b FROM m"), ["1 | [2]"]);
    let mut db = db;
    db.restart();
    assert_eq!(columns(&db, "SELECT * FROM m"), all, "after a restart");
    assert_eq!(db.run("SELECT t, n FROM by_tag"), ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | 1"]);
}

#[test]
fn parameters_work_wherever_they_have_a_type() {
    use datafusion::scalar::ScalarValue as V;
    let db = harness();
    db.run("INSERT INTO orders (id, item, price, note) VALUES (1, 10, 1.50, 'one'), (2, 20, 2.50, 'two'), (3, 30, NULL, NULL)");
    let rows = |sql: &str, values: Vec<V>| db.run_with(sql, values);
    assert_eq!(
        rows(
            "SELECT id FROM orders WHERE id = ANY($1)",
            vec![V::List(V::new_list_nullable(
                &[V::from(1i64), V::from(3i64)],
                &arrow::datatypes::DataType::Int64
            ))]
        ),
        ["1", "3"]
    );
    assert_eq!(
        rows("SELECT id FROM orders ORDER BY id LIMIT $1 OFFSET $2", vec![V::from(1i64), V::from(1i64)]),
        ["2"]
    );
    assert_eq!(
        rows(
            "SELECT coalesce(price, $1) FROM orders WHERE $2 IN (item, 7)",
            vec![V::from("9.99"), V::from("30")]
        ),
        ["9.99"]
    );
    assert_eq!(rows("SELECT $1::bigint + 1", vec![V::from("41")]), ["42"]);
    assert_eq!(rows("SELECT id FROM orders WHERE id = $1 OR item = $1", vec![V::from(20i64)]), ["2"]);
    assert_eq!(
        rows("UPDATE orders SET price = $1 WHERE id = $2", vec![V::from("7.25"), V::from(3i64)]),
        ["UPDATE 1"]
    );
    assert_eq!(db.run("SELECT price FROM orders WHERE id = 3"), ["7.25"]);
}
