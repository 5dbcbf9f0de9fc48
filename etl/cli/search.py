"""`runs search`: finds a phrase in payloads and errors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from etl import terminal
from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import instant, print_wrapped, say, styled
from etl.cli.ids import bare_id
from etl.cli.times import Since, Until, window
from etl.exit_status import ExitStatus
from etl.records import SearchPlace
from etl.terminal import counted, plain, visible

if TYPE_CHECKING:
    from etl.database import Database
    from etl.reports.search import Hit, Wanted

WINDOW = timedelta(days=7)
"""How far back a search reads without --since."""
# Seconds after which a search shows its progress.
QUIET = 1.0


class Found(msgspec.Struct):
    """The result of a search."""

    since: datetime
    """The search has read the runs that started at or after this time."""
    until: datetime | None
    """Only runs that started before this time were searched; None: no limit."""
    complete: bool
    """Whether the whole window was read: neither the limit nor the user ended the search."""
    next_until: datetime | None
    """With --until and this time, another search continues this one.

    None if it is complete, or if only a larger --limit shows more.
    """
    hits: list[Hit]
    interrupted: bool = False


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command(
        "search",
        epilog=examples(
            'runs search "refund policy"',
            'runs search "refund policy" --in answers --since 2026-01-01',
        ),
    )(search)


def search(
    context: typer.Context,
    phrase: Annotated[
        str, typer.Argument(metavar="PHRASE", help="The text to search for; case is ignored.")
    ],
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            "-w",
            metavar="WORKFLOW",
            help="Only this workflow: its id, a unique prefix of it, or its name.",
            callback=bare_id,
        ),
    ] = None,
    node: Annotated[str | None, typer.Option(metavar="ID", help="Only steps of this node.")] = None,
    since: Since = None,
    until: Until = None,
    within: Annotated[
        SearchPlace,
        typer.Option(
            "--in",
            metavar="PLACE",
            help="prompts (the texts sent to models), answers, errors, or all: these and every"
            " other string in inputs and outputs.",
        ),
    ] = "all",
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="NUMBER", help="Maximum number of hits.")
    ] = 20,
    as_json: AsJson = False,
) -> int:
    """Find a phrase in prompts, answers, errors and other payloads.

    The newest runs come first. Without --since, only the last 7 days are searched. `db
    index-search` builds an index with which a search of the whole history takes about a second.
    Each input, output and error counts once, and shows its first hit.
    """
    from etl.cli import resolve
    from etl.reports import search as report

    report.check_phrase(phrase)
    first, end = window(since, until)
    if first is None:
        first = (end or datetime.now(UTC)) - WINDOW
    with invocation(context).database() as database:
        only = resolve.stored_workflows(database, None if workflow is None else [workflow])
        wanted = report.Wanted(
            phrase=phrase, since=first, until=end, workflow=only[0] if only else None, node=node,
            within=within, limit=limit,
        )  # fmt: skip
        found = _run(database, wanted, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        _print_end(found, default_window=since is None)
    return ExitStatus.INTERRUPTED if found.interrupted else ExitStatus.DONE


def _run(database: Database, wanted: Wanted, *, as_json: bool) -> Found:
    """Search, and print the hits of each slice at once unless the result is JSON."""
    from etl.reports import search as report

    found = Found(
        since=wanted.since, until=wanted.until, complete=False, next_until=wanted.until, hits=[]
    )
    # One hit more shows whether the limit has cut something off.
    slices = report.slices(database, msgspec.structs.replace(wanted, limit=wanted.limit + 1))
    progress = _Progress()
    try:
        with progress.shown():
            for one in slices:
                shown = one.hits[: wanted.limit - len(found.hits)]
                found.hits += shown
                if not as_json:
                    with progress.hidden():
                        for hit in shown:
                            _print_hit(hit)
                if len(shown) < len(one.hits):
                    found.since, found.next_until = found.hits[-1].time, _after(found.hits)
                    return found
                found.since = found.next_until = one.since
                progress.update(one.share)
    except KeyboardInterrupt:
        found.interrupted = True
        return found
    found.since, found.complete, found.next_until = wanted.since, True, None
    return found


def _after(hits: list[Hit]) -> datetime | None:
    """Return the --until that continues the search; None if it would show the same hits.

    The last run may have more hits, so the search continues with that run.
    """
    last = hits[-1].time
    return None if hits[0].time == last else last + timedelta(microseconds=1)


def _print_hit(hit: Hit) -> None:
    out = console()
    node = plain(hit.node_id or "", 60)
    facts = [instant(hit.time), plain(hit.run_id), *([node] if node else []), hit.place]
    print_wrapped(out, styled("  ".join(facts)), indent=4)
    begin = hit.hit_start - 1
    end = begin + hit.hit_length
    before, found, after = (
        visible(part) for part in (hit.snippet[:begin], hit.snippet[begin:end], hit.snippet[end:])
    )
    line = styled("  " + before, "dim") + styled(found, "bold") + styled(after, "dim")
    print_wrapped(out, line, indent=2)


def _print_end(found: Found, *, default_window: bool) -> None:
    if found.complete:
        say(f"{counted(len(found.hits), 'hit')} in the runs since {instant(found.since)}")
        if default_window:
            say("--since searches further back")
        return
    hits = counted(len(found.hits), "hit")
    if found.next_until is not None:
        why = "interrupted" if found.interrupted else "more hits may follow"
        say(f"{hits}, {why}: continue with --until {found.next_until.isoformat()}")
    elif found.interrupted:
        say(f"{hits}, interrupted: repeat the command")
    else:
        say(f"{hits}, and more of the same run: repeat with a larger --limit")


class _Progress:
    """A bar on the terminal for a search that takes longer than a second."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._is_due = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar while the block runs, if standard error is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (TextColumn("searching"), BarColumn(), TaskProgressColumn())
        self._bar = Progress(*columns, console=terminal.console(stderr=True), transient=True)
        self._task = self._bar.add_task("search", total=1.0)
        timer = threading.Timer(QUIET, self._start)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._bar.stop()

    def _start(self) -> None:
        with self._lock:
            self._is_due.set()
            self._bar.start()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar while the block prints."""
        with self._lock:
            if self._is_due.is_set():
                self._bar.stop()
            yield
            if self._is_due.is_set():
                self._bar.start()

    def update(self, share: float) -> None:
        """Show how much is done, from 0 to 1."""
        if self._bar is not None:
            self._bar.update(self._task, completed=share)
