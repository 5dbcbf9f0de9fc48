"""Prices of models, and the rules that were set by command.

Every statement is instant but the index on the days' rollup, which takes a second for a million
rows; only a refresh of the rollups waits for it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.Text(collation="C")


def _amounts() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "currency", sa.Text(), nullable=False, comment="Currency of the prices, such as USD."
        ),
        sa.Column(
            "input_per_million",
            sa.Numeric(),
            nullable=False,
            comment="Price of a million prompt tokens.",
        ),
        sa.Column(
            "cached_input_per_million",
            sa.Numeric(),
            comment="Price of a million prompt tokens served from a cache; null: as input_per_million.",
        ),
        sa.Column(
            "output_per_million",
            sa.Numeric(),
            nullable=False,
            comment="Price of a million completion tokens.",
        ),
    ]


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("model", _ID, nullable=False, comment="The model, as the rollups name it."),
        sa.Column(
            "valid_from",
            sa.Date(),
            nullable=False,
            comment="First day (UTC) of the price; 0001-01-01: no earlier one.",
        ),
        sa.Column(
            "valid_until", sa.Date(), comment="First day on which it holds no longer; null: open."
        ),
        sa.Column("provider", sa.Text(), comment="Who is paid; null: not known."),
        *_amounts(),
        sa.Column(
            "source",
            sa.Text(),
            nullable=False,
            comment="Where the price is from: config, set (orchestra-etl prices set), or default (the package genai-prices).",
        ),
        sa.PrimaryKeyConstraint("model", "valid_from", name=op.f("prices_pkey")),
        sa.CheckConstraint("length(model) <= 500", name=op.f("prices_model_check")),
        schema="orchestra",
        comment="What each model that was seen costs, by day; a model without a row has no known price.",
    )
    op.create_table(
        "price_rules",
        sa.Column(
            "model",
            _ID,
            nullable=False,
            comment="The models it is for: a name in which * stands for any characters.",
        ),
        sa.Column(
            "valid_from",
            sa.Date(),
            nullable=False,
            comment="First day (UTC) of the price; 0001-01-01: it always held.",
        ),
        sa.Column("provider", sa.Text(), comment="Who is paid; null: as the defaults say."),
        *_amounts(),
        sa.Column(
            "set_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("now()"),
            comment="When it was set.",
        ),
        sa.PrimaryKeyConstraint("model", "valid_from", name=op.f("price_rules_pkey")),
        sa.CheckConstraint("length(model) <= 500", name=op.f("price_rules_model_check")),
        schema="orchestra_etl",
        comment="Prices set by command; those of the configuration go before them.",
    )
    op.create_table(
        "resolved_prices",
        sa.Column(
            "id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Always 1."
        ),
        sa.Column(
            "fingerprint",
            sa.LargeBinary(),
            nullable=False,
            comment="Hash of the models, the rules and the version of the defaults.",
        ),
        sa.Column(
            "resolved_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("now()"),
            comment="When the prices were last worked out.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("resolved_prices_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("resolved_prices_pkey")),
        schema="orchestra_etl",
        comment="What orchestra.prices was last worked out from: while that is the same, there is nothing to do.",
    )
    op.create_index(
        "step_rollup_daily_model_idx",
        "step_rollup_daily",
        ["model"],
        schema="orchestra",
        postgresql_where=sa.text("length(model) <= 500"),
    )


def downgrade() -> None:
    op.drop_index("step_rollup_daily_model_idx", "step_rollup_daily", schema="orchestra")
    op.drop_table("resolved_prices", schema="orchestra_etl")
    op.drop_table("price_rules", schema="orchestra_etl")
    op.drop_table("prices", schema="orchestra")
