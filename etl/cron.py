"""Cron lines of five fields, interpreted as cron does, in UTC.

Sunday is 0 or 7, and a day matches if either day field names it. APScheduler's own parser counts
weekdays from Monday, and requires a day to match both fields.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import chain, pairwise

import msgspec
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

ZONE: tzinfo = UTC
# Days that are searched for the longest interval. Two consecutive 29ths of February may be eight
# years apart.
_DAYS = 9 * 366

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        start=1,
    )
}
_WEEKDAYS = {
    name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
}


class _Field(msgspec.Struct, frozen=True):
    """The name and the valid values of a field."""

    what: str
    first: int
    last: int
    names: dict[str, int] = {}


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _WEEKDAYS),
)


class Cron(msgspec.Struct, frozen=True):
    """A parsed cron line."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday."""
    either: bool
    """Whether a day must match only one of the two day fields: if neither begins with `*`."""

    def trigger(self) -> BaseTrigger:
        """Return the scheduler's trigger for this line."""
        every = {"minute": self.minutes, "hour": self.hours, "month": self.months}
        day, weekday = (
            {"day": self.days},
            {"day_of_week": tuple((number - 1) % 7 for number in self.weekdays)},
        )
        chosen = (
            [{**every, **day}, {**every, **weekday}]
            if self.either
            else [{**every, **day, **weekday}]
        )
        triggers = [
            CronTrigger(
                **{name: ",".join(map(str, values)) for name, values in one.items()}, timezone=ZONE
            )
            for one in chosen
        ]
        return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)

    def longest_interval(self, since: date) -> float:
        """Return the longest time between two due times in the following years, in seconds."""
        times = [60.0 * minute + 3600.0 * hour for hour in self.hours for minute in self.minutes]
        overnight = times[0] - times[-1]
        due = [number for number in range(_DAYS) if self._is_due_on(since + timedelta(days=number))]
        between_days = ((later - earlier) * 86400.0 + overnight for earlier, later in pairwise(due))
        within_days = (later - earlier for earlier, later in pairwise(times))
        return max(chain(within_days, between_days), default=_DAYS * 86400.0)

    def _is_due_on(self, day: date) -> bool:
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (
            by_day or by_weekday if self.either else by_day and by_weekday
        )


def parse(line: str) -> Cron:
    """Parse a cron line.

    Raises:
        ValueError: the line is invalid, or never comes due; the text says why.
    """
    fields = _ALIASES.get(line.strip().lower(), line).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            "is not a cron line of five fields: minute, hour, day of the month, month, weekday"
        )
    minutes, hours, days, months, weekdays = (
        tuple(
            sorted(
                set(chain.from_iterable(_values(part, field) for part in text.lower().split(",")))
            )
        )
        for text, field in zip(fields, _FIELDS, strict=True)
    )
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    found = Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=tuple(sorted({number % 7 for number in weekdays})),
        either=either,
    )
    if found.trigger().get_next_fire_time(None, datetime.now(ZONE)) is None:
        raise ValueError("is a cron line that never comes due")
    return found


def _values(part: str, field: _Field) -> range:
    """Return the numbers that a part of a field's list stands for.

    Numbers of weekdays may exceed 7, into the next week.
    """
    span, slash, step = part.partition("/")
    first, dash, last = span.partition("-")
    if span == "*":
        low, high = field.first, field.last
    else:
        low = _number(first, field, part)
        high = _number(last, field, part) if dash else field.last if slash else low
    if field.names is _WEEKDAYS:
        # Sunday is both 0 and 7: `*/2` must not count it twice. A range may extend over the end of
        # the week.
        high = min(high, 6) if span == "*" or (not dash and slash) else high
        high += 7 if high < low else 0
    if high < low:
        raise ValueError(
            f"is not a cron line of five fields: the {field.what} {part[:40]!a} runs backwards"
        )
    if slash and not (step.isascii() and step.isdigit() and int(step[:9])):
        raise ValueError(
            f"is not a cron line of five fields: the {field.what} {part[:40]!a} has no valid step"
        )
    return range(low, high + 1, int(step[:9]) if slash else 1)


def _number(text: str, field: _Field, part: str) -> int:
    number = field.names.get(
        text, int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    )
    if not field.first <= number <= field.last:
        names = f", or {next(iter(field.names))} and so on" if field.names else ""
        raise ValueError(
            f"is not a cron line of five fields: the {field.what} {part[:40]!a} must be from "
            f"{field.first} to {field.last}{names}"
        )
    return number
