"""What every command shares: the settings named on the command line, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

if TYPE_CHECKING:
    from rich.console import Console

    from etl.database import Database
    from etl.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
WorkflowIds = Annotated[
    list[str] | None, typer.Option("--workflow", "-w", help="Only this workflow; may be given several times.")
]


class Invocation:
    """One call of the command."""

    def __init__(self, config: Path | None) -> None:
        self._config = config

    def settings(self) -> Settings:
        """Load the settings and set up the logs by them.

        Raises:
            ConfigurationError: a setting is wrong.
        """
        from etl import logs, settings

        loaded = settings.load(self._config)
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


def invocation(context: typer.Context) -> Invocation:
    """The call that this command belongs to."""
    found = context.find_object(Invocation)
    if found is None:
        raise RuntimeError("the command was not called through etl.cli")
    return found


def console() -> Console:
    """Where people read results: standard output."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Print a value as JSON; records by their fields, times in ISO 8601."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
