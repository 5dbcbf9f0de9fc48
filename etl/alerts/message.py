"""The messages about alerts: what changed, in numbers and names, and how to go on.

A message contains no payload and no secret. Names come from users and servers, so every name is cut
and made visible. In texts that a service formats, what it could obey (mentions, links, markup) is
escaped too.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from etl.terminal import plain

Kind = Literal["firing", "reminder", "resolved", "test"]
Level = Literal["failure", "success", "info"]

_LEVELS: Mapping[Kind, Level] = {
    "firing": "failure",
    "reminder": "failure",
    "resolved": "success",
    "test": "info",
}
Periods = tuple[tuple[datetime, datetime], tuple[datetime, datetime]]
WEEK = timedelta(days=7)
LONGEST_NAME = 120
LONGEST_PATTERN = 300
LONGEST_KEY = 1000
"""The most characters of a key or a command in a text; an id has at most 512 bytes."""
EXAMPLES = 3
"""The most run ids in a message."""

_DASHBOARDS = {
    "failure_rate": "failures",
    "soft_failure_rate": "failures",
    "failures": "failures",
    "duration_p50": "nodes",
    "duration_p95": "nodes",
    "cost": "models",
    "tokens": "models",
    "unpriced_calls": "models",
}
"""The dashboard for each metric; `overview` for the others."""

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

_RUNS = {
    "failure_rate": "Latest failed runs",
    "soft_failure_rate": "Latest failed runs",
    "failures": "Latest failed runs",
    "duration_p50": "Slowest runs",
    "duration_p95": "Slowest runs",
    "cost": "Runs with the most tokens",
    "tokens": "Runs with the most tokens",
    "overdue_runs": "Oldest open runs",
}

_EXPLAINED = {"cost": "cost", "duration_p50": "duration", "duration_p95": "duration"}
"""What `explain` is called for, by metric."""

# Mentions, links and formatting of chat services. Underscores are common in names of nodes, and
# format at most a part of the text. The backslash keeps two different names different.
_MARKUP = re.compile(r"[<>@*`~|\[\]\\]|(?<=:)//")


class Content(msgspec.Struct, frozen=True):
    """What the evaluation knows about an alert, as the outbox stores it."""

    metric: str = ""
    value: float | None = None
    threshold: float | None = None
    currency: str | None = None
    """Of a cost."""
    comparison: str = "above"
    """`above`, `below`, or `above_usual`: the threshold is then `limit` times the usual value."""
    limit: float | None = None
    """The number in the rule."""
    window_begin: datetime | None = None
    window_end: datetime | None = None
    since: datetime | None = None
    """Since when the alert fires, or when it was resolved."""
    reason: str | None = None
    """Why the present value is not known; None: it is."""
    runs: int | None = None
    """Runs in the window."""
    workflow_id: str | None = None
    workflow_name: str | None = None
    node: str | None = None
    model: str | None = None
    organisation: str | None = None
    label: str | None = None

    @property
    def unit(self) -> str | None:
        """`share`, `seconds`, `tokens`, `count`, or the currency of a cost; None: not known."""
        return self.currency if self.metric == "cost" else _UNITS.get(self.metric)

    @property
    def periods(self) -> Periods | None:
        """The window, and the same hours a week earlier; None for a metric of this moment."""
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


class Message(msgspec.Struct, frozen=True):
    """A message, complete and independent of the channel that sends it."""

    key: str
    """The same for every attempt to deliver it, so that a receiver can drop repetitions."""
    kind: Kind
    rule: str
    title: str
    lines: tuple[str, ...]
    """The text for people; each name in it is already safe on a terminal."""
    marked_lines: tuple[str, ...]
    """The same for a service that may format it."""
    marked_title: str
    document: Mapping[str, Any]
    """The body of a JSON webhook."""

    @property
    def text(self) -> str:
        """The text for people."""
        return "\n".join(self.lines)

    @property
    def marked_text(self) -> str:
        """The text for a service that may format it; every name in it is escaped."""
        return "\n".join(self.marked_lines)

    @property
    def level(self) -> Level:
        """The severity, in the words of Apprise."""
        return _LEVELS[self.kind]


def compose(
    *,
    key: str,
    kind: Kind,
    rule: str,
    content: Content,
    evidence: Evidence,
    dashboards: str | None = None,
) -> Message:
    """Return the message about an alert.

    Args:
        key: identifies the message.
        kind: what has happened to the alert.
        rule: the rule's name.
        content: what the evaluation knows.
        evidence: what the history adds.
        dashboards: the base URL of Superset; None: the message has no link.
    """
    runs = tuple(plain(one, LONGEST_NAME) for one in evidence.runs[:EXAMPLES])
    command = _command(content, evidence.runs)
    link = _link(content, dashboards) if dashboards else None
    title, lines = _text(kind, rule, content, evidence, safe=str)
    marked_title, marked = _text(kind, rule, content, evidence, safe=_escaped)
    look, address = f"Look: {command}", [f"Dashboard: {link}"] if link else []
    document = {
        "version": 1,
        "key": key,
        "kind": kind,
        "alert": _name(rule),
        "metric": content.metric,
        "value": content.value,
        "threshold": content.threshold,
        "comparison": content.comparison,
        "limit": content.limit,
        "unit": content.unit,
        "window": {"begin": content.window_begin, "end": content.window_end},
        "since": content.since,
        "reason": content.reason,
        "runs": content.runs,
        "workflow": {"id": content.workflow_id, "name": _name(content.workflow_name)},
        "node": _name(content.node),
        "model": _name(content.model),
        "organisation": _name(content.organisation),
        "label": _name(content.label),
        "failure_pattern": _pattern(evidence),
        "example_runs": runs,
        "explanation": evidence.explanation,
        "command": command,
        "dashboard": link,
        "title": title,
        "text": "\n".join([*lines, look, *address]),
    }
    return Message(
        key=key,
        kind=kind,
        rule=rule,
        title=title,
        lines=(*lines, look, *address, f"Key: {plain(key, LONGEST_KEY)}"),
        marked_title=marked_title,
        marked_lines=(
            *marked,
            _escaped(look),
            *address,
            f"Key: {_escaped(plain(key, LONGEST_KEY))}",
        ),
        document=document,
    )


def sample_message(channel: str, at: datetime) -> Message:
    """Return the message with which a channel is tested."""
    key = f"test {channel} {at:%Y-%m-%dT%H:%M:%SZ}"
    title = "test: orchestra-etl can reach this channel"
    lines = (f"Sent by orchestra-etl alerts test at {_time(at)}", f"Key: {key}")
    marked = tuple(_escaped(one) for one in lines)
    return Message(
        key=key,
        kind="test",
        rule="",
        title=title,
        lines=lines,
        marked_title=_escaped(title),
        marked_lines=marked,
        document={
            "version": 1, "key": key, "kind": "test", "title": title, "text": "\n".join(lines),
        },
    )  # fmt: skip


def _text(
    kind: Kind, rule: str, content: Content, evidence: Evidence, *, safe: Callable[[str], str]
) -> tuple[str, list[str]]:
    """Return title and lines; `safe` is applied to every name."""

    def name(text: str | None) -> str:
        return safe(_name(text) or "")

    subject = name(content.workflow_name or content.workflow_id)
    title = f"{kind}: {name(rule)}" + (f" ({subject})" if subject else "")
    what = content.metric.replace("_", " ") or "value"
    measured = f"{what} is {amount(content.value, content.unit)}"
    if content.threshold is not None:
        measured += f", {_comparison(kind, content)}"
    lines = [measured[0].upper() + measured[1:]]
    if content.reason:
        lines.append(f"Note: {safe(plain(content.reason, LONGEST_PATTERN))}")
    details = []
    if content.window_begin is not None and content.window_end is not None:
        details.append(f"{_time(content.window_begin)} to {_time(content.window_end)}")
    if content.runs is not None:
        details.append(f"{content.runs:,} run{'' if content.runs == 1 else 's'}")
    if details:
        lines.append(f"Window: {', '.join(details)}")
    parts = (
        ("Workflow", content.workflow_name or content.workflow_id),
        ("Node", content.node),
        ("Model", content.model),
        ("Organisation", content.organisation),
        ("Label", content.label),
    )
    lines += [f"{label}: {name(one)}" for label, one in parts if one]
    if content.since is not None and kind != "resolved":
        lines.append(f"Firing since: {_time(content.since)}")
    if (pattern := _pattern(evidence)) is not None:
        runs = f"{evidence.pattern_runs:,} run{'' if evidence.pattern_runs == 1 else 's'}"
        lines.append(f"Most frequent failure ({runs}): {safe(pattern)}")
    lines += [f"Why: {safe(plain(one, LONGEST_PATTERN))}" for one in evidence.explanation]
    if evidence.runs:
        label = _RUNS.get(content.metric, "Latest runs")
        lines.append(f"{label}: {', '.join(name(one) for one in evidence.runs[:EXAMPLES])}")
    return title, lines


def amount(value: float | None, unit: str | None) -> str:
    """Return a value with its unit (see `Content.unit`); None is `unknown`."""
    if value is None:
        return "unknown"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "seconds":
        return f"{value:,.1f} s"
    if unit in (None, "count", "tokens"):
        return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"
    return f"{f'{value:,.4f}'.rstrip('0').rstrip('.')} {plain(unit or '', LONGEST_NAME)}"


def _comparison(kind: Kind, content: Content) -> str:
    """Return how the value compares with the threshold."""
    direction = "below" if content.comparison == "below" else "above"
    text = f"{direction} {amount(content.threshold, content.unit)}"
    if content.comparison == "above_usual" and content.limit is not None:
        text += f" ({content.limit:g} times the usual)"
    return f"no longer {text}" if kind == "resolved" else text


def _name(text: str | None) -> str | None:
    return None if text is None else plain(text, LONGEST_NAME)


def _pattern(evidence: Evidence) -> str | None:
    return None if evidence.pattern is None else plain(evidence.pattern, LONGEST_PATTERN)


def _escaped(text: str) -> str:
    """Return the text with every character escaped that a chat service could obey."""
    return _MARKUP.sub(lambda found: "".join(f"\\x{ord(one):02x}" for one in found.group()), text)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _command(content: Content, runs: Sequence[str]) -> str:
    """Return the command that shows more, with only such ids as can be copied."""
    explained = _EXPLAINED.get(content.metric)
    if explained and content.workflow_id is not None and content.periods is not None:
        (begin, end), (earlier, _) = (
            [f"{one.astimezone(UTC):%Y-%m-%dT%H:%M}" for one in period]
            for period in content.periods
        )
        arguments = ["explain", explained, content.workflow_id]
        arguments += ["--since", begin, "--until", end, "--against", earlier]
    elif runs:
        arguments = ["runs", "show", runs[0]]
    elif content.workflow_id is not None:
        arguments = ["runs", "list", "--workflow", content.workflow_id]
    else:
        return "orchestra-etl status"
    command = f"orchestra-etl {shlex.join(arguments)}"
    return command if plain(command, LONGEST_KEY) == command else "orchestra-etl alerts list"


def _link(content: Content, dashboards: str) -> str:
    """Return the address of the dashboard for the metric, in the alert's window."""
    dashboard = _DASHBOARDS.get(content.metric, "overview")
    filters = []
    if content.window_begin is not None and content.window_end is not None:
        begin, end = (
            f"{one.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
            for one in (content.window_begin, content.window_end)
        )
        filters.append(
            f"NATIVE_FILTER-time:(extraFormData:(time_range:'{begin} : {end}'),"
            f"filterState:(value:'{begin} : {end}'),id:NATIVE_FILTER-time,ownState:())"
        )
    name = content.workflow_name or content.workflow_id
    # A filter offers other names in a changed form.
    if name is not None and len(name) <= LONGEST_NAME and plain(name) == name and "<" not in name:
        value = "'" + re.sub("([!'])", r"!\1", name) + "'"
        filters.append(
            "NATIVE_FILTER-workflow:(extraFormData:(filters:!((col:workflow_shown,op:IN,"
            f"val:!({value})))),filterState:(label:{value},value:!({value})),"
            "id:NATIVE_FILTER-workflow,ownState:())"
        )
    address = f"{dashboards.rstrip('/')}/superset/dashboard/orchestra-{dashboard}/"
    if not filters:
        return address
    return f"{address}?native_filters=({quote(','.join(filters), safe=',:()')})"
