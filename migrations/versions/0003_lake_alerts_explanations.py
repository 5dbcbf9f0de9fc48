"""The time at which a run was last read, in the views of runs.

Also the export to a lake, alerts on runs, and the explanation of differences.
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

# Each after those it uses.
_SQL_FILES = (
    "open_runs_v2",
    "run_summary_v2",
    "step_timeline_v2",
    "content_shapes_v2",
    "model_call_text_v2",
    "search_v2",
    "alerts_v1",
    "explained_periods_v1",
    "explain_cost_v1",
    "explain_duration_v1",
    "explain_failures_v1",
)


def upgrade() -> None:
    _alerts()
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
    _newer_rules()


def _newer_rules() -> None:
    """Make a rebuild due: the usage of streams that are kept as a text is read."""
    op.execute(
        "INSERT INTO orchestra_etl.rebuilds (transform_version, finished_at)"
        " SELECT 2, CASE WHEN NOT EXISTS (SELECT FROM orchestra.steps) THEN now() END"
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")


def _column(name: str, kind: Any, comment: str, *more: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, *more, comment=comment, **options)


def _alerts() -> None:
    subject = (
        ("rule", sa.Text(), "Name of the rule."),
        (
            "subject",
            _ID,
            "What the rule was evaluated for: the workflow's id, and what else the rule names.",
        ),
    )
    names = (
        ("node", sa.Text(), "The node that the rule names; null: none."),
        ("model", sa.Text(), "The model that the rule names; null: none."),
        ("organisation", sa.Text(), "The organisation that the rule names; null: none."),
        ("label", sa.Text(), "The label that the rule names; null: none."),
    )
    op.create_table(
        "alerts",
        *(_column(*one, nullable=False) for one in subject),
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        *(_column(*one) for one in names),
        _column(
            "state",
            sa.Text(),
            "ok, pending (a breach that has not lasted long enough), firing, resolved, or unknown.",
            nullable=False,
        ),
        _column("since", _TIME, "When the state began.", nullable=False),
        _column(
            "value", sa.Double(), "The metric, in seconds for durations; null: it has no value."
        ),
        _column(
            "threshold",
            sa.Double(),
            "The value that was exceeded or fallen below; null: it is not known.",
        ),
        _column(
            "reason",
            sa.Text(),
            "Why it is not known whether the rule is breached; null: it is known. An alert that "
            "fires goes on firing meanwhile.",
        ),
        _column(
            "channels",
            postgresql.ARRAY(sa.Text()),
            "The channels that were told that it fires.",
            nullable=False,
        ),
        _column("notified_at", _TIME, "When its last message was queued; null: none was."),
        _column(
            "reminders",
            sa.Integer(),
            "Reminders queued since it fired.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "sequence",
            sa.BigInteger(),
            "How often it has fired.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        sa.PrimaryKeyConstraint("rule", "subject", name=op.f("alerts_pkey")),
        schema="orchestra_etl",
        comment="The state of each rule and subject. A subject that was always ok has no row.",
    )
    op.create_table(
        "alert_episodes",
        *(_column(*one, nullable=False) for one in subject),
        _column(
            "sequence",
            sa.BigInteger(),
            "The how-manieth firing of the rule and subject it is.",
            autoincrement=False,
            nullable=False,
        ),
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        *(_column(*one) for one in names),
        _column("metric", sa.Text(), "The metric.", nullable=False),
        _column("fired_at", _TIME, "When it fired.", nullable=False),
        _column("value", sa.Double(), "The metric when it fired, in seconds for durations."),
        _column("threshold", sa.Double(), "The threshold when it fired."),
        _column("resolved_at", _TIME, "When it was resolved; null: it fires."),
        sa.PrimaryKeyConstraint("rule", "subject", "sequence", name=op.f("alert_episodes_pkey")),
        schema="orchestra_etl",
        comment="One row for each time that an alert fired.",
    )
    op.create_index(
        "alert_episodes_fired_at_idx", "alert_episodes", ["fired_at"], schema="orchestra_etl"
    )
    op.create_table(
        "alert_notifications",
        _column(
            "id",
            sa.BigInteger(),
            "Order of the messages.",
            sa.Identity(always=True),
            nullable=False,
        ),
        *(_column(*one, nullable=False) for one in subject),
        _column("sequence", sa.BigInteger(), "The firing that it is about.", nullable=False),
        _column("kind", sa.Text(), "firing, reminder or resolved.", nullable=False),
        _column("channel", sa.Text(), "The channel it is for.", nullable=False),
        _column(
            "key",
            sa.Text(),
            "The same for the same message, so that a receiver can recognise a repetition.",
            nullable=False,
        ),
        _column(
            "content",
            postgresql.JSONB(),
            "The numbers and names that the evaluation found.",
            nullable=False,
        ),
        _column(
            "created_at",
            _TIME,
            "When it was queued.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "attempts",
            sa.Integer(),
            "Attempts to deliver it.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "next_attempt_at",
            _TIME,
            "When to try to deliver it; null: it was delivered or given up.",
            server_default=sa.text("now()"),
        ),
        _column("leased_until", _TIME, "End of the running attempt's claim; null: none runs."),
        _column("delivered_at", _TIME, "When it was delivered; null: it was not."),
        _column("failure", sa.Text(), "Class of the last attempt's error; null: there was none."),
        sa.PrimaryKeyConstraint("id", name=op.f("alert_notifications_pkey")),
        sa.UniqueConstraint("key", name=op.f("alert_notifications_key_key")),
        schema="orchestra_etl",
        comment="A queue: the messages about alerts, each delivered at least once.",
    )
    op.create_index(
        "alert_notifications_next_attempt_at_idx",
        "alert_notifications",
        ["next_attempt_at"],
        schema="orchestra_etl",
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_table(
        "alert_mutes",
        _column("rule", sa.Text(), "Name of the rule.", nullable=False),
        _column("muted_until", _TIME, "Until when the rule queues no message.", nullable=False),
        sa.PrimaryKeyConstraint("rule", name=op.f("alert_mutes_pkey")),
        schema="orchestra_etl",
        comment="Rules that are muted: they are evaluated, and say nothing.",
    )
    op.create_table(
        "alert_evaluation",
        _column("id", sa.SmallInteger(), "Always 1.", autoincrement=False, nullable=False),
        _column("evaluated_at", _TIME, "When the rules were last evaluated."),
        sa.CheckConstraint("id = 1", name=op.f("alert_evaluation_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("alert_evaluation_pkey")),
        schema="orchestra_etl",
        comment="When the alerts were last evaluated. A process locks the row while it evaluates.",
    )
    op.execute("INSERT INTO orchestra_etl.alert_evaluation (id) VALUES (1)")
