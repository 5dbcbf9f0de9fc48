"""A frozen server, which accepts connections but never responds: callers fail within seconds."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.errors import DatabaseUnavailable
from etl.schema import upgrade
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.command_line import Command, command_line
from tests.conftest import FAST_SETTINGS
from tests.postgres_fixture import new_home
from tests.processes import started
from tests.support import configuration, environment, free_port, query, slow, wait_until

SECONDS = 30.0
"""The limit for a caller's error, for a busy machine; the usual patience is 120 seconds."""
Freeze = Callable[[], None]


class Freezer:
    """A separate server that these tests can freeze."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.url = server.url
        self._postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])

    def freeze(self) -> None:
        """Stop every process, the postmaster first, so that no process is started meanwhile."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue every process."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._postmaster, number)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                if parent == self._postmaster:
                    os.kill(int(stat.parent.name), number)
            except (OSError, ValueError):
                continue


@pytest.fixture(scope="module")
def server() -> Iterator[Freezer]:
    """Provide the server with the schema."""
    home = new_home()
    try:
        with EmbeddedPostgres(home, settings=FAST_SETTINGS) as found:
            upgrade(found.url)
            yield Freezer(found)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _frozen(server: Freezer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    server: Freezer,
) -> Command:
    """Provide the command line for that server, with one workflow."""
    variables = environment(
        server.url, f"http://127.0.0.1:{free_port()}", ORCHESTRA_ETL_API__ATTEMPTS="1"
    )
    return command_line(tmp_path, monkeypatch, capsys, configuration("w"), **variables)


@pytest.mark.parametrize(
    "arguments",
    [("status",), *slow(("db", "upgrade"), ("config", "check", "--json"))],
    ids=" ".join,
)
def test_a_command_abandons_a_frozen_server_in_seconds(
    server: Freezer, command: Command, arguments: tuple[str, ...]
) -> None:
    """An interactive command ends within seconds with a line that says what does not respond."""
    with _frozen(server):
        began = time.monotonic()
        printed = command(*arguments)
        assert time.monotonic() - began < SECONDS
    assert printed.status in (4, 5)
    assert "does not respond in time" in printed.err + printed.out


def test_a_server_that_freezes_during_a_statement_is_abandoned_in_seconds(server: Freezer) -> None:
    """A unit with `outage_patience` does not wait for the statement timeout of a frozen server."""
    opened = Database(server.url, outage_patience=3)
    with ExitStack() as frozen:

        def work(connection: Connection) -> None:
            frozen.enter_context(_frozen(server))
            connection.execute(text("SELECT 1"))

        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="does not respond in time"):
            opened.transaction(work)
        assert time.monotonic() - began < SECONDS
        opened.close()


def test_a_slow_statement_is_not_an_outage(server: Freezer) -> None:
    """A statement that takes longer than the patience succeeds and is not an outage."""
    opened = Database(server.url, outage_patience=1)
    attempts: list[int] = []

    def work(connection: Connection) -> None:
        attempts.append(1)
        connection.execute(text("SELECT pg_sleep(3)"))

    opened.transaction(work)
    opened.close()
    assert (attempts, opened.problem) == ([1], None)


def test_a_patient_process_reports_an_outage_within_seconds(server: Freezer) -> None:
    """A patient process reports the outage within seconds, and its unit runs once afterwards."""
    opened = Database(server.url, patience=120)
    query(server.url, "CREATE TABLE IF NOT EXISTS public.done (attempt int)")
    begun = threading.Event()

    def work(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        begun.set()
        time.sleep(0.5)
        connection.execute(text("INSERT INTO public.done VALUES (1)"))

    thread = threading.Thread(target=opened.transaction, args=(work,))
    thread.start()
    begun.wait()
    with _frozen(server):
        began = time.monotonic()
        wait_until(lambda: opened.is_unavailable, seconds=SECONDS)
        assert "does not respond in time" in str(opened.problem)
        assert thread.is_alive(), time.monotonic() - began
    thread.join(30)
    assert not thread.is_alive()
    wait_until(lambda: opened.transaction(lambda c: None) is None and opened.problem is None)
    opened.close()
    assert query(server.url, "SELECT count(*) AS n FROM public.done") == [{"n": 1}]


def test_the_end_of_a_process_does_not_wait_for_a_frozen_server(server: Freezer) -> None:
    """`end_within` cuts off all sessions of a silent server at once, without waiting for each."""
    opened = Database(server.url, patience=120)
    ready = threading.Barrier(6)
    ended: list[float] = []

    def work(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        ready.wait()
        time.sleep(0.2)
        connection.execute(text("SELECT 1"))

    def attempt() -> None:
        with pytest.raises(DatabaseUnavailable):
            opened.transaction(work)
        ended.append(time.monotonic())

    threads = [threading.Thread(target=attempt) for _ in range(5)]
    for thread in threads:
        thread.start()
    ready.wait()
    with _frozen(server):
        wait_until(lambda: opened.is_unavailable, seconds=SECONDS)
        opened.end_within(1.0)
        for thread in threads:
            thread.join(SECONDS)
        assert len(ended) == 5
        assert max(ended) - min(ended) < 3  # To wait for one takes a second.
        opened.close()


@pytest.mark.slow
def test_health_pages_follow_a_frozen_server(server: Freezer, tmp_path: Path) -> None:
    """The health pages report within seconds that a database is frozen, or responds again.

    `/readyz` becomes 503, the database's metrics disappear, and each page still responds at once.
    SIGTERM ends the process within the seconds that the service promises.
    """
    port = free_port()
    history = History(seed=3, workflows=1, runs_per_workflow=3, live=0, arrivals_per_minute=0)
    config = tmp_path / "etl.toml"
    config.write_text(configuration(*history.workflow_ids))

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    with Simulator(history).in_thread() as simulator:
        variables = environment(server.url, simulator.base_url, ORCHESTRA_ETL_CONFIG=str(config))
        variables["ORCHESTRA_ETL_SERVICE__PORT"] = str(port)
        with started("serve", variables=variables) as process:
            wait_until(
                lambda: (
                    get("/readyz") == (200, "ok\n")
                    and "orchestra_etl_open_runs{" in get("/metrics")[1]
                )
            )
            with _frozen(server):
                wait_until(lambda: get("/readyz")[0] == 503, seconds=SECONDS)
                assert "database: PostgreSQL at " in get("/readyz")[1]
                assert "does not respond in time" in get("/readyz")[1]
                figures = get("/metrics")[1]
                assert "orchestra_etl_ready 0.0" in figures
                assert "orchestra_etl_open_runs{" not in figures
                assert get("/livez")[0] == 200
            wait_until(lambda: get("/readyz")[0] == 200)
            with _frozen(server):
                wait_until(lambda: get("/readyz")[0] == 503, seconds=SECONDS)
                process.terminate()
                process.wait(SECONDS)


def test_all_addresses_share_the_patience() -> None:
    """A URL with two silent addresses fails as soon as a URL with one."""
    with ExitStack() as kept:
        ports = [
            kept.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1],
            kept.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1],
        ]
        opened = Database(
            f"postgresql://u@/d?host=127.0.0.1,127.0.0.1&port={ports[0]},{ports[1]}",
            outage_patience=5,
        )
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="does not respond in time"):
            opened.transaction(lambda c: None)
        assert time.monotonic() - began < 7
        opened.close()
