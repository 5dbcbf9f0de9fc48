"""A history of the simulator's, Superset serving the dashboards of it, and a browser that has signed in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from etl.local.history import History
from etl.local.postgres import EmbeddedPostgres
from etl.local.simulator import Simulator
from etl.schema import upgrade
from tests.browser.dashboards import Superset
from tests.conftest import FAST_SETTINGS, ROOT
from tests.postgres_fixture import new_home
from tests.support import configuration, environment

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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
    checkout = home / "checkout"
    shutil.copytree(ROOT / "config" / "superset", checkout / "config" / "superset")
    (checkout / ".superset").symlink_to(ROOT / ".superset")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "ORCHESTRA_"))}
    variables = {**kept, "ORCHESTRA_ETL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(checkout / "config" / "superset" / "serve.py"), "--port", "0"]
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as serving:
        assert serving.stdout is not None
        printed = ""
        try:
            for line in serving.stdout:
                printed += line
                if "Ctrl-C ends it" in line:
                    break
            else:
                pytest.fail(f"the dashboards are not served: {printed}")
            address = re.search(r"http://127\.0\.0\.1:\d+", printed)
            assert address is not None
            yield Superset(
                address[0], home / "dashboards", checkout / "config" / "superset", command, variables, printed
            )
        finally:
            serving.send_signal(signal.SIGINT)
            status = serving.wait(30)
        assert status == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("no Chromium is installed: `make test-browser` says how to get it")
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page(browser: Browser, superset: Superset) -> Page:
    """A page that has signed in as the administrator; tall, because Superset draws only what is in sight."""
    page = browser.new_page(viewport={"width": 1440, "height": 3000})
    page.set_default_timeout(60_000)
    page.goto(f"{superset.address}/login/")
    page.fill("#username", "admin")
    page.fill("#password", superset.password)
    page.press("#password", "Enter")
    page.wait_for_url(lambda url: "/login" not in url)
    return page
