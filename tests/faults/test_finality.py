"""Runs that look finished and are not: none becomes final before its data is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from etl.ledger import lifecycle
from etl.ledger.lifecycle import Decision, KnownRun, Observation, PollingPolicy
from etl.pipeline import outcome
from tests.faults.suite import Fault
from tests.faults.workers import output_of
from tests.faults.world import World, world
from tests.support import query

NAME = "runs that look finished: idle between nodes, cancelled with a running step, without steps"
GUARD = "final only by the run's status and all its steps"
GUARDS = "tests.faults.test_finality:"
TIMES = {
    "run_ledger": (
        "first_seen_at",
        "opened_at",
        "listed_at",
        "due_at",
        "steps_observed_at",
        "run_observed_at",
    ),
    "sweeps": ("started_at", "swept_at", "reconciled_at"),
}
FIVE_MINUTES = timedelta(minutes=5)
Disguise = Callable[[World, str], None]


def _judging(final: Callable[[Observation], bool]) -> None:
    decide = lifecycle.decide

    def careless(known: KnownRun, observation: Observation, policy: PollingPolicy) -> Decision:
        return (
            Decision("final", None, 1) if final(observation) else decide(known, observation, policy)
        )

    outcome.decide = careless  # type: ignore[attr-defined]


def status_alone() -> None:
    """Make a run final as soon as its own row says so."""
    _judging(lambda reading: bool(reading.run_terminal))


def steps_alone() -> None:
    """Make a run final as soon as all steps in the response are over."""
    _judging(lambda reading: reading.steps_terminal)


def idle(found: World, run_id: str) -> None:
    """Show a run that has finished its first two nodes and waits to start the third."""
    steps = found.history.steps(run_id)[:2]
    found.simulator.steps_bodies[run_id] = json.dumps(steps).encode()
    found.history.change_run(run_id, status="running", end_time=None, outputs=None)


def cancelled(found: World, run_id: str) -> None:
    """Show a cancelled run with a step that still runs."""
    found.history.change_run(run_id, status="cancelled", outputs=None)
    running = found.history.steps(run_id)[-1]
    body = [
        *found.history.steps(run_id)[:-1],
        {**running, "status": "running", "end_time": None, "outputs": None},
    ]
    found.simulator.steps_bodies[run_id] = json.dumps(body).encode()


def empty(found: World, run_id: str) -> None:
    """Show a run that is over and has no steps yet."""
    found.simulator.steps_bodies[run_id] = b"[]"


def _pass(found: World, by: timedelta) -> None:
    """Let time pass for the API and for the ledger."""
    found.history.advance(by)
    for table, columns in TIMES.items():
        earlier = ", ".join(
            f"{column} = {column} - interval '{by.total_seconds()} seconds'" for column in columns
        )
        query(found.url, f"UPDATE orchestra_etl.{table} SET {earlier}")


def _early(found: World, runs: list[str]) -> list[str]:
    rows = query(
        found.url,
        "SELECT run_id, tracking FROM orchestra_etl.run_ledger WHERE run_id = ANY (%s)",
        runs,
    )
    return [
        f"run {row['run_id']} is {row['tracking']} too early"
        for row in rows
        if row["tracking"] != "open"
    ]


def _followed(
    found: World, disguise: Disguise, runs: list[str], without: tuple[str, ...] = ()
) -> list[str]:
    """Sync repeatedly while the runs are disguised, then as they are; return the problems."""
    for run_id in runs:
        disguise(found, run_id)
    # The pauses cover the re-checks of a run that looks settled, and much more.
    for pause in (0, 30, 60, 90, 300, 3600):
        _pass(found, timedelta(seconds=pause))
        status = found.sync(without=without)
        problems = [] if status in (0, 6) else [f"the worker ended with {status}"]
        if problems := problems + _early(found, runs):
            return problems
    for run_id in runs:
        del found.simulator.steps_bodies[run_id]
        if disguise is idle:
            found.history._run_changes.pop(run_id)
    for _ in range(3):
        _pass(found, FIVE_MINUTES + timedelta(minutes=10))
        found.sync(without=without)
    open_still = [one for one in runs if one not in _final(found)]
    return (
        [f"run {one} is never final" for one in open_still] + found.complete() + found.witnessed()
    )


def _final(found: World) -> set[str]:
    return {
        row["run_id"]
        for row in query(
            found.url, "SELECT run_id FROM orchestra_etl.run_ledger WHERE tracking = 'final'"
        )
    }


@pytest.mark.fault(33, NAME, "C W", guard=GUARD)
@pytest.mark.parametrize(
    ("disguise", "careless"),
    [(idle, "steps_alone"), (cancelled, "status_alone"), (empty, "status_alone")],
    ids=["idle", "cancelled", "empty"],
)
def test_never_final_too_early(
    fault: Fault, database_url: str, tmp_path: Path, log: Path, disguise: Disguise, careless: str
) -> None:
    """Such a run stays open for hours, and becomes final and complete soon after its real end."""
    with world(database_url, tmp_path, log, runs_per_workflow=6, failure_rate=0.0) as found:
        first, second, third = found.history.workflow_ids
        runs = [run_id for one in (first, second) for run_id in found.history.run_ids(one, limit=3)]
        assert _followed(found, disguise, runs) == [], output_of(log)
        fault.injected(len(runs))
        fault.control(
            _followed(found, disguise, _fresh(found, third), without=(f"{GUARDS}{careless}",))
        )


def _fresh(found: World, workflow_id: str) -> list[str]:
    """Return runs that are over by the API's clock and not yet in the ledger."""
    runs = found.history.add_runs(workflow_id, 2)
    found.history.advance(FIVE_MINUTES)
    return runs
