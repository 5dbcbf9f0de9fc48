"""Whether a rule is breached for a workflow: yes, no, or not known and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

import msgspec

from etl.alert_metrics import OF_CALLS, SUMS, Comparison
from etl.alerts.bounds import Bounds, Doubt, bounds, doubt
from etl.alerts.knowledge import Known
from etl.alerts.measures import Measures, Window
from etl.alerts.rules import WEEKS, Part, Rule

LEAST_WEEKS = 2
"""The weeks that must be known for a usual value."""


class Question(NamedTuple):
    """The part of a rule that decides its value: rules with equal questions have one answer."""

    metric: str
    part: Part
    over: float
    min_runs: int

    @classmethod
    def of(cls, rule: Rule) -> Question:
        """Return the question of a rule."""
        return cls(rule.metric, rule.part, rule.over, rule.min_runs)


class Verdict(msgspec.Struct, frozen=True):
    """Whether a rule is breached for a workflow."""

    is_breached: bool | None
    """None: it is not known."""
    value: float | None = None
    threshold: float | None = None
    reason: str | None = None
    """Why it is not known; None: it is."""
    window: Window | None = None
    counted: int = 0
    """The number of runs or steps that the value covers."""
    usual: float | None = None
    currency: str | None = None


class Answer(NamedTuple):
    """A metric of a workflow."""

    bounds: Bounds
    window: Window | None = None
    usual: float | None = None


class Windows:
    """The windows of workflows, and what is not known about them."""

    def __init__(self) -> None:
        """Create no window yet."""
        self._windows: dict[tuple[str, float, int], Window] = {}
        self._doubts: dict[Window, dict[bool, Doubt]] = {}

    def of(self, known: Known, over: float, week: int = 0) -> Window | None:
        """Return the window of this length that ends where the known data ends.

        Args:
            known: what is known about the workflow.
            over: the length in seconds.
            week: how many weeks earlier.

        Returns:
            Equal windows are one object. None: the present state of the workflow is not known.
        """
        if known.until is None or known.problem is not None:
            return None
        key = (known.id, over, week)
        if (found := self._windows.get(key)) is None:
            ended = known.until - timedelta(weeks=week)
            found = Window(known.id, ended - timedelta(seconds=over), ended)
            self._windows[key] = found
            self._doubts[found] = {
                of_steps: doubt(known, found, of_steps=of_steps) for of_steps in (False, True)
            }
        return found

    def doubts(self, window: Window) -> Mapping[bool, Doubt]:
        """Return what is not known about the window's runs (False) and steps (True)."""
        return self._doubts[window]


class Judge:
    """Judges rules by figures that have been read; equal questions are answered once."""

    def __init__(
        self,
        at: datetime,
        windows: Windows,
        measures: Measures,
        overdue: Mapping[str, Sequence[tuple[str | None, int, int]]],
    ) -> None:
        """Judge at this database time, by these figures and these overdue runs."""
        self._at = at
        self._windows = windows
        self._measures = measures
        self._overdue = overdue
        self._answers: dict[tuple[Question, Comparison], dict[str, Answer]] = {}

    def verdicts(self, rule: Rule, workflows: Iterable[Known]) -> Iterator[tuple[Known, Verdict]]:
        """Return whether a rule is breached for each of these workflows."""
        answers = self._answers.setdefault((Question.of(rule), rule.comparison), {})
        for known in workflows:
            if (answer := answers.get(known.id)) is None:
                answer = answers[known.id] = self._answer(rule, known)
            yield known, compared(rule, answer)

    def _answer(self, rule: Rule, known: Known) -> Answer:
        if rule.metric == "lag":
            return Answer(self._lag(known))
        if rule.metric == "overdue_runs":
            return Answer(self._overdue_runs(rule, known))
        window = self._windows.of(known, rule.over)
        if window is None:
            return Answer(Bounds(None, reason=known.problem))
        doubts = self._windows.doubts(window)
        found = bounds(
            rule.metric,
            rule.part,
            self._measures,
            window=window,
            doubts=doubts,
            min_runs=rule.min_runs,
        )
        if rule.comparison == "below":
            found = _with_the_time_before(rule, known, window, found)
        if rule.comparison != "above_usual":
            return Answer(found, window)
        usual, reason = self._median(rule, known)
        if usual is None and (found.value is not None or found.reason is not None):
            found = msgspec.structs.replace(found, low=0, high=math.inf, reason=reason)
        return Answer(found, window, usual)

    def _median(self, rule: Rule, known: Known) -> tuple[float | None, str | None]:
        """Return the usual value, or None and why there is none."""
        values = []
        complete = 0
        for week in range(1, WEEKS + 1):
            earlier = self._windows.of(known, rule.over, week)
            if earlier is None or not is_complete(rule, known, earlier, self._windows):
                continue
            doubts = self._windows.doubts(earlier)
            found = bounds(
                rule.metric, rule.part, self._measures, window=earlier, doubts=doubts, min_runs=0
            )
            if found.is_exact:
                complete += 1
                if found.value is not None:
                    values.append(found.value)
        if complete < LEAST_WEEKS:
            return None, f"fewer than {LEAST_WEEKS} of the last {WEEKS} weeks are known"
        if len(values) < LEAST_WEEKS:
            return None, f"it ran in these hours in fewer than {LEAST_WEEKS} of the last weeks"
        return median(values), None

    def _lag(self, known: Known) -> Bounds:
        if known.complete_until is None:
            return Bounds(None, reason=known.problem)
        oldest = min(known.complete_until, known.oldest_due or known.complete_until)
        behind = max((self._at - oldest).total_seconds(), 0.0)
        return Bounds(behind, behind, behind)

    def _overdue_runs(self, rule: Rule, known: Known) -> Bounds:
        organisation = rule.part.organisation
        parts = [
            (overdue, late)
            for one, overdue, late in self._overdue.get(known.id, ())
            if organisation is None or organisation == one
        ]
        sure, late = sum(one for one, _ in parts), sum(one for _, one in parts)
        reason = "the reads of some of its runs are late" if late else None
        return Bounds(sure + late, sure, sure + late, reason, counted=sure + late)


def is_complete(rule: Rule, known: Known, window: Window, windows: Windows) -> bool:
    """Return whether nothing of an earlier window can be missing."""
    of_steps = rule.part.of_steps or rule.metric in OF_CALLS
    return _began_before(known, window) and not windows.doubts(window)[of_steps].exists


def _began_before(known: Known, window: Window) -> bool:
    """Return whether the history begins before the window."""
    return known.since is not None and known.since <= window.begun


def _with_the_time_before(rule: Rule, known: Known, window: Window, found: Bounds) -> Bounds:
    """Return the bounds of a window that may begin before the history: more may have run in it."""
    if rule.metric not in SUMS or _began_before(known, window):
        return found
    return msgspec.structs.replace(
        found, high=math.inf, reason=found.reason or "its history begins within the window"
    )


def compared(rule: Rule, answer: Answer) -> Verdict:
    """Return whether a metric breaches a rule at every value within its bounds."""
    found, window, usual = answer.bounds, answer.window, answer.usual
    limit = rule.limit if usual is None else rule.limit * usual
    breached: bool | None
    if found.value is None:
        # Too few runs for a breach, unless some may be missing.
        breached = None if found.reason is not None else False
    elif rule.comparison == "below":
        breached = True if found.high < limit else False if found.low >= limit else None
    else:
        breached = True if found.low > limit else False if found.high <= limit else None
    return Verdict(
        is_breached=breached,
        value=found.value,
        threshold=limit if usual is not None or rule.comparison != "above_usual" else None,
        reason=found.reason if breached is None else None,
        window=window,
        counted=found.counted,
        usual=usual,
        currency=found.unit,
    )
