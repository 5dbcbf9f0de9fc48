"""When a run is read next, and when it is final."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.ledger.lifecycle import (
    DERIVED_CHECKS,
    Decision,
    KnownRun,
    Observation,
    PollingPolicy,
    decide,
    retry_in,
)

POLICY = PollingPolicy()
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _known(**more: Any) -> KnownRun:
    fields: dict[str, Any] = {
        "opened_at": NOON - MINUTE, "listed": True, "read_digest": None, "checks": 0, "attempts": 0,
        "steps_observed_at": None,
    }  # fmt: skip
    return KnownRun(**{**fields, **more})


def _reading(**more: Any) -> Observation:
    fields: dict[str, Any] = {
        "requested_at": NOON, "server_time": NOON, "run_terminal": True,
        "run_end_time": NOON - 2 * MINUTE,
        "steps_terminal": True, "has_steps": True, "digest": b"d",
    }  # fmt: skip
    return Observation(**{**fields, **more})


def test_a_run_read_long_after_its_end_is_final_at_once() -> None:
    """A run read long after its end is final after one read."""
    assert decide(_known(), _reading(), POLICY) == Decision("final", None, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"run_end_time": NOON - MINUTE},
        {"run_end_time": NOON + MINUTE},
        {"run_end_time": None},
        {"server_time": None},
    ],
    ids=[
        "just ended",
        "ends later by the server's clock",
        "without an end",
        "without the server's clock",
    ],
)
def test_a_run_not_known_to_be_over_for_a_minute_is_read_again(fields: dict[str, Any]) -> None:
    """Unless the server says that it ended more than `settle_after` ago, a run is read again."""
    assert decide(_known(), _reading(**fields), POLICY) == Decision("open", 60.0, 1)


@pytest.mark.parametrize(
    ("before", "tracking"),
    [
        ({"checks": 1, "read_digest": b"d", "steps_observed_at": NOON - MINUTE}, "final"),
        ({"checks": 1, "read_digest": b"other", "steps_observed_at": NOON - MINUTE}, "open"),
        (
            {"checks": 1, "read_digest": b"d", "steps_observed_at": NOON - timedelta(seconds=59)},
            "open",
        ),
        ({"checks": 0, "read_digest": b"d", "steps_observed_at": NOON - MINUTE}, "open"),
        ({"checks": 1, "read_digest": b"d", "steps_observed_at": None}, "open"),
    ],
    ids=["unchanged", "changed", "too soon", "not over the last time", "never read"],
)
def test_a_second_read_settles_only_an_unchanged_run(before: dict[str, Any], tracking: str) -> None:
    """A run without an end is final after two equal reads, `settle_after` apart."""
    assert decide(_known(**before), _reading(run_end_time=None), POLICY).tracking == tracking


@pytest.mark.parametrize("run_terminal", [True, False, None])
def test_a_run_with_an_open_step_is_never_final(run_terminal: bool | None) -> None:
    """A run with an open step is never final, even if its own row says that it is over."""
    known = _known(checks=9, read_digest=b"d", steps_observed_at=NOON - timedelta(hours=1))
    assert (
        decide(known, _reading(run_terminal=run_terminal, steps_terminal=False), POLICY).tracking
        == "open"
    )


@pytest.mark.parametrize("run_end_time", [NOON - timedelta(days=9), NOON - 5 * MINUTE, None])
def test_a_run_that_never_had_a_step_is_final_after_a_day(run_end_time: datetime | None) -> None:
    """A run without steps is read ever more rarely for a day, and is final after two empty reads.

    Its steps may come late. Both reads come after that day.
    """
    over = _reading(has_steps=False, run_end_time=run_end_time)
    opened, reads = NOON, 0
    while (
        verdict := decide(_known(opened_at=opened, read_digest=b"d", checks=9), over, POLICY)
    ).tracking == "open":
        assert verdict.due_in is not None
        assert verdict.due_in >= 5
        opened -= timedelta(seconds=verdict.due_in)
        reads += 1
    assert verdict == Decision("final", None, 10)
    assert (NOON - opened > timedelta(days=1), reads < 30) == (True, True)
    for digest in (None, b"other"):
        assert decide(_known(opened_at=opened, read_digest=digest), over, POLICY) == Decision(
            "open", 60.0
        )
    soon = PollingPolicy(give_up_after=60.0)
    assert (
        decide(_known(opened_at=NOON - 2 * MINUTE, read_digest=b"d"), over, soon).tracking
        == "final"
    )


@pytest.mark.parametrize("run_terminal", [False, None])
def test_a_run_without_steps_is_final_only_by_its_status(run_terminal: bool | None) -> None:
    """A run without steps or a terminal status is followed like an open run, then stale."""
    known = _known(checks=9, read_digest=b"d", steps_observed_at=NOON - timedelta(hours=1))
    none = _reading(has_steps=False, run_terminal=run_terminal)
    assert decide(known, none, POLICY) == Decision("open", 6.0)
    old = _known(opened_at=NOON - timedelta(days=8), checks=9, read_digest=b"d")
    assert decide(old, none, POLICY).tracking == "stale"


def test_a_run_that_its_own_row_calls_open_is_never_final() -> None:
    """Finished steps do not end a run that the API calls open: its next step may start soon."""
    known = _known(checks=9, read_digest=b"d", steps_observed_at=NOON - timedelta(hours=1))
    assert decide(known, _reading(run_terminal=False), POLICY) == Decision("open", 6.0)


def test_a_derived_end_needs_four_unchanged_re_checks() -> None:
    """A run without a status of the API's own is final after the last of four equal re-reads.

    They follow after 1 m, 10 m, 1 h and 1 d.
    """
    known, pauses = _known(), []
    for _ in range(4):
        verdict = decide(known, _reading(run_terminal=None), POLICY)
        assert verdict.tracking == "open"
        pauses.append(verdict.due_in)
        known = _known(checks=verdict.checks, read_digest=b"d")
    assert pauses == list(DERIVED_CHECKS) == [60.0, 600.0, 3600.0, 86400.0]
    assert decide(known, _reading(run_terminal=None), POLICY) == Decision("final", None, 5)


def test_a_change_restarts_the_re_checks() -> None:
    """A derived end that changes at its last re-read is read after a minute again."""
    known = _known(checks=4, read_digest=b"other")
    assert decide(known, _reading(run_terminal=None), POLICY) == Decision("open", 60.0, 1)


@pytest.mark.parametrize(
    ("age", "pause"),
    [
        (0, 5.0),
        (49, 5.0),
        (100, 10.0),
        (3600, 360.0),
        (86400, 600.0),
        (7 * 86400, 600.0),
        (-60, 5.0),
    ],
)
def test_an_open_run_is_read_by_its_age(age: float, pause: float) -> None:
    """An open run is read after a tenth of its age, within limits, even if a clock is behind."""
    known = _known(opened_at=NOON - timedelta(seconds=age))
    assert decide(known, _reading(steps_terminal=False), POLICY) == Decision("open", pause)


def test_a_run_that_never_ends_is_stale_after_a_week() -> None:
    """A run open for `give_up_after` is stale and read once a day until it finishes."""
    known = _known(opened_at=NOON - timedelta(days=7, seconds=1))
    assert decide(known, _reading(steps_terminal=False), POLICY) == Decision("stale", 86400.0)
    assert decide(known, _reading(), POLICY).tracking == "final"


def test_failed_reads_are_repeated_at_growing_pauses() -> None:
    """Failed reads are retried after 5 s, 10 s, 20 s, at most ten minutes, without overflow."""
    assert [retry_in(n) for n in (1, 2, 3, 7, 8, 30_000)] == [5.0, 10.0, 20.0, 320.0, 600.0, 600.0]
