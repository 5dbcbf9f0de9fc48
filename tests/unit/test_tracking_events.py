"""The log event for a change of a run's tracking, with its reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from etl.ledger.claims import Claim
from etl.ledger.lifecycle import Decision, KnownRun
from etl.pipeline.reading import Reading
from etl.pipeline.tracking_events import log_changes
from etl.records import DecodedSteps

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _reading(tracking: str, *, has_steps: bool = True, state: str | None, failed: bool) -> Reading:
    known = KnownRun(
        opened_at=NOON, listed=True, read_digest=None, checks=0, attempts=0, steps_observed_at=None,
        tracking=tracking
    )  # fmt: skip
    claim = Claim(
        run_id="r", workflow_id="w", token=1, claimed_at=NOON, listing=None, listed_at=None,
        run_observed_at=None,
        run_state=state, run_end_time=None, not_found_since=None, known=known,
    )  # fmt: skip
    some: Any = ("a step",) if has_steps else ()
    return Reading(claim, NOON, steps=None if failed else DecodedSteps(some))


@pytest.mark.parametrize(
    ("before", "after", "level", "fields", "reason"),
    [
        ("open", "gone", "warning", {"failed": True}, "returns 404 for it and no longer lists it"),
        ("open", "stale", "warning", {"failed": True},
         "polling.give_up_after has passed, and its reads fail"),
        ("open", "stale", "warning", {"state": "running"}, "has passed, and it is still running"),
        ("stale", "open", "info", {"state": "running"}, "it changed after it had been given up"),
        ("open", "final", "debug", {"has_steps": False, "state": "failed"}, "no step appeared"),
        ("open", "final", "debug", {}, "every check found them unchanged"),
        ("open", "final", "debug", {"state": "failed"}, "read after its end or found unchanged"),
    ],
)  # fmt: skip
def test_a_change_has_its_reason(
    before: str, after: Any, level: str, fields: dict[str, Any], reason: str
) -> None:
    """Each change is one event with the run, both states and the reason.

    A change that may need action is a warning.
    """
    reading = _reading(before, **{"state": None, "failed": False, **fields})
    with capture_logs() as events:
        log_changes([reading], {"r": Decision(after, None)})
    [event] = events
    assert (event["event"], event["log_level"]) == ("tracking_changed", level)
    assert (event["run"], event["workflow"], event["before"], event["tracking"]) == (
        "r",
        "w",
        before,
        after,
    )
    assert reason in event["reason"]


def test_an_unchanged_run_is_not_logged() -> None:
    """A run that stays open makes no event."""
    with capture_logs() as events:
        log_changes([_reading("open", state="running", failed=False)], {"r": Decision("open", 5.0)})
    assert events == []
