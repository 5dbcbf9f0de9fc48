"""The lake on an object store: exports, reads by path, and errors of the store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pyarrow import fs, parquet

from etl.exit_status import ExitStatus
from tests.acceptance.test_analytics_documentation import World, world
from tests.lake.conftest import PYTHON, TABLES, Lake, lake_of
from tests.lake.test_readers import APART, figures, summed
from tests.processes import run
from tests.support import free_port, query, wait_until

__all__ = ["world"]

KEY, SECRET = "key of the store", "secret-of-the-store"


class Store:
    """A server of S3, with one bucket."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.variables: Mapping[str, str] = {
            "AWS_ENDPOINT_URL": f"http://{self.host}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        self.files = fs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            endpoint_override=self.host,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def objects(self) -> set[str]:
        """Return the names of all objects of the lake."""
        found = self.files.get_file_info(fs.FileSelector("bucket/lake", recursive=True))
        return {one.path for one in found if one.type == fs.FileType.File}

    def content(self, path: str) -> bytes:
        """Return an object's bytes, or the rows of a Parquet file as text."""
        with self.files.open_input_file(path) as file:
            if path.endswith(".parquet"):
                return repr(parquet.read_table(file).to_pylist()).encode()
            return bytes(file.read())


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """Start the server."""
    port = free_port()
    server = subprocess.Popen(
        [PYTHON, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        made = Store(port)

        def is_there() -> bool:
            try:
                made.files.create_dir("bucket")
            except OSError:
                return False
            return True

        wait_until(is_there)
        yield made
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def lake(world: World, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Provide a lake on the store."""
    made = lake_of(
        world.url,
        "s3://bucket/lake",
        tmp_path_factory.mktemp("lake"),
        variables=store.variables,
        s3={"host": store.host, "key": KEY, "secret": SECRET},
    )
    made.export("run")
    return made


def test_an_engine_reads_the_lake_from_the_store(world: World, lake: Lake) -> None:
    """DuckDB reads each column from S3, and finds the values of PostgreSQL."""
    found = lake.read("duckdb")["columns"]

    for table in TABLES:
        expected = figures(world.url, table)
        for name in expected.keys() - APART.get(table, set()):
            assert summed(found[table][name]) == summed(expected[name]), (table, name)


def test_the_commands_work_on_the_store(store: Store, lake: Lake) -> None:
    """`status`, `verify` and a second export read the store, and write no object."""
    before = store.objects()

    status = json.loads(lake.export("status", "--json"))
    assert status["waiting"] == 0
    for table in status["tables"]:
        assert table["metadata"].removeprefix("s3://") in before
    lake.export("verify", "--deep")
    assert "nothing to do" in lake.export("run")
    assert store.objects() == before


def test_a_changed_day_and_its_garbage(world: World, store: Store, lake: Lake) -> None:
    """A changed day gets new objects; the objects that nothing needs are deleted from the store."""
    before = store.objects()
    [run] = query(world.url, "SELECT id FROM orchestra.runs ORDER BY start_time LIMIT 1")
    query(world.url, "UPDATE orchestra.runs SET user_id = 'someone new' WHERE id = %s", run["id"])
    unknown = "bucket/lake/orchestra/runs/data/run_day=2026-01-01/left-by-a-crash.parquet"
    foreign = "bucket/lake/orchestra/notes.txt"
    for path in (unknown, foreign):
        with store.files.open_output_stream(path) as file:
            file.write(b"of no table")

    lake.export("run")
    lake.export("gc")

    after = store.objects()
    assert any("/steps/data/" in path for path in after - before)
    assert unknown not in after
    assert foreign in after
    found = lake.read("duckdb", ["runs"])["columns"]["runs"]
    assert summed(found["user_id"]) == summed(figures(world.url, "runs")["user_id"])
    lake.export("verify", "--deep")


def test_an_error_of_the_store_is_one_line_without_secrets(
    database_url: str, store: Store, tmp_path: Path
) -> None:
    """An export to a bucket that does not exist ends with one line, which quotes no credentials."""
    lake = lake_of(database_url, "s3://no-such-bucket/lake", tmp_path, variables=store.variables)
    done = run("export", "run", variables=lake.variables)

    assert done.returncode == ExitStatus.LAKE
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("orchestra-etl:")] == lines
    assert len(lines) == 1
    assert "s3://no-such-bucket/lake" in lines[0]
    assert not any(one in done.stderr + done.stdout for one in (KEY, SECRET))


def test_an_erasure_reaches_the_store(
    world: World, store: Store, lake: Lake, tmp_path: Path
) -> None:
    """After `erase`, no object of the lake contains the run, and the receipt says so."""
    [erased] = query(world.url, "SELECT id FROM orchestra.runs ORDER BY start_time DESC LIMIT 1")
    receipt = tmp_path / "receipt.json"
    assert any(erased["id"].encode() in store.content(path) for path in store.objects())

    done = run(
        "erase", "--run", erased["id"], "--yes", "--receipt", str(receipt), variables=lake.variables
    )

    assert done.returncode == 0, done.stderr
    assert not any(erased["id"].encode() in store.content(path) for path in store.objects())
    assert json.loads(receipt.read_text())["complete"]
    lake.export("verify", "--deep")
