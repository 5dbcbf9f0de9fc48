"""The rules of alerts, as the evaluation needs them: plain values, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from etl.alert_metrics import DURATIONS, SHARES, Comparison, Metric

WEEKS = 4
"""The weeks before the window whose median is usual."""


class Part(msgspec.Struct, frozen=True):
    """The part of a workflow that a rule looks at; None: not limited by it."""

    organisation: str | None = None
    node: str | None = None
    model: str | None = None

    @property
    def of_steps(self) -> bool:
        """Whether counts are of steps instead of runs."""
        return self.node is not None or self.model is not None


class Rule(msgspec.Struct, frozen=True):
    """A rule."""

    name: str
    metric: Metric
    comparison: Comparison
    limit: float
    """The threshold, in seconds for durations; the factor with `above_usual`."""
    over: float = 3600.0
    """The length of the window, a number of whole minutes."""
    workflow: str | None = None
    """Only this workflow; None: each workflow separately."""
    label: str | None = None
    """Only workflows with this label: `key=value`."""
    part: Part = Part()
    min_runs: int = 0
    hold: float = 0.0
    """How long a breach must last before it fires."""
    notify: tuple[str, ...] = ()
    repeat: float | None = None

    @property
    def is_duration(self) -> bool:
        """Whether the metric is in seconds."""
        return self.metric in DURATIONS

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of the runs or steps that ended."""
        return self.metric in SHARES

    def covers(self, workflow_id: str, labels: Mapping[str, str]) -> bool:
        """Return whether the rule is about this workflow with these labels."""
        if self.workflow is not None and self.workflow != workflow_id:
            return False
        if self.label is None:
            return True
        key, _, value = self.label.partition("=")
        return labels.get(key) == value

    def subject(self, workflow_id: str) -> str:
        """Return the key of the rule's state for this workflow."""
        named = {**msgspec.structs.asdict(self.part), "label": self.label}
        return workflow_id + "".join(
            f" {name}={value}" for name, value in named.items() if value is not None
        )
