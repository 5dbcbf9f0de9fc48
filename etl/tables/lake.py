"""The tables of the export to a lake: its catalog, its state, and the queue of changed days.

`iceberg_tables` and `iceberg_namespace_properties` are Iceberg's JDBC catalog, as pyiceberg, Spark
and Trino define it. They are in the same database as the history, so that one transaction commits
the lake's tables, the export's state and the consumed queue.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from etl.tables.columns import OPERATIONS, Time, column, metadata, now


class TransactionId(UserDefinedType[Any]):
    """PostgreSQL's `xid8`: a transaction id that never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name."""
        return "xid8"


class Snapshot(UserDefinedType[Any]):
    """PostgreSQL's `pg_snapshot`: which transactions a statement sees."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name."""
        return "pg_snapshot"


# Without these entries, Alembic warns that it does not know the columns' types.
ischema_names.update(xid8=TransactionId, pg_snapshot=Snapshot)

changed_days = Table(
    "changed_days",
    metadata,
    column("day", Date(), "The UTC day of runs that changed.", primary_key=True),
    column(
        "xid",
        TransactionId(),
        "The transaction that changed them.",
        primary_key=True,
        server_default=text("pg_current_xact_id()"),
    ),
    now("queued_at", "When the transaction began."),
    schema=OPERATIONS,
    comment="A queue: the days whose runs, steps or payloads have changed since they were last"
    " exported. It stays empty until the first export.",
)

_ROWS = "Rows of the day in the lake's table"

export_days = Table(
    "export_days",
    metadata,
    column(
        "day", Date(), "The UTC day: a partition of each of the lake's tables.", primary_key=True
    ),
    *(
        column(name, BigInteger(), f"{_ROWS} {name}.", nullable=False, server_default=text("0"))
        for name in ("runs", "steps", "step_failures", "run_payloads", "step_payloads")
    ),
    column(
        "archived_runs",
        BigInteger(),
        "How many of these runs are only in the lake: they were pruned here.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "digest",
        Text(),
        "Digest of the day's rows in PostgreSQL when they were exported.",
        nullable=False,
    ),
    column(
        "complete_until",
        Time,
        "Every run of the day that started before this time is in the lake, except in gaps; null:"
        " unknown.",
    ),
    column(
        "gaps",
        Integer(),
        "Number of the gaps that touch the day.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "snapshot_ids",
        JSONB,
        "For each table of the lake: the snapshot that wrote the day.",
        nullable=False,
        server_default=text("'{}'"),
    ),
    now("exported_at", "When the day was last exported."),
    schema=OPERATIONS,
    comment="The days in the lake, each as of its last export.",
)

export_state = Table(
    "export_state",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column("location", Text(), "Where the lake is.", nullable=False),
    column("namespace", Text(), "The namespace of its tables.", nullable=False),
    column("payloads", Boolean(), "Whether it holds payloads.", nullable=False),
    column(
        "system_identifier",
        Text(),
        "System identifier of the exported PostgreSQL cluster.",
        nullable=False,
    ),
    column("timeline", Integer(), "The cluster's timeline at the last export.", nullable=False),
    column("database_oid", BigInteger(), "The database's OID in the cluster.", nullable=False),
    column(
        "definition",
        Text(),
        "Version of the definition of the lake's tables; null: nothing is exported yet.",
    ),
    column(
        "snapshot",
        Snapshot(),
        "The transactions that the last complete export could see; null: no export is complete.",
    ),
    column(
        "whole_tables",
        JSONB,
        "For each table that is exported as a whole: digest of its rows at the last export.",
        nullable=False,
        server_default=text("'{}'"),
    ),
    column(
        "published",
        Boolean(),
        "Whether the files version-hint.text name the tables' metadata of the last commit.",
        nullable=False,
        server_default=text("true"),
    ),
    column(
        "erased_runs",
        BigInteger(),
        "Total number of erased runs when the lake was last searched for erased runs.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "exported_at", Time, "When the last complete export ended; null: no export is complete."
    ),
    now("activated_at", "When the queue changed_days was switched on."),
    column(
        "collected_at",
        Time,
        "When files that the lake no longer needs were last searched for; null: never.",
    ),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="The export to a lake. While there is no row, no change is queued.",
)

iceberg_tables = Table(
    "iceberg_tables",
    metadata,
    column("catalog_name", String(255), "The catalog.", primary_key=True),
    column("table_namespace", String(255), "The namespace.", primary_key=True),
    column("table_name", String(255), "The table.", primary_key=True),
    column("metadata_location", String(1000), "The table's current metadata file."),
    column("previous_metadata_location", String(1000), "The table's previous metadata file."),
    column("iceberg_type", String(5), "TABLE or VIEW; null: a table."),
    schema=OPERATIONS,
    comment="The lake's tables, in the form of Iceberg's JDBC catalog.",
)

iceberg_namespace_properties = Table(
    "iceberg_namespace_properties",
    metadata,
    column("catalog_name", String(255), "The catalog.", primary_key=True),
    column("namespace", String(255), "The namespace.", primary_key=True),
    column("property_key", String(255), "The property.", primary_key=True),
    column("property_value", String(1000), "Its value.", nullable=False),
    schema=OPERATIONS,
    comment="The namespaces of the lake, in the form of Iceberg's JDBC catalog.",
)
