"""Spark reads the lake through the catalog that the export keeps in PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.acceptance.test_analytics_documentation import World, world
from tests.conftest import ROOT
from tests.faults.proxy import proxied
from tests.lake.conftest import TABLES, lake_of
from tests.lake.test_readers import APART, figures, summed
from tests.support import query

__all__ = ["world"]

PAGE = (ROOT / "docs" / "how-to" / "read-the-lake.md").read_text()
[GRANTS] = re.findall(r"^```sql\n(CREATE ROLE.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = ROOT / ".spark" / "venv" / "bin" / "python"


def test_spark_reads_every_column(world: World, tmp_path: Path) -> None:
    """Each column has PostgreSQL's values, read with no more than the documented rights."""
    lake_of(world.url, str(tmp_path / "lake"), tmp_path).export("run")
    for statement in GRANTS.split(";\n")[:-1]:
        query(world.url, statement)
    try:
        done = _read(world.url, tmp_path)
    finally:
        query(world.url, "DROP OWNED BY lake_reader")
        query(world.url, "DROP ROLE lake_reader")
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])

    for table in TABLES:
        expected = figures(world.url, table)
        for name in expected.keys() - APART.get(table, set()):
            assert summed(found[table][name]) == summed(expected[name]), (table, name)


def _read(database_url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `read.py` on a lake in a folder."""
    url = urlsplit(database_url)
    [socket_folder] = parse_qs(url.query)["host"]
    # The server of the tests has only a Unix socket.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with proxied(Path(socket_folder) / ".s.PGSQL.5432", listener):
            return subprocess.run(
                [PYTHON, "tests/spark/read.py", str(port), url.path[1:], f"{folder}/lake",
                 str(folder), *TABLES],
                cwd=ROOT,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                capture_output=True,
                text=True,
                check=False,
            )  # fmt: skip
