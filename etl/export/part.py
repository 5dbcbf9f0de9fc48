"""A part of an export: the days that one transaction exports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection

from etl.export import (
    archive,
    changes,
    completeness,
    day_reader,
    days,
    garbage,
    state,
    whole_tables,
)
from etl.export.archive import Kept
from etl.export.day_digest import DayDigest
from etl.export.days import DayRecord
from etl.export.destination import Destination
from etl.export.lake import Lake
from etl.export.lake_tables import LakeTable, day_tables, definition
from etl.export.progress import ExportPart, Progress
from etl.export.state import ExportState
from etl.export.store import reported


def export(
    connection: Connection,
    destination: Destination,
    held: ExportState,
    queued: Sequence[date],
    *,
    payloads: bool,
    is_first: bool,
    is_over: Callable[[], bool],
    on_days: Progress,
) -> ExportPart:
    """Replace queued days and changed whole tables in the lake, and record that.

    Args:
        connection: in a transaction with one snapshot that holds the export's lock.
        destination: where the lake is.
        held: the state as the last commit left it.
        queued: the days, in the order in which to export them.
        payloads: whether to write the tables of payloads; without them, the days stay queued.
        is_first: whether it may search for what earlier exports left.
        is_over: called after each day; True leaves the others to the next part.
        on_days: see `Progress`.

    Raises:
        LakeError: the lake cannot be read or written.
    """
    with reported(destination.location):
        lake = Lake(connection, destination)
        if not held.published:
            lake.open_all()
            lake.publish()
        if is_first and garbage.is_due(held):
            garbage.collect(connection, lake, held)
        written = _write_days(
            connection,
            lake,
            queued,
            payloads=payloads,
            is_over=is_over,
            on_days=on_days,
        )
        days.record(connection, written)
        completeness.refresh(connection)
        if payloads == destination.payloads:
            changes.dequeue(connection, list(written))
        else:
            # Create the tables of payloads, too, so that readers find every table.
            for table in day_tables(payloads=True):
                lake.table(table)
        rows = Counter[str]()
        for one in written.values():
            rows.update(one.rows)
        digests = whole_tables.changed(connection, held.whole_tables)
        for table in digests:
            opened = lake.table(table)
            rows[table.name] = opened.replace(day_reader.read(connection, table, opened.schema))
        now = datetime.now(UTC)
        snapshots = lake.commit(
            {"orchestra.exported-at": now.isoformat()},
            expire_before=now - timedelta(seconds=garbage.KEEP),
        )
    days.record_snapshots(connection, list(written), snapshots)
    waiting = len(queued) - len(written)
    state.record(
        connection,
        definition=definition(payloads=destination.payloads),
        whole_tables={table.name: digest for table, digest in digests.items()},
        complete=not changes.changed_days(connection),
    )
    return ExportPart(lake=lake, days=list(written), rows=dict(rows), waiting=waiting)


def _write_days(
    connection: Connection,
    lake: Lake,
    queued: Sequence[date],
    *,
    payloads: bool,
    is_over: Callable[[], bool],
    on_days: Progress,
) -> dict[date, DayRecord]:
    """Write at least one day."""
    day_reader.prepare(connection)
    tables = day_tables(payloads=payloads)
    written: dict[date, DayRecord] = {}
    rows = 0
    for day in queued:
        if written and is_over():
            break
        kept = archive.of_day(connection, lake, day)
        digest = DayDigest()
        counts = {
            table.name: _replace_day(connection, lake, table=table, kept=kept, digest=digest)
            for table in tables
        }
        written[day] = DayRecord(counts, digest.text(), len(kept.runs))
        rows += sum(counts.values())
        on_days(len(written), len(queued) - len(written), rows)
    return written


def _replace_day(
    connection: Connection, lake: Lake, table: LakeTable, kept: Kept, digest: DayDigest
) -> int:
    """Replace a day by PostgreSQL's rows and by what the lake keeps of it."""
    opened = lake.table(table)
    rows = day_reader.read(connection, table, opened.schema, kept.day, digest=digest)
    return opened.replace(kept.merged(connection, lake, table, rows), kept.day)
