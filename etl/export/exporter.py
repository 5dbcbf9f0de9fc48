"""The export: brings the lake up to date with the history.

Days are exported in parts. Each part is one transaction, which reads the days, writes their files,
and commits the lake's tables, the state and the consumed queue together. An export that is stopped
or killed leaves the last part that was committed; the next export continues with what is queued.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import date
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection, text

from etl.database import Database
from etl.errors import LakeError
from etl.export import (
    changes,
    completeness,
    erased_runs,
    origin,
    publication,
    state,
    whole_tables,
)
from etl.export.destination import Destination
from etl.export.lake_tables import definition
from etl.export.progress import ExportPart, Progress
from etl.export.state import ExportState
from etl.terminal import counted

log = structlog.get_logger(__name__)

# Seconds after which a part is committed. While it runs, VACUUM cannot remove the rows it sees.
PART = 60.0
# Maximum seconds that an export pauses between two parts for a running upgrade of the schema. An
# upgrade waits for its locks for two of every four seconds. Without the pause, each part could end
# while the upgrade does not wait, if the parts last a multiple of four seconds.
UPGRADE_TURN = 10.0

_IS_UPGRADING = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE relation = to_regclass('orchestra_etl.upgrade_lock') AND mode = 'ExclusiveLock'
          AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
""")


class ExportReport(msgspec.Struct):
    """What an export has written."""

    days: int = 0
    """The days that were replaced."""
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    """By table: the rows that were written."""
    waiting: int = 0
    """The days that are left to write."""
    waiting_for_payloads: int = 0
    """The days that were written without their payloads, and stay queued."""
    busy: bool = False
    """Whether another process is exporting."""
    complete: bool = True
    """False if the export was stopped early, or another process is exporting."""


class _LakeIsAhead(Exception):
    """The catalog names a former commit of the lake."""


def run(
    database: Database,
    destination: Destination,
    *,
    full: bool = False,
    since: date | None = None,
    without_payloads: bool = False,
    part: float = PART,
    on_days: Progress = lambda done, waiting, rows: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ExportReport:
    """Export what has changed since the last export.

    Args:
        database: with the tables of the export.
        destination: where the lake is.
        full: export every day.
        since: leave days before this one in the queue.
        without_payloads: leave the tables of payloads as they are, and the days in the queue.
        part: seconds after which a part is committed.
        on_days: see `Progress`.
        stopped: called after each day; True ends the export with what is done.

    Raises:
        DatabaseError: the database cannot be used; committed parts stay.
        LakeError: the lake cannot be read or written; committed parts stay.
    """
    done = ExportReport()
    payloads = destination.payloads and not without_payloads
    written: set[date] = set()
    end = 0.0

    def is_over() -> bool:
        return stopped() or time.monotonic() >= end

    def report(days: int, waiting: int, rows: int) -> None:
        on_days(done.days + days, waiting, sum(done.rows.values()) + rows)

    database.transaction(partial(_begin, destination=destination, full=full))
    while True:
        end = time.monotonic() + part
        try:
            found = database.in_one_snapshot(
                partial(
                    _export,
                    destination=destination,
                    since=since,
                    payloads=payloads,
                    written=written,
                    is_first=not done.days,
                    is_over=is_over,
                    on_days=report,
                )
            )
        except _LakeIsAhead:
            reason = "the database was restored to a time before the last export"
            database.transaction(partial(_restart, destination=destination, reason=reason))
            continue
        if found is None:
            done.busy, done.complete = True, False
            return done
        if found.lake is not None:
            publication.publish(database, found.lake)
        done.days += len(found.days)
        if payloads != destination.payloads:
            written.update(found.days)
            done.waiting_for_payloads = done.days
        done.rows = dict(Counter(done.rows) + Counter(found.rows))
        done.waiting = found.waiting
        if not found.waiting or stopped():
            done.complete = not found.waiting
            return done
        _let_upgrade(database, stopped)


def _let_upgrade(database: Database, stopped: Callable[[], bool]) -> None:
    """Wait for an upgrade of the schema that is running, for at most `UPGRADE_TURN`."""
    end = time.monotonic() + UPGRADE_TURN
    while (
        time.monotonic() < end
        and not stopped()
        and database.transaction(lambda c: c.execute(_IS_UPGRADING).scalar_one())
    ):
        time.sleep(0.2)


def _begin(connection: Connection, *, destination: Destination, full: bool) -> None:
    """Queue all days if the lake is new or different, or if `full` requests it.

    Queue them too if the database was restored, so that the last export is not valid for it.
    """
    found = state.read(connection)
    if found is None or not found.is_at(destination):
        _begin_new(connection, destination, found, full=full)
    elif (reason := origin.why_invalid(connection)) is not None:
        _restart(connection, destination=destination, reason=reason)
        return
    elif found.payloads != destination.payloads:
        state.activate(connection, destination)
    elif not full and found.definition == definition(payloads=destination.payloads):
        return
    changes.queue_all(connection)


def _restart(connection: Connection, *, destination: Destination, reason: str) -> None:
    """Continue from what the lake holds, and queue every day."""
    state.allow_idle(connection)
    from etl.export import attachment

    log.warning("export_restarted", reason=f"{reason}: all days are exported again")
    state.activate(connection, destination)
    changes.queue_all(connection, attachment.attach(connection, destination))


def _begin_new(
    connection: Connection, destination: Destination, before: ExportState | None, *, full: bool
) -> None:
    """Begin a lake at a place where there is none."""
    state.allow_idle(connection)
    from etl.export import attachment

    if before is not None and before.archived_runs and not full:
        raise LakeError(
            f"the lake at {before.location} holds {counted(before.archived_runs, 'run')} that"
            " retention has removed from the database, which a new lake would lack: keep"
            " export.location, or begin the new lake without them by `export run --full`"
        )
    attachment.check_new(destination)
    state.activate(connection, destination)


def _export(
    connection: Connection,
    *,
    destination: Destination,
    since: date | None,
    payloads: bool,
    written: AbstractSet[date],
    is_first: bool,
    is_over: Callable[[], bool],
    on_days: Progress,
) -> ExportPart | None:
    """Export the newest queued days; return None if another process is exporting."""
    held = state.hold(connection)
    if held is None:
        return None
    erased_runs.queue(connection, destination, held)
    queued = [
        one
        for one in changes.changed_days(connection)
        if (since is None or one >= since) and one not in written
    ]
    completeness.refresh(connection)
    if not queued and held.published and not whole_tables.changed(connection, held.whole_tables):
        return ExportPart(lake=None, days=(), rows={}, waiting=0)

    # Imported here: the import takes a second, longer than an export without changes.
    from etl.export import attachment, part

    if is_first and held.published and attachment.is_ahead(connection, destination):
        raise _LakeIsAhead

    return part.export(
        connection,
        destination,
        held,
        queued,
        payloads=payloads,
        is_first=is_first,
        is_over=is_over,
        on_days=on_days,
    )
