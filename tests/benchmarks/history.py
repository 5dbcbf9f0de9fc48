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
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from etl.database import upgrade
from etl.local.history import History
from etl.local.postgres import EmbeddedPostgres
from etl.local.simulator import Simulator
from tests.postgres_fixture import new_home
from tests.support import query

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


def serve(runs_per_workflow: int, port: Connection) -> None:
    """Serve a still history until the process is ended."""
    history = History(runs_per_workflow=runs_per_workflow, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        port.send(simulator.base_url)
        threading.Event().wait()


def bench(runs: int, home: Path) -> list[dict[str, Any]]:
    """Load a history of so many runs, then sync again."""
    with EmbeddedPostgres(home) as server:
        query(server.url, "DROP SCHEMA IF EXISTS orchestra, orchestra_etl CASCADE")
        upgrade(server.url)
        parent, child = get_context("spawn").Pipe()
        simulator = get_context("spawn").Process(target=serve, args=(runs // 3, child))
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
            return rows
        finally:
            simulator.terminate()
            simulator.join()


def main() -> None:
    """Print a table, and with --json the figures for programs."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[999, 3000, 9999])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for runs in options.runs:
        home = new_home()
        try:
            rows += bench(runs, home)
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
