"""An export killed at every point, and two exports at once.

The points are around every file that an export writes or deletes, and around every commit. The lake
equals the last commit or the next one, and the next export makes it equal to PostgreSQL.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from pyiceberg.table import StaticTable

from tests import lake_reader
from tests.faults import workers
from tests.faults.fail_points import passed
from tests.faults.lake_exporter import Exporter
from tests.faults.suite import Fault
from tests.support import query

POINTS = "tests.faults.fail_points:install_lake"
# As if the last search for garbage were long ago, so that the next export searches and deletes.
SEARCH_AGAIN = "UPDATE orchestra_etl.export_state SET collected_at = NULL"
LOCATIONS = """
    SELECT table_name AS name, metadata_location AS location FROM orchestra_etl.iceberg_tables
"""


def _in_catalog(export: Exporter) -> tuple[int, int]:
    """Return the numbers of runs and steps that a reader through the catalog sees."""
    found = {row["name"]: row["location"] for row in query(export.url, LOCATIONS)}
    runs, steps = (
        len(StaticTable.from_metadata(found[name]).scan().to_arrow()) for name in ("runs", "steps")
    )
    return runs, steps


def _problems(export: Exporter, before: int, after: int) -> list[str]:
    """Return what a killed export has left that is neither the last commit nor the next one."""
    runs, steps = _in_catalog(export)
    found = []
    if runs not in (before, after) or steps != 3 * runs:
        found.append(f"the catalog has {runs} runs with {steps} steps of {before} or {after} runs")
    by_path = [len(lake_reader.arrow(export.location, name)) for name in ("runs", "steps")]
    if by_path[0] not in (before, after) or by_path[1] not in (3 * before, 3 * after):
        found.append(f"by path, there are {by_path[0]} runs and {by_path[1]} steps")
    return found


@pytest.mark.fault(
    35, "export killed at every point", "C", guard="one transaction for tables, state and queue"
)
def test_an_export_killed_at_every_point(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """Wherever an export is killed, the lake is whole, and the next export completes it."""
    export = Exporter(database_url, str(tmp_path / "lake"), tmp_path, log)
    assert export("run") == 0
    record = tmp_path / "points"
    stored = 40

    def killed_at(point: str, *without: str) -> tuple[int, list[str]]:
        nonlocal stored
        export.add_runs(4)
        query(database_url, SEARCH_AGAIN)
        before, stored = stored, stored + 4
        status = export("run", without=without, install=POINTS, FAIL_POINT=point)
        problems = _problems(export, before, stored)
        if export("run") != 0 or _in_catalog(export) != (stored, 3 * stored):
            problems.append(f"the next export does not complete it: {_in_catalog(export)}")
        if export.runs() != (stored, stored):
            problems.append(f"by path, the next export is not complete: {export.runs()}")
        return status, problems

    export.add_runs(4)
    stored += 4
    query(database_url, SEARCH_AGAIN)
    assert export("run", install=POINTS, FAIL_POINTS_LOG=str(record)) == 0
    points = passed(record)
    assert {one.partition("#")[0] for one in points} >= {
        "before commit of exporter._export", "after OpenTable.commit", "before OpenTable.publish",
        "before Store.delete",
    }, points  # fmt: skip
    for point in points:
        status, problems = killed_at(point)
        assert problems == [], f"killed {point}: {workers.output_of(log)}"
        assert status == -signal.SIGKILL, point
        fault.injected()
    assert export("verify", "--deep") == 0, workers.output_of(log)
    # After one of the tables, before the others.
    _, problems = killed_at("after OpenTable.commit#2", "a_commit_for_each_table")
    fault.control(problems)


def after_two_exports(export: Exporter, *without: str) -> list[str]:
    """Run two exports at once, the second one while the first one has files but no commit."""
    export.add_runs(8)
    query(export.url, SEARCH_AGAIN)
    guards = ["slow_commits", *without]
    with export.started("run", without=guards) as first:
        time.sleep(0.7)
        with export.started("run", without=guards) as second:
            statuses = [second.wait(), first.wait()]
    problems = [] if statuses == [0, 0] else [f"the exports ended with {statuses}"]
    if export("run") != 0 or export("verify", "--deep") != 0:
        problems.append(workers.output_of(export.log)[-300:])
    return problems


@pytest.mark.fault(36, "two exports at once", "C", guard="the lock on the export's state")
def test_two_exports_at_once(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """A second export does nothing: above all, it does not delete the files of the first one."""
    export = Exporter(database_url, str(tmp_path / "lake"), tmp_path, log)
    assert export("run") == 0
    for _ in range(3):
        assert after_two_exports(export) == []
        fault.injected()
    assert "another process is exporting" in workers.output_of(log)
    fault.control(after_two_exports(export, "no_export_lock"))
