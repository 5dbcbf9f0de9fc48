"""Keeps the rollups equal to what follows from the runs and steps.

Groups (a workflow's hour, see `computed`) whose runs or steps changed are queued by the transaction
that changed them, and are computed here anew, whole: nothing is added up twice, and nothing depends
on the order of arrival.

What a run counts outlives it: the transaction that prunes runs also adds what these count to rows
of their own, whose `ordinal` is below 0 and which no refresh touches. So the runs of a group may end,
change or be listed at any time, and it stays right.

A group that cannot be computed is put back into the queue, for later, and keeps none of the others
waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection, TextClause, text

from etl.analytics import computed
from etl.database import Database, allow_long
from etl.ledger import changed_groups
from etl.ledger.changed_groups import Group, Stuck
from etl.refusals import is_database_error, is_transient, sqlstate

log = structlog.get_logger(__name__)

# Groups in one transaction, so that an erasure does not wait long: two seconds, with 463 steps an
# hour and workflow as in ten million steps over 90 days. A hundred took half as long again in all,
# because days are added up once a batch; a thousand took no less.
BATCH = 300
# Seconds between two lines of progress: after an upgrade that changes what is counted, all hours
# wait.
SAY_EVERY = 10.0

_GROUPS = (
    "unnest(CAST(:workflow_ids AS text[]), CAST(:hours AS timestamptz[])) AS g (workflow_id, hour)"
)
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

# OFFSET 0: from each hour, and from each run, to its steps by an index. The planner, which knows
# nothing of the hours, would rather read all steps: 32 s for a batch beside ten million of them, in
# place of one.
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


_REMOVED_RUNS = "(SELECT * FROM orchestra.runs WHERE id = ANY (CAST(:run_ids AS text[])))"
_REMOVED_STEPS = computed.EVERY_STEP.rstrip(")") + " WHERE r.id = ANY (CAST(:run_ids AS text[])))"

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


def _rollup(
    name: str, when: str, names: tuple[str, ...], everything: str, groups: str, some: str
) -> _Rollup:
    columns = ("workflow_id", when, "ordinal", *names, *computed.HISTOGRAMS)
    return _Rollup(
        when,
        columns,
        everything,
        text(f"""
            DELETE FROM orchestra.{name} AS r USING {groups}
            WHERE r.workflow_id = g.workflow_id AND r.{when} = g.{when} AND r.ordinal > 0
        """),
        text(f"""
            INSERT INTO orchestra.{name} ({", ".join(columns)})
            SELECT {", ".join(columns)} FROM ({some}) AS computed ORDER BY workflow_id, {when}, ordinal
        """),
    )


def _keeping(
    name: str, columns: tuple[str, ...], removed: str, added: Callable[[str], str]
) -> TextClause:
    """Adds what removed runs or steps count to the rows of their groups that stay."""
    shown = ", ".join(columns)
    ordinal = columns.index("ordinal")
    kept = ", ".join((*columns[:ordinal], "-ordinal", *columns[ordinal + 1 :]))
    return text(f"""
        WITH new AS MATERIALIZED (
            SELECT {shown} FROM ({removed}) AS r
            WHERE {changed_groups.COUNTABLE}
        ), old AS (
            DELETE FROM orchestra.{name} AS r USING (SELECT DISTINCT workflow_id, hour FROM new) AS g
            WHERE r.workflow_id = g.workflow_id AND r.hour = g.hour AND r.ordinal < 0
            RETURNING {", ".join("r." + column for column in columns)}
        )
        INSERT INTO orchestra.{name} ({shown})
        SELECT {kept} FROM ({added("(SELECT * FROM new UNION ALL SELECT * FROM old)")}) AS added
    """)


_STEPS = _rollup(
    "step_rollup",
    "hour",
    (*computed.NODE, *computed.STEP_COUNTS, *computed.USAGE_SUMS),
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
    (*computed.NODE, *computed.STEP_COUNTS, *computed.USAGE_SUMS),
    computed.step_rollup_daily("orchestra.step_rollup"),
    _DAYS,
    computed.step_rollup_daily(_HOURS_OF_DAYS),
)

_KEEP_STEPS = _keeping(
    "step_rollup", _STEPS.columns, computed.step_rollup(_REMOVED_STEPS), computed.added_steps
)
_KEEP_RUNS = _keeping(
    "run_rollup", _RUNS.columns, computed.run_rollup(_REMOVED_RUNS), computed.added_runs
)

_GROUPS_OF_RUNS = text(f"""
    SELECT workflow_id, hour
    FROM (SELECT counted_in AS workflow_id, date_trunc('hour', time, 'UTC') AS hour FROM {_REMOVED_STEPS} AS s
          UNION
          SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM {_REMOVED_RUNS} AS r) AS g
    WHERE {changed_groups.COUNTABLE}
""")

_DROP_FAILURES = text(f"""
    DELETE FROM orchestra.step_failures AS f
    USING {_GROUPS}
    WHERE f.workflow_id = g.workflow_id AND f.time >= g.hour AND f.time < g.hour + interval '1 hour'
""")

# A step that moved may still stand under its old group, which is queued, too. One that somebody is
# deleting is waited for, and left out; in key order.
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
    stored = f"orchestra.{name}" + (" WHERE ordinal > 0" if "ordinal" in columns else "")
    return f"""
        SELECT DISTINCT workflow_id, {when} AS at, '{name}' AS what
        FROM (
            (SELECT {shown} FROM ({everything}) AS computed EXCEPT SELECT {shown} FROM {stored})
            UNION ALL
            (SELECT {shown} FROM {stored} EXCEPT SELECT {shown} FROM ({everything}) AS computed)
        ) AS differing
    """


_HOURLY_DIFFERENCES = " UNION ALL ".join(
    (
        _differing("step_rollup", _STEPS.when, _STEPS.columns, _STEPS.everything),
        _differing("run_rollup", _RUNS.when, _RUNS.columns, _RUNS.everything),
        _differing(
            "step_failures", "time", computed.FAILURE, computed.step_failures(computed.EVERY_STEP)
        ),
    )
)
_DAILY_DIFFERENCES = _differing("step_rollup_daily", _DAILY.when, _DAILY.columns, _DAILY.everything)

# One statement, and so one snapshot: what waits in the queue is known to differ.
_VERIFY = text(f"""
    SELECT workflow_id, at, string_agg(what, ', ' ORDER BY what) AS what
    FROM (
        SELECT DISTINCT d.workflow_id, date_trunc('hour', d.at, 'UTC') AS at, d.what
        FROM ({_HOURLY_DIFFERENCES}) AS d
        WHERE NOT EXISTS (
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
    rows: int = 0
    """Rows of the rollups written."""
    failures: int = 0
    """Rows of `step_failures` written."""
    waiting: int = 0
    """Rows left in the queue, to be computed."""
    stuck: int = 0
    """Groups that cannot be computed; they stay in the queue, to be tried again."""
    busy: bool = False
    """Whether somebody else is at it, so that nothing, or no more, was done."""

    def add(self, other: Refreshed) -> None:
        """Go on from what this one did."""
        for name in ("groups", "rows", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waiting, self.stuck, self.busy = other.waiting, other.stuck, other.busy


class Difference(msgspec.Struct, frozen=True):
    """A group, or a day, that is not what follows from its runs and steps."""

    workflow_id: str
    at: datetime
    """The hour, or the day's beginning."""
    what: str
    """The tables that differ."""


def refresh(connection: Connection, limit: int = BATCH) -> Refreshed:
    """Compute some of the queue's groups anew. One alone that cannot be computed is put back.

    Args:
        connection: in a READ COMMITTED transaction.
        limit: how many of them.

    Raises:
        psycopg.Error, sqlalchemy.exc.DBAPIError: one of several cannot be computed.
    """
    if not changed_groups.try_lock(connection):
        return Refreshed(busy=True)
    # A whole batch, however dense its hours: one that is always cut off would never get anywhere.
    allow_long(connection)
    groups = changed_groups.take(connection, limit)
    done = Refreshed(groups=len(groups))
    if len(groups) == 1:
        try:
            with connection.begin_nested():
                _compute(connection, groups, done)
        except Exception as error:
            if not is_database_error(error) or is_transient(error):
                raise
            done = Refreshed()
            _put_back(connection, groups[0], sqlstate(error))
    elif groups:
        _compute(connection, groups, done)
    done.waiting = changed_groups.waiting(connection)
    done.stuck = len(changed_groups.stuck(connection))
    return done


def _put_back(connection: Connection, group: Group, cause: str | None) -> None:
    log.error(
        "rollup_group_failed",
        workflow_id=group.workflow_id,
        hour=group.hour.isoformat(),
        cause=cause,
    )
    changed_groups.put_back(connection, group, cause)


def _compute(connection: Connection, groups: Sequence[Group], done: Refreshed) -> None:
    """Write these groups anew, and their days; count in `done` what is written."""
    wanted = {
        "workflow_ids": [group.workflow_id for group in groups],
        "hours": [group.hour for group in groups],
    }
    days = sorted({(group.workflow_id, group.hour.astimezone(UTC).date()) for group in groups})
    wanted_days = {
        "workflow_ids": [workflow_id for workflow_id, _ in days],
        "days": [day for _, day in days],
    }
    for rollup, parameters in ((_STEPS, wanted), (_RUNS, wanted), (_DAILY, wanted_days)):
        connection.execute(rollup.drop, parameters)
        done.rows += connection.execute(rollup.compute, parameters).rowcount
    connection.execute(_DROP_FAILURES, wanted)
    done.failures += connection.execute(_COMPUTE_FAILURES, wanted).rowcount


@contextmanager
def keeping_counts(connection: Connection, run_ids: Sequence[str]) -> Iterator[None]:
    """Have what these runs count outlive them: they are deleted inside the block, in the same transaction.

    The caller holds the lock under which rollups are written (`changed_groups.wait_for_lock`).
    """
    parameters = {"run_ids": list(run_ids)}
    groups = sorted(
        Group(row.workflow_id, row.hour) for row in connection.execute(_GROUPS_OF_RUNS, parameters)
    )
    connection.execute(_KEEP_STEPS, parameters)
    connection.execute(_KEEP_RUNS, parameters)
    yield
    _compute(connection, groups, Refreshed())


def drain(
    database: Database, *, batch: int = BATCH, stopped: Callable[[], bool] = lambda: False
) -> Refreshed:
    """Refresh, a batch a transaction, until the queue is empty, somebody else is at it, or `stopped` says so.

    A batch that cannot be computed is divided, until the group is found that is the cause.

    Raises:
        DatabaseError: the database cannot be used; what was committed stays so.
    """
    done = Refreshed()
    size = batch
    said = time.monotonic()
    while not stopped():
        try:
            done.add(database.transaction(partial(refresh, limit=size)))
        except Exception as error:
            if size == 1 or not is_database_error(error):
                raise
            size = max(size // 8, 1)
            continue
        size = min(size * 2, batch)
        if done.busy or not done.waiting:
            break
        if time.monotonic() - said >= SAY_EVERY:
            said = time.monotonic()
            log.info("refreshing_rollups", groups=done.groups, waiting=done.waiting)
    return done


class Verified(msgspec.Struct, frozen=True):
    """How the rollups compare with the runs and steps."""

    differences: list[Difference]
    stuck: list[Stuck]
    """Groups that cannot be computed: their numbers are old."""
    waiting: int
    """Rows of the queue: their groups were not compared."""
    overdue: int
    """Those of them that should have been computed long ago."""
    failure: str | None = None
    """SQLSTATE with which the comparison itself failed."""

    @property
    def well(self) -> bool:
        """Whether all that was compared is right, and nothing is known to be wrong."""
        return not (self.differences or self.stuck or self.overdue or self.failure)


def verify(connection: Connection) -> Verified:
    """Compute everything that does not wait in the queue, and compare; changes nothing."""
    allow_long(connection)
    queue = (
        changed_groups.stuck(connection),
        changed_groups.waiting(connection),
        changed_groups.overdue(connection),
    )
    try:
        with connection.begin_nested():
            rows = connection.execute(_VERIFY).all()
    except Exception as error:
        if not is_database_error(error) or is_transient(error):
            raise
        return Verified([], *queue, sqlstate(error))
    return Verified([Difference(row.workflow_id, row.at, row.what) for row in rows], *queue)
