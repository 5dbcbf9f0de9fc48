"""`rollups`: refreshes and verifies the hourly figures for analysts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, invocation, print_json
from etl.cli.display import instant, say
from etl.exit_status import ExitStatus
from etl.terminal import counted, plain

if TYPE_CHECKING:
    from etl.analytics.rollups import RefreshReport
    from etl.database import Database
    from etl.settings import Settings

# Maximum number of groups of each kind that are printed without --json.
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="rollups",
        help="Refresh and verify the hourly figures for analysts.",
        no_args_is_help=True,
    )
    group.command("refresh")(refresh)
    group.command("verify")(verify)
    app.add_typer(group)


def refresh(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Compute every hour, not only those that changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the rollups and the prices up to date.

    `sync`, `backfill` and `serve` do this automatically.
    """
    import asyncio

    from etl import app
    from etl.analytics import changed_groups

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        if everything:
            database.transaction(changed_groups.queue_all)
        done = asyncio.run(_refresh(settings, database))
    if as_json:
        print_json(done)
        return
    say(
        f"{counted(done.groups, 'group')} computed with {counted(done.rows, 'row')}"
        f" and {counted(done.failures, 'failure')}"
    )
    if done.stuck:
        say(
            f"{counted(done.stuck, 'group')} cannot be computed: see `orchestra-etl rollups verify`"
        )
    if done.busy:
        say("another process is refreshing the rest")
    elif done.waiting:
        say("interrupted: repeat this to continue")


async def _refresh(settings: Settings, database: Database) -> RefreshReport:
    from etl import maintenance
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        return await maintenance.refresh_rollups(settings, database, stop.is_set)


def verify(context: typer.Context, as_json: AsJson = False) -> int:
    """Compare the rollups with the steps.

    Exit status 8 if they differ, if an hour cannot be computed, or if changes have waited for more
    than ten minutes. Changes that wait for a refresh are not compared. It reads every step: tens of
    millions take minutes.
    """
    from etl.analytics import verification

    with invocation(context).database() as database:
        found = database.transaction(verification.verify)
    if as_json:
        print_json(found)
        return ExitStatus.DONE if found.ok else ExitStatus.ROLLUPS_DIFFER
    if found.failure is not None:
        say(f"the rollups cannot be compared: computing them fails (SQLSTATE {found.failure})")
    elif found.differences:
        say(
            f"{counted(len(found.differences), 'group differs', 'groups differ')}: run"
            " `orchestra-etl rollups refresh --all`"
        )
        for one in found.differences[:SHOWN]:
            say(f"  {plain(one.workflow_id)}  {instant(one.at)}  {plain(one.what)}")
    if found.stuck:
        say(f"{counted(len(found.stuck), 'group')} cannot be computed; the stored figures are old")
        for group in found.stuck[:SHOWN]:
            cause = (
                "the hour is outside the years 1 to 9999"
                if group.cause is None
                else f"SQLSTATE {group.cause}"
            )
            say(f"  {plain(group.workflow_id)}  {group.hour}  {cause}")
    if found.waiting:
        say(f"{counted(found.waiting, 'change')} not counted yet, and not compared")
    if found.overdue:
        say(
            f"{found.overdue:,} of them waiting for more than ten minutes: run"
            " `orchestra-etl rollups refresh`"
        )
    if found.ok and not found.waiting:
        say("the rollups match the steps")
    return ExitStatus.DONE if found.ok else ExitStatus.ROLLUPS_DIFFER
