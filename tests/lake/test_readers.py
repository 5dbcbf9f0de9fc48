"""Engines that read the lake by its path find what PostgreSQL holds."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from etl.usage import CALLS, KINDS
from tests.acceptance.test_analytics_documentation import LIMIT, QUERIES, World, world
from tests.conftest import ROOT
from tests.lake.conftest import TABLES, Lake, lake_of
from tests.support import query

__all__ = ["world"]

APART = {
    "runs": {"extra"},
    "steps": {"extra", "step_metadata"},
    "workflow_versions": {"graph"},
}
"""Columns with content: the lake has them only in the tables of payloads."""

VIEWS = {
    "run_summary": "run_id",
    "model_usage": "hour, workflow_id, organization_id, node_id, model, service_tier, "
    "context_tier, usage_kinds, calls, input_tokens",
    "workflow_hourly": "hour, workflow_id, organization_id",
    "node_daily": "day, workflow_id, organization_id, node_id, node_type, model",
    "failures": "step_id",
    "open_runs": "run_id",
    "cost_differences": "step_id",
}
"""The views that DuckDB also has, each with an order of its rows."""


@pytest.fixture(scope="module")
def lake(world: World, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Provide the lake of a history that has every case of the documented questions."""
    folder = tmp_path_factory.mktemp("lake")
    made = lake_of(world.url, str(folder / "lake"), folder)
    made.export("run")
    return made


def figures(url: str, table: str) -> dict[str, list[Any]]:
    """Return the figures of `engines.py` for each column of a table in PostgreSQL."""
    selected, names = [], []
    for column in query(
        url,
        "SELECT column_name AS name, data_type AS kind FROM information_schema.columns"
        " WHERE table_schema = 'orchestra' AND table_name = %s ORDER BY ordinal_position",
        table,
    ):
        name, kind = f'"{column["name"]}"', column["kind"]
        if kind in ("text", "jsonb"):
            values = [f"sum(length(CAST({name} AS text)))"]
        elif kind in ("bigint", "integer", "smallint", "numeric"):
            values = [f"sum({name})"]
        elif kind.startswith("timestamp"):
            values = [
                f"CAST(extract(epoch FROM {one}({name})) * 1000000 AS bigint)"
                for one in ("min", "max")
            ]
        elif kind == "bytea":
            continue
        else:
            values = [f"min({name})", f"max({name})"]
        selected.append(f"json_build_array(count({name}), {', '.join(values)})")
        names.append(column["name"])
    [row] = query(
        url,
        f"SELECT json_build_array({', '.join(selected)}) AS figures FROM orchestra.{table}",
    )
    return dict(zip(names, row["figures"], strict=True))


def plain(value: Any) -> Any:
    """Return a value of any engine, or its text in JSON, in a form that can be compared."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, bool) or value is None or value == "ᴺᵁᴸᴸ":  # ClickHouse's NULL
        return value if isinstance(value, bool) else None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, int | float | Decimal):
        return pytest.approx(float(value), rel=1e-9, abs=1e-9)
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    if re.fullmatch(r"-?[0-9.]+([eE][+-]?[0-9]+)?", text):
        return pytest.approx(float(text), rel=1e-9, abs=1e-9)
    if re.match(r"\d{4}-\d\d-\d\d", text):
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    return text


def summed(found: list[Any]) -> list[Any]:
    """Return a column's figures; the sum of no values is 0 for some engines, null for others."""
    return plain(found) if int(found[0]) else [0]


@pytest.mark.parametrize("engine", ["duckdb", "clickhouse", "polars"])
def test_an_engine_reads_every_column(world: World, lake: Lake, engine: str) -> None:
    """Each column has the same number of values, sum, extremes and text lengths as PostgreSQL."""
    found = lake.read(engine)["columns"]

    for table in TABLES:
        expected = figures(world.url, table)
        assert expected.keys() - found[table].keys() == APART.get(table, set())
        for name in expected.keys() & found[table].keys():
            assert summed(found[table][name]) == summed(expected[name]), (table, name)
    assert int(found["steps"]["id"][0]) > 1000


def test_the_documented_questions_have_the_same_answers(world: World, lake: Lake) -> None:
    """The text of each documented query gives the same rows in DuckDB as in PostgreSQL."""
    queries = {
        name: LIMIT.sub("", sql).replace(
            "orchestra.failure_pattern(orchestra.error_message(r.error, NULL))", "r.error_pattern"
        )
        for name, (sql, _) in QUERIES.items()
    }
    assert len(queries) == 15
    found = lake.read("duckdb", sql=queries)["rows"]

    for name, sql in queries.items():
        expected = query(world.url, LIMIT.sub("", QUERIES[name][0]))
        assert expected, name
        if name == "6a":  # Ages differ, and with them the order.
            for rows in (found[name], expected):
                rows.sort(key=lambda row: row["run_id"])
        assert [list(row) for row in found[name]] == [list(row) for row in expected], name
        for mine, theirs in zip(found[name], expected, strict=True):
            assert {one: plain(mine[one]) for one in mine if one != "age_ms"} == {
                one: plain(theirs[one]) for one in theirs if one != "age_ms"
            }, (name, sql)


def test_the_views_are_those_of_postgresql(world: World, lake: Lake) -> None:
    """Each view of DuckDB has the columns and rows of the view of that name in PostgreSQL."""
    queries = {
        view: f"SELECT * FROM orchestra.{view} ORDER BY {order}" for view, order in VIEWS.items()
    }
    found = lake.read("duckdb", sql=queries)["rows"]

    for view, order in VIEWS.items():
        texts = ("_id", "type", "model", "service_tier")
        by_bytes = ", ".join(
            f'{one} COLLATE "C"' if one.endswith(texts) else one for one in order.split(", ")
        )
        expected = query(world.url, f"SELECT * FROM orchestra.{view} ORDER BY {by_bytes}")
        assert len(found[view]) == len(expected) > 0, view
        # A row of node_daily has the histograms of several rollups, one after the other.
        # In the lake, a run is known until its rows last changed.
        apart = {"age_ms", "observed_at", *(("buckets", "counts") if view == "node_daily" else ())}
        apart |= {"failed_buckets", "failed_counts"} if view == "node_daily" else set()
        for mine, theirs in zip(found[view], expected, strict=True):
            assert set(mine) == set(theirs)
            assert {one: plain(mine[one]) for one in mine if one not in apart} == {
                one: plain(theirs[one]) for one in theirs if one not in apart
            }, view


_KINDS = tuple(kind.name for kind in KINDS)
_TIERS = (32000, 100000, 128000, 199999, 200000, 256000, 272000, 512000, 524288)


def _usages() -> list[dict[str, int]]:
    """Return usage of each kind alone, of none, of all, and of kinds that include each other.

    A kind is alone also without the one that includes it.
    """
    chance = random.Random(7)
    found: list[dict[str, int]] = [{}, dict.fromkeys(_KINDS, 0), dict.fromkeys(_KINDS, 7)]
    for kind in _KINDS:
        found += [{kind: 0}, {kind: 7}, {kind: 7, "input_tokens": 100, "output_tokens": 100}]
        found += [{kind: 1_000_000_000_000, "input_tokens": 3, "output_tokens": 3}]
    for _ in range(300):
        names = chance.sample(_KINDS, chance.randint(2, 8))
        more = {name: chance.choice([0, 1, 2, 5, 50, 500_000]) for name in names}
        found.append({"input_tokens": chance.choice([1, 10, 100]), **more})
    return found


def _prices() -> list[dict[str, str | None]]:
    """Return prices of every kind, with and without one for the call, without one kind, and none.

    The last ones have no currency, as for a model without prices.
    """
    columns = [kind.price_column for kind in KINDS]
    every: dict[str, str | None] = {
        name: f"{number}.{number:02}1" for number, name in enumerate(columns, 1)
    }
    every["currency"] = "USD"
    fee = {CALLS.price_column: "5.5"}
    return [
        every, {**every, **fee}, {**every, CALLS.price_column: "0"}, {**every, "currency": "EUR"},
        *({**every, **fee, name: None} for name in columns),
        {**dict.fromkeys(every), **fee}, dict.fromkeys(every),
    ]  # fmt: skip


def test_every_branch_of_a_cost_is_that_of_postgresql(world: World, lake: Lake) -> None:
    """Charges, kinds and costs of all usage at all prices are equal in DuckDB and PostgreSQL."""
    names = [*(kind.price_column for kind in KINDS), CALLS.price_column]

    def number(value: object) -> str:
        return "NULL" if value is None else str(value)

    def text(value: object) -> str:
        return "NULL" if value is None else f"'{value}'"

    structs = {
        "usage": ", ".join(
            "({"
            + f"n: {n}, "
            + ", ".join(f"{kind}: CAST({number(one.get(kind))} AS BIGINT)" for kind in _KINDS)
            + "})"
            for n, one in enumerate(_usages())
        ),
        "prices": ", ".join(
            "({"
            + f"n: {n}, currency: CAST({text(one['currency'])} AS VARCHAR), "
            + ", ".join(f"{name}: CAST({number(one.get(name))} AS DECIMAL(38, 18))"
                        for name in names)
            + "})"
            for n, one in enumerate(_prices())
        ),
    }  # fmt: skip
    rows = {
        "usage": ", ".join(
            f"({n}, CAST(ROW({', '.join(number(one.get(kind)) for kind in _KINDS)})"
            " AS orchestra.usage))"
            for n, one in enumerate(_usages())
        ),
        "prices": ", ".join(
            f"({n}, jsonb_populate_record(CAST(NULL AS orchestra.prices), '{json.dumps(one)}'))"
            for n, one in enumerate(_prices())
        ),
    }
    costs = "SELECT u.n AS used, p.n AS priced, {cost} AS cost FROM {source} ORDER BY 1, 2"
    kinds = "SELECT u.n AS used, orchestra.kinds_of({used}) AS kinds, {charged} FROM {source}"
    charged = ", ".join(f"coalesce((orchestra.charged({{used}})).{one}, 0) AS {one}"
                        for one in _KINDS)  # fmt: skip
    mine = lake.read(
        "duckdb",
        [],
        {
            "costs": costs.format(
                cost="orchestra.call_cost(u, 1, p)",
                source=f"(VALUES {structs['usage']}) AS a (u),"
                f" (VALUES {structs['prices']}) AS b (p)",
            ),
            "kinds": kinds.format(
                used="u",
                charged=charged.format(used="u"),
                source=f"(VALUES {structs['usage']}) AS a (u) ORDER BY 1",
            ),
        },
    )["rows"]
    theirs = {
        "costs": query(
            world.url,
            costs.format(
                cost="orchestra.call_cost(u.u, 1, p.p)",
                source=f"(VALUES {rows['usage']}) AS u (n, u), (VALUES {rows['prices']})"
                " AS p (n, p)",
            ),
        ),
        "kinds": query(
            world.url,
            kinds.format(
                used="u.u",
                charged=charged.format(used="u.u"),
                source=f"(VALUES {rows['usage']}) AS u (n, u) ORDER BY 1",
            ),
        ),
    }
    for name, expected in theirs.items():
        assert len(mine[name]) == len(expected)
        for one, other in zip(mine[name], expected, strict=True):
            assert {k: plain(v) for k, v in one.items()} == {
                k: plain(v) for k, v in other.items()
            }, (_usages()[one["used"]], _prices()[one["priced"]] if name == "costs" else None)
    assert {row["cost"] is None for row in theirs["costs"]} == {True, False}


def test_the_price_that_applies_is_that_of_postgresql(world: World, lake: Lake) -> None:
    """Tiers, sizes of the input and days decide in DuckDB as in PostgreSQL, at every edge.

    A price begins and ends with a day of UTC, in any time zone of the session.
    """
    sizes = [0, *(edge + more for edge in _TIERS for more in (-1, 0, 1)), None]
    tier = "CAST({} AS INTEGER)"
    inputs = ", ".join(f"({n}, CAST({'NULL' if one is None else one} AS BIGINT))"
                       for n, one in enumerate(sizes))  # fmt: skip
    tiers = f"SELECT n, orchestra.context_tier(t) AS tier FROM (VALUES {inputs}) AS i (n, t)"
    bounds = [(0, "NULL"), (0, "32000"), (32000, "200000"), (200000, "NULL")]
    days = [("0001-01-01", "NULL"), ("0001-01-01", "'2026-03-01'"), ("2026-03-01", "'2026-03-02'"),
            ("2026-03-02", "NULL")]  # fmt: skip
    moments = ["2026-02-28 23:59:59.999999+00", "2026-03-01 00:00:00+00",
               "2026-03-01 12:00:00+05:45", "2026-03-02 05:44:59+05:45",
               "2026-03-01 23:59:59.999999+00", "2026-03-02 00:00:00+00"]  # fmt: skip
    prices = [
        (service, *bound, *day)
        for service in ("standard", "batch")
        for bound in bounds
        for day in days
    ]
    calls = [
        (service, context, moment)
        for service in ("NULL", "'standard'", "'batch'", "'flex'")
        for context in ("NULL", "0", "32000", "199999", "200000")
        for moment in moments
    ]
    call_rows = ", ".join(
        f"({n}, CAST({service} AS VARCHAR), {tier.format(context)}, TIMESTAMPTZ '{moment}')"
        for n, (service, context, moment) in enumerate(calls)
    )
    applies = (
        "SELECT c.n AS call, p.n AS price, orchestra.price_applies({price}, c.s, c.c, c.m) AS yes"
        " FROM (VALUES {calls}) AS c (n, s, c, m), (VALUES {prices}) AS p (n, p) ORDER BY 1, 2"
    )
    structs = ", ".join(
        f"({n}, {{service_tier: '{s}', above_input_tokens: {above}, up_to_input_tokens:"
        f" {tier.format(up)}, valid_from: DATE '{begin}', valid_until: CAST({end} AS DATE)}})"
        for n, (s, above, up, begin, end) in enumerate(prices)
    )
    rows = ", ".join(
        f"({n}, jsonb_populate_record(CAST(NULL AS orchestra.prices), jsonb_build_object("
        f"'service_tier', '{s}', 'above_input_tokens', {above}, 'up_to_input_tokens', {up},"
        f" 'valid_from', '{begin}', 'valid_until', {end})))"
        for n, (s, above, up, begin, end) in enumerate(prices)
    )
    mine = lake.read(
        "duckdb",
        [],
        {
            "zone": "SET TimeZone = 'Asia/Kathmandu'",
            "tiers": f"{tiers} ORDER BY n",
            "applies": applies.format(price="p.p", calls=call_rows, prices=structs),
        },
    )["rows"]
    assert mine["tiers"] == query(world.url, f"{tiers} ORDER BY n")
    expected = query(world.url, applies.format(price="p.p", calls=call_rows, prices=rows))
    assert mine["applies"] == expected
    assert {row["yes"] for row in expected} == {True, False}


def test_the_documented_lines_read_the_lake(lake: Lake) -> None:
    """The queries of the section about DuckDB return rows, with the lake's folder in them."""
    page = (ROOT / "docs" / "how-to" / "read-the-lake.md").read_text()
    [section] = re.findall(r"^## DuckDB\n(.+?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sql\n(.+?)^```", section, re.MULTILINE | re.DOTALL)
    queries = {
        str(number): re.search(r"^SELECT.+?;$", block, re.MULTILINE | re.DOTALL)[0].replace(  # type: ignore[index]
            "s3://bucket/history/orchestra", lake.folder
        )
        for number, block in enumerate(blocks)
    }
    assert len(queries) == 2
    queries["days"] = re.findall(r"^SELECT .+ FROM orchestra.days .+$", page, re.MULTILINE)[0]

    assert all(lake.read("duckdb", [], queries)["rows"].values())


def test_the_views_can_be_limited_to_the_latest_days(world: World, lake: Lake) -> None:
    """With the variable `since`, the views show the runs of that day (UTC) and of later ones."""
    [first] = query(
        world.url,
        "SELECT CAST(percentile_disc(0.5) WITHIN GROUP (ORDER BY start_time)"
        " AT TIME ZONE 'UTC' AS date) AS day FROM orchestra.runs",
    )
    shown = (
        "SELECT count(*) AS runs, CAST(sum(steps) AS bigint) AS steps FROM orchestra.run_summary"
    )
    found = lake.read(
        "duckdb", [], {"set": f"SET VARIABLE since = DATE '{first['day']}'", "shown": shown}
    )["rows"]
    [expected] = query(
        world.url,
        f"{shown} WHERE CAST(COALESCE(start_time, first_seen_at) AT TIME ZONE 'UTC' AS date) >= %s",
        first["day"],
    )

    assert found["shown"] == [expected]
    [every] = query(world.url, shown)
    assert expected["runs"] < every["runs"]


HOSTILE = (
    "", " ", "NULL", "null", "\\N", '"', "'", '""', "a,b", "line\nline", "\r", "\t", "\\", "%s",
    "{}", "😀", "\ufeff", "\uffff", "\u202e", "a\u0301", "ＡＢ", "x" * 10_000,
)  # fmt: skip


@pytest.mark.parametrize("engine", ["duckdb", "clickhouse", "polars"])
def test_an_engine_reads_hostile_values(engine: str, database_url: str, tmp_path: Path) -> None:
    """Texts that CSV, JSON or SQL treat specially, and the latest time, arrive unchanged."""
    for number, text in enumerate(HOSTILE):
        query(
            database_url,
            "INSERT INTO orchestra.runs (id, workflow_id, user_id, state, status_source, tracking,"
            " error, start_time) VALUES (%s, 'w', %s, 'failed', 'api', 'final', to_jsonb(%s::text),"
            " TIMESTAMPTZ '9999-12-31 23:59:59.999999Z')",
            f"run {number} {text[:100]}", text, text,
        )  # fmt: skip
    lake = lake_of(database_url, str(tmp_path / "lake"), tmp_path)
    lake.export("run")

    sql = {"rows": "SELECT id, user_id, error FROM orchestra.runs ORDER BY id"}
    found = lake.read(engine, ["runs"], sql if engine == "duckdb" else {})
    expected = figures(database_url, "runs")
    for name in ("id", "user_id", "error", "error_message", "start_time"):
        if name in expected:
            assert summed(found["columns"]["runs"][name]) == summed(expected[name]), name
    if engine == "duckdb":
        stored = query(
            database_url,
            "SELECT id, user_id, CAST(error AS text) AS error FROM orchestra.runs"
            ' ORDER BY id COLLATE "C"',
        )
        assert found["rows"]["rows"] == stored
