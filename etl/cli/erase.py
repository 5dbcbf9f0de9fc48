"""`erase`: removal on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import counted, fields
from etl.cli.ids import no_json
from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from etl.admin.erase import EraseReport


INCOMPLETE = 6
"""Exit status: finished, but something may have been missed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(erase)


def erase(
    context: typer.Context,
    run: Annotated[
        list[str] | None,
        typer.Option(help="This run; may be given several times.", metavar="ID", callback=no_json),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="All runs in which this user appears.", metavar="ID", callback=no_json),
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option(help="All runs of this organisation.", metavar="ID", callback=no_json),
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
) -> int:
    """Remove runs with all that is stored of them; they stay away, whatever lists them or asks for them.

    Only the ids of the runs are kept, as tombstones. Runs that start later are stored as before.
    Backups are not reached. Exit status 6: done, but nobody can tell whose some of the stored runs
    are, because rules or the API hide it.
    """
    from etl import app
    from etl.admin import erase as admin

    if sum(given is not None for given in (run or None, user, organization)) != 1:
        raise ConfigurationError("give exactly one of --run, --user and --organization")
    if "" in (*(run or ()), user, organization, workflow):
        raise ConfigurationError("an id must not be empty")
    selection = admin.Selection(
        runs=tuple(run or ()), user_id=user, organization_id=organization, workflow_id=workflow
    )
    settings = invocation(context).settings()
    rules = app.open_redaction(settings)
    with app.open_database(settings) as database:
        if yes:
            found = admin.erase(database, selection, rules)
            app.resolve_prices(settings, database)
        else:
            found = database.transaction(lambda c: admin.find(c, selection, rules))
    if as_json:
        counts = {"runs": found.runs, "rows": found.rows, "not_read": found.not_read}
        print_json({"erased": yes, **counts, "hidden": found.hidden})
    else:
        _print(found, erased=yes)
    return INCOMPLETE if found.hidden.any else 0


def _print(found: EraseReport, *, erased: bool) -> None:
    typer.echo(f"{counted(found.runs, 'run')} {'erased' if erased else 'found'}")
    fields(
        console(),
        [(name.replace("_", " "), f"{rows:,}") for name, rows in found.rows.items()],
        indent=2,
    )
    if found.not_read:
        typer.echo(
            f"{counted(found.not_read, 'run')} in this scope {'has' if found.not_read == 1 else 'have'} not been read yet, so "
            "nobody knows whose they are: repeat this after the next sync"
        )
    for runs, why in (
        (found.hidden.masked, "stored with asterisks that this name would fit"),
        (found.hidden.dropped, "stored without the name, by a `drop` rule"),
        (
            found.hidden.hashed,
            "stored with a hash that may be of another key than today's: repeat this with that key",
        ),
    ):
        if runs:
            typer.echo(f"NOT SEARCHED: {counted(runs, 'run')} {why}")
    if found.hidden.masked or found.hidden.dropped:
        typer.echo(
            "nobody can tell from the database whose they are: name them by their ids with --run"
        )
    if not erased:
        typer.echo("nothing was removed: repeat with --yes to remove it for good")
