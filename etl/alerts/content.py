"""What the evaluation and the history know about an alert, for its messages."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec

Periods = tuple[tuple[datetime, datetime], tuple[datetime, datetime]]
WEEK = timedelta(days=7)
EXAMPLES = 3
"""Maximum number of run ids in a message."""

_UNITS = {
    "failure_rate": "share",
    "soft_failure_rate": "share",
    "failures": "count",
    "runs": "count",
    "duration_p50": "seconds",
    "duration_p95": "seconds",
    "tokens": "tokens",
    "unpriced_calls": "count",
    "overdue_runs": "count",
    "lag": "seconds",
}


class Content(msgspec.Struct, frozen=True):
    """What the evaluation knows about an alert, as the outbox stores it."""

    metric: str = ""
    value: float | None = None
    threshold: float | None = None
    currency: str | None = None
    """The currency, if the metric is a cost."""
    comparison: str = "above"
    """`above`, `below`, or `above_usual`: the threshold is then `limit` times the usual value."""
    limit: float | None = None
    """The number in the rule."""
    window_begin: datetime | None = None
    window_end: datetime | None = None
    since: datetime | None = None
    """When the alert began to fire, or was resolved."""
    reason: str | None = None
    """Why the present value is not known; None: it is."""
    runs: int | None = None
    """Runs in the window, or steps (see `is_of_steps`)."""
    workflow_id: str | None = None
    workflow_name: str | None = None
    node: str | None = None
    model: str | None = None
    organisation: str | None = None
    label: str | None = None

    @property
    def is_of_steps(self) -> bool:
        """Whether `runs` is a number of steps, because the rule names a node or a model."""
        return self.node is not None or self.model is not None

    @property
    def unit(self) -> str | None:
        """`share`, `seconds`, `tokens`, `count`, or the currency of a cost; None: not known."""
        return self.currency if self.metric == "cost" else _UNITS.get(self.metric)

    @property
    def periods(self) -> Periods | None:
        """The window, and the same hours a week earlier; None for a metric without a window."""
        begin, end = self.window_begin, self.window_end
        if begin is None or end is None:
            return None
        earlier = WEEK * max(1, math.ceil((end - begin) / WEEK))
        return (begin, end), (begin - earlier, end - earlier)


class Evidence(msgspec.Struct, frozen=True):
    """What the history adds to an alert when its message is sent."""

    pattern: str | None = None
    """The most frequent failure in the window: its message with ids, numbers and quotes left
    out."""
    pattern_runs: int = 0
    """Runs with that failure."""
    runs: tuple[str, ...] = ()
    """Ids of example runs."""
    explanation: tuple[str, ...] = ()
    """Why the number changed, in short lines."""
