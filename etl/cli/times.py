"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from etl.errors import ConfigurationError

Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Only runs that started at or after this time (UTC), such as 2026-01-31T12:00.",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only runs that started before this time (UTC)."),
]


def time(option: str, text: str | None) -> datetime | None:
    """Parse a time in ISO 8601, by default in UTC; return None for None.

    Raises:
        ConfigurationError: the text is not a time.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option}: {text[:80]!r} is not a time: write 2026-01-31, 2026-01-31T12:00 (UTC)"
            " or 2026-01-31T12:00+01:00"
        ) from None


def seconds(option: str, text: str) -> float:
    """Parse a duration with a unit, such as 15m; return seconds.

    Raises:
        ConfigurationError: the text is not a duration, or not longer than zero.
    """
    from etl.settings import values

    try:
        found = values.seconds(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {error}") from None
    if found <= 0:
        raise ConfigurationError(f"{option} must be longer than zero")
    return found


def age_or_time(option: str, text: str) -> timedelta | datetime:
    """Parse a duration with a unit, or a time in ISO 8601.

    Raises:
        ConfigurationError: the text is neither.
    """
    if "-" in text:
        found = time(option, text)
        assert found is not None
        return found
    try:
        return timedelta(seconds=seconds(option, text))
    except ConfigurationError:
        raise ConfigurationError(
            f"{option} takes a duration with a unit, such as 7d, or a time, such as 2026-01-31"
        ) from None


def window(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Parse --since and --until; return None for an option that is not given.

    Raises:
        ConfigurationError: a text is not a time, or the window is empty.
    """
    first, end = time("--since", since), time("--until", until)
    if first is not None and end is not None and first >= end:
        raise ConfigurationError("--since must be earlier than --until")
    if first is not None and first > datetime.now(UTC):
        raise ConfigurationError("--since is in the future: no run has started since")
    return first, end
