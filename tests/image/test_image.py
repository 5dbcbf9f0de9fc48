"""The Dockerfile's steps, executed on this machine without a container engine.

Each COPY and RUN is executed in a folder that stands for the image's root. Then the entry point
runs as the image's user, with the image's environment. `LEFT_OUT` names the steps that need an
engine. The tests use the image's user if they run as root and that user can reach their Python,
which may be in root's home; otherwise they use their own user.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests import dockerfile
from tests.conftest import ROOT
from tests.postgres_fixture import new_home
from tests.support import configuration, environment, query, wait_until

LEFT_OUT = ("useradd",)
"""Commands that change the machine: the tests use the user's number instead."""
FOLDERS = ("/build", "/opt", "/app")
"""The folders below the root to which the steps write."""
TOOLS = "build/tools"
"""The folder to which the RUN before the argument EXTRAS writes."""


class Image(NamedTuple):
    """The result of the steps."""

    root: Path
    environment: dict[str, str]
    user: int | None
    """The user's number, or None for the tests' own user."""
    entrypoint: list[str]
    command: list[str]
    healthcheck: str

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Run the entry point as a container would."""
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            [str(shutil.which(self.entrypoint[0], path=environment["PATH"])),
             *(arguments or self.command)],
            cwd=self.root / "app", env=environment, user=self.user,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def _below(root: Path, text: str) -> str:
    for folder in FOLDERS:
        text = re.sub(rf"(?<![\w.]){folder}\b", f"{root}{folder}", text)
    return text


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(
            source,
            target,
            dirs_exist_ok=True,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _follow(root: Path, extras: str = "", cache: Image | None = None) -> Image:
    """Execute the steps.

    Args:
        root: the folder that stands for the image's root.
        extras: the build argument EXTRAS.
        cache: an image whose result of the RUN before that argument is used again, as an engine
            does. The packages of the new image are not compiled.
    """
    folder = root
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    # The image's `python` is the tests' Python.
    variables = {**kept, "PATH": f"{Path(sys.base_prefix) / 'bin'}:{kept['PATH']}"}
    if cache:
        variables["PIP_NO_COMPILE"] = "1"
    ready = dict(variables)
    user, entrypoint, command, healthcheck = 0, [""], [""], ""
    for one in dockerfile.read(ROOT / "Dockerfile"):
        match one.name:
            case "FROM":
                # A stage begins with the base's environment.
                ready, folder = dict(variables), root
            case "WORKDIR":
                folder = Path(_below(root, one.text))
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY" if one.words[0].startswith("--from="):
                assert (root / one.words[1].lstrip("/")).is_dir()
                assert one.words[1] == one.words[2]  # Both stages use the same place.
            case "COPY":
                *sources, target = one.words
                for source in sources:
                    place = folder / target
                    _copy(
                        ROOT / source, place / Path(source).name if target.endswith("/") else place
                    )
            case "RUN" if cache and "EXTRAS" not in ready and one.stage == 0:
                assert TOOLS in one.text
                (root / TOOLS).symlink_to(cache.root / TOOLS)
            case "RUN" if not one.text.startswith(LEFT_OUT):
                step = _below(root, one.text)
                done = subprocess.run(
                    ["sh", "-ec", step],
                    cwd=folder,
                    env=ready,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{one.text}\n{done.stderr[-2000:]}"
            case "ARG" if one.text.startswith("EXTRAS="):
                ready["EXTRAS"] = extras
            case "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", one.text):
                    ready[name] = _below(root, value).replace("$PATH", ready["PATH"])
            case "USER":
                user = int(one.text)
            case "ENTRYPOINT":
                entrypoint = one.words
            case "CMD":
                command = one.words
            case "HEALTHCHECK":
                healthcheck = one.text.partition("CMD ")[2]
    return Image(
        root, ready, user if _may_run_as_another() else None, entrypoint, command, healthcheck
    )


def _may_run_as_another() -> bool:
    python = Path(sys.base_prefix).resolve()
    return os.geteuid() == 0 and all(
        folder.stat().st_mode & 0o001 for folder in (python, *python.parents)
    )


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Build the image's files once."""
    root = new_home()
    root.chmod(0o755)
    yield _follow(root)
    shutil.rmtree(root, ignore_errors=True)


def test_the_image_has_the_program_and_no_build_tools(image: Image) -> None:
    """The image has the locked dependencies and the program, but no pip, builder or test tool."""
    site = next((image.root / "opt" / "orchestra-etl").glob("lib/python3.*/site-packages"))
    installed = {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")}
    locked = re.findall(r"^([\w-]+)==", (ROOT / "requirements-run.lock").read_text(), re.MULTILINE)
    assert installed == {name.replace("-", "_") for name in locked} | {"orchestra_etl"}
    assert not installed & {"pip", "hatchling", "pytest", "mypy", "playwright", "build"}


@pytest.mark.slow
def test_the_image_can_have_the_extras(image: Image) -> None:
    """The build argument EXTRAS adds the locked packages of the extras, and nothing else."""
    root = new_home()
    try:
        image = _follow(root, extras="export alerts", cache=image)
        locked = {"orchestra_etl"}
        for name in ("run", "export", "alerts"):
            lock = (ROOT / f"requirements-{name}.lock").read_text()
            found = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
            locked |= {re.sub(r"[-.]+", "_", one) for one in found}
        [site] = (image.root / "opt" / "orchestra-etl").glob("lib/python3.*/site-packages")
        installed = {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")}
        assert {re.sub(r"[-.]+", "_", one) for one in installed} == locked
        python = image.root / "opt" / "orchestra-etl" / "bin" / "python"
        program = "import apprise, pyarrow, pyiceberg.catalog.sql"
        subprocess.run([str(python), "-c", program], check=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_the_service_runs_as_its_user_and_hears_signals(image: Image, database_url: str) -> None:
    """By default the image serves: it loads a history, is healthy, and ends normally by SIGTERM.

    Its health is the result of the image's own check.
    """
    history = History(seed=3, workflows=1, runs_per_workflow=20, live=0, arrivals_per_minute=0)
    (image.root / "app" / "config").mkdir(exist_ok=True)
    (image.root / "app" / "config" / "etl.toml").write_text(configuration(*history.workflow_ids))
    with Simulator(history).in_thread() as simulator:
        variables = environment(
            database_url, simulator.base_url, ORCHESTRA_ETL_SERVICE__HOST="127.0.0.1"
        )
        serving = image.start(**variables)
        try:
            stored = "SELECT count(*) AS n FROM orchestra.runs"
            wait_until(lambda: query(database_url, stored) == [{"n": 20}])
            if image.user is not None:
                assert Path(f"/proc/{serving.pid}").stat().st_uid == image.user
            words = dockerfile.Instruction(0, "CMD", image.healthcheck).words
            check = subprocess.run([sys.executable, *words[1:]], capture_output=True, check=False)
            assert check.returncode == 0, check.stderr
            begun = time.monotonic()
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(15) == 0
            assert time.monotonic() - begun < 10
        finally:
            serving.kill()
            serving.communicate()


def test_jobs_of_the_compose_file_run_in_it(image: Image, empty_database_url: str) -> None:
    """The migration job creates the schema, and a sync without a key ends with its status."""
    variables = environment(empty_database_url, "http://127.0.0.1:9/api/v1/workflow")
    migrating = image.start("db", "upgrade", **variables)
    out, errors = migrating.communicate()
    assert (migrating.returncode, "upgraded" in out) == (0, True), errors
    del variables["ORCHESTRA_API_KEY"]
    refused = image.start("sync", **variables)
    _, errors = refused.communicate()
    assert (refused.returncode, len(errors.strip().splitlines())) == (2, 1), errors
