"""Spark reads the lake through the catalog that the export keeps in PostgreSQL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.acceptance.test_analytics_documentation import World, world
from tests.conftest import ROOT
from tests.faults.proxy import proxied
from tests.lake.conftest import TABLES, lake_of
from tests.lake.test_readers import APART, figures, summed

__all__ = ["world"]

PYTHON = ROOT / ".spark" / "venv" / "bin" / "python"


def test_spark_reads_every_column(world: World, tmp_path: Path) -> None:
    """Each column has the same number of values, sum, extremes and text lengths as PostgreSQL."""
    lake = lake_of(world.url, str(tmp_path / "lake"), tmp_path)
    lake.export("run")
    url = urlsplit(world.url)
    [folder] = parse_qs(url.query)["host"]
    # The server of the tests has only a Unix socket.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with proxied(Path(folder) / ".s.PGSQL.5432", listener):
            done = subprocess.run(
                [PYTHON, "tests/spark/read.py", str(port), url.path[1:], f"{tmp_path}/lake",
                 str(tmp_path), *TABLES],
                cwd=ROOT,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                capture_output=True,
                text=True,
                check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])

    for table in TABLES:
        expected = figures(world.url, table)
        for name in expected.keys() - APART.get(table, set()):
            assert summed(found[table][name]) == summed(expected[name]), (table, name)
