"""The queue of rollup groups whose runs or steps changed.

Triggers fill the queue in the transaction that makes the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from etl.database import allow_long

# A row lock, not an advisory lock: any user who may connect can hold an advisory lock forever.
_LOCK = "SELECT name FROM orchestra_etl.locks WHERE name = 'rollups' FOR UPDATE"
_WAIT = text(_LOCK)
_TRY = text(f"{_LOCK} SKIP LOCKED")

# Seconds until a group whose computation failed is retried.
RETRY = 600.0

COUNTABLE = "hour BETWEEN '0001-01-01T00:00Z' AND '9999-12-31T23:00Z'"
"""The condition for hours that a Python datetime can represent.

Rows written by hand may have other hours. They are not counted.
"""

_READABLE = f"COALESCE(q.{COUNTABLE}, true)"

# A group that failed less than `RETRY` ago stays in the queue, with all rows added since then. A
# time later than now shows that the clock was set back, here and below.
_TRIED = f"""
    {_READABLE} AND NOT EXISTS (
        SELECT FROM orchestra_etl.changed_groups AS f
        WHERE f.workflow_id = q.workflow_id AND f.hour = q.hour
          AND f.failed_at > now() - interval '{RETRY} seconds' AND f.failed_at <= now())
"""

_SETTLED = f"""
    {_TRIED} AND NOT EXISTS (
        SELECT FROM orchestra_etl.changed_groups AS n
        WHERE n.workflow_id = q.workflow_id
          AND date_trunc('day', n.hour, 'UTC') = date_trunc('day', q.hour, 'UTC')
          AND n.queued_at > now() - make_interval(secs => :settled) AND n.queued_at <= now())
"""

_TAKE = text(f"""
    DELETE FROM orchestra_etl.changed_groups
    WHERE id IN (
        SELECT id
        FROM (SELECT id, dense_rank() OVER (ORDER BY hour DESC NULLS FIRST, workflow_id) AS ordinal
              FROM orchestra_etl.changed_groups AS q
              WHERE {_SETTLED}) AS ranked
        WHERE ordinal <= :limit
    )
    RETURNING workflow_id, hour
""")

_DEQUEUE = text("""
    DELETE FROM orchestra_etl.changed_groups AS q
    USING unnest(CAST(:workflow_ids AS text[]), CAST(:hours AS timestamptz[]))
          AS g (workflow_id, hour)
    WHERE q.workflow_id = g.workflow_id AND q.hour = g.hour
""")

_WAITING = text(f"SELECT count(*) FROM orchestra_etl.changed_groups AS q WHERE {_SETTLED}")

_OVERDUE = text(f"""
    SELECT count(*) FROM orchestra_etl.changed_groups AS q
    WHERE {_TRIED} AND queued_at < now() - interval '{RETRY} seconds'
""")

_PUT_BACK = text("""
    INSERT INTO orchestra_etl.changed_groups (workflow_id, hour, failed_at, cause)
    VALUES (:workflow_id, :hour, now(), :cause)
""")

_STUCK = text(f"""
    SELECT workflow_id, CAST(q.hour AT TIME ZONE 'UTC' AS text) AS hour, max(cause) AS cause
    FROM orchestra_etl.changed_groups AS q
    WHERE failed_at IS NOT NULL OR NOT {_READABLE}
    GROUP BY workflow_id, q.hour
    ORDER BY workflow_id, q.hour
""")

_QUEUE_ALL = text(
    "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES (NULL, NULL)"
)

# The stored groups are included, because all steps of a stored group may have been deleted.
_ENTER_ALL = text("""
    INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
    SELECT workflow_id, hour
    FROM (SELECT workflow_id, date_trunc('hour', start_time, 'UTC') AS hour FROM orchestra.steps
          WHERE start_time IS NOT NULL
          UNION SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
          FROM orchestra.runs
          UNION SELECT workflow_id, hour FROM orchestra.step_rollup
          UNION SELECT workflow_id, hour FROM orchestra.run_rollup
          UNION SELECT workflow_id, CAST(day AS timestamp) AT TIME ZONE 'UTC'
          FROM orchestra.step_rollup_daily
          UNION SELECT workflow_id, date_trunc('hour', time, 'UTC') FROM orchestra.step_failures
    ) AS g
    ORDER BY hour DESC, workflow_id
""")


class Group(msgspec.Struct, frozen=True, order=True):
    """The runs and steps of one workflow that started in one hour."""

    workflow_id: str
    hour: datetime


class Stuck(msgspec.Struct, frozen=True):
    """A group whose rollups are outdated, because they cannot be computed."""

    workflow_id: str
    hour: str
    """In UTC, as PostgreSQL formats it."""
    cause: str | None
    """SQLSTATE of the failure; None: the hour is outside the years 1 to 9999, so it is skipped."""


def wait_for_lock(connection: Connection) -> None:
    """Wait for the lock on the rollups; hold it until the transaction ends.

    A transaction that deletes steps takes the lock, so that no refresh writes rollups meanwhile.
    """
    connection.execute(_WAIT)


def try_lock(connection: Connection) -> bool:
    """Take the lock on the rollups until the transaction ends; return False if it is held."""
    return connection.execute(_TRY).one_or_none() is not None


def take(connection: Connection, limit: int, settled: float = 0.0) -> Sequence[Group]:
    """Take up to `limit` groups from the queue with all their rows; return them in key order.

    Only groups of days that have not changed for `settled` seconds are taken.

    The newest hours come first, so that fresh numbers do not wait for old numbers. This order also
    keeps the hours of a day together. If a row of `queue_all` is taken, every group is queued.

    The changes behind the rows are committed, so the next statement of this READ COMMITTED
    transaction sees the changes. A change that is not committed yet has queue rows of its own,
    which become visible with the change.
    """
    rows = connection.execute(_TAKE, {"limit": limit, "settled": settled}).all()
    if any(row.workflow_id is None for row in rows):
        allow_long(connection)
        connection.execute(_ENTER_ALL)
    return sorted({Group(row.workflow_id, row.hour) for row in rows if row.workflow_id is not None})


def dequeue(connection: Connection, groups: Sequence[Group]) -> None:
    """Remove these groups from the queue: the caller computes them next, in this transaction.

    The caller holds the lock on the rollups. No change is lost, for the reason given in `take`.
    """
    connection.execute(
        _DEQUEUE,
        {
            "workflow_ids": [group.workflow_id for group in groups],
            "hours": [group.hour for group in groups],
        },
    )


def waiting(connection: Connection, settled: float = 0.0) -> int:
    """Return the number of queue rows that a refresh can take now; `settled` is that of `take`.

    Groups that failed less than `RETRY` ago, and hours outside `COUNTABLE`, do not count.
    """
    return int(connection.execute(_WAITING, {"settled": settled}).scalar_one())


def overdue(connection: Connection) -> int:
    """Return how many of the rows in `waiting` have been queued for longer than `RETRY`.

    The usual cause is that no process refreshes the rollups, or that every refresh fails.
    """
    return int(connection.execute(_OVERDUE).scalar_one())


def put_back(connection: Connection, group: Group, cause: str | None) -> None:
    """Queue a group whose computation failed, for a retry after `RETRY`.

    Args:
        connection: in the transaction that took the group.
        group: the group.
        cause: SQLSTATE of the failure.
    """
    connection.execute(
        _PUT_BACK, {"workflow_id": group.workflow_id, "hour": group.hour, "cause": cause}
    )


def stuck(connection: Connection) -> list[Stuck]:
    """Return the groups that cannot be computed."""
    return [Stuck(row.workflow_id, row.hour, row.cause) for row in connection.execute(_STUCK)]


def queue_all(connection: Connection) -> None:
    """Queue every group, by one row, which `take` replaces by a row for each group."""
    connection.execute(_QUEUE_ALL)
