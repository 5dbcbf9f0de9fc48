"""The two response headers that hold a time: `Date` and `Retry-After`. Pure functions."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache


@lru_cache(maxsize=8)  # the answers of one second have the same
def http_date(value: str | None) -> datetime | None:
    """The time, in UTC, that an HTTP date names; None where it is missing or unreadable."""
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        # `-0000` ("no zone known") parses to a naive time; HTTP dates are always in UTC.
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def retry_after(value: str | None, *, server_time: datetime | None) -> float | None:
    """Seconds, never negative but possibly infinite, that a `Retry-After` header asks to wait.

    A date is taken relative to the answer's own `Date` (`server_time`): the two clocks may differ
    by more than the wait. None where the header is missing or unreadable.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        moment = http_date(value)
        if moment is None:
            return None
        seconds = (moment - (server_time or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)
