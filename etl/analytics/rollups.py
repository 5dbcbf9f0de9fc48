"""The refresh of the rollups from the runs and steps.

The transaction that changes runs or steps queues their groups (hours of workflows, see
`rollup_queries`). A refresh recomputes each queued group as a whole. Therefore, nothing counts
twice, and the order of arrival does not matter.

The counts of a run outlive it. The transaction that prunes runs adds their counts to separate rows,
whose `ordinal` is below 0 and which no refresh touches. The group therefore stays correct, whenever
its runs end, change or are listed.

A group that cannot be computed goes back into the queue for later, and does not block the others.

The responses are counted since revision 0006. Before it, `step_rollup` does not have their columns
(see `uncounted`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection, TextClause, text

from etl.analytics import changed_groups, judged_rows, rollup_queries, uncounted
from etl.analytics.changed_groups import Group
from etl.database import Database, allow_long
from etl.database_errors import is_database_error, is_transient, sqlstate
from etl.tables.rollups import HISTOGRAMS, NODE, RESPONSES

log = structlog.get_logger(__name__)

# Maximum number of groups in one transaction. An erasure waits for such a transaction: two seconds
# with 463 steps an hour and workflow, as in ten million steps over 90 days. Batches of 100 took 1.5
# times as long in total, because each batch adds up its days; batches of 1,000 saved nothing.
BATCH = 300
# Seconds between two log lines of progress. After an upgrade that changes what is counted, all
# hours are in the queue.
LOG_EVERY = 10.0

_GROUPS = (
    "unnest(CAST(:workflow_ids AS text[]), CAST(:hours AS timestamptz[])) AS g (workflow_id, hour)"
)
_DAYS = "unnest(CAST(:workflow_ids AS text[]), CAST(:days AS date[])) AS g (workflow_id, day)"


_RUNS_OF_GROUPS = judged_rows.runs_of(_GROUPS)
_STEPS_OF_GROUPS = judged_rows.steps_of(_GROUPS)

_REMOVED_RUNS = "(SELECT * FROM orchestra.runs WHERE id = ANY (CAST(:run_ids AS text[])))"
_REMOVED_STEPS = (
    judged_rows.EVERY_STEP.rstrip(")") + " WHERE r.id = ANY (CAST(:run_ids AS text[])))"
)

# LATERAL and OFFSET, here and below: each day reads its rows by an index. A join on a range of time
# would compare each day with all rows of its workflow.
_HOURS_OF_DAYS = f"""(
    SELECT r.*
    FROM {_DAYS}
    CROSS JOIN LATERAL (
        SELECT *
        FROM orchestra.step_rollup
        WHERE workflow_id = g.workflow_id
          AND hour >= CAST(g.day AS timestamp) AT TIME ZONE 'UTC'
          AND hour < CAST(g.day + 1 AS timestamp) AT TIME ZONE 'UTC'
        OFFSET 0
    ) AS r
)"""


class _Rollup(msgspec.Struct, frozen=True):
    """A rollup table, with rows by workflow and time."""

    when: str
    """The column of the time: `hour` or `day`."""
    columns: tuple[str, ...]
    everything: str
    """The query that computes the whole table."""
    drop: TextClause
    """Deletes some groups."""
    compute: TextClause
    """Computes and inserts some groups."""


def _rollup(
    name: str, when: str, names: tuple[str, ...], everything: str, groups: str, some: str
) -> _Rollup:
    columns = ("workflow_id", when, "ordinal", *names, *HISTOGRAMS)
    return _Rollup(
        when=when,
        columns=columns,
        everything=everything,
        drop=text(f"""
            DELETE FROM orchestra.{name} AS r USING {groups}
            WHERE r.workflow_id = g.workflow_id AND r.{when} = g.{when} AND r.ordinal > 0
        """),
        compute=text(f"""
            INSERT INTO orchestra.{name} ({", ".join(columns)})
            SELECT {", ".join(columns)} FROM ({some}) AS computed
            ORDER BY workflow_id, {when}, ordinal
        """),
    )


def _keeping(
    name: str, columns: tuple[str, ...], removed: str, added: Callable[[str], str]
) -> TextClause:
    """Return the statement that adds the counts of removed runs or steps to the permanent rows."""
    shown = ", ".join(columns)
    ordinal = columns.index("ordinal")
    kept = ", ".join((*columns[:ordinal], "-ordinal", *columns[ordinal + 1 :]))
    return text(f"""
        WITH new AS MATERIALIZED (
            SELECT {shown} FROM ({removed}) AS r
            WHERE {changed_groups.COUNTABLE}
        ), old AS (
            DELETE FROM orchestra.{name} AS r
            USING (SELECT DISTINCT workflow_id, hour FROM new) AS g
            WHERE r.workflow_id = g.workflow_id AND r.hour = g.hour AND r.ordinal < 0
            RETURNING {", ".join("r." + column for column in columns)}
        )
        INSERT INTO orchestra.{name} ({shown})
        SELECT {kept} FROM ({added("(SELECT * FROM new UNION ALL SELECT * FROM old)")}) AS added
    """)


_STEP_NAMES = (*NODE, *rollup_queries.STEP_COUNTS, *rollup_queries.USAGE_SUMS)


class _Steps(msgspec.Struct, frozen=True):
    """The statements about `step_rollup`."""

    rollup: _Rollup
    keep: TextClause
    """Adds the counts of removed runs' steps to the permanent rows."""


def _steps(responses: tuple[str, ...]) -> _Steps:
    """Return the statements for a table with these columns of responses."""
    rollup = _rollup(
        "step_rollup",
        when="hour",
        names=(*_STEP_NAMES, *responses),
        everything=rollup_queries.step_rollup(judged_rows.EVERY_STEP),
        groups=_GROUPS,
        some=rollup_queries.step_rollup(_STEPS_OF_GROUPS),
    )
    keep = _keeping(
        "step_rollup",
        rollup.columns,
        rollup_queries.step_rollup(_REMOVED_STEPS),
        partial(rollup_queries.added_steps, responses=responses),
    )
    return _Steps(rollup, keep)


STEPS = {True: _steps(RESPONSES), False: _steps(())}
"""By whether the schema has the columns of responses (see `uncounted.exist`)."""
RUNS = _rollup(
    "run_rollup",
    when="hour",
    names=("organization_id", *rollup_queries.RUN_COUNTS),
    everything=rollup_queries.run_rollup("orchestra.runs"),
    groups=_GROUPS,
    some=rollup_queries.run_rollup(_RUNS_OF_GROUPS),
)
DAILY = _rollup(
    "step_rollup_daily",
    when="day",
    names=_STEP_NAMES,
    everything=rollup_queries.step_rollup_daily("orchestra.step_rollup"),
    groups=_DAYS,
    some=rollup_queries.step_rollup_daily(_HOURS_OF_DAYS),
)

_KEEP_RUNS = _keeping(
    "run_rollup", RUNS.columns, rollup_queries.run_rollup(_REMOVED_RUNS), rollup_queries.added_runs
)

_GROUPS_OF_RUNS = text(f"""
    SELECT workflow_id, hour
    FROM (SELECT counted_in AS workflow_id, date_trunc('hour', time, 'UTC') AS hour
          FROM {_REMOVED_STEPS} AS s
          UNION
          SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
          FROM {_REMOVED_RUNS} AS r) AS g
    WHERE {changed_groups.COUNTABLE}
""")

_DROP_FAILURES = text(f"""
    DELETE FROM orchestra.step_failures
    WHERE step_id IN (
        SELECT f.step_id
        FROM {_GROUPS}
        CROSS JOIN LATERAL (
            SELECT step_id
            FROM orchestra.step_failures
            WHERE workflow_id = g.workflow_id
              AND time >= g.hour AND time < g.hour + interval '1 hour'
            OFFSET 0
        ) AS f)
""")

# ON CONFLICT: a step that moved to another group may still be stored under its old group, which is
# queued too. FOR KEY SHARE waits for a transaction that is deleting the step, and then leaves the
# step out. The steps are locked in key order.
_COMPUTE_FAILURES = text(f"""
    INSERT INTO orchestra.step_failures ({", ".join(judged_rows.FAILURE)})
    SELECT {", ".join("f." + name for name in judged_rows.FAILURE)}
    FROM (
        SELECT * FROM ({judged_rows.step_failures(_STEPS_OF_GROUPS)}) AS computed
        ORDER BY step_id OFFSET 0
    ) AS f
    CROSS JOIN LATERAL (
        SELECT FROM orchestra.steps AS s WHERE s.id = f.step_id FOR KEY SHARE
    ) AS locked
    ON CONFLICT (step_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in judged_rows.FAILURE[1:])}
""")


class RefreshReport(msgspec.Struct):
    """The result of a refresh."""

    groups: int = 0
    """Groups recomputed."""
    rows: int = 0
    """Rows of the rollups written."""
    failures: int = 0
    """Rows of `step_failures` written."""
    waiting: int = 0
    """Rows left in the queue, plus groups whose responses are not counted yet."""
    stuck: int = 0
    """Groups that cannot be computed; they stay in the queue for a retry."""
    busy: bool = False
    """Whether this process stopped because another process is refreshing."""

    def add(self, other: RefreshReport) -> None:
        """Add the counts of the next refresh, and take over its `waiting`, `stuck` and `busy`."""
        for name in ("groups", "rows", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waiting, self.stuck, self.busy = other.waiting, other.stuck, other.busy


def refresh(connection: Connection, limit: int = BATCH, settled: float = 0.0) -> RefreshReport:
    """Recompute some groups of the queue.

    If the batch is a single group that cannot be computed, the group goes back into the queue.

    Args:
        connection: in a READ COMMITTED transaction.
        limit: maximum number of groups to recompute.
        settled: leave out days that have changed in this many seconds.

    Raises:
        psycopg.Error, sqlalchemy.exc.DBAPIError: one of several groups cannot be computed.
    """
    if not changed_groups.try_lock(connection):
        return RefreshReport(busy=True)
    # The batch must finish, however many steps its hours have. With the usual statement_timeout, it
    # could time out at every retry.
    allow_long(connection)
    groups = changed_groups.take(connection, limit, settled)
    groups = sorted([*groups, *uncounted.take(connection, limit - len(groups))])
    done = RefreshReport(groups=len(groups))
    if len(groups) == 1:
        try:
            with connection.begin_nested():
                _compute(connection, groups, done)
        except Exception as error:
            if not is_database_error(error) or is_transient(error):
                raise
            done = RefreshReport()
            _put_back(connection, groups[0], sqlstate(error))
    elif groups:
        _compute(connection, groups, done)
    done.waiting = changed_groups.waiting(connection, settled) + uncounted.waiting(connection)
    done.stuck = len(changed_groups.stuck(connection))
    return done


def _put_back(connection: Connection, group: Group, cause: str | None) -> None:
    log.error(
        "rollup_group_failed",
        workflow=group.workflow_id,
        hour=group.hour.isoformat(),
        cause=cause,
    )
    changed_groups.put_back(connection, group, cause)


def _compute(connection: Connection, groups: Sequence[Group], done: RefreshReport) -> None:
    """Rewrite these groups and their days; add the numbers of written rows to `done`."""
    wanted = {
        "workflow_ids": [group.workflow_id for group in groups],
        "hours": [group.hour for group in groups],
    }
    days = sorted({(group.workflow_id, group.hour.astimezone(UTC).date()) for group in groups})
    wanted_days = {
        "workflow_ids": [workflow_id for workflow_id, _ in days],
        "days": [day for _, day in days],
    }
    steps = STEPS[uncounted.exist(connection)].rollup
    for rollup, parameters in ((steps, wanted), (RUNS, wanted), (DAILY, wanted_days)):
        connection.execute(rollup.drop, parameters)
        done.rows += connection.execute(rollup.compute, parameters).rowcount
    connection.execute(_DROP_FAILURES, wanted)
    done.failures += connection.execute(_COMPUTE_FAILURES, wanted).rowcount


@contextmanager
def keeping_counts(connection: Connection, run_ids: Sequence[str]) -> Iterator[None]:
    """Keep the counts of these runs in the rollups while the block deletes the runs.

    The block must use the same transaction. The caller holds the lock on the rollups
    (`changed_groups.wait_for_lock`).
    """
    parameters = {"run_ids": list(run_ids)}
    groups = sorted(
        Group(row.workflow_id, row.hour) for row in connection.execute(_GROUPS_OF_RUNS, parameters)
    )
    connection.execute(STEPS[uncounted.exist(connection)].keep, parameters)
    connection.execute(_KEEP_RUNS, parameters)
    yield
    # The deletion has queued the groups, too; otherwise, they would be computed twice.
    changed_groups.dequeue(connection, groups)
    _compute(connection, groups, RefreshReport())


def drain(
    database: Database,
    *,
    batch: int = BATCH,
    settled: float = 0.0,
    stopped: Callable[[], bool] = lambda: False,
) -> RefreshReport:
    """Refresh until the queue is empty, another process is refreshing, or `stopped` returns True.

    Each batch is one transaction. If a batch cannot be computed, smaller batches isolate the group
    that is the cause.

    Args:
        database: with the current schema.
        batch: maximum number of groups in a transaction.
        settled: days that have changed in this many seconds stay queued, because they would soon
            have to be computed again.
        stopped: called between two batches; True ends the refresh.

    Raises:
        DatabaseError: the database cannot be used; committed batches stay.
    """
    done = RefreshReport()
    size = batch
    logged_at = time.monotonic()
    while not stopped():
        try:
            done.add(database.transaction(partial(refresh, limit=size, settled=settled)))
        except Exception as error:
            if size == 1 or not is_database_error(error):
                raise
            size = max(size // 8, 1)
            continue
        size = min(size * 2, batch)
        if done.busy or not done.waiting:
            break
        if time.monotonic() - logged_at >= LOG_EVERY:
            logged_at = time.monotonic()
            log.info("rollup_refresh_progressed", groups=done.groups, waiting=done.waiting)
    return done
