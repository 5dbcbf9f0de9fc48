"""`config`: writes, checks and shows the configuration."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import fields, say
from etl.errors import ApiError, ConfigurationError, EtlError, KeyRefused, NotFound, RequestRefused
from etl.exit_status import ExitStatus
from etl.terminal import counted, first_plain, plain

if TYPE_CHECKING:
    from etl.extract.client import OrchestraClient
    from etl.records import ApiResponse
    from etl.settings import Settings, WorkflowSettings


_UNLISTED = "responds, but lists no workflows"
_LISTED, _READ = "its runs can be listed", "the steps of the first run in `runs` can be read"
_CONFIRMING = (_LISTED, _READ)


class Finding(msgspec.Struct, frozen=True):
    """The result of one check."""

    subject: str
    ok: bool
    text: str
    exit_status: int = 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="config", help="Write, check and show the configuration.", no_args_is_help=True
    )
    group.command("init", epilog=examples("config init", "--config my.toml config init"))(init)
    group.command("check")(check)
    group.command("show")(show)
    group.command("schema")(schema)
    app.add_typer(group)


def init(
    context: typer.Context,
    user: Annotated[
        bool,
        typer.Option(
            "--user",
            help="Write to your configuration folder, for every folder without config/etl.toml.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a configuration file that explains every setting.

    An existing file is never overwritten. Without --user, it writes the file of --config or
    ORCHESTRA_ETL_CONFIG, else config/etl.toml in this folder. Its JSON Schema, for editors, is
    written beside it as etl.schema.json.
    """
    from etl.settings import sources

    named = sources.named_file(invocation(context).config, os.environ)
    if user and named is not None:
        raise ConfigurationError(
            f"--config or ORCHESTRA_ETL_CONFIG already names {named}: omit --user"
        )
    path = sources.user_file() if user else named or sources.WORKING_FOLDER
    if path is None:
        raise ConfigurationError("this user has no home folder: name a file with --config")
    if path.exists():
        raise ConfigurationError(f"{path} already exists, and was not changed")
    before = sources.config_file(None, os.environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The schema comes first: if it cannot be written, there is no file yet, and the user can
        # repeat the command.
        path.with_name(sources.SCHEMA_FILE).write_text(sources.json_schema(), encoding="utf-8")
        # Never overwrite a file that was created in the meantime.
        with path.open("x", encoding="utf-8") as file:
            file.write(sources.template())
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path} ({error.strerror}): name another file with --config"
            + ("" if user else ", or use --user")
        ) from None
    note = _other_file(path, before, sources.config_file(None, os.environ))
    if as_json:
        print_json({"config_file": str(path), "note": note})
        return
    say(f"wrote {path}: add your workflows to it (`orchestra-etl workflows` prints the lines)")
    if note:
        say(note)


def _other_file(written: Path, before: Path | None, used: Path | None) -> str | None:
    """Return a note if another file than the written one is used, or was used until now."""
    if used != written:
        other = "the built-in defaults" if used is None else str(used)
        return f"Without `--config {written}`, commands in this folder still use {other}."
    if before is not None and before != written:
        return f"Commands in this folder now use {written} instead of {before}."
    return None


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the settings from the file and the environment.

    Secrets are masked.
    """
    settings = invocation(context).settings()
    if as_json:
        print_json(
            {"config_file": settings.config_file and str(settings.config_file), **settings.masked()}
        )
        return
    say(f"# {plain(settings.source)}")
    for name, value in settings.masked().items():
        for line in _settings_lines(name, value):
            typer.echo(plain(line))


def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from etl.settings import sources

    typer.echo(sources.json_schema(), nl=False)


def check(context: typer.Context, as_json: AsJson = False) -> int:
    """Try the settings, the API and the database.

    Sends one request per workflow, and changes nothing. The exit status is that of the first
    problem.
    """
    import asyncio

    settings = invocation(context).settings()
    database = _try_database(settings)
    findings = [
        _settings_finding(settings),
        *asyncio.run(_try_api(settings)),
        database,
        *_try_alerts(settings, with_history=database.ok),
        *_old_prices(),
    ]
    if as_json:
        print_json(findings)
    else:
        fields(
            console(),
            [
                ("ok" if one.ok else "problem", f"{one.subject}: {plain(one.text)}")
                for one in findings
            ],
        )
    return next((one.exit_status for one in findings if not one.ok), 0)


def _settings_lines(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [
            line for key, inner in value.items() for line in _settings_lines(f"{name}.{key}", inner)
        ]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [
            line
            for n, inner in enumerate(value, 1)
            for line in _settings_lines(f"{name}[{n}]", inner)
        ]
    return [f"{name} = {msgspec.json.encode(value).decode() if value is not None else 'not set'}"]


def _settings_finding(settings: Settings) -> Finding:
    if not settings.workflows and not settings.api.all_workflows:
        return Finding(
            "settings",
            False,
            f"no workflow is configured ({settings.source}): see `orchestra-etl workflows`,"
            " or set api.all_workflows = true",
            ExitStatus.USAGE,
        )
    try:
        settings.read_redaction_key()
    except EtlError as error:
        return Finding("settings", False, str(error), error.exit_status)
    workflows = (
        "all workflows"
        if settings.api.all_workflows
        else counted(len(settings.workflows), "workflow")
    )
    return Finding("settings", True, f"{workflows} ({settings.source})")


def _old_prices() -> list[Finding]:
    """Return a finding if the published prices are old; a newer package contains newer prices."""
    from etl.analytics.price_publication import publication

    published = publication(datetime.now(UTC).date())
    return [Finding("published prices", True, published.text)] if published.is_old else []


async def _try_api(settings: Settings) -> list[Finding]:
    from etl import app

    try:
        async with app.open_client(settings) as client:
            first = await _try("API", lambda: _list_workflows(client, settings))
            if not first.ok:
                return [first]
            found = [
                await _try(
                    f"workflow {first_plain(workflow.name, workflow.id, length=36)}",
                    _reader(client, workflow),
                )
                for workflow in settings.workflows
            ]
            if first.text.endswith(_UNLISTED) and not any(
                one.ok and one.text in _CONFIRMING for one in found
            ):
                first = Finding(
                    "API",
                    False,
                    f"{settings.api.base_url}: lists no workflows, and nothing else shows that this"
                    " is the API: compare `api.base_url` with your server's documentation",
                    ApiError.exit_status,
                )
            return [first, *found]
    except EtlError as error:
        return [Finding("API", False, str(error), error.exit_status)]


def _reader(client: OrchestraClient, workflow: WorkflowSettings) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        if workflow.discover:
            _expect_list(await client.run_page(workflow.id, offset=0, limit=1))
            return _LISTED
        if not workflow.runs:
            return "not tried: discover = false, and `runs` names no run"
        _expect_list(await client.steps(workflow.id, workflow.runs[0]))
        return _READ

    return read


async def _list_workflows(client: OrchestraClient, settings: Settings) -> str:
    from etl.transform.workflows import decode_workflows

    try:
        response = await client.workflows()
    except KeyRefused:
        raise
    except (NotFound, RequestRefused) as error:
        if settings.api.all_workflows or not settings.workflows:
            raise error.reworded(
                f"{error}; if the server does not list workflows, configure them by their ids"
            ) from None
        return f"{settings.api.base_url} {_UNLISTED}"
    _expect_list(response)
    visible = len(decode_workflows(response.body).workflows)
    return f"{settings.api.base_url}: the key can see {counted(visible, 'workflow')}"


def _expect_list(response: ApiResponse) -> None:
    """Check that the response comes from the API: any web server may return status 200.

    The array is read as tolerantly as by a load, so that one bad element is no problem here.

    Raises:
        ApiError: the body is not a JSON array.
    """
    from etl.transform import scanner

    if scanner.split(response.body) is None:
        raise ApiError(
            "the response is not a JSON array: compare `api.base_url` with your server's"
            " documentation"
        )


async def _try(subject: str, trial: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(subject, True, await trial())
    except ApiError as error:
        return Finding(subject, False, str(error), error.exit_status)


def _try_database(settings: Settings) -> Finding:
    from etl import app, database, schema
    from etl.admin import grants
    from etl.ledger import rebuilds
    from etl.settings import EMBEDDED

    try:
        with app.database_url(settings) as url:
            own = database.Database(url, patience=database.INTERACTIVE, pool_size=1)
            try:
                own.check_writable()
                found = schema.read(own)
                if found.revision is None and settings.database_url() == EMBEDDED:
                    return Finding("database", True, "embedded; the first use creates the schema")
                if found.revision is None and settings.database.migrate_on_start:
                    return Finding(
                        "database", True, "it responds; the first use creates the schema"
                    )
                found.check()
                if found.is_current:
                    grants.check_loader(own)
                due = own.transaction(rebuilds.due)
            finally:
                own.close()
    except EtlError as error:
        return Finding("database", False, str(error), error.exit_status)
    if not found.is_current:
        return Finding(
            "database", True, f"it responds; {found.difference}, which may use it for now"
        )
    text = f"it responds, and the schema is up to date ({found.revision})"
    return Finding("database", True, text if due is None else f"{text}; {due.advice}")


def _try_alerts(settings: Settings, *, with_history: bool) -> list[Finding]:
    """Return the rules that can never fire; with history, also those with unknown names."""
    from etl import alerting, app, database, schema
    from etl.alerts import mistakes

    if not settings.alerts:
        return []
    rules, pauses = alerting.rules(settings), alerting.pauses(settings)
    labels = {one.id: one.labels for one in settings.workflows}
    found = mistakes.in_settings(rules, pauses, labels, kept=settings.retention.runs)
    if with_history:
        with app.database_url(settings) as url:
            own = database.Database(url, patience=database.INTERACTIVE, pool_size=1)
            try:
                if schema.read(own).revision is not None:
                    known = own.transaction(lambda c: mistakes.in_history(c, rules, pauses))
                    wrong = {one.rule for one in found}
                    found += [one for one in known if one.rule not in wrong]
            finally:
                own.close()
    if not found:
        return [Finding("alerts", True, counted(len(rules), "rule"))]
    return [
        Finding(
            f"alert {plain(one.rule, 60)}",
            False,
            f"it can never fire: {one.text}",
            ExitStatus.USAGE,
        )
        for one in found
    ]
