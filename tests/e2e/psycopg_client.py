"""psycopg 3 against the Postgres interface: protocols, formats, types, COPY, cancel, timeouts, errors."""

import contextlib
import os
import select
import socket
import threading
import time
import types
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import psycopg
from checks import Skip, check, expect, expect_in, main, wait_until
from psycopg import pq
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

# Minutes of work, spread over many small batches.
LONG_QUERY = "SELECT sum(value % 7) FROM generate_series(1, 400000000000) g(value)"
# The same with a join.
LONG_JOIN = "SELECT sum(a.value % 3 + b.value % 5) FROM generate_series(1, 3000000) a(value) CROSS JOIN generate_series(1, 3000000) b(value)"

# A join that gives no row: it never comes back between two of them.
FUTILE_JOIN = "SELECT count(*) FROM generate_series(1, 3000000) a(value) JOIN generate_series(1, 3000000) b(value) ON a.value + b.value < 0"
FUTILE_HASH_JOIN = "SELECT count(*) FROM generate_series(1, 3000000) a(value) JOIN generate_series(1, 3000000) b(value) ON a.value % 2 = b.value % 2 AND a.value + b.value < 0"


def connect(arguments, **options):
    options = {"dbname": "dev", "user": "root", "connect_timeout": 10, "autocommit": True, **options}
    return psycopg.connect(host=arguments.host, port=arguments.port, **options)


def fails(sqlstate, call):
    """The error of a call that has to fail with this code."""
    try:
        call()
    except psycopg.Error as error:
        expect(error.sqlstate, sqlstate, f"SQLSTATE of {error}")
        return error
    raise AssertionError(f"no error, expected SQLSTATE {sqlstate}")


@check
def greeting(arguments):
    with connect(arguments, application_name="e2e") as connection:
        info = connection.info
        expect(info.server_version, 160006, "server version")
        for name, value in {
            "server_encoding": "UTF8",
            "client_encoding": "UTF8",
            "integer_datetimes": "on",
            "standard_conforming_strings": "on",
            "TimeZone": "UTC",
            "application_name": "e2e",
        }.items():
            expect(info.parameter_status(name), value, name)
        expect_in("ISO", info.parameter_status("DateStyle"))
        expect_in("PostgreSQL 16", connection.execute("SELECT version()").fetchone()[0])


@check
def other_databases_and_users_are_refused(arguments):
    def refused(part, hint, **options):
        try:
            connect(arguments, **options).close()
        except psycopg.OperationalError as error:
            expect_in(part, str(error))
            expect_in(hint, str(error))
            return
        raise AssertionError(f"connected with {options}")

    refused('database "shop" does not exist', 'use database "dev"', dbname="shop")
    refused('role "eve" does not exist', 'use user "root"', user="eve")
    refused("client encoding", "UTF8", client_encoding="LATIN1")


@check
def several_statements_in_one_query(arguments):
    with connect(arguments) as connection:
        cursor = connection.execute("SELECT 1; SELECT 'two', 2; SET application_name = 'x; y'")
        expect(cursor.fetchall(), [(1,)])
        expect(cursor.nextset(), True)
        expect(cursor.fetchall(), [("two", 2)])
        expect(cursor.nextset(), True)
        expect(cursor.statusmessage, "SET")
        expect(connection.info.parameter_status("application_name"), "x; y")
        expect(connection.execute("").pgresult.status, pq.ExecStatus.EMPTY_QUERY)
        expect(connection.execute(" -- nothing\n ;").pgresult.status, pq.ExecStatus.EMPTY_QUERY)
        # What stands before the error has happened, what follows has not.
        connection.execute("CREATE TABLE several_statements (n BIGINT)")
        fails(
            "42P01",
            lambda: connection.execute(
                "INSERT INTO several_statements VALUES (1);"
                "SELECT * FROM no_such_table; INSERT INTO several_statements VALUES (2)"
            ),
        )
        connection.execute("FLUSH")
        expect(connection.execute("SELECT n FROM several_statements").fetchall(), [(1,)])


@check
def errors_have_all_their_fields(arguments):
    with connect(arguments) as connection:
        error = fails("42P01", lambda: connection.execute("SELECT * FROM no_such_table"))
        expect_in("no_such_table", error.diag.message_primary)
        expect(error.diag.severity_nonlocalized, "ERROR")
        error = fails("42601", lambda: connection.execute("SELECT 1 FROM WHERE"))
        if not error.diag.statement_position:
            raise AssertionError("a syntax error has no position")
        fails("42703", lambda: connection.execute("SELECT no_such_column FROM generate_series(1, 2) g(value)"))
        fails("42601", lambda: connection.execute("SELECT %s; SELECT 2", (1,)))
        fails("22P02", lambda: connection.execute("SELECT value FROM generate_series(1, 2) g(value) WHERE value = %s", ("x",)))
        expect(connection.execute("SELECT 1").fetchone(), (1,), "after errors")


@check
def command_tags(arguments):
    with connect(arguments) as connection:
        for statement, tag in [
            ("CREATE TABLE command_tags (id BIGINT PRIMARY KEY, n BIGINT)", "CREATE TABLE"),
            ("CREATE MATERIALIZED VIEW command_tags_sum AS SELECT sum(n) AS s FROM command_tags", "CREATE MATERIALIZED VIEW"),
            ("INSERT INTO command_tags VALUES (1, 1), (2, 2), (3, 3)", "INSERT 0 3"),
            ("FLUSH", "FLUSH"),
            ("SELECT * FROM command_tags", "SELECT 3"),
            ("UPDATE command_tags SET n = 5 WHERE id > 1", "UPDATE 2"),
            ("DELETE FROM command_tags WHERE id = 1", "DELETE 1"),
            ("SHOW TABLES", "SHOW"),
            ("EXPLAIN SELECT 1", "EXPLAIN"),
            ("BEGIN", "BEGIN"),
            ("COMMIT", "COMMIT"),
            ("DROP MATERIALIZED VIEW command_tags_sum", "DROP MATERIALIZED VIEW"),
            ("DROP TABLE command_tags", "DROP TABLE"),
        ]:
            expect(connection.execute(statement).statusmessage, tag, f"tag of {statement}")


@check
def columns_of_one_name(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE same_names (a BIGINT PRIMARY KEY, b TEXT)")
        connection.execute("INSERT INTO same_names VALUES (1, 'x'), (2, 'y')")
        connection.execute("FLUSH")
        for sql, names, row in [
            ("SELECT a, a FROM same_names ORDER BY a", ["a", "a"], (1, 1)),
            ("SELECT *, * FROM same_names ORDER BY a", ["a", "b", "a", "b"], (1, "x", 1, "x")),
            ("SELECT *, upper(b) AS b FROM same_names ORDER BY a", ["a", "b", "b"], (1, "x", "X")),
            ("SELECT a AS n, a + 1 AS n, b FROM same_names ORDER BY b", ["n", "n", "b"], (1, 2, "x")),
            ("SELECT s.a, t.a FROM same_names s JOIN same_names t ON s.a = t.a ORDER BY s.a", ["a", "a"], (1, 1)),
            ("SELECT a, a FROM same_names UNION ALL SELECT 9, 9 FROM same_names WHERE a = 1 ORDER BY 1", ["a", "a"], (1, 1)),
        ]:
            for prepare in (False, True):
                cursor = connection.execute(sql, prepare=prepare)
                expect([column.name for column in cursor.description], names, sql)
                expect(cursor.fetchone(), row, sql)
        # A view stores its columns, and needs a name for each.
        fails("42701", lambda: connection.execute("CREATE MATERIALIZED VIEW same_names_view AS SELECT a, a FROM same_names"))


@check
def settings_can_be_listed(arguments):
    with connect(arguments, application_name="lister") as connection:
        rows = {row[0]: row[1:] for row in connection.execute("SHOW ALL").fetchall()}
        for name, value in {"server_version": "16.6", "TimeZone": "UTC", "application_name": "lister"}.items():
            expect(rows[name][0], value, name)
            expect(connection.execute(f"SHOW {name}").fetchone()[0], value, f"SHOW {name}")
        expect(all(description for _, description in rows.values()), True, "every setting is described")


@check
def prepared_statements(arguments):
    with connect(arguments, prepare_threshold=0) as connection:
        for n in range(20):
            row = connection.execute("SELECT %s::bigint + 1, %s::text || '!'", (n, f"t{n}")).fetchone()
            expect(row, (n + 1, f"t{n}!"))
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            for n in (1, 2, 3):
                row = cursor.execute("SELECT value FROM generate_series(1, 3) g(value) WHERE value = %s", (n,), prepare=True).fetchone()
                expect(row, (n,))
        connection.execute("DISCARD ALL")
        expect(connection.execute("SELECT 1").fetchone(), (1,))


VALUES = {
    "b BOOLEAN": [True, False],
    "i2 SMALLINT": [-32768, 7],
    "i4 INTEGER": [2147483647, -1],
    "i8 BIGINT": [-9223372036854775808, 42],
    "f4 REAL": [1.5, -0.25],
    "f8 DOUBLE PRECISION": [0.1, -1.7976931348623157e308],
    "n DECIMAL(18,2)": [Decimal("-1234567890123456.78"), Decimal("0.01")],
    "big DECIMAL(38,10)": [Decimal("1234567890123456789012345678.0123456789"), Decimal("0E-10")],
    "t TEXT": ["Grüße, 世界 🛒", "tab\t\"quote\" \\ back\nline"],
    "v VARCHAR(10)": ["", "x"],
    "ts TIMESTAMP": [datetime(2021, 1, 1, 12, 30, 0, 250000), datetime(1969, 12, 31, 23, 59, 59, 999999)],
    "tz TIMESTAMPTZ": [
        datetime(2021, 11, 11, tzinfo=timezone.utc),
        datetime(1999, 12, 31, 23, 59, 59, 1, tzinfo=timezone(timedelta(hours=8))),
    ],
    "d DATE": [date(2021, 1, 31), date(1969, 7, 20)],
    "by BYTEA": [b"\x00\xff\\x", b""],
    "ia BIGINT[]": [[1, None, -3], []],
    "ta TEXT[]": [["a", 'b "c"', None, "", "NULL", "{x,y}", "back\\slash"], ["é"]],
}


@check
def types_round_trip_in_text_and_binary(arguments):
    names = [column.split()[0] for column in VALUES]
    with connect(arguments) as connection:
        connection.execute(f"CREATE TABLE round_trip (id BIGINT PRIMARY KEY, {', '.join(VALUES)})")
        wanted = []
        for parameters, first in (("%t", 0), ("%b", 100)):
            for row in range(3):
                values = [None if row == 2 else column[row] for column in VALUES.values()]
                marks = ", ".join([parameters] * (1 + len(values)))
                # Lists of nothing have no type of their own in binary.
                connection.execute(f"INSERT INTO round_trip VALUES ({marks})", [first + row, *values])
                wanted.append((first + row, *values))
        connection.execute("FLUSH")
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            rows = cursor.execute(f"SELECT id, {', '.join(names)} FROM round_trip ORDER BY id").fetchall()
            for got, want in zip(rows, wanted, strict=True):
                for name, one, other in zip(["id", *names], got, want, strict=True):
                    expect(one, other, f"{name} of row {want[0]}, binary={binary}")


@check
def special_values(arguments):
    with connect(arguments) as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            row = cursor.execute("SELECT 'NaN'::float8, 'Infinity'::float8, '-Infinity'::float8, 1e300::float8").fetchone()
            if row[0] == row[0]:
                raise AssertionError(f"NaN came as {row[0]}")
            expect(row[1:], (float("inf"), float("-inf"), 1e300))
            row = cursor.execute("SELECT INTERVAL '1 day 02:03:04.5', NULL, 12.50::decimal(10,2)").fetchone()
            expect(row, (timedelta(days=1, hours=2, minutes=3, seconds=4.5), None, Decimal("12.50")))


@check
def text_is_printed_as_postgresql_prints_it(arguments):
    with connect(arguments) as connection:
        for expression, text in [
            ("true", "t"),
            ("1e15::float8", "1e+15"),
            ("0.00001::float8", "1e-05"),
            ("100000000000000::float8", "100000000000000"),
            ("'2021-01-01 00:00:00.500'::timestamptz", "2021-01-01 00:00:00.5+00"),
            ("'1969-12-31 23:59:59.123456'::timestamp", "1969-12-31 23:59:59.123456"),
            ("0.00::decimal(10,2)", "0.00"),
            ("-0.5::decimal(10,2)", "-0.50"),
            ("INTERVAL '1 day 02:03:04'", "1 day 02:03:04"),
            ("date_bin('15 minutes', TIMESTAMP '2020-02-11 15:44:17', TIMESTAMP '2001-01-01')", "2020-02-11 15:30:00"),
        ]:
            result = connection.pgconn.exec_(f"SELECT {expression}".encode())
            expect(result.status, pq.ExecStatus.TUPLES_OK, f"{expression}: {result.error_message}")
            expect(result.get_value(0, 0).decode(), text, expression)


@check
def jsonb_and_uuid(arguments):
    import uuid

    value, key = {"a": [1, None, "é"]}, uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE jsonb_and_uuid (id BIGINT PRIMARY KEY, j JSONB, u UUID)")
        connection.execute("INSERT INTO jsonb_and_uuid VALUES (1, %t, %t)", (Jsonb(value), key))
        connection.execute("INSERT INTO jsonb_and_uuid VALUES (2, %b, %b)", (Jsonb(value), key))
        connection.execute("FLUSH")
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            cursor.execute("SELECT j, u FROM jsonb_and_uuid ORDER BY id")
            expect([column.type_code for column in cursor.description], [3802, 2950], "OIDs")
            expect(cursor.fetchall(), [(value, key), (value, key)])


@check
def insert_returning_and_executemany(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE many (id BIGINT PRIMARY KEY, n BIGINT)")
        cursor = connection.execute("INSERT INTO many VALUES (%s, %s) RETURNING id, n + 1", (-1, 10))
        expect(cursor.fetchall(), [(-1, 11)])
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO many VALUES (%s, %s)", [(n, n * n) for n in range(500)])
        expect(cursor.rowcount, 500, "rows")
        connection.execute("FLUSH")
        expect(connection.execute("SELECT count(*) FROM many").fetchone(), (501,))


@check
def pipelines_skip_to_the_next_sync_after_an_error(arguments):
    with connect(arguments) as connection:
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::bigint", (n,)) for n in range(50)]
            expect([cursor.fetchone()[0] for cursor in cursors], list(range(50)))

            def broken():
                connection.execute("SELECT * FROM no_such_table")
                # Psycopg reads what has come when it sends: the error may be told here, or at the sync.
                connection.execute("SELECT 1")
                pipeline.sync()

            fails("42P01", broken)
            with contextlib.suppress(psycopg.errors.PipelineAborted):
                pipeline.sync()
            expect(connection.execute("SELECT 2").fetchone(), (2,))


def copy_in(connection, statement, data):
    # The fields are copied at once: the notice itself is gone after the handler.
    notices = []

    def keep(notice):
        fields = ("severity", "message_primary", "message_detail", "message_hint")
        notices.append(types.SimpleNamespace(**{field: getattr(notice, field) for field in fields}))

    connection.add_notice_handler(keep)
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for piece in data:
                copy.write(piece)
        tag = cursor.statusmessage
    connection.remove_notice_handler(keep)
    connection.execute("FLUSH")
    return tag, notices


@check
def copy_text_and_csv(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE copied (id BIGINT PRIMARY KEY, t TEXT, n DECIMAL(10,2))")
        # Cut in the middle of rows and of escapes.
        tag, notices = copy_in(connection, "COPY copied FROM STDIN", ["1\ta\\", "tb\t1.5", "0\n2\t\\N\t\\N\n"])
        expect((tag, notices), ("COPY 2", []))
        tag, notices = copy_in(
            connection,
            "COPY copied (n, id, t) FROM STDIN WITH (FORMAT csv, HEADER true)",
            ['n,id,t\n2.00,3,"x\ny ""z""', '"\n,4,\n'],
        )
        expect((tag, notices), ("COPY 2", []))
        with connection.cursor() as cursor, cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write_row((5, "Ü\\\t", Decimal("7.25")))
        connection.execute("FLUSH")
        expect(
            connection.execute("SELECT id, t, n FROM copied ORDER BY id").fetchall(),
            [
                (1, "a\tb", Decimal("1.50")),
                (2, None, None),
                (3, 'x\ny "z"', Decimal("2.00")),
                (4, None, None),
                (5, "Ü\\\t", Decimal("7.25")),
            ],
        )


@check
def copy_of_many_rows(arguments):
    rows = 300_000
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE copied_many (id BIGINT, t TEXT) APPEND ONLY")
        pieces = ("".join(f"{n},item {n}\n" for n in range(first, first + 1000)) for first in range(0, rows, 1000))
        tag, notices = copy_in(connection, "COPY copied_many FROM STDIN (FORMAT csv)", pieces)
        expect((tag, notices), (f"COPY {rows}", []))
        row = connection.execute("SELECT count(*), sum(id), count(DISTINCT t) FROM copied_many").fetchone()
        expect((row[0], int(row[1]), row[2]), (rows, rows * (rows - 1) // 2, rows))


@check
def copy_rejects_rows_and_says_so(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE copy_rejects (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
        tag, notices = copy_in(connection, "COPY copy_rejects FROM STDIN", ["1\t1\n2\tx\n3\t\\N\n4\t4\n"])
        expect(tag, "COPY 2")
        expect(len(notices), 1, "notices")
        expect(notices[0].severity, "WARNING")
        expect_in("2 rows", notices[0].message_primary)
        expect_in("row 2", notices[0].message_detail)
        expect_in("rejected_rows", notices[0].message_hint)
        wait_until(
            lambda: connection.execute("SELECT count(*) FROM rejected_rows WHERE relation = 'copy_rejects'").fetchone() == (2,),
            "two rows in rejected_rows",
        )


@check
def types_survive_views_in_text_and_binary(arguments):
    tag = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE typed (id BIGINT PRIMARY KEY, data JSONB, tag UUID, tags UUID[], price NUMERIC(12,3))")
        connection.execute("CREATE MATERIALIZED VIEW typed_view AS SELECT id, data, tag, tags, price FROM typed WHERE id > 0")
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            cursor.execute(
                "INSERT INTO typed VALUES (%s, %s, %s, %s, %s)",
                (1, Jsonb({"a": [1, None]}), tag, [tag], Decimal("12.345")),
            )
            cursor.execute("SELECT * FROM typed_view WHERE tag = %s", (tag,))
            expect(cursor.fetchall(), [(1, {"a": [1, None]}, tag, [tag], Decimal("12.345"))], f"binary={binary}")
            expect([column.type_code for column in cursor.description], [20, 3802, 2950, 2951, 1700])
            cursor.execute("SELECT id FROM typed WHERE id = ANY(%s)", ([1, 2],))
            expect(cursor.fetchall(), [(1,)])
            cursor.execute("SELECT %s::bigint + 1, %s::uuid", (41, tag))
            expect(cursor.fetchall(), [(42, tag)])


@check
def copy_that_is_given_up_leaves_nothing(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE copy_given_up (id BIGINT)")
        try:
            with connection.cursor() as cursor, cursor.copy("COPY copy_given_up FROM STDIN") as copy:
                copy.write("1\n2\n")
                raise KeyError("the client changed its mind")
        except KeyError:
            pass
        connection.execute("FLUSH")
        expect(connection.execute("SELECT count(*) FROM copy_given_up").fetchone(), (0,))
        fails("42P01", lambda: copy_in(connection, "COPY no_such_table FROM STDIN", ["1\n"]))
        expect(connection.execute("SELECT 1").fetchone(), (1,))


@check
def nothing_is_copied_to_or_from_files_of_the_server(arguments):
    with connect(arguments) as connection:
        for statement in (
            "COPY (SELECT 1) TO '/tmp/shopstream-e2e'",
            "COPY rejected_rows FROM '/etc/passwd'",
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        ):
            try:
                connection.execute(statement)
            except psycopg.Error:
                continue
            raise AssertionError(f"accepted {statement}")
        expect(os.path.exists("/tmp/shopstream-e2e"), False, "a file written by the server")


@check
def transactions_have_a_status(arguments):
    status = pq.TransactionStatus
    with connect(arguments) as connection:
        info = connection.info
        connection.execute("BEGIN")
        expect(info.transaction_status, status.INTRANS)
        fails("42P01", lambda: connection.execute("SELECT * FROM no_such_table"))
        expect(info.transaction_status, status.INERROR)
        fails("25P02", lambda: connection.execute("SELECT 1"))
        fails("25P02", lambda: connection.execute("SELECT %s::bigint", (1,)))
        expect(connection.execute("COMMIT").statusmessage, "ROLLBACK")
        expect(info.transaction_status, status.IDLE)
    with connect(arguments, autocommit=False) as connection:
        expect(connection.execute("SELECT 1").fetchone(), (1,))
        connection.commit()
        with connection.transaction():
            try:
                with connection.transaction():  # a savepoint
                    connection.execute("SELECT * FROM no_such_table")
            except psycopg.Error:
                pass
            expect(connection.execute("SELECT 2").fetchone(), (2,), "after ROLLBACK TO SAVEPOINT")
        expect(connection.info.transaction_status, status.IDLE)


def cancelled_within(seconds, connection, sql, stop):
    timer = threading.Timer(0.5, stop)
    timer.start()
    begun = time.monotonic()
    error = fails("57014", lambda: connection.execute(sql))
    timer.cancel()
    elapsed = time.monotonic() - begun
    if elapsed > seconds:
        raise AssertionError(f"stopped after {elapsed:.1f} s")
    return error


@check
def cancel_requests_stop_the_query(arguments):
    with connect(arguments) as connection:
        for sql in (LONG_QUERY, LONG_JOIN, FUTILE_JOIN, FUTILE_HASH_JOIN):
            error = cancelled_within(3, connection, sql, connection.cancel)
            expect_in("user request", error.diag.message_primary)
            expect(connection.execute("SELECT 1").fetchone(), (1,), "after the cancel")
        # Nothing runs: the next statement is not hit.
        connection.cancel()
        time.sleep(0.2)
        expect(connection.execute("SELECT 2").fetchone(), (2,))


@check
def statement_timeout_stops_the_query(arguments):
    with connect(arguments) as connection:
        connection.execute("SET statement_timeout = 500")
        for sql in (LONG_QUERY, LONG_JOIN, FUTILE_JOIN, "SELECT value FROM generate_series(1, 400000000000) g(value)"):
            error = cancelled_within(3, connection, sql, lambda: None)
            expect_in("statement timeout", error.diag.message_primary)
        expect(connection.execute("SELECT 1").fetchone(), (1,))
        connection.execute("SET statement_timeout = 0")
        expect(connection.execute("SELECT 1").fetchone(), (1,))
    with connect(arguments, options="-c statement_timeout=500") as connection:
        cancelled_within(3, connection, LONG_QUERY, lambda: None)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@check
def a_closed_socket_stops_the_query(arguments):
    if not arguments.server_pid or not os.path.exists("/proc/self/stat"):
        raise Skip("needs /proc and --server-pid")
    queries = (LONG_QUERY, LONG_JOIN, FUTILE_JOIN, FUTILE_HASH_JOIN)
    connections = [connect(arguments) for _ in queries]
    for connection, sql in zip(connections, queries, strict=True):
        connection.pgconn.send_query(sql.encode())
        while connection.pgconn.flush():
            select.select([], [connection.pgconn.socket], [], 1)
    time.sleep(0.5)
    before = cpu_seconds(arguments.server_pid)
    time.sleep(1)
    busy = cpu_seconds(arguments.server_pid) - before
    if busy < 0.2:
        raise AssertionError(f"the queries used only {busy:.2f} CPU seconds in a second; nothing to stop")
    for connection in connections:
        # Without the Terminate message that close() would send, as when a client dies.
        socket.socket(fileno=os.dup(connection.pgconn.socket)).shutdown(socket.SHUT_RDWR)
        connection.pgconn.finish()
    time.sleep(1)
    before = cpu_seconds(arguments.server_pid)
    time.sleep(1)
    after = cpu_seconds(arguments.server_pid) - before
    if after > max(0.1, busy / 10):
        raise AssertionError(f"still {after:.2f} CPU seconds per second a second after the sockets were closed, {busy:.2f} before")


@check
def large_results_arrive_whole_and_slow_readers_do_not_harm(arguments):
    rows = 500_000
    with connect(arguments) as connection:
        cursor = connection.cursor(binary=True, row_factory=tuple_row)
        count = total = 0
        for row in cursor.stream(f"SELECT value, 'row ' || value::text FROM generate_series(1, {rows}) g(value)"):
            count += 1
            total += row[0]
            if count == 1:
                time.sleep(0.5)
        expect((count, total), (rows, rows * (rows + 1) // 2))


@check
def many_connections_at_once(arguments):
    failures = []

    def work(number):
        try:
            with connect(arguments) as connection:
                for n in range(20):
                    row = connection.execute("SELECT %s::bigint * 2", (number * 100 + n,)).fetchone()
                    expect(row, ((number * 100 + n) * 2,))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(failures, [], "failures")


@check
def views_follow_their_tables(arguments):
    with connect(arguments) as connection:
        connection.execute("CREATE TABLE followed (user_id BIGINT, amount DECIMAL(18,2)) APPEND ONLY")
        connection.execute(
            "CREATE MATERIALIZED VIEW followed_totals AS "
            "SELECT user_id, count(*) AS n, sum(amount) AS total FROM followed GROUP BY user_id"
        )
        connection.execute("INSERT INTO followed VALUES (1, 10.50), (1, 0.25), (2, %s)", (Decimal("-3.00"),))
        connection.execute("FLUSH")
        rows = connection.execute("SELECT user_id, n, total FROM followed_totals ORDER BY user_id").fetchall()
        expect(rows, [(1, 2, Decimal("10.75")), (2, 1, Decimal("-3.00"))])


if __name__ == "__main__":
    main()
