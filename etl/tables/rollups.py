"""What is computed from the runs and steps, in the schema `orchestra`, and the queue of what must be computed anew."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from etl.tables.analytics import steps
from etl.tables.columns import ANALYTICS, OPERATIONS, Id, Time, column, metadata, now
from etl.usage import KINDS

STEP_COUNTS = (
    ("succeeded", "Steps that succeeded."),
    ("soft_failed", "Steps whose status is a success and that carry an error (see outcome)."),
    ("failed", "Steps that failed."),
    ("cancelled", "Steps that were cancelled."),
    ("skipped", "Steps that were skipped."),
    ("unfinished", "Steps that are pending or running, or whose status is not known."),
    ("calls", "Calls of a model (see is_call)."),
    (
        "unmetered_calls",
        "Calls that did not say how many tokens they took, so that no price tells what they cost.",
    ),
    (
        "untotalled_calls",
        "Calls that total_tokens does not hold: they do not say how many tokens they took.",
    ),
    ("reported_calls", "Calls whose provider itself says what they cost."),
)

PLAIN_SUMS = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
)
"""0 where there are no calls. The other sums are null there, which takes no space in the rows of what calls no model."""

_TOLD = "of the calls that tell them; null where none does."
_TOLD_OR_0 = "of the calls that tell them; null where there are calls and none does."
USAGE_SUMS = (
    *(
        (
            kind.name,
            f"{kind.comment.removesuffix('.')}: {_TOLD_OR_0 if kind.name in PLAIN_SUMS else _TOLD}",
        )
        for kind in KINDS
    ),
    ("total_tokens", f"Total tokens {_TOLD_OR_0}"),
)

RUN_COUNTS = (
    ("runs", "Runs."),
    ("succeeded", "Runs that succeeded."),
    (
        "soft_failed",
        "Runs whose status is a success and that carry an error themselves, or have a step that does (see outcome).",
    ),
    ("failed", "Runs that failed."),
    ("cancelled", "Runs that were cancelled."),
    ("skipped", "Runs that were skipped."),
    ("unfinished", "Runs that are pending or running, or whose status is not known."),
)


def _counts(names: tuple[tuple[str, str], ...]) -> list[Column[Any]]:
    return [column(name, BigInteger(), comment, nullable=False) for name, comment in names]


def _usage_sums() -> list[Column[Any]]:
    return [
        *(column(name, BigInteger(), comment) for name, comment in USAGE_SUMS),
        column(
            "reported_cost",
            Numeric(),
            "What providers themselves say that calls cost, in US dollars, of the calls that tell it; null where none does.",
        ),
    ]


_ORDINAL = (
    "Number of the row within its workflow and hour; below 0: what runs count that are pruned."
)
_ORDINAL_IN_DAY = "Number of the row within its workflow and day."


def _group(when: str, kind: TypeEngine[Any], comment: str) -> list[Column[Any]]:
    # Names of nodes and models may be longer than an index allows: rows are told apart by their
    # ordinal within the group.
    return [
        column("workflow_id", Id, "The workflow.", primary_key=True),
        column(when, kind, comment, primary_key=True),
        column(
            "ordinal", Integer(), _ORDINAL if when == "hour" else _ORDINAL_IN_DAY, primary_key=True
        ),
    ]


def _node() -> list[Column[Any]]:
    return [
        column("organization_id", Id, "The organisation; null where no step names one."),
        column("node_id", Text(), "The node."),
        column("node_type", Text(), "The node's type."),
        column(
            "model",
            Text(),
            "The model that answered, else the one that was asked for; null: no model.",
        ),
        column(
            "service_tier",
            Text(),
            "The provider's tier of service, of calls; null where they name none.",
        ),
        column(
            "context_tier",
            Integer(),
            "Of calls, by their input tokens: the largest of the numbers above which prices may change that they exceed, else 0.",
        ),
        column(
            "usage_kinds",
            Integer(),
            "Of calls, the kinds of usage that are charged at a price of their own, a bit each (see usage_kinds).",
        ),
    ]


NODE = tuple(one.name for one in _node())
"""The columns by which steps of a group are told apart."""


def _histograms(counted: str) -> list[Column[Any]]:
    rising = (
        f"Buckets of the durations of the {counted} that succeeded (see duration_bucket), rising"
    )
    return [
        column(
            "buckets",
            ARRAY(SmallInteger),
            f"{rising}; without those whose times do not tell a duration.",
            nullable=False,
        ),
        column(
            "counts",
            ARRAY(Integer),
            "How many of these durations each of these buckets holds.",
            nullable=False,
        ),
        column(
            "failed_buckets",
            ARRAY(SmallInteger),
            f"As buckets, of the {counted} that failed or failed softly.",
            nullable=False,
        ),
        column(
            "failed_counts",
            ARRAY(Integer),
            "How many of these durations each of failed_buckets holds.",
            nullable=False,
        ),
    ]


HISTOGRAMS = tuple(one.name for one in _histograms("steps"))
"""The columns of a row that hold durations."""


step_rollup = Table(
    "step_rollup",
    metadata,
    *_group(
        "hour",
        Time,
        "The hour (UTC) in which the steps started; of those not started, the hour of their run.",
    ),
    *_node(),
    *_counts(STEP_COUNTS),
    *_usage_sums(),
    *_histograms("steps"),
    Index("step_rollup_hour_idx", "hour"),
    schema=ANALYTICS,
    comment="Steps by hour, workflow, organisation, node and model: outcomes, tokens and histograms of durations.",
)

# Percentiles over months have an entry of a histogram to add up for nearly every step of an hour.
step_rollup_daily = Table(
    "step_rollup_daily",
    metadata,
    *_group("day", Date(), "The day (UTC) of the hours that are added up."),
    *_node(),
    *_counts(STEP_COUNTS),
    *_usage_sums(),
    *_histograms("steps"),
    Index("step_rollup_daily_day_idx", "day"),
    # Which models there are, found by a look at each of them instead of at each row.
    Index("step_rollup_daily_model_idx", "model", postgresql_where=text("length(model) <= 500")),
    schema=ANALYTICS,
    comment="step_rollup by day: the same numbers, for questions about weeks and months.",
)

run_rollup = Table(
    "run_rollup",
    metadata,
    *_group(
        "hour", Time, "The hour (UTC) in which the runs started, or were first seen if not started."
    ),
    column("organization_id", Id, "The organisation; null where the run names none."),
    *_counts(RUN_COUNTS),
    *_histograms("runs"),
    Index("run_rollup_hour_idx", "hour"),
    schema=ANALYTICS,
    comment="Runs by hour, workflow and organisation: outcomes and histograms of durations.",
)

step_failures = Table(
    "step_failures",
    metadata,
    column(
        "step_id", Id, "The step.", ForeignKey(steps.c.id, ondelete="CASCADE"), primary_key=True
    ),
    column("run_id", Id, "Its run.", nullable=False),
    column("workflow_id", Id, "Its workflow.", nullable=False),
    column("node_id", Text(), "Its node."),
    column("organization_id", Id, "Its organisation."),
    column(
        "time",
        Time,
        "When it started; when its run did, or was first seen, if it has no start.",
        nullable=False,
    ),
    column("outcome", Text(), "failed or soft_failed.", nullable=False),
    column(
        "fingerprint",
        Text(),
        "Hash of the pattern: the same for failures of one kind.",
        nullable=False,
    ),
    column(
        "pattern",
        Text(),
        "The message with its numbers, ids and quoted texts replaced.",
        nullable=False,
    ),
    column("message", Text(), "The first 500 characters of the error.", nullable=False),
    Index("step_failures_workflow_id_time_idx", "workflow_id", "time"),
    Index("step_failures_time_idx", "time"),
    schema=ANALYTICS,
    comment="One row a step that failed or failed softly, with the kind of failure.",
)


changed_groups = Table(
    "changed_groups",
    metadata,
    column("id", BigInteger(), "Order of arrival.", Identity(always=True), primary_key=True),
    column("workflow_id", Id, "The workflow; null: every group must be computed."),
    column("hour", Time, "The hour of the runs or steps that changed; null: see workflow_id."),
    now("queued_at", "When it was queued."),
    column(
        "failed_at",
        Time,
        "When its computation last failed, to be retried later; null: it has not been tried.",
    ),
    column("cause", Text(), "SQLSTATE of that failure."),
    schema=OPERATIONS,
    comment="A queue: the rollup groups whose runs or steps have changed since they were last computed.",
)
