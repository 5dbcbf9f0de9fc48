"""The rules of alerts, and the channels for their messages."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from etl.alert_metrics import (
    CONDITIONS,
    DURATIONS,
    SHARES,
    WHOLE_RUNS,
    WITHOUT_WINDOW,
    Comparison,
    Metric,
)
from etl.settings.section import Section
from etl.settings.values import (
    WRITTEN_DURATION,
    WRITTEN_POSITIVE,
    Duration,
    Identifier,
    Name,
    PositiveDuration,
    SecretFile,
    at_most,
    seconds,
)

MINUTE, DAY = 60.0, 86400.0
LONGEST_WINDOW, LONGEST_USUAL = 31 * DAY, 7 * DAY
_LONGEST_NAME = 256


def _short(text: str) -> str:
    if len(text.encode()) > _LONGEST_NAME:
        raise ValueError(f"is longer than {_LONGEST_NAME} bytes")
    return text


ShortName = Annotated[Name, AfterValidator(_short), at_most(_LONGEST_NAME)]


def _limit(value: object) -> object:
    """Accept a number, or a duration with its unit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number, or a duration in quotes, such as '30s'")
    if isinstance(value, str):
        seconds(value)
    elif not 0 <= value < float("inf"):
        raise ValueError("must be a number that is not negative")
    return value


Limit = Annotated[
    float | str,
    BeforeValidator(_limit),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": WRITTEN_DURATION},
            ]
        }
    ),
]


class AlertSettings(Section):
    """A rule: what to measure, its limit, and who gets a message.

    The window is in UTC, and moves every minute.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [condition]} for condition in CONDITIONS],
            "dependencies": {"repeat": ["notify"]},
        }
    )

    name: ShortName
    """A name, by which messages and commands refer to the rule."""
    workflow: Identifier | None = None
    """Only this workflow, by its id; none: each workflow separately."""
    node: ShortName | None = None
    """Only the steps of this node; the rule then counts steps."""
    model: ShortName | None = None
    """Only the calls of this model, as `orchestra.model_usage` names it; the rule then counts
    steps."""
    organisation: ShortName | None = None
    """Only the runs or steps of this organisation, by its id."""
    label: ShortName | None = Field(
        default=None, json_schema_extra={"allOf": [{"pattern": "^[^=]+="}]}
    )
    """Only workflows with this label: `team=support`."""
    metric: Metric
    """What is compared: `failure_rate`, `soft_failure_rate` (shares of what ended: 0.2),
    `failures` (failed and soft-failed), `runs`, `duration_p50`, `duration_p95` (of successes),
    `cost`, `tokens`, `unpriced_calls`, `overdue_runs` (running for longer than usual), or `lag`
    (how far behind the API the data is)."""
    above: Limit | None = None
    """The rule is breached above this number; for durations and lag, a duration: `30s`."""
    below: Limit | None = Field(
        default=None,
        json_schema_extra={
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": WRITTEN_POSITIVE},
            ]
        },
    )
    """The rule is breached below this number or duration."""
    above_usual: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The rule is breached above this many times the median of the same hours (UTC) of the last
    four weeks."""
    over: PositiveDuration = 3600.0
    """The window: whole minutes, at most 31d; 7d with `above_usual`. `lag` and `overdue_runs` have
    none."""
    min_runs: int = Field(default=0, ge=0)
    """With fewer runs in the window (steps with `node` or `model`; for shares and durations only
    those that ended), the rule is not breached."""
    hold: Duration = Field(default=0.0, alias="for")
    """How long the breach must last before the rule fires."""
    notify: tuple[str, ...] = Field(default=(), json_schema_extra={"uniqueItems": True})
    """The channels that get messages: names of `[notify.NAME]`; none: only commands, metrics and
    dashboards show the alert."""
    repeat: PositiveDuration | None = None
    """How often to repeat the message while the rule fires; none: never."""

    @field_validator("label")
    @classmethod
    def _usable_label(cls, label: str | None) -> str | None:
        key, equals, _ = (label or "x=").partition("=")
        if not key or not equals:
            raise ValueError("must be a label and its value, such as 'team=support'")
        return label

    @field_validator("over")
    @classmethod
    def _whole_minutes(cls, over: float) -> float:
        if over % MINUTE or over > LONGEST_WINDOW:
            raise ValueError("must be a number of whole minutes, at most 31d")
        return over

    @field_validator("notify")
    @classmethod
    def _distinct(cls, notify: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(notify)) < len(notify):
            raise ValueError("names a channel twice")
        return notify

    @model_validator(mode="after")
    def _one_condition(self) -> AlertSettings:
        given = [name for name in CONDITIONS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of above, below and above_usual")
        if self.above_usual is not None:
            if self.metric in WITHOUT_WINDOW:
                raise ValueError(f"{self.metric} has no window: use above or below")
            if self.over > LONGEST_USUAL:
                raise ValueError("with above_usual, over must be at most 7d")
            return self
        written = self.below if self.above is None else self.above
        if isinstance(written, str) != (self.metric in DURATIONS):
            wanted = "a duration, such as '30s'" if self.metric in DURATIONS else "a number"
            raise ValueError(f"{self.comparison} must be {wanted} for {self.metric}")
        if self.metric in SHARES and not (
            self.limit < 1 if self.comparison == "above" else 0 < self.limit <= 1
        ):
            raise ValueError(f"{self.comparison} must be a share between 0 and 1, such as 0.2")
        if self.comparison == "below" and self.limit == 0:
            raise ValueError(f"no {self.metric} is ever below 0")
        return self

    @model_validator(mode="after")
    def _fitting(self) -> AlertSettings:
        if self.metric in WHOLE_RUNS and (self.node is not None or self.model is not None):
            raise ValueError(f"{self.metric} is measured for whole runs: remove node and model")
        if self.metric in WHOLE_RUNS and self.min_runs:
            raise ValueError(f"min_runs has no meaning for {self.metric}: remove it")
        if self.metric == "lag" and self.organisation is not None:
            raise ValueError("lag is measured for whole workflows: remove organisation")
        if self.metric in WITHOUT_WINDOW and "over" in self.model_fields_set:
            raise ValueError(f"{self.metric} has no window: remove over")
        if self.repeat is not None and not self.notify:
            raise ValueError("repeat needs notify")
        return self

    @property
    def comparison(self) -> Comparison:
        """The condition that is set."""
        if self.above_usual is not None:
            return "above_usual"
        return "below" if self.above is None else "above"

    @property
    def limit(self) -> float:
        """The condition's number: seconds for durations, a factor with `above_usual`."""
        written = next(one for one in (self.above, self.below, self.above_usual) if one is not None)
        return seconds(written) if isinstance(written, str) else float(written)


class NotifySettings(Section):
    """A channel for messages about alerts."""

    url_file: SecretFile
    """A file that contains the channel's URL: `http://` or `https://` for a JSON webhook, else a
    URL of Apprise (Slack, Teams, mail, PagerDuty, …), which needs `orchestra-etl[alerts]`. The
    program re-reads it for every message."""
