"""The files of the dashboards: how they write what a chart shows."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

ASSETS = ROOT / "config" / "superset" / "assets"
CHARTS = {
    str(path.relative_to(ASSETS)): yaml.safe_load(path.read_text()) for path in (ASSETS / "charts").rglob("*.yaml")
}
DATASETS = {
    one["uuid"]: one
    for one in map(yaml.safe_load, (path.read_text() for path in (ASSETS / "datasets").rglob("*.yaml")))
}
DURATION = re.compile(r"_ms$|^elapsed$|^behind$")


def _params(chart: str) -> dict[str, Any]:
    params: dict[str, Any] = CHARTS[chart]["params"]
    return params


@pytest.mark.parametrize("chart", CHARTS)
def test_durations_have_one_format(chart: str) -> None:
    """Each number, axis and cell that is a duration is written as one, and no title names a unit that a chart could get wrong."""
    params = _params(chart)
    dataset = DATASETS[CHARTS[chart]["dataset_uuid"]]
    formats = {one["metric_name"]: one.get("d3format") for one in dataset["metrics"]}
    shown = [params.get("metric"), *params.get("metrics", [])]
    durations = {name for name in shown if name and DURATION.search(name)}
    cells = {name for name in params.get("all_columns", []) if DURATION.search(name)}

    assert {formats[name] for name in durations} <= {"DURATION"}
    assert {params["column_config"][name]["d3NumberFormat"] for name in cells} <= {"DURATION"}
    if durations and "y_axis_format" in params:
        assert params["y_axis_format"] == "DURATION"
    titles = [CHARTS[chart]["slice_name"], params.get("y_axis_title", "")]
    titles += [one["verbose_name"] for one in dataset["columns"] if one["column_name"] in cells]
    titles += [one["verbose_name"] for one in dataset["metrics"] if one["metric_name"] in durations]
    assert [title for title in titles if re.search(r"\((ms|s)\)", title)] == []


@pytest.mark.parametrize(
    "chart", [name for name, chart in CHARTS.items() if chart["viz_type"] == "echarts_timeseries_bar"]
)
def test_axes_of_counts_have_whole_ticks(chart: str) -> None:
    """An axis of a count has no tick between two whole numbers, and none shows digits that it does not have."""
    params = _params(chart)
    if params["y_axis_format"] in (",d", ".3~s"):
        assert "minInterval: 1" in params["echart_options"]
    else:
        assert params["y_axis_format"] in ("DURATION", "$,.6~f")
