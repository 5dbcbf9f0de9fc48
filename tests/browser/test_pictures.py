"""`SCREENSHOTS=docs/images make test-browser` takes the documentation's pictures from the demo."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from playwright.sync_api import Page

from etl.analytics import rollups
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from tests.browser.conftest import DEMO, PICTURES, a_failed_run
from tests.browser.dashboards import CHART, DASHBOARDS, Superset, open_dashboard
from tests.browser.databases import grant, showing
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not PICTURES, reason="SCREENSHOTS is not set")
SHRINK = (
    "import sys; from PIL import Image; "
    "Image.open(sys.argv[1]).quantize(256).save(sys.argv[1], optimize=True)"
)
"""A palette takes a third of the space. Superset's environment contains Pillow."""

# In the newest run of each workflow, the last step goes on. One of these runs is overdue.
_OPEN = """
    CREATE TEMPORARY TABLE open AS
    SELECT DISTINCT ON (r.workflow_id) r.id, s.id AS step_id, s.start_time AS began
    FROM orchestra.runs AS r JOIN orchestra.steps AS s ON s.run_id = r.id
    WHERE r.state = 'succeeded' AND s.start_time IS NOT NULL
    ORDER BY r.workflow_id, r.start_time DESC, s.start_time DESC;
    UPDATE orchestra.steps AS s SET state = 'running', end_time = NULL
    FROM open WHERE s.id = open.step_id;
    UPDATE orchestra.runs AS r
    SET state = 'running', tracking = 'open', end_time = NULL,
        start_time = r.start_time - CASE WHEN r.id = (SELECT min(id) FROM open)
                                         THEN interval '5 minutes' ELSE interval '0' END
    FROM open WHERE r.id = open.id;
    UPDATE orchestra_etl.run_ledger AS l
    SET tracking = 'open', run_observed_at = NULL,
        steps_observed_at = open.began + interval '1 second'
    FROM open WHERE l.run_id = open.id
"""
_ALERTS = """
    INSERT INTO orchestra_etl.alert_episodes (rule, subject, sequence, workflow_id, metric, value,
                                              threshold, fired_at, resolved_at)
    SELECT a.rule, w.id, a.sequence, w.id, a.metric, a.value, a.threshold,
           now() - a.hours * interval '1 hour', now() - (a.hours - a.lasted) * interval '1 hour'
    FROM (SELECT min(id) AS id FROM orchestra.workflows) AS w,
        (VALUES ('runs fail', 2, 'failure_rate', 0.431, 0.2, 0.7, NULL),
                ('runs fail', 1, 'failure_rate', 0.25, 0.2, 52, 1.5),
                ('runs are slow', 1, 'duration_p95', 11.2, 9, 30, 4))
            AS a (rule, sequence, metric, value, threshold, hours, lasted)
"""


@pytest.fixture(scope="module")
def run(server: EmbeddedPostgres, superset: Superset) -> Iterator[str]:
    """Provide the run of the picture, while Superset shows the demo's history."""
    url = server.url_for(DEMO)
    with psycopg.connect(url) as connection:
        connection.execute(_OPEN)
        connection.execute(_ALERTS)
    database = Database(url)
    rollups.drain(database)
    database.close()
    grant(url)
    with showing(superset, DEMO):
        yield a_failed_run(url)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_picture(page: Page, superset: Superset, run: str, name: str) -> None:
    """The dashboard is drawn without an error, and its picture is stored."""
    shown = open_dashboard(page, superset, name, run=run if name == "run" else None)
    assert shown.errors == []

    path = f"{PICTURES}/{name}.png"
    # A canvas is animated for a second after its data has arrived.
    page.wait_for_timeout(1_200)
    bottom = max(
        box["y"] + box["height"] for one in page.locator(CHART).all() if (box := one.bounding_box())
    )
    page.mouse.move(0, 0)
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1440, "height": bottom + 16})
    subprocess.run([str(ROOT / ".superset/venv/bin/python"), "-c", SHRINK, path], check=True)
