"""Prompts and answers on the dashboard of a run: for the role Payload viewer and nobody else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Page, Request
from psycopg.types.json import Jsonb

from tests.browser.dashboards import Shown, Superset, become, client_of, open_dashboard
from tests.support import query

CHART = "Prompts and answers"
ROW = "ROW-prompts"
"""The row of the chart in the layout of the dashboard."""
DATA = "/api/v1/chart/data"
LONGEST = 8000
"""The longest prompt that the dashboard shows whole."""
READER = "payload-viewer"
"""The user with the role."""
OTHERS = ("viewer", "admin")
"""Users without the role."""
CANARY = "canary of the payloads"
MARKUP = f'{CANARY} <img src=x onerror="window.canary = true"><b>bold</b>\n\tsecond line \u202e'
LONG = "a long answer " * 1000

Body = dict[str, Any]


class Chart(NamedTuple):
    """The chart of prompts and answers, as its viewer's browser requests it."""

    id: int
    dataset: int
    database: int
    body: Body


def bring_up_to_date(superset: Superset, *options: str) -> subprocess.CompletedProcess[str]:
    """Import the dashboards again while they are served."""
    return subprocess.run(
        [*superset.command, "--only", "import", *options],
        env=dict(superset.environment),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def with_payloads(superset: Superset) -> Superset:
    """Provide Superset while it shows prompts and answers, until the last test removes them."""
    done = bring_up_to_date(superset, "--payloads")
    assert done.returncode == 0, done.stderr
    return superset


@pytest.fixture(scope="module")
def page(page: Page, with_payloads: Superset) -> Iterator[Page]:
    """Provide the page while the user with the role is signed in."""
    become(page, with_payloads, READER)
    yield page
    become(page, with_payloads, "admin")


@pytest.fixture(scope="module")
def run(history_url: str) -> str:
    """Provide a run with a call whose prompt has markup, and whose answer is long."""
    [step] = query(
        history_url,
        """SELECT s.id, s.run_id FROM orchestra.steps AS s
           JOIN orchestra.run_summary AS r ON r.run_id = s.run_id
           WHERE s.response_model LIKE 'gpt-4o%' AND s.state = 'succeeded'
             AND r.outcome = 'succeeded'
           ORDER BY r.start_time DESC LIMIT 1""",
    )
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": MARKUP}]
    answer = {"choices": [{"message": {"role": "assistant", "content": LONG}}]}
    for table, data in (("inputs", {"messages": messages}), ("outputs", answer)):
        query(
            history_url,
            f"UPDATE orchestra.{table} SET data = %s WHERE step_id = %s",
            Jsonb(data),
            step["id"],
        )
    return str(step["run_id"])


@pytest.fixture(scope="module")
def opened(page: Page, with_payloads: Superset, run: str) -> tuple[Shown, Chart]:
    """Open the dashboard of that run as the user with the role."""
    bodies: list[Body] = []

    def keep(request: Request) -> None:
        if DATA in request.url and "prompt_shown" in (request.post_data or ""):
            bodies.append(request.post_data_json or {})

    page.on("request", keep)
    shown = open_dashboard(page, with_payloads, "run", run=run)
    page.remove_listener("request", keep)
    body = bodies[-1]
    dataset = body["datasource"]["id"]
    with client_of(with_payloads) as admin:
        found = admin.get(f"/api/v1/dataset/{dataset}").json()["result"]
    return shown, Chart(body["form_data"]["slice_id"], dataset, found["database"]["id"], body)


@pytest.fixture(scope="module")
def shown(opened: tuple[Shown, Chart]) -> Shown:
    """Provide the dashboard of that run as the user with the role sees it."""
    return opened[0]


@pytest.fixture(scope="module")
def chart(opened: tuple[Shown, Chart]) -> Chart:
    """Provide the chart, and the request with which its viewer's browser gets its data."""
    return opened[1]


def test_none_of_it_is_there_by_default(superset: Superset, history_url: str) -> None:
    """Without the option nothing in Superset and no login reads payloads."""
    assert_absent(superset, history_url)
    assert "payload" not in superset.printed
    assert not (superset.home / "payload-database-password").exists()
    assert not (superset.home / "payload-viewer-password").exists()
    with client_of(superset) as admin:
        roles = admin.get("/api/v1/security/roles/?q=(page_size:100)").json()["result"]
    assert "Payload viewer" not in {one["name"] for one in roles}


def test_the_role_reads_prompts_and_answers(
    page: Page, with_payloads: Superset, history_url: str, failed_run: str
) -> None:
    """With the role, the dashboard of a run shows each call's prompt and answer as SQL has them."""
    shown = open_dashboard(page, with_payloads, "run", run=failed_run)

    wanted = query(
        history_url,
        """SELECT (s.position + 1) || ' ' || s.node_id AS step, c.system, c.prompt, c.answer,
                  c.finish_reason
           FROM orchestra.model_calls AS c JOIN orchestra.steps AS s ON s.id = c.step_id
           WHERE c.run_id = %s ORDER BY s.position""",
        failed_run,
    )
    assert shown.errors == []
    assert any(row["prompt"] and row["answer"] for row in wanted)
    columns = ("step", "system_shown", "prompt_shown", "answer_shown", "finish_shown")
    assert [[row[name] for name in columns] for row in shown.rows[CHART]] == [
        [displayed(value or "") for value in row.values()] for row in wanted
    ]
    assert [row[2:5] for row in shown.table(CHART)] == [
        [displayed(row[name] or "").strip() for name in ("system", "prompt", "answer")]
        for row in wanted
    ]
    assert len(shown.table("Step by step")) > len(wanted)


def test_texts_are_data(shown: Shown, page: Page) -> None:
    """Markup in a prompt is text, lines stay lines, and a long answer is cut and says so."""
    [row] = [one for one in shown.rows[CHART] if CANARY in one["prompt_shown"]]
    [cells] = [one for one in shown.table(CHART) if CANARY in one[3]]

    assert cells[3] == row["prompt_shown"] == displayed(MARKUP)
    assert {"\u202e", "<"}.isdisjoint(cells[3])
    assert not shown.elements & {"IMG", "B", "SCRIPT", "A"}
    assert page.evaluate("window.canary") is None
    assert row["answer_shown"] == f"{LONG[:LONGEST]}\n[cut: {len(LONG):,} characters]"
    box = shown.chart(CHART).locator("tbody tr").filter(has_text=CANARY).bounding_box()
    assert box is not None
    assert box["height"] < 500


@pytest.mark.parametrize("other", OTHERS)
def test_others_see_the_page_without_them(
    page: Page, with_payloads: Superset, chart: Chart, run: str, other: str
) -> None:
    """Without the role, even an administrator sees the page as it is without the option."""
    become(page, with_payloads, other)
    try:
        shown = open_dashboard(page, with_payloads, "run", run=run)

        assert shown.errors == []
        assert shown.table("The run")[0][0] == run
        assert CHART not in {*shown.rows, *shown.tables}
        assert not holds(page.content(), CANARY, ROW)
        page.goto(f"{with_payloads.address}/explore/?slice_id={chart.id}")
        page.wait_for_load_state("networkidle")
        assert not holds(page.content(), CANARY)
    finally:
        become(page, with_payloads, READER)


def requests(chart: Chart) -> list[tuple[str, str, Body | None]]:
    """Return every kind of request that could reach the texts."""
    sql = "SELECT prompt, answer FROM orchestra.model_calls"
    source = {"id": chart.dataset, "type": "table"}
    columns = {"columns": ["prompt", "answer"], "row_limit": 10}
    return [
        ("POST", DATA, chart.body),
        ("POST", DATA, {**chart.body, "force": True}),
        ("POST", DATA, {**chart.body, "result_format": "csv"}),
        ("POST", DATA, {**chart.body, "result_type": "samples"}),
        ("POST", DATA, {"datasource": source, "queries": [columns], "result_type": "full"}),
        ("GET", f"/api/v1/chart/{chart.id}/data/", None),
        ("POST", f"/datasource/samples?datasource_type=table&datasource_id={chart.dataset}", {}),
        ("GET", f"/api/v1/datasource/table/{chart.dataset}/column/prompt/values/", None),
        (
            "POST",
            "/api/v1/sqllab/execute/",
            {"database_id": chart.database, "sql": sql, "runAsync": False},
        ),
        ("POST", "/api/v1/sqllab/estimate/", {"database_id": chart.database, "sql": sql}),
        ("PUT", "/api/v1/chart/warm_up_cache", {"chart_id": chart.id}),
    ]


@pytest.mark.parametrize("other", OTHERS)
def test_others_have_no_way_to_them(with_payloads: Superset, chart: Chart, other: str) -> None:
    """Without the role no request gets a prompt, even if its result is cached for the role."""
    with client_of(with_payloads, READER) as reader:
        assert CANARY in reader.post(DATA, json=chart.body).text
    with client_of(with_payloads, other) as client:
        for method, path, body in requests(chart):
            answer = client.request(method, path, json=body)
            assert CANARY not in answer.text, path
            assert answer.status_code >= 400 or "viz_error" in answer.text, path
        layout = "?q=(columns:!(charts,position_json))"
        for path in ("", layout, "/charts", "/datasets", "/tabs"):
            answer = client.get(f"/api/v1/dashboard/orchestra-run{path}")
            assert answer.status_code == 200, path
            assert not holds(answer.text, ROW, "prompt_shown", CANARY), path
        if client.get("/api/v1/dataset/").status_code == 200:
            return  # An administrator sees the names of all charts and datasets.
        assert client.get(f"/api/v1/chart/{chart.id}").status_code == 404
        charts = client.get("/api/v1/chart/?q=(page_size:100)").json()["result"]
        assert charts
        assert chart.id not in {one["id"] for one in charts}


def test_without_signing_in_nothing_is_shown(with_payloads: Superset, chart: Chart) -> None:
    """Without signing in, every request is refused, and the page leads to the form."""
    with httpx.Client(base_url=with_payloads.address, timeout=60) as client:
        for method, path, body in requests(chart):
            answer = client.request(method, path, json=body)
            assert answer.status_code in (302, 400, 401, 403), path
            assert CANARY not in answer.text, path
        for path in ("/superset/dashboard/orchestra-run/", f"/explore/?slice_id={chart.id}"):
            answer = client.get(path)
            assert answer.status_code in (302, 401, 403), path
            assert not holds(answer.text, CANARY, ROW), path


def test_the_role_has_the_limits_of_viewers(with_payloads: Superset, chart: Chart) -> None:
    """With the role a user gets the chart's own query: no SQL, no other column, no other table."""
    [first, *_] = chart.body["queries"]
    metric = {"expressionType": "SQL", "sqlExpression": "max(prompt)", "label": "mine"}
    with client_of(with_payloads, READER) as client:
        for change in ({"columns": ["tools"]}, {"metrics": [metric]}):
            body = {**chart.body, "queries": [{**first, **change}]}
            assert client.post(DATA, json=body).status_code == 403
        for method, path, body_ in requests(chart)[3:]:
            answer = client.request(method, path, json=body_)
            assert answer.status_code in (400, 403), path
            assert CANARY not in answer.text, path


def test_the_login_reads_payloads_and_nothing_more(
    with_payloads: Superset, history_url: str
) -> None:
    """The login is a member of the payload analysts alone, and its transactions are read-only."""
    [role] = query(
        history_url,
        """SELECT rolsuper, rolcreaterole, rolconfig,
                  (SELECT array_agg(m.roleid::regrole::text) FROM pg_auth_members AS m
                   WHERE m.member = r.oid) AS groups,
                  has_table_privilege(oid, 'orchestra.runs', 'INSERT, UPDATE, DELETE') AS writes
           FROM pg_roles AS r WHERE rolname = 'orchestra_dashboards_payloads'""",
    )
    assert "default_transaction_read_only=on" in role.pop("rolconfig")
    assert role == {
        "rolsuper": False,
        "rolcreaterole": False,
        "groups": ["orchestra_payload_analyst"],
        "writes": False,
    }
    secret = with_payloads.home / "payload-database-password"
    assert secret.stat().st_mode & 0o777 == 0o600
    logs = "".join(
        (with_payloads.home / f"{name}.log").read_text() for name in ("superset", "provision")
    )
    assert secret.read_text().strip() not in logs
    assert CANARY not in logs


def test_the_next_call_without_the_option_removes_them(
    with_payloads: Superset, page: Page, run: str, history_url: str
) -> None:
    """Without the option neither login, connection, dataset nor chart is there, and no error."""
    done = bring_up_to_date(with_payloads)
    assert done.returncode == 0, done.stderr
    assert "payload" not in done.stdout
    assert_absent(with_payloads, history_url)
    shown = open_dashboard(page, with_payloads, "run", run=run)
    assert shown.errors == []
    assert CHART not in shown.tables


def assert_absent(superset: Superset, url: str) -> None:
    """Check that nothing in Superset and in the database reads payloads."""
    with client_of(superset) as admin:
        names = {
            kind: {
                one[name]
                for one in admin.get(f"/api/v1/{kind}/?q=(page_size:100)").json()["result"]
            }
            for kind, name in (
                ("database", "database_name"),
                ("dataset", "table_name"),
                ("chart", "slice_name"),
            )
        }
    assert names["database"] == {"orchestra-etl"}
    assert "model_calls" not in names["dataset"]
    assert CHART not in names["chart"]
    assert query(
        url, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'orchestra!_dash%' ESCAPE '!'"
    ) == [{"rolname": "orchestra_dashboards"}]


def displayed(text: str) -> str:
    """Return a text as the dashboard writes it: only markup and overrides look different."""
    return re.sub("<(?=[A-Za-z/!?])", "\u2039", text).replace("\u202e", "\ufffd")


def holds(text: str, *words: str) -> bool:
    """Return whether one of the words is in the text."""
    return any(word in text for word in words)
