"""Records of the fault suite, its printed table, and fixtures that several faults share.

With pytest-xdist each worker records its own tests and hands the records over when it ends. The
controller adds them up and prints the table. Each worker also searches the output of its own tests
for canaries.
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
FIRST = (
    "test_killed_at_every_fail_point", "test_killed_at_random", "test_database_faults",
    "test_memory_does_not_grow", "test_stopped_by_a_signal", "test_real_workers", "test_black_hole",
    "test_an_export_killed_at_every_point", "test_simulated_lists", "test_no_canary_is_found",
    "test_upgrade_faults", "test_connection_faults",
)  # fmt: skip
"""The slowest tests and files, which start first so that no worker runs one of them at the end."""
TOGETHER = (
    "test_black_hole", "test_connection_faults", "test_database_faults", "test_upgrade_faults",
)  # fmt: skip
"""The files whose tests share a server or scenarios, so that one worker runs them."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the `fault` mark."""
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
    """Create the record of every fault in each worker, and put the slowest tests first."""
    for item in items:
        _fault_of(item)

    def rank(item: pytest.Item) -> int:
        names = (item.path.stem, item.name)
        return next((number for number, name in enumerate(FIRST) if name in names), len(FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute the tests one by one, in order, and a file of `TOGETHER` as a whole."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class OneByOne(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            return str(file) if file.stem in TOGETHER else nodeid

    return OneByOne(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Record each test's outcome."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    fault = _fault_of(item)
    if fault is not None and (report.when == "call" or report.outcome != "passed"):
        fault.outcomes.append(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a worker's records over to the controller."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = [asdict(one) for one in _faults.values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's records to the controller's; a crashed worker has none."""
    for fields in getattr(node, "workeroutput", {}).get("faults", ()):
        found = Fault(**fields)
        if found.number in _faults:
            _faults[found.number].add(found)
        else:
            _faults[found.number] = found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of all injected faults."""
    ran = [fault for fault in _faults.values() if fault.outcomes]
    if ran:
        terminalreporter.section("faults")
        for line in table(ran):
            terminalreporter.write_line(line)


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """Provide the record of this test's fault, and require a negative control for its guard."""
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
    """Provide the secrets that every fault's workers carry, and the folder with all their output.

    The folder is searched at the end of the session, when every other server has stored its log
    there.
    """
    found = Canaries(tmp_path_factory.mktemp("output"))
    yield found
    (found.folder / "postgresql-session.log").write_bytes(postgres_server.log.read_bytes())
    leaks = found.leaks()
    if 30 in _faults:
        _faults[30].injected(0, note=found.size())
        _faults[30].outcomes += ["failed"] if leaks else []
    assert leaks == []


@pytest.fixture
def log(canaries: Canaries, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Provide a file for both outputs of this test's workers."""
    name = "".join(character if character.isalnum() else "-" for character in request.node.name)[
        :80
    ]
    for number in itertools.count():
        path = canaries.folder / f"{name}-{number}.log"
        if not path.exists():
            path.touch()
            yield path
            return
