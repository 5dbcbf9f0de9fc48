"""What commands share: the settings named on the command line, kinds of arguments, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from etl import terminal
from etl.cli.ids import no_json
from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Connection

    from etl.database import Database
    from etl.settings import Settings

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")
]
WorkflowIds = Annotated[
    list[str] | None,
    typer.Option(
        "--workflow", "-w", help="Only this workflow; may be given several times.", callback=no_json
    ),
]

Numbers = Annotated[
    list[int] | None,
    typer.Argument(min=1, max=2**63 - 1, metavar="ID", help="Numbers, as `list` shows them."),
]


class Invocation:
    """One call of the command."""

    def __init__(self, config: Path | None) -> None:
        self.config = config
        """The file named on the command line."""

    def settings(self) -> Settings:
        """Load the settings and set up the logs by them.

        Raises:
            ConfigurationError: a setting is wrong.
        """
        from etl import logs, settings

        loaded = settings.load(self.config)
        logs.configure(loaded.logs.level, loaded.logs.format)
        return loaded

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The configured database with the right schema, for commands that need nothing else.

        Raises:
            DatabaseError: it cannot be used.
        """
        from etl import app

        with app.open_database(self.settings()) as database:
            yield database


def check_stored(database: Database, workflows: Sequence[str] | None) -> None:
    """Make sure that something is stored of each of these workflows.

    Raises:
        ConfigurationError: of one of them nothing is.
    """
    from etl.admin import redaction

    if not workflows:
        return
    if unknown := set(workflows).difference(database.transaction(redaction.known_workflows)):
        raise ConfigurationError(
            f"nothing is stored of workflow {min(unknown)[:80]!r}: see `orchestra-etl status`"
        )


def invocation(context: typer.Context) -> Invocation:
    """The call that this command belongs to."""
    found = context.find_object(Invocation)
    if found is None:
        raise RuntimeError("the command was not called through etl.cli")
    return found


def console() -> Console:
    """Where people read results: standard output."""
    return terminal.console(soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Print a value as JSON; records by their fields, times in ISO 8601."""
    text = terminal.safe_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    # What the stream cannot write must still be JSON.
    unicode = terminal.is_unicode(terminal.unguarded(sys.stdout).encoding)
    sys.stdout.write((text if unicode else terminal.ascii_json(text)) + "\n")


def chosen(
    connection: Connection,
    numbers: list[int] | None,
    everything: bool,
    unknown: Callable[[Connection, Sequence[int]], list[int]],
    noun: str,
) -> list[int] | None:
    """The numbers given, all of which must exist; None for `--all`.

    Raises:
        ConfigurationError: neither or both were given, or a number does not exist; nothing is done then.
    """
    if bool(numbers) == everything:
        raise ConfigurationError(f"name each {noun} by its number, or give --all for all of them")
    if not numbers:
        return None
    if missing := unknown(connection, numbers):
        raise ConfigurationError(
            f"there is no {noun} {', '.join(map(str, missing))}; nothing was done"
        )
    return numbers
