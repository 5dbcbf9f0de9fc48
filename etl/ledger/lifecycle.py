"""When a run is polled next, and when it is final: pure decisions, without clock or database.

A run is final when the API itself calls it terminal, every step it answers is terminal, and the
steps were read when the run had been over for longer than `settle_after` by the server's own clock,
or read twice, that long apart, without a difference. Where the API gives no status for runs, four
re-checks over a day must find nothing new. The steps of a run that is over and has none may come
late: it is final once none has come for a day.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

Tracking = Literal["open", "final", "stale", "gone"]

# Pauses between the re-checks of a run whose status only follows from its steps, in seconds: 1 m,
# 10 m, 1 h, 1 d.
DERIVED_CHECKS = (60.0, 600.0, 3600.0, 86400.0)
# Seconds for which steps may come that a run without any, though it is over, should have.
LATE_STEPS = 86400.0
# Stale runs are asked for once a day, in case they move after all; an answer that is too large
# likewise.
DAILY = 86400.0
# A run may be answered with 404 for this long (seconds) before it counts as gone: deployments and
# failovers pass.
GONE_AFTER = 3600.0
# Failed reads are repeated after 5 s, 10 s, 20 s, … at most 10 minutes.
RETRY_FIRST, RETRY_MOST = 5.0, 600.0


class PollingPolicy(msgspec.Struct, frozen=True):
    """The polling settings, in seconds."""

    settle_after: float = 60.0
    open_interval_min: float = 5.0
    open_interval_max: float = 600.0
    give_up_after: float = 7 * 86400.0


class KnownRun(msgspec.Struct, frozen=True):
    """What the ledger knew of the run when it was claimed."""

    opened_at: datetime
    listed: bool
    read_digest: bytes | None
    checks: int
    attempts: int
    steps_observed_at: datetime | None
    tracking: str = "open"


class Observation(msgspec.Struct, frozen=True):
    """What a poll found."""

    requested_at: datetime
    server_time: datetime | None
    run_terminal: bool | None
    """Whether the API's own row of the run says it is over; None where the API has no such row for us."""
    run_end_time: datetime | None
    steps_terminal: bool
    """Every step is terminal; also where there is none."""
    has_steps: bool
    digest: bytes


class Decision(msgspec.Struct, frozen=True):
    """What becomes of the run in the ledger."""

    tracking: Tracking
    due_in: float | None
    """Seconds from now until the next poll; None: not again by itself."""
    checks: int = 0


def decide(known: KnownRun, observation: Observation, policy: PollingPolicy) -> Decision:
    """Decide after a readable answer."""
    if observation.steps_terminal and observation.run_terminal and observation.has_steps:
        if _settled(observation, policy) or _unchanged(known, observation, policy):
            return Decision("final", None, known.checks + 1)
        return Decision("open", policy.settle_after, 1)
    age = (observation.requested_at - known.opened_at).total_seconds()
    if observation.run_terminal and not observation.has_steps:
        late = min(LATE_STEPS, policy.give_up_after)
        if age <= late:
            return Decision("open", max(age / 2, policy.open_interval_min))
        if known.read_digest == observation.digest:
            return Decision("final", None, known.checks + 1)
        return Decision("open", policy.settle_after)
    if observation.steps_terminal and observation.has_steps and observation.run_terminal is None:
        checks = known.checks + 1 if known.read_digest == observation.digest else 1
        if checks > len(DERIVED_CHECKS):
            return Decision("final", None, checks)
        return Decision("open", DERIVED_CHECKS[checks - 1], checks)
    if age > policy.give_up_after:
        return Decision("stale", DAILY)
    # A tenth of its age: a young run is followed closely, one that idles for an hour is asked every
    # six minutes.
    return Decision("open", min(max(age / 10, policy.open_interval_min), policy.open_interval_max))


def retry_in(attempts: int) -> float:
    """Seconds to wait after the `attempts`-th failed read in a row (from 1)."""
    return min(RETRY_FIRST * 2.0 ** min(attempts - 1, 20), RETRY_MOST)


def _settled(observation: Observation, policy: PollingPolicy) -> bool:
    if observation.run_end_time is None or observation.server_time is None:
        return False
    return observation.server_time - observation.run_end_time > timedelta(
        seconds=policy.settle_after
    )


def _unchanged(known: KnownRun, observation: Observation, policy: PollingPolicy) -> bool:
    if (
        known.checks < 1
        or known.read_digest != observation.digest
        or known.steps_observed_at is None
    ):
        return False
    return observation.requested_at - known.steps_observed_at >= timedelta(
        seconds=policy.settle_after
    )
