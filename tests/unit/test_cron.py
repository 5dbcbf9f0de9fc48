"""Cron lines against a search of every minute: the days and minutes that cron would choose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from etl import cron
from tests.support import slow

START = datetime(2026, 2, 26, 11, 17, tzinfo=UTC)
"""A Thursday shortly before a month's end."""
SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY = [
    "Sun",
    "Mon",
    "Tue",
    "Wed",
    "Thu",
    "Fri",
    "Sat",
]


def _fires(line: str, count: int) -> list[datetime]:
    trigger, now = cron.parse(line).trigger(), START
    found: list[datetime] = []
    before = None
    while len(found) < count:
        before = trigger.get_next_fire_time(before, now)
        assert before is not None
        found.append(before)
        now = before
    return found


def _minutes(due: Callable[[datetime], bool], count: int) -> Iterator[datetime]:
    """Yield the first `count` due minutes after START."""
    minute = START.replace(second=0) + timedelta(minutes=1)
    while count:
        if due(minute):
            count -= 1
            yield minute
        minute += timedelta(minutes=1)


@pytest.mark.parametrize(
    ("line", "weekdays"),
    [
        ("0 6 * * 6", [SATURDAY]), ("0 6 * * 0", [SUNDAY]), ("0 6 * * 7", [SUNDAY]),
        ("0 6 * * 1", [MONDAY]),
        ("0 6 * * 1-5", [MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY]),
        ("0 6 * * 5-7", [FRIDAY, SATURDAY, SUNDAY]),
        ("0 6 * * fri-mon", [FRIDAY, SATURDAY, SUNDAY, MONDAY]),
        ("0 6 * * 0-2", [SUNDAY, MONDAY, TUESDAY]),
        ("0 6 * * SUN", [SUNDAY]), ("0 6 * * Mon,wed,7", [MONDAY, WEDNESDAY, SUNDAY]),
        ("0 6 * * 6-0", [SATURDAY, SUNDAY]),
        ("0 6 * * */2", [SUNDAY, TUESDAY, THURSDAY, SATURDAY]),
        ("0 6 * * 1-5/2", [MONDAY, WEDNESDAY, FRIDAY]),
        ("0 6 * * sat-tue/3", [SATURDAY, TUESDAY]), ("0 6 * * 7-1", [SUNDAY, MONDAY]),
        ("@weekly", [SUNDAY]),
        ("0 6 * * 0-7", [SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY]),
    ],
)  # fmt: skip
def test_weekdays_are_those_of_cron(line: str, weekdays: list[str]) -> None:
    """Sunday is 0 and 7, Monday is 1; names, lists, steps and ranges mean what cron means."""
    assert {f"{fire:%a}" for fire in _fires(line, 30)} == set(weekdays)


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("0 0 1,15 * 1", lambda at: at.day in (1, 15) or f"{at:%a}" == MONDAY),
        ("0 0 13 * fri", lambda at: at.day == 13 or f"{at:%a}" == FRIDAY),
        ("0 0 31 * sun", lambda at: at.day == 31 or f"{at:%a}" == SUNDAY),
        pytest.param(
            "0 0 30 2 mon",
            lambda at: at.month == 2 and f"{at:%a}" == MONDAY,
            # Each search for the day that never comes takes 0.2 s.
            marks=pytest.mark.slow,
        ),
        ("0 0 13 * *", lambda at: at.day == 13),
        ("0 0 * * 2", lambda at: f"{at:%a}" == TUESDAY),
        # A field that begins with an asterisk restricts nothing for this rule.
        ("0 0 */2 * 1", lambda at: at.day % 2 == 1 and f"{at:%a}" == MONDAY),
        ("0 0 10-20 * */3",
         lambda at: 10 <= at.day <= 20 and f"{at:%a}" in (SUNDAY, WEDNESDAY, SATURDAY)),
    ],
)  # fmt: skip
def test_either_of_two_restricted_days_is_enough(
    line: str, due: Callable[[datetime], bool]
) -> None:
    """A restricted day of the month or a restricted weekday suffices, as in cron.

    If only one of them is restricted, it must match.
    """
    midnights = (START.replace(hour=0, minute=0) + timedelta(days=n) for n in itertools.count(1))
    assert _fires(line, 5) == list(itertools.islice(filter(due, midnights), 5))


@pytest.mark.parametrize("seed", [13, *slow(11, 12, 14)])
def test_any_line_against_every_minute(seed: int) -> None:
    """Lines of random sets are due in exactly the minutes that a search of every minute finds."""
    chance = Random(seed)

    def values(first: int, last: int, most: int) -> list[int]:
        return sorted(chance.sample(range(first, last + 1), chance.randint(1, most)))

    for _ in range(4):
        minutes, hours, months = values(0, 59, 3), values(0, 23, 3), values(1, 12, 9)
        days = values(1, 31, 6) if chance.random() < 0.6 else None
        weekdays = values(0, 7, 3) if chance.random() < 0.6 else None
        fields = (minutes, hours, days, months, weekdays)
        line = " ".join("*" if one is None else ",".join(map(str, one)) for one in fields)

        def due(at: datetime, fields: tuple[list[int] | None, ...] = fields) -> bool:
            minutes, hours, days, months, weekdays = fields
            if at.minute not in (minutes or ()) or at.hour not in (hours or ()):
                return False
            by_day = days is None or at.day in days
            by_weekday = (
                weekdays is None
                or at.isoweekday() in weekdays
                or (at.isoweekday() == 7 and 0 in weekdays)
            )
            on_day = (
                by_day or by_weekday
                if days is not None and weekdays is not None
                else by_day and by_weekday
            )
            return at.month in (months or ()) and on_day

        assert _fires(line, 4) == list(_minutes(due, 4)), line


@pytest.mark.parametrize(
    ("line", "pause"),
    [
        ("* * * * *", 60), ("*/15 * * * *", 900), ("30 4 * * *", 86_400), ("@hourly", 3600),
        ("@daily", 86_400),
        # From Friday evening to Monday morning, on every day of the week.
        ("*/5 9-17 * * 1-5", 2 * 86_400 + (24 - 17 + 9) * 3600 - 55 * 60),
        ("0 9 * * 1", 7 * 86_400),
        ("0 0 31 * *", 61 * 86_400), ("0 0 1 * mon", 7 * 86_400), ("@yearly", 366 * 86_400),
        ("0 0 29 2 *", 1461 * 86_400),
    ],
)  # fmt: skip
def test_the_longest_pause(line: str, pause: int) -> None:
    """The longest pause covers nights, weekends and short months."""
    found = {
        cron.parse(line).longest_interval(date(2026, 2, 26) + timedelta(days=day))
        for day in range(7)
    }
    assert found == {float(pause)}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("* * * *", "of five fields"), ("60 * * * *", "minute '60' must be from 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of the month '0'"), ("* * * 13 *", "month '13'"),
        ("* * * * 8", "weekday '8'"),
        ("* * * * -1", "weekday '-1'"), ("*/0 * * * *", "no valid step"),
        ("* * * * mon/x", "no valid step"),
        ("* 22-2 * * *", "hour '22-2' runs backwards"), ("1,,2 * * * *", "minute ''"),
        ("* * * * friday", "weekday 'friday'"),
        ("0 0 31 2 *", "never comes due"), ("@reboot", "of five fields"), ("", "of five fields"),
        ("* * L * *", "month 'l'"),
        ("\u0661 * * * *", "minute"), ("* * * * 1#2", "weekday '1#2'"),
        ("9" * 5000 + " * * * *", "minute"),
    ],
)  # fmt: skip
def test_an_invalid_cron_line_is_explained(line: str, problem: str) -> None:
    """An invalid line is refused with the name of the field and its allowed values."""
    with pytest.raises(ValueError, match=r"is (not )?a cron line") as error:
        cron.parse(line)
    assert problem in str(error.value)
    assert len(str(error.value)) < 300
