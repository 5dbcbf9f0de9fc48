"""What happens to a run next, when and why, derived from its row of the ledger for people."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from etl.ledger.lifecycle import DERIVED_CHECKS
from etl.records import TERMINAL_STATES

_REQUESTS: dict[str, str] = {
    "list": "its row of the run list changed",
    "config": "the configuration names it under another workflow",
    "track": "`track`, `dead-letters retry` or a row of run_requests requested it",
    "reread": "`backfill --reread` requested it",
    "repair": "its rows were missing from the tables",
    "states": "the configured states changed",
}


class Entry(msgspec.Struct, frozen=True):
    """The columns of a run's ledger row that decide what happens next."""

    tracking: str
    priority: int
    """0: live; 1: backfill, which is read after all live runs."""
    due_at: datetime | None
    leased_until: datetime | None
    fencing_token: int
    checks: int
    """Reads in a row that found the run finished and unchanged."""
    attempts: int
    """Reads in a row that failed."""
    not_found_since: datetime | None
    reopened_by: str | None
    """What last requested a newer read of the run; None: nothing has."""
    opened_at: datetime
    run_state: str | None
    """The run's state in the API's own row; None if that row was not read."""
    steps_observed_at: datetime | None
    removed_at: datetime | None


class Outlook(msgspec.Struct, frozen=True):
    """What happens to a run next."""

    action: Literal["read", "being_read", "none"]
    """`read`: any process reads the run from `at` on.

    `being_read`: a process holds a claim until `at`. `none`: no read follows unless one is
    requested.
    """
    at: datetime | None
    reason: str
    """Why, in a clause without a period."""
    gives_up_at: datetime | None = None
    """When the run becomes `stale` if it is still open then; None if it cannot become stale."""


def outlook(entry: Entry, at: datetime, *, has_steps: bool, give_up_after: float) -> Outlook:
    """Return what happens to a run next, and why.

    Args:
        entry: the run's row of the ledger.
        at: database time now.
        has_steps: whether the database holds steps of the run.
        give_up_after: seconds after which an open run becomes `stale`.
    """
    is_over = entry.run_state in TERMINAL_STATES
    gives_up_at = None
    if entry.tracking == "open" and (entry.attempts or not is_over):
        gives_up_at = entry.opened_at + timedelta(seconds=give_up_after)
    if entry.due_at is None:
        return Outlook("none", None, _why_never(entry))
    if entry.leased_until is not None and entry.leased_until >= at:
        reason = "a process has claimed it; when the claim ends, any process may read the run"
        return Outlook("being_read", entry.leased_until, reason, gives_up_at)
    reason = _why_read(entry, is_over=is_over, has_steps=has_steps)
    if entry.leased_until is not None:
        reason = f"the process that claimed it did not finish; {reason}"
    return Outlook("read", entry.due_at, reason, gives_up_at)


def _why_never(entry: Entry) -> str:
    if entry.removed_at is not None:
        return f"it was {entry.tracking} on {entry.removed_at:%Y-%m-%d}, and its id is blocked"
    if entry.tracking == "gone":
        return "the API returns 404 for it and no longer lists it"
    if entry.tracking == "stale":
        return "neither the API nor the run list has shown it within polling.give_up_after"
    return "its end is confirmed; a changed list row or `track` causes another read"


def _why_read(entry: Entry, *, is_over: bool, has_steps: bool) -> str:
    if entry.not_found_since is not None:
        return (
            f"the API has returned 404 since {entry.not_found_since:%Y-%m-%d %H:%M:%SZ}; after an "
            "hour it is gone if the workflow responds and does not list it"
        )
    if entry.attempts:
        return "the last read failed"
    if entry.steps_observed_at is None:
        return "it has not been read yet"
    if entry.tracking == "stale":
        return "it was open for longer than polling.give_up_after, and is read once a day"
    if entry.run_state is None and entry.checks:
        return (
            f"its steps are over, and the API gives no status for the run: check {entry.checks}"
            f" of {len(DERIVED_CHECKS)} comes next"
        )
    if not is_over:
        return "the run is still running"
    if not has_steps:
        return "the run is over, but the API has not returned its steps yet"
    if entry.checks:
        return "the run is over; it is final once a read finds it unchanged"
    if entry.reopened_by is None:
        return "the run is over; the next read confirms its end"
    return f"the run is over, and is read again: {_REQUESTS[entry.reopened_by]}"
