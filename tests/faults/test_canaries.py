"""No secret and no payload in any log, error or process list.

The tests put canaries into every failure and search all output for them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from etl import logs
from etl.embedded.postgres import EmbeddedPostgres
from etl.pipeline.loading import Loader
from etl.schema import upgrade
from etl.simulator.misbehaviour import Misbehaviour
from tests.faults import workers
from tests.faults.canaries import API_KEY, PASSWORD, PAYLOAD, Canaries, with_password
from tests.faults.suite import Fault
from tests.faults.world import World, world
from tests.postgres_fixture import new_home
from tests.support import query

HERE = "tests.faults.test_canaries"
FOLDER = Path(__file__).parent

POSTGRESQL_DEFAULTS = {
    "log_min_messages": "warning",
    "log_error_verbosity": "default",
    "log_statement": "none",
    "log_min_error_statement": "error",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "on",
    "fsync": "off",
}
"""The log settings of a PostgreSQL server that no administrator has configured."""


def crash_with_payload() -> None:
    """Make loads raise a foreign error that quotes a payload."""
    _crash(f"invalid value: {PAYLOAD}")


def crash_with_secrets() -> None:
    """Make loads raise a foreign error that quotes the key and the connection string."""
    _crash(f"Authorization: Bearer {API_KEY}; postgresql://someone:{PASSWORD}@somewhere/x")


def _crash(text: str) -> None:
    def load(*arguments: object, **more: object) -> Any:
        raise RuntimeError(text)

    Loader._load = load  # type: ignore[method-assign]


def unmasked() -> None:
    """Mask nothing, and put the key and the connection string into an error's text."""
    logs.mask = lambda text: text
    crash_with_secrets()


class CommandLines:
    """The process list, which every user of the machine can read, polled all the time."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._end = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Poll while the block runs."""
        watcher = threading.Thread(target=self._watch, name="command-lines", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._end.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._end.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(entry.read_bytes())
                except OSError:
                    continue


@contextmanager
def _server(kept: Path, *, terse: bool) -> Iterator[EmbeddedPostgres]:
    """Provide a server with PostgreSQL's default settings and a password for user `canary`.

    Its log is copied to `kept` at the end. With `terse` the role's errors are logged without the
    row; an administrator can set that for a role that may not set it itself.
    """
    home = new_home()
    try:
        with EmbeddedPostgres(home, settings=POSTGRESQL_DEFAULTS) as server:
            upgrade(server.url)
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"CREATE ROLE canary LOGIN PASSWORD '{PASSWORD}'".encode())
                connection.execute("GRANT ALL ON SCHEMA orchestra, orchestra_etl TO canary")
                connection.execute(
                    "GRANT ALL ON ALL TABLES IN SCHEMA orchestra, orchestra_etl TO canary"
                )
                connection.execute(
                    "GRANT ALL ON ALL SEQUENCES IN SCHEMA orchestra, orchestra_etl TO canary"
                )
                if terse:
                    connection.execute("ALTER ROLE canary SET log_error_verbosity = 'terse'")
            access = server.data / "pg_hba.conf"
            access.write_text(f"local all canary scram-sha-256\n{access.read_text()}")
            query(server.url, "SELECT pg_reload_conf()")
            yield server
    finally:
        if (log := next(home.glob("postgres-*.log"), None)) is not None:
            kept.write_bytes(log.read_bytes())
        shutil.rmtree(home, ignore_errors=True)


def _as_canary(server: EmbeddedPostgres, password: str) -> str:
    return server.url.replace("postgres@", f"canary:{quote(password)}@", 1)


def _refuse_payloads(superuser: str) -> None:
    """Make the database refuse rows that hold a payload."""
    check = f"CHECK (data::text NOT LIKE '%{PAYLOAD}%') NOT VALID"
    query(superuser, f"ALTER TABLE orchestra.outputs ADD CONSTRAINT no_canaries {check}")


def _refusals(superuser: str) -> int:
    (row,) = query(
        superuser, "SELECT count(*) AS n FROM orchestra_etl.dead_letters WHERE reason = 'rejected'"
    )
    return int(row["n"])


def _fail_in_every_way(found: World, log: Path, superuser: str) -> int:
    """Lead workers with canaries in all their input through failures, and return how many."""
    secret = {**found.variables, "DATABASE_URL": found.url}
    debug = {**secret, "ORCHESTRA_ETL_LOGS__LEVEL": "debug"}
    few = {"ORCHESTRA_ETL_API__ATTEMPTS": "1", "ORCHESTRA_ETL_DATABASE__PATIENCE": "100ms"}
    statuses: list[int] = []

    def work(
        *arguments: str, without: Sequence[str] = (), expected: tuple[int, ...] = (0,), **more: str
    ) -> None:
        for variables in (secret, debug):
            status = workers.run(
                *arguments, variables={**variables, **few, **more}, log=log, without=without
            )
            assert status in expected, (arguments, status, workers.output_of(log))
            statuses.append(status)

    (workflow,) = found.history.workflow_ids
    bodies = found.simulator.steps_bodies
    for index, run in enumerate(found.history.run_ids(workflow, 6, offset=2)):
        quoted = PAYLOAD.encode()
        bodies[run] = [
            b"<html>" + quoted,
            b'[{"id": "' + quoted,
            b'[{"id": "", "outputs": "' + quoted + b'"}]',
            b'[{"id": "n'
            + b"%d" % index
            + b'", "status": ["'
            + quoted
            + b'"], "outputs": "'
            + quoted
            + b'\\u0000"}]',
            b'[{"id": "n'
            + b"%d" % index
            + b'", "outputs": {"'
            + quoted
            + b'": NaN}}, "'
            + quoted
            + b'"]',
            b'["' + quoted + b'\xff"]',
        ][index]
    # The API refuses the key and repeats it in the body, in a header and in a redirect.
    echo = Misbehaviour(status=401, body=API_KEY.encode(), headers={"X-Key": API_KEY})
    found.simulator.misbehave(echo)
    work("sync", expected=(3,))
    found.simulator.misbehave(
        Misbehaviour(status=302, headers={"Location": f"http://127.0.0.1:9/{API_KEY}"})
    )
    work("sync", expected=(5, 6))
    found.simulator.misbehave(Misbehaviour(body=f"[{PAYLOAD}".encode(), endpoints=("runs",)))
    work("sync", expected=(5, 6))
    found.simulator.misbehave()
    work("sync", expected=(5,), ORCHESTRA_BASE_URL="http://127.0.0.1:9/api")
    # The database does not exist, or refuses the password.
    work(
        "sync", expected=(4,), DATABASE_URL=f"postgresql://canary:{PASSWORD}@127.0.0.1:9/orchestra"
    )
    work(
        "sync", expected=(4,), DATABASE_URL=f"{found.url.replace(PASSWORD, PASSWORD + '-wrong', 1)}"
    )
    work("sync", expected=(2,), DATABASE_URL=f"postgresql://canary:{PASSWORD}@[::1/orchestra")
    work("sync", expected=(2,), ORCHESTRA_API_KEY=f"{API_KEY} {API_KEY}")
    # The product crashes on a foreign error. Only the log level debug shows the text of such an
    # error, unless it is secret.
    crash = f"{HERE}:crash_with_secrets"
    work("sync", without=[crash], expected=(1,))
    status = workers.run(
        "sync", variables={**secret, **few}, log=log, without=[f"{HERE}:crash_with_payload"]
    )
    assert status == 1
    statuses.append(status)
    query(found.url, "UPDATE orchestra_etl.run_ledger SET leased_until = NULL")
    _refuse_payloads(superuser)
    work("sync", expected=(0, 6))
    assert _refusals(superuser) > 0
    # The same as a superuser, who can keep the server from logging the row.
    query(superuser, "TRUNCATE orchestra_etl.dead_letters")
    query(superuser, "UPDATE orchestra_etl.run_ledger SET due_at = now(), leased_until = NULL")
    work("sync", expected=(0, 6), DATABASE_URL=with_password(superuser))
    assert _refusals(superuser) > 0
    for arguments in (["config", "show"], ["config", "show", "--json"], ["config", "check"],
                      ["status"], ["status", "--json"], ["dead-letters", "list"],
                      ["dead-letters", "list", "--json"], ["dead-letters", "show", "1"],
                      ["runs", "list"], ["gaps", "list"], ["workflows"]):  # fmt: skip
        work(*arguments, expected=(0, 1, 2, 3, 4, 5, 6))
    return len(statuses)


def _real_processes(found: World) -> CommandLines:
    """Run a sync and psql as processes with command lines of their own."""
    lines = CommandLines()
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    variables = {**kept, **found.variables, "DATABASE_URL": found.url}
    with lines.watched(), found.log.open("ab") as output:
        for arguments in (["sync"], ["db", "psql", "--no-psqlrc", "-c", "SELECT pg_sleep(0.3)"]):
            command = [sys.executable, "-m", "etl", *arguments]
            ended = subprocess.run(
                command, env=variables, stdout=output, stderr=output, check=False
            )
            assert ended.returncode in (0, 6), workers.output_of(found.log)
    return lines


@pytest.mark.fault(30, "canaries through every failure", "S", guard="masking, terse errors")
def test_no_canary_is_found(fault: Fault, canaries: Canaries, tmp_path: Path, log: Path) -> None:
    """After all failures no log, error or process list holds a secret or a payload.

    The fixture `canaries` searches again at the end of the session, with the output of all faults.
    """
    with (
        _server(canaries.folder / "postgresql-defaults.log", terse=True) as server,
        world(
            server.url, tmp_path, log, workflows=1, runs_per_workflow=12, steps_per_run=2
        ) as found,
    ):
        found.url = _as_canary(server, PASSWORD)
        fault.injected(_fail_in_every_way(found, log, server.url))
        lines = _real_processes(found)
    assert any(b"psql" in line for line in lines.seen)
    assert any(b"-m\0etl\0sync" in line for line in lines.seen)
    (canaries.folder / "command-lines.log").write_bytes(b"\n".join(lines.seen))
    assert canaries.leaks() == []
    fault.injected(0, note=f"{len(lines.seen)} command lines searched")
    leaks = _leaks_without_masking(tmp_path)
    fault.control([one for one in leaks if "worker.log" in one])
    fault.control([one for one in leaks if "postgresql.log" in one])


def _leaks_without_masking(folder: Path) -> list[str]:
    """Return the canaries found if nothing is masked and the server keeps its settings."""
    collected = Canaries(folder / "unmasked")
    collected.folder.mkdir()
    log = collected.folder / "worker.log"
    with (
        _server(collected.folder / "postgresql.log", terse=False) as server,
        world(server.url, folder, log, workflows=1, runs_per_workflow=2, steps_per_run=1) as found,
    ):
        found.variables |= {
            "DATABASE_URL": _as_canary(server, PASSWORD),
            "ORCHESTRA_ETL_LOGS__LEVEL": "debug",
        }
        found.sync(without=[f"{HERE}:unmasked"])
        query(server.url, "UPDATE orchestra_etl.run_ledger SET leased_until = NULL")
        _refuse_payloads(server.url)
        found.sync()
    return collected.leaks()


def test_every_fault_has_a_test() -> None:
    """The suite's faults are numbered from 1 to 45, and each number has at least one test."""
    text = "\n".join(path.read_text() for path in FOLDER.glob("test_*.py"))
    found = {int(number) for number in re.findall(r"pytest\.mark\.fault\(\s*(\d+)", text)}
    assert found == set(range(1, 46))
