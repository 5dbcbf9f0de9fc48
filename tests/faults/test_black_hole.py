"""A connection to the database that is open on our side and leads nowhere: no error, no end, no answer."""

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

from etl import database
from tests.faults import network
from tests.faults.canaries import Canaries, with_password
from tests.faults.proxy import Action, Link, proxied, unix_proxy
from tests.faults.servers import OwnServer, own_server
from tests.faults.suite import Fault
from tests.faults.workers import said
from tests.faults.world import World, world

GUARDS = "tests.faults.database_guards"
BOUND = 60.0
"""Seconds in which a worker must have done its work all the same."""
CONTROL = 40.0
"""Seconds after which a control is taken for hung: longer than the guard needs, and than the kernel's own patience."""

LIMITED = hasattr(database, "SILENCE")
Scenario = Callable[[OwnServer, Path, Path, float, tuple[str, ...]], list[str]]


class Hole:
    """Swallows the connection of the first claim; every later connection is good."""

    def __init__(self, open_it: Callable[[Link], None]) -> None:
        self.opened = threading.Event()
        self._open_it = open_it

    def __call__(self, statement: str, link: Link) -> Action:
        """What becomes of a statement."""
        if "FOR UPDATE SKIP LOCKED" in statement and not self.opened.is_set():
            self.opened.set()
            self._open_it(link)
            return Action.SWALLOW
        return Action.PASS


def _lost_packets(
    server: OwnServer, folder: Path, log: Path, seconds: float, without: tuple[str, ...]
) -> list[str]:
    """Real loss: between two network namespaces, the packets of one connection are dropped where they arrive."""
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
        # The simulator answers in the worker's own namespace.
        found = cable.at_near_end(
            lambda: kept.enter_context(world(url, folder, log, variables=variables))
        )
        return _synced(found, hole, seconds, ("tests.faults.network:enter", *without))


def _swallowed(
    server: OwnServer, folder: Path, log: Path, seconds: float, without: tuple[str, ...]
) -> list[str]:
    """A proxy that goes on acknowledging everything, and forwards nothing: no keepalive can notice that."""
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
    """Sync through the hole; the seconds it took from there on go to the log's last line."""
    with found.started("sync", without=without) as worker:
        if not hole.opened.wait(120):
            return [f"the hole never opened: {said(found.log)[-300:]}"]
        began = time.monotonic()
        while worker.status is None and time.monotonic() < began + seconds:
            time.sleep(0.1)
        if worker.status is None:
            return [f"nothing has happened {seconds:.0f} s after the connection went dead"]
        took = time.monotonic() - began
        problems = (
            []
            if worker.status in (0, 6)
            else [f"sync ended with {worker.status}: {said(found.log)[-300:]}"]
        )
        with found.log.open("a") as log:
            log.write(f"recovered in {took:.1f} s\n")
    return problems + found.complete() + found.witnessed()


class Outcomes:
    """Both holes with and without their guards, all four at once: most of it is waiting."""

    def __init__(self, server: OwnServer, folder: Path, logs: Path) -> None:
        self._logs = logs
        self._server = server
        self._pool = ThreadPoolExecutor(4)
        self._futures: dict[str, Future[list[str]]] = {}
        self._begin("lost", _lost_packets, folder, "no_keepalives")
        if LIMITED:
            self._begin("swallowed", _swallowed, folder, "no_limit_to_silence")

    def _begin(self, name: str, scenario: Scenario, folder: Path, guard: str) -> None:
        for one, seconds, without in (
            (name, BOUND, ()),
            (f"{name}, control", CONTROL, (f"{GUARDS}:{guard}",)),
        ):
            log = self._log(one)
            log.touch()
            place = folder / log.stem.removeprefix("black-hole-")
            self._futures[one] = self._pool.submit(
                scenario, self._server, place, log, seconds, without
            )

    def _log(self, name: str) -> Path:
        return self._logs / f"black-hole-{name.replace(', ', '-')}.log"

    def of(self, name: str) -> list[str]:
        """What went wrong."""
        return self._futures[name].result()

    def took(self, name: str) -> str:
        """The measured time."""
        return self._log(name).read_text().splitlines()[-1]

    def close(self) -> None:
        """Wait for those that nobody asked for."""
        self._pool.shutdown()


@pytest.fixture(scope="module")
def outcomes(canaries: Canaries) -> Iterator[Outcomes]:
    """What came of all four."""
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
    guard="keepalives and a limit to silence",
)
def test_lost_packets(fault: Fault, outcomes: Outcomes) -> None:
    """A worker whose connection loses every packet gives it up by the kernel's timers, and has done its work in a minute."""
    assert outcomes.of("lost") == []
    fault.injected(note=f"packets lost: {outcomes.took('lost')}")
    fault.control(outcomes.of("lost, control"))


@pytest.mark.skipif(not LIMITED, reason="this program sets no limit to a server's silence")
@pytest.mark.fault(
    8,
    "black hole: a connection that leads nowhere",
    "C W B",
    guard="keepalives and a limit to silence",
)
def test_a_proxy_that_forwards_nothing(fault: Fault, outcomes: Outcomes) -> None:
    """A worker whose statements are acknowledged and never answered gives the connection up soon after statement_timeout."""
    assert outcomes.of("swallowed") == []
    fault.injected(note=f"acknowledged only, statement_timeout 5 s: {outcomes.took('swallowed')}")
    fault.control(outcomes.of("swallowed, control"))
