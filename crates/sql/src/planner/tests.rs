//! Queries in, tables out, on tiny tables.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;

use super::*;
use crate::statement::Statement;

async fn shop() -> SessionContext {
    let context = session_context(&PlannerConfig { batch_size: 2, ..PlannerConfig::default() });
    let tables = [
        (
            "clicks",
            "SELECT column1::bigint AS user_id, column2::timestamptz AS ts, column3::bigint AS n FROM (VALUES
             (1, '1970-01-01T00:00:05Z', 1), (2, '1970-01-01T00:01:00Z', 2), (1, '1969-12-31T23:59:59Z', 3), (3, NULL, 4))",
        ),
        ("orders", "SELECT 1::bigint AS id, 10.50::decimal(18,2) AS amount, '{\"a\": [1, 2.50], \"b\": \"x\"}'::jsonb AS data"),
    ];
    for (name, sql) in tables {
        let batches = run(&context, sql).await.unwrap();
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    context
}

async fn plan(context: &SessionContext, sql: &str) -> Result<LogicalPlan> {
    let query = crate::parse_query(sql)?;
    bind_query(&context.state(), &query, sql).await
}

async fn run(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    let plan = plan(context, sql).await?;
    let frame = context.execute_logical_plan(plan).await.map_err(|error| from_datafusion(error, sql))?;
    frame.collect().await.map_err(|error| from_datafusion(error, sql))
}

async fn table(context: &SessionContext, sql: &str) -> String {
    let batches = run(context, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let text = pretty_format_batches(&batches).unwrap().to_string();
    text.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | "))
        .collect::<Vec<_>>()
        .join("\n")
}

async fn value(context: &SessionContext, expr: &str) -> String {
    table(context, &format!("SELECT {expr} AS x")).await.lines().nth(1).unwrap_or_default().to_string()
}

async fn failure(context: &SessionContext, sql: &str) -> SqlError {
    match run(context, sql).await {
        Ok(batches) => panic!("{sql} gave {batches:?}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn window_functions_give_rows_their_windows() {
    let context = shop().await;
    let tumble = "SELECT n, window_start, window_end FROM TUMBLE(clicks, ts, INTERVAL '1 minute') ORDER BY n, window_start";
    assert_eq!(
        table(&context, tumble).await,
        "n | window_start | window_end\n\
         1 | 1970-01-01T00:00:00Z | 1970-01-01T00:01:00Z\n\
         2 | 1970-01-01T00:01:00Z | 1970-01-01T00:02:00Z\n\
         3 | 1969-12-31T23:59:00Z | 1970-01-01T00:00:00Z"
    );
    let hop = "SELECT n, h.window_end FROM HOP(clicks, ts, INTERVAL '30' SECOND, INTERVAL '1' MINUTE) AS h WHERE n <> 2 ORDER BY n, window_start";
    assert_eq!(
        table(&context, hop).await,
        "n | window_end\n\
         1 | 1970-01-01T00:00:30Z\n\
         1 | 1970-01-01T00:01:00Z\n\
         3 | 1970-01-01T00:00:00Z\n\
         3 | 1970-01-01T00:00:30Z"
    );
    let cumulate = "SELECT n, window_start, window_end FROM CUMULATE(clicks, ts, INTERVAL '1 hour', INTERVAL '2 hours', INTERVAL '1 hour') WHERE n < 3 ORDER BY n, window_end";
    assert_eq!(
        table(&context, cumulate).await,
        "n | window_start | window_end\n\
         1 | 1969-12-31T23:00:00Z | 1970-01-01T01:00:00Z\n\
         2 | 1969-12-31T23:00:00Z | 1970-01-01T01:00:00Z"
    );
    let grouped = "WITH c AS (SELECT * FROM clicks WHERE user_id < 3) SELECT window_start, count(*) AS n FROM TUMBLE(c, ts, INTERVAL '1 day') GROUP BY window_start ORDER BY 1";
    assert_eq!(
        table(&context, grouped).await,
        "window_start | n\n1969-12-31T00:00:00Z | 1\n1970-01-01T00:00:00Z | 2"
    );
    let subquery = "SELECT count(*) AS n FROM TUMBLE((SELECT ts FROM clicks), ts, INTERVAL '1 day')";
    assert_eq!(table(&context, subquery).await, "n\n3");
}

#[tokio::test]
async fn flink_spelling_gives_the_same_rows() {
    let context = shop().await;
    let pairs = [
        (
            "TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' MINUTES))",
            "TUMBLE(clicks, ts, INTERVAL '1 minute')",
        ),
        (
            "TABLE(HOP(TABLE clicks, DESCRIPTOR(ts), INTERVAL '30' SECONDS, INTERVAL '1' HOUR))",
            "HOP(clicks, ts, INTERVAL '30 seconds', INTERVAL '1 hour')",
        ),
        (
            "TABLE(CUMULATE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY))",
            "CUMULATE(clicks, ts, INTERVAL '1 hour', INTERVAL '1 day')",
        ),
    ];
    for (flink, ours) in pairs {
        let select = |from: &str| format!("SELECT * FROM {from} ORDER BY n, window_start, window_end");
        assert_eq!(table(&context, &select(flink)).await, table(&context, &select(ours)).await, "{flink}");
    }
}

#[tokio::test]
async fn window_mistakes_are_explained() {
    let context = shop().await;
    let cases = [
        (
            "TUMBLE(clicks, n, INTERVAL '1 minute')",
            "time column \"n\" of TUMBLE has type bigint, not timestamp",
        ),
        (
            "TUMBLE(clicks, ts, INTERVAL '1 month')",
            "months and years have no fixed length (hint: give the length in days, for example INTERVAL '30 days')",
        ),
        (
            "HOP(clicks, ts, INTERVAL '7 seconds', INTERVAL '1 minute')",
            "size 1 minute of HOP is not a multiple of its slide 7 seconds",
        ),
        ("TUMBLE(clicks, ts, INTERVAL '0 seconds')", "size of TUMBLE must be positive"),
        (
            "TUMBLE(clicks, ts)",
            "wrong number of arguments: 2 (hint: write TUMBLE(table, time_column, size [, offset]))",
        ),
        (
            "TUMBLE(clicks, tss, INTERVAL '1 minute')",
            "column \"tss\" does not exist (hint: did you mean \"ts\"?)",
        ),
        (
            "TUMBLE(clikcs, ts, INTERVAL '1 minute')",
            "relation \"clikcs\" does not exist (hint: did you mean \"clicks\"?)",
        ),
    ];
    for (from, message) in cases {
        let error = failure(&context, &format!("SELECT 'ü' FROM {from}")).await;
        assert_eq!(error.to_string(), message, "{from}");
        assert!(error.position.is_some_and(|at| at > 16), "{from}: {error:?}");
    }
}

#[tokio::test]
async fn filters_and_projections_pass_the_window() {
    let context = shop().await;
    let sql = "SELECT window_start FROM TUMBLE(clicks, ts, INTERVAL '1 minute') WHERE user_id = 1 AND window_start > TIMESTAMPTZ '1970-01-01'";
    let plan = optimize_for_streaming(&context.state(), plan(&context, sql).await.unwrap()).unwrap();
    let text = plan.display_indent().to_string();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in\n{text}"));
    assert!(at("user_id = Int64(1)") > at("WindowTvf"), "{text}");
    assert!(text.find("window_start >").unwrap() < at("WindowTvf"), "{text}");
    assert!(!text[at("TableScan")..].contains("projection=[user_id, ts, n]"), "{text}");
}

#[tokio::test]
async fn top_n_stays_a_filter_over_a_window() {
    let context = shop().await;
    let sql = "SELECT * FROM (SELECT user_id, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY n DESC) AS rn FROM clicks) x WHERE rn <= 2";
    let plan = optimize_for_streaming(&context.state(), plan(&context, sql).await.unwrap()).unwrap();
    let lines: Vec<String> =
        plan.display_indent().to_string().lines().map(|line| line.trim().to_string()).collect();
    let filter = lines.iter().position(|line| line.starts_with("Filter:")).unwrap();
    let window = lines.iter().position(|line| line.starts_with("WindowAggr:")).unwrap();
    assert!(filter < window, "{lines:?}");
    assert!(lines[filter + 1..window].iter().all(|line| line.starts_with("Projection:")), "{lines:?}");
}

#[tokio::test]
async fn streaming_plans_keep_what_the_engine_looks_for() {
    let context = shop().await;
    let text = |plan: LogicalPlan| plan.display_indent().to_string();
    let distinct = "SELECT user_id, count(DISTINCT n) FROM clicks GROUP BY user_id";
    let planned = optimize_for_streaming(&context.state(), plan(&context, distinct).await.unwrap()).unwrap();
    assert_eq!(text(planned.clone()).matches("Aggregate:").count(), 1, "{}", text(planned));
    let exists = "SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM clicks WHERE clicks.user_id = orders.id)";
    let planned = optimize_for_streaming(&context.state(), plan(&context, exists).await.unwrap()).unwrap();
    assert!(text(planned.clone()).contains("LeftSemi Join"), "{}", text(planned));
    let scalar = "SELECT id FROM orders WHERE id < (SELECT max(n) FROM clicks)";
    let planned = optimize_for_streaming(&context.state(), plan(&context, scalar).await.unwrap()).unwrap();
    assert!(text(planned.clone()).contains("Join"), "{}", text(planned));
    let clock = "SELECT * FROM clicks WHERE ts > now() - INTERVAL '1 hour'";
    let planned = optimize_for_streaming(&context.state(), plan(&context, clock).await.unwrap()).unwrap();
    assert!(text(planned.clone()).contains("now()"), "the engine moves the filter: {}", text(planned));
    let clock = "SELECT now(), n FROM clicks";
    let error = optimize_for_streaming(&context.state(), plan(&context, clock).await.unwrap()).unwrap_err();
    assert!(error.message.contains("now()"), "{error:?}");
}

#[tokio::test]
async fn overflow_is_an_error() {
    let context = shop().await;
    for sql in [
        "SELECT 9223372036854775807 + 1",
        "SELECT n + 9223372036854775807 FROM clicks",
        "SELECT n FROM clicks WHERE n * 9223372036854775807 > 0",
        "SELECT -2 - (n + 9223372036854775800) * 2 FROM clicks",
        "SELECT 300000::int * 300000::int",
        "SELECT 99999999999::int",
        "SELECT to_timestamp(9223372036854775807)",
    ] {
        let error = failure(&context, sql).await;
        assert_eq!(error.state, SqlState::NumericValueOutOfRange, "{sql}: {error:?}");
    }
    assert_eq!(
        table(&context, "SELECT 2 + 3 * 4 AS x, n - 1 AS y FROM clicks WHERE n = 1").await,
        "x | y\n14 | 0"
    );
}

#[tokio::test]
async fn errors_have_state_position_and_hint() {
    let context = shop().await;
    let cases = [
        (
            "SELECT * FROM ordrs",
            "42P01",
            "relation \"ordrs\" does not exist (hint: did you mean \"orders\"?)",
            Some(15),
        ),
        (
            "SELECT 'é', amuont FROM orders",
            "42703",
            "column \"amuont\" does not exist (hint: did you mean \"amount\"?)",
            Some(13),
        ),
        (
            "SELECT o.amuont FROM orders o",
            "42703",
            "column \"o.amuont\" does not exist (hint: did you mean \"amount\"?)",
            None,
        ),
        (
            "SELECT cuont(*) FROM orders",
            "42883",
            "function cuont does not exist (hint: did you mean \"count\"?)",
            Some(8),
        ),
        ("SELECT a.n FROM clicks a, clicks a", "42701", "", None),
        (
            "SELECT n FROM clicks a, clicks b",
            "42702",
            "column reference \"n\" is ambiguous (hint: put the table's name or alias before it)",
            None,
        ),
        ("SELECT user_id, count(*) FROM clicks GROUP BY n", "42803", "", None),
        ("SELECT 1 / 0", "22012", "division by zero", None),
        ("SELECT n / 0 FROM clicks", "22012", "division by zero", None),
        ("SELECT 'abc'::bigint", "22P02", "", None),
        ("SELECT 'abc'::timestamptz", "22P02", "", None),
        ("SELECT ts + 'x'::text FROM clicks WHERE ts = true", "42804", "", None),
        ("SELECT sum(data) FROM orders", "42883", "", None),
        ("SELECT * FROM zzzzzzzzz(1)", "42883", "function zzzzzzzzz does not exist", None),
        ("SELECT 1::serial", "42704", "", None),
    ];
    for (sql, code, message, position) in cases {
        let error = failure(&context, sql).await;
        assert_eq!(error.state.code(), code, "{sql}: {error:?}");
        if !message.is_empty() {
            assert_eq!(error.to_string(), message, "{sql}");
        }
        if position.is_some() {
            assert_eq!(error.position, position, "{sql}: {error:?}");
        }
        for noise in
            ["feature is not implemented", "Error during planning", " { ", "DataFusion", "Arrow error", "\n"]
        {
            assert!(!error.message.contains(noise), "{sql}: {error:?}");
        }
    }
}

#[tokio::test]
async fn types_in_casts_are_those_of_tables() {
    let context = shop().await;
    let cases = [
        ("pg_typeof('2020-01-01'::timestamptz)", "timestamp with time zone"),
        ("pg_typeof('2020-01-01'::timestamp(9))", "timestamp without time zone"),
        ("pg_typeof(1::float)", "double precision"),
        ("pg_typeof(10.25)", "numeric(4,2)"),
        ("pg_typeof('a'::uuid)", "uuid"),
        ("pg_typeof(now())", "timestamp with time zone"),
        ("pg_typeof(1::numeric)", "numeric(38,10)"),
        ("pg_typeof(ARRAY[1, 2]::int[])", "integer[]"),
    ];
    for (expr, expected) in cases {
        assert_eq!(value(&context, expr).await, expected, "{expr}");
    }
    use arrow::datatypes::{DataType, TimeUnit};
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    for (expr, expected) in [
        ("'2020-01-01'::timestamptz", micros(Some("UTC"))),
        ("TIMESTAMP '2020-01-01 00:00:00'", micros(None)),
        ("to_timestamp(1)", micros(Some("UTC"))),
        ("now()", micros(Some("UTC"))),
        ("date_trunc('hour', to_timestamp(1))", micros(Some("UTC"))),
        ("date_bin(INTERVAL '1 minute', to_timestamp(90))", micros(Some("UTC"))),
        ("date_bin(INTERVAL '1 minute', to_timestamp(90), to_timestamp(30))", micros(Some("UTC"))),
        ("date_bin('1 minute', TIMESTAMP '2020-01-01 00:00:10')", micros(None)),
        ("date_bin('1 day', DATE '2020-01-01', TIMESTAMP '2020-01-01 06:00:00')", micros(None)),
        ("'x'::varchar", DataType::Utf8),
    ] {
        let batches = run(&context, &format!("SELECT {expr} AS x")).await.unwrap();
        assert_eq!(batches[0].column(0).data_type(), &expected, "{expr}");
    }
}

#[tokio::test]
async fn functions_of_shops_and_clients() {
    let context = shop().await;
    let cases = [
        ("to_timestamp(0)", "1970-01-01T00:00:00Z"),
        ("to_timestamp(1.5)", "1970-01-01T00:00:01.500Z"),
        ("to_timestamp(-1::bigint)", "1969-12-31T23:59:59Z"),
        ("to_timestamp('2020-02-03T04:05:06Z')", "2020-02-03T04:05:06Z"),
        ("to_char(to_timestamp(1511658000), 'YYYY-MM-DD HH24:MI:SS.MS')", "2017-11-26 01:00:00.000"),
        ("to_char(to_timestamp(1511658000), 'FMMonth DD, HH12 am \"Monday\"')", "November 26, 01 am Monday"),
        ("to_char('2020-02-03'::date, 'Dy Mon FMDD YY Q')", "Mon Feb 3 20 1"),
        ("split_part('a/b/c', '/', 2)", "b"),
        ("extract(epoch from to_timestamp(90))", "90.0"),
        ("date_trunc('minute', to_timestamp(90))", "1970-01-01T00:01:00Z"),
        ("date_bin(INTERVAL '1 minute', to_timestamp(90))", "1970-01-01T00:01:00Z"),
        ("date_bin('15 minutes', TIMESTAMP '2020-02-11 15:44:17', '2001-01-01')", "2020-02-11T15:30:00"),
        (
            "date_bin('15 minutes', TIMESTAMP '2020-02-11 15:44:17', '2001-01-01 00:02:30')",
            "2020-02-11T15:32:30",
        ),
        ("date_bin('1 day', TIMESTAMP '1969-12-31 23:00:00')", "1969-12-31T00:00:00"),
        ("date_bin('1 minute', TIMESTAMP '9999-12-31 23:59:59')", "9999-12-31T23:59:00"),
        ("date_bin('1 minute', NULL::timestamp)", ""),
        ("INTERVAL '1 day 02:03:04' = INTERVAL '1 day 2 hours 3 minutes 4 seconds'", "true"),
        ("'02:03'::interval = INTERVAL '123 minutes'", "true"),
        ("CAST('-1 day -00:00:01.5' AS INTERVAL) = INTERVAL '-1 days -1.5 seconds'", "true"),
        ("'{\"a\": {\"b\": 1.50}}'::jsonb -> 'a'", "{\"b\": 1.50}"),
        ("'{\"a\": {\"b\": 1.50}}'::jsonb -> 'a' ->> 'b'", "1.50"),
        ("'{\"a\": \"x\\u00e4\"}'::jsonb ->> 'a'", "xä"),
        ("'{\"a\": \"x\"}'::jsonb -> 'a'", "\"x\""),
        ("'[1, 2, 3]'::jsonb -> -1", "3"),
        ("'[1, 2, 3]'::jsonb ->> 3", ""),
        ("'{\"a\": null}'::jsonb ->> 'a'", ""),
        ("'{\"a\": 1}'::jsonb ->> 'b'", ""),
        ("'{\"a\": 1, \"a\": 2}'::jsonb ->> 'a'", "2"),
        ("'[1]'::jsonb ->> 'a'", ""),
        ("current_database()", "dev"),
        ("current_schema()", "public"),
    ];
    for (expr, expected) in cases {
        assert_eq!(value(&context, expr).await, expected, "{expr}");
    }
    assert!(value(&context, "version()").await.starts_with("PostgreSQL 16.6 (Shopstream "));
    assert_eq!(
        table(&context, "SELECT data -> 'a' ->> 1 AS x, data ->> 'b' AS y FROM orders").await,
        "x | y\n2.50 | x"
    );
    assert_eq!(
        failure(&context, "SELECT '{\"a\"'::jsonb -> 'a'").await.state,
        SqlState::InvalidTextRepresentation
    );
    assert_eq!(table(&context, "SELECT amount * 1.1 AS x FROM orders").await, "x\n11.550");
}

#[tokio::test]
async fn tables_are_bound() {
    let context = shop().await;
    let bound = |sql: &str| {
        let Statement::CreateTable { table, .. } = crate::parse(sql).unwrap().remove(0).statement else {
            panic!()
        };
        bind_table(&context.state(), &table)
    };
    let table = bound(
        "CREATE TABLE t (s BIGINT, ts AS to_timestamp(s), d TEXT AS to_char(to_timestamp(s), 'YYYY'), at TIMESTAMPTZ DEFAULT now(), \
         WATERMARK FOR ts AS ts - INTERVAL '5 seconds', CHECK (s > 0 AND d <> ''))",
    )
    .unwrap();
    assert_eq!(table.columns[1].data_type, crate::catalog::timestamptz());
    assert_eq!(table.columns[1].sql_type, "timestamp with time zone");
    let cases = [
        (
            "CREATE TABLE t (a INT, b AS c + 1)",
            "generated column \"b\" of table \"t\": column \"c\" does not exist",
        ),
        (
            "CREATE TABLE t (a INT, CHECK (a + 1))",
            "CHECK \"t_check\" of table \"t\" has type bigint, not boolean",
        ),
        (
            "CREATE TABLE t (a INT, ts AS a, WATERMARK FOR ts AS ts)",
            "watermark column \"ts\" has type integer",
        ),
        (
            "CREATE TABLE t (a INT, b TIMESTAMP DEFAULT true)",
            "column \"b\" of table \"t\" has type timestamp without time zone but its expression has type boolean",
        ),
    ];
    for (sql, message) in cases {
        assert_eq!(bound(sql).unwrap_err().message, message, "{sql}");
    }
}

#[tokio::test]
async fn columns_of_a_result_may_have_one_name() {
    let context = shop().await;
    let names = async |sql: &str| {
        let query = crate::parse_query(sql).unwrap();
        let bound = bind_output(&context.state(), &query, sql).await;
        let BoundOutput { plan, names } = bound.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await;
        let batches = batches.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let width = names.as_ref().map_or(0, Vec::len);
        assert!(width == 0 || batches.iter().all(|batch| batch.num_columns() == width), "{sql}");
        names.map(|names| names.join(","))
    };
    for (sql, expected) in [
        ("SELECT n, n FROM clicks", "n,n"),
        ("SELECT 1, 1", "Int64(1),Int64(1)"),
        (
            "SELECT count(*), count(*), max(n) AS n FROM clicks GROUP BY user_id ORDER BY n",
            "count(*),count(*),n",
        ),
        ("SELECT n, user_id AS n FROM clicks ORDER BY user_id", "n,n"),
        ("SELECT n AS x, n + 1 AS X FROM clicks", "x,x"),
        ("SELECT *, * FROM orders", "id,amount,data,id,amount,data"),
        ("SELECT *, o.* FROM orders AS o ORDER BY id LIMIT 1", "id,amount,data,id,amount,data"),
        ("SELECT *, 1 AS id FROM orders", "id,amount,data,id"),
        ("SELECT DISTINCT n, n FROM clicks", "n,n"),
        ("SELECT n, n FROM clicks UNION ALL SELECT 1, 2", "n,n"),
        ("WITH c AS (SELECT n FROM clicks) SELECT n, n FROM c WHERE n > 1", "n,n"),
        ("SELECT rank() OVER (ORDER BY n), rank() OVER (ORDER BY n) FROM clicks LIMIT 1", ""),
    ] {
        let found = names(sql).await.unwrap_or_else(|| panic!("{sql} needs other names"));
        let expected = if expected.is_empty() { found.clone() } else { expected.to_string() };
        assert_eq!(found, expected, "{sql}");
        assert!(!found.contains("__output"), "{found}");
    }
    for sql in ["SELECT n, user_id FROM clicks", "SELECT a.n, b.n FROM clicks a JOIN clicks b ON a.n = b.n"] {
        assert_eq!(names(sql).await, None, "{sql}");
    }
    // What is wrong for another reason stays so, and what is stored needs its names.
    let ambiguous = "SELECT n, n FROM clicks a JOIN clicks b ON a.n = b.n";
    let query = crate::parse_query(ambiguous).unwrap();
    let error = bind_output(&context.state(), &query, ambiguous).await.err().unwrap();
    assert_eq!(error.state, SqlState::AmbiguousColumn);
    assert_eq!(plan(&context, "SELECT n, n FROM clicks").await.unwrap_err().state, SqlState::DuplicateColumn);
}

#[tokio::test]
async fn statements_tell_the_types_of_parameters() {
    use arrow::datatypes::DataType;
    let context = shop().await;
    for (sql, expected) in [
        ("SELECT $1::bigint", Some(DataType::Int64)),
        ("SELECT CAST($1 AS bigint) + 1 AS a, $1 AS b", Some(DataType::Int64)),
        ("SELECT $1 AS a, $1::date AS b", Some(DataType::Date32)),
        ("SELECT n FROM clicks WHERE n = $1", Some(DataType::Int64)),
        (
            "SELECT $1::bigint FROM clicks WHERE n IN (SELECT n FROM clicks WHERE n > $1::bigint)",
            Some(DataType::Int64),
        ),
        ("SELECT $1::bigint AS a, $1::text AS b", Some(DataType::Int64)),
        ("SELECT lower($1)", Some(DataType::Utf8)),
        ("SELECT n FROM clicks WHERE n = ANY($1)", Some(DataType::new_list(DataType::Int64, true))),
        ("SELECT n FROM clicks LIMIT $1", Some(DataType::Int64)),
        ("SELECT $1", None),
    ] {
        let types = plan(&context, sql).await.unwrap().get_parameter_types().unwrap();
        assert_eq!(types["$1"], expected, "{sql}");
    }
}
