"""`make bench`: what loading a history costs, and what it costs once nothing changes.

The simulator and PostgreSQL run on the same machine, each in processes of their own; PostgreSQL keeps its durable
settings. Every figure is measured in this run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from etl.database import upgrade
from etl.local.history import History
from etl.local.postgres import EmbeddedPostgres
from etl.local.simulator import Simulator
from tests.oracle import differences
from tests.postgres_fixture import new_home
from tests.support import query

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
COMMAND = [sys.executable, "-m", "etl"]


def measure(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], float, float]:
    """Run a command that prints JSON: its result, its wall time in seconds and its peak memory in MB."""
    begun = time.monotonic()
    process = subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return json.loads(output), time.monotonic() - begun, usage.ru_maxrss / 1024


def still_history(runs: int) -> History:
    """A history of so many finished runs, the same in every process."""
    return History(runs_per_workflow=runs // 3, live=0, arrivals_per_minute=0, epoch=EPOCH)


def serve(runs: int, port: Connection) -> None:
    """Serve the history until the process is ended."""
    history = still_history(runs)
    with Simulator(history).in_thread() as simulator:
        port.send(simulator.base_url)
        threading.Event().wait()


def compare(url: str, runs: int) -> None:
    """Compare the database with the history, field by field; exit status 1 where they differ."""
    problems = differences(url, still_history(runs))
    if problems:
        raise SystemExit(f"{len(problems)} differences, the first: {problems[0]}")


def bench(runs: int, home: Path, *, verify: bool) -> list[dict[str, Any]]:
    """Load a history of so many runs, then sync again; `verify` compares every field with the simulator's own data."""
    with EmbeddedPostgres(home) as server:
        query(server.url, "DROP SCHEMA IF EXISTS orchestra, orchestra_etl CASCADE")
        upgrade(server.url)
        parent, child = get_context("spawn").Pipe()
        simulator = get_context("spawn").Process(target=serve, args=(runs, child))
        simulator.start()
        child.close()
        try:
            variables = {"ORCHESTRA_BASE_URL": parent.recv(), "ORCHESTRA_API_KEY": "simulated-key"}
            config = home / "bench.toml"
            config.write_text('[api]\nall_workflows = true\nrequests_per_second = 0\n[logs]\nlevel = "error"\n')
            environment = {**os.environ, **variables, "DATABASE_URL": server.url, "ORCHESTRA_ETL_CONFIG": str(config)}
            rows = []
            for name in ("first load", "unchanged"):
                result, seconds, memory = measure(["sync", "--json"], environment)
                load = result["load"]
                rows.append(
                    {
                        "runs": runs,
                        "what": name,
                        "steps": load["steps"],
                        "seconds": round(seconds, 2),
                        "steps_per_second": round(load["steps"] / seconds),
                        "requests": result["requests"],
                        "written": load["steps_inserted"] + load["steps_updated"],
                        "peak_mb": round(memory),
                    }
                )
            if verify:
                # In a process of its own: a process that forks passes its own peak memory on to the next measurement.
                check = get_context("spawn").Process(target=compare, args=(server.url, runs))
                check.start()
                check.join()
                if check.exitcode != 0:
                    raise SystemExit("the database differs from the simulator's data")
            return rows
        finally:
            simulator.terminate()
            simulator.join()


def main() -> None:
    """Print a table, and with --json the figures for programs."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[999, 3000, 9999])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-verify", action="store_true", help="do not compare every field with the simulator's data")
    options = parser.parse_args()
    rows = []
    for runs in options.runs:
        home = new_home()
        try:
            rows += bench(runs, home, verify=not options.no_verify)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    columns = list(rows[0])
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(str(row[column]).rjust(16) for column in columns))


if __name__ == "__main__":
    main()
