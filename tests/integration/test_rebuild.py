"""A rebuild applies newer rules to stored steps, from the database alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from etl.admin import rebuild
from etl.database import Database
from etl.ledger import rebuilds
from etl.simulator.history import History
from etl.simulator.server import Simulator
from etl.transform.decode import TRANSFORM_VERSION
from etl.transform.generation import REMOVED_ERROR
from etl.transform.reread import COLUMNS
from tests.command_line import Command, command_line
from tests.conftest import ROOT
from tests.later_revision import bring_later_revision
from tests.provider_bodies import SAMPLES
from tests.support import configuration, environment, query, slow, wait_until

LONG_AGO = "2020-01-01 00:00:00+00"
FORGET = f"""
    UPDATE orchestra.steps SET updated_at = '{LONG_AGO}',
        {", ".join(f"{name} = NULL" for name in COLUMNS)}
"""
DUE = (
    "UPDATE orchestra_etl.rebuilds SET after_step_id = NULL, steps = 0, changed = 0,"
    " started_at = NULL, finished_at = NULL"
)
CALL = {
    "object": "chat.completion", "model": "m-1", "choices": [{"finish_reason": "length"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
}  # fmt: skip
# The command with batches of three steps, and the fail points.
SMALL = """
import sys
from etl.admin import rebuild
rebuild.rebuild.__kwdefaults__["batch"] = 3
from tests.faults.fail_points import install
install()
from etl.cli import main
sys.exit(main())
"""


class World:
    """A workflow of finished runs, one a day."""

    def __init__(
        self,
        url: str,
        history: History,
        folder: Path,
        command: Command,
        variables: Mapping[str, str],
    ) -> None:
        self.url, self.history, self.folder, self.command, self.variables = (
            url,
            history,
            folder,
            command,
            variables,
        )
        self.workflow = history.workflow_ids[0]
        self.runs = history.run_ids(self.workflow)

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run a command, check its exit status and return what it prints."""
        done = self.command(*arguments)
        assert done.status == status, (arguments, done.out, done.err)
        return done.out

    def rebuild(self, *arguments: str) -> Any:
        """Run `rebuild` and return its report."""
        return json.loads(self.run("rebuild", "--json", *arguments))

    def steps(self) -> dict[str, dict[str, Any]]:
        """Return all steps without their time of change.

        A usage mask of 0 is returned as null.
        """
        rows = query(
            self.url, "SELECT *, NULLIF(usage_kinds, 0) AS usage_kinds FROM orchestra.steps"
        )
        return {
            row["id"]: {name: value for name, value in row.items() if name != "updated_at"}
            for row in rows
        }

    def step(self, id: str) -> dict[str, Any]:
        """Return the columns of a step that follow from its payloads."""
        ((row,),) = [
            query(self.url, f"SELECT {', '.join(COLUMNS)} FROM orchestra.steps WHERE id = %s", id)
        ]
        return row

    def rewritten(self) -> set[str]:
        """Return the ids of the steps whose time of change is new."""
        return {
            row["id"]
            for row in query(
                self.url, f"SELECT id FROM orchestra.steps WHERE updated_at > '{LONG_AGO}'"
            )
        }

    def due(self, sql: str = FORGET) -> None:
        """Run the statement, and make the rebuild due, as an upgrade does."""
        query(self.url, sql)
        query(self.url, DUE)

    def change(self, **fields: Any) -> str:
        """Give a step without an error these fields in the API, and return its id."""
        run_id = self.runs[0]
        step_id: str = self.history.steps(run_id)[0]["id"]
        self.history.change_step(run_id, step_id, status="completed", error=None, **fields)
        return step_id

    @contextmanager
    def started(self, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """Start the command `rebuild --json` in small batches, as a process."""
        with subprocess.Popen(
            [sys.executable, "-c", SMALL, "--config", str(self.folder / "etl.toml"), "rebuild",
             "--json"],
            env={**os.environ, **self.variables, "PYTHONPATH": str(ROOT), **variables},
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def world(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[World]:
    """Provide finished runs, none of them loaded, and only the newest rebuild."""
    query(
        database_url,
        "DELETE FROM orchestra_etl.rebuilds WHERE transform_version < %s", TRANSFORM_VERSION,
    )  # fmt: skip
    history = History(
        seed=5,
        workflows=1,
        runs_per_workflow=16,
        live=0,
        arrivals_per_minute=0,
        spacing=timedelta(days=1),
    )
    with Simulator(history).in_thread() as simulator:
        variables = environment(database_url, simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")
        command = command_line(
            tmp_path, monkeypatch, capsys, configuration(history.workflow_ids[0]), **variables
        )
        yield World(database_url, history, tmp_path, command, variables)


def test_a_rebuild_writes_what_a_load_writes(world: World) -> None:
    """A rebuild writes each column that follows from payloads as a load does.

    It does not write, or count as changed, a step that was right already.
    """
    world.run("sync")
    before = world.steps()
    old = sorted(before)[::2]
    half = f"id IN ({', '.join(repr(id) for id in old)})"
    world.due(f"{FORGET} WHERE {half}; UPDATE orchestra.steps SET updated_at = '{LONG_AGO}'")
    assert world.command("rollups", "refresh", "--json").json["groups"] > 0
    assert world.steps() != before
    done = world.rebuild()
    assert done == {
        "steps": len(before),
        "changed": done["changed"],
        "without_payload": 0,
        "unreadable": 0,
        "complete": True,
    }
    assert world.steps() == before
    restored = {id for id in old if any(before[id][name] for name in COLUMNS)}
    assert world.rewritten() == restored
    assert len(restored) == done["changed"] > 5
    (noted,) = query(world.url, "SELECT * FROM orchestra_etl.rebuilds")
    assert (noted["steps"], noted["changed"], noted["after_step_id"]) == (
        len(before),
        len(restored),
        None,
    )
    assert noted["started_at"] <= noted["finished_at"]
    assert world.command("rollups", "verify", "--json").json["waiting"] == 0
    assert "nothing to do" in world.run("rebuild")
    assert world.rewritten() == restored


def test_every_shape_of_a_response(world: World) -> None:
    """A rebuild after a load changes nothing, for every shape of a response that `jsonb` stores."""
    ids = [(run_id, step["id"]) for run_id in world.runs for step in world.history.steps(run_id)]
    samples = dict(zip([step_id for _, step_id in ids], SAMPLES, strict=False))
    assert len(samples) == len(SAMPLES)
    for run_id, step_id in ids[: len(samples)]:
        world.history.change_step(
            run_id, step_id, node_id="unknown", status="completed", error=None,
            inputs={"model": "m", "app_name": "a"}, outputs=samples[step_id].body,
        )  # fmt: skip
    world.run("sync")
    before = world.steps()
    world.due("UPDATE orchestra.steps SET updated_at = '2020-01-01 00:00:00+00'")
    assert world.rebuild()["changed"] == 0
    world.due()
    world.rebuild()
    after = world.steps()
    assert after == before
    for id, sample in samples.items():
        assert {name: after[id][name] for name in sample.usage} == sample.usage, sample.name


def test_the_next_read_after_a_rebuild(world: World) -> None:
    """A rebuilt step is written once when the API is read again, unchanged, and then no more."""
    world.run("sync")
    before = world.steps()
    world.due(f"{FORGET}, content_hash = decode(md5(id), 'hex')")
    old = {id: row["content_hash"] for id, row in world.steps().items()}
    world.rebuild()
    assert {id: row["content_hash"] for id, row in world.steps().items()} == old
    loads = [json.loads(world.run("backfill", "--reread", "--json"))["load"] for _ in range(2)]
    assert [load["steps_updated"] for load in loads] == [len(before), 0]
    assert world.steps() == before


@pytest.mark.parametrize("point", ["before", *slow("after")])
def test_killed_in_the_middle(world: World, point: str) -> None:
    """A rebuild that is killed around a commit resumes after the last committed batch."""
    world.run("sync")
    before = world.steps()
    world.due()
    with world.started(FAIL_POINT=f"{point} commit of rebuild._step#4") as process:
        assert process.wait(240) == -signal.SIGKILL, process.communicate()
    (noted,) = query(
        world.url, "SELECT steps, after_step_id, finished_at FROM orchestra_etl.rebuilds"
    )
    finished = 9 if point == "before" else 12
    assert noted == {
        "steps": finished,
        "after_step_id": sorted(before)[finished - 1],
        "finished_at": None,
    }
    assert f"{len(before) - finished} stored steps are still to be read by newer rules" in _line(
        world.run("status")
    )
    assert world.rebuild()["steps"] == len(before) - finished
    assert world.steps() == before


def test_a_signal_ends_a_rebuild_after_its_batch(world: World) -> None:
    """SIGTERM ends a rebuild with 143 and a JSON report once its batch is committed.

    The next rebuild does the remaining batches.
    """
    world.run("sync")
    before = world.steps()
    world.due()
    held = world.steps()[sorted(before)[3]]["run_id"]
    with psycopg.connect(world.url) as other, world.started() as process:
        other.execute("SELECT FROM orchestra_etl.run_ledger WHERE run_id = %s FOR UPDATE", [held])
        wait_until(lambda: _waits(world.url) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        other.rollback()
        out, errors = process.communicate(timeout=240)
    assert process.returncode == 143, errors
    done = json.loads(out)
    assert not done["complete"]
    assert 0 < done["steps"] <= 6
    assert world.rebuild()["steps"] == len(before) - done["steps"]
    assert world.steps() == before


def test_a_rebuild_during_a_load(world: World) -> None:
    """A step that a load writes during a rebuild keeps the load's newer values."""
    step_id = world.change(inputs={"model": "m"}, outputs={**CALL, "model": "older"})
    world.run("sync")
    world.due()
    row = world.steps()[step_id]
    with psycopg.connect(world.url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(
            "SELECT FROM orchestra_etl.run_ledger WHERE run_id = %s FOR UPDATE", [row["run_id"]]
        )
        newer = json.dumps({**CALL, "model": "newer"})
        other.execute(
            "UPDATE orchestra.outputs SET data = %s::jsonb WHERE step_id = %s", [newer, step_id]
        )
        other.execute(
            "UPDATE orchestra.steps SET response_model = 'newer', content_hash = 'x' WHERE id = %s",
            [step_id],
        )
        with _database(world.url) as database:
            done = pool.submit(rebuild.rebuild, database)
            wait_until(lambda: _waits(world.url) or done.done())
            other.commit()
            assert done.result(60).complete
    after = world.step(step_id)
    assert (after["response_model"], after["finish_reason"], after["total_tokens"]) == (
        "newer",
        "length",
        30,
    )


def test_two_rebuilds_at_once(world: World) -> None:
    """Two concurrent rebuilds share the steps and read each of them once."""
    world.run("sync")
    before = world.steps()
    world.due()
    both = threading.Barrier(2)

    def work() -> rebuild.RebuildReport:
        with _database(world.url) as database:
            database.transaction(rebuilds.read)
            both.wait(30)
            return rebuild.rebuild(database, batch=2)

    with ThreadPoolExecutor(2) as pool:
        done = [one.result(60) for one in [pool.submit(work), pool.submit(work)]]
    assert sum(one.steps for one in done) == len(before)
    assert all(one.complete for one in done)
    assert world.steps() == before


def test_what_redaction_removed_stays_removed(world: World) -> None:
    """A rebuild restores nothing that redaction removed.

    A removed error stays an error, and a node keeps its kind.
    """
    step_id = world.change(
        node_id="unknown", inputs={"app_name": "a", "action": "b", "model": "secret", "rest": 1},
        outputs={"result": {"error": "secret", "data": 1}, "model": "secret"},
    )  # fmt: skip
    rules = (
        ("$.outputs.result.error", "drop"),
        ("$.inputs.app_name", "drop"),
        ("$..model", "mask"),
    )
    made = "".join(
        f'[[redaction.rules]]\npath = "{path}"\naction = "{action}"\n' for path, action in rules
    )
    (world.folder / "etl.toml").write_text(configuration(world.workflow, more=made))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRA_REDACTION_KEY", "0123456789abcdef" * 2)
        world.run("sync")
        before = world.steps()
        assert (before[step_id]["node_type"], before[step_id]["reported_error"]) == (
            "integration",
            REMOVED_ERROR,
        )
        forgotten = [name for name in COLUMNS if name not in ("node_type", "reported_error")]
        world.due(f"UPDATE orchestra.steps SET {', '.join(f'{name} = NULL' for name in forgotten)}")
        world.rebuild()
        after = world.steps()
    assert after == before
    assert "secret" not in json.dumps(after, default=str)
    assert after[step_id]["request_model"] == "********"


def test_pruned_payloads(world: World) -> None:
    """A step with a pruned payload keeps its columns and is counted; its neighbours are rebuilt."""
    world.run("sync")
    before = world.steps()
    none, half = [id for id in sorted(before) if before[id]["total_tokens"]][:2]
    for step_id, table in ((none, "inputs"), (none, "outputs"), (half, "inputs")):
        query(
            world.url,
            f"UPDATE orchestra.{table} SET data = NULL, note = 'pruned' WHERE step_id = %s",
            step_id,
        )
    kept = {
        "total_tokens": 7,
        "reported_error": "of before",
        "node_type": "code",
        "finish_reason": "stop",
    }
    values = ", ".join(f"{name} = '{value}'" for name, value in kept.items())
    world.due(f"UPDATE orchestra.steps SET updated_at = '{LONG_AGO}', {values}")
    done = world.rebuild()
    assert (done["without_payload"], done["unreadable"]) == (2, 0)
    after = world.steps()
    for step_id in (none, half):
        assert after[step_id] == {**before[step_id], **kept}
        assert step_id not in world.rewritten()
    others = set(before) - {none, half}
    assert {id: after[id] for id in others} == {id: before[id] for id in others}


def test_payloads_that_jsonb_cannot_hold(world: World) -> None:
    """A rebuild reads a payload with exact bytes from its `jsonb` form, as a load does."""
    step_id = world.change(inputs={"model": "m"}, outputs={**CALL, "text": "\0"})
    world.run("sync")
    (row,) = query(
        world.url,
        "SELECT raw IS NOT NULL AS raw FROM orchestra.outputs WHERE step_id = %s",
        step_id,
    )
    assert row["raw"]
    before = world.steps()
    assert before[step_id]["total_tokens"] == 30
    world.due()
    world.rebuild()
    assert world.steps() == before


def test_an_error_that_is_an_object(world: World) -> None:
    """An error that is an object keeps the API's text; a missing one is written from `jsonb`.

    `jsonb` does not keep the order of members.
    """
    error = {"message": "out of luck", "at": [1, {"zz": 1, "a": 2}]}
    step_id = world.change(node_id="unknown", inputs={}, outputs={"result": {"error": error}})
    world.run("sync")
    before = world.step(step_id)
    assert before["reported_error"].startswith('{"message":')
    world.due(f"UPDATE orchestra.steps SET updated_at = '{LONG_AGO}'")
    assert world.rebuild()["changed"] == 0
    assert world.step(step_id) == before
    world.due()
    world.rebuild()
    found = world.step(step_id)["reported_error"]
    assert found != before["reported_error"]
    assert json.loads(found) == error


def test_a_node_keeps_the_type_that_a_graph_gave_it(world: World) -> None:
    """A node keeps the type from an older graph; without any graph, the payloads decide."""
    world.run("sync")
    typed = {id: row for id, row in world.steps().items() if row["node_type"] is not None}
    assert {row["node_type"] for row in typed.values()} > {"model"}
    query(
        world.url,
        "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version, graph)"
        " VALUES (%s, now(), 'n', '{}')",
        world.workflow,
    )
    world.due()
    world.rebuild()
    assert {id: world.step(id)["node_type"] for id in typed} == {
        id: row["node_type"] for id, row in typed.items()
    }
    world.due(f"DELETE FROM orchestra.workflow_versions; {FORGET}")
    world.rebuild()
    calls = [id for id, row in typed.items() if row["total_tokens"] is not None]
    assert {world.step(id)["node_type"] for id in calls} == {"model"}


def test_one_workflow_alone(world: World) -> None:
    """`--workflow` rebuilds all steps of the workflow, and the whole rebuild stays due."""
    world.run("sync")
    before = world.steps()
    query(world.url, FORGET)
    assert world.rebuild("--workflow", world.workflow)["steps"] == len(before)
    assert world.steps() == before
    world.due()
    world.rebuild("--workflow", world.workflow)
    assert world.steps() == before
    assert "still to be read" in _line(world.run("status"))
    assert world.command("rebuild", "--workflow", "nobody's").status == 2


@pytest.mark.parametrize("alone", [False, True])
def test_a_batch_that_is_too_large_for_the_server(
    world: World, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """A batch that is too large for the server is split, down to one step.

    A step that is too large alone is counted and keeps its columns; its neighbours are rebuilt.
    """
    world.run("sync")
    before = world.steps()
    bad = sorted(before)[4]
    too_much = (
        f"1 / CASE WHEN s.id = '{bad}' AND count(*) OVER () > {0 if alone else 1} THEN 0"
        " ELSE 1 END, s.id,"
    )
    monkeypatch.setattr(rebuild, "_READ", rebuild._READ.replace("s.id,", too_much, 1))
    monkeypatch.setattr(rebuild, "_UNREADABLE", ("22012",))
    world.due()
    done = world.rebuild()
    assert (done["steps"], done["unreadable"], done["complete"]) == (len(before), int(alone), True)
    assert (
        world.steps() == {**before, bad: {**before[bad], **dict.fromkeys(COLUMNS)}}
        if alone
        else before
    )


def test_a_due_rebuild_is_announced(world: World) -> None:
    """`status`, `config check` and `db upgrade` announce a due rebuild until it is done."""
    world.run("sync")
    number = len(world.steps())
    verdict = json.loads(world.run("status", "--json"))["verdict"]
    advice = (
        f"{number} stored steps are still to be read by newer rules: run `orchestra-etl rebuild`"
    )
    commands = (("status",), ("config", "check"), ("db", "upgrade"))
    assert not [one for one in commands if "orchestra-etl rebuild" in world.run(*one)]
    world.due()
    assert [advice in _line(world.run(*one)) for one in commands] == [True] * 3
    status = json.loads(world.run("status", "--json"))
    assert (status["rebuild"], status["verdict"]) == ({"steps": number, "exact": True}, "warning")
    assert json.loads(world.run("db", "upgrade", "--json"))["rebuild"] == status["rebuild"]
    assert "recomputed" in world.run("rebuild")
    assert not [one for one in commands if "orchestra-etl rebuild" in world.run(*one)]
    after = json.loads(world.run("status", "--json"))
    assert (after["rebuild"], after["verdict"]) == (None, verdict)


def test_the_number_of_remaining_steps_is_estimated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a limit, the remaining steps are estimated from the planner's statistics."""
    world.run("sync")
    world.due()
    number = len(world.steps())
    query(world.url, "ANALYZE orchestra.steps")
    query(world.url, "UPDATE orchestra_etl.rebuilds SET steps = 4")
    monkeypatch.setattr(rebuilds, "_LEFT", text(str(rebuilds._LEFT).replace("10001", "6")))
    monkeypatch.setattr(rebuilds, "_COUNTED", 5)
    assert f"about {number - 4} stored steps are still" in _line(world.run("status"))


def test_rules_of_another_version(world: World) -> None:
    """A program whose rules are not the newest refuses to rebuild."""
    world.run("sync")
    world.due()
    before = world.steps()
    query(
        world.url,
        "INSERT INTO orchestra_etl.rebuilds (transform_version) VALUES (%s)",
        TRANSFORM_VERSION + 1,
    )
    refused = world.command("rebuild")
    assert refused.status == 4
    assert "later version" in refused.err
    query(world.url, "UPDATE orchestra_etl.rebuilds SET transform_version = transform_version - 2")
    assert world.command("rebuild").status == 4
    assert world.steps() == before


def test_the_schema_knows_the_rules_of_this_program(database_url: str) -> None:
    """A new TRANSFORM_VERSION needs a revision that makes a rebuild due.

    A new database has no rebuild due.
    """
    with _database(database_url) as database:
        known = database.transaction(rebuilds.read)
        assert known is not None
        assert known.version == TRANSFORM_VERSION, (
            "add a revision that inserts this version into orchestra_etl.rebuilds"
        )
        assert known.finished


@pytest.mark.parametrize("by_itself", [False, True])
def test_an_upgrade_advises_a_rebuild(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by_itself: bool,
) -> None:
    """`db upgrade`, or the log of an automatic upgrade, advises a rebuild of stored steps."""
    url = database_url
    query(
        url,
        """
        DELETE FROM orchestra_etl.rebuilds;
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking)
        VALUES ('r', 'w', 'succeeded', 'api', 'final');
        INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)
        VALUES ('s', 'r', 'w', 0, 'succeeded', 'x');
        """,
    )
    rebuild = f"""
        INSERT INTO orchestra_etl.rebuilds (transform_version, finished_at)
        SELECT {TRANSFORM_VERSION}, CASE WHEN NOT EXISTS (SELECT FROM orchestra.steps)
            THEN now() END
    """
    bring_later_revision(monkeypatch, tmp_path, [rebuild])
    variables = environment(
        url, "http://127.0.0.1:1", ORCHESTRA_ETL_DATABASE__MIGRATE_ON_START=str(by_itself).lower()
    )
    command = command_line(tmp_path, monkeypatch, capsys, configuration("w"), **variables)
    upgraded = command("runs", "list") if by_itself else command("db", "upgrade")
    printed = upgraded.err if by_itself else upgraded.out
    assert (
        "1 stored step is still to be read by newer rules: run `orchestra-etl rebuild`" in printed
    )
    done = command("rebuild", "--json")
    assert (done.status, done.json["steps"], done.json["changed"]) == (0, 1, 0)
    assert "rebuild" not in command("db", "upgrade").out


def test_the_position_of_a_rebuild_does_not_outlive_its_step(world: World) -> None:
    """Erasing the step at a rebuild's position moves the position to the step before it."""
    world.run("sync")
    before = world.steps()
    world.due()
    ids = sorted(before)
    erased = before[ids[5]]["run_id"]
    earlier = [id for id in ids[:5] if before[id]["run_id"] != erased]
    query(world.url, "UPDATE orchestra_etl.rebuilds SET after_step_id = %s", ids[5])
    world.run("erase", "--run", erased, "--yes")
    assert query(world.url, "SELECT after_step_id FROM orchestra_etl.rebuilds") == [
        {"after_step_id": earlier[-1]}
    ]
    left = [id for id in ids if before[id]["run_id"] != erased]
    assert world.rebuild()["steps"] == len(left) - len(earlier)
    world.due("SELECT 1")
    query(world.url, "UPDATE orchestra_etl.rebuilds SET after_step_id = %s", left[0])
    world.run("erase", "--run", before[left[0]]["run_id"], "--yes")
    assert query(world.url, "SELECT after_step_id FROM orchestra_etl.rebuilds") == [
        {"after_step_id": None}
    ]


@contextmanager
def _database(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def _waits(url: str) -> bool:
    """Return whether a session waits for a lock."""
    sql = (
        "SELECT 1 AS one FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    return bool(query(url, sql))


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
