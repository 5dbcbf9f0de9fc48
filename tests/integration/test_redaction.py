"""Redaction from end to end: the rules remove all traces of a value, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from etl import app
from etl.database import Database
from etl.ledger import claims
from etl.ledger.lifecycle import PollingPolicy
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reading
from etl.pipeline.sync import SyncReport
from etl.simulator.history import History, utc_now
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from etl.transform.redact import Redaction, RedactionRule
from etl.transform.states import StateMap
from tests.command_line import Command, command_line
from tests.oracle import differences
from tests.support import LOADED, configuration, environment, load, query, sync

CANARY = "canary-7f3a"
KEY = "0123456789abcdef0123456789abcdef"
SECRETS = (("$..secret", "drop"),)
COLUMNS = """
    SELECT c.table_schema || '.' || c.table_name AS place, c.column_name AS name,
        c.data_type AS kind
    FROM information_schema.columns AS c JOIN pg_tables AS t
        ON (schemaname, tablename) = (table_schema, table_name)
    WHERE schemaname IN ('orchestra', 'orchestra_etl') ORDER BY 1, 2
"""


EMPTY = "SELECT content_hash FROM orchestra_etl.dead_letters WHERE body = ''"


def rules(*paths: tuple[str, str], workflow: str | None = None) -> str:
    """Return the TOML of these rules."""
    scope = "" if workflow is None else f'workflow = "{workflow}"\n'
    return "".join(
        f'[[redaction.rules]]\n{scope}path = "{path}"\naction = "{action}"\n'
        for path, action in paths
    )


class World:
    """A history of two workflows, and a database.

    Every run and step of the first workflow contains a canary.
    """

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.first, self.second = history.workflow_ids
        self.variables = environment(
            url, simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1", ORCHESTRA_REDACTION_KEY=KEY
        )
        for run_id in history.run_ids(self.first):
            history.change_run(run_id, inputs={"secret": CANARY, "kept": 1}, user_id=CANARY)
            for step in history.steps(run_id):
                history.change_step(run_id, step["id"], inputs={"secret": [CANARY], "kept": run_id})

    def settings(self, *paths: tuple[str, str]) -> Any:
        """Return settings with these rules for the first workflow."""
        toml = configuration(*self.history.workflow_ids, more=rules(*paths, workflow=self.first))
        return load(self.folder, toml, self.variables)

    def sync(self, *paths: tuple[str, str]) -> SyncReport:
        """Run one sync under these rules, with every open run due."""
        query(
            self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL"
        )
        return asyncio.run(sync(self.settings(*paths)))

    def reread(self, *paths: tuple[str, str]) -> SyncReport:
        """Run `backfill --reread` under these rules."""

        async def work() -> SyncReport:
            loaded = self.settings(*paths)
            with app.open_database(loaded) as database:
                async with app.open_jobs(loaded, database) as jobs:
                    return await jobs.syncer.backfill(None, stop=asyncio.Event(), reread=True)

        return asyncio.run(work())

    def found(self, text: str = CANARY) -> list[str]:
        """Return the columns of both schemas that contain the text."""
        columns: dict[str, list[str]] = {}
        for row in query(self.url, COLUMNS):
            readable = "encode({0}, 'escape')" if row["kind"] == "bytea" else "{0}::text"
            holds = (
                f"coalesce(bool_or(position(%s IN {readable.format(row['name'])}) > 0),"
                f" false) AS {row['name']}"
            )
            columns.setdefault(row["place"], []).append(holds)
        return [
            f"{place}.{name}"
            for place, conditions in columns.items()
            for name, holds in query(
                self.url, f"SELECT {', '.join(conditions)} FROM {place}", *[text] * len(conditions)
            )[0].items()
            if holds
        ]

    def one(self, sql: str, *parameters: object) -> Any:
        """Return the only value of a statement's result."""
        ((value,),) = [row.values() for row in query(self.url, sql, *parameters)]
        return value


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide two workflows with six finished runs each.

    The clock stands still, so that no count depends on the progress of a run.
    """
    begun = utc_now()
    history = History(
        seed=3, workflows=2, runs_per_workflow=6, live=0, arrivals_per_minute=0, now=lambda: begun
    )
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


def hostile(step_ids: Mapping[str, str]) -> dict[str, bytes]:
    """Return responses of the steps endpoint that hide the canary in different ways, by kind."""
    secret = CANARY.encode()

    def step(id_: bytes, more: bytes = b"") -> bytes:
        return b'{"id":%s,"status":"completed","inputs":{"secret":"%s","kept":1}%s}' % (
            id_,
            secret,
            more,
        )

    return {
        "not_an_array": step(b'"a"'),
        "cut": b"[" + step(b'"b1"') + b"," + step(b'"b2"')[:-3],
        "no_json": b"<html>" + secret,
        "malformed": b"["
        + step(b'"d1"')
        + b',{"id":"d2","secret":"%s" 1},"%s",%s]' % (secret, secret, step(b"[7]")),
        "surrogates": b"["
        + step(b'"e"', b',"outputs":{"secret":"\\ud800%s","text":"\\ud800 \\u0000"}' % secret)
        + b"]",
        "not_utf_8": b"["
        + step(b'"f"', b',"outputs":{"secret":"%s\xff","text":"\xff"}' % secret)
        + b"]",
        "duplicates": b"[%s,%s]" % (step(b'"g"', b',"n":1'), step(b'"g"')),
        "members": b'[{"id":"h","inputs":{"secret":"%s"},"inputs":{"secret":"%s"},"inputs":{}}]'
        % (secret, secret),
        "conflict": b"[" + step(b'"%s"' % step_ids["taken"].encode()) + b"]",
        "types": b"["
        + step(
            b'"i"',
            b',"error":{"secret":"%s"},"tokens":{"secret":"%s"},"new":[{"secret":"%s"}]'
            % ((secret,) * 3),
        )
        + b"]",
        "deep": b"["
        + step(b'"j"', b',"outputs":%s' % (b"[" * 4000 + b"]" * 4000))
        + b","
        + step(b'"k"')
        + b"]",
        "refused": b"[" + step(b'"l"', b',"node_id":"refused"') + b"," + step(b'"m"') + b"]",
        "numbers": b"["
        + step(b'"n"', b',"outputs":[NaN,1e400,1e131072,1.10,%s]' % (b"9" * 5000))
        + b"]",
    }


def test_the_canary_is_nowhere(world: World) -> None:
    """After honest and hostile responses, no column holds the canary, and the rest is stored."""
    query(world.url, "ALTER TABLE orchestra.steps ADD CHECK (node_id <> 'refused')")
    query(world.url, "ALTER TABLE orchestra.runs ADD CHECK (status <> 'refused')")
    honest = world.history.run_ids(world.first)
    bodies = hostile({"taken": world.history.steps(honest[0])[0]["id"]})
    runs = dict(
        zip(
            bodies,
            world.history.add_runs(world.first, len(bodies) + 1, {"secret": CANARY}),
            strict=False,
        )
    )
    world.simulator.steps_bodies.update({runs[kind]: body for kind, body in bodies.items()})
    world.history.change_run(
        runs["types"], status={"secret": CANARY}, surprise={"secret": CANARY}, error=[{"secret": 1}]
    )
    world.history.change_run(runs["members"], status="refused")
    removal = (*SECRETS, ("$.user_id", "mask"))
    world.simulator.misbehave(
        Misbehaviour(body=b"<html>" + CANARY.encode(), endpoints=("runs",), workflow_id=world.first)
    )
    world.sync(*removal)
    page = (
        b'[{"id":"x","inputs":{"secret":"%s"}},{"id":"x","inputs":{"secret":"%s"},"n":1},'
        b'{"inputs":{"secret":"%s"}},"%s"]'
    )
    page %= (CANARY.encode(),) * 4
    world.simulator.misbehave(
        Misbehaviour(body=page, endpoints=("runs",), workflow_id=world.first, count=2)
    )
    world.sync(*removal)
    world.simulator.misbehave()
    world.sync(*removal)
    world.reread(*removal)
    assert world.found() == []
    reasons = {
        row["reason"] for row in query(world.url, "SELECT reason FROM orchestra_etl.dead_letters")
    }
    assert reasons >= {
        *(
            "not_an_array",
            "not_an_object",
            "malformed",
            "unusable_id",
            "duplicate_id",
            "id_conflict",
            "not_redactable",
        ),
        "rejected",
    }
    empty = query(
        world.url,
        "SELECT DISTINCT reason FROM orchestra_etl.dead_letters WHERE body = '' ORDER BY 1",
    )
    assert [row["reason"] for row in empty] == [
        "malformed",
        "not_an_array",
        "not_an_object",
        "not_redactable",
    ]
    hashes = {bytes(row["content_hash"]) for row in query(world.url, EMPTY)}
    assert hashlib.blake2b(b"", digest_size=16).digest() not in hashes
    assert hmac.digest(KEY.encode(), b"<html>" + CANARY.encode(), "sha256")[:16] in hashes
    assert (
        world.one(
            "SELECT count(*) FROM orchestra_etl.dead_letters WHERE body <> ''"
            " AND reason = 'rejected'"
        )
        == 2
    )
    steps = {
        row["id"]: row
        for row in query(
            world.url,
            "SELECT s.*, i.data, o.data::text AS outputs, o.raw, o.note FROM orchestra.steps s"
            " LEFT JOIN orchestra.inputs i ON i.step_id = s.id"
            " LEFT JOIN orchestra.outputs o ON o.step_id = s.id",
        )
    }
    assert {"d1", "e", "f", "g", "h", "i", "k", "m", "n"} <= steps.keys()
    assert {"j", "l"}.isdisjoint(steps)
    assert steps["i"]["data"] == {"kept": 1}
    assert steps["i"]["extra"] == {"tokens": {}, "new": [{}]}
    assert json.loads(steps["e"]["outputs"]) == {"text": "\ufffd \ufffd"}
    assert steps["n"]["outputs"].endswith(f", 1.10, {'9' * 5000}]")
    assert (
        steps["e"]["note"]
        == "jsonb cannot hold: a lone surrogate, NUL; not kept: the workflow has redaction rules"
    )
    assert query(world.url, "SELECT * FROM orchestra.inputs WHERE raw IS NOT NULL") == []
    assert query(world.url, "SELECT * FROM orchestra.outputs WHERE raw IS NOT NULL") == []
    stored = query(
        world.url,
        "SELECT p.inputs, r.user_id FROM orchestra.runs r JOIN orchestra.run_payloads p"
        " ON p.run_id = r.id WHERE r.id = ANY (%s)",
        list(honest),
    )
    assert stored == [{"inputs": {"kept": 1}, "user_id": "********"}] * 6


def test_without_rules_the_canary_is_where_it_was(world: World) -> None:
    """Without rules, the search finds the canary in payloads, dead letters and the ledger."""
    runs = world.history.add_runs(world.first, 2, {"secret": CANARY})
    world.simulator.steps_bodies[runs[0]] = b'[{"secret":"%s"}]' % CANARY.encode()
    world.simulator.misbehave(Misbehaviour(status=500, endpoints=("steps",), run_id=runs[1]))
    world.sync()
    assert set(world.found()) >= {
        *("orchestra.inputs.data", "orchestra.run_payloads.inputs", "orchestra.runs.user_id"),
        *("orchestra_etl.dead_letters.body", "orchestra_etl.run_ledger.listing"),
    }


def test_a_workflow_without_rules_is_unchanged(world: World) -> None:
    """A workflow without rules is stored unchanged and without a policy.

    A change of other workflows' rules does not touch its rows.
    """
    world.sync(*SECRETS)
    second = [
        problem for problem in differences(world.url, world.history) if _of_second(world, problem)
    ]
    assert second == []
    selected = "SELECT * FROM orchestra.{} WHERE {} = ANY (%s) ORDER BY 1"
    runs = list(world.history.run_ids(world.second))
    steps = [step["id"] for run in runs for step in world.history.steps(run)]
    keys = {
        "runs": "id",
        "run_payloads": "run_id",
        "steps": "id",
        "inputs": "step_id",
        "outputs": "step_id",
    }

    def rows() -> list[dict[str, Any]]:
        return [
            row
            for table in LOADED
            for row in query(
                world.url, selected.format(table, keys[table]), runs if "run" in table else steps
            )
        ]

    before = rows()
    assert {row["redaction_policy"] for row in before if "redaction_policy" in row} == {None}
    report = world.reread(("$.outputs", "hash"))
    assert rows() == before
    assert report.load.steps_updated == sum(
        len(world.history.steps(run)) for run in world.history.run_ids(world.first)
    )


def _of_second(world: World, problem: str) -> bool:
    known = set(world.history.run_ids(world.second))
    known |= {
        step["id"]
        for run in world.history.run_ids(world.second)
        for step in world.history.steps(run)
    }
    return any(one in problem for one in known)


def test_a_changed_policy_rewrites_at_the_next_read(world: World) -> None:
    """Later rules remove the canary from stored rows at the next read, even whole payloads.

    A second read under the same rules writes nothing.
    """
    world.sync()
    assert world.found() != []
    whole = (("$.inputs", "drop"), ("$.user_id", "hash"), ("$.outputs", "drop"))
    world.reread(*whole)
    assert world.found() == []
    kept = (
        "SELECT count(*) FROM orchestra.{0} p JOIN orchestra.{1} s ON s.id = p.{2}"
        " WHERE s.workflow_id = %s"
    )
    assert world.one(kept.format("inputs", "steps", "step_id"), world.first) == 0
    assert world.one(kept.format("outputs", "steps", "step_id"), world.first) == 0
    assert world.one(kept.format("run_payloads", "runs", "run_id"), world.first) == 0
    versions = query(
        world.url,
        "SELECT DISTINCT redaction_policy FROM orchestra.steps WHERE workflow_id = %(w)s UNION"
        " SELECT redaction_policy FROM orchestra.runs WHERE workflow_id = %(w)s".replace(
            "%(w)s", f"'{world.first}'"
        ),
    )
    recorded = query(
        world.url, "SELECT version, rules, first_used_at FROM orchestra_etl.redaction_policies"
    )
    assert [row["redaction_policy"] for row in versions] == [row["version"] for row in recorded]
    assert [rule["path"] for rule in recorded[0]["rules"]] == [
        "$['inputs']",
        "$['user_id']",
        "$['outputs']",
    ]
    again = world.reread(*whole)
    assert (again.load.steps_updated, again.load.runs_updated, again.load.runs > 0) == (0, 0, True)
    assert (
        query(
            world.url, "SELECT version, rules, first_used_at FROM orchestra_etl.redaction_policies"
        )
        == recorded
    )
    world.reread()
    assert differences(world.url, world.history) == []


def test_a_policy_reaches_runs_that_no_list_shows(world: World) -> None:
    """Without a run list, a run's own row is read again and loses what new rules forbid."""
    named = world.history.run_ids(world.first)[:2]
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("runs",)))

    async def work(more: str) -> None:
        toml = configuration(world.first, discover=False, runs=tuple(named), more=more)
        loaded = load(world.folder, toml, world.variables)
        with app.open_database(loaded) as database:
            async with app.open_jobs(loaded, database) as jobs:
                await jobs.syncer.backfill(None, stop=asyncio.Event(), reread=True)

    asyncio.run(work(""))
    assert "orchestra.run_payloads.inputs" in world.found()
    asyncio.run(work(rules(*SECRETS, ("$.user_id", "drop"))))
    assert world.found() == []


def test_hashed_values_join(world: World) -> None:
    """Equal values have equal hashes in runs and steps, so that queries can join and count them."""
    world.sync(("$.inputs.secret", "hash"), ("$.inputs.secret[*]", "mask"), ("$.user_id", "hash"))
    assert world.found() == []
    joined = query(
        world.url,
        "SELECT DISTINCT r.user_id, p.inputs ->> 'secret' AS secret FROM orchestra.runs r"
        " JOIN orchestra.run_payloads p ON p.run_id = r.id WHERE r.workflow_id = %s",
        world.first,
    )
    assert len(joined) == 1
    assert joined[0]["user_id"] == joined[0]["secret"]
    assert joined[0]["user_id"].startswith("hmac-sha256:")
    steps = "SELECT count(DISTINCT data ->> 'secret') FROM orchestra.inputs WHERE data ? 'secret'"
    assert world.one(steps) == 1


def test_recovered_dead_letters_are_redacted(world: World, database_url: str) -> None:
    """A lost run is loaded from its dead letter without what the present rules forbid."""
    with_letter = "lost"
    body = b'[{"id":"s","status":"completed","inputs":{"secret":"%s","kept":1}}]' % CANARY.encode()
    query(
        world.url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, due_at,"
        " not_found_since) VALUES (%s, %s, 'list', now(), now() - interval '2 h')",
        with_letter, world.first,
    )  # fmt: skip
    query(
        world.url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, due_at,"
        " steps_observed_at) VALUES ('other', %s, 'list', NULL, now())",
        world.first,
    )
    query(
        world.url,
        "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
        " content_hash, body) VALUES (%s, %s, 'not_an_array', 'd', 'h', %s)",
        world.first, with_letter, body,
    )  # fmt: skip
    database = Database(database_url)
    try:
        (claim,) = database.transaction(lambda c: claims.claim(c, limit=1, lease=60))
        redaction = Redaction([RedactionRule("$..secret", "hash")], KEY)
        reading = Reading(claim, claim.claimed_at, problem="404", not_found=True)
        report = Loader(database, PollingPolicy(), StateMap(), redaction).load([reading])
    finally:
        database.close()
    assert report.steps_inserted == 1
    assert world.one("SELECT data ->> 'secret' FROM orchestra.inputs").startswith("hmac-sha256:")
    assert [place for place in world.found() if "dead_letters" not in place] == []


@pytest.fixture
def command(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Provide the command with rules for the first workflow, one of them misspelt."""
    paths = (
        ("$.inputs.secret", "drop"),
        ("$.inputs.secret[*]", "mask"),
        ("$.input.secret", "mask"),
        ("$.user_id", "hash"),
    )
    toml = configuration(*world.history.workflow_ids, more=rules(*paths, workflow=world.first))
    return command_line(tmp_path, monkeypatch, capsys, toml, **world.variables)


def test_preview(world: World, command: Command) -> None:
    """`redact preview` lists each removal with its size, never its value.

    It also names the rule that matches nothing.
    """
    run_id = world.history.run_ids(world.first)[0]
    steps = world.history.steps(run_id)
    unknown = command("redact", "preview", run_id)
    assert (unknown.status, "--workflow" in unknown.err) == (2, True)
    shown = command("redact", "preview", run_id, "--workflow", world.first)
    assert (shown.status, shown.err) == (0, "")
    assert CANARY not in shown.out
    assert "$['inputs']['secret']" in shown.out
    assert "NO MATCH: mask $.input.secret" in shown.out
    assert "0 stored steps" in shown.out
    assert query(world.url, "SELECT * FROM orchestra_etl.run_ledger") == []
    found = command("redact", "preview", run_id, "--workflow", world.first, "--json").json
    assert CANARY not in json.dumps(found)
    assert [rule["matches"] for rule in found["rules"]] == [
        len(steps) + 1,
        len(steps),
        0,
        len(steps) + 1,
    ]
    of_run = [one for one in found["removals"] if one["step_id"] is None]
    assert [(one["path"], one["action"], one["type"], one["size_bytes"]) for one in of_run] == [
        ("$['inputs']['secret']", "drop", "string", len(CANARY) + 2),
        ("$['user_id']", "hash", "string", len(CANARY) + 2),
    ]
    assert {one["node_id"] for one in found["removals"]} == {
        None,
        *(step["node_id"] for step in steps),
    }
    none = command(
        "redact", "preview", world.history.run_ids(world.second)[0], "--workflow", world.second
    )
    assert (none.status, none.out) == (
        0,
        f"workflow {world.second} has no redaction rules: everything is kept\n",
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, None), (403, None), (200, b"[]"), (200, b'[{"id": "8c862c02'),
        (200, b"<h1>Wait</h1>"), (200, b'[{"id": "another", "secret": 1}]'),
        (200, b'{"detail": "not here"}'),
    ],
)  # fmt: skip
def test_preview_without_the_run_row(
    world: World, command: Command, status: int, body: bytes | None
) -> None:
    """`redact preview` says if it tried the rules only on the steps, without the run's own row."""
    run_id = world.history.run_ids(world.first)[0]
    preview = ("redact", "preview", run_id, "--workflow", world.first)
    said = "the API returns no row of the run that can be read"
    world.simulator.misbehave(Misbehaviour(status=status, body=body, endpoints=("run",)))
    shown = command(*preview)
    assert (shown.status, shown.err) == (0, "")
    assert said in " ".join(shown.out.split())
    found = command(*preview, "--json").json
    assert (found["run_row"], found["not_redactable"]) == (False, 0)
    nodes = {step["node_id"] for step in world.history.steps(run_id)}
    assert {one["node_id"] for one in found["removals"]} == nodes


def test_preview_finds_the_run_row(world: World, command: Command) -> None:
    """`redact preview` tries the rules on the run's own row, without `all_outputs`.

    The response may also be the bare row, or contain another row before it.
    """
    run_id = world.history.run_ids(world.first)[0]
    repeated = {"End": f"the secret is {CANARY}"}
    row = json.dumps({**world.history.run(run_id), "all_outputs": repeated}).encode()
    for body in (row, b"\xef\xbb\xbf" + row, b'[{"id": "another"}, ' + row + b"]"):
        world.simulator.misbehave(Misbehaviour(body=body, endpoints=("run",)))
        found = command("redact", "preview", run_id, "--workflow", world.first, "--json").json
        assert found["run_row"]
        of_run = [one["path"] for one in found["removals"] if one["step_id"] is None]
        assert of_run == ["$['inputs']['secret']", "$['user_id']"]
        copies = [one["path"] for one in found["remaining_copies"]]
        assert [path for path in copies if "all_outputs" in path] == []


def test_preview_counts_steps_under_other_rules(world: World, command: Command) -> None:
    """`redact preview` counts steps stored under other rules until a command rewrites them.

    It names that command.
    """
    config = world.folder / "etl.toml"
    toml = config.read_text()
    world.sync()
    config.write_text(toml)
    run_id = world.history.run_ids(world.first)[0]
    stored = world.one("SELECT count(*) FROM orchestra.steps WHERE workflow_id = %s", world.first)
    before = command("redact", "preview", run_id)
    assert f"{stored} stored steps" in " ".join(before.out.split())
    assert "redact apply" in " ".join(before.out.split())
    assert command("redact", "preview", run_id, "--json").json["steps_under_other_rules"] == stored
    assert command("backfill", "--reread").status == 0
    assert command("redact", "preview", run_id, "--json").json["steps_under_other_rules"] == 0
    assert world.found() == []
