//! Statement in, picture out.

use super::*;
use crate::catalog::{OnConflict, TableDef};

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).statement
}

fn failure(sql: &str) -> SqlError {
    match parse(sql) {
        Ok(statements) => panic!("{sql} was read as {statements:?}"),
        Err(error) => error,
    }
}

fn table(sql: &str) -> TableDef {
    match one(sql) {
        Statement::CreateTable { table, .. } => table,
        other => panic!("{other:?}"),
    }
}

/// A short picture of a statement.
fn picture(sql: &str) -> String {
    match one(sql) {
        Statement::CreateTable { table, if_not_exists } => {
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|c| {
                    let mut text = format!("{} {}", c.name, c.sql_type);
                    if c.not_null {
                        text += " not null";
                    }
                    if let Some(default) = &c.default {
                        text += &format!(" default <{default}>");
                    }
                    if let Some(generated) = &c.generated {
                        text += &format!(" generated <{generated}>");
                    }
                    text
                })
                .collect();
            let mut text = format!("table {} ({})", table.name, columns.join(", "));
            if !table.primary_key.is_empty() {
                text += &format!(" key {:?}", table.primary_key);
            }
            if let Some(watermark) = &table.watermark {
                text += &format!(" watermark {} {}us", watermark.column, watermark.delay_us);
            }
            for check in &table.checks {
                text += &format!(" check {} <{}>", check.name, check.condition);
            }
            if table.append_only {
                text += " append only";
            }
            if table.on_conflict != OnConflict::Overwrite {
                text += &format!(" {:?}", table.on_conflict);
            }
            if if_not_exists {
                text += " if not exists";
            }
            text
        }
        Statement::CreateView { view, if_not_exists, or_replace } => {
            let mut text = format!("view {} <{}>", view.name, view.query);
            for (flag, word) in [
                (view.materialized, " materialized"),
                (view.emit_on_window_close, " on close"),
                (if_not_exists, " if not exists"),
                (or_replace, " or replace"),
            ] {
                if flag {
                    text += word;
                }
            }
            if view.lateness.allowed_us > 0 {
                text += &format!(" lateness {}us", view.lateness.allowed_us);
            }
            text
        }
        Statement::CreateIndex { index, if_not_exists } => {
            format!("index {} on {} {:?} {if_not_exists}", index.name, index.relation, index.columns)
        }
        Statement::Insert { insert } => format!("insert <{insert}>"),
        Statement::Update { update } => format!("update <{update}>"),
        Statement::Delete { delete } => format!("delete <{delete}>"),
        Statement::Query(query) => format!("query <{query}>"),
        Statement::Explain { analyze, statement } => {
            format!("explain {analyze} <{}> at {}", statement.sql, statement.offset)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn tables() {
    let cases = [
        ("CREATE TABLE t (a INT)", "table t (a integer)"),
        (
            "create table if not exists public.\"T\" (\"A b\" text null, C varchar(10) not null)",
            "table T (A b text, c character varying(10) not null) if not exists",
        ),
        (
            "CREATE TABLE orders (order_id BIGINT PRIMARY KEY, amount DECIMAL(18,2) CHECK (amount >= 0), ts TIMESTAMPTZ DEFAULT now(), \
             WATERMARK FOR ts AS ts - INTERVAL '5 seconds', CHECK (order_id > 0), CONSTRAINT small CHECK (amount < 1000))",
            "table orders (order_id bigint not null, amount numeric(18,2), ts timestamp with time zone default <now()>) key [0] \
             watermark 2 5000000us check orders_amount_check <amount >= 0> check orders_check <order_id > 0> check small <amount < 1000>",
        ),
        (
            "CREATE TABLE t (a INT DEFAULT 0 NOT NULL, b INT DEFAULT (1 + 2), c BOOLEAN DEFAULT 1 IS NOT NULL, PRIMARY KEY (b, a)) ON CONFLICT DO NOTHING APPEND ONLY",
            "table t (a integer not null default <0>, b integer not null default <1 + 2>, c boolean default <1 IS NOT NULL>) key [1, 0] append only DoNothing",
        ),
        (
            "CREATE TABLE t (d DATE, day TEXT GENERATED ALWAYS AS (to_char(d, 'YYYY, MM')) STORED, ts AS d::timestamptz, WATERMARK FOR ts AS ts)",
            "table t (d date, day text generated <to_char(d, 'YYYY, MM')>, ts  generated <d::timestamptz>) watermark 2 0us",
        ),
        (
            "CREATE TABLE t (k INT PRIMARY KEY, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5' MINUTES) ON CONFLICT DO UPDATE IF NOT NULL",
            "table t (k integer not null, ts timestamp without time zone) key [0] watermark 1 300000000us DoUpdateIfNotNull",
        ),
        (
            "CREATE TABLE t (watermark BIGINT, a INT[], j JSON)",
            "table t (watermark bigint, a integer[], j jsonb)",
        ),
        (
            "CREATE TABLE t (k INT PRIMARY KEY) APPEND ONLY",
            "table t (k integer not null) key [0] append only DoNothing",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(picture(sql), expected, "{sql}");
    }
}

#[test]
fn table_options() {
    let options = table(
        "CREATE TABLE t (id TEXT, a INT) WITH (dedup_key = 'id', dedup_window = '2 hours', idle_timeout = 'off', max_ahead = '10 min') APPEND ONLY",
    )
    .options;
    assert_eq!(options.dedup_key, Some(0));
    assert_eq!(options.dedup_window_us, 7_200_000_000);
    assert_eq!(options.idle_timeout_us, None);
    assert_eq!(options.max_ahead_us, 600_000_000);
    assert_eq!(table("CREATE TABLE t (a INT)").options, crate::TableOptions::default());
}

#[test]
fn types_of_columns() {
    use arrow::datatypes::{DataType, TimeUnit};
    let cases = [
        ("boolean", DataType::Boolean, "boolean"),
        ("int2", DataType::Int16, "smallint"),
        ("integer", DataType::Int32, "integer"),
        ("int8", DataType::Int64, "bigint"),
        ("real", DataType::Float32, "real"),
        ("float", DataType::Float64, "double precision"),
        ("double precision", DataType::Float64, "double precision"),
        ("numeric", DataType::Decimal128(38, 10), "numeric(38,10)"),
        ("numeric(7)", DataType::Decimal128(7, 0), "numeric(7,0)"),
        ("decimal(18, 2)", DataType::Decimal128(18, 2), "numeric(18,2)"),
        ("string", DataType::Utf8, "text"),
        ("character varying(3)", DataType::Utf8, "character varying(3)"),
        ("char(3)", DataType::Utf8, "character(3)"),
        ("bytea", DataType::Binary, "bytea"),
        ("date", DataType::Date32, "date"),
        ("time", DataType::Time64(TimeUnit::Microsecond), "time without time zone"),
        ("timestamp(3)", DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp without time zone"),
        ("timestamp with time zone", crate::catalog::timestamptz(), "timestamp with time zone"),
        ("timestamptz", crate::catalog::timestamptz(), "timestamp with time zone"),
        ("timestamp_ltz(3)", crate::catalog::timestamptz(), "timestamp with time zone"),
        ("jsonb", DataType::Utf8, "jsonb"),
        ("uuid", DataType::Utf8, "uuid"),
    ];
    for (written, data_type, name) in cases {
        let table = table(&format!("CREATE TABLE t (a {written})"));
        assert_eq!(
            (&table.columns[0].data_type, table.columns[0].sql_type.as_str()),
            (&data_type, name),
            "{written}"
        );
    }
    assert_eq!(
        failure("CREATE TABLE t (a NUMERIC(39,2))").message,
        "numeric precision 39 must be between 1 and 38"
    );
    assert_eq!(failure("CREATE TABLE t (a NUMERIC(5,6))").state, SqlState::InvalidParameterValue);
    let error = failure("CREATE TABLE t (a BIGNIT)");
    assert_eq!(error.to_string(), "type \"bignit\" does not exist (hint: did you mean \"bigint\"?)");
    assert_eq!(error.position, Some(19));
}

#[test]
fn views_and_indexes() {
    let cases = [
        ("CREATE VIEW v AS SELECT a FROM t", "view v <SELECT a FROM t>"),
        (
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS\n SELECT count(*)  FROM t -- all\n EMIT ON WINDOW CLOSE;",
            "view v <SELECT count(*)  FROM t> materialized on close if not exists",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW v WITH (late = 'amend', allowed_lateness = '1 minute') AS (SELECT 1)",
            "view v <(SELECT 1)> materialized or replace lateness 60000000us",
        ),
        ("CREATE VIEW v WITH (late = 'side') AS VALUES (1)", "view v <VALUES (1)>"),
        ("CREATE INDEX i ON v (a, \"B\")", "index i on v [\"a\", \"B\"] false"),
        ("CREATE INDEX IF NOT EXISTS ON v USING btree (a ASC)", "index v_a_idx on v [\"a\"] true"),
        ("CREATE INDEX ON v (a, b)", "index v_a_b_idx on v [\"a\", \"b\"] false"),
    ];
    for (sql, expected) in cases {
        assert_eq!(picture(sql), expected, "{sql}");
    }
}

#[test]
fn commands() {
    let cases = [
        ("DROP TABLE a", r#"Drop { kind: Table, names: ["a"], if_exists: false, cascade: false }"#),
        (
            "DROP MATERIALIZED VIEW IF EXISTS a, public.b CASCADE",
            r#"Drop { kind: MaterializedView, names: ["a", "b"], if_exists: true, cascade: true }"#,
        ),
        ("DROP VIEW a RESTRICT", r#"Drop { kind: View, names: ["a"], if_exists: false, cascade: false }"#),
        ("DROP INDEX i", r#"Drop { kind: Index, names: ["i"], if_exists: false, cascade: false }"#),
        ("SHOW TABLES", r#"Show(["tables"])"#),
        ("SHOW Columns FROM \"T\"", r#"Show(["columns", "from", "T"])"#),
        ("SHOW CREATE TABLE t", r#"Show(["create", "table", "t"])"#),
        ("SHOW TRANSACTION ISOLATION LEVEL", r#"Show(["transaction", "isolation", "level"])"#),
        ("SHOW a.b", r#"Show(["a.b"])"#),
        ("SET x = 1", r#"Set { name: "x", value: "1" }"#),
        ("SET LOCAL Statement_Timeout TO '5s'", r#"Set { name: "statement_timeout", value: "5s" }"#),
        ("SET extra_float_digits = -1", r#"Set { name: "extra_float_digits", value: "-1" }"#),
        ("SET search_path TO a, 'b'", r#"Set { name: "search_path", value: "a, b" }"#),
        ("SET TIME ZONE 'Europe/Berlin'", r#"Set { name: "timezone", value: "Europe/Berlin" }"#),
        ("SET NAMES 'utf8'", r#"Set { name: "client_encoding", value: "utf8" }"#),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            r#"Set { name: "session characteristics", value: "READ ONLY" }"#,
        ),
        ("RESET ALL", r#"Reset { name: "all" }"#),
        ("FLUSH", "Flush"),
        ("CHECKPOINT", "Checkpoint"),
        ("CANCEL JOB 1003", "CancelJob(1003)"),
        ("cancel jobs 7", "CancelJob(7)"),
        ("BEGIN", r#"Transaction { tag: "BEGIN" }"#),
        (
            "START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
            r#"Transaction { tag: "START TRANSACTION" }"#,
        ),
        ("COMMIT WORK", r#"Transaction { tag: "COMMIT" }"#),
        ("END", r#"Transaction { tag: "COMMIT" }"#),
        ("ROLLBACK TO SAVEPOINT a", r#"Transaction { tag: "ROLLBACK" }"#),
        ("SAVEPOINT a", r#"Transaction { tag: "SAVEPOINT" }"#),
        ("RELEASE SAVEPOINT a", r#"Transaction { tag: "RELEASE" }"#),
        ("DISCARD ALL", r#"Session { tag: "DISCARD ALL" }"#),
        ("DEALLOCATE PREPARE s1", r#"Session { tag: "DEALLOCATE" }"#),
        ("DEALLOCATE ALL", r#"Session { tag: "DEALLOCATE ALL" }"#),
        ("CLOSE c", r#"Session { tag: "CLOSE CURSOR" }"#),
        (
            "COPY t FROM STDIN",
            r#"CopyFrom { table: "t", columns: [], format: Text, header: false, delimiter: 9, null: "\\N" }"#,
        ),
        (
            "COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'x')",
            r#"CopyFrom { table: "t", columns: ["a", "b"], format: Csv, header: true, delimiter: 59, null: "x" }"#,
        ),
        (
            "COPY t FROM STDIN (FORMAT text, HEADER false)",
            r#"CopyFrom { table: "t", columns: [], format: Text, header: false, delimiter: 9, null: "\\N" }"#,
        ),
        (
            "COPY t FROM STDIN WITH CSV HEADER DELIMITER AS E'\\t' QUOTE '\"'",
            r#"CopyFrom { table: "t", columns: [], format: Csv, header: true, delimiter: 9, null: "" }"#,
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(picture(sql), expected, "{sql}");
    }
}

#[test]
fn data_changes_and_queries() {
    let cases = [
        ("INSERT INTO t VALUES (1) RETURNING *", "insert <INSERT INTO t VALUES (1) RETURNING *>"),
        ("UPDATE t SET a = 1 WHERE b RETURNING a", "update <UPDATE t SET a = 1 WHERE b RETURNING a>"),
        ("DELETE FROM t WHERE a = $1 RETURNING a", "delete <DELETE FROM t WHERE a = $1 RETURNING a>"),
        ("(SELECT 1) UNION ALL SELECT 2", "query <(SELECT 1) UNION ALL SELECT 2>"),
        (
            "WITH x AS (SELECT 1) SELECT * FROM x EMIT ON WINDOW CLOSE",
            "query <WITH x AS (SELECT 1) SELECT * FROM x>",
        ),
        ("EXPLAIN SELECT 1", "explain false <SELECT 1> at 8"),
        ("EXPLAIN (ANALYZE, VERBOSE off) SELECT 1", "explain true <SELECT 1> at 31"),
        (
            "EXPLAIN ANALYZE CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ON WINDOW CLOSE",
            "explain true <CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ON WINDOW CLOSE> at 16",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(picture(sql), expected, "{sql}");
    }
}

#[test]
fn flink_spelling_equals_ours() {
    let cases = [
        (
            "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) AS w",
            "SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) AS w",
        ),
        (
            "SELECT * FROM table ( hop ( table a.t, descriptor(ts), INTERVAL '1' MINUTES, INTERVAL '1' HOURS, INTERVAL '0' SECOND))",
            "SELECT * FROM hop(a.t, ts, INTERVAL '1' MINUTES, INTERVAL '1' HOURS, INTERVAL '0' SECOND)",
        ),
        (
            "SELECT (SELECT max(b) FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)))",
            "SELECT (SELECT max(b) FROM CUMULATE(t, ts, INTERVAL '1' HOUR, INTERVAL '1' DAY))",
        ),
    ];
    for (flink, ours) in cases {
        assert_eq!(picture(flink), picture(ours));
    }
}

#[test]
fn requests_are_split_at_semicolons() {
    let statements = parse(" ;SELECT 'ä;b' ; -- no; split\n\n  FLUSH;;").unwrap();
    let found: Vec<(&str, usize)> = statements.iter().map(|s| (s.sql.as_str(), s.offset)).collect();
    assert_eq!(found, [("SELECT 'ä;b'", 2), ("FLUSH", 33)]);
    assert!(parse("  -- nothing\n").unwrap().is_empty());
}

#[test]
fn positions_count_characters_of_the_request() {
    let cases = [
        ("SELECT * FORM t", "syntax error at or near \"FORM\"", Some(10), Some("did you mean \"FROM\"?")),
        (
            "SELECT 'größe', * FORM t",
            "syntax error at or near \"FORM\"",
            Some(19),
            Some("did you mean \"FROM\"?"),
        ),
        (
            "SELECT 'ü';\n-- ö\nSELEC 1",
            "syntax error at or near \"SELEC\"",
            Some(18),
            Some("did you mean \"SELECT\"?"),
        ),
        (
            "FLUSH; CREATE TABEL t (a INT)",
            "syntax error at or near \"TABEL\"",
            Some(15),
            Some("did you mean \"TABLE\"?"),
        ),
        ("SELECT 1 FROM", "syntax error at end of input", Some(14), None),
        ("SELECT a FORM t", "syntax error at or near \"t\"", Some(15), Some("did you mean \"FROM\"?")),
        ("SELECT 'abc", "unterminated quoted string", Some(8), None),
        (
            "FLUSH; EXPLAIN SELECT 1 FORM t x",
            "syntax error at or near \"t\"",
            Some(30),
            Some("did you mean \"FROM\"?"),
        ),
        ("xyzzy", "syntax error at or near \"xyzzy\"", Some(1), None),
        ("42", "syntax error at or near \"42\"", Some(1), None),
    ];
    for (sql, message, position, hint) in cases {
        let error = failure(sql);
        assert_eq!(error.state, SqlState::SyntaxError, "{sql}: {error:?}");
        assert_eq!(error.position, position, "{sql}: {error:?}");
        assert_eq!(error.hint.as_deref(), hint, "{sql}: {error:?}");
        assert_eq!(error.message, message, "{sql}");
    }
}

#[test]
fn refused_by_name() {
    let cases = [
        ("COPY t TO STDOUT", "COPY TO is not supported"),
        ("COPY (SELECT 1) TO '/tmp/x'", "COPY TO is not supported"),
        ("COPY t FROM '/etc/passwd'", "COPY FROM a file of the server is not supported"),
        ("COPY t FROM PROGRAM 'ls'", "COPY FROM PROGRAM is not supported"),
        ("COPY t FROM STDIN WITH (FORMAT binary)", "COPY format binary is not supported"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/x'", "CREATE EXTERNAL TABLE is not supported"),
        ("CREATE EXTENSION hstore", "CREATE EXTENSION is not supported"),
        ("CREATE TEMP TABLE t (a INT)", "CREATE TEMP TABLE is not supported"),
        ("CREATE PROCEDURE f() AS $$ SELECT 1; $$", "CREATE PROCEDURE is not supported"),
        ("CREATE OR REPLACE SOURCE s (a INT)", "CREATE OR REPLACE SOURCE is not supported"),
        ("CREATE ROLE r", "CREATE ROLE is not supported"),
        ("CREATE TABLE t AS SELECT 1", "CREATE TABLE AS is not supported"),
        ("CREATE OR REPLACE TABLE t (a INT)", "CREATE OR REPLACE TABLE is not supported"),
        ("CREATE TABLE t (a INT UNIQUE)", "a UNIQUE constraint is not supported"),
        ("CREATE TABLE t (a INT REFERENCES u)", "a FOREIGN KEY constraint is not supported"),
        ("CREATE TABLE t (a INT) PARTITION BY RANGE (a)", "PARTITION in CREATE TABLE is not supported"),
        ("CREATE TABLE t (a INT GENERATED BY DEFAULT AS IDENTITY)", "an IDENTITY column is not supported"),
        ("CREATE UNIQUE INDEX i ON t (a)", "CREATE UNIQUE INDEX is not supported"),
        ("CREATE INDEX i ON t (lower(a))", "an index on an expression is not supported"),
        ("CREATE VIEW v (a) AS SELECT 1", "a list of column names after the view's name is not supported"),
        ("DROP SCHEMA public", "DROP SCHEMA is not supported"),
        ("GRANT ALL ON t TO u", "GRANT is not supported"),
        ("REVOKE ALL ON t FROM u", "REVOKE is not supported"),
        ("ALTER TABLE t DROP COLUMN a", "ALTER ... DROP is not supported"),
        ("TRUNCATE t", "TRUNCATE is not supported"),
        ("MERGE INTO t USING s ON a = b WHEN MATCHED THEN DELETE", "MERGE is not supported"),
        ("PREPARE p AS SELECT 1", "PREPARE is not supported"),
        ("EXECUTE p", "EXECUTE is not supported"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE is not supported"),
        ("LISTEN x", "LISTEN is not supported"),
        ("VACUUM", "VACUUM is not supported"),
        ("DO $$ BEGIN END $$", "DO is not supported"),
        ("CALL p()", "CALL is not supported"),
        ("LOCK TABLE t", "LOCK is not supported"),
        ("REFRESH MATERIALIZED VIEW v", "REFRESH MATERIALIZED is not supported"),
        ("COMMIT PREPARED 'x'", "COMMIT PREPARED is not supported"),
        ("SELECT 1 INTO t", "SELECT INTO is not supported"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "INSERT ... ON CONFLICT is not supported"),
        ("SELECT * FROM a ASOF FULL JOIN b ON a.k >= b.k", "ASOF FULL JOIN is not supported"),
        (
            "SELECT * FROM a RIGHT JOIN b FOR SYSTEM_TIME AS OF PROCTIME() ON a.k = b.k",
            "RIGHT JOIN with FOR SYSTEM_TIME AS OF is not supported",
        ),
        (
            "SELECT * FROM a FOR SYSTEM_TIME AS OF '2024-01-01'",
            "FOR SYSTEM_TIME AS OF is supported after the right table of a JOIN only",
        ),
        ("EXPLAIN (FORMAT json) SELECT 1", "EXPLAIN format other than TEXT is not supported"),
    ];
    for (sql, message) in cases {
        let error = failure(sql);
        assert_eq!(error.message, message, "{sql}");
        assert_eq!(error.state, SqlState::FeatureNotSupported, "{sql}");
        assert!(error.position.is_some(), "{sql}");
    }
}

#[test]
fn table_mistakes_are_explained() {
    let cases = [
        (
            "CREATE TABLE t (a INT) WITH (dedup_windw = '1 day')",
            "unknown option \"dedup_windw\" of table \"t\" (hint: did you mean \"dedup_window\"?)",
        ),
        (
            "CREATE TABLE t (id INT) WITH (dedup_key = 'ids')",
            "column \"ids\" of table \"t\" does not exist (hint: did you mean \"id\"?)",
        ),
        (
            "CREATE TABLE t (a INT) WITH (max_ahead = 'soon')",
            "option \"max_ahead\": invalid interval \"soon\" (hint: write it like '5 seconds' or '1 hour 30 minutes')",
        ),
        ("CREATE TABLE t (a INT, A TEXT)", "column \"a\" specified more than once"),
        (
            "CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))",
            "a table has one PRIMARY KEY (hint: PRIMARY KEY (a, b) after the columns makes a key of several columns)",
        ),
        ("CREATE TABLE t (a INT, PRIMARY KEY (b))", "column \"b\" of table \"t\" does not exist"),
        (
            "CREATE TABLE t (a INT, WATERMARK FOR a AS a)",
            "watermark column \"a\" has type integer (hint: a watermark needs a TIMESTAMP or TIMESTAMPTZ column)",
        ),
        (
            "CREATE TABLE t (ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 month')",
            "months and years have no fixed length (hint: give the length in days, for example INTERVAL '30 days')",
        ),
        (
            "CREATE TABLE t (ts TIMESTAMP, WATERMARK FOR ts AS ts + INTERVAL '1 s')",
            "watermark of column \"ts\" must be the column less a constant interval (hint: WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
        ),
        ("CREATE TABLE t (a INT) ON CONFLICT DO NOTHING", "ON CONFLICT of table \"t\" needs a PRIMARY KEY"),
        (
            "CREATE TABLE t (a INT PRIMARY KEY) APPEND ONLY ON CONFLICT OVERWRITE",
            "APPEND ONLY table \"t\" can't update rows ON CONFLICT",
        ),
        (
            "CREATE TABLE other.t (a INT)",
            "schema \"other\" does not exist (hint: everything lives in the schema \"public\")",
        ),
        (
            "CREATE VIEW v WITH (late = 'amend') AS SELECT 1",
            "late = 'amend' needs allowed_lateness (hint: for example WITH (late = 'amend', allowed_lateness = '10 minutes'))",
        ),
    ];
    for (sql, message) in cases {
        let error = failure(sql);
        assert_eq!(error.to_string(), message, "{sql}");
        assert!(error.position.is_some(), "{sql}");
    }
}

#[test]
fn nothing_panics_on_cut_or_damaged_text() {
    let statements = [
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, ts TIMESTAMPTZ DEFAULT now(), WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (dedup_key = 'id')",
        "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY 1",
        "COPY t (a) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')",
        "EXPLAIN (ANALYZE) CREATE MATERIALIZED VIEW v AS SELECT 'ü' EMIT ON WINDOW CLOSE",
    ];
    for sql in statements {
        for cut in (0..=sql.len()).filter(|cut| sql.is_char_boundary(*cut)) {
            for text in [&sql[..cut], &sql[cut..]] {
                if let Err(error) = parse(text) {
                    let length = text.chars().count();
                    assert!(
                        error.position.is_some_and(|at| at >= 1 && at <= length + 1),
                        "{text}: {error:?}"
                    );
                }
            }
        }
    }
}
