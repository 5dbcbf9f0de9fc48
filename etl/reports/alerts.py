"""The alerts that fire now, and the messages that could not be delivered yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

EXAMPLES = 5
"""Maximum number of firing subjects of a rule in a report."""


class FiringAlert(msgspec.Struct, frozen=True):
    """A subject for which a rule fires."""

    subject: str
    workflow_id: str
    workflow_name: str | None
    since: datetime
    value: float | None
    """The metric when it was last evaluated, in seconds for durations."""
    threshold: float | None
    reason: str | None
    """Why the present value is not known; None: it is."""


class RuleStatus(msgspec.Struct, frozen=True):
    """A rule: one of the configuration, or a former one that still fires."""

    name: str
    firing: int
    """Subjects for which it fires."""
    muted_until: datetime | None
    examples: tuple[FiringAlert, ...]
    """The subjects for which it has fired longest."""


class ChannelStatus(msgspec.Struct, frozen=True):
    """A channel of the configuration."""

    name: str
    undelivered: int
    """Messages that wait for another attempt."""
    failure: str | None
    """Why the last attempt failed, without the channel's URL; None: no attempt has failed."""


class AlertsStatus(msgspec.Struct, frozen=True):
    """The alerts on runs."""

    rules: tuple[RuleStatus, ...] = ()
    channels: tuple[ChannelStatus, ...] = ()


_EXISTS = text("SELECT to_regclass('orchestra_etl.alerts') IS NOT NULL")

_RULES = text("""
    SELECT r.name, count(a.rule) AS firing, max(m.muted_until) AS muted_until
    FROM (
        SELECT name, ordinal
        FROM unnest(CAST(:rules AS text[])) WITH ORDINALITY AS c (name, ordinal)
        UNION ALL
        SELECT DISTINCT rule, NULL::bigint FROM orchestra_etl.alerts
        WHERE state = 'firing' AND NOT rule = ANY (CAST(:rules AS text[]))
    ) AS r
    LEFT JOIN orchestra_etl.alerts AS a ON a.rule = r.name AND a.state = 'firing'
    LEFT JOIN orchestra_etl.alert_mutes AS m ON m.rule = r.name AND m.muted_until > now()
    GROUP BY r.name, r.ordinal
    ORDER BY r.ordinal NULLS LAST, r.name
""")

_FIRING = text("""
    SELECT f.rule, f.subject, f.workflow_id, w.name AS workflow_name, f.since, f.value, f.threshold,
           f.reason
    FROM (
        SELECT *, row_number() OVER (PARTITION BY rule ORDER BY since, subject) AS ordinal
        FROM orchestra_etl.alerts WHERE state = 'firing'
    ) AS f
    LEFT JOIN orchestra.workflows AS w ON w.id = f.workflow_id
    WHERE f.ordinal <= :limit
    ORDER BY f.rule, f.ordinal
""")

_CHANNELS = text("""
    SELECT c.name, count(n.id) FILTER (WHERE n.failure IS NOT NULL) AS undelivered,
           (array_agg(n.failure ORDER BY n.next_attempt_at DESC)
                FILTER (WHERE n.failure IS NOT NULL))[1] AS failure
    FROM unnest(CAST(:channels AS text[])) WITH ORDINALITY AS c (name, ordinal)
    LEFT JOIN orchestra_etl.alert_notifications AS n
      ON n.channel = c.name AND n.next_attempt_at IS NOT NULL
    GROUP BY c.name, c.ordinal
    ORDER BY c.ordinal
""")


def read_alerts(
    connection: Connection, rules: Sequence[str], channels: Sequence[str]
) -> AlertsStatus:
    """Read what fires and what could not be delivered; empty before the tables exist.

    Args:
        connection: in a transaction.
        rules: the names of the configured rules.
        channels: the names of the configured channels.
    """
    if not connection.execute(_EXISTS).scalar_one():
        return AlertsStatus()
    firing: dict[str, list[FiringAlert]] = {}
    for row in connection.execute(_FIRING, {"limit": EXAMPLES}):
        firing.setdefault(row.rule, []).append(
            FiringAlert(
                subject=row.subject,
                workflow_id=row.workflow_id,
                workflow_name=row.workflow_name,
                since=row.since,
                value=row.value,
                threshold=row.threshold,
                reason=row.reason,
            )
        )
    return AlertsStatus(
        rules=tuple(
            RuleStatus(row.name, row.firing, row.muted_until, tuple(firing.get(row.name, ())))
            for row in connection.execute(_RULES, {"rules": list(rules)})
        ),
        channels=tuple(
            ChannelStatus(row.name, row.undelivered, row.failure)
            for row in connection.execute(_CHANNELS, {"channels": list(channels)})
        ),
    )
