"""`erase`: removal on request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import counted, fields
from etl.cli.ids import no_json
from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from etl.admin.erase import Found


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(erase)


def erase(
    context: typer.Context,
    run: Annotated[
        list[str] | None, typer.Option(help="This run; may be given several times.", metavar="ID", callback=no_json)
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="All runs in which this user appears.", metavar="ID", callback=no_json)
    ] = None,
    organization: Annotated[
        str | None, typer.Option(help="All runs of this organisation.", metavar="ID", callback=no_json)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            "-w",
            help="Only runs of this workflow; of an unknown --run, the workflow it is of.",
            callback=no_json,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; without this, only say what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs with all that is stored of them; they stay away, whatever lists them or asks for them.

    Only the ids of the runs are kept, as tombstones. Runs that start later are stored as before. Backups are not reached.
    """
    from etl import app
    from etl.admin import erase as admin

    if sum(given is not None for given in (run or None, user, organization)) != 1:
        raise ConfigurationError("give exactly one of --run, --user and --organization")
    if "" in (*(run or ()), user, organization, workflow):
        raise ConfigurationError("an id must not be empty")
    selection = admin.Selection(runs=tuple(run or ()), user_id=user, organization_id=organization, workflow_id=workflow)
    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        if yes:
            found = admin.erase(database, selection)
            asyncio.run(app.refresh_rollups(settings, database))
        else:
            found = database.transaction(lambda c: admin.find(c, selection))
    if as_json:
        print_json({"erased": yes, "runs": found.runs, "rows": found.rows, "not_read": found.not_read})
        return
    _print(found, erased=yes)


def _print(found: Found, *, erased: bool) -> None:
    typer.echo(f"{counted(found.runs, 'run')} {'erased' if erased else 'found'}")
    fields(console(), [(name.replace("_", " "), f"{rows:,}") for name, rows in found.rows.items()], indent=2)
    if found.not_read:
        typer.echo(
            f"{counted(found.not_read, 'run')} in this scope {'has' if found.not_read == 1 else 'have'} not been read yet, so "
            "nobody knows whose they are: repeat this after the next sync"
        )
    if not erased:
        typer.echo("nothing was removed: repeat with --yes to remove it for good")
