"""`simulate`: serves a simulated Orchestra API, to try the other commands."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli import times
from etl.cli.context import examples
from etl.cli.display import say
from etl.errors import ConfigurationError, system_reason

if TYPE_CHECKING:
    from etl.simulator.server import Simulator


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("simulate --port 8765 --runs 50", "simulate --misbehave help"))(
        simulate
    )


def simulate(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes any free port."
        ),
    ] = 8765,
    key: Annotated[
        str, typer.Option(metavar="KEY", help="The API key that the server accepts.")
    ] = "simulated-key",
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", help="The same seed gives the same history.")
    ] = 1,
    workflows: Annotated[
        int, typer.Option(min=1, max=4000, metavar="NUMBER", help="Number of workflows.")
    ] = 3,
    runs: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000_000,
            metavar="NUMBER",
            help="Number of runs of each workflow at the start.",
        ),
    ] = 300,
    arrivals: Annotated[
        float,
        typer.Option(
            min=0, max=6000, metavar="NUMBER", help="New runs per minute in each workflow."
        ),
    ] = 2.0,
    epoch: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Start of the history (UTC). Default: now. The time of an earlier simulator, with"
            " the same other options, continues its history.",
        ),
    ] = None,
    failure_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Share of runs that do not succeed, from 0 to 1."
        ),
    ] = 0.08,
    misbehave: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A fault to inject now and then; `--misbehave help` lists them. Repeatable.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Serve the files of this folder instead: WORKFLOW/RUN/steps.json, and if present"
            " WORKFLOW/RUN/run.json, WORKFLOW/runs.json and workflows.json.",
        ),
    ] = None,
) -> int:
    """Serve a simulated Orchestra API until Ctrl-C.

    Its runs start, progress and end as time passes. It prints the lines that point other commands
    at it; standard error says how to continue the same history after a restart.
    """
    import asyncio

    from etl import logs
    from etl.simulator.folder import Folder
    from etl.simulator.history import History
    from etl.simulator.misbehaviour import MISBEHAVIOURS
    from etl.simulator.server import Simulator

    if misbehave == ["help"]:
        typer.echo("\n".join(MISBEHAVIOURS))
        return 0
    unknown = [name for name in misbehave or () if name not in MISBEHAVIOURS]
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} is not a misbehaviour: choose from {', '.join(MISBEHAVIOURS)}"
        )
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")
    start = (times.time("--epoch", epoch) or datetime.now(UTC)).replace(microsecond=0)
    source = (
        Folder(folder)
        if folder is not None
        else History(
            seed,
            workflows=workflows,
            runs_per_workflow=runs,
            live=min(3, runs),
            arrivals_per_minute=arrivals,
            failure_rate=failure_rate,
            epoch=start,
        )
    )
    simulator = Simulator(
        source,
        api_key=key,
        host=host,
        port=port,
        seed=seed,
        misbehaviours=[MISBEHAVIOURS[name] for name in misbehave or ()],
    )
    # Without this, the server's own errors are printed with their tracebacks.
    logs.configure()
    asyncio.run(_serve(simulator, key, None if folder is not None else start))
    return 0


async def _serve(simulator: Simulator, key: str, epoch: datetime | None) -> None:
    from etl.signals import stop_on_signals

    try:
        async with simulator:
            # Before anything is printed: a program that starts this may send a signal as soon as it
            # reads a line.
            with stop_on_signals() as stop:
                typer.echo(f"export ORCHESTRA_BASE_URL={simulator.base_url}")
                typer.echo(f"export ORCHESTRA_API_KEY={shlex.quote(key)}")
                if epoch is not None:
                    say(
                        "to continue this history after a restart, add"
                        f" --epoch {epoch.astimezone(UTC).replace(tzinfo=None).isoformat()}",
                        err=True,
                    )
                await stop.wait()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen there ({system_reason(error)}): choose another --host or --port"
        ) from None
