"""The contenders of `make bench`, each a command in its own process, and a check of their data."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from etl.schema import upgrade
from tests.benchmarks.recorded import Api
from tests.support import query

HERE = Path(__file__).parent
DLT = Path(os.environ.get("DLT_PYTHON", HERE.parents[1] / ".bench" / "venv" / "bin" / "python"))


class Cost(NamedTuple):
    """The cost of a command."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


class Contender(NamedTuple):
    """One way to bring the history into PostgreSQL."""

    name: str
    prepare: Callable[[str], None]
    """A function of the database URL that empties it and creates what the command does not."""
    command: Callable[[Api, str, Path], tuple[Sequence[str], Mapping[str, str]]]
    """A function of the API, the database URL and a folder: the command and its environment."""
    steps: str
    """A query for id, run, status, inputs and outputs of each step."""
    limits: str
    """What the contender does not do."""


def run(command: Sequence[str], variables: Mapping[str, str]) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: if it fails.
    """
    environment = {**os.environ, **variables}
    # All contenders start from compiled modules, as an installed program does.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(
            f"{' '.join(command[:3])} ended with {process.returncode}:\n{output.decode()[-2000:]}"
        )
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def digest(url: str, contender: Contender) -> tuple[int, str]:
    """Return the number of stored steps and a digest; equal JSON values have equal digests."""
    [row] = query(
        url,
        f"""SELECT count(*) AS steps,
                   md5(string_agg(md5(concat_ws('|', id, run, status,
                                                NULLIF(CAST(inputs AS text), 'null'),
                                                NULLIF(CAST(outputs AS text), 'null'))), ''
                                  ORDER BY id)) AS md5
            FROM ({contender.steps}) AS stored (id, run, status, inputs, outputs)""",
    )
    return row["steps"], row["md5"]


def _drop(url: str, *schemas: str) -> None:
    query(url, f"DROP SCHEMA IF EXISTS {', '.join(schemas)} CASCADE")


def _prepare_ours(url: str) -> None:
    _drop(url, "orchestra", "orchestra_etl")
    upgrade(url)


def _ours(api: Api, url: str, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    config = folder / "etl.toml"
    config.write_text(
        '[api]\nrequests_per_second = 0\n[logs]\nlevel = "error"\n[[workflows]]\nid = '
        f'"{api.workflow_id}"\n'
    )
    return [sys.executable, "-m", "etl", "sync", "--json"], {
        "ORCHESTRA_BASE_URL": api.base_url,
        "ORCHESTRA_API_KEY": "simulated-key",
        "DATABASE_URL": url,
        "ORCHESTRA_ETL_CONFIG": str(config),
    }


def _hand_written(api: Api, url: str, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    return [sys.executable, str(HERE / "hand_written.py"), api.base_url, api.workflow_id, url], {}


def _dlt(
    mode: str, file_format: str
) -> Callable[[Api, str, Path], tuple[Sequence[str], Mapping[str, str]]]:
    def command(api: Api, url: str, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        script = str(HERE / "dlt_pipeline.py")
        return [
            str(DLT),
            script,
            api.base_url,
            api.workflow_id,
            url,
            str(folder / "dlt"),
            mode,
            file_format,
        ], {}

    return command


def limit(api: Api, url: str, batches: Path) -> Sequence[str]:
    """Return the command that fetches with aiohttp and sends ready-made rows (see `limit.py`)."""
    return [
        sys.executable,
        str(HERE / "limit.py"),
        api.base_url,
        api.workflow_id,
        url,
        str(batches),
    ]


OURS = Contender(
    "orchestra-etl",
    _prepare_ours,
    _ours,
    "SELECT s.id, run_id, status, i.data, o.data FROM orchestra.steps AS s"
    " LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id"
    " LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id",
    "",
)
HAND_WRITTEN = Contender(
    "hand-written Core upserts",
    lambda url: _drop(url, "hand_written"),
    _hand_written,
    "SELECT s.id, run_id, status, i.data, o.data FROM hand_written.steps AS s"
    " LEFT JOIN hand_written.inputs AS i ON i.step_id = s.id"
    " LEFT JOIN hand_written.outputs AS o ON o.step_id = s.id",
    "no retries, limits or fences; no more exact than Python's json; reads everything each time",
)
_DLT_STEPS = "SELECT id, _runs_id, status, inputs, outputs FROM dlt_history.steps"
DLT_FULL = Contender(
    "dlt, all runs",
    lambda url: _drop(url, "dlt_history", "dlt_history_staging"),
    _dlt("full", "csv"),
    _DLT_STEPS,
    "reads everything each time",
)
DLT_NEW = Contender(
    "dlt, by start time",
    lambda url: _drop(url, "dlt_history", "dlt_history_staging"),
    _dlt("new", "csv"),
    _DLT_STEPS,
    "never re-reads a run: a running run stays running",
)
