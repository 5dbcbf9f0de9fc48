"""A worker's clocks are wrong, while the database and the API have the right time."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.suite import Fault
from tests.faults.watch import install, moved_back
from tests.faults.workers import output_of
from tests.faults.world import World, world
from tests.support import query, wait_until

NAME = "worker's clock off by a day, set while it works, or jumping (monotonic)"
GUARD = "observations dated by the database's clock"
CLOCKS = "tests.faults.clocks:install"
GUARDS = "tests.faults.process_guards:"
DAY = 86400


def _change(found: World, chance: random.Random) -> None:
    """Change the errors and steps of finished runs, and add new runs."""
    history = found.history
    for workflow_id in history.workflow_ids:
        for run_id in chance.sample(history.run_ids(workflow_id, limit=15), 3):
            value = chance.randrange(1 << 30)
            history.change_run(run_id, error={"value": value})
            for step in history.steps(run_id)[:1]:
                history.change_step(run_id, step["id"], step_metadata={"value": value})
        history.add_runs(workflow_id, 2)
    history.advance(timedelta(minutes=5))


def _wrong(
    found: World, chance: random.Random, *clocks: dict[str, str], guards: tuple[str, ...] = ()
) -> list[str]:
    """Run workers with these clocks in turn, each after changes, and return the problems."""
    for clock in clocks:
        _change(found, chance)
        with found.started("sync", without=(CLOCKS, *guards), **clock) as worker:
            status = worker.wait()
        problems = [] if status in (0, 6) else [f"the worker ended with {status}"]
        problems += found.complete() + found.witnessed() + moved_back(found.url)
        problems += [
            f"run {row['run_id']} has an observation in the future"
            for row in query(
                found.url,
                (
                    "SELECT run_id FROM orchestra_etl.run_ledger"
                    " WHERE greatest(steps_observed_at, run_observed_at) > now()"
                ),
            )
        ]
        if problems:
            return [f"with {clock}: {problem}" for problem in problems]
    return []


@pytest.mark.fault(26, NAME, "C M W", guard=GUARD)
def test_clocks_that_are_wrong(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Workers a day ahead, a day behind and right, in turn, store what is true at once.

    Each row has its observation's time by the database's clock.
    """
    chance = random.Random(26)
    ahead, behind, right = {"CLOCK_OFF": str(DAY)}, {"CLOCK_OFF": str(-DAY)}, {"CLOCK_OFF": "0"}
    set_late = [{"CLOCK_OFF": str(off), "CLOCK_SET_AFTER": "0.1"} for off in (DAY, -DAY)]
    with world(database_url, tmp_path, log) as found:
        install(database_url)
        assert (
            _wrong(found, chance, *(2 * [ahead, right, behind, ahead, behind, right, *set_late]))
            == []
        ), output_of(log)
        fault.injected(16)
        fault.control(_wrong(found, chance, right, behind, right, guards=(f"{GUARDS}own_clock",)))


@pytest.mark.fault(26, NAME, "C M W", guard=GUARD)
def test_a_monotonic_clock_that_jumps(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """An hour that passes in an instant repeats requests and loses no observation.

    A suspended machine can cause such a jump.
    """
    chance = random.Random(27)
    with world(database_url, tmp_path, log) as found:
        install(database_url)
        jumps = [
            {"MONOTONIC_JUMP": "3600", "MONOTONIC_JUMP_AT": number}
            for number in ("1", "2", "5", "9", "14")
        ]
        for jump in jumps:
            assert _wrong(found, chance, jump, {}) == [], output_of(log)
        fault.injected(len(jumps))
        # With anchors, a claim after the jump could still date the responses correctly.
        without = (f"{GUARDS}own_clock", f"{GUARDS}no_limit_to_dates")
        fault.control(_wrong(found, chance, *jumps, guards=without))


def _goes_on(
    found: World, signal: Path, guards: tuple[str, ...] = (), seconds: float = 120.0
) -> list[str]:
    """Return a problem if the service ignores a new run after its clock was set back by a day.

    Its clock is set back, by making this file, when it has swept and loaded everything.
    """

    def sweeps_after(pause: timedelta) -> Callable[[], bool]:
        """Return a function that says whether a sweep has begun at least this long after now."""
        [now] = query(found.url, "SELECT now() AS time")
        began = "SELECT 1 AS one FROM orchestra_etl.sweeps WHERE started_at > %s"
        return lambda: query(found.url, began, now["time"] + pause) != []

    found.swept_every("500ms")
    started = sweeps_after(timedelta())
    with found.started(
        "serve",
        without=(CLOCKS, f"{GUARDS}quick_ticks", *guards),
        CLOCK_OFF=str(-DAY),
        CLOCK_SET_WHEN=str(signal),
    ):
        wait_until(lambda: started() and found.complete() == [])
        signal.touch()
        try:
            wait_until(sweeps_after(timedelta(seconds=2.5)), seconds=seconds)
        except AssertionError:
            return ["the service does no more work"]
        found.history.add_runs(found.history.workflow_ids[0], 3)
        found.history.advance(timedelta(minutes=5))
        wait_until(lambda: found.complete() == [])
    return found.witnessed() + moved_back(found.url)


@pytest.mark.fault(26, NAME, "C M W", guard=GUARD)
def test_a_clock_set_back_under_the_service(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """A service whose clock is set back by a day continues within seconds, not a day later."""
    with world(database_url, tmp_path, log, runs_per_workflow=5) as found:
        install(database_url)
        assert _goes_on(found, tmp_path / "set") == [], output_of(log)
        fault.injected(1)
        without = (f"{GUARDS}no_look_at_the_clock",)
        fault.control(_goes_on(found, tmp_path / "set again", without, seconds=8.0))
