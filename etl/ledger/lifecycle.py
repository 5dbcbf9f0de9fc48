"""When a run is polled next, and when it is final: pure decisions, without clock or database.

A run is final when the API itself calls it terminal and every step in the response is terminal. In
addition, the read of the steps must be late enough: either the run had been over for longer than
`settle_after` by the server's own clock, or two reads at least that far apart found no difference.
If the API gives no status for runs, four re-checks over a day must find nothing new. A run that is
over without any step may still get steps: it is final once none has appeared for a day.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

Tracking = Literal["open", "final", "stale", "gone"]

# Pauses in seconds (1 m, 10 m, 1 h, 1 d) between the re-checks of a run whose status only follows
# from its steps.
DERIVED_CHECKS = (60.0, 600.0, 3600.0, 86400.0)
# Seconds for which a run that is over without any step is still expected to get some.
LATE_STEPS = 86400.0
# Seconds between two reads of a stale run, which may still change, and of a run for which an early
# retry would not help, for example because its response is too large.
DAILY = 86400.0
# Seconds of 404 responses before a run counts as gone: deployments and failovers take less.
GONE_AFTER = 3600.0
# Failed reads are retried after 5 s, 10 s, 20 s, … at most 10 minutes.
RETRY_FIRST, RETRY_MOST = 5.0, 600.0


class PollingPolicy(msgspec.Struct, frozen=True):
    """The polling settings, in seconds."""

    settle_after: float = 60.0
    open_interval_min: float = 5.0
    open_interval_max: float = 600.0
    give_up_after: float = 7 * 86400.0


class KnownRun(msgspec.Struct, frozen=True):
    """The ledger's knowledge of the run at the time of the claim."""

    opened_at: datetime
    """When the run was first seen, or was reopened after it had not been open."""
    listed: bool
    """Whether a run list has shown it."""
    read_digest: bytes | None
    checks: int
    """Reads in a row that found the run finished and unchanged."""
    attempts: int
    """Reads in a row that failed."""
    steps_observed_at: datetime | None
    """Database time at which the loaded steps were requested; None: the run was never read."""
    tracking: str = "open"


class Observation(msgspec.Struct, frozen=True):
    """The result of a read with a readable response."""

    requested_at: datetime
    """Database time at which the steps were requested."""
    server_time: datetime | None
    """The server's own time, from the response; None if the response has none."""
    run_terminal: bool | None
    """Whether the API's own row of the run says that it is over; None if that row was not read."""
    run_end_time: datetime | None
    steps_terminal: bool
    """Whether every step is terminal; true if there is none."""
    has_steps: bool
    digest: bytes


class Decision(msgspec.Struct, frozen=True):
    """The run's next state in the ledger."""

    tracking: Tracking
    due_in: float | None
    """Seconds from now until the next poll; None: no further poll unless one is requested."""
    checks: int = 0


def decide(known: KnownRun, observation: Observation, policy: PollingPolicy) -> Decision:
    """Decide the run's next state after a readable response."""
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
    # The pause is a tenth of the run's age: a new run is read often, a run that has been open for
    # an hour every six minutes.
    return Decision("open", min(max(age / 10, policy.open_interval_min), policy.open_interval_max))


def retry_in(attempts: int) -> float:
    """Return the seconds to wait after the `attempts`-th failed read in a row, counted from 1."""
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
