"""Messages about alerts: the words, and names as data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etl.alerts.content import Content, Evidence
from etl.alerts.message import LONGEST_PATTERN, Kind, Message, amount, compose
from etl.alerts.next_steps import LONGEST_NAME

WINDOW = {
    "window_begin": datetime(2026, 3, 1, 9, tzinfo=UTC),
    "window_end": datetime(2026, 3, 1, 10, tzinfo=UTC),
}


def _compose(
    kind: Kind = "firing", rule: str = "r", evidence: Evidence | None = None, **content: Any
) -> Message:
    return compose(
        key="k",
        kind=kind,
        rule=rule,
        content=Content(**{**WINDOW, **content}),
        evidence=evidence or Evidence(),
        dashboards="https://superset.example",
    )


def test_the_text_says_what_how_much_and_how_to_go_on() -> None:
    """A message names the rule, the numbers, the window, the cause, runs, a command and a link."""
    found = _compose(
        rule="support triage fails",
        metric="failure_rate",
        value=0.431,
        threshold=0.2,
        runs=28,
        since=datetime(2026, 3, 1, 9, 55, tzinfo=UTC),
        workflow_id="w1",
        workflow_name="Support triage",
        node="fetch",
        evidence=Evidence("status <n>", 9, ("a", "b", "c", "d")),
    )
    assert found.title == "firing: support triage fails (Support triage)"
    assert found.text.splitlines() == [
        "Failure rate: 43.1 %, above 20.0 %",
        "Window: 2026-03-01 09:00 UTC to 2026-03-01 10:00 UTC, 28 steps",
        "Workflow: Support triage",
        "Node: fetch",
        "Firing since: 2026-03-01 09:55 UTC",
        "Most frequent failure (9 runs): status <n>",
        "Latest failed runs: a, b, c",
        "Command: orchestra-etl runs show a",
        f"Dashboard: {found.document['dashboard']}",
        "Key: k",
    ]
    assert found.document["text"] == found.text.removesuffix("\nKey: k")
    assert found.level == "failure"


def test_a_resolved_alert_says_so() -> None:
    """The message that an alert is resolved does not claim that the limit is still exceeded."""
    found = _compose("resolved", metric="runs", comparison="below", value=4.0, threshold=1.0)
    assert found.title == "resolved: r"
    assert found.lines[0] == "Runs: 4, no longer below 1"
    assert found.level == "success"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.5, "share", "50.0 %"),
        (75.26, "seconds", "75.3 s"),
        (1234.5, "USD", "1,234.5 USD"),
        (0.0042, "EUR", "0.0042 EUR"),
        (1234567.0, "tokens", "1,234,567"),
        (3.0, "count", "3"),
        (None, "count", "unknown"),
    ],
)
def test_numbers_have_units(value: float | None, unit: str, text: str) -> None:
    """Shares are percentages, durations seconds, and costs have their currency."""
    assert amount(value, unit) == text


def test_a_comparison_with_the_usual_names_both() -> None:
    """A threshold that follows from the usual value says how many times the usual it is."""
    found = _compose(
        metric="cost", value=9.0, threshold=6.0, currency="USD", comparison="above_usual", limit=3.0
    )
    assert found.lines[0] == "Cost: 9 USD, above 6 USD (3 times the usual)"


def test_the_link_shows_the_window_and_the_workflow() -> None:
    """The link leads to the metric's dashboard with the alert's window and workflow."""
    link = _compose(metric="cost", workflow_id="w1", workflow_name="It's !").document["dashboard"]
    assert link.startswith("https://superset.example/superset/dashboard/orchestra-models/?")
    assert re.fullmatch(r"[!-~]+", link)
    filters = unquote(link.partition("native_filters=")[2])
    assert "time_range:'2026-03-01T09:00:00 : 2026-03-01T10:00:00'" in filters
    assert "col:workflow_shown,op:IN,val:!('It!'s !!')" in filters
    odd = _compose(metric="cost", workflow_id="w1", workflow_name="a\u202eb").document["dashboard"]
    assert "workflow_shown" not in odd


HOSTILE = (
    "<!channel> @everyone <@U1> [click](https://evil.example) *b* `c` ~d~ |e| \\f",
    "two\nlines\r\nKey: forged",
    "\x1b[31mred\x07",
    "a\u202eb\u200bc",
    "x" * 5000,
    "<script>alert(1)</script>&amp;",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_data(name: str) -> None:
    """No name adds a line, a control character, a mention or a link, and none is endless."""
    found = _compose(
        rule=name,
        metric="failure_rate",
        workflow_id=name,
        workflow_name=name,
        node=name,
        model=name,
        organisation=name,
        label=name,
        evidence=Evidence(name, 1, (name,), (name,)),
    )
    plain = _compose(
        rule="n", metric="failure_rate", workflow_id="n", workflow_name="n", node="n", model="n",
        organisation="n", label="n", evidence=Evidence("n", 1, ("n",), ("n",)),
    )  # fmt: skip
    assert len(found.lines) == len(plain.lines)
    assert len(found.text) < 10 * LONGEST_NAME + 2 * LONGEST_PATTERN + 3000
    assert all(one.isprintable() for one in (*found.lines, found.title, found.marked_title))
    marked = "\n".join([found.marked_title, *found.marked_lines])
    without_link = "\n".join(
        line for line in marked.splitlines() if not line.startswith("Dashboard: ")
    )
    assert not re.search(r"[<>@*`~|\[\]]|://", without_link)
    assert len(msgspec.json.encode(found.document)) < 20_000


@given(st.text(), st.text())
def test_two_names_never_look_the_same(one: str, other: str) -> None:
    """Escaping keeps different names different, unless they differ only in white space."""
    # A longer name may be cut, because an escape has up to ten characters.
    assume(all(len(text) * 10 <= LONGEST_NAME for text in (one, other)))
    names = {" ".join(text.split()) for text in (one, other)}
    titles = {_compose(rule=text).marked_title for text in (one, other)}
    assert len(titles) == len(names)


@pytest.mark.parametrize(
    ("days", "begin", "earlier"),
    [(1, "2026-02-28T10:00", "2026-02-21T10:00"), (10, "2026-02-19T10:00", "2026-02-05T10:00")],
)
def test_an_explanation_compares_with_whole_weeks_before(
    days: int, begin: str, earlier: str
) -> None:
    """The command explains the window against the same hours of the last week that is apart."""
    found = _compose(
        metric="cost", workflow_id="w1", window_begin=WINDOW["window_end"] - timedelta(days=days)
    )
    assert found.document["command"] == (
        f"orchestra-etl explain cost w1 --since {begin} --until 2026-03-01T10:00"
        f" --against {earlier}"
    )


def test_an_explanation_is_about_the_part_that_the_rule_measures() -> None:
    """The command explains the cost of the rule's organisation, node and model alone."""
    found = _compose(metric="cost", workflow_id="w1", node="-answer it", model="m")
    assert found.document["command"].endswith(" '--node=-answer it' --model=m")


def test_a_command_is_copied_whole_or_replaced() -> None:
    """An id with a space is quoted for the shell; one with hidden characters is left out."""
    quoted = _compose(metric="runs", workflow_id="two words; rm -rf /")
    assert quoted.document["command"] == (
        "orchestra-etl runs list --workflow 'two words; rm -rf /'"
    )
    hidden = _compose(metric="runs", workflow_id="a\u200bb")
    assert hidden.document["command"] == "orchestra-etl alerts list"
