"""The state of the export in the database: where the lake is, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, RowMapping, text

from etl.database import LONG, allow_long
from etl.export.destination import Destination
from etl.export.origin import HERE

_READ = """
    SELECT s.*, (SELECT CAST(COALESCE(sum(archived_runs), 0) AS bigint)
                 FROM orchestra_etl.export_days) AS archived_runs
    FROM orchestra_etl.export_state AS s WHERE s.id = 1
"""
_FIND = text(_READ)

# Each commit changes the row. A transaction whose snapshot is older than another export's commit
# cannot lock it, and starts again with a newer snapshot.
_HOLD = text(f"{_READ} FOR UPDATE OF s SKIP LOCKED")

_MAY_BE_IDLE = text(f"SET LOCAL idle_in_transaction_session_timeout = {round(LONG * 1000)}")

# The order in which a load locks them.
_LOCK = text("""
    LOCK TABLE orchestra.runs, orchestra.run_payloads, orchestra.steps, orchestra.inputs,
        orchestra.outputs IN SHARE ROW EXCLUSIVE MODE
""")


class ExportState(msgspec.Struct, frozen=True):
    """The row of `export_state`."""

    location: str
    namespace: str
    payloads: bool
    definition: str | None
    whole_tables: Mapping[str, str | None]
    """By whole table: the digest of its rows at the last export."""
    published: bool
    """Whether the version hints name the last commit."""
    exported_at: datetime | None
    """When the last complete export ended; None: none has."""
    archived_runs: int
    """The runs that only the lake has."""
    erased_runs: int
    """The total number of erased runs when the lake was last searched for them."""
    collected_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    """When garbage was last searched for; None: never. Unset: the schema cannot hold it yet."""

    def is_at(self, destination: Destination) -> bool:
        """Whether this is the lake at that place."""
        return (self.location, self.namespace) == (destination.location, destination.namespace)


def read(connection: Connection) -> ExportState | None:
    """Return the state; None before the first export."""
    return _state(connection.execute(_FIND).mappings().one_or_none())


def allow_idle(connection: Connection) -> None:
    """Allow a transaction to be idle for an hour, while files are read, written or imported."""
    connection.execute(_MAY_BE_IDLE)


def hold(connection: Connection) -> ExportState | None:
    """Return the state, locked until the transaction ends; None if another process holds it.

    The transaction may then take hours, and be idle while files are written.
    """
    allow_long(connection)
    allow_idle(connection)
    return _state(connection.execute(_HOLD).mappings().one_or_none())


def _state(row: RowMapping | None) -> ExportState | None:
    return None if row is None else msgspec.convert(dict(row), ExportState)


_ACTIVATE = text(f"""
    INSERT INTO orchestra_etl.export_state AS s
        (id, location, namespace, payloads, system_identifier, timeline, database_oid)
    SELECT 1, :location, :namespace, :payloads, h.system_identifier, h.timeline, h.database_oid
    FROM ({HERE}) AS h
    ON CONFLICT (id) DO UPDATE SET
        (location, namespace, payloads, system_identifier, timeline, database_oid, definition) =
        (excluded.location, excluded.namespace, excluded.payloads, excluded.system_identifier,
         excluded.timeline, excluded.database_oid, NULL)
""")

_FORGET = (
    text("DELETE FROM orchestra_etl.iceberg_tables"),
    text("DELETE FROM orchestra_etl.export_days"),
    text("UPDATE orchestra_etl.export_state SET whole_tables = '{}', exported_at = NULL"),
)

_FORGET_PAYLOADS = (
    text("""
        DELETE FROM orchestra_etl.iceberg_tables
        WHERE table_name IN ('run_payloads', 'step_payloads')
    """),
    text("UPDATE orchestra_etl.export_days SET run_payloads = 0, step_payloads = 0"),
)

_RECORD = text("""
    UPDATE orchestra_etl.export_state
    SET definition = :definition, published = false,
        whole_tables = whole_tables || CAST(:whole_tables AS jsonb),
        snapshot = CASE WHEN :complete THEN pg_current_snapshot() ELSE snapshot END,
        exported_at = CASE WHEN :complete THEN clock_timestamp() ELSE exported_at END
    WHERE id = 1
""")

_UNPUBLISHED = text("UPDATE orchestra_etl.export_state SET published = false WHERE id = 1")
_PUBLISHED = text("UPDATE orchestra_etl.export_state SET published = true WHERE id = 1")
_COLLECTED = text("UPDATE orchestra_etl.export_state SET collected_at = :time WHERE id = 1")


def activate(connection: Connection, destination: Destination) -> None:
    """Enter where the lake is; from the commit on, every change is queued.

    It waits for the transactions that are writing to the history: they began without the queue.
    A lake at another place is a new one. Without payloads, the tables of payloads leave the
    catalog, and the next export deletes their files.
    """
    connection.execute(_LOCK)
    before = read(connection)
    if before is not None:
        forgotten = _FORGET_PAYLOADS if before.is_at(destination) else _FORGET
        for statement in forgotten:
            connection.execute(statement)
        record_collected(connection, before, None)
    connection.execute(
        _ACTIVATE,
        {
            "location": destination.location,
            "namespace": destination.namespace,
            "payloads": destination.payloads,
        },
    )


def record(
    connection: Connection,
    *,
    definition: str,
    whole_tables: Mapping[str, str | None],
    complete: bool,
) -> None:
    """Record a commit of the lake, whose version hints are not written yet.

    Args:
        connection: in the transaction that commits the lake.
        definition: version of the definition of the lake's tables.
        whole_tables: the digests of the whole tables that were replaced.
        complete: whether the lake now holds everything that the transaction sees.
    """
    connection.execute(
        _RECORD,
        {
            "definition": definition,
            "whole_tables": msgspec.json.encode(whole_tables).decode(),
            "complete": complete,
        },
    )


def record_unpublished(connection: Connection) -> None:
    """Record a commit of the lake that changes no rows; its version hints are not written yet."""
    connection.execute(_UNPUBLISHED)


def record_published(connection: Connection) -> None:
    """Record that the version hints name the last commit."""
    connection.execute(_PUBLISHED)


def record_collected(connection: Connection, held: ExportState, time: datetime | None) -> None:
    """Record when garbage was searched for; None makes the next export search.

    Before revision 0004, the state has no place for it, and every export searches.
    """
    if held.collected_at is not msgspec.UNSET:
        connection.execute(_COLLECTED, {"time": time})
