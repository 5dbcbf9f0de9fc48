"""`runs compare`: two runs side by side, and where their inputs and outputs first differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import amount, duration, fields, instant, state, styled
from etl.cli.ids import bare_id
from etl.errors import ConfigurationError
from etl.terminal import counted, first_plain, plain, safe_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from sqlalchemy import Connection

    from etl.reports.comparison import (
        ComparedNode,
        ComparedPayload,
        ComparedRun,
        ComparedStep,
        Comparison,
    )

Number = TypeVar("Number", int, float, Decimal)
_LABEL = 12
"""The width of the first column, in characters."""
_WIDEST = 36
"""The greatest width of the columns of A and of B, in characters."""


def compare(
    context: typer.Context,
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="A run's id, or a unique prefix of it.", callback=bare_id),
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", help="The run to compare it with.", callback=bare_id)
    ],
    as_json: AsJson = False,
) -> None:
    """Compare two runs, step by step.

    Shows outcomes, durations, tokens and costs, and where inputs and outputs first differ.

    Steps are matched by their node; the steps of one node, in the order of their starts. What is
    unknown stays unknown, and costs in different currencies are not subtracted.

    The first difference is shown as its JSON path with both values, shortened. Ids and times differ
    in every run, so such a difference counts only if there is no other: between two UUIDs, two
    times, two values that contain their own run's id, or in a member whose name ends in a word such
    as id, created, at, time, timestamp or duration.

    The exit status is 0 whether or not the runs differ.
    """
    from etl.cli import resolve
    from etl.reports import comparison

    def work(connection: Connection) -> Comparison | str:
        ids = [resolve.run(connection, one) for one in (a, b)]
        return comparison.compare(connection, *ids)

    with invocation(context).database() as database:
        found = database.transaction(work)
    if isinstance(found, str):
        raise ConfigurationError(
            f"nothing is stored for run {plain(found, 80)!r}: `orchestra-etl runs show` says why"
        )
    if as_json:
        print_json(found)
        return
    out = console()
    _print_runs(out, found)
    for node in found.nodes:
        _print_node(out, node)


def _print_runs(out: Console, found: Comparison) -> None:
    fields(
        out,
        [
            *((name, _name(run)) for name, run in (("A", found.a), ("B", found.b))),
            ("first", _first(found)),
            *(("note", note) for note in found.notes),
        ],
    )
    out.print()
    a, b = found.a, found.b
    _row(out, "", (styled("A", "bold"), styled("B", "bold")), "B - A")
    _row(out, "outcome", _both(found, lambda run: state(run.outcome)))
    _row(out, "start", _both(found, lambda run: instant(run.start_time)))
    more = _signed(b.steps - a.steps, "{:,}".format)
    _row(out, "steps", _both(found, lambda run: f"{run.steps:,}"), more)
    _totals(out, found)
    _payloads(out, found.inputs, found.outputs)
    _errors(out, a.first_error, b.first_error)


def _name(run: ComparedRun) -> str:
    return f"{plain(run.id)} of {plain(run.workflow_name, 200)}"


def _first(found: Comparison) -> str:
    """Return the first place at which the runs differ, in the order in which they ran."""
    if found.inputs.result == "different":
        return _place("the run's inputs", found.inputs)
    for node in found.nodes:
        name = f"step {_step(node)}"
        if node.a is None or node.b is None:
            return f"{name} is only in {'A' if node.b is None else 'B'}"
        for word, payload in (("inputs", node.inputs), ("outputs", node.outputs)):
            if payload is not None and payload.result == "different":
                return _place(f"the {word} of {name}", payload)
        if node.a.outcome != node.b.outcome:
            return f"the outcome of {name}"
    if found.outputs.result == "different":
        return _place("the run's outputs", found.outputs)
    compared = [found.inputs, found.outputs]
    for node in found.nodes:
        compared += [one for one in (node.inputs, node.outputs) if one is not None]
    unknown = sum(one.result == "not_comparable" for one in compared)
    return "no difference found in steps, outcomes, inputs and outputs" + (
        f"; {counted(unknown, 'payload')} not comparable" if unknown else ""
    )


def _place(name: str, payload: ComparedPayload) -> str:
    found = payload.difference
    return f"{name} differ" + (f" at {plain(found.path)}" if found else "")


def _step(node: ComparedNode) -> str:
    name = first_plain(node.node_id, "without a node", length=60)
    return name if node.occurrence == 1 else f"{name} ({node.occurrence})"


def _print_node(out: Console, node: ComparedNode) -> None:
    a, b = node.a, node.b
    alone = "" if a and b else f"   only in {'A' if a else 'B'}"
    title = styled(_step(node), "bold") + styled(alone, "yellow")
    out.print()
    for part in title.wrap(out, out.width, overflow="fold"):
        out.print(part, soft_wrap=True)
    _row(out, "  outcome", _both(node, lambda step: state(step.outcome)))
    if any(step and step.model for step in (a, b)):
        _row(out, "  model", _both(node, lambda step: plain(step.model or "-", 200)))
    _totals(out, node, indent="  ")
    if a and b and a.finish_reason != b.finish_reason:
        _row(out, "  finish", _both(node, lambda step: plain(step.finish_reason or "-", 100)))
    if node.inputs is not None and node.outputs is not None:
        _payloads(out, node.inputs, node.outputs, indent="  ")
    _errors(out, a.error if a else None, b.error if b else None, indent="  ")


def _totals(out: Console, found: Comparison | ComparedNode, *, indent: str = "") -> None:
    sides = [side for side in (found.a, found.b) if side is not None]
    changes = found.changes
    took = "" if changes is None else _signed(changes.duration_ms, duration)
    _row(out, f"{indent}duration", _both(found, lambda side: duration(side.duration_ms)), took)
    if any(side.calls or side.total_tokens is not None for side in sides):
        more = "" if changes is None else _signed(changes.total_tokens, "{:,}".format)
        _row(out, f"{indent}tokens", _both(found, _tokens), more)
    if any(side.calls for side in sides):
        dearer = "" if changes is None else _signed(changes.cost, amount)
        _row(out, f"{indent}cost", _both(found, _cost), dearer)


def _both(found: Any, shown: Callable[[Any], str | Text]) -> tuple[str | Text, str | Text]:
    """Return a text for A and one for B; empty for a run without the step."""
    a, b = ("" if side is None else shown(side) for side in (found.a, found.b))
    return a, b


def _tokens(side: ComparedRun | ComparedStep) -> str:
    if side.total_tokens is None:
        return "unknown" if side.calls else "-"
    counts = ((side.input_tokens, "in"), (side.output_tokens, "out"))
    parts = ", ".join(f"{count:,} {word}" for count, word in counts if count is not None)
    text = f"{side.total_tokens:,}" + (f" ({parts})" if parts else "")
    missing = getattr(side, "untotalled_calls", 0)
    return text + (f", without {counted(missing, 'call')}" if missing else "")


def _cost(side: ComparedRun | ComparedStep) -> str:
    if side.cost is None:
        return "unknown" if side.calls else "-"
    missing = getattr(side, "unpriced_calls", 0)
    text = f"{amount(side.cost)} {plain(side.currency or '', 10)}"
    return text + (f", without {counted(missing, 'call')}" if missing else "")


def _signed(change: Number | None, shown: Callable[[Number], str]) -> str:
    """Return a change with its sign; empty if it is unknown."""
    if change is None:
        return ""
    return f"{'-' if change < 0 else '+' if change > 0 else ''}{shown(abs(change))}"


def _payloads(
    out: Console, inputs: ComparedPayload, outputs: ComparedPayload, *, indent: str = ""
) -> None:
    for name, payload in (("inputs", inputs), ("outputs", outputs)):
        for label, text in _payload(payload):
            _line(out, f"{indent}{name if not label else '  ' + label}", text)


def _payload(payload: ComparedPayload) -> Iterator[tuple[str, str]]:
    """Yield a label, empty in the first line, and a text for each line about a payload."""
    if payload.result == "none":
        return
    found = payload.difference
    words = {
        "equal": "equal",
        "ids_and_times": "equal except for ids and times",
        "different": "different",
        "not_comparable": "not comparable",
    }[payload.result]
    if found is not None:
        words += f", first at {plain(found.path)}"
    yield "", words + (f": {plain(payload.reason, 300)}" if payload.reason else "")
    if found is not None and payload.result == "different":
        for label, value in (("A", found.a), ("B", found.b)):
            yield label, "(missing)" if value is None else safe_json(value)
    for label, form, note in (
        ("A", payload.a_form, payload.a_note),
        ("B", payload.b_form, payload.b_note),
    ):
        if note and form in ("json", "raw"):
            yield label, f"note: {plain(note, 300)}"


def _errors(out: Console, a: str | None, b: str | None, *, indent: str = "") -> None:
    if a and a == b:
        _line(out, f"{indent}error", plain(a, 300), "red")
        return
    for name, error in (("A", a), ("B", b)):
        if error:
            _line(out, f"{indent}error {name}", plain(error, 300), "red")


def _row(out: Console, label: str, values: tuple[str | Text, str | Text], change: str = "") -> None:
    """Print a line with a column for each run; long values are folded."""
    from rich.table import Table

    width = max(6, min(_WIDEST, (out.width - _LABEL - 3) * 2 // 5))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=_LABEL, style="dim", no_wrap=True)
    table.add_column(width=width, overflow="fold")
    table.add_column(width=width, overflow="fold")
    table.add_column(overflow="fold")
    table.add_row(
        *(styled(one) if isinstance(one, str) else one for one in (label, *values, change))
    )
    out.print(table)


def _line(out: Console, label: str, text: str, style: str | None = None) -> None:
    """Print a label and a text that is wrapped beside it."""
    for part in styled(text).wrap(out, max(out.width - _LABEL - 1, 20), overflow="fold"):
        part.rstrip()
        out.print(
            styled(label.ljust(_LABEL + 1), "dim"),
            styled(part.plain, style),
            sep="",
            soft_wrap=True,
        )
        label = ""
