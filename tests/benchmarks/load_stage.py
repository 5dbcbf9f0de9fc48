"""The load stage alone, from decoded steps to committed tables, compared with its limit.

The limit is COPY of ready-made bytes into the same tables. Run it as `python -m
tests.benchmarks.load_stage`. Everything is prepared before the clock starts. Each figure is the
median of several repetitions, each into emptied tables. "Bare tables" have no triggers and no
indexes that only analysts need.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import psycopg

from etl import logs
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.ledger.claims import Claim, claim
from etl.ledger.lifecycle import KnownRun, PollingPolicy
from etl.pipeline.batches import BATCH_STEPS
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reading
from etl.schema import upgrade
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_run, decode_single_run
from etl.transform.states import StateMap
from tests.benchmarks.recorded import Corpus
from tests.postgres_fixture import new_home
from tests.support import query

STATES = StateMap()

_ENTER = """
    INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, listed_sweep,
                                          due_at)
    SELECT unnest(CAST(%s AS text[])), 'w', 'list', 'open', 1, now()
    ON CONFLICT (run_id) DO UPDATE SET due_at = now(), leased_until = NULL
"""

# The columns of the ready-made bytes: all except those that PostgreSQL computes.
_COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
    FROM pg_attribute
    WHERE attrelid = to_regclass('orchestra.' || %s) AND attnum > 0 AND NOT attisdropped
      AND attgenerated = ''
"""

# The key of the run in each table, which finds the rows of a batch.
_TABLES = {
    "runs": "id = ANY (%s)",
    "run_payloads": "run_id = ANY (%s)",
    "steps": "run_id = ANY (%s)",
    "inputs": "step_id IN (SELECT id FROM orchestra.steps WHERE run_id = ANY (%s))",
    "outputs": "step_id IN (SELECT id FROM orchestra.steps WHERE run_id = ANY (%s))",
}

# The indexes that only analysts need: no statement of the load uses them.
ANALYSTS_INDEXES = (
    "runs_workflow_id_start_time_idx",
    "runs_start_time_idx",
    "runs_unfinished_idx",
    "steps_workflow_id_start_time_idx",
    "steps_error_idx",
    "steps_reported_cost_idx",
)

Batch = list[Reading]


class LoadCost(NamedTuple):
    """The cost of a load."""

    seconds: float
    wal_bytes: int
    """Bytes that the load wrote to PostgreSQL's write-ahead log."""


def read(corpus: Corpus) -> list[Reading]:
    """Return what a poll would have read of every run: decoded and ready to load."""
    history = corpus.history()
    [workflow_id] = history.workflow_ids
    now = datetime.now(UTC)
    readings = []
    for run_id in history.run_ids(workflow_id):
        body = msgspec.json.encode(history.steps(run_id))
        row = decode_single_run(msgspec.json.encode([history.run(run_id)]), run_id)
        assert row is not None
        steps = decode_steps(body, workflow_id=workflow_id, run_id=run_id, states=STATES)
        run = decode_run(row.listing, states=STATES).run
        known = KnownRun(
            now, listed=True, read_digest=None, checks=0, attempts=0, steps_observed_at=None
        )
        claim = Claim(run_id, workflow_id, 0, now, None, now, None, None, None, None, known)
        readings.append(
            Reading(claim, now, now, steps=steps, run=run, run_observed_at=now, size=len(body))
        )
    return readings


def changed(readings: Sequence[Reading]) -> list[Reading]:
    """Return the same steps as if every one had changed."""
    return [
        msgspec.structs.replace(
            one,
            steps=msgspec.structs.replace(
                one.steps,
                steps=tuple(
                    msgspec.structs.replace(step, content_hash=step.content_hash[::-1])
                    for step in one.steps.steps
                ),
            ),
        )
        for one in readings
        if one.steps is not None
    ]


def claimed(database: Database, url: str, readings: Sequence[Reading]) -> list[Batch]:
    """Claim the runs in the ledger, and split them into batches of the service's size."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_ENTER, [[one.claim.run_id for one in readings]])
        connection.execute("VACUUM ANALYZE orchestra_etl.run_ledger")
    by_id = {
        one.run_id: one
        for one in database.transaction(lambda c: claim(c, limit=1_000_000, lease=3600))
    }
    batches: list[Batch] = [[]]
    steps = 0
    for one in readings:
        if steps >= BATCH_STEPS:
            batches.append([])
            steps = 0
        mine = msgspec.structs.replace(one.claim, token=by_id[one.claim.run_id].token)
        batches[-1].append(msgspec.structs.replace(one, claim=mine))
        steps += len(one.steps.steps) if one.steps is not None else 0
    return batches


def load(url: str, readings: Sequence[Reading], *, connections: int = 1) -> LoadCost:
    """Return the cost of the loader for these readings on that many connections."""
    database = Database(url, pool_size=connections + 1)
    try:
        batches = claimed(database, url, readings)
        loader = Loader(database, PollingPolicy(), STATES)
        loader.load([])  # This opens the connection.
        logged = wal_bytes(url)
        begun = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            reports = list(pool.map(loader.load, batches))
        seconds = time.perf_counter() - begun
        if sum(report.runs for report in reports) != len(readings):
            raise SystemExit("not every run was loaded")
        return LoadCost(seconds, wal_bytes(url) - logged)
    finally:
        database.close()


def ready_made(url: str) -> list[dict[str, bytes]]:
    """Return the stored rows as bytes of COPY with their statements, in the service's batches."""
    run_ids = [
        row["id"] for row in query(url, "SELECT id FROM orchestra.runs ORDER BY start_time, id")
    ]
    [row] = query(url, "SELECT count(*) AS steps FROM orchestra.steps")
    runs_a_batch = max(1, len(run_ids) * BATCH_STEPS // row["steps"])
    batches = []
    with psycopg.connect(url) as connection:
        for first in range(0, len(run_ids), runs_a_batch):
            ids = run_ids[first : first + runs_a_batch]
            batch = {}
            for table, condition in _TABLES.items():
                [row] = query(url, _COLUMNS, table)
                rows = (
                    f"SELECT {row['columns']} FROM orchestra.{table} WHERE {condition} ORDER BY 1"
                )
                with connection.cursor().copy(f"COPY ({rows}) TO STDOUT", [ids]) as copy:
                    batch[f"COPY orchestra.{table} ({row['columns']}) FROM STDIN"] = b"".join(
                        map(bytes, copy)
                    )
            batches.append(batch)
    return batches


def write_ready_made(url: str, file: Path) -> None:
    """Write the result of `ready_made` into a file.

    The function is here because a spawned process cannot import the `__main__` of a package.
    """
    file.write_bytes(pickle.dumps(ready_made(url)))


def copy(url: str, batches: Sequence[dict[str, bytes]], *, connections: int = 1) -> LoadCost:
    """Return the cost of COPY for ready-made bytes, one transaction per batch."""
    opened = [psycopg.connect(url) for _ in range(connections)]

    def work(number: int) -> None:
        for batch in batches[number::connections]:
            with opened[number].transaction():
                for statement, data in batch.items():
                    with opened[number].cursor().copy(statement) as sink:
                        sink.write(data)

    logged = wal_bytes(url)
    begun = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, range(connections)))
    seconds = time.perf_counter() - begun
    for connection in opened:
        connection.close()
    return LoadCost(seconds, wal_bytes(url) - logged)


def empty(url: str) -> None:
    """Empty all tables that a load fills."""
    query(
        url,
        "TRUNCATE orchestra.runs, orchestra_etl.changed_groups, orchestra_etl.run_ledger CASCADE",
    )
    query(url, "CHECKPOINT")


def without_extras(url: str, *, triggers: bool, indexes: bool) -> None:
    """Drop the tables' triggers, or the analysts' indexes."""
    if not triggers:
        for table in ("runs", "steps"):
            for trigger in ("mark_inserted", "mark_updated", "mark_deleted"):
                query(url, f"ALTER TABLE orchestra.{table} DISABLE TRIGGER {trigger}")
    if not indexes:
        query(url, "".join(f"DROP INDEX orchestra.{name};" for name in ANALYSTS_INDEXES))


def wal_bytes(url: str) -> int:
    """Return the number of bytes written to the write-ahead log so far."""
    return int(
        query(url, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') AS bytes")[0]["bytes"]
    )


def bench(url: str, corpus: Corpus, repetitions: int) -> dict[str, float]:
    """Return the steps per second of each way to load them."""
    readings = read(corpus)
    again = changed(readings)
    steps = sum(len(one.steps.steps) for one in readings if one.steps is not None)
    found: dict[str, list[float]] = {}

    def measure(name: str, work: Callable[[], LoadCost]) -> None:
        took = work()
        found.setdefault(name, []).append(steps / took.seconds)
        if name == "load, unchanged":
            found.setdefault("bytes of log a step, unchanged", []).append(took.wal_bytes / steps)

    empty(url)
    load(url, readings)
    batches = ready_made(url)
    for _ in range(repetitions):
        empty(url)
        measure("load", lambda: load(url, readings))
        measure("load, unchanged", lambda: load(url, readings))
        measure("load, all changed", lambda: load(url, again))
        empty(url)
        measure("load, two connections", lambda: load(url, readings, connections=2))
        empty(url)
        measure("COPY", lambda: copy(url, batches))
        empty(url)
        measure("COPY, two connections", lambda: copy(url, batches, connections=2))
    return {name: statistics.median(rates) for name, rates in found.items()}


def main() -> None:
    """Print the rates for the tables as they are, and for bare tables."""
    logs.configure("warning", "json")
    parser = argparse.ArgumentParser(
        prog="make bench-stages",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=4000, help="runs to load, five steps each")
    parser.add_argument("--repetitions", type=int, default=3, help="loads of each kind")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    home = new_home()
    result: dict[str, dict[str, float]] = {}
    try:
        with EmbeddedPostgres(
            home, settings={"max_wal_size": "4GB", "autovacuum": "off"}
        ) as server:
            upgrade(server.url)
            corpus = Corpus(given.runs, step_bytes=3000)
            for name, triggers, indexes in (
                ("as shipped", True, True),
                ("no triggers", False, True),
                ("bare tables", False, False),
            ):
                without_extras(server.url, triggers=triggers, indexes=indexes)
                result[name] = bench(server.url, corpus, given.repetitions)
                print(f"{name}: done", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'steps a second':42}" + "".join(f"{name:>14}" for name in result))
    for name in next(iter(result.values())):
        print(f"{name:42}" + "".join(f"{rates[name]:>14,.0f}" for rates in result.values()))


if __name__ == "__main__":
    main()
