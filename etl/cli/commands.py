"""Puts the command groups together, and turns every error into one line and an exit status."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from etl import terminal
from etl.cli import (
    config,
    db,
    dead_letters,
    demo,
    erase,
    gaps,
    jobs,
    prices,
    prune,
    rebuild,
    redact,
    rollups,
    runs,
    simulate,
    status,
    track,
    workflows,
)
from etl.cli.context import Invocation
from etl.errors import ConfigurationError, ConnectionRefused, DatabaseUnavailable, EtlError
from etl.terminal import LONGEST_LINE, plain

app = typer.Typer(
    name="orchestra-etl",
    help="The durable run history of Orchestra AI workflows, in PostgreSQL.",
    epilog="Start with `orchestra-etl demo`; then `orchestra-etl config init`, and `orchestra-etl config check`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orchestra-etl {version('orchestra-etl')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The configuration file; else ORCHESTRA_ETL_CONFIG, ./config/etl.toml, or the one of `config init --user`.",
            metavar="FILE",
        ),
    ] = None,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    context.obj = Invocation(config)


for group in (
    jobs,
    track,
    runs,
    status,
    workflows,
    dead_letters,
    gaps,
    erase,
    prune,
    rebuild,
    redact,
    rollups,
    prices,
    db,
    config,
    simulate,
    demo,
):
    group.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        with terminal.guarded():
            return _run(arguments)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        sys.stdout = None
        return 0


def _run(arguments: Sequence[str]) -> int:
    try:
        for number, argument in enumerate(arguments, 1):
            if not argument.isascii() and any("\ud800" <= one <= "\udfff" for one in argument):
                raise ConfigurationError(
                    f"argument {number} ({argument[:80]!a}) is not text in this system's encoding"
                    f" ({sys.getfilesystemencoding()})"
                )
        result = app(list(arguments), prog_name="orchestra-etl", standalone_mode=False)
    except (ConnectionRefused, DatabaseUnavailable) as error:
        return _say(f"{error}{_libpq_variables(str(error))}", error.exit_status)
    except EtlError as error:
        return _say(str(error), error.exit_status)
    except typer.Exit as error:
        return error.exit_code
    except typer.TyperException as error:
        # A mistake on the command line; the class that knows its text is private to typer.
        message = str(getattr(error, "format_message", error.__str__)())
        if "\n" in message:
            # A group without a command: the text is its help.
            sys.stderr.write(f"{message}\n")
            return 2
        return _say(f"{message} (see `--help`)", 2)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        return _unexpected(error)
    return int(result or 0)


def _libpq_variables(line: str) -> str:
    """The variables that libpq reads beside the URL: one that is wrong keeps a right URL from working. None where the line
    itself names one."""
    found = [
        name
        for name in sorted(os.environ)
        if name.startswith("PG") and name.isalpha() and os.environ[name]
    ]
    if not found or any(re.search(rf"\b{name}\b", line) for name in found):
        return ""
    return f"; libpq also follows {', '.join(found)} of the environment"


def _unexpected(error: Exception) -> int:
    from etl import logs

    advice = (
        "; ORCHESTRA_ETL_LOGS__LEVEL=debug shows where"
        if logs.is_configured()
        else " before the settings were read: check them and the arguments"
    )
    # Not its text: it may quote a row or a secret.
    status = _say(f"unexpected {type(error).__name__}{advice}", 1)
    logs.log_traceback(error)
    return status


def _say(line: str, status: int) -> int:
    sys.stderr.write(f"orchestra-etl: {plain(line, LONGEST_LINE)}\n")
    return status
