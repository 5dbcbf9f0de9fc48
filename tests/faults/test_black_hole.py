"""A database connection that is open at the worker's end and leads nowhere.

There is no error, no end and no response.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults import network
from tests.faults.canaries import Canaries, with_password
from tests.faults.proxy import Action, Link, proxied, unix_proxy
from tests.faults.servers import OwnServer, own_server
from tests.faults.suite import Fault
from tests.faults.workers import output_of
from tests.faults.world import World, world

GUARDS = "tests.faults.database_guards"
BOUND = 60.0
"""Seconds in which a worker must have done its work in spite of the fault."""
CONTROL = 40.0
"""Seconds after which a control counts as hung: longer than the guard and the kernel wait."""

Scenario = Callable[[OwnServer, Path, Path, float, tuple[str, ...]], list[str]]


class Hole:
    """A judge that swallows the connection of the first claim; later connections pass."""

    def __init__(self, open_it: Callable[[Link], None]) -> None:
        self.opened = threading.Event()
        self._open_it = open_it

    def __call__(self, statement: str, link: Link) -> Action:
        """Return the action for a statement."""
        if "FOR UPDATE SKIP LOCKED" in statement and not self.opened.is_set():
            self.opened.set()
            self._open_it(link)
            return Action.SWALLOW
        return Action.PASS


def _lost_packets(
    server: OwnServer, folder: Path, log: Path, seconds: float, without: tuple[str, ...]
) -> list[str]:
    """Drop the packets of one connection where they arrive, between two network namespaces."""
    folder.mkdir()
    with ExitStack() as kept:
        cable = kept.enter_context(network.cable())
        hole = Hole(lambda link: cable.lose(link.client.getpeername()[1]))
        sock = cable.at_far_end(network.listener)
        cable.at_far_end(lambda: kept.enter_context(proxied(server.socket, sock, hole)))
        url = server.fresh()
        name = url.split("/")[3].split("?")[0]
        variables = {
            "DATABASE_URL": with_password(f"postgresql://postgres@{network.FAR}:5432/{name}"),
            network.VARIABLE: cable.near,
        }
        # The simulator runs in the worker's own namespace.
        found = cable.at_near_end(
            lambda: kept.enter_context(world(url, folder, log, variables=variables))
        )
        return _synced(found, hole, seconds, ("tests.faults.network:enter", *without))


def _swallowed(
    server: OwnServer, folder: Path, log: Path, seconds: float, without: tuple[str, ...]
) -> list[str]:
    """Use a proxy that acknowledges everything and forwards nothing, unnoticed by keepalives."""
    folder.mkdir()
    hole = Hole(lambda link: None)
    url = server.fresh()
    name = url.split("/")[3].split("?")[0]
    with unix_proxy(server.socket, folder, hole) as (_, host):
        variables = {
            "DATABASE_URL": with_password(
                f"postgresql://postgres@/{name}?host={quote(host, safe='')}&port=5432"
            ),
            "ORCHESTRA_ETL_DATABASE__STATEMENT_TIMEOUT": "5s",
        }
        with world(url, folder, log, variables=variables) as found:
            return _synced(found, hole, seconds, without)


def _synced(found: World, hole: Hole, seconds: float, without: tuple[str, ...]) -> list[str]:
    """Sync through the hole, and log the seconds from its opening on as the last line."""
    with found.started("sync", without=without) as worker:
        if not hole.opened.wait(120):
            return [f"the hole never opened: {output_of(found.log)[-300:]}"]
        began = time.monotonic()
        while worker.status is None and time.monotonic() < began + seconds:
            time.sleep(0.1)
        if worker.status is None:
            return [f"no progress {seconds:.0f} s after the connection went dead"]
        took = time.monotonic() - began
        problems = (
            []
            if worker.status in (0, 6)
            else [f"sync ended with {worker.status}: {output_of(found.log)[-300:]}"]
        )
        with found.log.open("a") as log:
            log.write(f"recovered in {took:.1f} s\n")
    return problems + found.complete() + found.witnessed()


class Outcomes:
    """Both holes with and without their guards, all four at once: they mostly wait."""

    def __init__(self, server: OwnServer, folder: Path, logs: Path) -> None:
        self._logs = logs
        self._server = server
        self._pool = ThreadPoolExecutor(4)
        self._futures: dict[str, Future[list[str]]] = {}
        self._begin("lost", _lost_packets, folder, "no_keepalives")
        self._begin("swallowed", _swallowed, folder, "no_limit_to_silence")

    def _begin(self, name: str, scenario: Scenario, folder: Path, guard: str) -> None:
        for one, seconds, without in (
            (name, BOUND, ()),
            (f"{name}, control", CONTROL, (f"{GUARDS}:{guard}",)),
        ):
            log = self._log(one)
            log.touch()
            directory = folder / log.stem.removeprefix("black-hole-")
            self._futures[one] = self._pool.submit(
                scenario, self._server, directory, log, seconds, without
            )

    def _log(self, name: str) -> Path:
        return self._logs / f"black-hole-{name.replace(', ', '-')}.log"

    def of(self, name: str) -> list[str]:
        """Return what went wrong."""
        return self._futures[name].result()

    def took(self, name: str) -> str:
        """Return the measured time."""
        return self._log(name).read_text().splitlines()[-1]

    def close(self) -> None:
        """Wait for the scenarios whose outcome no test read."""
        self._pool.shutdown()


@pytest.fixture(scope="module")
def outcomes(canaries: Canaries) -> Iterator[Outcomes]:
    """Provide the outcomes of all four scenarios."""
    folder = Path(tempfile.mkdtemp(prefix="hole-"))
    with own_server(canaries) as server:
        server.fresh()
        with closing(Outcomes(server, folder, canaries.folder)) as found:
            yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.fault(
    8,
    "black hole: a connection that leads nowhere",
    "C W B",
    guard="keepalives, and a limit to silence",
)
def test_lost_packets(fault: Fault, outcomes: Outcomes) -> None:
    """A worker whose connection loses every packet replaces it and finishes within a minute.

    The kernel's timers end the connection.
    """
    assert outcomes.of("lost") == []
    fault.injected(note=f"packets lost: {outcomes.took('lost')}")
    fault.control(outcomes.of("lost, control"))


@pytest.mark.fault(
    8,
    "black hole: a connection that leads nowhere",
    "C W B",
    guard="keepalives, and a limit to silence",
)
def test_a_proxy_that_forwards_nothing(fault: Fault, outcomes: Outcomes) -> None:
    """A worker whose statements get no response drops the connection after statement_timeout."""
    assert outcomes.of("swallowed") == []
    fault.injected(note=f"acknowledged only, statement_timeout 5 s: {outcomes.took('swallowed')}")
    fault.control(outcomes.of("swallowed, control"))
