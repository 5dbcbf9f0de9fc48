"""A history of the simulator's, Superset serving the dashboards of it, and a browser that has signed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from etl.local.history import History
from etl.local.postgres import EmbeddedPostgres
from etl.local.simulator import Simulator
from etl.schema import upgrade
from tests.browser.dashboards import CHART, Shown, Superset, chromium, open_dashboard, served, sign_in
from tests.browser.troubles import make_trouble
from tests.conftest import FAST_SETTINGS, ROOT
from tests.postgres_fixture import new_home
from tests.support import configuration, environment, query

PICTURES = os.environ.get("SCREENSHOTS")
"""The folder for pictures of the dashboards, if they are wanted."""


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The data folder of the demo and of the dashboards."""
    home = new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def history_url(home: Path) -> Iterator[str]:
    """The demo's database, with a history of eight days as the command `sync` loads it, and nothing that arrives later.

    With all that the simulator has not, unless for pictures.
    """
    with EmbeddedPostgres(home / "demo", settings=FAST_SETTINGS) as server:
        upgrade(server.url)
        history = History(runs_per_workflow=300, spacing=timedelta(minutes=40), arrivals_per_minute=0)
        with Simulator(history).in_thread() as simulator:
            config = home / "etl.toml"
            config.write_text(configuration(*history.workflow_ids))
            command = [sys.executable, "-m", "etl", "--config", str(config)]
            variables = {**os.environ, **environment(server.url, simulator.base_url)}
            euros = ["prices", "set", "gpt-4o-2024*", "--input", "2", "--output", "8", "--currency", "EUR"]
            for arguments in [["sync"], *([] if PICTURES else [euros])]:
                subprocess.run([*command, *arguments], env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            if not PICTURES:
                make_trouble(server.url)
                subprocess.run(
                    [*command, "rollups", "refresh"], env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, check=True
                )
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


@pytest.fixture(scope="session")
def failed_run(history_url: str) -> str:
    """A run that failed late, and paid for a model before."""
    sql = """
        SELECT run_id AS id FROM orchestra.run_summary
        WHERE outcome = 'failed' AND tracking = 'final' AND cost > 0 ORDER BY steps DESC, start_time DESC LIMIT 1
    """
    return str(query(history_url, sql)[0]["id"])


@pytest.fixture(scope="module")
def shown(page: Page, superset: Superset, failed_run: str) -> Callable[[str], Shown]:
    """A dashboard as it is opened first, that of runs for one that failed; opened once a module."""

    @cache
    def shown(name: str) -> Shown:
        drawn = open_dashboard(page, superset, name, run=failed_run if name == "run" else None)
        if PICTURES:
            _take_picture(page, f"{PICTURES}/{name}.png")
        return drawn

    return shown


def _take_picture(page: Page, path: str) -> None:
    bottom = max(box["y"] + box["height"] for one in page.locator(CHART).all() if (box := one.bounding_box()))
    page.mouse.move(0, 0)
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1440, "height": bottom + 16})
    # A palette takes a third of the space. Superset brings Pillow.
    shrink = "import sys; from PIL import Image; Image.open(sys.argv[1]).quantize(256).save(sys.argv[1], optimize=True)"
    subprocess.run([str(ROOT / ".superset/venv/bin/python"), "-c", shrink, path], check=True)
