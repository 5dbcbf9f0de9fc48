"""`gaps`: times in which runs may have been missed."""

from __future__ import annotations

from typing import Annotated

import typer

from etl.cli.context import AsJson, Numbers, WorkflowIds, chosen, console, invocation, print_json
from etl.cli.display import instant, listing, say
from etl.terminal import counted, first_plain, plain


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="gaps",
        help="List and acknowledge times in which runs may be missing.",
        no_args_is_help=True,
    )
    group.command("list")(list_gaps)
    group.command("ack")(acknowledge)
    app.add_typer(group)


def list_gaps(
    context: typer.Context,
    workflow: WorkflowIds = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list acknowledged gaps.")] = False,
    as_json: AsJson = False,
) -> None:
    """List gaps that are not acknowledged, oldest first.

    In a gap, runs may have appeared and disappeared between two sweeps.
    """
    from etl.cli import resolve
    from etl.ledger import gaps

    with invocation(context).database() as database:
        workflow = resolve.stored_workflows(database, workflow)
        every = database.transaction(lambda c: gaps.find(c, workflows=workflow))
    found = [gap for gap in every if everything or gap.acknowledged_at is None]
    if as_json:
        print_json(found)
        return
    left = len(every) - len(found)
    more = f"{counted(left, 'acknowledged gap')}: --all shows {'it' if left == 1 else 'them'}"
    if not found:
        say(f"no gaps to acknowledge; {more}" if left else "no gaps")
        return
    listing(
        console(),
        ("id", "runs started after", "and before", "acknowledged"),
        [
            (
                (
                    str(gap.id),
                    instant(gap.after_time),
                    instant(gap.before_time),
                    "no" if gap.acknowledged_at is None else instant(gap.acknowledged_at),
                ),
                f"{first_plain(gap.workflow_name, gap.workflow_id, length=40)}:"
                f" {plain(gap.detail, 300)}",
            )
            for gap in found
        ],
        numbers=("id",),
    )
    if left:
        say(f"and {more}")


def acknowledge(
    context: typer.Context,
    numbers: Numbers = None,
    everything: Annotated[bool, typer.Option("--all", help="All gaps.")] = False,
    as_json: AsJson = False,
) -> None:
    """Acknowledge gaps, so that `status` no longer warns of them.

    `status` and `coverage` still name them.
    """
    from etl.ledger import gaps

    with invocation(context).database() as database:
        done = database.transaction(
            lambda c: gaps.acknowledge(
                c, chosen(c, numbers, everything, unknown=gaps.unknown, noun="gap")
            )
        )
    if as_json:
        print_json({"acknowledged": done})
    else:
        say(f"{counted(done, 'gap')} acknowledged")
