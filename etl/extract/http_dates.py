"""The two response headers that contain a time, `Date` and `Retry-After`; pure functions."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache


@lru_cache(maxsize=8)  # responses within one second have the same date
def http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP date, in UTC; None if it is missing or unreadable."""
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        # `-0000` ("no zone known") parses to a naive time; HTTP dates are always in UTC.
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def retry_after(value: str | None, *, server_time: datetime | None) -> float | None:
    """Return the seconds to wait that a `Retry-After` header requests.

    The result is never negative, but may be infinite. It is None if the header is missing or
    unreadable. A date is taken relative to the response's own `Date` (`server_time`), because the
    two clocks may differ by more than the wait.
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
