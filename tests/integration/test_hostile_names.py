"""Names are data: no command, log, metric or health page prints a server's control characters."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import sys
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from etl import app, settings
from etl.service.health import Health
from etl.service.metrics import Metrics
from etl.simulator.server import Simulator
from etl.terminal import plain, visible
from tests.command_line import Command, Printed, command_line
from tests.processes import started, started_on
from tests.served_folder import ServedRun, call_step, run_row, served_folder
from tests.support import environment, free_port, query, slow, wait_until

UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\U000e0020-\U000e007f]"
)
EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\u2028\x85\x7f\ufeff\U000e0041"
    "\nexit status 0: all is well\r"
)
# The part of EVIL that the path of a request can carry.
ID = "\u202eid\u2066\u200b\u2028\ufeff\U000e0041"
LONG = EVIL + "long" * 5_000
WORKFLOW, RUN, FAILED = f"w{ID}", f"r{ID}", f"f{ID}"


def _step(number: int, **more: Any) -> dict[str, Any]:
    return call_step(
        f"s{number}{EVIL}", EVIL, model=f"model{LONG}", node_id=f"node{LONG}", user_id=f"u{EVIL}",
        organization_id=f"o{EVIL}",
        **{"inputs": {f"key{EVIL}": EVIL, "model": f"m{EVIL}"}, f"new{EVIL}": EVIL, **more},
    )  # fmt: skip


def _row(run: str, status: str, **more: Any) -> dict[str, Any]:
    return run_row(run, WORKFLOW, status, user_id=EVIL, organization_id=EVIL, **more)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Provide a server whose strings all contain characters that a terminal would interpret."""
    described = {
        "workflow_id": WORKFLOW, "id": WORKFLOW, "name": f"name{LONG}", "description": LONG,
        "version": EVIL, "nodes": [{"id": f"node{LONG}", "type": EVIL, "name": EVIL}],
    }  # fmt: skip
    rows = [
        _row(RUN, "completed"),
        _row(FAILED, f"fa{EVIL}"),
        _row(f"x{EVIL}", EVIL),
        _row("gone", EVIL, error=EVIL),
        {"run_id": 7, "status": EVIL},
    ]
    failed = [
        _step(3, status="failed", error=f"boom {LONG}"),
        _step(4, start_time=EVIL),
        {"id": None, EVIL: EVIL},
    ]
    runs = [
        ServedRun(
            _row(RUN, "completed", error=None),
            [_step(1), _step(2, status=f"odd{EVIL}", error=EVIL)],
        ),
        ServedRun(_row(FAILED, "failed", error=EVIL), failed),
    ]
    with served_folder(tmp_path_factory.mktemp("hostile"), [described], rows, runs) as server:
        yield server


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
    simulator: Simulator,
) -> Command:
    """Provide the command line for that server."""
    toml = """
        [api]
        all_workflows = true
        attempts = 1
        [redaction]
        [[redaction.rules]]
        path = "$.inputs.*"
        action = "mask"
    """
    key = {"ORCHESTRA_REDACTION_KEY": "k" * 32}
    return command_line(
        tmp_path, monkeypatch, capsys, toml, **environment(database_url, simulator.base_url, **key)
    )


def _assert_harmless(printed: str, what: object) -> None:
    found = UNSAFE.search(printed)
    assert found is None, (what, printed[max(0, found.start() - 60) : found.end() + 20])
    assert "\nexit status 0: all is well" not in printed.replace("\r", "\n"), what


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("sync",), ("backfill", "--reread"), ("status",), ("workflows",), ("config", "check"),
    ("config", "show"), ("runs", "list"), ("runs", "show", RUN),
    ("runs", "show", RUN, "--payloads"), ("runs", "show", FAILED), ("runs", "show", f"x{EVIL}"),
    ("runs", "show", EVIL), ("dead-letters", "list"), ("dead-letters", "show", "1"),
    ("dead-letters", "retry", "--all"), ("gaps", "list"), ("gaps", "ack", "--all"),
    ("rollups", "refresh"), ("rollups", "verify"), ("prices", "list"),
    ("prices", "set", f"p{ID}", "--input", "1", "--output", "1"), ("prices", "unset", EVIL),
    ("prices", "explain", EVIL), ("prices", "set", "m", "--part", EVIL),
    ("redact", "preview", RUN), ("redact", "preview", EVIL), ("track", WORKFLOW, EVIL),
    ("track", EVIL, "r"), ("erase", "--run", RUN), ("erase", "--user", EVIL), ("db", "check"),
    ("db", "current"), ("sync", "--workflow", EVIL), ("runs", "list", "--state", EVIL), (EVIL,),
    (f"--{EVIL}",), ("--config", EVIL, "status"), ("prune", "--runs-older-than", EVIL),
    ("backfill", "--since", EVIL), ("simulate", "--misbehave", EVIL),
    ("dead-letters", "discard", "--all"),
)  # fmt: skip


def _run_all(
    command: Command, commands: Sequence[tuple[str, ...]] = COMMANDS, *, json: bool = False
) -> list[tuple[tuple[str, ...], Printed]]:
    done = []
    for words in commands:
        options: tuple[str, ...] = ()
        if json and words[0] not in ("db", "simulate", "--config") and EVIL not in words[0]:
            options = ("--json",)
        if words[:2] == ("runs", "show") and json:
            options += ("--payloads",)
        done.append((words, command(*words, *options)))
    return done


@pytest.mark.parametrize("log_format", ["console", *slow("json")])
def test_no_command_prints_what_a_terminal_interprets(
    command: Command, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    """No command's output or log contains control characters or a forged line."""
    monkeypatch.setenv("ORCHESTRA_ETL_LOGS__FORMAT", log_format)
    monkeypatch.setenv("ORCHESTRA_ETL_LOGS__LEVEL", "debug")
    for words, printed in _run_all(command):
        _assert_harmless(printed.out + printed.err, words)
        assert "Traceback" not in printed.err, (words, printed.err)
        assert printed.status != 1, (words, printed.err)
        if "--payloads" not in words:
            lines = (printed.out + printed.err).splitlines()
            assert max(map(len, lines), default=0) < 4_500, words
            assert len(printed.out) < 10_000, words


def test_json_is_exact_and_harmless(command: Command) -> None:
    """`--json` prints no control character, and each string keeps its exact value."""
    found = _run_all(command, json=True)
    for words, printed in found:
        _assert_harmless(printed.out + printed.err, words)
    by_words = dict(found)
    assert {one["id"] for one in by_words["runs", "list"].json} >= {RUN, FAILED}
    [workflow] = by_words["workflows",].json
    assert (workflow["id"], workflow["name"]) == (WORKFLOW, f"name{LONG}")
    errors = [one["error"] for one in by_words["runs", "show", FAILED].json["steps"]]
    assert f"boom {LONG}" in errors


def test_without_the_guard_a_terminal_would_interpret_names(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the guard, the same commands print escape and direction characters."""
    monkeypatch.setattr("etl.terminal._OBEYED_OR_HIDDEN", re.compile("(?!)"))
    printed = "".join(one.out + one.err for _, one in _run_all(command, COMMANDS[:10]))
    assert {"\x1b", "\u202e", "\u200b", "\x9b"} <= set(UNSAFE.findall(printed))


def test_the_service_shows_no_control_characters(
    tmp_path: Path, database_url: str, simulator: Simulator
) -> None:
    """Metrics, health page and log of the service contain no control characters."""
    config = tmp_path / "etl.toml"
    config.write_text('[api]\nall_workflows = true\nattempts = 1\n[logs]\nlevel = "debug"\n')
    port = free_port()
    variables = environment(database_url, simulator.base_url, ORCHESTRA_ETL_SERVICE__PORT=str(port))

    def read(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())

    with started("--config", str(config), "serve", variables=variables) as process:
        wait_until(
            lambda: query(database_url, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"] >= 2
        )
        wait_until(lambda: "orchestra_etl_sweeps_total{" in read("/metrics"))
        metrics, ready = read("/metrics"), read("/readyz")
        process.terminate()
        out, err = process.stdout.read(), process.stderr.read()
    assert plain(WORKFLOW) in metrics.replace("\\\\", "\\")
    for what, text in (("metrics", metrics), ("readyz", ready), ("log", out + err)):
        _assert_harmless(text, what)


def test_metrics_of_the_database_have_harmless_labels(command: Command, tmp_path: Path) -> None:
    """A hostile workflow id becomes a harmless label that still identifies its workflow."""
    command("sync")
    metrics, loaded = Metrics(), settings.load(tmp_path / "etl.toml")
    with app.open_database(loaded) as database:
        metrics.set_status(app.read_status(loaded, database))
    text = metrics.exposition(ready=True).decode()
    _assert_harmless(text, "metrics")
    label = plain(WORKFLOW).replace("\\", "\\\\")
    assert f'orchestra_etl_open_runs{{workflow="{label}"}}' in text


def test_the_health_page_has_one_line_for_each_problem() -> None:
    """Each problem is one line of the health page, even if its id and text contain line breaks."""
    health = Health()
    health.fail(f"workflow {EVIL}", f"no sweep: {EVIL}")
    page = health._ready().body.decode()
    _assert_harmless(page, "readyz")
    assert (page.count("\n"), page.startswith(r"workflow \x1b]0;owned\x07")) == (1, True)


@pytest.mark.slow
def test_a_terminal_gets_colours_and_no_other_control_sequence(
    command: Command, tmp_path: Path, database_url: str, simulator: Simulator
) -> None:
    """A terminal receives only the program's own colour sequences, progress bars included."""
    command("sync")
    colours = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
    for words in (
        ("runs", "show", RUN),
        ("runs", "list"),
        ("status",),
        ("dead-letters", "show", "1", "--body"),
        ("backfill", "--reread"),
    ):
        main, other = pty.openpty()
        config = str(tmp_path / "etl.toml")
        variables = {**os.environ, "TERM": "xterm-256color"}
        printed = b""
        with started_on(other, "--config", config, *words, variables=variables) as process:
            os.close(other)
            with contextlib.suppress(OSError):  # raised at the end of the terminal's output
                while True:
                    printed += os.read(main, 65536)
            process.wait(240)
        os.close(main)
        text = printed.decode()
        assert "\x1b[" in text or "--body" in words, words
        for sequence in colours.findall(text):
            assert sequence != "\x1b[2J", words
        _assert_harmless(colours.sub("", text).replace("\r", ""), words)


def test_every_control_and_format_character_is_made_visible() -> None:
    """Control, format, separator and surrogate characters are escaped, unless they are visible."""
    seen = {
        *range(0x600, 0x606),
        0x6DD,
        0x70F,
        0x890,
        0x891,
        0x8E2,
        0x110BD,
        0x110CD,
        *range(0x13430, 0x13440),
    }
    passed = {
        code for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Cs")
        and visible(chr(code)) == chr(code)
    }  # fmt: skip
    assert passed - seen == {ord("\n")}
    assert plain("a\x00b\u202ec\n\td") == r"a\x00b\u202ec d"
    assert visible("\U0001f468\u200d\U0001f469 é ☀️") == r"👨\u200d👩 é ☀️"
