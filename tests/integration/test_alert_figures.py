"""Every metric equals a count over all runs and steps in plain Python, in any window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isclose
from random import Random
from statistics import median
from typing import Any

import pytest

from etl.alert_metrics import Metric
from etl.alerts import evaluation, knowledge
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Part, Rule
from etl.alerts.verdicts import Verdict
from etl.analytics import rollups
from etl.database import Database
from tests import alert_oracle, alert_rows
from tests.support import query, slow

Row = Mapping[str, Any]

METRICS: tuple[Metric, ...] = (
    "failure_rate", "soft_failure_rate", "failures", "runs", "duration_p50", "duration_p95", "cost",
    "tokens", "unpriced_calls",
)  # fmt: skip
ENDED = datetime(2026, 10, 25, 2, 34, 17, tzinfo=UTC)
"""When the sweep began. Central European summer time ends in this night."""
CENTURY = 36525 * 86400.0
WORKFLOWS = ("a", "b")
PAUSES = Pauses(dict.fromkeys(WORKFLOWS, CENTURY))
PARTS = (
    Part(),
    Part(organisation="one"),
    Part(node="n1"),
    Part(model="cheap"),
    Part("two", "n0", "dear"),
)
OVERS = (60.0, 26 * 60.0, 3600.0, 95 * 60.0, 26 * 3600.0, 7 * 86400.0)
EDGES = tuple(ENDED - timedelta(seconds=over) for over in (0, *OVERS))


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database with two workflows that were swept, and prices."""
    rollups.drain(database)
    for id in WORKFLOWS:
        alert_rows.workflow(database_url, id, swept_at=ENDED)
    for model, (read, written) in alert_oracle.PRICES.items():
        query(
            database_url,
            "INSERT INTO orchestra.prices (model, valid_from, currency, input_per_million,"
            " output_per_million, cached_input_per_million, reasoning_per_million, source)"
            " VALUES (%s, '0001-01-01', 'USD', %s, %s, %s, %s, 'config')",
            model, read, written, read, written,
        )  # fmt: skip
    return database


def history(
    url: str, random: Random, name: str, runs: int, edges: Sequence[datetime] = EDGES
) -> None:
    """Store random runs and steps, most of them near the edges of the windows."""
    for n in range(runs):
        run_id, workflow_id = f"{name}{n}", random.choice(WORKFLOWS)
        near = random.choice(edges) + timedelta(seconds=random.gauss(0, 1500))
        start = min(near, ENDED) if random.random() < 0.95 else None
        state = random.choice(["succeeded"] * 4 + ["failed", "cancelled", "skipped"])
        alert_rows.run(
            url, run_id, workflow_id, start, state, seconds=random.expovariate(0.1),
            organization_id=random.choice(["one", "two", None]), first_seen_at=min(near, ENDED),
        )  # fmt: skip
        for step in range(random.randrange(4)):
            began = start + timedelta(seconds=random.expovariate(0.01)) if start else None
            used = {"input_tokens": random.randrange(9000), "output_tokens": random.randrange(900)}
            alert_rows.step(
                url, f"{run_id}.{step}", run_id, workflow_id,
                began if random.random() < 0.9 else None,
                random.choice(["succeeded"] * 3 + ["failed", "skipped", "running"]),
                seconds=random.expovariate(1), node_id=f"n{step}",
                organization_id=random.choice(["one", "two", None]),
                request_model=random.choice(["cheap", "dear", "free", None]),
                reported_error=random.choice([None] * 6 + ["overloaded"]),
                **(used if random.random() < 0.8 else {}),
            )  # fmt: skip


def rules() -> list[Rule]:
    """Return a rule for each metric, part and window."""
    return [
        Rule(f"{metric} {part} {over} {least}", metric, "above", 0, over, part=part, min_runs=least)
        for metric in METRICS
        for part in PARTS
        for over in OVERS
        for least in (0, 3)
        if not (metric == "runs" and (part.of_steps or least))
    ]


def verdicts(database: Database, wanted: list[Rule]) -> dict[tuple[str, str], Verdict]:
    """Return the verdicts by rule and workflow."""
    return database.transaction(
        lambda c: {
            (rule.name, known.id): verdict
            for rule, known, verdict in evaluation.judged(c, wanted, PAUSES, knowledge.now(c))
        }
    )


@pytest.mark.parametrize("seed", [1, 2, *slow(*range(3, 12))])
def test_every_metric_is_the_count_over_the_rows(
    database: Database, database_url: str, seed: int
) -> None:
    """Each metric of each part in each window equals a count in Python.

    Some hours are in the rollups, some changed since, and some lie only partly in the window.
    """
    random = Random(seed)
    history(database_url, random, "old", 50)
    rollups.drain(database)
    history(database_url, random, "new", 25)
    wanted = rules()
    found = verdicts(database, wanted)
    runs = query(database_url, "SELECT * FROM orchestra.runs")
    steps = query(database_url, "SELECT * FROM orchestra.steps")
    ended = ENDED.replace(second=0)
    for rule in wanted:
        for workflow_id in WORKFLOWS:
            verdict = found[rule.name, workflow_id]
            begun = ended - timedelta(seconds=rule.over)
            expected = alert_oracle.value(rule, workflow_id, begun, ended, runs, steps)
            assert verdict.window is not None
            assert (verdict.window.begun, verdict.window.ended) == (begun, ended)
            assert _equal(verdict.value, expected), (rule, workflow_id, verdict, expected)
    assert sum(verdict.value not in (None, 0) for verdict in found.values()) > len(found) / 4


@pytest.mark.parametrize("seed", [1, *slow(*range(2, 6))])
def test_usual_is_the_median_of_four_weeks(
    database: Database, database_url: str, seed: int
) -> None:
    """The threshold is a multiple of the median of the same hours (UTC) of the weeks before.

    The clocks were changed in between, and the database's own time zone is one that changes them.
    """
    name = database_url.rpartition("/")[2].partition("?")[0]
    query(database_url, f"ALTER DATABASE \"{name}\" SET TimeZone = 'Europe/Berlin'")
    random = Random(seed)
    for workflow_id in WORKFLOWS:
        alert_rows.run(
            database_url, f"first {workflow_id}", workflow_id, ENDED - timedelta(days=99)
        )
    weeks = [timedelta(weeks=week) for week in range(5)]
    history(database_url, random, "old", 80, [ENDED - week for week in weeks])
    rollups.drain(database)
    history(database_url, random, "new", 40, [ENDED - week for week in weeks])
    wanted = [
        Rule(f"{metric} {part} {over}", metric, "above_usual", 1.5, over, part=part)
        for metric in ("failures", "failure_rate", "runs", "duration_p95", "unpriced_calls")
        for part in PARTS[:3]
        for over in (26 * 60.0, 95 * 60.0)
        if not (metric == "runs" and part.of_steps)
    ]
    found = verdicts(database, wanted)
    runs = query(database_url, "SELECT * FROM orchestra.runs")
    steps = query(database_url, "SELECT * FROM orchestra.steps")
    compared = 0
    for rule in wanted:
        for workflow_id in WORKFLOWS:
            values = []
            for week in weeks:
                ended = ENDED.replace(second=0) - week
                begun = ended - timedelta(seconds=rule.over)
                value = alert_oracle.value(rule, workflow_id, begun, ended, runs, steps)
                values.append((value, _is_open(rule, workflow_id, begun, ended, runs, steps)))
            earlier = [value for value, is_open in values[1:] if value is not None and not is_open]
            usual = median(earlier) if len(earlier) > 1 else None
            verdict = found[rule.name, workflow_id]
            assert _equal(verdict.usual, usual), (rule, workflow_id, verdict, values)
            if usual is not None:
                assert _equal(verdict.threshold, 1.5 * usual)
            if usual is not None and verdict.value is not None and verdict.is_breached is not None:
                compared += 1
                assert verdict.is_breached is (verdict.value > 1.5 * usual)
    assert compared > len(found) / 4


def _is_open(
    rule: Rule,
    workflow_id: str,
    begun: datetime,
    ended: datetime,
    runs: Sequence[Row],
    steps: Sequence[Row],
) -> bool:
    """Return whether steps that have not ended make the share of the window unknown."""
    if rule.metric != "failure_rate" or not rule.part.of_steps:
        return False
    return any(
        step["state"] == "running" and step["node_id"] == rule.part.node
        and step["workflow_id"] == workflow_id and begun <= _time(step, runs) < ended
        for step in steps
    )  # fmt: skip


def _time(step: Row, runs: Sequence[Row]) -> datetime:
    run = next(run for run in runs if run["id"] == step["run_id"])
    time: datetime = step["start_time"] or run["start_time"] or run["first_seen_at"]
    return time


def _equal(one: float | None, other: float | None) -> bool:
    """Return whether the values are equal, but for the rounding of a sum in another order."""
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-12)
