"""`workflows`: the workflows that the API key can see."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec
import typer

from etl import terminal
from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import listing, say
from etl.errors import NotFound, RequestRefused
from etl.terminal import first_plain, plain

if TYPE_CHECKING:
    from etl.records import Workflow
    from etl.settings import Settings


_LONGEST_NAME = 200
"""Maximum number of characters of a name in the printed lines."""


class WorkflowEntry(msgspec.Struct, frozen=True):
    """A workflow that the key can see or that is configured."""

    id: str
    name: str | None
    description: str | None
    configured: bool
    visible: bool
    """False: the workflow is configured, but the API does not list it for this key."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(workflows)


def workflows(context: typer.Context, as_json: AsJson = False) -> None:
    """List the workflows that the API key can see.

    Shows which of them are configured, and the lines to add to the configuration for the others.
    """
    import asyncio

    settings = invocation(context).settings()
    found = _compare(settings, asyncio.run(_read_visible(settings)))
    if as_json:
        print_json(found)
        return
    if not found:
        say("the key can see no workflow")
        return
    every = settings.api.all_workflows
    listing(
        console(),
        ("workflow", "configured"),
        [
            (
                (plain(one.id), "yes" if one.configured else "all_workflows" if every else "no"),
                first_plain(one.name, "without a name", length=100)
                + ("" if one.visible else " (the API does not list it for this key)"),
            )
            for one in found
        ],
    )
    if every:
        return
    missing = [one for one in found if not one.configured and _can_be_named(one.id)]
    for one in found:
        if not one.configured and one not in missing:
            say(
                f"the id of workflow {plain(one.id, 80)} does not fit in the configuration (hidden"
                " characters, quotes, outer spaces): only api.all_workflows = true reads its runs",
                err=True,
            )
    if missing:
        say(f"\n# To store their runs, too, add this to {plain(_file(settings))}:")
        for one in missing:
            typer.echo(f"\n[[workflows]]\nid = {_toml(one.id)}")
            # Without this line, the API's name is shown.
            if one.name and one.name.strip() and len(one.name) <= _LONGEST_NAME:
                typer.echo(f"name = {_toml(one.name)}")


async def _read_visible(settings: Settings) -> tuple[Workflow, ...]:
    from etl import app
    from etl.transform.workflows import decode_workflows

    async with app.open_client(settings) as client:
        try:
            response = await client.workflows()
        except (NotFound, RequestRefused) as error:
            if error.status not in (404, 405):
                raise
            raise error.reworded(
                f"{error}; if the server does not list workflows, configure them by their ids"
            ) from None
    found = decode_workflows(response.body)
    for _ in found.rejected:
        say(
            "a workflow was skipped: it has no id, or its id does not fit in a request's path",
            err=True,
        )
    return found.workflows


def _compare(settings: Settings, visible: tuple[Workflow, ...]) -> list[WorkflowEntry]:
    configured = {one.id: one for one in settings.workflows}
    listed = {one.id for one in visible}
    return [
        WorkflowEntry(
            id=one.id,
            name=one.name,
            description=one.description,
            configured=one.id in configured,
            visible=True,
        )
        for one in visible
    ] + [
        WorkflowEntry(id=one.id, name=one.name, description=None, configured=True, visible=False)
        for one in settings.workflows
        if one.id not in listed
    ]


def _file(settings: Settings) -> str:
    return str(settings.config_file or "the file that `orchestra-etl config init` writes")


def _can_be_named(id: str) -> bool:
    """Return whether the settings accept this id; a server may list ids that they refuse."""
    from etl.settings.values import clean_id

    try:
        clean_id(id)
    except ValueError:
        return False
    return True


def _toml(text: str) -> str:
    """Return a TOML string: a JSON string, in which hidden characters have TOML's own escapes."""
    unicode = terminal.is_unicode(terminal.unguarded(sys.stdout).encoding)
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        one if one.isprintable() and (unicode or one.isascii()) else f"\\U{ord(one):08x}"
        for one in quoted
    )
