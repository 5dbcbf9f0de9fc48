"""The kinds of usage in SQL agree with `etl.usage`.

That covers their order, bits, parts and prices, and the input lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.types.json import Jsonb

from etl.usage import BITS, CALLS, CONTEXT_TIERS, KINDS, NO_USAGE, charged
from tests import view_oracle
from tests.rollup_oracle import usage_of
from tests.support import query

NAMES = tuple(BITS)
USED = f"CAST(ROW({', '.join(['CAST(%s AS bigint)'] * len(NAMES))}) AS orchestra.usage)"
_NOTHING = {"total_tokens": None, "reported_cost": None}
_PRICES = "jsonb_populate_record(CAST(NULL AS orchestra.prices), CAST(%s AS jsonb))"


@pytest.fixture
def database_url(read_only_database_url: str) -> str:
    """Provide one database for all tests here: none of them writes."""
    return read_only_database_url


def usage(chance: Random, *, parts: float = 0.4) -> dict[str, int]:
    """Return quantities of some kinds, in which no part exceeds the kind that contains it."""
    left = {
        kind.name: chance.choice((1, 2, 30, 40_000)) for kind in KINDS if chance.random() < parts
    }
    left |= (
        {"input_tokens": chance.randrange(9), "output_tokens": chance.randrange(9)}
        if chance.random() < 0.8
        else {}
    )
    found = dict(left)
    for kind in KINDS:
        for whole in kind.part_of if kind.name in left else ():
            found[whole] = found.get(whole, 0) + left[kind.name]
    return found


def values(quantities: Mapping[str, int]) -> list[int | None]:
    """Return the arguments of `USED`."""
    return [quantities.get(name) for name in NAMES]


def test_the_same_names_in_the_same_order(database_url: str) -> None:
    """Types, bits, columns of tables and views, and cost parts name all kinds in one order."""
    attributes = (
        "SELECT attname AS name FROM pg_attribute WHERE attrelid = %s::regclass"
        " AND attnum > 0 ORDER BY attnum"
    )
    assert [row["name"] for row in query(database_url, attributes, "orchestra.usage")] == list(
        NAMES
    )
    for table in ("steps", "step_rollup", "step_rollup_daily", "model_usage"):
        columns = {row["name"] for row in query(database_url, attributes, f"orchestra.{table}")}
        assert columns >= {
            *NAMES,
            "total_tokens",
            "usage_kinds",
            "service_tier",
            "reported_cost",
        }, table
    [row] = query(database_url, "SELECT orchestra.usage_kinds(%s) AS names", sum(BITS.values()))
    assert row["names"] == list(NAMES)
    for name, bit in BITS.items():
        assert query(database_url, "SELECT orchestra.usage_kinds(%s) AS names", bit) == [
            {"names": [name]}
        ]
    assert query(
        database_url,
        "SELECT orchestra.usage_kinds(0) AS none, orchestra.usage_kinds(NULL) AS unknown",
    ) == [{"none": [], "unknown": None}]


def test_each_kind_has_its_own_price_column(database_url: str) -> None:
    """Each kind is charged at its own price column and unit size."""
    prices = {kind.price_column: number for number, kind in enumerate((*KINDS, CALLS), 1)}
    wholes = dict.fromkeys(NAMES, 0)
    for kind in KINDS:
        for name in (kind.name, *kind.part_of):
            wholes[name] += 1
    lines = query(
        database_url,
        f"SELECT * FROM orchestra.cost_parts({USED}, 1, {_PRICES})",
        *values(wholes), psycopg.types.json.Jsonb({"currency": "USD", **prices}),
    )  # fmt: skip
    assert [(row["kind"], row["quantity"], row["price"], row["per"]) for row in lines] == [
        (kind.name, 1, number, kind.per) for number, kind in enumerate((*KINDS, CALLS), 1)
    ]


def test_sql_and_python_charge_the_same(database_url: str) -> None:
    """SQL charges 300 random calls as Python does.

    The parts add up to the whole, and charges of a sum are the sum of the charges.
    """
    chance = Random(18)
    calls = [usage(chance) for _ in range(300)]
    expected = [charged(replace(NO_USAGE, **one)) for one in calls]
    assert {name for one in expected for name in one} == set(NAMES)
    together: dict[str, int] = {}
    for quantities, parts in zip(calls, expected, strict=True):
        [row] = query(
            database_url,
            f"SELECT to_jsonb(orchestra.charged(u)) AS parts, orchestra.kinds_of(u) AS kinds,"
            f" orchestra.plausible_usage(u) = u AS plausible FROM (SELECT {USED} AS u) AS one",
            *values(quantities),
        )  # fmt: skip
        assert {name: count for name, count in row["parts"].items() if count} == parts
        assert row["kinds"] == sum(BITS[name] for name in parts)
        assert row["plausible"]
        read = sum(count for name, count in parts.items() if _within(name, "input_tokens"))
        written = sum(count for name, count in parts.items() if _within(name, "output_tokens"))
        assert (read, written) == (
            quantities.get("input_tokens", 0),
            quantities.get("output_tokens", 0),
        )
        for name, count in quantities.items():
            together[name] = together.get(name, 0) + count
    [row] = query(
        database_url, f"SELECT to_jsonb(orchestra.charged({USED})) AS parts", *values(together)
    )
    assert row["parts"] == {name: sum(one.get(name, 0) for one in expected) for name in NAMES}


def _within(name: str, whole: str) -> bool:
    return name == whole or any(kind.name == name and whole in kind.part_of for kind in KINDS)


def test_the_lengths_at_which_prices_change(database_url: str) -> None:
    """A length belongs to the largest price limit that it exceeds, beside and beyond each limit."""
    for tier, before in zip(CONTEXT_TIERS, (0, *CONTEXT_TIERS), strict=False):
        [row] = query(
            database_url,
            "SELECT orchestra.context_tier(%s) AS up_to, orchestra.context_tier(%s) AS above",
            tier, tier + 1,
        )  # fmt: skip
        assert (row["up_to"], row["above"]) == (before, tier)
    ends = (
        "SELECT orchestra.context_tier(0) AS a, orchestra.context_tier(1000000000000) AS b,"
        " orchestra.context_tier(NULL) AS c"
    )
    assert query(database_url, ends) == [{"a": 0, "b": CONTEXT_TIERS[-1], "c": None}]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_used_kind_without_a_price_means_no_cost(database_url: str, kind: Any) -> None:
    """A call has no cost if the one kind without a price is used, and a cost if it is not."""
    quantities = dict.fromkeys((kind.name, *kind.part_of), 1)
    prices = {"currency": "USD", **{one.price_column: 1 for one in KINDS}, kind.price_column: None}
    statement = f"SELECT orchestra.call_cost({USED}, 1, {_PRICES}) AS cost"

    def cost(quantities: Mapping[str, int], prices: Mapping[str, Any]) -> Any:
        return query(
            database_url, statement, *values(quantities), psycopg.types.json.Jsonb(prices)
        )[0]["cost"]

    assert cost(quantities, prices) is None
    assert cost(dict.fromkeys(quantities, 0), prices) == 0
    assert cost(dict.fromkeys(kind.part_of, 1), prices) is not None
    assert cost(quantities, {**prices, kind.price_column: 2}) * kind.per == pytest.approx(2)


def _usages(chance: Random) -> list[dict[str, int | None]]:
    """Return usage of all sorts.

    That is none, zeros and nulls, each kind alone, in wholes of zero and in larger wholes, parts
    without their wholes, all kinds, and random calls.
    """
    found: list[dict[str, int]] = [{}, dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 7)]
    for kind in KINDS:
        alone = {kind.name: 7}
        found += [alone, {**dict.fromkeys(NAMES, 0), **alone}]
        found += [{**dict.fromkeys(kind.part_of, 100), **alone}]
    parts = [kind.name for kind in KINDS if kind.part_of]
    found += [dict.fromkeys(chance.sample(parts, 2), chance.randrange(1, 9)) for _ in range(40)]
    found += [usage(chance) for _ in range(60)]
    return [{name: used.get(name) for name in NAMES} for used in found]


def _price_lists() -> list[dict[str, Decimal | None] | None]:
    """Return prices of all sorts, and none.

    They have a fee for each call, none, or one of zero; only a fee; and a fee, but not each kind.
    """
    every = {kind.price_column: Decimal(n * 1003) / 1000 for n, kind in enumerate(KINDS, 1)}
    fee, none = {CALLS.price_column: Decimal("5.5")}, dict.fromkeys(every)
    lacking = [{**every, **fee, kind.price_column: None} for kind in KINDS]
    free, unused = {CALLS.price_column: Decimal(0)}, {CALLS.price_column: None}
    zero = dict.fromkeys(every, Decimal(0))
    return [
        {**every, **fee}, {**every, **free}, {**every, **unused}, {**none, **fee},
        {**zero, **fee}, *lacking, None,
    ]  # fmt: skip


def test_the_parts_of_a_cost_add_up_to_it(database_url: str) -> None:
    """The cost of any usage, prices and number of calls is the sum of its parts, as in Python.

    It is unknown if there are no prices, or if one part has none.
    """
    usages, prices, numbers = _usages(Random(61)), _price_lists(), (0, 3)
    rows = query(
        database_url,
        """
        SELECT u.number - 1 AS used, p.number - 1 AS priced, calls, parts.*,
               orchestra.call_cost(u.used, calls, p.prices) AS cost
        FROM (
            SELECT number, orchestra.plausible_usage(
                       jsonb_populate_record(CAST(NULL AS orchestra.usage), one)) AS used
            FROM jsonb_array_elements(%s) WITH ORDINALITY AS u (one, number)
            OFFSET 0  -- or it would be computed once for each of its uses
        ) AS u
        CROSS JOIN (
            SELECT number, jsonb_populate_record(CAST(NULL AS orchestra.prices), one) AS prices
            FROM jsonb_array_elements(%s) WITH ORDINALITY AS p (one, number)
            OFFSET 0
        ) AS p
        CROSS JOIN unnest(CAST(%s AS bigint[])) AS calls
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(cost), 0) AS sum, count(*) > count(cost) AS unknown
            FROM orchestra.cost_parts(u.used, calls, p.prices)
        ) AS parts
        """,
        Jsonb(usages),
        Jsonb([_written(one) for one in prices]),
        [*numbers],
    )
    assert len(rows) == len(usages) * len(prices) * len(numbers)
    for row in rows:
        used, price = usages[row["used"]], prices[row["priced"]]
        expected = view_oracle.cost(price, usage_of({**_NOTHING, **used}), row["calls"])
        one = (used, price, row["calls"])
        assert (row["cost"] is None) == (price is None or row["unknown"]), one
        assert (row["cost"] is None) == (expected is None), one
        if expected is not None:
            for found in (row["cost"], row["sum"]):
                assert abs(found - expected) <= expected * Decimal("1e-15"), one


def _written(prices: dict[str, Decimal | None] | None) -> dict[str, str | None]:
    """Return the prices as JSON; a model without prices has no currency either."""
    if prices is None:
        return {}
    amounts = {name: None if one is None else str(one) for name, one in prices.items()}
    return {"currency": "USD", **amounts}
