"""A simulated history, Superset with its dashboards, and a browser that has signed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.browser.dashboards import Superset, chromium, served, sign_in
from tests.browser.databases import create
from tests.browser.odd_rows import add_odd_rows
from tests.conftest import FAST_SETTINGS, ROOT
from tests.postgres_fixture import new_home
from tests.support import configuration, environment, query

PICTURES = os.environ.get("SCREENSHOTS")
"""The folder for pictures of the dashboards, or None."""
DEMO = "demo"
"""The database of the pictures: the demo's own history."""


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """Provide the data folder of the demo and of the dashboards."""
    home = new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    """Provide the demo's server."""
    with EmbeddedPostgres(home / "demo", settings=FAST_SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def history_url(home: Path, server: EmbeddedPostgres) -> str:
    """Provide the demo's database with eight days of history, loaded by `sync`, and nothing newer.

    It also has everything that the simulator lacks; for pictures `demo` is a copy without that.
    """
    upgrade(server.url)
    history = History(runs_per_workflow=300, spacing=timedelta(minutes=40), arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        config = home / "etl.toml"
        config.write_text(configuration(*history.workflow_ids))
        variables = {**os.environ, **environment(server.url, simulator.base_url)}

        def etl(*arguments: str) -> None:
            command = [sys.executable, "-m", "etl", "--config", str(config), *arguments]
            subprocess.run(command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)

        etl("sync")
        if PICTURES:
            create(server, DEMO, template="orchestra")
        etl("prices", "set", "gpt-4o-2024*", "--input", "2", "--output", "8", "--currency", "EUR")
        add_odd_rows(server.url)
        etl("rollups", "refresh")
    return server.url


@pytest.fixture(scope="session")
def superset(home: Path, history_url: str) -> Iterator[Superset]:
    """Start Superset with a copy of the dashboards' files that a test may edit."""
    with served(home, root=ROOT, variables={}) as superset:
        yield superset


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserContext]:
    """Provide the browser of all tests."""
    with chromium(sharp=bool(PICTURES)) as browser:
        yield browser


@pytest.fixture(scope="session")
def page(browser: BrowserContext, superset: Superset) -> Page:
    """Provide the page of all tests, in which admin has signed in."""
    return sign_in(browser, superset)


@pytest.fixture(scope="session")
def failed_run(history_url: str) -> str:
    """Provide a run that failed late, after a paid model call."""
    return a_failed_run(history_url)


def a_failed_run(url: str) -> str:
    """Return the id of a run in this history that failed late, after a paid model call."""
    sql = """
        SELECT run_id AS id FROM orchestra.run_summary
        WHERE outcome = 'failed' AND tracking = 'final' AND cost > 0
        ORDER BY steps DESC, start_time DESC LIMIT 1
    """
    return str(query(url, sql)[0]["id"])
