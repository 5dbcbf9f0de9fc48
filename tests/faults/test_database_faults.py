"""A database that crashes, ends sessions, refuses writes, is full, or has many writers at once."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from tests.faults.canaries import Canaries
from tests.faults.servers import OwnServer, own_server
from tests.faults.suite import Fault
from tests.faults.workers import Worker, output_of
from tests.faults.world import World, world
from tests.postgres_fixture import new_home
from tests.support import query, wait_until

GUARDS = "tests.faults.database_guards"
NO_REPETITION = (f"{GUARDS}:no_repetition",)
WORKING = "application_name = 'orchestra-etl' AND state <> 'idle' AND datname = current_database()"


@pytest.fixture(scope="module")
def server(canaries: Canaries) -> Iterator[OwnServer]:
    """Start a server for this module with few connections, which detects deadlocks at once."""
    with own_server(canaries, max_connections="30", deadlock_timeout="50ms") as found:
        yield found


def ended_well(found: World, worker: Worker, problems: list[str]) -> bool:
    """Return whether the worker ended with the expected status."""
    if worker.status is None:
        return False
    if worker.status not in (0, 6):
        problems.append(f"sync ended with {worker.status}: {output_of(found.log)[-300:]}")
    return True


# Fault 5: crashes


def _crashes(
    server: OwnServer, folder: Path, log: Path, times: int, without: tuple[str, ...] = ()
) -> list[str]:
    """Crash the server `times` times while workers are at work; check each finished database."""
    problems: list[str] = []
    chance, crashed = random.Random(5), 0
    while crashed < times and not problems:
        with world(server.fresh(), folder, log, runs_per_workflow=100) as found:
            with found.started("sync", without=without) as worker:
                wait_until(
                    lambda: found.simulator.requests["steps"] > 0 or worker.status is not None
                )
                while crashed < times and not ended_well(found, worker, problems):
                    server.crash()
                    crashed += 1
                    server.restart()
                    time.sleep(chance.uniform(0.05, 0.3))
                worker.wait()
                ended_well(found, worker, problems)
            problems += found.complete() + found.witnessed()
    return problems


def _crashes_of_a_service(server: OwnServer, folder: Path, log: Path, times: int) -> list[str]:
    """Crash the server `times` times under a service that gets new runs."""
    chance = random.Random(55)
    url = server.fresh()
    with (
        world(url, folder, log) as found,
        found.started("serve", ORCHESTRA_ETL_POLLING__LEASE="1s") as worker,
    ):
        wait_until(lambda: found.simulator.requests["steps"] > 0)
        for _ in range(times):
            query(
                url,
                (
                    "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'"
                    " WHERE tracking = 'final'"
                ),
            )
            time.sleep(chance.uniform(0.01, 0.3))
            server.crash()
            server.restart()
        assert worker.status is None
        wait_until(lambda: found.complete() == [] and found.witnessed() == [])
        return []


@pytest.mark.fault(
    5, "PostgreSQL crashes and restarts at once", "C W", guard="retry of units of work"
)
def test_crashes_of_the_server(fault: Fault, server: OwnServer, tmp_path: Path, log: Path) -> None:
    """After repeated immediate shutdowns of the server, neither syncs nor a service lose a run."""
    began = time.monotonic()
    assert _crashes(server, tmp_path, log, 14) == []
    assert _crashes_of_a_service(server, tmp_path, log, 6) == []
    fault.injected(20, note=f"{(time.monotonic() - began) / 20:.1f} s each")
    fault.control(_crashes(server, tmp_path, log, 3, NO_REPETITION))


# Fault 6: sessions ended by an administrator


def _terminations(
    server: OwnServer, folder: Path, log: Path, times: int, without: tuple[str, ...] = ()
) -> tuple[int, list[str]]:
    """End every second active transaction of four workers, up to `times` times.

    The choice is made once for each transaction, so that its repetition can succeed however long it
    takes.

    Returns:
        The problems, and how many sessions were ended.
    """
    problems: list[str] = []
    chance, ended = random.Random(6), 0
    while ended < times and not problems:
        spared: set[tuple[int, datetime]] = set()
        with ExitStack() as running:
            found = running.enter_context(world(server.fresh(), folder, log))
            other = running.enter_context(psycopg.connect(found.url, autocommit=True))
            workers = [
                running.enter_context(found.started("sync", without=without)) for _ in range(4)
            ]
            while any(worker.status is None for worker in workers):
                seen = other.execute(
                    f"SELECT pid, xact_start FROM pg_stat_activity WHERE {WORKING}"
                ).fetchall()
                for pid, begun in seen:
                    if begun is None or (pid, begun) in spared or ended >= times:
                        continue
                    spared.add((pid, begun))
                    if chance.random() < 0.5:
                        ended += bool(
                            other.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone()
                        )
                time.sleep(0.002)
            for worker in workers:
                ended_well(found, worker, problems)
            problems += found.complete() + found.witnessed()
    return ended, problems


@pytest.mark.fault(6, "sessions ended during work", "C W", guard="retry of units of work")
def test_terminated_sessions(fault: Fault, server: OwnServer, tmp_path: Path, log: Path) -> None:
    """Workers whose sessions are ended two hundred times store everything and end normally."""
    ended, problems = _terminations(server, tmp_path, log, 200)
    assert (ended, problems) == (200, [])
    fault.injected(ended)
    fault.control(_terminations(server, tmp_path, log, 50, NO_REPETITION)[1])


# Fault 9: temporary refusals


@contextmanager
def _read_only(server: OwnServer, url: str) -> Iterator[None]:
    def switched(to: str) -> None:
        options = "-c default_transaction_read_only=off"
        with psycopg.connect(
            server.url_for("postgres"), autocommit=True, options=options
        ) as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {to}".encode())
            connection.execute("SELECT pg_reload_conf()")

    switched("on")
    try:
        yield
    finally:
        switched("off")


@contextmanager
def _no_connections(server: OwnServer, url: str) -> Iterator[None]:
    with ExitStack() as taken:
        first = taken.enter_context(psycopg.connect(url, autocommit=True))
        for _ in range(100):
            # Take connections until the server has none left. The workers' own count too, so they
            # are ended one by one.
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'orchestra-etl'"
            )
            try:
                taken.enter_context(psycopg.connect(url))
            except psycopg.OperationalError:
                break
        else:
            pytest.fail("the server still had free connections")
        yield


@contextmanager
def _locked(server: OwnServer, url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE orchestra_etl.run_ledger IN ACCESS EXCLUSIVE MODE")
        yield


def _refused(
    server: OwnServer,
    folder: Path,
    log: Path,
    refusal: str,
    seconds: float,
    without: tuple[str, ...] = (),
) -> list[str]:
    """Let the database refuse for `seconds` from the middle of a sync on."""
    problems: list[str] = []
    means = {"read only": _read_only, "no connections": _no_connections, "locked": _locked}[refusal]
    settings = {"ORCHESTRA_ETL_DATABASE__LOCK_TIMEOUT": "200ms"}
    with world(server.fresh(), folder, log, variables=settings) as found:
        with found.started("sync", without=without) as worker:
            wait_until(lambda: found.simulator.requests["steps"] > 0 or worker.status is not None)
            with means(server, found.url):
                time.sleep(seconds)
                if worker.status is not None:
                    problems.append(
                        f"sync ended while the database was {refusal}: "
                        f"{output_of(found.log)[-300:]}"
                    )
            worker.wait()
            ended_well(found, worker, problems)
        letters = query(found.url, "SELECT reason, detail FROM orchestra_etl.dead_letters")
        problems += [f"dead letter: {letter}" for letter in letters]
        return problems + found.complete() + found.witnessed()


@pytest.mark.fault(
    9,
    "read only, no connections left, or a table locked",
    "C W",
    guard="retry by class of SQLSTATE",
)
@pytest.mark.parametrize(
    ("refusal", "seconds", "guard"),
    [
        ("read only", 3.0, "every_error_is_permanent"),
        # A refused connection has no SQLSTATE, so this control switches off the retry itself.
        ("no connections", 3.0, "no_repetition"),
        # Sixty times the lock timeout of this test.
        ("locked", 12.0, "every_error_is_permanent"),
    ],
)
def test_refusals_that_pass(
    fault: Fault,
    server: OwnServer,
    tmp_path: Path,
    log: Path,
    refusal: str,
    seconds: float,
    guard: str,
) -> None:
    """A database that refuses for a while delays a sync: no run is lost, and no row is blamed."""
    assert _refused(server, tmp_path, log, refusal, seconds) == []
    fault.injected(note=f"{refusal} for {seconds:.0f} s")
    fault.control(
        _refused(server, tmp_path, log, refusal, min(seconds, 5.0), (f"{GUARDS}:{guard}",))
    )


# Fault 10: a full disk


@pytest.fixture
def small_disk(server: OwnServer) -> Iterator[Path]:
    """Provide a folder of the server that holds 12 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    folder = new_home()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    owner = server.use.data.stat()
    (folder / "space").mkdir()
    for path in (folder, folder / "space"):
        os.chown(path, owner.st_uid, owner.st_gid)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


_spaces = itertools.count()


def _disk_full(
    server: OwnServer, disk: Path, folder: Path, log: Path, runs: int, without: tuple[str, ...] = ()
) -> list[str]:
    """Sync while there is no room for the payloads of these runs, then again with room."""
    problems = []
    url, name = server.fresh(), f"small_{next(_spaces)}"
    location = disk / "space" / name
    location.mkdir()
    owner = server.use.data.stat()
    os.chown(location, owner.st_uid, owner.st_gid)
    server.execute(f"CREATE TABLESPACE {name} LOCATION '{location}'")
    for table in ("inputs", "outputs"):
        query(url, f"ALTER TABLE orchestra.{table} SET TABLESPACE {name}")
    ballast = disk / "ballast"
    patience = {"ORCHESTRA_ETL_DATABASE__PATIENCE": "2s"}
    with world(url, folder, log, runs_per_workflow=runs, variables=patience) as found:
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - (200 << 10)))
        before = len(log.read_text())
        status = found.sync(without=without)
        lines = log.read_text()[before:].splitlines()
        errors = [line for line in lines if line.startswith("orchestra-etl: ")]
        if status != 4 or len(errors) != 1 or "53100" not in errors[0]:
            problems.append(f"with a full disk sync ended with {status} and printed {errors}")
        problems += found.witnessed()
        letters = query(url, "SELECT reason, detail FROM orchestra_etl.dead_letters")
        problems += [f"rows were blamed: {letter}" for letter in letters]
        ballast.unlink()
        status = found.sync(without=without)
        if status != 0:
            problems.append(f"with room again sync ended with {status}: {output_of(log)[-300:]}")
        problems += found.complete() + found.witnessed()
    query(
        server.url_for("postgres"), f"DROP DATABASE {url.split('/')[3].split('?')[0]} WITH (FORCE)"
    )
    server.execute(f"DROP TABLESPACE {name}")
    return problems


@pytest.mark.fault(10, "disk full", "C Q", guard="53100 is not blamed on a row")
def test_a_full_disk(
    fault: Fault, server: OwnServer, small_disk: Path, tmp_path: Path, log: Path
) -> None:
    """A sync without room for payloads ends with 4 and one line; with room nothing is missing."""
    assert _disk_full(server, small_disk, tmp_path, log, 40) == []
    fault.injected()
    # Without the guard every single step is tried on the full disk.
    permanent = f"{GUARDS}:every_error_is_permanent"
    fault.control(_disk_full(server, small_disk, tmp_path, log, 10, (permanent,)))


# Fault 11: eight writers


def _eight_at_once(
    found: World, commands: list[tuple[str, ...]], without: tuple[str, ...]
) -> list[str]:
    """Start the commands, hold them all at the ledger, and release them at the same moment."""
    with ExitStack() as running:
        with psycopg.connect(found.url) as gate:
            gate.execute("LOCK TABLE orchestra_etl.run_ledger IN ACCESS EXCLUSIVE MODE")
            writers = [
                running.enter_context(found.started(*one, without=without)) for one in commands
            ]
            waiting = "SELECT count(DISTINCT pid) AS n FROM pg_locks WHERE NOT granted"
            wait_until(lambda: query(found.url, waiting)[0]["n"] >= len(commands))
        return [f"{one[0]} ended with {writer.wait()}" for one,
                writer in zip(commands, writers, strict=True)
                if writer.wait() != 0]  # fmt: skip


def _deadlocks(found: World) -> int:
    rows = query(
        found.url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(rows[0]["deadlocks"])


def _writers(
    server: OwnServer, folder: Path, log: Path, rounds: int, without: tuple[str, ...] = ()
) -> list[str]:
    """Run eight concurrent processes that track, list and load the same runs, in any order."""
    chance, problems = random.Random(11), []
    # Every sync walks the whole list, and so locks every row that another sync loads.
    settings = {"ORCHESTRA_ETL_POLLING__RECONCILE": "100ms"}
    with world(
        server.fresh(), folder, log, workflows=1, runs_per_workflow=300, variables=settings
    ) as found:
        (workflow_id,) = found.history.workflow_ids
        runs = found.history.run_ids(workflow_id)
        assert found.sync() == 0
        for _ in range(rounds):
            chance.shuffle(runs)
            commands = [("track", workflow_id, *runs[number:]) for number in range(5)] + [
                ("sync",)
            ] * 3
            problems += _eight_at_once(found, commands, without)
            if deadlocks := _deadlocks(found):
                problems.append(f"{deadlocks} deadlocks")
            if problems:
                break
        else:
            assert found.sync() == 0
            problems += found.complete() + found.witnessed()
    return problems


@pytest.mark.fault(
    11, "eight writers, overlapping, in any order", "C W B", guard="one order of locks"
)
def test_eight_writers(fault: Fault, server: OwnServer, tmp_path: Path, log: Path) -> None:
    """Eight processes that track, list and load the same runs lose nothing, without deadlock."""
    assert _writers(server, tmp_path, log, 3) == []
    fault.injected(3 * 8)
    fault.control(_writers(server, tmp_path, log, 10, (f"{GUARDS}:no_key_order",)))
