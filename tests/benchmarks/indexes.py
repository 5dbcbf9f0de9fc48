"""What each index that only answers need costs a load, and what it is for; a part of `make bench-analytics`.

In a transaction that is rolled back an index is dropped. How long new runs with their steps take to be inserted then, triggers
included, is compared with how long they take beside it, in turns; how long each question takes, with the time it took before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from sqlalchemy import Connection, text

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
    "steps_reported_error_idx",
    "steps_not_started_idx",
    "steps_updated_at_idx",
    "run_rollup_hour_idx",
    "step_rollup_hour_idx",
    "step_rollup_daily_day_idx",
    "step_failures_time_idx",
    "step_failures_workflow_id_time_idx",
)
RUNS = 4000
"""Inserted at once."""
GIVE_UP = 20.0
"""Seconds after which a question without its index is told no longer."""

# Ten hours of ten workflows, as after a minute of a service that reads much at once.
_GROUPS = text("""
    INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
    SELECT w.id, date_trunc('hour', now(), 'UTC') - make_interval(hours => 24 + h)
    FROM orchestra.workflows AS w CROSS JOIN generate_series(1, 10) AS h
""")


class Asked(NamedTuple):
    """What a question took with all indexes, in milliseconds."""

    name: str
    sql: str
    milliseconds: float


class _Undo(Exception):
    """Ends a transaction without a trace."""


def show(url: str, load: Callable[[psycopg.Connection], None], asked: Sequence[Asked], repetitions: int) -> None:
    """Print what each index costs and is for; `load` inserts runs with 5 steps each, `RUNS` of them."""
    query(url, "ALTER TABLE orchestra.runs SET (autovacuum_enabled = off)")
    query(url, "ALTER TABLE orchestra.steps SET (autovacuum_enabled = off)")
    refreshing = Asked("refresh of 100 groups", "", _refresh(url, None))
    print(f"{'index':36}{'MB':>8}{'load, us a step':>17}{'of all':>8}   needed most by")
    for name in INDEXES:
        [size] = query(url, f"SELECT pg_relation_size('orchestra.{name}') / 1e6 AS megabytes")
        pairs = [(_insert(url, load, None), _insert(url, load, name)) for _ in range(repetitions)]
        beside = statistics.median(one for one, _ in pairs)
        cost = statistics.median(one - other for one, other in pairs)
        slower = [(_ask(url, one.sql, name), one) for one in asked]
        slower.append((_refresh(url, name), refreshing))
        without, one = max(slower, key=lambda found: found[0] - found[1].milliseconds)
        told = f"over {GIVE_UP * 1000:,.0f}" if without == float("inf") else f"{without:,.0f}"
        print(
            f"{name:36}{size['megabytes']:>8.1f}{cost / RUNS / 5 * 1e6:>17.1f}{cost / beside:>8.0%}"
            f"   {one.name}: {one.milliseconds:,.0f} ms, without it {told} ms"
        )


@contextmanager
def _without(url: str, index: str | None) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if index is not None:
            connection.execute(f"DROP INDEX orchestra.{index}".encode())
        yield connection
        connection.rollback()


def _insert(url: str, load: Callable[[psycopg.Connection], None], index: str | None) -> float:
    """Seconds."""
    with _without(url, index) as connection:
        begun = time.perf_counter()
        load(connection)
        return time.perf_counter() - begun


def _ask(url: str, sql: str, index: str) -> float:
    """Milliseconds, of the second time; infinite where it was given up."""
    with _without(url, index) as connection:
        connection.execute(f"SET LOCAL statement_timeout = {GIVE_UP * 1000:.0f}".encode())
        try:
            for _ in range(2):
                begun = time.perf_counter()
                connection.execute(sql.encode()).fetchall()
                taken = time.perf_counter() - begun
        except psycopg.errors.QueryCanceled:
            return float("inf")
        return taken * 1000


def _refresh(url: str, index: str | None) -> float:
    """Milliseconds for a hundred groups, of the second time."""
    taken = []

    def work(connection: Connection) -> None:
        if index is not None:
            connection.execute(text(f"DROP INDEX orchestra.{index}"))
        for _ in range(2):
            connection.execute(_GROUPS)
            begun = time.perf_counter()
            assert rollups.refresh(connection).groups == 100
            taken.append(time.perf_counter() - begun)
        raise _Undo

    database = Database(url, pool_size=1)
    try:
        database.transaction(work)
    except _Undo:
        pass
    finally:
        database.close()
    return taken[-1] * 1000
