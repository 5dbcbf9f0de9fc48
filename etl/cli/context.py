"""What all commands share: the settings, types of arguments, and printing of results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import msgspec
import typer

from etl import terminal
from etl.cli.ids import bare_id
from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Connection

    from etl.database import Database
    from etl.settings import Settings

LARGEST_NUMBER = 2**63 - 1
"""The largest `bigint` of PostgreSQL."""


def numbered(value: Any) -> Any:
    """Check the numbers of rows, and return them unchanged.

    Raises:
        typer.BadParameter: a number is out of range.
    """
    for one in value if isinstance(value, list) else [value]:
        if one is not None and not 1 <= one <= LARGEST_NUMBER:
            raise typer.BadParameter(f"{one} is not a number that `list` shows")
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON.")]
WorkflowIds = Annotated[
    list[str] | None,
    typer.Option(
        "--workflow",
        "-w",
        metavar="WORKFLOW",
        help="Only this workflow: its id, a unique prefix of it, or its name. Repeatable.",
        callback=bare_id,
    ),
]

Numbers = Annotated[
    list[int] | None,
    typer.Argument(metavar="NUMBER", help="Numbers, as `list` shows them.", callback=numbered),
]
RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's id, or a unique prefix of it.", callback=bare_id),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", help="Remove the data. Without --yes, only report the data to remove."),
]


def examples(*lines: str) -> str:
    """Return example command lines for the end of a command's help; they are not wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  orchestra-etl {line}" for line in lines)


class Invocation:
    """One invocation of the command."""

    def __init__(self, config: Path | None) -> None:
        self.config = config
        """The file named on the command line; None: no file is named."""

    def settings(self) -> Settings:
        """Load the settings, and set up logging.

        Raises:
            ConfigurationError: a setting is wrong.
        """
        from etl import logs, settings

        loaded = settings.load(self.config)
        logs.configure(loaded.logs.level, loaded.logs.format)
        return loaded

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open the configured database with the right schema until the block ends.

        Raises:
            DatabaseError: the database cannot be used.
        """
        from etl import app

        with app.open_database(self.settings()) as database:
            yield database


def invocation(context: typer.Context) -> Invocation:
    """Return the invocation that this command belongs to."""
    found = context.find_object(Invocation)
    if found is None:
        raise RuntimeError("the command was not called through etl.cli")
    return found


def console() -> Console:
    """Return a console on standard output; it wraps lines on a terminal only."""
    return terminal.console(soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Print a value as JSON: records by their fields, times in ISO 8601."""
    text = terminal.safe_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    sys.stdout.write(_in_characters_of(text, sys.stdout) + "\n")


def print_json_error(message: str, exit_status: int) -> None:
    """Print an error as one line of JSON on standard error; standard output stays empty."""
    error = {"error": message, "exit_status": exit_status}
    text = terminal.safe_json(msgspec.json.encode(error).decode())
    sys.stderr.write(_in_characters_of(text, sys.stderr) + "\n")


def _in_characters_of(text: str, stream: TextIO) -> str:
    """Return equivalent JSON that the stream can encode; its own escapes would not be JSON."""
    is_unicode = terminal.is_unicode(terminal.unguarded(stream).encoding)
    return text if is_unicode else terminal.ascii_json(text)


def chosen(
    connection: Connection,
    numbers: list[int] | None,
    everything: bool,
    unknown: Callable[[Connection, Sequence[int]], list[int]],
    noun: str,
) -> list[int] | None:
    """Return the numbers on the command line, all of which must exist; None for `--all`.

    Raises:
        ConfigurationError: there are neither numbers nor `--all`, or both, or a number does not
            exist.
    """
    if bool(numbers) == everything:
        raise ConfigurationError(f"give the number of each {noun}, or --all for all of them")
    if not numbers:
        return None
    if missing := unknown(connection, numbers):
        raise ConfigurationError(
            f"there is no {noun} {', '.join(map(str, missing))}; nothing was done"
        )
    return numbers
