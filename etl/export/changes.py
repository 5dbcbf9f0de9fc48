"""The queue of days to export. Triggers fill it in the transaction that makes the change.

The queue contains all work: a first export begins by queueing all days. An export reads the
queue, reads the days and takes them from the queue in one REPEATABLE READ transaction. It sees, and
takes, exactly the changes that its snapshot contains; a transaction that commits later leaves its
own row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from sqlalchemy import Connection, text

_DAYS = text("SELECT DISTINCT day FROM orchestra_etl.changed_days ORDER BY day DESC")

_DEQUEUE = text("""
    DELETE FROM orchestra_etl.changed_days WHERE day = ANY (CAST(:days AS date[]))
""")

_QUEUE = text("""
    INSERT INTO orchestra_etl.changed_days (day) SELECT unnest(CAST(:days AS date[]))
    ON CONFLICT DO NOTHING
""")

_QUEUE_ALL = text("""
    INSERT INTO orchestra_etl.changed_days (day)
    SELECT orchestra_etl.run_day(start_time, first_seen_at) FROM orchestra.runs
    UNION SELECT day FROM orchestra_etl.export_days
    UNION SELECT unnest(CAST(:days AS date[]))
    ON CONFLICT DO NOTHING
""")


def changed_days(connection: Connection) -> list[date]:
    """Return the queued days, the newest first."""
    return list(connection.execute(_DAYS).scalars())


def dequeue(connection: Connection, days: Sequence[date]) -> None:
    """Take these days from the queue, as far as this transaction sees them."""
    connection.execute(_DEQUEUE, {"days": list(days)})


def queue(connection: Connection, days: Iterable[date]) -> None:
    """Queue these days."""
    connection.execute(_QUEUE, {"days": list(days)})


def queue_all(connection: Connection, days: Sequence[date] = ()) -> None:
    """Queue every day that has runs or was exported, and `days`."""
    connection.execute(_QUEUE_ALL, {"days": list(days)})
