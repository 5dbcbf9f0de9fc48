"""Names of wide characters, such as Chinese ones and emoji, fit the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from etl.simulator.server import Simulator
from etl.terminal import GuardedStream
from tests.command_line import WEATHER, Command, command_line
from tests.served_folder import START, ServedRun, call_step, run_row, served_folder
from tests.support import environment

COLUMNS = 80
WIDE = "顧客からの請求書を読み取る📄" * 20
RUN, OTHER = "5b69669f-975a-49af-a33a-61ff9ae5a20f", "7c9e6679-975a-49af-a33a-61ff9ae5a20f"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Provide a server whose names all consist of wide characters."""
    workflow = {"workflow_id": WEATHER, "id": WEATHER, "name": WIDE, "nodes": []}
    runs = []
    for id, status, error in ((RUN, "completed", None), (OTHER, "failed", WIDE)):
        first = call_step(f"{id[:8]}-1", WIDE)
        second = call_step(f"{id[:8]}-2", WIDE, status=status, error=error)
        row = run_row(id, WEATHER, status, error=error)
        runs.append(ServedRun(row, [first, second, {"id": None, WIDE: 1}]))
    with served_folder(
        tmp_path_factory.mktemp("wide"),
        [workflow, {**workflow, "workflow_id": WIDE[:14], "id": WIDE[:14]}],
        [run.row for run in runs],
        runs,
    ) as server:
        yield server


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
