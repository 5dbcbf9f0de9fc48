"""`rollups`: keeps what analysts read equal to the steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, invocation, print_json
from etl.cli.display import counted, instant
from etl.terminal import plain

if TYPE_CHECKING:
    from etl.analytics.rollups import Refreshed
    from etl.database import Database
    from etl.settings import Settings

# So many differing groups are printed for people.
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="rollups", help="Counts, tokens, durations and failures by hour, for analysts.", no_args_is_help=True
    )
    group.command("refresh")(refresh)
    group.command("verify")(verify)
    app.add_typer(group)


def refresh(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that retention has not frozen, not only what changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the rollups and the prices up to date; `sync`, `backfill` and `serve` do so by themselves."""
    from etl import app
    from etl.ledger import changed_groups

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
    if done.frozen:
        typer.echo(f"{counted(done.frozen, 'group')} left as they were: they lie before the retention horizon")
    if done.busy:
        typer.echo("another process is refreshing them: what is left is its work")
    elif done.waiting:
        typer.echo("interrupted: what was computed is stored, the next call goes on from here")


async def _refresh(settings: Settings, database: Database) -> Refreshed:
    from etl import app
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        return await app.refresh_rollups(settings, database, stop.is_set)


def verify(context: typer.Context, as_json: AsJson = False) -> int:
    """Compute everything from the steps and compare; exit status 6 where something differs.

    What waits to be refreshed, and what retention has frozen, is left out. Reads every step: minutes for tens of millions.
    """
    from etl.analytics import rollups

    with invocation(context).database() as database:
        found = database.transaction(rollups.verify)
    if as_json:
        print_json({"differences": found})
    elif not found:
        typer.echo("the rollups are what follows from the steps")
    else:
        typer.echo(f"{counted(len(found), 'group')} differ: run `orchestra-etl rollups refresh --all`")
        for one in found[:SHOWN]:
            typer.echo(f"  {plain(one.workflow_id)}  {instant(one.at)}  {plain(one.what)}")
    return 6 if found else 0
