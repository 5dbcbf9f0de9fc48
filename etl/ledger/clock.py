"""The database's clock, read from here."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

# Seconds for which an anchor that dates later than a new one is kept: longer than any two
# statements of one sweep or poll are apart by chance, too short for two clocks to drift apart.
KEEP = 60.0


class DatabaseClock:
    """Translates this process's monotonic clock into database time.

    Observations of all replicas are ordered by one clock, the database's. Asking it before every
    request would cost a round trip each; the monotonic clock of this machine does not jump and
    drifts by far less than a lease lasts, so it is anchored to the database's at every claim and
    every sweep. The translation is early by at most the round trip of the anchoring statement,
    never late. Of the anchors of a minute the latest one counts: a slow statement would else turn
    the clock back behind times that the database itself gave before.
    """

    def __init__(self) -> None:
        self._database = datetime.now(UTC)
        self._monotonic = time.monotonic()
        self._kept_until = self._monotonic

    def anchor(self, database_time: datetime) -> None:
        """Note the database's time, read by a statement whose answer has just arrived."""
        arrived_at = time.monotonic()
        if database_time < self.at(arrived_at) and arrived_at < self._kept_until:
            return
        self._monotonic = arrived_at
        self._kept_until = arrived_at + KEEP
        self._database = database_time

    def at(self, monotonic: float) -> datetime:
        """The database's time at an instant of `time.monotonic()`."""
        return self._database + timedelta(seconds=monotonic - self._monotonic)

    def now(self) -> datetime:
        """The database's time now."""
        return self.at(time.monotonic())


def database_time(connection: Connection) -> datetime:
    """The database's clock."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now
