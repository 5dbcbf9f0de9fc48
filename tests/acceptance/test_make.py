"""The Makefile: its help, and what it says where the Python at hand will not do. Nothing is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Not what this test's own make, if any, has told its children.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=kept,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_alone_it_prints_help() -> None:
    """`make` without a target names every target of the interface and does nothing."""
    done = _make()
    assert (done.returncode, done.stderr) == (0, "")
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    assert targets == [
        "demo", "dashboards", "test", "test-fast", "test-all", "test-browser", "faults", "soak", "check", "run", "bench",
        "bench-stages", "bench-analytics", "bench-dashboards", "bench-growth", "docs", "test-image", "test-containers", "dist",
        "lock",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "target",
    [
        "demo",
        "test",
        "test-fast",
        "test-all",
        "faults",
        "soak",
        "check",
        "run",
        "bench",
        "test-image",
        "lock",
    ],
)
def test_every_target_can_be_made_from_nothing(target: str, tmp_path: Path) -> None:
    """Each target knows how to get from a checkout without a virtual environment to its own command."""
    done = _make("-n", target, f"VENV={tmp_path}/venv", "ARGS=--some-option")
    assert done.returncode == 0, done.stderr
    commands = done.stdout.replace("\\\n", "").splitlines()
    # A pinned, verified set of packages, from the lock alone.
    assert any(
        "pip install" in line and "--require-hashes -r requirements.lock" in line
        for line in commands
    )
    assert f"{tmp_path}/venv/bin/" in commands[-1]
    assert ("--some-option" in commands[-1]) == (target not in ("check", "lock"))


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (None, "is not installed"),
        (
            f"""{sys.executable} -c 'import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])' "$2" """,
            "older than 3.11",
        ),
        ('case "$2" in *venv*) echo "No module named venv" >&2; exit 1;; esac', "python3-venv"),
    ],
)
def test_an_unfit_python_is_one_line_with_the_way_out(
    python: str | None, words: str, tmp_path: Path
) -> None:
    """A Python that is missing, too old or without venv stops make at once with one line that says what to do."""
    path = tmp_path / "python3"
    if python is not None:
        _script(path, python)
    done = _make("demo", f"PYTHON={path}", f"VENV={tmp_path}/venv")
    assert done.returncode == 2
    assert (done.stdout.count("\n"), words in done.stdout, "PYTHON=" in done.stdout) == (
        1,
        True,
        True,
    ), done.stdout
    # Make's own remark that the target failed, and nothing of Python's.
    assert done.stderr.startswith("make: ***")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()
