"""How long runs and their payloads are kept."""

from __future__ import annotations

from pydantic import model_validator

from etl.settings.section import Section
from etl.settings.values import PositiveDuration


class RetentionSettings(Section):
    """What `prune` removes, by the time since a run's end. Without a time, it removes nothing."""

    payloads: PositiveDuration | None = None
    """When to remove inputs, outputs, metadata and unknown fields; states, times, errors, models
    and tokens stay."""
    runs: PositiveDuration | None = None
    """When to remove the whole run."""

    @model_validator(mode="after")
    def _ordered(self) -> RetentionSettings:
        if self.payloads is not None and self.runs is not None and self.payloads > self.runs:
            raise ValueError("payloads must not be kept for longer than runs")
        return self
