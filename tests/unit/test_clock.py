"""The database's clock, as this process reads it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from etl.ledger import clock
from etl.ledger.clock import DatabaseClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the monotonic clock by the first element of a list that the test changes."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_goes_on_from_its_anchor(instant: list[float]) -> None:
    """The monotonic clock translates times before and after the anchor, for any wall clock."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += 7.5
    assert found.now() == NOON + timedelta(seconds=7.5)
    assert found.at(998.0, after=NOON - timedelta(hours=1)) == NOON - timedelta(seconds=2)


def test_a_slow_statement_does_not_turn_it_back(instant: list[float]) -> None:
    """An anchor that arrives two seconds late changes nothing; a quicker one moves the clock on."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += 10
    found.anchor(NOON + timedelta(seconds=8))
    assert found.now() == NOON + timedelta(seconds=10)
    found.anchor(NOON + timedelta(seconds=11))
    assert found.now() == NOON + timedelta(seconds=11)


def test_a_clock_set_back_is_followed_after_a_minute(instant: list[float]) -> None:
    """If the database's clock is set back, as by a failover, the old anchor counts for a minute."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += clock.KEEP + 1
    found.anchor(NOON - timedelta(hours=1))
    assert found.now() == NOON - timedelta(hours=1)


def test_a_jump_dates_no_request_before_its_claim(instant: list[float]) -> None:
    """A request precedes a jump of the monotonic clock and a new anchor, and follows its claim."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += 1
    requested_at = instant[0]
    instant[0] += 3600
    found.anchor(NOON + timedelta(seconds=2))
    assert found.at(requested_at, after=NOON) == NOON
