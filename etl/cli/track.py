"""`track` and `untrack`: runs asked for by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli import ids
from etl.cli.context import AsJson, invocation, print_json
from etl.cli.display import counted
from etl.errors import (
    ApiError,
    ConfigurationError,
    InvalidIdentifier,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
)
from etl.terminal import plain

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from etl.ledger.requests import TrackReport, UntrackReport
    from etl.settings import Settings

WorkflowId = Annotated[str, typer.Argument(help="The workflow's id.")]

# So many of the runs are asked for where the API does not list the workflow: one that is there
# proves it.
PROBES = 5
SET_ASIDE = 6


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(track)
    app.command()(untrack)


def track(
    context: typer.Context,
    workflow: WorkflowId,
    run: Annotated[
        list[str],
        typer.Argument(help="Run ids; `-` reads ids, or Execute's answers, from standard input."),
    ],
    as_json: AsJson = False,
) -> int:
    """Have runs read at the next poll, whether the list shows them or not; known ones are read again.

    A workflow that is not known here must be one that the API knows. A run that the API has shown
    under another workflow stays there: exit status 6 where that is news.
    """
    from etl import app
    from etl.ledger import requests, workflows

    _check_id(workflow, "workflow")
    wanted = list(ids.given(run))
    for one in wanted:
        _check_id(one, "run")
    settings = invocation(context).settings()
    set_aside = 0
    found: list[TrackReport] = []
    with app.open_database(settings) as database:
        configured = workflow in [one.id for one in settings.workflows]
        if not configured and not database.transaction(lambda c: workflows.is_known(c, workflow)):
            _confirm(settings, workflow, wanted)
        for start in range(0, len(wanted), requests.BATCH):
            done, new = database.transaction(
                _entering(workflow, wanted[start : start + requests.BATCH])
            )
            found.append(done)
            set_aside += new
    _print_tracked(workflow, found, as_json=as_json)
    return SET_ASIDE if set_aside else 0


def untrack(
    context: typer.Context,
    workflow: WorkflowId,
    run: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run ids; without any, all that were only asked for under this workflow."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forget runs that were asked for and that the API has not shown under this workflow, such as typing errors.

    What has been read or listed is history and stays: `erase` removes that.
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
        done, forgotten, history = database.transaction(forget)
    if not any((done.runs, done.requests, done.dead_letters, forgotten)):
        why = (
            "what the API has shown is history, see `orchestra-etl erase`"
            if history
            else "check the ids"
        )
        raise ConfigurationError(
            f"nothing was only asked for under workflow {plain(workflow, 80)}: {why}"
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
            {"workflow_id": workflow, "runs": done.runs, "requests": done.requests, "dead_letters": done.dead_letters,
             "workflow_forgotten": forgotten, "in_configuration": named}
        )  # fmt: skip
        return
    typer.echo(
        f"{counted(done.runs, 'run')}, {counted(done.requests, 'request')} and "
        f"{counted(done.dead_letters, 'dead letter')} forgotten"
        + ("; so is the workflow, of which nothing else is known" if forgotten else "")
    )
    if history:
        typer.echo("what the API has shown stays: see `orchestra-etl erase`")
    if named:
        typer.echo("the configuration names such runs, so they come back: take them out of `runs`")


def _entering(workflow: str, ids: Sequence[str]) -> Callable[[Connection], tuple[TrackReport, int]]:
    from etl.ledger import conflicts, requests, workflows

    def enter(connection: Connection) -> tuple[TrackReport, int]:
        workflows.configure_unknown(connection, workflow)
        done = requests.track(connection, workflow, ids)
        return done, conflicts.set_aside(connection, done.conflicts)

    return enter


def _confirm(settings: Settings, workflow: str, ids: Sequence[str]) -> None:
    """Make sure that the API knows the workflow: a typing error would stay for ever."""
    unknown = f"workflow {plain(workflow, 80)} is not configured, and nothing is stored of it"
    try:
        confirmed = asyncio.run(_is_confirmed(settings, workflow, ids))
    except (ConfigurationError, ApiError) as error:
        raise error.reworded(f"{unknown}, so the API must know it: {error}") from None
    if not confirmed:
        raise ConfigurationError(
            f"{unknown}; the API neither lists it nor answers for these runs: nothing was tracked, see `orchestra-etl workflows`"
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
            pass  # This server lists no workflows.
        for one in ids[:PROBES]:
            try:
                answer = await client.steps(workflow, one)
            except (NotFound, RequestRefused, InvalidIdentifier):
                continue
            except ResponseTooLarge:
                return True
            # An empty answer says nothing: there are servers that give one for any id.
            if decode_steps(answer.body, workflow_id=workflow, run_id=one, states=StateMap()).steps:
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
    typer.echo(
        f"{counted(new, 'new run')} tracked, {counted(known, 'known run')} to be read again, by `serve` or the next `sync`"
    )
    if removed:
        typer.echo(f"{removed} are erased or pruned and stay so")
    for one in conflicts[:10]:
        typer.echo(
            f"run {plain(one.run_id, 80)} belongs to workflow {plain(one.owner, 80)} and stays there"
        )
    if len(conflicts) > 10:
        typer.echo(f"{len(conflicts) - 10:,} more belong to other workflows and stay there")


def _check_id(id: str, noun: str) -> None:
    from etl.settings.values import clean_id

    try:
        clean_id(id)
    except ValueError as error:
        raise ConfigurationError(f"{id[:80]!r} is no {noun}'s id: it {error}") from None
