"""The run list changes while it is paged: 10,000 simulated lists, and real workers with kills."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from tests.changing_list import StopsAtFirstKnownPage, changing_list, lost_runs, pace, walker
from tests.faults.suite import Fault
from tests.faults.watch import install, moved_back
from tests.faults.workers import output_of
from tests.faults.world import World, world
from tests.support import query, wait_until

SEEDS = 10_000
LISTS, ROUNDS = 8, 25
NAIVE = "tests.faults.process_guards:naive_walk"
NAME = "list grows and shrinks while it is paged, walks crash"


@pytest.mark.fault(14, NAME, "C W", guard="watermark only of complete walks")
def test_simulated_lists(fault: Fault) -> None:
    """In 10,000 simulated lists with interrupted walks, no complete walk leaves a run out."""
    for seed in range(SEEDS):
        lost = lost_runs(changing_list(seed, **pace(seed)), walker)
        assert not lost, f"seed {seed} loses {sorted(lost)}"
    fault.injected(SEEDS)
    lossy = (
        seed
        for seed in range(200)
        if lost_runs(changing_list(seed, **pace(seed)), StopsAtFirstKnownPage)
    )
    fault.control([f"seed {seed} loses runs" for seed in list(lossy)[:1]])


@contextmanager
def _changing(history: History, seed: int) -> Iterator[None]:
    """Add runs to each list while the block runs, and remove some from the list or from the API."""
    chance, over = random.Random(seed), threading.Event()

    def change() -> None:
        while not over.wait(chance.uniform(0.002, 0.02)):
            workflow_id = chance.choice(history.workflow_ids)
            history.add_runs(workflow_id, chance.choice((0, 1, 1, 3)))
            listed = history.run_ids(workflow_id)
            if len(listed) > 20 and chance.random() < 0.5:
                for run_id in chance.sample(listed, 2):
                    chance.choice((history.delete, history.unlist))(run_id)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _listed(history: History) -> dict[str, str]:
    """Return the listed runs with their workflows."""
    return {
        run_id: workflow_id
        for workflow_id in history.workflow_ids
        for run_id in history.run_ids(workflow_id)
    }


def _left_out(found: World, before: dict[str, str]) -> list[str]:
    """Return violations of invariant W, except those that a gap reports.

    These are runs that were listed from before a complete walk until now and are not in the ledger.
    """
    known = {
        row["run_id"] for row in query(found.url, "SELECT run_id FROM orchestra_etl.run_ledger")
    }
    gaps = {
        row["workflow_id"] for row in query(found.url, "SELECT workflow_id FROM orchestra_etl.gaps")
    }
    now = _listed(found.history)
    return [
        f"run {run_id} is not in the ledger"
        for run_id, workflow_id in before.items()
        if run_id in now and run_id not in known and workflow_id not in gaps
    ]


def _walked(found: World) -> set[str]:
    """Return the workflows whose last sweep did not report that it was given up."""
    complete = query(
        found.url, "SELECT workflow_id FROM orchestra_etl.sweeps WHERE last_error IS NULL"
    )
    return {row["workflow_id"] for row in complete}


@pytest.mark.fault(14, NAME, "C W", guard="watermark only of complete walks")
def test_real_workers(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Real walks over changing lists, every third worker killed, miss no run that stayed listed."""
    chance = random.Random(14)
    with world(
        database_url,
        tmp_path,
        log,
        workflows=LISTS,
        runs_per_workflow=30,
        steps_per_run=1,
        step_bytes=200,
        pace=0.001,
    ) as found:
        found.variables.update(
            ORCHESTRA_ETL_POLLING__LEASE="200ms", ORCHESTRA_ETL_POLLING__SETTLE_AFTER="100ms"
        )
        install(database_url)
        assert found.sync() == 0
        for number in range(ROUNDS):
            pages = str(chance.randrange(5, 11))
            for workflow_id in found.history.workflow_ids:
                found.history.add_runs(workflow_id, chance.randrange(15))
            with (
                _changing(found.history, number),
                found.started("sync", ORCHESTRA_ETL_API__PAGE_SIZE=pages) as worker,
            ):
                before, requests_before = _listed(found.history), found.simulator.requests["runs"]
                if number % 3 == 2:
                    enough = requests_before + chance.randrange(2, 30)

                    def is_over(  # type: ignore[no-untyped-def]
                        worker=worker, enough=enough
                    ) -> bool:
                        return (
                            found.simulator.requests["runs"] > enough or worker.status is not None
                        )

                    wait_until(is_over)
                    worker.kill()
                else:
                    assert worker.wait() in (0, 6), output_of(log)
                    # A walk that is given up reports it, and leaves its runs to the next sweep.
                    walked = _walked(found)
                    seen = {run: workflow for run, workflow in before.items() if workflow in walked}
                    assert _left_out(found, seen) == [], f"round {number}: {output_of(log)}"
        found.history.advance(timedelta(minutes=10))
        time.sleep(0.3)
        assert [found.sync() in (0, 6) for _ in range(2)] == [True, True], output_of(log)
        # Runs that left the list or the server were stored while they were there, and stay stored.
        assert [one for one in found.complete() if not one.endswith("is not in the history")] == []
        assert _left_out(found, _listed(found.history)) == []
        assert moved_back(database_url) == []
        gaps = len(query(database_url, "SELECT 1 AS one FROM orchestra_etl.gaps"))
        fault.injected(LISTS * ROUNDS, note=f"{LISTS * ROUNDS} of them real, {gaps} gaps reported")
        fault.control(_naively(found))


def _naively(found: World) -> list[str]:
    """Return what is missing if a worker dies after its first pages and the next one meets them."""
    for workflow_id in found.history.workflow_ids:
        found.history.add_runs(workflow_id, 40)
    found.simulator.misbehave(Misbehaviour(delay=0.05, endpoints=("runs",)))
    requests_before = found.simulator.requests["runs"]
    with found.started("sync", without=(NAIVE,), ORCHESTRA_ETL_API__PAGE_SIZE="5") as worker:
        wait_until(
            lambda: (
                found.simulator.requests["runs"] >= requests_before + 12
                or worker.status is not None
            )
        )
        worker.kill()
    found.simulator.misbehave()
    before = _listed(found.history)
    found.sync(without=(NAIVE,), ORCHESTRA_ETL_API__PAGE_SIZE="5")
    return _left_out(found, before)
