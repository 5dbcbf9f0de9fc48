"""The whole command line: joins the command groups, and turns errors into exit statuses.

Each error is printed as one line.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from etl import terminal
from etl.cli.context import Invocation, print_json_error
from etl.cli.display import say
from etl.errors import (
    ConfigurationError,
    ConnectionRefused,
    DatabaseUnavailable,
    EtlError,
    system_reason,
)
from etl.exit_status import ExitStatus
from etl.terminal import LONGEST_LINE, plain

_MODULES = {
    "sync": "jobs",
    "serve": "jobs",
    "backfill": "jobs",
    "track": "track",
    "untrack": "track",
    "status": "status",
    "workflows": "workflows",
    "erase": "erase",
    "prune": "prune",
    "rebuild": "rebuild",
    "simulate": "simulate",
    "demo": "demo",
    "runs": "runs",
    "explain": "explain",
    "alerts": "alerts",
    "dead-letters": "dead_letters",
    "gaps": "gaps",
    "redact": "redact",
    "rollups": "rollups",
    "prices": "prices",
    "export": "export",
    "db": "db",
    "config": "config",
}
"""The module of `etl.cli` that registers each command, in the order of `--help`."""


class _Commands(Mapping[str, Any]):
    """The commands by name; looking one up imports its module.

    Importing and building all commands takes as long as the start of Python itself.
    """

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            part = typer.Typer(rich_markup_mode=None)
            import_module(f"etl.cli.{_MODULES[name]}").register(part)
            built = get_group(part)
            _prepare(built)
            self._built |= built.commands
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


def _prepare(command: Any) -> None:
    """Make a command and its subcommands refuse empty values, and leave types out of their help."""
    for parameter in command.params:
        _refuse_empty(parameter)
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
    for inner in getattr(command, "commands", {}).values():
        _prepare(inner)


def _refuse_empty(parameter: Any) -> None:
    """Make a parameter refuse an empty value, such as an unset variable of a shell.

    An empty host would mean every address, an empty path this folder, and an empty name nothing.
    """
    process = parameter.process_value

    def checked(context: typer.Context, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, str) and not one.strip():
                raise typer.BadParameter("must not be empty", ctx=context, param=parameter)
        return process(context, value)

    parameter.process_value = checked


class _Group(TyperGroup):
    """The command `orchestra-etl`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]
        for parameter in self.params:
            _refuse_empty(parameter)


def _epilog() -> str:
    """Return what follows the list of commands in `--help`."""
    statuses = "\n".join(f"  {one.value:>3}  {one.meaning}" for one in ExitStatus)
    return (
        "Start with `orchestra-etl demo`. For your own server: `config init`, `config check`,"
        " `sync`.\n\n\b\nWith --json, an error is one line of JSON on standard error:"
        '\n  {"error": "...", "exit_status": 2}'
        f"\n\n\b\nExit status:\n{statuses}"
    )


app = typer.Typer(
    name="orchestra-etl",
    cls=_Group,
    help="The durable run history of Orchestra AI workflows, in PostgreSQL.",
    epilog=_epilog(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"orchestra-etl {version('orchestra-etl')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The configuration file. Default: $ORCHESTRA_ETL_CONFIG, else config/etl.toml in"
            " this folder, else the file that `config init --user` writes.",
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


_COMPLETE = "_ORCHESTRA_ETL_COMPLETE"
"""The environment variable with which a shell requests completions."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""The errors of a stream whose disk is full or broken."""


@functools.cache
def _command() -> Any:
    return get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    # Completions, which a shell requests, are not escaped: they contain only the program's own
    # texts, and fish needs their tabs.
    streams = nullcontext() if _COMPLETE in os.environ else terminal.guarded()
    try:
        with streams:
            return _run(arguments)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed the pipe.
        sys.stdout = None
        return 0
    except OSError as error:
        return _unwritten(error, arguments)


def flushed(status: int, arguments: Sequence[str]) -> int:
    """Write what the standard streams still hold; return the exit status after that.

    Otherwise, the exiting interpreter would write it, and change the exit status to 120 if it
    cannot. Notes and log lines that cannot be written do not count.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None
    except OSError as error:
        unwritten = _unwritten(error, arguments)
        status = status or unwritten
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        sys.stderr = None
    return status


def _unwritten(error: OSError, arguments: Sequence[str]) -> int:
    """Report that the output cannot be written, and drop all more; return the exit status."""
    sys.stdout = None
    message = f"the output cannot be written: {system_reason(error)}"
    with suppress(OSError, AttributeError):
        if _wants_json(arguments):
            print_json_error(message, ExitStatus.UNEXPECTED)
        else:
            sys.stderr.write(f"orchestra-etl: {message}\n")
    return ExitStatus.UNEXPECTED


def _wants_json(arguments: Sequence[str]) -> bool:
    return "--json" in itertools.takewhile(lambda one: one != "--", arguments)


def _run(arguments: Sequence[str]) -> int:
    def fail(line: str, status: int) -> int:
        if _wants_json(arguments):
            print_json_error(plain(line, LONGEST_LINE), status)
        else:
            say(f"orchestra-etl: {plain(line, LONGEST_LINE)}", err=True)
        return status

    try:
        for number, argument in enumerate(arguments, 1):
            if not argument.isascii() and any("\ud800" <= one <= "\udfff" for one in argument):
                raise ConfigurationError(
                    f"argument {number} ({argument[:80]!a}) is not text in this system's encoding"
                    f" ({sys.getfilesystemencoding()})"
                )
        result = _command()(list(arguments), prog_name="orchestra-etl", standalone_mode=False)
    except (ConnectionRefused, DatabaseUnavailable) as error:
        return fail(f"{error}{_libpq_variables(str(error))}", error.exit_status)
    except EtlError as error:
        return fail(str(error), error.exit_status)
    except typer.Exit as error:
        return error.exit_code
    except typer.TyperException as error:
        # A wrong command line. `format_message` belongs to a class that is private to typer.
        message = str(getattr(error, "format_message", error.__str__)())
        if "\n" in message:
            # A group without a command: the text is its help.
            sys.stderr.write(f"{message}\n")
            return ExitStatus.USAGE
        message = message.replace(": Value error, ", ": ").rstrip(".")
        return fail(f"{message} (see `--help`)", ExitStatus.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
            raise
        return _unexpected(error, fail)
    return int(result or 0)


def _libpq_variables(line: str) -> str:
    """Return a note on the variables that libpq reads in addition to the URL.

    A wrong variable keeps a correct URL from working. The note is empty if the line already names
    one of them.
    """
    found = [
        name
        for name in sorted(os.environ)
        if name.startswith("PG") and name.isalpha() and os.environ[name]
    ]
    if not found or any(re.search(rf"\b{name}\b", line) for name in found):
        return ""
    return f"; libpq also reads {', '.join(found)} from the environment"


def _unexpected(error: Exception, fail: Callable[[str, int], int]) -> int:
    from etl import logs

    advice = (
        "; ORCHESTRA_ETL_LOGS__LEVEL=debug shows where"
        if logs.is_configured()
        else " before the settings were read: check the settings and the arguments"
    )
    # The error's own text is left out, because it may quote a row or a secret.
    status = fail(f"unexpected {type(error).__name__}{advice}", ExitStatus.UNEXPECTED)
    logs.log_traceback(error)
    return status
