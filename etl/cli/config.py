"""`config`: what is set, and whether it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import fields
from etl.errors import ApiError, EtlError, KeyRefused, NotFound, RequestRefused
from etl.terminal import plain

if TYPE_CHECKING:
    from etl.extract.client import OrchestraClient
    from etl.settings import Settings, Workflow


class Finding(msgspec.Struct, frozen=True):
    """What became of one trial."""

    subject: str
    ok: bool
    text: str
    exit_status: int = 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="config", help="What is set, and whether it works.", no_args_is_help=True)
    group.command("check")(check)
    group.command("show")(show)
    app.add_typer(group)


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """The settings in force, from the file and the environment; secrets are masked."""
    settings = invocation(context).settings()
    if as_json:
        print_json({"config_file": str(settings.config_file), **settings.masked()})
        return
    typer.echo(f"# {settings.config_file}")
    for name, value in settings.masked().items():
        for line in _settings_lines(name, value):
            typer.echo(plain(line))


def check(context: typer.Context, as_json: AsJson = False) -> int:
    """Try the settings, the API (each workflow with one request) and the database; changes nothing.

    Exit status: that of the first problem (2 settings, 3 the API refuses the key, 4 the database, 5 the API).
    """
    settings = invocation(context).settings()
    findings = [_settings_finding(settings), *asyncio.run(_try_api(settings)), _try_database(settings)]
    if as_json:
        print_json(findings)
    else:
        fields(console(), [("ok" if one.ok else "problem", f"{one.subject}: {plain(one.text)}") for one in findings])
    return next((one.exit_status for one in findings if not one.ok), 0)


def _settings_lines(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in _settings_lines(f"{name}.{key}", inner)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for n, inner in enumerate(value, 1) for line in _settings_lines(f"{name}[{n}]", inner)]
    return [f"{name} = {msgspec.json.encode(value).decode() if value is not None else 'not set'}"]


def _settings_finding(settings: Settings) -> Finding:
    if not settings.workflows and not settings.api.all_workflows:
        return Finding(
            "settings",
            False,
            f"{settings.config_file}: no workflow is configured; see `orchestra-etl workflows`, or set api.all_workflows = true",
            2,
        )
    try:
        settings.read_redaction_key()
    except EtlError as error:
        return Finding("settings", False, str(error), error.exit_status)
    workflows = "all workflows" if settings.api.all_workflows else f"{len(settings.workflows)} workflows"
    return Finding("settings", True, f"{settings.config_file}: {workflows}")


async def _try_api(settings: Settings) -> list[Finding]:
    from etl import app

    try:
        async with app.open_client(settings) as client:
            first = await _try("API", lambda: _list_workflows(client, settings))
            if not first.ok:
                return [first]
            found = [first]
            for workflow in settings.workflows:
                found.append(
                    await _try(f"workflow {plain(workflow.name or workflow.id, 36)}", _reader(client, workflow))
                )
            return found
    except EtlError as error:
        return [Finding("API", False, str(error), error.exit_status)]


def _reader(client: OrchestraClient, workflow: Workflow) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        if workflow.discover:
            await client.run_page(workflow.id, offset=0, limit=1)
            return "its runs can be listed"
        if not workflow.runs:
            return "not tried: its runs are not listed (discover = false), and none is named"
        await client.steps(workflow.id, workflow.runs[0])
        return "the steps of its first named run can be read"

    return read


async def _list_workflows(client: OrchestraClient, settings: Settings) -> str:
    from etl.transform.workflows import decode_workflows

    try:
        answer = await client.workflows()
    except KeyRefused:
        raise
    except (NotFound, RequestRefused) as error:
        if settings.api.all_workflows or not settings.workflows:
            raise type(error)(f"{error}; without a list of workflows, configure them by their ids") from None
        return f"{settings.api.base_url} answers, but lists no workflows"
    return f"{settings.api.base_url}: the key can see {len(decode_workflows(answer.body).workflows)} workflows"


async def _try(subject: str, trial: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(subject, True, await trial())
    except ApiError as error:
        return Finding(subject, False, str(error), error.exit_status)


def _try_database(settings: Settings) -> Finding:
    from etl import app, database, schema
    from etl.admin import roles
    from etl.settings import EMBEDDED

    try:
        with app.database_url(settings) as url:
            own = database.Database(url, patience=database.INTERACTIVE, pool_size=1)
            try:
                own.check_writable()
                found = schema.read(own)
                if found.revision is None and settings.database_url() == EMBEDDED:
                    return Finding("database", True, "embedded; the schema will be made at the first use")
                if found.revision is None and settings.database.migrate_on_start:
                    return Finding("database", True, "it answers; the schema will be made at the first use")
                found.check()
                if found.is_current:
                    roles.check_loader(own)
            finally:
                own.close()
    except EtlError as error:
        return Finding("database", False, str(error), error.exit_status)
    if not found.is_current:
        return Finding("database", True, f"it answers; {found.difference}, which may use it for now")
    return Finding("database", True, f"it answers, and the schema is up to date ({found.revision})")
