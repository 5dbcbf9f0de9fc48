"""Faults of the worker's own process: killed, stopped by a signal, paused and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from etl.simulator.misbehaviour import Misbehaviour
from tests.faults.responses import held
from tests.faults.suite import Fault
from tests.faults.watch import install, moved_back
from tests.faults.workers import PATIENCE, Worker, output_of
from tests.faults.world import World, world
from tests.support import query, wait_until

GUARDS = "tests.faults.process_guards:"
TICKS = f"{GUARDS}quick_ticks"
KILLS = int(os.environ.get("SOAK_KILLS", 200))
QUICK = {
    "ORCHESTRA_ETL_POLLING__LEASE": "300ms",
    "ORCHESTRA_ETL_POLLING__RECONCILE": "500ms",
    "ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN": "100ms",
    "ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MAX": "200ms",
    "ORCHESTRA_ETL_API__PAGE_SIZE": "20",
}
CLAIMED = "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE leased_until IS NOT NULL"


def _requests(found: World) -> int:
    return sum(found.simulator.requests.values())


def _steps(found: World) -> int:
    return found.simulator.requests["steps"]


def _at_work(found: World, worker: Worker, before: int) -> None:
    """Wait until a worker has sent its first request, or this worker has ended."""
    wait_until(lambda: _requests(found) > before or worker.status is not None)


def _go_on(found: World, chance: random.Random) -> None:
    """Add runs that start, continue and end while workers come and go, and change finished runs."""
    history = found.history
    for workflow_id in history.workflow_ids:
        history.add_runs(workflow_id, chance.randrange(4))
        for run_id in chance.sample(history.run_ids(workflow_id, limit=15), 2):
            row = history.run(run_id)
            if row["end_time"] is not None:
                value = chance.randrange(1 << 30)
                history.change_run(run_id, error={"value": value})
                for step in history.steps(run_id)[-1:]:
                    history.change_step(run_id, step["id"], step_metadata={"value": value})


def _settled(found: World, without: tuple[str, ...] = (), seconds: float = PATIENCE) -> list[str]:
    """Return the problems when the history has stopped and one worker has done its work."""
    found.history.advance(timedelta(minutes=10))
    time.sleep(0.6)  # Leases end, and the walk of the whole list is due.
    # Outputs may still arrive for a minute after a run's end. The database has its own clock, so
    # the due times are moved instead.
    query(found.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at > now()")
    try:
        statuses = [found.sync(without=without, seconds=seconds) for _ in range(2)]
    except TimeoutError:
        return ["the last sync does not end", *found.complete()]
    problems = [f"the last sync ended with {status}" for status in statuses if status not in (0, 6)]
    return problems + found.complete() + found.witnessed() + moved_back(found.url)


def _killed_at_random(found: World, times: int) -> list[str]:
    chance = random.Random(1)
    commands = (["serve"], ["sync"], ["backfill"], ["sync"], ["backfill", "--reread"])
    for number in range(times // 2):
        _go_on(found, chance)
        before = _requests(found)
        with (
            found.started(*commands[number % len(commands)], without=(TICKS,)) as one,
            found.started(*chance.choice(commands), without=(TICKS,)) as two,
        ):
            _at_work(found, one, before)
            for worker in chance.sample((one, two), 2):
                time.sleep(chance.uniform(0.0, 0.12))
                worker.kill()
    return _settled(found)


@pytest.mark.fault(
    1, "worker killed at random (SIGKILL), two at a time", "C M W", guard="end of a lease"
)
def test_killed_at_random(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """After workers are killed again and again at random, the next worker completes their work."""
    with world(database_url, tmp_path, log, pace=0.02, runs_per_workflow=30) as found:
        found.variables.update(QUICK)
        install(database_url)
        assert _killed_at_random(found, KILLS) == [], output_of(log)
        fault.injected(KILLS)
        # The control needs only one kill: of a worker that holds claims.
        found.history.resume()
        _go_on(found, random.Random(2))
        found.simulator.misbehave(Misbehaviour(delay=5.0, endpoints=("steps",)))
        with found.started("sync") as worker:
            wait_until(lambda: query(database_url, CLAIMED) != [] or worker.status is not None)
            worker.kill()
        found.simulator.misbehave()
        fault.control(_settled(found, without=(f"{GUARDS}no_lease_end",), seconds=3.0))


def _ended(
    found: World, command: str, chance: random.Random, without: tuple[str, ...] = ()
) -> tuple[float, list[str]]:
    """Stop a worker by SIGTERM in mid-work; return the seconds it took, and the problems."""
    _go_on(found, chance)
    with found.started(command, without=(TICKS, *without)) as worker:
        before, reads = _requests(found), _steps(found) + chance.randrange(3)
        _at_work(found, worker, before)
        wait_until(lambda: _steps(found) > reads or worker.status is not None)
        time.sleep(chance.uniform(0.0, 0.05))
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        try:
            status = worker.wait(15)
        except TimeoutError:
            return 15.0, [f"{command} does not end"]
        seconds = time.monotonic() - began
    # A signal that arrives after the sync, while the process closes, ends it like any other
    # process.
    problems = [] if status in (0, 6, 143, -signal.SIGTERM) else [f"{command} ended with {status}"]
    problems += [f"{command} took {seconds:.1f} s to end"] if seconds >= 10 else []
    return seconds, problems + [
        f"{command} leaves a claim behind" for _ in query(found.url, CLAIMED)[:1]
    ]


@pytest.mark.fault(3, "SIGTERM in the middle of work", "C B", guard="release of unread claims")
def test_stopped_by_a_signal(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """A worker that gets SIGTERM ends within ten seconds, without a claim and without a loss."""
    chance, slowest = random.Random(3), 0.0
    with world(database_url, tmp_path, log, pace=0.02, runs_per_workflow=30) as found:
        found.variables.update(QUICK)
        install(database_url)
        found.simulator.misbehave(Misbehaviour(delay=0.03, endpoints=("steps",)))
        for number in range(50):
            seconds, problems = _ended(found, ("serve", "sync")[number % 2], chance)
            slowest = max(slowest, seconds)
            assert problems == [], output_of(log)
        assert _settled(found) == [], output_of(log)
        fault.injected(50, note=f"slowest {slowest:.1f} s")
        # Without the guard, one worker that stops with claims is enough.
        found.history.resume()
        found.simulator.misbehave(Misbehaviour(delay=0.3, endpoints=("steps",)))
        _ended(found, "sync", chance, without=(f"{GUARDS}released_as_final",))
        found.simulator.misbehave()
        fault.control(_settled(found))


def _ends_though_the_database_hangs(
    found: World, without: tuple[str, ...] = ()
) -> tuple[float, list[str]]:
    """Stop the service by SIGTERM while its load waits for a lock that is never released."""
    _go_on(found, random.Random(4))
    with psycopg.connect(found.url) as other:
        other.execute("LOCK TABLE orchestra.runs IN EXCLUSIVE MODE")
        with found.started("serve", without=(TICKS, *without)) as worker:
            # Others wait for this lock, too: autovacuum, and the work on rollups and prices.
            waiting = (
                "SELECT a.query FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid"
                " WHERE NOT l.granted AND a.query ~* '^\\s*(COPY|INSERT INTO) orchestra[.]runs'"
            )
            wait_until(lambda: query(found.url, waiting) != [])
            began = time.monotonic()
            worker.send(signal.SIGTERM)
            try:
                worker.wait(10)
            except TimeoutError:
                return 10.0, ["serve does not end while the database hangs"]
            seconds = time.monotonic() - began
    return seconds, [f"serve took {seconds:.1f} s to end"] if seconds >= 10 else []


@pytest.mark.fault(3, "SIGTERM in the middle of work", "C B", guard="release of unread claims")
def test_stopped_while_the_database_hangs(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """A load that waits for a lock delays the service's end by no more than ten seconds."""
    with world(database_url, tmp_path, log, pace=0.02, runs_per_workflow=30) as found:
        found.variables.update(QUICK)
        install(database_url)
        seconds, problems = _ends_though_the_database_hangs(found)
        assert problems == [], output_of(log)
        assert _settled(found) == [], output_of(log)
        fault.injected(1, note=f"{seconds:.1f} s while the database hangs")
        found.history.resume()
        fault.control(
            _ends_though_the_database_hangs(found, without=(f"{GUARDS}no_end_of_patience",))[1]
        )


def _pause(found: World, worker: Worker) -> None:
    """Stop a worker between two transactions, so that no other one waits for its locks."""
    in_transaction = """
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type = 'client backend' AND xact_start IS NOT NULL
    """

    def paused() -> bool:
        worker.send(signal.SIGSTOP)
        if query(found.url, in_transaction) == []:
            return True
        worker.send(signal.SIGCONT)
        return False

    wait_until(paused)


def _stopped_past_its_lease(
    found: World, chance: random.Random, without: tuple[str, ...] = ()
) -> tuple[int, list[str]]:
    """Pause a worker with old responses, let another load newer ones, and resume the first.

    Returns:
        How many of the first worker's readings were refused, and the problems.
    """
    history, simulator = found.history, found.simulator
    for workflow_id in history.workflow_ids:
        history.add_runs(workflow_id, 2 + chance.randrange(3))
    history.advance(timedelta(seconds=chance.uniform(3.0, 6.0)))  # Runs take longer than that.
    own = replace(found, log=found.log.with_suffix(f".{simulator.requests['steps']}.log"))
    with (
        held(simulator, "steps", limit=100) as old,
        own.started("sync", "--json", without=without) as stopped,
    ):
        old.wait(6)
        _pause(found, stopped)
        old.send()
        wait_until(lambda: sum(simulator.responses.values()) == _requests(found))
        history.advance(timedelta(minutes=5))
        time.sleep(0.4)  # The first worker's lease ends.
        problems = [
            f"the other one ended with {status}"
            for status in [found.sync()]
            if status not in (0, 6)
        ]
        problems += found.complete()
        stopped.send(signal.SIGCONT)
        assert stopped.wait() in (0, 6), output_of(own.log)
    words = own.log.read_text()
    report, _ = json.JSONDecoder().raw_decode(words, words.index("{\n"))
    superseded: int = report["load"]["superseded"]
    return superseded, problems + found.complete() + found.witnessed() + moved_back(found.url)


@pytest.mark.fault(
    4,
    "worker stopped past its lease, then resumed",
    "C M",
    guard="fencing token and lease of a claim",
)
def test_stopped_past_its_lease(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Old responses of a paused worker are refused after another worker has loaded newer ones."""
    chance, refused = random.Random(4), 0
    with world(database_url, tmp_path, log, runs_per_workflow=5) as found:
        found.variables.update(QUICK)
        install(database_url)
        for _ in range(5):
            superseded, problems = _stopped_past_its_lease(found, chance)
            assert problems == [], output_of(log)
            assert superseded > 0
            refused += superseded
        fault.injected(5, note=f"{refused} old readings refused")
        fault.control(_stopped_past_its_lease(found, chance, without=(f"{GUARDS}no_fence",))[1])
