"""The database's clock is set back, by hours or years, and no work waits for the old time.

To the program, a clock that was set back looks like stored times that lie in the future. The tests
therefore move every time that the database's clock has written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from etl.admin import expired, retention
from etl.admin.expired import Horizons
from etl.alerts import evaluation, knowledge, states
from etl.alerts.channels import Channels
from etl.alerts.delivery import Courier
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Rule
from etl.analytics import changed_groups
from etl.analytics.changed_groups import Group
from etl.database import Database
from etl.ledger import budget, claims, clock_set_back, dead_letters, requests, sweeps, workflows
from etl.ledger.dead_letters import DeadLetter
from etl.ledger.lifecycle import PollingPolicy
from etl.load import retention as loaded_retention
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reading
from etl.pipeline.sync import SyncReport
from etl.records import DecodedSteps, Rejected, Workflow
from etl.simulator.history import History
from etl.simulator.server import Simulator
from etl.transform.states import StateMap
from tests.oracle import differences
from tests.receiver import receiver
from tests.support import configuration, environment, load, query, sync

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
# Times that the API or a user has given.
_GIVEN = (
    "start_time", "end_time", "run_end_time", "time", "hour", "api_updated_at", "after_time",
    "before_time", "valid_from",
)  # fmt: skip


def set_back(url: str, seconds: float) -> None:
    """Set the database's clock back, as the program sees it."""
    for row in query(
        url,
        "SELECT c.table_schema || '.' || c.table_name AS name,"
        " array_agg(CAST(c.column_name AS text)) AS columns"
        " FROM information_schema.columns AS c"
        " JOIN information_schema.tables AS t USING (table_schema, table_name)"
        " WHERE t.table_type = 'BASE TABLE' AND c.table_schema IN ('orchestra', 'orchestra_etl')"
        " AND c.data_type = 'timestamp with time zone'"
        " AND CAST(c.column_name AS text) <> ALL (%s) GROUP BY 1",
        list(_GIVEN),
    ):
        later = ", ".join(
            f"{one} = {one} + make_interval(secs => {seconds})" for one in row["columns"]
        )
        query(url, f"SET session_replication_role = replica; UPDATE {row['name']} SET {later}")


class World:
    """A server with live runs, a database, and syncs that read only what is due."""

    def __init__(self, folder: Path, url: str, simulator: Simulator, history: History) -> None:
        self.folder, self.url, self.history = folder, url, history
        self.toml = configuration(*history.workflow_ids)
        self.variables = environment(url, simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")

    def sync(self) -> SyncReport:
        """Run one sync."""
        loaded = load(self.folder, self.toml, self.variables)
        return asyncio.run(asyncio.wait_for(sync(loaded), 30))

    def differences(self) -> list[str]:
        """Return the differences from the history."""
        return differences(self.url, self.history)


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide two workflows with four live runs each; all runs are loaded."""
    history = History(
        seed=3,
        workflows=2,
        runs_per_workflow=8,
        live=4,
        arrivals_per_minute=0,
        epoch=START,
        now=lambda: START,
    )
    with Simulator(history).in_thread() as simulator:
        made = World(tmp_path, database_url, simulator, history)
        made.sync()
        assert made.differences() == []
        yield made


BY = pytest.mark.parametrize("seconds", [7200, 366 * 86400], ids=["hours", "a year"])


@BY
def test_a_sync_goes_on(world: World, seconds: int) -> None:
    """A sync reads all open runs, and final runs whose list row changed, as it finds them."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[-1]
    set_back(world.url, seconds)
    world.history.reopen(run_id)
    world.history.freeze(world.history.now())
    world.history.advance(timedelta(seconds=7))
    world.sync()
    assert world.differences() == []
    set_back(world.url, seconds)
    world.history.advance(timedelta(hours=1))
    world.sync()
    assert world.differences() == []


@BY
def test_claims_of_a_crashed_process_end(world: World, database: Database, seconds: int) -> None:
    """Runs and a list that a process held when it crashed are taken over by the next sync."""
    query(world.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")
    assert database.transaction(lambda c: claims.claim(c, limit=100, lease=60))
    workflow_id = world.history.workflow_ids[0]
    database.transaction(lambda c: sweeps.begin(c, workflow_id, lease=60, count_to=25))
    set_back(world.url, seconds)
    world.history.freeze(world.history.now())
    world.history.advance(timedelta(hours=1))
    world.sync()
    assert world.differences() == []


@BY
def test_the_next_full_walk_is_due(world: World, seconds: int) -> None:
    """A sweep walks the whole list if the last full walk lies ahead."""
    assert [sweep.whole_list for sweep in world.sync().sweeps] == [False, False]
    set_back(world.url, seconds)
    assert [sweep.whole_list for sweep in world.sync().sweeps] == [True, True]
    assert [sweep.whole_list for sweep in world.sync().sweeps] == [False, False]


@BY
def test_runs_whose_reads_fail_are_retried(
    database: Database, database_url: str, seconds: int
) -> None:
    """A run that was first seen long ago and whose read failed is due if another run proves it.

    The times of a run keep their order.
    """
    database.transaction(lambda c: requests.track(c, "w", ["failing", "read"]))
    found = database.transaction(lambda c: claims.claim(c, limit=9, lease=60))
    steps = {"failing": None, "read": DecodedSteps(())}
    readings = [
        Reading(one, one.claimed_at, steps=steps[one.run_id], problem="no answer") for one in found
    ]
    Loader(database, PollingPolicy(), StateMap()).load(readings)
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET opened_at = '2020-01-01' WHERE run_id = 'failing';"
        "UPDATE orchestra_etl.run_ledger SET run_observed_at = now() - interval '2 minutes',"
        " listed_at = now() - interval '1 minute' WHERE run_id = 'read'",
    )
    set_back(database_url, seconds)
    assert database.transaction(clock_set_back.repair) == 2
    assert database.transaction(clock_set_back.repair) == 0
    again = database.transaction(lambda c: claims.claim(c, limit=9, lease=60))
    assert {one.run_id for one in again} == {"failing", "read"}
    [read] = query(
        database_url,
        "SELECT run_observed_at < listed_at AND listed_at <= now() AS in_order"
        " FROM orchestra_etl.run_ledger WHERE run_id = 'read'",
    )
    assert read["in_order"]


def test_a_clock_that_was_not_set_back_makes_nothing_due(
    world: World, database: Database, database_url: str
) -> None:
    """Runs that wait for their next read stay as they are."""
    [before] = query(
        database_url, "SELECT count(*) AS n FROM orchestra_etl.run_ledger WHERE due_at > now()"
    )
    assert before["n"] > 0
    assert database.transaction(clock_set_back.repair) == 0


@BY
def test_a_run_is_not_read_more_often_than_its_age_allows(
    database: Database, database_url: str, seconds: int
) -> None:
    """A read that succeeds moves the time from which the run's age counts to now."""
    database.transaction(lambda c: requests.track(c, "w", ["r"]))
    set_back(database_url, seconds)
    query(database_url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
    [claim] = database.transaction(lambda c: claims.claim(c, limit=9, lease=60))
    reading = Reading(claim, claim.claimed_at, steps=DecodedSteps(()))
    Loader(database, PollingPolicy(), StateMap()).load([reading])
    [row] = query(database_url, "SELECT opened_at <= now() AS past FROM orchestra_etl.run_ledger")
    assert row["past"]


@BY
def test_metadata_is_requested_and_its_newest_version_stays_the_newest(
    database: Database, database_url: str, seconds: int
) -> None:
    """After the clock was set back, a new version is stored once, as the newest."""

    def described(version: str) -> None:
        workflow = Workflow("w", None, None, version, json.dumps({"version": version}))
        database.transaction(lambda c: workflows.update_metadata(c, [workflow]))

    described("1")
    assert database.transaction(lambda c: workflows.metadata_due(c, every=3600)) is False
    set_back(database_url, seconds)
    assert database.transaction(lambda c: workflows.metadata_due(c, every=3600)) is True
    for _ in range(3):
        described("2")
    assert database.transaction(workflows.graphs) == [("w", {"version": "2"})]
    [row] = query(database_url, "SELECT count(*) AS n FROM orchestra.workflow_versions")
    assert row["n"] == 2


@BY
def test_dead_letters_are_resolved(database: Database, database_url: str, seconds: int) -> None:
    """A run that is read without the problem resolves dead letters that lie ahead."""
    letter = DeadLetter("w", "r", Rejected("rejected", "x", b"{}"))
    database.transaction(lambda c: dead_letters.record(c, [letter]))
    set_back(database_url, seconds)
    database.transaction(lambda c: dead_letters.resolve(c, ["r"], steps_only=False))
    [row] = query(database_url, "SELECT resolution FROM orchestra_etl.dead_letters")
    assert row["resolution"] == "loaded"


@BY
def test_a_pause_of_the_api_ends(database: Database, database_url: str, seconds: int) -> None:
    """A pause that the server requested before the clock was set back holds no request back."""
    database.transaction(lambda c: budget.hold_off(c, 30))
    set_back(database_url, seconds)
    assert database.transaction(budget.pause) == 0
    database.transaction(lambda c: budget.hold_off(c, 20))
    assert 19 < database.transaction(budget.pause) <= 20
    set_back(database_url, seconds)
    query(database_url, "UPDATE orchestra_etl.request_budget SET available = 1")
    assert database.transaction(lambda c: budget.draw(c, rate=1, wanted=1)).requests == 1


def test_horizons_that_lie_ahead_do_not_count(database: Database, database_url: str) -> None:
    """A horizon later than now removes no run or payload, and the next prune replaces it."""
    ages = {"payloads": 3600.0, "runs": 7200.0}
    wanted = database.transaction(lambda c: expired.horizons(c, **ages))
    retention.prune(database, wanted)
    known = Pauses({"w": 60.0})
    workflows_row = "INSERT INTO orchestra.workflows (id) VALUES ('w')"
    query(database_url, workflows_row)

    def horizons(connection: Connection) -> list[datetime | None]:
        [workflow] = knowledge.read(connection, knowledge.now(connection), known)
        sweep = sweeps.begin(connection, "w", lease=60, count_to=25)
        assert sweep is not None
        held = connection.execute(
            sweeps._HOLD, {"workflow_id": "w", "token": sweep.token, "lease": 60}
        ).one()
        sweeps.abandon(connection, sweep)
        own = connection.execute(loaded_retention._HORIZON).scalar_one_or_none()
        return [workflow.horizon, held.run_horizon, own]

    before = [wanted.runs, wanted.runs, wanted.payloads]
    assert database.transaction(horizons) == before
    query(
        database_url,
        "UPDATE orchestra_etl.retention SET run_horizon = now() + interval '1 hour',"
        " payload_horizon = now() + interval '1 hour'",
    )
    assert database.transaction(horizons) == [None, None, None]
    retention.prune(database, Horizons(wanted.payloads, wanted.runs))
    assert database.transaction(horizons) == before


@BY
def test_a_group_that_failed_is_computed_again(
    database: Database, database_url: str, seconds: int
) -> None:
    """A group whose computation failed is taken if the time of the failure lies ahead."""
    group = Group("w", START)
    database.transaction(lambda c: changed_groups.put_back(c, group, None))
    assert database.transaction(lambda c: changed_groups.take(c, 9)) == []
    set_back(database_url, seconds)
    assert database.transaction(lambda c: changed_groups.take(c, 9)) == [group]


@BY
def test_a_new_message_is_delivered(database: Database, database_url: str, seconds: int) -> None:
    """A message that was queued before the clock was set back is sent at once."""
    query(
        database_url,
        "INSERT INTO orchestra_etl.alert_notifications"
        " (rule, subject, sequence, kind, channel, key, content)"
        " VALUES ('r', 'w', 1, 'resolved', 'ops', 'k', '{\"metric\": \"runs\","
        ' "workflow_id": "w", "value": 1, "threshold": 2}\')',
    )
    set_back(database_url, seconds)
    with receiver() as hook:
        courier = Courier(database, Channels({"ops": lambda: hook.url()}))
        assert len(asyncio.run(courier.deliver_all())) == 1
        assert len(hook.requests) == 1


def _evaluate(database: Database) -> None:
    """Evaluate a rule."""
    rule = Rule(name="r", metric="runs", comparison="below", limit=1)
    database.transaction(lambda c: evaluation.evaluate(c, [rule], Pauses({"w": 60.0})))


def _mutes(url: str) -> list[dict[str, datetime]]:
    return query(url, "SELECT muted_at, muted_until FROM orchestra_etl.alert_mutes")


@BY
def test_a_mute_ends(database: Database, database_url: str, seconds: int) -> None:
    """A rule that was muted before the clock was set back stays muted for as long from now on."""
    database.transaction(lambda c: states.mute(c, "r", 600.0))
    set_back(database_url, seconds)
    _evaluate(database)
    mutes = _mutes(database_url)
    [row] = query(database_url, "SELECT now() AS now")
    [mute] = mutes
    assert row["now"] - timedelta(seconds=60) < mute["muted_at"] <= row["now"]
    assert mute["muted_until"] == mute["muted_at"] + timedelta(seconds=600)
    _evaluate(database)
    assert _mutes(database_url) == mutes


def test_a_long_mute_stays(database: Database, database_url: str) -> None:
    """A mute that ends in a year lasts a year if the clock was not set back."""
    year = 366 * 86400.0
    until = database.transaction(lambda c: states.mute(c, "r", year))
    _evaluate(database)
    assert _mutes(database_url) == [
        {"muted_at": until - timedelta(seconds=year), "muted_until": until}
    ]


def test_a_mute_by_an_older_program_stays(database: Database, database_url: str) -> None:
    """A mute that a program of revision 0004 renews ends at the time which that program set."""
    database.transaction(lambda c: states.mute(c, "r", 600.0))
    set_back(database_url, 7200)
    query(
        database_url,
        "INSERT INTO orchestra_etl.alert_mutes (rule, muted_until)"
        " VALUES ('r', now() + interval '20 minutes')"
        " ON CONFLICT (rule) DO UPDATE SET muted_until = excluded.muted_until",
    )
    [before] = _mutes(database_url)
    _evaluate(database)
    assert _mutes(database_url) == [before]
