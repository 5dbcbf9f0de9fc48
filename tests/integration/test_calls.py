"""Which steps count as model calls, and what their cost is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from etl.analytics import rollups
from etl.database import Database
from tests.support import query

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens", "total_tokens")


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database with a run and with prices of the model m.

    A token costs 2 as input, 1 as cached input, and 3 as output or reasoning. An hour of audio
    costs 5, and so does a page.
    """
    query(
        database_url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES ('run', 'w', 'succeeded', 'api', 'final', %s)",
        NOON,
    )
    query(
        database_url,
        "INSERT INTO orchestra.prices (model, valid_from, currency, input_per_million,"
        " cached_input_per_million, output_per_million, reasoning_per_million, audio_per_hour,"
        " document_pages_per_thousand, source)"
        " VALUES ('m', '0001-01-01', 'USD', 2000000, 1000000, 3000000, 3000000, 5, 5000, 'set')",
    )
    return database


def add(
    url: str,
    *tokens: int | None,
    state: str = "succeeded",
    node_type: str | None = "model",
    **more: Any,
) -> None:
    """Add a step that names the model m, with these tokens in the order of `TOKENS`."""
    [row] = query(url, "SELECT count(*) AS n FROM orchestra.steps")
    columns = {
        "id": f"step {row['n']}",
        "run_id": "run",
        "workflow_id": "w",
        "position": row["n"],
        "state": state,
    }
    columns |= {
        "start_time": NOON,
        "node_type": node_type,
        "request_model": "m",
        "content_hash": b"",
    }
    columns |= {**dict(zip(TOKENS, tokens, strict=False)), **more}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    query(url, f"INSERT INTO orchestra.steps ({names}) VALUES ({marks})", *columns.values())


def reported(database: Database, url: str) -> tuple[int, int, Any]:
    """Return calls, unpriced calls and cost, after checking that the three views agree on them."""
    rollups.drain(database)
    columns = "CAST(COALESCE(sum(calls), 0) AS int) AS calls, {} AS unpriced, sum(cost) AS cost"
    unpriced = "CAST(COALESCE(sum(unpriced_calls), 0) AS int)"
    [usage] = query(url, f"SELECT {columns.format(unpriced)} FROM orchestra.model_usage")
    [summary] = query(url, f"SELECT {columns.format(unpriced)} FROM orchestra.run_summary")
    [timeline] = query(url, f"SELECT {columns.format('0')} FROM orchestra.step_timeline")
    assert usage == summary
    assert (timeline["calls"], timeline["cost"]) == (usage["calls"], usage["cost"])
    return usage["calls"], usage["unpriced"], usage["cost"]


@pytest.mark.parametrize(
    ("tokens", "more", "expected"),
    [
        ((4, 0, 1, 5), {}, (1, 0, 11)),
        ((4, 3, 1, 5), {}, (1, 0, 8)),
        ((4, None, None, None), {}, (1, 0, 8)),
        # More cached tokens than input tokens, as old rows may have: no more than the input is
        # billed, and nothing is credited.
        ((4, 9, 0, 4), {}, (1, 0, 4)),
        ((None, 9, 1, 1), {}, (1, 0, 3)),
        # A success that reports no tokens; a call that reports only their total.
        ((), {}, (1, 1, None)),
        ((None, None, None, 500), {}, (1, 1, None)),
        ((None, None, None, 500), {"state": "failed"}, (1, 1, None)),
        # A failed or running step that reports nothing is a call that costs nothing.
        ((), {"state": "failed"}, (1, 0, 0)),
        ((), {"state": "running"}, (1, 0, 0)),
        # Not calls: the step did not run, or its node calls no model.
        ((), {"state": "skipped"}, (0, 0, None)),
        ((), {"state": "pending"}, (0, 0, None)),
        ((), {"node_type": "code"}, (0, 0, None)),
        ((), {"node_type": "integration"}, (0, 0, None)),
        # Calls, although the node is not a model: it has usage, or its type is unknown.
        ((4, 0, 1, 5), {"node_type": "code"}, (1, 0, 11)),
        ((), {"node_type": None}, (1, 1, None)),
        # Calls charged by units other than tokens, or by both, and kinds of usage without a price.
        ((), {"audio_ms": 3_600_000}, (1, 0, 5)),
        ((), {"audio_ms": 3_600_000, "node_type": "integration"}, (1, 0, 5)),
        ((), {"document_pages": 2}, (1, 0, 10)),
        ((), {"search_units": 1}, (1, 1, None)),
        ((4, 0, 1, 5), {"search_units": 0}, (1, 0, 11)),
        ((4, 0, 1, 5), {"output_audio_tokens": 1}, (1, 1, None)),
        ((), {"audio_ms": -1}, (1, 1, None)),
        # A step with a reported cost or a finish reason is a call.
        ((), {"reported_cost": Decimal("0.5"), "node_type": "integration"}, (1, 1, None)),
        ((), {"finish_reason": "stop", "node_type": "integration"}, (1, 1, None)),
        ((), {"finish_reason": "error", "node_type": "integration", "state": "failed"}, (1, 0, 0)),
        ((4, 0, 1, 5), {"request_model": None}, (1, 1, None)),
        ((4, 0, 1, 5), {"request_model": "another"}, (1, 1, None)),
    ],
)
def test_a_call(
    database: Database,
    database_url: str,
    tokens: tuple[int, ...],
    more: dict[str, Any],
    expected: tuple[int, int, int | None],
) -> None:
    """All views agree on whether a step is a call, on its cost and on whether it is unpriced."""
    add(database_url, *tokens, **more)
    assert reported(database, database_url) == expected


def test_calls_of_an_hour_are_added_up(database: Database, database_url: str) -> None:
    """The cost of an hour is the sum of its priced calls; unpriced calls are only counted."""
    for tokens in ((4, 0, 1, 5), (4, 9, 0, 4), (2, 2, 2, 4), (), (None, None, None, 7)):
        add(database_url, *tokens)
    add(database_url, state="failed")
    add(database_url, state="skipped")
    assert reported(database, database_url) == (6, 2, 11 + 4 + 8)


def test_a_price_that_comes_late_corrects_the_past(database: Database, database_url: str) -> None:
    """A price that is set or changed later also changes the cost of calls already rolled up."""
    add(database_url, 4, 0, 1, 5, request_model="another")
    assert reported(database, database_url) == (1, 1, None)
    query(
        database_url,
        "INSERT INTO orchestra.prices"
        " (model, valid_from, currency, input_per_million, output_per_million, source)"
        " VALUES ('another', '2026-03-01', 'USD', 1000000, 1000000, 'set')",
    )
    assert reported(database, database_url) == (1, 0, 5)
    query(
        database_url,
        "UPDATE orchestra.prices SET valid_from = '2026-03-02' WHERE model = 'another'",
    )
    assert reported(database, database_url) == (1, 1, None)
