"""Functions called in a worker before its command: guards switched off, and shorter intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, text

from etl.extract.list_page import PageRequest, Row
from etl.extract.run_list import RunListWalker
from etl.ledger import claims, sweeps
from etl.ledger.clock import DatabaseClock
from etl.load import upsert
from etl.load.batch import RunWrite, WriteReport
from etl.pipeline import loading, sweep
from etl.pipeline.loading import Loader, LoadReport
from etl.service import daemon, job_runner
from etl.service.job_runner import JobRunner


def _replaced(statement: TextClause, old: str, new: str) -> TextClause:
    assert old in str(statement), f"the guard is no longer in the statement: {old}"
    return text(str(statement).replace(old, new))


def quick_ticks() -> None:
    """Shorten the service's intervals, so that a short-lived worker works; this is not a guard."""
    daemon.PACE = daemon.Pace(tick=0.1, clock_check=1.0)


def no_lease_end() -> None:
    """Let a crashed worker keep its claims forever."""
    claims._CLAIM = _replaced(
        claims._CLAIM, "(leased_until IS NULL OR leased_until < now())", "(leased_until IS NULL)"
    )


def no_fence() -> None:
    """Accept every load, with or without a valid claim."""
    claims._LOCK = _replaced(
        claims._LOCK, "l.fencing_token = held.token AND l.leased_until IS NOT NULL", "true"
    )


def released_as_final() -> None:
    """Mark the runs that a stopping worker claimed but did not read as final."""
    claims._RELEASE = _replaced(
        claims._RELEASE,
        "SET leased_until = NULL",
        "SET leased_until = NULL, due_at = NULL, tracking = 'final'",
    )


def no_end_of_patience() -> None:
    """Let a stopping service wait for its jobs and its database without a limit."""
    job_runner.END_PATIENCE = daemon.DATABASE_END_PATIENCE = 3600.0


def consumed_first() -> None:
    """Consume the claims in one transaction and write the rows in the next."""
    later: list[Sequence[RunWrite]] = []
    load = Loader.load

    def postponed(
        connection: Connection, batch: Sequence[RunWrite], *, isolate: bool = False
    ) -> WriteReport:
        later.append(batch)
        return WriteReport()

    def in_two(self: Loader, readings: Sequence[Any]) -> LoadReport:
        report = load(self, readings)
        while later:
            found = later.pop()
            self._database.transaction(lambda c: upsert.write(c, found))  # noqa: B023
        return report

    loading.write = postponed  # type: ignore[attr-defined]
    Loader.load = in_two  # type: ignore[method-assign]


class StopsAtFirstMember(RunListWalker):
    """The naive walk: pages without overlap, until one shows a stored run."""

    _next = 0

    def next_page(self) -> PageRequest | None:
        """Return the page after the last one."""
        request = super().next_page()
        return None if request is None else PageRequest(self._next, request.limit)

    def receive(self, rows: Sequence[Row], members: Collection[str]) -> None:
        """Stop at the first known run."""
        super().receive(rows, ())
        self._next += len(rows)
        self.outcome = "ended" if not rows or members else None


def naive_walk() -> None:
    """Stop the walk at the first page with a known run; each run in the ledger counts as known."""
    sweep.RunListWalker = StopsAtFirstMember  # type: ignore[attr-defined]
    sweeps._MEMBERS = _replaced(sweeps._MEMBERS, "AND l.listed_sweep <= s.watermark", "")


def own_clock() -> None:
    """Date observations by the worker's clock instead of the database's."""
    DatabaseClock.anchor = lambda self, database_time: None  # type: ignore[method-assign]
    DatabaseClock.at = (  # type: ignore[method-assign]
        lambda self, monotonic, *, after: self._at(monotonic)
    )


def no_limit_to_dates() -> None:
    """Store the worker's times of observation, even if they are in the future."""
    claims._SETTLE = _replaced(
        claims._SETTLE, "_observed_at > now()", "_observed_at IS NULL AND false"
    )


def no_look_at_the_clock() -> None:
    """Keep the service from noticing that its clock was set."""

    async def wait(self: JobRunner) -> None:
        await self._stop.wait()

    JobRunner.watch_clock = wait  # type: ignore[method-assign]
