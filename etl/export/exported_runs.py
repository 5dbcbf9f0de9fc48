"""The runs that retention may remove, because a verified export holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time

import msgspec
from sqlalchemy import Connection, text

from etl.export import changes, state
from etl.export.destination import Destination
from etl.export.verify import VerifyReport, verify

_DAYS = text("""
    SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) AS day FROM orchestra.runs
    WHERE orchestra_etl.run_day(start_time, first_seen_at) <= CAST(:until AS date)
""")

_PAYLOAD_HORIZON = text("SELECT payload_horizon FROM orchestra_etl.retention")

_XID = text("SELECT CAST(pg_current_xact_id() AS text)")

# A day that another transaction has changed since the verification waits for an export. The bytes
# of dead letters are not in the lake.
_HELD = text("""
    SELECT r.id FROM orchestra.runs AS r,
        LATERAL (SELECT orchestra_etl.run_day(r.start_time, r.first_seen_at)) AS d (day)
    WHERE r.id = ANY (CAST(:ids AS text[]))
      AND d.day = ANY (CAST(:days AS date[]))
      AND NOT EXISTS (SELECT FROM orchestra_etl.changed_days AS q
                      WHERE q.day = d.day AND q.xid <> ALL (CAST(:own AS xid8[])))
      AND NOT EXISTS (SELECT FROM orchestra_etl.dead_letters AS l
                      WHERE l.run_id = r.id AND l.resolved_at IS NULL
                        AND octet_length(l.body) > 0)
""")


class ExportedRuns:
    """A filter for runs that a verified export holds; it ignores that pruning queues their days."""

    def __init__(self, days: Sequence[date]) -> None:
        """Remember the verified days."""
        self._days = list(days)
        self._own: list[str] = []

    def __call__(self, connection: Connection, run_ids: Sequence[str]) -> list[str]:
        """Return those of these runs that may be removed, in the transaction that removes them."""
        self._own.append(connection.execute(_XID).scalar_one())
        values = {"ids": list(run_ids), "days": self._days, "own": self._own}
        return list(connection.execute(_HELD, values).scalars())


class Held(msgspec.Struct, frozen=True):
    """What the lake holds of the days before a horizon."""

    report: VerifyReport
    """The verification of these days."""
    may_remove: ExportedRuns
    until: datetime | None
    """The beginning of the first day that is not exported yet; None: all are."""
    payloads_are_held: bool
    """Whether payloads are in the lake, or pruned before `horizon` already."""


def find(
    connection: Connection,
    destination: Destination,
    *,
    horizon: datetime,
    stopped: Callable[[], bool] = lambda: False,
) -> Held:
    """Verify the days before a horizon.

    Args:
        connection: in a transaction with one snapshot.
        destination: where the lake is.
        horizon: runs that ended before this time are to be removed.
        stopped: ends the verification early; then `report` is not complete.

    Raises:
        LakeError: the lake cannot be read.
    """
    days = set(connection.execute(_DAYS, {"until": horizon.astimezone(UTC).date()}).scalars())
    report = verify(connection, destination, days=days, stopped=stopped)
    waiting = days & set(changes.changed_days(connection))
    held = state.read(connection)
    pruned = connection.execute(_PAYLOAD_HORIZON).scalar_one_or_none()
    return Held(
        report=report,
        may_remove=ExportedRuns(sorted(days - waiting)),
        until=datetime.combine(min(waiting), time(), UTC) if waiting else None,
        payloads_are_held=(held is not None and held.payloads)
        or (pruned is not None and pruned >= horizon),
    )
