"""`make bench-export`: what it costs to keep a lake equal to the history, beside dlt.

SQL generates the history of `make bench-analytics`, without payloads, and the rollups are brought
up to date, as the service does it after each load. The export then writes it whole, with nothing
changed, and with one changed day. dlt copies the same tables with its `sql_database` source. CPU
time is that of the command and of the database server together, because both work for an export.
Memory is the peak of the command. `serve` has paid the start of a process and the imports already:
the last task exports a changed day in this process, where another export came before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pyarrow import parquet

from etl.analytics import rollups
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.export import exporter
from etl.export.destination import Destination
from etl.schema import upgrade
from tests.benchmarks.analytics import DAYS, NODES, SERVER, make
from tests.benchmarks.contenders import DLT, HERE
from tests.benchmarks.cost import run, server_cpu
from tests.postgres_fixture import new_home
from tests.support import query

CHANGE = """
    UPDATE orchestra.runs SET updated_at = now() WHERE id = (
        SELECT id FROM orchestra.runs WHERE start_time < now() - CAST(%s AS interval)
        ORDER BY start_time DESC LIMIT 1)
"""
REPEATED = 9


class ExportFigure(NamedTuple):
    """The cost of a task."""

    task: str
    contender: str
    rows: int
    """Rows that were written."""
    seconds: float
    cpu_seconds: float
    """CPU time of the command and of the server."""
    server_seconds: float
    """The server's part of `cpu_seconds`."""
    peak_mb: float


def measured(
    url: str, task: str, contender: str, command: Sequence[str], variables: dict[str, str]
) -> ExportFigure:
    """Run a command, and return its cost without the number of rows."""
    cost = run(command, variables, url)
    figure = ExportFigure(
        task,
        contender,
        0,
        cost.seconds,
        cost.cpu_seconds + cost.server_seconds,
        cost.server_seconds,
        cost.peak_mb,
    )
    print(f"{contender}, {task}: {cost.seconds:.1f} s", file=sys.stderr, flush=True)
    return figure


def copied(url: str, lake: Path) -> int:
    """Return the number of runs and steps in a lake that has just been written.

    Raises:
        SystemExit: if they are not those of the database.
    """
    total = 0
    for table in ("runs", "steps"):
        [row] = query(url, f"SELECT count(*) AS rows FROM orchestra.{table}")
        files = (lake / "orchestra" / table).rglob("*.parquet")
        found = sum(parquet.read_metadata(file).num_rows for file in files)
        if found != row["rows"]:
            raise SystemExit(f"{lake} has {found:,} of {row['rows']:,} {table}")
        total += found
    return total


def ours(url: str, folder: Path) -> list[ExportFigure]:
    """Export everything, then nothing, then one changed day."""
    settings = folder / "etl.toml"
    settings.write_text(f'[logs]\nlevel = "error"\n[export]\nlocation = "{folder}/lake"\n')
    variables = {"DATABASE_URL": url, "ORCHESTRA_ETL_CONFIG": str(settings)}
    command = [sys.executable, "-m", "etl", "export", "run", "--json"]
    found = []
    for task, change in (
        ("everything", ""),
        ("nothing changed", ""),
        (
            "one changed day",
            CHANGE,
        ),
    ):
        if change:
            query(url, change, "2 days")
        figure = measured(url, task, "orchestra-etl", command, variables)
        if task == "everything":
            every = copied(url, folder / "lake")
        rows = {"everything": every, "nothing changed": 0, "one changed day": every // DAYS}[task]
        found.append(figure._replace(rows=rows))
    return found


def in_service(url: str, folder: Path) -> ExportFigure:
    """Export one changed day as `serve` does it: the median of several exports in one process."""
    database = Database(url)
    lake = Destination(f"{folder}/lake")
    found = []
    for number in range(REPEATED + 1):
        query(url, CHANGE, f"{2 + number} days")
        server, own, begun = server_cpu(url), time.process_time(), time.monotonic()
        done = exporter.run(database, lake)
        seconds, own = time.monotonic() - begun, time.process_time() - own
        server = server_cpu(url) - server
        rows = done.rows["runs"] + done.rows["steps"]
        found.append(
            ExportFigure(
                "changed day, serve", "orchestra-etl", rows, seconds, own + server, server, 0
            )
        )
    database.close()
    return sorted(found[1:], key=lambda one: one.cpu_seconds)[REPEATED // 2]


def dlts(url: str, folder: Path) -> list[ExportFigure]:
    """Copy everything with dlt, to Iceberg tables and to Parquet files."""
    found = []
    for table_format, name in (("iceberg", "dlt, Iceberg"), ("none", "dlt, Parquet")):
        target = folder / f"dlt-{table_format}"
        target.mkdir()
        command = [str(DLT), str(HERE / "dlt_export.py"), url, str(target), table_format]
        figure = measured(url, "everything", name, command, {})
        found.append(figure._replace(rows=copied(url, target / "lake")))
        shutil.rmtree(target)
    return found


def show(figures: Sequence[ExportFigure]) -> None:
    """Print the result as a table."""
    print(f"{'task':19}{'contender':15}{'rows':>11}{'s':>8}{'CPU s':>8}{'server':>8}{'%':>7}"
          f"{'MB':>7}{'rows/CPU s':>12}")  # fmt: skip
    for one in figures:
        rate = f"{one.rows / one.cpu_seconds:,.0f}" if one.rows else "-"
        share = 100 * one.cpu_seconds / figures[0].cpu_seconds
        print(
            f"{one.task:19}{one.contender:15}{one.rows:>11,}{one.seconds:>8.1f}"
            f"{one.cpu_seconds:>8.2f}{one.server_seconds:>8.2f}{share:>7.1f}{one.peak_mb:>7.0f}"
            f"{rate:>12}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="make bench-export",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=300_000, help=f"with {NODES} steps each")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    home = new_home()
    folder = home / "work"
    try:
        with EmbeddedPostgres(home, settings=SERVER) as server:
            folder.mkdir()
            upgrade(server.url)
            make(server.url, given.runs)
            database = Database(server.url)
            rollups.drain(database)
            database.close()
            figures = [*ours(server.url, folder), in_service(server.url, folder)]
            if DLT.exists():
                figures += dlts(server.url, folder)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    show(figures)
    if given.json:
        given.json.write_text(json.dumps([one._asdict() for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
