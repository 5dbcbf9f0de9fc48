"""Which workflows are swept, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import ConfigDict, Field, field_validator, model_validator

from etl.settings.section import Section
from etl.settings.values import Identifier, PositiveDuration

_CRON_FIELD = "[0-9A-Za-z*,/-]+"
_CRON_LINE = rf"^\s*(?:@[A-Za-z]+|{_CRON_FIELD}(?:\s+{_CRON_FIELD}){{4}})\s*$"
"""The JSON Schema's pattern of cron lines; the program checks each field."""


class WorkflowSettings(Section):
    """One workflow whose runs are stored."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["interval", "cron"]}})

    id: Identifier
    """The workflow's id in the API."""
    name: str | None = None
    """A display name; none: the API's name."""
    interval: PositiveDuration = 60.0
    """Time between two sweeps; ignored if `cron` is set."""
    cron: str | None = Field(default=None, json_schema_extra={"pattern": _CRON_LINE})
    """When to sweep, in UTC: five cron fields, or a name such as `@daily`. Weekdays count from 0 or
    `sun`. If both day fields are set, a day needs to match only one of them."""
    discover: bool = True
    """Whether to sweep its run list; false: only `runs` and tracked runs are read."""
    runs: tuple[Identifier, ...] = ()
    """Ids of runs to read without a list."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Labels that are stored with the workflow, for analysts."""

    @field_validator("cron")
    @classmethod
    def _usable_cron(cls, line: str | None) -> str | None:
        if line is not None:
            from etl import cron  # takes 100 ms, and most configurations have no cron line

            cron.parse(line)
        return line

    @model_validator(mode="after")
    def _one_schedule(self) -> WorkflowSettings:
        if self.cron is not None and "interval" in self.model_fields_set:
            raise ValueError("has both interval and cron; keep one of them")
        return self

    @property
    def longest_interval(self) -> float:
        """The longest time between two sweeps, in seconds."""
        if self.cron is None:
            return self.interval
        from etl import cron  # takes 100 ms, and most configurations have no cron line

        return cron.parse(self.cron).longest_interval(datetime.now(UTC).date())


DEFAULT_INTERVAL: float = WorkflowSettings.model_fields["interval"].default
"""Seconds between sweeps of a workflow that is not configured (`api.all_workflows`)."""
