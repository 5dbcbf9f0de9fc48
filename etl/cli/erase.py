"""`erase`: removes runs on request."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, Yes, console, examples, invocation, print_json
from etl.cli.display import fields, say
from etl.cli.ids import bare_id
from etl.errors import ConfigurationError, LakeError
from etl.exit_status import ExitStatus
from etl.terminal import counted

if TYPE_CHECKING:
    from etl.admin.erase import EraseReport, Selection
    from etl.cli.lake_cleaning import LakeReceipt
    from etl.database import Database
    from etl.exporting import ExportedLake
    from etl.transform.redact import Redaction


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples("erase --user jane@example.com", "erase --user jane@example.com --yes")
    )(erase)


def erase(
    context: typer.Context,
    run: Annotated[
        list[str] | None,
        typer.Option(help="This run, by its whole id. Repeatable.", metavar="ID", callback=bare_id),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="All runs in which this user appears.", metavar="ID", callback=bare_id),
    ] = None,
    organisation: Annotated[
        str | None,
        typer.Option(
            "--organisation",
            "--organization",
            help="All runs of this organisation.",
            metavar="ID",
            callback=bare_id,
        ),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            "-w",
            metavar="ID",
            help="Only runs of this workflow. With --run: the run's workflow, if the run is not in"
            " the database.",
            callback=bare_id,
        ),
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a receipt to this new file, as JSON: what was removed in each place, and"
            " which places cannot be reached. Needs --yes.",
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Remove runs and everything stored about them, on request.

    Reports what would be removed; --yes removes it, and that cannot be undone. Only the ids of the
    runs are kept, so that no list, backfill or retry brings them back. All ids must be whole. Runs
    that start later are stored as before. If the history is exported to a lake, the runs are also
    removed there, even those that only the lake has, and the lake's former files are deleted.
    Backups are not changed. Exit status 9: some stored runs could not be searched, because
    redaction rules or the API hide their user. Exit status 10: the lake could not be reached;
    repeat the command once it is reachable.
    """
    from importlib.metadata import version

    from etl import app, exporting, maintenance, redacting
    from etl.admin import erase as admin
    from etl.cli import erase_receipt, lake_cleaning, resolve

    if sum(given is not None for given in (run or None, user, organisation)) != 1:
        raise ConfigurationError("give exactly one of --run, --user and --organisation")
    if receipt is not None and not yes:
        raise ConfigurationError("--receipt needs --yes: without it, nothing is removed")
    selection = admin.Selection(
        runs=tuple(run or ()), user_id=user, organization_id=organisation, workflow_id=workflow
    )
    settings = invocation(context).settings()
    rules = redacting.open_redaction(settings)
    begun_at = datetime.now(UTC)
    in_lake: LakeReceipt | None = None
    with erase_receipt.opened(receipt) as file, app.open_database(settings) as database:
        notes = database.transaction(lambda c: resolve.whole_id_notes(c, selection.runs))
        for note in notes:
            say(note, err=True)
        lake = exporting.exported_lake(settings, database)
        if yes:
            found = admin.erase(database, selection, rules)
            archived, problem = _archived(database, lake, selection, rules)
            if archived:
                found = found.plus(admin.erase(database, admin.Selection(runs=archived), rules))
            maintenance.resolve_prices(settings, database)
            if lake is not None:
                in_lake = lake_cleaning.clean(database, lake, problem)
        else:
            found = database.transaction(lambda c: admin.find(c, selection, rules))
            archived, problem = _archived(database, lake, selection, rules)
        if file is not None:
            made = erase_receipt.receipt(
                selection, found, in_lake, version=version("orchestra-etl"), begun_at=begun_at
            )
            erase_receipt.write(file, made)
    if as_json:
        counts = {"runs": found.runs, "rows": found.rows, "not_read": found.not_read}
        more = {"archived": len(archived), "lake": in_lake} if lake is not None else {}
        print_json({"erased": yes, **counts, "hidden": found.hidden, **more})
    else:
        _print(found, erased=yes)
        if archived and not yes:
            say(f"{counted(len(archived), 'more run')} only in the lake")
        lake_cleaning.say_cleaned(in_lake)
        if not yes and lake is not None and problem is not None:
            say(f"NOT SEARCHED: {lake_cleaning.about(lake.location, problem)}")
    if problem is not None or (in_lake is not None and in_lake.removed is None):
        return ExitStatus.LAKE
    return ExitStatus.NOT_SEARCHED if found.hidden.any else ExitStatus.DONE


def _archived(
    database: Database, lake: ExportedLake | None, selection: Selection, rules: Redaction
) -> tuple[tuple[str, ...], str | None]:
    """Return the person's runs that only the lake has, and why it could not be searched."""
    person = selection.person(rules)
    if lake is None or lake.destination is None:
        return (), None if lake is None else lake.problem
    if person is None:
        return (), None
    from etl.export import erasure

    search = partial(
        erasure.archived_runs_of,
        destination=lake.destination,
        field=person.field,
        values=person.values,
        workflow_id=person.workflow_id,
    )
    try:
        return tuple(database.in_one_snapshot(search)), None
    except LakeError as error:
        return (), str(error)


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
        (found.hidden.masked, "stored with a masked name that may be this one"),
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
        say("nothing was removed; to remove it permanently, add --yes")
