"""Prices by kind, service tier and input length: rules, unpriced calls, the cost of a call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest

from etl.analytics import price_publication, priced_calls, prices, rollups
from etl.analytics.amounts import PARTS
from etl.analytics.price_lists import PriceRule, price_list
from etl.analytics.priced_calls import ModelUsage, UnpricedReason
from etl.cli.display import amount
from etl.database import Database
from etl.usage import BITS, KINDS, Usage, charged
from tests.command_line import Command
from tests.support import query

DAY = date(2026, 11, 20)


def call(url: str, step: str, model: str | None, **columns: Any) -> None:
    """Store a step that called this model, with these columns, as a load would."""
    usage = msgspec.convert({name: value for name, value in columns.items() if name in BITS}, Usage)
    kinds = sum(BITS[name] for name, quantity in charged(usage).items() if quantity > 0)
    query(url, "INSERT INTO orchestra.workflows (id) VALUES ('w') ON CONFLICT DO NOTHING")
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES ('r', 'w', 'succeeded', 'api', 'final', '2026-11-20') ON CONFLICT DO NOTHING",
    )
    values = {
        "id": step, "run_id": "r", "workflow_id": "w", "position": 0, "node_id": "n",
        "status": "completed", "state": "succeeded", "content_hash": b"",
        "start_time": f"{DAY} 12:00Z", "response_model": model, "usage_kinds": kinds, **columns,
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    query(url, f"INSERT INTO orchestra.steps ({names}) VALUES ({marks})", *values.values())


def resolve(database: Database, *configured: PriceRule) -> int:
    """Bring the rollups and prices up to date, and return how many prices changed."""
    rollups.drain(database)
    return database.transaction(partial(prices.resolve, configured=configured))


def rule(model: str, amount: str, **others: Any) -> PriceRule:
    """Return a rule by which input and output cost the same."""
    return PriceRule(model, "USD", {"input": Decimal(amount), "output": Decimal(amount)}, **others)


def listed(model: str, *configured: PriceRule) -> list[tuple[str, int, int | None, str, str]]:
    """Return the tier, length bounds, first day and input price of each price of a model."""
    return [
        (
            one.service_tier, one.above_input_tokens, one.up_to_input_tokens, str(one.valid_from),
            str(one.amounts["input"]),
        )
        for one in price_list(model, configured, [])
    ]  # fmt: skip


def test_a_rule_is_for_the_standard_tier_and_any_length() -> None:
    """A plain rule replaces the standard prices of all lengths and leaves those of other tiers."""
    found = listed("gpt-5.4", rule("gpt-5.4", "9"))
    assert found[0] == ("standard", 0, None, "0001-01-01", "9")
    assert [one for one in found if one[0] == "standard"] == found[:1]
    assert found[1:] == [one for one in listed("gpt-5.4") if one[0] != "standard"]
    assert {one[0] for one in found} == {"standard", "batch", "flex", "priority", "fast"}


def test_a_rule_for_a_tier_or_a_length() -> None:
    """A rule for one tier or length leaves the others, day by day.

    A rule for the longest input takes precedence over a newer one without a length.
    """
    assert listed("gpt-3.5-turbo-instruct", rule("*", "9", service_tier="us")) == [
        ("standard", 0, None, "0001-01-01", "1.5"),
        ("us", 0, None, "0001-01-01", "9"),
    ]
    long = rule(
        "gpt-3.5-turbo-instruct", "9", above_input_tokens=200_000, valid_from=date(2026, 1, 1)
    )
    assert listed("gpt-3.5-turbo-instruct", long) == [
        ("standard", 0, None, "0001-01-01", "1.5"),
        ("standard", 0, 200_000, "2026-01-01", "1.5"),
        ("standard", 200_000, None, "2026-01-01", "9"),
    ]
    assert listed(
        "x", rule("x", "1", valid_from=date(2026, 2, 1)), rule("x", "2", above_input_tokens=32_000)
    ) == [
        ("standard", 0, 32_000, "2026-02-01", "1"),
        ("standard", 32_000, None, "0001-01-01", "2"),
    ]


def test_parts_that_a_rule_leaves_out() -> None:
    """A part of input or output without a price costs as much as the part that contains it.

    A part that no other contains stays without a price.
    """
    [price] = price_list("x", [rule("x", "2")], [])
    assert price.amounts["cached_input"] == price.amounts["reasoning"] == 2
    assert not {"output_audio", "web_searches", "other", "audio"} & price.amounts.keys()
    [price] = price_list("x", [PriceRule("x", "USD", {"audio": Decimal("0.36")})], [])
    assert price.amounts == {"audio": Decimal("0.36"), "calls": Decimal(0)}


def test_every_part_is_set_by_command(
    command: Command, database: Database, database_url: str
) -> None:
    """`prices set` takes every kind, a service tier and a length.

    `prices unset` removes all prices of a name, or only those of a given tier or length.
    """
    call(database_url, "s", "m", input_tokens=10)
    rollups.drain(database)
    parts = [
        one
        for part in ("cache_write=3.75", "cache-write-1h=6", "output_audio=80")
        for one in ("--part", part)
    ]
    text = ("--input", "3", "--output", "15")
    assert (
        command(
            "prices",
            "set",
            "m",
            *text,
            "--cached-input",
            "0.3",
            *parts,
            "--part",
            "web_searches=10",
        ).status
        == 0
    )
    assert (
        command("prices", "set", "m", *text, "--service-tier", "FLEX", "--above", "200000").status
        == 0
    )
    rows = query(
        database_url,
        "SELECT * FROM orchestra.prices ORDER BY service_tier DESC, above_input_tokens",
    )
    first, second = rows
    assert (first["service_tier"], first["above_input_tokens"], first["up_to_input_tokens"]) == (
        "standard",
        0,
        None,
    )
    assert (second["service_tier"], second["above_input_tokens"]) == ("flex", 200_000)
    assert first["cache_write_1h_per_million"] == 6
    assert first["output_audio_per_million"] == 80
    assert first["web_searches_per_thousand"] == 10
    assert first["calls_per_thousand"] == 0
    assert first["file_searches_per_thousand"] is None
    printed = " ".join(command("prices", "list").out.split())
    assert (
        "input 3, cached_input 0.3, cache_write 3.75, cache_write_1h 6, output 15,"
        " output_audio 80, web_searches 10 USD (set)" in printed
    )
    assert "flex, above 200,000 input tokens: input 3, output 15 USD (set)" in printed
    found = command("prices", "list", "--json").json
    assert [one["service_tier"] for one in found["set"]] == ["flex", "standard"]
    assert found["set"][0]["set_at"] is not None
    missing = command("prices", "unset", "m", "--service-tier", "batch")
    assert (
        missing.err
        == "orchestra-etl: there is no price of m for batch from `prices set`: see `prices list`\n"
    )
    assert (
        command("prices", "unset", "m", "--above", "200000").out
        == "1 price removed; 1 price changed\n"
    )
    assert command("prices", "unset", "m").out == "1 price removed; 1 price changed\n"


def test_a_model_without_token_prices(command: Command) -> None:
    """A model without token prices needs no price of input and output."""
    assert command("prices", "set", "ocr-*", "--part", "document_pages=1").status == 0
    [found] = command("prices", "list", "--json").json["set"]
    assert found["amounts"] == {"document_pages": "1"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--output", "1"),
         "--input: is missing: give --input and --output, or --part for what is not sold by the"
         " token"),
        ((),
         "--input: is missing: give --input and --output, or --part for what is not sold by the"
         " token"),
        (("--input", "1", "--output", "1", "--part", "input=2"),
         "--part: the price of input is set twice"),
        (("--part", "audio=-1"), "--part audio: must be greater than or equal to 0"),
        (("--part", "audio=x"), "--part audio: must be a valid decimal"),
        (
            ("--input", "1", "--output", "1", "--above", "150000"),
            "--above: must be 0 or one of 32000, 100000, 128000, 199999, 200000, 256000, 272000,"
            " 512000, 524288: prices change there",
        ),
        (("--input", "1", "--output", "1", "--service-tier", "x" * 51),
         "--service-tier: must be a name of at most 50 characters"),
    ],
)  # fmt: skip
def test_mistakes_in_parts(command: Command, arguments: Sequence[str], error: str) -> None:
    """An invalid part, tier or length is refused in one line that says what is valid."""
    printed = command("prices", "set", "m", *arguments)
    assert (printed.status, printed.err) == (2, f"orchestra-etl: {error}\n")


@pytest.mark.parametrize("part", ["colour=1", "audio", "=1", "output_audio:1", "\x1b[31m=1"])
def test_unknown_parts(command: Command, part: str) -> None:
    """An unknown kind is refused with the list of kinds, in one line without control characters."""
    printed = command("prices", "set", "m", "--part", part)
    assert printed.status == 2
    assert printed.err.startswith("orchestra-etl: --part: ")
    assert (
        "is not NAME=AMOUNT with one of input, cached_input, cache_write, cache_write_1h,"
        " input_audio" in printed.err
    )
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err


def test_unpriced_calls_are_counted_by_reason(database: Database, database_url: str) -> None:
    """A call is unpriced if a part or its tier has no price, or if it reports no usage.

    The other calls of its model keep their price, and the view counts the same.
    """
    call(database_url, "1", "gpt-4o", input_tokens=10, output_tokens=5)
    call(database_url, "2", "gpt-4o", input_tokens=10, output_tokens=5, output_audio_tokens=2)
    call(
        database_url,
        "3",
        "gpt-4o",
        input_tokens=10,
        output_tokens=5,
        output_audio_tokens=3,
        other_tokens=1,
    )
    call(database_url, "4", "gpt-4o", input_tokens=10, output_tokens=5, service_tier="us")
    call(database_url, "5", "gpt-4o", input_tokens=10, output_tokens=5, service_tier="batch")
    call(database_url, "6", "unknown", input_tokens=10, service_tier="batch")
    call(database_url, "7", "text-embedding-3-small", input_tokens=10)
    call(database_url, "8", "text-embedding-3-small", input_tokens=10, output_tokens=1)
    call(database_url, "9", "gpt-4o")
    call(database_url, "10", "unknown")
    resolve(database)
    shown = (
        "SELECT model, sum(calls)::int AS calls, sum(unpriced_calls)::int AS unpriced"
        " FROM orchestra.model_usage GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row.values()) for row in query(database_url, shown)] == [
        (one.model, one.calls, one.unpriced_calls)
        for one in database.transaction(priced_calls.usage)
    ]
    assert database.transaction(priced_calls.usage) == [
        ModelUsage(
            "gpt-4o",
            6,
            4,
            [
                UnpricedReason("usage", 1),
                UnpricedReason("output_audio", 2),
                UnpricedReason("other", 1),
                UnpricedReason("service_tier us", 1),
            ],
        ),
        ModelUsage("text-embedding-3-small", 2, 1, [UnpricedReason("output", 1)]),
        ModelUsage("unknown", 2, 2, [UnpricedReason("model", 2)]),
    ]


def test_the_list_shows_sources_and_missing_prices(
    command: Command, database: Database, database_url: str
) -> None:
    """`prices list` names each price's source and age, and the calls that have no price."""
    call(database_url, "1", "gpt-4o", input_tokens=10, output_tokens=5, output_audio_tokens=2)
    call(database_url, "2", "tts-1", input_tokens=10)
    call(database_url, "3", "gpt-4o-audio-preview", input_tokens=10)
    call(database_url, "4", "own/\x1b[31mmodel:free", input_tokens=10)
    resolve(database)
    printed = " ".join(command("prices", "list").out.split())
    source = f"openai, genai-prices {price_publication.version()}"
    assert (
        "input 2.5, cached_input 1.25, output 10, web_searches 10,"
        f" file_searches 2.5 USD ({source})" in printed
    )
    assert (
        "batch: input 1.25, output 5, web_searches 10, file_searches 2.5 USD from 2026-10-14"
        f" ({source})" in printed
    )
    assert "no price for output_audio: 1 call" in printed
    assert (
        f"input_audio 40, output 10, output_audio 80 USD from 2024-12-17 ({source},"
        " in part added by orchestra-etl)" in printed
    )
    assert (
        "no price (openai sells it by input_mchars, which is not counted): set one with" in printed
    )
    assert f"free (openrouter, genai-prices {price_publication.version()})" in printed
    assert "\x1b" not in printed
    published = price_publication.publication(date.today())
    assert f"published prices: {published.text}" in printed
    found = command("prices", "list", "--json").json
    assert found["published"]["version"] == price_publication.version()
    assert found["models"][0]["unpriced_reasons"] == [{"reason": "output_audio", "calls": 1}]
    assert found["models"][0]["prices"][0]["source"] == "default"


def test_old_prices_are_reported(
    command: Command, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list, `status` and `config check` warn if the published prices are a year old.

    Of recent prices, only the list shows the age.
    """
    call(database_url, "1", "gpt-4o", input_tokens=10)
    resolve(database)
    commands = [("prices", "list"), ("status",), ("config", "check")]
    assert not any("old, so update genai-prices" in command(*one).out for one in commands)
    published = price_publication.publication
    monkeypatch.setattr(
        price_publication,
        "publication",
        lambda today: published(today.replace(year=today.year + 1)),
    )
    for one in commands:
        assert "old, so update genai-prices" in " ".join(command(*one).out.split()), one


def test_the_parts_of_a_call_add_up_to_its_cost(
    command: Command, database: Database, database_url: str
) -> None:
    """`prices explain` shows each part once, and the parts add up to the cost.

    It also shows the cost that the provider reports.
    """
    call(
        database_url, "s-1", "claude-sonnet-4-5-20250929",
        input_tokens=10_000, cached_input_tokens=6_000, cache_write_tokens=3_000,
        cache_write_1h_tokens=1_000, output_tokens=500, reasoning_tokens=200,
        web_searches=2, reported_cost=Decimal("0.04"),
    )  # fmt: skip
    resolve(database)
    found = command("prices", "explain", "s-1", "--json").json
    assert [
        (one["kind"], one["quantity"], one["price"], amount(Decimal(one["cost"])))
        for one in found["parts"]
    ] == [
        ("input", 1_000, "3", "0.003"),
        ("cached_input", 6_000, "0.3", "0.0018"),
        ("cache_write", 2_000, "3.75", "0.0075"),
        ("cache_write_1h", 1_000, "6", "0.006"),
        ("output", 300, "15", "0.0045"),
        ("reasoning", 200, "15", "0.003"),
        ("web_searches", 2, "10", "0.02"),
    ]
    assert Decimal(found["cost"]) == Decimal("0.0458")
    assert Decimal(found["difference"]) == Decimal("0.0058")
    assert (found["currency"], found["why_none"]) == ("USD", [])
    printed = command("prices", "explain", "s-1").out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "cache_write 2,000 x 3.75 for a million = 0.0075" in lines
    assert "web_searches 2 x 10 for a thousand = 0.02" in lines
    assert "cost 0.0458 USD" in lines
    assert "reported 0.04 USD by the provider itself; the cost is 0.0058 USD more" in lines
    whole = " ".join(printed.split())
    assert (
        "standard, up to 200,000 input tokens, on all days, paid to anthropic; by genai-prices"
        in whole
    )


def test_the_four_costs(database: Database, database_url: str) -> None:
    """Reasoning, cache writes, audio output and cache hits are charged at their own prices."""
    call(
        database_url,
        "reasoning",
        "gemini-2.5-pro",
        input_tokens=1_000,
        output_tokens=2_204,
        reasoning_tokens=703,
    )
    call(
        database_url,
        "writes",
        "claude-sonnet-4-5",
        input_tokens=100_000,
        cache_write_tokens=100_000,
    )
    call(
        database_url,
        "audio",
        "gpt-4o-audio-preview",
        output_tokens=100_000,
        output_audio_tokens=100_000,
    )
    call(database_url, "hits", "deepseek-chat", input_tokens=1_000_000, cached_input_tokens=900_000)
    resolve(database)
    costs = {}
    for step in ("reasoning", "writes", "audio", "hits"):
        found = database.transaction(partial(priced_calls.explain, step_id=step))
        assert found is not None
        costs[step] = found.cost
    assert costs == {
        "reasoning": Decimal("0.02329"), "writes": Decimal("0.375"), "audio": Decimal(8),
        "hits": Decimal("0.09"),
    }  # fmt: skip


def test_a_fee_for_each_call(database: Database, database_url: str) -> None:
    """A fee for each call is added to the cost of what the call used, unless it used nothing."""
    call(database_url, "used", "sonar-pro", input_tokens=1_000, output_tokens=0)
    call(database_url, "nothing", "sonar-pro", input_tokens=0, output_tokens=0)
    resolve(database)
    used, nothing = (
        database.transaction(partial(priced_calls.explain, step_id=step))
        for step in ("used", "nothing")
    )
    assert used is not None
    assert nothing is not None
    assert [(one.kind, one.cost) for one in used.parts] == [
        ("input", Decimal("0.003")),
        ("calls", Decimal("0.014")),
    ]
    assert (used.cost, nothing.cost) == (Decimal("0.017"), Decimal(0))


@pytest.mark.parametrize(
    ("model", "columns", "why"),
    [
        ("unknown", {"input_tokens": 1}, ["the model has no price"]),
        (None, {"input_tokens": 1}, ["the call names no model"]),
        ("gpt-4o", {}, ["the call reports no usage"]),
        (
            "gpt-4o",
            {"input_tokens": 1, "service_tier": "us"},
            ["the model has no price for service tier us on 2026-11-20"],
        ),
        (
            "gpt-4o",
            {"input_tokens": 1, "output_tokens": 5, "output_audio_tokens": 2, "other_tokens": 3},
            ["no price for output_audio", "no price for other"],
        ),
        (None, {}, ["the step is not a model call"]),
    ],
)
def test_why_there_is_no_cost(
    command: Command,
    database: Database,
    database_url: str,
    model: str | None,
    columns: dict[str, Any],
    why: list[str],
) -> None:
    """`prices explain` says why there is no cost, and never shows a partial cost as the whole."""
    call(database_url, "s", model, **columns)
    resolve(database)
    found = command("prices", "explain", "s", "--json").json
    assert (found["cost"], found["currency"], found["why_none"]) == (None, None, why)
    assert f"none: {'; '.join(why)}" in " ".join(command("prices", "explain", "s").out.split())


@pytest.mark.parametrize("step", ["unknown", "\x1b[31m", "x" * 600])
def test_an_unknown_step(command: Command, step: str) -> None:
    """An unknown step yields one clear line without control characters."""
    printed = command("prices", "explain", step)
    assert printed.status == 2
    assert "is not known: `orchestra-etl runs show RUN` lists a run's steps" in printed.err
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err


def test_sql_charges_the_same_parts_as_python(database: Database, database_url: str) -> None:
    """SQL and `charged` charge the same parts, and nothing twice.

    A part that contains others is charged only for the rest.
    """
    quantities = {
        "input_tokens": 1_000, "cached_input_tokens": 300,
        "cache_write_tokens": 200, "cache_write_1h_tokens": 50,
        "input_audio_tokens": 120, "cached_audio_tokens": 20,
        "input_image_tokens": 90, "cached_image_tokens": 10, "input_video_tokens": 30,
        "output_tokens": 500, "reasoning_tokens": 100, "output_audio_tokens": 40,
        "output_image_tokens": 30, "output_video_tokens": 20,
        "citation_tokens": 10, "other_tokens": 7, "web_searches": 3, "file_searches": 2,
        "tool_uses": 4, "audio_ms": 5_000, "document_pages": 6, "search_units": 8,
    }  # fmt: skip
    call(database_url, "s", "x", **quantities)
    resolve(database, PriceRule("x", "USD", dict.fromkeys(PARTS, Decimal(1))))
    found = database.transaction(partial(priced_calls.explain, step_id="s"))
    assert found is not None
    names = {kind.price: kind.name for kind in KINDS}
    kinds = {kind.name: kind for kind in KINDS}
    assert {names[one.kind]: one.quantity for one in found.parts if one.kind != "calls"} == charged(
        msgspec.convert(quantities, Usage)
    )
    assert all(
        one.cost == Decimal(one.quantity) / one.per for one in found.parts if one.kind != "audio"
    )
    assert found.cost is not None
    assert all(one.per == kinds[names[one.kind]].per for one in found.parts if one.kind != "calls")


def test_models_beyond_the_bound(
    command: Command, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit on models, those with the most calls have prices; the others are counted."""
    monkeypatch.setattr(prices, "MODELS", 3)
    monkeypatch.setattr(priced_calls, "MODELS", 3)
    for number in range(6):
        call(database_url, f"s{number}", f"!made-up-{number}", input_tokens=1)
    for number in range(3):
        call(database_url, f"t{number}", "gpt-4o", input_tokens=1)
    resolve(database, rule("!*", "1"))
    models = {
        row["model"] for row in query(database_url, "SELECT DISTINCT model FROM orchestra.prices")
    }
    assert models == {"gpt-4o", "!made-up-0", "!made-up-1"}
    assert database.transaction(priced_calls.beyond) == (4, 4)
    assert [one.model for one in database.transaction(priced_calls.usage)] == [
        "!made-up-0",
        "!made-up-1",
        "gpt-4o",
    ]
    assert "4 more models with 4 calls without a price" in " ".join(
        command("prices", "list").out.split()
    )


def test_two_hundred_models_are_priced_quickly(database: Database, database_url: str) -> None:
    """Pricing two hundred models takes less than 5 s of CPU time; a second pass changes nothing."""
    from etl.analytics.model_names import providers

    models = [model.id for provider in providers() for model in provider.models][:2_300:11][:200]
    call(database_url, "s", "one", input_tokens=1)
    query(
        database_url,
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, status, state,"
        " start_time, response_model, input_tokens, content_hash)"
        " SELECT gen_random_uuid(), 'r', 'w', 1, 'completed', 'succeeded', '2026-11-20', model,"
        " 10, '' FROM unnest(CAST(%s AS text[])) AS model",
        models,
    )
    rollups.drain(database)
    begun = time.process_time()
    assert resolve(database, *(rule(f"own-{number}-*", "1") for number in range(20))) > 200
    assert time.process_time() - begun < 5
    assert resolve(database, *(rule(f"own-{number}-*", "1") for number in range(20))) == 0
