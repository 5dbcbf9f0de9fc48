"""The ledger: claims, requests, sweeps, the request budget, dead letters, and effects of loads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from etl.alerts import knowledge
from etl.alerts.knowledge import Pauses
from etl.database import Database
from etl.errors import DatabaseError, EtlError
from etl.ledger import (
    budget,
    claims,
    clock,
    dead_letters,
    listed_pages,
    requests,
    state_map,
    sweeps,
    workflows,
)
from etl.ledger.claims import Claim, DueFilter
from etl.ledger.dead_letters import DeadLetter
from etl.ledger.lifecycle import DAILY, PollingPolicy
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reading
from etl.records import Drift, ListedRun, Rejected, Workflow
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_page, decode_run
from etl.transform.states import StateMap
from tests.support import query, wait_until

W = "w"


def _step(id: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    end = None if status == "running" else "2025-03-13T02:41:17Z"
    return {
        "id": id,
        "node_id": "n",
        "status": status,
        "start_time": "2025-03-13T02:41:15Z",
        "end_time": end,
        **more,
    }


def _row(run: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    end = None if status == "running" else "2025-03-13T02:41:18Z"
    return {
        "id": run,
        "status": status,
        "start_time": "2025-03-13T02:41:14Z",
        "end_time": end,
        **more,
    }


def _listed(*rows: dict[str, Any]) -> tuple[ListedRun, ...]:
    return decode_page(json.dumps(rows).encode()).runs


def _track(database: Database, *runs: str, workflow: str = W) -> None:
    database.transaction(lambda c: requests.track(c, workflow, runs))


def _claim(database: Database, *, lease: float = 60, limit: int = 100) -> dict[str, Claim]:
    found = database.transaction(lambda c: claims.claim(c, limit=limit, lease=lease))
    return {claim.run_id: claim for claim in found}


def _reading(
    claim: Claim, *steps: dict[str, Any], row: dict[str, Any] | None = None, **more: Any
) -> Reading:
    decoded = decode_steps(
        json.dumps(steps).encode(),
        workflow_id=claim.workflow_id,
        run_id=claim.run_id,
        states=StateMap(),
    )
    fields: dict[str, Any] = {
        "server_time": datetime.now(UTC),
        "steps": decoded,
        "run": decode_run(json.dumps(row).encode(), states=StateMap()).run if row else None,
        "run_observed_at": claim.claimed_at if row else None,
        "listing_hash": _listed(row)[0].listing_hash if row else None,
    }
    return Reading(claim, claim.claimed_at, **{**fields, **more})


def _failed(claim: Claim, **more: Any) -> Reading:
    return Reading(claim, claim.claimed_at, problem="no answer", **more)


def _load(database: Database, *readings: Reading) -> LoadReport:
    return Loader(database, PollingPolicy(), StateMap()).load(readings)


def _begin(database: Database, workflow: str = W) -> sweeps.Sweep:
    begun = database.transaction(lambda c: sweeps.begin(c, workflow, lease=60, count_to=25))
    assert begun is not None
    return begun


def _page(
    database: Database, sweep: sweeps.Sweep, *rows: dict[str, Any], last: bool = True
) -> listed_pages.PageReport:
    done = (
        listed_pages.SweepResult(whole_list=True, to_the_end=True, listed=len(rows), new_runs=0)
        if last
        else None
    )
    return database.transaction(
        lambda c: listed_pages.write_page(
            c,
            sweep,
            _listed(*rows),
            requested_at=clock.database_time(c),
            lease=60,
            priority=0,
            completion=done,
        )
    )


def _ledger(url: str, run: str = "r") -> dict[str, Any]:
    return query(url, "SELECT * FROM orchestra_etl.run_ledger WHERE run_id = %s", run)[0]


def _due(url: str) -> None:
    query(url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")


# Claims.


def test_live_runs_are_claimed_before_backfill_and_each_once(
    database: Database, database_url: str
) -> None:
    """Claims go by priority, then by due time, and no run is claimed twice."""
    _track(database, "old", "new", "live")
    query(database_url, "UPDATE orchestra_etl.run_ledger SET priority = 1 WHERE run_id <> 'live'")
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET due_at = due_at - interval '1 hour'"
        " WHERE run_id = 'old'",
    )
    assert list(_claim(database, limit=2)) == ["live", "old"]
    assert list(_claim(database)) == ["new"]
    assert _claim(database) == {}


_LONG_AGO = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "among",
    [
        DueFilter(cutoff=_LONG_AGO + timedelta(days=1)),
        DueFilter(workflows=(W,)),
        DueFilter(except_workflows=("other",)),
        DueFilter(since=_LONG_AGO),
        DueFilter(until=_LONG_AGO + timedelta(days=1)),
        DueFilter(listed_since=_LONG_AGO),
    ],
    ids=DueFilter.__struct_fields__,
)
def test_each_condition_selects_the_same_runs_to_count_and_to_claim(
    database: Database, database_url: str, among: DueFilter
) -> None:
    """A filter with one condition counts and claims the same one of two different due runs."""
    _track(database, "chosen")
    _track(database, "left out", workflow="other")
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET due_at = %s, start_time = %s, listed_at = %s"
        " WHERE run_id = 'chosen'",
        *[_LONG_AGO] * 3,
    )
    if among.until is not None:
        query(
            database_url,
            "UPDATE orchestra_etl.run_ledger SET start_time = now() WHERE run_id = 'left out'",
        )
    counted, claimed = database.transaction(
        lambda c: (
            claims.pending(c, among).due,
            claims.claim(c, limit=9, lease=60, among=among),
        )
    )
    assert (counted, [one.run_id for one in claimed]) == (1, ["chosen"])


def test_a_row_that_another_transaction_holds_is_skipped(
    database: Database, database_url: str
) -> None:
    """A claim neither waits for a locked row nor takes it."""
    _track(database, "held", "free")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM orchestra_etl.run_ledger WHERE run_id = 'held' FOR UPDATE")
        assert list(_claim(database)) == ["free"]


def test_an_expired_lease_is_good_for_a_load_until_another_claim(database: Database) -> None:
    """A load after the lease's end is accepted, unless another process has claimed the run."""
    _track(database, "r", "s")
    first = _claim(database, lease=0)
    assert _load(database, _reading(first["s"], _step("s1"), row=_row("s"))).runs == 1
    second = _claim(database)
    assert list(second) == ["r"]
    assert _load(database, _reading(first["r"], _step("r1", "running"))).superseded == 1
    assert _load(database, _reading(second["r"], _step("r1"))).runs == 1


def test_a_late_heartbeat_does_not_revive_a_consumed_claim(
    database: Database, database_url: str
) -> None:
    """A renewal or release of a claim that was consumed or taken over changes nothing."""
    _track(database, "r")
    claim = _claim(database, lease=0)["r"]
    taken = _claim(database)["r"]
    before = _ledger(database_url)
    database.transaction(lambda c: claims.renew(c, [claim], lease=600))
    database.transaction(lambda c: claims.release(c, [claim]))
    assert _ledger(database_url) == before
    _load(database, _reading(taken, _step("r1", "running")))
    database.transaction(lambda c: claims.renew(c, [taken], lease=600))
    assert _ledger(database_url)["leased_until"] is None
    assert _load(database, _reading(taken, _step("r1"))).superseded == 1


def test_a_released_claim_is_due_again_and_its_reading_is_refused(database: Database) -> None:
    """A released run can be claimed at once, and a reading of the released claim is refused."""
    _track(database, "r")
    claim = _claim(database)["r"]
    database.transaction(lambda c: claims.release(c, [claim]))
    assert _load(database, _reading(claim, _step("r1"))).superseded == 1
    assert list(_claim(database)) == ["r"]


def _queue(database: Database, url: str) -> None:
    query(url, "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES ('w', 'r')")
    database.transaction(requests.take_queue)


def _retry(database: Database, url: str) -> None:
    letter = DeadLetter(W, "r", Rejected("rejected", "x", b"x"))
    database.transaction(lambda c: dead_letters.record(c, [letter]))
    database.transaction(lambda c: dead_letters.retry(c, None))


def _reread(database: Database, url: str) -> None:
    query(url, "UPDATE orchestra_etl.run_ledger SET tracking = 'final'")
    database.transaction(lambda c: requests.reread(c, [W], since=None, until=None))


def _remap(database: Database, url: str) -> None:
    states = StateMap({"completed": "failed"})
    database.transaction(lambda c: state_map.apply(c, states.configured, states.state_of))


@pytest.mark.parametrize(
    "request_read",
    [
        lambda database, url: _track(database, "r"),
        _queue,
        _retry,
        _reread,
        _remap,
        lambda database, url: _page(database, _begin(database), _row("r", "running")),
    ],
    ids=["track", "queue", "retry", "reread", "state map", "changed listing"],
)
def test_every_request_for_a_newer_read_raises_the_token(
    database: Database, database_url: str, request_read: Callable[[Database, str], object]
) -> None:
    """A request for a newer read makes the run due at once and refuses the read in flight."""
    _track(database, "r")
    _load(database, _reading(_claim(database)["r"], _step("r1"), row=_row("r")))
    query(database_url, "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'")
    in_flight = _claim(database)["r"]
    request_read(database, database_url)
    now = _ledger(database_url)
    assert (now["fencing_token"], now["leased_until"], now["tracking"]) == (
        in_flight.token + 1,
        None,
        "open",
    )
    assert _load(database, _reading(in_flight, _step("r1"))).superseded == 1
    assert list(_claim(database)) == ["r"]


# Requests.


def test_runs_named_in_the_configuration_enter_once(database: Database) -> None:
    """A configured run that is already known is not read again at the next start."""
    assert database.transaction(lambda c: requests.register(c, W, ["a", "b", "a"])).new == 2
    for claim in _claim(database).values():
        _load(database, _reading(claim, _step(claim.run_id), row=_row(claim.run_id)))
    assert database.transaction(lambda c: requests.register(c, W, ["a", "b"])).new == 0
    assert _claim(database) == {}


def test_the_queue_is_emptied_once_by_two_at_a_time(database: Database, database_url: str) -> None:
    """Two concurrent replicas enter each queued run once, and a run's later request wins."""
    query(
        database_url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) SELECT w, 'r' || n"
        " FROM unnest(ARRAY['x', 'w']) AS w, generate_series(1, 50) AS n ORDER BY w DESC",
    )
    taken: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: taken.append(database.transaction(requests.take_queue).tracked.new)
        )
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 50
    assert query(
        database_url, "SELECT DISTINCT workflow_id, fencing_token FROM orchestra_etl.run_ledger"
    ) == [{"workflow_id": "w", "fencing_token": 0}]


@pytest.mark.parametrize(
    "work",
    [
        lambda c: requests.track(c, "other", ["r"]),
        lambda c: requests.register(c, "other", ["r"]),
        lambda c: requests.forget(c, W, None),
    ],
    ids=["track", "configuration", "untrack"],
)
def test_a_request_waits_for_a_load_of_the_run(
    database: Database, database_url: str, work: Callable[[Connection], object]
) -> None:
    """A request for a run waits for a load of it, and leaves the loaded run in its workflow."""
    _track(database, "r")
    query(database_url, "UPDATE orchestra_etl.run_ledger SET not_found_since = now()")
    with psycopg.connect(database_url) as load:
        load.execute(
            "UPDATE orchestra_etl.run_ledger SET steps_observed_at = now(), read_digest = 'x'"
        )
        load.execute(
            "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking)"
            " VALUES ('r', 'w', 'succeeded', 'derived', 'open');"
            "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)"
            " VALUES ('s', 'r', 'w', 0, 'succeeded', '')"
        )
        claiming = threading.Thread(target=database.transaction, args=(work,))
        claiming.start()
        waiting = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: bool(query(database_url, waiting)))
    claiming.join()
    assert _ledger(database_url)["workflow_id"] == W
    assert query(database_url, "SELECT run_id FROM orchestra.steps") == [{"run_id": "r"}]


# Sweeps.


def test_one_sweep_at_a_time(database: Database, database_url: str) -> None:
    """A workflow's next sweep begins only after the last one; other workflows are independent."""
    first = _begin(database)
    assert database.transaction(lambda c: sweeps.begin(c, W, lease=60, count_to=25)) is None
    assert 50 < (database.transaction(lambda c: sweeps.lease_ends_in(c, W)) or 0) <= 60
    assert _begin(database, "other").token == 1
    database.transaction(lambda c: sweeps.abandon(c, first, error="API down"))
    assert query(
        database_url, "SELECT last_error FROM orchestra_etl.sweeps WHERE workflow_id = 'w'"
    ) == [{"last_error": "API down"}]
    assert _begin(database).token == first.token + 1


def test_only_complete_sweeps_move_the_watermark(database: Database) -> None:
    """Runs from `track` or from an interrupted sweep do not belong to the watermark."""
    _track(database, "tracked")
    dead = _begin(database)
    _page(database, dead, _row("seen"), last=False)
    database.transaction(lambda c: sweeps.abandon(c, dead))
    again = _begin(database)
    assert again.watermark_size == 0
    ids = ["tracked", "seen", "new"]
    assert database.transaction(lambda c: sweeps.members(c, again, ids)) == set()
    _page(database, again, _row("new"))
    third = _begin(database)
    assert third.watermark_size == 1
    assert database.transaction(lambda c: sweeps.members(c, third, ids)) == {"new"}
    _page(database, third, _row("seen"))
    assert database.transaction(lambda c: sweeps.members(c, _begin(database), ids)) == {
        "new",
        "seen",
    }


def test_the_begin_of_the_last_complete_sweep_is_stored(
    database: Database, database_url: str
) -> None:
    """While a later sweep runs, the view and the windows of alerts end where the last one began."""
    query(database_url, "INSERT INTO orchestra.workflows (id, labels) VALUES (%s, '{}')", W)
    complete = _begin(database)
    query(database_url, "UPDATE orchestra_etl.sweeps SET started_at = now() - interval '9 minutes'")
    [sweep] = query(database_url, "SELECT started_at FROM orchestra_etl.sweeps")
    _page(database, complete)
    later = _begin(database)
    [row] = query(database_url, "SELECT complete_until FROM orchestra.coverage")
    [known] = database.transaction(lambda c: knowledge.read(c, later.begun_at, Pauses({W: 60.0})))
    assert row["complete_until"] == known.complete_until == sweep["started_at"]
    assert known.until == sweep["started_at"].replace(second=0, microsecond=0)


def test_a_completion_repeated_after_a_lost_commit_is_refused(
    database: Database, database_url: str
) -> None:
    """The last page of a complete sweep, written a second time, changes nothing."""
    sweep = _begin(database)
    _page(database, sweep, _row("r"))
    before = query(database_url, "SELECT * FROM orchestra_etl.sweeps"), _ledger(database_url)
    written = _page(database, sweep, _row("r", "running"))
    assert (written.new, written.changed) == (0, 0)
    assert (
        query(database_url, "SELECT * FROM orchestra_etl.sweeps"),
        _ledger(database_url),
    ) == before
    _page(database, _begin(database), _row("r"))
    with pytest.raises(sweeps.SweepSuperseded):
        _page(database, sweep, _row("r", "running"))


def test_a_dead_letter_is_reported_despite_a_lost_commit(database: Database) -> None:
    """A load that is repeated after its commit loads no run and still reports its dead letter."""
    _track(database, "r")
    bad = _reading(
        _claim(database)["r"], _step("s"), rejected=(Rejected("malformed", "Bad.", b"{"),)
    )
    assert _load(database, bad).dead_letters == 1
    again = _load(database, bad)
    assert (again.superseded, again.dead_letters, again.runs) == (1, 1, 0)
    _track(database, "r")
    assert _load(database, _reading(_claim(database)["r"], _step("s"))).dead_letters == 0


def test_a_defect_that_affects_every_run_leaves_no_dead_letter(
    database: Database, database_url: str
) -> None:
    """If none of 12 runs can be stored, the load fails without dead letters and all stay due."""
    runs = [f"r{number}" for number in range(12)]
    _track(database, *runs)
    query(database_url, "ALTER TABLE orchestra.runs ADD CONSTRAINT nothing CHECK (id < '')")
    readings = [_reading(claim, _step(f"s {run}")) for run, claim in _claim(database).items()]
    with pytest.raises(EtlError, match="none of 12 runs can be stored"):
        _load(database, *readings)
    assert query(database_url, "SELECT * FROM orchestra_etl.dead_letters") == []
    open_runs = query(
        database_url,
        "SELECT run_id FROM orchestra_etl.run_ledger"
        " WHERE tracking = 'open' AND due_at IS NOT NULL",
    )
    assert len(open_runs) == 12


def test_an_unchanged_listing_writes_nothing(database: Database, database_url: str) -> None:
    """A row listed as before writes nothing, even if its elapsed time has grown."""
    _page(database, _begin(database), _row("r", "running", elapsed_time=3))
    before = _ledger(database_url)
    written = _page(database, _begin(database), _row("r", "running", elapsed_time=4))
    assert (written.new, written.changed) == (0, 0)
    assert _ledger(database_url) == before


def test_the_list_moves_a_final_run_to_its_workflow(database: Database, database_url: str) -> None:
    """A final run of a wrong workflow is read again when another list shows the very same row."""
    _track(database, "r", workflow="wrong")
    _load(database, _reading(_claim(database)["r"], _step("r1"), row=_row("r")))
    assert _ledger(database_url)["tracking"] == "final"
    _page(database, _begin(database), _row("r"))
    claim = _claim(database)["r"]
    assert claim.workflow_id == W
    _load(database, _reading(claim, _step("r1"), row=_row("r")))
    for table in ("runs", "steps"):
        assert query(database_url, f"SELECT workflow_id FROM orchestra.{table}") == [
            {"workflow_id": W}
        ]


def test_a_run_that_one_workflow_lists_stays_there(database: Database, database_url: str) -> None:
    """Neither another workflow's list nor a user's request moves a run that a list has shown."""
    _page(database, _begin(database), _row("r"))
    _page(database, _begin(database, "second"), _row("r", "running"))
    _track(database, "r", workflow="third")
    assert _ledger(database_url)["workflow_id"] == W


@pytest.mark.parametrize(
    ("first_404", "listed", "walked", "gone"),
    [(7200, None, 60, True), (7200, None, 7300, False), (1800, None, 60, False),
     (7200, 30, 60, False), (7200, 3600, 60, True), (7200, 9000, 60, True)],
    ids=["never listed", "no walk since", "for half an hour", "listed by the last walk",
         "listed between", "listed before"],
)  # fmt: skip
def test_a_run_is_gone_when_a_later_walk_does_not_list_it(
    database: Database,
    database_url: str,
    first_404: int,
    listed: int | None,
    walked: int,
    gone: bool,
) -> None:
    """A run is gone after an hour of 404 and a later walk of the whole list that lacks it."""
    _track(database, "r")
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET not_found_since = now() - make_interval(secs => %s),"
        " listed_at = now() - make_interval(secs => %s)",
        first_404,
        listed,
    )
    _begin(database)
    query(
        database_url,
        "UPDATE orchestra_etl.sweeps SET reconciled_at = now() - make_interval(secs => %s)",
        walked,
    )
    assert database.transaction(lambda c: claims.vanished(c, ["r"], gone_after=3600)) == (
        {"r"} if gone else set()
    )


# The request budget.


def _spend(database: Database, *, rate: float, wanted: int, granted: list[int]) -> None:
    while sum(granted) < wanted:
        grant = database.transaction(lambda c: budget.draw(c, rate=rate, wanted=5))
        granted.append(grant.requests)
        time.sleep(min(grant.wait, 0.1))


def test_the_rate_holds_for_all_replicas_together(database: Database) -> None:
    """Four threads together get no more requests than the rate allows, to within a block of 5."""
    database.transaction(lambda c: budget.draw(c, rate=50, wanted=1))
    granted: list[int] = []
    began = time.monotonic()
    arguments: dict[str, Any] = {"rate": 50, "wanted": 75, "granted": granted}
    threads = [
        threading.Thread(target=_spend, args=(database,), kwargs=arguments) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 75 <= sum(granted) <= 50 * (time.monotonic() - began) + 5


def test_no_more_than_a_second_is_saved_up(database: Database, database_url: str) -> None:
    """After an idle hour, the requests of one second are available, and at least one request."""
    database.transaction(lambda c: budget.draw(c, rate=10, wanted=1))
    idle = (
        "UPDATE orchestra_etl.request_budget"
        " SET refilled_at = now() - interval '1 hour', available = 0"
    )
    query(database_url, idle)
    assert database.transaction(lambda c: budget.draw(c, rate=10, wanted=100)).requests == 10
    query(database_url, idle)
    assert database.transaction(lambda c: budget.draw(c, rate=0.1, wanted=100)).requests == 1
    assert 9 < database.transaction(lambda c: budget.draw(c, rate=0.1, wanted=1)).wait <= 10


def test_a_clock_set_back_removes_no_requests(database: Database, database_url: str) -> None:
    """After the database's clock jumps back, the available requests can still be drawn."""
    database.transaction(lambda c: budget.draw(c, rate=10, wanted=1))
    query(
        database_url,
        "UPDATE orchestra_etl.request_budget"
        " SET refilled_at = now() + interval '1 hour', available = 3",
    )
    assert database.transaction(lambda c: budget.draw(c, rate=10, wanted=3)).requests == 3


def test_a_pause_holds_for_all_replicas_and_is_never_shortened(database: Database) -> None:
    """During a pause no request is granted, and a later, shorter pause does not end it."""
    database.transaction(lambda c: budget.hold_off(c, 30))
    database.transaction(lambda c: budget.hold_off(c, 1))
    grant = database.transaction(lambda c: budget.draw(c, rate=1000, wanted=5))
    assert grant.requests == 0
    assert 29 < grant.wait <= 30
    assert 29 < database.transaction(budget.pause) <= 30


# Effects of a load.


def test_the_owner_of_a_step_id_keeps_it_in_a_batch_with_the_newcomer(
    database: Database, database_url: str
) -> None:
    """If two runs of a batch have the same step id, the owner's changed step is stored."""
    _track(database, "owner")
    _load(database, _reading(_claim(database)["owner"], _step("s", "running")))
    _track(database, "owner", "newcomer")
    found = _claim(database)
    report = _load(
        database,
        _reading(found["owner"], _step("s")),
        _reading(found["newcomer"], _step("s", "failed"), _step("t")),
    )
    assert (report.steps_updated, report.steps_inserted, report.dead_letters) == (1, 1, 1)
    assert query(database_url, "SELECT run_id, status FROM orchestra.steps WHERE id = 's'") == [
        {"run_id": "owner", "status": "completed"}
    ]
    assert query(database_url, "SELECT run_id FROM orchestra_etl.dead_letters") == [
        {"run_id": "newcomer"}
    ]


def test_a_step_is_absent_by_its_own_runs_response(database: Database, database_url: str) -> None:
    """A step that its run's response lacks is absent, even if another run's response has its id."""
    _track(database, "a", "b", "c")
    found = _claim(database)
    _load(database, *(_reading(found[run], _step(f"{run}1"), _step(f"{run}2")) for run in "abc"))
    _track(database, "a", "b", "c")
    found = _claim(database)
    report = _load(
        database,
        _reading(found["a"], _step("a1")),
        _reading(found["b"], _step("b1"), _step("b2"), _step("a2")),
        _failed(found["c"]),
    )
    assert report.steps_absent == 1
    assert query(database_url, "SELECT id FROM orchestra.steps WHERE absent_since IS NOT NULL") == [
        {"id": "a2"}
    ]


def test_a_stored_row_stays_if_the_next_one_is_refused(
    database: Database, database_url: str
) -> None:
    """If PostgreSQL refuses a run's row, the stored row stays, and the run's steps are loaded."""
    query(
        database_url, "ALTER TABLE orchestra.runs ADD CONSTRAINT poison CHECK (status <> 'poison')"
    )
    _track(database, "r")
    _load(
        database, _reading(_claim(database)["r"], _step("s", "running"), row=_row("r", "running"))
    )
    _track(database, "r", "new")
    found = _claim(database)
    report = _load(
        database,
        _reading(found["r"], _step("s"), row=_row("r", "poison")),
        _reading(found["new"], _step("t"), row=_row("new", "poison")),
    )
    assert (report.runs, report.dead_letters, report.steps_inserted, report.steps_updated) == (
        2,
        2,
        1,
        1,
    )
    assert query(
        database_url, "SELECT id, status, state, status_source FROM orchestra.runs ORDER BY id DESC"
    ) == [
        {"id": "r", "status": "running", "state": "running", "status_source": "api"},
        {"id": "new", "status": None, "state": "succeeded", "status_source": "derived"},
    ]


def test_a_refused_payload_affects_only_its_step(database: Database, database_url: str) -> None:
    """A payload that PostgreSQL refuses makes a dead letter of its step; the others are stored."""
    query(
        database_url, "ALTER TABLE orchestra.outputs ADD CONSTRAINT poison CHECK (size_bytes < 50)"
    )
    _track(database, "r")
    bad = _step("bad", outputs={"text": "x" * 60})
    report = _load(
        database, _reading(_claim(database)["r"], _step("a", outputs=1), bad, _step("b", outputs=2))
    )
    assert (report.steps_inserted, report.dead_letters) == (2, 1)
    letter = query(database_url, "SELECT step_id, detail, body FROM orchestra_etl.dead_letters")[0]
    assert (letter["step_id"], json.loads(letter["body"])) == ("bad", bad)
    assert "23514" in letter["detail"]


def test_a_run_that_cannot_be_stored_at_all_is_a_dead_letter_and_retried(
    database: Database, database_url: str
) -> None:
    """A run of which nothing can be stored is a dead letter and stays due; others are stored."""
    query(database_url, "ALTER TABLE orchestra.runs ADD CONSTRAINT poison CHECK (id <> 'bad')")
    _track(database, "a", "bad", "b")
    found = _claim(database)
    report = _load(database, *(_reading(found[run], _step(f"{run}1")) for run in ("a", "bad", "b")))
    assert (report.runs, report.failed, report.dead_letters) == (2, 1, 1)
    letter = query(database_url, "SELECT run_id, body FROM orchestra_etl.dead_letters")[0]
    assert (letter["run_id"], json.loads(letter["body"])) == ("bad", [_step("bad1")])
    row = _ledger(database_url, "bad")
    assert (row["tracking"], row["attempts"], row["leased_until"], row["due_at"] is None) == (
        "open",
        1,
        None,
        False,
    )


def test_a_defect_that_one_run_triggers_does_not_stop_the_others(
    database: Database, database_url: str
) -> None:
    """A Python error in the load makes a dead letter of its run; the other runs are stored."""

    class Broken(Loader):
        def _load(self, connection: Connection, readings: Any, *, isolate: bool) -> LoadReport:
            if any(one.claim.run_id == "bad" and one.steps is not None for one in readings):
                "\ud800".encode()
            return super()._load(connection, readings, isolate=isolate)

    _track(database, "a", "bad", "b")
    readings = [_reading(claim, _step(claim.run_id)) for claim in _claim(database).values()]
    report = Broken(database, PollingPolicy(), StateMap()).load(readings)
    assert (report.runs, report.failed, report.dead_letters) == (2, 1, 1)
    assert (
        "UnicodeEncodeError"
        in query(database_url, "SELECT detail FROM orchestra_etl.dead_letters")[0]["detail"]
    )


def test_an_unusable_table_is_not_blamed_on_the_rows(database: Database, database_url: str) -> None:
    """A missing table ends the load with one error and without a dead letter."""
    _track(database, "a", "b")
    readings = [
        _reading(claim, _step(claim.run_id, outputs={})) for claim in _claim(database).values()
    ]
    query(database_url, "ALTER TABLE orchestra.outputs RENAME TO elsewhere")
    with pytest.raises(DatabaseError, match="SQLSTATE 42P01"):
        _load(database, *readings)
    query(database_url, "ALTER TABLE orchestra.elsewhere RENAME TO outputs")
    assert query(database_url, "SELECT * FROM orchestra_etl.dead_letters") == []
    assert _load(database, *readings).runs == 2


def test_a_failed_read_does_not_restart_the_re_checks(
    database: Database, database_url: str
) -> None:
    """After two good re-checks and a failed read, the next good read is the third re-check."""
    _track(database, "r")
    for _ in range(2):
        _load(database, _reading(_claim(database)["r"], _step("s")))
        _due(database_url)
    _load(database, _failed(_claim(database)["r"]))
    assert (_ledger(database_url)["checks"], _ledger(database_url)["attempts"]) == (2, 1)
    _due(database_url)
    _load(database, _reading(_claim(database)["r"], _step("s")))
    row = _ledger(database_url)
    assert (row["checks"], row["attempts"], row["last_error"]) == (3, 0, None)


def test_a_stale_run_that_is_in_no_list_survives_a_failed_read(
    database: Database, database_url: str
) -> None:
    """A stale run that no list shows is read daily after a failed read, and no more after a 404."""
    _track(database, "r", "missing")
    query(database_url, "UPDATE orchestra_etl.run_ledger SET opened_at = now() - interval '8 days'")
    found = _claim(database)
    _load(database, _failed(found["r"]), _failed(found["missing"], not_found=True))
    left = (_ledger(database_url)["due_at"] - datetime.now(UTC)).total_seconds()
    assert abs(left - DAILY) < 60
    assert _ledger(database_url)["tracking"] == "stale"
    assert (
        _ledger(database_url, "missing")["tracking"],
        _ledger(database_url, "missing")["due_at"],
    ) == ("stale", None)


def test_an_unobserved_run_keeps_its_row(database: Database, database_url: str) -> None:
    """A read without the run's own row, and a failed read, leave the stored row unchanged."""
    _track(database, "r")
    _load(
        database,
        _reading(
            _claim(database)["r"], _step("s", "running"), row=_row("r", "running", inputs={"a": 1})
        ),
    )
    before = query(
        database_url, "SELECT * FROM orchestra.runs JOIN orchestra.run_payloads ON run_id = id"
    )
    for make in (lambda claim: _reading(claim, _step("s")), _failed):
        _due(database_url)
        _load(database, make(_claim(database)["r"]))
    assert (
        query(
            database_url, "SELECT * FROM orchestra.runs JOIN orchestra.run_payloads ON run_id = id"
        )
        == before
    )


# Dead letters, drift, workflows.


def test_a_dead_letter_is_counted_and_resolved_by_a_good_read(
    database: Database, database_url: str
) -> None:
    """A repeated error raises the count of its dead letter, which a good read resolves.

    If the error comes back, the dead letter is open again.
    """
    bad = _step("x" * 600)
    _track(database, "r")
    seen = []
    for steps in ([bad], [bad], [_step("s", "running")], [bad]):
        _due(database_url)
        claim = _claim(database)["r"]
        decoded = decode_steps(
            json.dumps(steps).encode(), workflow_id=W, run_id="r", states=StateMap()
        )
        _load(database, _reading(claim, *steps, rejected=decoded.rejected))
        letter = query(
            database_url, "SELECT occurrences AS n, resolution FROM orchestra_etl.dead_letters"
        )[0]
        seen.append((letter["n"], letter["resolution"]))
    assert seen == [(1, None), (2, None), (2, "loaded"), (3, None)]


def test_drift_is_counted_once_for_each_change(database: Database, database_url: str) -> None:
    """A second read of the same steps does not count their drift again."""
    drift = (
        Drift("step", "colour", "unknown_field", "string", 2),
        Drift("step", "colour", "unknown_field", "string", 1),
    )
    _track(database, "r")
    for status in ("running", "running", "completed"):
        _due(database_url)
        _load(database, _reading(_claim(database)["r"], _step("s", status), drift=drift))
    assert query(database_url, "SELECT occurrences, last_run_id FROM orchestra_etl.drift") == [
        {"occurrences": 6, "last_run_id": "r"}
    ]


def test_a_changed_graph_is_appended_and_an_unchanged_one_is_not(
    database: Database, database_url: str
) -> None:
    """Changed graphs are kept in order, the configured name wins, and the last graph is current."""
    database.transaction(lambda c: workflows.configure(c, W, name="mine", labels={"team": "a"}))
    for version, graph in (("1", "{}"), ("1", "{}"), ("2", '{"nodes": []}'), ("1", "{}")):
        seen = Workflow(W, "theirs", "a description", version, graph)
        database.transaction(lambda c, seen=seen: workflows.update_metadata(c, [seen]))  # type: ignore[misc]
    rows = query(
        database_url, "SELECT version FROM orchestra.workflow_versions ORDER BY first_seen_at"
    )
    assert [row["version"] for row in rows] == ["1", "2", "1"]
    assert query(database_url, "SELECT name, description FROM orchestra.workflows") == [
        {"name": "mine", "description": "a description"}
    ]
    assert database.transaction(workflows.graphs) == [(W, {})]
    assert not database.transaction(lambda c: workflows.metadata_due(c, every=3600))
    assert database.transaction(lambda c: workflows.metadata_due(c, every=0))


def test_a_version_is_dated_once(database: Database, database_url: str) -> None:
    """A version keeps its first date; a changed date adds no version, a future date is null."""

    def update(
        version: str, updated_at: datetime | None, graph: str = "{}"
    ) -> list[tuple[str, datetime | None]]:
        described = Workflow(W, None, None, version, graph, updated_at=updated_at)
        database.transaction(lambda c: workflows.update_metadata(c, [described]))
        rows = query(
            database_url,
            "SELECT version, api_updated_at FROM orchestra.workflow_versions"
            " WHERE workflow_id = 'w' ORDER BY first_seen_at",
        )
        return [(row["version"], row["api_updated_at"]) for row in rows]

    now = datetime.now(UTC)
    dates = [now - timedelta(days=9 - day) for day in range(9)]
    assert update("1", dates[0]) == [("1", dates[0])]
    for moved in (dates[0], dates[1], now + timedelta(hours=1), dates[0] - timedelta(days=1), None):
        assert update("1", moved) == [("1", dates[0])]
    assert update("2", now + timedelta(hours=1)) == [("1", dates[0]), ("2", None)]
    assert update("2", dates[2]) == [("1", dates[0]), ("2", None)]
    assert update("2", dates[4], '{"x": 1}')[2:] == [("2", dates[4])]
    assert update("1", None)[2:] == [("2", dates[4]), ("1", None)]


def test_a_state_map_without_a_status_restores_the_default(
    database: Database, database_url: str
) -> None:
    """A changed state map re-evaluates its states and re-reads runs; an unchanged one does not."""
    _track(database, "r")
    _load(database, _reading(_claim(database)["r"], _step("s"), row=_row("r")))
    for configured, state, reads in (
        ({"Completed": "failed"}, "failed", 1),
        ({"Completed": "failed"}, "failed", 0),
        ({}, "succeeded", 1),
    ):
        states = StateMap(configured)
        apply = partial(state_map.apply, configured=states.configured, state_of=states.state_of)
        requested = database.transaction(apply)
        assert requested == reads
        assert query(
            database_url, "SELECT r.state, s.state AS step FROM orchestra.runs r, orchestra.steps s"
        ) == [{"state": state, "step": state}]
        assert _ledger(database_url)["run_state"] == state


def test_a_claim_whose_commit_response_was_lost_ends_with_its_lease(
    database: Database, database_url: str
) -> None:
    """Runs that were claimed by a commit without a response are due again after the lease."""
    _track(database, "r")
    _claim(database, lease=60)
    pending = database.transaction(lambda c: claims.pending(c))
    assert (pending.due, pending.leased) == (1, 1)
    assert pending.next_expiry is not None
    assert 0 < pending.next_expiry <= 60
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET leased_until = leased_until - interval '60 s'",
    )
    assert list(_claim(database)) == ["r"]
