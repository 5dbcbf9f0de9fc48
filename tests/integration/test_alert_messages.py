"""From rows to a receiver: rules of every metric fire and resolve, each with one message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from etl.alerts import evaluation
from etl.alerts.channels import Channels
from etl.alerts.delivery import Courier
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Rule
from etl.analytics import prices, rollups
from etl.database import Database
from tests import alert_rows
from tests.receiver import Receiver, receiver

PAUSES = Pauses({"a": 60.0})


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """Provide a running receiver."""
    with receiver() as found:
        yield found


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database with a workflow whose only run is two hours old."""
    alert_rows.workflow(database_url, "a", swept_at=datetime.now(UTC))
    alert_rows.run(database_url, "old", "a", ago(120), seconds=1)
    return database


def ago(minutes: float) -> datetime:
    """Return the time this many minutes before the current whole minute."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return now - timedelta(minutes=minutes)


def runs(
    count: int, state: str = "succeeded", name: str = "r", **more: Any
) -> Callable[[str], None]:
    """Return a function that stores runs of the last hour."""

    def store(url: str) -> None:
        for number in range(count):
            alert_rows.run(url, f"{name}{number}", "a", ago(20 + number), state, **more)

    return store


def call(**columns: Any) -> Callable[[str], None]:
    """Return a function that stores a run with one step."""

    def store(url: str) -> None:
        alert_rows.run(url, "r0", "a", ago(20))
        alert_rows.step(url, "s0", "r0", "a", ago(20), node_id="n", **columns)

    return store


def swept(minutes: float) -> Callable[[str], None]:
    """Return a function that sets the time of the last sweep."""
    return lambda url: alert_rows.swept(url, "a", datetime.now(UTC) - timedelta(minutes=minutes))


class Case(NamedTuple):
    """A rule, what makes it fire, and what resolves it."""

    metric: str
    limit: float
    breach: Callable[[str], None]
    calm: Callable[[str], None]
    value: str
    """The first line of the message that it fires."""
    comparison: str = "above"


CASES = (
    Case("failure_rate", 0.5, runs(3, "failed"), runs(9, name="ok"),
         "Failure rate: 100.0 %, above 50.0 %"),
    Case("soft_failure_rate", 0.5, call(reported_error="no"), call(reported_error=None),
         "Soft failure rate: 100.0 %, above 50.0 %"),
    Case("failures", 2, runs(3, "failed"), runs(3), "Failures: 3, above 2"),
    Case("runs", 1, lambda url: None, runs(1), "Runs: 0, below 1", "below"),
    Case("duration_p50", 30, runs(1, seconds=60), runs(1, seconds=2), "Duration p50: "),
    Case("duration_p95", 30, runs(1, seconds=60), runs(1, seconds=2), "Duration p95: "),
    Case("tokens", 100, call(request_model="gpt-4o", input_tokens=500, output_tokens=50),
         call(request_model="gpt-4o", input_tokens=5, output_tokens=5),
         "Tokens: 550, above 100"),
    Case("cost", 1, call(request_model="gpt-4o", input_tokens=1_000_000, output_tokens=0),
         call(request_model="gpt-4o", input_tokens=10, output_tokens=0),
         "Cost: 2.5 USD, above 1 USD"),
    Case("unpriced_calls", 0, call(request_model="nobody's", input_tokens=5, output_tokens=5),
         call(request_model="gpt-4o", input_tokens=5, output_tokens=5),
         "Unpriced calls: 1, above 0"),
    Case("overdue_runs", 0, runs(1, "running"), runs(1), "Overdue runs: 1, above 0"),
    Case("lag", 1800, swept(40), swept(0), "Lag: 2,4"),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.metric for case in CASES])
def test_a_rule_of_each_metric_fires_and_resolves(
    database: Database, database_url: str, hook: Receiver, case: Case
) -> None:
    """Rows that breach a rule lead to one message, and rows that undo that to another."""
    rule = Rule(
        name="r",
        metric=case.metric,  # type: ignore[arg-type]
        comparison=case.comparison,  # type: ignore[arg-type]
        limit=case.limit,
        notify=("ops",),
    )
    courier = Courier(database, Channels({"ops": hook.url}))

    def evaluate_and_deliver() -> None:
        if case.metric != "lag":
            alert_rows.swept(database_url, "a", datetime.now(UTC))
        rollups.drain(database)
        database.transaction(lambda c: prices.resolve(c, []))
        database.transaction(lambda c: evaluation.evaluate(c, [rule], PAUSES))
        asyncio.run(courier.deliver_all())

    for change in (case.breach, case.breach, case.calm, case.calm):
        change(database_url)
        evaluate_and_deliver()
    documents = [request.document for request in hook.requests]
    assert [one["kind"] for one in documents] == ["firing", "resolved"]
    assert documents[0]["text"].startswith(case.value)
    assert ", no longer " in documents[1]["text"]
    assert len({one["key"] for one in documents}) == 2
