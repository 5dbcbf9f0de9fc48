"""`rollups`: keeps what analysts read equal to the steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, invocation, print_json
from etl.cli.display import counted, instant
from etl.terminal import plain

if TYPE_CHECKING:
    from etl.analytics.rollups import RefreshReport
    from etl.database import Database
    from etl.settings import Settings

# So many differing groups are printed for people.
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="rollups",
        help="Counts, tokens, durations and failures by hour, for analysts.",
        no_args_is_help=True,
    )
    group.command("refresh")(refresh)
    group.command("verify")(verify)
    app.add_typer(group)


def refresh(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything, not only what changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the rollups and the prices up to date; `sync`, `backfill` and `serve` do so by themselves."""
    from etl import app
    from etl.analytics import changed_groups

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        if everything:
            database.transaction(changed_groups.ask_for_all)
        done = asyncio.run(_refresh(settings, database))
    if as_json:
        print_json(done)
        return
    typer.echo(
        f"{counted(done.groups, 'group')} computed with {counted(done.rows, 'row')} and {counted(done.failures, 'failure')}"
    )
    if done.stuck:
        typer.echo(
            f"{counted(done.stuck, 'group')} cannot be computed: see `orchestra-etl rollups verify`"
        )
    if done.busy:
        typer.echo("another process is refreshing them: what is left is its work")
    elif done.waiting:
        typer.echo("interrupted: what was computed is stored, the next call goes on from here")


async def _refresh(settings: Settings, database: Database) -> RefreshReport:
    from etl import app
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        return await app.refresh_rollups(settings, database, stop.is_set)


def verify(context: typer.Context, as_json: AsJson = False) -> int:
    """Compute everything from the steps and compare; exit status 6 where something differs.

    What waits to be refreshed is left out. Reads every step: minutes for tens of millions.
    """
    from etl.analytics import verification

    with invocation(context).database() as database:
        found = database.transaction(verification.verify)
    if as_json:
        print_json(found)
        return 0 if found.ok else 6
    if found.failure is not None:
        typer.echo(
            f"the rollups cannot be compared with the steps: computing them fails (SQLSTATE {found.failure})"
        )
    elif found.differences:
        typer.echo(
            f"{counted(len(found.differences), 'group')} differ: run `orchestra-etl rollups refresh --all`"
        )
        for one in found.differences[:SHOWN]:
            typer.echo(f"  {plain(one.workflow_id)}  {instant(one.at)}  {plain(one.what)}")
    if found.stuck:
        typer.echo(
            f"{counted(len(found.stuck), 'group')} cannot be computed, so their numbers are old"
        )
        for group in found.stuck[:SHOWN]:
            cause = (
                "the hour is outside the years 1 to 9999"
                if group.cause is None
                else f"SQLSTATE {group.cause}"
            )
            typer.echo(f"  {plain(group.workflow_id)}  {group.hour}  {cause}")
    if found.waiting:
        typer.echo(
            f"{counted(found.waiting, 'change')} still to be counted: what they concern was not compared"
        )
    if found.overdue:
        typer.echo(
            f"{found.overdue:,} of them for more than ten minutes: run `orchestra-etl rollups refresh`"
        )
    if found.ok and not found.waiting:
        typer.echo("the rollups are what follows from the steps")
    return 0 if found.ok else 6
