"""The Makefile: its help, its installation, and its errors for an unsuitable Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT


def _make(
    *arguments: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # If make runs this test, its variables must not reach the make under test. An index of this
    # machine must not reach it either.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "UV_", "PIP_INDEX"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env={**kept, **(variables or {})},
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


def test_make_alone_prints_help() -> None:
    """`make` alone lists every target once, in at most 80 columns, and does nothing else."""
    done = _make()
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.findall(r"^  make ([a-z-]+)  +\w", done.stdout, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted([*shown, "help"]) == sorted(targets)
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


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
def test_every_target_works_from_a_fresh_checkout(target: str, tmp_path: Path) -> None:
    """Each target works in a checkout without a virtual environment, and runs its own command."""
    done = _make("-n", target, f"VENV={tmp_path}/venv", "ARGS=--some-option")
    assert done.returncode == 0, done.stderr
    commands = done.stdout.replace("\\\n", "").splitlines()
    # Packages are pinned and verified, and come from the locks alone. The development tools are
    # installed only where needed.
    locks = [
        re.findall(r" -r (\S+)", line)
        for line in commands
        if "pip install" in line and "--require-hashes" in line and "benchmarks" not in line
    ]
    needed = [["requirements-build.lock", "requirements-run.lock"], ["requirements.lock"]]
    assert locks == needed[: 1 if target in ("demo", "run") else 2]
    assert f"{tmp_path}/venv/bin/" in commands[-1]
    assert ("--some-option" in commands[-1]) == (target not in ("check", "lock"))


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (None, "is not installed"),
        (
            f"{sys.executable} -c 'import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])'"
            ' "$2" ',
            "older than 3.11",
        ),
        ('case "$2" in *venv*) echo "No module named venv" >&2; exit 1;; esac', "python3-venv"),
    ],
)
def test_an_unsuitable_python_is_one_line_of_advice(
    python: str | None, words: str, tmp_path: Path
) -> None:
    """A Python that is missing, too old or without venv stops make with one line of advice."""
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
    # Make adds that the target failed; Python prints nothing.
    assert done.stderr.startswith("make: ***")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def _pinned(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def _normalised(requirements: Iterable[str]) -> set[str]:
    return {
        re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", one, maxsplit=1)[0]).lower()
        for one in requirements
    }


def test_the_locks_hold_what_the_project_names() -> None:
    """The lock has all dependencies and tools, contains the other two locks, and names no index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    dependencies, build = project["project"]["dependencies"], groups["build"]
    dev = [one for one in groups["dev"] if isinstance(one, str)]
    assert {"include-group": "build"} in groups["dev"]
    extras = [
        one for extra in project["project"]["optional-dependencies"].values() for one in extra
    ]

    everything = _pinned("requirements.lock")
    assert _normalised([*dependencies, *build, *dev, *extras]) <= everything.keys()
    for name, wanted in (
        ("requirements-run.lock", dependencies),
        ("requirements-build.lock", build),
    ):
        part = _pinned(name)
        assert _normalised(wanted) <= part.keys()
        assert part.items() <= everything.items()
    for lock in ROOT.glob("requirements*.lock"):
        assert "://" not in lock.read_text()


@pytest.mark.slow
def test_simultaneous_calls_install_in_turn(tmp_path: Path) -> None:
    """Two simultaneous calls of make install in turn; the next call repeats a failed one."""
    venv = tmp_path / "venv"
    log = tmp_path / "log"
    (venv / "bin").mkdir(parents=True)
    _script(
        venv / "bin" / "python",
        f"""case "$*" in *--version) exit 0;; esac
echo begin >> {log}; sleep 0.2; echo end >> {log}
test -e {tmp_path}/broken && exit 1; exit 0""",
    )
    (tmp_path / "broken").touch()
    arguments = (f"VENV={venv}", str(venv / "running"))
    assert _make(*arguments).returncode == 2
    assert not (venv / "running").exists()

    (tmp_path / "broken").unlink()
    log.unlink()
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: _make(*arguments), range(2)))
    assert [one.returncode for one in done] == [0, 0], done
    assert (venv / "running").exists()
    words = log.read_text().split()
    assert words == ["begin", "end"] * (len(words) // 2)


def test_different_environments_install_in_parallel(tmp_path: Path) -> None:
    """Two calls of make install different environments at the same time."""
    venv = tmp_path / "venv"
    for name in ("venv", "BENCH", "LAKE"):
        (tmp_path / name / "bin").mkdir(parents=True)
        _script(tmp_path / name / "bin" / "python", "exit 0")
    # Each installation waits for the begin of the other.
    _script(
        venv / "bin" / "python",
        f"""case "$*" in
*{tmp_path}/BENCH/*) own=BENCH; other=LAKE;;
*{tmp_path}/LAKE/*) own=LAKE; other=BENCH;;
*) exit 1;; esac
touch {tmp_path}/$own/begun
for _ in $(seq 300); do test -e {tmp_path}/$other/begun && exit 0; sleep 0.1; done; exit 1""",
    )
    (venv / "running").touch()
    with ThreadPoolExecutor() as pool:
        done = list(
            pool.map(
                lambda name: _make(
                    f"VENV={venv}", f"{name}={tmp_path / name}", f"{tmp_path / name}/installed"
                ),
                ("BENCH", "LAKE"),
            )
        )
    assert [one.returncode for one in done] == [0, 0], done


def test_the_index_of_pip_is_the_index_of_uv(tmp_path: Path) -> None:
    """An index that is set for pip, by a variable or in its file, is the one that uv reads."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    _script(
        venv / "bin" / "python",
        f"""case "$*" in
*"pip config get global.index-url"*) echo from-the-file;;
*"uv pip install"*) echo "$UV_DEFAULT_INDEX" >> {tmp_path}/used;; esac""",
    )
    (venv / "running").touch()
    for name, value in (("OTHER", ""), ("PIP_INDEX_URL", "pips"), ("UV_DEFAULT_INDEX", "uvs")):
        (venv / "installed").unlink(missing_ok=True)
        done = _make(f"VENV={venv}", str(venv / "installed"), variables={name: value})
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "used").read_text().split() == ["from-the-file", "pips", "uvs"]
