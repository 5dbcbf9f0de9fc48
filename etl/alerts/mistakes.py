"""Rules that can never fire: what they name does not exist, or their window is too short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, text

from etl.alert_metrics import WITHOUT_WINDOW
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Rule

_WEEK = 7 * 86400.0

_WORKFLOWS = text("SELECT id, labels FROM orchestra.workflows")

# A node of the graph may not have run yet. Without any step, nothing is known about the names.
_NAMES = text("""
    SELECT count(*) > 0 AS known,
           bool_or(node_id = :node) OR EXISTS (
               SELECT FROM orchestra.workflow_versions AS v
               WHERE v.workflow_id = ANY (CAST(:workflows AS text[]))
                 AND jsonb_path_exists(
                     v.graph, '$.nodes[*].id ? (@ == $node)',
                     jsonb_build_object('node', CAST(:node AS text)))) AS has_node,
           bool_or(model = :model) AS has_model,
           bool_or(organization_id = :organisation) AS has_organisation
    FROM orchestra.step_rollup_daily
    WHERE workflow_id = ANY (CAST(:workflows AS text[]))
""")


class Mistake(msgspec.Struct, frozen=True):
    """Why a rule can never fire."""

    rule: str
    text: str


def in_settings(
    rules: Sequence[Rule],
    pauses: Pauses,
    labels: Mapping[str, Mapping[str, str]],
    *,
    kept: float | None,
) -> list[Mistake]:
    """Return the mistakes that the settings alone show.

    Args:
        rules: the rules.
        pauses: how often each workflow is swept.
        labels: the labels of each configured workflow.
        kept: how long runs are kept, in seconds; None: for ever.
    """
    return [
        Mistake(rule.name, problem)
        for rule in rules
        for problem in _problems(rule, pauses, labels, kept)
    ]


def _problems(
    rule: Rule, pauses: Pauses, labels: Mapping[str, Mapping[str, str]], kept: float | None
) -> Iterator[str]:
    if rule.workflow is not None and not pauses.covers(rule.workflow):
        yield f"workflow {rule.workflow} is not configured"
        return
    covered = [id for id in pauses.configured if rule.covers(id, labels.get(id, {}))]
    if not covered and pauses.others is None:
        yield (
            f"no configured workflow has the label {rule.label}"
            if rule.label is not None
            else "no workflow is configured"
        )
        return
    swept = [pause for id in covered if (pause := pauses.of(id)) is not None]
    if not swept and covered:
        yield "it covers only workflows whose run list is not swept (discover = false)"
        return
    if rule.metric in WITHOUT_WINDOW:
        return
    if swept and min(swept) > rule.over:
        yield (
            f"its window of {_span(rule.over)} is shorter than the {_span(min(swept))} between two "
            "sweeps"
        )
    weeks = 2 * _WEEK if rule.comparison == "above_usual" else 0.0
    if kept is not None and kept < rule.over + weeks:
        what = "its window and the weeks before are" if weeks else "its window is"
        yield f"{what} longer than runs are kept (retention.runs)"


def in_history(connection: Connection, rules: Sequence[Rule], pauses: Pauses) -> list[Mistake]:
    """Return the mistakes that the stored history shows: names that nothing has."""
    stored = {
        row.id: row.labels or {} for row in connection.execute(_WORKFLOWS) if pauses.covers(row.id)
    }
    found = []
    for rule in rules:
        if rule.workflow is not None and rule.workflow not in stored:
            if rule.workflow not in pauses.configured:
                found.append(Mistake(rule.name, f"workflow {rule.workflow} is not known"))
            continue
        covered = [id for id, labels in stored.items() if rule.covers(id, labels)]
        part = msgspec.structs.asdict(rule.part)
        row = connection.execute(_NAMES, {"workflows": covered, **part}).one()
        if not row.known:
            continue
        for name, value in part.items():
            if value is not None and not getattr(row, f"has_{name}"):
                found.append(Mistake(rule.name, f"no step has the {name} {value}"))
    return found


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"
