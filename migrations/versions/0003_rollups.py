"""Rollups of the runs and steps, and the queue that keeps them right.

Every statement is instant: the rollups are computed afterwards, in batches, by the service or the
next sync. Writers of `runs` and `steps` wait only for as long as the triggers take to be made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_ID = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)
_STEP_COUNTS = (
    ("succeeded", "Steps that succeeded."),
    ("soft_failed", "Steps that succeeded although an integration reported an error."),
    ("failed", "Steps that failed."),
    ("cancelled", "Steps that were cancelled."),
    ("skipped", "Steps that were skipped."),
    ("unfinished", "Steps that are pending or running, or whose status is not known."),
    ("calls", "Calls of a model: steps that name a model or report tokens."),
    ("input_tokens", "Prompt tokens."),
    ("output_tokens", "Completion tokens."),
    ("cached_input_tokens", "Prompt tokens served from a cache, part of input_tokens."),
    ("reasoning_tokens", "Reasoning tokens, part of output_tokens."),
    ("total_tokens", "Total tokens."),
)
_RUN_COUNTS = (
    ("runs", "Runs."),
    ("succeeded", "Runs that succeeded."),
    ("soft_failed", "Runs that succeeded although a step of theirs failed softly."),
    ("failed", "Runs that failed."),
    ("cancelled", "Runs that were cancelled."),
    ("skipped", "Runs that were skipped."),
    ("unfinished", "Runs that are pending or running, or whose status is not known."),
)


def _run(name: str) -> None:
    # Not by Alembic's own execute, which takes a colon in a regular expression for a parameter; the
    # driver, a percent sign.
    op.get_bind().exec_driver_sql((_SQL / f"{name}.sql").read_text().replace("%", "%%"))


def _create(
    name: str,
    when: str,
    kind: sa.types.TypeEngine[Any],
    when_comment: str,
    names: list[sa.Column[Any]],
    counts: tuple[tuple[str, str], ...],
    comment: str,
) -> None:
    op.create_table(
        name,
        sa.Column("workflow_id", _ID, nullable=False, comment="The workflow."),
        sa.Column(when, kind, nullable=False, comment=when_comment),
        sa.Column(
            "place",
            sa.Integer(),
            nullable=False,
            comment=f"Number of the row within its workflow and {when}.",
        ),
        *names,
        *(
            sa.Column(count, sa.BigInteger(), nullable=False, comment=text)
            for count, text in counts
        ),
        sa.Column(
            "buckets",
            postgresql.ARRAY(sa.SmallInteger()),
            nullable=False,
            comment="Buckets of durations that occur (see duration_bucket), rising.",
        ),
        sa.Column(
            "counts",
            postgresql.ARRAY(sa.Integer()),
            nullable=False,
            comment="How many durations each of these buckets holds.",
        ),
        sa.PrimaryKeyConstraint("workflow_id", when, "place", name=op.f(f"{name}_pkey")),
        schema="orchestra",
        comment=comment,
    )
    op.create_index(f"{name}_{when}_idx", name, [when], schema="orchestra")


def _node() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "organization_id", _ID, comment="The organisation; null where no step names one."
        ),
        sa.Column("node_id", sa.Text(), comment="The node."),
        sa.Column("node_type", sa.Text(), comment="The node's type."),
        sa.Column(
            "model",
            sa.Text(),
            comment="The model that answered, else the one that was asked for; null: no model.",
        ),
    ]


def upgrade() -> None:
    _run("outcome_v1")
    _run("duration_v1")
    _create(
        "step_rollup",
        "hour",
        _TIME,
        "The hour (UTC) in which the steps started, or were first seen if not started.",
        _node(),
        _STEP_COUNTS,
        "Steps by hour, workflow, organisation, node and model: outcomes, tokens and a histogram of durations.",
    )
    _create(
        "step_rollup_daily",
        "day",
        sa.Date(),
        "The day (UTC) of the hours that are added up.",
        _node(),
        _STEP_COUNTS,
        "step_rollup by day: the same numbers, for questions about weeks and months.",
    )
    _create(
        "run_rollup",
        "hour",
        _TIME,
        "The hour (UTC) in which the runs started, or were first seen if not started.",
        [
            sa.Column(
                "organization_id", _ID, comment="The organisation; null where the run names none."
            )
        ],
        _RUN_COUNTS,
        "Runs by hour, workflow and organisation: outcomes and a histogram of durations.",
    )
    # What the foreign key and the triggers need, in the order in which a load takes its own: else
    # the two deadlock.
    op.execute("LOCK TABLE orchestra.runs, orchestra.steps IN SHARE ROW EXCLUSIVE MODE")
    op.create_table(
        "step_failures",
        sa.Column("step_id", _ID, nullable=False, comment="The step."),
        sa.Column("run_id", _ID, nullable=False, comment="Its run."),
        sa.Column("workflow_id", _ID, nullable=False, comment="Its workflow."),
        sa.Column("node_id", sa.Text(), comment="Its node."),
        sa.Column("organization_id", _ID, comment="Its organisation."),
        sa.Column(
            "time",
            _TIME,
            nullable=False,
            comment="When it started; when it was first seen, if it has no start.",
        ),
        sa.Column("outcome", sa.Text(), nullable=False, comment="failed or soft_failed."),
        sa.Column(
            "fingerprint",
            sa.Text(),
            nullable=False,
            comment="Hash of the pattern: the same for failures of one kind.",
        ),
        sa.Column(
            "pattern",
            sa.Text(),
            nullable=False,
            comment="The message with its numbers, ids and quoted texts replaced.",
        ),
        sa.Column(
            "message", sa.Text(), nullable=False, comment="The first 500 characters of the error."
        ),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["orchestra.steps.id"],
            name=op.f("step_failures_step_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step_id", name=op.f("step_failures_pkey")),
        schema="orchestra",
        comment="One row a step that failed or failed softly, with the kind of failure.",
    )
    op.create_index(
        "step_failures_workflow_id_time_idx",
        "step_failures",
        ["workflow_id", "time"],
        schema="orchestra",
    )
    op.create_index("step_failures_time_idx", "step_failures", ["time"], schema="orchestra")
    op.create_table(
        "dirty_groups",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Order of arrival.",
        ),
        sa.Column(
            "workflow_id", _ID, comment="The workflow; null: every group there is must be computed."
        ),
        sa.Column(
            "hour", _TIME, comment="The hour of the steps that changed; null: as workflow_id."
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("dirty_groups_pkey")),
        schema="orchestra_etl",
        comment="A queue: the groups of the rollups whose runs or steps have changed since they were last computed.",
    )
    _run("dirty_groups_v1")
    # The first refresh enters the groups of all the steps that are stored: to look for them here
    # would hold up every writer.
    op.execute("INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour) VALUES (NULL, NULL)")


def downgrade() -> None:
    for table in ("runs", "steps"):
        for name, function in (("inserted", "new"), ("updated", "changed"), ("deleted", "old")):
            op.execute(f"DROP TRIGGER mark_{name} ON orchestra.{table}")
            op.execute(f"DROP FUNCTION orchestra_etl.mark_{function}_{table}()")
    op.drop_table("dirty_groups", schema="orchestra_etl")
    op.drop_table("step_failures", schema="orchestra")
    for table in ("run_rollup", "step_rollup_daily", "step_rollup"):
        op.drop_table(table, schema="orchestra")
    op.execute(
        "DROP AGGREGATE orchestra.duration_quantile(smallint[], integer[], double precision)"
    )
    op.execute("DROP AGGREGATE orchestra.duration_quantile(integer, bigint, double precision)")
    op.execute(
        "DROP FUNCTION orchestra.duration_quantile_add(double precision[], smallint[], integer[], double precision)"
    )
    for function in (
        "duration_quantile_end",
        "duration_quantile_merge",
        "duration_quantile_add(double precision[], integer, bigint, double precision)",
        "bucket_duration",
        "duration_bucket",
        "failure_pattern",
        "error_message",
        "outcome",
    ):
        op.execute(f"DROP FUNCTION orchestra.{function}")
