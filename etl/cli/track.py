"""`track` and `untrack`: request runs by id, and withdraw such requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli import ids
from etl.cli.context import AsJson, examples, invocation, print_json
from etl.cli.display import say
from etl.errors import (
    ApiError,
    ConfigurationError,
    InvalidIdentifier,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
)
from etl.exit_status import ExitStatus
from etl.terminal import counted, plain

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from etl.database import Database
    from etl.ledger.requests import TrackReport, UntrackReport
    from etl.settings import Settings

WorkflowId = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW",
        help="The workflow: its id, a unique prefix of it, or its name.",
        callback=ids.bare_id,
    ),
]

# Maximum number of runs that are requested if the API does not list the workflow: a run that exists
# proves that the workflow exists.
PROBES = 5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("track 1234f567 5b69669f-975a-49af-a33a-61ff9ae5a20f"))(track)
    app.command()(untrack)


def track(
    context: typer.Context,
    workflow: WorkflowId,
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Whole ids of runs. `-` reads ids, or responses of Execute, from standard input.",
        ),
    ],
    as_json: AsJson = False,
) -> int:
    """Read runs by id, whether or not the run list shows them.

    The service or the next `sync` reads them; known runs are re-read. The API must know the
    workflow. A run that the API has shown under another workflow stays there, and becomes a dead
    letter: exit status 6.
    """
    from etl import app
    from etl.ledger import requests, workflows

    wanted = list(ids.given(run))
    for one in wanted:
        _check_id(one, "run")
    settings = invocation(context).settings()
    new_letters = 0
    found: list[TrackReport] = []
    with app.open_database(settings) as database:
        workflow = _meant(settings, database, workflow)
        _check_id(workflow, "workflow")
        configured = workflow in [one.id for one in settings.workflows]
        if not configured and not database.transaction(lambda c: workflows.is_known(c, workflow)):
            _confirm(settings, workflow, wanted)
        for start in range(0, len(wanted), requests.BATCH):
            done, new = database.transaction(
                _entering(workflow, wanted[start : start + requests.BATCH])
            )
            found.append(done)
            new_letters += new
    _print_tracked(workflow, found, as_json=as_json)
    return ExitStatus.INCOMPLETE if new_letters else ExitStatus.DONE


def untrack(
    context: typer.Context,
    workflow: WorkflowId,
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Whole ids of runs. Default: all tracked runs of the workflow that the API has not"
            " shown.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forget tracked runs that the API has not shown.

    Use it to correct a typo. Runs that were read or listed stay: `erase` removes them.
    """
    from etl import app
    from etl.ledger import requests, workflows

    wanted = list(ids.given(run)) if run else None

    def forget(connection: Connection) -> tuple[UntrackReport, bool, bool]:
        return (
            requests.forget(connection, workflow, wanted),
            workflows.forget(connection, workflow),
            requests.are_history(connection, workflow, wanted or ()),
        )

    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        workflow = _meant(settings, database, workflow)
        done, forgotten, history = database.transaction(forget)
    if not any((done.runs, done.requests, done.dead_letters, forgotten)):
        why = (
            "the API has shown the runs, so only `orchestra-etl erase` removes them"
            if history
            else "check the ids"
        )
        raise ConfigurationError(
            f"there is nothing to forget under workflow {plain(workflow, 80)}: {why}"
        )
    named = sorted(
        one
        for entry in settings.workflows
        if entry.id == workflow
        for one in entry.runs
        if not wanted or one in wanted
    )
    if as_json:
        print_json(
            {
                "workflow_id": workflow,
                "runs": done.runs,
                "requests": done.requests,
                "dead_letters": done.dead_letters,
                "workflow_forgotten": forgotten,
                "in_configuration": named,
            }
        )
        return
    say(
        f"{counted(done.runs, 'run')}, {counted(done.requests, 'request')} and"
        f" {counted(done.dead_letters, 'dead letter')} forgotten"
        + ("; the workflow, too" if forgotten else "")
    )
    if history:
        say("runs that the API has shown stay: see `orchestra-etl erase`")
    if named:
        say("the configuration names these runs, so they come back: remove them from `runs`")


def _meant(settings: Settings, database: Database, typed: str) -> str:
    """Return the id of the workflow that `typed` stands for; `typed` itself if none fits."""
    from etl.cli import resolve
    from etl.ledger import lookup

    names = database.transaction(lookup.workflow_names)
    return (
        resolve.workflow(typed, {**names, **{one.id: one.name for one in settings.workflows}})
        or typed
    )


def _entering(workflow: str, ids: Sequence[str]) -> Callable[[Connection], tuple[TrackReport, int]]:
    from etl.ledger import conflicts, requests, workflows

    def enter(connection: Connection) -> tuple[TrackReport, int]:
        workflows.configure_unknown(connection, workflow)
        done = requests.track(connection, workflow, ids)
        return done, conflicts.record(connection, done.conflicts)

    return enter


def _confirm(settings: Settings, workflow: str, ids: Sequence[str]) -> None:
    """Check that the API knows the workflow; otherwise a typo would stay forever.

    Raises:
        ConfigurationError: the API neither lists the workflow nor has one of the runs, or a setting
            is wrong.
        ApiError: the API cannot be read.
    """
    import asyncio

    unknown = f"workflow {plain(workflow, 80)} is not configured, and nothing is stored for it"
    try:
        confirmed = asyncio.run(_is_confirmed(settings, workflow, ids))
    except (ConfigurationError, ApiError) as error:
        raise error.reworded(f"{unknown}, so the API must know it: {error}") from None
    if not confirmed:
        raise ConfigurationError(
            f"{unknown}; the API neither lists it nor has these runs, so nothing was tracked: see"
            " `orchestra-etl workflows`"
        )


async def _is_confirmed(settings: Settings, workflow: str, ids: Sequence[str]) -> bool:
    from etl import app
    from etl.transform.decode import decode_steps
    from etl.transform.states import StateMap
    from etl.transform.workflows import decode_workflows

    async with app.open_client(settings) as client:
        try:
            if any(
                one.id == workflow
                for one in decode_workflows((await client.workflows()).body).workflows
            ):
                return True
        except (NotFound, RequestRefused):
            pass  # This server does not list workflows.
        for one in ids[:PROBES]:
            try:
                response = await client.steps(workflow, one)
            except (NotFound, RequestRefused, InvalidIdentifier):
                continue
            except ResponseTooLarge:
                return True
            # An empty response proves nothing: some servers return an empty array for any id.
            steps = decode_steps(
                response.body, workflow_id=workflow, run_id=one, states=StateMap()
            ).steps
            if steps:
                return True
    return False


def _print_tracked(workflow: str, found: Sequence[TrackReport], *, as_json: bool) -> None:
    new, known, removed = (
        sum(getattr(one, name) for one in found) for name in ("new", "known", "removed")
    )
    conflicts = [one for done in found for one in done.conflicts]
    if as_json:
        elsewhere = [{"run_id": one.run_id, "workflow_id": one.owner} for one in conflicts]
        print_json(
            {
                "workflow_id": workflow,
                "new": new,
                "known": known,
                "removed": removed,
                "elsewhere": elsewhere,
            }
        )
        return
    say(
        f"{counted(new, 'new run')} and {counted(known, 'known run')} will be read by `serve` or"
        " the next `sync`"
    )
    if removed:
        say(f"{counted(removed, 'run')} skipped: erased or pruned")
    for one in conflicts[:10]:
        say(
            f"run {plain(one.run_id, 80)} belongs to workflow {plain(one.owner, 80)} and stays"
            " there"
        )
    if len(conflicts) > 10:
        say(f"{counted(len(conflicts) - 10, 'more run')} of other workflows skipped")


def _check_id(id: str, noun: str) -> None:
    from etl.settings.values import clean_id

    try:
        clean_id(id)
    except ValueError as error:
        raise ConfigurationError(f"{id[:80]!r} is not the id of a {noun}: it {error}") from None
