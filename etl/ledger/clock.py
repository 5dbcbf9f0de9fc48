"""The database's clock, derived from this process's monotonic clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

# Seconds for which an anchor is kept if a new one would set the clock back. This is longer than the
# time between any two statements of one sweep or poll, and too short for the two clocks to drift
# apart.
KEEP = 60.0


class DatabaseClock:
    """A translation of this process's monotonic clock into database time.

    One clock, the database's, orders the observations of all replicas. Reading it before every
    request would cost a round trip each. This machine's monotonic clock drifts by far less than the
    duration of a lease, and it jumps only if the machine is suspended (see `at`). So every claim
    and every sweep anchors it to the database's clock. The translated time is early by at most the
    round trip of the anchoring statement, and never late. For `KEEP` seconds after an anchor, no
    other anchor sets the clock back: otherwise a slow statement would set it behind times that the
    database has already returned.
    """

    def __init__(self) -> None:
        """Start from this machine's clock; the first anchor replaces it."""
        self._database = datetime.now(UTC)
        self._monotonic = time.monotonic()
        self._kept_until = self._monotonic

    def anchor(self, database_time: datetime) -> None:
        """Anchor the clock to a database time that a statement has just returned."""
        arrived_at = time.monotonic()
        if database_time < self._at(arrived_at) and arrived_at < self._kept_until:
            return
        self._monotonic = arrived_at
        self._kept_until = arrived_at + KEEP
        self._database = database_time

    def at(self, monotonic: float, *, after: datetime) -> datetime:
        """Return the database's time at an instant of `time.monotonic()`.

        Args:
            monotonic: an instant that may precede the last anchor. If the monotonic clock has
                jumped in between, as on a suspended machine, the translated time is early by the
                length of the jump.
            after: a database time that certainly precedes the instant, such as that of the claim;
                the result is never earlier.
        """
        return max(self._at(monotonic), after)

    def now(self) -> datetime:
        """Return the database's time now."""
        return self._at(time.monotonic())

    def _at(self, monotonic: float) -> datetime:
        return self._database + timedelta(seconds=monotonic - self._monotonic)


def database_time(connection: Connection) -> datetime:
    """Read the database's clock."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now
