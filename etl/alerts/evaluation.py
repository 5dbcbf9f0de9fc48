"""The evaluation of all rules for all workflows: one evaluation at a time, in any process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from etl.alert_metrics import OF_CALLS, QUANTILES, WITHOUT_WINDOW
from etl.alerts import definitions, knowledge, states
from etl.alerts.knowledge import Known, Pauses
from etl.alerts.measures import Measures, WantedWindows
from etl.alerts.overdue import overdue
from etl.alerts.rules import WEEKS, Rule
from etl.alerts.states import Change
from etl.alerts.transitions import Alert, Notice, Transition, end, follow, keep
from etl.alerts.verdicts import Judge, Question, Verdict, Windows, is_complete

# Seconds between two evaluations by services; a little less than their tick of a minute.
EVERY = 50.0


class AlertFinding(msgspec.Struct, frozen=True):
    """A subject with a state to store or show, after an evaluation."""

    alert: Alert
    workflow_name: str | None
    messages: tuple[Notice, ...]
    contents: tuple[Mapping[str, Any], ...]
    """What each message needs from the evaluation."""


class EvaluationReport(msgspec.Struct, frozen=True):
    """The result of an evaluation."""

    at: datetime | None = None
    """Database time; None: nothing was evaluated."""
    subjects: int = 0
    """Pairs of a rule and a workflow."""
    findings: tuple[AlertFinding, ...] = ()
    written: int = 0
    """States that changed."""

    @property
    def firing(self) -> int:
        """The number of alerts that fire."""
        return sum(one.alert.state == "firing" for one in self.findings)


def evaluate(
    connection: Connection,
    rules: Sequence[Rule],
    pauses: Pauses,
    *,
    every: float = 0.0,
    wait: bool = False,
) -> EvaluationReport:
    """Evaluate the rules, store what changed, and queue the messages, in this transaction.

    Args:
        connection: in a READ COMMITTED transaction; the schema has the tables of the alerts.
        rules: all rules of the configuration; the states of other rules end, once no process has
            evaluated them for a while (`definitions`).
        pauses: the workflows to be evaluated, and how often they are swept.
        every: do nothing if the last evaluation was less than this many seconds ago, and was of the
            same definitions.
        wait: whether to wait for another process that evaluates, to evaluate the newest data.
    """
    if not rules and not states.any_unsettled(connection):
        return EvaluationReport()
    if (
        every
        and not definitions.read(
            connection, rules, pauses, knowledge.now(connection)
        ).are_those_of_the_last_evaluation
    ):
        every = 0.0
    at = states.claim(connection, every=every, wait=wait)
    if at is None:
        return EvaluationReport()
    states.repair_mutes(connection)
    known = definitions.read(connection, rules, pauses, at)
    report, changes = _evaluated(connection, rules, pauses, at=at, contested=known.contested)
    states.write(connection, changes, at)
    known.write(connection, at)
    return report


def preview(connection: Connection, rules: Sequence[Rule], pauses: Pauses) -> EvaluationReport:
    """Return what `evaluate` would find and queue now; write nothing."""
    at = knowledge.now(connection)
    known = definitions.read(connection, rules, pauses, at)
    return _evaluated(connection, rules, pauses, at=at, contested=known.contested)[0]


def judged(
    connection: Connection, rules: Sequence[Rule], pauses: Pauses, at: datetime
) -> Iterator[tuple[Rule, Known, Verdict]]:
    """Return the verdict on each rule and workflow that it covers, at this database time."""
    workflows = knowledge.read(connection, at, pauses) if rules else []
    covered: dict[tuple[str | None, str | None], list[Known]] = {}
    for rule in rules:
        key = (rule.workflow, rule.label)
        if key not in covered:
            covered[key] = [one for one in workflows if rule.covers(one.id, one.labels)]
    windows = Windows()
    subjects = [(rule, covered[rule.workflow, rule.label]) for rule in rules]
    measures = _read(connection, subjects, windows)
    running = {one.id for rule, own in subjects if rule.metric == "overdue_runs" for one in own}
    late = overdue(connection, sorted(running), at, knowledge.PATIENCE) if running else {}
    judge = Judge(at, windows, measures, late)
    for rule, own in subjects:
        for known, verdict in judge.verdicts(rule, own):
            yield rule, known, verdict


def _evaluated(
    connection: Connection,
    rules: Sequence[Rule],
    pauses: Pauses,
    *,
    at: datetime,
    contested: Collection[str],
) -> tuple[EvaluationReport, list[Change]]:
    stored: dict[str, dict[str, Alert]] = {}
    for alert in states.read(connection):
        stored.setdefault(alert.rule, {})[alert.subject] = alert
    muted = states.mutes(connection, at)
    findings, changes, subjects = [], [], 0
    for rule, known, verdict in judged(connection, rules, pauses, at):
        subjects += 1
        own = stored.get(rule.name)
        before = own.pop(rule.subject(known.id), None) if own else None
        if verdict.is_breached is False and before is None:
            continue
        after = follow(
            before,
            rule,
            known.id,
            verdict=verdict,
            at=at,
            is_muted=rule.name in muted,
            is_contested=rule.name in contested,
        )
        contents = _contents(after, _content(rule, known, verdict))
        if after.alert is not None:
            findings.append(AlertFinding(after.alert, known.name, after.messages, contents))
        if after.alert != before:
            changes.append(Change(before, after, rule.metric, contents))
    rest = [alert for own in stored.values() for alert in own.values()]
    names = states.names(connection) if rest else {}
    for before in rest:
        after = keep(before) if before.rule in contested else end(before, at)
        name = names.get(before.workflow_id)
        content = {"workflow_id": before.workflow_id, "workflow_name": name, "value": before.value}
        contents = _contents(after, content)
        if after.alert is not None:
            findings.append(AlertFinding(after.alert, name, after.messages, contents))
        if after.alert != before:
            changes.append(Change(before, after, "", contents))
    findings.sort(key=lambda one: (one.alert.rule, one.alert.subject))
    return EvaluationReport(at, subjects, tuple(findings), len(changes)), changes


def _read(
    connection: Connection, subjects: Sequence[tuple[Rule, Sequence[Known]]], windows: Windows
) -> Measures:
    """Read the figures that the rules need."""
    wanted = {False: WantedWindows(), True: WantedWindows()}
    seen = set()
    for rule, workflows in subjects:
        is_usual = rule.comparison == "above_usual"
        key = (*Question.of(rule), is_usual, id(workflows))
        if rule.metric in WITHOUT_WINDOW or key in seen:
            continue
        seen.add(key)
        found = [
            window
            for known in workflows
            for week in range(WEEKS + 1 if is_usual else 1)
            if (window := windows.of(known, rule.over, week)) is not None
            and not known.is_stuck(window.begun, window.ended)
            and (week == 0 or is_complete(rule, known, window, windows))
        ]
        for of_steps in {rule.part.of_steps, rule.part.of_steps or rule.metric in OF_CALLS}:
            own = wanted[of_steps]
            own.windows.update(dict.fromkeys(found))
            own.parts.add(rule.part)
            if rule.metric in QUANTILES:
                own.timed_windows.update(dict.fromkeys(found))
                own.timed_parts.add(rule.part)
    measures = Measures()
    for of_steps, own in wanted.items():
        measures.read(connection, own, of_steps=of_steps)
    return measures


def _contents(after: Transition, content: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            **content,
            "sequence": one.alert.sequence,
            "reminder": one.alert.reminders,
            "since": one.alert.since,
            "threshold": one.alert.threshold,
            "reason": one.alert.reason,
        }
        for one in after.messages
    )


def _content(rule: Rule, known: Known, verdict: Verdict) -> dict[str, Any]:
    window = verdict.window
    return {
        "workflow_id": known.id,
        "workflow_name": known.name,
        **msgspec.structs.asdict(rule.part),
        "label": rule.label,
        "metric": rule.metric,
        "comparison": rule.comparison,
        "limit": rule.limit,
        "over": None if rule.metric in WITHOUT_WINDOW else rule.over,
        "value": verdict.value,
        "usual": verdict.usual,
        "currency": verdict.currency,
        "runs": verdict.counted,
        "window_begin": window.begun if window else None,
        "window_end": window.ended if window else None,
    }
