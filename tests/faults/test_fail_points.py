"""A worker killed at every point just before and after a commit or a request."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etl.pipeline.due_runs import DueRuns
from etl.pipeline.sweep import Sweeper
from etl.simulator.misbehaviour import Misbehaviour
from tests.faults.fail_points import passed
from tests.faults.suite import Fault
from tests.faults.watch import install, moved_back
from tests.faults.workers import output_of
from tests.faults.world import World, world
from tests.support import query, wait_until

POINTS = "tests.faults.fail_points:install"
TICKS = "tests.faults.process_guards:quick_ticks"
SETTINGS = {
    "ORCHESTRA_ETL_POLLING__LEASE": "150ms",
    "ORCHESTRA_ETL_POLLING__RECONCILE": "100ms",
    "ORCHESTRA_ETL_API__PAGE_SIZE": "5",
    "ORCHESTRA_ETL_API__REQUESTS_PER_SECOND": "10000",
}
EMPTY = """
    TRUNCATE orchestra.workflows, orchestra.workflow_versions, orchestra.runs,
        orchestra_etl.run_ledger, orchestra_etl.sweeps,
             orchestra_etl.workflow_refresh CASCADE;
"""
# A page and a read that take so long that both heartbeats run.
SLOW = [Misbehaviour(delay=0.12, endpoints=(one,), count=1) for one in ("runs", "steps")]
BEATS = (DueRuns.renew.__qualname__, Sweeper._hold.__qualname__)
Sync = Callable[..., int]


def first_sync(found: World, **more: str) -> int:
    """Sync into an empty database."""
    query(found.url, EMPTY)
    found.simulator.misbehave(*SLOW)
    guards = more.pop("without", "").split()
    with found.started("sync", without=[*guards, POINTS], **more) as worker:
        return worker.wait(20)


def backfill(found: World, **more: str) -> int:
    """Run a backfill that re-reads everything, some of it changed, and takes a queued request."""
    chance = random.Random(len(more))
    found.simulator.misbehave(*SLOW)
    for workflow_id in found.history.workflow_ids:
        for run_id in chance.sample(found.history.run_ids(workflow_id), 3):
            found.history.change_run(run_id, error={"value": time.monotonic()})
            for step in found.history.steps(run_id)[:1]:
                found.history.change_step(
                    run_id, step["id"], step_metadata={"value": time.monotonic()}
                )
    with found.started("backfill", "--reread", without=[POINTS], **more) as worker:
        return worker.wait(20)


def service(found: World, **more: str) -> int:
    """Stop the service when it has loaded one workflow's runs and still reads the other's."""
    query(found.url, "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'")
    workflow_id, slow = found.history.workflow_ids
    for run_id in found.history.run_ids(workflow_id, limit=2):
        query(
            found.url,
            "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
            workflow_id,
            run_id,
        )
    found.simulator.misbehave(Misbehaviour(delay=10.0, endpoints=("steps",), workflow_id=slow))
    half_done = (
        "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE tracking = 'open'"
        f" AND workflow_id = '{workflow_id}'"
    )
    with found.started("serve", without=[TICKS, POINTS], **more) as worker:
        wait_until(lambda: query(found.url, half_done) == [] or worker.status is not None)
        worker.send(signal.SIGTERM)
        return worker.wait(20)


def _killed_at(found: World, passing: Sync, point: str, **more: str) -> tuple[int, list[str]]:
    """Kill a worker at a point, and let another worker finish.

    Returns:
        The first worker's exit status, and the problems.
    """
    status = passing(found, FAIL_POINT=point, **more)
    found.simulator.misbehave()
    after = found.sync()
    problems = [f"the sync after it ended with {after}"] if after not in (0, 6) else []
    return status, problems + found.complete() + found.witnessed() + moved_back(found.url)


@pytest.mark.fault(
    2,
    "worker killed at every fail point",
    "C W",
    guard="claims consumed with the rows, in one transaction",
)
def test_killed_at_every_fail_point(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """Wherever a worker is killed between two effects, one clean sync makes everything complete."""
    points, missed, known = 0, [], set[str]()
    with world(
        database_url, tmp_path, log, workflows=2, runs_per_workflow=8, steps_per_run=3
    ) as found:
        found.variables.update(SETTINGS)
        install(database_url)
        for passing in (first_sync, backfill, service):
            record = tmp_path / passing.__name__
            assert passing(found, FAIL_POINTS_LOG=str(record)) in (0, 6), output_of(log)
            for point in passed(record):
                if point.partition("#")[0] in known and "Loader._in_parts" not in point:
                    continue  # This is the work of the sync before, only later.
                known.add(point.partition("#")[0])
                status, problems = _killed_at(found, passing, point)
                assert problems == [], f"killed in {passing.__name__} {point}: {output_of(log)}"
                points += status == -signal.SIGKILL
                missed += [] if status == -signal.SIGKILL else [f"{passing.__name__}: {point}"]
        # The last passage of a point need not occur again with the same number. The first one must,
        # except for heartbeats.
        assert not [
            one for one in missed if one.endswith("#1") and not any(beat in one for beat in BEATS)
        ], missed
        fault.injected(points, note=f"{len(known)} names")
        split = "tests.faults.process_guards:consumed_first"
        # A walk of the whole list would find the missing rows and request their runs again.
        found.variables["ORCHESTRA_ETL_POLLING__RECONCILE"] = "1h"
        at = "after commit of loading.Loader._in_parts#1"
        status, problems = _killed_at(found, first_sync, at, without=split)
        assert status == -signal.SIGKILL
        fault.control(problems)
