"""Erasure of a user or organisation whose name is stored in another form.

Redaction rules, the API or retention may have changed the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.admin import erase
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.command_line import Command, command_line
from tests.redacted_world import RedactedWorld
from tests.support import configuration, environment, query, slow

OTHER_KEY = "fedcba9876543210" * 2
NAME, OTHER = "ann-7f3a", "bob-19c2"


class World(RedactedWorld):
    """A workflow whose runs, one a day, alternate between two names.

    Each name is both the user and the organisation of its runs.
    """

    def __init__(
        self, folder: Path, url: str, history: History, command: Command, patch: pytest.MonkeyPatch
    ) -> None:
        super().__init__(folder, url, history, command, patch)
        for number, run_id in enumerate(self.runs):
            self.name(run_id, NAME if number % 2 else OTHER)

    def name(self, run_id: str, name: Any, *, steps: bool = True) -> None:
        """Make the API name this user and organisation in a run, and in its steps."""
        self.history.change_run(run_id, user_id=name, organization_id=name)
        for step in self.history.steps(run_id) if steps else ():
            self.history.change_step(run_id, step["id"], user_id=name, organization_id=name)


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
            **environment(database_url, simulator.base_url),
        )  # fmt: skip
        yield World(tmp_path, database_url, history, command, monkeypatch)


ROLLUPS = ("step_rollup", "step_rollup_daily", "run_rollup")
COUNTED = "SELECT COALESCE(sum(runs), 0)::int FROM orchestra.run_rollup"


@pytest.mark.parametrize("pruned", ["5d", *slow("1h", None)])
@pytest.mark.parametrize("hashed", [False, *slow(True)], ids=["plain", "hashed"])
def test_an_organisation_leaves_the_rollups(world: World, pruned: str | None, hashed: bool) -> None:
    """No column names an erased organisation, however many of its runs were pruned.

    The counts of the other organisation stay.
    """
    if hashed:
        world.configure(("$.organization_id", "hash"))
    world.run("sync")
    forms = set(world.one("SELECT array_agg(DISTINCT organization_id) FROM orchestra.run_rollup"))
    query(world.url, "ANALYZE")
    if pruned is not None:
        world.run("prune", "--yes", "--runs-older-than", pruned)
    assert world.one(COUNTED) == 10
    found = world.command("erase", "--organisation", NAME, "--json").json
    done = world.command("erase", "--organization", NAME, "--yes", "--json").json
    assert (done["runs"], done["rows"]) == (found["runs"], found["rows"])
    assert world.one(COUNTED) == 5
    names = " UNION ".join(
        f"SELECT organization_id AS name FROM orchestra.{table}" for table in ROLLUPS
    )
    (left,) = [row["name"] for row in query(world.url, names)]
    assert (left == OTHER) is not hashed
    for text in (NAME, *(forms - {left})):
        assert world.traces(text) == set()
    assert world.command("rollups", "verify").status == 0


def test_an_interrupted_erasure_is_completed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an erasure ends before it has refreshed the statistics, the next one refreshes them."""
    world.run("sync")
    query(world.url, "ANALYZE")
    with monkeypatch.context() as patch:
        patch.setattr(erase, "analyze", lambda connection: 1 / 0)
        world.run("erase", "--user", NAME, "--yes", status=1)
    assert "pg_stats.orchestra.runs" in world.traces(NAME)
    assert "0 runs erased" in world.run("erase", "--user", NAME, "--yes")
    assert world.traces(NAME) == set()


def test_erasure_of_one_workflow(world: World) -> None:
    """With --workflow, the rollups of other workflows still name the organisation."""
    world.run("sync")
    query(
        world.url,
        "UPDATE orchestra.run_rollup SET workflow_id = 'another' WHERE organization_id = %s",
        NAME,
    )
    world.run("erase", "--organisation", NAME, "--workflow", world.workflow, "--yes")
    assert (
        world.one(f"SELECT count(*) FROM orchestra.run_rollup WHERE organization_id = '{NAME}'") > 0
    )
    assert (
        world.one(f"SELECT count(*) FROM orchestra.step_rollup WHERE organization_id = '{NAME}'")
        == 0
    )


@pytest.mark.parametrize(
    "name", [NAME, {"id": NAME, "team": ["t"]}, *slow(4711, "n" * 600, [NAME])], ids=str
)
def test_a_name_is_found_in_any_form(world: World, name: Any) -> None:
    """`--user` finds a number, a text too long for its column, and a name in an object or array."""
    run_id = world.runs[0]
    world.history.change_run(run_id, user_id=name)
    world.run("sync")
    text = NAME if isinstance(name, dict | list) else str(name)
    world.run("erase", "--user", text, "--yes")
    assert world.one(f"SELECT count(*) FROM orchestra.runs WHERE id = '{run_id}'") == 0
    assert world.one("SELECT count(*) FROM orchestra.runs") == (9 if text != NAME else 4)


def test_a_hashed_user_is_found(world: World) -> None:
    """`erase --user NAME` finds runs whose user a present or earlier rule hashed, no others."""
    world.configure(("$.user_id", "hash"))
    world.run("sync")
    assert [place for place in world.traces(NAME) if place.endswith(".user_id")] == []
    letter = (
        "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
        " content_hash, body) SELECT workflow_id,"
        " '', 'malformed', 'd', 'h', convert_to(user_id, 'UTF8') FROM orchestra.runs"
        " WHERE organization_id = %s LIMIT 1"
    )
    query(world.url, letter, NAME)
    world.configure()
    found = world.command("erase", "--user", NAME, "--json")
    assert (found.status, found.json["runs"], found.json["rows"]["dead_letters"]) == (0, 5, 1)
    world.run("erase", "--user", NAME, "--yes")
    assert world.one("SELECT array_agg(DISTINCT organization_id) FROM orchestra.runs") == [OTHER]
    assert world.one("SELECT count(*) FROM orchestra_etl.dead_letters") == 0
    assert "0 runs found" in world.run("erase", "--user", "nobody")


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("mask", "10 runs stored with a masked name that may be this one"),
        ("drop", "10 runs stored without the name, because of a `drop` rule"),
        ("hash", "10 runs stored with a hash, possibly by an earlier key"),
    ],
)
def test_a_hidden_user_is_not_reported_as_absent(world: World, action: str, says: str) -> None:
    """`erase` exits with 9 and the reason if a rule or another key hides the user.

    That holds with and without --yes.
    """
    world.configure(("$.user_id", action))
    world.run("sync")
    world.configure(key=OTHER_KEY)
    for arguments in (("--user", NAME), ("--user", NAME, "--yes")):
        assert f"NOT SEARCHED: {says}" in " ".join(world.run("erase", *arguments, status=9).split())
    hidden = world.command("erase", "--user", NAME, "--json").json["hidden"]
    assert sorted(hidden.values()) == [0, 0, 10]
    assert world.one("SELECT count(*) FROM orchestra.runs") == 10
    # The organisation is not hidden, and a run can always be named by its id.
    assert "5 runs found" in world.run("erase", "--organisation", NAME)
    world.run("erase", "--run", world.runs[0], "--yes")


def test_a_mask_of_the_api_is_compared_with_the_name(world: World) -> None:
    """`erase` reports a name that the API's asterisks could stand for, and no other name."""
    world.name(world.runs[0], "a%_\\*****z")
    world.run("sync")
    assert "1 run stored with a masked name" in world.run("erase", "--user", "a%_\\bcdez", status=9)
    for other in ("abc\\bcdez", "a%_\\bcde", NAME):
        world.run("erase", "--user", other)


def test_a_hash_rule_does_not_hide_the_masks_of_the_api(world: World) -> None:
    """With a `hash` rule, `erase` still reports the runs whose asterisks fit the name.

    That holds for rows that a load or `redact apply` redacted.
    """
    rules = [(f"$.{name}", "hash") for name in ("user_id", "organization_id")]
    world.name(world.runs[0], "j***n")
    world.run("sync")
    world.configure(*rules)
    world.run("redact", "apply")
    world.name(world.history.add_runs(world.workflow, 1)[0], "j*n")
    world.run("sync")
    for option in ("--user", "--organisation"):
        found = world.run("erase", option, "john", status=9)
        assert "NOT SEARCHED: 2 runs stored with a masked name" in found
        assert "0 runs found" in world.run("erase", option, "jane")
        world.run("erase", option, NAME)
    preview = world.command("redact", "preview", world.runs[0], "--json").json
    assert [one["removed"] for one in preview["rules"]] == [0, 0]


def test_an_earlier_key_finds_its_hashes(world: World) -> None:
    """After a key change, rows hashed with the old key are reported, and found with the old key."""
    world.configure(("$.user_id", "hash"))
    world.run("sync")
    for run_id in world.runs:
        world.history.unlist(run_id)
    query(world.url, "UPDATE orchestra_etl.run_ledger SET tracking = 'final', due_at = NULL")
    world.configure(("$.user_id", "hash"), key=OTHER_KEY)
    world.name(world.history.add_runs(world.workflow, 1)[0], NAME)
    world.run("sync", status=6)  # the unlisted runs leave a gap
    found = world.run("erase", "--user", NAME, status=9)
    assert "1 run found" in found
    assert "10 runs stored with a hash" in " ".join(found.split())
    world.configure(("$.user_id", "hash"))
    assert "5 runs erased" in world.run("erase", "--user", NAME, "--yes", status=9)
    assert world.one("SELECT count(*) FROM orchestra.runs") == 6
