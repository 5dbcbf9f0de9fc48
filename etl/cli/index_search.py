"""`db index-search`: builds or drops the indexes of the search."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl import terminal
from etl.cli.context import AsJson, examples, invocation, print_json
from etl.cli.display import say, span
from etl.errors import ConfigurationError
from etl.exit_status import ExitStatus
from etl.terminal import counted

if TYPE_CHECKING:
    from etl.admin.search_index import BuildProgress, Estimate, Index

SLOWER = "a load takes four to seven times as long"
"""The cost on load, by `make bench-search`."""


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("index-search", epilog=examples("db index-search", "db index-search --yes"))(
        index_search
    )


def index_search(
    context: typer.Context,
    yes: Annotated[
        bool, typer.Option("--yes", help="Build the index. Without --yes, only report the cost.")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the index.")] = False,
    as_json: AsJson = False,
) -> int:
    """Build the search index.

    Reports what it would cost; --yes builds it. With it, a phrase in the whole history is found in
    about a second, and each load takes longer. It needs the extension pg_trgm, which comes with
    PostgreSQL and which the owner of the database may create. The service keeps running. You can
    stop and repeat it at any time: finished parts are kept.
    """
    from etl import app, schema
    from etl.admin import search_index
    from etl.cli.db import connected

    if yes and drop:
        raise ConfigurationError("--yes builds the index and --drop drops it: give one of them")
    with app.database_url(invocation(context).settings()) as url, connected(url) as own:
        schema.check_current(own)
        if drop:
            dropped = search_index.drop(own, url)
            if as_json:
                print_json({"dropped": dropped})
            elif dropped:
                say("the index is dropped; a search reads its window without it")
            else:
                say("nothing to do: there is no search index")
            return ExitStatus.DONE
        own.transaction(search_index.check_extension)
        found = own.transaction(search_index.existing)
        cost = own.transaction(search_index.estimate)
        complete = sum(one.is_valid for one in found) == len(search_index.KEYS)
        if not as_json:
            _print_state(found, cost, complete=complete, will_build=yes)
        built: list[str] = []
        if yes and not complete:
            try:
                with _shown() as report:
                    built = search_index.build(own, url, report)
            except KeyboardInterrupt:
                say("interrupted: repeat this to continue", err=True)
                return ExitStatus.INTERRUPTED
            found = own.transaction(search_index.existing)
    if as_json:
        print_json({"built": built, "indexes": found, "missing": msgspec.structs.asdict(cost)})
    elif built:
        size = sum(one.bytes for one in found)
        say(f"the index is built: {_size(size)}")
    return ExitStatus.DONE


def _print_state(found: list[Index], cost: Estimate, *, complete: bool, will_build: bool) -> None:
    valid = [one for one in found if one.is_valid]
    if complete:
        say(f"the index exists: {_size(sum(one.bytes for one in valid))}")
        return
    if valid:
        say(f"finished parts: {', '.join(one.table for one in valid)}")
    say(
        f"to index: {counted(cost.rows, 'row')}; about {_size(cost.bytes)} on disk and"
        f" {span(cost.seconds)}"
    )
    say(f"with the index, {SLOWER}")
    if not will_build:
        say("nothing was built: --yes builds it")


def _size(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1e3:,.0f} kB"


@contextmanager
def _shown() -> Iterator[Callable[[BuildProgress], None]]:
    """Show the progress while the block runs: a bar on a terminal, elsewhere a log line."""
    import structlog

    if not sys.stderr.isatty():
        log = structlog.get_logger("etl.progress")
        said: list[str] = []

        def report(progress: BuildProgress) -> None:
            if progress.table not in said:
                said.append(progress.table)
                log.info("search_index_progressed", table=progress.table)

        yield report
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Bar(*columns, console=terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task("index", total=1.0)
        yield lambda progress: bar.update(
            task, completed=progress.share, description=f"{progress.table}: {progress.phase}"
        )
