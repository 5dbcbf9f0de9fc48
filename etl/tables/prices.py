"""Prices: those of every model seen, and the rules that were set by command."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)

from etl.tables.columns import ANALYTICS, OPERATIONS, Bytes, Id, column, metadata, now
from etl.usage import CALLS, HOUR_MS, KINDS, MILLION, STANDARD, THOUSAND, Kind


def _amount(kind: Kind, null: str) -> Column[Any]:
    units = {MILLION: "per million", THOUSAND: "per thousand", HOUR_MS: "per hour"}[kind.per]
    what = kind.comment.partition(":")[0].partition(",")[0].removesuffix(".")
    return column(
        kind.price_column, Numeric(), f"Price {units}: {what[0].lower()}{what[1:]}; null: {null}."
    )


def _amounts(null: str) -> list[Column[Any]]:
    return [
        column("currency", Text(), "Currency of the prices, such as USD.", nullable=False),
        *(_amount(kind, null) for kind in (*KINDS, CALLS)),
    ]


def _for() -> list[Column[Any]]:
    return [
        column(
            "service_tier",
            Text(),
            "The service tier.",
            primary_key=True,
            server_default=text(f"'{STANDARD}'"),
        ),
        column(
            "above_input_tokens",
            Integer(),
            "For calls with more input tokens than this.",
            primary_key=True,
            autoincrement=False,
            server_default=text("0"),
        ),
    ]


prices = Table(
    "prices",
    metadata,
    column("model", Id, "The model, as the rollups name it.", primary_key=True),
    *_for(),
    column(
        "up_to_input_tokens",
        Integer(),
        "For calls with at most this many input tokens; null: no limit.",
    ),
    column(
        "valid_from",
        Date(),
        "First day (UTC) of the price; 0001-01-01: the price has no known start and applies to "
        "every earlier day.",
        primary_key=True,
    ),
    column(
        "valid_until",
        Date(),
        "First day (UTC) on which the price no longer applies; null: no known end.",
    ),
    column("provider", Text(), "The provider; null: unknown."),
    *_amounts("unknown"),
    column(
        "source",
        Text(),
        "Where the price comes from: config, set (orchestra-etl prices set), added (this "
        "program's own list, from the provider's page) or default (the package genai-prices).",
        nullable=False,
    ),
    # An index entry has at most 2,704 bytes, and a character up to four.
    CheckConstraint("length(model) <= 500", name="model"),
    schema=ANALYTICS,
    comment="Known prices of the models seen in calls, by service tier, length of the input and "
    "day. A model without a row has no known price.",
)

price_rules = Table(
    "price_rules",
    metadata,
    column(
        "model",
        Id,
        "The models that the rule applies to: a name in which * stands for any characters.",
        primary_key=True,
    ),
    *_for(),
    column(
        "valid_from",
        Date(),
        "First day (UTC) of the price; 0001-01-01: the price applies to every earlier day.",
        primary_key=True,
    ),
    column("provider", Text(), "The provider; null: that of the default prices."),
    *_amounts("not set by the rule"),
    now("set_at", "When it was set."),
    CheckConstraint("length(model) <= 500", name="model"),
    schema=OPERATIONS,
    comment="Price rules set by command. Rules of the configuration take precedence.",
)

resolved_prices = Table(
    "resolved_prices",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column(
        "fingerprint",
        Bytes,
        "Hash of the models, the rules and the version of the default prices.",
        nullable=False,
    ),
    now("resolved_at", "When the prices were last resolved."),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="Hash of the inputs from which orchestra.prices was last computed. While they are "
    "unchanged, the prices are not computed again.",
)
