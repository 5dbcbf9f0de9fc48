"""The messages about alerts: what changed, in numbers and names, and what to do next.

A message contains no payload and no secret. Names come from users and servers: every name is cut,
and its control characters are made visible. In a text that a service formats, mentions, links and
markup in names are escaped too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from etl.alerts import next_steps
from etl.alerts.content import EXAMPLES, Content, Evidence
from etl.alerts.next_steps import LONGEST_KEY, LONGEST_NAME
from etl.terminal import counted, plain

Kind = Literal["firing", "reminder", "resolved", "test"]
Level = Literal["failure", "success", "info"]

_LEVELS: Mapping[Kind, Level] = {
    "firing": "failure",
    "reminder": "failure",
    "resolved": "success",
    "test": "info",
}
LONGEST_PATTERN = 300

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

# Mentions, links and formatting of chat services. Underscores are common in names of nodes, and
# format at most a part of the text. The backslash keeps two different names different.
_MARKUP = re.compile(r"[<>@*`~|\[\]\\]|(?<=:)//")


class Message(msgspec.Struct, frozen=True):
    """A message, complete and independent of the channel that sends it."""

    key: str
    """Equal in every attempt to deliver the message, so that a receiver can drop repetitions."""
    kind: Kind
    rule: str
    title: str
    lines: tuple[str, ...]
    """The text for people; each name in it is already safe on a terminal."""
    marked_lines: tuple[str, ...]
    """The same text for a service that may format it."""
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
    command = next_steps.command(content, evidence.runs)
    link = next_steps.dashboard(content, dashboards) if dashboards else None
    title, lines = _text(kind, rule, content, evidence, safe=str)
    marked_title, marked = _text(kind, rule, content, evidence, safe=_escaped)
    command_line, address = f"Command: {command}", [f"Dashboard: {link}"] if link else []
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
        "text": "\n".join([*lines, command_line, *address]),
    }
    return Message(
        key=key,
        kind=kind,
        rule=rule,
        title=title,
        lines=(*lines, command_line, *address, f"Key: {plain(key, LONGEST_KEY)}"),
        marked_title=marked_title,
        marked_lines=(
            *marked,
            _escaped(command_line),
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
    measured = f"{what}: {amount(content.value, content.unit)}"
    if content.threshold is not None:
        measured += f", {_comparison(kind, content)}"
    lines = [measured[0].upper() + measured[1:]]
    if content.reason:
        lines.append(f"Note: {safe(plain(content.reason, LONGEST_PATTERN))}")
    details = []
    if content.window_begin is not None and content.window_end is not None:
        details.append(f"{_time(content.window_begin)} to {_time(content.window_end)}")
    if content.runs is not None:
        details.append(counted(content.runs, "step" if content.is_of_steps else "run"))
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
        runs = counted(evidence.pattern_runs, "run")
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
    """Return the text with the characters escaped that a chat service would interpret."""
    return _MARKUP.sub(lambda found: "".join(f"\\x{ord(one):02x}" for one in found.group()), text)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
