"""The cost and use of each index that only queries need; a part of `make bench-analytics`.

Each index is dropped in a transaction that is rolled back. The benchmark compares the time and the
write-ahead log of inserting new runs with their steps, triggers included, with and without the
index. It alternates both and takes the minimum of each, since every disturbance only adds time. It
also compares the time of each query with and without the index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from etl.analytics import rollups
from etl.database import Database
from tests.support import query

INDEXES = (
    "runs_start_time_idx",
    "runs_workflow_id_start_time_idx",
    "runs_unfinished_idx",
    "runs_unstarted_idx",
    "runs_updated_at_idx",
    "steps_workflow_id_start_time_idx",
    "steps_error_idx",
    "steps_reported_cost_idx",
    "steps_unstarted_idx",
    "steps_updated_at_idx",
    "run_rollup_hour_idx",
    "step_rollup_hour_idx",
    "step_rollup_daily_day_idx",
    "step_failures_time_idx",
    "step_failures_workflow_id_time_idx",
)
RUNS = 4000
"""Runs inserted at once, or all runs of a smaller history."""
REPETITIONS = 5
NOTICED = 50.0
"""Milliseconds below which a slower query does not matter."""
GIVE_UP = 20.0
"""Seconds after which a query without its index is cancelled."""

# Ten hours of ten workflows, as after a minute of a busy service.
_GROUPS = text("""
    INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
    SELECT w.id, date_trunc('hour', now(), 'UTC') - make_interval(hours => 24 + h)
    FROM orchestra.workflows AS w CROSS JOIN generate_series(1, 10) AS h
""")


class TimedQuery(NamedTuple):
    """A query and its time with all indexes, in milliseconds."""

    name: str
    sql: str
    milliseconds: float


class _Inserted(NamedTuple):
    """The cost of inserting the runs."""

    log: float
    """Bytes of PostgreSQL's write-ahead log.

    They are the same each time, except for the first change of a page after a checkpoint.
    """
    seconds: float


class _Undo(Exception):
    """Rolls a transaction back."""


def show(
    url: str, load: Callable[[psycopg.Connection], None], runs: int, queries: Sequence[TimedQuery]
) -> None:
    """Print the cost and use of each index; `load` inserts that many runs with 5 steps each."""
    for table in ("runs", "steps"):
        query(url, f"ALTER TABLE orchestra.{table} SET (autovacuum_enabled = off)")
    refreshing = TimedQuery("refresh of 100 groups", "", _refresh(url, None))
    # This comes before any insert, because the dead rows of a rollback slow later queries.
    needs = {}
    for index in INDEXES:
        times = [
            *zip(queries, _times(url, queries, index), strict=True),
            (refreshing, _refresh(url, index)),
        ]
        needs[index] = max(times, key=lambda pair: pair[1] / max(pair[0].milliseconds, NOTICED))
    print(
        f"{'index':36}{'MB':>8}{'log, bytes a step':>19}{'of all':>8}"
        f"{'us a step':>11}   needed most by"
    )
    names: list[str | None] = [None, *INDEXES]
    for name in names:
        use = "(no index dropped: the noise of the times)" if name is None else _need(*needs[name])
        [size] = query(
            url, "SELECT pg_relation_size(to_regclass(%s)) / 1e6 AS megabytes", f"orchestra.{name}"
        )
        line = f"{name or '':36}{size['megabytes'] or 0:>8.1f}"
        if name is not None and not name.startswith(("runs_", "steps_")):
            print(f"{line}{'not changed by a load':>38}   {use}")
            continue
        pairs = [(_insert(url, load, None), _insert(url, load, name)) for _ in range(REPETITIONS)]
        beside = _Inserted(*(min(found) for found in zip(*(one for one, _ in pairs), strict=True)))
        alone = _Inserted(*(min(found) for found in zip(*(one for _, one in pairs), strict=True)))
        log, microseconds = beside.log - alone.log, (beside.seconds - alone.seconds) * 1e6
        print(
            f"{line}{log / runs / 5:>19.1f}{log / beside.log:>8.1%}"
            f"{microseconds / runs / 5:>11.1f}   {use}"
        )


def _need(one: TimedQuery, without: float) -> str:
    if without < 1.5 * max(one.milliseconds, NOTICED):
        return "none of these queries"
    time_without = f"over {GIVE_UP * 1000:,.0f}" if without == float("inf") else f"{without:,.0f}"
    return f"{one.name}: {one.milliseconds:,.0f} ms, without it {time_without} ms"


@contextmanager
def _without(url: str, index: str | None) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if index is not None:
            connection.execute(f"DROP INDEX orchestra.{index}".encode())
        yield connection
        connection.rollback()


def _insert(url: str, load: Callable[[psycopg.Connection], None], index: str | None) -> _Inserted:
    """Return the cost of inserting the runs."""
    with _without(url, index) as connection:
        [[before]] = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()
        begun = time.perf_counter()
        load(connection)
        seconds = time.perf_counter() - begun
        [[log]] = connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", [before]
        ).fetchall()
        return _Inserted(float(log), seconds)


def _times(url: str, queries: Sequence[TimedQuery], index: str) -> list[float]:
    """Return the milliseconds of each query, or infinity if it was cancelled.

    They share a session, because a new one reads PostgreSQL's catalog first.
    """
    found = []
    with _without(url, index) as connection:
        connection.execute(f"SET LOCAL statement_timeout = {GIVE_UP * 1000:.0f}".encode())
        for one in queries:
            begun = time.perf_counter()
            try:
                with connection.transaction():
                    connection.execute(one.sql.encode()).fetchall()
                found.append((time.perf_counter() - begun) * 1000)
            except psycopg.errors.QueryCanceled:
                found.append(float("inf"))
    return found


def _refresh(url: str, index: str | None) -> float:
    """Return the milliseconds for a hundred groups, or infinity if the refresh was cancelled."""
    taken = [float("inf")]

    def work(connection: Connection) -> None:
        if index is not None:
            connection.execute(text(f"DROP INDEX orchestra.{index}"))
        connection.execute(_GROUPS)
        connection.execute(text(f"SET LOCAL statement_timeout = {GIVE_UP * 1000:.0f}"))
        begun = time.perf_counter()
        try:
            assert rollups.refresh(connection).groups == 100
            taken.append(time.perf_counter() - begun)
        except OperationalError:
            pass
        raise _Undo

    database = Database(url, pool_size=1)
    try:
        database.transaction(work)
    except _Undo:
        pass
    finally:
        database.close()
    return taken[-1] * 1000
