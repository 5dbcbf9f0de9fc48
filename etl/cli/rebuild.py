"""`rebuild`: recomputes stored steps by newer rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from etl.cli.context import AsJson, WorkflowIds, console, invocation, print_json
from etl.cli.display import fields, say
from etl.terminal import counted

if TYPE_CHECKING:
    from etl.admin.rebuild import RebuildReport
    from etl.database import Database
    from etl.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rebuild)


def rebuild(context: typer.Context, workflow: WorkflowIds = None, as_json: AsJson = False) -> int:
    """Recompute stored steps by the rules of this version.

    Run it after an upgrade that says so: models, tokens, costs, finish reasons and errors then
    follow the new rules. It reads the payloads in the database, and never the API. Steps whose
    payloads were pruned stay as they are. It works in small transactions beside a running service,
    and can be stopped and repeated: it continues where it stopped. With --workflow, it starts again
    from the workflow's first step.
    """
    import asyncio

    from etl import app
    from etl.cli import resolve

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        workflow = resolve.stored_workflows(database, workflow)
        done, interrupted = asyncio.run(_rebuild(settings, database, workflow))
    if as_json:
        print_json(done)
    elif done.complete and not done.steps:
        say("nothing to do: all stored steps follow the rules of this version")
    else:
        say(f"{counted(done.steps, 'step')} recomputed, {done.changed:,} changed")
        kept = (("without payload", done.without_payload), ("unreadable", done.unreadable))
        fields(console(), [(name, f"{number:,}, unchanged") for name, number in kept], indent=2)
        if not done.complete:
            say("interrupted: repeat this to continue")
    return 128 + interrupted if interrupted and not done.complete else 0


async def _rebuild(
    settings: Settings, database: Database, only: list[str] | None
) -> tuple[RebuildReport, int | None]:
    from etl import maintenance
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        return await maintenance.rebuild_stored(settings, database, only, stop.is_set), stop.number
