"""The dashboards' files: how they write a chart's content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

ASSETS = ROOT / "config" / "superset" / "assets"
PAYLOADS = ASSETS.with_name("payloads")


def yaml_of(path: Path) -> Any:
    """Return the content of a YAML file, parsed by libyaml: seven times as fast as in Python."""
    return yaml.load(path.read_text(), Loader=yaml.CSafeLoader)


CHARTS = {
    str(path.relative_to(assets)): yaml_of(path)
    for assets in (ASSETS, PAYLOADS)
    for path in (assets / "charts").rglob("*.yaml")
}
DATASETS = {
    one["uuid"]: one
    for assets in (ASSETS, PAYLOADS)
    for one in map(yaml_of, (assets / "datasets").rglob("*.yaml"))
}
DURATION = re.compile(r"_ms$|^elapsed$|^behind$")


def _params(chart: str) -> dict[str, Any]:
    params: dict[str, Any] = CHARTS[chart]["params"]
    return params


@pytest.mark.parametrize("chart", CHARTS)
def test_durations_have_one_format(chart: str) -> None:
    """Each number, axis and cell with a duration has its format, and no title names a unit."""
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
    "chart",
    [name for name, chart in CHARTS.items() if chart["viz_type"] == "echarts_timeseries_bar"],
)
def test_axes_of_counts_have_whole_ticks(chart: str) -> None:
    """An axis of a count has ticks only at whole numbers, without decimals."""
    params = _params(chart)
    if params["y_axis_format"] in (",d", ".3~s"):
        assert "minInterval: 1" in params["echart_options"]
    else:
        assert params["y_axis_format"] in ("DURATION", "$,.6~f")


DISGUISE = (
    r"\u0001-\u001F\u007F-\u009F\u00AD\u061C\u180E\u200B-\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFD"
    r"\U000E0000-\U000E007F"
)
"""Control, invisible and bidirectional characters, and the mark that replaces them."""
CONTENT_DISGUISE = DISGUISE.replace(
    r"\u0001-\u001F", r"\u0001-\u0008\u000B\u000C\u000E-\u001F"
).replace(r"\u200B-\u200F", r"\u200B")
"""The same without what texts are written with: lines, tabs, and joiners and marks of scripts."""
ADDED_UP = r"COALESCE\(SUM\(\w+\), 0\)"
NAMES = {
    "workflow_name",
    "organization_id",
    "node_id",
    "node_type",
    "model",
    "provider",
    "service_tier",
    "finish_reason",
    "pattern",
    "message",
    "user_id",
    "system",
    "prompt",
    "answer",
    "tools",
}
"""Columns whose text other people choose."""


def test_one_class_of_characters_is_marked() -> None:
    """Every expression that looks for disguised characters looks for the same ones.

    It may also look for markup. Prompts and answers may contain lines and joiners of letters.
    """
    texts = [path.read_text() for assets in (ASSETS, PAYLOADS) for path in assets.rglob("*.yaml")]
    found = {
        one
        for text in texts
        for one in re.findall(r"'\[(.*?)\]'", text)
        if one.startswith(r"\u0001")
    }
    assert found == {DISGUISE, DISGUISE + "<", CONTENT_DISGUISE}


@pytest.mark.parametrize("chart", CHARTS)
def test_no_chart_shows_a_name_as_it_is(chart: str) -> None:
    """No chart groups by or lists an unmarked name, unless it hides the column."""
    params = _params(chart)
    hidden = {
        name for name, one in params.get("column_config", {}).items() if one.get("visible") is False
    }
    shown = [
        params.get("x_axis"),
        params.get("y_axis"),
        *params.get("groupby", []),
        *params.get("all_columns", []),
    ]
    shown += params.get("tooltip_columns", [])
    assert {one for one in shown if isinstance(one, str)} & ((NAMES | {"run_id"}) - hidden) == set()


def test_only_the_payloads_folder_reads_payloads() -> None:
    """The files that are imported by default name no connection and no view with payloads."""
    [connection] = [yaml_of(one) for one in PAYLOADS.glob("databases/*.yaml")]
    default = "".join(path.read_text() for path in ASSETS.rglob("*.yaml"))
    assert connection["uuid"] not in default
    assert "model_calls" not in default
    for name, chart in CHARTS.items():
        reads = DATASETS[chart["dataset_uuid"]]["database_uuid"] == connection["uuid"]
        assert reads is (PAYLOADS / name).exists()


@pytest.mark.parametrize(
    "chart", [name for name, chart in CHARTS.items() if "time_grain_sqla" in chart["params"]]
)
def test_a_series_over_time_fills_its_gaps(chart: str) -> None:
    """In an hour without a row a count is 0, and a rate, a percentile or a cost is not known."""
    params = _params(chart)
    dataset = DATASETS[CHARTS[chart]["dataset_uuid"]]
    sql = {one["metric_name"]: one["expression"] for one in dataset["metrics"]}
    counts = all(
        re.fullmatch(rf"COUNT\(\*\)|{ADDED_UP}( - {ADDED_UP})*", sql[name])
        for name in params["metrics"]
    )
    assert params["resample_method"] == ("zerofill" if counts else "asfreq")
    assert params["resample_rule"] == {"PT1H": "1h", "P1D": "1D"}[params["time_grain_sqla"]]


@pytest.mark.parametrize(
    "dashboard", [path.stem for path in (ASSETS / "dashboards").glob("*.yaml")]
)
def test_filters_offer_marked_names(dashboard: str) -> None:
    """A filter offers names as charts show them; only run ids, found by an index, are unmarked."""
    files = yaml_of(ASSETS / "dashboards" / f"{dashboard}.yaml")
    filters = files["metadata"]["native_filter_configuration"]
    offered = {
        target["column"]["name"]
        for one in filters
        for target in one["targets"]
        if "column" in target
    }
    assert offered <= {"workflow_shown", "organisation_shown", "run_id"}


@pytest.mark.parametrize(
    "chart",
    [
        name
        for name, chart in CHARTS.items()
        if len(chart["params"].get("metrics", [])) > 1 and "x_axis" in chart["params"]
    ],
)
def test_a_series_has_a_colour_of_its_own(chart: str) -> None:
    """A series is labelled by one metric alone, so that Superset gives it its own colour."""
    dataset = DATASETS[CHARTS[chart]["dataset_uuid"]]
    labels = [one["verbose_name"] for one in dataset["metrics"]]
    shown = {one["metric_name"]: one["verbose_name"] for one in dataset["metrics"]}
    folder = chart.split("/")[1]
    metadata = yaml_of(ASSETS / "dashboards" / f"{folder}.yaml")["metadata"]
    colours = {metadata["label_colors"][name] for name in _params(chart)["metrics"]}
    assert len(colours) == len(_params(chart)["metrics"])
    for name in _params(chart)["metrics"]:
        assert labels.count(shown[name]) == 1, name
        assert metadata["label_colors"][shown[name]] == metadata["label_colors"][name]


def test_tokens_by_kind_count_each_token_once() -> None:
    """The stacked kinds of tokens count each part once, and never again in the kind around it."""
    dataset = DATASETS[CHARTS["charts/models/tokens_trend.yaml"]["dataset_uuid"]]
    sql = {one["metric_name"]: one["expression"] for one in dataset["metrics"]}
    signs: dict[str, list[int]] = {}
    for name in _params("charts/models/tokens_trend.yaml")["metrics"]:
        for minus, column in re.findall(r"(- )?COALESCE\(SUM\((\w+)\), 0\)", sql[name]):
            signs.setdefault(column, []).append(-1 if minus else 1)
    wholes = {"input_tokens", "output_tokens", "other_tokens"}
    assert {column for column, found in signs.items() if sum(found) == 1} == wholes
    assert {
        column for column, found in signs.items() if sorted(found) == [-1, 1]
    } == signs.keys() - wholes
    assert {"cached_input_tokens", "cache_write_tokens", "reasoning_tokens"} <= signs.keys()


def test_only_one_function_detects_truncated_responses() -> None:
    """Only a SQL function knows the providers' words for a truncated response, no dashboard."""
    for one in DATASETS.values():
        sql = one.get("sql", "") + "".join(
            it.get("expression", "") for it in (*one["columns"], *one["metrics"])
        )
        assert re.search(r"(?i)'(length|max_tokens|max_output_tokens)'", sql) is None, one[
            "table_name"
        ]


REASONS = re.compile(
    (
        r"CASE WHEN u\.model IS NULL.+? AS why|FROM orchestra\.model_usage AS u\s+LEFT JOIN "
        r".+?u\.unpriced_calls > 0"
    ),
    re.DOTALL,
)


def test_the_dashboard_gives_the_documented_reasons_without_a_price() -> None:
    """The dashboard gives the reasons of the query in docs/how-to/analytics.md.

    Another test compares that query with plain Python.
    """
    [dataset] = [one for one in DATASETS.values() if one["table_name"] == "unpriced_usage"]
    document = (ROOT / "docs" / "how-to" / "analytics.md").read_text()
    reasons, documented = (
        [" ".join(one.split()) for one in REASONS.findall(text)]
        for text in (dataset["sql"], document)
    )
    assert reasons == documented
    assert len(documented) == 2
