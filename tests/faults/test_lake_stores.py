"""Faults of the lake's store: full, unreachable, silent, late, and without an object.

The database decides what belongs to the lake. So an export that fails has changed nothing, the days
still wait, and the next export continues.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyiceberg.table import StaticTable

from etl.embedded.postgres import EmbeddedPostgres
from etl.exit_status import ExitStatus
from tests import lake_reader
from tests.conftest import fresh_database
from tests.faults import workers
from tests.faults.lake_exporter import Exporter
from tests.faults.suite import Fault
from tests.support import free_port, query

SEEN = """
    SELECT table_name AS name, metadata_location AS location FROM orchestra_etl.iceberg_tables
    WHERE table_name IN ('runs', 'steps')
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Provide a file system of 16 MB; skip the test if it cannot be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs more rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def after_a_full_disk(folder: Path, url: str, log: Path, without: Sequence[str] = ()) -> list[str]:
    """Fill the disk between two exports, make space again, and return what is wrong then."""
    folder.mkdir()
    with small_disk(folder / "disk") as disk:
        export = Exporter(url, str(disk / "lake"), folder, log)
        assert export("run") == 0
        before = export.runs()[1]
        export.add_runs(20)
        free = os.statvfs(disk)
        filler = disk / "filler"
        filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 8192))

        assert export("run", without=without) == ExitStatus.LAKE
        assert "No space left on device" in workers.output_of(log)
        assert export.runs()[1] == before, "readers see something of the failed export"
        filler.unlink()
        assert export("run") == 0
        stored, exported = export.runs()
        problems = [] if stored == exported else [f"{stored} runs, {exported} of them exported"]
        return problems + ([] if export("verify") == 0 else ["the lake is not verified"])


@pytest.mark.fault(
    41, "the lake's store is full", "C", guard="days leave the queue with the commit of their files"
)
def test_a_full_store(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """An export to a full disk says so and changes nothing; the next one exports everything."""
    assert after_a_full_disk(tmp_path / "held", database_url, log) == []
    fault.injected()
    query(database_url, "DELETE FROM orchestra_etl.export_state")
    query(database_url, "DELETE FROM orchestra_etl.export_days")
    query(database_url, "DELETE FROM orchestra_etl.iceberg_tables")
    fault.control(
        after_a_full_disk(tmp_path / "control", database_url, log, without=["early_consumption"])
    )


@pytest.mark.fault(
    42, "the lake's store is unreachable or silent", "B", guard="limits of requests to the store"
)
def test_an_unreachable_store(
    fault: Fault,
    database_url: str,
    postgres_server: EmbeddedPostgres,
    template_database: str,
    tmp_path: Path,
    log: Path,
) -> None:
    """An export to a store that refuses or is silent ends in bounded time and does nothing.

    Without the limits, an export that has begun before these still waits when both have ended.
    """

    def exporter(url: str, port: int) -> Exporter:
        return Exporter(
            url, "s3://bucket/lake", tmp_path, log,
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_REGION="us-east-1",
            AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret",
        )  # fmt: skip

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        fresh_database(postgres_server, template_database) as another,
    ):
        silent_port = silent.getsockname()[1]
        with exporter(another, silent_port).started("run", without=["no_limits"]) as unlimited:
            silent.settimeout(120)
            connection, _ = silent.accept()
            with connection:
                for port in (free_port(), silent_port):
                    export = exporter(database_url, port)
                    begun = time.monotonic()
                    status = export("run", without=["short_limits"], seconds=120)
                    assert status == ExitStatus.LAKE
                    fault.injected(note=f"{time.monotonic() - begun:.0f} s")
                    printed = workers.output_of(log)
                    assert "the lake at s3://bucket/lake cannot be used" in printed
                    assert "secret" not in printed.replace("AWS_SECRET", "")
                    assert query(database_url, "SELECT FROM orchestra_etl.export_days") == []
            fault.control(["it still waits"] if unlimited.status is None else [])


@pytest.mark.fault(
    43, "an object of the lake is deleted", "C", guard="verification reads the files themselves"
)
def test_a_deleted_object(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """`verify` names a file that is gone, and a full export writes its day again."""
    export = Exporter(database_url, str(tmp_path / "lake"), tmp_path, log)
    assert export("run") == 0
    for table in ("runs", "steps"):
        task, *_ = lake_reader.table(export.location, table).scan().plan_files()
        Path(task.file.file_path.removeprefix("file://")).unlink()
        fault.injected()
        assert export("verify") != 0
        assert Path(task.file.file_path).name in workers.output_of(log)
        missed = export("verify", without=["trusting_verification"]) == 0
        fault.control(["verify misses it"] if missed else [])
        assert export("run", "--full") == 0
        assert export("verify", "--deep") == 0


@pytest.mark.fault(
    44, "the store lists its objects late", "C", "",
    why="no decision depends on a listing; garbage stays until a later one",
)  # fmt: skip
def test_a_late_listing(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Listings of an earlier time never make the collection of garbage delete a file in use."""
    export = Exporter(database_url, str(tmp_path / "lake"), tmp_path, log)
    for _ in range(4):
        assert export("run", without=["late_listing"]) == 0
        assert export("gc", without=["late_listing"]) == 0
        assert export("verify") == 0
        fault.injected()
        export.add_runs(4)


class Reader:
    """Reads two tables of the lake again and again, each time in one transaction."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.reads = 0
        self.mixed: list[str] = []

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._end.is_set():
            found = {row["name"]: row["location"] for row in query(self._url, SEEN)}
            if len(found) == 2:
                runs, steps = (
                    sum(
                        task.file.record_count
                        for task in StaticTable.from_metadata(found[name]).scan().plan_files()
                    )
                    for name in ("runs", "steps")
                )
                self.reads += 1
                if steps != 3 * runs:
                    self.mixed.append(f"{runs} runs with {steps} steps, in one read")


@pytest.mark.fault(
    45, "a reader across tables during exports", "C", guard="one transaction for all tables"
)
def test_a_reader_across_tables(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """A reader of several tables through the catalog sees a commit whole, or nothing of it."""
    export = Exporter(database_url, str(tmp_path / "lake"), tmp_path, log)
    assert export("run") == 0
    for without in ([], ["a_commit_for_each_table"]):
        with Reader(database_url) as reader:
            for _ in range(4):
                export.add_runs(20)
                assert export("run", without=without) == 0
        if without:
            fault.control(reader.mixed)
        else:
            assert reader.mixed == []
            assert reader.reads > 0
            fault.injected(4, note=f"{reader.reads} reads")
