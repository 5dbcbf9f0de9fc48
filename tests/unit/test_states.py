"""Statuses as states."""

from __future__ import annotations

import pytest

from etl.errors import ConfigurationError
from etl.records import State
from etl.transform.states import StateMap, derive_run_state


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("completed", "succeeded"),
        ("COMPLETED", "succeeded"),
        ("Success", "succeeded"),
        ("succeeded", "succeeded"),
        ("pending", "pending"),
        ("queued", "pending"),
        ("Created", "pending"),
        ("scheduled", "pending"),
        ("waiting", "pending"),
        ("running", "running"),
        ("in_progress", "running"),
        ("IN-PROGRESS", "running"),
        ("In Progress", "running"),
        ("inProgress", "running"),
        (" started ", "running"),
        ("failed", "failed"),
        ("Error", "failed"),
        ("timeout", "failed"),
        ("timed_out", "failed"),
        ("Timed  Out", "failed"),
        ("cancelled", "cancelled"),
        ("canceled", "cancelled"),
        ("ABORTED", "cancelled"),
        ("skipped", "skipped"),
        (None, "unknown"),
        ("", "unknown"),
        ("half-baked", "unknown"),
        ("completed!", "unknown"),
    ],
)
def test_status_becomes_state(status: str | None, state: State) -> None:
    """The usual spellings are known in any case, with any separators; all others are `unknown`."""
    assert StateMap().state_of(status) == state


def test_configured_mapping_wins() -> None:
    """A configured status is mapped in any spelling, and precedes the defaults."""
    states = StateMap({"Half Baked": "running", "completed": "failed"})
    assert [states.state_of(status) for status in ("half-baked", "HALF_BAKED", "Completed")] == [
        "running",
        "running",
        "failed",
    ]


def test_configured_target_must_be_a_state() -> None:
    """A target that is not a state is a configuration error that names the states."""
    with pytest.raises(ConfigurationError, match=r"'ok'.*succeeded"):
        StateMap({"fine": "ok"})


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "pending"),
        (["pending"], "running"),
        (["succeeded", "pending"], "running"),
        (["failed", "running"], "running"),
        (["succeeded", "failed", "cancelled", "unknown"], "failed"),
        (["succeeded", "cancelled", "unknown"], "cancelled"),
        (["succeeded", "unknown"], "unknown"),
        (["succeeded", "skipped"], "succeeded"),
        (["succeeded"], "succeeded"),
        (["skipped"], "succeeded"),
    ],
)
def test_run_state_from_steps(states: list[State], expected: State) -> None:
    """An open step keeps the run open; among ended steps the worst decides."""
    assert derive_run_state(iter(states)) == expected
