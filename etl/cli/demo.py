"""`demo`: the whole product on this machine, in one command."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    exit: Annotated[
        bool, typer.Option("--exit", help="End by itself when the backlog is loaded.")
    ] = False,
) -> int:
    """Show it working: an embedded PostgreSQL, a simulated API and the service, with a live summary.

    Uses nothing but this machine, whatever the environment says; each demo begins with an empty
    database of its own.
    """
    from etl.demo import demo as run

    return run(exit_when_loaded=exit)
