"""The first hour: commands with a wrong address, without a response, or interrupted early."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from etl import logs
from etl.cli import jobs
from etl.errors import ApiUnavailable, EtlError, KeyRefused
from etl.pipeline.loading import LoadReport
from etl.pipeline.sync import SyncReport
from etl.simulator.folder import Folder
from etl.simulator.server import Simulator
from tests.command_line import Command, Printed
from tests.integration.conftest import Simulated
from tests.support import configuration, environment, free_port, load

REDACTED = """
[[workflows]]
id = "w-1"
[[redaction.rules]]
path = "$.x"
action = "drop"
"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Respond to every request with an HTML page."""
        self.send_response(200)
        self.send_header("Content-Length", "18")
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def a_website() -> Iterator[str]:
    """Yield the URL of a web server that is not the API and responds to everything with 200."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _problems(printed: Printed) -> list[tuple[str, str]]:
    return [(one["subject"].split()[0], one["text"]) for one in printed.json if not one["ok"]]


def test_config_check_accepts_a_base_url_only_if_the_api_confirms_it(
    make: Command, simulated: Simulated, database_url: str, tmp_path: Path
) -> None:
    """A wrong path or a website is a problem; an API that does not list workflows is not."""
    history, simulator = simulated
    variables = {"ORCHESTRA_API_KEY": "the-key", "DATABASE_URL": database_url}
    base = simulator.base_url
    not_tried = configuration("some-workflow", discover=False)
    wrong = make(
        "config", "check", "--json", toml=not_tried, ORCHESTRA_BASE_URL=f"{base}/wrong", **variables
    )
    [(subject, text)] = _problems(wrong)
    assert (wrong.status, subject, "compare `api.base_url`" in text) == (5, "API", True)

    with a_website() as url:
        for toml in (not_tried, configuration("some-workflow"), "[api]\nall_workflows = true"):
            website = make(
                "config", "check", "--json", toml=toml, ORCHESTRA_BASE_URL=url, **variables
            )
            assert website.status == 5
            assert "not a JSON array" in _problems(website)[0][1]

    workflow = history.workflow_ids[0]
    served = tmp_path / "served" / workflow
    served.mkdir(parents=True)
    (served / "runs.json").write_text("[]")
    with Simulator(Folder(served.parent), api_key="the-key").in_thread() as listless:
        right = make(
            "config",
            "check",
            "--json",
            toml=configuration(workflow),
            ORCHESTRA_BASE_URL=listless.base_url,
            **variables,
        )
    assert (right.status, _problems(right)) == (0, [])


def test_config_check_reads_a_list_as_tolerantly_as_a_load(
    make: Command, database_url: str, tmp_path: Path
) -> None:
    """A lone surrogate or NaN in a list, which a load accepts, is no problem of the API."""
    served = tmp_path / "served"
    (served / "w").mkdir(parents=True)
    (served / "workflows.json").write_text(r'[{"workflow_id": "w", "name": "a \ud800"}]')
    (served / "w" / "runs.json").write_bytes(
        rb'[{"id": "1", "x": "\ud800"}, {"id": "2", "x": NaN}, {"id": "3", "x": "' + b'\xff"}]'
    )
    with Simulator(Folder(served)).in_thread() as server:
        checked = make(
            "config", "check", "--json", toml=configuration("w"),
            **environment(database_url, server.base_url),
        )  # fmt: skip
    assert (checked.status, _problems(checked)) == (0, [])


def test_no_connection_names_host_port_and_setting(make: Command, database_url: str) -> None:
    """A refused connection is reported with host, port, reason and the setting to check."""
    port = free_port()
    variables = {
        "ORCHESTRA_API_KEY": "k", "DATABASE_URL": database_url, "ORCHESTRA_ETL_API__ATTEMPTS": "1",
        "ORCHESTRA_BASE_URL": f"http://127.0.0.1:{port}/api",
    }  # fmt: skip
    for words in (
        ("workflows",),
        ("sync",),
        ("config", "check"),
        ("redact", "preview", "r", "-w", "w-1"),
    ):
        printed = make(*words, toml=REDACTED, ORCHESTRA_REDACTION_KEY="k" * 32, **variables)
        assert printed.status == 5
        text = " ".join((printed.out + printed.err).split())
        assert f"cannot connect to 127.0.0.1:{port} (Connection refused)" in text
        assert "check `api.base_url` (ORCHESTRA_BASE_URL), or try again later" in text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_the_lines_that_workflows_prints_can_be_pasted(
    make: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, encoding: str
) -> None:
    """In any terminal encoding, the printed lines are valid TOML without the refused ids.

    The names are exact. A name that is blank or very long is left out, so the API's is used.
    """
    served = [
        {"workflow_id": id, "name": f"Wörk “{id}” 日本"}
        for id in ("w-1", "w-ü日本", "w-\u202ehidden", '"quoted"')
    ]
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467 \x1b[31m\n\u202e\\u202e"
    served += [
        {"workflow_id": f"w-{number}", "name": name}
        for number, name in enumerate((family, " \t", "long" * 51), 2)
    ]
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "workflows.json").write_text(json.dumps(served))
    with Simulator(Folder(tmp_path / "served")).in_thread() as server:
        written = io.BytesIO()
        monkeypatch.setattr(
            sys, "stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True)
        )
        variables = environment(database_url, server.base_url)
        assert make("workflows", toml="", **variables).status == 0
        printed = written.getvalue().decode(encoding)
    settings = load(tmp_path, printed[printed.index("[[workflows]]") :], variables)
    assert {one.id: one.name for one in settings.workflows} == {
        "w-1": "Wörk “w-1” 日本", "w-ü日本": "Wörk “w-ü日本” 日本", "w-2": family, "w-3": None,
        "w-4": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("errors", "interrupted", "status"),
    [
        ([], None, 0),
        ([], 2, 130),
        ([], 15, 143),
        ([ApiUnavailable("x")], 15, 5),
        ([KeyRefused("x")], 2, 3),
    ],
)
def test_a_sync_ends_with_the_status_that_it_logs_and_prints(
    capsys: pytest.CaptureFixture[str], errors: list[EtlError], interrupted: int | None, status: int
) -> None:
    """Log, JSON and process share one exit status: the error's, else the signal's, else 0."""
    report = SyncReport([], LoadReport(), errors=errors, interrupted=interrupted)
    logs.configure("info", "json")
    jobs._log(report)
    jobs._print(report, as_json=True)
    printed = capsys.readouterr()
    assert (
        json.loads(printed.err)["exit_status"]
        == json.loads(printed.out)["exit_status"]
        == report.exit_status
        == status
    )
