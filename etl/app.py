"""The composition root: builds the parts from the settings. Importing it builds nothing."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
from psycopg.conninfo import conninfo_to_dict

from etl import alerting, exporting, logs, schema
from etl.database import INTERACTIVE, Database
from etl.errors import ConfigurationError
from etl.ledger import rebuilds
from etl.settings import DEFAULT_INTERVAL, EMBEDDED, Settings
from etl.settings.values import is_secret
from etl.signals import stop_on_signals
from etl.transform.states import StateMap

# Only some commands use what these import. Imported here, they would delay the start of all.
if TYPE_CHECKING:
    from etl.extract.client import OrchestraClient
    from etl.pipeline.budget import RequestBudget
    from etl.pipeline.known_workflows import WorkflowPlan
    from etl.pipeline.poll import Poller
    from etl.pipeline.sync import Syncer
    from etl.reports.status import Status

log = structlog.get_logger(__name__)

# Seconds. A workflow that is this much behind its own schedule counts as failing. The delay of a
# restart, of a deployment, or of an hourly cron job in place of the service is shorter.
GRACE = 7200.0


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Provide the URL of the configured database; an embedded server runs until the block ends.

    Raises:
        ConfigurationError: the database's URL cannot be used.
        DatabaseError: the embedded server does not start.
    """
    if settings.database_url() != EMBEDDED:
        yield _server_url(settings)
        return
    from etl.embedded.postgres import EmbeddedPostgres, default_home

    with EmbeddedPostgres(default_home()) as server:
        yield server.url


def _server_url(settings: Settings) -> str:
    """Read the database URL, and hide its password from logs.

    Called for every connection, so that a changed file takes effect.
    """
    url = settings.database_url()
    if url == EMBEDDED:
        raise ConfigurationError(f"the database URL has become {EMBEDDED}: restart to use that")
    for name, value in conninfo_to_dict(url).items():
        if is_secret(name):
            logs.add_secret(str(value))
    return url


@contextmanager
def open_database(settings: Settings, *, patient: bool = False) -> Iterator[Database]:
    """Open the configured database, and migrate or check its schema.

    The schema is migrated if the database is embedded, or if `database.migrate_on_start` is set.

    Args:
        settings: name the database and its limits.
        patient: wait for an unavailable database as long as `database.patience` says, as unattended
            work can. Otherwise wait only some seconds.

    Raises:
        ConfigurationError: the database's URL cannot be used.
        DatabaseUnavailable: the database does not respond.
        SchemaMismatch: the schema is missing, too old or too new.
    """
    embedded = settings.database_url() == EMBEDDED
    with database_url(settings) as url:
        database = Database(
            url if embedded else partial(_server_url, settings),
            statement_timeout=settings.database.statement_timeout,
            lock_timeout=settings.database.lock_timeout,
            patience=settings.database.patience,
            outage_patience=None if patient else INTERACTIVE,
        )
        try:
            may_migrate = embedded or settings.database.migrate_on_start
            # If a newer version has migrated the schema, its grants must not be changed here.
            if may_migrate and not schema.read(database).is_current and schema.upgrade(url):
                from etl.admin import grants

                grants.refresh(database)
                if (due := database.transaction(rebuilds.due)) is not None:
                    log.warning("rebuild_required", problem=due.advice)
            schema.check(database)
            yield database
        finally:
            database.close()


@asynccontextmanager
async def open_client(
    settings: Settings,
    budget: RequestBudget | None = None,
    on_request: Callable[[str, str, float], None] = lambda endpoint, status, seconds: None,
) -> AsyncIterator[OrchestraClient]:
    """Provide a client of the configured API; it calls `on_request` after every attempt.

    Raises:
        ConfigurationError: there is no key, or the base URL cannot be used.
    """
    from etl.extract.client import OrchestraClient

    api = settings.api

    def key() -> str:
        """Read the key, and hide it from logs.

        Called for every request, so that a changed key file takes effect.
        """
        found = settings.read_api_key()
        logs.add_secret(found)
        return found

    key()
    client = OrchestraClient(
        api.base_url,
        api_key=key,
        header_name=api.header_name,
        concurrency=api.concurrency,
        deadline=api.deadline,
        attempts=api.attempts,
        max_response_bytes=api.max_response_bytes,
        trust_env=api.trust_env,
        before_request=budget.acquire if budget is not None else None,
        on_throttled=budget.hold_off if budget is not None else None,
        on_request=on_request,
    )
    try:
        yield client
    finally:
        await client.aclose()


class Jobs(msgspec.Struct, frozen=True):
    """The parts that a command works with."""

    client: OrchestraClient
    syncer: Syncer
    poller: Poller


@asynccontextmanager
async def open_jobs(
    settings: Settings,
    database: Database,
    *,
    on_request: Callable[[str, str, float], None] = lambda endpoint, status, seconds: None,
) -> AsyncIterator[Jobs]:
    """Provide the sweep and the poll for a database and the configured API.

    The API client calls `on_request` after every attempt.

    Raises:
        ConfigurationError: there is no key, the state map names an unknown state, or the redaction
            key cannot be read.
    """
    # Imported here: they load the HTTP client, a quarter of the start of a command without it.
    from etl.ledger.clock import DatabaseClock
    from etl.ledger.lifecycle import PollingPolicy
    from etl.pipeline.budget import RequestBudget
    from etl.pipeline.known_workflows import KnownWorkflows
    from etl.pipeline.loading import Loader
    from etl.pipeline.poll import Poller
    from etl.pipeline.reading import Reader
    from etl.pipeline.sweep import Sweeper
    from etl.pipeline.sync import Syncer
    from etl.redacting import open_redaction

    polling = settings.polling
    clock = DatabaseClock()
    node_types: dict[str, Mapping[str, str]] = {}
    states = StateMap(settings.states)
    rules = open_redaction(settings)
    budget = RequestBudget(database, rate=settings.api.requests_per_second)
    async with open_client(settings, budget, on_request) as client:
        sweeper = Sweeper(
            database,
            client,
            clock,
            rules,
            lease=polling.lease,
            page_size=settings.api.page_size,
            reconcile_pages=polling.reconcile_pages,
            reconcile_every=polling.reconcile,
        )
        policy = PollingPolicy(
            settle_after=polling.settle_after,
            open_interval_min=polling.open_interval_min,
            open_interval_max=polling.open_interval_max,
            give_up_after=polling.give_up_after,
        )
        poller = Poller(
            database,
            Reader(
                client=client, clock=clock, states=states, node_types=node_types, redaction=rules
            ),
            Loader(database, policy, states, rules),
            clock,
            concurrency=settings.api.concurrency,
            lease=polling.lease,
        )
        workflows = KnownWorkflows(
            database,
            client,
            plans(settings),
            all_workflows=settings.api.all_workflows,
            metadata_every=polling.reconcile,
            node_types=node_types,
            states=states,
            redaction=rules,
        )
        syncer = Syncer(
            database=database, sweeper=sweeper, poller=poller, clock=clock, workflows=workflows
        )
        yield Jobs(client=client, syncer=syncer, poller=poller)


async def serve(settings: Settings, database: Database) -> None:
    """Run the service until a signal ends it.

    Raises:
        ConfigurationError: a setting is wrong, or the address for health and metrics cannot be
            used.
    """
    # Imported here because only the service needs the scheduler, the HTTP server and the metrics:
    # they would delay the start of every other command by 55 ms.
    from etl import maintenance
    from etl.alerts import evaluation
    from etl.service.daemon import Daemon, Schedule
    from etl.service.health import Health

    # The start collects little garbage (see `etl.cli.main`). A service collects it more often, but
    # never looks again at what the imports have created.
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    health = Health()
    metrics = health.metrics
    metrics.watch_connections(database.connections)
    health.watch_database(lambda: database.problem, lambda: database.is_unavailable)
    schedules = [Schedule(one.id, one.interval, one.cron) for one in settings.workflows]
    if settings.export.every is not None:
        exporting.lake(settings)
    async with (
        open_jobs(settings, database, on_request=metrics.count_request) as jobs,
        health.served(settings.service.host, settings.service.port),
    ):
        daemon = Daemon(
            jobs.syncer,
            health,
            schedules,
            default_interval=DEFAULT_INTERVAL,
            refresh=partial(maintenance.refresh_rollups, settings, database),
            evaluate=partial(alerting.evaluate, settings, database, every=evaluation.EVERY),
            status=partial(_checked_status, settings, database),
            courier=alerting.open_courier(settings, database),
            export=None
            if settings.export.every is None
            else partial(exporting.export, settings, database),
            export_every=settings.export.every or 0.0,
        )
        with stop_on_signals() as stop:
            await daemon.run(stop)


def _checked_status(settings: Settings, database: Database) -> Status:
    # The schema may change while the service runs.
    schema.read(database).check()
    return read_status(settings, database)


def read_status(settings: Settings, database: Database, max_age: float | None = None) -> Status:
    """Read the status of every workflow.

    `max_age` (seconds) replaces the limits that follow from the schedules.

    Raises:
        DatabaseError: the database cannot be used.
    """
    from etl.reports import status
    from etl.reports.verdict import WatchedWorkflow

    watched = [
        WatchedWorkflow(
            one.id,
            GRACE + one.longest_interval if max_age is None else max_age,
            one.name,
            one.discover,
        )
        for one in settings.workflows
    ]
    read = partial(
        status.read,
        watched=watched,
        all_workflows=settings.api.all_workflows,
        max_age=max_age or GRACE,
        rules=[one.name for one in settings.alerts],
        channels=list(settings.notify),
    )
    return database.transaction(read)


def plans(settings: Settings) -> list[WorkflowPlan]:
    """Return the configuration of each workflow."""
    from etl.pipeline.known_workflows import WorkflowPlan

    return [
        WorkflowPlan(
            id=workflow.id,
            name=workflow.name,
            discover=workflow.discover,
            runs=tuple(workflow.runs),
            labels=workflow.labels,
        )
        for workflow in settings.workflows
    ]
