"""Database connections that break at the worst moment, fall silent or are shared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from etl.simulator.misbehaviour import Misbehaviour
from tests.faults.canaries import Canaries, with_password
from tests.faults.proxy import Action, Link, unix_proxy
from tests.faults.servers import OwnServer, own_server
from tests.faults.suite import Fault
from tests.faults.workers import output_of
from tests.faults.world import World, world
from tests.support import query, wait_until

GUARDS = "tests.faults.database_guards"
PGBOUNCER = Path("/usr/sbin/pgbouncer")


@pytest.fixture(scope="module")
def server(canaries: Canaries) -> Iterator[OwnServer]:
    """Start a server for this module."""
    with own_server(canaries) as found:
        yield found


@pytest.fixture
def short() -> Iterator[Path]:
    """Provide a folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="fault-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


# Fault 7: connections cut around a COMMIT

# The unit of work of a transaction, recognised by the words of a statement that no other unit has,
# with single spaces. The first match counts. A choice between two statements would hide one that
# never occurs: what is not cut fails the tests.
UNITS = {
    "load": "SET tracking = s.tracking",
    "last page": "SET watermark = fencing_token",
    "page": "'list', substring",
    "begin of a sweep": "INSERT INTO orchestra_etl.sweeps",
    "claim": "FOR UPDATE SKIP LOCKED ) UPDATE",
    "bad rows of a page": "INSERT INTO orchestra_etl.dead_letters",
    "queue": "DELETE FROM orchestra.run_requests",
    "entry of workflows": "INSERT INTO orchestra.workflows",
}


def unit_of(transaction: list[str]) -> str | None:
    """Return the kind of the unit of work."""
    text = " ".join(" ".join(transaction).split())
    return next((kind for kind, sign in UNITS.items() if sign in text), None)


class Cutter:
    """A judge that cuts the connection at the first COMMIT of every unit of work.

    The repetition of a unit is recognised by its parameters, and passes.
    """

    def __init__(self, how: Action) -> None:
        self.how = how
        self.cut: Counter[str] = Counter()
        self._seen: set[tuple[bytes, ...]] = set()

    def __call__(self, statement: str, link: Link) -> Action:
        """Return the action for a statement."""
        kind = unit_of(link.transaction) if statement == "COMMIT" else None
        unit = (str(kind).encode(), *link.parameters)
        if kind is None or unit in self._seen:
            return Action.PASS
        self._seen.add(unit)
        self.cut[kind] += 1
        return self.how


COUNTED = {
    "dead letters": (
        "SELECT workflow_id, run_id, reason, content_hash, occurrences"
        " FROM orchestra_etl.dead_letters"
    ),
    "drift": (
        "SELECT workflow_id, subject, field, kind, found, occurrences FROM orchestra_etl.drift"
    ),
    "gaps": "SELECT workflow_id, detail, after_time, before_time FROM orchestra_etl.gaps",
    "queue": "SELECT run_id FROM orchestra.run_requests",
    "versions": "SELECT workflow_id, version FROM orchestra.workflow_versions",
    "ledger": "SELECT run_id, workflow_id, tracking, attempts, source,"
    " steps_observed_at IS NULL AS unread"
    " FROM orchestra_etl.run_ledger",
    "runs": "SELECT r.id, workflow_id, status, tracking, start_time, end_time,"
    " p.inputs::text, p.outputs::text"
    " FROM orchestra.runs AS r LEFT JOIN orchestra.run_payloads AS p ON p.run_id = r.id",
    "steps": "SELECT s.id, run_id, status, start_time, end_time, absent_since,"
    " i.data::text AS i, o.data::text AS o"
    " FROM orchestra.steps AS s LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id"
    " LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id",
}
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
STILL: dict[str, Any] = {"epoch": EPOCH, "now": lambda: EPOCH + timedelta(hours=1)}
"""The options that make all worlds equal."""


def _counted(url: str) -> dict[str, list[str]]:
    """Return everything that must exist once, with the number of times it was counted."""
    return {name: sorted(map(str, query(url, statement))) for name, statement in COUNTED.items()}


def _spoil(found: World) -> None:
    """Add unknown fields, a bad step, a bad row in the list, and a queue with two runs.

    Each of them is something to count.
    """
    for workflow_id in found.history.workflow_ids:
        drifting, bad, unusable = found.history.run_ids(workflow_id, limit=3, offset=3)
        found.history.change_step(drifting, found.history.steps(drifting)[0]["id"], colour="blue")
        found.history.change_step(bad, found.history.steps(bad)[0]["id"], id="x" * 600)
        found.history.change_run(unusable, id=7)
        for run_id in (drifting, bad):
            values = "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)"
            query(found.url, values, workflow_id, run_id)


def _two_syncs(found: World, without: tuple[str, ...] = ()) -> list[str]:
    """Sync, add more runs than the list shows, sync again; return what the reports get wrong."""
    _spoil(found)
    first = found.history.workflow_ids[0]
    problems, inserted = [], 0
    for turn in range(2):
        if turn == 1:
            found.history.add_runs(first, 30)
            found.history.freeze(EPOCH + timedelta(hours=3))
            found.simulator.misbehave(
                Misbehaviour(list_cap=20, endpoints=("runs",), workflow_id=first)
            )
        before = len(found.log.read_text())
        status = found.sync("--json", without=without, ORCHESTRA_ETL_POLLING__LEASE="500ms")
        said_now = found.log.read_text()[before:]
        if status != 6:
            problems.append(
                f"sync ended with {status} in spite of dead letters and gaps: {said_now[-300:]}"
            )
        if counts := re.findall(r'^ +"steps_inserted": (\d+)', said_now, re.MULTILINE):
            inserted += int(counts[-1])
    stored = query(found.url, "SELECT count(*) AS n FROM orchestra.steps")[0]["n"]
    return (
        [*problems, f"{inserted} steps reported as new, {stored} stored"]
        if inserted > stored
        else problems
    )


def _cut(
    server: OwnServer,
    folder: Path,
    short: Path,
    log: Path,
    how: Action,
    without: tuple[str, ...] = (),
) -> tuple[Counter[str], list[str]]:
    """Cut every unit of work of two syncs at its COMMIT.

    Returns:
        What was cut, and how the result differs from two uninterrupted syncs.
    """
    with world(server.fresh(), folder, log, **STILL) as calm:
        problems = _two_syncs(calm)
        assert problems == []
        expected = _counted(calm.url)
    url, cutter = server.fresh(), Cutter(how)
    with unix_proxy(server.socket, short, cutter) as (_, host):
        through = f"postgresql://postgres@/{_name(url)}?host={quote(host, safe='')}&port=5432"
        with world(
            url, folder, log, variables={"DATABASE_URL": with_password(through)}, **STILL
        ) as found:
            problems += _two_syncs(found, without)
    (short / ".s.PGSQL.5432").unlink()
    counted = _counted(url)
    for name, rows in expected.items():
        now = counted[name]
        if rows != now:
            missing, more = (
                [row for row in rows if row not in now],
                [row for row in now if row not in rows],
            )
            problems.append(
                f"{name}: {len(rows)} became {len(now)}; -{missing[:2]!s:.300} +{more[:2]!s:.300}"
            )
    return cutter.cut, problems


def _name(url: str) -> str:
    return url.split("/")[3].split("?")[0]


@pytest.mark.fault(
    7,
    "connection cut at COMMIT, before or after it took effect",
    "C W",
    guard="consumed claims, fenced completions",
)
def test_a_commit_that_is_not_sent(
    fault: Fault, server: OwnServer, tmp_path: Path, short: Path, log: Path
) -> None:
    """A unit of work whose connection is cut before its COMMIT is repeated, and stored once."""
    cut, problems = _cut(server, tmp_path, short, log, Action.CUT_BEFORE)
    assert problems == []
    assert set(cut) == set(UNITS)
    fault.injected(sum(cut.values()))
    fault.control(
        _cut(server, tmp_path, short, log, Action.CUT_BEFORE, (f"{GUARDS}:no_repetition",))[1]
    )


@pytest.mark.fault(
    7,
    "connection cut at COMMIT, before or after it took effect",
    "C W",
    guard="consumed claims, fenced completions",
)
def test_a_commit_whose_response_is_lost(
    fault: Fault, server: OwnServer, tmp_path: Path, short: Path, log: Path
) -> None:
    """A unit of work whose COMMIT succeeded unnoticed is repeated, and stores and counts once."""
    cut, problems = _cut(server, tmp_path, short, log, Action.CUT_AFTER)
    assert problems == []
    assert set(cut) == set(UNITS)
    fault.injected(sum(cut.values()))
    for guard, sign in (("claims_not_consumed", "dead letters"), ("completion_not_fenced", "gaps")):
        problems = _cut(server, tmp_path, short, log, Action.CUT_AFTER, (f"{GUARDS}:{guard}",))[1]
        fault.control([problem for problem in problems if problem.startswith(sign)])


# Fault 28: PgBouncer


def _unprepared() -> str:
    """Return the setting that keeps PgBouncer from tracking prepared statements.

    PgBouncer can track them since version 1.21; older versions do not know the setting.
    """
    version = subprocess.run(
        [str(PGBOUNCER), "--version"], capture_output=True, text=True, check=True
    ).stdout
    major, minor = re.findall(r"\d+", version)[:2]
    return "max_prepared_statements = 0\n" if (int(major), int(minor)) >= (1, 21) else ""


@contextmanager
def _pgbouncer(server: OwnServer, canaries: Canaries, log: Path) -> Iterator[str]:
    """Run PgBouncer in transaction mode with three server connections; provide its folder."""
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    owner = server.use.data.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={server.socket.parent} port=5432 user=postgres\n"
        "[pgbouncer]\nlisten_addr =\nlisten_port = 5432\nunix_socket_dir = "
        f"{folder}\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = 3\n{_unprepared()}logfile = {folder}/log\n"
    )
    as_owner: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    process = subprocess.Popen(
        [str(PGBOUNCER), "--quiet", str(settings)],
        stderr=subprocess.DEVNULL,
        **(as_owner if os.geteuid() == 0 else {}),
    )
    try:
        wait_until((folder / ".s.PGSQL.5432").exists)
        yield str(folder)
    finally:
        process.terminate()
        process.wait()
        if (folder / "log").exists():
            shutil.copy(folder / "log", canaries.folder / f"{folder.name}.log")
        shutil.rmtree(folder, ignore_errors=True)


def _pooled(
    server: OwnServer, canaries: Canaries, folder: Path, log: Path, without: tuple[str, ...] = ()
) -> list[str]:
    """Run two concurrent syncs, then a service beside a sync, through three shared sessions."""
    problems: list[str] = []
    url = server.fresh()
    with _pgbouncer(server, canaries, log) as host:
        through = f"postgresql://postgres@/{_name(url)}?host={quote(host, safe='')}&port=5432"
        with world(url, folder, log, variables={"DATABASE_URL": with_password(through)}) as found:
            with (
                found.started("sync", without=without) as one,
                found.started("sync", without=without) as two,
            ):
                problems += [
                    f"sync ended with {worker.wait()}: {output_of(log)[-300:]}"
                    for worker in (one, two)
                    if worker.wait()
                ]
            if problems:
                return problems
            problems += found.complete() + found.witnessed()
            for workflow_id in found.history.workflow_ids:
                for run_id in found.history.run_ids(workflow_id):
                    found.history.change_run(run_id, outputs={"again": True})
            with found.started("serve", without=without) as service:
                status = found.sync(without=without)
                problems += [] if status == 0 else [f"sync beside a service ended with {status}"]
                wait_until(lambda: found.complete() == [])
                service.send(signal.SIGTERM)
                problems += [f"serve ended with {service.wait()}"] if service.wait() else []
            problems += found.witnessed()
        settings = (
            "SELECT name, setting FROM pg_settings"
            " WHERE name IN ('statement_timeout', 'lock_timeout')"
        )
        with psycopg.connect(through, autocommit=True, prepare_threshold=None) as pooled:
            leaked = [row for row in pooled.execute(settings).fetchall() if row[1] != "0"]
            problems += [f"a session kept {leaked}"] if leaked else []
    return problems


@pytest.mark.fault(28, "PgBouncer in transaction mode", "C W", guard="no prepared statements")
def test_pgbouncer(
    fault: Fault, server: OwnServer, canaries: Canaries, tmp_path: Path, log: Path
) -> None:
    """Syncs and a service lose nothing on three shared sessions that change every transaction."""
    if not PGBOUNCER.exists():
        pytest.skip("pgbouncer is not installed")
    assert _pooled(server, canaries, tmp_path, log) == []
    fault.injected(4, note="four workers on three sessions")
    fault.control(_pooled(server, canaries, tmp_path, log, (f"{GUARDS}:prepared_statements",)))
