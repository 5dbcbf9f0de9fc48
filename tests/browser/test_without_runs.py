"""The dashboards of a database without runs, with a single run, and with a run not started yet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page

from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.browser.dashboards import DASHBOARDS, Shown, Superset, open_dashboard
from tests.browser.databases import create, grant, showing
from tests.conftest import ROOT
from tests.support import configuration, environment, query

NAME = "few"
LEAKS = re.compile(r"\b(NaN|null|undefined|Infinity|Invalid|None)\b")
"""Text that a page shows when a program has formatted a missing value."""
PENDING = """
    UPDATE orchestra.runs
    SET state = 'pending', tracking = 'open', start_time = NULL, end_time = NULL;
    DELETE FROM orchestra.steps;
"""
UNKNOWN = "No data"
EMPTY = {
    "overview": {
        "Runs": "0",
        "Success rate": UNKNOWN,
        "p95 duration": UNKNOWN,
        "Open runs": "0",
        "Overdue": "0",
        "Alerts firing": "0",
    },
    "nodes": {
        "Steps": "0",
        "Step success rate": UNKNOWN,
        "p50 duration": UNKNOWN,
        "p95 duration": UNKNOWN,
    },
    "failures": {"Failures": "0", "Soft failures": "0", "Runs affected": "0", "Kinds": "0"},
    "models": {"Model calls": "0", "Tokens": "0", "Unpriced calls": "0"},
    "run": {"Duration": UNKNOWN, "Steps": "0", "Tokens": "0"},
}
"""The big numbers without runs: a count is 0, and any other number is not known."""


@pytest.fixture(scope="module")
def url(server: EmbeddedPostgres, superset: Superset) -> Iterator[str]:
    """Provide an empty database with the schema, which Superset shows."""
    url = create(server, NAME)
    upgrade(url)
    grant(url)
    with showing(superset, NAME):
        yield url


def etl(url: str, folder: Path, *arguments: str) -> None:
    """Run the command on this database, whose source has one finished run."""
    history = History(
        workflows=1,
        runs_per_workflow=1,
        live=0,
        spacing=timedelta(minutes=5),
        arrivals_per_minute=0,
    )
    with Simulator(history).in_thread() as simulator:
        config = folder / "etl.toml"
        config.write_text(configuration(*history.workflow_ids))
        command = [sys.executable, "-m", "etl", "--config", str(config), *arguments]
        variables = {**os.environ, **environment(url, simulator.base_url)}
        subprocess.run(command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def opened(page: Page, superset: Superset, name: str) -> Shown:
    """Open the dashboard, and check that it shows only empty charts and no misformatted value."""
    shown = open_dashboard(page, superset, name, reload=False)
    assert [error for error in shown.errors if "No results" not in error] == []
    assert LEAKS.findall(page.locator("#app").inner_text()) == []
    return shown


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_run(page: Page, superset: Superset, url: str, name: str) -> None:
    """Without a run every dashboard is drawn: counts are 0, rates and durations are not known."""
    shown = opened(page, superset, name)

    assert EMPTY[name].items() <= shown.numbers.items()


def test_one_run(page: Page, superset: Superset, url: str, tmp_path: Path) -> None:
    """A single ended run is on the overview, its steps on Nodes; the run dashboard selects it."""
    etl(url, tmp_path, "sync")
    [run] = query(
        url, "SELECT id, (SELECT count(*) FROM orchestra.steps) AS steps FROM orchestra.runs"
    )

    overview = opened(page, superset, "overview")
    assert (overview.number("Runs"), overview.number("Open runs")) == ("1", "0")
    assert [row["run_id"] for row in overview.rows["Latest runs"]] == [run["id"]]
    assert len(overview.rows["Runs by outcome"]) == 1
    assert opened(page, superset, "nodes").number("Steps") == str(run["steps"])
    chosen = opened(page, superset, "run")
    assert (chosen.table("The run")[0][0], chosen.number("Steps")) == (run["id"], str(run["steps"]))


def test_one_run_that_has_not_begun(
    page: Page, superset: Superset, url: str, tmp_path: Path
) -> None:
    """A pending run without a start or a step counts as open, and the run dashboard selects it."""
    query(url, PENDING)
    etl(url, tmp_path, "rollups", "refresh")
    [run] = query(url, "SELECT id FROM orchestra.runs")

    overview = opened(page, superset, "overview")
    assert (overview.number("Runs"), overview.number("Open runs"), overview.number("Overdue")) == (
        "1",
        "1",
        "0",
    )
    assert [row["run_id"] for row in overview.rows["Open runs now, oldest first"]] == [run["id"]]
    chosen = opened(page, superset, "run")
    assert (chosen.table("The run")[0][0], chosen.number("Steps")) == (run["id"], "0")
    assert chosen.number("Duration") != UNKNOWN


def test_no_run_in_the_last_30_days(page: Page, superset: Superset, url: str) -> None:
    """Without a run in the last 30 days the run dashboard shows the newest run of all."""
    query(
        url,
        "UPDATE orchestra.runs SET state = 'succeeded', start_time = now() - interval '40 days'",
    )
    [run] = query(url, "SELECT id FROM orchestra.runs")

    assert opened(page, superset, "run").table("The run")[0][0] == run["id"]
