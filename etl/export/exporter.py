"""The export: brings the lake up to date with the history.

Days are exported in parts. Each part is one transaction, which reads the days, writes their files,
and commits the lake's tables, the state and the consumed queue together. An export that is stopped
or killed leaves the last part that was committed; the next export continues with what is queued.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
from sqlalchemy import Connection, text

from etl.database import LONG, Database, allow_long
from etl.export import changes, completeness, days, origin, state
from etl.export.days import DayRecord
from etl.export.destination import Destination
from etl.export.lake_tables import WHOLE_TABLES, LakeTable, day_tables, definition
from etl.export.state import ExportState

if TYPE_CHECKING:
    from etl.export.archive import Kept
    from etl.export.lake import Lake

log = structlog.get_logger(__name__)

# Seconds after which a part is committed. While it runs, VACUUM keeps what it sees.
PART = 60.0

_MAY_BE_IDLE = text(f"SET LOCAL idle_in_transaction_session_timeout = {round(LONG * 1000)}")


class ExportReport(msgspec.Struct):
    """What an export has written."""

    days: int = 0
    """The days that were replaced."""
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    """By table: the rows that were written."""
    waiting: int = 0
    """The days that are still queued."""
    busy: bool = False
    """Whether another process is exporting."""
    complete: bool = True
    """False if the export was stopped early, or another process is exporting."""


class _Part(msgspec.Struct):
    """The result of one transaction."""

    lake: Lake | None
    """The committed lake; None if nothing has changed."""
    days: int
    rows: Counter[str]
    waiting: int


def run(
    database: Database,
    destination: Destination,
    *,
    full: bool = False,
    since: date | None = None,
    part: float = PART,
    on_days: Callable[[int, int, int], None] = lambda done, waiting, rows: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ExportReport:
    """Export what has changed since the last export.

    Args:
        database: with the current schema.
        destination: where the lake is.
        full: export every day.
        since: leave days before this one in the queue.
        part: seconds after which a part is committed.
        on_days: called after each day with the days done, the days left and the rows written.
        stopped: called after each day; True ends the export with what is done.

    Raises:
        DatabaseError: the database cannot be used; committed parts stay.
        LakeError: the lake cannot be read or written; committed parts stay.
    """
    database.transaction(partial(_begin, destination=destination, full=full))
    done = ExportReport()
    while True:
        export_part = partial(
            _export_part,
            destination=destination,
            since=since,
            until=time.monotonic() + part,
            on_days=partial(_add, on_days, done.days, sum(done.rows.values())),
            stopped=stopped,
        )
        found = database.in_one_snapshot(export_part)
        if found is None:
            done.busy, done.complete = True, False
            return done
        if found.lake is not None:
            found.lake.publish()
            database.transaction(state.record_published)
        done.days += found.days
        done.rows = dict(Counter(done.rows) + found.rows)
        done.waiting = found.waiting
        if not found.waiting or stopped():
            done.complete = not found.waiting
            return done


def _add(
    on_days: Callable[[int, int, int], None],
    days_before: int,
    rows_before: int,
    days: int,
    waiting: int,
    rows: int,
) -> None:
    """Report the progress of a part as that of the export."""
    on_days(days_before + days, waiting, rows_before + rows)


def _begin(connection: Connection, *, destination: Destination, full: bool) -> None:
    """Queue every day if the lake is new or different, or if `full` asks for it.

    The same if the last export says nothing about this database, because it was restored.
    """
    found = state.read(connection)
    wanted = (destination.location, destination.namespace, destination.payloads)
    lost = origin.lost_since(connection)
    if lost is not None:
        log.warning("export_restarted", reason=f"{lost}: every day is exported again")
    is_same = (
        found is not None
        and lost is None
        and wanted == (found.location, found.namespace, found.payloads)
    )
    if not is_same:
        state.activate(
            connection,
            location=destination.location,
            namespace=destination.namespace,
            payloads=destination.payloads,
        )
    if (
        found is None
        or not is_same
        or full
        or found.definition != definition(payloads=destination.payloads)
    ):
        changes.ask_for_all(connection)


def _export_part(
    connection: Connection,
    *,
    destination: Destination,
    since: date | None,
    until: float,
    on_days: Callable[[int, int, int], None],
    stopped: Callable[[], bool],
) -> _Part | None:
    """Export the newest queued days; return None if another process is exporting."""
    held = state.hold(connection)
    if held is None:
        return None
    allow_long(connection)
    connection.execute(_MAY_BE_IDLE)
    queued = [one for one in changes.changed_days(connection) if since is None or one >= since]
    changed = _changed_whole_tables(connection, held)
    if not queued and not changed and held.published:
        return _Part(None, 0, Counter(), 0)

    # Imported here: they take a second, in which an export without changes is over.
    from etl.export import archive, day_digest, day_reader
    from etl.export.lake import Lake

    lake = Lake(connection, destination)
    day_reader.prepare(connection)
    rows = Counter[str]()
    tables = day_tables(payloads=destination.payloads)
    written: dict[date, DayRecord] = {}
    for day in queued:
        if written and (time.monotonic() >= until or stopped()):
            break
        kept = archive.of_day(connection, lake, day)
        counts = {table.name: _replace(connection, lake, table, day, kept) for table in tables}
        digest = day_digest.describe(connection, tables, day).digest
        written[day] = DayRecord(counts, digest, len(kept.runs))
        rows.update(counts)
        on_days(len(written), len(queued) - len(written), rows.total())
    waiting = len(queued) - len(written)
    for table in changed:
        rows[table.name] = _replace(connection, lake, table)
    snapshots = lake.commit({"orchestra.exported-at": datetime.now(UTC).isoformat()})
    changes.forget(connection, list(written))
    days.record(connection, written, snapshots)
    completeness.refresh(connection)
    state.record(
        connection,
        definition=definition(payloads=destination.payloads),
        whole_tables={table.name: digest for table, digest in changed.items()},
        complete=not waiting and since is None,
    )
    return _Part(lake, len(written), rows, waiting)


def _replace(
    connection: Connection,
    lake: Lake,
    table: LakeTable,
    day: date | None = None,
    kept: Kept | None = None,
) -> int:
    """Replace a day with PostgreSQL's rows and what the lake keeps of it, or a whole table."""
    from etl.export import day_reader

    opened = lake.table(table)
    rows = day_reader.read(connection, table, opened.schema, day)
    if kept is not None:
        rows = kept.merged(connection, lake, table, rows)
    return opened.replace(rows, day)


def _changed_whole_tables(connection: Connection, held: ExportState) -> dict[LakeTable, str | None]:
    """Return the whole tables whose rows differ from those exported last, with their digests."""
    found = {}
    for table in WHOLE_TABLES:
        digest = state.digest(connection, table.query)
        if table.name not in held.whole_tables or held.whole_tables[table.name] != digest:
            found[table] = digest
    return found
