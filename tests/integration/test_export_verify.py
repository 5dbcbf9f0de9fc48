"""`export verify` finds every difference between PostgreSQL, the recorded state and the files."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

from etl.cli import export_verify
from etl.export.destination import Destination
from etl.export.verify import VerifyReport, verify
from tests import lake_reader as lake
from tests.exported_world import ExportedWorld
from tests.support import query, slow

RUNS = 4


def _verify(world: ExportedWorld, *, deep: bool = False) -> VerifyReport:
    destination = Destination(str(world.location), payloads=True)
    return world.database.in_one_snapshot(lambda c: verify(c, destination, deep=deep))


def _days(world: ExportedWorld, runs: str = "true") -> int:
    """Return the number of days with such runs."""
    day = "orchestra_etl.run_day(start_time, first_seen_at)"
    sql = f"SELECT count(DISTINCT {day}) AS n FROM orchestra.runs WHERE {runs}"
    return int(query(world.url, sql)[0]["n"])


def _files(world: ExportedWorld, table: str) -> list[Path]:
    return sorted((world.location / "orchestra" / table / "data").rglob("*.parquet"))


def _unseen(world: ExportedWorld, statement: str) -> None:
    """Run a statement with the triggers off: nothing is queued."""
    with psycopg.connect(world.url) as writer:
        writer.execute("SET session_replication_role = replica")
        writer.execute(statement)


@pytest.mark.parametrize("deep", [*slow(False), True])
def test_a_lake_that_matches_is_found_to_match(world: ExportedWorld, deep: bool) -> None:
    """After an export, everything agrees; also after retention, and the next export."""
    days = _days(world)
    found = _verify(world, deep=deep)
    assert (found.ok, found.days, found.waiting) == (True, days, 0)
    assert found.rows["runs"] == 4
    world.prune(payloads=1.1, runs=2.1)
    assert _verify(world, deep=deep).waiting > 0
    world.export()
    found = _verify(world, deep=deep)
    assert (found.ok, found.days, found.waiting) == (True, days, 0), found.differences
    assert found.rows["runs"] == 4


def test_days_that_wait_for_an_export_are_not_compared(world: ExportedWorld) -> None:
    """A change that is queued is no difference, but it is counted."""
    query(
        world.url,
        "UPDATE orchestra.runs SET status = 'x' WHERE id = %s", world.run_ids[0],
    )  # fmt: skip
    found = _verify(world)
    assert (found.ok, found.days, found.waiting) == (True, _days(world) - 1, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orchestra.runs SET status = 'x'",
        "DELETE FROM orchestra.steps WHERE position = 0",
        "UPDATE orchestra.outputs SET data = '1'",
        "UPDATE orchestra.run_payloads SET note = 'x'",
    ],
)
def test_a_change_that_was_not_queued_is_found(world: ExportedWorld, statement: str) -> None:
    """Rows that were changed behind the triggers are found, by the digest of their day."""
    _unseen(world, statement)
    found = _verify(world)
    assert len(found.differences) == _days(world)
    assert "differ from those exported" in found.differences[0].what


def test_a_day_without_a_record_is_found(world: ExportedWorld) -> None:
    """A day that is neither exported nor queued is found."""
    first = "(SELECT min(day) FROM orchestra_etl.export_days)"
    query(world.url, f"DELETE FROM orchestra_etl.export_days WHERE day = {first}")
    assert ["not exported" in one.what for one in _verify(world).differences] == [True]


def test_a_missing_or_damaged_file_is_found(world: ExportedWorld) -> None:
    """A file that was deleted or damaged behind the program's back is named."""
    first, second = _files(world, "steps")[:2]
    first.unlink()
    second.write_bytes(b"PAR1 and nothing else")
    found = [(one.table, one.what) for one in _verify(world).differences]
    assert sorted(found) == sorted(
        [
            ("steps", f"the lake lacks the file {first.name}"),
            ("steps", f"the file {second.name} is damaged"),
        ]
    )


@pytest.mark.parametrize("part", ["data", "footer"])
def test_bytes_that_cannot_be_decoded_are_found(world: ExportedWorld, part: str) -> None:
    """A file with damaged data or a damaged footer is named, and the other days are compared."""
    path = _files(world, "steps")[0]
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for offset in range(4, footer, 7) if part == "data" else range(footer, len(content) - 8):
        content[offset] ^= 0xFF
    path.write_bytes(content)
    found = _verify(world, deep=True)
    assert [(one.table, "damaged" in one.what) for one in found.differences] == [("steps", True)]
    assert found.days == _days(world)


def test_a_file_with_other_rows_is_found_by_counting(world: ExportedWorld) -> None:
    """A file that was replaced by one with fewer rows is found without comparing values."""
    path = _files(world, "steps")[0]
    whole = parquet.ParquetFile(path).read()
    parquet.write_table(whole.slice(1), path)
    [one] = _verify(world).differences
    assert (one.table, one.what) == (
        "steps",
        f"rows in the files: {whole.num_rows - 1:,}; recorded: {whole.num_rows:,}",
    )


def test_a_changed_value_is_found_by_a_deep_comparison(world: ExportedWorld) -> None:
    """One value that differs in a file is found by `--deep`, and only by it."""
    path = _files(world, "runs")[0]
    whole = parquet.ParquetFile(path).read()
    column = whole.schema.get_field_index("status")
    field = whole.schema.field(column)
    parquet.write_table(
        whole.set_column(column, field, pa.array(["other"] * whole.num_rows, field.type)), path
    )
    assert _verify(world).ok
    [one] = _verify(world, deep=True).differences
    assert (one.table, one.what) == ("runs", "1 row has other values than PostgreSQL")


def test_another_lake_is_not_compared(world: ExportedWorld, tmp_path: Path) -> None:
    """The report says if the configuration names another lake than the last export."""
    destination = Destination(str(tmp_path / "other"), payloads=True)
    found = world.database.in_one_snapshot(lambda c: verify(c, destination))
    assert "configured differently" in found.differences[0].what
    assert lake.arrow(world.location, "runs").num_rows == 4


def test_the_command_says_what_differs(
    world: ExportedWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`export verify` exits with 0 if all agrees, else with 11 and a line for each difference."""
    command = world.command(tmp_path, monkeypatch, capsys)
    printed = command("export", "verify", "--deep")
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.endswith("every value of the lake matches the history\n")
    lost = _files(world, "runs")[0]
    lost.unlink()
    printed = command("export", "verify", "--json")
    assert printed.status == 11
    assert [one["table"] for one in printed.json["differences"]] == ["runs"]
    printed = command("export", "verify")
    assert printed.status == 11
    assert f"the lake lacks the file {lost.name}" in " ".join(printed.out.split())


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (21, "and 1 more difference\n"),
        (99, "and 79 more"),
        (150, "and at least 80 more differences"),
    ],
)
def test_what_is_not_shown_is_counted(
    capsys: pytest.CaptureFixture[str], found: int, line: str
) -> None:
    """Differences that are not shown are counted; not exactly if the report was cut."""
    report = VerifyReport()
    for number in range(found):
        report.add(None, "runs", f"difference {number}")
    export_verify._print(report)
    assert line in capsys.readouterr().out
