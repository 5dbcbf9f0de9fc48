"""The source distribution, and the wheel built from it, installed and run without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT
from tests.oracle import differences
from tests.support import environment

pytestmark = pytest.mark.slow
"""They build, install and start what developers seldom change."""


class Distributions(NamedTuple):
    """The files that `python -m build` creates."""

    wheel: Path
    source: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build the source distribution of this checkout, and the wheel from its content."""
    folder = tmp_path_factory.mktemp("dist")
    _check([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    [wheel], [source] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distributions(wheel, source)


@pytest.fixture(scope="module")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a virtual environment of its own, and provide its command.

    The dependencies are those of the tests.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    _check([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet",
            "--no-index", "--no-deps",
            "--root-user-action=ignore", str(distributions.wheel)])  # fmt: skip
    [site_packages] = folder.glob("lib/python*/site-packages")
    # This folder is searched after the wheel. `.pth` files in it, such as the checkout's own, are
    # not followed.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "orchestra-etl"


def _check(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _run(
    command: Path, *arguments: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(command), *arguments],
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _python_files(folder: Path) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in folder.rglob("*.py")}


def test_the_wheel_holds_the_program_and_nothing_else(distributions: Distributions) -> None:
    """The wheel holds all modules, revisions and example files below `etl/`, and nothing else."""
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    revisions = {f"etl/{name}" for name in _python_files(ROOT / "migrations")}
    statements = {
        f"etl/migrations/sql/{path.name}" for path in (ROOT / "migrations" / "sql").glob("*.sql")
    }
    shipped = {"etl/settings/etl.toml", "etl/settings/etl.schema.json"}
    others = {
        "etl/py.typed",
        "etl/migrations/script.py.mako",
        "etl/migrations/schema.sql",
    } | shipped
    assert names == _python_files(ROOT / "etl") | revisions | statements | others


def test_the_source_distribution_holds_what_developers_need(distributions: Distributions) -> None:
    """The source distribution holds sources, tests and build files, and no caches."""
    with tarfile.open(distributions.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "requirements.lock", "requirements-run.lock", "requirements-build.lock",
        "requirements-export.lock", "requirements-alerts.lock", "Makefile",
        "Dockerfile", ".dockerignore", "docker-compose.yml", "alembic.ini",
        "LICENSE", "README.md", "CONTRIBUTING.md", ".ci/run", "dbt/dbt_project.yml",
        "docs/how-to/analytics.md", "tests/samples/steps.json",
    }  # fmt: skip
    assert wanted | _python_files(ROOT / "tests") | _python_files(ROOT / "migrations") <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(".venv")]


def test_the_wheel_of_a_checkout_is_the_same(distributions: Distributions, tmp_path: Path) -> None:
    """The wheel built from the source distribution equals the one built from the checkout."""
    _check([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path),
            str(ROOT)])  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.read_bytes() == distributions.wheel.read_bytes()


def test_the_bill_of_materials_lists_what_runs(tmp_path: Path) -> None:
    """The bill of materials lists each pinned package with hashes, and is reproducible.

    The program depends on each package, and most have a licence.
    """
    texts = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        _check([sys.executable, str(ROOT / ".ci" / "sbom.py"), str(path)])
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    lock = (ROOT / "requirements-run.lock").read_text()
    for one in bill["components"]:
        [files] = one["externalReferences"]
        for hashed in files["hashes"]:
            lock = lock.replace(f"    --hash=sha256:{hashed['content']}", "", 1)
        lock = lock.replace(f"{one['name']}=={one['version']}", "", 1)
    assert set(lock) <= {" ", "\\", "\n"}
    assert sum("licenses" in one for one in bill["components"]) > 0.9 * len(bill["components"])
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    reached, found = set(), {bill["metadata"]["component"]["bom-ref"]}
    while found:
        reached |= found
        found = {other for one in found for other in needs[one]} - reached
    assert reached == needs.keys()


def test_the_installed_wheel_does_the_main_job(
    installed: Path, distributions: Distributions, empty_database_url: str, tmp_path: Path
) -> None:
    """Outside a checkout, the wheel shows settings, creates the schema and loads a history."""
    history = History(seed=3, runs_per_workflow=20, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        workflows = json.dumps([{"id": workflow_id} for workflow_id in history.workflow_ids])
        variables: Mapping[str, str] = environment(
            empty_database_url, simulator.base_url, ORCHESTRA_ETL_WORKFLOWS=workflows
        )
        version = _run(installed, "--version", folder=tmp_path)
        assert version.stdout == f"orchestra-etl {distributions.wheel.name.split('-')[1]}\n", (
            version.stderr
        )
        shown = _run(installed, "config", "show", folder=tmp_path, **variables)
        assert shown.stdout.startswith(
            "# no configuration file; run `orchestra-etl config init` to write one\n"
        )
        upgraded = _run(installed, "db", "upgrade", folder=tmp_path, **variables)
        assert upgraded.returncode == 0, upgraded.stderr
        synced = _run(installed, "sync", folder=tmp_path, **variables)
        assert synced.returncode == 0, synced.stderr
    assert differences(empty_database_url, history) == []
    assert list(tmp_path.iterdir()) == []


def test_an_installation_needs_no_edits(installed: Path, tmp_path: Path) -> None:
    """Neither a wheel nor an editable install reads or names files of its own installation.

    `config init` writes a file, and the JSON Schema that the file's first line names.
    """
    editable = Path(sys.executable).parent / "orchestra-etl"
    for number, command in enumerate((installed, editable)):
        folder = tmp_path / str(number)
        folder.mkdir()
        variables = {"ORCHESTRA_API_KEY": "k", "ORCHESTRA_BASE_URL": "http://127.0.0.1:9"}
        shown = _run(command, "config", "show", folder=folder, **variables)
        assert shown.stdout.startswith(
            "# no configuration file; run `orchestra-etl config init` to write one\n"
        )
        assert 'database.url = "embedded"\n' in shown.stdout
        for words in (("sync",), ("serve",), ("config", "check"), ("workflows",)):
            done = _run(
                command,
                *words,
                folder=folder,
                DATABASE_URL="postgresql://127.0.0.1:9/x",
                **variables,
            )
            text = done.stdout + done.stderr
            assert done.returncode in (2, 5), text
            assert words == ("workflows",) or "run `orchestra-etl config init`" in " ".join(
                text.split()
            )
            assert not [
                path
                for path in (str(installed.parent.parent), str(ROOT), "site-packages")
                if path in text
            ]
        made = _run(command, "config", "init", folder=folder)
        assert (made.returncode, made.stdout.split()[:2]) == (0, ["wrote", "config/etl.toml:"]), (
            made.stderr
        )
        assert (folder / "config" / "etl.toml").read_text() == (
            ROOT / "etl" / "settings" / "etl.toml"
        ).read_text()
        for_editors = (ROOT / "etl" / "settings" / "etl.schema.json").read_text()
        assert (folder / "config" / "etl.schema.json").read_text() == for_editors
        assert _run(command, "config", "schema", folder=folder).stdout == for_editors
        used = _run(command, "config", "show", folder=folder, **variables)
        assert used.stdout.partition("\n")[2] == shown.stdout.partition("\n")[2]
        assert used.stdout.startswith("# config/etl.toml\n")
        (folder / "config" / "etl.toml").write_text("# mine\n")
        again = _run(command, "config", "init", folder=folder)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert (folder / "config" / "etl.toml").read_text() == "# mine\n"
        own = _run(command, "config", "init", "--user", folder=folder)
        assert (own.returncode, str(folder / ".config")) == (
            0,
            str(Path(own.stdout.split()[1]).parent.parent),
        )
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        found = _run(command, "config", "show", folder=elsewhere, HOME=str(folder))
        assert found.stdout.startswith(f"# {own.stdout.split()[1].removesuffix(':')}\n")


def test_the_installed_wheel_shows_the_demo(installed: Path, home: Path, tmp_path: Path) -> None:
    """The demo runs from the wheel alone, and leaves no file in the current folder."""
    done = _run(installed, "demo", "--exit", folder=tmp_path, ORCHESTRA_ETL_HOME=str(home))
    assert (done.returncode, "loaded 9" in done.stdout) == (0, True), done.stderr
    assert list(tmp_path.iterdir()) == []
