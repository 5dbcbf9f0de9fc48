"""`explain`: why a figure of a workflow differs between two periods."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import fields, instant, listing, say
from etl.cli.ids import bare_id
from etl.cli.times import age_or_time, time
from etl.errors import ConfigurationError
from etl.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Connection

    from etl.analytics.explanation import Calls, Explanation, Figure, FigureChange, Part, Period

DETAILS = 5
"""Maximum number of lines below a part."""

Workflow = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW",
        help="The workflow's id, a unique prefix of it, or its name.",
        callback=bare_id,
    ),
]
Since = Annotated[
    str,
    typer.Option(
        metavar="WHEN", help="Start of the period: 7d for 7 days before its end, or a time (UTC)."
    ),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="End of the period (UTC). Default: now.")
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="The period to compare with: 7d for the 7 days before the period, or the time (UTC)"
        " at which an equally long one begins. Default: as long as the period, directly before it.",
    ),
]

Organisation = Annotated[
    str | None,
    typer.Option(
        "--organisation",
        "--organization",
        metavar="ID",
        help="Only calls in runs of this organisation.",
    ),
]
Node = Annotated[str | None, typer.Option(metavar="ID", help="Only calls of this node.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Only calls of this model.")]


class Incomplete(msgspec.Struct, frozen=True):
    """What may be missing from the periods."""

    period: tuple[str, ...]
    baseline: tuple[str, ...]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="explain",
        help="Show why a figure differs between two periods.",
        no_args_is_help=True,
    )
    group.command("cost", epilog=examples("explain cost 'weather jokes' --since 7d --against 7d"))(
        cost
    )
    group.command("duration", epilog=examples("explain duration 'weather jokes' --since 1d"))(
        duration
    )
    group.command("failures", epilog=examples("explain failures 'weather jokes' --since 24h"))(
        failures
    )
    app.add_typer(group)


def cost(
    context: typer.Context,
    workflow: Workflow,
    since: Since = "7d",
    until: Until = None,
    against: Against = None,
    organisation: Organisation = None,
    node: Node = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Show why a workflow costs more or less than before.

    The difference is split into the number of runs, the workflow's version, the nodes and their
    calls per run, the models, the tokens per call by kind, and the prices. Calls without a known
    cost are separate parts. The parts add up to the difference. Each currency is explained
    separately.
    --organisation, --node and --model explain the cost of a part of the workflow's calls.
    """
    from etl.analytics.explanation import Calls

    periods = _periods(since, until, against)
    calls = Calls(organisation, node, model)
    _explain(context, "cost", workflow, periods=periods, as_json=as_json, calls=calls)


def duration(
    context: typer.Context,
    workflow: Workflow,
    since: Since = "7d",
    until: Until = None,
    against: Against = None,
    as_json: AsJson = False,
) -> None:
    """Show why runs take longer or shorter than before.

    The difference of the mean duration of successful runs is split into the nodes on the critical
    path (how often they are on it, and how long they take) and the waiting between them.
    """
    periods = _periods(since, until, against)
    _explain(context, "duration", workflow, periods=periods, as_json=as_json)


def failures(
    context: typer.Context,
    workflow: Workflow,
    since: Since = "7d",
    until: Until = None,
    against: Against = None,
    as_json: AsJson = False,
) -> None:
    """Show why more or fewer steps fail than before.

    The difference is split into the number of runs, and the failures per run by node and kind of
    failure: new, grown, shrunk or gone. Soft failures count.
    """
    periods = _periods(since, until, against)
    _explain(context, "failures", workflow, periods=periods, as_json=as_json)


def _explain(
    context: typer.Context,
    figure: Figure,
    workflow: str,
    *,
    periods: tuple[Period, Period],
    as_json: bool,
    calls: Calls | None = None,
) -> None:
    """Explain a figure of a workflow in the first period against the second one."""
    from etl.alerts import completeness
    from etl.analytics import explanation
    from etl.cli import resolve

    period, baseline = periods

    with invocation(context).database() as database:
        ids = resolve.stored_workflows(database, [workflow])
        workflow_id = ids[0] if ids else workflow

        def work(connection: Connection) -> tuple[Explanation, Incomplete]:
            found = explanation.explain(
                connection,
                figure,
                workflow_id,
                period=period,
                baseline=baseline,
                calls=calls or explanation.ALL_CALLS,
            )
            return found, Incomplete(
                *(
                    completeness.problems(connection, workflow_id, one.since, one.until)
                    for one in periods
                )
            )

        found, incomplete = database.transaction(work)
    if as_json:
        print_json({**msgspec.structs.asdict(found), "incomplete": incomplete})
    else:
        _print(found, incomplete)


def _periods(since: str, until: str | None, against: str | None) -> tuple[Period, Period]:
    """Return the period and the one to compare it with.

    Raises:
        ConfigurationError: an option is invalid, or the period is empty.
    """
    from etl.analytics.explanation import Period

    end = time("--until", until) or datetime.now(UTC)
    length = age_or_time("--since", since)
    before = None if against is None else age_or_time("--against", against)
    try:
        begin = length if isinstance(length, datetime) else end - length
        if begin >= end:
            raise ConfigurationError("--since must be earlier than the end of the period")
        if isinstance(before, datetime):
            return Period(begin, end), Period(before, before + (end - begin))
        return Period(begin, end), Period(begin - (before or end - begin), begin)
    except OverflowError:
        raise ConfigurationError("the periods must be within the years 1 to 9999") from None


def _print(found: Explanation, incomplete: Incomplete) -> None:
    out = console()
    name = f"{plain(found.workflow_name, 200)} " if found.workflow_name else ""
    fields(
        out,
        [
            ("workflow", f"{name}({plain(found.workflow_id)})"),
            *(
                (part, plain(value, 200))
                for part, value in msgspec.structs.asdict(found.calls).items()
                if value is not None
            ),
            ("period", _period(found.period)),
            ("against", _period(found.baseline)),
            *(("incomplete", f"the period: {one}") for one in incomplete.period),
            *(("incomplete", f"the baseline: {one}") for one in incomplete.baseline),
        ],
    )
    for difference in found.differences:
        out.print()
        _print_difference(out, difference)
    if not found.differences:
        say(
            {
                "cost": "\nno call in these periods has a cost: see `orchestra-etl prices list`",
                "duration": "\nthere must be successful runs in both periods",
                "failures": "",
            }[found.figure]
        )


def _period(period: Period) -> str:
    return f"{instant(period.since)} to {instant(period.until)}"


def _print_difference(out: Console, difference: FigureChange) -> None:
    from etl.analytics.explanation import describe, signed

    unit = difference.unit
    totals = [difference.before]
    entries: list[tuple[Sequence[str], Sequence[str]]] = [
        (("before", "", _total(difference.before, unit)), ())
    ]
    for part, group in groupby(difference.parts, key=_part):
        parts: list[Part] = list(group)
        totals.append(totals[-1] + sum((one.amount for one in parts), Decimal(0)))
        # The difference of two rounded totals, so that the amounts shown add up, too.
        change = _rounded(totals[-1], unit) - _rounded(totals[-2], unit)
        lines = [f"{signed(one.amount, unit)}: {describe(one)}" for one in parts[:DETAILS]]
        if len(parts) > DETAILS:
            rest = sum((one.amount for one in parts[DETAILS:]), Decimal(0))
            lines.append(f"{signed(rest, unit)}: {len(parts) - DETAILS:,} more")
        entries.append(((part.replace("_", " "), f"{change:+,f}", ""), lines))
    change = _rounded(difference.after, unit) - _rounded(difference.before, unit)
    entries.append((("after", f"{change:+,f}", _total(difference.after, unit)), ()))
    listing(out, ("part", "change", f"total ({plain(unit, 10)})"), entries, numbers=("change",))


def _part(one: Part) -> str:
    return one.part


def _total(amount: Decimal, unit: str) -> str:
    return f"{_rounded(amount, unit):,f}"


def _rounded(amount: Decimal, unit: str) -> Decimal:
    return round(amount, {"ms": 1, "failures": 1}.get(unit, 6))
