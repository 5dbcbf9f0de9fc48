"""The demo: an embedded PostgreSQL, the simulated API and the service, with a live summary.

It ignores the database and the API key that the environment names.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import text

from etl import (
    alerting,
    app,
    database,
    demo_report,
    exporting,
    logs,
    maintenance,
    schema,
    settings,
    terminal,
)
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
                refresh=partial(maintenance.refresh_rollups, loaded, own),
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
                while (await maintenance.refresh_rollups(loaded, own, stop.is_set)).busy:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                await alerting.evaluate(loaded, own, wait=True)
                await demo_report.present(
                    own, console, time.monotonic() - begun, jobs.client.requests_sent
                )
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
            row = (await demo_report.query(own, _BACKLOG))[0]
            bar.update(task, completed=row.loaded, total=row.listed or None)
            if row.swept >= workflows and row.loaded >= row.listed:
                return True
            await asyncio.sleep(0.2)
    return False


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
            live.update(await demo_report.current(own))
            try:
                await asyncio.wait_for(stop.wait(), 1.0)
            except TimeoutError:
                continue
