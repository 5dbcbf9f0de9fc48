"""A history of the simulator's, Superset serving the dashboards of it, and a browser that has signed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from etl.local.history import History
from etl.local.postgres import EmbeddedPostgres
from etl.local.simulator import Simulator
from etl.schema import upgrade
from tests.browser.dashboards import Superset, chromium, served, sign_in
from tests.conftest import FAST_SETTINGS, ROOT
from tests.postgres_fixture import new_home
from tests.support import configuration, environment


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The data folder of the demo and of the dashboards."""
    home = new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def history_url(home: Path) -> Iterator[str]:
    """The demo's database, with the demo's history as the command `sync` loads it, and nothing that arrives later."""
    with EmbeddedPostgres(home / "demo", settings=FAST_SETTINGS) as server:
        upgrade(server.url)
        history = History(runs_per_workflow=300, spacing=timedelta(minutes=20), arrivals_per_minute=0)
        with Simulator(history).in_thread() as simulator:
            config = home / "etl.toml"
            config.write_text(configuration(*history.workflow_ids))
            command = [sys.executable, "-m", "etl", "--config", str(config), "sync"]
            variables = {**os.environ, **environment(server.url, simulator.base_url)}
            subprocess.run(command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        yield server.url


@pytest.fixture(scope="session")
def superset(home: Path, history_url: str) -> Iterator[Superset]:
    """Superset, serving a copy of the dashboards' files that a test may edit."""
    with served(home, root=ROOT, variables={}) as superset:
        yield superset


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser of all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def page(browser: Browser, superset: Superset) -> Page:
    """A page that has signed in."""
    return sign_in(browser, superset)
