"""What models cost: the prices that hold for every model seen, and the rules that were set by command."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Date, Numeric, SmallInteger, Table, Text

from etl.tables.columns import ANALYTICS, OPERATIONS, Bytes, Id, column, metadata, now


def _amounts() -> list[Column[Any]]:
    return [
        column("currency", Text(), "Currency of the prices, such as USD.", nullable=False),
        column("input_per_million", Numeric(), "Price of a million prompt tokens.", nullable=False),
        column(
            "cached_input_per_million",
            Numeric(),
            "Price of a million prompt tokens served from a cache; null: as input_per_million.",
        ),
        column("output_per_million", Numeric(), "Price of a million completion tokens.", nullable=False),
    ]


prices = Table(
    "prices",
    metadata,
    column("model", Id, "The model, as the rollups name it.", primary_key=True),
    column("valid_from", Date(), "First day (UTC) of the price; 0001-01-01: no earlier one.", primary_key=True),
    column("valid_until", Date(), "First day on which it holds no longer; null: open."),
    column("provider", Text(), "Who is paid; null: not known."),
    *_amounts(),
    column(
        "source",
        Text(),
        "Where the price is from: config, set (orchestra-etl prices set), or default (the package genai-prices).",
        nullable=False,
    ),
    # An index entry holds 2,704 bytes, a character up to four.
    CheckConstraint("length(model) <= 500", name="model"),
    schema=ANALYTICS,
    comment="What each model that was seen costs, by day; a model without a row has no known price.",
)

price_rules = Table(
    "price_rules",
    metadata,
    column("model", Id, "The models it is for: a name in which * stands for any characters.", primary_key=True),
    column("valid_from", Date(), "First day (UTC) of the price; 0001-01-01: it always held.", primary_key=True),
    column("provider", Text(), "Who is paid; null: as the defaults say."),
    *_amounts(),
    now("set_at", "When it was set."),
    CheckConstraint("length(model) <= 500", name="model"),
    schema=OPERATIONS,
    comment="Prices set by command; those of the configuration go before them.",
)

resolved_prices = Table(
    "resolved_prices",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column("fingerprint", Bytes, "Hash of the models, the rules and the version of the defaults.", nullable=False),
    now("resolved_at", "When the prices were last worked out."),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="What orchestra.prices was last worked out from: while that is the same, there is nothing to do.",
)
