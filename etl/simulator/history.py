"""A generated, plausible history of workflow runs, computed on demand.

A run depends only on (seed, workflow, number); how much of it is visible depends on the clock. So
a history of millions of runs takes no memory, and the same arguments give the same history
everywhere. Only manual changes are stored.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import msgspec

from etl.simulator.arrivals import Arrivals
from etl.simulator.model_calls import Expected
from etl.simulator.run_keys import ADDED, id_of, key_of, key_of_id, parts_of
from etl.simulator.runs import (
    ORGANIZATION_ID,
    SECOND,
    USER_ID,
    Json,
    Profile,
    RunPlan,
    expected_at,
    iso_with_space,
    longest_run,
    microseconds,
    plan_run,
    row_at,
    steps_at,
)
from etl.simulator.workflows import graph, make_workflow

RUNS_PER_VERSION = 180
"""The number of runs after which a workflow gets its next version."""

# The newest runs start this far apart (times the pace), so that each is in another phase.
_LIVE_GAP_SECONDS = 4


class _Added(NamedTuple):
    """A run that was added manually."""

    start: int
    ordinal: int
    """Index in the workflow's whole sequence of runs, from the oldest, which has 0."""
    inputs: Json | None


class Burst(NamedTuple):
    """A time in which more runs of one workflow fail."""

    workflow: int
    """Index of the workflow."""
    begin: timedelta
    """Since `epoch`; negative before it."""
    end: timedelta
    failure_rate: float
    """Share of the runs that fail (three of four) or are cancelled."""


def utc_now() -> datetime:
    """Return the real time."""
    return datetime.now(UTC)


class History:
    """The runs of some workflows, as the API would show them at the clock's time.

    At `epoch` each workflow has `runs_per_workflow` runs. The newest `live` of them are in
    progress; the others are finished and start `spacing` apart. From then on `arrivals_per_minute`
    runs start in each workflow.

    One thread may change a history while a server in another thread reads it.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        workflows: int = 3,
        runs_per_workflow: int = 300,
        live: int = 3,
        arrivals_per_minute: float = 2.0,
        spacing: timedelta = timedelta(minutes=10),
        steps_per_run: int | None = None,
        step_bytes: int = 2000,
        failure_rate: float = 0.08,
        burst: Burst | None = None,
        pace: float = 1.0,
        epoch: datetime | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Configure a history, without computing any run.

        Args:
            seed: decides everything that is drawn.
            workflows: number of workflows.
            runs_per_workflow: runs of each workflow at `epoch`.
            live: how many of these are in progress at `epoch`.
            arrivals_per_minute: runs that start in each workflow per minute after `epoch`.
            spacing: time between the starts of two finished runs.
            steps_per_run: nodes of each workflow, 5 to 7 by default; a failed run has fewer steps.
            step_bytes: approximate size of a model step in JSON.
            failure_rate: share of the runs that fail (three of four) or are cancelled. Half that
                share of the integrations fail softly.
            burst: a time in which more runs of one workflow fail.
            pace: multiplies every duration; with 1 a run takes seconds to a minute.
            epoch: a time with a zone, `now()` by default. Set it if a restarted simulator must
                continue the same history.
            now: the clock.

        Raises:
            ValueError: a number is out of range.
        """
        if not 1 <= workflows <= 4000:
            raise ValueError("workflows must be between 1 and 4000")
        if not 0 <= live <= runs_per_workflow < ADDED:
            raise ValueError("live must be between 0 and runs_per_workflow")
        if steps_per_run is not None and steps_per_run < 1:
            raise ValueError("steps_per_run must be at least 1")
        if (
            arrivals_per_minute < 0
            or pace <= 0
            or spacing <= timedelta(0)
            or not 0 <= failure_rate <= 1
        ):
            raise ValueError("arrivals_per_minute, pace, spacing or failure_rate is out of range")
        self._seed = seed & (1 << 64) - 1
        self._clock = now
        self._profile = Profile(step_bytes=step_bytes, failure_rate=failure_rate, pace=pace)
        self._workflows = [
            make_workflow(self._seed, index, steps_per_run) for index in range(workflows)
        ]
        self._index = {workflow.id: index for index, workflow in enumerate(self._workflows)}
        self._epoch = microseconds(epoch or now())
        live_gap = int(_LIVE_GAP_SECONDS * pace * SECOND)
        longest = max(longest_run(workflow, pace) for workflow in self._workflows)
        self._arrivals = Arrivals(
            seed=self._seed,
            epoch=self._epoch,
            past=runs_per_workflow,
            live=live,
            # The finished runs start so early that even the slowest has ended when the first live
            # run starts.
            settled=self._epoch - live * live_gap - longest,
            spacing=spacing // timedelta(microseconds=1),
            live_gap=live_gap,
            arrival_gap=int(60 * SECOND / arrivals_per_minute) if arrivals_per_minute else None,
        )
        self._burst = burst
        self._in_burst = (
            self._profile
            if burst is None
            else msgspec.structs.replace(self._profile, failure_rate=burst.failure_rate)
        )
        self._lock = threading.Lock()
        self._added: list[list[_Added]] = [[] for _ in self._workflows]
        self._unlisted: list[list[int]] = [[] for _ in self._workflows]
        self._deleted: set[int] = set()
        self._reopened: dict[int, int] = {}
        self._run_changes: dict[str, Json] = {}
        self._step_changes: dict[str, dict[str, Json]] = {}

    # What the API shows now

    @property
    def workflow_ids(self) -> tuple[str, ...]:
        """The ids of all workflows."""
        return tuple(self._index)

    def now(self) -> datetime:
        """Return the clock's time, with its zone."""
        return self._clock()

    def workflows(self) -> list[Json]:
        """Return the rows of `GET /workflows`."""
        return [self._workflow_row(index) for index in range(len(self._workflows))]

    def run_ids(self, workflow_id: str, limit: int | None = None, offset: int = 0) -> list[str]:
        """Return the ids of the listed runs, newest first.

        Raises:
            KeyError: the workflow does not exist.
        """
        return [
            id_of(key, self._seed) for key in self._listed(self._index[workflow_id], limit, offset)
        ]

    def runs(self, workflow_id: str, limit: int | None = None, offset: int = 0) -> list[Json]:
        """Return the rows of the run list, newest first. Raises KeyError for an unknown workflow.

        A row repeats the outputs of the run's steps: read a long history in pages.
        """
        now = self._now()
        return [
            self._row(key, now) for key in self._listed(self._index[workflow_id], limit, offset)
        ]

    def run(self, run_id: str) -> Json:
        """Return a run's own row. Raises KeyError for an unknown run."""
        return self._row(self._key_of(run_id), self._now())

    def steps(self, run_id: str) -> list[Json]:
        """Return the steps of a run. Raises KeyError for an unknown run."""
        steps = steps_at(self._plan(self._key_of(run_id)), self._now())
        changes = self._step_changes.get(run_id)
        return [{**step, **changes.get(step["id"], {})} for step in steps] if changes else steps

    def expected(self, run_id: str) -> dict[str, Expected]:
        """Return what the outputs of a run's steps mean as calls of models, by the step's id.

        It is known from generating the outputs, not read from them, so that a test can compare it
        with what the program reads. It omits steps whose outputs were changed manually.

        Raises:
            KeyError: the run does not exist.
        """
        expected = expected_at(self._plan(self._key_of(run_id)), self._now())
        changes = self._step_changes.get(run_id, {})
        return {
            step_id: one
            for step_id, one in expected.items()
            if "outputs" not in changes.get(step_id, {})
        }

    def workflow_of(self, run_id: str) -> str:
        """Return the id of the run's workflow. Raises KeyError for an unknown run."""
        return self._workflows[parts_of(self._key_of(run_id))[0]].id

    # Manual changes

    def freeze(self, at: datetime | None = None) -> None:
        """Stop the clock, now or at another time (with a zone)."""
        stopped = at or self._clock()
        self._clock = lambda: stopped

    def advance(self, by: timedelta) -> None:
        """Stop the clock, `by` later than its current time."""
        self.freeze(self._clock() + by)

    def resume(self, now: Callable[[], datetime] = utc_now) -> None:
        """Start the clock again, or replace it."""
        self._clock = now

    def add_runs(self, workflow_id: str, count: int = 1, inputs: Json | None = None) -> list[str]:
        """Start runs now, at the head of the list, and return their ids, oldest first.

        Raises:
            KeyError: the workflow does not exist.
        """
        index = self._index[workflow_id]
        now = self._now()
        keys = []
        with self._lock:
            added = self._added[index]
            for _ in range(count):
                ordinal = self._arrivals.arrived(index, now) + len(added)
                if added:  # the ordinals must keep their order, even if the clock was set back
                    ordinal = max(ordinal, added[-1].ordinal + 1)
                keys.append(key_of(index, ADDED + len(added)))
                added.append(_Added(now, ordinal, inputs))
        return [id_of(key, self._seed) for key in keys]

    def unlist(self, run_id: str) -> None:
        """Remove a run from the list only. Raises KeyError for an unknown run."""
        key = self._key_of(run_id)
        with self._lock:
            index, _ = parts_of(key)
            self._unlisted[index] = sorted({*self._unlisted[index], self._ordinal_of(key)})

    def delete(self, run_id: str) -> None:
        """Remove a run completely. Raises KeyError for an unknown run."""
        self.unlist(run_id)
        self._deleted.add(self._key_of(run_id))

    def reopen(self, run_id: str) -> None:
        """Let the last step of a finished run run again, for at least 5 s (times the pace).

        Raises:
            KeyError: the run does not exist.
        """
        self._reopened[self._key_of(run_id)] = self._now()

    def change_run(self, run_id: str, **fields: Any) -> None:
        """Set fields of a run's row. Raises KeyError for an unknown run."""
        self._key_of(run_id)
        self._run_changes[run_id] = {**self._run_changes.get(run_id, {}), **fields}

    def change_step(self, run_id: str, step_id: str, **fields: Any) -> None:
        """Set fields of a step. Raises KeyError for an unknown run."""
        self._key_of(run_id)
        changes = self._step_changes.get(run_id, {})
        self._step_changes[run_id] = {**changes, step_id: {**changes.get(step_id, {}), **fields}}

    # Which runs exist

    def _now(self) -> int:
        return microseconds(self._clock())

    def _listed(self, index: int, limit: int | None, offset: int) -> list[int]:
        """Return the keys of the listed runs, newest first."""
        arrived = self._arrivals.arrived(index, self._now())
        # An added run with the ordinal n comes after n runs, computed and earlier added ones.
        ordinals = [added.ordinal for added in self._added[index]]
        total = arrived + sum(
            ordinal - earlier <= arrived for earlier, ordinal in enumerate(ordinals)
        )
        unlisted = self._unlisted[index]
        end = total - bisect_left(unlisted, total) - offset
        start = 0 if limit is None else max(0, end - limit)
        keys = []
        for ordinal in range(end - 1, start - 1, -1):
            for gone in unlisted:
                if gone > ordinal:
                    break
                ordinal += 1
            earlier = bisect_right(ordinals, ordinal)
            number = ordinal - earlier
            if earlier and ordinals[earlier - 1] == ordinal:
                number = ADDED + earlier - 1
            keys.append(key_of(index, number))
        return keys

    def _ordinal_of(self, key: int) -> int:
        """Return a run's ordinal, counted from the oldest; runs added later do not change it."""
        index, number = parts_of(key)
        added = self._added[index]
        if number >= ADDED:
            return added[number - ADDED].ordinal
        return number + sum(run.ordinal - earlier <= number for earlier, run in enumerate(added))

    def _key_of(self, run_id: str) -> int:
        key = key_of_id(run_id, self._seed)
        if key is None or key in self._deleted or not self._exists(key):
            raise KeyError(run_id)
        return key

    def _exists(self, key: int) -> bool:
        index, number = parts_of(key)
        if index >= len(self._workflows):
            return False
        if number >= ADDED:
            return number - ADDED < len(self._added[index])
        return self._arrivals.has_started(index, number, self._now())

    # What runs look like

    def _plan(self, key: int) -> RunPlan:
        index, number = parts_of(key)
        inputs = None
        # An added run has the version of the computed run before it.
        before = number
        if number >= ADDED:
            created, ordinal, inputs = self._added[index][number - ADDED]
            before = max(ordinal - (number - ADDED) - 1, 0)
        else:
            created = self._arrivals.start(index, number)
        return plan_run(
            self._workflows[index],
            self._in_burst if self._is_in_burst(index, created) else self._profile,
            Random((self._seed << 48) + key),
            run_id=id_of(key, self._seed),
            created=created,
            version=1 + before // RUNS_PER_VERSION,
            inputs=inputs,
            reopened=self._reopened.get(key),
        )

    def _is_in_burst(self, index: int, created: int) -> bool:
        burst = self._burst
        if burst is None or burst.workflow != index:
            return False
        return burst.begin <= timedelta(microseconds=created - self._epoch) < burst.end

    def _row(self, key: int, now: int) -> Json:
        row = row_at(self._plan(key), now)
        changes = self._run_changes.get(row["id"])
        return {**row, **changes} if changes else row

    def _workflow_row(self, index: int) -> Json:
        workflow = self._workflows[index]
        version = 1 + max(self._arrivals.arrived(index, self._now()) - 1, 0) // RUNS_PER_VERSION
        return {
            "workflow_id": workflow.id,
            "name": workflow.name,
            "description": workflow.template.description,
            "status": "active",
            "version": version,
            "created_at": iso_with_space(self._arrivals.start(index, 0)),
            "updated_at": iso_with_space(
                self._arrivals.start(index, (version - 1) * RUNS_PER_VERSION)
            ),
            "user_id": USER_ID,
            "organization_id": ORGANIZATION_ID,
            "graph": graph(workflow, version),
            "public": False,
        }
