"""Updated marts equal marts that are built from scratch, and the pipeline's own views."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta

import psycopg
import pytest

from etl.admin import expired, retention
from etl.admin.erase import Selection, erase
from etl.database import Database
from tests.conftest import ROOT
from tests.dbt.conftest import FRESH, PYTHON, World

MARTS = ("fct_runs", "fct_steps", "fct_model_calls", "dim_workflow_versions", "agg_workflow_daily")
HISTOGRAMS = {"buckets", "counts", "failed_buckets", "failed_counts"}
"""Their entries have no order."""


def columns(world: World, relation: str) -> list[str]:
    """Return the columns of a table or view that can be compared."""
    rows = world.query(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum",
        relation,
    )
    return [row["attname"] for row in rows if row["attname"] not in HISTOGRAMS]


def differences(world: World, one: str, other: str) -> list[dict[str, object]]:
    """Return the rows of one query that the other lacks, from both sides."""
    return world.query(
        f"(SELECT 'first' AS only_in, * FROM ({one}) AS a EXCEPT ALL SELECT 'first', * FROM"
        f" ({other}) AS b) UNION ALL (SELECT 'second', * FROM ({other}) AS b EXCEPT ALL"
        f" SELECT 'second', * FROM ({one}) AS a)"
    )


def ids(world: World, condition: str, limit: int = 1) -> list[str]:
    """Return the ids of the newest finished runs that fulfil the condition."""
    rows = world.query(
        "SELECT id FROM orchestra.runs AS r WHERE tracking = 'final'"
        f" AND ({condition}) ORDER BY start_time DESC, id LIMIT {limit}"
    )
    assert len(rows) == limit
    return [row["id"] for row in rows]


@pytest.fixture(scope="module")
def changed(world: World) -> World:
    """Change the history in every way, with a build before the last transaction commits."""
    first, second = world.history.workflow_ids
    execute, history = world.query, world.history
    has_call = "EXISTS (SELECT FROM orchestra.steps WHERE run_id = r.id AND input_tokens > 0)"
    late, absent, moved, other, priced = ids(
        world, f"state = 'succeeded' AND workflow_id = '{second}' AND {has_call}", 5
    )
    database = Database(world.url)
    # New runs, runs that end, and a run that fails long after its end, by the API.
    history.advance(timedelta(hours=2))
    history.add_runs(first, 3)
    history.change_run(history.run_ids(first)[20], status="failed")
    world.sync()
    # A step that the API no longer returns, and one that loses its start.
    execute(
        "UPDATE orchestra.steps SET absent_since = now(), updated_at = now() WHERE id ="
        " (SELECT min(id) FROM orchestra.steps WHERE run_id = %s AND input_tokens > 0)",
        absent,
    )
    execute(
        "UPDATE orchestra.steps SET start_time = NULL, updated_at = now() WHERE id ="
        " (SELECT max(id) FROM orchestra.steps WHERE run_id = %s)",
        moved,
    )
    # A run that moves to another day, whose step without a start follows; and to another
    # workflow.
    execute(
        "UPDATE orchestra.runs SET start_time = start_time - interval '3 days',"
        " updated_at = now() WHERE id = %s",
        moved,
    )
    for table, key in (("runs", "id"), ("steps", "run_id")):
        execute(
            f"UPDATE orchestra.{table} SET workflow_id = %s, updated_at = now() WHERE {key} = %s",
            first,
            other,
        )
    # A version that was in force before the newest one, a new name, and a new price.
    execute(
        "INSERT INTO orchestra.workflow_versions (workflow_id, version, first_seen_at)"
        " SELECT %s, 'between', now() - interval '5 days'",
        second,
    )
    execute("UPDATE orchestra.workflows SET name = 'renamed' WHERE id = %s", second)
    [model] = execute(
        "SELECT COALESCE(response_model, request_model) AS name FROM orchestra.steps"
        " WHERE run_id = %s AND input_tokens > 0 LIMIT 1",
        priced,
    )
    world.etl("prices", "set", model["name"], "--input", "7", "--output", "9")
    # An erased run, all runs of a day, pruned runs, and a request that was withdrawn.
    day = "date_trunc('day', start_time, 'UTC')"
    whole_day = [
        row["id"]
        for row in execute(
            f"SELECT id FROM orchestra.runs WHERE workflow_id = '{first}' AND {day} = (SELECT"
            f" {day} FROM orchestra.runs WHERE workflow_id = '{first}' AND tracking = 'final'"
            " ORDER BY start_time OFFSET 12 LIMIT 1)"
        )
    ]
    erase(database, Selection(runs=(*whole_day, history.run_ids(second)[30])))
    wanted = database.transaction(lambda c: expired.horizons(c, payloads=None, runs=9 * 86_400))
    assert retention.prune(database, wanted).runs > 0
    execute("DELETE FROM orchestra.runs WHERE id = 'withdrawn later'")
    database.close()
    with psycopg.connect(world.url) as slow:
        # Its rows get the time of its start, and are seen only after the next build.
        slow.execute(
            "UPDATE orchestra.runs SET state = 'failed', updated_at = now() WHERE id = %s", [late]
        )
        slow.execute(
            "UPDATE orchestra.steps SET input_tokens = input_tokens + 5, updated_at = now()"
            " WHERE run_id = %s AND input_tokens > 0",
            [late],
        )
        execute(
            "UPDATE orchestra.runs SET user_id = 'new', updated_at = now() WHERE id = %s", priced
        )
        world.project("run")
    [row] = execute("SELECT outcome FROM marts.fct_runs WHERE run_id = %s", late)
    assert row["outcome"] == "succeeded"
    world.etl("rollups", "refresh")
    world.project("build")
    world.project("run", "--full-refresh", "--target", FRESH)
    [row] = execute("SELECT outcome FROM marts.fct_runs WHERE run_id = %s", late)
    assert row["outcome"] == "failed"
    return world


@pytest.mark.parametrize("mart", MARTS)
def test_updated_marts_equal_new_ones(changed: World, mart: str) -> None:
    """After every kind of change, a mart has the rows of one that is built from scratch."""
    names = ", ".join(columns(changed, f"marts.{mart}"))
    assert not differences(
        changed, f"SELECT {names} FROM marts.{mart}", f"SELECT {names} FROM {FRESH}.{mart}"
    )


@pytest.mark.parametrize(
    ("mart", "view"), [("fct_runs", "run_summary"), ("fct_model_calls", "model_calls")]
)
def test_facts_equal_the_views(changed: World, mart: str, view: str) -> None:
    """Runs and calls have the values of the pipeline's own views in every column they share."""
    shared = [
        name
        for name in columns(changed, f"marts.{mart}")
        if name in columns(changed, f"orchestra.{view}")
    ]
    assert len(shared) > 30
    names = ", ".join("left(error, 500)" if name == "error" else name for name in shared)
    assert not differences(
        changed, f"SELECT {names} FROM marts.{mart}", f"SELECT {names} FROM orchestra.{view}"
    )


def test_steps_equal_the_history(changed: World) -> None:
    """The steps are those of the history, without absent ones."""
    assert not differences(
        changed,
        "SELECT step_id, run_id, workflow_id, state, total_tokens FROM marts.fct_steps",
        "SELECT id, run_id, workflow_id, state, total_tokens FROM orchestra.steps"
        " WHERE absent_since IS NULL",
    )


def test_days_equal_the_views(changed: World) -> None:
    """Days count runs as `workflow_hourly` does, pruned ones too, and calls as `model_usage`."""
    utc = "CAST(hour AT TIME ZONE 'UTC' AS date)"
    counts = "runs, succeeded, soft_failed, failed, cancelled, skipped, unfinished"
    assert not differences(
        changed,
        f"SELECT workflow_id, day, {counts}, p95_ms FROM marts.agg_workflow_daily WHERE runs > 0",
        f"SELECT workflow_id, {utc}, {', '.join(f'sum({name})' for name in counts.split(', '))},"
        " orchestra.duration_quantile(buckets, counts, 0.95) FROM orchestra.workflow_hourly"
        " GROUP BY 1, 2",
    )
    assert not differences(
        changed,
        "SELECT workflow_id, day, calls, total_tokens, round(cost, 9), currency, reported_cost"
        " FROM marts.agg_workflow_daily WHERE calls > 0",
        f"SELECT workflow_id, {utc}, sum(calls), sum(total_tokens),"
        " CASE WHEN min(currency) = max(currency) THEN round(sum(cost), 9) END,"
        " CASE WHEN min(currency) = max(currency) THEN min(currency) END, sum(reported_cost)"
        " FROM orchestra.model_usage GROUP BY 1, 2",
    )
    [pruned] = changed.query(
        "SELECT sum(a.runs) - (SELECT count(*) FROM marts.fct_runs) AS runs"
        " FROM marts.agg_workflow_daily AS a"
    )
    assert pruned["runs"] > 0


def test_unchanged_rows_are_not_copied_again(changed: World) -> None:
    """Rows older than the look-back stay as the first build copied them."""
    for table in ("int_orchestra__runs", "int_orchestra__steps"):
        [row] = changed.query(
            "SELECT count(*) FILTER (WHERE built_at < newest) AS kept,"
            " count(*) FILTER (WHERE built_at = newest) AS copied FROM"
            f" (SELECT built_at, max(built_at) OVER () AS newest FROM marts.{table}) AS t"
        )
        assert row["kept"] > row["copied"] > 0


def test_metrics_equal_the_views(changed: World) -> None:
    """MetricFlow's queries of the metrics give the figures of the pipeline's own views."""
    pairs = (
        ("orchestra_runs,orchestra_success_rate", "run__workflow_id"),
        ("orchestra_cost,orchestra_model_calls", "step__currency"),
    )
    changed.project("parse")
    done = subprocess.run(
        [
            PYTHON,
            ROOT / "tests" / "dbt" / "render_metrics.py",
            *(one for pair in pairs for one in pair),
        ],
        cwd=changed.project.folder / "target",
        capture_output=True,
        text=True,
        check=True,
    )
    runs, calls = json.loads(done.stdout)
    rows = changed.query(runs)
    expected = changed.query(
        "SELECT workflow_id, count(*) AS runs, 1.0 * count(*) FILTER (WHERE outcome = 'succeeded')"
        " / count(*) FILTER (WHERE outcome IN ('succeeded', 'soft_failed', 'failed')) AS rate"
        " FROM orchestra.run_summary GROUP BY 1"
    )
    assert {row["run__workflow_id"]: row["orchestra_runs"] for row in rows} == {
        row["workflow_id"]: row["runs"] for row in expected
    }
    assert {
        row["run__workflow_id"]: pytest.approx(row["orchestra_success_rate"]) for row in rows
    } == {row["workflow_id"]: float(row["rate"]) for row in expected}
    rows = changed.query(calls)
    expected = changed.query(
        "SELECT currency, sum(cost) AS cost, count(*) AS calls FROM orchestra.model_calls"
        " GROUP BY 1"
    )
    assert {
        row["step__currency"]: (row["orchestra_cost"], row["orchestra_model_calls"]) for row in rows
    } == {row["currency"]: (row["cost"], row["calls"]) for row in expected}
