"""The metrics of alerts in plain Python, over all runs and steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from etl.alerts.rules import Rule
from tests import rollup_oracle

Row = Mapping[str, Any]

PRICES = {"cheap": (Decimal("0.5"), Decimal("1.25")), "dear": (Decimal(10), Decimal("30.5"))}
"""The prices in US dollars per million input and output tokens; other models have none."""
_OVER = ("succeeded", "soft_failed", "failed")


def value(
    rule: Rule,
    workflow_id: str,
    begun: datetime,
    ended: datetime,
    runs: Sequence[Row],
    steps: Sequence[Row],
) -> float | None:
    """Return the metric of a rule with a window, in seconds for durations.

    Args:
        rule: the rule.
        workflow_id: the workflow.
        begun: begin of the window.
        ended: end of the window, exclusive.
        runs: all rows of `orchestra.runs`.
        steps: all rows of `orchestra.steps`.
    """
    by_id = {run["id"]: run for run in runs}
    present = [one for one in steps if one["absent_since"] is None]
    soft = {one["run_id"] for one in present if rollup_oracle.outcome_of(one) == "soft_failed"}
    own_runs, own_steps = [], []
    for run in runs:
        time = run["start_time"] or run["first_seen_at"]
        outcome = rollup_oracle.outcome_of(run)
        if run["state"] == "succeeded" and run["id"] in soft:
            outcome = "soft_failed"
        if (
            run["workflow_id"] == workflow_id
            and begun <= time < ended
            and rule.part.organisation in (None, run["organization_id"])
        ):
            own_runs.append((outcome, run["duration_ms"]))
    for step in present:
        run = by_id[step["run_id"]]
        time = step["start_time"] or run["start_time"] or run["first_seen_at"]
        model = step["response_model"] or step["request_model"]
        if (
            (step if step["start_time"] else run)["workflow_id"] == workflow_id
            and begun <= time < ended
            and rule.part.organisation in (None, step["organization_id"])
            and rule.part.node in (None, step["node_id"])
            and rule.part.model in (None, model)
        ):
            own_steps.append(step)
    of_steps = rule.part.node is not None or rule.part.model is not None
    counted = (
        [(rollup_oracle.outcome_of(one), one["duration_ms"]) for one in own_steps]
        if of_steps
        else own_runs
    )
    return _metric(rule, counted, own_steps)


def _metric(
    rule: Rule, counted: Sequence[tuple[str, float | None]], steps: Sequence[Row]
) -> float | None:
    outcomes = [outcome for outcome, _ in counted]
    over = [one for one in outcomes if one in _OVER]
    calls = [one for one in steps if rollup_oracle.is_call(one)]
    match rule.metric:
        case "runs":
            return len(outcomes)
        case "failure_rate" | "soft_failure_rate":
            if len(over) < max(rule.min_runs, 1):
                return None
            wanted = "failed" if rule.metric == "failure_rate" else "soft_failed"
            return over.count(wanted) / len(over)
        case "duration_p50" | "duration_p95":
            lengths = [ms for outcome, ms in counted if outcome == "succeeded" and ms is not None]
            if len(lengths) < max(rule.min_runs, 1):
                return None
            return _quantile(lengths, 0.5 if rule.metric == "duration_p50" else 0.95)
    if len(outcomes) < rule.min_runs:
        return None
    match rule.metric:
        case "failures":
            return outcomes.count("failed") + outcomes.count("soft_failed")
        case "cost":
            return float(sum((_cost(one) or 0 for one in calls), Decimal(0)))
        case "unpriced_calls":
            return sum(is_unpriced(one) for one in calls)
        case "tokens":
            return sum(rollup_oracle.usage_of(one)["total_tokens"] or 0 for one in calls)
    raise AssertionError(rule.metric)


def is_unpriced(step: Row) -> bool:
    """Return whether a call is missing from the cost."""
    return rollup_oracle.is_unmetered(step) or _cost(step) is None


def _cost(step: Row) -> Decimal | None:
    """Return the cost of a call with plain input and output, or of one without usage."""
    prices = PRICES.get(step["response_model"] or step["request_model"])
    usage = rollup_oracle.usage_of(step)
    if prices is None:
        return None
    read, written = usage["input_tokens"] or 0, usage["output_tokens"] or 0
    return (read * prices[0] + written * prices[1]) / 1_000_000


def _quantile(lengths: Iterable[float], q: float) -> float:
    """Return the middle of the bucket with the quantile, in seconds."""
    buckets = sorted(rollup_oracle.bucket(one) or 0 for one in lengths)
    found = buckets[max(math.ceil(q * len(buckets)) - 1, 0)]
    return (math.exp((found - 0.5) * math.log(1.04)) if found else 0.5) / 1000
