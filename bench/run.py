#!/usr/bin/env python3
"""Benchmarks beside Apache Flink, on this machine, in one run, pair by pair.

    bench/run.py [--work bench/work] [--peers ../shared/peers] [--flink-rows-w2 1000000] [--flink-formats csv,json] [--only files,flink,ingest]

Needs what setup prepares (see bench/README.md): the scaled Taobao file and Flink. Writes bench/results/latest.json and a
table. Where Flink is not set up or fails, the line says so.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEWS = ["w1", "w2", "w3", "w5", "w8"]
# Our name of a format -> Flink's.
FLINK_FORMATS = {"csv": "csv", "ndjson": "json"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / "work")
    parser.add_argument("--peers", type=Path, default=ROOT.parent / "shared" / "peers")
    parser.add_argument("--flink-rows-w2", type=int, default=1_000_000, help="W2 and all five take Flink minutes per million rows")
    parser.add_argument("--only", default="files,flink,ingest")
    parser.add_argument("--flink-formats", default="csv,json", help="formats that Flink is run on")
    arguments = parser.parse_args()
    binary = ROOT / "target" / "debug" / "shopstream"
    csv = arguments.work / "ub20m" / "csv1" / "all.csv"
    ndjson = arguments.work / "ub20m" / "json1" / "all.ndjson"
    if not csv.exists():
        sys.exit(f"{csv} is missing. Prepare it: bench/setup.sh (needs ../shared/peers, python3.11 and a JDK 17)")
    only = arguments.only.split(",")
    results = []
    if "files" in only:
        for views in VIEWS + [",".join(VIEWS)]:
            for form, path in (("csv", csv), ("ndjson", ndjson)):
                ours = shopstream_files(binary, views, form, path)
                wanted = "flink" in only and FLINK_FORMATS[form] in arguments.flink_formats.split(",")
                flink = flink_files(arguments, views, form) if wanted else None
                results.append({"views": views, "format": form, "shopstream": ours, "flink": flink})
                show(results[-1])
    if "ingest" in only:
        results.append({"ingest": ingest(binary, ndjson)})
        print(json.dumps(results[-1], indent=1))
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(results, indent=1) + "\n")


def show(result):
    ours, flink = result["shopstream"], result["flink"]
    line = f"{result['views']:16} {result['format']:7} {ours['rows_per_second']/1e3:9.0f}k rows/s {ours['cpu_seconds']:6.1f} CPU s {ours['peak_memory_mb']:6.0f} MB"
    if flink and flink.get("rows_per_second"):
        line += f"   Flink {flink['rows_per_second']/1e3:7.0f}k rows/s {flink['cpu_seconds']:6.1f} CPU s {flink['peak_memory_mb']:6.0f} MB on {flink['rows']/1e6:.1f} M rows"
        line += f"   x{ours['rows_per_second']/flink['rows_per_second']:.1f}"
    elif flink:
        line += f"   Flink gave no figure: {flink['error'].strip().splitlines()[0]}"
    print(line, flush=True)


def shopstream_files(binary, views, form, path):
    done = subprocess.run([binary, "bench", "files", "--views", views, "--format", form, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def flink_environment(arguments):
    home = next((arguments.work / "flink" / "lib").glob("python3*/site-packages/pyflink"), None)
    classes = arguments.work / "classes"
    if home is None or not classes.exists():
        return None
    return {"FLINK_HOME": str(home), "RUN_CLASSES": str(classes)}


def flink_files(arguments, views, form):
    """One run of Flink over the same rows; W2 and all five over fewer, because they take it minutes per million."""
    environment = flink_environment(arguments)
    if environment is None:
        return {"error": "Flink is not set up: bench/setup.sh"}
    slow = "w2" in views
    rows = arguments.flink_rows_w2 if slow else 19_854_000
    source = arguments.work / "ub20m" / f"{FLINK_FORMATS[form]}2"
    if slow:
        source = head(arguments.work, source, rows)
    with tempfile.TemporaryDirectory() as folder:
        query = Path(folder) / "q.sql"
        query.write_text(flink_sql(arguments.peers, views.split(",")))
        environment |= {"UB_PATH": str(source), "UB_FORMAT": FLINK_FORMATS[form]}
        command = ["/usr/bin/time", "-v", arguments.peers / "flink" / "run.sh", "blackhole", query, "pipeline.object-reuse=true"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    text = done.stdout + done.stderr
    seconds = re.findall(r"job_s ([0-9.]+)", text)
    if done.returncode != 0 or not seconds:
        return {"error": text[-2000:]}
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
def server(binary):
    """A fresh server with the whole pack; gives its process and address."""
    folder = tempfile.mkdtemp(prefix="shopstream-bench-")
    ports = []
    for _ in range(2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    process = subprocess.Popen(
        [binary, "serve", "--data-dir", folder, "--pack", ROOT / "packs" / "commerce", "--log", "warn",
         "--http", f"127.0.0.1:{ports[0]}", "--pg", f"127.0.0.1:{ports[1]}"], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if "psql" in line:
                break
        yield process, f"http://127.0.0.1:{ports[0]}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def ingest(binary, ndjson):
    """HTTP NDJSON into the durable log with the whole pack on, client and server on this machine."""
    def run(url, *arguments):
        command = [binary, "bench", *arguments, "--server", url, ndjson]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    with server(binary) as (process, url):
        idle = memory(process.pid)
        throughput = run(url, "ingest", "--rows", "6000000", "--batch", "5000")
        peak = memory(process.pid, "VmHWM")
    # A fresh server, so that the rows are not late.
    with server(binary) as (_, url):
        latency = run(url, "latency", "--rate", "20000", "--seconds", "20")
    return {"idle_memory_mb": idle, "peak_memory_mb": peak, "throughput": throughput, "latency": latency}


def memory(pid, field="VmRSS"):
    text = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(field + r":\s+(\d+)", text).group(1)) / 1024)


if __name__ == "__main__":
    main()
