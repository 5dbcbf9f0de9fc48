"""Names of wide characters, such as Chinese ones and emoji, fit the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from etl.simulator.folder import Folder
from etl.simulator.server import Simulator
from etl.terminal import GuardedStream
from tests.command_line import WEATHER, Command, command_line
from tests.support import environment

COLUMNS = 80
START = datetime.now(UTC) - timedelta(days=2)
"""The start of both runs, in the window of the alert and of `explain`."""
WIDE = "顧客からの請求書を読み取る📄" * 20
RUN, OTHER = "5b69669f-975a-49af-a33a-61ff9ae5a20f", "7c9e6679-975a-49af-a33a-61ff9ae5a20f"


def _step(run: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{run[:8]}-{number}", "node_id": WIDE, "status": "completed",
        "start_time": START.isoformat(), "end_time": (START + timedelta(seconds=1)).isoformat(),
        "elapsed_time": 1, "error": None, "inputs": {"model": WIDE}, "tokens": 3,
        "outputs": {
            "model": WIDE,
            "usage": {"prompt_tokens": 1, "total_tokens": 3, "completion_tokens": 2},
            "choices": [{"finish_reason": WIDE, "message": {"content": WIDE}}],
        },
        **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Provide a server whose names all consist of wide characters."""
    folder = tmp_path_factory.mktemp("wide")

    def write(value: Any, *names: str) -> None:
        path = folder.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    workflow = {"workflow_id": WEATHER, "id": WEATHER, "name": WIDE, "nodes": []}
    write([workflow, {**workflow, "workflow_id": WIDE[:14], "id": WIDE[:14]}], "workflows.json")
    rows = []
    for run, status, error in ((RUN, "completed", None), (OTHER, "failed", WIDE)):
        rows.append({
            "run_id": run, "id": run, "workflow_id": WEATHER, "status": status, "error": error,
            "start_time": START.isoformat(), "end_time": (START + timedelta(seconds=5)).isoformat(),
        })  # fmt: skip
        steps = [_step(run, 1), _step(run, 2, status=status, error=error), {"id": None, WIDE: 1}]
        write(steps, WEATHER, run, "steps.json")
        write([rows[-1]], WEATHER, run, "run.json")
    write(rows, WEATHER, "runs.json")
    with Simulator(Folder(folder)).in_thread() as serving:
        yield serving


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
    simulator: Simulator,
) -> Command:
    """Provide the command line for that server, on a terminal of 80 columns."""
    toml = f"""
        [[workflows]]
        id = "{WEATHER}"
        [[alerts]]
        name = "{WIDE[:60]}"
        metric = "failure_rate"
        above = 0.1
        over = "7d"
        [[redaction.rules]]
        path = "$.inputs.*"
        action = "mask"
    """
    variables = {"COLUMNS": str(COLUMNS), "TERM": "dumb"}
    variables |= environment(database_url, simulator.base_url, ORCHESTRA_REDACTION_KEY="k" * 32)
    return command_line(tmp_path, monkeypatch, capsys, toml, **variables)


def test_no_line_is_wider_than_the_terminal(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and errors of wide characters are cut and wrapped by the columns that they take."""
    command("sync")
    monkeypatch.setattr(GuardedStream, "isatty", lambda stream: True)
    for words in (
        ("workflows",), ("status",), ("runs", "list"), ("runs", "show", RUN),
        ("runs", "show", OTHER, "--payloads"), ("runs", "compare", RUN, OTHER),
        ("runs", "search", WIDE[:5], "--since", f"{START:%Y-%m-%d}"),
        ("runs", "list", "-w", WIDE[:14]),
        ("dead-letters", "list"), ("dead-letters", "show", "1"), ("prices", "list"),
        ("prices", "explain", f"{RUN[:8]}-1"), ("redact", "preview", RUN), ("config", "check"),
        ("explain", "failures", WEATHER), ("alerts", "list"), ("alerts", "check"),
    ):  # fmt: skip
        printed = command(*words)
        # A path is not broken, and this folder's may be longer than a line.
        text = (printed.out + printed.err).replace(str(tmp_path), "")
        assert [line for line in text.splitlines() if cell_len(line) > COLUMNS] == [], words
        assert printed.status == (12 if words == ("alerts", "check") else 0), (words, printed.err)
