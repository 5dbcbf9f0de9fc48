"""What every model that was seen costs, by day: worked out from the rules and the defaults, and kept in `orchestra.prices`.

The rules of the configuration come first, in its order; then those set by command, an exact name before a pattern and a longer
pattern before a shorter one; then the defaults. Rules for the same models with different first days follow one another; the days
before the first of them keep what held without it. Views compute costs from the prices, so one that comes late corrects the past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from itertools import zip_longest

import msgspec
from sqlalchemy import Connection, text

from etl.analytics.default_prices import CURRENCY, Default, default_prices
from etl.analytics.default_prices import version as version_of_defaults

ALWAYS = date.min
"""First day of a price that always held."""


class Rule(msgspec.Struct, frozen=True):
    """What some models cost from some day on, for a million tokens."""

    model: str
    """A name in which `*` stands for any characters; upper and lower case are the same."""
    currency: str
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """None: as `input`."""
    provider: str | None = None
    """None: as the defaults say."""
    valid_from: date = ALWAYS


class Price(msgspec.Struct, frozen=True):
    """What a model costs from one day to another, for a million tokens."""

    model: str
    valid_from: date
    valid_until: date | None
    """The first day on which it holds no longer; None: open."""
    provider: str | None
    currency: str
    input: Decimal
    cached_input: Decimal | None
    output: Decimal
    source: str
    """config, set or default."""


class Usage(msgspec.Struct, frozen=True):
    """How much a model was called."""

    model: str | None
    """None: the calls name none."""
    calls: int
    unpriced_calls: int
    """Calls on days for which there is no price."""


# From each model straight to the next by the index: a millisecond for dozens of models in millions of rows.
_MODELS = text("""
    WITH RECURSIVE seen (model) AS (
        (SELECT model FROM orchestra.step_rollup_daily WHERE length(model) <= 500 ORDER BY model LIMIT 1)
        UNION ALL
        SELECT (SELECT d.model FROM orchestra.step_rollup_daily AS d
                WHERE length(d.model) <= 500 AND d.model > s.model ORDER BY d.model LIMIT 1)
        FROM seen AS s
        WHERE s.model IS NOT NULL
    )
    SELECT model FROM seen WHERE model IS NOT NULL ORDER BY model COLLATE "C"
""")

_RULES = text("""
    SELECT model, currency, input_per_million, output_per_million, cached_input_per_million, provider, valid_from
    FROM orchestra_etl.price_rules
    ORDER BY position('*' IN model) > 0, length(model) DESC, model, valid_from
""")

_RESOLVED = text("SELECT fingerprint FROM orchestra_etl.resolved_prices")

_LOCKED = text("LOCK TABLE orchestra.prices IN SHARE ROW EXCLUSIVE MODE")

_DROP = text("""
    DELETE FROM orchestra.prices AS p
    WHERE NOT EXISTS (
        SELECT FROM unnest(CAST(:models AS text[]), CAST(:valid_froms AS date[])) AS w (model, valid_from)
        WHERE w.model = p.model AND w.valid_from = p.valid_from)
""")

_WRITE = text("""
    INSERT INTO orchestra.prices AS p (model, valid_from, valid_until, provider, currency, input_per_million,
                                       cached_input_per_million, output_per_million, source)
    SELECT *
    FROM unnest(CAST(:models AS text[]), CAST(:valid_froms AS date[]), CAST(:valid_untils AS date[]), CAST(:providers AS text[]),
                CAST(:currencies AS text[]), CAST(:inputs AS numeric[]), CAST(:cached_inputs AS numeric[]),
                CAST(:outputs AS numeric[]), CAST(:sources AS text[])) AS w (model, valid_from)
    ORDER BY w.model COLLATE "C", w.valid_from
    ON CONFLICT (model, valid_from) DO UPDATE
    SET valid_until = excluded.valid_until, provider = excluded.provider, currency = excluded.currency,
        input_per_million = excluded.input_per_million, cached_input_per_million = excluded.cached_input_per_million,
        output_per_million = excluded.output_per_million, source = excluded.source
    WHERE (p.valid_until, p.provider, p.currency, p.input_per_million, p.cached_input_per_million, p.output_per_million, p.source)
          IS DISTINCT FROM (excluded.valid_until, excluded.provider, excluded.currency, excluded.input_per_million,
                            excluded.cached_input_per_million, excluded.output_per_million, excluded.source)
""")

_REMEMBER = text("""
    INSERT INTO orchestra_etl.resolved_prices (id, fingerprint) VALUES (1, :fingerprint)
    ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, resolved_at = now()
""")

_SET = text("""
    INSERT INTO orchestra_etl.price_rules (model, valid_from, provider, currency, input_per_million, cached_input_per_million,
                                           output_per_million)
    VALUES (:model, :valid_from, :provider, :currency, :input, :cached_input, :output)
    ON CONFLICT (model, valid_from) DO UPDATE
    SET provider = excluded.provider, currency = excluded.currency, input_per_million = excluded.input_per_million,
        cached_input_per_million = excluded.cached_input_per_million, output_per_million = excluded.output_per_million,
        set_at = now()
""")

_UNSET = text("""
    DELETE FROM orchestra_etl.price_rules
    WHERE model = :model AND (CAST(:valid_from AS date) IS NULL OR valid_from = CAST(:valid_from AS date))
""")

_PRICES = text("""
    SELECT model, valid_from, valid_until, provider, currency, input_per_million, cached_input_per_million, output_per_million,
           source
    FROM orchestra.prices
    ORDER BY model, valid_from
""")

_USAGE = text("""
    SELECT d.model, CAST(sum(d.calls) AS bigint) AS calls,
           CAST(COALESCE(sum(d.calls) FILTER (WHERE p.model IS NULL), 0) AS bigint) AS unpriced_calls
    FROM orchestra.step_rollup_daily AS d
    LEFT JOIN orchestra.prices AS p
      ON p.model = d.model AND d.day >= p.valid_from AND (p.valid_until IS NULL OR d.day < p.valid_until)
    WHERE d.calls > 0
    GROUP BY d.model
    ORDER BY d.model COLLATE "C"
""")


def resolve(connection: Connection, configured: Sequence[Rule]) -> int:
    """Work the prices out where the models that were seen, the rules or the defaults have changed.

    Args:
        connection: in a READ COMMITTED transaction.
        configured: the rules of the configuration, in its order.

    Returns:
        How many rows of `orchestra.prices` were written or removed.
    """
    if _fingerprint(configured, set_rules(connection), _models(connection)) == _resolved(connection):
        return 0
    connection.execute(_LOCKED)
    # Again: whoever held the lock may have worked from more than was seen before.
    ordered, models = set_rules(connection), _models(connection)
    prices = [price for model in models for price in price_list(model, configured, ordered)]
    keys = {"models": [one.model for one in prices], "valid_froms": [one.valid_from for one in prices]}
    changed = connection.execute(_DROP, keys).rowcount
    changed += connection.execute(
        _WRITE,
        {
            **keys,
            "valid_untils": [one.valid_until for one in prices],
            "providers": [one.provider for one in prices],
            "currencies": [one.currency for one in prices],
            "inputs": [one.input for one in prices],
            "cached_inputs": [one.cached_input for one in prices],
            "outputs": [one.output for one in prices],
            "sources": [one.source for one in prices],
        },
    ).rowcount
    connection.execute(_REMEMBER, {"fingerprint": _fingerprint(configured, ordered, models)})
    return changed


def price_list(model: str, configured: Iterable[Rule], ordered: Iterable[Rule]) -> list[Price]:
    """What a model costs, by day; `ordered` are the rules set by command."""
    defaults = default_prices(model)
    provider = next((one.provider for one in defaults.values() if one is not None), None)
    candidates: list[Mapping[date, Price | None]] = [
        *_by_pattern(model, provider, configured, "config"),
        *_by_pattern(model, provider, ordered, "set"),
        {day: _default(model, day, one) for day, one in defaults.items()},
    ]
    days = sorted({day for candidate in candidates for day in candidate})
    held = [(day, _on(day, candidates)) for day in days]
    # Where the price stays the same, a day on which it could have changed is none.
    changes = [one for n, one in enumerate(held) if n == 0 or one[1] != held[n - 1][1]]
    ends = [day for day, _ in changes[1:]]
    return [
        msgspec.structs.replace(price, valid_from=day, valid_until=end)
        for (day, price), end in zip_longest(changes, ends)
        if price is not None
    ]


def _by_pattern(
    model: str, provider: str | None, rules: Iterable[Rule], source: str
) -> Iterable[Mapping[date, Price | None]]:
    """For each pattern that matches, in the order of the rules, its prices by their first days."""
    found: dict[str, dict[date, Price | None]] = {}
    for rule in rules:
        if _matches(rule.model, model):
            found.setdefault(rule.model, {})[rule.valid_from] = Price(
                model, rule.valid_from, None, rule.provider or provider, rule.currency, rule.input, rule.cached_input,
                rule.output, source,
            )  # fmt: skip
    return found.values()


def _default(model: str, day: date, one: Default | None) -> Price | None:
    if one is None:
        return None
    return Price(model, day, None, one.provider, CURRENCY, one.input, one.cached_input, one.output, "default")


def _matches(pattern: str, model: str) -> bool:
    """Whether the whole name fits. Each part between two stars is looked for where it first can be: a regular expression would
    try every way to divide the name, which takes hours with many stars."""
    first, *others = pattern.casefold().split("*")
    name = model.casefold()
    if not others:
        return name == first
    *middle, last = others
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for part in middle:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _on(day: date, candidates: Iterable[Mapping[date, Price | None]]) -> Price | None:
    """What holds on that day: the newest price of the first candidate that has one by then."""
    for candidate in candidates:
        begun = [first for first in candidate if first <= day]
        if begun:
            return candidate[max(begun)]
    return None


def _fingerprint(configured: Iterable[Rule], ordered: Iterable[Rule], models: Sequence[str]) -> bytes:
    known = msgspec.json.encode((list(configured), list(ordered), models, version_of_defaults()))
    return blake2b(known, digest_size=16).digest()


def _models(connection: Connection) -> list[str]:
    return list(connection.execute(_MODELS).scalars())


def _resolved(connection: Connection) -> bytes | None:
    found: bytes | None = connection.execute(_RESOLVED).scalar_one_or_none()
    return found


def set_rules(connection: Connection) -> list[Rule]:
    """The rules that were set by command, in the order in which they are tried."""
    return [Rule(*row) for row in connection.execute(_RULES)]


def set_rule(connection: Connection, rule: Rule) -> None:
    """Store a rule in place of one for the same models and first day."""
    connection.execute(_SET, msgspec.structs.asdict(rule))


def unset_rules(connection: Connection, model: str, valid_from: date | None) -> int:
    """Remove the rule of this model or pattern and first day, or all of that model (None); how many there were."""
    return connection.execute(_UNSET, {"model": model, "valid_from": valid_from}).rowcount


def stored(connection: Connection) -> list[Price]:
    """The prices in force, by model and day."""
    return [Price(*row) for row in connection.execute(_PRICES)]


def usage(connection: Connection) -> list[Usage]:
    """The models that were called, and whether their calls have a price."""
    return [Usage(*row) for row in connection.execute(_USAGE)]
