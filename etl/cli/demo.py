"""`demo`: everything on this machine, on simulated data."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    exit: Annotated[bool, typer.Option("--exit", help="Exit once the backlog is loaded.")] = False,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Also export the history to Apache Iceberg tables in this folder; needs the extra"
            " packages of orchestra-etl[export].",
        ),
    ] = None,
) -> int:
    """Run everything on this machine, on simulated data.

    Starts an embedded PostgreSQL, a simulated API and the service, and shows a live summary until
    Ctrl-C. It ignores your settings and starts with an empty database of its own. It prints the
    line that points all other commands at its data.
    """
    from etl.demo import demo as run

    return run(exit_when_loaded=exit, export=export)
