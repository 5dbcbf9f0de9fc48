"""`sync`, `backfill` and `serve`: the commands that fetch."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl.cli.context import AsJson, WorkflowIds, invocation, print_json
from etl.errors import ConfigurationError, EtlError
from etl.terminal import LONGEST_LINE, console, plain

if TYPE_CHECKING:
    from etl.app import Jobs
    from etl.database import Database
    from etl.pipeline.loading import LoadReport
    from etl.pipeline.sync import SyncReport
    from etl.settings import Settings
    from etl.signals import Stop


# Seconds between two refreshes while a sync goes on; most syncs end before the first. Only hours
# of which more comes are counted twice.
REFRESH = 3.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(sync)
    app.command()(serve)
    app.command()(backfill)


def sync(context: typer.Context, workflow: WorkflowIds = None, as_json: AsJson = False) -> int:
    """One sync, for cron: list new runs, read what is due, store it, exit.

    Safe to run at any time, as often as you like, and next to a running service. Exit status: 0
    good, 3 the API refuses the key, 4 the database cannot be used, 5 the API cannot be reached, 6
    finished, but something new was set aside or missed.
    """
    settings = invocation(context).settings()
    chosen = _chosen(settings, workflow)

    async def work(jobs: Jobs, stop: Stop, progress: Progress) -> SyncReport:
        return await jobs.syncer.sync(chosen, stop=stop, on_load=progress.add)

    return _fetch(settings, work, as_json=as_json)


def backfill(
    context: typer.Context,
    workflow: WorkflowIds = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only runs that started at or after this time: 2026-01-31T12:00, in UTC.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only runs that started before it.")
    ] = None,
    reread: Annotated[
        bool, typer.Option("--reread", help="Read runs again that are final already.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Walk the whole run list and read all that is missing, after everything that is live.

    Can be stopped and started again at any time: what was listed is remembered. With --since and
    --until the other runs that were found stay due, for the service or the next sync. With
    --reread, redaction rules are also applied to what can no longer be read, as `redact apply`
    does.
    """
    first, end = _time("--since", since), _time("--until", until)
    if first is not None and end is not None and first >= end:
        raise ConfigurationError("--since must be earlier than --until: no run starts in between")
    if first is not None and first > datetime.now(UTC):
        raise ConfigurationError("--since lies in the future: no run has started then")
    settings = invocation(context).settings()
    chosen = _chosen(settings, workflow)

    async def work(jobs: Jobs, stop: Stop, progress: Progress) -> SyncReport:
        return await jobs.syncer.backfill(
            chosen, stop=stop, since=first, until=end, reread=reread, on_listed=progress.expect,
            on_load=progress.add,
        )  # fmt: skip

    async def redact(database: Database, stop: Stop) -> None:
        from etl import app

        if reread and settings.redaction.rules and not stop.is_set():
            await app.redact_stored(settings, database, chosen, stop.is_set)

    return _fetch(settings, work, as_json=as_json, then=redact)


def serve(context: typer.Context) -> int:
    """The service: sweeps each workflow on its schedule and polls what is due, until SIGTERM or Ctrl-C.

    Health and metrics over HTTP: /livez, /readyz and /metrics at service.host and service.port. A
    second signal ends it at once.
    """
    from etl import app

    settings = invocation(context).settings()
    _chosen(settings, None)
    with app.open_database(settings, patient=True) as database:
        asyncio.run(app.serve(settings, database))
    return 0


def _time(option: str, text: str | None) -> datetime | None:
    """A time in ISO 8601; one without an offset is in UTC. Raises ConfigurationError where it is none."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option}: {text[:80]!r} is no time: write 2026-01-31, 2026-01-31T12:00 (UTC) or 2026-01-31T12:00+01:00"
        ) from None


def _chosen(settings: Settings, workflow: list[str] | None) -> list[str] | None:
    """The workflows asked for; they must be configured, or a typing error would look like success.

    Where all workflows are wanted, the sync itself finds out once the API has listed them.
    """
    configured = [one.id for one in settings.workflows]
    for one in workflow or ():
        if one not in configured and not settings.api.all_workflows:
            raise ConfigurationError(
                f"workflow {plain(one, 200)} is not configured ({settings.source}): see `orchestra-etl workflows`"
            )
    if not configured and not settings.api.all_workflows:
        raise ConfigurationError(
            f"no workflow is configured ({settings.source}): see `orchestra-etl workflows`, or set api.all_workflows = true"
        )
    return workflow or None


class Progress:
    """Shows how far the work is: a bar on a terminal, a log line every ten seconds elsewhere."""

    def __init__(self) -> None:
        import structlog

        self._log = structlog.get_logger("etl.progress")
        self._said = time.monotonic()
        self._begun = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._total: int | None = None
        self._runs = self._steps = 0

    def expect(self, total: int) -> None:
        """So many runs are to be read."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def add(self, report: LoadReport, seconds: float) -> None:
        """Note a batch that has been loaded."""
        self._runs += report.runs + report.failed
        self._steps += report.steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self._runs)
        elif time.monotonic() - self._said >= 10:
            self._said = time.monotonic()
            self._log.info("sync_progressed", runs=self._runs, of=self._total, steps=self._steps)

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        """Show it while the block runs."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("reading runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bar(*columns, console=console(stderr=True), transient=True) as bar:
            self._bar, self._task = bar, bar.add_task("runs", total=self._total)
            yield self


async def _nothing(database: Database, stop: Stop) -> None:
    """What follows most syncs."""


def _fetch(
    settings: Settings,
    work: Callable[[Jobs, Stop, Progress], Awaitable[SyncReport]],
    *,
    as_json: bool,
    then: Callable[[Database, Stop], Awaitable[None]] = _nothing,
) -> int:
    from etl import app

    with app.open_database(settings, patient=True) as database:
        report = asyncio.run(_run(settings, database, work, then))
    _print(report, as_json=as_json)
    return report.exit_status


async def _run(
    settings: Settings,
    database: Database,
    work: Callable[[Jobs, Stop, Progress], Awaitable[SyncReport]],
    then: Callable[[Database, Stop], Awaitable[None]],
) -> SyncReport:
    from etl import app
    from etl.signals import stop_on_signals

    begun = time.monotonic()
    with Progress().shown() as progress:
        async with app.open_jobs(settings, database) as jobs:
            with stop_on_signals() as stop:
                async with _repeated(
                    lambda over: app.refresh_rollups(settings, database, over), stop
                ):
                    report = await work(jobs, stop, progress)
                try:
                    await then(database, stop)
                    await app.refresh_rollups(settings, database, stop.is_set)
                except EtlError as error:
                    # What the sync did is stored; the queue keeps what is to be refreshed.
                    report.errors.append(error)
            report.requests = jobs.client.requests_sent
            report.interrupted = stop.number
    report.seconds = time.monotonic() - begun
    _log(report)
    return report


@asynccontextmanager
async def _repeated(
    refresh: Callable[[Callable[[], bool]], Awaitable[object]], stop: Stop
) -> AsyncIterator[None]:
    """Refresh again and again while the block runs: PostgreSQL has time for it then, whereas at the end the command would wait.

    Errors are left to the refresh that follows the block.
    """
    over = asyncio.Event()

    async def repeat() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), REFRESH)
            if not over.is_set():
                with suppress(Exception):
                    await refresh(lambda: over.is_set() or stop.is_set())

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        over.set()
        await task


def _log(report: SyncReport) -> None:
    """One line with every count: what cron leaves in a journal."""
    import structlog

    load = report.load
    structlog.get_logger("etl.sync").info(
        "sync_finished",
        lists=len(report.sweeps),
        new_runs=sum(sweep.new for sweep in report.sweeps),
        gaps=sum(sweep.gap is not None for sweep in report.sweeps),
        runs=load.runs,
        steps_inserted=load.steps_inserted,
        steps_updated=load.steps_updated,
        steps_absent=load.steps_absent,
        failed=load.failed,
        dead_letters=report.dead_letters
        + load.dead_letters
        + sum(sweep.dead_letters for sweep in report.sweeps),
        requests=report.requests,
        seconds=round(report.seconds, 3),
        exit_status=report.exit_status,
    )


def _print(report: SyncReport, *, as_json: bool) -> None:
    load = report.load
    if as_json:
        print_json(
            {
                "requests": report.requests,
                "seconds": round(report.seconds, 3),
                "interrupted": report.interrupted is not None,
                "exit_status": report.exit_status,
                "sweeps": report.sweeps,
                "load": load,
                "errors": [str(error) for error in (*report.errors, *report.refused)],
            }
        )
        return
    new = sum(sweep.new for sweep in report.sweeps)
    typer.echo(
        f"{len(report.sweeps)} lists, {new} new runs; read {load.runs} runs with {load.steps} steps: "
        f"{load.steps_inserted} new, {load.steps_updated} changed; {report.requests} requests in {report.seconds:.1f} s"
    )
    for sweep in report.sweeps:
        if sweep.gap:
            typer.echo(
                f"possible gap in workflow {plain(sweep.workflow_id)}: {plain(sweep.gap)} (see `orchestra-etl gaps`)"
            )
        elif not sweep.complete:
            typer.echo(
                f"the walk of workflow {plain(sweep.workflow_id)}'s list was cut off; the next one begins anew"
            )
        if sweep.problem:
            typer.echo(
                f"the run list of workflow {plain(sweep.workflow_id)}: {plain(sweep.problem, 1000)}"
            )
        if sweep.warning:
            typer.echo(
                f"a gap is near in workflow {plain(sweep.workflow_id)}: {plain(sweep.warning)}"
            )
        if sweep.repaired:
            typer.echo(
                f"{sweep.repaired} runs of workflow {plain(sweep.workflow_id)} were missing from the tables and are read again"
            )
    aside = (
        report.dead_letters + load.dead_letters + sum(sweep.dead_letters for sweep in report.sweeps)
    )
    if aside:
        typer.echo(f"{aside} new dead letters (see `orchestra-etl dead-letters list`)")
    if load.newly_failing:
        typer.echo(
            f"{load.newly_failing} runs could not be read; they will be tried again (see `orchestra-etl status`)"
        )
    for error in (*report.errors, *report.refused):
        typer.echo(plain(str(error), LONGEST_LINE), err=True)
    if report.interrupted:
        typer.echo("interrupted: what was read is stored, the next run goes on from here")
