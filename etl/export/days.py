"""What the lake holds of each day, as the database records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
from sqlalchemy import Connection, text

_TABLES = ("runs", "steps", "step_failures", "run_payloads", "step_payloads")

_RECORD = text(f"""
    INSERT INTO orchestra_etl.export_days AS d
        (day, {", ".join(_TABLES)}, digest, exported_at)
    SELECT n.day, {", ".join(f"COALESCE(n.{name}, 0)" for name in _TABLES)}, '', now()
    FROM jsonb_to_recordset(CAST(:days AS jsonb))
        AS n (day date, {", ".join(f"{name} bigint" for name in _TABLES)})
    ON CONFLICT (day) DO UPDATE SET
        ({", ".join(_TABLES)}, digest, exported_at) =
        ({", ".join(f"excluded.{name}" for name in _TABLES)}, excluded.digest,
         excluded.exported_at)
""")

_RECORD_SNAPSHOTS = text("""
    UPDATE orchestra_etl.export_days SET snapshot_ids = CAST(:snapshot_ids AS jsonb)
    WHERE day = ANY (CAST(:days AS date[]))
""")


def record(connection: Connection, written: Mapping[date, Mapping[str, int]]) -> None:
    """Record days that this transaction exports.

    Args:
        connection: in the transaction that commits the lake.
        written: by day and table, the rows that the lake will hold.
    """
    rows = [{"day": day, **counts} for day, counts in written.items()]
    connection.execute(_RECORD, {"days": msgspec.json.encode(rows).decode()})


def record_snapshots(
    connection: Connection, days: Sequence[date], snapshot_ids: Mapping[str, int]
) -> None:
    """Record the snapshots, by table, that wrote these days."""
    own = {name: snapshot_ids[name] for name in _TABLES if name in snapshot_ids}
    connection.execute(
        _RECORD_SNAPSHOTS,
        {"days": list(days), "snapshot_ids": msgspec.json.encode(own).decode()},
    )
