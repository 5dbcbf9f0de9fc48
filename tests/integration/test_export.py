"""The export to a lake: exact values, one transaction, parts, garbage and other lakes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import sleep
from typing import Any

import psycopg
import pytest
from pyiceberg.manifest import ManifestFile
from pyiceberg.serializers import FromInputFile
from sqlalchemy import text

from etl.database import Database
from etl.errors import LakeError
from etl.export import attachment, exporter, garbage, lake_tables, publication, replacement
from etl.export.catalog import TransactionCatalog
from etl.export.destination import Destination
from etl.export.exporter import ExportReport
from etl.export.lake import Lake
from etl.export.lake_tables import Column, LakeTable
from etl.export.verify import VerifyReport, verify
from etl.schema import upgrade
from tests import lake_reader
from tests.command_line import Command
from tests.support import query, wait_until

TODAY = date(2026, 11, 3)
NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
# Text that breaks quoting, separators and lines; a NUL cannot be stored, so it arrives as escapes.
TEXTS = [
    "", "\\N", "NULL", '"', '""', "a,b", "a\nb", "a\r\nb", "\r", "\n", "\\.", "\\", "'", "\t", " ",
    " padded ", "\\u0000", "\\ud800", "\x01\x1b[31m", "\u2028", "😀", "é", "e\u0301", "שלום",
    "\ufeff", "\ufffd", "nan", "t", "2026-11-03", "{}", "x" * 100_000,
]  # fmt: skip


class World:
    """A database and a place for its lake."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url, self.location = url, folder / "lake"
        self.database = Database(url, patience=5)

    def export(self, *, payloads: bool = False, **options: Any) -> ExportReport:
        """Bring the lake up to date."""
        return exporter.run(
            self.database, Destination(str(self.location), payloads=payloads), **options
        )

    def verified(self, *, payloads: bool = False) -> VerifyReport:
        """Return the result of a verification that finds no difference."""
        destination = Destination(str(self.location), payloads=payloads)
        found = self.database.in_one_snapshot(lambda c: verify(c, destination, deep=True))
        assert found.differences == []
        return found

    def run(self, id: str, day: date = TODAY, **columns: Any) -> None:
        """Store a run that starts at noon, with one step."""
        start = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        self._insert("runs", {**_RUN, "id": id, "start_time": start, **columns})
        step = {**_STEP, "id": f"{id}-step", "run_id": id, "start_time": start}
        self._insert("steps", step)

    def step(self, id: str, run_id: str, **columns: Any) -> None:
        """Store a step."""
        self._insert("steps", {**_STEP, "id": id, "run_id": run_id, **columns})

    def _insert(self, table: str, row: Mapping[str, Any]) -> None:
        names, values = ", ".join(row), ", ".join("%s" for _ in row)
        query(self.url, f"INSERT INTO orchestra.{table} ({names}) VALUES ({values})", *row.values())

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table of the lake, as a reader by path sees them."""
        return lake_reader.rows(self.location, table)

    def row(self, table: str, id: str) -> dict[str, Any]:
        """Return one row."""
        [found] = [row for row in self.rows(table) if row["id"] == id]
        return found

    def files(self) -> set[Path]:
        """Return every file of the lake."""
        return {path for path in self.location.rglob("*") if path.is_file()}


_RUN = {
    "workflow_id": "w", "state": "succeeded", "status_source": "api", "tracking": "final",
    "first_seen_at": NOON,
}  # fmt: skip
_STEP = {
    "workflow_id": "w", "position": 0, "state": "succeeded", "content_hash": b"h",
    "first_seen_at": NOON,
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide an empty database and a place for its lake."""
    found = World(tmp_path, database_url)
    yield found
    found.database.close()


def test_every_text_arrives_as_it_is_stored(world: World) -> None:
    """Quotes, separators, line ends, escapes, look-alikes of null and huge texts stay the same."""
    world.run("r")
    for number, value in enumerate(TEXTS):
        world.step(f"s{number:02}", "r", node_id=value, finish_reason=value or None)
        query(
            world.url,
            "INSERT INTO orchestra.inputs (step_id, data, size_bytes, raw) VALUES (%s, %s, 1, %s)",
            f"s{number:02}",
            json.dumps({value: value}) if "\\u0000" not in value else None,
            value.encode(),
        )
    world.export(payloads=True)
    found = [world.row("steps", f"s{number:02}") for number in range(len(TEXTS))]
    assert [row["node_id"] for row in found] == TEXTS
    assert [row["finish_reason"] for row in found] == [one or None for one in TEXTS]
    payloads = {row["step_id"]: row for row in world.rows("step_payloads")}
    stored = query(world.url, "SELECT step_id, data::text AS data, raw FROM orchestra.inputs")
    assert len(stored) == len(TEXTS)
    for row in stored:
        assert payloads[row["step_id"]]["inputs_data"] == row["data"]
        assert payloads[row["step_id"]]["inputs_raw"] == row["raw"]


def test_every_number_and_time_arrives_as_it_is_stored(world: World) -> None:
    """NaN, infinities, the extremes of each type and microseconds stay the same."""
    numbers = [math.nan, math.inf, -math.inf, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0]
    costs = ["0.123456789012345678", "99999999999999999999.5", "-0.000000000000000001", "0"]
    times = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 11, 3, 12, 0, 0, 1, tzinfo=UTC),
    ]
    world.run("r")
    for number, value in enumerate(numbers):
        world.step(f"n{number}", "r", api_elapsed_seconds=value, total_tokens=2**63 - 1)
    for number, cost in enumerate(costs):
        world.step(f"c{number}", "r", reported_cost=cost)
    for number, time in enumerate(times):
        world.step(f"t{number}", "r", absent_since=time)
    world.export()
    rows = {row["id"]: row for row in world.rows("steps")}
    assert [repr(rows[f"n{n}"]["api_elapsed_seconds"]) for n in range(7)] == [
        repr(one) for one in numbers
    ]
    assert rows["n0"]["total_tokens"] == 2**63 - 1
    assert [rows[f"c{n}"]["reported_cost"] for n in range(4)] == [Decimal(one) for one in costs]
    assert [rows[f"t{n}"]["absent_since"] for n in range(3)] == times
    assert all(row["out_of_range"] is None for row in rows.values())


def test_values_that_iceberg_cannot_hold_are_in_a_column_of_their_own(world: World) -> None:
    """Infinite, BC and late times, NaN and too long decimals are not lost, and stop no export."""
    world.run("late", start_time="infinity")
    world.run("early", start_time="0044-03-15 12:00:00+00 BC", end_time="-infinity")
    world.run("never", start_time="infinity", first_seen_at="infinity")
    world.run("fine")
    for cost in ("NaN", "1e30", "0.1234567890123456789"):
        world.step(cost, "fine", reported_cost=cost, absent_since="12000-01-01 00:00:00+00")
    world.export()
    runs = {row["id"]: row for row in world.rows("runs")}
    unfit = {
        id: row["out_of_range"] and json.loads(row["out_of_range"]) for id, row in runs.items()
    }
    assert unfit == {
        "late": {"start_time": "infinity"},
        "early": {"start_time": "0044-03-15 12:00:00+00 BC", "end_time": "-infinity"},
        "never": {"start_time": "infinity", "first_seen_at": "infinity"},
        "fine": None,
    }
    assert {id: row["run_day"] for id, row in runs.items()} == {
        "late": TODAY, "early": TODAY, "never": date(1, 1, 1), "fine": TODAY,
    }  # fmt: skip
    assert runs["late"]["start_time"] is None
    steps = {row["id"]: row for row in world.rows("steps")}
    assert {
        id: json.loads(row["out_of_range"]) for id, row in steps.items() if row["out_of_range"]
    } == {
        cost: {"reported_cost": stored, "absent_since": "12000-01-01 00:00:00+00"}
        for cost, stored in [
            ("NaN", "NaN"),
            ("1e30", "1" + "0" * 30),
            ("0.1234567890123456789", "0.1234567890123456789"),
        ]
    }
    assert steps["NaN"]["reported_cost"] is None


def test_a_change_replaces_its_own_day_only(world: World) -> None:
    """The second export writes the files of the changed day, and keeps those of all others."""
    world.run("old", TODAY - timedelta(days=1))
    world.run("new")
    assert world.export().days == 2
    before = world.files()
    query(world.url, "UPDATE orchestra.runs SET state = 'failed' WHERE id = 'new'")
    assert world.export().days == 1
    written = {path for path in world.files() - before if path.suffix == ".parquet"}
    assert {path.parent.name for path in written} == {f"run_day={TODAY}", "data"}
    assert {row["id"]: row["state"] for row in world.rows("runs")} == {
        "old": "succeeded", "new": "failed",
    }  # fmt: skip
    assert [row["day"] for row in world.rows("days")] == [TODAY - timedelta(days=1), TODAY]


def test_nothing_changed_writes_nothing(world: World) -> None:
    """An export without changes writes no file, and does not even load the lake's packages."""
    world.run("r")
    world.export()
    before = {path: path.stat().st_mtime_ns for path in world.files()}
    code = f"""
import sys
from etl.database import Database
from etl.export.exporter import run
from etl.export.destination import Destination
report = run(Database({world.url!r}), Destination({str(world.location)!r}))
assert report.complete and not report.rows, report
assert not {{"pyarrow", "pyiceberg"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert {path: path.stat().st_mtime_ns for path in world.files()} == before


def test_a_day_without_rows_writes_no_file(world: World) -> None:
    """A replacement by tables without rows leaves no file without rows."""
    world.run("r")
    world.export()
    before = world.files()

    def emptied(connection: Any) -> int:
        opened = Lake(connection, Destination(str(world.location))).table(lake_tables.RUNS)
        return opened.replace([opened.schema.empty_table()] * 2, TODAY)

    assert world.database.in_one_snapshot(emptied) == 0
    assert world.files() == before


def test_a_moved_run_and_a_deleted_day_leave_no_row_behind(world: World) -> None:
    """A run that moves is in its new day only; a day without runs has no rows."""
    world.run("moved")
    world.run("gone", TODAY - timedelta(days=5))
    world.export()
    query(world.url, "UPDATE orchestra.runs SET start_time = start_time - interval '2 days'"
          " WHERE id = 'moved'")  # fmt: skip
    query(world.url, "DELETE FROM orchestra.runs WHERE id = 'gone'")
    world.export()
    [row] = world.rows("runs")
    assert (row["id"], row["run_day"]) == ("moved", TODAY - timedelta(days=2))
    [step] = world.rows("steps")
    assert step["run_day"] == TODAY - timedelta(days=2)


def test_parts_commit_and_a_stopped_export_continues(world: World) -> None:
    """Each part is a commit of its own; what a stopped export has left comes with the next one."""
    days = [TODAY - timedelta(days=number) for number in range(5)]
    for day in days:
        world.run(f"run of {day}", day)
    seen: list[tuple[int, int, int]] = []
    done = world.export(
        part=0.0, stopped=lambda: len(seen) >= 2, on_days=lambda *now: seen.append(now)
    )
    assert [now[:2] for now in seen] == [(1, 4), (2, 3)]
    assert (done.days, done.waiting, done.complete) == (2, 3, False)
    assert sorted(row["run_day"] for row in world.rows("runs")) == [days[1], days[0]]
    assert world.export(part=0.0).days == 3
    assert sorted(row["run_day"] for row in world.rows("runs")) == sorted(days)
    snapshots = lake_reader.table(world.location, "runs").metadata.snapshots
    assert len(snapshots) == 5


def test_an_upgrade_gets_its_turn_between_two_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an upgrade runs, the next part waits, so that the upgrade gets the export's locks."""
    monkeypatch.setattr(exporter, "UPGRADE_TURN", 600.0)
    for days in range(3):
        world.run(f"r{days}", TODAY - timedelta(days=days))
    count = "SELECT count(*) AS n FROM orchestra_etl.export_days"
    done: list[ExportReport] = []
    running = threading.Thread(target=lambda: done.append(world.export(part=0.0)))
    with psycopg.connect(world.url) as gate, psycopg.connect(world.url) as upgrading:
        gate.execute("LOCK TABLE orchestra_etl.upgrade_lock IN EXCLUSIVE MODE")
        running.start()
        wait_until(lambda: query(world.url, count)[0]["n"] == 1)
        upgrading.execute("SET lock_timeout = '5s'")
        upgrading.execute("LOCK TABLE orchestra_etl.export_state IN ACCESS EXCLUSIVE MODE")
        assert query(world.url, count)[0]["n"] == 1
        upgrading.rollback()
        sleep(0.5)
        assert query(world.url, count)[0]["n"] == 1
    running.join(30)
    assert [one.days for one in done] == [3]


def test_since_leaves_earlier_days_queued(world: World) -> None:
    """`--since` exports later days; the earlier ones are part of the next export."""
    world.run("old", TODAY - timedelta(days=9))
    world.run("new")
    assert world.export(since=TODAY).days == 1
    assert [row["id"] for row in world.rows("runs")] == ["new"]
    assert world.export().days == 1
    assert len(world.rows("runs")) == 2


@pytest.mark.slow
def test_days_written_without_payloads_stay_queued(world: World) -> None:
    """An export without payloads leaves their tables alone; the next one writes the days whole."""
    days = [TODAY, TODAY - timedelta(days=1)]
    for day in days:
        world.run(f"run of {day}", day)
    query(
        world.url,
        "INSERT INTO orchestra.inputs (step_id, data, size_bytes)"
        " SELECT id, '\"first\"', 7 FROM orchestra.steps",
    )

    def inputs() -> list[str]:
        return [row["inputs_data"] for row in world.rows("step_payloads")]

    for expected, change in ([], "first"), (['"first"'] * 2, "second"):
        done = world.export(payloads=True, without_payloads=True, part=0.0)
        assert (done.days, done.waiting_for_payloads, done.complete) == (2, 2, True)
        assert len(world.rows("runs")) == 2
        assert inputs() == expected
        assert [row["step_payloads"] for row in world.rows("days")] == [len(expected) // 2] * 2
        assert len(query(world.url, "SELECT DISTINCT day FROM orchestra_etl.changed_days")) == 2
        assert world.verified(payloads=True).waiting == 2
        done = world.export(payloads=True)
        assert (done.days, done.waiting_for_payloads) == (2, 0)
        assert inputs() == [f'"{change}"'] * 2
        assert query(world.url, "SELECT * FROM orchestra_etl.changed_days") == []
        assert world.verified(payloads=True).days == 2
        query(world.url, "UPDATE orchestra.inputs SET data = '\"second\"'")
    world.export(payloads=True)
    assert world.export(without_payloads=True).waiting_for_payloads == 0


@pytest.mark.slow
def test_the_number_of_manifests_stays_small(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many exports there are, a reader opens few manifests, and finds every row."""
    monkeypatch.setattr(replacement, "MOST", 3)
    days = [TODAY - timedelta(days=number) for number in range(4)]
    for day in days:
        world.run(f"run of {day}", day)
    world.export()
    for number in range(8):
        query(
            world.url, "UPDATE orchestra.runs SET status = %s WHERE id = %s",
            str(number), f"run of {days[number % 4]}",
        )  # fmt: skip
        world.export()
        found = lake_reader.table(world.location, "runs")
        snapshot = found.current_snapshot()
        assert snapshot is not None
        assert len(snapshot.manifests(found.io)) <= 3
    assert sorted(row["status"] for row in world.rows("runs")) == ["4", "5", "6", "7"]
    assert garbage.run(world.database, Destination(str(world.location)), keep=0) is not None
    assert len(world.rows("runs")) == 4


def test_tables_state_and_queue_commit_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure after the catalog has the new tables leaves tables, state and queue as before."""
    world.run("first")
    world.export()
    state = "SELECT to_jsonb(s) AS row FROM orchestra_etl.{} AS s ORDER BY 1::text"
    tables = ("iceberg_tables", "export_state", "export_days")
    world.run("second")
    before = [query(world.url, state.format(table)) for table in tables]
    queued = query(world.url, "SELECT * FROM orchestra_etl.changed_days")
    assert queued

    def commit(self: Lake, *arguments: Any, **options: Any) -> None:
        committed(self, *arguments, **options)
        raise LakeError("the store is full")

    committed = Lake.commit
    monkeypatch.setattr(Lake, "commit", commit)
    with pytest.raises(LakeError, match="full"):
        world.export()
    assert [query(world.url, state.format(table)) for table in tables] == before
    assert query(world.url, "SELECT * FROM orchestra_etl.changed_days") == queued
    assert [row["id"] for row in world.rows("runs")] == ["first"]
    monkeypatch.undo()
    world.export()
    assert [row["id"] for row in world.rows("runs")] == ["first", "second"]


def test_an_unpublished_commit_is_published_by_the_next_export(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its version hints, a commit is invisible by path; the next export writes them."""
    world.run("first")
    world.export()
    world.run("second")
    publish = Lake.publish
    monkeypatch.setattr(Lake, "publish", lambda self: (_ for _ in ()).throw(LakeError("gone")))
    with pytest.raises(LakeError):
        world.export()
    assert [row["id"] for row in world.rows("runs")] == ["first"]
    monkeypatch.setattr(Lake, "publish", publish)
    assert world.export().days == 0
    assert [row["id"] for row in world.rows("runs")] == ["first", "second"]


@pytest.mark.parametrize("hint", ["00009-no-such-file", "", "../x", "\x00\ufffd"])
def test_a_damaged_version_hint_is_written_again(world: World, hint: str) -> None:
    """A version hint that names no commit does not stop the exports: the next one corrects it."""
    world.run("first")
    world.export()
    (world.location / "orchestra" / "runs" / "metadata" / "version-hint.text").write_text(hint)
    world.run("second")
    assert world.export().days == 1
    assert [row["id"] for row in world.rows("runs")] == ["first", "second"]


def test_a_slow_publication_never_hides_a_newer_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version hints of a commit are not written after those of the next one."""
    world.run("first")
    world.export()
    publish = publication.publish

    def slow(database: Database, lake: Lake) -> None:
        monkeypatch.setattr(publication, "publish", publish)
        world.run("third")
        world.export()
        publish(database, lake)

    world.run("second")
    monkeypatch.setattr(publication, "publish", slow)
    world.export()
    assert [row["id"] for row in world.rows("runs")] == ["first", "second", "third"]
    assert world.export().days == 0
    assert world.verified().days == 1


def test_a_commit_reads_each_file_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No manifest or metadata is read twice, and a manifest without replaced files stays."""
    days = [TODAY - timedelta(days=number) for number in range(4)]
    for day in days:
        world.run(f"run of {day}", day)
    world.export()
    read = Counter[str]()

    def counted(owner: Any, name: str, path: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def count(one: Any, *arguments: Any, **options: Any) -> Any:
            read[path(one)] += 1
            return original(one, *arguments, **options)

        monkeypatch.setattr(owner, name, count)

    counted(ManifestFile, "fetch_manifest_entry", lambda one: one.manifest_path)
    counted(FromInputFile, "table_metadata", lambda one: one.location)

    def manifests() -> set[str]:
        found = lake_reader.table(world.location, "runs")
        snapshot = found.current_snapshot()
        assert snapshot is not None
        return {one.manifest_path for one in snapshot.manifests(found.io)}

    for number in range(2):
        query(
            world.url, "UPDATE orchestra.runs SET status = %s WHERE id = %s",
            str(number), f"run of {days[1]}",
        )  # fmt: skip
        before = manifests()
        read.clear()
        assert world.export().days == 1
        assert set(read.values()) == {1}
    # The other days' manifest begins before the changed day and ends after it.
    assert len(before & manifests()) == 1
    monkeypatch.undo()
    assert world.verified().days == 4


def test_a_slow_store_breaks_no_transaction(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database does not end a transaction that waits for a new lake's store."""
    monkeypatch.setattr("etl.database.IDLE_IN_TRANSACTION", 0.2)
    check = attachment.check_new

    def slow(destination: Destination) -> None:
        sleep(0.6)
        check(destination)

    monkeypatch.setattr(attachment, "check_new", slow)
    world.database = Database(world.url, patience=5)
    world.run("r")
    assert world.export().days == 1


def test_a_second_exporter_does_nothing_and_says_so(world: World, command: Command) -> None:
    """While another process holds the export's lock, an export writes nothing and reports that."""
    world.run("r")
    world.export()
    world.run("late")
    before = world.files()
    with psycopg.connect(world.url) as other:
        other.execute("SELECT FROM orchestra_etl.export_state FOR UPDATE")
        done = world.export()
    assert (done.busy, done.complete, done.days) == (True, False, 0)
    assert world.files() == before
    assert garbage.run(world.database, Destination(str(world.location))) is not None
    assert world.export().days == 1


def test_an_older_snapshot_never_overwrites_a_newer_export(world: World) -> None:
    """An export that began before another's commit starts again with a newer snapshot."""
    world.run("first")
    world.export()
    attempts = []

    def work(connection: Any) -> list[Any]:
        connection.execute(text("SELECT FROM orchestra.runs")).all()
        attempts.append(connection)
        if len(attempts) == 1:
            world.run("second")
            world.export()
        return list(connection.execute(text("SELECT * FROM orchestra_etl.export_state FOR UPDATE")))

    assert world.database.in_one_snapshot(work)
    assert len(attempts) == 2


def test_garbage_is_what_no_table_needs(world: World) -> None:
    """What killed and replaced exports left is deleted; other people's files stay."""
    world.run("r")
    world.export()
    folder = world.location / "orchestra"
    orphans = [
        folder / "runs/data/run_day=2026-11-03/orphan.parquet",
        folder / "steps/metadata/orphan.avro",
        folder / "steps/metadata/00009-orphan.metadata.json",
    ]
    others = [world.location / "notes.txt", folder / "mine/data/x.parquet", folder / "runs/a.csv"]
    for path in (*orphans, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    world.export(full=True)
    # The first export has searched a moment ago.
    assert all(path.exists() for path in orphans)
    query(
        world.url,
        "UPDATE orchestra_etl.export_state SET collected_at = collected_at - interval '61 minutes'",
    )
    world.export(full=True)
    assert not any(path.exists() for path in orphans)
    assert all(path.exists() for path in others)
    old = len(lake_reader.table(world.location, "runs").metadata.snapshots)
    done = garbage.run(world.database, Destination(str(world.location)), keep=0.0)
    assert done is not None
    assert done.files > 0
    assert (old, len(lake_reader.table(world.location, "runs").metadata.snapshots)) == (3, 1)
    assert [row["id"] for row in world.rows("runs")] == ["r"]
    assert len(list((folder / "runs").rglob("*.parquet"))) == 1


def test_an_export_before_revision_0004(tmp_path: Path, empty_database_url: str) -> None:
    """A new program exports from a schema that cannot record when garbage was searched for."""
    upgrade(empty_database_url, revision="0003")
    world = World(tmp_path, empty_database_url)
    world.run("r")
    for payloads in (False, True, False):
        assert world.export(payloads=payloads).days == 1
    assert garbage.run(world.database, Destination(str(world.location))) is not None
    assert not list(world.location.rglob("*/step_payloads/data/**/*.parquet"))
    world.database.close()


def test_payloads_leave_the_lake_when_they_are_switched_off(world: World) -> None:
    """Without `payloads`, the tables of payloads and their files are gone after the next export."""
    world.run("r")
    world.export(payloads=True)
    assert world.rows("step_payloads")
    world.export(payloads=False)
    world.export(payloads=False, full=True)
    assert not [
        path for path in world.files() if "payloads" in str(path.relative_to(world.location))
    ]
    assert world.rows("steps")


def test_another_lake_is_refused(world: World) -> None:
    """A place with the lake of another database is refused, and stays as it is."""
    world.run("r")
    world.export()
    query(world.url, "TRUNCATE orchestra_etl.export_state, orchestra_etl.iceberg_tables")
    before = world.files()
    with pytest.raises(LakeError, match="already a lake"):
        world.export()
    assert world.files() == before


def test_a_place_that_cannot_be_written_changes_nothing(world: World, tmp_path: Path) -> None:
    """A wrong new location is an error; with the right one, nothing needs to be exported again."""
    world.run("r")
    world.export()
    right, world.location = world.location, tmp_path / "file" / "lake"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LakeError, match="cannot be used"):
        world.export()
    world.location = right
    assert world.export().days == 0
    assert [row["id"] for row in world.rows("runs")] == ["r"]


def test_a_new_place_gets_a_whole_lake(world: World, tmp_path: Path) -> None:
    """A changed location is a new lake; one that would lack pruned runs is refused."""
    world.run("r")
    world.export()
    world.location = tmp_path / "other"
    assert world.export().days == 1
    assert world.rows("runs")
    query(world.url, "UPDATE orchestra_etl.export_days SET archived_runs = 1")
    world.location = tmp_path / "third"
    with pytest.raises(LakeError, match="1 run that retention has removed"):
        world.export()
    assert world.export(full=True).days == 1


def test_a_restored_database_finds_its_lake(world: World) -> None:
    """If the catalog is older than the lake, the export continues from the lake's newest state."""
    world.run("first")
    world.export()
    backup = query(world.url, "SELECT * FROM orchestra_etl.iceberg_tables")
    world.run("lost", TODAY + timedelta(days=3))
    world.export()
    garbage.run(world.database, Destination(str(world.location)), keep=0.0)
    newest = lake_reader.table(world.location, "runs").metadata.table_uuid
    for row in backup:
        query(
            world.url,
            "UPDATE orchestra_etl.iceberg_tables SET metadata_location = %s WHERE table_name = %s",
            row["metadata_location"],
            row["table_name"],
        )
    query(world.url, "UPDATE orchestra_etl.export_state SET timeline = timeline + 1")
    query(world.url, "TRUNCATE orchestra_etl.export_days, orchestra_etl.changed_days")
    query(world.url, "DELETE FROM orchestra.runs WHERE id = 'lost'")
    world.export()
    assert [row["id"] for row in world.rows("runs")] == ["first"]
    assert lake_reader.table(world.location, "runs").metadata.table_uuid == newest


def test_a_new_column_joins_the_lake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade with a new column, all days are exported again and have it."""
    world.run("r")
    world.export()
    wider = LakeTable(
        name="runs",
        columns=(
            *lake_tables.RUNS.columns, Column("shout", "string", "upper(r.state)", "In capitals."),
        ),
        source=lake_tables.RUNS.source,
        order=lake_tables.RUNS.order,
        comment=lake_tables.RUNS.comment,
    )  # fmt: skip
    monkeypatch.setattr(lake_tables, "RUNS", wider)
    assert world.export().days == 1
    assert [row["shout"] for row in world.rows("runs")] == ["SUCCEEDED"]


def test_a_huge_day_has_several_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day continues in another file beyond the target size, and its rows stay in order."""
    from etl.export import day_reader, parquet_files

    monkeypatch.setattr(day_reader, "CHUNK", 1000)
    monkeypatch.setattr(parquet_files, "ROW_GROUP", 1000)
    for number in range(40):
        world.run(f"r{number:02}")
    exporter.run(world.database, Destination(str(world.location), file_bytes=2000))
    files = list((world.location / "orchestra/runs").rglob("*.parquet"))
    assert len(files) > 1
    assert [row["id"] for row in world.rows("runs")] == [f"r{number:02}" for number in range(40)]


def test_no_bounds_of_content_are_in_manifests(world: World) -> None:
    """Manifests and metadata hold no values of columns with content, names or errors."""
    world.run("r", error=json.dumps({"message": "canary"}), user_id="canary")
    world.step("s", "r", node_id="canary", reported_error="canary")
    world.export(payloads=True)
    found = lake_reader.files_with(world.location, "canary")
    assert found
    assert {path.suffix for path in found} == {".parquet"}


def test_the_catalog_stays_in_its_transaction(world: World) -> None:
    """A table that the catalog has created is gone when the transaction is rolled back."""
    world.run("r")
    world.export()

    def work(connection: Any) -> None:
        catalog = TransactionCatalog(connection)
        catalog.drop_table(("orchestra", "runs"))
        assert not catalog.table_exists(("orchestra", "runs"))
        raise LakeError("stop")

    with pytest.raises(LakeError):
        world.database.transaction(work)
    assert world.database.transaction(
        lambda c: TransactionCatalog(c).table_exists(("orchestra", "runs"))
    )
