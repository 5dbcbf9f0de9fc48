"""Erasure: only the tombstone of a run stays, and nothing loads the run again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, Text

from etl import app
from etl.admin import erase as erasing
from etl.admin import expired, removal, retention
from etl.admin.erase import Selection
from etl.database import Database
from etl.ledger import claims, dead_letters, requests
from etl.ledger.dead_letters import DeadLetter
from etl.ledger.lifecycle import PollingPolicy
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reading
from etl.records import Rejected
from etl.simulator.history import History
from etl.simulator.server import Simulator
from etl.tables import metadata
from etl.transform.decode import decode_steps
from etl.transform.states import StateMap
from tests.command_line import command_line
from tests.stored_text import columns_with
from tests.support import configuration, environment, load, query, sync

USER = "user-of-the-test"


class World:
    """A server with ten finished runs, a database, and the operations that the tests use."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.workflow = history.workflow_ids[0]
        self.variables = environment(url, simulator.base_url)
        self.database = Database(url, patience=5)

    def sync(self, *, runs: tuple[str, ...] = (), **more: str) -> Any:
        """Run one sync."""
        toml = configuration(self.workflow, runs=runs)
        return asyncio.run(sync(load(self.folder, toml, {**self.variables, **more})))

    def backfill(self, *, reread: bool = False) -> None:
        """Run one backfill."""

        async def work() -> None:
            loaded = load(self.folder, configuration(self.workflow), self.variables)
            with app.open_database(loaded) as database:
                async with app.open_jobs(loaded, database) as jobs:
                    await jobs.syncer.backfill(None, stop=asyncio.Event(), reread=reread)

        asyncio.run(work())

    def remove(self, run_id: str, how: str) -> None:
        """Erase a run, or prune it by its age."""
        if how == "erased":
            self.database.transaction(lambda c: erasing.find(c, Selection(runs=(run_id,))))
            erasing.erase(self.database, Selection(runs=(run_id,)))
            return
        for table, key in (("runs", "id"), ("steps", "run_id")):
            aged = (
                f"UPDATE orchestra.{table}"
                " SET start_time = '2001-01-01Z', end_time = '2001-01-02Z'"
                f" WHERE {key} = %s"
            )
            query(self.url, aged, run_id)
        wanted = self.database.transaction(
            lambda c: expired.horizons(c, payloads=None, runs=20 * 365 * 86400.0)
        )
        assert retention.prune(self.database, wanted).runs == 1

    def stored(self, run_id: str) -> int:
        """Return the number of rows in `runs` and `steps` of a run."""
        sql = (
            "SELECT (SELECT count(*) FROM orchestra.runs WHERE id = %s) + count(*) AS n"
            " FROM orchestra.steps WHERE run_id = %s"
        )
        return int(query(self.url, sql, run_id, run_id)[0]["n"])

    def ledger(self, run_id: str) -> dict[str, Any]:
        """Return a run's row of the ledger."""
        return query(self.url, "SELECT * FROM orchestra_etl.run_ledger WHERE run_id = %s", run_id)[
            0
        ]


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide a server with ten finished runs, none of which is loaded yet."""
    history = History(seed=5, workflows=1, runs_per_workflow=10, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        made = World(tmp_path, database_url, history, simulator)
        yield made
        made.database.close()


def _letter(world: World, run_id: str, body: bytes) -> None:
    letter = DeadLetter(world.workflow, run_id, Rejected("malformed", "it is cut off", body))
    world.database.transaction(lambda c: dead_letters.record(c, [letter]))


def test_nothing_of_an_erased_user_is_left(world: World) -> None:
    """After an erasure by user, no column holds the user, and only the ledger holds the run ids."""
    by_step, by_row, unread, other, *_ = world.history.run_ids(world.workflow)
    world.history.change_step(by_step, world.history.steps(by_step)[0]["id"], user_id=USER)
    world.history.change_run(by_row, user_id=USER)
    world.sync()
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET listing = %s WHERE run_id = %s",
        json.dumps({"id": unread, "user_id": USER}).encode(),
        unread,
    )
    _letter(world, by_row, b"[" + by_row.encode())
    _letter(world, "", b'{"id": "' + by_step.encode() + b'", "inputs": "secret')
    _letter(world, "", b'{"user_id": "' + USER.encode() + b'"')
    _letter(world, other, b"[{")
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
        world.workflow,
        by_row,
    )
    query(
        world.url,
        "INSERT INTO orchestra_etl.drift"
        " (workflow_id, subject, field, kind, found, occurrences, last_run_id)"
        " VALUES (%s, 'step', 'f', 'unknown_field', 'string', 1, %s)",
        world.workflow,
        by_row,
    )
    selection = Selection(user_id=USER)
    before = world.database.transaction(lambda c: erasing.find(c, selection))
    done = erasing.erase(world.database, selection)
    assert (before.runs, before.rows) == (done.runs, done.rows)
    assert (done.runs, done.rows["runs"], done.rows["run_requests"], done.rows["dead_letters"]) == (
        3,
        3,
        1,
        3,
    )
    assert columns_with(world.url, USER) == set()
    for run in (by_step, by_row, unread):
        assert columns_with(world.url, run) == {"orchestra_etl.run_ledger.run_id"}
        row = world.ledger(run)
        assert (row["tracking"], row["due_at"], row["start_time"], row["listing"]) == (
            "erased",
            None,
            None,
            None,
        )
        assert row["listed_sweep"] is not None
    assert world.stored(other) > 1
    assert query(world.url, "SELECT run_id FROM orchestra_etl.dead_letters") == [{"run_id": other}]
    assert world.database.transaction(lambda c: erasing.find(c, selection)).runs == 0


@pytest.mark.parametrize(
    "written",
    [
        '"Zo\\u00EB/A \\"q\\" \\ud83d\\uDE00"',
        '"Zo\\u00eb\\/A \\"q\\" \\ud83d\\ude00"',
        '"Zoë/A \\"q\\" 😀"',
        '"\\u005a\\u006f\\u00eb/A \\u0022q\\u0022 😀"',
        '"sent\\nZoë/A \\"q\\" 😀\\nagain',
    ],
)
def test_a_name_is_found_in_dead_letters_in_every_json_spelling(world: World, written: str) -> None:
    """An erasure finds an organisation in any JSON escaping, and not as a part of a longer name."""
    _letter(world, "", f'{{"id": null, "organization_id": {written}'.encode())
    _letter(world, "", 'Zoë/A "q" 😀x'.replace("😀x", "\\u00e9").encode())
    done = erasing.erase(world.database, Selection(organization_id='Zoë/A "q" 😀'))
    assert done.rows["dead_letters"] == 1


def test_a_short_name_does_not_match_other_dead_letters(world: World) -> None:
    """Erasing user 1 removes dead letters with the value 1, not with 1 inside another value."""
    _letter(world, "", b'{"id": null, "user_id": "21", "at": "x1", "n": 100')
    _letter(world, "", b'{"id": null, "user_id": 1')
    assert erasing.erase(world.database, Selection(user_id="1")).rows["dead_letters"] == 1
    (left,) = query(world.url, "SELECT body FROM orchestra_etl.dead_letters")
    assert bytes(left["body"]).endswith(b"100")
    for signs in (" ", "-", ":"):
        assert erasing.erase(world.database, Selection(user_id=signs)).rows["dead_letters"] == 0
    _letter(world, "", b'{"id": null, "user_id": " "')
    assert erasing.erase(world.database, Selection(user_id=" ")).rows["dead_letters"] == 1


AN_ID = 'é"/\\😀-1'
SPELLINGS = [
    f'{{"id": {json.dumps(AN_ID)}, "n": {{}}}}',
    f'{{"id": {json.dumps(AN_ID, ensure_ascii=False)}}}',
    f'{{"id": {json.dumps(AN_ID)}}}'.replace("/", "\\/").replace("\\u00e9", "\\u00E9"),
    '{"run": ["' + "".join(f"\\u{ord(c):04x}" for c in 'é"/\\') + '\\ud83d\\ude00\\u002d1"]}',
    f'{{"{json.dumps(AN_ID)[1:-1]}": null}}',
    json.dumps({"text": json.dumps({"id": AN_ID}) + " " * 9000}),
    f'{{"id": {json.dumps(AN_ID)}, "cut',
    f'{{"text": "an " quote", "id": {json.dumps(AN_ID)}}}',
    AN_ID,
]
"""Bodies that hold the id as a whole string."""
OTHERS = [
    json.dumps({"id": AN_ID + "0"}),
    json.dumps({"id": "x" + AN_ID}),
    json.dumps({"text": f"as in {AN_ID}, or not"}),
    json.dumps({"id": json.dumps(AN_ID)[1:-1]}).replace("\\\\", "\\\\\\\\"),
    f'{{"id": {json.dumps(AN_ID)[:-1]}',
    '{"id": 1}',
]
"""Bodies with the id only as a part of a string, or cut off after the id."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_runs_id_is_found_in_dead_letters_as_a_whole_string(world: World, when: str) -> None:
    """An erasure finds a run's id in dead letters without a run, in any JSON spelling.

    The id must be a whole string; all other dead letters stay. A dead letter that is recorded
    after the erasure and holds the id is kept without its bytes.
    """
    selection = Selection(runs=(AN_ID, "r1", "1"), workflow_id=world.workflow)
    others = [*OTHERS, '{"id": null, "run": "r10"}', '{"id": null, "text": "r1 and 1", "n": 1}']
    named = [*SPELLINGS, '{"id": null, "run": "r1"}']
    if when == "before":
        for body in (*named, *others):
            _letter(world, "", body.encode())
        found = world.database.transaction(lambda c: erasing.find(c, selection))
        done = erasing.erase(world.database, selection)
        assert found.rows["dead_letters"] == done.rows["dead_letters"] == len(named)
    else:
        erasing.erase(world.database, selection)
        for body in (*named, *others):
            _letter(world, "", body.encode())
        assert query(
            world.url, "SELECT count(*) AS n FROM orchestra_etl.dead_letters WHERE body = ''"
        ) == [{"n": len(named)}]
    left = query(
        world.url, "SELECT body FROM orchestra_etl.dead_letters WHERE body <> '' ORDER BY id"
    )
    assert {bytes(row["body"]).decode() for row in left} == set(others)


def test_a_repeated_erasure_finds_dead_letters_of_erased_runs(world: World) -> None:
    """A repeated erasure removes a dead letter that an interrupted erasure left."""
    (run_id,) = ("erased-earlier",)
    selection = Selection(runs=(run_id,), workflow_id=world.workflow)
    erasing.erase(world.database, selection)
    query(
        world.url,
        "INSERT INTO orchestra_etl.dead_letters"
        " (workflow_id, run_id, reason, detail, content_hash, body)"
        " VALUES (%s, '', 'malformed', 'd', 'h', %s)",
        world.workflow,
        b'["erased-earlier"]',
    )
    assert erasing.erase(world.database, selection).rows["dead_letters"] == 1


NAMING = {
    "orchestra_etl.run_ledger": {"run_id"},
    "orchestra_etl.dead_letters": {"run_id", "step_id"},
    "orchestra_etl.drift": {"last_run_id"},
    "orchestra_etl.rebuilds": {"after_step_id"},
    "orchestra.run_requests": {"run_id"},
}
"""Columns outside `removal.OWNED` that name a run or a step; a separate statement handles each."""


def _names(table: Table) -> set[str]:
    """Return the table's columns that name a run or a step."""
    keyed = {
        key.parent.name for key in table.foreign_keys if key.column.table.name in ("runs", "steps")
    }
    return keyed | {
        name
        for name in (column.name for column in table.c)
        if name in ("run_id", "step_id") or name.endswith(("_run_id", "_step_id"))
    }


def _not_covered(tables: MetaData) -> set[str]:
    owned = {table.fullname for table in removal.OWNED}
    return {
        f"{table.fullname}.{name}"
        for table in tables.sorted_tables
        if table.fullname not in owned
        for name in _names(table) - NAMING.get(table.fullname, set())
    }


def test_every_table_that_names_a_run_is_covered() -> None:
    """A new table with the id of a run or step fails this test until an erasure covers it."""
    assert _not_covered(metadata) == set()
    assert [table.name for table in removal.OWNED][-1] == "runs"
    more = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(more)
    Table("notes", more, Column("first_run_id", Text), schema="orchestra")
    assert _not_covered(more) == {"orchestra.notes.first_run_id"}


def _reread_everything(world: World) -> None:
    world.backfill(reread=True)


def _whole_list(world: World) -> None:
    world.sync(ORCHESTRA_ETL_POLLING__RECONCILE="1ms")


def _changed_listing(world: World) -> None:
    world.history.change_run(
        world.history.run_ids(world.workflow)[2], status="running", end_time=None
    )
    world.sync()


def _track(world: World) -> None:
    run_id = world.history.run_ids(world.workflow)[2]
    done = world.database.transaction(
        lambda c: requests.track(c, world.workflow, [run_id, "unknown-run"])
    )
    assert (done.new, done.known, done.removed) == (1, 0, 1)
    world.sync()


def _queue(world: World) -> None:
    run_id = world.history.run_ids(world.workflow)[2]
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
        world.workflow,
        run_id,
    )
    world.sync()


def _retry(world: World) -> None:
    run_id = world.history.run_ids(world.workflow)[2]
    # Like a dead letter of a transaction that began before the removal.
    (row,) = query(
        world.url,
        "INSERT INTO orchestra_etl.dead_letters"
        " (workflow_id, run_id, reason, detail, content_hash, body)"
        " VALUES (%s, %s, 'malformed', 'd', 'h', '') RETURNING id",
        world.workflow,
        run_id,
    )
    done = world.database.transaction(lambda c: dead_letters.retry(c, [row["id"]]))
    assert (done.dead_letters, done.runs, done.removed) == (0, 0, 1)
    world.database.transaction(lambda c: dead_letters.retry(c, None))
    query(world.url, "DELETE FROM orchestra_etl.dead_letters")
    world.sync()


def _configured(world: World) -> None:
    world.sync(runs=(world.history.run_ids(world.workflow)[2],))


WAYS: list[Callable[[World], Any]] = [
    World.sync, _whole_list, _changed_listing, World.backfill, _reread_everything, _track, _queue,
    _retry, _configured,
]  # fmt: skip


@pytest.mark.parametrize(
    ("way", "how"),
    [
        pytest.param(
            way, how, id=f"{way.__name__.strip('_')}-{how}",
            marks=[pytest.mark.slow] if how == "pruned" and way in WAYS[2:] else [],
        )
        for way in WAYS
        for how in ("erased", "pruned")
    ],
)  # fmt: skip
def test_nothing_brings_a_removed_run_back(
    world: World, how: str, way: Callable[[World], Any]
) -> None:
    """No way into the ledger makes a removed run due, or restores data to its tombstone."""
    run_id = world.history.run_ids(world.workflow)[2]
    world.sync()
    world.remove(run_id, how)
    before = world.ledger(run_id)
    world.simulator.reset_counts()
    way(world)
    assert world.simulator.steps_requests[run_id] == 0
    assert world.stored(run_id) == 0
    changed = {name for name, value in world.ledger(run_id).items() if value != before[name]}
    assert changed <= {"listed_at", "listed_sweep"}
    assert before["tracking"] == how
    assert query(world.url, "SELECT id FROM orchestra_etl.dead_letters") == []


def test_a_run_that_is_erased_before_it_is_listed_is_never_loaded(world: World) -> None:
    """An unknown run's tombstone holds when a list shows the run; later sweeps skip its row."""
    run_id = world.history.run_ids(world.workflow)[2]
    assert (
        erasing.erase(world.database, Selection(runs=(run_id,), workflow_id=world.workflow)).rows[
            "run_ledger"
        ]
        == 1
    )
    version = f"SELECT xmin::text FROM orchestra_etl.run_ledger WHERE run_id = '{run_id}'"
    world.sync()
    noted = query(world.url, version)
    world.sync()
    assert query(world.url, version) == noted
    assert (world.stored(run_id), world.simulator.steps_requests[run_id]) == (0, 0)
    row = world.ledger(run_id)
    assert (row["tracking"], row["listing"], row["listing_hash"], row["start_time"]) == (
        "erased",
        None,
        None,
        None,
    )
    assert row["listed_sweep"] is not None


@pytest.mark.parametrize("how", ["erased", "pruned"])
def test_a_load_in_flight_is_refused(world: World, how: str) -> None:
    """The load of a read that began before a removal stores no row and no dead letter."""
    run_id = world.history.run_ids(world.workflow)[2]
    world.sync()
    world.database.transaction(lambda c: requests.track(c, world.workflow, [run_id]))
    (claim,) = world.database.transaction(lambda c: claims.claim(c, limit=5, lease=60))
    body = json.dumps(world.history.steps(run_id)).encode()
    steps = decode_steps(body, workflow_id=world.workflow, run_id=run_id, states=StateMap())
    bad = Rejected("malformed", "d", b"[")
    # Retention skips a run that is being read again. Here it found the run while the run was still
    # final.
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'final' WHERE run_id = %s",
        run_id,
    )
    world.remove(run_id, how)
    reading = Reading(claim, claim.claimed_at, steps=steps, rejected=(bad,))
    assert Loader(world.database, PollingPolicy(), StateMap()).load([reading]).superseded == 1
    world.database.transaction(lambda c: claims.renew(c, [claim], lease=60))
    world.database.transaction(lambda c: claims.settle(c, [claims.Settlement(run_id, "open", 0.0)]))
    assert world.stored(run_id) == 0
    assert (world.ledger(run_id)["due_at"], world.ledger(run_id)["leased_until"]) == (None, None)
    _letter(world, run_id, b"[")
    assert query(world.url, "SELECT id FROM orchestra_etl.dead_letters") == []


def test_a_bad_row_of_the_list_that_names_an_erased_run_is_kept_without_its_bytes(
    world: World,
) -> None:
    """A bad list row of an erased run becomes a dead letter without its bytes."""
    run_id = world.history.run_ids(world.workflow)[2]
    world.sync()
    world.remove(run_id, "erased")
    _letter(world, "", b'{"id": "' + run_id.encode() + b'", "inputs": "cut of')
    _letter(world, "", b'{"id": "another", "inputs": "cut of')
    bodies = query(
        world.url, "SELECT length(body) AS n FROM orchestra_etl.dead_letters ORDER BY id"
    )
    assert [row["n"] for row in bodies] == [0, 35]


def test_an_erasure_searches_again_for_runs_loaded_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure searches again, and finds a run that was loaded after its first search."""
    late, early, *_ = world.history.run_ids(world.workflow)
    world.sync()
    query(world.url, "UPDATE orchestra.runs SET user_id = %s WHERE id = %s", USER, early)
    remove = removal.remove

    def slow(*arguments: Any) -> dict[str, int]:
        query(world.url, "UPDATE orchestra.runs SET user_id = %s WHERE id = %s", USER, late)
        return remove(*arguments)

    monkeypatch.setattr(erasing, "remove", slow)
    assert erasing.erase(world.database, Selection(user_id=USER)).runs == 2
    assert columns_with(world.url, USER) == set()


def test_the_command(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`erase` needs `--yes`, refuses masked and unknown ids, and can block a run in advance."""
    run_id, *_ = world.history.run_ids(world.workflow)
    world.sync()
    command = command_line(
        tmp_path, monkeypatch, capsys, configuration(world.workflow), DATABASE_URL=world.url
    )
    preview = command("erase", "--run", run_id)
    assert (preview.status, preview.out.splitlines()[0]) == (0, "1 run found")
    assert "nothing was removed; to remove it permanently, add --yes" in preview.out
    assert world.stored(run_id) > 1
    prefix = command("erase", "--run", run_id[:8], "--workflow", world.workflow)
    assert (prefix.status, f"did you mean {run_id}?" in prefix.err) == (0, True)
    for arguments in (
        ("--user", "us*******er"),
        ("--run", "unknown"),
        (),
        ("--run", run_id, "--user", "u"),
        ("--user", ""),
    ):
        refused = command("erase", *arguments, "--yes")
        assert (refused.status, refused.out, len(refused.err.splitlines())) == (2, "", 1)
    for ids, words in ((("a",), "run a is"), (("b", "a"), "2 of the runs, among them a, are")):
        options = [word for id in ids for word in ("--run", id)]
        assert f"{words} not in the database: add" in command("erase", *options).err
    done = command(
        "erase",
        "--run",
        run_id,
        "--run",
        "unknown",
        "--workflow",
        world.workflow,
        "--yes",
        "--json",
    ).json
    assert (done["erased"], done["runs"], done["rows"]["runs"], done["rows"]["run_ledger"]) == (
        True,
        2,
        1,
        2,
    )
    assert world.stored(run_id) == 0
    tracked = command("track", world.workflow, run_id, "unknown")
    assert (tracked.status, "2 runs skipped: erased or pruned" in tracked.out) == (0, True)
    assert command("track", world.workflow, run_id, "--json").json["removed"] == 1
    assert "2 erased or pruned" in " ".join(command("status").out.split())
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'open', steps_observed_at = NULL"
        " WHERE tracking = 'final'",
    )
    assert "9 runs in this scope have not been read yet" in command("erase", "--user", "nobody").out
