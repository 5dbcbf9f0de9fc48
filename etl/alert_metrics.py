"""The metrics of alerts, and how a rule compares one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Metric = Literal[
    "failure_rate",
    "soft_failure_rate",
    "failures",
    "runs",
    "duration_p50",
    "duration_p95",
    "cost",
    "tokens",
    "overdue_runs",
    "lag",
    "unpriced_calls",
]
SHARES = frozenset({"failure_rate", "soft_failure_rate"})
OF_CALLS = frozenset({"cost", "tokens", "unpriced_calls"})
"""The metrics that are measured in steps, also for whole workflows."""
SUMS = frozenset({"runs", "failures", *OF_CALLS})
"""The metrics that grow with every run or step of the window."""
QUANTILES: Mapping[str, float] = {"duration_p50": 0.5, "duration_p95": 0.95}
DURATIONS = frozenset({*QUANTILES, "lag"})
WITHOUT_WINDOW = frozenset({"overdue_runs", "lag"})
"""The metrics of the present state, which have no window."""
WHOLE_RUNS = frozenset({"runs", *WITHOUT_WINDOW})
"""The metrics that a node or model does not have."""

Comparison = Literal["above", "below", "above_usual"]
CONDITIONS: tuple[Comparison, ...] = get_args(Comparison)
"""The settings for the limit of a rule, which sets exactly one of them."""
