"""Every command in the documentation is run, or belongs to a listed program that is not."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from etl.embedded.postgres import EmbeddedPostgres
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT, fresh_database
from tests.processes import run
from tests.receiver import receiver
from tests.support import configuration, environment, load, sync

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [
    *DOCUMENTS,
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "config").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]
"""Every page, also those without commands to run."""
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]*)(?:#([\w-]+))?\)")
TARGET = re.compile(r"^([a-z][\w-]*):", re.MULTILINE)

MACHINES = {
    "chmod", "cp", "dbt", "docker", "echo", "export", "install", "kubectl", "mkdir", "openssl",
    "pip", "python3", "systemctl", "useradd", "uv",
}  # fmt: skip
"""Programs that change the machine or are not installed. The files that they name must exist."""
ELSEWHERE = {
    "orchestra-etl demo": "does not end by itself; test_demo.py runs it",
    "orchestra-etl serve": "does not end by itself; test_command.py starts it",
}


MORE = """
[retention]
runs = "730d"
[[alerts]]
name = "support triage fails"
metric = "failure_rate"
above = 0.99
notify = ["ops"]
[notify.ops]
url_file = "ops"
"""


def _lines(document: Path) -> Iterator[str]:
    for block in BLOCK.findall(document.read_text()):
        for line in block.splitlines():
            command = re.sub(r"\s+#.*$", "", line).strip()
            if command:
                yield command


COMMANDS = [(document, line) for document in DOCUMENTS for line in _lines(document)]
COMMAND_LINES = sorted(
    {line for _, line in COMMANDS if line.startswith("orchestra-etl ") and line not in ELSEWHERE}
)


@pytest.fixture(scope="module")
def history() -> History:
    """Provide a workflow with ten finished runs."""
    return History(seed=13, workflows=1, runs_per_workflow=10, live=0, arrivals_per_minute=0)


@pytest.fixture(scope="module")
def simulator(history: History) -> Iterator[Simulator]:
    """Provide a server of the history."""
    with Simulator(history).in_thread() as running:
        yield running


@pytest.fixture(scope="module")
def loaded_database(
    postgres_server: EmbeddedPostgres,
    template_database: str,
    history: History,
    simulator: Simulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Load the history, and provide the name of its database, which has a dead letter."""
    with fresh_database(postgres_server, template_database) as url:
        given = environment(url, simulator.base_url)
        folder = tmp_path_factory.mktemp("loaded")
        asyncio.run(sync(load(folder, configuration(*history.workflow_ids), given)))
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
                " content_hash, body) SELECT workflow_id, run_id, 'rejected',"
                " 'for the documentation', '', '[]' FROM orchestra_etl.run_ledger LIMIT 1"
            )
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture
def variables(
    postgres_server: EmbeddedPostgres,
    loaded_database: str,
    history: History,
    simulator: Simulator,
    tmp_path: Path,
) -> Iterator[dict[str, str]]:
    """Provide the settings of a configured workflow with a loaded history and a dead letter.

    They have a rule of alerts and its channel.
    """
    config = tmp_path / "etl.toml"
    lake = f'[export]\nlocation = "{tmp_path}/lake"\npayloads = true\n'
    config.write_text(configuration(*history.workflow_ids, more=MORE + lake))
    with fresh_database(postgres_server, loaded_database) as url, receiver() as hook:
        (tmp_path / "ops").write_text(hook.url())
        yield environment(url, simulator.base_url, ORCHESTRA_ETL_CONFIG=str(config))


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_run_as_shown(
    line: str, variables: dict[str, str], history: History, tmp_path: Path
) -> None:
    """Each `orchestra-etl` command of the documentation exits with 0 and without a traceback."""
    if " config init" in line:
        variables["ORCHESTRA_ETL_CONFIG"] = str(tmp_path / "new.toml")
    elif " export " in line or " --exported" in line:
        assert run("export", "run", variables=variables).returncode == 0
    [workflow_id] = history.workflow_ids
    names = {
        "WORKFLOW": workflow_id,
        "RUN": history.run_ids(workflow_id)[0],
        "receipt.json": str(tmp_path / "receipt.json"),
    }
    done = run(*[names.get(word, word) for word in shlex.split(line)[1:]], variables=variables)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_every_other_command_is_known() -> None:
    """Make's targets exist, other programs are listed above, and the project's files exist."""
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    for document, line in COMMANDS:
        for command in re.split(r" && |; ", line):
            words = shlex.split(command)
            if words[0] == "make":
                assert words[1] in targets, (document, line)
            elif words[0] != "orchestra-etl":
                assert words[0] in MACHINES or words[0].startswith("/opt/orchestra-etl"), (
                    document,
                    line,
                )
            for word in words:
                found = re.search(r"\b(?:config|etl/settings)/[\w./-]+", word)
                assert (
                    found is None
                    or found[0] == "config/etl.toml"  # The user's own file.
                    or (ROOT / found[0]).exists()
                ), (document, line)


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_and_headings_stand_alone(document: Path) -> None:
    """Each table is one block with a heading row, and a blank line surrounds each heading."""
    for block in re.split(r"\n\s*\n", FENCED.sub("", document.read_text())):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            assert re.fullmatch(r"\|[\s:|-]+\|\n\|.*", "\n".join(lines[1:3])), lines[0]
            assert all(line.startswith("|") for line in lines), lines[0]
        if any(re.match("#+ ", line) for line in lines):
            assert len(lines) == 1, lines


def test_each_revision_is_listed() -> None:
    """The page about upgrades has a row for each revision of the schema."""
    listed = re.findall(
        r"^\| (\d{4}) \|", (ROOT / "docs/how-to/upgrading.md").read_text(), re.MULTILINE
    )
    made = sorted((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    assert listed == [path.name[:4] for path in made]


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file of the project finds the file and its heading."""
    for target, heading in LINK.findall(document.read_text()):
        if target.startswith("http"):
            continue
        found = (document.parent / target).resolve() if target else document
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
            }
