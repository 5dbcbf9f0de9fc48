"""What the lake holds of each day, as the database records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
from sqlalchemy import Connection, text

_TABLES = ("runs", "steps", "step_failures", "run_payloads", "step_payloads")

_RECORD = text(f"""
    INSERT INTO orchestra_etl.export_days AS d
        (day, {", ".join(_TABLES)}, digest, archived_runs, exported_at)
    SELECT n.day, {", ".join(f"COALESCE(n.{name}, b.{name}, 0)" for name in _TABLES)}, n.digest,
           n.archived_runs, now()
    FROM jsonb_to_recordset(CAST(:days AS jsonb))
        AS n (day date, digest text, archived_runs bigint,
              {", ".join(f"{name} bigint" for name in _TABLES)})
    LEFT JOIN orchestra_etl.export_days AS b ON b.day = n.day
    ON CONFLICT (day) DO UPDATE SET
        ({", ".join(_TABLES)}, digest, archived_runs, exported_at) =
        ({", ".join(f"excluded.{name}" for name in _TABLES)}, excluded.digest,
         excluded.archived_runs, excluded.exported_at)
""")

_RECORD_SNAPSHOTS = text("""
    UPDATE orchestra_etl.export_days SET snapshot_ids = CAST(:snapshot_ids AS jsonb)
    WHERE day = ANY (CAST(:days AS date[]))
""")


class DayRecord(msgspec.Struct, frozen=True):
    """What an export has written of a day."""

    rows: Mapping[str, int]
    """By written table, the rows that the lake now holds."""
    digest: str
    """Digest of the day's rows in PostgreSQL; see `day_digest`."""
    archived_runs: int
    """How many of the runs are only in the lake."""


def record(connection: Connection, written: Mapping[date, DayRecord]) -> None:
    """Record days that this transaction exports.

    Args:
        connection: in the transaction that commits the lake.
        written: what the lake will hold of each day.
    """
    rows = [
        {"day": day, "digest": one.digest, "archived_runs": one.archived_runs, **one.rows}
        for day, one in written.items()
    ]
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
