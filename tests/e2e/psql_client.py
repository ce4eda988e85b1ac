"""psql against the Postgres interface: scripts, \\copy, formats and exit codes."""

import os
import shutil
import subprocess
import tempfile
import urllib.request

from checks import Skip, check, expect, expect_in, main

INSTALL = "psql is missing; install it: apt-get install postgresql-client"


def psql(arguments, *options, stdin=""):
    if shutil.which("psql") is None:
        raise Skip(INSTALL)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    command = ["psql", "-h", arguments.host, "-p", str(arguments.port), "-U", "root", "-d", "dev", "-X", *options]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=50, env=environment)


def plain(arguments, sql):
    """Rows as psql prints them without decoration."""
    done = psql(arguments, "-At", "-v", "ON_ERROR_STOP=1", "-c", sql)
    expect((done.returncode, done.stderr), (0, ""), f"psql on {sql}")
    return done.stdout.splitlines()


@check
def psql_connects_and_says_where(arguments):
    done = psql(arguments, "-At", "-c", r"\conninfo", "-c", "SELECT 1")
    expect_in('connected to database "dev" as user "root"', done.stdout)
    expect(done.stdout.splitlines()[-1], "1")
    expect(done.stderr, "")
    expect_in("PostgreSQL 16", plain(arguments, "SELECT version()")[0])


@check
def psql_prints_tables_and_csv(arguments):
    sql = "SELECT 1 AS n, 'a,b' AS t, NULL AS nothing, 2.50::decimal(10,2) AS price"
    expect(psql(arguments, "--csv", "-c", sql).stdout, 'n,t,nothing,price\n1,"a,b",,2.50\n')
    table = psql(arguments, "-c", sql).stdout
    expect_in(" n |  t  | nothing | price ", table)
    expect_in("(1 row)", table)
    # Numbers stand on the right, as their types are known.
    expect_in(" 1 | a,b |         |  2.50", table)


@check
def psql_runs_scripts_and_stops_at_errors(arguments):
    script = """
        CREATE TABLE psql_script (id BIGINT PRIMARY KEY, t TEXT);
        INSERT INTO psql_script VALUES (1, 'a;b'), (2, $$it's$$);
        COPY psql_script FROM STDIN;
3\tc\\td
4\t\\N
\\.
        FLUSH;
        SELECT id, t FROM psql_script ORDER BY id;
    """
    done = psql(arguments, "-At", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=script)
    expect(done.stderr, "")
    expect(done.returncode, 0)
    expect(
        done.stdout.splitlines(),
        ["CREATE TABLE", "INSERT 0 2", "COPY 2", "FLUSH", "1|a;b", "2|it's", "3|c\td", "4|"],
    )
    done = psql(arguments, "-v", "ON_ERROR_STOP=1", "-f", "-", stdin="SELECT 1;\nSELECT oops;\nSELECT 2;\n")
    expect(done.returncode, 3)
    expect_in("oops", done.stderr)
    expect_in("(1 row)", done.stdout)
    expect(done.stdout.count("(1 row)"), 1, "results before the error")


@check
def psql_shows_where_the_error_is(arguments):
    done = psql(arguments, "-c", "SELECT 1 FRM x y")
    expect(done.returncode, 1)
    expect_in("ERROR:", done.stderr)
    expect_in("LINE 1: SELECT 1 FRM x y", done.stderr)
    expect_in("^", done.stderr)


@check
def psql_copies_files_in(arguments):
    plain(arguments, "CREATE TABLE psql_copy (id BIGINT, t TEXT)")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.csv")
        with open(path, "w", encoding="utf-8") as file:
            file.write('id,t\n1,"x, y"\n2,ü\nthree,broken\n')
        done = psql(arguments, "-At", "-c", rf"\copy psql_copy FROM '{path}' WITH (FORMAT csv, HEADER true)")
    expect(done.stdout.strip(), "COPY 2")
    expect_in("WARNING:  1 row of table", done.stderr)
    expect_in("rejected_rows", done.stderr)
    plain(arguments, "FLUSH")
    expect(plain(arguments, "SELECT * FROM psql_copy ORDER BY id"), ["1|x, y", "2|ü"])


@check
def psql_checkpoints(arguments):
    plain(arguments, "CREATE TABLE psql_checkpoint (id BIGINT PRIMARY KEY)")
    plain(arguments, "INSERT INTO psql_checkpoint SELECT * FROM generate_series(1, 100)")
    expect(plain(arguments, "CHECKPOINT"), ["CHECKPOINT"])
    with urllib.request.urlopen(f"http://{arguments.http}/metrics") as page:
        lines = page.read().decode().splitlines()
    figures = dict(line.split(" ") for line in lines if line.startswith("shopstream_checkpoint"))
    if int(figures["shopstream_checkpoint_records"]) < 2 or int(figures["shopstream_checkpoints_total"]) < 1:
        raise AssertionError(f"a checkpoint is counted: {figures}")
    expect(figures["shopstream_checkpoints_failed_total"], "0")


@check
def psql_transactions(arguments):
    script = "BEGIN;\nSELECT oops;\nSELECT 1;\nROLLBACK;\nSELECT 2;\n"
    done = psql(arguments, "-At", "-f", "-", stdin=script)
    expect(done.stdout.splitlines(), ["BEGIN", "ROLLBACK", "2"])
    expect_in("current transaction is aborted", done.stderr)
    done = psql(arguments, "-At", "-1", "-f", "-", stdin="SELECT 3;\n")
    expect((done.stdout.splitlines(), done.returncode), (["3"], 0))


@check
def psql_wrong_database(arguments):
    if shutil.which("psql") is None:
        raise Skip(INSTALL)
    address = f"host={arguments.host} port={arguments.port} user=root dbname=shop"
    done = subprocess.run(["psql", "-X", "-c", "SELECT 1", address], capture_output=True, text=True, timeout=50)
    expect(done.returncode, 2)
    expect_in('database "shop" does not exist', done.stderr)
    expect_in('use database "dev"', done.stderr)


if __name__ == "__main__":
    main()
