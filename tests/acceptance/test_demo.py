"""The demo in any environment, ended in any way, with and without a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.embedded.postgres import EmbeddedPostgres
from tests import lake_reader
from tests.postgres_fixture import processes_in
from tests.processes import Process, run, started
from tests.support import query, wait_until

RATES = """SELECT workflow_name,
    round(100.0 * sum(succeeded) / sum(succeeded + soft_failed + failed), 1)
    FROM orchestra.workflow_hourly GROUP BY workflow_name ORDER BY 1"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _cells(line: str) -> list[str]:
    """Return the cells of a table's line; two columns are two spaces apart."""
    return re.split(r" {2,}", line.strip())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Start a server to which nothing may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def _read_until(descriptor: int, words: str, *, seconds: float = 300.0) -> str:
    """Return what is written until these words appear."""
    text = b""
    end = time.monotonic() + seconds
    while words.encode() not in text:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{words!r} did not appear after {text!r}"
        read = os.read(descriptor, 65536)
        assert read, f"the output ended without {words!r}: {text!r}"
        text += read
    return text.decode()


def _run_printed(printed: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run the line that the demo prints, with this command, in a shell with foreign settings."""
    lines = printed.splitlines()
    [source] = [line.strip() for line in lines if line.startswith("  . ")]
    program = (
        next(line for line in lines if line.endswith(" status")).strip().removesuffix(" status")
    )
    return subprocess.run(
        ["/bin/sh", "-c", f"{source}\n{program} {command}"],
        env={"PATH": os.defpath, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
             "ORCHESTRA_API_KEY_FILE": "/no/such/file", "ORCHESTRA_BASE_URL": "http://127.0.0.1:1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def _output(process: Process) -> int:
    return int(process.stdout.fileno())


def _stop(process: Process, number: signal.Signals, home: Path) -> int:
    """Send the signal and return the exit status; no server may be left."""
    process.send_signal(number)
    status = process.wait(120)
    assert processes_in(home) == []
    return status


@pytest.mark.slow
def test_a_demo_ignores_the_environment(
    home: Path, listener: socket.socket, postgres_server: EmbeddedPostgres, empty_database_url: str
) -> None:
    """A demo ignores the environment's database, key, server, proxy and settings.

    It loads its own history, prints it in plain lines, and connects to no other server. The session
    count of the user's database proves that.
    """
    query(empty_database_url, "CREATE TABLE marker ()")
    database = empty_database_url.partition("?")[0].rpartition("/")[2]
    admin = postgres_server.url_for("postgres")

    def sessions() -> int:
        rows = query(admin, f"SELECT sessions FROM pg_stat_database WHERE datname = '{database}'")
        return int(rows[0]["sessions"])

    before = sessions()
    nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    host, port = nobody.split(":")
    done = run(
        "demo",
        "--exit",
        variables={
            "ORCHESTRA_ETL_HOME": str(home),
            "DATABASE_URL": empty_database_url,
            "ORCHESTRA_API_KEY": "somebody's key",
            "ORCHESTRA_BASE_URL": f"http://{nobody}/api",
            "ORCHESTRA_ETL_CONFIG": "/no/such/file.toml",
            "ORCHESTRA_ETL_WORKFLOWS": "no JSON",
            "ORCHESTRA_ETL_API__TRUST_ENV": "true",
            "ORCHESTRA_ETL_API__ATTEMPTS": "-1",
            "ORCHESTRA_ETL_NO_SUCH__SETTING": "1",
            "ORCHESTRA_ETL_LOGS__LEVEL": "debug",
            "HTTP_PROXY": f"http://{nobody}",
            "PGHOST": host,
            "PGHOSTADDR": host,
            "PGPORT": port,
            "PGDATABASE": database,
            "PGOPTIONS": "-c default_transaction_read_only=on",
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert sessions() == before
    assert query(empty_database_url, "SELECT relname FROM pg_stat_user_tables") == [
        {"relname": "marker"}
    ]
    assert "\x1b" not in done.stdout
    # A line with a path of the user can be longer.
    lines = [line for line in done.stdout.splitlines() if str(home) not in line]
    assert max(map(len, lines)) <= 80
    assert "run `make dashboards`" in done.stdout
    assert re.search(
        r"^loaded 9\d\d runs with [\d,]+ steps in [\d.]+ s, 9\d\d requests$",
        done.stdout,
        re.MULTILINE,
    )
    names = [cells[0] for line in lines if len(cells := _cells(line)) == 9]
    assert names == ["workflow", "invoice reader", "support triage", "weather jokes"]
    # The failures of the last three hours make an alert fire.
    assert re.search(
        r"^support triage fails +firing +\d+\.\d % +50\.0 % ", done.stdout, re.MULTILINE
    )
    # The demo prints three queries with their results, and a command for the user's own.
    results = re.findall(r"^SELECT .*?;\n\n(.*?)\n\n", done.stdout, re.MULTILINE | re.DOTALL)
    assert [result.count("\n") >= 3 for result in results] == [True, True, True]
    # Numbers are aligned right, below their headings, and columns do not touch.
    for result in results:
        heading, *rows = result.splitlines()
        assert {len(row) for row in rows if row[-1].isdigit()} <= {len(heading)}
        assert {len(_cells(line)) for line in rows} == {len(_cells(heading))}
    # Several providers are listed with their cost. A model without a price has neither.
    models = [_cells(line) for line in results[2].splitlines()[1:]]
    assert {"anthropic", "google", "openai"} <= {provider for provider, *_ in models}
    priced = [cells for cells in models if cells[0] != "-"]
    assert all(re.fullmatch(r"\d+\.\d{4} USD", " ".join(cells[-2:])) for cells in priced)
    assert {(cells[0], *cells[-2:]) for cells in models if cells[1].startswith("virtuoso")} == {
        ("-", "-", "-")
    }
    assert "None" not in done.stdout
    assert processes_in(home) == []
    # The printed command still works after the demo. The printed success rates are those that the
    # dashboards show.
    queried = _run_printed(done.stdout, f"db psql --tuples-only --no-align -c {shlex.quote(RATES)}")
    rates = [found.split("|") for found in queried.stdout.splitlines()]
    assert len(rates) == 3, queried.stderr
    for name, percent in rates:
        printed = re.search(rf"^{name} +\d+ +(\d+\.\d) ", done.stdout, re.MULTILINE)
        # Runs continue to end between the two queries. Without soft failures, the rates would
        # differ by some points.
        assert printed is not None
        assert float(printed[1]) == pytest.approx(float(percent), abs=0.5)
    assert min(float(percent) for _, percent in rates) < 93
    assert processes_in(home) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "loading"),
        pytest.param(signal.SIGHUP, "starting", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "starting", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "loading", marks=pytest.mark.slow),
    ],
)
def test_a_signal_before_the_end_of_the_backlog(
    home: Path, number: signal.Signals, moment: str
) -> None:
    """A signal during the load ends the demo with the signal's status and leaves no server.

    That holds for Ctrl-C, SIGTERM and a closed terminal.
    """
    with started("demo", "--exit", variables={"ORCHESTRA_ETL_HOME": str(home)}) as process:
        if moment == "starting":
            wait_until(lambda: processes_in(home) != [])
        else:
            _read_until(_output(process), "the simulated API serves")
            time.sleep(0.5)
        assert _stop(process, number, home) == 128 + number


@pytest.mark.slow
def test_commands_during_a_demo(home: Path, tmp_path: Path) -> None:
    """While a demo runs, the printed commands work, and a second demo exits with 2.

    It has exported its history to a lake. The alert that fires when the backlog is loaded is
    resolved by the runs that arrive. SIGTERM ends the demo with 0.
    """
    variables = {"ORCHESTRA_ETL_HOME": str(home)}
    lake = str(tmp_path / "lake")
    with started("demo", "--export", lake, variables=variables) as process:
        text = _read_until(_output(process), "Ctrl-C ends the demo")
        assert f"iceberg_scan('{lake}/orchestra/runs')" in text
        assert len(lake_reader.arrow(Path(lake), "runs")) >= 900
        queried = _run_printed(text, "db psql -Atc 'SELECT count(*) >= 900 FROM runs'")
        assert queried.stdout == "t\n", queried.stderr
        for command in (
            "status",
            "runs list",
            "workflows",
            "config check",
            "sync",
            "prices list",
            "alerts list",
            "export run",
            "export status",
        ):
            queried = _run_printed(text, command)
            assert (queried.returncode, queried.stderr.count("error")) == (0, 0), queried.stderr
        second = run("demo", variables=variables)
        assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1)
        assert "already running" in second.stderr
        with EmbeddedPostgres(home / "demo") as server:

            def is_resolved() -> bool:
                time.sleep(1)  # It takes a minute or more.
                alerts = query(server.url, "SELECT rule, state FROM orchestra.alerts")
                return alerts == [{"rule": "support triage fails", "state": "resolved"}]

            wait_until(is_resolved, seconds=400)
        assert _stop(process, signal.SIGTERM, home) == 0


@pytest.mark.slow
def test_a_demo_after_a_killed_one(home: Path) -> None:
    """After SIGKILL during the load, the next demo adopts the server and starts again.

    The next demo stops the server at its end.
    """
    variables = {"ORCHESTRA_ETL_HOME": str(home)}
    with started("demo", variables=variables) as process:
        _read_until(_output(process), "the simulated API serves")
        time.sleep(0.8)
        process.kill()
    assert processes_in(home) != []
    done = run("demo", "--exit", variables=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "loaded 9" in done.stdout
    assert processes_in(home) == []


@pytest.mark.slow
def test_on_a_terminal_of_80_columns(home: Path) -> None:
    """On a terminal, the demo shows a progress bar and a live table of at most 80 columns.

    Ctrl-C ends it with 0.
    """
    terminal, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", "demo"],
        env={"PATH": os.defpath, "TERM": "xterm-256color", "ORCHESTRA_ETL_HOME": str(home)},
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
    )
    os.close(other_end)
    try:
        text = _read_until(terminal, "Ctrl-C ends the demo")
        bars, _, rest = text.partition("loaded 9")
        assert rest
        # The table is redrawn repeatedly, each time over the last one.
        live = "".join(_read_until(terminal, "tokens") for _ in range(3))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert bars.count("loading the backlog") > 3
    assert "\x1b[2K" in bars
    assert "\x1b[1A" in live
    shown = re.split(r"[\r\n]+", ESCAPES.sub("", bars + live))
    assert max(len(line) for line in shown) <= 80
    # Each is on one line and complete.
    assert any(
        re.fullmatch(r"loading the backlog [━╸╺ ]+ \d+/\d+ +runs 0:00:\d\d", line) for line in shown
    )
    assert any(re.fullmatch(r"workflow +runs +ok .* tokens *", line) for line in shown)
    assert not any("…" in line for line in shown)
    assert processes_in(home) == []
