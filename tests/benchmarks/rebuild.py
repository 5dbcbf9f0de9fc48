"""`orchestra-etl rebuild` compared with its limit: reading the payloads alone, in the same order.

Run it as `python -m tests.benchmarks.rebuild [--runs N] [--step-bytes N] [--large-bytes N]`. The
last option adds that many bytes of text to one step of each run. "Nothing changed" is a rebuild
that finds every column right; "all changed" writes every step with usage. Memory is the peak
resident set of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import psycopg

from etl.admin import rebuild
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from etl.transform.reread import COLUMNS
from tests.benchmarks.load_stage import load, read
from tests.benchmarks.recorded import Corpus
from tests.postgres_fixture import new_home
from tests.support import query

_DUE = (
    "UPDATE orchestra_etl.rebuilds"
    " SET after_step_id = NULL, steps = 0, changed = 0, started_at = NULL, finished_at = NULL"
)
_FORGET = f"UPDATE orchestra.steps SET {', '.join(f'{name} = NULL' for name in COLUMNS)}"
_ENLARGE = """
    UPDATE orchestra.outputs
    SET data = data || jsonb_build_object('text', repeat('x', %s)), size_bytes = size_bytes + %s
    WHERE step_id IN (SELECT min(id) FROM orchestra.steps
                      GROUP BY run_id) AND jsonb_typeof(data) = 'object'
"""
_PAYLOADS = """
    SELECT s.id, convert_to(CAST(i.data AS text), 'UTF8'), convert_to(CAST(o.data AS text), 'UTF8')
    FROM orchestra.steps AS s
    LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id
    LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id
    ORDER BY s.id
"""


def read_payloads(url: str) -> int:
    """Read what a rebuild reads, and do nothing with it: the limit."""
    size = 0
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for _, inputs, outputs in cursor.stream(_PAYLOADS, binary=True):
            size += len(inputs or b"") + len(outputs or b"")
    return size


def rebuild_all(url: str) -> int:
    """Run the rebuild, and return the number of changed steps."""
    database = Database(url)
    try:
        return rebuild.rebuild(database).changed
    finally:
        database.close()


def _measured(work: Callable[[str], int], url: str, results: object) -> None:
    begun = time.perf_counter()
    found = work(url)
    [peak] = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    results.put((time.perf_counter() - begun, int(peak) / 1024, found))  # type: ignore[attr-defined]


def measure(name: str, work: Callable[[str], int], url: str, steps: int) -> None:
    """Print the cost of the work in a process of its own."""
    context = get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measured, args=(work, url, results))
    process.start()
    seconds, peak, found = results.get()
    process.join()
    print(
        f"{name:30}{steps / seconds:>12,.0f} steps/s{seconds:>9.2f} s{peak:>9.0f} MB "
        f"peak   ({found:,})"
    )


def main() -> None:
    """Load a history, then read it again."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.rebuild",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=5000, help="runs of the history")
    parser.add_argument("--step-bytes", type=int, default=3000, help="size of a model's step")
    parser.add_argument("--large-bytes", type=int, default=0, help="size of a large step")
    given = parser.parse_args()
    home = new_home()
    try:
        with EmbeddedPostgres(
            home, settings={"max_wal_size": "4GB", "autovacuum": "off"}
        ) as server:
            url = server.url
            upgrade(url)
            readings = read(Corpus(given.runs, step_bytes=given.step_bytes))
            load(url, readings)
            if given.large_bytes:
                query(url, _ENLARGE, given.large_bytes, given.large_bytes)
            query(url, "VACUUM ANALYZE")
            [row] = query(url, "SELECT count(*) AS steps FROM orchestra.steps")
            measure("payloads alone", read_payloads, url, row["steps"])
            query(url, _DUE)
            measure("rebuild, nothing changed", rebuild_all, url, row["steps"])
            query(url, _FORGET)
            query(url, _DUE)
            measure("rebuild, all changed", rebuild_all, url, row["steps"])
            [queued] = query(url, "SELECT count(*) AS rows FROM orchestra_etl.changed_groups")
            print(f"{row['steps']:,} steps; {queued['rows']:,} rows in the queue of the rollups")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
