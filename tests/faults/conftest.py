"""Keeps the books of the fault suite and prints its table; fixtures that several faults share.

With pytest-xdist each worker keeps the books of its own tests and hands them over when it ends; the
controller adds them up and prints the table. Each worker also searches what its own tests left
behind for canaries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from etl.embedded.postgres import EmbeddedPostgres
from tests.faults.canaries import Canaries
from tests.faults.suite import Fault, table

_faults: dict[int, Fault] = {}
FIRST = ("test_soak.py", "test_black_hole.py", "test_database_faults.py")
"""The files that take longest come first, so that no worker is left with one of them at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """The mark of a fault."""
    config.addinivalue_line(
        "markers",
        "fault(number, name, invariants, guard='', why=''): an injected fault (see suite.py)",
    )


def _fault_of(item: pytest.Item) -> Fault | None:
    mark = item.get_closest_marker("fault")
    if mark is None:
        return None
    number: int = mark.args[0]
    made = Fault(*mark.args, **mark.kwargs)
    return _faults.setdefault(number, made)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Open the books of every fault, in each worker; begin with the files that take longest."""
    for item in items:
        _fault_of(item)
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note each test's outcome."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    fault = _fault_of(item)
    if fault is not None and (report.when == "call" or report.outcome != "passed"):
        fault.outcomes.append(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker: hand the books over to the controller."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = [asdict(one) for one in _faults.values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the controller: add a worker's books to the others; a worker that crashed has left none."""
    for fields in getattr(node, "workeroutput", {}).get("faults", ()):
        found = Fault(**fields)
        if found.number in _faults:
            _faults[found.number].add(found)
        else:
            _faults[found.number] = found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of all faults that were injected."""
    ran = [fault for fault in _faults.values() if fault.outcomes]
    if ran:
        terminalreporter.section("faults")
        for line in table(ran):
            terminalreporter.write_line(line)


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """The books of this test's fault. A test that claims a guard must have run its negative control."""
    found = _fault_of(request.node)
    assert found is not None, "mark the test with @pytest.mark.fault"
    yield found
    assert found.why or found.controls or found.outcomes[-1:] != ["passed"], (
        "the negative control was not run"
    )


@pytest.fixture(scope="session")
def canaries(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: EmbeddedPostgres
) -> Iterator[Canaries]:
    """Secrets that every fault's workers carry, and the folder with all that they say.

    It is searched at the end of the session, when every other server has left its log there.
    """
    found = Canaries(tmp_path_factory.mktemp("said"))
    yield found
    (found.folder / "postgresql-session.log").write_bytes(postgres_server.log.read_bytes())
    heard = found.sung()
    if 30 in _faults:
        _faults[30].injected(0, note=found.size())
        _faults[30].outcomes += ["failed"] if heard else []
    assert heard == []


@pytest.fixture
def log(canaries: Canaries, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file for what this test's workers say on both their outputs."""
    name = "".join(character if character.isalnum() else "-" for character in request.node.name)[
        :80
    ]
    for number in itertools.count():
        path = canaries.folder / f"{name}-{number}.log"
        if not path.exists():
            path.touch()
            yield path
            return
