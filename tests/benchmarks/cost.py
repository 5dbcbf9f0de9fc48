"""What a command costs: its time, its CPU time and memory, and the CPU time of PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg

LAUNCH = Path(__file__).with_name("launch.py")
TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """The cost of a command."""

    seconds: float
    cpu_seconds: float
    """CPU time of the command and the processes that it started."""
    peak_mb: float
    """Peak memory of the largest of these processes."""
    server_seconds: float = 0.0
    """Seconds of CPU that PostgreSQL used meanwhile."""


def run(command: Sequence[str], variables: Mapping[str, str], url: str = "") -> Cost:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        variables: the environment, in addition to this process's.
        url: of the database whose server is measured; empty: none.

    Raises:
        SystemExit: if it fails.
    """
    environment = {**os.environ, **variables}
    # All contenders start from compiled modules, as an installed program does.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = server_cpu(url) if url else 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cost.json"
        launch = [sys.executable, "-I", "-S", str(LAUNCH), str(file), *command]
        done = subprocess.run(
            launch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode != 0:
            raise SystemExit(
                f"{' '.join(command[:3])} ended with {done.returncode}:\n"
                f"{done.stdout.decode()[-2000:]}"
            )
        cost = json.loads(file.read_bytes())
    return Cost(**cost, server_seconds=server_cpu(url) - before if url else 0.0)


def server_cpu(url: str) -> float:
    """Return the seconds of CPU that all processes of the server have used so far."""
    with psycopg.connect(url) as connection:
        postmaster = _stat(connection.info.backend_pid)[1]
    while True:
        ended = _stat(postmaster)[13:15]
        living = [
            stat
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and (stat := _stat(folder.name)) and stat[1] == postmaster
        ]
        # Otherwise, a process that ends meanwhile would count in neither.
        if _stat(postmaster)[13:15] == ended:
            break
    return sum(map(int, [*ended, *(used for stat in living for used in stat[11:13])])) / TICKS


def _stat(pid: int | str) -> Sequence[str]:
    """Return the fields of /proc/PID/stat that follow the name; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ()
