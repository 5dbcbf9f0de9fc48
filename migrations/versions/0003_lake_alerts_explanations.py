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
    "changed_days_v1",
)


class _TransactionId(sa.types.UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class _Snapshot(sa.types.UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "pg_snapshot"


def upgrade() -> None:
    _lake()
    _alerts()
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
    _newer_rules()


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")


def _newer_rules() -> None:
    """Make a rebuild due: the usage of streams that are kept as a text is read."""
    op.execute(
        "INSERT INTO orchestra_etl.rebuilds (transform_version, finished_at)"
        " SELECT 2, CASE WHEN NOT EXISTS (SELECT FROM orchestra.steps) THEN now() END"
    )


def _column(name: str, kind: Any, comment: str, *more: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, *more, comment=comment, **options)


def _lake() -> None:
    op.create_table(
        "changed_days",
        _column("day", sa.Date(), "The UTC day of runs that changed.", nullable=False),
        _column(
            "xid",
            _TransactionId(),
            "The transaction that changed them.",
            nullable=False,
            server_default=sa.text("pg_current_xact_id()"),
        ),
        sa.PrimaryKeyConstraint("day", "xid", name=op.f("changed_days_pkey")),
        schema="orchestra_etl",
        comment=(
            "A queue: the days whose runs, steps or payloads have changed since the"
            "y were last exported. It stays empty until the first export."
        ),
    )
    op.create_table(
        "export_days",
        _column(
            "day",
            sa.Date(),
            "The UTC day: a partition of each of the lake's tables.",
            nullable=False,
        ),
        _column(
            "runs",
            sa.BigInteger(),
            "Rows of the day in the lake's table runs.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "steps",
            sa.BigInteger(),
            "Rows of the day in the lake's table steps.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "step_failures",
            sa.BigInteger(),
            "Rows of the day in the lake's table step_failures.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "run_payloads",
            sa.BigInteger(),
            "Rows of the day in the lake's table run_payloads.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "step_payloads",
            sa.BigInteger(),
            "Rows of the day in the lake's table step_payloads.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "archived_runs",
            sa.BigInteger(),
            "How many of these runs are only in the lake: they were pruned here.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "digest",
            sa.Text(),
            "Digest of the day's rows in PostgreSQL when they were exported.",
            nullable=False,
        ),
        _column(
            "complete_until",
            _TIME,
            (
                "Every run of the day that started before this time is in the lake,"
                " except in gaps; null: that is not known."
            ),
        ),
        _column(
            "gaps",
            sa.Integer(),
            "Number of the gaps that touch the day.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "snapshot_ids",
            postgresql.JSONB(),
            "By table of the lake: the snapshot that wrote the day.",
            nullable=False,
            server_default=sa.text("'{}'"),
        ),
        _column(
            "exported_at",
            _TIME,
            "When the day was last exported.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.PrimaryKeyConstraint("day", name=op.f("export_days_pkey")),
        schema="orchestra_etl",
        comment="The days that the lake holds, as the last export of each left them.",
    )
    op.create_table(
        "export_state",
        _column("id", sa.SmallInteger(), "Always 1.", autoincrement=False, nullable=False),
        _column("location", sa.Text(), "Where the lake is.", nullable=False),
        _column("namespace", sa.Text(), "The namespace of its tables.", nullable=False),
        _column("payloads", sa.Boolean(), "Whether it holds payloads.", nullable=False),
        _column(
            "system_identifier",
            sa.Text(),
            "The PostgreSQL cluster that was exported.",
            nullable=False,
        ),
        _column(
            "timeline", sa.Integer(), "The cluster's timeline at the last export.", nullable=False
        ),
        _column(
            "database_oid", sa.BigInteger(), "The database's number in the cluster.", nullable=False
        ),
        _column(
            "definition",
            sa.Text(),
            "Version of the definition of the lake's tables; null: nothing is exported yet.",
        ),
        _column(
            "snapshot",
            _Snapshot(),
            "The transactions that the last complete export has seen; null: none is complete.",
        ),
        _column(
            "whole_tables",
            postgresql.JSONB(),
            "By table that is exported as a whole: digest of its rows at the last export.",
            nullable=False,
            server_default=sa.text("'{}'"),
        ),
        _column(
            "published",
            sa.Boolean(),
            "Whether the version hints name the tables of the last commit.",
            nullable=False,
            server_default=sa.text("true"),
        ),
        _column(
            "erased_runs",
            sa.BigInteger(),
            "How many runs were erased in all when the lake was last searched for erased runs.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column("exported_at", _TIME, "When the last complete export ended; null: none has."),
        _column(
            "activated_at",
            _TIME,
            "When changes were first queued.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.CheckConstraint("id = 1", name=op.f("export_state_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("export_state_pkey")),
        schema="orchestra_etl",
        comment="The export to a lake. While there is no row, no change is queued.",
    )
    op.create_table(
        "iceberg_tables",
        _column("catalog_name", sa.String(255), "The catalog.", nullable=False),
        _column("table_namespace", sa.String(255), "The namespace.", nullable=False),
        _column("table_name", sa.String(255), "The table.", nullable=False),
        _column("metadata_location", sa.String(1000), "The file that describes the table now."),
        _column(
            "previous_metadata_location", sa.String(1000), "The file that described it before."
        ),
        _column("iceberg_type", sa.String(5), "TABLE or VIEW; null: a table."),
        sa.PrimaryKeyConstraint(
            "catalog_name", "table_namespace", "table_name", name=op.f("iceberg_tables_pkey")
        ),
        schema="orchestra_etl",
        comment="The lake's tables, in the form of Iceberg's JDBC catalog.",
    )
    op.create_table(
        "iceberg_namespace_properties",
        _column("catalog_name", sa.String(255), "The catalog.", nullable=False),
        _column("namespace", sa.String(255), "The namespace.", nullable=False),
        _column("property_key", sa.String(255), "The property.", nullable=False),
        _column("property_value", sa.String(1000), "Its value.", nullable=False),
        sa.PrimaryKeyConstraint(
            "catalog_name",
            "namespace",
            "property_key",
            name=op.f("iceberg_namespace_properties_pkey"),
        ),
        schema="orchestra_etl",
        comment="The namespaces of the lake, in the form of Iceberg's JDBC catalog.",
    )
    # All rows of a queue are soon dead.
    op.execute(
        "ALTER TABLE orchestra_etl.changed_days SET (autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_threshold = 1000)"
    )


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
            "Number of this firing of the rule and subject, from 1.",
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
