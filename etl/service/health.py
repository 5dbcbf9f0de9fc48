"""The HTTP endpoints of the service: `/livez`, `/readyz` and `/metrics`."""

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

# Seconds without a beat of the scheduler, which beats at every tick, after which the process counts
# as dead. It is longer than the service may take to end, and longer than a machine is suspended for
# a snapshot.
BEAT_LIMIT = 30.0


class _Single(NamedTuple):
    """A problem that may affect only one workflow."""

    workflow_id: str
    since: float | None
    """When the API stopped responding for this workflow, on the monotonic clock.

    A later response for another workflow shows that only this workflow is affected. None if the
    problem is known to be this workflow's own.
    """


class Health:
    """The problems of the service, and whether it can work."""

    def __init__(self, *, beat_limit: float = BEAT_LIMIT) -> None:
        self.metrics = Metrics()
        self._beat_limit = beat_limit
        self._problems: dict[str, str] = {}
        self._database: Callable[[], str | None] = lambda: None
        self._is_unavailable: Callable[[], bool] = lambda: False
        self._single: dict[str, _Single] = {}
        self._workflow_ids: set[str] = set()
        self._responded_at: dict[str, float] = {}
        self._beat_at = time.monotonic()

    def watch(self, workflow_ids: Iterable[str]) -> None:
        """Set the workflows that the service works for."""
        self._workflow_ids = set(workflow_ids)

    def watch_database(
        self, problem: Callable[[], str | None], is_unavailable: Callable[[], bool]
    ) -> None:
        """Set the functions that report the database's state; every check calls them.

        Args:
            problem: returns the database's problem in one line, or None.
            is_unavailable: returns whether the database cannot even be read.
        """
        self._database, self._is_unavailable = problem, is_unavailable

    @property
    def problems(self) -> dict[str, str]:
        """The current problems, by the part that fails."""
        problem = self._database()
        return self._problems if problem is None else {**self._problems, "database": problem}

    def fail(
        self, part: str, problem: str, *, workflow_id: str | None = None, no_response: bool = False
    ) -> bool:
        """Record that a part fails; return whether the problem is new.

        Args:
            part: the part that fails.
            problem: one line.
            workflow_id: the affected workflow; None if the problem affects all workflows.
            no_response: whether the API did not respond, which may affect all workflows, too.
        """
        is_new = self._problems.get(part) != problem
        self._problems[part] = problem
        if workflow_id is None:
            self._single.pop(part, None)
        else:
            before = self._single.get(part)
            since = time.monotonic() if before is None or before.since is None else before.since
            self._single[part] = _Single(workflow_id, since if no_response else None)
        return is_new

    def recover(self, part: str) -> None:
        """Record that a part works."""
        self._problems.pop(part, None)
        self._single.pop(part, None)

    def responded(self, workflow_id: str) -> None:
        """Record that the API has just responded for this workflow."""
        self._responded_at[workflow_id] = time.monotonic()

    async def beat(self) -> None:
        """Record that the scheduler still starts jobs."""
        self._beat_at = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether the service works: no shared part fails, and at least one workflow works.

        A problem of a single workflow does not make the service unready: its verdict, its metrics
        and the lines of /readyz report it. If the API did not respond, the problem counts as that
        workflow's own only after the API has responded for another workflow.
        """
        if self.problems.keys() - self._single.keys():
            return False
        failing = {one.workflow_id for one in self._single.values()}
        working = self._workflow_ids - failing
        responded = max(
            (self._responded_at.get(workflow_id, -math.inf) for workflow_id in working),
            default=-math.inf,
        )
        return not failing or (
            bool(working)
            and all(one.since is None or one.since < responded for one in self._single.values())
        )

    def served(self, host: str, port: int) -> AbstractAsyncContextManager[None]:
        """Serve the endpoints until the block ends; port 0 serves nothing.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        made = {"/livez": self._live, "/readyz": self._ready, "/metrics": self._metrics}
        return http_server.served(made, host, port) if port else nullcontext()

    def _live(self) -> HttpResponse:
        """Return 200, or 503 if the scheduler is dead; a blocked event loop does not respond."""
        silent = time.monotonic() - self._beat_at
        if silent > self._beat_limit:
            return HttpResponse(
                b"no job has started for %.0f s: restart the service\n" % silent, 503
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
            # Clear the gauges at once. The job that sets them clears them only when it fails; until
            # then, they would be out of date.
            self.metrics.set_status(None)
        return HttpResponse(
            self.metrics.exposition(ready=self.ready), content_type=CONTENT_TYPE_LATEST
        )
