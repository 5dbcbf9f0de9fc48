"""The dashboards in a real browser: what they show is what SQL says."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from etl.admin import roles
from etl.database import Database
from etl.local.postgres import EmbeddedPostgres
from etl.tables import PAYLOADS
from tests.browser.dashboards import CHART, DASHBOARDS, Superset, draw, open_dashboard
from tests.conftest import ROOT
from tests.postgres_fixture import new_home
from tests.support import query

# By the tables, not by the views that the charts read.
OUTCOMES = """
    SELECT r.id, r.workflow_id, r.start_time, r.duration_ms,
           CASE WHEN r.state = 'succeeded' AND EXISTS (
               SELECT FROM orchestra.steps AS s
               WHERE s.run_id = r.id AND s.state = 'succeeded' AND s.reported_error IS NOT NULL AND s.absent_since IS NULL
           ) THEN 'soft_failed' ELSE r.state END AS outcome
    FROM orchestra.runs AS r
"""

UNFILTERED = ("Open runs", "Behind (s)", "Open runs, oldest first", "Pipeline")
"""Charts of the overview that show the state of now, whatever is filtered."""


@pytest.fixture(scope="session")
def failed_run(history_url: str) -> str:
    """A run that failed late, and paid for a model before."""
    sql = """
        SELECT run_id AS id FROM orchestra.run_summary
        WHERE outcome = 'failed' AND tracking = 'final' AND cost > 0 ORDER BY steps DESC, start_time DESC LIMIT 1
    """
    return str(query(history_url, sql)[0]["id"])


@pytest.fixture
def client(superset: Superset) -> Iterator[httpx.Client]:
    """A client that has signed in to Superset's API."""
    with httpx.Client(base_url=superset.address, timeout=60) as client:
        yield _sign_in(client, superset)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_chart_is_drawn(page: Page, superset: Superset, failed_run: str, name: str) -> None:
    """Every chart of every dashboard gets rows and shows no error, and no other host is asked for anything."""
    shown = open_dashboard(page, superset, name, run=failed_run if name == "run" else None)

    assert shown.errors == []
    assert [title for title, rows in shown.rows.items() if not rows] == []
    assert shown.other_hosts == set()
    if folder := os.environ.get("SCREENSHOTS"):
        bottom = max(box["y"] + box["height"] for one in page.locator(CHART).all() if (box := one.bounding_box()))
        page.mouse.move(0, 0)
        path = f"{folder}/{name}.png"
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1440, "height": bottom + 16})
        # A palette takes a third of the space. Superset brings Pillow.
        shrink = (
            "import sys; from PIL import Image; Image.open(sys.argv[1]).quantize(128).save(sys.argv[1], optimize=True)"
        )
        subprocess.run([str(ROOT / ".superset/venv/bin/python"), "-c", shrink, path], check=True)


def test_overview_equals_sql(page: Page, superset: Superset, history_url: str) -> None:
    """The overview's numbers, its table of workflows and its volume by hour are those of the tables."""
    shown = open_dashboard(page, superset, "overview")

    total = query(
        history_url,
        f"""
        SELECT count(*) AS runs, count(*) FILTER (WHERE outcome IN ('pending', 'running')) AS open,
               count(*) FILTER (WHERE outcome = 'succeeded')::float
                   / count(*) FILTER (WHERE outcome IN ('succeeded', 'soft_failed', 'failed')) AS success_rate,
               percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) / 1000 AS p95
        FROM ({OUTCOMES}) AS o
        """,
    )[0]
    assert shown.number("Runs") == f"{total['runs']:,}"
    assert shown.number("Success") == f"{total['success_rate']:.1%}"
    assert shown.number("Open runs") == f"{total['open']:,}"
    # 2 % by the histogram, and half of the last digit shown.
    assert float(shown.number("p95 (s)")) == pytest.approx(total["p95"], rel=0.02, abs=0.05)
    [cost] = query(history_url, "SELECT sum(cost) AS usd FROM orchestra.model_usage WHERE currency = 'USD'")
    assert shown.number("Cost (USD)") == f"${cost['usd']:,.4f}"

    expected = query(
        history_url,
        f"""
        SELECT w.name, count(*) AS runs,
               count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed,
               count(*) FILTER (WHERE outcome = 'failed') AS failed
        FROM ({OUTCOMES}) AS o JOIN orchestra.workflows AS w ON w.id = o.workflow_id GROUP BY w.name
        """,
    )
    found = {(row[0], row[1], row[-2], row[-1]) for row in shown.table("Workflows")}
    assert found == {(row["name"], str(row["runs"]), str(row["soft_failed"]), str(row["failed"])) for row in expected}

    hours = query(
        history_url,
        f"""
        SELECT date_trunc('hour', start_time) AS hour, count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
               count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed,
               count(*) FILTER (WHERE outcome = 'failed') AS failed
        FROM ({OUTCOMES}) AS o GROUP BY hour
        """,
    )
    drawn = {
        (_time(row["hour"]), row["runs_succeeded"], row["runs_soft_failed"], row["runs_failed"])
        for row in shown.rows["Runs by outcome"]
    }
    assert drawn == {(row["hour"], row["succeeded"], row["soft_failed"], row["failed"]) for row in hours}


def test_nodes_equal_sql(page: Page, superset: Superset, history_url: str) -> None:
    """The table of nodes counts the steps that the tables have, and its p95 is within 2 % of the exact one."""
    shown = open_dashboard(page, superset, "nodes")

    expected = query(
        history_url,
        """
        SELECT w.name, s.node_id, count(*) AS steps, count(*) FILTER (WHERE s.state = 'failed') AS failed,
               percentile_disc(0.95) WITHIN GROUP (ORDER BY s.duration_ms) FILTER (WHERE s.duration_ms >= 0) AS p95
        FROM orchestra.steps AS s JOIN orchestra.workflows AS w ON w.id = s.workflow_id
        WHERE s.absent_since IS NULL GROUP BY w.name, s.node_id
        """,
    )
    rows = {(row[0], row[1]): row for row in shown.table("Nodes")}
    assert len(rows) == len(expected)
    for wanted in expected:
        _, _, _, p95, _, steps, _, failed, *_ = rows[wanted["name"], wanted["node_id"]]
        assert (_number(steps), _number(failed)) == (wanted["steps"], wanted["failed"])
        assert _number(p95) == pytest.approx(wanted["p95"], rel=0.02, abs=1)


def test_models_equal_sql(page: Page, superset: Superset, history_url: str) -> None:
    """The table of models sums up the tokens that the steps have."""
    shown = open_dashboard(page, superset, "models")

    expected = query(
        history_url,
        """
        SELECT COALESCE(response_model, request_model) AS model, count(*) AS calls,
               COALESCE(sum(input_tokens), 0) AS input, COALESCE(sum(output_tokens), 0) AS output
        FROM orchestra.steps
        WHERE COALESCE(response_model, request_model) IS NOT NULL AND absent_since IS NULL GROUP BY 1
        """,
    )
    found = {(row[0], _number(row[2]), _number(row[3]), _number(row[5])) for row in shown.table("Models")}
    assert found == {(row["model"], row["calls"], row["input"], row["output"]) for row in expected}
    assert _number(shown.number("Model calls")) == sum(row["calls"] for row in expected)
    [unpriced] = query(history_url, "SELECT sum(unpriced_calls) AS calls FROM orchestra.model_usage")
    assert _number(shown.number("Unpriced calls")) == unpriced["calls"]


def test_a_filter_narrows_every_chart(page: Page, superset: Superset, history_url: str) -> None:
    """A workflow chosen in the filter bar leaves that workflow's runs alone in number, table and trend."""
    open_dashboard(page, superset, "overview")
    [wanted] = query(
        history_url,
        "SELECT count(*) AS runs FROM orchestra.runs AS r JOIN orchestra.workflows AS w ON w.id = r.workflow_id"
        " WHERE w.name = 'support triage' AND r.state = 'failed'",
    )

    def choose() -> None:
        page.get_by_role("combobox", name="Workflow").click()
        page.locator(".ant-select-item-option", has_text="support triage").click()
        page.keyboard.press("Escape")
        page.locator("[data-test='filter-bar__apply-button']").click()

    page.wait_for_timeout(500)
    shown = draw(
        page,
        superset,
        "overview",
        choose,
        unfiltered=("Open runs", "Behind (s)", "Open runs, oldest first", "Pipeline"),
    )

    assert shown.errors == []
    [row] = shown.table("Workflows")
    assert (row[0], _number(row[-1])) == ("support triage", wanted["runs"])
    assert shown.number("Runs") == row[1]
    assert {row["workflow_name"] for row in shown.rows["Latest runs"]} == {"support triage"}


def test_from_a_failure_to_its_run(page: Page, superset: Superset, history_url: str) -> None:
    """The run's id in the table of failures leads to the waterfall of that run alone, step by step as the tables have it."""
    shown = open_dashboard(page, superset, "failures")
    [counted] = query(
        history_url,
        "SELECT count(*) AS steps FROM orchestra.steps"
        " WHERE state = 'failed' OR (state = 'succeeded' AND reported_error IS NOT NULL)",
    )
    assert _number(shown.number("Failures")) == counted["steps"]
    link = shown.chart("Latest failures").locator("tbody a").first
    run = link.inner_text()

    opened = draw(page, superset, "run", link.click)

    assert opened.errors == []
    expected = query(
        history_url,
        "SELECT position, node_id, start_time, end_time, duration_ms, state FROM orchestra.steps"
        " WHERE run_id = %s AND absent_since IS NULL ORDER BY position",
        run,
    )
    bars = sorted(opened.rows["Waterfall"], key=lambda row: str(row["step"]))
    assert [row["step"] for row in bars] == [f"{row['position'] + 1:02} {row['node_id']}" for row in expected]
    for bar, row in zip(bars, expected, strict=True):
        # Rounded to milliseconds on their way.
        assert bar["start_time"] / 1000 == pytest.approx(row["start_time"].timestamp(), abs=0.001)
        assert bar["until"] / 1000 == pytest.approx(row["end_time"].timestamp(), abs=0.001)
    assert [(row[1], _number(row[6])) for row in opened.table("Step by step")] == [
        (row["node_id"], round(row["duration_ms"])) for row in expected
    ]
    assert opened.table("The run")[0][0] == run


def test_an_edited_file_arrives_and_what_users_made_stays(page: Page, superset: Superset, client: httpx.Client) -> None:
    """A second call, while the first serves, brings a title changed in a file, and leaves a chart that a user made."""
    open_dashboard(page, superset, "overview")
    [dataset] = client.get(
        "/api/v1/dataset/", params={"q": "(filters:!((col:table_name,opr:eq,value:run_summary)))"}
    ).json()["result"]
    chart = {"slice_name": "my own", "viz_type": "table", "datasource_id": dataset["id"], "datasource_type": "table"}
    assert client.post("/api/v1/chart/", json={**chart, "params": "{}"}).status_code == 201
    edited = next(
        path
        for path in (superset.files / "assets" / "charts").rglob("*.yaml")
        if "slice_name: Runs by outcome\n" in path.read_text()
    )
    edited.write_text(edited.read_text().replace("slice_name: Runs by outcome\n", "slice_name: Runs, my way\n"))

    again = subprocess.run(
        superset.command, env=dict(superset.environment), capture_output=True, text=True, check=False
    )

    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stdout
    assert superset.password not in again.stdout
    shown = open_dashboard(page, superset, "overview")
    assert shown.errors == []
    assert "Runs, my way" in shown.rows
    assert "Runs by outcome" not in shown.rows
    found = client.get("/api/v1/chart/", params={"q": "(filters:!((col:slice_name,opr:eq,value:'my own')))"}).json()
    assert found["count"] == 1


def test_a_mistake_in_a_file_is_named(superset: Superset) -> None:
    """A file that Superset cannot take over is named in one line, and nothing is changed."""
    broken = superset.files / "assets" / "charts" / "broken.yaml"
    broken.write_text("slice_name: no type\nversion: 1.0.0\n")
    try:
        done = subprocess.run(
            superset.command, env=dict(superset.environment), capture_output=True, text=True, check=False
        )
    finally:
        broken.unlink()

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "charts/broken.yaml" in line
    assert "viz_type" in line


def test_payloads_are_out_of_reach(client: httpx.Client, history_url: str) -> None:
    """In SQL Lab the views can be read, and no column that holds a payload, nor the operations' tables, nor written."""
    [database] = client.get("/api/v1/database/").json()["result"]

    def execute(sql: str) -> httpx.Response:
        return client.post(
            "/api/v1/sqllab/execute/", json={"database_id": database["id"], "sql": sql, "runAsync": False}
        )

    answer = execute("SELECT count(*) AS runs FROM orchestra.run_summary")
    assert answer.json()["data"] == query(history_url, "SELECT count(*) AS runs FROM orchestra.runs")
    for table, columns in PAYLOADS.items():
        for column in columns:
            refused = execute(f"SELECT {column} FROM {table.fullname}")
            assert "permission denied" in refused.text, (table.fullname, column, refused.text)
    assert "permission denied" in execute("SELECT * FROM orchestra_etl.dead_letters").text
    [role] = query(
        history_url,
        "SELECT rolsuper, rolcreaterole, (SELECT array_agg(m.roleid::regrole::text) FROM pg_auth_members AS m"
        " WHERE m.member = r.oid) AS groups, has_table_privilege(oid, 'orchestra.runs', 'INSERT, UPDATE, DELETE') AS writes"
        " FROM pg_roles AS r WHERE rolname = 'orchestra_dashboards'",
    )
    assert role == {"rolsuper": False, "rolcreaterole": False, "groups": ["orchestra_analyst"], "writes": False}


def test_a_fresh_machine_shows_the_demo(superset: Superset) -> None:
    """Where no demo has run yet it is loaded first, and every dashboard's views have rows."""
    home = new_home()
    try:
        command = [*superset.command, "--exit"]
        variables = {**superset.environment, "ORCHESTRA_ETL_HOME": str(home)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

        assert done.returncode == 0, done.stderr
        with EmbeddedPostgres(home / "demo") as server:
            views = (
                "workflow_hourly",
                "node_daily",
                "node_hourly",
                "model_usage",
                "failures",
                "run_summary",
                "step_timeline",
            )
            empty = [view for view in views if not query(server.url, f"SELECT 1 AS row FROM orchestra.{view} LIMIT 1")]
            assert empty == []
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_another_database_needs_its_roles(
    superset: Superset, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """For a database that DATABASE_URL names, one line says what is missing; once it is there, they are served, in
    the two steps of the compose file, too."""

    def serve(url: str, *options: str) -> subprocess.CompletedProcess[str]:
        home = str(tmp_path / "home")
        variables = {**superset.environment, "DATABASE_URL": url, "ORCHESTRA_ETL_HOME": home}
        command = [*superset.command, "--exit", *options]
        return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done := serve(empty_database_url)).returncode == 4
    assert "run `orchestra-etl db upgrade` first" in done.stderr
    assert (done := serve(database_url)).returncode == 4
    assert "run `orchestra-etl db roles` first" in done.stderr
    database = Database(database_url, pool_size=1)
    try:
        roles.apply(database)
    finally:
        database.close()
    assert (done := serve(database_url, "--only", "serve")).returncode == 2
    assert "call it with --only import first" in done.stderr
    assert (done := serve(database_url, "--only", "import")).returncode == 0, done.stderr
    assert "are served at" not in done.stdout
    assert (done := serve(database_url, "--only", "serve")).returncode == 0, done.stderr
    assert "bringing" not in done.stdout
    assert "are served at" in done.stdout
    assert (done := serve(database_url)).returncode == 0, done.stderr
    assert "the database that DATABASE_URL names" in done.stdout


def test_secrets_are_kept(superset: Superset) -> None:
    """Keys lie in files of the user alone, no default password opens, and no log holds one."""
    names = ("admin-password", "database-password", "secret-key")
    for name in names:
        assert stat.S_IMODE((superset.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(superset.home.stat().st_mode) == 0o700
    refused = httpx.post(
        f"{superset.address}/api/v1/security/login", json={"username": "admin", "password": "admin", "provider": "db"}
    )
    assert refused.status_code == 401
    assert superset.printed.count(superset.password) == 1
    logs = "".join((superset.home / name).read_text() for name in ("superset.log", "provision.log"))
    assert [name for name in names if (superset.home / name).read_text().strip() in logs] == []


def _sign_in(client: httpx.Client, superset: Superset) -> httpx.Client:
    credentials = {"username": "admin", "password": superset.password, "provider": "db"}
    token = client.post("/api/v1/security/login", json=credentials).json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").json()["result"]
    client.headers["Referer"] = superset.address
    return client


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _time(value: Any) -> datetime:
    """A time in a chart's data: milliseconds since 1970."""
    return datetime.fromtimestamp(round(value) / 1000, UTC)
