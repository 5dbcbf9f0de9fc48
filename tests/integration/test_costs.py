"""The cost of calls: single calls, then every view against plain Python over all usage kinds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from etl.analytics import priced_calls, rollups, verification
from etl.database import Database
from etl.usage import CONTEXT_TIERS, KINDS
from tests import view_oracle
from tests.integration.test_rollup_groups import add, enter
from tests.integration.test_usage_kinds import NAMES, usage
from tests.rollup_oracle import counted, counted_rows, stored
from tests.support import query
from tests.view_oracle import Facts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VIEWS = ("model_usage", "run_summary", "step_timeline")


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database with a run."""
    enter(database_url, "run", NOON, NOON)
    query(database_url, "INSERT INTO orchestra.workflows (id, labels) VALUES ('w', '{}')")
    return database


def price(url: str, model: str, **more: Any) -> None:
    """Add a row of prices; a kind without an amount has no price."""
    columns = {
        "model": model,
        "currency": "USD",
        "source": "set",
        "valid_from": "0001-01-01",
        **more,
    }
    query(
        url,
        f"INSERT INTO orchestra.prices ({', '.join(columns)})"
        f" VALUES ({', '.join(['%s'] * len(columns))})",
        *columns.values(),
    )


def call(url: str, name: str, **columns: Any) -> None:
    """Add a step that calls the model m, unless the columns name another model."""
    columns = {"node_id": "n", "node_type": "model", "response_model": "m", **columns}
    add(url, "run", name, NOON, **columns)


def costs(database: Database, url: str) -> tuple[Decimal | None, int]:
    """Return the cost of all calls and the number of unpriced ones, on which the views agree."""
    rollups.drain(database)
    found = {
        view: query(url, f"SELECT sum(cost) AS cost FROM orchestra.{view}")[0]["cost"]
        for view in VIEWS
    }
    unpriced = {
        view: int(
            query(url, f"SELECT COALESCE(sum(unpriced_calls), 0) AS n FROM orchestra.{view}")[0][
                "n"
            ]
        )
        for view in VIEWS[:2]
    }
    assert len(set(found.values())) == 1, found
    assert len(set(unpriced.values())) == 1, unpriced
    return found["model_usage"], unpriced["model_usage"]


@pytest.mark.parametrize(
    ("used", "prices", "expected"),
    [
        # 8 prompt, 1,625 completion, 703 reasoning: the total of 2,336 shows that the reasoning is
        # not part of the completion.
        pytest.param(
            {"input_tokens": 8, "output_tokens": 2328, "reasoning_tokens": 703,
             "total_tokens": 2336},
            {"input": "1.25", "output": "10", "reasoning": "10"},
            "0.02329", id="reasoning beside the completion",
        ),
        pytest.param(
            {"input_tokens": 1_000_000, "cache_write_tokens": 1_000_000},
            {"input": "3", "cache_write": "3.75", "output": "15"},
            "3.75", id="Anthropic's cache writes",
        ),
        pytest.param(
            {"output_tokens": 1_000_000, "output_audio_tokens": 1_000_000},
            {"input": "2.5", "output": "10", "output_audio": "80"},
            "80", id="audio output",
        ),
        pytest.param(
            {"input_tokens": 1_000_000, "cached_input_tokens": 900_000},
            {"input": "0.27", "cached_input": "0.07", "output": "1.10"},
            "0.09", id="DeepSeek's cache hits",
        ),
        pytest.param(
            {"input_tokens": 3000, "cache_write_tokens": 2000, "cache_write_1h_tokens": 500,
             "cached_input_tokens": 400, "output_tokens": 100},
            {"input": "3", "cache_write": "3.75", "cache_write_1h": "6", "cached_input": "0.3",
             "output": "15"},
            # 600 plain, 1,500 written for 5 minutes, 500 written for an hour, 400 read
            "0.012045", id="two kinds of cache writes",
        ),
        pytest.param(
            {"input_tokens": 1000, "input_audio_tokens": 600, "cached_input_tokens": 500,
             "cached_audio_tokens": 400, "output_tokens": 0},
            {"input": "1", "input_audio": "10", "cached_input": "0.5", "cached_audio": "2",
             "output": "1"},
            # 300 text, 200 audio, 100 cached text, 400 cached audio
            "0.00315", id="cached audio",
        ),
        pytest.param(
            {"input_tokens": 1000, "output_tokens": 1000, "web_searches": 3},
            {"input": "1", "output": "2"}, None, id="searches without a price",
        ),
        pytest.param(
            {"input_tokens": 1000, "other_tokens": 7}, {"input": "1", "output": "2"}, None,
            id="unexplained",
        ),
    ],
)  # fmt: skip
def test_the_cost_of_a_call(
    database: Database,
    database_url: str,
    used: dict[str, int],
    prices: dict[str, str],
    expected: str | None,
) -> None:
    """Each part is charged at its own price; a call with an unpriced part has no cost."""
    price(database_url, "m", **{f"{name}_per_million": amount for name, amount in prices.items()})
    call(database_url, "s", **used)
    cost, unpriced = costs(database, database_url)
    assert (cost, unpriced) == (expected and Decimal(expected), 0 if expected else 1)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ({"web_searches": 3, "input_tokens": 0}, "0.033"),
        ({"audio_ms": 90_000}, "0.009"),
        ({"document_pages": 2}, "0.008"),
        ({"search_units": 1}, "0.005"),
        ({"file_searches": 4, "tool_uses": 1}, "0.040"),
        ({"unread_quantities": 2}, "0.005"),
        ({"input_tokens": 0, "output_tokens": 0, "unread_quantities": 2}, "0.005"),
        ({"input_tokens": 0, "output_tokens": 0}, "0"),
    ],
)
def test_what_is_charged_by_use(
    database: Database, database_url: str, used: dict[str, int], expected: str
) -> None:
    """Uses, pages and hours have their own units; a call with usage also costs one fee."""
    price(
        database_url, "m", web_searches_per_thousand=10, file_searches_per_thousand=8,
        tool_uses_per_thousand=5, audio_per_hour="0.24", document_pages_per_thousand="2.5",
        search_units_per_thousand=2, unread_per_thousand=1, calls_per_thousand=3,
    )  # fmt: skip
    call(database_url, "s", **used)
    call(database_url, "failed", state="failed")
    assert costs(database, database_url) == (Decimal(expected), 0)


def test_a_tier_of_service_has_its_own_price(database: Database, database_url: str) -> None:
    """A call is charged at its tier's price; no tier means standard, an unpriced tier no cost."""
    price(database_url, "m", input_per_million=2)
    price(database_url, "m", service_tier="batch", input_per_million=1)
    for tier in (None, "standard", "batch", "priority"):
        call(database_url, f"{tier}", service_tier=tier, input_tokens=1_000_000)
    assert costs(database, database_url) == (Decimal(5), 1)
    rows = query(
        database_url, "SELECT service_tier, cost FROM orchestra.model_usage ORDER BY service_tier"
    )
    assert [(row["service_tier"], row["cost"]) for row in rows] == [
        ("batch", 1), ("priority", None), ("standard", 2), (None, 2),
    ]  # fmt: skip


def test_a_long_input_has_its_own_price(database: Database, database_url: str) -> None:
    """A call is charged at the price for its own input length, alone and in an hour's sum."""
    price(database_url, "m", input_per_million=1, output_per_million=5, up_to_input_tokens=200_000)
    price(database_url, "m", input_per_million=2, output_per_million=10, above_input_tokens=200_000)
    for number, tokens in enumerate((150_000, 150_000, 200_000, 200_001)):
        call(database_url, f"s{number}", input_tokens=tokens, output_tokens=1000)
    each = [Decimal("0.155"), Decimal("0.155"), Decimal("0.205"), Decimal("0.410002")]
    assert costs(database, database_url) == (sum(each), 0)
    rows = query(database_url, "SELECT cost FROM orchestra.step_timeline ORDER BY cost")
    assert [row["cost"] for row in rows] == each


def test_one_kind_does_not_unprice_its_neighbours(database: Database, database_url: str) -> None:
    """Within one node, hour and model, only calls that use an unpriced kind are unpriced."""
    price(database_url, "m", input_per_million=1, output_per_million=1)
    for number in range(5):
        call(database_url, f"s{number}", input_tokens=1_000_000, output_tokens=0)
    for number in range(3):
        call(
            database_url,
            f"a{number}",
            input_tokens=1_000_000,
            input_audio_tokens=10,
            output_tokens=0,
        )
    assert costs(database, database_url) == (Decimal(5), 3)
    [row] = query(
        database_url,
        "SELECT steps, calls, succeeded, total_tokens, counts FROM orchestra.node_hourly",
    )
    assert (
        row["steps"], row["calls"], row["succeeded"], row["total_tokens"], sum(row["counts"]),
    ) == (8, 8, 8, 8_000_000, 8)  # fmt: skip


def test_a_reported_cost_is_compared(database: Database, database_url: str) -> None:
    """`cost_differences` compares a reported cost with the computed one if both are in dollars."""
    price(database_url, "m", input_per_million=2)
    price(database_url, "euro", input_per_million=2, currency="EUR")
    for name, model, reported in (
        ("half", "m", "4"), ("same", "m", "2"), ("free", "m", "0"), ("euro", "euro", "2"),
        ("unknown", "none", "3"),
    ):  # fmt: skip
        call(
            database_url,
            name,
            response_model=model,
            input_tokens=1_000_000,
            reported_cost=Decimal(reported),
        )
    call(database_url, "silent", input_tokens=1_000_000)
    rows = query(database_url, "SELECT * FROM orchestra.cost_differences")
    assert {row["step_id"]: (row["cost"], row["difference"], row["ratio"]) for row in rows} == {
        "half": (2, -2, Decimal("0.5")),
        "same": (2, 0, 1),
        "free": (2, 2, None),
        "euro": (2, None, None),
        "unknown": (None, None, None),
    }
    rollups.drain(database)
    sums = "CAST(sum(reported_calls) AS int) AS calls, sum(reported_cost) AS cost"
    for source in ("model_usage", "run_summary", "step_rollup", "step_rollup_daily"):
        assert query(database_url, f"SELECT {sums} FROM orchestra.{source}") == [
            {"calls": 5, "cost": 11}
        ]


MODELS = ("full", "plain", "two currencies", "free", "unknown", None)
TIERS = (None, "standard", "batch", "priority")


def _prices(url: str, chance: Random) -> None:
    """Add prices of some tiers, lengths and days; one model lacks some kinds, another is free."""
    columns = [kind.price_column for kind in KINDS]
    for tier in TIERS[1:3]:
        for above, up_to in ((0, CONTEXT_TIERS[2]), (CONTEXT_TIERS[2], None)):
            for since, until in (("0001-01-01", "2026-03-01"), ("2026-03-01", None)):
                bounds: dict[str, Any] = {
                    "service_tier": tier,
                    "above_input_tokens": above,
                    "up_to_input_tokens": up_to,
                }
                days = {"valid_from": since, "valid_until": until}
                amounts = {name: Decimal(chance.randrange(1, 10_000)) / 100 for name in columns}
                price(
                    url,
                    "full",
                    **bounds,
                    **days,
                    **amounts,
                    calls_per_thousand=chance.choice((None, 0, 7)),
                )
                some = {name: amounts[name] for name in columns if chance.random() < 0.7}
                price(url, "plain", **bounds, **days, **some)
    price(url, "two currencies", currency="EUR", **dict.fromkeys(columns, 1))
    price(url, "free", **dict.fromkeys(columns, 0))


def _calls(url: str, chance: Random) -> None:
    """Add steps of every kind of usage in several runs, hours and nodes.

    Some report no usage, only a total, or parts without their wholes.
    """
    for run in range(20):
        enter(url, f"r{run}", NOON + timedelta(hours=run % 3 - 13), NOON + timedelta(hours=1))
        for number in range(12):
            used: dict[str, Any] = chance.choices(
                (
                    {},
                    {"total_tokens": 9},
                    dict.fromkeys(chance.sample(NAMES, 2), 5),
                    dict(usage(chance, parts=chance.choice((0, 0.05, 0.4)))),
                ),
                (2, 1, 4, 13),
            )[0]
            if used and chance.random() < 0.7:
                used["total_tokens"] = used.get("input_tokens", 0) + used.get("output_tokens", 0)
            add(
                url, f"r{run}", f"s{run} {number}",
                NOON + timedelta(hours=run % 3 - 13, seconds=number),
                node_id=f"n{number % 4}",
                node_type=("model", "integration", "code", None)[number % 4],
                state=chance.choice(
                    ("succeeded", "succeeded", "succeeded", "failed", "running", "skipped")
                ),
                response_model=chance.choice(MODELS), service_tier=chance.choice(TIERS),
                reported_cost=chance.choice((None, None, Decimal("0.125"))),
                finish_reason=chance.choice((None, "stop", "length")),
                error=chance.choice((None, None, Jsonb("it broke"))),
                **used,
            )  # fmt: skip


def test_every_view_agrees_on_all_kinds(database: Database, database_url: str) -> None:
    """Every view and `prices explain` equal plain Python over 240 calls of all sorts."""
    chance = Random(23)
    _prices(database_url, chance)
    _calls(database_url, chance)
    rollups.drain(database)
    assert stored(database_url) == counted_rows(database_url)
    assert database.transaction(verification.verify).ok
    facts = Facts(
        query(database_url, view_oracle.RUNS),
        query(database_url, "SELECT * FROM orchestra.steps"),
        {row["id"]: row for row in query(database_url, "SELECT * FROM orchestra.workflows")},
        [],
        query(database_url, "SELECT * FROM orchestra.prices"),
    )
    groups = counted(facts.runs, facts.steps)
    expected = {
        "model_usage": view_oracle.model_usage(facts, groups),
        "run_summary": view_oracle.run_summary(facts),
        "step_timeline": view_oracle.step_timeline(facts),
        "cost_differences": view_oracle.cost_differences(facts),
    }
    keys = {
        "model_usage": (
            "hour", "workflow_id", "organization_id", "node_id", "model", "service_tier",
            "context_tier", "usage_kinds",
        ),
        "run_summary": ("run_id",), "step_timeline": ("step_id",), "cost_differences": ("step_id",),
    }  # fmt: skip
    seen = set()
    for view, wanted in expected.items():
        found: dict[Any, list[dict[str, Any]]] = {}
        for row in query(database_url, f"SELECT * FROM orchestra.{view}"):
            names = keys[view]
            found.setdefault(
                row[names[0]] if len(names) == 1 else tuple(row[name] for name in names), []
            ).append(row)
        assert found.keys() == wanted.keys(), view
        for key, rows in found.items():
            shown = {
                name: rows[0][name]
                for name in wanted[key]
                if name not in ("offset_ms", "wait_ms", "duration_ms")
            }
            for name in ("cost", "difference", "ratio"):
                if shown.get(name) is not None:
                    exact = wanted[key][name]
                    assert abs(shown.pop(name) - exact) <= abs(exact) * Decimal("1e-15"), (
                        view,
                        key,
                        name,
                    )
                    wanted[key].pop(name)
            assert shown == {name: wanted[key][name] for name in shown}, (view, key)
            seen.add((view, rows[0].get("cost") is None, rows[0].get("cost") == 0))
    assert {(view, *some) for view in expected for some in ((True, False), (False, False))} <= seen
    assert query(database_url, "SELECT FROM orchestra.model_usage WHERE cost < 0") == []
    for row in query(database_url, "SELECT step_id, cost FROM orchestra.step_timeline"):
        explained = database.transaction(partial(priced_calls.explain, step_id=row["step_id"]))
        assert explained is not None
        assert (explained.cost is None) == (row["cost"] is None), explained
        difference: Decimal = (explained.cost or Decimal(0)) - (row["cost"] or Decimal(0))
        assert abs(difference) < Decimal("1e-15"), explained
    parts = query(
        database_url,
        f"""
        SELECT k.cost, count(c.kind) AS lines, sum(c.cost) AS sum,
            bool_or(c.cost IS NULL) AS unknown
        FROM (SELECT id, response_model AS model,
                  orchestra.plausible_usage(ROW({", ".join(NAMES)})) AS used
              FROM orchestra.steps) AS s
        JOIN orchestra.prices AS p ON p.model = s.model
        CROSS JOIN LATERAL (SELECT orchestra.call_cost(s.used, 1, p) AS cost) AS k
        LEFT JOIN LATERAL orchestra.cost_parts(s.used, 1, p) AS c ON true
        GROUP BY s.id, p.*, k.cost
        """,
    )
    assert {(row["cost"] is None) == (row["lines"] > 0 and row["unknown"]) for row in parts} == {
        True
    }
    assert max(
        abs(row["cost"] - (row["sum"] or 0)) for row in parts if row["cost"] is not None
    ) < Decimal("1e-15")


def test_cost_functions_are_inlined(database_url: str) -> None:
    """The planner inlines the cost functions into every view, so that many rows stay fast."""
    for view in ("model_usage", "run_summary", "step_timeline", "cost_differences"):
        plan = query(database_url, f"EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM orchestra.{view}")
        text = json.dumps(plan, default=str)
        assert "per_million" in text
        for function in (
            "call_cost",
            "part_cost",
            "charged",
            "price_applies",
            "is_unmetered",
            "has_usage",
            "context_tier",
        ):
            assert f"{function}(" not in text, (view, function)


@pytest.mark.parametrize(
    ("reason", "cut_off"),
    [
        *((reason, True) for reason in (
            "length", "LENGTH", "max_tokens", "MAX_TOKENS", "FinishReason.MAX_TOKENS",
            "FINISH_REASON_MAX_TOKENS", "max-tokens", "maxTokens", "max_output_tokens",
            "max_completion_tokens", "max_new_tokens", "model_length", "max_tokens_reached",
            "model_context_window_exceeded", "maximum_tokens", "token_limit", "ERROR_LIMIT",
            "REASON_MAX_LEN", "REASON_MAX_CONTEXT", "context_length_exceeded",
        )),
        *((reason, False) for reason in (
            "stop", "STOP", "end_turn", "eos", "tool_calls", "tool_use", "content_filter", "SAFETY",
            "refusal", "pause_turn", "insufficient_system_resource", "time_limit", "stop_sequence",
            "guardrail_intervened", "error", "", "a length of rope", "max_tokens\nstop",
            "COMPLETE", "completed", "function_call", "eos_token",
        )),
        (None, None),
    ],
)  # fmt: skip
def test_a_response_cut_off(
    read_only_database_url: str, reason: str | None, cut_off: bool | None
) -> None:
    """Each provider's finish reason for exhausted tokens is recognised, and no other reason is."""
    found = query(read_only_database_url, "SELECT orchestra.is_cut_off(%s) AS it", reason)
    assert found == [{"it": cut_off}]
