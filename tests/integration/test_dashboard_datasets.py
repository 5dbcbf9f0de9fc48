"""The dashboards' datasets, compared with the views that they read."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl.analytics import rollups
from etl.database import Database
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT
from tests.support import configuration, environment, load, query, sync

DATASETS = ROOT / "config" / "superset" / "assets" / "datasets" / "orchestra"


@pytest.mark.parametrize(
    "view",
    ["model_usage", "open_runs", "run_summary", "step_timeline", "cost_differences", "alerts"],
)
def test_a_dataset_has_the_columns_of_its_view(view: str, database_url: str) -> None:
    """A dataset has exactly the columns of its view that a dashboard can show."""
    dataset = yaml.safe_load((DATASETS / f"{view}.yaml").read_text())
    sql = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'orchestra'"
        f" AND table_name = '{view}' AND data_type <> 'jsonb'"
    )
    columns = {row["column_name"] for row in query(database_url, sql)}
    assert {one["column_name"] for one in dataset["columns"] if "expression" not in one} == columns
    assert all(one["verbose_name"] for one in dataset["columns"])


def test_no_waterfall_has_a_label_of_its_axis() -> None:
    """Superset prints the label of a waterfall's axis over the numbers, at a fixed distance."""
    paths = DATASETS.parents[1].rglob("charts/**/*.yaml")
    charts = [yaml.safe_load(path.read_text()) for path in paths]
    labels = [one["params"]["y_axis_label"] for one in charts if one["viz_type"] == "waterfall"]
    assert labels == ["", ""]


STOPPED = """
    UPDATE orchestra.runs
    SET start_time = start_time - interval '3 hours', end_time = end_time - interval '3 hours',
        first_seen_at = first_seen_at - interval '3 hours',
        updated_at = updated_at - interval '3 hours';
    UPDATE orchestra.steps
    SET start_time = start_time - interval '3 hours', end_time = end_time - interval '3 hours';
    UPDATE orchestra_etl.run_ledger
    SET steps_observed_at = steps_observed_at - interval '3 hours',
        run_observed_at = run_observed_at - interval '3 hours'
"""
"""Move all times back three hours, as if the service had stopped three hours ago."""


def _dataset(name: str) -> dict[str, Any]:
    dataset: dict[str, Any] = yaml.safe_load((DATASETS / f"{name}.yaml").read_text())
    return dataset


def _load_open_runs(url: str, folder: Path) -> None:
    history = History(runs_per_workflow=12, live=3, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        toml = configuration(*history.workflow_ids)
        asyncio.run(sync(load(folder, toml, environment(url, simulator.base_url))))


def test_runs_do_not_become_overdue_when_the_service_stops(
    database_url: str, tmp_path: Path
) -> None:
    """While the service is stopped, open runs keep their age and their overdue flag."""
    _load_open_runs(database_url, tmp_path)
    sql = "SELECT run_id, age_ms, overdue FROM orchestra.open_runs ORDER BY run_id"
    before = query(database_url, sql)
    query(database_url, STOPPED)

    assert len(before) >= 3
    assert query(database_url, sql) == before


@pytest.mark.parametrize(
    ("view", "column"), [("run_summary", "elapsed_ms"), ("step_timeline", "elapsed_ms")]
)
def test_durations_do_not_grow_when_the_service_stops(
    view: str, column: str, database_url: str, tmp_path: Path
) -> None:
    """While the service is stopped, running runs and steps keep the duration that is shown."""
    _load_open_runs(database_url, tmp_path)
    [shown] = [one for one in _dataset(view)["columns"] if one["column_name"] == column]
    sql = (
        f"SELECT {shown['expression']} AS elapsed FROM orchestra.{view}"
        " WHERE end_time IS NULL AND state = 'running' ORDER BY start_time, run_id"
    )
    before = query(database_url, sql)
    query(database_url, STOPPED)

    assert len(before) >= 3
    assert all(one["elapsed"] >= 0 for one in before)
    assert query(database_url, sql) == before


def test_the_run_that_is_shown_first_has_ended(database_url: str, tmp_path: Path) -> None:
    """The newest run that has ended comes first on the dashboard of runs, before open runs."""
    _load_open_runs(database_url, tmp_path)
    dataset = _dataset("run_choice")
    [order] = [one["expression"] for one in dataset["metrics"]]
    rows = query(
        database_url,
        f"SELECT run_id FROM ({dataset['sql']}) AS shown GROUP BY run_id ORDER BY {order} DESC",
    )
    newest = query(
        database_url,
        "SELECT id, end_time FROM orchestra.runs ORDER BY start_time DESC NULLS FIRST",
    )
    assert newest[0]["end_time"] is None
    ended = [run["id"] for run in newest if run["end_time"] is not None]
    assert [row["run_id"] for row in rows][: len(ended)] == ended
    assert len(rows) == len(newest)
    steps = query(
        database_url, "SELECT count(*) AS steps FROM orchestra.steps WHERE run_id = %s", ended[0]
    )
    assert steps[0]["steps"] > 0


@pytest.mark.parametrize("figure", ["cost", "failure"])
def test_an_explanation_has_a_cause_for_every_part(
    figure: str, database_url: str, tmp_path: Path
) -> None:
    """A waterfall has exactly the dataset's columns, and its causes add up to the difference."""
    history = History(
        runs_per_workflow=30, live=0, arrivals_per_minute=0, spacing=timedelta(hours=10),
        failure_rate=0.5,
    )  # fmt: skip
    with Simulator(history).in_thread() as simulator:
        toml = configuration(*history.workflow_ids)
        loaded = load(tmp_path, toml, environment(database_url, simulator.base_url))
        asyncio.run(sync(loaded))
    database = Database(database_url, patience=5)
    rollups.drain(database)
    database.close()
    query(
        database_url,
        "INSERT INTO orchestra.prices (model, currency, source, input_per_million,"
        " output_per_million, valid_from)"
        " SELECT DISTINCT model, 'USD', 'set', 2, 3, CAST('0001-01-01' AS date)"
        " FROM orchestra.step_rollup WHERE model IS NOT NULL",
    )
    dataset = _dataset(f"{figure}_explanation")
    rows = query(database_url, dataset["sql"])
    names = {one["column_name"] for one in dataset["columns"] if "expression" not in one}
    assert {name for row in rows for name in row} == names
    assert {row["cause"][0] for row in rows} >= {"1"}
    weeks = query(
        database_url,
        """
        SELECT CAST(sum(cost) FILTER (WHERE u.hour >= at.hour - interval '7 days') AS numeric)
                   AS after,
               CAST(sum(cost) FILTER (WHERE u.hour < at.hour - interval '7 days') AS numeric)
                   AS before
        FROM (SELECT date_trunc('hour', now()) AS hour) AS at
        JOIN orchestra.model_usage AS u
          ON u.hour >= at.hour - interval '14 days' AND u.hour < at.hour AND u.currency = 'USD'
        """
        if figure == "cost"
        else """
        SELECT count(*) FILTER (WHERE f.time >= at.hour - interval '7 days') AS after,
               count(*) FILTER (WHERE f.time < at.hour - interval '7 days') AS before
        FROM (SELECT date_trunc('hour', now()) AS hour) AS at
        JOIN orchestra.failures AS f
          ON f.time >= at.hour - interval '14 days' AND f.time < at.hour
        """,
    )
    [week] = weeks
    shown = [row for row in rows if row.get("currency", "USD") == "USD"]
    difference = week["after"] - week["before"]
    assert week["before"] > 0
    assert round(sum(row["amount"] for row in shown), 9) == round(difference, 9)


def test_alerts_that_fire_come_first(database_url: str) -> None:
    """The table of alerts begins with those that fire, shows units, and marks disguised names."""
    query(
        database_url,
        """
        INSERT INTO orchestra.workflows (id, name) VALUES ('w', 'weather');
        INSERT INTO orchestra_etl.alert_episodes (rule, subject, sequence, workflow_id, node,
                                                  metric, value, threshold, fired_at, resolved_at)
        SELECT rule, 'w', 1, 'w', node, metric, value, 0.5, now() - hours * interval '1 hour',
               now() - ended * interval '1 hour'
        FROM (VALUES ('old', U&'a\\202Eb', 'lag', 61.25, 9, 8), ('new', NULL, 'cost', 0.0042, 3, 2),
                     ('now', NULL, 'failure_rate', 0.431, 5, NULL)
             ) AS v (rule, node, metric, value, hours, ended)
        """,
    )
    dataset = _dataset("alerts")
    chart = yaml.safe_load(
        (DATASETS.parents[1] / "charts" / "overview" / "alerts.yaml").read_text()
    )
    sql = {one["column_name"]: one.get("expression") for one in dataset["columns"]}
    columns = ", ".join(f"{sql[name] or name} AS {name}" for name in chart["params"]["all_columns"])
    orders = [json.loads(one) for one in chart["params"]["order_by_cols"]]
    order = ", ".join(f"{name} {'ASC' if rises else 'DESC'}" for name, rises in orders)
    rows = query(database_url, f"SELECT {columns} FROM orchestra.alerts ORDER BY {order}")
    assert [(one["rule_shown"], one["state"], one["value_text"]) for one in rows] == [
        ("now", "firing", "43.1 %"),
        ("new", "resolved", "0.0042"),
        ("old", "resolved", "61.3 s"),
    ]
    assert rows[2]["subject_shown"].startswith("a\ufffdb #")
    [metric] = dataset["metrics"]
    [tile] = query(database_url, f"SELECT {metric['expression']} AS firing FROM orchestra.alerts")
    assert tile == {"firing": 1}
