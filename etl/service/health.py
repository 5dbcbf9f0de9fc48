"""Health over HTTP: `/livez`, `/readyz`, and `/metrics` beside them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST

from etl.service import http_server
from etl.service.http_server import HttpResponse
from etl.service.metrics import Metrics
from etl.terminal import LONGEST_LINE, plain

# Seconds without a beat of the scheduler, which beats at every tick, after which the process is no
# longer alive: longer than the service's end may take, and than a machine is suspended for a
# snapshot.
BEAT_LIMIT = 30.0


class _Single(NamedTuple):
    """A problem that may be one workflow's own."""

    workflow_id: str
    since: float | None
    """From when on another workflow must have been answered to show that; None: nothing needs to be shown."""


class Health:
    """Whether the service can do its work."""

    def __init__(self, *, beat_limit: float = BEAT_LIMIT) -> None:
        self.metrics = Metrics()
        self._beat_limit = beat_limit
        self._problems: dict[str, str] = {}
        self._database: Callable[[], str | None] = lambda: None
        self._is_unavailable: Callable[[], bool] = lambda: False
        self._single: dict[str, _Single] = {}
        self._workflow_ids: set[str] = set()
        self._answered_at: dict[str, float] = {}
        self._beat_at = time.monotonic()

    def watch(self, workflow_ids: Iterable[str]) -> None:
        """Note which workflows the service works for."""
        self._workflow_ids = set(workflow_ids)

    def watch_database(
        self, problem: Callable[[], str | None], is_unavailable: Callable[[], bool]
    ) -> None:
        """Ask these, whenever somebody asks here, what keeps the service from its database, and whether it cannot even read."""
        self._database, self._is_unavailable = problem, is_unavailable

    @property
    def problems(self) -> dict[str, str]:
        """What cannot work now, by part."""
        problem = self._database()
        return self._problems if problem is None else {**self._problems, "database": problem}

    def fail(
        self, part: str, problem: str, *, workflow_id: str | None = None, unanswered: bool = False
    ) -> bool:
        """Note that a part cannot work; whether that is news.

        Args:
            part: the part that fails.
            problem: one line.
            workflow_id: the workflow that it is about; None where it concerns all.
            unanswered: whether the API did not answer: that may concern all, too.
        """
        news = self._problems.get(part) != problem
        self._problems[part] = problem
        if workflow_id is None:
            self._single.pop(part, None)
        else:
            before = self._single.get(part)
            since = time.monotonic() if before is None or before.since is None else before.since
            self._single[part] = _Single(workflow_id, since if unanswered else None)
        return news

    def recover(self, part: str) -> None:
        """Note that a part works."""
        self._problems.pop(part, None)
        self._single.pop(part, None)

    def answered(self, workflow_id: str) -> None:
        """Note that the API has just answered for this workflow."""
        self._answered_at[workflow_id] = time.monotonic()

    async def beat(self) -> None:
        """Note that jobs are still begun."""
        self._beat_at = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether the service works: nothing that all workflows share fails, and not every workflow does.

        A single workflow's problem is its own: its verdict, its metrics and the lines of /readyz
        tell it. Where the API did not answer at all, that is so once another workflow has been
        answered since.
        """
        if self.problems.keys() - self._single.keys():
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
        return http_server.served(made, host, port) if port else nullcontext()

    def _live(self) -> HttpResponse:
        """A loop that is stuck does not answer at all; one whose scheduler is dead does, and says so."""
        silent = time.monotonic() - self._beat_at
        if silent > self._beat_limit:
            return HttpResponse(
                b"no job has been begun for %.0f s: restart the service\n" % silent, 503
            )
        return HttpResponse(b"ok\n")

    def _ready(self) -> HttpResponse:
        lines = [
            f"{plain(part)}: {plain(problem, LONGEST_LINE)}"
            for part, problem in sorted(self.problems.items())
        ]
        if self.ready:
            lines.insert(0, "ok")
        return HttpResponse(
            "".join(f"{line}\n" for line in lines).encode(), 200 if self.ready else 503
        )

    def _metrics(self) -> HttpResponse:
        if self._is_unavailable():
            # Not only once the job that reads them has given up: until then they are the figures of
            # before.
            self.metrics.set_status(None)
        return HttpResponse(
            self.metrics.exposition(ready=self.ready), content_type=CONTENT_TYPE_LATEST
        )
