"""The sync: sweeps the workflows and polls due runs at the same time; also the backfill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from etl.database import Database
from etl.errors import (
    ApiError,
    ApiUnavailable,
    ConfigurationError,
    EtlError,
    KeyRefused,
    NotFound,
    RequestRefused,
)
from etl.exit_status import ExitStatus
from etl.extract.client import OrchestraClient
from etl.ledger import (
    claims,
    clock,
    clock_set_back,
    conflicts,
    dead_letters,
    redaction,
    requests,
    state_map,
    sweeps,
    workflows,
)
from etl.ledger.clock import DatabaseClock
from etl.pipeline.decoding import decoded
from etl.pipeline.due_runs import Listing
from etl.pipeline.loading import LoadReport
from etl.pipeline.poll import Poller
from etl.pipeline.sweep import Sweeper, SweepReport
from etl.records import Workflow
from etl.transform.redact import Redaction
from etl.transform.states import StateMap
from etl.transform.workflows import decode_workflows, node_types_of

log = structlog.get_logger(__name__)

# Maximum number of workflows that are taken from one response: each costs three statements.
MAX_WORKFLOWS = 10_000
# Maximum number of lists that are walked concurrently; each walk has one request in flight.
SWEEPS_AT_ONCE = 4


class WorkflowPlan(msgspec.Struct, frozen=True):
    """The configuration of a workflow."""

    id: str
    name: str | None = None
    discover: bool = True
    """Whether its run list is swept."""
    runs: tuple[str, ...] = ()
    """Ids of runs that the configuration names."""
    labels: Mapping[str, str] = {}


class SyncReport(msgspec.Struct):
    """The results and errors of a sync."""

    sweeps: list[SweepReport]
    load: LoadReport
    requests: int = 0
    """Number of requests to the API."""
    seconds: float = 0.0
    """Duration of the sync."""
    interrupted: int | None = None
    """The number of the signal that ended the sync early; None: no signal did."""
    dead_letters: int = 0
    """New dead letters of runs requested by id, and of workflows that cannot be requested."""
    errors: list[EtlError] = []
    """Errors that did not end the sync; the most severe one decides the exit status."""
    refused: list[ApiError] = []
    """Refusals of single workflows while the API responded for others."""

    @property
    def exit_status(self) -> int:
        """The exit status that follows from the errors and findings of the sync.

        - 4, 3, 5 or 1 if an error with this status occurred, the most severe first.
        - 6 if there are new dead letters, gaps or failing runs, if a sweep was not complete or
          found a new problem with its list, or if a workflow was refused.
        - 128 plus the signal's number if a signal ended the sync early, as a shell reports it. So
          cron sees that the sync is not finished.
        - 0 otherwise.
        """
        statuses = {error.exit_status for error in self.errors}
        for status in (4, 3, 5, 1):
            if status in statuses:
                return status
        missed = any(
            sweep.gap or sweep.dead_letters or sweep.problem_is_new or not sweep.complete
            for sweep in self.sweeps
        )
        missed = missed or bool(
            self.dead_letters or self.load.dead_letters or self.load.newly_failing or self.refused
        )
        if missed or statuses:
            return ExitStatus.INCOMPLETE
        return 128 + self.interrupted if self.interrupted else 0


class PrepareReport(msgspec.Struct, frozen=True):
    """The result of the preparation of a sync."""

    problem: ApiError | None
    """Why the API did not list the workflows; None if it did, or without `api.all_workflows`."""
    dead_letters: int
    """New dead letters of runs in the configuration, and of workflows that cannot be requested."""


class Syncer:
    """Runs syncs for `sync`, `backfill` and the service."""

    def __init__(
        self,
        database: Database,
        client: OrchestraClient,
        sweeper: Sweeper,
        poller: Poller,
        clock: DatabaseClock,
        plans: Sequence[WorkflowPlan],
        *,
        all_workflows: bool,
        metadata_every: float,
        node_types: dict[str, Mapping[str, str]],
        states: StateMap,
        redaction: Redaction,
    ) -> None:
        """Create a syncer.

        Args:
            database: holds the ledger.
            client: requests `GET /workflows`.
            sweeper: sweeps the run lists.
            poller: reads and loads due runs.
            clock: the database's clock.
            plans: the configured workflows.
            all_workflows: also sync workflows that the API lists but that are not configured.
            metadata_every: seconds between two requests of `GET /workflows`.
            node_types: filled by `prepare`: node types by node id, by workflow id.
            states: the state map.
            redaction: the redaction rules.
        """
        self._run = database.in_thread
        self._client = client
        self._sweeper = sweeper
        self.poller = poller
        self._clock = clock
        self._plans = {plan.id: plan for plan in plans}
        self._all_workflows = all_workflows
        self._metadata_every = metadata_every
        self._node_types = node_types
        self._states = states
        self._policies = {
            version: policy.rules_json for version, policy in redaction.policies.items()
        }

    async def prepare(self) -> PrepareReport:
        """Enter the configured workflows and runs; request the workflows' metadata if it is due.

        Raises:
            KeyRefused: the API refuses the key.
            DatabaseError: the database cannot be used.
        """
        plans = list(self._plans.values())

        def enter(connection: Connection) -> tuple[bool, int]:
            new_letters = 0
            if waiting := clock_set_back.repair(connection):
                log.warning("database_clock_set_back", runs=waiting)
            for plan in plans:
                workflows.configure(connection, plan.id, name=plan.name, labels=plan.labels)
                if plan.runs:
                    named = requests.register(connection, plan.id, plan.runs)
                    new_letters += conflicts.record(connection, named.conflicts)
            redaction.record(connection, self._policies)
            remapped = state_map.apply(connection, self._states.configured, self._states.state_of)
            if remapped:
                log.info("states_reevaluated", runs=remapped)
            return workflows.metadata_due(connection, every=self._metadata_every), new_letters

        due, new_letters = await self._run(enter)
        problem = None
        if due or self._all_workflows:
            problem, unusable = await self._update_metadata()
            new_letters += unusable
        for workflow_id, graph in await self._run(workflows.graphs):
            self._node_types[workflow_id] = node_types_of(graph)
        return PrepareReport(problem, new_letters)

    async def _update_metadata(self) -> tuple[ApiError | None, int]:
        """Request the workflows' metadata; return an error, and the number of new dead letters.

        Errors are returned only with `api.all_workflows`: otherwise only names and graphs are
        missing.
        """
        try:
            body = (await self._client.workflows()).body
            listed = await decoded(len(body), partial(decode_workflows, body))
        except KeyRefused:
            raise
        except (NotFound, RequestRefused) as error:
            # This server does not offer the list. An empty update postpones the next request.
            await self._run(lambda c: workflows.update_metadata(c, ()))
            if not self._all_workflows:
                return None, 0
            return error.reworded(f"{error}; api.all_workflows needs this list"), 0
        except ApiError as error:
            log.warning("workflow_list_failed", problem=str(error))
            return error if self._all_workflows else None, 0
        if self._all_workflows and not listed.workflows and not listed.rejected:
            named = list(self._plans)
            swept = await self._run(lambda c: sweeps.count_others(c, named))
            if swept:
                return ApiUnavailable(
                    f"GET /workflows: lists no workflow, though {swept:,} were swept before; "
                    "try again later, or check the key"
                ), 0
        known = self._known_first(listed.workflows)
        await self._run(lambda c: workflows.update_metadata(c, known))
        if not self._all_workflows:
            return None, 0
        for workflow in known:
            self._plans.setdefault(workflow.id, WorkflowPlan(workflow.id))
        letters = [dead_letters.DeadLetter("", "", one) for one in listed.rejected]
        new = await self._run(lambda c: dead_letters.record(c, letters))
        if new:
            log.warning("dead_letters_recorded", count=new)
        return None, new

    def _known_first(self, listed: Sequence[Workflow]) -> Sequence[Workflow]:
        """Return at most `MAX_WORKFLOWS` of the listed workflows, the configured ones first."""
        if len(listed) <= MAX_WORKFLOWS:
            return listed
        log.warning("workflow_list_truncated", listed=len(listed), used=MAX_WORKFLOWS)
        return sorted(listed, key=lambda one: one.id not in self._plans)[:MAX_WORKFLOWS]

    @property
    def workflow_ids(self) -> list[str]:
        """The configured workflows, and with `api.all_workflows` those that the API listed."""
        return list(self._plans)

    async def sync(
        self,
        only: Sequence[str] | None,
        *,
        stop: asyncio.Event,
        on_load: Callable[[LoadReport, float], None] = lambda report, seconds: None,
    ) -> SyncReport:
        """Sweep and poll concurrently, until all runs due at the end of the sweeps have been read.

        Args:
            only: ids of the workflows to sync; None: all, and every due run in the ledger.
            stop: when set, the sync ends early: finished reads are loaded, and all other claims
                released.
            on_load: called after every load with its report and its duration in seconds.

        Raises:
            ConfigurationError: a workflow in `only` is neither configured nor listed.
            KeyRefused: the API refuses the key.
            ApiError: the API responded to no request, or no workflow is known.
            DatabaseError: the database cannot be used.
        """
        report = await self._begin(only)
        report.dead_letters += await self.take_requests(stop)
        begun_at = await self._now()
        swept = asyncio.create_task(self._swept(report, only, stop))
        try:
            await self._drain(
                report, cutoff=Listing(begun_at, swept), only=only, stop=stop, on_load=on_load
            )
        except asyncio.CancelledError:
            swept.cancel()
            raise
        finally:
            # The walks finish even if the reads fail.
            await asyncio.wait({swept})
            # The exception is retrieved here: otherwise asyncio would print it if the drain raises,
            # too.
            _ = swept.cancelled() or swept.exception()
        # This raises an exception of the sweeps that came after the drain was stopped.
        swept.result()
        return report

    async def backfill(
        self,
        only: Sequence[str] | None,
        *,
        stop: asyncio.Event,
        since: datetime | None = None,
        until: datetime | None = None,
        reread: bool = False,
        on_listed: Callable[[int], None] = lambda due: None,
        on_load: Callable[[LoadReport, float], None] = lambda report, seconds: None,
    ) -> SyncReport:
        """Walk the whole lists, enqueue their runs at low priority, and poll.

        Args:
            only: ids of the workflows; None: all.
            stop: when set, the backfill ends early as `sync` does; enqueued runs stay enqueued.
            since: read only runs that started at this time or later, according to the run list; the
                others stay enqueued for the next sync.
            until: read only runs that started before this time.
            reread: also re-read final runs.
            on_listed: called with the number of due runs when the lists have been walked.
            on_load: as for `sync`.

        Raises:
            ConfigurationError, ApiError, DatabaseError: as `sync`.
        """
        report = await self._begin(only)
        await self._sweep_all(report, only, stop, whole_list=True, backfill=True)
        wanted = list(only) if only is not None else self.workflow_ids
        if reread and not stop.is_set():
            await self._run(lambda c: requests.reread(c, wanted, since=since, until=until))
        due = claims.DueFilter(workflows=tuple(wanted), since=since, until=until)
        pending = await self._run(lambda c: claims.pending(c, due))
        on_listed(pending.due)
        await self._drain(
            report,
            cutoff=await self._now(),
            only=wanted,
            stop=stop,
            on_load=on_load,
            since=since,
            until=until,
        )
        return report

    async def sweep(self, workflow_id: str) -> SweepReport | None:
        """Sweep one workflow; return None if another process sweeps it, or `discover` is False."""
        plan = self._plans.get(workflow_id)
        if plan is not None and not plan.discover:
            return None
        return await self._sweeper.sweep(workflow_id, wait=False)

    async def take_requests(self, stop: asyncio.Event) -> int:
        """Enter the runs that users requested in `orchestra.run_requests`, until `stop` is set.

        Returns the number of new dead letters.
        """

        def take(connection: Connection) -> tuple[bool, int]:
            taken = requests.take_queue(connection)
            return taken.requests == requests.BATCH, conflicts.record_requests(connection, taken)

        new_letters, more = 0, True
        while more and not stop.is_set():
            more, new = await self._run(take)
            new_letters += new
        return new_letters

    async def _begin(self, only: Sequence[str] | None) -> SyncReport:
        """Prepare a sync, and return its report."""
        prepared = await self.prepare()
        problem = prepared.problem
        unknown = [workflow_id for workflow_id in only or () if workflow_id not in self._plans]
        if problem is not None and (unknown or not self._plans):
            raise problem
        if unknown:
            # Otherwise a misspelt id would look like success.
            raise ConfigurationError(
                f"workflow {unknown[0]} is not configured, and the API does not list it: "
                "see `orchestra-etl workflows`"
            )
        report = SyncReport([], LoadReport(), dead_letters=prepared.dead_letters)
        if problem is not None and only is None:
            report.errors.append(problem)
        return report

    async def _sweep_all(
        self,
        report: SyncReport,
        only: Sequence[str] | None,
        stop: asyncio.Event,
        *,
        whole_list: bool,
        backfill: bool,
    ) -> None:
        chosen = [
            plan
            for plan in self._plans.values()
            if plan.discover and (only is None or plan.id in only)
        ]
        slots = asyncio.Semaphore(SWEEPS_AT_ONCE)

        async def one(workflow_id: str) -> SweepReport | None:
            async with slots:
                if stop.is_set():
                    return None
                return await self._sweeper.sweep(
                    workflow_id, whole_list=whole_list, backfill=backfill
                )

        tasks = [asyncio.create_task(one(plan.id)) for plan in chosen]
        stopping = asyncio.create_task(stop.wait())
        try:
            while pending := [task for task in tasks if not task.done()]:
                await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    break
                for task in tasks:
                    if task.done() and isinstance(task.exception(), KeyRefused):
                        raise KeyRefused(str(task.exception()))
        finally:
            stopping.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        without_response: list[ApiUnavailable] = []
        responded = any(isinstance(result, SweepReport) for result in results)
        for result in results:
            if isinstance(result, SweepReport):
                report.sweeps.append(result)
            elif isinstance(result, KeyRefused):
                raise result
            elif responded and isinstance(result, NotFound | RequestRefused):
                report.refused.append(result)
            elif isinstance(result, ApiError):
                if isinstance(result, ApiUnavailable):
                    without_response.append(result)
                report.errors.append(result)
            elif isinstance(result, BaseException) and not isinstance(
                result, asyncio.CancelledError
            ):
                raise result
        if without_response and len(without_response) == len(chosen):
            raise without_response[0]

    async def _swept(
        self, report: SyncReport, only: Sequence[str] | None, stop: asyncio.Event
    ) -> datetime:
        """Sweep all chosen workflows; return the cutoff for the poll."""
        await self._sweep_all(report, only, stop, whole_list=False, backfill=False)
        return await self._now()

    async def _now(self) -> datetime:
        """Return a database time after everything that has committed so far."""
        now = await self._run(clock.database_time)
        self._clock.anchor(now)
        # A row that the last transaction wrote may have the same microsecond as this statement.
        return now + timedelta(microseconds=1)

    async def _drain(
        self,
        report: SyncReport,
        cutoff: datetime | Listing,
        only: Sequence[str] | None,
        stop: asyncio.Event,
        on_load: Callable[[LoadReport, float], None],
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        polled = await self.poller.drain(
            stop=stop,
            cutoff=cutoff,
            workflows=only,
            since=since,
            until=until,
            wait_for_others=True,
            on_load=on_load,
        )
        report.load.add(polled.load)
        report.errors += polled.refused
