"""The contenders of `make bench`, each a command in its own process, and a check of their data."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from etl.schema import upgrade
from tests.benchmarks.recorded import Api
from tests.support import query

HERE = Path(__file__).parent
_BENCH = HERE.parents[1] / ".bench"
DLT = Path(os.environ.get("DLT_PYTHON", _BENCH / "venv" / "bin" / "python"))
SINGER = Path(os.environ.get("SINGER_PYTHON", _BENCH / "singer" / "bin" / "python"))

Command = tuple[Sequence[str], Mapping[str, str]]
"""A command and its environment."""


class Contender(NamedTuple):
    """One way to bring the history into PostgreSQL."""

    name: str
    schemas: tuple[str, ...]
    """The schemas of its tables."""
    command: Callable[[Api, str, Path], Command]
    """A function of the API, the database URL and a folder."""
    steps: str
    """A query for id, run, status, inputs and outputs of each step."""
    limits: str = ""
    """What the contender does not do."""
    sees_changes: bool = True
    """Whether it re-reads a run that was running when it was first read."""

    def clear(self, url: str) -> None:
        """Remove everything that it has stored."""
        query(url, f"DROP SCHEMA IF EXISTS {', '.join(self.schemas)} CASCADE")

    def prepare(self, url: str) -> None:
        """Remove everything that it has stored, and create what its command does not create."""
        self.clear(url)
        if "orchestra" in self.schemas:
            upgrade(url)


class Stored(NamedTuple):
    """The steps that a contender has stored."""

    steps: int
    digest: str
    """Equal for equal JSON values."""


def stored(url: str, contender: Contender, changing: Sequence[str]) -> dict[bool, Stored]:
    """Return what a contender has stored; True: for the runs in `changing`; False: for others."""
    rows = query(
        url,
        f"""SELECT run = ANY (%s) AS changed, count(*) AS steps,
                   md5(string_agg(md5(CAST(jsonb_build_array(
                       id, run, status, CAST(inputs AS jsonb), CAST(outputs AS jsonb)) AS text)),
                       '' ORDER BY id)) AS digest
            FROM ({contender.steps}) AS stored (id, run, status, inputs, outputs)
            GROUP BY changed""",
        list(changing),
    )
    return {row["changed"]: Stored(row["steps"], row["digest"]) for row in rows}


def _ours(api: Api, url: str, folder: Path) -> Command:
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


def _hand_written(api: Api, url: str, folder: Path) -> Command:
    return [sys.executable, str(HERE / "hand_written.py"), api.base_url, api.workflow_id, url], {}


def _dlt(mode: str, file_format: str) -> Callable[[Api, str, Path], Command]:
    def command(api: Api, url: str, folder: Path) -> Command:
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


def _limit(api: Api, url: str, folder: Path) -> Command:
    script = str(HERE / "limit.py")
    return [sys.executable, script, api.base_url, api.workflow_id, url, str(folder / BATCHES)], {}


def _singer(api: Api, url: str, folder: Path) -> Command:
    tap, target, state = (folder / f"{name}.json" for name in ("tap", "target", "state"))
    tap.write_text(json.dumps({"base_url": api.base_url, "workflow_id": api.workflow_id}))
    target.write_text(
        json.dumps(
            {
                "sqlalchemy_url": url.replace("postgresql://", "postgresql+psycopg://"),
                "default_target_schema": "singer",
                "use_copy": True,
                "validate_records": False,
                "add_record_metadata": False,
                "activate_version": False,
            }
        )
    )
    python = str(SINGER)
    pipe = '"$0" "$1" --config "$2" | "$3" --config "$4" > "$5"'
    return [
        "bash",
        "-o",
        "pipefail",
        "-c",
        pipe,
        python,
        str(HERE / "singer_tap.py"),
        str(tap),
        str(SINGER.with_name("target-postgres")),
        str(target),
        str(state),
    ], {"LOGLEVEL": "ERROR"}


BATCHES = "batches"
"""The file in the folder that holds the ready-made rows of the limit."""

OURS = Contender(
    "orchestra-etl",
    ("orchestra", "orchestra_etl"),
    _ours,
    "SELECT s.id, run_id, status, i.data, o.data FROM orchestra.steps AS s"
    " LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id"
    " LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id",
)
HAND_WRITTEN = Contender(
    "hand-written Core upserts",
    ("hand_written",),
    _hand_written,
    "SELECT s.id, run_id, status, i.data, o.data FROM hand_written.steps AS s"
    " LEFT JOIN hand_written.inputs AS i ON i.step_id = s.id"
    " LEFT JOIN hand_written.outputs AS o ON o.step_id = s.id",
    "no retries, limits or fences; no more exact than Python's json; reads everything each time",
)
_DLT_STEPS = "SELECT id, _runs_id, status, inputs, outputs FROM dlt_history.steps"
DLT_FULL = Contender(
    "dlt, all runs",
    ("dlt_history", "dlt_history_staging"),
    _dlt("full", "csv"),
    _DLT_STEPS,
    "reads everything each time",
)
DLT_NEW = Contender(
    "dlt, by start time",
    ("dlt_history", "dlt_history_staging"),
    _dlt("new", "csv"),
    _DLT_STEPS,
    "never re-reads a run: a running run stays running",
    sees_changes=False,
)
SINGER_PAIR = Contender(
    "Singer: tap, target-postgres",
    ("singer",),
    _singer,
    "SELECT id, run_id, status, inputs, outputs FROM singer.steps",
    "reads everything each time, one run after the other",
)
LIMIT = Contender("limit: bare aiohttp, COPY", ("orchestra", "orchestra_etl"), _limit, OURS.steps)
"""The same responses, and the rows that this project stores of them, without any other work."""
