"""`dead-letters`: what could not be loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, Numbers, WorkflowIds, chosen, console, invocation, print_json
from etl.cli.display import counted, fields, instant, listing
from etl.errors import ConfigurationError
from etl.terminal import plain

if TYPE_CHECKING:
    from etl.reports.dead_letters import StoredDeadLetter

Number = Annotated[
    int, typer.Argument(min=1, max=2**63 - 1, metavar="ID", help="The letter's number.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="dead-letters",
        help="What could not be loaded, kept with its bytes.",
        no_args_is_help=True,
    )
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("retry")(retry)
    group.command("discard")(discard)
    app.add_typer(group)


def list_letters(
    context: typer.Context,
    workflow: WorkflowIds = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are settled.")] = False,
    as_json: AsJson = False,
) -> None:
    """The open letters, oldest first."""
    from etl.reports import dead_letters

    with invocation(context).database() as database:
        found = database.transaction(
            lambda c: dead_letters.find(c, workflows=workflow, resolved=everything)
        )
        settled = (
            0
            if everything
            else database.transaction(lambda c: dead_letters.count_settled(c, workflows=workflow))
        )
    more = f"{counted(settled, 'settled letter')}: --all shows {'it' if settled == 1 else 'them'}"
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo(f"no open letters; {more}" if settled else "nothing is set aside")
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
                f"{plain(one.workflow_name or one.workflow_id, 40)}, {_whose(one)}: {plain(one.detail, 300)}",
            )
            for one in found
        ],
        numbers=("id", "bytes", "times"),
    )
    if settled:
        typer.echo(f"and {more}")


def show(
    context: typer.Context,
    number: Number,
    body: Annotated[
        bool,
        typer.Option(
            "--body", help="Write the exact bytes and nothing else; a terminal gets them readable."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """One letter: whose it is and why it was set aside."""
    from etl.ledger import dead_letters
    from etl.reports.dead_letters import get

    if body and as_json:
        raise ConfigurationError(
            "--body writes the bytes and nothing else: give it or --json, not both"
        )
    with invocation(context).database() as database:
        letter = database.transaction(lambda c: get(c, number))
        content = database.transaction(lambda c: dead_letters.body(c, number)) if body else None
    if letter is None:
        raise ConfigurationError(
            f"there is no dead letter {number}: see `orchestra-etl dead-letters list --all`"
        )
    if content is not None:
        if sys.stdout.isatty():
            # Somebody looks at it; a program or a file gets the bytes.
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
    settled = (
        "no"
        if letter.resolved_at is None
        else f"{letter.resolution}, {instant(letter.resolved_at)}"
    )
    fields(
        console(),
        [
            ("letter", str(letter.id)),
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
            ("settled", settled),
        ],
    )


def retry(
    context: typer.Context,
    numbers: Numbers = None,
    everything: Annotated[bool, typer.Option("--all", help="All open letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have the runs of these letters read again; a letter is settled when its run was read without the trouble."""
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
    typer.echo(f"{counted(done.runs, 'run')} will be read again by `serve`, or the next `sync`")
    if done.conflicts:
        typer.echo(
            f"{counted(done.conflicts, 'run')} not: other workflows have runs of these ids, which keep them"
        )
    if done.removed:
        typer.echo(
            f"{counted(done.removed, 'letter')} of runs that are erased or pruned; they stay so"
        )
    if done.without_run:
        which = ", ".join(map(str, done.without_run[:10])) + (
            ", …" if len(done.without_run) > 10 else ""
        )
        typer.echo(
            f"of no run, but of the run list: {which}; there the next sweep sees the row again by itself; "
            "`discard` them once you have looked at them"
        )


def discard(
    context: typer.Context,
    numbers: Numbers = None,
    everything: Annotated[bool, typer.Option("--all", help="All open letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Settle letters without loading what they hold; they do not open again by themselves, and their bytes are kept."""
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
        typer.echo(f"{counted(done, 'dead letter')} discarded")


def _whose(letter: StoredDeadLetter) -> str:
    step = f", step {plain(letter.step_id)}" if letter.step_id else ""
    return f"run {plain(letter.run_id)}{step}" if letter.run_id else "the run list"
