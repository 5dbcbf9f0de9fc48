"""The next read of a run, as reported in every state of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.ledger.outlook import Entry, outlook

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
READ = {"steps_observed_at": NOON - MINUTE}
OVER = {**READ, "run_state": "succeeded"}


def _entry(**more: Any) -> Entry:
    fields: dict[str, Any] = {
        "tracking": "open", "priority": 0, "due_at": NOON + MINUTE, "leased_until": None,
        "fencing_token": 1, "checks": 0,
        "attempts": 0, "not_found_since": None, "reopened_by": None,
        "opened_at": NOON - MINUTE, "run_state": None,
        "steps_observed_at": None,
        "removed_at": None,
    }  # fmt: skip
    return Entry(**{**fields, **more})


@pytest.mark.parametrize(
    ("fields", "has_steps", "reason"),
    [
        ({}, False, "it has not been read yet"),
        (READ, True, "the run is still running"),
        ({**READ, "run_state": "running"}, True, "the run is still running"),
        (OVER, False, "the run is over, but the API has not returned its steps yet"),
        ({**OVER, "checks": 1}, True,
         "the run is over; it is final once a read finds it unchanged"),
        ({**READ, "checks": 2}, True, "the API gives no status for the run: check 2 of 4"),
        (OVER, True, "the run is over; the next read confirms its end"),
        ({**OVER, "reopened_by": "list"}, True, "read again: its row of the run list changed"),
        ({**OVER, "reopened_by": "reread"}, True, "read again: `backfill --reread` requested it"),
        ({**READ, "attempts": 3}, True, "the last read failed"),
        ({"attempts": 1, "not_found_since": NOON}, False,
         "the API has returned 404 since 2026-03-01 12:00:00Z"),
        ({**READ, "tracking": "stale"}, True,
         "open for longer than polling.give_up_after, and is read once a day"),
        (
            {**READ, "leased_until": NOON - MINUTE},
            True,
            "the process that claimed it did not finish; the run is still running",
        ),
    ],
)  # fmt: skip
def test_a_run_that_is_read_again(fields: dict[str, Any], has_steps: bool, reason: str) -> None:
    """The reported time is the ledger's, and the reason is that of the run's state."""
    found = outlook(_entry(**fields), NOON, has_steps=has_steps, give_up_after=60)
    assert (found.action, found.at) == ("read", NOON + MINUTE)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({**OVER, "tracking": "final"}, "its end is confirmed"),
        ({"tracking": "gone"}, "the API returns 404 for it and no longer lists it"),
        ({"tracking": "stale"}, "neither the API nor the run list has shown it"),
        ({"tracking": "erased", "removed_at": NOON}, "it was erased on 2026-03-01"),
        ({"tracking": "pruned", "removed_at": NOON}, "it was pruned on 2026-03-01"),
    ],
)
def test_a_run_that_is_not_read_again(fields: dict[str, Any], reason: str) -> None:
    """Final, gone, stale and removed runs are reported as such, without a time."""
    found = outlook(_entry(due_at=None, **fields), NOON, has_steps=True, give_up_after=60)
    assert (found.action, found.at, found.gives_up_at) == ("none", None, None)
    assert reason in found.reason


def test_a_run_that_is_being_read() -> None:
    """While a claim is held, the reported time is the end of its lease."""
    claimed = _entry(due_at=NOON - MINUTE, leased_until=NOON + MINUTE)
    found = outlook(claimed, NOON, has_steps=False, give_up_after=60)
    assert (found.action, found.at) == ("being_read", NOON + MINUTE)


def test_when_a_run_is_given_up() -> None:
    """An open run is given up by its age, unless the API says that it is over and reads succeed."""

    def given_up(**fields: Any) -> datetime | None:
        return outlook(_entry(**fields), NOON, has_steps=True, give_up_after=3600).gives_up_at

    expected = NOON - MINUTE + timedelta(hours=1)
    assert given_up(**READ) == expected
    assert given_up(**OVER, attempts=1) == expected
    assert given_up(**OVER) is None
    assert given_up(**READ, tracking="stale") is None
