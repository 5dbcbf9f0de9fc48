"""Configured alerts: their rules, their evaluation and the delivery of their messages."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, text

from etl import logs
from etl.database import Database
from etl.settings import DEFAULT_INTERVAL, Settings
from etl.settings.alerts import AlertSettings

# Imported where they are used: they would delay the start of other commands.
if TYPE_CHECKING:
    from etl.alerts.channels import Channels
    from etl.alerts.delivery import Courier
    from etl.alerts.knowledge import Pauses
    from etl.alerts.rules import Rule

log = structlog.get_logger(__name__)


# Without rules, an evaluation only ends the states of removed rules. A table that has never had a
# row has no size; a schema without the table returns null.
_MAY_HAVE_STATES = text("SELECT pg_relation_size(to_regclass('orchestra_etl.alerts')) > 0")


async def evaluate(
    settings: Settings, database: Database, *, every: float = 0.0, wait: bool = False
) -> None:
    """Evaluate the rules of the alerts in a thread, and queue their messages.

    Without rules and stored states, this costs one short query.

    Args:
        settings: contain the rules.
        database: a schema without the tables of the alerts is left alone.
        every: do nothing if the last evaluation was less than this many seconds ago.
        wait: whether to wait for another process that evaluates.

    Raises:
        DatabaseError: the database cannot be used.
    """
    if not settings.alerts:
        found = await database.in_thread(lambda c: c.execute(_MAY_HAVE_STATES).scalar_one())
        if not found:
            return
    from etl.alerts import evaluation, states
    from etl.alerts.evaluation import EvaluationReport

    wanted, sweeps = rules(settings), pauses(settings)

    def work(connection: Connection) -> EvaluationReport:
        if not states.exist(connection):
            return EvaluationReport()
        return evaluation.evaluate(connection, wanted, sweeps, every=every, wait=wait)

    done = await database.in_thread(work)
    for one in done.findings:
        for message in one.messages:
            log.info(
                "alert_queued", kind=message.kind, rule=one.alert.rule, channel=message.channel,
                workflow=one.alert.workflow_id,
            )  # fmt: skip


def rules(settings: Settings) -> list[Rule]:
    """Return the rules of the alerts."""
    return [_rule(one) for one in settings.alerts]


def _rule(setting: AlertSettings) -> Rule:
    from etl.alerts.rules import Part, Rule

    return Rule(
        name=setting.name,
        metric=setting.metric,
        comparison=setting.comparison,
        limit=setting.limit,
        over=setting.over,
        workflow=setting.workflow,
        label=setting.label,
        part=Part(setting.organisation, setting.node, setting.model),
        min_runs=setting.min_runs,
        hold=setting.hold,
        notify=setting.notify,
        repeat=setting.repeat,
    )


def pauses(settings: Settings) -> Pauses:
    """Return the longest time between two sweeps of each workflow."""
    from etl.alerts.knowledge import Pauses

    return Pauses(
        {one.id: one.longest_interval if one.discover else None for one in settings.workflows},
        DEFAULT_INTERVAL if settings.api.all_workflows else None,
    )


async def deliver(settings: Settings, database: Database, stop: asyncio.Event) -> None:
    """Deliver the notifications of alerts that are due; end early once `stop` is set.

    A message that fails stays in the outbox, and the log says why.

    Raises:
        DatabaseError: the database cannot be used.
    """
    if (courier := open_courier(settings, database)) is not None:
        await courier.deliver_all(stop)


def open_courier(settings: Settings, database: Database) -> Courier | None:
    """Return the courier of the notifications; None if no channel is configured."""
    if not settings.notify:
        return None
    from etl.alerts.delivery import Courier

    return Courier(database, open_channels(settings), dashboards=settings.dashboards.url)


def open_channels(settings: Settings) -> Channels:
    """Return the configured channels; their URLs are read when they are used."""
    # Imported here, because only a delivery needs it.
    from etl.alerts.channels import Channels

    def url(name: str) -> str:
        """Read the channel's URL, and hide it from logs."""
        found = settings.read_channel_url(name)
        logs.add_secret(found)
        return found

    return Channels(
        {name: partial(url, name) for name in settings.notify}, trust_env=settings.api.trust_env
    )
