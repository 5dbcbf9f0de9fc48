"""The table `orchestra.prices`: the price of every model that was seen, by rules and defaults.

Views compute costs from the prices, so a late price also corrects the past.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from etl.analytics import price_publication
from etl.analytics.amounts import PARTS
from etl.analytics.default_prices import ADDED
from etl.analytics.price_lists import Price, PriceRule, price_list
from etl.usage import CALLS, KINDS, STANDARD

MODELS = 5_000
"""Maximum number of models with prices: a server can invent any number of names."""
# Raise this number when a new release computes other prices from the same rules and data.
_VERSION = 2


_COLUMNS = {kind.price: kind.price_column for kind in (*KINDS, CALLS)}
_AMOUNTS = ", ".join(_COLUMNS.values())
_KEYS = {
    "model": "text",
    "service_tier": "text",
    "above_input_tokens": "integer",
    "valid_from": "date",
}
_OTHERS = {
    "up_to_input_tokens": "integer",
    "valid_until": "date",
    "provider": "text",
    "currency": "text",
    "source": "text",
}
_WRITTEN = {**_KEYS, **_OTHERS, **dict.fromkeys(_COLUMNS.values(), "numeric")}


def _listed(names: Iterable[str], form: str = "{}") -> str:
    return ", ".join(form.format(name) for name in names)


def _arrays(columns: dict[str, str]) -> str:
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items())
    return f"unnest({arrays}) AS w ({_listed(columns)})"


# This query skips from each model to the next by the index, which takes a millisecond for dozens of
# models in millions of rows.
_MODELS = text("""
    WITH RECURSIVE seen (model, number) AS (
        (SELECT model, 1 FROM orchestra.step_rollup_daily
         WHERE length(model) <= 500 ORDER BY model LIMIT 1)
        UNION ALL
        SELECT (SELECT d.model FROM orchestra.step_rollup_daily AS d
                WHERE length(d.model) <= 500 AND d.model > s.model ORDER BY d.model LIMIT 1),
               s.number + 1
        FROM seen AS s
        WHERE s.model IS NOT NULL AND s.number <= :models
    )
    SELECT model FROM seen WHERE model IS NOT NULL ORDER BY model COLLATE "C"
""")

# If there are more than `MODELS` models, only the most called models have prices.
_MOST_CALLED = text("""
    SELECT model
    FROM (SELECT model FROM orchestra.step_rollup_daily WHERE length(model) <= 500
          GROUP BY model ORDER BY sum(calls) DESC, model COLLATE "C" LIMIT :models) AS called
    ORDER BY model COLLATE "C"
""")

_RULES = text(f"""
    SELECT model, service_tier, above_input_tokens, valid_from, provider, currency, set_at,
           {_AMOUNTS}
    FROM orchestra_etl.price_rules
    ORDER BY position('*' IN model) > 0, length(model) DESC, model, service_tier,
             above_input_tokens, valid_from
""")

_RESOLVED = text("SELECT fingerprint FROM orchestra_etl.resolved_prices")

_LOCKED = text("LOCK TABLE orchestra.prices IN SHARE ROW EXCLUSIVE MODE")

_DROP = text(f"""
    DELETE FROM orchestra.prices AS p
    WHERE NOT EXISTS (
        SELECT FROM {_arrays(_KEYS)} WHERE ({_listed(_KEYS, "w.{}")}) = ({_listed(_KEYS, "p.{}")}))
""")

_VALUES = [name for name in _WRITTEN if name not in _KEYS]
_WRITE = text(f"""
    INSERT INTO orchestra.prices AS p ({_listed(_WRITTEN)})
    SELECT *
    FROM {_arrays(_WRITTEN)}
    ORDER BY w.model COLLATE "C", w.service_tier, w.above_input_tokens, w.valid_from
    ON CONFLICT ({_listed(_KEYS)}) DO UPDATE
    SET {_listed(_VALUES, "{0} = excluded.{0}")}
    WHERE ({_listed(_VALUES, "p.{}")}) IS DISTINCT FROM ({_listed(_VALUES, "excluded.{}")})
""")

_REMEMBER = text("""
    INSERT INTO orchestra_etl.resolved_prices (id, fingerprint) VALUES (1, :fingerprint)
    ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, resolved_at = now()
""")

_SET_COLUMNS = [*_KEYS, "provider", "currency", *_COLUMNS.values()]
_SET_VALUES = [name for name in _SET_COLUMNS if name not in _KEYS]
_SET = text(f"""
    INSERT INTO orchestra_etl.price_rules ({_listed(_SET_COLUMNS)})
    VALUES ({_listed(_SET_COLUMNS, ":{}")})
    ON CONFLICT ({_listed(_KEYS)}) DO UPDATE
    SET {_listed(_SET_VALUES, "{0} = excluded.{0}")}, set_at = now()
""")

_UNSET = text("""
    DELETE FROM orchestra_etl.price_rules
    WHERE model = :model
      AND (CAST(:valid_from AS date) IS NULL OR valid_from = CAST(:valid_from AS date))
      AND (CAST(:service_tier AS text) IS NULL OR service_tier = CAST(:service_tier AS text))
      AND (CAST(:above_input_tokens AS integer) IS NULL
           OR above_input_tokens = CAST(:above_input_tokens AS integer))
""")

COLUMNS = (
    *(
        "model",
        "service_tier",
        "above_input_tokens",
        "up_to_input_tokens",
        "valid_from",
        "valid_until",
        "provider",
        "currency",
    ),
    *("source", *_COLUMNS.values()),
)
"""The columns of `orchestra.prices`, in the order that `price_of` expects."""

_PRICES = text(f"""
    SELECT {_listed(COLUMNS)}
    FROM orchestra.prices
    ORDER BY model, service_tier <> '{STANDARD}', service_tier, above_input_tokens, valid_from
""")


def resolve(connection: Connection, configured: Sequence[PriceRule]) -> int:
    """Recompute the prices if the models that were seen, the rules or the defaults changed.

    Args:
        connection: in a READ COMMITTED transaction.
        configured: the rules of the configuration, in its order.

    Returns:
        The number of rows of `orchestra.prices` that were written or removed.
    """
    if _fingerprint(configured, set_rules(connection), _models(connection)) == _resolved(
        connection
    ):
        return 0
    connection.execute(_LOCKED)
    # Re-read the rules and models: the lock's previous holder may have seen newer ones.
    by_command, models = set_rules(connection), _models(connection)
    rows = [_row(price) for model in models for price in price_list(model, configured, by_command)]
    columns = {name: [row.get(name) for row in rows] for name in _WRITTEN}
    changed = connection.execute(_DROP, {name: columns[name] for name in _KEYS}).rowcount
    changed += connection.execute(_WRITE, columns).rowcount
    connection.execute(_REMEMBER, {"fingerprint": _fingerprint(configured, by_command, models)})
    return changed


def _row(price: Price) -> dict[str, object]:
    values = msgspec.structs.asdict(price)
    return values | {_COLUMNS[part]: amount for part, amount in values.pop("amounts").items()}


def _amounts(values: Sequence[Decimal | None]) -> dict[str, Decimal]:
    return {part: amount for part, amount in zip(PARTS, values, strict=True) if amount is not None}


def _fingerprint(
    configured: Iterable[PriceRule], by_command: Iterable[PriceRule], models: Sequence[str]
) -> bytes:
    published = price_publication.version()
    known = (_VERSION, list(configured), list(by_command), models, published, ADDED)
    return blake2b(msgspec.json.encode(known), digest_size=16).digest()


def _models(connection: Connection) -> list[str]:
    found = list(connection.execute(_MODELS, {"models": MODELS}).scalars())
    return (
        found
        if len(found) <= MODELS
        else list(connection.execute(_MOST_CALLED, {"models": MODELS}).scalars())
    )


def _resolved(connection: Connection) -> bytes | None:
    found: bytes | None = connection.execute(_RESOLVED).scalar_one_or_none()
    return found


def set_rules(connection: Connection) -> list[PriceRule]:
    """Return the rules that were set by command, in the order in which they are tried."""
    rows = connection.execute(_RULES)
    return [
        PriceRule(
            model=model,
            currency=currency,
            amounts=_amounts(amounts),
            provider=provider,
            valid_from=valid_from,
            service_tier=service_tier,
            above_input_tokens=above,
            set_at=set_at,
        )
        for model, service_tier, above, valid_from, provider, currency, set_at, *amounts in rows
    ]


def set_rule(connection: Connection, rule: PriceRule) -> None:
    """Store a rule; replace a rule for the same models, service tier, length and first day."""
    values = msgspec.structs.asdict(rule)
    amounts = values.pop("amounts")
    connection.execute(
        _SET, values | {column: amounts.get(part) for part, column in _COLUMNS.items()}
    )


def unset_rules(
    connection: Connection,
    model: str,
    valid_from: date | None = None,
    service_tier: str | None = None,
    above_input_tokens: int | None = None,
) -> int:
    """Remove the rules for this model or pattern; return their number.

    Args:
        connection: in a transaction.
        model: the name or pattern, as it was set.
        valid_from: only rules with this first day; None: any.
        service_tier: only rules for this service tier; None: any.
        above_input_tokens: only rules for inputs above this number of tokens; None: any.
    """
    wanted = {
        "valid_from": valid_from,
        "service_tier": service_tier,
        "above_input_tokens": above_input_tokens,
    }
    return connection.execute(_UNSET, {"model": model, **wanted}).rowcount


def stored(connection: Connection) -> list[Price]:
    """Return the stored prices, ordered by model, service tier, input length and day."""
    return [price_of(row) for row in connection.execute(_PRICES)]


def price_of(row: Sequence[Any]) -> Price:
    """Return the price for a row with the values of `COLUMNS`."""
    model, tier, above, up_to, valid_from, valid_until, provider, currency, source, *amounts = row
    return Price(
        model=model,
        service_tier=tier,
        above_input_tokens=above,
        up_to_input_tokens=up_to,
        valid_from=valid_from,
        valid_until=valid_until,
        provider=provider,
        currency=currency,
        amounts=_amounts(amounts),
        source=source,
    )
