"""Every metric equals a count over all runs and steps in plain Python, in any window."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isclose
from random import Random

import pytest

from etl.alerts import evaluation, states
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Metric, Rule, Slice
from etl.alerts.verdicts import Verdict
from etl.analytics import rollups
from etl.database import Database
from tests import alert_oracle, alert_rows
from tests.support import query, slow

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
    Slice(),
    Slice(organisation="one"),
    Slice(node="n1"),
    Slice(model="cheap"),
    Slice("two", "n0", "dear"),
)
OVERS = (60.0, 26 * 60.0, 3600.0, 95 * 60.0, 26 * 3600.0, 7 * 86400.0)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Provide a database with two workflows that were swept, and prices."""
    made = Database(database_url, patience=5)
    rollups.drain(made)
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
    yield made
    made.close()


def history(url: str, random: Random, name: str, runs: int) -> None:
    """Store random runs and steps, most of them near the edges of the windows."""
    edges = [ENDED - timedelta(seconds=over) for over in (0, *OVERS)]
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
            for rule, known, verdict in evaluation.judged(c, wanted, PAUSES, states.now(c))
        }
    )


@pytest.mark.parametrize("seed", [1, 2, *slow(*range(3, 30))])
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


def _equal(one: float | None, other: float | None) -> bool:
    """Return whether the values are equal, but for the rounding of a sum in another order."""
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-12)
