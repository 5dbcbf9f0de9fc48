"""The stored states of alerts, their episodes, the queue of messages, and the mutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from etl.alerts.knowledge import now
from etl.alerts.transitions import Alert, Notice, Transition
from etl.ledger.clock_set_back import AHEAD

_COLUMNS = Alert.__struct_fields__
_EXISTS = text("SELECT to_regclass('orchestra_etl.alert_evaluation') IS NOT NULL")

# If the database's clock was set back, the last evaluation lies in the future.
_CLAIM = """
    SELECT FROM orchestra_etl.alert_evaluation
    WHERE evaluated_at IS NULL OR evaluated_at <= clock_timestamp() - make_interval(secs => :every)
       OR evaluated_at > clock_timestamp()
    FOR UPDATE
"""
_WAIT, _TRY = text(_CLAIM), text(f"{_CLAIM} SKIP LOCKED")
_EVALUATED_AT = text("SELECT evaluated_at FROM orchestra_etl.alert_evaluation")
_EVALUATED = text("UPDATE orchestra_etl.alert_evaluation SET evaluated_at = :at")

_READ = text(f"SELECT {', '.join(_COLUMNS)} FROM orchestra_etl.alerts ORDER BY rule, subject")
_UNSETTLED = text("""
    SELECT EXISTS (SELECT FROM orchestra_etl.alerts WHERE state NOT IN ('ok', 'resolved'))
""")
_MUTES = text("SELECT rule, muted_until FROM orchestra_etl.alert_mutes WHERE muted_until > :at")
_MUTE = text("""
    INSERT INTO orchestra_etl.alert_mutes (rule, muted_until)
    VALUES (:rule, now() + make_interval(secs => :seconds))
    ON CONFLICT (rule) DO UPDATE SET muted_until = excluded.muted_until
    RETURNING muted_until
""")
_UNMUTE = text("DELETE FROM orchestra_etl.alert_mutes WHERE rule = :rule")
# Revision 0004 has no column `muted_at`. Its program leaves the time when it mutes a rule again,
# which may then be later than the end.
_MUTED_AT = "CAST(to_jsonb(m) ->> 'muted_at' AS timestamptz)"
_END_AHEAD = text(f"""
    DELETE FROM orchestra_etl.alert_mutes AS m
    WHERE {_MUTED_AT} > {AHEAD} AND muted_until > {_MUTED_AT}
    RETURNING rule, muted_until - {_MUTED_AT} AS length
""")
_NAMES = text("SELECT id, name FROM orchestra.workflows")

# One statement: when the pipeline stops, every rule becomes unknown for every workflow.
_WRITE = text(f"""
    INSERT INTO orchestra_etl.alerts ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)}
    FROM jsonb_populate_recordset(CAST(NULL AS orchestra_etl.alerts), CAST(:rows AS jsonb))
    ORDER BY rule, subject
    ON CONFLICT (rule, subject) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[2:])}
""")
_DELETE = text("""
    DELETE FROM orchestra_etl.alerts AS a
    USING unnest(CAST(:rules AS text[]), CAST(:subjects AS text[])) AS d (rule, subject)
    WHERE a.rule = d.rule AND a.subject = d.subject
""")
_FIRE = text("""
    INSERT INTO orchestra_etl.alert_episodes
        (rule, subject, sequence, workflow_id, node, model, organisation, label, metric, fired_at,
         value, threshold)
    VALUES (:rule, :subject, :sequence, :workflow_id, :node, :model, :organisation, :label, :metric,
            :since, :value, :threshold)
""")
_RESOLVE = text("""
    UPDATE orchestra_etl.alert_episodes SET resolved_at = :since
    WHERE rule = :rule AND subject = :subject AND sequence = :sequence
""")
_QUEUE = text("""
    INSERT INTO orchestra_etl.alert_notifications
        (rule, subject, sequence, kind, channel, key, content)
    VALUES (:rule, :subject, :sequence, :kind, :channel, :key, CAST(:content AS jsonb))
    ON CONFLICT (key) DO NOTHING
""")


class Change(msgspec.Struct, frozen=True):
    """A transition to be stored."""

    before: Alert | None
    after: Transition
    metric: str
    contents: tuple[Mapping[str, Any], ...]
    """The content of each message."""


def exist(connection: Connection) -> bool:
    """Return whether the schema has the tables of the alerts."""
    return bool(connection.execute(_EXISTS).scalar_one())


def claim(connection: Connection, *, every: float, wait: bool) -> datetime | None:
    """Take the right to evaluate until the transaction ends; return the database time.

    Args:
        connection: in a READ COMMITTED transaction.
        every: None is returned if the last evaluation was less than this many seconds ago.
        wait: whether to wait for another process that evaluates; otherwise None is returned.
    """
    claimed = connection.execute(_WAIT if wait else _TRY, {"every": every}).one_or_none()
    return None if claimed is None else now(connection)


def evaluated_at(connection: Connection) -> datetime | None:
    """Return when the rules were last evaluated; None: never."""
    found: datetime | None = connection.execute(_EVALUATED_AT).scalar_one_or_none()
    return found


def any_unsettled(connection: Connection) -> bool:
    """Return whether a stored state has to end because its rule was removed."""
    return bool(connection.execute(_UNSETTLED).scalar_one())


def read(connection: Connection) -> list[Alert]:
    """Return the stored states, ordered by rule and subject."""
    return [
        Alert(**{**row._mapping, "channels": tuple(row.channels)})
        for row in connection.execute(_READ)
    ]


def mutes(connection: Connection, at: datetime) -> dict[str, datetime]:
    """Return until when each muted rule is muted."""
    return {row.rule: row.muted_until for row in connection.execute(_MUTES, {"at": at})}


def mute(connection: Connection, rule: str, seconds: float) -> datetime:
    """Mute a rule from now on; return until when."""
    unmute(connection, rule)  # the default of a new row records the time
    found: datetime = connection.execute(_MUTE, {"rule": rule, "seconds": seconds}).scalar_one()
    return found


def unmute(connection: Connection, rule: str) -> bool:
    """End the mute of a rule; return whether it was muted."""
    return connection.execute(_UNMUTE, {"rule": rule}).rowcount > 0


def repair_mutes(connection: Connection) -> None:
    """Let mutes begin now if the database's clock was set back after they began."""
    for row in connection.execute(_END_AHEAD).all():
        mute(connection, row.rule, row.length.total_seconds())


def names(connection: Connection) -> dict[str, str]:
    """Return the workflows' names by id; a workflow without a name is missing."""
    return {row.id: row.name for row in connection.execute(_NAMES) if row.name}


def write(connection: Connection, changes: Sequence[Change], at: datetime) -> None:
    """Store transitions, and queue their messages; nothing is written for states that stay."""
    written = [one.after.alert for one in changes if one.after.alert not in (None, one.before)]
    deleted = [one.before for one in changes if one.before is not None and one.after.alert is None]
    if deleted:
        connection.execute(
            _DELETE,
            {"rules": [one.rule for one in deleted], "subjects": [one.subject for one in deleted]},
        )
    if written:
        encoded = msgspec.json.encode([one for one in written if one is not None])
        connection.execute(_WRITE, {"rows": encoded.decode()})
    fired, resolved, queued = [], [], []
    for one in changes:
        alert, before = one.after.alert, one.before
        if alert is None:
            continue
        if alert.state == "firing" and (before is None or before.sequence < alert.sequence):
            fired.append({**_values(alert), "metric": one.metric})
        if alert.state == "resolved" and before is not None and before.state == "firing":
            resolved.append(_values(alert))
        for message, content in zip(one.after.messages, one.contents, strict=True):
            queued.append(_queued(message, content))
    for statement, rows in ((_FIRE, fired), (_RESOLVE, resolved), (_QUEUE, queued)):
        if rows:
            connection.execute(statement, rows)
    connection.execute(_EVALUATED, {"at": at})


def _values(alert: Alert) -> dict[str, Any]:
    return {**msgspec.structs.asdict(alert), "channels": list(alert.channels)}


def _queued(message: Notice, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rule": message.alert.rule,
        "subject": message.alert.subject,
        "sequence": message.alert.sequence,
        "kind": message.kind,
        "channel": message.channel,
        "key": message.key,
        "content": msgspec.json.encode(content).decode(),
    }
