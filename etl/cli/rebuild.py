"""`rebuild`: stored steps are read again by newer rules."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from etl.cli.context import AsJson, WorkflowIds, check_stored, console, invocation, print_json
from etl.cli.display import counted, fields

if TYPE_CHECKING:
    from etl.admin.rebuild import RebuildReport
    from etl.database import Database
    from etl.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rebuild)


def rebuild(context: typer.Context, workflow: WorkflowIds = None, as_json: AsJson = False) -> int:
    """Read the stored steps again by newer rules, from the payloads in the database, without asking the API.

    Needed after an upgrade that says so: models, tokens, costs, reasons to stop and errors then
    follow the new rules. A step whose payloads were pruned keeps what it has. Small transactions,
    safe beside the service, may be stopped and repeated at any time: it goes on where it was. With
    --workflow it reads that workflow from the beginning, finished or not.
    """
    from etl import app

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        check_stored(database, workflow)
        done, interrupted = asyncio.run(_rebuild(settings, database, workflow))
    if as_json:
        print_json(done)
    elif done.complete and not done.steps:
        typer.echo("nothing to do: all stored steps are read by the rules of this version")
    else:
        typer.echo(f"{counted(done.steps, 'step')} read again; {done.changed:,} of them changed")
        kept = (("without payload", done.without_payload), ("unreadable", done.unreadable))
        fields(
            console(), [(name, f"{number:,}, left as they were") for name, number in kept], indent=2
        )
        if not done.complete:
            typer.echo("interrupted: repeat this to go on")
    return 128 + interrupted if interrupted and not done.complete else 0


async def _rebuild(
    settings: Settings, database: Database, only: list[str] | None
) -> tuple[RebuildReport, int | None]:
    from etl import app
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        return await app.rebuild_stored(settings, database, only, stop.is_set), stop.number
