"""Whether a rule is breached for a workflow: yes, no, or not known and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from statistics import median

import msgspec

from etl.alerts.bounds import Bounds, bounds, doubt, weeks_before
from etl.alerts.knowledge import Known
from etl.alerts.measures import Measures, Window
from etl.alerts.rules import OF_CALLS, SUMS, WEEKS, WITHOUT_WINDOW, Comparison, Rule

LEAST_WEEKS = 2
"""The weeks that must be known for a usual value."""


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
    """Runs or steps that the value is of."""
    usual: float | None = None
    currency: str | None = None


class Judge:
    """Judges rules by figures that have been read; equal questions are answered once."""

    def __init__(
        self,
        at: datetime,
        measures: Measures,
        overdue: Mapping[str, Sequence[tuple[str | None, int, int]]],
    ) -> None:
        """Judge at this database time, by these figures and these overdue runs."""
        self._at = at
        self._measures = measures
        self._overdue = overdue
        self._bounds: dict[object, Bounds] = {}
        self._usual: dict[object, tuple[float | None, str | None]] = {}

    def verdict(self, rule: Rule, known: Known, window: Window | None) -> Verdict:
        """Return whether a rule is breached for a workflow.

        Args:
            rule: the rule.
            known: what is known about the workflow.
            window: the rule's window; None: it has none, or nothing is known about this moment.
        """
        if rule.metric in WITHOUT_WINDOW:
            return _compared(rule, self._of_now(rule, known), rule.limit)
        if known.problem is not None or window is None:
            return Verdict(None, reason=known.problem)
        if known.is_stuck(window.begun, window.ended):
            return Verdict(
                None, reason="the rollups of this time cannot be computed", window=window
            )
        found = self._in(rule, known, window)
        if rule.comparison != "above_usual":
            if (
                rule.comparison == "below"
                and rule.metric in SUMS
                and not _began_before(known, window)
            ):
                found = _more_before(found)
            return _compared(rule, found, rule.limit, window)
        usual, reason = self._usual_of(rule, known, window)
        if usual is None:
            return Verdict(
                None, found.value, reason=reason, window=window, counted=found.counted,
                currency=found.unit,
            )  # fmt: skip
        return _compared(rule, found, rule.limit * usual, window, usual)

    def _in(self, rule: Rule, known: Known, window: Window) -> Bounds:
        key = (rule.metric, rule.part, window, rule.min_runs)
        if (found := self._bounds.get(key)) is None:
            found = self._bounds[key] = bounds(
                rule.metric, rule.part, self._measures, known, window, min_runs=rule.min_runs
            )
        return found

    def _usual_of(
        self, rule: Rule, known: Known, window: Window
    ) -> tuple[float | None, str | None]:
        """Return the usual value, or None and why there is none."""
        key = (rule.metric, rule.part, window)
        if (found := self._usual.get(key)) is None:
            found = self._usual[key] = self._median(rule, known, window)
        return found

    def _median(self, rule: Rule, known: Known, window: Window) -> tuple[float | None, str | None]:
        values = []
        complete = 0
        for week in range(1, WEEKS + 1):
            earlier = weeks_before(window, week)
            if not is_complete(rule, known, earlier):
                continue
            found = bounds(rule.metric, rule.part, self._measures, known, earlier, min_runs=0)
            if found.is_exact:
                complete += 1
                if found.value is not None:
                    values.append(found.value)
        if complete < LEAST_WEEKS:
            return None, f"fewer than {LEAST_WEEKS} of the last {WEEKS} weeks are known"
        if not values:
            return None, f"nothing ran in the same hours of the last {WEEKS} weeks"
        return median(values), None

    def _of_now(self, rule: Rule, known: Known) -> Bounds:
        if rule.metric == "lag":
            if known.complete_until is None:
                return Bounds(None, reason=known.problem or "no sweep has completed yet")
            oldest = min(known.complete_until, known.oldest_due or known.complete_until)
            behind = max((self._at - oldest).total_seconds(), 0.0)
            return Bounds(behind, behind, behind)
        organisation = rule.part.organisation
        parts = [
            (overdue, late)
            for one, overdue, late in self._overdue.get(known.id, ())
            if organisation is None or organisation == one
        ]
        sure, late = sum(one for one, _ in parts), sum(one for _, one in parts)
        reason = "the reads of some of its runs are late" if late else None
        return Bounds(sure + late, sure, sure + late, reason, counted=sure + late)


def is_complete(rule: Rule, known: Known, window: Window) -> bool:
    """Return whether nothing of an earlier window can be missing."""
    if not _began_before(known, window) or known.is_stuck(window.begun, window.ended):
        return False
    of_steps = rule.part.of_steps or rule.metric in OF_CALLS
    return not doubt(known, window, of_steps=of_steps).exists


def _began_before(known: Known, window: Window) -> bool:
    """Return whether the history begins before the window."""
    return known.since is not None and known.since <= window.begun


def _more_before(found: Bounds) -> Bounds:
    """Return the bounds of a window that begins before the history: more may have run in it."""
    return msgspec.structs.replace(
        found, high=math.inf, reason=found.reason or "its history begins within the window"
    )


_TESTS: Mapping[Comparison, tuple[Callable[[Bounds, float], bool], Callable[[Bounds, float], bool]]]
_TESTS = {
    "above": (lambda one, limit: one.low > limit, lambda one, limit: one.high <= limit),
    "above_usual": (lambda one, limit: one.low > limit, lambda one, limit: one.high <= limit),
    "below": (lambda one, limit: one.high < limit, lambda one, limit: one.low >= limit),
}


def _compared(
    rule: Rule,
    found: Bounds,
    threshold: float,
    window: Window | None = None,
    usual: float | None = None,
) -> Verdict:
    is_certain, is_impossible = _TESTS[rule.comparison]
    if found.value is None:
        # Too little ran to say anything, unless more may have.
        breached = False if found.is_exact else None
    elif is_certain(found, threshold):
        breached = True
    else:
        breached = False if is_impossible(found, threshold) else None
    return Verdict(
        is_breached=breached,
        value=found.value,
        threshold=threshold,
        reason=found.reason if breached is None else None,
        window=window,
        counted=found.counted,
        usual=usual,
        currency=found.unit,
    )
