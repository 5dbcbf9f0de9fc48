"""Keeps the rollups equal to what follows from the runs and steps.

Groups (a workflow's hour, see `computed`) whose runs or steps changed are queued by the transaction that changed them, and are
computed here anew, whole: nothing is added up twice, and nothing depends on the order of arrival. Groups before the retention
horizon for runs are frozen: their runs are being pruned, and what was counted stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import structlog
from sqlalchemy import Connection, TextClause, text

from etl.analytics import computed
from etl.database import Database, allow_long
from etl.ledger import changed_groups

log = structlog.get_logger(__name__)

# Groups in one transaction, so that an erasure does not wait long: two seconds, with 463 steps an hour and workflow as
# in ten million steps over 90 days. A hundred took half as long again in all, because days are added up once a batch; a thousand
# took no less.
BATCH = 300
# Seconds between two lines of progress: after an upgrade that changes what is counted, all hours wait.
SAY_EVERY = 10.0

_GROUPS = "unnest(CAST(:workflow_ids AS text[]), CAST(:hours AS timestamptz[])) AS g (workflow_id, hour)"
_DAYS = "unnest(CAST(:workflow_ids AS text[]), CAST(:days AS date[])) AS g (workflow_id, day)"


# Index conditions of their own in place of one on COALESCE.
_RUNS_OF_GROUPS = f"""(
    SELECT found.*
    FROM {_GROUPS}
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.runs
        WHERE workflow_id = g.workflow_id AND start_time >= g.hour AND start_time < g.hour + interval '1 hour'
        UNION ALL
        SELECT * FROM orchestra.runs
        WHERE workflow_id = g.workflow_id AND start_time IS NULL
          AND first_seen_at >= g.hour AND first_seen_at < g.hour + interval '1 hour'
    ) AS found
)"""

# OFFSET 0: from each hour, and from each run, to its steps by an index. The planner, which knows nothing of the hours, would
# rather read all steps: 32 s for a batch beside ten million of them, in place of one.
_STEPS_OF_GROUPS = f"""(
    SELECT s.*, s.start_time AS time, s.workflow_id AS counted_in
    FROM {_GROUPS}
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.steps
        WHERE workflow_id = g.workflow_id AND start_time >= g.hour AND start_time < g.hour + interval '1 hour'
        OFFSET 0
    ) AS s
    UNION ALL
    SELECT s.*, COALESCE(r.start_time, r.first_seen_at), r.workflow_id
    FROM {_RUNS_OF_GROUPS} AS r
    CROSS JOIN LATERAL (SELECT * FROM orchestra.steps WHERE run_id = r.id AND start_time IS NULL OFFSET 0) AS s
)"""


_HOURS_OF_DAYS = f"""(
    SELECT r.*
    FROM {_DAYS}
    JOIN orchestra.step_rollup AS r
      ON r.workflow_id = g.workflow_id
     AND r.hour >= CAST(g.day AS timestamp) AT TIME ZONE 'UTC' AND r.hour < CAST(g.day + 1 AS timestamp) AT TIME ZONE 'UTC'
)"""


class _Rollup(msgspec.Struct, frozen=True):
    """A table of rows by workflow and time."""

    when: str
    columns: tuple[str, ...]
    everything: str
    """The query that computes it whole."""
    drop: TextClause
    compute: TextClause


def _rollup(name: str, when: str, names: tuple[str, ...], everything: str, groups: str, some: str) -> _Rollup:
    columns = ("workflow_id", when, "place", *names, "buckets", "counts")
    return _Rollup(
        when,
        columns,
        everything,
        text(f"""
            DELETE FROM orchestra.{name} AS r USING {groups} WHERE r.workflow_id = g.workflow_id AND r.{when} = g.{when}
        """),
        text(f"""
            INSERT INTO orchestra.{name} ({", ".join(columns)})
            SELECT {", ".join(columns)} FROM ({some}) AS computed ORDER BY workflow_id, {when}, place
        """),
    )


_STEPS = _rollup(
    "step_rollup",
    "hour",
    (*computed.NODE, *computed.STEP_COUNTS),
    computed.step_rollup(computed.EVERY_STEP),
    _GROUPS,
    computed.step_rollup(_STEPS_OF_GROUPS),
)
_RUNS = _rollup(
    "run_rollup",
    "hour",
    ("organization_id", *computed.RUN_COUNTS),
    computed.run_rollup("orchestra.runs"),
    _GROUPS,
    computed.run_rollup(_RUNS_OF_GROUPS),
)
_DAILY = _rollup(
    "step_rollup_daily",
    "day",
    (*computed.NODE, *computed.STEP_COUNTS),
    computed.step_rollup_daily("orchestra.step_rollup"),
    _DAYS,
    computed.step_rollup_daily(_HOURS_OF_DAYS),
)

_HORIZON = text("SELECT run_horizon FROM orchestra_etl.retention")

_DROP_FAILURES = text(f"""
    DELETE FROM orchestra.step_failures AS f
    USING {_GROUPS}
    WHERE f.workflow_id = g.workflow_id AND f.time >= g.hour AND f.time < g.hour + interval '1 hour'
""")

# A step that moved may still stand under its old group, which is queued, too. One that somebody is deleting is waited for, and
# left out; in key order.
_COMPUTE_FAILURES = text(f"""
    INSERT INTO orchestra.step_failures ({", ".join(computed.FAILURE)})
    SELECT {", ".join("f." + name for name in computed.FAILURE)}
    FROM (SELECT * FROM ({computed.step_failures(_STEPS_OF_GROUPS)}) AS computed ORDER BY step_id OFFSET 0) AS f
    CROSS JOIN LATERAL (SELECT FROM orchestra.steps AS s WHERE s.id = f.step_id FOR KEY SHARE) AS locked
    ON CONFLICT (step_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in computed.FAILURE[1:])}
""")


def _differing(name: str, when: str, columns: tuple[str, ...], everything: str) -> str:
    shown = ", ".join(columns)
    return f"""
        SELECT DISTINCT workflow_id, {when} AS at, '{name}' AS what
        FROM (
            (SELECT {shown} FROM ({everything}) AS computed EXCEPT SELECT {shown} FROM orchestra.{name})
            UNION ALL
            (SELECT {shown} FROM orchestra.{name} EXCEPT SELECT {shown} FROM ({everything}) AS computed)
        ) AS differing
    """


_HOURLY_DIFFERENCES = " UNION ALL ".join(
    (
        _differing("step_rollup", _STEPS.when, _STEPS.columns, _STEPS.everything),
        _differing("run_rollup", _RUNS.when, _RUNS.columns, _RUNS.everything),
        _differing("step_failures", "time", computed.FAILURE, computed.step_failures(computed.EVERY_STEP)),
    )
)
_DAILY_DIFFERENCES = _differing("step_rollup_daily", _DAILY.when, _DAILY.columns, _DAILY.everything)

# One statement and so one snapshot: what waits in the queue is known to differ. Days are never frozen: they are what their
# hours say.
_VERIFY = text(f"""
    SELECT workflow_id, at, string_agg(what, ', ' ORDER BY what) AS what
    FROM (
        SELECT DISTINCT d.workflow_id, date_trunc('hour', d.at, 'UTC') AS at, d.what
        FROM ({_HOURLY_DIFFERENCES}) AS d
        WHERE date_trunc('hour', d.at, 'UTC') >= COALESCE((SELECT run_horizon FROM orchestra_etl.retention), '-infinity')
          AND NOT EXISTS (
              SELECT FROM orchestra_etl.changed_groups AS q
              WHERE q.workflow_id = d.workflow_id AND q.hour = date_trunc('hour', d.at, 'UTC'))
        UNION ALL
        SELECT workflow_id, CAST(at AS timestamp) AT TIME ZONE 'UTC', what FROM ({_DAILY_DIFFERENCES}) AS d
    ) AS found
    WHERE NOT EXISTS (SELECT FROM orchestra_etl.changed_groups AS q WHERE q.workflow_id IS NULL)
    GROUP BY workflow_id, at
    ORDER BY workflow_id, at
""")


class Refreshed(msgspec.Struct):
    """What a refresh did."""

    groups: int = 0
    """Groups computed anew."""
    frozen: int = 0
    """Groups left as they were, because they lie before the retention horizon."""
    rows: int = 0
    """Rows of the rollups written."""
    failures: int = 0
    """Rows of `step_failures` written."""
    waiting: int = 0
    """Rows left in the queue."""
    busy: bool = False
    """Whether somebody else is at it, so that nothing, or no more, was done."""

    def add(self, other: Refreshed) -> None:
        """Go on from what this one did."""
        for name in ("groups", "frozen", "rows", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waiting, self.busy = other.waiting, other.busy


class Difference(msgspec.Struct, frozen=True):
    """A group, or a day, that is not what follows from its runs and steps."""

    workflow_id: str
    at: datetime
    """The hour, or the day's beginning."""
    what: str
    """The tables that differ."""


def refresh(connection: Connection, limit: int = BATCH) -> Refreshed:
    """Compute some of the queue's groups anew.

    Args:
        connection: in a READ COMMITTED transaction.
        limit: how many of them.
    """
    if not changed_groups.try_lock(connection):
        return Refreshed(busy=True)
    taken = changed_groups.take(connection, limit)
    horizon = connection.execute(_HORIZON).scalar_one_or_none()
    groups = [group for group in taken if horizon is None or group.hour >= horizon]
    done = Refreshed(groups=len(groups), frozen=len(taken) - len(groups))
    done.waiting = changed_groups.waiting(connection)
    if done.waiting:
        # A whole batch, however dense its hours: one that is always cut off would never get anywhere.
        allow_long(connection)
    if taken:
        wanted = {"workflow_ids": [group.workflow_id for group in groups], "hours": [group.hour for group in groups]}
        # Frozen hours are still there to be added up.
        days = sorted({(group.workflow_id, group.hour.astimezone(UTC).date()) for group in taken})
        wanted_days = {"workflow_ids": [workflow_id for workflow_id, _ in days], "days": [day for _, day in days]}
        for rollup, parameters in ((_STEPS, wanted), (_RUNS, wanted), (_DAILY, wanted_days)):
            connection.execute(rollup.drop, parameters)
            done.rows += connection.execute(rollup.compute, parameters).rowcount
        connection.execute(_DROP_FAILURES, wanted)
        done.failures = connection.execute(_COMPUTE_FAILURES, wanted).rowcount
    return done


def drain(database: Database, *, batch: int = BATCH, stopped: Callable[[], bool] = lambda: False) -> Refreshed:
    """Refresh, a batch a transaction, until the queue is empty, somebody else is at it, or `stopped` says so.

    Raises:
        DatabaseError: the database cannot be used; what was committed stays so.
    """
    done = Refreshed()
    said = time.monotonic()
    while not stopped():
        done.add(database.transaction(lambda c: refresh(c, batch)))
        if done.busy or not done.waiting:
            break
        if time.monotonic() - said >= SAY_EVERY:
            said = time.monotonic()
            log.info("refreshing_rollups", groups=done.groups, waiting=done.waiting)
    return done


def verify(connection: Connection) -> list[Difference]:
    """Compute everything that is not frozen and does not wait in the queue, and compare; changes nothing."""
    allow_long(connection)
    return [Difference(row.workflow_id, row.at, row.what) for row in connection.execute(_VERIFY)]
