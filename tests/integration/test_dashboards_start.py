"""The start of the dashboards: its progress lines, and when it loads the demo again."""

from __future__ import annotations

import re

import pytest

from config.superset import serve
from tests.support import query

LAST_START = """
    INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
    VALUES ('r', 'w', 'succeeded', 'api', 'final', now() - CAST(%s AS interval))
"""


def test_a_step_says_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    """A step prints its name when it begins, and its duration in seconds only if it succeeds."""
    with serve._step("loading"):
        assert capsys.readouterr().out == "loading ..."
    assert re.fullmatch(r" \d+ s\n", capsys.readouterr().out)
    with pytest.raises(ValueError, match="broken"), serve._step("loading"):
        raise ValueError("broken")
    assert capsys.readouterr().out == "loading ...\n"


@pytest.mark.parametrize(("age", "recent"), [("2 days", True), ("4 days", False)])
def test_an_old_demo_is_loaded_again(database_url: str, age: str, recent: bool) -> None:
    """The demo is loaded again if its newest run started more than three days ago."""
    query(database_url, "INSERT INTO orchestra.workflows (id) VALUES ('w')")
    query(database_url, LAST_START, age)
    assert serve._has_recent_runs(database_url) is recent


def test_a_demo_without_runs_is_loaded(database_url: str, empty_database_url: str) -> None:
    """An empty database and a schema without runs both need the demo."""
    assert not serve._has_recent_runs(empty_database_url)
    assert not serve._has_recent_runs(database_url)
