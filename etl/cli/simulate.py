"""`simulate`: the API's double, for trials."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from etl.simulator.server import Simulator


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8765,
    key: Annotated[str, typer.Option(help="The API key it accepts.")] = "simulated-key",
    seed: Annotated[int, typer.Option(help="The same seed gives the same history.")] = 1,
    workflows: Annotated[int, typer.Option(min=1, max=4000, help="How many workflows.")] = 3,
    runs: Annotated[
        int,
        typer.Option(min=0, max=10_000_000, help="How many runs each workflow has at the start."),
    ] = 300,
    arrivals: Annotated[
        float, typer.Option(min=0, max=6000, help="New runs a minute in each workflow.")
    ] = 2.0,
    epoch: Annotated[
        datetime | None,
        typer.Option(
            help="When the history was at its start (UTC), now by default; the one of an earlier simulator, with its "
            "other options, continues that simulator's history."
        ),
    ] = None,
    failure_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of runs that do not succeed.")
    ] = 0.08,
    misbehave: Annotated[
        list[str] | None,
        typer.Option(help="Something that goes wrong now and then; `--misbehave help` lists them."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Serve files as they are instead: WORKFLOW/RUN/steps.json, and where present WORKFLOW/RUN/run.json, "
            "WORKFLOW/runs.json, workflows.json."
        ),
    ] = None,
) -> int:
    """Serve a simulated Orchestra API on this machine until Ctrl-C.

    Its runs start, progress and end as time passes; the same seed always gives the same history.
    Standard output gets the lines that point the command at it; standard error how to continue the
    same history after a restart.
    """
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
            f"there is no misbehaviour {unknown[0]!r}; there are: {', '.join(MISBEHAVIOURS)}"
        )
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}")
    start = (epoch or datetime.now(UTC)).replace(microsecond=0)
    if start.tzinfo is None:
        start = start.replace(tzinfo=UTC)
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
    # Without it the server's own errors would be printed with their tracebacks.
    logs.configure()
    asyncio.run(_serve(simulator, key, None if folder is not None else start))
    return 0


async def _serve(simulator: Simulator, key: str, epoch: datetime | None) -> None:
    from etl.signals import stop_on_signals

    try:
        async with simulator:
            # Before anything is printed: whoever starts this from a program may signal as soon as
            # there is a line.
            with stop_on_signals() as stop:
                typer.echo(f"export ORCHESTRA_BASE_URL={simulator.base_url}")
                typer.echo(f"export ORCHESTRA_API_KEY={shlex.quote(key)}")
                if epoch is not None:
                    typer.echo(
                        f"after a restart, --epoch {epoch.astimezone(UTC):%Y-%m-%dT%H:%M:%S} continues this history",
                        err=True,
                    )
                await stop.wait()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen there ({error.strerror}): choose another --host or --port"
        ) from None
