"""`export`: the history as Apache Iceberg tables, for any engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl.cli import export_verify
from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import fields, instant, listing, say
from etl.cli.times import time as parsed_time
from etl.terminal import console as bar_console
from etl.terminal import counted

if TYPE_CHECKING:
    from datetime import date, datetime

    from etl.database import Database
    from etl.export.exporter import ExportReport
    from etl.export.status import LakeStatus
    from etl.settings import Settings


_BUSY = "another process is exporting, so nothing was done; the next export writes the queued days"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="export",
        help="Keep Apache Iceberg tables equal to the history.",
        no_args_is_help=True,
    )
    group.command(epilog=examples("export run", "export run --full --json"))(run)
    group.command()(status)
    group.command()(gc)
    export_verify.register(group)
    app.add_typer(group)


def run(
    context: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="Export all days, not only those that changed.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DAY",
            help="Only days (UTC) from this one on; earlier ones wait for a later export.",
        ),
    ] = None,
    without_payloads: Annotated[
        bool,
        typer.Option(
            "--without-payloads",
            help="Do not write run_payloads and step_payloads. The days stay queued, and a later"
            " export writes all their tables.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Bring the lake up to date with the history.

    The first export writes all days, each later one only the days that have changed. You can stop
    and repeat it at any time: it keeps what it has committed, and readers never see a part of a
    commit. [export] in the configuration names the lake.
    """
    import asyncio

    from etl import app, exporting

    settings = invocation(context).settings()
    first = parsed_time("--since", since)
    exporting.lake(settings)
    with app.open_database(settings) as database:
        done, interrupted = asyncio.run(
            _run(
                settings,
                database,
                full=full,
                since=None if first is None else first.date(),
                without_payloads=without_payloads,
            )
        )
    if as_json:
        print_json(done)
    else:
        _print(done, first)
    return 128 + interrupted if interrupted and not done.complete else 0


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what the lake holds, and what waits for the next export."""
    from etl import app, exporting

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        found = exporting.status(settings, database)
    if as_json:
        print_json(found)
    elif found is None:
        say("nothing is exported yet: run `orchestra-etl export run`")
    else:
        _print_status(found)


def _print_status(found: LakeStatus) -> None:
    fields(
        console(),
        [
            ("lake", f"{found.location}, namespace {found.namespace}"),
            ("payloads", "exported" if found.payloads else "not exported"),
            ("complete export", instant(found.exported_at)),
            ("days", f"{found.days:,}, {found.waiting:,} waiting for the next export"),
            ("pruned runs", f"{found.archived_runs:,}, which only the lake has"),
        ],
    )
    if not found.published:
        say("readers by path do not see the last export yet: the next `export run` corrects that")
    listing(
        console(),
        ("table", "rows", "files", "MB", "snapshots"),
        [
            (
                (
                    one.name,
                    f"{one.rows:,}",
                    f"{one.files:,}",
                    f"{one.bytes / 1e6:,.1f}",
                    f"{one.snapshots:,}",
                ),
                one.metadata,
            )
            for one in found.tables
        ],
        numbers=("rows", "files", "MB", "snapshots"),
    )


def gc(context: typer.Context, as_json: AsJson = False) -> None:
    """Delete the files that the lake no longer needs.

    `export run` does this, too, at most once an hour. Replaced files stay for at least an hour, for
    queries that are reading them.
    """
    from etl import app, exporting

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        done = exporting.collect_garbage(settings, database)
    if as_json:
        print_json({"busy": done is None, "files": 0, "bytes": 0} if done is None else done)
    elif done is None:
        say(_BUSY)
    else:
        say(f"{counted(done.files, 'file')} with {done.bytes / 1e6:,.1f} MB deleted")


async def _run(
    settings: Settings,
    database: Database,
    *,
    full: bool,
    since: date | None,
    without_payloads: bool,
) -> tuple[ExportReport, int | None]:
    from etl import exporting
    from etl.signals import stop_on_signals

    progress = ExportProgress()
    with stop_on_signals() as stop, progress.shown():
        done = await exporting.export(
            settings, database, full=full, since=since, without_payloads=without_payloads,
            on_days=progress.update, stopped=stop.is_set,
        )  # fmt: skip
        return done, stop.number


def _print(done: ExportReport, since: datetime | None) -> None:
    if done.busy:
        say(_BUSY)
        return
    if not done.rows and done.complete:
        here = "holds everything" if since is None else f"holds all days from {since.date()} on"
        say(f"nothing to do: the lake {here}")
        return
    listed = ", ".join(f"{name} {number:,}" for name, number in done.rows.items() if number)
    say(f"{counted(done.days, 'day')} exported: {listed or 'no rows'}")
    if done.waiting_for_payloads:
        say("without payloads: these days wait for an `export run` that writes them whole")
    if not done.complete:
        say(f"interrupted with {counted(done.waiting, 'day')} left: repeat this to continue")


class ExportProgress:
    """Progress through the days: a bar on a terminal, elsewhere a log line every ten seconds."""

    def __init__(self, what: str = "exporting days") -> None:
        import structlog

        self._what = what

        self._log = structlog.get_logger("etl.progress")
        self._logged_at = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def update(self, done: int, waiting: int, rows: int) -> None:
        """Show the days done, the days left and the rows written."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=done + waiting, rows=f"{rows:,}")
        elif time.monotonic() - self._logged_at >= 10:
            self._logged_at = time.monotonic()
            self._log.info("export_progressed", days=done, waiting=waiting, rows=rows)

    @contextmanager
    def shown(self) -> Iterator[ExportProgress]:
        """Show the progress while the block runs."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn(self._what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rows]} rows"),
            TimeElapsedColumn(),
        )
        with Bar(*columns, console=bar_console(stderr=True), transient=True) as bar:
            self._bar, self._task = bar, bar.add_task("days", total=None, rows="0")
            yield self
