"""Health over HTTP: `/livez`, `/readyz`, and `/metrics` beside them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST

from etl.service import pages
from etl.service.metrics import Metrics
from etl.service.pages import Page
from etl.terminal import LONGEST_LINE, plain

# Seconds without a beat of the scheduler, which beats at every tick, after which the process is no
# longer alive: longer than the service's end may take, and than a machine is suspended for a
# snapshot.
BEAT_LIMIT = 30.0


class _Single(NamedTuple):
    """A trouble that may be one workflow's own."""

    workflow_id: str
    since: float | None
    """From when on another workflow must have been answered to show that; None: nothing needs to be shown."""


class Health:
    """Whether the service can do its work."""

    def __init__(self, *, beat_limit: float = BEAT_LIMIT) -> None:
        self.metrics = Metrics()
        self._beat_limit = beat_limit
        self._troubles: dict[str, str] = {}
        self._database: Callable[[], str | None] = lambda: None
        self._is_away: Callable[[], bool] = lambda: False
        self._single: dict[str, _Single] = {}
        self._workflow_ids: set[str] = set()
        self._answered_at: dict[str, float] = {}
        self._beaten_at = time.monotonic()

    def watch(self, workflow_ids: Iterable[str]) -> None:
        """Note which workflows the service works for."""
        self._workflow_ids = set(workflow_ids)

    def watch_database(
        self, problem: Callable[[], str | None], is_away: Callable[[], bool]
    ) -> None:
        """Ask these, whenever somebody asks here, what keeps the service from its database, and whether it cannot even read."""
        self._database, self._is_away = problem, is_away

    @property
    def troubles(self) -> dict[str, str]:
        """What cannot work now, by part."""
        problem = self._database()
        return self._troubles if problem is None else {**self._troubles, "database": problem}

    def trouble(
        self, part: str, problem: str, *, workflow_id: str | None = None, unanswered: bool = False
    ) -> bool:
        """Note that a part cannot work; whether that is news.

        Args:
            part: what is in trouble.
            problem: one line.
            workflow_id: the workflow that it is about; None where it concerns all.
            unanswered: whether the API did not answer: that may concern all, too.
        """
        news = self._troubles.get(part) != problem
        self._troubles[part] = problem
        if workflow_id is None:
            self._single.pop(part, None)
        else:
            before = self._single.get(part)
            since = time.monotonic() if before is None or before.since is None else before.since
            self._single[part] = _Single(workflow_id, since if unanswered else None)
        return news

    def well(self, part: str) -> None:
        """Note that a part works."""
        self._troubles.pop(part, None)
        self._single.pop(part, None)

    def answered(self, workflow_id: str) -> None:
        """Note that the API has just answered for this workflow."""
        self._answered_at[workflow_id] = time.monotonic()

    async def beat(self) -> None:
        """Note that jobs are still begun."""
        self._beaten_at = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether the service works: nothing that all workflows share is in trouble, and not every workflow is.

        A single workflow's trouble is its own: its verdict, its metrics and the lines of /readyz
        tell it. Where the API did not answer at all, that is so once another workflow has been
        answered since.
        """
        if self.troubles.keys() - self._single.keys():
            return False
        failing = {one.workflow_id for one in self._single.values()}
        working = self._workflow_ids - failing
        answered = max(
            (self._answered_at.get(workflow_id, -math.inf) for workflow_id in working),
            default=-math.inf,
        )
        return not failing or (
            bool(working)
            and all(one.since is None or one.since < answered for one in self._single.values())
        )

    def served(self, host: str, port: int) -> AbstractAsyncContextManager[None]:
        """Serve until the block ends; port 0 serves nothing.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        made = {"/livez": self._live, "/readyz": self._ready, "/metrics": self._metrics}
        return pages.served(made, host, port) if port else nullcontext()

    def _live(self) -> Page:
        """A loop that is stuck does not answer at all; one whose scheduler is dead does, and says so."""
        silent = time.monotonic() - self._beaten_at
        if silent > self._beat_limit:
            return Page(b"no job has been begun for %.0f s: restart the service\n" % silent, 503)
        return Page(b"ok\n")

    def _ready(self) -> Page:
        lines = [
            f"{plain(part)}: {plain(problem, LONGEST_LINE)}"
            for part, problem in sorted(self.troubles.items())
        ]
        if self.ready:
            lines.insert(0, "ok")
        return Page("".join(f"{line}\n" for line in lines).encode(), 200 if self.ready else 503)

    def _metrics(self) -> Page:
        if self._is_away():
            # Not only once the job that reads them has given up: until then they are the figures of
            # before.
            self.metrics.set_status(None)
        return Page(self.metrics.exposition(ready=self.ready), content_type=CONTENT_TYPE_LATEST)
