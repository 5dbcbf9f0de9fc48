"""`export verify`: compares the lake with the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, examples, invocation, print_json
from etl.cli.display import say
from etl.exit_status import ExitStatus
from etl.terminal import counted

if TYPE_CHECKING:
    from etl.database import Database
    from etl.export.verify import VerifyReport
    from etl.settings import Settings

# Maximum number of differences that are printed without --json.
SHOWN = 20


def register(group: typer.Typer) -> None:
    """Add the command to the group `export`."""
    group.command(epilog=examples("export verify", "export verify --deep"))(verify)


def verify(
    context: typer.Context,
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every value, not only digests and row counts.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Compare the lake with the history.

    Exit status 11 if the rows in the lake's files, the state that the exports recorded and
    PostgreSQL do not agree. Days that wait for an export are not compared. It reads the versions of
    all rows and the footers of all files; with --deep, it reads every value on both sides.
    """
    import asyncio

    from etl import app

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        found, interrupted = asyncio.run(_verify(settings, database, deep=deep))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found.ok:
        return ExitStatus.LAKE_DIFFERS
    return 128 + interrupted if interrupted and not found.complete else ExitStatus.DONE


async def _verify(
    settings: Settings, database: Database, *, deep: bool
) -> tuple[VerifyReport, int | None]:
    from etl import exporting
    from etl.cli.export import ExportProgress
    from etl.signals import stop_on_signals

    progress = ExportProgress("verifying days")
    with stop_on_signals() as stop, progress.shown():
        found = await exporting.verify(
            settings, database, deep=deep, on_days=progress.update, stopped=stop.is_set
        )
        return found, stop.number


def _print(found: VerifyReport) -> None:
    for one in found.differences[:SHOWN]:
        place = " ".join(str(part) for part in (one.day, one.table) if part is not None)
        say(f"{place}: {one.what}" if place else one.what)
    if len(found.differences) > SHOWN:
        from etl.export.verify import MOST_REPORTED

        more = counted(len(found.differences) - SHOWN, "more difference")
        is_cut = len(found.differences) == MOST_REPORTED
        say(f"and {'at least ' if is_cut else ''}{more}")
    listed = ", ".join(f"{name} {number:,}" for name, number in found.rows.items() if number)
    say(f"{counted(found.days, 'day')} compared: {listed or 'no rows'}")
    if found.waiting:
        say(f"days and tables that wait for an export, not compared: {found.waiting:,}")
    if not found.complete:
        say("interrupted before all days were compared")
    elif found.ok:
        what = "every value of the lake" if found.deep else "the lake"
        say(f"{what} matches the history")
    else:
        say("`orchestra-etl export run --full` writes the lake again from PostgreSQL")
