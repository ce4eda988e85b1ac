"""What the client scripts share: the list of checks, their time limit, their report.

A script decorates its functions with @check and calls main(). Each check gets the parsed command line and is
independent of the others; its tables begin with its own name. One line per check goes to stdout:

    ok <name> (<seconds> s)
    FAIL <name>: <what was seen>
    skip <name>: <what is missing>
"""

import argparse
import signal
import sys
import time
import traceback

CHECKS = []
SECONDS_MAX = 60


class Skip(Exception):
    """Something outside of the product is missing; the text says how to get it."""


def check(function):
    CHECKS.append(function)
    return function


def expect(actual, wanted, what="value"):
    if actual != wanted:
        raise AssertionError(f"{what} is {actual!r}, expected {wanted!r}")


def expect_in(part, whole, what="text"):
    if part not in whole:
        raise AssertionError(f"{what} {whole!r} does not contain {part!r}")


def wait_until(condition, what, seconds=10.0):
    """Polls, because views follow their inputs after a moment."""
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


def _on_alarm(_signal, _frame):
    raise TimeoutError(f"took longer than {SECONDS_MAX} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pg", required=True, help="host:port of the Postgres interface")
    parser.add_argument("--http", required=True, help="host:port of the HTTP interface")
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--server-log", default="", help="file that the server logs to")
    parser.add_argument("--only", default="", help="run the checks with this in their name")
    arguments = parser.parse_args()
    arguments.host, _, port = arguments.pg.rpartition(":")
    arguments.port = int(port)
    signal.signal(signal.SIGALRM, _on_alarm)
    failed = False
    for function in CHECKS:
        name = function.__name__
        if arguments.only not in name:
            continue
        begun = time.monotonic()
        signal.alarm(SECONDS_MAX)
        try:
            function(arguments)
            print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
        except Skip as reason:
            print(f"skip {name}: {reason}", flush=True)
        except Exception as error:  # every failure of a check is reported, and the others still run
            failed = True
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {name}: {text[:600]}", flush=True)
            traceback.print_exc(file=sys.stderr)
        finally:
            signal.alarm(0)
    sys.exit(1 if failed else 0)
