"""Every kind of usage that providers price apart, and prices by kind, tier of service and length of the input.

Programs of before would price calls by other rules, so this revision leaves them behind: they are
not started any more, and what runs of them goes on loading.

What comes first commits statement by statement and may be repeated; the index is built
concurrently. All groups are computed anew afterwards.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_TIME = sa.DateTime(timezone=True)
_ID = sa.Text(collation="C")

_KINDS = (
    (
        "input_tokens",
        "Input tokens: all that the model read, cached and written to a cache included.",
    ),
    ("cached_input_tokens", "Input tokens read from a cache, part of input_tokens."),
    ("cache_write_tokens", "Input tokens written to a cache, part of input_tokens."),
    (
        "cache_write_1h_tokens",
        "Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens.",
    ),
    ("input_audio_tokens", "Input tokens of audio, part of input_tokens."),
    (
        "cached_audio_tokens",
        "Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens.",
    ),
    ("input_image_tokens", "Input tokens of images, part of input_tokens."),
    (
        "cached_image_tokens",
        "Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens.",
    ),
    ("input_video_tokens", "Input tokens of video, part of input_tokens."),
    ("output_tokens", "Output tokens: all that the model wrote, reasoning included."),
    ("reasoning_tokens", "Output tokens of reasoning, part of output_tokens."),
    ("output_audio_tokens", "Output tokens of audio, part of output_tokens."),
    ("output_image_tokens", "Output tokens of images, part of output_tokens."),
    ("output_video_tokens", "Output tokens of video, part of output_tokens."),
    ("citation_tokens", "Output tokens of citations, part of output_tokens."),
    (
        "other_tokens",
        "Tokens that the reported total holds beyond input and output: what they are is not known.",
    ),
    ("web_searches", "Searches of the web by the provider."),
    ("file_searches", "Searches of stored files by the provider."),
    ("tool_uses", "Uses of the provider's other tools that are charged by the use."),
    ("audio_ms", "Audio that is charged by its duration, in milliseconds."),
    ("document_pages", "Pages of documents that were read."),
    ("search_units", "Search units of a reranking model."),
    (
        "unread_quantities",
        "Quantities of usage that the call states and that cannot be read: what they cost is not known.",
    ),
)
_PRICES = (
    ("input_per_million", "Price per million: input tokens"),
    ("cached_input_per_million", "Price per million: input tokens read from a cache"),
    ("cache_write_per_million", "Price per million: input tokens written to a cache"),
    (
        "cache_write_1h_per_million",
        "Price per million: input tokens written to a cache that keeps them for an hour",
    ),
    ("input_audio_per_million", "Price per million: input tokens of audio"),
    ("cached_audio_per_million", "Price per million: input tokens of audio read from a cache"),
    ("input_image_per_million", "Price per million: input tokens of images"),
    ("cached_image_per_million", "Price per million: input tokens of images read from a cache"),
    ("input_video_per_million", "Price per million: input tokens of video"),
    ("output_per_million", "Price per million: output tokens"),
    ("reasoning_per_million", "Price per million: output tokens of reasoning"),
    ("output_audio_per_million", "Price per million: output tokens of audio"),
    ("output_image_per_million", "Price per million: output tokens of images"),
    ("output_video_per_million", "Price per million: output tokens of video"),
    ("citation_per_million", "Price per million: output tokens of citations"),
    (
        "other_per_million",
        "Price per million: tokens that the reported total holds beyond input and output",
    ),
    ("web_searches_per_thousand", "Price per thousand: searches of the web by the provider"),
    ("file_searches_per_thousand", "Price per thousand: searches of stored files by the provider"),
    (
        "tool_uses_per_thousand",
        "Price per thousand: uses of the provider's other tools that are charged by the use",
    ),
    ("audio_per_hour", "Price per hour: audio that is charged by its duration"),
    ("document_pages_per_thousand", "Price per thousand: pages of documents that were read"),
    ("search_units_per_thousand", "Price per thousand: search units of a reranking model"),
    (
        "unread_per_thousand",
        "Price per thousand: quantities of usage that the call states and that cannot be read",
    ),
    ("calls_per_thousand", "Price per thousand: calls"),
)
_KNOWN_KINDS = ["cached_input_tokens", "input_tokens", "output_tokens", "reasoning_tokens"]
_KNOWN_PRICES = ["cached_input_per_million", "input_per_million", "output_per_million"]
_STEPS = (
    (
        "total_tokens",
        "Total tokens as reported, where that holds at least input and output; else their sum.",
    ),
    ("request_model", "The model that was asked for (inputs.model, or as its provider names it)."),
    ("response_model", "The model that answered (outputs.model, or as its provider names it)."),
    (
        "finish_reason",
        "Why the model stopped, as its provider says: stop, length, max_tokens, ... (see is_cut_off).",
    ),
)
_NEW_STEPS = (
    (
        "usage_kinds",
        "integer",
        "The kinds of usage that are charged at a price of their own, a bit each (see usage_kinds).",
    ),
    (
        "service_tier",
        "text",
        "The provider's tier of service: standard, batch, flex, priority, fast or another; null where the call names none.",
    ),
    (
        "reported_cost",
        "numeric",
        "What the provider itself says that the call cost, in US dollars.",
    ),
)
_NEW_ROLLUPS = (
    (
        "service_tier",
        "text",
        "The provider's tier of service, of calls; null where they name none.",
    ),
    (
        "context_tier",
        "integer",
        "Of calls, by their input tokens: the largest of the numbers above which prices may change that they exceed, else 0.",
    ),
    (
        "usage_kinds",
        "integer",
        "Of calls, the kinds of usage that are charged at a price of their own, a bit each (see usage_kinds).",
    ),
    (
        "reported_cost",
        "numeric",
        "What providers themselves say that calls cost, in US dollars, of the calls that tell it; null where none does.",
    ),
)
_REPORTED_CALLS = "Calls whose provider itself says what they cost."
_SOURCE = (
    "Where the price is from: config, set (orchestra-etl prices set), added (by this program, from the provider's page)"
    " or default (the package genai-prices)."
)
_TOLD = "of the calls that tell them; null where none does."
_TOLD_OR_0 = "of the calls that tell them; null where there are calls and none does."


_COST_INDEX = (
    "steps_reported_cost_idx ON orchestra.steps (start_time) WHERE reported_cost IS NOT NULL"
)
# In the order in which they build on each other.
_FUNCTIONS_AND_VIEWS = (
    "outcome_v4",
    "usage_v1",
    "calls_v1",
    "call_cost_v4",
    "node_hourly_v4",
    "node_daily_v4",
    "model_usage_v4",
    "run_summary_v5",
    "step_timeline_v4",
    "cost_differences_v1",
)
# What they stand in place of.
_REPLACED = (
    "call_cost(bigint, bigint, bigint, numeric, numeric, numeric)",
    "is_call(text, text, text, bigint, bigint, bigint)",
    "is_unmetered(text, text, text, bigint, bigint, bigint)",
    "is_untotalled(text, text, text, bigint, bigint, bigint)",
)


def _run(name: str) -> None:
    # Not by Alembic's own execute, which takes a colon for a parameter; the driver, a percent sign.
    op.get_bind().exec_driver_sql((_SQL / f"{name}.sql").read_text().replace("%", "%%"))


def _comment(column: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    op.execute(f"COMMENT ON COLUMN {column} IS '{quoted}'")


def _add(table: str, columns: list[tuple[str, str, str]]) -> None:
    """Add columns: name, type and comment. All at once, so that others are waited for, and wait, once."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind, _ in columns)
    op.execute(f"ALTER TABLE {table} {added}")
    for name, _, comment in columns:
        _comment(f"{table}.{name}", comment)


def _usage_columns() -> None:
    for name, comment in (*_STEPS, *(one for one in _KINDS if one[0] in _KNOWN_KINDS)):
        _comment(f"orchestra.steps.{name}", comment)
    kinds = [(name, "bigint", comment) for name, comment in _KINDS if name not in _KNOWN_KINDS]
    _add("orchestra.steps", [*kinds, *_NEW_STEPS])
    told = [(name, kind, f"{comment.removesuffix('.')}: {_TOLD}") for name, kind, comment in kinds]
    for table in ("orchestra.step_rollup", "orchestra.step_rollup_daily"):
        for name, comment in _KINDS:
            if name in _KNOWN_KINDS:
                _comment(f"{table}.{name}", f"{comment.removesuffix('.')}: {_TOLD_OR_0}")
        _add(
            table,
            [
                *told,
                *_NEW_ROLLUPS,
                ("reported_calls", "bigint NOT NULL DEFAULT 0", _REPORTED_CALLS),
            ],
        )


def _price_columns() -> None:
    for table, null in (
        ("orchestra.prices", "not known"),
        ("orchestra_etl.price_rules", "the rule does not say"),
    ):
        prices = [(name, "numeric", f"{comment}; null: {null}.") for name, comment in _PRICES]
        _add(
            table,
            [
                ("service_tier", "text NOT NULL DEFAULT 'standard'", "The tier of service."),
                (
                    "above_input_tokens",
                    "integer NOT NULL DEFAULT 0",
                    "For calls with more input tokens than this.",
                ),
                *prices,
            ],
        )
        optional = ", ".join(f"ALTER COLUMN {name} DROP NOT NULL" for name in _KNOWN_PRICES)
        op.execute(f"ALTER TABLE {table} {optional}")
    _add(
        "orchestra.prices",
        [("up_to_input_tokens", "integer", "And with no more than this; null: no limit.")],
    )
    _comment("orchestra.prices.source", _SOURCE)
    op.execute(
        "COMMENT ON TABLE orchestra.prices IS"
        " 'What each model that was seen costs, by tier of service, length of the input and day;"
        " without a row no price is known.'"
    )


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _usage_columns()
        _price_columns()
        for file in _FUNCTIONS_AND_VIEWS:
            _run(file)
        # A concurrent build waits for every transaction that is older, and holds nobody up while it
        # does.
        op.execute("SET lock_timeout = '10min'")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS orchestra.steps_reported_cost_idx")
        op.execute(f"CREATE INDEX CONCURRENTLY {_COST_INDEX}")
        op.execute("SET lock_timeout = '2s'")
    # Who writes rollups locks a row of another name now: programs of before do not find theirs, and
    # leave them alone. One that is at it is waited for.
    op.execute("UPDATE orchestra_etl.locks SET name = 'usage_rollups' WHERE name = 'rollups'")
    for table in ("step_rollup", "step_rollup_daily"):
        # The rows of before have none. Who does not name it must not write rows.
        op.execute(f"ALTER TABLE orchestra.{table} ALTER COLUMN reported_calls DROP DEFAULT")
    for function in _REPLACED:
        op.execute(f"DROP FUNCTION IF EXISTS orchestra.{function}")
    for table, schema in (("prices", "orchestra"), ("price_rules", "orchestra_etl")):
        op.drop_constraint(f"{table}_pkey", table, schema=schema)
        op.create_primary_key(
            f"{table}_pkey",
            table,
            ["model", "service_tier", "above_input_tokens", "valid_from"],
            schema=schema,
        )
    op.create_table(
        "rebuilds",
        sa.Column(
            "transform_version",
            sa.SmallInteger(),
            autoincrement=False,
            nullable=False,
            comment="Version of the rules by which columns are read from payloads.",
        ),
        sa.Column(
            "after_step_id",
            _ID,
            comment="The steps up to this one, in the order of their ids, are done; null: none is.",
        ),
        sa.Column(
            "steps",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="Steps read again so far.",
        ),
        sa.Column(
            "changed",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="Those of them that have changed.",
        ),
        sa.Column("started_at", _TIME, comment="When it was begun; null: it has not been."),
        sa.Column("finished_at", _TIME, comment="When all steps were done; null: not yet."),
        sa.PrimaryKeyConstraint("transform_version", name=op.f("rebuilds_pkey")),
        schema="orchestra_etl",
        comment="How far the stored steps have been read again by newer rules (orchestra-etl rebuild).",
    )
    # A database that has no steps yet has none to read again.
    op.execute("""
        INSERT INTO orchestra_etl.rebuilds (transform_version, finished_at)
        SELECT 3, CASE WHEN NOT EXISTS (SELECT FROM orchestra.steps) THEN now() END
    """)
    op.execute("UPDATE orchestra_etl.alembic_version SET oldest_program = '0011'")
    op.execute("INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES (NULL, NULL)")


def downgrade() -> None:
    raise NotImplementedError(
        "restore a backup: what is priced since is not what programs of before price"
    )
