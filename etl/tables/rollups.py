"""The rollups and failures in the schema `orchestra`, and the queue of groups to recompute."""

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
    ("soft_failed", "Steps with a successful status that carry an error (see outcome)."),
    ("failed", "Steps that failed."),
    ("cancelled", "Steps that were cancelled."),
    ("skipped", "Steps that were skipped."),
    ("unfinished", "Steps that are pending or running, or whose status is not known."),
    ("calls", "Calls of a model (see is_call)."),
    (
        "unmetered_calls",
        "Calls that report no usage, so that their cost is unknown.",
    ),
    (
        "untotalled_calls",
        "Calls missing from total_tokens, because they report no tokens.",
    ),
    ("reported_calls", "Calls whose provider reports a cost."),
)

PLAIN_SUMS = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
)
"""The sums that are 0 without calls.

The other sums are null then, so that they take no space in the rows of nodes that call no model.
"""

_SUM = "Summed over the calls that report it; null if none does."
_SUM_OR_0 = (
    "Summed over the calls that report it; null if none of the calls reports it; 0 if there are "
    "no calls."
)
USAGE_SUMS = (
    *(
        (kind.name, f"{kind.comment} {_SUM_OR_0 if kind.name in PLAIN_SUMS else _SUM}")
        for kind in KINDS
    ),
    ("total_tokens", f"Total tokens. {_SUM_OR_0}"),
)

RUN_COUNTS = (
    ("runs", "Runs."),
    ("succeeded", "Runs that succeeded."),
    (
        "soft_failed",
        "Runs with a successful status that carry an error, or have a step that does (see "
        "outcome).",
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
            "Cost in US dollars, as providers report it. Summed over the calls that report it; "
            "null if none does.",
        ),
    ]


# The days do not have them: a day would be unknown as long as one of its hours is, and the hours of
# three months are read in a fraction of a second.
_RESPONSES = (
    (
        "responses",
        "Calls that report why the model stopped (see finish_reason). Null: there are no calls, "
        "or the row was computed before revision 0006 or by an older program.",
    ),
    (
        "cut_off_responses",
        "Responses that ended because the model ran out of tokens (see is_cut_off); null if "
        "responses is null.",
    ),
)
RESPONSES = tuple(name for name, _ in _RESPONSES)
UNCOUNTED = "calls > 0 AND responses IS NULL AND ordinal > 0"
"""The condition of the rows whose responses can be counted, but are not."""

_ORDINAL = "Number of the row within its workflow and hour; negative: counts of pruned runs."
_ORDINAL_IN_DAY = "Number of the row within its workflow and day."


def _group(when: str, kind: TypeEngine[Any], comment: str) -> list[Column[Any]]:
    # Names of nodes and models can be longer than an index allows: the key of a row is its ordinal
    # within the group.
    return [
        column("workflow_id", Id, "The workflow.", primary_key=True),
        column(when, kind, comment, primary_key=True),
        column(
            "ordinal", Integer(), _ORDINAL if when == "hour" else _ORDINAL_IN_DAY, primary_key=True
        ),
    ]


def _node() -> list[Column[Any]]:
    return [
        column("organization_id", Id, "The organisation; null if no step names one."),
        column("node_id", Text(), "The node."),
        column("node_type", Text(), "The node's type."),
        column(
            "model",
            Text(),
            "The model that responded, else the requested one; null: no model.",
        ),
        column(
            "service_tier",
            Text(),
            "For calls: the provider's service tier; null if they name none.",
        ),
        column(
            "context_tier",
            Integer(),
            "For calls: the highest price threshold of input tokens that they exceed; 0 if they "
            "exceed none. A price threshold is a number of input tokens above which prices can "
            "change.",
        ),
        column(
            "usage_kinds",
            Integer(),
            "For calls: bit mask of the kinds of usage charged at a price of their own (see "
            "usage_kinds).",
        ),
    ]


NODE = tuple(one.name for one in _node())
"""The columns that distinguish the rows of a group."""


def _histograms(counted: str) -> list[Column[Any]]:
    ascending = (
        f"Buckets of the durations of the {counted} that succeeded (see duration_bucket), ascending"
    )
    return [
        column(
            "buckets",
            ARRAY(SmallInteger),
            f"{ascending}; {counted} without a valid duration are not counted.",
            nullable=False,
        ),
        column(
            "counts",
            ARRAY(Integer),
            "Number of durations in each of these buckets.",
            nullable=False,
        ),
        column(
            "failed_buckets",
            ARRAY(SmallInteger),
            f"Like buckets, for {counted} that failed or soft-failed.",
            nullable=False,
        ),
        column(
            "failed_counts",
            ARRAY(Integer),
            "Number of durations in each of failed_buckets.",
            nullable=False,
        ),
    ]


HISTOGRAMS = tuple(one.name for one in _histograms("steps"))
"""The columns of a row that contain durations."""


step_rollup = Table(
    "step_rollup",
    metadata,
    *_group(
        "hour",
        Time,
        "The hour (UTC) in which the steps started; for steps without a start, the hour of their "
        "run.",
    ),
    *_node(),
    *_counts(STEP_COUNTS),
    *_usage_sums(),
    *_histograms("steps"),
    *(column(name, BigInteger(), comment) for name, comment in _RESPONSES),
    Index("step_rollup_hour_idx", "hour"),
    # Lets a refresh find the groups to compute (see `etl.analytics.uncounted`).
    Index(
        "step_rollup_uncounted_idx",
        "hour",
        "workflow_id",
        postgresql_where=text(UNCOUNTED),
    ),
    schema=ANALYTICS,
    comment="Steps by hour, workflow, organisation, node and model: outcomes, tokens and "
    "histograms of durations.",
)

# Without it, percentiles over months would add up about one histogram entry per step of each hour.
step_rollup_daily = Table(
    "step_rollup_daily",
    metadata,
    *_group("day", Date(), "The day (UTC) whose hours are added up."),
    *_node(),
    *_counts(STEP_COUNTS),
    *_usage_sums(),
    *_histograms("steps"),
    Index("step_rollup_daily_day_idx", "day"),
    # Lets a query list the models with one lookup per model instead of one per row.
    Index("step_rollup_daily_model_idx", "model", postgresql_where=text("length(model) <= 500")),
    schema=ANALYTICS,
    comment="step_rollup by day: the same figures except the responses, for queries over weeks and "
    "months.",
)

run_rollup = Table(
    "run_rollup",
    metadata,
    *_group(
        "hour", Time, "The hour (UTC) in which the runs started, or were first seen if not started."
    ),
    column("organization_id", Id, "The organisation; null if the run names none."),
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
        "When the step started; without a start, when its run started or was first seen.",
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
    comment="One row per step that failed or soft-failed, with the kind of failure.",
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
        "When its computation last failed, to be retried later; null: it has not failed.",
    ),
    column("cause", Text(), "SQLSTATE of the last failure."),
    schema=OPERATIONS,
    comment="A queue: the rollup groups whose runs or steps have changed since they were last "
    "computed.",
)
