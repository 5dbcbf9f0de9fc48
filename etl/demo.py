"""The demo: an embedded PostgreSQL, the simulated API and the service, with a live summary.

It ignores the database and the API key that the environment names.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, text

from etl import alerting, app, database, exporting, logs, schema, settings, terminal
from etl.admin import roles
from etl.embedded.postgres import EmbeddedPostgres, default_home
from etl.errors import ConfigurationError
from etl.service.daemon import Daemon, Pace, Schedule
from etl.service.health import Health
from etl.signals import Stop, stop_on_signals
from etl.simulator.history import Burst, History
from etl.simulator.server import Simulator

if TYPE_CHECKING:
    from rich.console import Console

_CHECKOUT = Path(__file__).parents[1] / "config" / "superset"
"""The folder of the dashboards in a checkout; an installed package has none."""
KEY = "demo-key"
RUNS_PER_WORKFLOW = 300
BURST = Burst(workflow=1, begin=timedelta(hours=-3), end=timedelta(minutes=-1), failure_rate=0.95)
"""Failures in the backlog that make an alert fire. New runs, which succeed, resolve it within a
minute or two."""
COMMANDS = ("status", "alerts list", "runs list", "db psql")
"""Commands that the demo suggests for its data."""

_BACKLOG = text("""
    SELECT (SELECT count(*) FROM orchestra_etl.sweeps WHERE watermark > 0) AS swept,
           count(*) AS listed,
           count(*) FILTER (WHERE steps_observed_at IS NOT NULL) AS loaded
    FROM orchestra_etl.run_ledger
""")

_SUMMARY = text("""
    SELECT w.name, r.runs, r.succeeded, r.failed, r.cancelled, r.open, r.newest, s.steps, s.tokens
    FROM orchestra.workflows AS w
    JOIN (
        SELECT workflow_id, count(*) AS runs,
               count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
               count(*) FILTER (WHERE outcome IN ('failed', 'soft_failed')) AS failed,
               count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE outcome IN ('pending', 'running')) AS open,
               EXTRACT(epoch FROM now() - max(start_time)) AS newest
        FROM orchestra.run_summary GROUP BY workflow_id
    ) AS r ON r.workflow_id = w.id
    JOIN (
        SELECT workflow_id, count(*) AS steps, sum(total_tokens) AS tokens
        FROM orchestra.steps GROUP BY workflow_id
    ) AS s ON s.workflow_id = w.id
    ORDER BY w.name
""")

_ALERTS = text("""
    SELECT rule, state, round((100 * value)::numeric, 1) || ' %' AS value,
           round((100 * threshold)::numeric, 1) || ' %' AS above,
           to_char(fired_at, 'HH24:MI:SS') AS fired, to_char(resolved_at, 'HH24:MI:SS') AS resolved
    FROM orchestra.alerts ORDER BY fired_at DESC LIMIT 3
""")

EXAMPLES = (
    (
        "Success rate and typical duration by workflow",
        """SELECT workflow_name, count(*) AS runs,
       round(100 * avg((outcome = 'succeeded')::int)
             FILTER (WHERE outcome IN ('succeeded', 'soft_failed', 'failed')),
             1) AS success_percent,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) / 1000)
             ::numeric, 2) AS median_seconds
FROM orchestra.run_summary
WHERE tracking = 'final' GROUP BY workflow_name ORDER BY workflow_name""",
    ),
    (
        "The slowest nodes",
        """SELECT w.name AS workflow, s.node_id, count(*) AS steps,
       round((percentile_cont(0.95) WITHIN GROUP (ORDER BY s.duration_ms))
             ::numeric) AS p95_ms
FROM orchestra.steps s JOIN orchestra.workflows w ON w.id = s.workflow_id
WHERE s.duration_ms IS NOT NULL
GROUP BY w.name, s.node_id ORDER BY p95_ms DESC LIMIT 5""",
    ),
    (
        "Tokens and cost of the models that took the most tokens",
        """SELECT provider, model, sum(calls) AS calls, sum(input_tokens) AS input,
       sum(output_tokens) AS output,
       round(sum(cost), 4) AS cost, currency AS unit
FROM orchestra.model_usage GROUP BY provider, model, currency
ORDER BY sum(total_tokens) DESC NULLS LAST LIMIT 10""",
    ),
)


def demo(*, exit_when_loaded: bool, export: str | None = None) -> int:
    """Run the demo until Ctrl-C, SIGTERM or the terminal closes, or until the backlog is loaded.

    Args:
        exit_when_loaded: end once the backlog is loaded.
        export: the folder of a lake to which the loaded history is exported; None: there is none.

    Returns:
        The exit status: 128 plus the signal's number if a signal arrived before the backlog was
        loaded, otherwise 0.

    Raises:
        ConfigurationError: another demo is running, or the folder for its data cannot be used.
        DatabaseError: the embedded server does not start.
        LakeError: the folder of the lake cannot be used, or already holds a lake.
    """
    logs.configure("warning", "auto")
    home = default_home() / "demo"
    with _alone(home):
        # The demo's database is a new one, so the lake must be, too.
        lake = None if export is None else exporting.new_lake(export)
        return asyncio.run(_demo(EmbeddedPostgres(home), lake, exit_when_loaded=exit_when_loaded))


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    path = home.parent / "demo.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise ConfigurationError(
            f"the demo cannot use {error.filename or path}: {error.strerror}; "
            "correct that, or set ORCHESTRA_ETL_HOME to another folder"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                "a demo is already running on this machine: end it with Ctrl-C first"
            ) from None
        yield


async def _demo(server: EmbeddedPostgres, lake: str | None, *, exit_when_loaded: bool) -> int:
    console = terminal.console(soft_wrap=True)
    with stop_on_signals() as stop:
        _stop_when_the_terminal_closes(stop)
        # Slow work runs in threads, so that the event loop can handle a second signal.
        try:
            console.print("starting an embedded PostgreSQL server")
            await asyncio.to_thread(server.start)
            console.print("creating the schema")
            await asyncio.to_thread(_fresh_schema, server.url)
            history = History(
                runs_per_workflow=RUNS_PER_WORKFLOW,
                spacing=timedelta(minutes=20),
                arrivals_per_minute=6.0,
                burst=BURST,
            )
            with Simulator(history, api_key=KEY).in_thread() as simulator:
                console.print(
                    f"the simulated API serves {len(history.workflow_ids)} workflows "
                    f"at {simulator.base_url}"
                )
                loaded = _settings(
                    server.home, history, simulator.base_url, url=server.url, lake=lake
                )
                return await _run(loaded, server, stop, console, exit_when_loaded=exit_when_loaded)
        finally:
            await asyncio.to_thread(server.stop)


def _stop_when_the_terminal_closes(stop: Stop) -> None:
    # Under nohup the signal is ignored, and must stay ignored.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop.receive, signal.SIGHUP)


def _fresh_schema(url: str) -> None:
    """Drop and recreate the schema, because each demo simulates a new history."""
    own = database.Database(url)
    try:
        for one in ("orchestra", "orchestra_etl"):
            drop = text(f"DROP SCHEMA IF EXISTS {one} CASCADE")
            own.transaction(lambda c, drop=drop: c.execute(drop))  # type: ignore[misc]
        schema.upgrade(url)
        # Running dashboards keep their access.
        roles.apply(own)
    finally:
        own.close()


def _settings(
    folder: Path, history: History, base_url: str, *, url: str, lake: str | None
) -> settings.Settings:
    names = {workflow["workflow_id"]: workflow["name"] for workflow in history.workflows()}
    lines = [
        "[api]",
        f'base_url = "{base_url}"',
        "requests_per_second = 0",
        "[service]",
        "port = 0",
        "[polling]",
        'open_interval_min = "2s"',
    ]
    if lake is not None:
        lines += ["[export]", f"location = {json.dumps(lake)}", "payloads = true"]
    for workflow_id in history.workflow_ids:
        lines += [
            "[[workflows]]",
            f'id = "{workflow_id}"',
            f'name = "{names[workflow_id]}"',
            'interval = "5s"',
        ]
    failing = history.workflow_ids[BURST.workflow]
    lines += [
        "[[alerts]]",
        f'name = "{names[failing]} fails"',
        f'workflow = "{failing}"',
        'metric = "failure_rate"',
        "above = 0.5",
        'over = "3h"',
        "min_runs = 3",
    ]
    config = folder / "etl.toml"
    config.write_text("\n".join(lines))
    return settings.load(config, {"ORCHESTRA_API_KEY": KEY, "DATABASE_URL": url})


async def _run(
    loaded: settings.Settings,
    server: EmbeddedPostgres,
    stop: Stop,
    console: Console,
    *,
    exit_when_loaded: bool,
) -> int:
    own = database.Database(server.url)
    try:
        async with app.open_jobs(loaded, own) as jobs:
            schedules = [Schedule(one.id, one.interval, one.cron) for one in loaded.workflows]
            daemon = Daemon(
                jobs.syncer,
                Health(),
                schedules,
                default_interval=5.0,
                refresh=partial(app.refresh_rollups, loaded, own),
                evaluate=partial(alerting.evaluate, loaded, own),
                pace=Pace(evaluate=5.0),
            )
            service = asyncio.create_task(daemon.run(stop))
            try:
                begun = time.monotonic()
                if not await _load_backlog(
                    own=own, workflows=len(schedules), stop=stop, service=service, console=console
                ):
                    return 128 + (stop.number or 0)
                # The service's own refresh may not run before the demo ends. If it runs just now,
                # it holds the lock, and may have begun before the last runs were loaded.
                while (await app.refresh_rollups(loaded, own, stop.is_set)).busy:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                await alerting.evaluate(loaded, own, wait=True)
                await _present(own, console, time.monotonic() - begun, jobs.client.requests_sent)
                if loaded.export.location is not None:
                    await exporting.export(loaded, own, stop.is_set)
                    console.print(
                        f"\nthe lake: Apache Iceberg tables in {loaded.export.location}, such as\n"
                        f"  iceberg_scan('{loaded.export.location}/orchestra/runs') in DuckDB",
                        markup=False,
                        highlight=False,
                    )
                _invite(server.home, console, over=exit_when_loaded)
                if not exit_when_loaded:
                    await _watch(own, stop, service, console)
                return 0
            finally:
                stop.set()
                await service
    finally:
        own.close()


async def _load_backlog(
    own: database.Database,
    workflows: int,
    stop: Stop,
    service: asyncio.Task[None],
    console: Console,
) -> bool:
    """Wait until all listed runs are loaded.

    Returns False if a signal arrived or the service ended before that.
    """
    columns = (
        TextColumn("loading the backlog"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("runs", total=None)
        while not stop.is_set() and not service.done():
            row = (await _query(own, _BACKLOG))[0]
            bar.update(task, completed=row.loaded, total=row.listed or None)
            if row.swept >= workflows and row.loaded >= row.listed:
                return True
            await asyncio.sleep(0.2)
    return False


async def _present(own: database.Database, console: Console, seconds: float, requests: int) -> None:
    rows = await _query(own, _SUMMARY)
    runs, steps = sum(row.runs for row in rows), sum(row.steps for row in rows)
    console.print(
        f"\nloaded {runs:,} runs with {steps:,} steps in {seconds:.1f} s, {requests:,} requests\n"
    )
    console.print(_table(rows))
    console.print("failed includes soft failures: runs that succeeded despite an error")
    if alerts := await _query(own, _ALERTS):
        console.print("\n[bold]Alerts on the runs of the last three hours[/bold] (times in UTC)\n")
        console.print(_alerts_table(alerts))
    for title, sql in EXAMPLES:
        console.print(f"\n[bold]{title}[/bold]\n{sql};\n")
        result = await _query(own, text(sql))
        console.print(_result_table(result))
    if _CHECKOUT.exists():
        console.print("\nsee this data as dashboards in a browser: run `make dashboards`")


def _invite(home: Path, console: Console, *, over: bool) -> None:
    """Write a file that points all other commands at the demo's data, and print how to use it."""
    beside = Path(sys.executable).with_name("orchestra-etl")
    is_found = shutil.which("orchestra-etl") is not None
    variables = {
        "ORCHESTRA_ETL_HOME": str(home),
        "ORCHESTRA_ETL_CONFIG": str(home / "etl.toml"),
        "DATABASE_URL": settings.EMBEDDED,
        "ORCHESTRA_API_KEY": KEY,
        # An empty variable counts as unset.
        "DATABASE_URL_FILE": "",
        "ORCHESTRA_API_KEY_FILE": "",
        "ORCHESTRA_BASE_URL": "",
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    if not is_found and beside.exists():
        lines.append(f'export PATH={shlex.quote(str(beside.parent))}:"$PATH"')
        is_found = True
    path = home / "env"
    path.write_text("".join(f"{line}\n" for line in lines))
    program = "orchestra-etl" if is_found else f"{shlex.quote(sys.executable)} -m etl"
    when = "until the next demo" if over else "in another terminal, while the demo runs"
    console.print(f"\nuse any command on this data, {when}:\n", highlight=False)
    for line in (f". {shlex.quote(str(path))}", *(f"{program} {one}" for one in COMMANDS)):
        console.print(f"  {line}", markup=False, highlight=False)
    if over:
        console.print("\nthe simulated API ends with the demo, so `sync` has no server")
    console.print()


async def _watch(
    own: database.Database, stop: Stop, service: asyncio.Task[None], console: Console
) -> None:
    console.print("new runs keep arriving; Ctrl-C ends the demo")
    if not console.is_terminal:
        await asyncio.wait(
            {asyncio.create_task(stop.wait()), service}, return_when=asyncio.FIRST_COMPLETED
        )
        return
    with Live(console=console, refresh_per_second=2) as live:
        while not stop.is_set() and not service.done():
            runs, alerts = await _query(own, _SUMMARY), await _query(own, _ALERTS)
            live.update(Group(_table(runs), "", _alerts_table(alerts)))
            try:
                await asyncio.wait_for(stop.wait(), 1.0)
            except TimeoutError:
                continue


def _table(rows: Sequence[Any]) -> Table:
    table = _empty_table()
    table.add_column("workflow", no_wrap=True)
    for name in ("runs", "ok", "failed", "cancelled", "open", "newest", "steps", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        figures = (row.runs, row.succeeded, row.failed, row.cancelled, row.open)
        newest = f"{row.newest:,.0f} s" if row.newest is not None else "-"
        table.add_row(
            row.name,
            *(f"{n:,}" for n in figures),
            newest,
            f"{row.steps:,}",
            "-" if row.tokens is None else f"{row.tokens:,}",
        )
    return table


def _alerts_table(rows: Sequence[Any]) -> Table:
    table = _empty_table()
    for name in ("alert", "state", "failure rate", "limit", "fired", "resolved"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        shown = Text(row.state, "bold red" if row.state == "firing" else "green")
        table.add_row(row.rule, shown, *(one or "-" for one in row[2:]))
    return table


def _empty_table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _result_table(rows: Sequence[Any]) -> Table:
    """Return the rows as a table in which numbers are aligned right."""
    table = _empty_table()
    for name, values in zip(rows[0]._fields, zip(*rows, strict=True), strict=True) if rows else ():
        is_number = all(
            value is None or isinstance(value, int | float | Decimal) for value in values
        )
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float | Decimal) else str(value)


async def _query(own: database.Database, statement: Any) -> Sequence[Any]:
    def work(connection: Connection) -> Sequence[Any]:
        return connection.execute(statement).all()

    return await asyncio.to_thread(own.transaction, work)
