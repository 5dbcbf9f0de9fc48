"""Which price applies to which model and day; only changed prices are written."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from etl.analytics import price_lists, priced_calls, prices, rollups
from etl.analytics.amounts import own
from etl.analytics.price_lists import ALWAYS, PriceRule, price_list
from etl.analytics.priced_calls import ModelUsage, UnpricedReason
from etl.database import Database
from etl.usage import STANDARD
from tests.command_line import Command, command_line
from tests.support import query

DAY = date(2026, 3, 1)


def rule(
    model: str, amount: str, valid_from: date = ALWAYS, provider: str | None = None, **others: Any
) -> PriceRule:
    """Return a rule by which input and output cost the same."""
    amounts = {"input": Decimal(amount), "output": Decimal(amount)}
    return PriceRule(model, "USD", amounts, provider=provider, valid_from=valid_from, **others)


def dated(
    model: str, configured: Sequence[PriceRule] = (), ordered: Sequence[PriceRule] = ()
) -> list[tuple[str, str, str]]:
    """Return the standard prices of a model's input, with their first days and sources."""
    found = [one for one in price_list(model, configured, ordered) if one.service_tier == STANDARD]
    return [(str(one.valid_from), str(one.amounts["input"]), one.source) for one in found]


@pytest.fixture
def command(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Provide the command on the test's database, with a price in its configuration."""
    toml = (
        '[[prices]]\nmodel = "in-house-*"\ninput = 1.10\noutput = 2\n'
        'currency = "eur"\nvalid_from = 2026-02-01\n'
    )
    return command_line(tmp_path, monkeypatch, capsys, toml, DATABASE_URL=database_url)


def see(database: Database, url: str, *models: str | None, day: str = "2026-03-01") -> None:
    """Store a step of each model, and bring the rollups up to date.

    The model None stores a step that only reports tokens.
    """
    query(url, "INSERT INTO orchestra.workflows (id) VALUES ('w') ON CONFLICT DO NOTHING")
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking)"
        " VALUES ('r', 'w', 'succeeded', 'api', 'final') ON CONFLICT DO NOTHING",
    )
    query(
        url,
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, node_id, status, state,"
        " start_time, request_model, input_tokens, content_hash)"
        " SELECT gen_random_uuid(), 'r', 'w', 0, 'n', 'completed', 'succeeded', %s, model, 10, ''"
        " FROM unnest(CAST(%s AS text[])) AS model",
        day,
        list(models),
    )
    rollups.drain(database)


def set_by_command(database: Database, *rules: PriceRule) -> None:
    """Store these rules."""
    for one in rules:
        database.transaction(partial(prices.set_rule, rule=one))


def resolve(database: Database, *configured: PriceRule) -> int:
    """Bring the prices up to date, and return how many changed."""
    return database.transaction(partial(prices.resolve, configured=configured))


def priced(url: str) -> dict[str, tuple[Decimal, Decimal | None, Decimal, str | None, str]]:
    """Return the current price of each model, for the standard service tier and short inputs."""
    rows = query(
        url,
        "SELECT * FROM orchestra.prices"
        " WHERE valid_until IS NULL AND service_tier = 'standard' AND above_input_tokens = 0",
    )
    return {
        row["model"]: (
            row["input_per_million"], row["cached_input_per_million"], row["output_per_million"],
            row["provider"], row["source"],
        )
        for row in rows
    }  # fmt: skip


def test_published_prices_of_models_seen(database: Database, database_url: str) -> None:
    """A known model gets its published price under each of its names; others get none."""
    mini = (Decimal("0.15"), Decimal("0.075"), Decimal("0.6"), "openai", "default")
    sonnet = (Decimal(3), Decimal("0.3"), Decimal(15), "anthropic", "default")
    names = (
        "gpt-4o-mini",
        "gpt-4o-mini-2024-07-18",
        "openai/gpt-4o-mini",
        "claude-3-7-sonnet-20250219",
    )
    see(database, database_url, *names, "nobody-knows-this", "", None)
    assert resolve(database) > 0
    assert priced(database_url) == dict(zip(names, (mini, mini, mini, sonnet), strict=True))


def test_a_published_price_that_changed_has_two_rows(database: Database, database_url: str) -> None:
    """Days before a published change keep the old price; no day is without a price."""
    see(database, database_url, "o3")
    resolve(database)
    rows = query(
        database_url,
        "SELECT valid_from, valid_until, input_per_million AS i FROM orchestra.prices"
        " WHERE service_tier = 'standard' ORDER BY 1",
    )
    assert [(row["valid_from"], row["valid_until"], row["i"]) for row in rows] == [
        (date.min, date(2025, 6, 10), Decimal(10)),
        (date(2025, 6, 10), None, Decimal(2)),
    ]


def test_models_of_the_api_provider_keep_its_price() -> None:
    """A model of the API's own provider has that provider's published price."""
    assert [one.provider for one in price_list("trinity-large-thinking", [], [])] == ["arcee"]


@pytest.mark.parametrize(
    ("pattern", "model", "matches"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("GPT-4*", "gpt-4o-mini", True),
        ("*-mini", "gpt-4o-mini", True),
        ("a*b*c", "a--b\n-c", True),
        ("gpt.4?", "gpt-4o", False),
        ("[g]pt-4o", "gpt-4o", False),
        ("*", "x", True),
    ],
)
def test_patterns(pattern: str, model: str, matches: bool) -> None:
    """Only the star stands for other characters, and a pattern must match the whole name."""
    assert (
        any(one.source == "config" for one in price_list(model, [rule(pattern, "7")], []))
        is matches
    )


def test_a_pattern_matches_like_its_regular_expression() -> None:
    """A pattern with any number of stars matches what its regular expression matches."""
    names = ["".join(one) for length in range(6) for one in product("aB", repeat=length)]
    patterns = ["".join(one) for length in range(1, 6) for one in product("ab*", repeat=length)]
    for pattern in patterns:
        expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE)
        found = {name for name in names if price_lists._matches(pattern, name)}
        assert found == {name for name in names if expression.fullmatch(name)}, pattern


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 249 + "*b*", "*" * 500, "a*" * 250, "*aab" * 125, "*" + "a" * 498 + "b"],
    ids=lambda one: one[:5],
)
def test_a_pattern_of_many_stars_is_fast(pattern: str) -> None:
    """Comparing a pattern of many stars with a long name takes milliseconds."""
    begun = time.process_time()
    for model in ("a" * 500, "aab" * 166, "a" * 499 + "b", "-" * 500):
        price_list(model, [rule(pattern, "7")], [])
    assert time.process_time() - begun < 2


def test_many_hostile_names_are_priced(database: Database, database_url: str) -> None:
    """Pricing thousands of names of the longest kind takes seconds at most.

    A rule matches all names, and twenty patterns match none.
    """
    names = [f"{number:05}" + "gpt-4o-claude-"[number % 14 :] * 40 for number in range(2000)]
    see(database, database_url, *(name[:500] for name in names))
    begun = time.process_time()
    assert (
        resolve(database, *(rule(f"*{one}*a*e*i*o*u", "7") for one in range(20)), rule("*", "1"))
        == 2000
    )
    assert time.process_time() - begun < 20
    assert (
        resolve(database, *(rule(f"*{one}*a*e*i*o*u", "7") for one in range(20)), rule("*", "1"))
        == 0
    )


def test_the_first_rule_counts(database: Database) -> None:
    """The first matching rule of the configuration applies, before rules set by command.

    Of the rules set by command, the more exact one applies.
    """
    configured = [rule("own-*", "1"), rule("own-a", "2")]
    set_by_command(
        database, rule("*", "3"), rule("other-*", "4"), rule("other-a", "5"), rule("own-a", "6")
    )
    ordered = database.transaction(prices.set_rules)
    assert [one.model for one in ordered] == ["other-a", "own-a", "other-*", "*"]
    assert dated("own-a", configured, ordered) == [("0001-01-01", "1", "config")]
    assert dated("other-a", configured, ordered) == [("0001-01-01", "5", "set")]
    assert dated("other-b", configured, ordered) == [("0001-01-01", "4", "set")]
    assert dated("gpt-4o", configured, ordered) == [("0001-01-01", "3", "set")]


def test_a_dated_rule_leaves_the_days_before() -> None:
    """Before its first day, a rule leaves what applied without it.

    That is an older rule, one set by command, the default, or nothing.
    """
    assert dated("gpt-4o", [rule("gpt-4o", "9", DAY)]) == [
        ("0001-01-01", "2.5", "default"),
        ("2026-03-01", "9", "config"),
    ]
    assert dated(
        "x",
        [rule("x", "9", DAY), rule("x", "8", date(2026, 1, 1))],
        [rule("*", "7", date(2025, 1, 1))],
    ) == [
        ("2025-01-01", "7", "set"),
        ("2026-01-01", "8", "config"),
        ("2026-03-01", "9", "config"),
    ]
    # A change of the default after a rule's first day has no effect.
    assert dated("o3", [rule("o3", "9", date(2025, 1, 1))]) == [
        ("0001-01-01", "10", "default"),
        ("2025-01-01", "9", "config"),
    ]


def test_a_rule_without_a_provider_keeps_the_published_one() -> None:
    """A rule without a provider keeps the published one; a rule may name another."""
    found = [
        price_list("gpt-4o", [one], [])[0].provider
        for one in (rule("*", "1"), rule("*", "1", provider="azure"))
    ]
    assert found == ["openai", "azure"]


def test_a_removed_rule_restores_the_default(database: Database, database_url: str) -> None:
    """A later rule replaces one for the same day; removing it restores the earlier prices."""
    see(database, database_url, "gpt-4o", "unknown")
    resolve(database)
    everything = (
        "SELECT * FROM orchestra.prices ORDER BY model, service_tier,"
        " above_input_tokens, valid_from"
    )
    before = query(database_url, everything)
    for amount in ("1", "2"):
        set_by_command(database, rule("*", amount, DAY))
        resolve(database)
    assert {model: price[0] for model, price in priced(database_url).items()} == {
        "gpt-4o": 2,
        "unknown": 2,
    }
    assert database.transaction(lambda c: prices.unset_rules(c, "*", date(2020, 1, 1))) == 0
    assert database.transaction(lambda c: prices.unset_rules(c, "*", DAY)) == 1
    resolve(database)
    assert query(database_url, everything) == before


def test_unchanged_prices_are_not_written(database: Database, database_url: str) -> None:
    """If nothing changed, nothing is written, not even the fingerprint.

    A new model leaves the rows of other models alone.
    """
    written = """
        SELECT 'fingerprint' AS what, '' AS tier, CAST(xmin AS text) AS version
            FROM orchestra_etl.resolved_prices
        UNION ALL SELECT model, service_tier, CAST(xmin AS text) FROM orchestra.prices ORDER BY 1, 2
    """
    unknown = rule("unknown", "1.50")
    see(database, database_url, "gpt-4o", "unknown")
    assert resolve(database, unknown) == len(
        query(database_url, "SELECT model FROM orchestra.prices")
    )
    first = query(database_url, written)
    see(database, database_url, "gpt-4o")
    assert resolve(database, unknown) == 0
    assert query(database_url, written) == first
    see(database, database_url, "gpt-4-0613")
    assert resolve(database, unknown) == len(price_list("gpt-4-0613", [], []))
    kept = [row for row in query(database_url, written) if row["what"] in ("gpt-4o", "unknown")]
    assert kept == [row for row in first if row["what"] != "fingerprint"]


def test_a_name_beyond_500_characters_is_left_without_a_price(
    database: Database, database_url: str
) -> None:
    """Names too long for an index are skipped, wherever they stand among the others."""
    see(database, database_url, "A" * 501, "a", "m" * 500, "n" * 501, "z", "z" * 501)
    assert resolve(database, rule("*", "1")) == 3
    assert priced(database_url).keys() == {"a", "m" * 500, "z"}


def test_calls_of_a_model_with_several_prices_count_once(
    database: Database, database_url: str
) -> None:
    """Each call is counted once, under the price of its day, if a model has several prices."""
    see(database, database_url, "o3")
    see(database, database_url, "o3", "unknown", day="2025-01-01")
    resolve(database)
    assert database.transaction(priced_calls.usage) == [
        ModelUsage("o3", 2, 0, []),
        ModelUsage("unknown", 1, 1, [UnpricedReason("model", 1)]),
    ]


def test_amounts_are_exact(command: Command, database: Database, database_url: str) -> None:
    """Amounts reach the table digit for digit, from the configuration and from the command line."""
    see(database, database_url, "in-house-1", "exact")
    exact = "123456789.123456789012"
    arguments = ("--input", exact, "--output", "0.000000000001", "--cached-input", "0.1")
    assert command("prices", "set", "exact", *arguments).status == 0
    found = {model: price[:3] for model, price in priced(database_url).items()}
    assert found == {
        "exact": (Decimal(exact), Decimal("0.1"), Decimal("0.000000000001")),
        "in-house-1": (Decimal("1.1"), Decimal("1.1"), Decimal(2)),
    }


def test_the_command(command: Command, database: Database, database_url: str) -> None:
    """`prices` sets, lists and removes prices, and counts the calls that have none."""
    assert command("prices", "list").out == "no stored step names a model yet\n"
    see(database, database_url, "in-house-1", "virtuoso-medium", None)
    see(database, database_url, "in-house-1", day="2026-01-31")
    set_one = (
        "prices",
        "set",
        "virtuoso-*",
        "--input",
        "0.5",
        "--output",
        "0.8",
        "--from",
        "2026-03-01",
    )
    # The same command applies the configuration's price, too.
    assert command(*set_one).out == "set; 2 prices changed\n"
    assert command(*set_one).out == "set; nothing changes for the models seen so far\n"
    listed = command("prices", "list", "--json").json
    assert [
        (one["model"], one["calls"], one["unpriced_calls"], len(one["prices"]))
        for one in listed["models"]
    ] == [
        ("in-house-1", 2, 1, 1),
        ("virtuoso-medium", 1, 0, 1),
        (None, 1, 1, 0),
    ]
    [price] = listed["models"][0]["prices"]
    assert price | {"amounts": None} == {
        "model": "in-house-1", "service_tier": "standard", "above_input_tokens": 0,
        "up_to_input_tokens": None,
        "valid_from": "2026-02-01", "valid_until": None, "provider": None, "currency": "EUR",
        "amounts": None, "source": "config",
    }  # fmt: skip
    assert own({part: Decimal(amount) for part, amount in price["amounts"].items()}) == {
        "input": Decimal("1.1"),
        "output": 2,
    }
    assert [(one["model"], one["valid_from"]) for one in listed["set"]] == [
        ("virtuoso-*", "2026-03-01")
    ]
    printed = command("prices", "list").out
    assert "  input 1.1, output 2 EUR from 2026-02-01 (config)\n" in printed
    assert (
        "set by command:\n  virtuoso-*: input 0.5, output 0.8 USD from 2026-03-01 (set on "
        in printed
    )
    assert command("prices", "unset", "virtuoso-*").out == "1 price removed; 1 price changed\n"
    assert command("prices", "list", "--json").json["models"][1]["unpriced_calls"] == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("set", "m", "--input", "-1", "--output", "1"),
            "--input: must be greater than or equal to 0",
        ),
        (("set", "m", "--input", "1", "--output", "much"), "--output: must be a valid decimal"),
        (
            ("set", "m", "--input", "1", "--output", "1", "--cached-input", "nan"),
            "--cached-input: must be a finite number",
        ),
        (
            ("set", "m", "--input", "1", "--output", "1", "--currency", "US$"),
            "--currency: must be three letters, such as USD",
        ),
        (
            ("set", "m", "--input", "1", "--output", "1", "--from", "1767225600"),
            "--from: must be a day, such as 2026-01-31",
        ),
        (
            ("set", " m", "--input", "1", "--output", "1"),
            "MODEL: must be a name without line breaks and outer spaces",
        ),
        (("unset", "m"), "there is no price of m from `prices set`: see `prices list`"),
    ],
)
def test_mistakes_on_the_command_line(
    command: Command, arguments: Sequence[str], error: str
) -> None:
    """An invalid price is refused in one line that names the option."""
    printed = command("prices", *arguments)
    assert (printed.status, printed.err) == (2, f"orchestra-etl: {error}\n")
