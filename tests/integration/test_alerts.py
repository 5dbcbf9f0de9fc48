"""Rules fire and resolve by what happened, and say so when that is not known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.alerts import evaluation
from etl.alerts.evaluation import EvaluationReport
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Rule
from etl.analytics import rollups
from etl.database import Database
from tests import alert_rows
from tests.support import query

PAUSES = Pauses({"a": 60.0, "b": 60.0})


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Provide a database with a workflow that was swept just now."""
    made = Database(database_url, patience=5)
    alert_rows.workflow(database_url, "a", swept_at=now())
    yield made
    made.close()


def now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


def ago(minutes: float) -> datetime:
    """Return the time this many minutes before the current whole minute."""
    return now().replace(second=0, microsecond=0) - timedelta(minutes=minutes)


def rule(**values: Any) -> Rule:
    """Return a rule on failed runs."""
    return Rule(
        **{
            "name": "r",
            "metric": "failure_rate",
            "comparison": "above",
            "limit": 0.2,
            "notify": ("ops",),
            **values,
        }
    )


def evaluate(database: Database, url: str, *rules: Rule, refresh: bool = True) -> EvaluationReport:
    """Sweep, refresh the rollups, and evaluate."""
    alert_rows.swept(url, "a", now())
    if refresh:
        rollups.drain(database)
    return database.transaction(lambda c: evaluation.evaluate(c, rules, PAUSES))


def stored(url: str) -> list[dict[str, Any]]:
    """Return the stored states."""
    return query(url, "SELECT * FROM orchestra_etl.alerts ORDER BY rule, subject")


def told(url: str) -> list[tuple[str, str, int]]:
    """Return the kind, the channel and the sequence of the queued messages."""
    rows = query(url, "SELECT * FROM orchestra_etl.alert_notifications ORDER BY id")
    return [(row["kind"], row["channel"], row["sequence"]) for row in rows]


def test_a_failing_workflow_fires_and_resolves_once(database: Database, database_url: str) -> None:
    """A rule fires when too many runs failed, tells once, and resolves when they are few again."""
    for n in range(8):
        alert_rows.run(database_url, f"ok{n}", "a", ago(30 - n))
    assert evaluate(database, database_url, rule()).findings == ()
    assert stored(database_url) == []
    for n in range(3):
        alert_rows.run(database_url, f"bad{n}", "a", ago(20 - n), "failed")
    evaluate(database, database_url, rule())
    evaluate(database, database_url, rule())
    [alert] = stored(database_url)
    assert (alert["state"], alert["value"], alert["threshold"]) == ("firing", 3 / 11, 0.2)
    assert told(database_url) == [("firing", "ops", 1)]
    for n in range(8):
        alert_rows.run(database_url, f"more{n}", "a", ago(10 - n / 10))
    evaluate(database, database_url, rule())
    assert [one["state"] for one in stored(database_url)] == ["resolved"]
    assert told(database_url) == [("firing", "ops", 1), ("resolved", "ops", 1)]
