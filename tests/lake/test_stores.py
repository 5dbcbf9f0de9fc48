"""The lake on an object store: the same export, read by path, with errors that say what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

import pytest
from pyarrow import fs

from tests.acceptance.test_analytics_documentation import World, world
from tests.lake.conftest import PYTHON, TABLES, Lake, lake_of
from tests.lake.test_readers import APART, figures, summed
from tests.support import free_port, wait_until

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

    def keys(self, folder: str) -> set[str]:
        """Return the names of all objects below a folder."""
        found = self.files.get_file_info(fs.FileSelector(folder, recursive=True))
        return {one.path for one in found if one.type == fs.FileType.File}


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
