"""`redact apply` applies later rules to what is stored and never read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from etl import app, redacting
from etl.admin import redaction
from etl.analytics import rollups
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from etl.transform.generation import REMOVED_ERROR
from tests.command_line import Command, command_line
from tests.integration.test_search import always_indexed, found, prefer_the_index, used
from tests.redacted_world import KEY, RedactedWorld
from tests.support import configuration, environment, load, query, slow

CANARY = "canary-7f3a"


class World(RedactedWorld):
    """A workflow of ten runs, one a day, with a canary in all content."""

    def __init__(
        self,
        folder: Path,
        url: str,
        history: History,
        simulator: Simulator,
        command: Command,
        patch: pytest.MonkeyPatch,
    ) -> None:
        super().__init__(folder, url, history, command, patch)
        self.simulator = simulator
        for run_id in self.runs:
            history.change_run(
                run_id, inputs={"text": CANARY}, outputs=[CANARY], user_id=CANARY,
                organization_id=CANARY, error={"text": CANARY}, surprise=CANARY,
            )  # fmt: skip
            for position, step in enumerate(history.steps(run_id)):
                history.change_step(
                    run_id, step["id"], status="completed" if position else "failed",
                    user_id=CANARY, organization_id=CANARY, error=CANARY,
                    step_metadata={"m": CANARY},
                    surprise={"text": CANARY}, inputs={"model": CANARY, "text": CANARY},
                    outputs={
                        "object": "chat.completion", "model": "m",
                        "choices": [{"finish_reason": CANARY}],
                        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
                        "text": CANARY,
                    },
                )  # fmt: skip


@pytest.fixture
def world(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[World]:
    """Provide ten finished runs, none of them loaded."""
    history = History(
        seed=5,
        workflows=1,
        runs_per_workflow=10,
        live=0,
        arrivals_per_minute=0,
        spacing=timedelta(days=1),
    )
    with Simulator(history).in_thread() as simulator:
        command = command_line(
            tmp_path, monkeypatch, capsys, configuration(history.workflow_ids[0]),
            **environment(database_url, simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1"),
        )  # fmt: skip
        yield World(tmp_path, database_url, history, simulator, command, monkeypatch)


ALL = (("$.*", "drop"), ("$.inputs.model", "drop"))


def _load_and_forget(world: World) -> None:
    """Load everything without rules, then make the API forget what it can."""
    bodies = {
        world.runs[0]: json.dumps({"detail": CANARY}).encode(),
        world.runs[1]: json.dumps(
            [CANARY, {"id": 7, "inputs": CANARY}, {"id": "x", "outputs": ["\0", CANARY]}]
        ).encode(),
    }
    world.simulator.steps_bodies.update(bodies)
    page = b'[{"inputs":"%s","all_outputs":"%s"}]' % ((CANARY.encode(),) * 2)
    world.simulator.misbehave(Misbehaviour(body=page, endpoints=("runs",), count=1))
    world.run("sync", status=6)
    world.simulator.misbehave()
    world.run("sync")
    world.simulator.steps_bodies.clear()
    world.run("dead-letters", "discard", "--all")
    absent = world.history.steps(world.runs[2])[0]["id"]
    query(world.url, "UPDATE orchestra.steps SET absent_since = now() WHERE id = %s", absent)
    for run_id in world.runs:
        world.history.delete(run_id)
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET listing = convert_to(%s, 'UTF8') WHERE run_id = %s",
        json.dumps({"id": world.runs[3], "inputs": CANARY}), world.runs[3],
    )  # fmt: skip
    query(world.url, "UPDATE orchestra_etl.run_ledger SET tracking = 'gone', due_at = NULL")
    query(world.url, "ANALYZE")


@pytest.mark.parametrize(
    "command", [("redact", "apply"), *slow(("backfill", "--reread"))], ids=" ".join
)
def test_later_rules_remove_every_trace(world: World, command: tuple[str, ...]) -> None:
    """New rules remove the canary everywhere, also from what the API no longer has.

    That includes absent steps, lost runs, resolved dead letters, listings, failures, rollups and
    planner statistics. Without their finish reasons, calls are no longer counted as responses.
    """
    responses = "SELECT sum(responses)::int FROM orchestra.step_rollup WHERE ordinal > 0"
    _load_and_forget(world)
    world.run("prune", "--yes", "--runs-older-than", "6d")
    before = world.traces(CANARY)
    assert before >= {
        "orchestra.steps.error", "orchestra.steps.extra", "orchestra.steps.step_metadata",
        "orchestra.steps.user_id", "orchestra.steps.request_model",
        "orchestra.steps.finish_reason", "orchestra.step_failures.message",
        "orchestra.inputs.data", "orchestra.outputs.data", "orchestra.run_payloads.inputs",
        "orchestra.runs.error", "orchestra.run_rollup.organization_id",
        "orchestra.step_rollup_daily.organization_id", "pg_stats.orchestra.steps",
        "orchestra_etl.dead_letters.body", "orchestra_etl.run_ledger.listing",
    }  # fmt: skip
    facts = (
        "SELECT id, state, node_type, start_time, end_time, reported_error IS NULL AS none"
        " FROM orchestra.steps ORDER BY id"
    )
    kept, runs = (
        query(world.url, facts),
        world.one("SELECT sum(runs)::int FROM orchestra.run_rollup"),
    )
    assert world.one(responses) > 0
    world.configure(*ALL)
    # A list that has become empty is a gap.
    world.run(*command, status=6 if command[0] == "backfill" else 0)
    assert world.traces(CANARY) == set()
    assert query(world.url, facts) == kept
    assert world.one(responses) is None  # no call is left
    assert world.one("SELECT sum(runs)::int FROM orchestra.run_rollup") == runs == 9
    for table in ("runs", "steps"):
        assert (
            world.one(
                f"SELECT count(DISTINCT COALESCE(redaction_policy, '-')) FROM orchestra.{table}"
            )
            == 1
        )
    again = world.command("redact", "apply", "--json").json
    assert again == dict.fromkeys(again, 0) | {"complete": True}
    assert world.command("rollups", "verify").status == 0


@pytest.mark.parametrize(
    "indexed", [False, *slow(True)], ids=["without an index", "with the index"]
)
def test_what_later_rules_remove_is_not_found(world: World, indexed: bool) -> None:
    """A search finds nothing that rules have removed, and everything that they have left."""
    world.run("sync")
    if indexed:
        always_indexed(world.url)
        prefer_the_index(world.url)

    def places() -> set[str]:
        more = ", since => '-infinity', max_hits => 1000"
        scans = used(world.url)
        hits = found(world.url, CANARY.upper(), more)
        assert (used(world.url) > scans) is indexed
        assert len(hits) < 1000
        return {place for place, _ in hits}

    assert places() == {"input", "output", "answer", "error"}
    world.configure(("$.inputs", "drop"), ("$.error", "mask"))
    world.run("redact", "apply")
    assert places() == {"output", "answer"}
    world.configure(*ALL)
    world.run("redact", "apply")
    assert places() == set()
    world.run("backfill", "--reread")
    assert places() == set()


def test_models_in_rollups_of_pruned_runs(world: World) -> None:
    """A rule removes models from the rollups of pruned runs.

    A call keeps the model that the response names.
    """
    first = world.history.steps(world.runs[0])[0]["id"]
    world.history.change_step(
        world.runs[0], first, inputs={"model": CANARY}, outputs={"model": CANARY}
    )
    world.run("sync")
    world.run("prune", "--yes", "--runs-older-than", "1h")
    assert world.one("SELECT count(*) FROM orchestra.steps") == 0
    models = "SELECT DISTINCT model FROM orchestra.{} ORDER BY 1"
    assert query(world.url, models.format("step_rollup")) == [{"model": CANARY}, {"model": "m"}]
    world.configure(
        ("$.inputs", "drop"),
        ("$[?@ == $.outputs && !@.usage.total_tokens]", "drop"),
        ("$.organization_id", "hash"),
    )
    world.run("redact", "apply")
    for table in ("step_rollup", "step_rollup_daily"):
        assert query(world.url, models.format(table)) == [{"model": "m"}, {"model": None}]
        assert world.one(f"SELECT bool_and(organization_id LIKE 'hmac%%') FROM orchestra.{table}")
    assert world.traces(CANARY) == set()


def test_rules_without_a_match_change_nothing(world: World) -> None:
    """Rules that match nothing change no column, payload or time of change.

    Exact bytes are removed, as under any rules.
    """
    _load_and_forget(world)
    tables = {
        "runs": "id", "run_payloads": "run_id", "steps": "id",
        "inputs": "step_id", "outputs": "step_id", "step_failures": "step_id",
        "step_rollup": "workflow_id, hour, ordinal",
    }  # fmt: skip

    def rows() -> dict[str, list[dict[str, Any]]]:
        return {
            table: [
                {
                    name: value
                    for name, value in row.items()
                    if name not in ("redaction_policy", "content_hash")
                }
                for row in query(world.url, f"SELECT * FROM orchestra.{table} ORDER BY {key}")
                if "x" not in (row.get("id"), row.get("step_id"))
            ]
            for table, key in tables.items()
        }

    world.run("rollups", "refresh", "--all")
    before, letters = (
        rows(),
        query(world.url, "SELECT * FROM orchestra_etl.dead_letters ORDER BY id"),
    )
    world.configure(("$.none", "drop"), ("$.inputs.none[*].at.all", "mask"))
    done = world.command("redact", "apply", "--json").json
    assert (done["runs"], done["changed"], done["rollups"]) == (9, 1, 0)
    assert done["steps"] == len(before["steps"]) + 1
    (exact,) = query(world.url, "SELECT data, raw, note FROM orchestra.outputs WHERE step_id = 'x'")
    assert (exact["data"], exact["raw"]) == (["\ufffd", CANARY], None)
    assert exact["note"] == "jsonb cannot hold: NUL; not kept: the workflow has redaction rules"
    assert rows() == before
    after = query(world.url, "SELECT * FROM orchestra_etl.dead_letters ORDER BY id")
    assert [row["id"] for row in after] == [row["id"] for row in letters]
    assert {row["reason"] for row in after if row["body"] == b""} == {
        "not_an_array",
        "not_an_object",
    }


def test_a_rule_reaches_the_columns_of_a_pruned_payload(world: World) -> None:
    """A rule also clears columns that were read from a payload before it was pruned.

    Columns from other places of the payload stay.
    """
    step = world.history.steps(world.runs[0])[0]["id"]
    world.history.change_step(
        world.runs[0], step, error=None, status="completed",
        inputs={"app_name": "a", "action": "b", "model": "kept"},
        outputs={"result": {"error": CANARY}},
    )  # fmt: skip
    world.run("sync")
    sql = (
        "SELECT request_model, node_type, reported_error, state FROM orchestra.steps WHERE id = %s"
    )
    (before,) = query(world.url, sql, step)
    assert (before["request_model"], before["reported_error"], before["state"]) == (
        "kept",
        CANARY,
        "succeeded",
    )
    query(world.url, "UPDATE orchestra.outputs SET data = NULL, note = 'pruned'")
    query(world.url, "UPDATE orchestra.inputs SET data = NULL, note = 'pruned'")
    query(world.url, "UPDATE orchestra_etl.run_ledger SET tracking = 'gone', due_at = NULL")
    world.configure(
        ("$.outputs.result.error", "drop"), ("$.outputs.choices[*].finish_reason", "mask")
    )
    world.run("redact", "apply")
    assert query(world.url, sql, step) == [{**before, "reported_error": REMOVED_ERROR}]
    others = (
        "SELECT DISTINCT finish_reason, total_tokens, request_model FROM orchestra.steps"
        " WHERE id <> %s"
    )
    assert query(world.url, others, step) == [
        {"finish_reason": "********", "total_tokens": 3, "request_model": CANARY}
    ]
    assert world.one("SELECT count(*) FROM orchestra.outputs WHERE note = 'pruned'") > 10


def test_a_payload_that_is_too_deep_is_removed(world: World) -> None:
    """A stored payload too deep to redact is removed with a note.

    The step and its neighbours stay.
    """
    world.run("sync")
    step = world.history.steps(world.runs[0])[0]["id"]
    deep = "[" * 3000 + json.dumps(CANARY) + "]" * 3000
    query(world.url, "UPDATE orchestra.outputs SET data = %s::jsonb WHERE step_id = %s", deep, step)
    world.configure(("$..text", "mask"), ("$.user_id", "hash"))
    world.run("redact", "apply")
    (row,) = query(
        world.url, "SELECT data, raw, note FROM orchestra.outputs WHERE step_id = %s", step
    )
    assert (row["data"], row["raw"]) == (None, None)
    assert row["note"].startswith("removed")
    assert world.one(
        "SELECT user_id LIKE 'hmac%%' AND error IS NULL AND extra IS NULL FROM orchestra.steps"
        " WHERE id = %s",
        step,
    )
    assert world.one("SELECT count(*) FROM orchestra.outputs WHERE data IS NULL") == 1


def test_redact_apply_resumes(world: World) -> None:
    """If `redact apply` is stopped, the next one does only the rest, and refreshes statistics."""
    world.run("sync")
    query(world.url, "ANALYZE")
    world.configure(*ALL)
    loaded = load(
        world.folder,
        (world.folder / "etl.toml").read_text(),
        {**environment(world.url, "http://127.0.0.1:1"), "ORCHESTRA_REDACTION_KEY": KEY},
    )
    rules = redacting.open_redaction(loaded)
    counts = []
    with app.open_database(loaded) as database:
        for _ in range(20):
            counts.append(redaction.redact_stored(database, rules, batch=3, stopped=lambda: True))
            assert not counts[-1].complete
        done = redaction.redact_stored(database, rules, batch=3)
        # The rollups include the changes, too.
        assert rollups.drain(database) == rollups.RefreshReport()
    assert [one.runs for one in counts[:5]] == [3, 3, 3, 1, 0]
    assert (done.runs, done.complete) == (0, True)
    assert world.traces(CANARY) == set()


def test_a_reread_leaves_no_trace_in_the_statistics(world: World) -> None:
    """If `backfill --reread` has redacted every row, it still refreshes the statistics."""
    world.run("sync")
    query(world.url, "ANALYZE")
    sampled = (
        "SELECT count(*) FROM pg_stats WHERE schemaname = 'orchestra' AND attname = 'user_id'"
        " AND position(%s IN concat(most_common_vals, histogram_bounds)) > 0"
    )
    assert world.one(sampled, CANARY) == 2
    # The rollups have no users, so that only the rows that were read again change.
    world.configure(("$.user_id", "mask"))
    world.run("backfill", "--reread")
    assert world.one(sampled, CANARY) == 0


def test_dead_letters_with_equal_redacted_content(world: World) -> None:
    """Dead letters that differ only in removed content keep separate rows.

    If another row has the same content hash, the hash is made unique.
    """
    world.run("sync")
    for number in range(3):
        query(
            world.url,
            "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, step_id, reason,"
            " detail, content_hash, body) VALUES (%s, 'r', 's', 'rejected', 'd', %s, %s)",
            world.workflow, str(number).encode(),
            json.dumps({"id": "s", "text": f"{CANARY}{number}"}).encode(),
        )  # fmt: skip
    world.configure(("$.text", "mask"))
    assert world.command("redact", "apply", "--json").json["dead_letters"] == 3
    bodies = query(
        world.url, "SELECT DISTINCT body FROM orchestra_etl.dead_letters WHERE run_id = 'r'"
    )
    assert [bytes(row["body"]) for row in bodies] == [b'{"id":"s","text":"********"}']
    assert world.one("SELECT count(*) FROM orchestra_etl.dead_letters WHERE run_id = 'r'") == 3


def test_redact_apply_without_a_rule(world: World) -> None:
    """Without a rule that applies, the command says so in one line and changes nothing."""
    assert "there are no redaction rules" in world.command("redact", "apply").err
    rule = '[[redaction.rules]]\nworkflow = "w"\npath = "$.a"\naction = "drop"\n'
    (world.folder / "etl.toml").write_text(configuration(world.workflow, more=rule))
    world.patch.setenv("ORCHESTRA_REDACTION_KEY", KEY)
    world.run("sync")
    refused = world.command("redact", "apply", "--workflow", world.workflow)
    assert (refused.status, "no redaction rule applies" in refused.err) == (2, True)
    unknown = world.command("redact", "apply", "--workflow", "w")
    assert (unknown.status, "nothing is stored for workflow 'w'" in unknown.err) == (2, True)


SETS: dict[str, tuple[tuple[str, str], ...]] = {
    "errors": (("$.error", "drop"), ("$.outputs.result.error", "hash"), ("$.user_id", "mask")),
    "payloads": (
        ("$.inputs", "drop"),
        ("$.outputs..[?search(@, '')]", "mask"),
        ("$.organization_id", "hash"),
    ),
    "everything": (("$.*", "drop"),),
    "usage": (
        ("$.outputs.usage.total_tokens", "mask"),
        ("$..model", "hash"),
        ("$.outputs.choices[*].finish_reason", "drop"),
    ),
}
FINER = ("errors", "payloads", "usage")
"""Sets whose kinds of rules are also in the others; they are slow."""


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(rules, id=name, marks=[pytest.mark.slow] if name in FINER else [])
        for name, rules in SETS.items()
    ],
)
def test_redact_apply_equals_a_load_under_the_rules(
    rules: tuple[tuple[str, str], ...],
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`redact apply` leaves the same rows as reading the runs again under the rules."""
    history = History(seed=11, workflows=2, runs_per_workflow=25, live=0, arrivals_per_minute=0)
    columns = "to_jsonb(t) - ARRAY['content_hash', 'updated_at', 'first_seen_at']"
    tables = {
        "runs": "id",
        "run_payloads": "run_id",
        "steps": "id",
        "inputs": "step_id",
        "outputs": "step_id",
    }

    def rows() -> dict[str, list[Any]]:
        return {
            table: [
                row["t"]
                for row in query(
                    database_url,
                    f"SELECT {columns} AS t FROM orchestra.{table} AS t ORDER BY {key}",
                )
            ]
            for table, key in tables.items()
        }

    with Simulator(history).in_thread() as simulator:
        variables = environment(database_url, simulator.base_url, ORCHESTRA_REDACTION_KEY=KEY)
        command = command_line(
            tmp_path, monkeypatch, capsys, configuration(*history.workflow_ids), **variables
        )
        assert command("sync").status == 0
        made = "".join(
            f'[[redaction.rules]]\npath = "{path}"\naction = "{action}"\n' for path, action in rules
        )
        (tmp_path / "etl.toml").write_text(configuration(*history.workflow_ids, more=made))
        assert command("redact", "apply", "--json").json["changed"] > 50
        applied = rows()
        query(database_url, "UPDATE orchestra_etl.run_ledger SET tracking = 'final'")
        read = command("backfill", "--reread", "--json").json["load"]
        assert read["runs"] == 50
    assert rows() == applied
