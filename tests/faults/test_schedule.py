"""Schedules across both daylight saving changes, and across ticks missed by a blocked loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import apscheduler.executors.base
import apscheduler.schedulers.base
import apscheduler.triggers.interval
import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from etl import cron
from etl.pipeline.known_workflows import PrepareReport
from etl.pipeline.loading import LoadReport
from etl.pipeline.poll import PollReport
from etl.service import job_runner
from etl.service.daemon import Daemon, Schedule
from etl.service.health import Health
from etl.signals import Stop
from tests.faults.suite import Fault

NAME = "both DST changes, and ticks missed by a blocked loop"
CHANGES = [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)]
"""Both changes of Europe/Berlin."""
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LINES = ("*/15 * * * *", "30 * * * *", "30 2 * * *", "0 1 * * *")


class Clock(datetime):
    """The time that the scheduler sees."""

    shown = datetime(2026, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        """Return the shown time in that zone."""
        return cls.shown.astimezone(tz)


class Sweeps:
    """A substitute for the syncer that records the times at which each workflow was swept."""

    plans = LINES
    poller: Any = None
    workflows: Any = None

    def __init__(self) -> None:
        self.at: dict[str, list[datetime]] = {line: [] for line in LINES}
        self.poller = self.workflows = self

    async def prepare(self) -> PrepareReport:
        """Prepare nothing."""
        return PrepareReport(None, 0)

    async def take_requests(self, stop: asyncio.Event) -> int:
        """Take no requests."""
        return 0

    async def sweep(self, workflow_id: str) -> None:
        """Record the sweep."""
        self.at[workflow_id].append(Clock.shown)

    async def drain(self, *, stop: asyncio.Event, on_load: Any) -> PollReport:
        """Poll nothing, since nothing is due."""
        return PollReport(LoadReport())

    def end_within(self, seconds: float) -> None:
        """Do nothing, since there is no database."""


def swept(
    start: datetime, length: timedelta, *, blocked: Callable[[datetime], bool] = lambda at: False
) -> Sweeps:
    """Run the service's schedules minute by minute over a time span; nothing runs while blocked."""

    async def run() -> Sweeps:
        sweeps, stop = Sweeps(), Stop()
        schedules = [Schedule(line, 60.0, line) for line in LINES]
        found = Daemon(sweeps, Health(), schedules, default_interval=60.0)  # type: ignore[arg-type]
        Clock.shown = start
        running = asyncio.create_task(found.run(stop))
        await asyncio.sleep(0)
        while Clock.shown < start + length:
            Clock.shown += MINUTE
            if not blocked(Clock.shown):
                found._jobs._scheduler.wakeup()
                for _ in range(4):  # Four turns: the wake-up, the job and what it calls.
                    await asyncio.sleep(0)
        stop.set()
        await running
        return sweeps

    return asyncio.run(run())


def slots(line: str, start: datetime, length: timedelta) -> list[datetime]:
    """Return the slots of a cron line by its two numbers alone, in UTC, without any zone."""
    minutes, hours = line.split()[:2]
    at = [start + number * MINUTE for number in range(1, length // MINUTE + 1)]
    every = 15 if minutes == "*/15" else 60
    at = [one for one in at if one.minute % every == (0 if every == 15 else int(minutes))]
    return [one for one in at if hours in ("*", str(one.hour))]


def wrong(change: datetime) -> list[str]:
    """Return slots without exactly one sweep, and sweeps without a slot, around a change.

    The time span begins half a day before the change and ends half a day after it.
    """
    start, length = change - 13 * HOUR - MINUTE, 26 * HOUR
    sweeps = swept(start, length)
    return [
        f"{line}: {len(sweeps.at[line])} sweeps, not one for each of {len(expected)} slots"
        for line in LINES
        if sweeps.at[line] != (expected := slots(line, start, length))
    ]


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run this process in Berlin's zone, and the scheduler by the test's clock."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    for module in (
        apscheduler.schedulers.base,
        apscheduler.executors.base,
        apscheduler.triggers.interval,
        job_runner,
    ):
        monkeypatch.setattr(module, "datetime", Clock)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.fault(29, NAME, "C", guard="cron lines in UTC, coalescing")
def test_daylight_saving_time(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over both changes of the year each slot of a cron line is swept exactly once."""
    for change in CHANGES:
        assert wrong(change) == []
    fault.injected(len(CHANGES))
    monkeypatch.setattr(cron, "ZONE", ZoneInfo("Europe/Berlin"))
    fault.control(wrong(CHANGES[0]) and wrong(CHANGES[1]))


def crowded(start: datetime) -> list[str]:
    """Return slots not swept once after a loop was blocked for most of an hour, and later ones."""
    until = start + 55 * MINUTE
    sweeps = swept(start, 4 * HOUR, blocked=lambda at: start < at < until)
    problems = []
    for line in LINES:
        missed = [one for one in slots(line, start, 4 * HOUR) if one < until]
        later = [one for one in slots(line, start, 4 * HOUR) if one >= until]
        if sweeps.at[line] != [until] * bool(missed) + later:
            problems.append(
                f"{line}: {len(missed)} slots missed, {sweeps.at[line].count(until)} sweeps at once"
            )
    return problems


@pytest.mark.fault(29, NAME, "C", guard="cron lines in UTC, coalescing")
def test_missed_ticks(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep makes up for all slots that a blocked loop missed, also across a zone change."""
    starts = [change - 20 * MINUTE for change in (*CHANGES, datetime(2026, 7, 1, 1, tzinfo=UTC))]
    for start in starts:
        assert crowded(start) == []
    fault.injected(len(starts))

    class Eager(AsyncIOScheduler):  # type: ignore[misc]
        def __init__(self, *, timezone: str, job_defaults: dict[str, Any]) -> None:
            super().__init__(timezone=timezone, job_defaults={**job_defaults, "coalesce": False})

    monkeypatch.setattr(job_runner, "AsyncIOScheduler", Eager)
    fault.control(crowded(starts[0]))
