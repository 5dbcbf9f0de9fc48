"""Where the reader of a message finds more: a command, and a dashboard."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import UTC
from urllib.parse import quote

from etl.alerts.content import Content
from etl.terminal import plain

LONGEST_NAME = 120
LONGEST_KEY = 1000
"""Maximum characters of a key or a command in a text; an id has at most 512 bytes."""

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

_EXPLAINED = {"cost": "cost", "duration_p50": "duration", "duration_p95": "duration"}
"""The command of `explain` for each metric."""


def command(content: Content, runs: Sequence[str]) -> str:
    """Return the command that shows more; `alerts list` if a name in it cannot be copied."""
    explained = _EXPLAINED.get(content.metric)
    if explained and content.workflow_id is not None and content.periods is not None:
        (begin, end), (earlier, _) = (
            [f"{one.astimezone(UTC):%Y-%m-%dT%H:%M}" for one in period]
            for period in content.periods
        )
        arguments = ["explain", explained, content.workflow_id]
        arguments += ["--since", begin, "--until", end, "--against", earlier]
        if explained == "cost":
            # An equals sign, because a name can begin with a hyphen.
            parts = {name: getattr(content, name) for name in ("organisation", "node", "model")}
            arguments += [f"--{name}={value}" for name, value in parts.items() if value is not None]
    elif runs:
        arguments = ["runs", "show", runs[0]]
    elif content.workflow_id is not None:
        arguments = ["runs", "list", "--workflow", content.workflow_id]
    else:
        return "orchestra-etl status"
    found = f"orchestra-etl {shlex.join(arguments)}"
    return found if plain(found, LONGEST_KEY) == found else "orchestra-etl alerts list"


def dashboard(content: Content, dashboards: str) -> str:
    """Return the address of the dashboard for the metric, in the alert's window."""
    name = _DASHBOARDS.get(content.metric, "overview")
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
    shown = content.workflow_name or content.workflow_id
    # Superset's filter lists other names with some characters replaced.
    if (
        shown is not None
        and len(shown) <= LONGEST_NAME
        and plain(shown) == shown
        and "<" not in shown
    ):
        value = "'" + re.sub("([!'])", r"!\1", shown) + "'"
        filters.append(
            "NATIVE_FILTER-workflow:(extraFormData:(filters:!((col:workflow_shown,op:IN,"
            f"val:!({value})))),filterState:(label:{value},value:!({value})),"
            "id:NATIVE_FILTER-workflow,ownState:())"
        )
    address = f"{dashboards.rstrip('/')}/superset/dashboard/orchestra-{name}/"
    if not filters:
        return address
    return f"{address}?native_filters=({quote(','.join(filters), safe=',:()')})"
