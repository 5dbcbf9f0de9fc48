"""The dashboards in a real browser: they show what SQL returns."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.tables import PAYLOADS
from tests.browser.dashboards import (
    TIMEOUT_SECONDS,
    Shown,
    Superset,
    apply,
    choose,
    client_of,
    displayed,
    draw,
    is_disguised,
    milliseconds,
    open_dashboard,
    time_of,
)
from tests.browser.odd_rows import DISGUISED, DISGUISES, EVIL, FIRST, LONG_AGO, ODD, OPEN
from tests.conftest import ROOT
from tests.postgres_fixture import new_home
from tests.support import query


@pytest.fixture
def client(superset: Superset) -> Iterator[httpx.Client]:
    """Provide a client that has signed in to Superset's API."""
    with client_of(superset) as client:
        yield client


@pytest.fixture(scope="module")
def failures(page: Page, superset: Superset) -> Shown:
    """Open the failures, for tests of which only the last one leaves them."""
    return open_dashboard(page, superset, "failures")


@pytest.fixture(scope="module")
def long_ago(page: Page, superset: Superset) -> Shown:
    """Open a very old run, for tests of which only the last one leaves it."""
    return open_dashboard(page, superset, "run", run=LONG_AGO)


SINCE = "date_trunc('hour', now()) - interval '7 days'"
ALERTS = "Alerts now: firing first, then the latest"
ALWAYS = ("Behind", "Pipeline now", "Alerts firing", ALERTS)
"""Charts of the overview that no filter narrows."""
EXPLAINED = "Failed steps: why they differ from the week before"
"""A chart of the overview that follows only the filter Workflow."""
UNGRAINED = (*ALWAYS, "Open runs", "Overdue", "Open runs now, oldest first", EXPLAINED)
"""Charts of the overview that the filter Grain does not change."""
TOOLTIPS = """() => [...document.querySelectorAll("div")]
    .filter(one => one.style.pointerEvents === "none" && one.style.position === "absolute"
                   && one.innerText)
    .map(one => ({
        text: one.innerText,
        elements: [...one.querySelectorAll("*")].map(element => element.tagName)}))"""
KINDS = "Kinds of failure: click one to see its failures below"


def test_a_workflow_or_an_organisation_narrows_to_its_runs(
    page: Page, superset: Superset, history_url: str
) -> None:
    """One option of a filter narrows numbers, tables and open runs to its own runs.

    The test chooses a workflow, then one of two organisations instead of the workflow.
    """
    [workflow] = query(
        history_url,
        f"""SELECT w.name, count(*) FILTER (WHERE r.start_time >= {SINCE}) AS runs,
                   count(*) FILTER (WHERE r.tracking = 'open'
                   AND r.state IN ('pending', 'running')) AS open
            FROM orchestra.runs AS r JOIN orchestra.workflows AS w ON w.id = r.workflow_id
            WHERE w.id = (SELECT workflow_id FROM orchestra.runs WHERE id = %s) GROUP BY w.name""",
        OPEN,
    )
    open_dashboard(page, superset, "overview")
    shown = draw(
        page,
        superset,
        "overview",
        lambda: _choose(page, "Workflow", workflow["name"]),
        unfiltered=ALWAYS,
    )

    assert shown.errors == []
    [row] = shown.table("Workflows")
    assert (row[0], _number(row[1])) == (workflow["name"], workflow["runs"])
    assert _number(shown.number("Runs")) == workflow["runs"]
    assert _number(shown.number("Open runs")) == workflow["open"]
    assert len(shown.rows["Open runs now, oldest first"]) == workflow["open"]
    for title in ("Latest runs", "Open runs now, oldest first"):
        assert {row["workflow_text"] for row in shown.rows[title]} == {workflow["name"]}

    [organisation] = query(
        history_url,
        f"""SELECT count(*) FILTER (WHERE start_time >= {SINCE}) AS runs, count(*) AS all,
                   count(*) FILTER (WHERE tracking = 'open'
                                    AND state IN ('pending', 'running')) AS open,
                                    array_agg(id) AS ids
            FROM orchestra.runs WHERE organization_id = 'second'""",
    )

    def change() -> None:
        choose(page, "Workflow", workflow["name"])  # Its second click takes it back.
        _choose(page, "Organisation", "second")

    shown = draw(page, superset, "overview", change, unfiltered=ALWAYS)

    assert shown.errors == []
    assert 0 < organisation["runs"] < organisation["all"]
    assert _number(shown.number("Runs")) == organisation["runs"]
    assert _number(shown.number("Open runs")) == organisation["open"] > 0
    assert {row["run_id"] for row in shown.rows["Latest runs"]} <= set(organisation["ids"])


def test_a_time_range_narrows_all_charts_but_those_of_now(
    page: Page, superset: Superset, history_url: str
) -> None:
    """Another time range gives exactly its numbers, and *now* charts do not change."""
    day = 'DATEADD(DATETRUNC(DATETIME("now"), hour), -1, day) : now'
    shown = open_dashboard(page, superset, "overview", time_range=day)

    [wanted] = query(
        history_url,
        """SELECT count(*) FILTER (WHERE start_time >= %s) AS runs,
                  count(*) FILTER (WHERE tracking = 'open'
                                   AND state IN ('pending', 'running')) AS open,
                  count(*) FILTER (WHERE state = 'failed' AND start_time >= %s) AS failed
           FROM orchestra.runs""",
        shown.since["Runs"],
        shown.since["Runs"],
    )
    assert shown.since["Runs"] == shown.asked_at["Runs"].replace(
        minute=0, second=0, microsecond=0
    ) - timedelta(days=1)
    assert _number(shown.number("Runs")) == wanted["runs"]
    assert sum(row["runs_failed"] for row in shown.rows["Runs by outcome"]) == wanted["failed"] > 0
    assert _number(shown.number("Open runs")) == wanted["open"] > 0


def test_a_tooltip_shows_markup_as_text(page: Page, failures: Shown) -> None:
    """The tooltip over a bar shows a node's name with markup as text."""
    page.wait_for_timeout(1_200)  # The bars grow for a second.
    canvas = failures.chart("Failures by node").locator("canvas").first.bounding_box()
    assert canvas is not None
    named = tuple(
        row["node"] for row in failures.rows["Failures by node"] if "\u2039" in row["node"]
    )
    tips: dict[str, list[str]] = {}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    # The position is right of the names, which take up to half of the width. A busy browser may
    # show the tooltip late.
    while not any(text.startswith(named) for text in tips):
        assert time.monotonic() < deadline, (named, tips.keys())
        for part in range(20, 90):
            page.mouse.move(
                canvas["x"] + canvas["width"] * 0.8, canvas["y"] + canvas["height"] * part / 100
            )
            page.wait_for_timeout(50)
            tips |= {one["text"]: one["elements"] for one in page.evaluate(TOOLTIPS)}
    assert {name for elements in tips.values() for name in elements} <= {
        "TABLE",
        "TBODY",
        "TR",
        "TD",
        "B",
        "SPAN",
        "DIV",
    }


def test_a_click_on_a_kind_of_failure_shows_its_failures(
    page: Page, superset: Superset, failures: Shown, history_url: str
) -> None:
    """A click on a kind of failure narrows every other chart to it; its bars stay an hour wide.

    A second click shows all failures again.
    """
    kind = failures.rows[KINDS][0]["pattern_shown"]
    cell = failures.chart(KINDS).locator("tbody td").first
    narrowed = draw(page, superset, "failures", cell.click, unfiltered=(KINDS,))

    [wanted] = query(
        history_url,
        (
            "SELECT count(*) AS steps FROM orchestra.step_failures WHERE pattern = %s"
            f" AND time >= {SINCE}"
        ),
        kind,
    )
    assert narrowed.errors == []
    assert (
        _number(narrowed.number("Failures"))
        == wanted["steps"]
        < _number(failures.number("Failures"))
    )
    patterns = query(
        history_url,
        (
            "SELECT DISTINCT pattern FROM orchestra.step_failures WHERE run_id = ANY (%s)"
            " AND time = ANY (%s)"
        ),
        [row["run_id"] for row in narrowed.rows["Latest failures"]],
        [time_of(row["time"]) for row in narrowed.rows["Latest failures"]],
    )
    assert {row["pattern"] for row in patterns} <= {kind}
    assert len(narrowed.rows["Latest failures"]) == min(wanted["steps"], 20)
    hours = [row["time"] for row in narrowed.rows["Failures by hour"]]
    assert {later - hour for hour, later in pairwise(hours)} == {3_600_000}
    assert not page.get_by_text("entries per page").first.is_visible()
    again = draw(page, superset, "failures", cell.click, unfiltered=(KINDS,))
    assert again.errors == []
    assert _number(narrowed.number("Failures")) < _number(again.number("Failures"))


def test_from_a_failure_to_its_run(
    page: Page, superset: Superset, failures: Shown, history_url: str
) -> None:
    """A run's id, with any characters, links to its waterfall, and the bars end with the run."""
    link = failures.chart("Latest failures").locator("tbody a").get_by_text(ODD, exact=True).first
    opened = draw(page, superset, "run", link.click)

    assert opened.errors == []
    [run] = query(history_url, "SELECT end_time FROM orchestra.runs WHERE id = %s", ODD)
    expected = query(
        history_url,
        (
            "SELECT position, node_id, start_time, end_time FROM orchestra.steps"
            " WHERE run_id = %s ORDER BY position"
        ),
        ODD,
    )
    labels = [f"{row['position'] + 1} {row['node_id']}" for row in expected]
    started = [row for row in expected if row["start_time"] is not None]
    assert len(expected) == 120 > len(started)
    bars = sorted(opened.rows["Waterfall"], key=lambda row: int(str(row["step"]).split()[0]))
    assert [row["step"] for row in bars] == [labels[row["position"]] for row in started]
    for bar, row in zip(bars, started, strict=True):
        # The chart has times rounded to milliseconds.
        assert bar["start_time"] / 1000 == pytest.approx(row["start_time"].timestamp(), abs=0.001)
        assert bar["until"] / 1000 == pytest.approx(row["end_time"].timestamp(), abs=0.001)
    assert max(bar["until"] for bar in bars) / 1000 <= run["end_time"].timestamp()
    assert [row[0] for row in opened.table("Step by step")] == labels
    assert opened.table("The run")[0][0] == ODD


@pytest.mark.parametrize("run", [OPEN, FIRST])
def test_a_run_that_goes_on(page: Page, superset: Superset, history_url: str, run: str) -> None:
    """A running or pending run, and its running step, have a duration until the last read."""
    shown = open_dashboard(page, superset, "run", run=run)

    assert shown.errors == []
    [read] = query(
        history_url,
        "SELECT steps_observed_at AS at FROM orchestra_etl.run_ledger WHERE run_id = %s",
        run,
    )
    begun = time_of(shown.rows["The run"][0]["start_time"])
    assert begun is not None
    age = (read["at"] - begun).total_seconds()
    assert milliseconds(shown.number("Duration")) / 1000 == pytest.approx(age, abs=1)
    last = max(shown.rows["Waterfall"], key=lambda row: row["until"])
    assert last["outcome_label"] == "Running"
    assert last["until"] / 1000 == pytest.approx(read["at"].timestamp(), abs=0.001)
    assert shown.rows["The run"][0]["elapsed_ms"] / 1000 == pytest.approx(age, abs=0.01)
    assert shown.table("Its first error") == [["none", "none"]]


def test_a_name_stays_in_its_cell(long_ago: Shown) -> None:
    """A name with control characters, an override and 400 letters is marked and cut in its row."""
    assert long_ago.errors == []
    [[step, *_], *_] = long_ago.table("Step by step")
    marked = EVIL.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd")
    assert step == f"1 {marked[:200]}"
    box = long_ago.chart("Step by step").locator("tbody tr").first.bounding_box()
    assert box is not None
    assert box["height"] < 200


def test_the_choice_of_runs(
    page: Page, superset: Superset, long_ago: Shown, history_url: str
) -> None:
    """A link shows its run however old it is; a workflow chosen beside it leads to its newest run.

    The newest run is the newest one that has ended.
    """
    assert long_ago.table("The run")[0][0] == LONG_AGO

    [newest] = query(
        history_url,
        """SELECT r.id, w.name FROM orchestra.runs AS r
           JOIN orchestra.workflows AS w ON w.id = r.workflow_id
           WHERE w.id <> (SELECT workflow_id FROM orchestra.runs WHERE id = %s) AND w.id <> 'new'
             AND r.end_time IS NOT NULL
           ORDER BY r.start_time DESC LIMIT 1""",
        LONG_AGO,
    )
    chosen = draw(page, superset, "run", lambda: _choose(page, "Workflow", newest["name"]))
    assert chosen.table("The run")[0][0] == newest["id"]


def test_the_charts_do_not_wait_for_a_chosen_run(superset: Superset, client: httpx.Client) -> None:
    """The dashboard Run waits for a run, unless the page's address or its stored state has one.

    If such a page saves the dashboard, it still waits for a run without one.
    """
    address = "/api/v1/dashboard/orchestra-run"
    [dashboard] = client.get(address, params={"q": "(columns:!(id))"}).json()["result"].values()
    run = "NATIVE_FILTER-run"

    def metadata(part: str) -> str:
        page = f"{superset.address}/superset/dashboard/orchestra-run/{part}"
        answer = client.get(
            address, params={"q": "(columns:!(json_metadata))"}, headers={"Referer": page}
        )
        return str(answer.json()["result"]["json_metadata"])

    def waits(part: str) -> bool:
        filters = json.loads(metadata(part))["native_filter_configuration"]
        [found] = [one for one in filters if one["id"] == run]
        return found.get("requiredFirst") is True

    def key(**state: list[str]) -> str:
        value = json.dumps({run: {"id": run, "extraFormData": {}, "filterState": state}})
        stored = client.post(f"/api/v1/dashboard/{dashboard}/filter_state", json={"value": value})
        return str(stored.json()["key"])

    link = f"?native_filters=({run}:(filterState:(value:!('a b'))))"
    for part in ("", "?native_filters=!(", f"?native_filters_key={key()}", "?native_filters_key=x"):
        assert waits(part), part
    assert not waits(link)
    assert not waits(f"?native_filters_key={key(value=['a b'])}")
    saved = client.put(f"/api/v1/dashboard/{dashboard}", json={"json_metadata": metadata(link)})
    assert saved.status_code == 200, saved.text
    assert waits("")


def test_a_disguised_name_is_marked_and_found(page: Page, superset: Superset) -> None:
    """Disguised names are marked in tables and filters, and choosing one finds its runs.

    Disguised names have bidirectional overrides, invisible or control characters.
    """
    workflow, organisation = (
        displayed(DISGUISES["workflow"]),
        displayed(DISGUISES["organisation"], markup=False),
    )
    assert [is_disguised(name) for name in (workflow, organisation)] == [True, True]
    shown = open_dashboard(page, superset, "overview")
    assert workflow in [row[0] for row in shown.table("Workflows")]

    def narrow() -> None:
        choose(page, "Organisation", organisation)
        _choose(page, "Workflow", workflow)

    narrowed = draw(page, superset, "overview", narrow, unfiltered=ALWAYS)
    assert [error for error in narrowed.errors if "No results" not in error] == []
    assert [row[:2] for row in narrowed.table("Workflows")] == [[workflow, "1"]]
    assert [row["run_id"] for row in narrowed.rows["Latest runs"]] == [DISGUISED]
    [run, name, *_] = open_dashboard(page, superset, "run", run=DISGUISED).table("The run")[0]
    assert (run, name) == (DISGUISED, workflow)


def test_gaps_are_filled_at_every_grain(page: Page, superset: Superset) -> None:
    """Between two runs weeks apart each hour, day or week appears, with 0 or as not known.

    A count is 0; a rate or a duration is not known.
    """
    weeks = 'DATEADD(DATETRUNC(DATETIME("now"), hour), -61, day) : now'
    hour = 3_600_000
    shown = open_dashboard(page, superset, "overview", time_range=weeks)
    weekly = draw(
        page, superset, "overview", lambda: _choose(page, "Grain", "Week"), unfiltered=UNGRAINED
    )

    assert shown.errors == weekly.errors == []
    unknown = {
        "Runs by outcome": 0,
        "Run duration, p50 and p95": None,
        "Success rate by workflow": None,
    }
    for title in (*unknown, "Model cost by workflow"):
        for drawn, step in (
            (shown, 24 * hour if title.startswith("Success") else hour),
            (weekly, 168 * hour),
        ):
            rows = drawn.rows[title]
            assert {later["hour"] - row["hour"] for row, later in pairwise(rows)} == {step}, title
            if title in unknown:
                # Of 61 days only the first and the last eight have runs.
                values = {
                    value
                    for row in rows[2 : len(rows) // 2]
                    for name, value in row.items()
                    if name != "hour"
                }
                assert values == {unknown[title]}, title


def test_an_edited_file_arrives_and_a_users_chart_stays(
    page: Page, superset: Superset, client: httpx.Client
) -> None:
    """A second call during the first applies a file's new title and keeps a user's chart."""
    [dataset] = client.get(
        "/api/v1/dataset/", params={"q": "(filters:!((col:table_name,opr:eq,value:run_summary)))"}
    ).json()["result"]
    chart = {
        "slice_name": "my own",
        "viz_type": "table",
        "datasource_id": dataset["id"],
        "datasource_type": "table",
    }
    assert client.post("/api/v1/chart/", json={**chart, "params": "{}"}).status_code == 201
    edited = next(
        path
        for path in (superset.files / "assets" / "charts").rglob("*.yaml")
        if "slice_name: Runs by outcome\n" in path.read_text()
    )
    before = edited.read_text()
    edited.write_text(before.replace("slice_name: Runs by outcome\n", "slice_name: Runs, my way\n"))

    again = subprocess.run(
        superset.command,
        env=dict(superset.environment),
        capture_output=True,
        text=True,
        check=False,
    )

    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stdout
    assert superset.password_of("admin") not in again.stdout
    shown = open_dashboard(page, superset, "overview")
    edited.write_text(before)
    [renamed] = client.get(
        "/api/v1/chart/", params={"q": "(filters:!((col:slice_name,opr:eq,value:'Runs, my way')))"}
    ).json()["result"]
    # Another call, which loads Superset and imports everything, is not needed.
    restored = client.put(f"/api/v1/chart/{renamed['id']}", json={"slice_name": "Runs by outcome"})
    assert restored.status_code == 200, restored.text
    assert shown.errors == []
    assert "Runs, my way" in shown.rows
    assert "Runs by outcome" not in shown.rows
    found = client.get(
        "/api/v1/chart/", params={"q": "(filters:!((col:slice_name,opr:eq,value:'my own')))"}
    ).json()
    assert found["count"] == 1


def test_a_mistake_in_a_file_is_named(superset: Superset) -> None:
    """A file that Superset cannot import is named in one line, and nothing is changed."""
    broken = superset.files / "assets" / "charts" / "broken.yaml"
    broken.write_text("slice_name: no type\nversion: 1.0.0\n")
    try:
        done = subprocess.run(
            superset.command,
            env=dict(superset.environment),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        broken.unlink()

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "charts/broken.yaml" in line
    assert "viz_type" in line


def test_the_bounds_of_a_time_range_are_constants(client: httpx.Client) -> None:
    """A chart's SQL has the bounds as constants: PostgreSQL would compute others for each row."""
    [dataset] = client.get(
        "/api/v1/dataset/", params={"q": "(filters:!((col:table_name,opr:eq,value:run_summary)))"}
    ).json()["result"]
    chart_query = {
        "columns": ["run_id"],
        "filters": [
            {"col": "start_time", "op": "TEMPORAL_RANGE", "val": "2026-01-02 : 2026-03-04T05:06:07"}
        ],
    }

    answer = client.post(
        "/api/v1/chart/data",
        json={
            "datasource": {"id": dataset["id"], "type": "table"},
            "queries": [chart_query],
            "result_type": "query",
        },
    )

    [result] = answer.json()["result"]
    assert re.findall(r"start_time (\S+) (.*?'[^']*')", result["query"]) == [
        (">=", "TIMESTAMPTZ '2026-01-02 00:00:00.000000'"),
        ("<", "TIMESTAMPTZ '2026-03-04 05:06:07.000000'"),
    ]


def test_payloads_are_out_of_reach(client: httpx.Client, history_url: str) -> None:
    """In SQL Lab views are readable; payload columns, operations tables and writes are not."""
    [database] = client.get("/api/v1/database/").json()["result"]

    def execute(sql: str) -> httpx.Response:
        return client.post(
            "/api/v1/sqllab/execute/",
            json={"database_id": database["id"], "sql": sql, "runAsync": False},
        )

    answer = execute("SELECT count(*) AS runs FROM orchestra.run_summary")
    assert answer.json()["data"] == query(
        history_url, "SELECT count(*) AS runs FROM orchestra.runs"
    )
    for table, columns in PAYLOADS.items():
        for column in columns:
            refused = execute(f"SELECT {column} FROM {table.fullname}")
            assert "permission denied" in refused.text, (table.fullname, column, refused.text)
    assert "permission denied" in execute("SELECT * FROM orchestra_etl.dead_letters").text
    [role] = query(
        history_url,
        "SELECT rolsuper, rolcreaterole, (SELECT array_agg(m.roleid::regrole::text)"
        " FROM pg_auth_members AS m"
        " WHERE m.member = r.oid) AS groups, has_table_privilege(oid, 'orchestra.runs', "
        "'INSERT, UPDATE, DELETE') AS writes"
        " FROM pg_roles AS r WHERE rolname = 'orchestra_dashboards'",
    )
    assert role == {
        "rolsuper": False,
        "rolcreaterole": False,
        "groups": ["orchestra_analyst"],
        "writes": False,
    }


def test_a_fresh_machine_shows_the_demo(superset: Superset) -> None:
    """On a fresh machine the demo is loaded first, and every dashboard's views have rows."""
    home = new_home()
    try:
        _share_tables(superset, home / "demo")
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
            empty = [
                view
                for view in views
                if not query(server.url, f"SELECT 1 AS row FROM orchestra.{view} LIMIT 1")
            ]
            assert empty == []
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_another_database_needs_its_roles(
    superset: Superset, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """If the database in DATABASE_URL lacks something, one line says so; otherwise it is served.

    The two steps of the compose file work too.
    """

    home = str(tmp_path / "home")

    def serve(url: str, *options: str) -> subprocess.CompletedProcess[str]:
        variables = {**superset.environment, "DATABASE_URL": url, "ORCHESTRA_ETL_HOME": home}
        command = [*superset.command, "--exit", *options]
        return subprocess.run(
            command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )

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
    _share_tables(superset, Path(home))
    assert (done := serve(database_url, "--only", "import")).returncode == 0, done.stderr
    assert "the database that DATABASE_URL names" in done.stdout
    assert "are served at" not in done.stdout
    assert (done := serve(database_url, "--only", "serve")).returncode == 0, done.stderr
    assert "importing the dashboards" not in done.stdout
    assert "are served at" in done.stdout


def test_the_start_names_its_steps(superset: Superset) -> None:
    """Each step of the first start is named, in this order, with the seconds that it took."""
    steps = (
        "loading Superset",
        "bringing Superset's tables up to date",
        "creating Superset's permissions and roles",
        "importing the dashboards",
        "starting the server",
    )
    timed = re.findall(r"^(.*?)(?: \(.*\))? \.\.\. \d+ s$", superset.printed, re.MULTILINE)
    assert tuple(timed) == steps


def test_no_event_is_stored(superset: Superset, failures: Shown) -> None:
    """Opening a dashboard adds no row to Superset's log, from which nothing would be deleted."""
    with closing(sqlite3.connect(superset.home / "superset.db")) as connection:
        assert connection.execute("SELECT count(*) FROM logs").fetchall() == [(0,)]


def test_secrets_are_kept(superset: Superset) -> None:
    """Keys are in files of the user alone, no default password works, and no log holds a key."""
    names = ("admin-password", "viewer-password", "database-password", "secret-key")
    for name in names:
        assert stat.S_IMODE((superset.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(superset.home.stat().st_mode) == 0o700
    refused = httpx.post(
        f"{superset.address}/api/v1/security/login",
        json={"username": "admin", "password": "admin", "provider": "db"},
    )
    assert refused.status_code == 401
    assert superset.printed.count(superset.password_of("admin")) == 1
    logs = "".join((superset.home / name).read_text() for name in ("superset.log", "provision.log"))
    assert [name for name in names if (superset.home / name).read_text().strip() in logs] == []


def _share_tables(superset: Superset, home: Path) -> None:
    """Copy Superset's own database and keys to another data folder.

    To create all its tables takes half a minute.
    """
    folder = home / "dashboards"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("admin-password", "viewer-password", "database-password", "secret-key"):
        shutil.copy2(superset.home / name, folder / name)
    with (
        closing(sqlite3.connect(superset.home / "superset.db")) as source,
        closing(sqlite3.connect(folder / "superset.db")) as copy,
    ):
        source.backup(copy)


def _choose(page: Page, name: str, option: str) -> None:
    """Choose an option in the filter bar, and apply it."""
    choose(page, name, option)
    apply(page)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
