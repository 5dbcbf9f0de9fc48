"""Responses that arrive in a different order than they were requested."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from etl.database import Database
from etl.ledger import claims, listed_pages, sweeps
from etl.ledger.lifecycle import PollingPolicy
from etl.pipeline.decoding import DecodingGroup
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reader, Reading
from etl.records import ListedRun
from etl.simulator.misbehaviour import Misbehaviour
from etl.transform import redact
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_page, decode_run
from etl.transform.states import StateMap
from tests.faults.responses import emptied, held
from tests.faults.suite import Fault
from tests.faults.world import World, world
from tests.support import configuration, query

HERE = "tests.faults.test_order"
LATER = timedelta(hours=1)
STATES = StateMap()


def no_token() -> None:
    """Accept every load, with or without a valid claim."""
    fence = (
        "WHERE l.fencing_token = held.token"
        " AND l.leased_until IS NOT NULL\n    ORDER BY l.run_id\n    FOR UPDATE OF l"
    )
    statement = str(claims._LOCK)
    assert fence in statement
    claims._LOCK = text(
        statement.replace("l.fencing_token = held.token AND l.leased_until IS NOT NULL", "true")
    )


def no_page_time() -> None:
    """Date a page by its write instead of its request."""
    statement = str(listed_pages._WRITE)
    assert "CAST(:requested_at AS timestamptz)" in statement
    # The statement still gets the parameter, so the parameter must still appear in it.
    now = "COALESCE(now(), CAST(:requested_at AS timestamptz))"
    listed_pages._WRITE = text(statement.replace("CAST(:requested_at AS timestamptz)", now))


def no_run_time() -> None:
    """Date a run's own row by its arrival instead of its request."""
    honest = Reader._with_own_row

    async def dated_by_arrival(
        self: Reader, reading: Reading, policy: redact.Policy | None, group: DecodingGroup
    ) -> Reading:
        found = await honest(self, reading, policy, group)
        return msgspec.structs.replace(found, run_observed_at=self._clock.now())

    Reader._with_own_row = dated_by_arrival  # type: ignore[method-assign]


def _late_steps(found: World, alone: str, without: Sequence[str]) -> None:
    """Hold back steps of a running run until its end has been listed and loaded."""
    with held(found.simulator, "steps") as old, found.started("sync", without=without) as slow:
        old.wait()
        found.history.advance(LATER)
        assert found.sync(without=without) == 0
        old.send()
        assert slow.wait() == 0


def _late_own_row(found: World, alone: str, without: Sequence[str]) -> None:
    """Hold back the own row of a running run until its end has been listed and loaded."""
    with (
        held(found.simulator, "run") as old,
        found.started("sync", without=without, ORCHESTRA_ETL_CONFIG=alone) as slow,
    ):
        old.wait()
        found.history.advance(LATER)
        assert found.sync(without=without) == 0
        old.send()
        assert slow.wait() == 0


def _late_page(found: World, alone: str, without: Sequence[str]) -> None:
    """Hold back a page with a running run until its end has been read by its id and loaded."""
    with held(found.simulator, "runs") as old, found.started("sync", without=without) as slow:
        old.wait()
        found.history.advance(LATER)
        assert found.sync(without=without, ORCHESTRA_ETL_CONFIG=alone) == 0
        # From now on the run's own row cannot be requested, so only the page's time shows that the
        # page is old.
        found.simulator.misbehave(Misbehaviour(status=404, endpoints=("run",)))
        old.send()
        assert slow.wait() == 0


def _own_row_before_page(found: World, alone: str, without: Sequence[str]) -> None:
    """Load a run's own row, requested while it ran, before a page requested after its end."""
    with (
        held(found.simulator, "run") as old,
        found.started("sync", without=without, ORCHESTRA_ETL_CONFIG=alone) as slow,
    ):
        old.wait()
        found.history.advance(LATER)
        with (
            held(found.simulator, "runs") as new,
            found.started("sync", without=without) as sweeping,
        ):
            new.wait()
            old.send()
            assert slow.wait() == 0
            new.send()
            assert sweeping.wait() == 0


@pytest.mark.fault(
    12,
    "older response held back until a newer one is loaded",
    "C M",
    guard="fencing token, times of observation",
)
@pytest.mark.parametrize(
    ("scene", "guard"),
    [
        (_late_steps, "no_token"),
        (_late_own_row, "no_token"),
        (_late_page, "no_page_time"),
        (_own_row_before_page, "no_run_time"),
    ],
    ids=["steps", "own row", "page", "own row before page"],
)
def test_a_held_response(
    scene: Callable[[World, str, Sequence[str]], None],
    guard: str,
    fault: Fault,
    database_url: str,
    tmp_path: Path,
    log: Path,
) -> None:
    """A response held back until another worker has loaded a newer one changes nothing.

    This holds for steps, own rows and pages.
    """

    def problems(*without: str) -> list[str]:
        emptied(database_url)
        with world(
            database_url,
            tmp_path,
            log,
            workflows=1,
            runs_per_workflow=1,
            live=1,
            variables={"ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN": "60s"},
        ) as found:
            found.history.freeze()
            (workflow,) = found.history.workflow_ids
            (run,) = found.history.run_ids(workflow)
            assert found.history.run(run)["status"] == "running"
            alone = tmp_path / "alone.toml"
            alone.write_text(configuration(workflow, discover=False, runs=(run,)))
            scene(found, str(alone), without)
            return found.complete() + found.witnessed()

    assert problems() == []
    fault.injected()
    fault.control(problems(f"{HERE}:{guard}"))


class Source:
    """A run with four versions; two of them are ends, because the run is reopened once."""

    STATUSES = ("running", "running", "completed", "completed")

    def __init__(self, workflow: str, run: str) -> None:
        self.workflow, self.run, self.version = workflow, run, 0

    def row(self) -> dict[str, Any]:
        """Return the run's row, the same alone and in the list."""
        return {"id": self.run, "status": self._status, "start_time": "2025-03-13T02:41:14Z",
                "end_time": self._end,
                "inputs": {"version": self.version}}  # fmt: skip

    def steps(self) -> list[dict[str, Any]]:
        """Return the run's steps."""
        return [{"id": f"{self.run}-step", "status": self._status, "end_time": self._end,
                 "outputs": {"version": self.version}}]  # fmt: skip

    @property
    def _status(self) -> str:
        return self.STATUSES[self.version]

    @property
    def _end(self) -> str | None:
        return None if self._status == "running" else f"2025-03-13T02:41:1{5 + self.version}Z"


class Orders:
    """Workers that claim, read, load and list one run, each step on the test's command."""

    def __init__(self, database: Database, url: str) -> None:
        self._database, self._url = database, url
        self._loader = Loader(database, PollingPolicy(), STATES)
        self._numbers = itertools.count(1)

    def problems(self, order: str, *, alone: bool) -> list[str]:
        """Return the problems of this order; with `alone` the run's own row is read with its steps.

        Each letter is one action: `a` the run moves on and a page that shows it is requested, `w`
        the oldest such page arrives, `c` a worker claims the run, `r` the oldest claim is read. A
        digit loads the reading at that position, counted from the oldest.
        """
        number = next(self._numbers)
        source = Source(f"workflow {number}", f"run {number}")
        pages: list[tuple[sweeps.Sweep, tuple[ListedRun, ...], datetime]] = []
        claimed: list[claims.Claim] = []
        read: list[Reading] = []
        seen: list[tuple[int, int]] = []
        problems: list[str] = []

        def look() -> None:
            found = query(
                self._url,
                "SELECT (p.inputs ->> 'version')::int AS run,"
                " (o.data ->> 'version')::int AS step FROM orchestra.runs r"
                " LEFT JOIN orchestra.run_payloads p ON p.run_id = r.id"
                " LEFT JOIN orchestra.steps s ON s.run_id = r.id"
                " LEFT JOIN orchestra.outputs o ON o.step_id = s.id WHERE r.id = %s",
                source.run,
            )
            now = (found[0]["run"] or 0, found[0]["step"] or 0) if found else (0, 0)
            if seen and (now[0] < seen[-1][0] or now[1] < seen[-1][1]):
                problems.append(f"{order}: from version {seen[-1]} back to {now}")
            seen.append(now)

        def move() -> None:
            source.version = min(source.version + 1, len(source.STATUSES) - 1)
            pages.append(self._page(source))

        def load(index: int) -> None:
            if read:
                self._loader.load([read.pop(min(index, len(read) - 1))])
                look()

        def write() -> None:
            if pages:
                self._write(*pages.pop(0))

        def read_one() -> None:
            if claimed:
                read.append(self._read(source, claimed.pop(0), alone=alone))

        pages.append(self._page(source))
        steps: dict[str, Callable[[], object]] = {
            "a": move,
            "w": write,
            "c": lambda: claimed.extend(self._claim(source)),
            "r": read_one,
            **{str(index): functools.partial(load, index) for index in range(4)},
        }
        for step in order:
            steps[step]()
        # In every order, the responses that are still on their way arrive, then the list is walked
        # and due runs are polled.
        for one in "w" * len(pages) + "r" * len(claimed) + "0" * (len(read) + len(claimed)):
            steps[one]()
        while source.version < len(source.STATUSES) - 1:
            move()
        pages.append(self._page(source))
        for _ in tuple(pages):
            steps["w"]()
        for one in "cr0":
            steps[one]()
        if seen[-1] != (3, 3):
            problems.append(f"{order}: ends with version {seen[-1]}")
        return problems

    def _page(self, source: Source) -> tuple[sweeps.Sweep, tuple[ListedRun, ...], datetime]:
        """Walk the list as a worker that takes the previous worker for crashed."""

        def work(connection: Any) -> sweeps.Sweep | None:
            connection.execute(
                text(
                    "UPDATE orchestra_etl.sweeps SET leased_until = NULL WHERE workflow_id = :one"
                ),
                {"one": source.workflow},
            )
            return sweeps.begin(connection, source.workflow, lease=60, count_to=25)

        begun = self._database.transaction(work)
        assert begun is not None
        return begun, decode_page(json.dumps([source.row()]).encode()).runs, begun.begun_at

    def _write(self, begun: sweeps.Sweep, listed: tuple[ListedRun, ...], at: datetime) -> None:
        done = listed_pages.SweepResult(whole_list=True, to_the_end=True, listed=1, new_runs=0)
        with contextlib.suppress(sweeps.SweepSuperseded):
            self._database.transaction(
                lambda c: listed_pages.write_page(
                    c, begun, listed, requested_at=at, lease=60, priority=0, completion=done
                )
            )

    def _claim(self, source: Source) -> list[claims.Claim]:
        return self._database.transaction(
            lambda c: claims.claim(
                c, limit=1, lease=60, among=claims.DueFilter(workflows=(source.workflow,))
            )
        )

    def _read(self, source: Source, claim: claims.Claim, *, alone: bool) -> Reading:
        at = self._database.transaction(lambda c: c.execute(text("SELECT now()")).scalar_one())
        body = json.dumps(source.steps()).encode()
        steps = decode_steps(body, workflow_id=source.workflow, run_id=source.run, states=STATES)
        row, row_at, row_hash = claim.listing, claim.listed_at, None
        if alone:
            (own,) = decode_page(json.dumps([source.row()]).encode()).runs
            row, row_at, row_hash = own.listing, at, own.listing_hash
        return Reading(
            claim,
            at,
            server_time=datetime.now(UTC),
            steps=steps,
            run=decode_run(row, states=STATES).run if row is not None else None,
            run_observed_at=row_at if row is not None else None,
            listing_hash=row_hash,
        )


@pytest.fixture
def orders(database_url: str) -> Iterator[Orders]:
    """Provide the workers on the test's database."""
    database = Database(database_url, patience=5)
    yield Orders(database, database_url)
    database.close()


FOUR_READS = "wcr" + "awcr" * 3
"""Each version is listed, claimed and read; none is loaded yet."""


def _indexes(order: Sequence[int]) -> str:
    """Return the loads of readings 0 to 3 in this order, each by its index among the waiting."""
    waiting = sorted(order)
    indexes = []
    for one in order:
        indexes.append(waiting.index(one))
        waiting.remove(one)
    return "".join(map(str, indexes))


@pytest.mark.fault(13, "all arrival orders of a run's versions", "C M", guard="fence of the load")
def test_every_order_of_loads(
    fault: Fault, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four versions of a run, read and then loaded in any order, end in one state.

    No version replaces a later one.
    """
    loads = [FOUR_READS + _indexes(order) for order in itertools.permutations(range(4))]
    for order in loads:
        assert orders.problems(order, alone=False) == []
        assert orders.problems(order, alone=True) == []
    fault.injected(2 * len(loads))
    monkeypatch.setattr(claims, "_LOCK", claims._LOCK)
    no_token()
    fault.control(_first(orders.problems(order, alone=False) for order in loads))


@pytest.mark.fault(13, "all arrival orders of a run's versions", "C M", guard="fence of the load")
def test_any_order_of_everything(
    fault: Fault, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any order of a run's moves, pages, claims, reads and loads ends in one final state.

    Nothing moves back.
    """

    def shuffled(examples: int) -> list[str]:
        broken: list[str] = []

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
        )
        @given(st.text("aawwccrr012", min_size=6, max_size=24), st.booleans())
        def check(order: str, alone: bool) -> None:
            if not broken:
                broken.extend(orders.problems("wc" + order, alone=alone))

        check()
        return broken

    assert shuffled(120) == []
    fault.injected(120)
    monkeypatch.setattr(claims, "_LOCK", claims._LOCK)
    no_token()
    fault.control(shuffled(300))


def _first(found: Iterable[list[str]]) -> list[str]:
    """Return the first problems found."""
    return next(filter(None, found), [])
