"""Why the cost, the duration or the failures of a workflow differ between two periods.

The SQL functions `explain_cost`, `explain_duration` and `explain_failures` split the difference.
This module reads the parts, and puts them into words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeVar

import msgspec
from sqlalchemy import Connection, text

from etl.database import allow_long
from etl.errors import SchemaMismatch
from etl.terminal import first_plain, plain
from etl.usage import STANDARD

Figure = Literal["cost", "duration", "failures"]

# The order in which the parts are shown: from causes outside of the workflow to its smallest unit.
COST_PARTS = (
    "runs",
    "version",
    "nodes",
    "calls",
    "models",
    "usage",
    "prices",
    "unpriced",
    "unmetered",
    "currencies",
)
DURATION_PARTS = ("nodes", "executions", "time", "waiting", "waiting_at_end")
FAILURE_PARTS = ("runs", "new", "grown", "shrunk", "gone", "pruned")
_ORDERS = {"cost": COST_PARTS, "duration": DURATION_PARTS, "failures": FAILURE_PARTS}

# Maximum characters of a name and of a failure's pattern in a line.
_NAME, _PATTERN = 60, 120

_EXISTS = text("""
    SELECT EXISTS (SELECT FROM pg_proc AS p
                   WHERE p.pronamespace = 'orchestra'::regnamespace AND p.proname = 'explain_cost'
                     AND p.pronargs = :arguments)
""")
_NAME_OF = text("SELECT name FROM orchestra.workflows WHERE id = :workflow")
_PERIODS = ":workflow, :since, :until, :against_since, :against_until"
_COST = text(f"SELECT * FROM orchestra.explain_cost({_PERIODS})")
_COST_OF_CALLS = text(
    f"SELECT * FROM orchestra.explain_cost({_PERIODS}, :organisation, :node, :model)"
)
_DURATION = text(f"SELECT * FROM orchestra.explain_duration({_PERIODS})")
_FAILURES = text(f"SELECT * FROM orchestra.explain_failures({_PERIODS})")


class Period(msgspec.Struct, frozen=True):
    """A period of time."""

    since: datetime
    until: datetime
    """The first moment after the period."""


class CostChange(msgspec.Struct, frozen=True):
    """A part of a difference of costs."""

    part: str
    """One of `COST_PARTS`."""
    version: str | None
    node_id: str | None
    model: str | None
    service_tier: str | None
    context_tier: int | None
    kind: str | None
    """The kind of usage, as in the view `model_usage`, or `calls`."""
    before: Decimal | None
    """The factor in the baseline, such as tokens per call; None for `version`."""
    after: Decimal | None
    amount: Decimal


class DurationChange(msgspec.Struct, frozen=True):
    """A part of a difference of mean durations, in milliseconds."""

    part: str
    """One of `DURATION_PARTS`."""
    node_id: str | None
    before: Decimal | None
    after: Decimal | None
    amount: Decimal


class FailureChange(msgspec.Struct, frozen=True):
    """A part of a difference of numbers of failures."""

    part: str
    """One of `FAILURE_PARTS`."""
    outcome: str | None
    node_id: str | None
    fingerprint: str | None
    pattern: str | None
    before: int | None
    """Steps that failed in the baseline; runs, if the part is `runs`."""
    after: int | None
    amount: Decimal


Part = CostChange | DurationChange | FailureChange
_Any = TypeVar("_Any", CostChange, DurationChange, FailureChange)


class FigureChange(msgspec.Struct, frozen=True):
    """A figure in both periods, and the parts of the difference, which add up to it exactly."""

    unit: str
    """A currency, `ms` or `failures`."""
    before: Decimal
    after: Decimal
    difference: Decimal
    parts: list[CostChange] | list[DurationChange] | list[FailureChange]
    """Ordered by part; within a part, the largest amount first."""


class Calls(msgspec.Struct, frozen=True):
    """The calls whose cost is explained; None: not limited by it."""

    organisation: str | None = None
    node: str | None = None
    model: str | None = None


ALL_CALLS = Calls()


class Explanation(msgspec.Struct, frozen=True):
    """Why a figure of a workflow differs between two periods."""

    figure: Figure
    workflow_id: str
    workflow_name: str | None
    period: Period
    baseline: Period
    calls: Calls
    """For costs, the calls that count."""
    differences: list[FigureChange]
    """For costs, one for each currency. Empty if a period lacks what the figure is about."""


def explain(
    connection: Connection,
    figure: Figure,
    workflow: str,
    *,
    period: Period,
    baseline: Period,
    calls: Calls = ALL_CALLS,
) -> Explanation:
    """Return why a figure of a workflow differs between a baseline and a period.

    Args:
        connection: in a transaction.
        figure: what to explain.
        workflow: the workflow's id.
        period: the period to explain.
        baseline: the period to compare it with.
        calls: for costs, only these calls count.

    Raises:
        SchemaMismatch: the schema is older than this feature.
    """
    allow_long(connection)
    name = connection.execute(_NAME_OF, {"workflow": workflow}).scalar()
    return Explanation(
        figure,
        workflow,
        name,
        period=period,
        baseline=baseline,
        calls=calls,
        differences=_differences(
            connection, figure, workflow, period=period, baseline=baseline, calls=calls
        ),
    )


def first_lines(
    connection: Connection,
    workflow: str,
    window: tuple[datetime, datetime],
    baseline: tuple[datetime, datetime],
    *,
    calls: Calls = ALL_CALLS,
    limit: int = 3,
) -> list[str]:
    """Return the largest parts of a difference of costs as lines of text, the largest first.

    The statement has the time limit of the connection. Names from the server are made printable
    and are cut.

    Args:
        connection: in a transaction.
        workflow: the workflow's id.
        window: begin and end of the period to explain.
        baseline: begin and end of the period to compare it with.
        calls: only these calls count.
        limit: maximum number of lines.

    Raises:
        SchemaMismatch: the schema is older than this feature.
    """
    found = _differences(
        connection,
        "cost",
        workflow,
        period=Period(*window),
        baseline=Period(*baseline),
        calls=calls,
    )
    parts: list[tuple[str, Part]] = [(one.unit, part) for one in found for part in one.parts]
    parts.sort(key=lambda one: -abs(one[1].amount))
    return [f"{signed(part.amount, unit)}: {describe(part)}" for unit, part in parts[:limit]]


def _differences(
    connection: Connection,
    figure: Figure,
    workflow: str,
    *,
    period: Period,
    baseline: Period,
    calls: Calls,
) -> list[FigureChange]:
    arguments = 5 if calls == ALL_CALLS else 8
    if not connection.execute(_EXISTS, {"arguments": arguments}).scalar_one():
        raise SchemaMismatch(
            "the schema cannot explain differences yet: run `orchestra-etl db upgrade`"
        )
    values = {
        "workflow": workflow,
        "since": period.since,
        "until": period.until,
        "against_since": baseline.since,
        "against_until": baseline.until,
    }
    if calls != ALL_CALLS:
        values.update(msgspec.structs.asdict(calls))
    made = {"cost": _costs, "duration": _durations, "failures": _failures}[figure]
    return made(connection, values)


def _costs(connection: Connection, values: dict[str, object]) -> list[FigureChange]:
    statement = _COST_OF_CALLS if "node" in values else _COST
    rows = [row._mapping for row in connection.execute(statement, values)]
    made = []
    for currency in sorted({row["currency"] for row in rows}):
        parts = [
            CostChange(**{name: row[name] for name in CostChange.__struct_fields__})
            for row in rows
            if row["currency"] == currency
        ]
        made.append(_difference(currency, "cost", parts))
    return made


def _durations(connection: Connection, values: dict[str, object]) -> list[FigureChange]:
    parts = [DurationChange(**row._mapping) for row in connection.execute(_DURATION, values)]
    return [_difference("ms", "duration", parts)] if parts else []


def _failures(connection: Connection, values: dict[str, object]) -> list[FigureChange]:
    parts = [FailureChange(**row._mapping) for row in connection.execute(_FAILURES, values)]
    return [_difference("failures", "failures", parts)]


def _difference(unit: str, figure: Figure, rows: Sequence[_Any]) -> FigureChange:
    [before] = [row.amount for row in rows if row.part == "baseline"]
    order = _ORDERS[figure]
    parts = sorted(
        (row for row in rows if row.part != "baseline"),
        key=lambda row: (order.index(row.part), -abs(row.amount), str(row)),
    )
    difference = sum((row.amount for row in parts), Decimal(0))
    return FigureChange(unit, before, before + difference, difference=difference, parts=parts)


def signed(amount: Decimal, unit: str) -> str:
    """Return an amount with its sign and unit, rounded for people."""
    digits = {"ms": 1, "failures": 1}.get(unit, 4 if abs(amount) >= 1 else 6)
    return f"{amount:+,.{digits}f} {plain(unit, 10)}"


def describe(part: Part) -> str:
    """Return what a part is about, with the factor in both periods."""
    if isinstance(part, CostChange):
        return _cost_words(part)
    if isinstance(part, DurationChange):
        return _duration_words(part)
    return _failure_words(part)


def _cost_words(part: CostChange) -> str:
    node = _node(part.node_id)
    version = "" if part.version is None else f", version {plain(part.version, _NAME)}"
    change = _change(part.before, part.after)
    model = first_plain(part.model, "without a name", length=_NAME)
    is_standard = part.service_tier in (None, STANDARD)
    tiers = [] if is_standard else [plain(part.service_tier or "", 20)]
    tiers += [f"above {part.context_tier:,} input tokens"] if part.context_tier else []
    if tiers:
        model += f" ({', '.join(tiers)})"
    kind = (part.kind or "").replace("_", " ")
    return {
        "runs": f"runs: {change}",
        "version": f"the version, in cost per run of {node}",
        "nodes": f"calls per run of {node}{version}, which only one period calls: {change}",
        "calls": f"calls per run of {node}{version}: {change}",
        "models": f"share of {model} in the calls of {node}{version}: {change}",
        "usage": f"{kind} per call of {model} in {node}{version}: {change}",
        "prices": f"price of {kind} of {model} in {node}{version}: {change}",
        "unpriced": f"share of calls without a price in {node}{version}: {change}",
        "unmetered": f"share of calls that report no usage in {node}{version}: {change}",
        "currencies": f"share of calls paid in other currencies in {node}{version}: {change}",
    }[part.part]


def _duration_words(part: DurationChange) -> str:
    node = _node(part.node_id)
    change = _change(part.before, part.after)
    return {
        "nodes": f"{node}, on the critical path in one period only, times per run: {change}",
        "executions": f"{node} on the critical path, times per run: {change}",
        "time": f"{node} on the critical path, ms each time: {change}",
        "waiting": f"waiting before {node}, ms per run: {change}",
        "waiting_at_end": f"waiting after the last step, ms per run: {change}",
    }[part.part]


def _failure_words(part: FailureChange) -> str:
    change = _change(part.before, part.after)
    if part.part == "runs":
        return f"runs: {change}"
    if part.part == "pruned":
        return f"failures of pruned runs in {_node(part.node_id)}: {change}"
    pattern = first_plain(part.pattern, "without a message", length=_PATTERN)
    return f"{part.part} in {_node(part.node_id)}: {pattern}: {change}"


def _node(node: str | None) -> str:
    name = plain(node or "", _NAME)
    return f"node {name}" if name else "steps without a node"


def _change(before: Decimal | int | None, after: Decimal | int | None) -> str:
    """Return both numbers, with as many digits as it takes to tell them apart."""
    one, other = Decimal(before or 0), Decimal(after or 0)
    texts = ("", "")
    for digits in range(4, 10):
        texts = (_number(one, digits), _number(other, digits))
        if texts[0] != texts[1]:
            break
    return " -> ".join(texts)


def _number(number: Decimal, digits: int) -> str:
    """Return a number with `digits` significant digits, or with all digits before its point."""
    places = max(digits - 1 - number.adjusted(), 0) if number else 0
    text = f"{number:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
