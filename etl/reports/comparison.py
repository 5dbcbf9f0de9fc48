"""Two runs side by side: their totals, their steps, and where their payloads first differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from etl.database_errors import sqlstate
from etl.reports.json_difference import JsonDifference, first_difference

LARGEST_SEARCHED = 8 * 1024 * 1024
"""The longest JSON text, in bytes, in which the first difference is searched.

In the worst case, an array of single digits, the search then needs 0.4 GB of memory.
"""

_RUN = text("""
    SELECT run_id AS id, workflow_id, workflow_name, state, outcome, tracking, start_time, end_time,
           duration_ms, steps, calls, input_tokens, output_tokens, total_tokens, untotalled_calls,
           cost, currency, unpriced_calls, first_error
    FROM orchestra.run_summary
    WHERE run_id = :id
""")

_STEPS = text("""
    SELECT t.step_id AS id, t.node_id, t.state, t.outcome, t.start_time, t.end_time, t.offset_ms,
           t.duration_ms, t.calls, t.model, t.input_tokens, t.output_tokens,
           t.total_tokens, t.cost, t.currency, t.finish_reason, t.error, s.redaction_policy
    FROM orchestra.step_timeline AS t
    JOIN orchestra.steps AS s ON s.id = t.step_id
    WHERE t.run_id = :id
    ORDER BY t.start_time NULLS LAST, t.position, t.step_id
""")

# Each pair of payloads: those of the runs, with the ordinal 0, and those of pairs of steps.
_PAIRS = " UNION ALL ".join(
    f"""
    SELECT 0 AS ordinal, '{name}' AS name,
           a.{name} AS a, a.{name}_raw AS a_raw,
           CASE WHEN a.note LIKE '%{name}: %' THEN a.note END AS a_note,
           b.{name} AS b, b.{name}_raw AS b_raw,
           CASE WHEN b.note LIKE '%{name}: %' THEN b.note END AS b_note
    FROM (SELECT) AS one
    LEFT JOIN orchestra.run_payloads AS a ON a.run_id = :run_a
    LEFT JOIN orchestra.run_payloads AS b ON b.run_id = :run_b
    UNION ALL
    SELECT p.ordinal, '{name}', a.data, a.raw, a.note, b.data, b.raw, b.note
    FROM unnest(CAST(:a AS text[]), CAST(:b AS text[])) WITH ORDINALITY AS p (a, b, ordinal)
    LEFT JOIN orchestra.{name} AS a ON a.step_id = p.a
    LEFT JOIN orchestra.{name} AS b ON b.step_id = p.b
    """
    for name in ("inputs", "outputs")
)

# PostgreSQL finds the pairs that differ, so that equal payloads, however large, stay there. The
# others are read one pair at a time.
_COMPARED = text(f"""
    SELECT ordinal, name,
           CASE WHEN a IS NOT NULL THEN 'json' WHEN a_raw IS NOT NULL THEN 'raw'
                WHEN a_note IS NOT NULL THEN 'removed' ELSE 'none' END AS a_form, a_note,
           CASE WHEN b IS NOT NULL THEN 'json' WHEN b_raw IS NOT NULL THEN 'raw'
                WHEN b_note IS NOT NULL THEN 'removed' ELSE 'none' END AS b_form, b_note,
           same_json, a_raw IS NOT DISTINCT FROM b_raw AS same_raw,
           CASE WHEN fits THEN a_text END AS a_text, CASE WHEN fits THEN b_text END AS b_text
    FROM ({_PAIRS}) AS pairs
    CROSS JOIN LATERAL (SELECT a IS NOT DISTINCT FROM b AS same_json OFFSET 0) AS judged
    CROSS JOIN LATERAL (
        SELECT CASE WHEN searched THEN convert_to(CAST(a AS text), 'UTF8') END AS a_text,
               CASE WHEN searched THEN convert_to(CAST(b AS text), 'UTF8') END AS b_text
        FROM (SELECT NOT same_json AND num_nonnulls(a, b) = 2 AND :limit > 0 AS searched) AS one
        OFFSET 0
    ) AS texts
    CROSS JOIN LATERAL (
        SELECT GREATEST(octet_length(a_text), octet_length(b_text)) <= :limit AS fits OFFSET 0
    ) AS measured
""").execution_options(yield_per=1)

# program_limit_exceeded. A number such as 1e131071 is short in jsonb, and long in its text.
_TOO_LONG = "54000"

Form = Literal["json", "raw", "removed", "none"]
Result = Literal["equal", "ids_and_times", "different", "not_comparable", "none"]


class ComparedRun(msgspec.Struct, frozen=True):
    """The totals of one of the two runs, as in the view `run_summary`."""

    id: str
    workflow_id: str
    workflow_name: str
    state: str
    outcome: str
    tracking: str
    start_time: datetime | None
    end_time: datetime | None
    duration_ms: float | None
    steps: int
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    untotalled_calls: int
    """Calls missing from `total_tokens`."""
    cost: Decimal | None
    currency: str | None
    unpriced_calls: int
    """Calls missing from `cost`."""
    first_error: str | None


class ComparedStep(msgspec.Struct, frozen=True):
    """A step of one of the two runs, as in the view `step_timeline`."""

    id: str
    node_id: str | None
    state: str
    outcome: str
    start_time: datetime | None
    end_time: datetime | None
    offset_ms: float | None
    duration_ms: float | None
    calls: int
    """1 for a call of a model, else 0."""
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost: Decimal | None
    currency: str | None
    finish_reason: str | None
    error: str | None
    redaction_policy: str | None


class Changes(msgspec.Struct, frozen=True):
    """The values of B minus those of A; None if one of them is unknown."""

    duration_ms: float | None
    total_tokens: int | None
    cost: Decimal | None
    """None also if the currencies differ."""


class ComparedPayload(msgspec.Struct, frozen=True):
    """The inputs, or the outputs, of both sides."""

    result: Result
    """equal; ids_and_times: nothing else differs; different; not_comparable: `reason` says why;
    none: neither side has any."""
    reason: str | None
    """Why they cannot be compared, or why there is no `difference`."""
    difference: JsonDifference | None
    a_form: Form
    """json; raw: only bytes that jsonb cannot hold; removed: `a_note` says why; none."""
    a_note: str | None
    b_form: Form
    b_note: str | None


class ComparedNode(msgspec.Struct, frozen=True):
    """An execution of a node: a step of A, a step of B, or both."""

    node_id: str | None
    occurrence: int
    """Which of the node's steps within its run, from 1, in the order of their starts."""
    a: ComparedStep | None
    b: ComparedStep | None
    changes: Changes | None
    """None if only one run has the step."""
    inputs: ComparedPayload | None
    outputs: ComparedPayload | None


class Comparison(msgspec.Struct, frozen=True):
    """Two runs side by side."""

    a: ComparedRun
    b: ComparedRun
    changes: Changes
    notes: tuple[str, ...]
    """What the reader must know about the comparison as a whole."""
    inputs: ComparedPayload
    outputs: ComparedPayload
    nodes: tuple[ComparedNode, ...]


_Pair = tuple[str | None, int, ComparedStep | None, ComparedStep | None]


def compare(connection: Connection, a: str, b: str) -> Comparison | str:
    """Return two runs side by side; or the id of the one that is not stored.

    Steps are matched by their node; the steps of one node, in the order of their starts. Steps that
    the API no longer returns are left out, as in the views.

    Args:
        connection: in a transaction.
        a: the id of a run.
        b: the id of another run, of any workflow.
    """
    runs = []
    for id in (a, b):
        row = connection.execute(_RUN, {"id": id}).one_or_none()
        if row is None:
            return id
        runs.append(ComparedRun(**row._mapping))
    one, other = runs
    pairs = _pairs(_steps(connection, a), _steps(connection, b))
    payloads = _payloads(connection, one, other, pairs)
    return Comparison(
        a=one,
        b=other,
        changes=_run_changes(one, other),
        notes=tuple(_notes(one, other, pairs)),
        inputs=payloads[0, "inputs"],
        outputs=payloads[0, "outputs"],
        nodes=tuple(
            ComparedNode(
                node_id,
                occurrence,
                x,
                y,
                changes=_changes(x, y) if x and y else None,
                inputs=payloads.get((ordinal, "inputs")),
                outputs=payloads.get((ordinal, "outputs")),
            )
            for ordinal, (node_id, occurrence, x, y) in enumerate(pairs, 1)
        ),
    )


def _steps(connection: Connection, run_id: str) -> dict[tuple[str | None, int], ComparedStep]:
    seen: Counter[str | None] = Counter()
    found = {}
    for row in connection.execute(_STEPS, {"id": run_id}):
        seen[row.node_id] += 1
        found[row.node_id, seen[row.node_id]] = ComparedStep(**row._mapping)
    return found


def _pairs(
    a: dict[tuple[str | None, int], ComparedStep], b: dict[tuple[str | None, int], ComparedStep]
) -> list[_Pair]:
    """Return the steps in the order of A; a step of B alone follows the one before it in B."""
    after: dict[tuple[str | None, int] | None, list[tuple[str | None, int]]] = {}
    last = None
    for key in b:
        if key in a:
            last = key
        else:
            after.setdefault(last, []).append(key)
    order = list(after.get(None, ()))
    for key in a:
        order += [key, *after.get(key, ())]
    return [(*key, a.get(key), b.get(key)) for key in order]


def _run_changes(a: ComparedRun, b: ComparedRun) -> Changes:
    """Return the changes of the totals; a total that lacks calls is not known."""
    changes = _changes(a, b)
    return msgspec.structs.replace(
        changes,
        total_tokens=None if a.untotalled_calls or b.untotalled_calls else changes.total_tokens,
        cost=None if a.unpriced_calls or b.unpriced_calls else changes.cost,
    )


def _changes(a: ComparedRun | ComparedStep, b: ComparedRun | ComparedStep) -> Changes:
    return Changes(
        duration_ms=None
        if a.duration_ms is None or b.duration_ms is None
        else round(b.duration_ms - a.duration_ms, 3),
        total_tokens=None
        if a.total_tokens is None or b.total_tokens is None
        else b.total_tokens - a.total_tokens,
        cost=None
        if a.cost is None or b.cost is None or a.currency != b.currency
        else b.cost - a.cost,
    )


def _notes(a: ComparedRun, b: ComparedRun, pairs: Sequence[_Pair]) -> Iterable[str]:
    if a.workflow_id != b.workflow_id:
        yield "the runs belong to different workflows; nodes are matched by their ids"
    for name, run in (("A", a), ("B", b)):
        if run.tracking == "open":
            yield f"{name} is still open: its steps can change"
    currencies = [(a.currency, b.currency)]
    currencies += [(x.currency, y.currency) for _, _, x, y in pairs if x and y]
    if any(None not in both and len(set(both)) == 2 for both in currencies):
        yield "some costs are in different currencies, which are not subtracted"
    if any(x and y and x.redaction_policy != y.redaction_policy for _, _, x, y in pairs):
        yield "the runs were stored under different redaction rules, so masks can differ"


def _payloads(
    connection: Connection, a: ComparedRun, b: ComparedRun, pairs: Sequence[_Pair]
) -> dict[tuple[int, str], ComparedPayload]:
    """Return the payloads of each pair of two steps by its number; 0 is the pair of the runs."""
    both = [(number, x.id, y.id) for number, (_, _, x, y) in enumerate(pairs, 1) if x and y]
    numbers = [0, *(number for number, _, _ in both)]

    def read(limit: int, otherwise: str) -> dict[tuple[int, str], ComparedPayload]:
        rows = connection.execute(
            _COMPARED,
            {
                "run_a": a.id,
                "run_b": b.id,
                "a": [id for _, id, _ in both],
                "b": [id for _, _, id in both],
                "limit": limit,
            },
        )
        return {
            (numbers[row.ordinal], row.name): _compared(row, (a.id, b.id), otherwise)
            for row in rows
        }

    try:
        with connection.begin_nested():
            return read(LARGEST_SEARCHED, "too large to search")
    except DBAPIError as error:
        if sqlstate(error) != _TOO_LONG:
            raise
        # Then no difference is searched, but PostgreSQL still says which payloads differ.
        return read(0, "not searched, because the text of a payload is too large")


def _compared(row: Row[Any], own_ids: tuple[str, str], unread: str) -> ComparedPayload:
    result: Result
    difference = reason = None
    forms = (row.a_form, row.b_form)
    if "removed" in forms:
        result = "not_comparable"
        reason = "; ".join(
            f"{side}: {note}"
            for side, form, note in (("A", row.a_form, row.a_note), ("B", row.b_form, row.b_note))
            if form == "removed"
        )
    elif forms == ("none", "none"):
        result = "none"
    elif row.same_json and row.same_raw:
        result = "equal"
    elif forms == ("json", "json") and not row.same_json:
        if row.a_text is None:
            result, reason = "different", unread
        else:
            result, difference, reason = _searched(row.a_text, row.b_text, own_ids)
    elif "none" in forms:
        result, reason = "different", f"only {'B' if row.a_form == 'none' else 'A'} has any"
    else:
        result, reason = "different", "they differ in bytes that jsonb cannot hold"
    return ComparedPayload(
        result=result,
        reason=reason,
        difference=difference,
        a_form=row.a_form,
        a_note=row.a_note,
        b_form=row.b_form,
        b_note=row.b_note,
    )


def _searched(
    a: bytes, b: bytes, own_ids: tuple[str, str]
) -> tuple[Result, JsonDifference | None, str | None]:
    """Return the result for two values that differ, with the first difference if it is found."""
    try:
        found = first_difference(a, b, own_ids=own_ids)
    except RecursionError:
        return "different", None, "nested too deeply to search"
    return "ids_and_times" if found and found.is_minor else "different", found, None
