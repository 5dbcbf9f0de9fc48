"""`dead-letters`: lists, shows, retries and discards what could not be loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import (
    AsJson,
    Numbers,
    WorkflowIds,
    chosen,
    console,
    examples,
    invocation,
    numbered,
    print_json,
)
from etl.cli.display import fields, instant, listing, say
from etl.errors import ConfigurationError
from etl.terminal import counted, first_plain, plain

if TYPE_CHECKING:
    from etl.reports.dead_letters import StoredDeadLetter

Number = Annotated[
    int,
    typer.Argument(metavar="NUMBER", help="The dead letter's number.", callback=numbered),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="dead-letters",
        help="Inspect, retry and discard what could not be loaded.",
        no_args_is_help=True,
    )
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("retry", epilog=examples("dead-letters retry 17", "dead-letters retry --all"))(
        retry
    )
    group.command("discard")(discard)
    app.add_typer(group)


def list_letters(
    context: typer.Context,
    workflow: WorkflowIds = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list resolved dead letters.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List open dead letters, oldest first."""
    from etl.cli import resolve
    from etl.reports import dead_letters

    with invocation(context).database() as database:
        workflow = resolve.stored_workflows(database, workflow)
        found = database.transaction(
            lambda c: dead_letters.find(c, workflows=workflow, resolved=everything)
        )
        resolved = (
            0
            if everything
            else database.transaction(lambda c: dead_letters.count_resolved(c, workflows=workflow))
        )
    them = "it" if resolved == 1 else "them"
    more = f"{counted(resolved, 'resolved dead letter')}: --all shows {them}"
    if as_json:
        print_json(found)
        return
    if not found:
        say(f"no open dead letters; {more}" if resolved else "no dead letters")
        return
    listing(
        console(),
        ("id", "last seen", "reason", "bytes", "times", "state"),
        [
            (
                (
                    str(one.id),
                    instant(one.last_seen_at),
                    one.reason,
                    f"{one.size_bytes:,}",
                    f"{one.occurrences:,}",
                    one.resolution or "open",
                ),
                f"{_whose(one)}{plain(one.detail, 300)}",
            )
            for one in found
        ],
        numbers=("id", "bytes", "times"),
    )
    if resolved:
        say(f"and {more}")


def show(
    context: typer.Context,
    number: Number,
    body: Annotated[
        bool,
        typer.Option(
            "--body",
            help="Write only the exact bytes. On a terminal, unreadable bytes are escaped.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its reason."""
    from etl.ledger import dead_letters
    from etl.reports.dead_letters import get

    if body and as_json:
        raise ConfigurationError("--body writes only bytes: give --body or --json, not both")
    with invocation(context).database() as database:
        letter = database.transaction(lambda c: get(c, number))
        content = database.transaction(lambda c: dead_letters.body(c, number)) if body else None
    if letter is None:
        raise ConfigurationError(
            f"dead letter {number} does not exist: see `orchestra-etl dead-letters list --all`"
        )
    if content is not None:
        if sys.stdout.isatty():
            # A person reads this; a program or a file gets the exact bytes.
            typer.echo(content.decode("utf-8", "backslashreplace"))
            return
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    if as_json:
        print_json(letter)
        return
    seen = f"first {instant(letter.first_seen_at)}, last {instant(letter.last_seen_at)}"
    content_command = f"`orchestra-etl dead-letters show {letter.id} --body` writes them"
    resolved = (
        "no"
        if letter.resolved_at is None
        else f"{letter.resolution}, {instant(letter.resolved_at)}"
    )
    fields(
        console(),
        [
            ("dead letter", str(letter.id)),
            ("reason", f"{letter.reason}: {plain(letter.detail, 1000)}"),
            ("workflow", plain(f"{plain(letter.workflow_name or '', 200)} {letter.workflow_id}")),
            (
                "run",
                plain(letter.run_id)
                or "none: a row of the run list, or a workflow, without a usable id",
            ),
            ("step", plain(letter.step_id or "-")),
            ("seen", f"{counted(letter.occurrences, 'time')}, {seen}"),
            ("bytes", f"{letter.size_bytes:,}; {content_command}"),
            ("resolved", resolved),
        ],
    )


def retry(
    context: typer.Context,
    numbers: Numbers = None,
    everything: Annotated[bool, typer.Option("--all", help="All open dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Re-read the runs of dead letters.

    The service or the next `sync` re-reads them. A dead letter is resolved when its run is read
    without the problem.
    """
    from etl.ledger import dead_letters

    with invocation(context).database() as database:
        done = database.transaction(
            lambda c: dead_letters.retry(
                c, chosen(c, numbers, everything, unknown=dead_letters.unknown, noun="dead letter")
            )
        )
    if as_json:
        print_json(done)
        return
    say(f"{counted(done.runs, 'run')} will be re-read by `serve` or the next `sync`")
    if done.conflicts:
        say(f"{counted(done.conflicts, 'run')} will not: other workflows have runs with these ids")
    if done.removed:
        say(f"{counted(done.removed, 'dead letter')} skipped: the runs are erased or pruned")
    if done.without_run:
        which = ", ".join(map(str, done.without_run[:10])) + (
            ", …" if len(done.without_run) > 10 else ""
        )
        say(
            f"skipped, because they have no run that can be re-read: {which}; rows of the run list"
            " are read again by the next sweep; `discard` the others once you have looked at them"
        )


def discard(
    context: typer.Context,
    numbers: Numbers = None,
    everything: Annotated[bool, typer.Option("--all", help="All open dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Resolve dead letters without loading them.

    Their bytes are kept.
    """
    from etl.ledger import dead_letters

    with invocation(context).database() as database:
        done = database.transaction(
            lambda c: dead_letters.discard(
                c, chosen(c, numbers, everything, unknown=dead_letters.unknown, noun="dead letter")
            )
        )
    if as_json:
        print_json({"discarded": done})
    else:
        say(f"{counted(done, 'dead letter')} discarded")


def _whose(letter: StoredDeadLetter) -> str:
    """Return the workflow, run and step of a dead letter as a prefix, as far as it has them."""
    names = (
        first_plain(letter.workflow_name, letter.workflow_id, length=40),
        f"run {plain(letter.run_id)}" if letter.run_id else "",
        f"step {plain(letter.step_id)}" if letter.step_id else "",
    )
    text = ", ".join(name for name in names if name)
    return f"{text}: " if text else ""
