"""`SCREENSHOTS=docs/images make test-browser` takes the documentation's pictures from the demo."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

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


@pytest.fixture(scope="module")
def run(server: EmbeddedPostgres, superset: Superset) -> Iterator[str]:
    """Provide the run of the picture, while Superset shows the demo's history."""
    url = server.url_for(DEMO)
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
