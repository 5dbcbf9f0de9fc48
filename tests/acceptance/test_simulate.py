"""`simulate` as users run it: what it prints, what it serves, how it ends."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Process, run, started


def _exports(process: Process) -> dict[str, str]:
    """Return the variables that the first two lines export, as a shell reads them."""
    lines = [shlex.split(process.stdout.readline()) for _ in range(2)]
    assert [line[0] for line in lines] == ["export", "export"]
    return dict(line[1].split("=", 1) for line in lines)


def _get(exports: dict[str, str], path: str) -> Any:
    key = exports["ORCHESTRA_API_KEY"]
    request = urllib.request.Request(
        f"{exports['ORCHESTRA_BASE_URL']}{path}", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_what_it_says_until_a_signal(number: signal.Signals) -> None:
    """The exported variables lead to the API that the options describe; a signal ends it with 0."""
    options = [
        "--port",
        "0",
        "--key",
        "it's a key",
        "--workflows",
        "2",
        "--runs",
        "7",
        "--arrivals",
        "0",
    ]
    with started("simulate", *options, variables={}, fresh=True) as process:
        exports = _exports(process)
        assert exports["ORCHESTRA_API_KEY"] == "it's a key"
        workflows = _get(exports, "/workflows")
        assert [
            len(_get(exports, f"/workflows/{one['workflow_id']}/runs")) for one in workflows
        ] == [7, 7]
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            _get({**exports, "ORCHESTRA_API_KEY": "another"}, "/workflows")
        refused.value.close()
        process.send_signal(number)
        assert process.wait(60) == 0


def test_a_restarted_simulator_continues_its_history() -> None:
    """A simulator started again with its epoch shows the same finished runs at the same times."""
    options = ["--port", "0", "--runs", "10", "--arrivals", "0"]

    def finished(process: Process) -> list[Any]:
        exports = _exports(process)
        [workflow_id, *_] = [one["workflow_id"] for one in _get(exports, "/workflows")]
        # The newest three runs are still running.
        return list(_get(exports, f"/workflows/{workflow_id}/runs")[3:])

    with started("simulate", *options, variables={}) as process:
        before = finished(process)
        words = process.stderr.readline().split()
    epoch = words[words.index("--epoch") : words.index("--epoch") + 2]
    with started("simulate", *options, *epoch, variables={}) as process:
        assert finished(process) == before
    with started("simulate", *options, "--epoch", "2026-01-01", variables={}) as process:
        assert [run["id"] for run in finished(process)] == [run["id"] for run in before] != []


def test_a_folder_is_served_as_it_is(tmp_path: Path, sample_steps: bytes) -> None:
    """`--folder` serves the recorded response, and 404 for anything else."""
    steps = tmp_path / "a-workflow" / "a-run" / "steps.json"
    steps.parent.mkdir(parents=True)
    steps.write_bytes(sample_steps)
    with started("simulate", "--port", "0", "--folder", str(tmp_path), variables={}) as process:
        exports = _exports(process)
        assert _get(exports, "/workflows/a-workflow/runs/a-run/steps") == json.loads(sample_steps)
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            _get(exports, "/workflows")
        missing.value.close()


def test_a_broken_recorded_list_has_no_traceback(tmp_path: Path) -> None:
    """A broken `runs.json` yields 500 and one log event with the name of the error."""
    (tmp_path / "a-workflow").mkdir()
    (tmp_path / "a-workflow" / "runs.json").write_text("[")
    with started("simulate", "--port", "0", "--folder", str(tmp_path), variables={}) as process:
        exports = _exports(process)
        with pytest.raises(urllib.error.HTTPError, match="500") as broken:
            _get(exports, "/workflows/a-workflow/runs")
        broken.value.close()
        process.send_signal(signal.SIGTERM)
        logged = process.stderr.read()
    (line,) = logged.splitlines()
    assert json.loads(line)["error"] == "DecodeError"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "--port"),
        (["--arrivals", "nan"], "--arrivals"),
        (["--epoch", "yesterday"], "--epoch"),
        (["--misbehave", "nicely"], "rate-limited"),
        (["--folder", "/no/such/folder"], "/no/such/folder"),
        (["--port", "0", "--host", "nowhere.invalid"], "--host"),
    ],
)
def test_a_bad_option_is_one_line(arguments: list[str], words: str) -> None:
    """An invalid option exits with 2 and one line that names the option or the choices."""
    done = run("simulate", *arguments, variables={})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert words in done.stderr


def test_a_port_in_use_is_one_line() -> None:
    """A port in use exits with 2 and one line, without the text of a library."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("simulate", "--port", str(taken.getsockname()[1]), variables={})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr == (
        "orchestra-etl: cannot listen there (Address already in use): choose another --host or"
        " --port\n"
    )
