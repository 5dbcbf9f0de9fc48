"""The value of a metric, and the least and the most that it can be if data is missing.

A count covers what has happened so far: a run that has not ended has not failed. A share covers the
runs that have ended, so each run that has not ended yet can move it in either direction. Durations
are those of the runs that succeeded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from etl.alert_metrics import OF_CALLS, QUANTILES, Metric
from etl.alerts.knowledge import Known
from etl.alerts.measures import Figures, Measures, Window
from etl.alerts.rules import Part

_PENDING = "some of its runs are not read yet"
_LOST = "some of its records are dead letters"
_OPEN = "runs that have not ended could change it"
_PRUNED = "some of its runs are older than the retention"


class Bounds(msgspec.Struct, frozen=True):
    """A metric, and the least and the most that it can be."""

    value: float | None
    """The value by what is known; None: there is none, because too few runs or steps ended."""
    low: float = 0.0
    high: float = math.inf
    reason: str | None = None
    """Why the bounds differ; None: they do not."""
    counted: int = 0
    """The number of runs or steps that the metric covers."""
    unit: str | None = None
    """The currency of a cost."""

    @property
    def is_exact(self) -> bool:
        """Whether the metric is known."""
        return self.reason is None


class Doubt(msgspec.Struct, frozen=True):
    """What is not known about a window."""

    runs: int = 0
    """Runs that were never read."""
    late: int = 0
    """Runs whose last read is not recent: they may have ended."""
    endless: bool = False
    """Whether any number of runs or steps may be missing."""
    reason: str | None = None

    @property
    def exists(self) -> bool:
        """Whether anything is not known."""
        return self.endless or self.runs > 0 or self.late > 0


def doubt(known: Known, window: Window, *, of_steps: bool) -> Doubt:
    """Return what is not known about the runs that started in a window, or about its steps.

    A step can have started long after its run. Therefore, every run that started before the
    window's end can have steps in it.
    """
    begun, ended = window.begun, window.ended
    if known.has_gap(begun, ended):
        return Doubt(
            endless=True, reason="runs of this time may have been missed (see `gaps list`)"
        )
    if known.is_stuck(begun, ended):
        return Doubt(endless=True, reason="the rollups of this time cannot be computed")
    if known.is_pruned(begun):
        return Doubt(endless=True, reason=_PRUNED)
    lost = known.lost_runs.total - known.lost_runs.before(begun)
    if of_steps:
        waiting = known.unread.before(ended) + known.late.before(ended)
        lost += known.lost_steps.total - known.lost_steps.before(begun)
        reason = _PENDING if waiting else _LOST if lost else None
        return Doubt(endless=reason is not None, reason=reason)
    unread, late = known.unread.within(begun, ended), known.late.within(begun, ended)
    reason = _PENDING if unread or late else _LOST if lost else None
    return Doubt(runs=unread + lost, late=late, reason=reason)


def bounds(
    metric: Metric,
    part: Part,
    measures: Measures,
    *,
    window: Window,
    doubts: Mapping[bool, Doubt],
    min_runs: int,
) -> Bounds:
    """Return the metric of a part of a workflow in a window.

    Args:
        metric: a metric with a window.
        part: the part.
        measures: the figures, which include those of the window.
        window: the window; everything before its end is known, except for `doubts`.
        doubts: what is not known about the window's runs (False) and steps (True).
        min_runs: with fewer runs or steps, the metric has no value, and the rule is not breached.
    """
    of_steps = part.of_steps
    counts = measures.figures(window, part, of_steps=of_steps)
    of_counts = doubts[of_steps]
    if metric in OF_CALLS:
        calls = measures.figures(window, part, of_steps=True)
        found = _of_calls(metric, calls, doubts[True], counts.total)
        return _enough(found, counts.total, of_counts, min_runs)
    if metric in QUANTILES:
        found = _quantile(counts.durations, QUANTILES[metric], measures.seconds, of_counts)
        return _enough(found, found.counted, of_counts, max(min_runs, 1))
    if metric == "runs":
        return _count(counts.total, counts.total, of_counts.runs, of_counts)
    if metric == "failures":
        failures = counts.failed + counts.soft_failed
        found = _count(failures, counts.total, of_counts.runs + of_counts.late, of_counts)
        return _enough(found, counts.total, of_counts, min_runs)
    part_of = counts.failed if metric == "failure_rate" else counts.soft_failed
    found = _share(part_of, counts, of_counts)
    return _enough(found, counts.ended, of_counts, max(min_runs, 1))


def _enough(found: Bounds, number: int, missing: Doubt, least: int) -> Bounds:
    """Return the bounds; without a value if there are fewer runs or steps than `least`."""
    if number >= least:
        return found
    if missing.endless or number + missing.runs + missing.late >= least:
        return Bounds(None, reason=missing.reason, counted=number)
    return Bounds(None, low=0, high=0, counted=number)


def _count(value: int, counted: int, more: int, missing: Doubt) -> Bounds:
    high = math.inf if missing.endless else value + more
    return Bounds(value, value, high, missing.reason if high > value else None, counted=counted)


def _share(part_of: int, counts: Figures, missing: Doubt) -> Bounds:
    more = counts.unfinished + missing.runs
    most = counts.ended + more
    value = part_of / counts.ended if counts.ended else None
    if missing.endless:
        return Bounds(value, 0, 1, missing.reason, counted=counts.ended)
    if not more:
        return Bounds(value, value or 0, value or 0, counted=counts.ended)
    low, high = part_of / most, (part_of + more) / most
    return Bounds(value, low, high, missing.reason or _OPEN, counted=counts.ended)


def _of_calls(metric: Metric, calls: Figures, missing: Doubt, counted: int) -> Bounds:
    if metric == "unpriced_calls":
        return _count(calls.unpriced, counted, 0, missing)
    if metric == "tokens":
        reason = "some of its calls report no tokens" if calls.untotalled else None
        value, unit = float(calls.tokens), None
    else:
        if len(calls.currencies) > 1:
            return Bounds(None, reason="its costs are in several currencies", counted=counted)
        reason = "some of its calls have no price" if calls.unpriced else None
        value, unit = float(calls.cost), next(iter(calls.currencies), None)
    reason = missing.reason if missing.exists else reason
    high = value if reason is None else math.inf
    return Bounds(value, value, high, reason, counted=counted, unit=unit)


def _quantile(
    durations: Mapping[int, int], q: float, seconds: Mapping[int, float], missing: Doubt
) -> Bounds:
    """Return the bounds of a quantile: each missing run can be the shortest or the longest.

    As `orchestra.duration_quantile`: the first bucket up to which there are enough durations.
    """
    number = sum(durations.values())
    value = _at(durations, q * number, seconds) if number else None
    if not missing.exists:
        return Bounds(value, value or 0, value or 0, counted=number)
    if missing.endless:
        return Bounds(value, reason=missing.reason, counted=number)
    more = missing.runs + missing.late
    wanted = q * (number + more)
    low = _at(durations, wanted - more, seconds) if wanted > more else 0.0
    high = _at(durations, wanted, seconds)
    return Bounds(value, low, high, missing.reason, counted=number)


def _at(durations: Mapping[int, int], wanted: float, seconds: Mapping[int, float]) -> float:
    up_to = 0
    for bucket in sorted(durations):
        up_to += durations[bucket]
        if up_to >= wanted:
            return seconds[bucket]
    return math.inf
