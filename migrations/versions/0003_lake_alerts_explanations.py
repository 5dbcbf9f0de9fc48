"""The export to a lake, alerts on runs, and the explanation of differences."""

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

# Each after those it uses.
_SQL_FILES: tuple[str, ...] = ("changed_days_v1",)

_TIME = sa.DateTime(timezone=True)


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
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def _column(name: str, kind: Any, comment: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, comment=comment, **options)


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


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")
