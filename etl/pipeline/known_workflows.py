"""The workflows that are known: those of the configuration, and those that the API lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from etl.database import Database
from etl.errors import ApiError, ApiUnavailable, KeyRefused, NotFound, RequestRefused
from etl.extract.client import OrchestraClient
from etl.ledger import (
    clock_set_back,
    conflicts,
    dead_letters,
    redaction,
    requests,
    state_map,
    sweeps,
    workflows,
)
from etl.pipeline.decoding import decoded
from etl.records import Workflow
from etl.transform.redact import Redaction
from etl.transform.states import StateMap
from etl.transform.workflows import decode_workflows, node_types_of

log = structlog.get_logger(__name__)

# Maximum number of workflows that are taken from one response: each costs three statements.
MAX_WORKFLOWS = 10_000


class WorkflowPlan(msgspec.Struct, frozen=True):
    """The configuration of a workflow."""

    id: str
    name: str | None = None
    discover: bool = True
    """Whether its run list is swept."""
    runs: tuple[str, ...] = ()
    """Ids of runs that the configuration names."""
    labels: Mapping[str, str] = {}


class PrepareReport(msgspec.Struct, frozen=True):
    """The result of the preparation of a sync."""

    problem: ApiError | None
    """Why the API did not list the workflows; None if it did, or without `api.all_workflows`."""
    dead_letters: int
    """New dead letters of runs in the configuration, and of workflows that cannot be requested."""


class KnownWorkflows:
    """The known workflows, in the ledger and by their plans."""

    def __init__(
        self,
        database: Database,
        client: OrchestraClient,
        plans: Sequence[WorkflowPlan],
        *,
        all_workflows: bool,
        metadata_every: float,
        node_types: dict[str, Mapping[str, str]],
        states: StateMap,
        redaction: Redaction,
    ) -> None:
        """Know the configured workflows; `prepare` enters them, and adds those that the API lists.

        Args:
            database: holds the ledger.
            client: requests `GET /workflows`.
            plans: the configured workflows.
            all_workflows: also know workflows that the API lists but that are not configured.
            metadata_every: seconds between two requests of `GET /workflows`.
            node_types: filled by `prepare`: node types by node id, by workflow id.
            states: the state map.
            redaction: the redaction rules.
        """
        self._run = database.in_thread
        self._client = client
        self.plans = {plan.id: plan for plan in plans}
        """The plan of each known workflow, by its id."""
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
        plans = list(self.plans.values())

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
            named = list(self.plans)
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
            self.plans.setdefault(workflow.id, WorkflowPlan(workflow.id))
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
        return sorted(listed, key=lambda one: one.id not in self.plans)[:MAX_WORKFLOWS]
