"""`prune`: removes what is older than the retention settings allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, Yes, examples, invocation, print_json
from etl.cli.display import instant, say
from etl.errors import ConfigurationError
from etl.terminal import counted

if TYPE_CHECKING:
    from etl.admin.expired import ExpiredRuns, Horizons, PrunePreview
    from etl.admin.retention import PruneReport
    from etl.database import Database
    from etl.export.exported_runs import ExportedRuns
    from etl.settings import Settings
    from etl.settings.retention import RetentionSettings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("prune --runs-older-than 730d", "prune --yes"))(prune)


def prune(
    context: typer.Context,
    payloads_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Remove payloads of runs that ended longer ago than this, such as 90d; metrics"
            " stay.",
        ),
    ] = None,
    runs_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Remove runs that ended longer ago than this, such as 730d."
        ),
    ] = None,
    exported: Annotated[
        bool,
        typer.Option(
            "--exported",
            help="Remove only what the lake holds. The days to prune are verified first.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Remove what is older than the retention settings allow.

    Reports what would be removed; --yes removes it, and that cannot be undone. The options replace
    the settings of [retention]. Open runs are kept. It works in small transactions beside a running
    service, and can be stopped and repeated at any time. In cron, use --yes. PostgreSQL reuses the
    space; only VACUUM FULL shrinks the files. With --exported, it stops before the first day that
    waits for an export, and keeps dead letters.
    """
    import asyncio

    from etl import app, exporting
    from etl.admin import expired

    settings = invocation(context).settings()
    ages = _ages(settings.retention, payloads_older_than, runs_older_than)
    with app.open_database(settings) as database:
        wanted = database.transaction(
            lambda c: expired.horizons(c, payloads=ages.payloads, runs=ages.runs)
        )
        may_remove = None
        if exported:
            wanted, may_remove = exporting.exported_before(settings, database, wanted)
        if not yes:
            _print_preview(
                database.transaction(lambda c: expired.preview(c, wanted)), as_json=as_json
            )
            return 0
        done, interrupted = asyncio.run(_prune(settings, database, wanted, may_remove))
    _print(done, as_json=as_json)
    return 128 + interrupted if interrupted and not done.complete else 0


def _ages(
    configured: RetentionSettings, payloads: str | None, runs: str | None
) -> RetentionSettings:
    """Return the ages to use; an option replaces its setting."""
    from pydantic import ValidationError

    from etl.settings.retention import RetentionSettings

    given = {
        name: value for name, value in (("payloads", payloads), ("runs", runs)) if value is not None
    }
    try:
        ages = RetentionSettings.model_validate({**configured.model_dump(mode="json"), **given})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        option = f"--{problem['loc'][0]}-older-than: " if problem["loc"] else ""
        raise ConfigurationError(
            option + str(problem["msg"]).removeprefix("Value error, ")
        ) from None
    if ages.payloads is None and ages.runs is None:
        raise ConfigurationError(
            "no retention is set, so everything is kept: set payloads or runs under [retention] in"
            " the configuration, or use --payloads-older-than or --runs-older-than"
        )
    return ages


async def _prune(
    settings: Settings, database: Database, wanted: Horizons, may_remove: ExportedRuns | None
) -> tuple[PruneReport, int | None]:
    from etl import maintenance
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        done = await maintenance.prune(
            settings, database, wanted, may_remove=may_remove, stopped=stop.is_set
        )
        return done, stop.number


def _print_preview(found: PrunePreview, *, as_json: bool) -> None:
    if as_json:
        print_json({"pruned": False, **msgspec.structs.asdict(found)})
        return
    if found.runs is not None:
        say(f"runs to remove: {_aged(found.runs)}")
    if found.payloads is not None:
        say(f"payloads to remove: {_aged(found.payloads)}")
        say(f"  and the bytes of {counted(found.dead_letters, 'dead letter')}")
    if found.dead_letters or any(one and one.runs for one in (found.runs, found.payloads)):
        say("nothing was removed; to remove it permanently, add --yes")
    else:
        say("there is nothing to remove")


def _aged(aged: ExpiredRuns) -> str:
    text = f"{counted(aged.runs, 'run')} with {counted(aged.steps, 'step')}"
    if not aged.runs:
        return text
    return f"{text}\n  ended from {instant(aged.oldest)} to {instant(aged.newest)}"


def _print(done: PruneReport, *, as_json: bool) -> None:
    if as_json:
        print_json({"pruned": True, **msgspec.structs.asdict(done)})
        return
    say(
        f"{counted(done.runs, 'run')} with {counted(done.steps, 'step')} removed; payloads of"
        f" {counted(done.runs_without_payloads, 'run')}\nand bytes of"
        f" {counted(done.dead_letters, 'dead letter')} removed"
    )
    if not done.complete:
        say("interrupted: repeat this to continue")
