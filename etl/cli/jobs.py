"""`sync`, `backfill` and `serve`: the commands that read from the API."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl.cli.context import AsJson, WorkflowIds, examples, invocation, print_json
from etl.cli.display import say
from etl.cli.times import Since, Until, window
from etl.errors import ConfigurationError, EtlError
from etl.terminal import LONGEST_LINE, console, counted, plain

if TYPE_CHECKING:
    from etl.app import Jobs
    from etl.database import Database
    from etl.pipeline.loading import LoadReport
    from etl.pipeline.sync import SyncReport
    from etl.settings import Settings
    from etl.signals import Stop


# Seconds between two refreshes during a pass; most passes end before the first. A refresh leaves
# out days that are still being loaded: those that changed in the last SETTLED seconds.
REFRESH = 3.0
SETTLED = 1.0

SUMMARISED = (
    "sync_finished", "sweep_cut_off", "list_nearly_overrun", "list_problem_found",
    "missing_runs_found", "dead_letters_recorded",
)  # fmt: skip
"""Events of a pass whose content is also in its summary."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("sync", "sync --workflow 'weather jokes' --json"))(sync)
    app.command()(serve)
    app.command(epilog=examples("backfill --since 2026-01-01", "backfill -w 1234f567 --reread"))(
        backfill
    )


def sync(context: typer.Context, workflow: WorkflowIds = None, as_json: AsJson = False) -> int:
    """Run one pass: list new runs, read what is due, and exit.

    Made for cron. You can run it at any time, also beside a running service. Exit status 6: it
    finished, but with a new dead letter, gap, read error or refusal; the output says which.
    """
    settings = invocation(context).settings()
    chosen = _chosen(settings, workflow)

    async def work(jobs: Jobs, stop: Stop, progress: Progress) -> SyncReport:
        return await jobs.syncer.sync(chosen, stop=stop, on_load=progress.add)

    return _fetch(settings, work, as_json=as_json)


def backfill(
    context: typer.Context,
    workflow: WorkflowIds = None,
    since: Since = None,
    until: Until = None,
    reread: Annotated[
        bool, typer.Option("--reread", help="Also re-read runs that are final.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Walk the whole run list and read what is missing.

    Its runs are read after all live runs. You can stop and repeat it at any time: it keeps the runs
    that it has listed. With --since or --until, other runs that it finds stay due for the service
    or the next `sync`. With --reread, redaction rules are also applied to stored data that can no
    longer be re-read, as `redact apply` does.
    """
    first, end = window(since, until)
    settings = invocation(context).settings()
    chosen = _chosen(settings, workflow)

    async def work(jobs: Jobs, stop: Stop, progress: Progress) -> SyncReport:
        return await jobs.syncer.backfill(
            chosen, stop=stop, since=first, until=end, reread=reread, on_listed=progress.expect,
            on_load=progress.add,
        )  # fmt: skip

    async def redact(database: Database, stop: Stop) -> None:
        from etl import maintenance, redacting

        if reread and settings.redaction.rules and not stop.is_set():
            await maintenance.redact_stored(
                settings,
                database,
                redacting.open_redaction(settings),
                workflows=chosen,
                stopped=stop.is_set,
            )

    return _fetch(settings, work, as_json=as_json, then=redact)


def serve(context: typer.Context) -> int:
    """Run the service until SIGTERM, Ctrl-C or a closed terminal.

    It sweeps each workflow on its schedule and reads what is due. It serves /livez, /readyz and
    /metrics over HTTP at service.host and service.port. A second signal ends it at once.
    """
    import asyncio

    from etl import app

    settings = invocation(context).settings()
    _chosen(settings, None)
    with app.open_database(settings, patient=True) as database:
        asyncio.run(app.serve(settings, database))
    return 0


def _chosen(settings: Settings, workflow: list[str] | None) -> list[str] | None:
    """Return the ids of the chosen workflows; None for all.

    They must be configured; otherwise a typo would look like success. With api.all_workflows, the
    pass itself checks them once the API has listed its workflows.
    """
    from etl.cli import resolve

    configured = {one.id: one.name for one in settings.workflows}
    found = []
    for one in workflow or ():
        id = resolve.workflow(one, configured)
        if id is None and not settings.api.all_workflows:
            raise ConfigurationError(
                f"workflow {plain(one, 200)} is not configured ({settings.source}): see"
                " `orchestra-etl workflows`"
            )
        found.append(id or one)
    if not configured and not settings.api.all_workflows:
        raise ConfigurationError(
            f"no workflow is configured ({settings.source}): see `orchestra-etl workflows`,"
            " or set api.all_workflows = true"
        )
    return found or None


class Progress:
    """Progress of a pass: a bar on a terminal, elsewhere a log line every ten seconds."""

    def __init__(self) -> None:
        import structlog

        self._log = structlog.get_logger("etl.progress")
        self._logged_at = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._total: int | None = None
        self._runs = self._steps = 0

    def expect(self, total: int) -> None:
        """Set the number of runs to be read."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def add(self, report: LoadReport, seconds: float) -> None:
        """Add a loaded batch."""
        self._runs += report.runs + report.failed
        self._steps += report.steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self._runs)
        elif time.monotonic() - self._logged_at >= 10:
            self._logged_at = time.monotonic()
            self._log.info("sync_progressed", runs=self._runs, of=self._total, steps=self._steps)

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        """Show the progress while the block runs."""
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
    """Do nothing after a pass."""


def _fetch(
    settings: Settings,
    work: Callable[[Jobs, Stop, Progress], Awaitable[SyncReport]],
    *,
    as_json: bool,
    then: Callable[[Database, Stop], Awaitable[None]] = _nothing,
) -> int:
    import asyncio

    from etl import app, logs

    logs.leave_out(*SUMMARISED)
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
    from etl import alerting, app, maintenance
    from etl.signals import stop_on_signals

    begun = time.monotonic()
    with Progress().shown() as progress:
        async with app.open_jobs(settings, database) as jobs:
            with stop_on_signals() as stop:
                async with _repeated(
                    lambda over: maintenance.refresh_rollups(
                        settings, database, over, settled=SETTLED
                    ),
                    stop,
                ):
                    report = await work(jobs, stop, progress)
                try:
                    await then(database, stop)
                    await maintenance.refresh_rollups(settings, database, stop.is_set)
                    if not stop.is_set():
                        await alerting.evaluate(settings, database, wait=True)
                        await alerting.deliver(settings, database, stop)
                except EtlError as error:
                    # The pass is stored, and the queue keeps the groups that wait for a refresh.
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
    """Refresh repeatedly while the block runs.

    PostgreSQL has spare capacity while the block runs; after it, the command would have to wait for
    the whole refresh. Errors are ignored here: the refresh that follows the block reports them.
    """
    import asyncio

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
    """Log one line with every count, for the log of a cron job."""
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
    say(
        f"{counted(len(report.sweeps), 'list')} with {counted(new, 'new run')}; read"
        f" {counted(load.runs, 'run')} with {counted(load.steps, 'step')}"
        f" ({load.steps_inserted:,} new, {load.steps_updated:,} changed);\n"
        f"{counted(report.requests, 'request')} in {report.seconds:.1f} s"
    )
    for sweep in report.sweeps:
        if sweep.gap:
            say(
                f"possible gap in workflow {plain(sweep.workflow_id)}: {plain(sweep.gap)}"
                " (see `orchestra-etl gaps list`)"
            )
        elif not sweep.complete:
            say(
                f"the sweep of workflow {plain(sweep.workflow_id)} was cut off; the next sweep"
                " starts again at the head"
            )
        if sweep.problem:
            say(
                f"the run list of workflow {plain(sweep.workflow_id)}: {plain(sweep.problem, 1000)}"
            )
        if sweep.warning:
            say(f"workflow {plain(sweep.workflow_id)} is close to a gap: {plain(sweep.warning)}")
        if sweep.repaired:
            say(
                f"{counted(sweep.repaired, 'run')} of workflow {plain(sweep.workflow_id)} had no"
                " rows in the tables, and will be re-read"
            )
    letters = (
        report.dead_letters + load.dead_letters + sum(sweep.dead_letters for sweep in report.sweeps)
    )
    if letters:
        say(f"{counted(letters, 'new dead letter')} (see `orchestra-etl dead-letters list`)")
    if load.newly_failing:
        say(
            f"{counted(load.newly_failing, 'run')} could not be read and will be retried"
            " (see `orchestra-etl status`)"
        )
    for error in (*report.errors, *report.refused):
        say(plain(str(error), LONGEST_LINE), err=True)
    if report.interrupted:
        say("interrupted: what was read is stored; repeat this to continue")
