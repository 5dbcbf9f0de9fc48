"""Erasure in the lake: no file of it keeps an erased run.

A run that was erased leaves PostgreSQL's tables, which queues its day. A run that retention had
removed before is only in the lake: it is searched for there. The days of erased runs are written
again without them; then all former snapshots are forgotten, and their files are deleted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from functools import partial

import msgspec
import pyarrow as pa
from pyarrow import compute
from sqlalchemy import Connection, text

from etl.database import Database, allow_long
from etl.errors import LakeError
from etl.export import exporter, garbage
from etl.export.destination import Destination
from etl.export.erased_runs import remaining
from etl.export.lake import Lake
from etl.export.lake_rows import rows_of, run_key
from etl.export.lake_tables import LakeTable
from etl.export.progress import Progress
from etl.export.store import reported
from etl.transform.exact_json import texts_of

# Seconds for which an erasure waits for another export to end, and between two attempts.
PATIENCE = 600.0
PAUSE = 1.0

_ARCHIVED = text("""
    SELECT l.run_id FROM orchestra_etl.run_ledger AS l
    WHERE l.run_id = ANY (CAST(:ids AS text[])) AND l.tracking = 'pruned'
      AND NOT EXISTS (SELECT FROM orchestra.runs AS r WHERE r.id = l.run_id)
    ORDER BY l.run_id
""")


class LakeErasure(msgspec.Struct):
    """What an erasure has removed from the lake."""

    location: str
    runs: int
    """The erased runs that were in the lake."""
    rows: dict[str, int]
    """By table, their rows."""
    days: list[date]
    """The days that were written again."""
    files: int
    """The files that were deleted."""
    bytes: int


def archived_runs_of(
    connection: Connection,
    destination: Destination,
    field: str,
    values: Iterable[str],
    workflow_id: str | None,
) -> list[str]:
    """Return the runs that only the lake has and that name a person, in key order.

    Args:
        connection: in a transaction with one snapshot.
        destination: where the lake is.
        field: `user_id` or `organization_id`.
        values: the values that stand for the person.
        workflow_id: only this workflow's runs; None: all.

    Raises:
        LakeError: the lake cannot be read.
    """
    allow_long(connection)
    names = pa.array(sorted(values), pa.string())
    found: set[str] = set()
    with reported(destination.location):
        lake = Lake(connection, destination)
        for table in lake.day_tables():
            for rows in _named(lake, table, field, names):
                if workflow_id is not None:
                    rows = rows.filter(compute.equal(rows["workflow_id"], workflow_id))
                found.update(rows[run_key(table)].to_pylist())
    return list(connection.execute(_ARCHIVED, {"ids": sorted(found)}).scalars())


def erase(
    database: Database,
    destination: Destination,
    *,
    patience: float = PATIENCE,
    on_days: Progress = lambda done, waiting, rows: None,
) -> LakeErasure:
    """Remove every run from the lake that is erased in PostgreSQL, and prove that none is left.

    Everything else that waits for an export is exported as well, such as redacted rows, and no
    former file is left. It is safe to repeat.

    Args:
        database: with the export's state.
        destination: where the lake is.
        patience: seconds for which to wait for another process that is exporting.
        on_days: see `exporter.run`.

    Raises:
        DatabaseError: the database cannot be used.
        LakeError: the lake cannot be read or written, or another process does not end its export.
    """
    before = database.in_one_snapshot(partial(_count, destination=destination))
    end = time.monotonic() + patience

    def finished(attempt: Callable[[], bool]) -> None:
        while not attempt():
            if time.monotonic() > end:
                raise LakeError(
                    "another process is exporting and does not end: repeat this command to remove"
                    " the erased runs from the lake, too"
                )
            time.sleep(PAUSE)

    finished(lambda: not exporter.run(database, destination, on_days=on_days).busy)
    collected = garbage.Garbage(0, 0)

    def collect() -> bool:
        nonlocal collected
        found = garbage.run(database, destination, keep=0)
        collected = found or collected
        return found is not None

    finished(collect)
    if database.in_one_snapshot(partial(remaining, destination=destination)):
        raise LakeError(
            "the lake still has erased runs: another process may have written them; repeat this"
        )
    return msgspec.structs.replace(before, files=collected.files, bytes=collected.bytes)


def _count(connection: Connection, destination: Destination) -> LakeErasure:
    """Return the erased runs that the lake has, with the rows of each table."""
    left = remaining(connection, destination)
    rows = Counter[str]()
    with reported(destination.location):
        lake = Lake(connection, destination)
        for table in lake.day_tables():
            key = run_key(table)
            for day, run_ids in left.items():
                ids = pa.array(run_ids, pa.string())
                for found in rows_of(lake.table(table), day, key):
                    rows[table.name] += compute.sum(compute.is_in(found[key], ids)).as_py() or 0
    runs = sum(map(len, left.values()))
    return LakeErasure(destination.location, runs, dict(rows), days=sorted(left), files=0, bytes=0)


def _named(lake: Lake, table: LakeTable, field: str, names: pa.Array) -> Iterator[pa.Table]:
    """Yield the rows that name a person, in a column or, if that is impossible, in `extra`."""
    key = run_key(table)
    if field in table.column_names:
        for rows in rows_of(lake.table(table), None, *(key, "workflow_id", field)):
            yield rows.filter(compute.is_in(rows[field], names))
    elif "extra" in table.column_names:
        wanted = frozenset(names.to_pylist())
        for rows in rows_of(lake.table(table), None, *(key, "workflow_id", "extra")):
            named = [_names(extra, field, wanted) for extra in rows["extra"].to_pylist()]
            yield rows.filter(pa.array(named, pa.bool_()))


def _names(extra: str | None, field: str, wanted: frozenset[str]) -> bool:
    """Return whether unexpected members of a run or step contain one of these names."""
    if extra is None or field not in extra:
        return False
    members: Mapping[str, object] = json.loads(extra)
    return any(value in wanted for value in texts_of(members.get(field)))
