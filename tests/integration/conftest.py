"""Fixtures of the tests of single parts with a database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.command_line import Command, Printed, command_line

if TYPE_CHECKING:
    from tests.exported_world import Copies, ExportedWorld

Simulated = tuple[History, Simulator]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open this test's database as the program does, with a patience of five seconds."""
    opened = Database(database_url, patience=5)
    yield opened
    opened.close()


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> Command:
    """Provide the command line with this test's database and no configuration file."""
    return command_line(tmp_path, monkeypatch, capsys, "", DATABASE_URL=database_url)


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    """Provide a simulated API with its workflows."""
    history = History(runs_per_workflow=2, live=0, spacing=timedelta(minutes=20))
    with Simulator(history, api_key="the-key").in_thread() as simulator:
        yield history, simulator


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Provide a function that runs one command with a configuration and variables."""

    def run(*arguments: str, toml: str = "", **variables: str) -> Printed:
        return command_line(tmp_path, monkeypatch, capsys, toml, **variables)(*arguments)

    return run


@pytest.fixture(scope="module")
def copies(
    request: pytest.FixtureRequest,
    postgres_server: EmbeddedPostgres,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Copies]:
    """Export as many finished runs as the module's `RUNS`, after its `prepare`, if it has one."""
    # Imported here, because it loads the libraries of the lake.
    from tests.exported_world import exported

    with exported(
        postgres_server,
        template_database,
        tmp_path_factory.mktemp("lake"),
        runs=request.module.RUNS,
        prepare=getattr(request.module, "prepare", lambda world: None),
    ) as copied:
        yield copied


@pytest.fixture
def world(copies: Copies) -> Iterator[ExportedWorld]:
    """Provide the module's runs, one a day, in PostgreSQL and in the lake."""
    with copies() as own:
        yield own
