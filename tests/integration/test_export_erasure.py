"""After an erasure, no file of the lake holds anything of the erased runs."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from etl.cli.lake_cleaning import about
from etl.export import erasure, exporter, state
from etl.export.destination import Destination
from etl.schema import upgrade
from tests import lake_reader
from tests.command_line import Command, command_line
from tests.exported_world import TABLES, ExportedWorld
from tests.support import configuration, environment, query

RUNS = 6
USER = "user-of-the-test"
CANARY = "canary-7d1f"
CALL = '{"messages": [{"role": "user", "content": "canary-7d1f"}]}'


@pytest.fixture
def world(world: ExportedWorld) -> ExportedWorld:
    """Provide six runs in PostgreSQL and in the lake; a user started the newest and the oldest."""
    assert lake_reader.files_with(world.location, CANARY), "the search finds no canary"
    assert lake_reader.files_with(world.location, USER)
    return world


def prepare(world: ExportedWorld) -> None:
    """Let a user have started the newest and the oldest run."""
    for run_id in (world.run_ids[0], world.run_ids[-1]):
        _mark(world, run_id)


def _mark(world: ExportedWorld, run_id: str) -> None:
    """Write the user, and a canary, into every place of a run that can hold content."""
    for statement in (
        "UPDATE orchestra.runs SET user_id = %(user)s, error = to_jsonb(%(canary)s::text)"
        " WHERE id = %(run)s",
        "UPDATE orchestra.steps SET user_id = %(user)s, error = to_jsonb(%(canary)s::text),"
        " step_metadata = to_jsonb(%(canary)s::text) WHERE run_id = %(run)s",
        "UPDATE orchestra.inputs SET data = %(call)s::jsonb"
        " WHERE step_id IN (SELECT id FROM orchestra.steps WHERE run_id = %(run)s)",
        "INSERT INTO orchestra.run_payloads (run_id, inputs) VALUES (%(run)s, %(call)s::jsonb)"
        " ON CONFLICT (run_id) DO UPDATE SET inputs = excluded.inputs",
    ):
        with psycopg.connect(world.url) as connection:
            connection.execute(
                statement, {"user": USER, "canary": CANARY, "call": CALL, "run": run_id}
            )


@pytest.fixture
def command(
    world: ExportedWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Provide the command line, with the lake in its configuration."""
    return world.command(tmp_path, monkeypatch, capsys)


def _erase(world: ExportedWorld) -> erasure.LakeErasure:
    return erasure.erase(world.database, Destination(str(world.location), payloads=True))


@pytest.mark.slow
def test_no_file_of_the_lake_keeps_an_erased_run(
    world: ExportedWorld, command: Command, tmp_path: Path
) -> None:
    """A user's runs leave every file of the lake, one of them pruned before; a receipt says so."""
    world.prune(runs=4.1)
    world.export()
    young, old = world.run_ids[0], world.run_ids[-1]
    assert old in world.archived()
    preview = command("erase", "--user", USER, "--json")
    assert (preview.status, preview.json["runs"], preview.json["archived"]) == (0, 1, 1)
    assert lake_reader.files_with(world.location, CANARY)
    path = tmp_path / "receipt.json"
    printed = command("erase", "--user", USER, "--yes", "--receipt", str(path))
    assert printed.status == 0, printed.err
    for text in (CANARY, USER, young, old):
        assert lake_reader.files_with(world.location, text) == []
    left = set(world.run_ids) - {young, old}
    for name in TABLES:
        key = "id" if name == "runs" else "run_id"
        assert {row[key] for row in lake_reader.rows(world.location, name)} <= left
    assert len(lake_reader.rows(world.location, "runs")) == 4
    made = json.loads(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600
    assert (made["runs"], made["complete"], made["selection"]) == (2, True, {"user_id": USER})
    assert made["database"]["run_ledger"] == 2
    removed = made["lake"]["removed"]
    assert (removed["runs"], removed["rows"]["runs"], len(removed["days"])) == (2, 2, 2)
    assert removed["files"] > 0
    assert made["out_of_reach"]


def test_an_erasure_that_was_interrupted_is_completed_by_an_export(world: ExportedWorld) -> None:
    """If a process dies between the database and the lake, the next export removes the runs."""
    world.prune(runs=4.1)
    world.export()
    young, old = world.run_ids[0], world.run_ids[-1]
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'erased' WHERE run_id = %s", old,
    )  # fmt: skip
    assert query(world.url, "SELECT * FROM orchestra_etl.changed_days") == []
    assert world.export().days == 1
    assert {row["id"] for row in world.rows()["runs"]} == set(world.run_ids) - {old}
    assert young in {row["id"] for row in world.rows()["runs"]}
    assert world.export().days == 0


@pytest.mark.slow
def test_an_erasure_can_be_repeated(world: ExportedWorld, command: Command) -> None:
    """A second erasure finds nothing more to remove, and changes nothing."""
    assert command("erase", "--user", USER, "--yes").status == 0
    before = world.rows()
    again = command("erase", "--user", USER, "--yes", "--json")
    assert (again.status, again.json["runs"], again.json["lake"]["removed"]["runs"]) == (0, 0, 0)
    assert world.rows() == before


def test_a_lake_that_cannot_be_reached_is_reported(
    world: ExportedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Without the lake's configuration, the runs leave the database; the report names the lake."""
    command = command_line(
        tmp_path, monkeypatch, capsys, configuration(world.workflow),
        **environment(world.url, "http://127.0.0.1:9"),
    )  # fmt: skip
    path = tmp_path / "receipt.json"
    printed = command("erase", "--user", USER, "--yes", "--receipt", str(path))
    assert printed.status == 10
    assert "NOT REACHED: the lake at" in " ".join(printed.out.split())
    made = json.loads(path.read_bytes())
    assert (made["runs"], made["complete"], made["lake"]["removed"]) == (2, False, None)
    assert _erase(world).runs == 2
    assert lake_reader.files_with(world.location, CANARY) == []


def test_another_export_is_awaited(world: ExportedWorld) -> None:
    """While another process exports, an erasure waits, and then says that it did not end."""
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'erased' WHERE run_id = %s",
        world.run_ids[0],
    )
    destination = Destination(str(world.location), payloads=True)
    with psycopg.connect(world.url) as other:
        other.execute("SELECT FROM orchestra_etl.export_state FOR UPDATE")
        with pytest.raises(Exception, match="another process is exporting"):
            erasure.erase(world.database, destination, patience=0)
    assert world.database.transaction(state.read) is not None
    assert exporter.run(world.database, destination).complete


RULES = """[[redaction.rules]]
path = "$['inputs', 'outputs', 'error', 'user_id', 'step_metadata']"
action = "drop"
"""
# They leave parts of payloads, and reach columns that were read from payloads.
FINER_RULES = """[[redaction.rules]]
path = "$..content"
action = "mask"
[[redaction.rules]]
path = "$['user_id', 'error', 'step_metadata']"
action = "hash"
[[redaction.rules]]
path = "$.outputs['model', 'usage', 'error']"
action = "drop"
"""
REDACTED = ("runs", "steps", "run_payloads", "step_payloads")


@pytest.fixture
def redacting(
    world: ExportedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> Command:  # fmt: skip
    """Provide the command line, with the lake and new redaction rules in its configuration."""
    rules = getattr(request, "param", RULES)
    toml = configuration(
        world.workflow, more=f'[export]\nlocation = "{world.location}"\npayloads = true\n{rules}'
    )
    return command_line(
        tmp_path, monkeypatch, capsys, toml, ORCHESTRA_REDACTION_KEY="k" * 32,
        **environment(world.url, "http://127.0.0.1:9"),
    )  # fmt: skip


@pytest.mark.slow
def test_a_redaction_reaches_every_file_of_the_lake(
    world: ExportedWorld, redacting: Command
) -> None:
    """New rules reach what only the lake has as they reach PostgreSQL: pruned runs and payloads."""
    old = world.run_ids[-1]
    world.prune(runs=4.1, payloads=2.1)
    world.export()
    assert old in world.archived()
    _mark(world, world.run_ids[1])
    printed = redacting("redact", "apply", "--json")
    assert printed.status == 0, printed.err
    assert printed.json["lake_runs"] == len(world.archived()) == 2
    for text in (CANARY, USER):
        assert lake_reader.files_with(world.location, text) == []
    found = world.rows()
    assert {row["id"] for row in found["runs"]} == set(world.run_ids)
    [policy] = {row["redaction_policy"] for name in REDACTED for row in found[name]}
    assert policy is not None
    again = redacting("redact", "apply", "--json")
    assert (again.status, again.json["lake_runs"], world.rows()) == (0, 0, found)
    assert redacting("export", "verify", "--deep").status == 0


STORED = ("runs", "run_payloads", "steps", "inputs", "outputs")


@pytest.mark.slow
@pytest.mark.parametrize("redacting", [FINER_RULES], indirect=True)
def test_the_lake_and_postgresql_are_redacted_alike(
    world: ExportedWorld, redacting: Command, tmp_path: Path
) -> None:
    """A pruned run that is redacted in the lake has the values of one redacted in PostgreSQL."""
    for name in STORED:
        query(world.url, f"CREATE TABLE saved_{name} AS SELECT * FROM orchestra.{name}")
    ledger = query(world.url, "SELECT run_id, tracking FROM orchestra_etl.run_ledger")
    world.prune(runs=0.1)
    world.export()
    assert world.archived() == set(world.run_ids)
    assert redacting("redact", "apply").status == 0
    in_lake = world.rows()
    assert lake_reader.files_with(world.location, CANARY) == []
    for name in STORED:
        columns = ", ".join(
            row["column_name"]
            for row in query(
                world.url,
                "SELECT column_name FROM information_schema.columns WHERE table_schema ="
                " 'orchestra' AND table_name = %s AND is_generated = 'NEVER'",
                name,
            )
        )
        query(
            world.url,
            f"INSERT INTO orchestra.{name} ({columns}) SELECT {columns} FROM saved_{name}",
        )
    for row in ledger:
        query(
            world.url,
            "UPDATE orchestra_etl.run_ledger SET tracking = %s WHERE run_id = %s",
            row["tracking"],
            row["run_id"],
        )
    redacting("redact", "apply")
    world.location = tmp_path / "second"
    world.export(full=True)
    in_database = world.rows()
    for rows in (*in_lake.values(), *in_database.values()):
        for row in rows:
            row.pop("updated_at", None)
    for name in TABLES:
        assert in_lake[name] == in_database[name], name


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--receipt", "r.json"), "--receipt needs --yes"),
        (("--yes", "--receipt", "etl.toml"), "exists: name another file"),
        (("--yes", "--receipt", "missing/r.json"), "cannot be created"),
    ],
)
def test_a_receipt_that_cannot_be_written_removes_nothing(
    world: ExportedWorld, command: Command, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    """Without a place for the receipt, the command fails before it removes anything."""
    *flags, name = arguments
    printed = command("erase", "--user", USER, *flags, str(tmp_path / name))
    assert printed.status == 2
    assert problem in " ".join(printed.err.split())
    assert query(world.url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": 6}]


def test_before_the_upgrade_there_is_no_lake(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With the schema of the previous release, `erase`, `prune` and `redact apply` still work."""
    upgrade(empty_database_url, revision="0002")
    query(
        empty_database_url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, user_id)"
        " VALUES ('r', 'w', 'failed', 'api', 'final', 'u')",
    )
    rule = '[[redaction.rules]]\npath = "$.inputs"\naction = "drop"\n'
    command = command_line(
        tmp_path, monkeypatch, capsys, configuration("w", more=rule),
        **environment(
            empty_database_url, "http://127.0.0.1:9", ORCHESTRA_REDACTION_KEY="k" * 32
        ),
    )  # fmt: skip
    assert command("redact", "apply").status == 0
    assert command("prune", "--runs-older-than", "3d", "--yes").status == 0
    path = tmp_path / "receipt.json"
    assert command("erase", "--user", "u", "--yes", "--receipt", str(path)).status == 0
    made = json.loads(path.read_bytes())
    assert (made["runs"], made["lake"], made["complete"]) == (1, None, True)


def test_a_problem_of_the_lake_names_it_once() -> None:
    """A problem that begins with the lake's name is not printed behind that name once more."""
    assert about("/srv/lake", "the lake at /srv/lake is full") == "the lake at /srv/lake is full"
    assert about("/srv/lake", "repeat this") == "the lake at /srv/lake: repeat this"
