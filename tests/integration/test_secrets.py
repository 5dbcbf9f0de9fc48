"""A running program reads a rotated database password from its file again."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from sqlalchemy import Connection, text

from etl import app, logs
from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.errors import ConfigurationError, DatabaseError
from etl.privileges import LOADER
from etl.schema import upgrade
from etl.service.daemon import Daemon, Pace, Schedule
from etl.service.health import Health
from etl.settings import Settings
from etl.signals import Stop
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import FAST_SETTINGS
from tests.postgres_fixture import new_home
from tests.support import configuration, environment, load, query, wait_in_loop, wait_until

PID = text("SELECT pg_backend_pid()")
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'"


class Server:
    """A PostgreSQL that requires a password of the user `service`, and the file with that password.

    The user is a loader.
    """

    def __init__(self, server: EmbeddedPostgres, file: Path) -> None:
        self.admin, self.file = server.url, file

    def url(self, password: str) -> str:
        """Return the URL of the database for the service."""
        return self.admin.replace("postgres@", f"service:{password}@")

    def change(self, password: str) -> None:
        """Change the password in the server alone."""
        query(self.admin, f"ALTER ROLE service PASSWORD '{password}'")

    def write(self, password: str) -> None:
        """Change the password in the file alone."""
        self.file.write_text(self.url(password) + "\n")


@pytest.fixture(scope="module")
def scram_server() -> Iterator[EmbeddedPostgres]:
    """Start a server for these tests alone, because `pg_hba.conf` applies to a whole server."""
    home = new_home()
    try:
        with EmbeddedPostgres(home, settings=FAST_SETTINGS) as server:
            upgrade(server.url)
            database = Database(server.url)
            roles.apply(database)
            database.close()
            query(
                server.url,
                f"CREATE ROLE service LOGIN PASSWORD 'anything' IN ROLE {LOADER}",
            )
            access = server.data / "pg_hba.conf"
            access.write_text(f"local all service scram-sha-256\n{access.read_text()}")
            query(server.url, "SELECT pg_reload_conf()")
            wait_until(lambda: _is_refused(server.url.replace("postgres@", "service:wrong@")))
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _is_refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


@pytest.fixture
def server(scram_server: EmbeddedPostgres, tmp_path: Path) -> Server:
    """Provide the server with the password `first-pass`, which is also in the file."""
    found = Server(scram_server, tmp_path / "database-url")
    found.change("first-pass")
    found.write("first-pass")
    return found


def _settings(server: Server, folder: Path, base_url: str, *workflow_ids: str) -> Settings:
    variables = environment(
        "", base_url, DATABASE_URL_FILE=str(server.file), ORCHESTRA_ETL_POLLING__LEASE="1s"
    )
    del variables["DATABASE_URL"]
    return load(folder, configuration(*workflow_ids), variables)


def test_a_renewed_password_is_used_by_new_connections(server: Server, tmp_path: Path) -> None:
    """After a rotation, open connections continue and a new one uses the password in the file.

    Logs mask both passwords.
    """
    with app.open_database(_settings(server, tmp_path, "http://127.0.0.1:1")) as database:
        first = database.transaction(lambda c: c.execute(PID).scalar_one())
        server.change("second-pass")
        assert database.transaction(lambda c: c.execute(PID).scalar_one()) == first
        server.write("second-pass")
        found: list[int] = []

        def beside(both: threading.Barrier) -> None:
            def work(connection: Connection) -> None:
                found.append(connection.execute(PID).scalar_one())
                both.wait(10)

            database.transaction(work)

        both = threading.Barrier(2)
        threads = [threading.Thread(target=beside, args=(both,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(set(found)) == 2
    assert first in found
    for password in ("first-pass", "second-pass"):
        assert logs.mask(f"with {password}.") == f"with {logs.MASK}."


def test_a_password_is_masked_before_it_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new password is masked before the first connection that uses it."""
    with app.open_database(_settings(server, tmp_path, "http://127.0.0.1:1")) as database:
        server.write("third-pass")
        query(server.admin, CUT)
        masked: list[str] = []
        connect = psycopg.Connection.connect.__func__  # type: ignore[attr-defined]

        def looking(kind: type[psycopg.Connection], /, url: str, **options: object) -> object:
            masked.append(logs.mask(url))
            return connect(kind, url, **options)

        monkeypatch.setattr(psycopg.Connection, "connect", classmethod(looking))
        with pytest.raises(DatabaseError, match="refuses the user or password"):
            database.transaction(lambda c: c.execute(PID))
    assert masked
    assert not any("third-pass" in url for url in masked)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("", "must begin with"),
        ("postgresql://u:p%zz@h/d", "cannot be parsed"),
        ("embedded", "restart to use that"),
    ],
)
def test_a_broken_password_file_is_one_line(
    server: Server, tmp_path: Path, content: str | None, words: str
) -> None:
    """A missing or broken password file is a database error in one line, without its content."""
    with app.open_database(_settings(server, tmp_path, "http://127.0.0.1:1")) as database:
        query(server.admin, CUT)
        if content is None:
            server.file.unlink()
        else:
            server.file.write_text(content)
        with pytest.raises(DatabaseError, match=words) as refused:
            database.transaction(lambda c: c.execute(PID))
        assert "\n" not in str(refused.value)
        assert "p%zz" not in str(refused.value)
        server.write("first-pass")
        assert database.transaction(lambda c: c.execute(PID).scalar_one()) > 0
        server.file.unlink()
    with (
        pytest.raises(ConfigurationError, match="cannot be read"),
        app.open_database(_settings(server, tmp_path, "")),
    ):
        pass


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Provide a stream of all logged JSON lines at level debug, and restore logging afterwards."""
    root, program = logging.getLogger(), logging.getLogger("etl")
    handlers, levels = list(root.handlers), (root.level, program.level)
    logs.configure("debug", "json", stream := io.StringIO())
    yield stream
    root.handlers = handlers
    root.setLevel(levels[0])
    program.setLevel(levels[1])
    structlog.reset_defaults()


def test_a_service_outlives_a_rotation(server: Server, tmp_path: Path, logged: io.StringIO) -> None:
    """A service without a valid password is not ready, and recovers with the new one.

    That also holds while the file is missing.
    """
    history = History(seed=5, workflows=1, runs_per_workflow=10, live=0, arrivals_per_minute=0)
    health, stop = Health(), Stop()

    def database_problem() -> str:
        return health.problems.get("database", "")

    async def scenario() -> None:
        await wait_in_loop(
            lambda: query(server.admin, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"] == 10
        )
        server.change("fourth-pass")
        query(server.admin, CUT)
        await wait_in_loop(lambda: "refuses the user or password" in database_problem())
        server.file.unlink()
        await wait_in_loop(lambda: "cannot be read" in database_problem())
        history.add_runs(history.workflow_ids[0], 5)
        server.write("fourth-pass")
        await wait_in_loop(
            lambda: query(server.admin, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"] == 15
        )
        await wait_in_loop(lambda: not health.problems)

    async def work(settings: Settings, database: Database) -> None:
        health.watch_database(lambda: database.problem, lambda: database.is_unavailable)
        async with app.open_jobs(settings, database) as jobs:
            schedules = [Schedule(one.id, 0.2) for one in settings.workflows]
            running = asyncio.create_task(
                Daemon(
                    jobs.syncer, health, schedules, default_interval=0.2, pace=Pace(tick=0.1)
                ).run(stop)
            )
            try:
                await scenario()
            finally:
                stop.set()
                await running

    with Simulator(history).in_thread() as simulator:
        settings = _settings(server, tmp_path, simulator.base_url, *history.workflow_ids)
        with app.open_database(settings) as database:
            asyncio.run(work(settings, database))
    stored = {row["id"] for row in query(server.admin, "SELECT id FROM orchestra.runs")}
    assert stored == set(history.run_ids(history.workflow_ids[0]))
    assert "database_lost" in logged.getvalue()
    assert "-pass" not in logged.getvalue()
