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
    """The monotonic clock, in a list's first place, moved by the test."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_goes_on_from_its_anchor(instant: list[float]) -> None:
    """Times before and after the anchor are translated by the monotonic clock, however wrong the machine's own clock is."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += 7.5
    assert found.now() == NOON + timedelta(seconds=7.5)
    assert found.at(998.0) == NOON - timedelta(seconds=2)


def test_a_slow_statement_does_not_turn_it_back(instant: list[float]) -> None:
    """An anchor that arrives two seconds late leaves the clock where a quick one had put it; a quicker one moves it on."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += 10
    found.anchor(NOON + timedelta(seconds=8))
    assert found.now() == NOON + timedelta(seconds=10)
    found.anchor(NOON + timedelta(seconds=11))
    assert found.now() == NOON + timedelta(seconds=11)


def test_a_clock_set_back_is_followed_after_a_minute(instant: list[float]) -> None:
    """Where the database's clock is set back, as by a failover, the old anchor counts for a minute and no longer."""
    found = DatabaseClock()
    found.anchor(NOON)
    instant[0] += clock.KEEP + 1
    found.anchor(NOON - timedelta(hours=1))
    assert found.now() == NOON - timedelta(hours=1)
