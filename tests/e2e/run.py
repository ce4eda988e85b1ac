#!/usr/bin/env python3
"""Starts a fresh server and runs every *_client.py of this folder against it.

    tests/e2e/run.py --server-binary target/debug/shopstream [--only psycopg] [--keep]

Needs Python 3.9 with venv; the clients' packages are installed into target/e2e-venv the first time. Prints one
line per check and `N passed, N failed` at the end; exits with 1 when something failed.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = ["psycopg[binary]>=3.2,<4", "sqlalchemy>=2.0,<3"]
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20
SCRIPT_SECONDS_MAX = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-binary", type=Path, default=ROOT / "target" / "debug" / "shopstream")
    parser.add_argument("--only", default="", help="run the scripts and checks with this in their name")
    parser.add_argument("--keep", action="store_true", help="keep the data directory and the server's log")
    arguments = parser.parse_args()
    binary = arguments.server_binary.resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"{binary} is not a program; build it first: cargo build")

    python = venv_python()
    scripts = sorted(HERE.glob("*_client.py"))
    chosen = [script for script in scripts if arguments.only in script.stem]
    only_check = "" if chosen else arguments.only
    counts = {"ok": 0, "FAIL": 0, "skip": 0}

    work = Path(tempfile.mkdtemp(prefix="shopstream-e2e-"))
    server = Server(binary, work)
    try:
        failure = server.start()
        if failure:
            report("FAIL", f"server_starts: {failure}", counts)
        else:
            for script in chosen or scripts:
                run_script(python, script, server, only_check, counts)
                if server.ended():
                    report("FAIL", f"server_survives_{script.stem}: it ended with {server.ended()}", counts)
                    break
            failure = server.stop()
            report("FAIL" if failure else "ok", f"server_stops{': ' + failure if failure else ''}", counts)
    finally:
        server.kill()
        if counts["FAIL"]:
            print_tail(server.log_path)
        if arguments.keep:
            print(f"kept {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
    print(f"{counts['ok']} passed, {counts['FAIL']} failed{skipped}")
    sys.exit(1 if counts["FAIL"] or not counts["ok"] else 0)


def report(outcome, text, counts):
    counts[outcome] += 1
    print(f"{outcome} {text}", flush=True)


def venv_python():
    """The Python that has the packages; made anew when it is missing or broken."""
    folder = ROOT / "target" / "e2e-venv"
    python = folder / "bin" / "python"

    def works():
        probe = [str(python), "-c", "import psycopg, sqlalchemy, sys; sys.exit(psycopg.pq.__impl__ != 'binary')"]
        return python.exists() and subprocess.run(probe, capture_output=True).returncode == 0

    if works():
        return python
    print(f"installing {', '.join(PACKAGES)} into {folder}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        sys.exit(f"python3 -m venv failed; install it: apt-get install python3-venv\n{made.stderr or made.stdout}")
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
        capture_output=True,
        text=True,
    )
    if installed.returncode != 0 or not works():
        sys.exit(f"pip install {' '.join(PACKAGES)} failed:\n{installed.stderr}")
    return python


class Server:
    """A server process with its own data directory and free ports."""

    def __init__(self, binary, work):
        self.binary = binary
        self.work = work
        self.log_path = work / "server.log"
        self.process = None
        self.pg = self.http = ""

    def start(self):
        """None, or why it is not there."""
        # Ports that were free a moment ago may be taken by now; then another pair is tried.
        for _attempt in range(3):
            self.pg, self.http = (f"127.0.0.1:{port}" for port in free_ports(2))
            command = [str(self.binary), "serve", "--data-dir", str(self.work / "data")]
            command += ["--http", self.http, "--pg", self.pg]
            with open(self.log_path, "ab") as log:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.work, start_new_session=True
                )
            deadline = time.monotonic() + READY_SECONDS_MAX
            while time.monotonic() < deadline and not self.ended():
                if answers(self.pg) and answers(self.http):
                    return None
                time.sleep(0.05)
            if not self.ended():
                return f"no answer on {self.pg} and {self.http} within {READY_SECONDS_MAX} s"
            if b"in use" not in self.log_path.read_bytes():
                return f"it ended with {self.ended()}"
        return "no free ports"

    def ended(self):
        """What it ended with, or an empty text."""
        code = self.process.poll() if self.process else 0
        return "" if code is None else f"exit code {code}"

    def stop(self):
        """None, or what was wrong with its end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return f"still running {STOP_SECONDS_MAX} s after SIGTERM"
        return None if code == 0 else f"exit code {code} after SIGTERM"

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def answers(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def run_script(python, script, server, only_check, counts):
    print(f"# {script.name}", flush=True)
    command = [str(python), "-u", str(script), "--pg", server.pg, "--http", server.http]
    command += ["--server-pid", str(server.process.pid), "--server-log", str(server.log_path), "--only", only_check]
    errors = tempfile.TemporaryFile(mode="w+")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    killer = threading.Timer(SCRIPT_SECONDS_MAX, process.kill)
    killer.start()
    failed = False
    with process.stdout:
        for line in process.stdout:
            outcome, _, rest = line.rstrip("\n").partition(" ")
            if outcome in counts:
                failed |= outcome == "FAIL"
                report(outcome, rest, counts)
            else:
                print(line, end="", flush=True)
    code = process.wait()
    killer.cancel()
    if code not in (0, 1) or (code == 1 and not failed):
        failed = True
        report("FAIL", f"{script.stem}: the script ended with exit code {code}", counts)
    if failed:
        errors.seek(0)
        sys.stderr.write(errors.read()[-8000:])
    errors.close()


def print_tail(path, lines=40):
    if path.exists():
        tail = path.read_text(errors="replace").splitlines()[-lines:]
        print("\n".join(["# the end of the server's log", *tail]), file=sys.stderr)


if __name__ == "__main__":
    main()
