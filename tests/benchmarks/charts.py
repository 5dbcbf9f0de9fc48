"""`make bench-dashboards`: the cost of every query behind a dashboard on a large history.

Superset serves the dashboards over all days of the history of `make bench-analytics`, and a browser
opens each of them, because the SQL of a chart or a filter exists only then. Then each query runs
again, alone, with Superset's own login. A query that takes longer than `--limit` fails the
benchmark.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psycopg.conninfo
from playwright.sync_api import Page, Response

from etl.admin import roles
from etl.database import Database
from etl.privileges import ANALYST
from tests.benchmarks.analytics import DAYS, Question, history, measure, parser_of, show
from tests.browser.dashboards import (
    DASHBOARDS,
    TIMEOUT_SECONDS,
    Superset,
    chromium,
    open_dashboard,
    served,
    sign_in,
)
from tests.postgres_fixture import new_home
from tests.support import query

ROOT = Path(__file__).resolve().parents[2]


def queries_of(page: Page, superset: Superset, dashboard: str, run: str | None) -> list[Question]:
    """Return the queries that a dashboard sends when it is opened for this run.

    Raises:
        SystemExit: if a chart shows an error, or a filter does not request its values.
    """
    address = f"{superset.address}/api/v1/dashboard/orchestra-{dashboard}"
    charts = page.request.get(f"{address}/charts").json()["result"]
    titles = {chart["id"]: chart["slice_name"] for chart in charts}
    metadata = json.loads(page.request.get(address).json()["result"]["json_metadata"])
    filters = {
        one["id"]: f"filter {one['name']}"
        for one in metadata["native_filter_configuration"]
        if one["filterType"] == "filter_select"
    }
    answers: list[tuple[str, Response]] = []

    def receive(response: Response) -> None:
        if urlsplit(response.url).path == "/api/v1/chart/data" and response.status == 200:
            form = (response.request.post_data_json or {})["form_data"]
            name = titles.get(form.get("slice_id")) or filters.get(form.get("native_filter_id"))
            # The other requests are for the choice of a time grain, which queries no database.
            if name is not None:
                answers.append((name, response))

    page.on("response", receive)
    # A page that has loaded Superset opens the next dashboard faster.
    shown = open_dashboard(page, superset, dashboard, run=run, reload=run is not None)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while missing := set(filters.values()) - {name for name, _ in answers}:
        if time.monotonic() > deadline:
            raise SystemExit(f"{dashboard}: no values of the filters {sorted(missing)}")
        page.wait_for_timeout(100)
    page.remove_listener("response", receive)
    # A table may have more rows than its page shows.
    # A chart without rows has sent its query: a small history has no data for some charts.
    expected = (": a warning", "There is currently no information to display.")
    if errors := [error for error in shown.errors if not error.endswith(expected)]:
        raise SystemExit(f"{dashboard}: {errors}")
    questions: dict[str, Question] = {}
    for name, answer in answers:
        # Superset leaves the SQL out of a response with data.
        body = {**(answer.request.post_data_json or {}), "result_type": "query"}
        response = page.request.post(
            answer.url, data=body, headers={"X-CSRFToken": answer.request.headers["x-csrftoken"]}
        )
        for result in response.json()["result"]:
            questions.setdefault(result["query"], Question(f"{dashboard}: {name}", result["query"]))
    return list(questions.values())


def collect(url: str, dashboards: Sequence[str]) -> list[Question]:
    """Return the queries of these dashboards over all days of the history."""
    # For a failed run every chart has something to show.
    [failed] = query(
        url, "SELECT min(run_id) AS run FROM orchestra.step_failures WHERE outcome = 'failed'"
    )
    home = new_home()
    try:
        with (
            served(home, root=ROOT, variables={"DATABASE_URL": url}, days=DAYS) as superset,
            chromium() as browser,
        ):
            page = sign_in(browser, superset)
            return [
                question
                for dashboard in dashboards
                for question in queries_of(
                    page, superset, dashboard, failed["run"] if dashboard == "run" else None
                )
            ]
    finally:
        shutil.rmtree(home, ignore_errors=True)


def login_url(url: str) -> str:
    """Return the database URL with the settings of the role that Superset's login has."""
    [login] = query(
        url,
        f"""SELECT rolname FROM pg_roles
            WHERE rolcanlogin AND NOT rolsuper AND pg_has_role(oid, '{ANALYST}', 'USAGE')""",
    )
    return psycopg.conninfo.make_conninfo(url, user=login["rolname"])


def main() -> None:
    """Run the benchmark."""
    parser = parser_of("bench-dashboards", __doc__)
    parser.add_argument("--dashboard", choices=DASHBOARDS, help="measure only this dashboard")
    given = parser.parse_args()
    with history(given.home, given.runs) as (url, found):
        database = Database(url)
        roles.apply(database)
        database.close()
        questions = collect(url, [given.dashboard] if given.dashboard else DASHBOARDS)
        as_login = login_url(url)
        costs = [measure(as_login, question, given.repetitions) for question in questions]
        show(found, costs, given.limit, given.json)


if __name__ == "__main__":
    main()
