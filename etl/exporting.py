"""The export to the lake that the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec
from pydantic import ValidationError

from etl import schema
from etl.database import Database
from etl.errors import ConfigurationError, LakeError
from etl.settings import Settings
from etl.settings.export import ExportSettings

# Imported where they are used: they would delay the start of other commands.
if TYPE_CHECKING:
    from etl.admin.expired import Horizons
    from etl.export.destination import Destination
    from etl.export.exported_runs import ExportedRuns
    from etl.export.exporter import ExportReport
    from etl.export.garbage import Garbage
    from etl.export.status import LakeStatus
    from etl.export.verify import VerifyReport


def lake(settings: Settings) -> Destination:
    """Return where the lake is.

    Raises:
        ConfigurationError: no lake is configured, the packages for it are not installed, or the
            redaction key cannot be read.
    """
    export = settings.export
    if export.location is None:
        raise ConfigurationError(
            f"no lake is configured ({settings.source}): set location under [export] to a folder,"
            " or to a URL such as s3://bucket/lake"
        )
    if find_spec("pyiceberg") is None or find_spec("pyarrow") is None:
        raise ConfigurationError(
            "the export needs the packages pyiceberg and pyarrow: install"
            " 'orchestra-etl[export]' in place of 'orchestra-etl'"
        )
    from etl.export.destination import Destination

    redaction = None
    if settings.redaction.rules:
        from etl.redacting import open_redaction

        redaction = open_redaction(settings)
    return Destination(
        export.location,
        namespace=export.namespace,
        payloads=export.payloads,
        file_bytes=export.file_bytes,
        redaction=redaction,
    )


def _lake_of(settings: Settings, database: Database) -> Destination:
    """Return where the lake of this database is.

    Raises:
        ConfigurationError: as `lake`.
        DatabaseError: the database cannot be used, or its schema has no tables for the export.
    """
    destination = lake(settings)
    schema.require(database, "0003")
    return destination


def new_lake(folder: str) -> str:
    """Return the location of a lake in a local folder, in which there is none yet.

    Raises:
        ConfigurationError: the folder has no usable name, or the packages for a lake are not
            installed.
        LakeError: the folder holds a lake, or cannot be read.
    """
    try:
        settings = Settings(export=ExportSettings(location=folder))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ConfigurationError(
            f"the folder of the lake {problem.removeprefix('Value error, ')}"
        ) from None
    destination = lake(settings)
    from etl.export import attachment

    attachment.check_new(destination)
    return destination.location


async def export(
    settings: Settings,
    database: Database,
    stopped: Callable[[], bool] = lambda: False,
    *,
    full: bool = False,
    since: date | None = None,
    without_payloads: bool = False,
    on_days: Callable[[int, int, int], None] = lambda done, waiting, rows: None,
) -> ExportReport:
    """Bring the lake up to date, in a thread; see `exporter.run`.

    Raises:
        ConfigurationError: no lake is configured, or the packages for it are not installed.
        DatabaseError: the database cannot be used, or its schema has no tables for the export.
        LakeError: the lake cannot be read or written.
    """
    destination = _lake_of(settings, database)
    from etl.export import exporter

    return await asyncio.to_thread(
        exporter.run, database, destination, full=full, since=since,
        without_payloads=without_payloads, on_days=on_days, stopped=stopped,
    )  # fmt: skip


def status(settings: Settings, database: Database) -> LakeStatus | None:
    """Return the status of the lake; None before the first export.

    Raises:
        ConfigurationError: no lake is configured, or the packages for it are not installed.
        DatabaseError: the database cannot be used, or its schema has no tables for the export.
        LakeError: the lake cannot be read.
    """
    lake(settings)
    schema.require(database, "0003")
    from etl.export import status as lake_status

    return database.in_one_snapshot(lake_status.read)


async def verify(
    settings: Settings,
    database: Database,
    *,
    deep: bool = False,
    on_days: Callable[[int, int, int], None] = lambda done, waiting, rows: None,
    stopped: Callable[[], bool] = lambda: False,
) -> VerifyReport:
    """Compare the lake with the history, in a thread; see `verify.verify`.

    Raises:
        ConfigurationError: no lake is configured, or the packages for it are not installed.
        DatabaseError: the database cannot be used, or its schema has no tables for the export.
        LakeError: the lake cannot be read.
    """
    destination = _lake_of(settings, database)
    from etl.export import verify

    compare = partial(
        verify.verify, destination=destination, deep=deep, on_days=on_days, stopped=stopped
    )
    return await asyncio.to_thread(database.in_one_snapshot, compare)


def collect_garbage(settings: Settings, database: Database) -> Garbage | None:
    """Delete the files that the lake no longer needs; return None if another process is exporting.

    Raises:
        ConfigurationError: no lake is configured, or the packages for it are not installed.
        DatabaseError: the database cannot be used, or its schema has no tables for the export.
        LakeError: the lake cannot be read or written.
    """
    destination = _lake_of(settings, database)
    from etl.export import garbage

    return garbage.run(database, destination)


class ExportedLake(msgspec.Struct, frozen=True):
    """The lake that the history was exported to."""

    location: str
    destination: Destination | None
    """None: this process cannot reach it."""
    problem: str | None
    """Why it cannot be reached, in one line."""


def exported_lake(settings: Settings, database: Database) -> ExportedLake | None:
    """Return the lake that the history was exported to; None if it never was.

    Raises:
        DatabaseError: the database cannot be used.
    """
    if not schema.has(database, "0003"):
        return None
    from etl.export import state

    held = database.transaction(state.read)
    if held is None:
        return None
    try:
        destination = lake(settings)
    except ConfigurationError as error:
        return ExportedLake(held.location, None, str(error))
    if not held.is_at(destination):
        return ExportedLake(
            held.location, None, f"export.location names another lake ({destination.location})"
        )
    return ExportedLake(held.location, destination, None)


def exported_before(
    settings: Settings, database: Database, wanted: Horizons
) -> tuple[Horizons, ExportedRuns]:
    """Return how far back data may be removed, because a verified export holds what is older.

    Returns:
        The horizons, at most the beginning of the first day that waits for an export; and a
        function that returns which runs may be removed.

    Raises:
        ConfigurationError: no lake is configured, or it does not hold payloads.
        DatabaseError: the database cannot be used, or its schema has no tables for the export.
        LakeError: the lake cannot be read, or differs from the history.
    """
    destination = _lake_of(settings, database)
    from etl.admin.expired import Horizons
    from etl.export import exported_runs

    horizon = max(one for one in (wanted.runs, wanted.payloads) if one is not None)
    held = database.in_one_snapshot(lambda c: exported_runs.find(c, destination, horizon=horizon))
    if not held.report.ok:
        first = held.report.differences[0]
        problem = (
            first.what
            if first.day is None and first.table is None
            else "the lake differs from the history: see `orchestra-etl export verify`"
        )
        raise LakeError(f"nothing was removed: {problem}")
    if not held.payloads_are_held:
        raise ConfigurationError(
            "the lake holds no payloads, so they would be lost: set payloads under [export] and"
            " run `orchestra-etl export run`, or prune the payloads without --exported first"
        )

    def capped(one: datetime | None) -> datetime | None:
        return one if one is None or held.until is None else min(one, held.until)

    return Horizons(capped(wanted.payloads), capped(wanted.runs)), held.may_remove
