#!/usr/bin/env python3
"""Benchmarks beside Apache Flink, on this machine, in one run, pair by pair.

    bench/run.py [--only files,flink,ingest,durable,backfill,nexmark] [--work bench/work] [--peers ../shared/peers]
                 [--views w1,w2,...] [--rows N] [--flink-rows-slow 1000000] [--flink-formats csv,json]
                 [--queries q0,q1,...] [--events 10000000] [--flink-events-slow N]

Needs what setup prepares (see bench/README.md): the scaled Taobao file, Nexmark's events and Flink. Puts what it
measures into bench/results/latest.json (or what --results names), where figures of other parts stay, and prints all of it
as tables into bench/results/latest.md, what has no figure, too. Where Flink is not set up or fails, the line says so.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import table
from table import speed

ROOT = Path(__file__).resolve().parent.parent
VIEWS = ["w1", "w2", "w3", "w4", "w5", "w6a", "w6b", "w7", "w8"]
# Also measured together; Flink runs them as one statement set.
TOGETHER = ["w1", "w2", "w3", "w5", "w8"]
# Those take Flink minutes per million rows.
SLOW_VIEWS = {"w2", "w6b"}
QUERIES = [f"q{n}" for n in range(23)]
# Flink's OVER windows take no updates, which q6 gives them.
NOT_IN_FLINK = {"q6": "Flink refuses q6: its OVER windows take no updates"}
# Joins and rankings whose state Flink keeps on the heap grow until it stops; fewer events for them if it needs it.
SLOW_QUERIES = {"q5", "q9", "q15", "q16", "q20"}
# Our name of a format -> Flink's.
FLINK_FORMATS = {"csv": "csv", "ndjson": "json"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / "work")
    parser.add_argument("--peers", type=Path, default=ROOT.parent / "shared" / "peers")
    parser.add_argument("--only", default="files,flink,ingest,durable,backfill,nexmark", help="parts of: files, flink, ingest, durable, backfill, nexmark")
    parser.add_argument("--views", default=",".join(VIEWS))
    parser.add_argument("--rows", type=int, default=0, help="rows of the Taobao file that are read; 0: all 19,854,000")
    parser.add_argument("--flink-rows-slow", type=int, default=1_000_000, help="rows for Flink's W2, W6b and all five at once")
    parser.add_argument("--flink-formats", default="csv,json", help="formats that Flink is run on")
    parser.add_argument("--durable-rows", type=int, default=4_000_000)
    parser.add_argument("--queries", default=",".join(QUERIES), help="Nexmark's")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--flink-events-slow", type=int, default=0, help="events for Flink's q5, q9, q15, q16 and q20; 0: as many as for the others")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds after which a run is given up")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "debug" / "shopstream")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "latest.json")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))

    def keep(result):
        show(result)
        table.keep(arguments.results, result)

    if "files" in only:
        files(arguments, "flink" in only, keep)
    if "durable" in only:
        for view in arguments.views.split(","):
            keep({"durable": view} | durable(arguments, view))
    if "ingest" in only:
        keep({"ingest": ingest(arguments)})
    if "backfill" in only:
        keep({"backfill": backfill(arguments)})
    if "nexmark" in only:
        for query in arguments.queries.split(","):
            keep(nexmark(arguments, query, "flink" in only))


def taobao(arguments, form, rows=None):
    """The scaled Taobao file, or its first rows."""
    name = {"csv": "csv1/all.csv", "ndjson": "json1/all.ndjson"}[form]
    path = arguments.work / "ub20m" / name
    if not path.exists():
        sys.exit(f"{path} is missing. Prepare it: bench/setup.sh (needs ../shared/peers, python3.11 and a JDK 17)")
    rows = rows or arguments.rows
    path = first_lines(path, arguments.work / f"{path.stem}-{rows}{path.suffix}", rows) if rows else path
    warm(path)
    return path


def warm(path):
    """Reads a file once, so that whoever reads it next, we or Flink, finds it in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass


def first_lines(source, target, rows):
    if not target.exists():
        with source.open("rb") as read, target.open("wb") as write_to:
            for _, line in zip(range(rows), read):
                write_to.write(line)
    return target


def files(arguments, with_flink, keep):
    views = arguments.views.split(",")
    together = [",".join(TOGETHER)] if set(TOGETHER) <= set(views) else []
    for view in views + together:
        for form in ("csv", "ndjson"):
            ours = bench(arguments, "files", "--views", view, "--format", form, taobao(arguments, form))
            wanted = with_flink and FLINK_FORMATS[form] in arguments.flink_formats.split(",")
            flink = flink_files(arguments, view, form) if wanted else None
            keep({"views": view, "format": form, "shopstream": ours, "flink": flink})


def bench(arguments, *scenario):
    """A scenario of our own; its figures, or why there are none."""
    try:
        done = subprocess.run([arguments.binary, "bench", *scenario], capture_output=True, text=True, timeout=arguments.timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {arguments.timeout} s"}
    if done.returncode != 0:
        return {"error": (done.stderr or done.stdout).strip()[-2000:] or f"exit code {done.returncode}"}
    return json.loads(done.stdout)


def nexmark(arguments, query, with_flink):
    """One query over events made in the process, then over files beside Flink."""
    made = bench(arguments, "nexmark", "--query", query, "--events", str(arguments.events))
    folder = arguments.work / f"nexmark-{arguments.events}"
    result = {"nexmark": query, "generator": made, "shopstream": None, "flink": None}
    if not generate_nexmark(arguments, folder, arguments.events):
        result["shopstream"] = {"error": "no files of events: bench/setup.sh makes what generates them"}
        return result
    result["shopstream"] = bench(arguments, "nexmark", "--query", query, "--files", folder, "--events", str(arguments.events))
    if with_flink:
        result["flink"] = flink_nexmark(arguments, query)
    return result


def generate_nexmark(arguments, folder, events):
    python = arguments.work / "batch" / "bin" / "python"
    if not folder.exists():
        if not python.exists():
            return False
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run([python, arguments.peers / "gen_nexmark.py", part, "--events", str(events)], check=True, stdout=subprocess.DEVNULL)
        (part / "side_input").mkdir()
        (part / "side_input" / "side_input.csv").write_text("".join(f"{n},value {n}\n" for n in range(10_000)))
        part.rename(folder)
    return True


def flink_nexmark(arguments, query):
    if query in NOT_IN_FLINK:
        return {"error": NOT_IN_FLINK[query]}
    environment = flink_environment(arguments)
    if environment is None:
        return {"error": "Flink is not set up: bench/setup.sh"}
    events = arguments.events
    if query in SLOW_QUERIES and arguments.flink_events_slow:
        events = arguments.flink_events_slow
    folder = arguments.work / f"nexmark-{events}"
    if not generate_nexmark(arguments, folder, events):
        return {"error": "no files of events"}
    path = arguments.peers / "flink" / "nexmark" / f"{query}.sql"
    if not path.exists():
        path = ROOT / "bench" / "nexmark" / "flink" / f"{query}.sql"
    environment |= {"UB_PATH": str(folder), "SOURCE": str(arguments.peers / "flink" / "nexmark" / "source.sql")}
    figures = run_flink(arguments, path, environment, events)
    if "rows_per_second" in figures:
        figures["events_per_second"] = figures["rows_per_second"]
    return figures


def show(result):
    if "ingest" in result or "backfill" in result:
        print(json.dumps(result, indent=1))
        return
    if "durable" in result:
        figures = result.get("throughput", {})
        said = result.get("error", "").strip().splitlines()[:1] or [
            f"{figures['acknowledged_rows_per_second']/1e3:9.0f}k rows/s acknowledged {figures['rows_per_second']/1e3:7.0f}k visible {result['peak_memory_mb']:6.0f} MB"]
        print(f"{result['durable']:16} durable {said[0]}", flush=True)
        return
    if "nexmark" in result:
        print(f"{result['nexmark']:16} made    {told(result['generator'])}", flush=True)
        line = f"{result['nexmark']:16} files   {told(result['shopstream'])}"
    else:
        line = f"{result['views']:16} {result['format']:7} {told(result['shopstream'])}"
    if result["flink"]:
        line += f"   Flink {told(result['flink'])}"
        if speed(result["shopstream"]) and speed(result["flink"]):
            line += f" on {result['flink']['rows']/1e6:.1f} M rows   x{speed(result['shopstream'])/speed(result['flink']):.1f}"
    print(line, flush=True)


def told(figures):
    if "error" in figures:
        return "no figure: " + figures["error"].strip().splitlines()[0]
    return f"{speed(figures)/1e3:9.0f}k rows/s {figures['cpu_seconds']:6.1f} CPU s {figures['peak_memory_mb']:6.0f} MB"


def flink_environment(arguments):
    home = next((arguments.work / "flink" / "lib").glob("python3*/site-packages/pyflink"), None)
    classes = arguments.work / "classes"
    if home is None or not classes.exists():
        return None
    return {"FLINK_HOME": str(home), "RUN_CLASSES": str(classes)}


def flink_files(arguments, views, form):
    """One run of Flink over the same rows; some over fewer, because they take it minutes per million."""
    environment = flink_environment(arguments)
    if environment is None:
        return {"error": "Flink is not set up: bench/setup.sh"}
    slow = bool(SLOW_VIEWS & set(views.split(",")))
    rows = arguments.rows or 19_854_000
    source = arguments.work / "ub20m" / f"{FLINK_FORMATS[form]}2"
    if slow and rows > arguments.flink_rows_slow:
        rows = arguments.flink_rows_slow
    if rows < 19_854_000:
        source = head(arguments.work, source, rows)
    with tempfile.TemporaryDirectory() as folder:
        query = Path(folder) / "q.sql"
        query.write_text(flink_sql(arguments.peers, views.split(",")))
        environment |= {"UB_PATH": str(source), "UB_FORMAT": FLINK_FORMATS[form]}
        return run_flink(arguments, query, environment, rows)


def run_flink(arguments, query, environment, rows):
    command = ["/usr/bin/time", "-v", arguments.peers / "flink" / "run.sh", "blackhole", query, "pipeline.object-reuse=true"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment, process_group=0)
    try:
        text, _ = process.communicate(timeout=arguments.timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {arguments.timeout} s"}
    finally:
        # The JVM is a grandchild: it goes with its group, also when we are told to stop.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = re.findall(r"job_s ([0-9.]+)", text)
    if process.returncode != 0 or not seconds:
        # Flink wraps the cause in many layers; the innermost comes last.
        causes = re.findall(r"^(?:Caused by: )?((?:[a-z]+\.)+[A-Za-z$]*(?:Exception|Error).*)$", text, re.MULTILINE)
        return {"error": causes[-1] if causes else f"exit code {process.returncode}", "output": text[-2000:]}
    used = lambda name: float(re.search(name + r".*: ([0-9.]+)", text).group(1))
    job = float(seconds[-1])
    return {
        "rows": rows, "seconds": job, "rows_per_second": rows / job,
        "cpu_seconds": used("User time") + used("System time"), "peak_memory_mb": used("Maximum resident set size") / 1024,
    }


def flink_sql(peers, views):
    queries = {view: (peers / "flink" / f"{view}.sql").read_text() for view in views}
    if len(views) == 1:
        return queries[views[0]]
    sinks = {
        "w1": "window_start BIGINT, behavior STRING, cnt BIGINT", "w2": "window_end BIGINT, rn BIGINT, item_id BIGINT, cnt BIGINT",
        "w3": "window_start BIGINT, uv BIGINT", "w5": "window_start BIGINT, category_id BIGINT, behavior STRING, cnt BIGINT",
        "w8": "item_id BIGINT, cnt BIGINT",
    }
    tables = "".join(f"CREATE TABLE sink_{v} ({sinks[v]}) WITH ('connector'='blackhole');\n" for v in views)
    # A line that begins with INSERT makes run.sh leave the text alone; a semicolon inside the set must not end a line.
    inserts = " ".join(f"INSERT INTO sink_{v} {queries[v].strip()};" for v in views)
    return f"{tables}EXECUTE STATEMENT SET BEGIN\n{inserts} END"


def head(work, source, rows):
    """The first `rows` rows, half from each part."""
    folder = work / f"{source.name}-{rows}"
    if not folder.exists():
        folder.mkdir()
        for part in sorted(source.iterdir()):
            with part.open("rb") as read, (folder / part.name).open("wb") as write:
                for _, line in zip(range(rows // 2), read):
                    write.write(line)
    return folder


@contextlib.contextmanager
def server(binary, pack=True):
    """A fresh server, with the whole pack or with nothing; gives its process, its address and psql's."""
    folder = tempfile.mkdtemp(prefix="shopstream-bench-")
    ports = []
    for _ in range(2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    process = subprocess.Popen(
        [binary, "serve", "--data-dir", folder, "--log", "warn", "--http", f"127.0.0.1:{ports[0]}", "--pg", f"127.0.0.1:{ports[1]}",
         *(["--pack", ROOT / "packs" / "commerce"] if pack else [])], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if "psql" in line:
                break
        yield process, f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def durable(arguments, view):
    """HTTP NDJSON into the durable log of a server that keeps one view, client and server on this machine.

    One connection, so that rows come in the file's order and none is late."""
    rows = str(min(arguments.durable_rows, arguments.rows or arguments.durable_rows))
    done = subprocess.run([arguments.binary, "bench", "statements", view], capture_output=True, text=True)
    if done.returncode != 0:
        return {"error": done.stderr.strip()}
    with server(arguments.binary, pack=False) as (process, url, pg):
        made = subprocess.run([arguments.binary, "sql", "--server", pg, "-c", done.stdout], capture_output=True, text=True)
        if made.returncode != 0:
            return {"error": made.stderr.strip()}
        throughput = bench(
            arguments, "ingest", "--server", url, "--table", "ub", "--rows", rows, "--batch", "20000", "--connections", "1", taobao(arguments, "ndjson"))
        if "error" in throughput:
            return throughput
        return {"throughput": throughput, "peak_memory_mb": memory(process.pid, "VmHWM")}


def ingest(arguments):
    """HTTP NDJSON into the durable log with the whole pack on, client and server on this machine."""
    file = taobao(arguments, "ndjson")
    rows = str(min(6_000_000, arguments.rows or 6_000_000))
    with server(arguments.binary) as (process, url, _):
        idle = memory(process.pid)
        throughput = bench(arguments, "ingest", "--server", url, "--rows", rows, "--batch", "5000", file)
        peak = memory(process.pid, "VmHWM")
    # A fresh server, so that the rows are not late.
    with server(arguments.binary) as (_, url, _):
        latency = bench(arguments, "latency", "--server", url, "--rate", "20000", "--seconds", "20", file)
    for figures in (throughput, latency):
        if "error" in figures:
            return figures
    return {"idle_memory_mb": idle, "peak_memory_mb": peak, "throughput": throughput, "latency": latency}


def backfill(arguments):
    """W2 made over all rows that are there, alone, and then beside 20,000 rows a second that others write and read."""
    rows = arguments.rows or 19_854_000
    done = subprocess.run([arguments.binary, "bench", "statements", "w2"], capture_output=True, text=True)
    table, view = (statement.strip() for statement in done.stdout.strip().rstrip(";").split(";\n"))
    seen = "CREATE MATERIALIZED VIEW seen AS SELECT behavior, count(*) AS n FROM ub GROUP BY behavior"
    with server(arguments.binary, pack=False) as (process, url, pg):
        def sql(text):
            begun = time.monotonic()
            subprocess.run([arguments.binary, "sql", "--server", pg, "-c", text], check=True, capture_output=True)
            return time.monotonic() - begun

        def latency(seconds):
            return [arguments.binary, "bench", "latency", "--server", url, "--table", "ub", "--rate", "20000", "--seconds", str(seconds), file]

        file = taobao(arguments, "ndjson")
        sql(table)
        sql(seen)
        loaded = bench(arguments, "ingest", "--server", url, "--table", "ub", "--rows", str(rows), "--batch", "20000", "--connections", "1", file)
        if "error" in loaded:
            return loaded
        quiet = json.loads(subprocess.run(latency(10), check=True, capture_output=True, text=True).stdout)
        alone = sql(view)
        sql("DROP MATERIALIZED VIEW w2")
        writing = subprocess.Popen(latency(max(3, int(alone))), stdout=subprocess.PIPE, text=True)
        beside = sql(view)
        busy = json.loads(writing.communicate()[0])
        return {
            "rows": rows, "alone_seconds": round(alone, 2), "beside_seconds": round(beside, 2), "peak_memory_mb": memory(process.pid, "VmHWM"),
            "quiet": quiet["acknowledged_to_visible_ms"], "busy": busy["acknowledged_to_visible_ms"],
        }


def memory(pid, field="VmRSS"):
    text = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(field + r":\s+(\d+)", text).group(1)) / 1024)


if __name__ == "__main__":
    main()
