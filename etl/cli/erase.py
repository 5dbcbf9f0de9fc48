"""`erase`: removes runs on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, Yes, console, examples, invocation, print_json
from etl.cli.display import counted, fields, say
from etl.cli.ids import no_json
from etl.errors import ConfigurationError
from etl.exit_status import ExitStatus

if TYPE_CHECKING:
    from etl.admin.erase import EraseReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples("erase --user jane@example.com", "erase --user jane@example.com --yes")
    )(erase)


def erase(
    context: typer.Context,
    run: Annotated[
        list[str] | None,
        typer.Option(help="This run, by its whole id. Repeatable.", metavar="ID", callback=no_json),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="All runs in which this user appears.", metavar="ID", callback=no_json),
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option(help="All runs of this organization.", metavar="ID", callback=no_json),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            "-w",
            metavar="ID",
            help="Only runs of this workflow. With --run: the run's workflow, if the run is not in"
            " the database.",
            callback=no_json,
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Remove runs and everything stored about them, on request.

    Reports what would be removed; --yes removes it, and that cannot be undone. Only the ids of the
    runs are kept, so that no list, backfill or retry brings them back. All ids must be whole. Runs
    that start later are stored as before. Backups are not changed. Exit status 9: some stored runs
    could not be searched, because redaction rules or the API hide their user.
    """
    from etl import app
    from etl.admin import erase as admin
    from etl.cli import resolve

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
        notes = database.transaction(lambda c: resolve.whole_id_notes(c, selection.runs))
        for note in notes:
            say(note, err=True)
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
    return ExitStatus.NOT_SEARCHED if found.hidden.any else ExitStatus.DONE


def _print(found: EraseReport, *, erased: bool) -> None:
    say(f"{counted(found.runs, 'run')} {'erased' if erased else 'found'}")
    shown = [(name.replace("_", " "), f"{rows:,}") for name, rows in found.rows.items() if rows]
    if shown:
        fields(console(), shown, indent=2)
    if found.not_read:
        say(
            f"{counted(found.not_read, 'run')} in this scope"
            f" {'has' if found.not_read == 1 else 'have'} not been read yet, so their user is not"
            " known: repeat this after the next sync"
        )
    for runs, why in (
        (found.hidden.masked, "stored with a masked name that this name fits"),
        (found.hidden.dropped, "stored without the name, because of a `drop` rule"),
        (
            found.hidden.hashed,
            "stored with a hash, possibly by an earlier key: repeat this with that key",
        ),
    ):
        if runs:
            say(f"NOT SEARCHED: {counted(runs, 'run')} {why}")
    if found.hidden.masked or found.hidden.dropped:
        say("the database cannot show whose runs these are: erase them by id with --run")
    if not erased:
        say("nothing was removed: --yes removes it for good")
