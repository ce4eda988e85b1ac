"""System catalogs: psql's \\d commands, information_schema, SQLAlchemy's reflection, queries of DBeaver, Metabase, Grafana."""

import shutil
import subprocess

import psycopg
from checks import Skip, check, expect, expect_in, main

TABLES = """
CREATE TABLE IF NOT EXISTS cat_orders (id BIGINT PRIMARY KEY, customer VARCHAR(20) NOT NULL, amount NUMERIC(10,2) DEFAULT 1.5,
    data JSONB, at TIMESTAMPTZ, tags TEXT[], gross NUMERIC(12,2) GENERATED ALWAYS AS (amount * 2), CHECK (amount >= 0));
CREATE INDEX IF NOT EXISTS cat_by_customer ON cat_orders (customer);
CREATE MATERIALIZED VIEW IF NOT EXISTS cat_spent AS SELECT customer, sum(amount) AS spent FROM cat_orders GROUP BY customer;
CREATE VIEW IF NOT EXISTS cat_big AS SELECT customer FROM cat_spent WHERE spent > 10;
CREATE OR REPLACE FUNCTION cat_half(x NUMERIC(10,2)) RETURNS NUMERIC(10,2) RETURN x / 2;
COMMENT ON TABLE cat_orders IS 'what was bought';
COMMENT ON COLUMN cat_orders.amount IS 'in euros';
COMMENT ON MATERIALIZED VIEW cat_spent IS 'per customer';
"""


def connect(arguments):
    connection = psycopg.connect(
        host=arguments.host, port=arguments.port, dbname="dev", user="root", connect_timeout=10, autocommit=True
    )
    connection.execute(TABLES)
    return connection


def psql(arguments, command):
    """What psql prints for a command; it has to be content."""
    program = shutil.which("psql")
    if not program:
        raise Skip("psql is not installed: apt-get install postgresql-client")
    address = f"host={arguments.host} port={arguments.port} dbname=dev user=root connect_timeout=10"
    done = subprocess.run(
        [program, "-X", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", address, "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise AssertionError(f"psql {command}: {done.stderr.strip()}")
    return done.stdout


def shows(arguments, command, *parts):
    connect(arguments).close()
    shown = psql(arguments, command)
    for part in parts:
        expect_in(part, shown, command)
    return shown


@check
def psql_lists_relations(arguments):
    shows(arguments, r"\d", "cat_orders", "cat_spent", "cat_big", "materialized view", "root")
    tables = shows(arguments, r"\dt", "cat_orders")
    expect("cat_spent" in tables, False, "a view among the tables")
    shows(arguments, r"\dt+ cat_orders", "what was bought")
    shows(arguments, r"\dm", "cat_spent")
    shows(arguments, r"\dv", "cat_big")
    shows(arguments, r"\di", "cat_by_customer", "cat_orders_pkey")
    shows(arguments, r"\df", "cat_half", "numeric")
    shows(arguments, r"\dn", "public")
    shows(arguments, r"\du", "root")
    shows(arguments, r"\l", "dev", "UTF8")
    shows(arguments, r"\dT", "")
    shows(arguments, r"\dp cat_orders", "cat_orders")
    shows(arguments, r"\ds", "")


@check
def psql_describes_a_table(arguments):
    shows(
        arguments,
        r"\d cat_orders",
        'Table "public.cat_orders"',
        "character varying(20)",
        "numeric(10,2)",
        "timestamp with time zone",
        "text[]",
        "not null",
        "generated always as",
        '"cat_orders_pkey" PRIMARY KEY',
        '"cat_by_customer"',
        "CHECK (amount >= 0)",
    )
    shows(arguments, r"\d+ cat_orders", "in euros")


@check
def psql_describes_views_and_indexes(arguments):
    shows(arguments, r"\d cat_spent", 'Materialized view "public.cat_spent"', "customer", "spent")
    shows(arguments, r"\d+ cat_spent", "View definition", "sum(amount)")
    shows(arguments, r"\d cat_big", 'View "public.cat_big"')
    shows(arguments, r"\d cat_by_customer", "customer")
    shows(arguments, r"\sv cat_big", "SELECT customer FROM cat_spent")


@check
def information_schema_has_what_tools_read(arguments):
    with connect(arguments) as connection:
        rows = connection.execute(
            "SELECT column_name, data_type, is_nullable, udt_name FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            ("public", "cat_orders"),
        ).fetchall()
        expect(rows[0], ("id", "bigint", "NO", "int8"))
        expect(rows[1], ("customer", "character varying", "NO", "varchar"))
        expect(rows[5], ("tags", "ARRAY", "YES", "_text"))
        kinds = connection.execute(
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_name LIKE 'cat_%' ORDER BY 1"
        ).fetchall()
        expect(kinds, [("cat_big", "VIEW"), ("cat_orders", "BASE TABLE"), ("cat_spent", "MATERIALIZED VIEW")])
        keys = connection.execute(
            "SELECT kcu.column_name FROM information_schema.table_constraints tc"
            " JOIN information_schema.key_column_usage kcu ON kcu.constraint_name = tc.constraint_name"
            " WHERE tc.constraint_type = 'PRIMARY KEY' AND tc.table_name = 'cat_orders'"
        ).fetchall()
        expect(keys, [("id",)])


# Sent by the tools when they connect or list tables, shortened to what is particular.
TOOL_QUERIES = {
    "Grafana": [
        "SELECT current_setting('server_version_num')::int/100 as version",
        "SELECT CASE WHEN quote_ident(table_schema) IN ('public') THEN quote_ident(table_name)"
        " ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\""
        " FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN"
        " ('information_schema', 'pg_catalog', '_timescaledb_cache') ORDER BY 1",
        "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns"
        " WHERE quote_ident(table_name) = 'cat_orders'",
    ],
    "Metabase": [
        "SELECT n.nspname AS \"schema\", c.relname AS \"name\", CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW'"
        " WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS \"type\", d.description AS \"description\""
        " FROM pg_catalog.pg_class c INNER JOIN pg_catalog.pg_namespace n ON c.relnamespace = n.oid"
        " LEFT JOIN pg_catalog.pg_description d ON c.oid = d.objoid AND d.objsubid = 0"
        " LEFT JOIN pg_catalog.pg_class dc ON d.classoid = dc.oid AND dc.relname = 'pg_class'"
        " WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND n.nspname !~ 'information_schema|catalog_history|pg_'"
        " ORDER BY \"schema\", \"name\"",
    ],
    "DBeaver": [
        "SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n"
        " LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass"
        " ORDER BY nspname",
        "SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr,"
        " pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c"
        " LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass"
        " WHERE c.relnamespace=2200 AND c.relkind not in ('i','I','c')",
        "SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description"
        " FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)"
        " LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)"
        " LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)"
        " WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') ORDER BY a.attnum",
        "SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description"
        " FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid"
        " LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid WHERE t.typname IS NOT NULL",
        "SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate ORDER BY db.datname",
        "SELECT current_schema(),session_user",
        "SELECT version()",
    ],
    "JDBC": [
        "SELECT e.typdelim FROM pg_catalog.pg_type t, pg_catalog.pg_type e WHERE t.oid = 20 and t.typelem = e.oid",
        "SELECT t.typname,t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON (t.typnamespace = n.oid)"
        " WHERE n.nspname != 'pg_toast' ORDER BY t.oid",
    ],
}


@check
def queries_of_tools_are_answered(arguments):
    with connect(arguments) as connection:
        for tool, queries in TOOL_QUERIES.items():
            for query in queries:
                try:
                    rows = connection.execute(query).fetchall()
                except psycopg.Error as error:
                    raise AssertionError(f"{tool}: {error} in {query}") from error
                if not rows and tool != "JDBC":
                    raise AssertionError(f"{tool}: no rows for {query}")


@check
def sqlalchemy_reflects(arguments):
    try:
        import sqlalchemy
    except ImportError:
        raise Skip("SQLAlchemy is not in the venv; remove target/e2e-venv to have it installed") from None
    connect(arguments).close()
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://root@{arguments.host}:{arguments.port}/dev")
    inspector = sqlalchemy.inspect(engine)
    expect_in("cat_orders", inspector.get_table_names())
    expect_in("cat_big", inspector.get_view_names())
    expect_in("cat_spent", inspector.get_materialized_view_names())
    expect_in("public", inspector.get_schema_names())
    columns = {column["name"]: column for column in inspector.get_columns("cat_orders")}
    expect(str(columns["id"]["type"]), "BIGINT")
    expect(str(columns["amount"]["type"]), "NUMERIC(10, 2)")
    expect(str(columns["customer"]["type"]), "VARCHAR(20)")
    expect(str(columns["data"]["type"]), "JSONB")
    expect(columns["id"]["nullable"], False)
    expect(columns["amount"]["comment"], "in euros")
    expect(inspector.get_pk_constraint("cat_orders")["constrained_columns"], ["id"])
    indexes = {index["name"]: index["column_names"] for index in inspector.get_indexes("cat_orders")}
    expect(indexes.get("cat_by_customer"), ["customer"])
    expect_in("FROM cat_spent", inspector.get_view_definition("cat_big"))
    expect(inspector.get_foreign_keys("cat_orders"), [])
    expect(inspector.get_unique_constraints("cat_orders"), [])
    expect(inspector.get_check_constraints("cat_orders")[0]["sqltext"], "amount >= 0")
    expect(inspector.get_table_comment("cat_orders")["text"], "what was bought")
    table = sqlalchemy.Table("cat_orders", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM cat_orders"))
        connection.execute(sqlalchemy.insert(table).values(id=1, customer="ann", amount=12))
        connection.execute(sqlalchemy.text("FLUSH"))
        rows = connection.execute(sqlalchemy.select(table.c.customer).where(table.c.id == 1)).fetchall()
        expect([tuple(row) for row in rows], [("ann",)])
    engine.dispose()


@check
def unbounded_state_is_noticed(arguments):
    notices = []
    with connect(arguments) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice))
        connection.execute("CREATE TABLE cat_clicks (visitor BIGINT) APPEND ONLY")
        connection.execute("CREATE MATERIALIZED VIEW cat_visitors AS SELECT visitor, count(*) AS n FROM cat_clicks GROUP BY visitor")
        expect(len(notices), 1, "notices")
        expect(notices[0].severity_nonlocalized, "NOTICE")
        expect_in("never freed", notices[0].message_primary)
        expect_in("WATERMARK", notices[0].message_hint)
        connection.execute("DROP TABLE cat_clicks CASCADE")


@check
def explain_analyze_shows_the_running_view(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE cat_explained (k INT PRIMARY KEY, v INT)")
        connection.execute("CREATE MATERIALIZED VIEW cat_explained_sum AS SELECT v, count(*) AS n FROM cat_explained GROUP BY v")
        connection.execute("INSERT INTO cat_explained VALUES (1, 1), (2, 1), (3, 2)")
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN ANALYZE cat_explained_sum").fetchall())
        expect_in("rows in 3, rows out 2", plan)
        expect_in("state 2 rows", plan)
        connection.execute("DROP TABLE cat_explained CASCADE")


if __name__ == "__main__":
    main()
