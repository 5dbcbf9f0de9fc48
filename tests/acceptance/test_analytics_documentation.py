"""The questions of docs/analytics.md: each query runs as it stands there, and answers."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest

from etl import app
from etl.local.history import History
from etl.local.simulator import Simulator
from tests.conftest import ROOT
from tests.support import configuration, environment, load, query, sync

DOCUMENT = (ROOT / "docs" / "analytics.md").read_text()
SECTION = re.compile(r"^## (\d+)\. ([^\n]+)\n\n```sql\n(.+?)```\n\n(.+?)\n(?=\n|\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = SECTION.findall(DOCUMENT)


@pytest.fixture
def loaded(tmp_path: Path, database_url: str) -> str:
    """A database with a day of runs, some of them still running, and the rollups and prices that follow from them."""
    history = History(
        seed=11, workflows=3, runs_per_workflow=60, live=3, arrivals_per_minute=0, failure_rate=0.4,
        spacing=timedelta(minutes=5),
    )  # fmt: skip
    with Simulator(history).in_thread() as simulator:
        settings = load(tmp_path, configuration(*history.workflow_ids), environment(database_url, simulator.base_url))
        asyncio.run(sync(settings))
        with app.open_database(settings) as database:
            asyncio.run(app.refresh_rollups(settings, database))
    return database_url


def test_ten_questions_are_answered(loaded: str) -> None:
    """Every query of the document runs, has the columns that its result shows there, and finds something where that does."""
    assert [number for number, *_ in SECTIONS] == [str(number) for number in range(1, 11)]
    for number, title, sql, shown in SECTIONS:
        rows = query(loaded, sql)
        if shown.startswith("No row."):
            assert rows == [], title
            continue
        header = [name.strip() for name in shown.splitlines()[0].strip("|").split("|")]
        assert rows, f"{number}. {title}: no row"
        assert list(rows[0]) == header, title


def test_the_document_counts_what_there_is(loaded: str) -> None:
    """Runs and steps counted by the document's queries are those of the tables."""
    answers = {number: query(loaded, sql) for number, _, sql, _ in SECTIONS}
    runs = query(loaded, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"]
    assert sum(row["runs"] for row in answers["1"]) == runs
    assert sum(row["runs"] for row in answers["10"]) == runs
    assert sum(row["runs"] for row in answers["7"]) == runs
    cut = query(loaded, "SELECT count(*) AS n FROM orchestra.steps WHERE finish_reason = 'length' GROUP BY node_id,"
                        " COALESCE(response_model, request_model) ORDER BY 1 DESC LIMIT 1")  # fmt: skip
    assert answers["8"][0]["cut_off"] == cut[0]["n"]
