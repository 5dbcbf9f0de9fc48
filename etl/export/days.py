"""What the lake holds of each day, as the database records it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import msgspec
from sqlalchemy import Connection, text

_TABLES = ("runs", "steps", "step_failures", "run_payloads", "step_payloads")

_RECORD = text(f"""
    INSERT INTO orchestra_etl.export_days AS d
        (day, {", ".join(_TABLES)}, digest, snapshot_ids, exported_at)
    SELECT n.day, {", ".join(f"COALESCE(n.{name}, 0)" for name in _TABLES)}, '',
           CAST(:snapshot_ids AS jsonb), now()
    FROM jsonb_to_recordset(CAST(:days AS jsonb))
        AS n (day date, {", ".join(f"{name} bigint" for name in _TABLES)})
    ON CONFLICT (day) DO UPDATE SET
        ({", ".join(_TABLES)}, digest, snapshot_ids, exported_at) =
        ({", ".join(f"excluded.{name}" for name in _TABLES)}, excluded.digest,
         excluded.snapshot_ids, excluded.exported_at)
""")


def record(
    connection: Connection,
    written: Mapping[date, Mapping[str, int]],
    snapshot_ids: Mapping[str, int],
) -> None:
    """Record days that this transaction has exported.

    Args:
        connection: in the transaction that commits the lake.
        written: by day and table, the rows that the lake now holds.
        snapshot_ids: by table, the snapshot that wrote them.
    """
    rows = [{"day": day, **counts} for day, counts in written.items()]
    connection.execute(
        _RECORD,
        {
            "days": msgspec.json.encode(rows).decode(),
            "snapshot_ids": msgspec.json.encode(snapshot_ids).decode(),
        },
    )
