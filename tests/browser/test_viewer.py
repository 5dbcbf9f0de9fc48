"""A viewer gets only what the dashboards request: tested by requests, not by menus."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Request

from tests.browser.dashboards import (
    DASHBOARDS,
    Superset,
    become,
    client_of,
    draw,
    open_dashboard,
)
from tests.conftest import ROOT
from tests.support import query

KINDS = "Kinds of failure: click one to see its failures below"
DATA = "/api/v1/chart/data"

Body = dict[str, Any]


@pytest.fixture(scope="module")
def page(page: Page, superset: Superset) -> Iterator[Page]:
    """Provide the page while viewer is signed in."""
    become(page, superset, "viewer")
    yield page
    become(page, superset, "admin")


@pytest.fixture(scope="module")
def viewer(superset: Superset) -> Iterator[httpx.Client]:
    """Provide a client in which viewer has signed in."""
    with client_of(superset, "viewer") as client:
        yield client


@pytest.fixture(scope="module")
def admin(superset: Superset) -> Iterator[httpx.Client]:
    """Provide a client in which admin has signed in."""
    with client_of(superset) as client:
        yield client


@pytest.fixture(scope="module")
def chart_requests(page: Page, superset: Superset) -> Mapping[str, Body]:
    """Provide the viewer's requests for the overview's charts, by title, and for its filter."""
    charts = page.request.get(
        f"{superset.address}/api/v1/dashboard/orchestra-overview/charts"
    ).json()["result"]
    titles = {chart["id"]: chart["slice_name"] for chart in charts}
    bodies: dict[str, Body] = {}

    def keep(request: Request) -> None:
        if "/api/v1/chart/data" in request.url:
            body = request.post_data_json
            assert isinstance(body, dict)
            form = body["form_data"]
            bodies[titles[form["slice_id"]] if "slice_id" in form else form["native_filter_id"]] = (
                body
            )

    page.on("request", keep)
    open_dashboard(page, superset, "overview")
    page.remove_listener("request", keep)
    return bodies


def test_a_viewer_sorts_pages_and_picks(page: Page, superset: Superset) -> None:
    """The viewer can sort a long table, turn its page, and choose one kind of failure."""
    shown = open_dashboard(page, superset, "failures")
    others = shown.rows.keys() - {"Latest failures"}
    latest = shown.chart("Latest failures")
    sort = latest.locator("th", has_text="Message")
    by_message = draw(page, superset, "failures", sort.click, unfiltered=others)
    turn = latest.locator(".pagination").get_by_text("2", exact=True)
    second = draw(page, superset, "failures", turn.click, unfiltered=others)
    kind = shown.chart(KINDS).locator("tbody td").first
    narrowed = draw(page, superset, "failures", kind.click, unfiltered=(KINDS,))

    assert by_message.errors == second.errors == narrowed.errors == []
    assert by_message.rows["Latest failures"] != shown.rows["Latest failures"]
    assert second.rows["Latest failures"] != by_message.rows["Latest failures"]
    assert narrowed.number("Failures") != shown.number("Failures")


def test_a_viewer_downloads_rows(viewer: httpx.Client, chart_requests: Mapping[str, Body]) -> None:
    """The viewer can download the rows of a chart as CSV."""
    answer = _send(viewer, {**chart_requests["Workflows"], "result_format": "csv"})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.startswith("Workflow,Runs,") or answer.text.startswith(
        "\ufeffWorkflow,Runs,"
    )


def _sql(expression: str) -> Body:
    return {"expressionType": "SQL", "sqlExpression": expression, "label": "mine"}


LOCK = "pg_advisory_lock(42)"
AXIS = {
    "expressionType": "SQL",
    "columnType": "BASE_AXIS",
    "isColumnReference": False,
    "timeGrain": "PT1H",
    "label": "hour",
}
QUERY: Mapping[str, tuple[str, Body]] = {
    "a column in SQL": ("Workflows",
                        {"columns": [_sql("query_to_xml('SELECT 1', true, true, '')::text")]}),
    "a column beside the chart's": ("Workflows", {"columns": ["workflow_name", "organization_id"]}),
    "a column that is SQL": ("Latest runs", {"columns": ["run_id", LOCK]}),
    "a column of a filter": ("NATIVE_FILTER-workflow", {"columns": ["hour"]}),
    "SQL as a column of a filter": ("NATIVE_FILTER-workflow", {"columns": [_sql(LOCK)]}),
    "a metric of a filter": ("NATIVE_FILTER-workflow", {"metrics": ["total_runs"]}),
    "a metric in SQL": ("Runs", {"metrics": [_sql("set_config('statement_timeout', '0', false)")]}),
    "a metric in harmless SQL": ("Runs", {"metrics": [_sql("max(runs)")]}),
    "a metric of a column": (
        "Runs",
        {"metrics": [{"expressionType": "SIMPLE", "column": {"column_name": "runs"},
                      "aggregate": "MAX", "label": "mine"}]},
    ),
    "a metric beside the chart's": ("Runs", {"metrics": ["runs_failed"]}),
    "a metric by its label": ("Runs", {"metrics": [{"label": "runs_failed"}]}),
    "an order in SQL": ("Workflows", {"orderby": [[_sql(LOCK), True]]}),
    "an order that is SQL": ("Workflows", {"orderby": [[LOCK, True]]}),
    "a limit by SQL": ("Workflows", {"series_limit": 2, "series_columns": ["workflow_name"],
                                     "series_limit_metric": _sql(LOCK)}),
    "a limit by SQL, as it was named once": ("Workflows", {"timeseries_limit_metric": _sql(LOCK)}),
    "a series in SQL": ("Success rate by workflow",
                        {"columns": [_sql(LOCK)], "series_columns": [_sql(LOCK)]}),
    "a group, as it was named once": ("Workflows", {"groupby": ["organization_id"]}),
    "another axis": ("Runs by outcome", {"columns": [{**AXIS, "sqlExpression": LOCK}]}),
    "another column as the axis": ("Runs by outcome",
                                   {"columns": [{**AXIS, "sqlExpression": "organization_id"}]}),
    "an axis in another grain": ("Runs by outcome",
                                 {"columns": [{**AXIS, "sqlExpression": "hour",
                                               "timeGrain": LOCK}]}),
    "an axis in a refused grain": ("Runs by outcome",
                                   {"columns": [{**AXIS, "sqlExpression": "hour",
                                                 "timeGrain": "PT1S"}]}),
    "a grain in SQL": ("Runs by outcome", {"extras": {"time_grain_sqla": LOCK}}),
    "a filter by SQL": ("Workflows", {"filters": [{"col": _sql(LOCK), "op": "IS NOT NULL"}]}),
    "a filter by a column that nobody shows": ("Workflows",
                                               {"filters": [{"col": "counts",
                                                             "op": "IS NOT NULL"}]}),
    "a filter's grain": ("Workflows", {"filters": [{"col": "hour", "op": "TEMPORAL_RANGE",
                                                    "val": "2026", "grain": LOCK}]}),
    "where": ("Workflows", {"extras": {"where": f"({LOCK} IS NULL)"}}),
    "where that closes the brackets": ("Model cost by workflow",
                                       {"extras": {"where": "(currency = 'USD') OR (true)"}}),
    "no where": ("Model cost by workflow", {"extras": {"where": ""}}),
    "having": ("Workflows", {"extras": {"having": f"({LOCK} IS NULL)"}}),
    "where, as it was named once": ("Workflows", {"where": f"({LOCK} IS NULL)"}),
    "having, as it was named once": ("Workflows", {"having": f"({LOCK} IS NULL)"}),
    "Jinja": ("Workflows", {"extras": {"where": "{{ dataset(1) }}"}}),
    "SQL of another dialect": ("Workflows", {"extras": {"transpile_to_dialect": True,
                                                        "where": "(1 = 1)"}}),
    "another time": ("Workflows", {"granularity": LOCK}),
    "another time, as it was named once": ("Workflows", {"granularity_sqla": LOCK}),
    "annotations": (
        "Runs by outcome",
        {"annotation_layers": [{"name": "a", "annotationType": "EVENT", "sourceType": "table",
                                "value": 1, "show": True}]},
    ),
    "other times": ("Runs by outcome", {"time_offsets": ["1 day ago"]}),
    "another shape": (
        "Runs by outcome",
        {"post_processing": [{"operation": "resample",
                              "options": {"method": "ffill", "rule": "1us"}}]},
    ),
    "a series filled up by other spans": (
        "Runs by outcome",
        {"post_processing": [{"operation": "resample",
                              "options": {"method": "asfreq", "rule": "1h"}}]},
    ),
    "a pivot by all": (
        "Runs by outcome",
        {"post_processing": [{"operation": "pivot",
                              "options": {"index": ["hour"], "columns": ["runs_failed"]}}]},
    ),
    "a series filled up in another way": (
        "Runs by outcome",
        {"post_processing": [{"operation": "resample",
                              "options": {"method": "linear", "rule": "1h", "fill_value": 0}}]},
    ),
    "an index of all": (
        "Runs by outcome",
        {"post_processing": [{"operation": "pivot",
                              "options": {"index": ["hour", "runs_failed"], "columns": []}}]},
    ),
    "a sum over rows": (
        "Workflows",
        {"post_processing": [{"operation": "aggregate",
                              "options": {"groupby": [], "aggregates": {}}}]},
    ),
    "a metric that is a column's SQL": ("Workflows",
                                        {"metrics": [{**_sql("max(organization_id)"),
                                                      "columnType": "BASE_AXIS"}]}),
    "an axis of a chart that has none": ("Workflows",
                                         {"columns": [{**AXIS,
                                                       "sqlExpression": "organization_id"}]}),
    "Jinja that runs": ("Workflows",
                        {"extras": {"having": "{% for i in range(9) %}"
                                              "{{ metric('total_runs', 1) }}{% endfor %}"}}),
    "where in a comment": ("Model cost by workflow",
                           {"extras": {"where": "(currency = 'USD') -- \n OR true"}}),
    "a filter's column that is SQL": ("Workflows", {"filters": [{"col": "1 = 1) OR (true",
                                                                 "op": "==", "val": "1"}]}),
    "samples": ("Workflows", {"result_type": "samples"}),
    "its detail": ("Workflows", {"result_type": "drill_detail"}),
    "its SQL": ("Workflows", {"result_type": "query"}),
}  # fmt: skip


@pytest.mark.parametrize("what", QUERY)
def test_a_viewer_cannot_change_a_charts_query(
    viewer: httpx.Client, chart_requests: Mapping[str, Body], history_url: str, what: str
) -> None:
    """A query that differs from its chart's or filter's query is refused; the chart's own is not.

    Only values, order and page may differ.
    """
    title, change = QUERY[what]

    assert _send(viewer, _changed(chart_requests[title], change)).status_code in (400, 403)
    assert _send(viewer, chart_requests[title]).status_code == 200
    assert (
        query(history_url, "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 42")
        == []
    )


CONTEXT: Mapping[str, Callable[[Body], Body]] = {
    "no chart": lambda body: {**body, "form_data": {}},
    "no form": lambda body: {name: value for name, value in body.items() if name != "form_data"},
    "another chart": lambda body: {**body, "form_data": {**body["form_data"], "slice_id": 1}},
    "a chart that is none": lambda body: {
        **body,
        "form_data": {**body["form_data"], "slice_id": 9999},
    },
    "a filter that is none": lambda body: {
        **body,
        "form_data": {"native_filter_id": "mine", "type": "NATIVE_FILTER"},
    },
    "another dataset": lambda body: {
        **body,
        "datasource": {"type": "table", "id": body["datasource"]["id"] % 9 + 1},
    },
    "no dataset": lambda body: {**body, "datasource": {"type": "query", "id": 1}},
    "samples": lambda body: {**body, "result_type": "samples"},
    "its detail": lambda body: {**body, "result_type": "drill_detail"},
    "its columns": lambda body: {**body, "result_type": "columns"},
    "its SQL": lambda body: {**body, "result_type": "query"},
    "a saved query": lambda body: {**body, "datasource": {"type": "saved_query", "id": 1}},
    "a table by another name": lambda body: {**body, "datasource": {"type": "sl_table", "id": 1}},
    "rows after the shaping of a chart": lambda body: {**body, "result_type": "post_processed"},
    "an answer that is kept for a year": lambda body: {**body, "custom_cache_timeout": 31_536_000},
    "a response that is cached for ever": lambda body: {**body, "custom_cache_timeout": 0},
    "a second query": lambda body: {
        **body,
        "queries": [*body["queries"], {"columns": [_sql(LOCK)]}],
    },
}


@pytest.mark.parametrize("what", CONTEXT)
def test_a_viewer_cannot_use_another_charts_name(
    viewer: httpx.Client, chart_requests: Mapping[str, Body], what: str
) -> None:
    """A chart's query is refused under another chart's name or none, or for another result."""
    assert _send(viewer, CONTEXT[what](chart_requests["Workflows"])).status_code in (400, 403, 404)


@pytest.mark.parametrize(
    "what",
    [
        "a column beside the chart's",
        "a metric beside the chart's",
        "a metric in harmless SQL",
        "a metric of a column",
        "a filter by a column that nobody shows",
        "no where",
        "samples",
    ],
)
def test_an_administrator_may_send_them(
    admin: httpx.Client, chart_requests: Mapping[str, Body], what: str
) -> None:
    """Queries that are refused to the viewer work for admin, so the viewer's limit refuses them."""
    title, change = QUERY[what]

    assert _send(admin, _changed(chart_requests[title], change)).status_code == 200


@pytest.mark.parametrize(
    "call",
    [
        "pg_advisory_lock(42)",
        "pg_catalog.pg_try_advisory_xact_lock(42)",
        "\"set_config\"('statement_timeout', '0', false)",
        "query_to_xml('SELECT graph FROM orchestra.workflow_versions', true, true, '')::text",
        "pg_sleep(60)",
        "lo_get(1)",
        "pg_read_file('/etc/passwd')",
        "ts_stat('SELECT 1')",
    ],
)
def test_no_user_calls_dangerous_functions(
    admin: httpx.Client, chart_requests: Mapping[str, Body], call: str
) -> None:
    """A chart of admin's that runs SQL from text, locks, sleeps or reads files is refused.

    The query never reaches PostgreSQL.
    """
    answer = _send(admin, _changed(chart_requests["Workflows"], {"metrics": [_sql(call)]}))

    assert answer.status_code != 200
    assert "disallowed function" in answer.text


OPEN = {
    "GET": """
        / /back /chart/add /chart/list/ /dashboard/list/ /dashboard/new/ /health
        /healthcheck /ping /version /login/
        /lang/<string:locale> /register/
        /api/v1/chart/ /api/v1/chart/<id_or_uuid> /api/v1/chart/_info /api/v1/chart/favorite_status/
        /api/v1/chart/<int:pk>/data/
        /api/v1/dashboard/ /api/v1/dashboard/<id_or_slug> /api/v1/dashboard/_info
        /api/v1/dashboard/favorite_status/
        /api/v1/dashboard/<id_or_slug>/charts /api/v1/dashboard/<id_or_slug>/datasets
        /api/v1/dashboard/<id_or_slug>/tabs
        /api/v1/dashboard/permalink/<string:key> /api/v1/database/oauth2/
        /api/v1/log/recent_activity/ /api/v1/me/ /api/v1/me/roles/ /api/v1/menu/
        /api/v1/security/csrf_token/
        /api/v1/time_range/ /api/v1/user/<int:user_id>/avatar.png
        /superset/dashboard/<dashboard_id_or_slug>/ /superset/language_pack/<lang>/
        /superset/welcome/ /superset/file-handler
    """,
    "POST": """
        /login/ /api/v1/security/login /api/v1/security/refresh /api/v1/chart/data
        /api/v1/chart/<pk>/favorites/
        /api/v1/dashboard/<pk>/favorites/ /api/v1/dashboard/<pk>/permalink
        /api/v1/dashboard/<int:pk>/filter_state
        /superset/log/
    """,
    "PUT": "/api/v1/dashboard/<int:pk>/filter_state/<string:key>",
    "DELETE": "/api/v1/chart/<pk>/favorites/ /api/v1/dashboard/<pk>/favorites/",
}
"""Every address of Superset's that a viewer may call.

These are the sign-in, the stored dashboards and charts, the viewer's own favourites, filter choices
and links, and the check of a query. The tests above cover the data.
"""
ROUTES = """
import json, sys
from superset.app import create_app
rules = [[rule.rule, sorted(rule.methods - {"HEAD", "OPTIONS"})]
         for rule in create_app().url_map.iter_rules()]
json.dump(rules, open(sys.argv[1], "w"))
"""


def test_every_other_address_is_closed(
    viewer: httpx.Client, superset: Superset, tmp_path: Path
) -> None:
    """Every other address of Superset's is closed, including those that a new version adds."""
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ORCHESTRA_DASHBOARDS_HOME": str(superset.home),
        "SUPERSET_CONFIG_PATH": str(superset.files / "superset_config.py"),
        "PYTHONPATH": str(superset.files),
    }
    python = str(ROOT / ".superset" / "venv" / "bin" / "python")
    found = tmp_path / "routes.json"
    subprocess.run(
        [python, "-c", ROUTES, str(found)], env=variables, capture_output=True, check=True
    )
    answered, closed = set(), 0
    for rule, methods in json.loads(found.read_text()):
        # The lists of users, roles and groups have no actions: any name of one is an error for
        # every caller.
        if (
            rule.startswith(("/static/", "/users/action", "/roles/action", "/groups/action"))
            or "logout" in rule
        ):
            continue
        path = re.sub(
            r"<int:[^>]+>|<pk>|<(string:)?[a-z_]*id[a-z_]*>", "1", rule.replace("<version>", "v1")
        )
        path = re.sub(r"<[^>]+>", "table", path)
        for method in methods:
            if rule in OPEN.get(method, "").split():
                continue
            # The API takes JSON, older pages take forms.
            sent: dict[str, Any] = {"json": {}} if rule.startswith("/api/") else {"data": {}}
            answer = viewer.request(method, path, **(sent if method in ("POST", "PUT") else {}))
            refused = answer.status_code in (401, 403, 404) or (
                answer.status_code == 302
                and urlsplit(answer.headers["location"]).path in ("/", ".", "/login/")
            )
            closed += refused
            if not refused:
                answered.add(f"{method} {rule}: {answer.status_code}")
    assert closed > 200
    assert answered == set()


def test_responses_to_a_viewer_hold_no_secret(
    viewer: httpx.Client, admin: httpx.Client, superset: Superset
) -> None:
    """Responses to a viewer hold no password, key or database address.

    No list shows a column that it does not offer.
    """
    paths = [
        "/api/v1/chart/",
        "/api/v1/dashboard/",
        "/api/v1/me/",
        "/api/v1/menu/",
        "/api/v1/log/recent_activity/",
    ]
    paths += [
        f"/api/v1/dashboard/orchestra-{name}{more}"
        for name in DASHBOARDS
        for more in ("", "/charts", "/datasets")
    ]
    paths += [
        "/api/v1/chart/?q=(columns:!(id,query_context,owners.password,table.database.password))",
        "/api/v1/dashboard/?q=(columns:!(id,owners.password,created_by.email))",
    ]
    answers = [viewer.get(path) for path in paths]
    assert {answer.status_code for answer in answers} <= {200, 400}
    secrets = [
        (superset.home / name).read_text().strip()
        for name in ("admin-password", "database-password", "secret-key")
    ]
    for path, answer in zip(paths, answers, strict=True):
        assert [
            one for one in (*secrets, "postgresql+", "pbkdf2", "scrypt") if one in answer.text
        ] == [], path
    assert "postgresql+" in admin.get("/api/v1/database/1/connection").text


def test_a_token_has_the_same_limits(
    superset: Superset, chart_requests: Mapping[str, Body]
) -> None:
    """A viewer who signs in through the API gets the charts' queries and nothing else."""
    with httpx.Client(base_url=superset.address, timeout=60) as client:
        credentials = {
            "username": "viewer",
            "password": superset.password_of("viewer"),
            "provider": "db",
        }
        token = client.post("/api/v1/security/login", json=credentials).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").json()["result"]
        client.headers["Referer"] = superset.address

        assert (
            _send(
                client, _changed(chart_requests["Workflows"], {"metrics": [_sql("max(runs)")]})
            ).status_code
            == 403
        )
        assert _send(client, chart_requests["Workflows"]).status_code == 200


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_a_file_has_the_same_limits(
    viewer: httpx.Client, chart_requests: Mapping[str, Body], form: str
) -> None:
    """A download, which a browser requests by a form, holds the chart's query and nothing else."""
    plain = {**chart_requests["Workflows"], "result_format": form}

    refused = viewer.post(
        DATA, data={"form_data": json.dumps(_changed(plain, {"columns": ["organization_id"]}))}
    )
    assert refused.status_code == 403
    assert viewer.post(DATA, data={"form_data": json.dumps(plain)}).status_code == 200


def test_a_chart_of_a_draft_is_refused_to_a_viewer(
    viewer: httpx.Client, admin: httpx.Client, chart_requests: Mapping[str, Body]
) -> None:
    """A chart without a published dashboard is refused to a viewer until it has one."""
    dataset = chart_requests["Workflows"]["datasource"]["id"]
    settings = {"viz_type": "table", "query_mode": "raw", "all_columns": ["organization_id"]}
    chart = {
        "slice_name": "a draft",
        "viz_type": "table",
        "datasource_id": dataset,
        "datasource_type": "table",
    }
    draft = admin.post(
        "/api/v1/dashboard/", json={"dashboard_title": "a draft", "published": False}
    ).json()["id"]
    made = admin.post(
        "/api/v1/chart/", json={**chart, "params": json.dumps(settings), "dashboards": [draft]}
    ).json()["id"]
    try:
        body = {
            "datasource": {"type": "table", "id": dataset},
            "form_data": {"slice_id": made},
            "queries": [{"columns": ["organization_id"], "row_limit": 5}],
            "result_type": "full",
        }
        assert _send(viewer, body).status_code == 403
        assert _send(admin, body).status_code == 200
        assert admin.put(f"/api/v1/dashboard/{draft}", json={"published": True}).status_code == 200
        assert _send(viewer, body).status_code == 200
    finally:
        admin.delete(f"/api/v1/chart/{made}")
        admin.delete(f"/api/v1/dashboard/{draft}")


def test_a_stored_query_has_the_same_limits(
    viewer: httpx.Client, admin: httpx.Client, chart_requests: Mapping[str, Body]
) -> None:
    """A query stored with a chart works as the chart's own, but not as samples or SQL."""
    [chart] = {chart_requests["Workflows"]["form_data"]["slice_id"]}
    address = f"/api/v1/chart/{chart}"
    stored = admin.put(address, json={"query_context": json.dumps(chart_requests["Workflows"])})
    try:
        assert stored.status_code == 200, stored.text
        assert viewer.get(f"{address}/data/").status_code == 200
        for kind in ("samples", "query", "drill_detail", "columns"):
            assert viewer.get(f"{address}/data/?type={kind}").status_code in (400, 403), kind
            assert admin.get(f"{address}/data/?type={kind}").status_code == 200, kind
    finally:
        admin.put(address, json={"query_context": None})


REQUESTS: tuple[tuple[str, str, Body | None], ...] = (
    ("POST", "/api/v1/sqllab/execute/", {"database_id": 1, "sql": "SELECT 1"}),
    ("POST", "/api/v1/sqllab/estimate/", {"database_id": 1, "sql": "SELECT 1"}),
    ("POST", "/api/v1/sqllab/format_sql/", {"sql": "SELECT 1"}),
    ("POST", "/api/v1/sqllab/export_streaming/", {"client_id": "1"}),
    ("GET", "/api/v1/sqllab/", None),
    ("GET", "/api/v1/sqllab/results/?q=(key:a)", None),
    ("GET", "/api/v1/query/", None),
    ("GET", "/api/v1/saved_query/", None),
    ("POST", "/api/v1/query/", {"query_context": "{}"}),
    ("GET", "/api/v1/form_data/?slice_id=1", None),
    ("GET", "/api/v1/dataset/", None),
    ("GET", "/api/v1/dataset/1", None),
    ("GET", "/api/v1/dataset/1/drill_info/", None),
    ("POST", "/api/v1/dataset/", {"database": 1, "schema": "orchestra", "table_name": "mine",
                                  "sql": "SELECT 1 AS one"}),
    ("POST", "/api/v1/dataset/get_or_create/", {"database_id": 1, "schema": "orchestra",
                                                "table_name": "steps"}),
    ("POST", "/api/v1/dataset/duplicate", {"base_model_id": 1, "table_name": "mine"}),
    ("PUT", "/api/v1/dataset/1", {"description": "mine"}),
    ("PUT", "/api/v1/dataset/1/refresh", None),
    ("GET", "/api/v1/database/", None),
    ("GET", "/api/v1/database/1", None),
    ("GET", "/api/v1/database/1/connection", None),
    ("GET", "/api/v1/database/1/schemas/", None),
    ("GET", "/api/v1/database/1/tables/?q=(schema_name:orchestra)", None),
    ("GET", "/api/v1/database/1/table_metadata/?name=steps&schema=orchestra", None),
    ("GET", "/api/v1/database/1/table/steps/orchestra/", None),
    ("GET", "/api/v1/database/1/select_star/steps/orchestra/", None),
    ("GET", "/api/v1/database/1/function_names/", None),
    ("POST", "/api/v1/database/1/validate_sql/", {"sql": "SELECT 1"}),
    ("POST", "/api/v1/database/test_connection/", {"sqlalchemy_uri": "sqlite://"}),
    ("POST", "/api/v1/database/", {"database_name": "mine", "sqlalchemy_uri": "sqlite://"}),
    ("GET", "/api/v1/datasource/table/1/column/message/values/", None),
    ("POST", "/api/v1/datasource/table/1/validate_expression/", {"expression": LOCK}),
    ("GET", "/datasource/get/table/1/", None),
    ("GET", "/datasource/external_metadata/table/1/", None),
    (
        "GET",
        "/datasource/external_metadata_by_name/"
        "?q=(datasource_type:table,database_name:orchestra-etl,schema_name:orchestra,"
        "table_name:steps)",
        None,
    ),
    ("POST", "/datasource/samples?datasource_type=table&datasource_id=1", {}),
    ("POST", "/datasource/save/", {}),
    ("GET", "/api/v1/explore/?slice_id=1", None),
    ("POST", "/api/v1/explore/form_data", {"datasource_id": 1, "datasource_type": "table",
                                           "form_data": "{}"}),
    ("POST", "/api/v1/explore/permalink", {"formData": {"datasource": "1__table"}}),
    ("POST", "/superset/explore_json/?form_data={}", {}),
    ("GET", "/superset/fetch_datasource_metadata?datasourceKey=1__table", None),
    ("PUT", "/api/v1/chart/warm_up_cache", {"chart_id": 1}),
    ("POST", "/api/v1/chart/", {"slice_name": "mine", "viz_type": "table", "datasource_id": 1,
                                "datasource_type": "table"}),
    ("PUT", "/api/v1/chart/1", {"slice_name": "mine"}),
    ("DELETE", "/api/v1/chart/1", None),
    ("GET", "/api/v1/chart/export/?q=!(1)", None),
    ("POST", "/api/v1/dashboard/", {"dashboard_title": "mine"}),
    ("PUT", "/api/v1/dashboard/1", {"dashboard_title": "mine"}),
    ("PUT", "/api/v1/dashboard/1/filters", {"modified": []}),
    ("PUT", "/api/v1/dashboard/1/colors", {}),
    ("POST", "/api/v1/dashboard/1/copy/", {"dashboard_title": "mine", "json_metadata": "{}"}),
    ("POST", "/api/v1/dashboard/1/embedded", {"allowed_domains": []}),
    ("DELETE", "/api/v1/dashboard/1", None),
    ("GET", "/api/v1/dashboard/export/?q=!(1)", None),
    ("GET", "/api/v1/assets/export/", None),
    ("POST", "/api/v1/assets/import/", {}),
    ("GET", "/api/v1/annotation_layer/", None),
    ("GET", "/api/v1/log/", None),
    ("GET", "/api/v1/rowlevelsecurity/", None),
    ("GET", "/api/v1/css_template/", None),
    ("GET", "/api/v1/tag/", None),
    ("POST", "/api/v1/cachekey/invalidate", {"datasource_uids": ["1__table"]}),
    ("PUT", "/api/v1/me/", {"password": "mine"}),
    ("GET", "/api/v1/security/users/", None),
    ("GET", "/api/v1/security/roles/", None),
    ("POST", "/api/v1/security/guest_token/", {"resources": [], "rls": [], "user": {}}),
    ("POST", "/api/v1/theme/", {"theme_name": "mine", "json_data": "{}"}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body"), REQUESTS, ids=[f"{method} {path}" for method, path, _ in REQUESTS]
)
def test_a_viewer_has_no_other_way(
    viewer: httpx.Client, method: str, path: str, body: Body | None
) -> None:
    """Every other way to data, to Superset's metadata of the database, or to a change is closed."""
    assert viewer.request(method, path, json=body).status_code == 403


def _send(client: httpx.Client, body: Body) -> httpx.Response:
    return client.post(DATA, json=body)


def _changed(body: Body, change: Body) -> Body:
    """Return the same request with another first query."""
    [first, *others] = body["queries"]
    extras = {"extras": {**first["extras"], **change["extras"]}} if "extras" in change else {}
    return {**body, "queries": [{**first, **change, **extras}, *others]}
