"""The state of the alerts on runs, their history, and the messages to be delivered."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from etl.tables.columns import OPERATIONS, Id, Time, column, metadata, now


def _subject(*, key: bool) -> list[Column[Any]]:
    return [
        column("rule", Text(), "Name of the rule.", primary_key=key, nullable=False),
        column(
            "subject",
            Id,
            "What the rule was evaluated for: the workflow's id, followed by the node, model, "
            "organisation and label that the rule names.",
            primary_key=key,
            nullable=False,
        ),
    ]


def _names() -> list[Column[Any]]:
    return [
        column("workflow_id", Id, "The workflow.", nullable=False),
        column("node", Text(), "The node that the rule names; null: none."),
        column("model", Text(), "The model that the rule names; null: none."),
        column("organisation", Text(), "The organisation that the rule names; null: none."),
        column("label", Text(), "The label that the rule names; null: none."),
    ]


alerts = Table(
    "alerts",
    metadata,
    *_subject(key=True),
    *_names(),
    column(
        "state",
        Text(),
        "ok, pending (a breach that has not lasted long enough), firing, resolved, or unknown.",
        nullable=False,
    ),
    column("since", Time, "When the state began.", nullable=False),
    column(
        "value", Double(), "The metric, in seconds for durations; null: the metric has no value."
    ),
    column("threshold", Double(), "The bound that the metric is compared with; null: unknown."),
    column(
        "reason",
        Text(),
        "Why the rule could not be evaluated; null: it was evaluated. A firing alert continues to"
        " fire meanwhile.",
    ),
    column(
        "channels",
        ARRAY(Text()),
        "The channels for which the message that the alert fires was queued.",
        nullable=False,
    ),
    column("notified_at", Time, "When the last message was queued; null: no message was queued."),
    column(
        "reminders",
        Integer(),
        "Reminders queued since it fired.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "sequence",
        BigInteger(),
        "How many times the alert has fired.",
        nullable=False,
        server_default=text("0"),
    ),
    schema=OPERATIONS,
    comment="The state of each rule and subject. A subject that was always ok has no row.",
)

alert_episodes = Table(
    "alert_episodes",
    metadata,
    *_subject(key=True),
    column(
        "sequence",
        BigInteger(),
        "Number of this firing of the rule and subject, from 1.",
        primary_key=True,
        autoincrement=False,
    ),
    *_names(),
    column("metric", Text(), "The metric.", nullable=False),
    column("fired_at", Time, "When it fired.", nullable=False),
    column("value", Double(), "The metric when it fired, in seconds for durations."),
    column("threshold", Double(), "The threshold when it fired."),
    column("resolved_at", Time, "When it was resolved; null: it still fires."),
    Index("alert_episodes_fired_at_idx", "fired_at"),
    schema=OPERATIONS,
    comment="One row for each time that an alert fired, muted or not.",
)

alert_notifications = Table(
    "alert_notifications",
    metadata,
    column("id", BigInteger(), "Order of the messages.", Identity(always=True), primary_key=True),
    *_subject(key=False),
    column(
        "sequence",
        BigInteger(),
        "Number of the firing that the message is about, as in alert_episodes.",
        nullable=False,
    ),
    column("kind", Text(), "firing, reminder or resolved.", nullable=False),
    column("channel", Text(), "The channel that the message is sent to.", nullable=False),
    column(
        "key",
        Text(),
        "Identifier of the message, equal in every delivery, so that a receiver can detect a "
        "repetition.",
        nullable=False,
    ),
    column(
        "content",
        JSONB,
        "The values and names in the message, from the evaluation.",
        nullable=False,
    ),
    now("created_at", "When it was queued."),
    column(
        "attempts",
        Integer(),
        "Attempts to deliver it.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "next_attempt_at",
        Time,
        "When the next delivery is attempted; null: the message was delivered or abandoned.",
        server_default=text("now()"),
    ),
    column(
        "leased_until",
        Time,
        "When the claim of the current attempt ends; null: no attempt is running.",
    ),
    column(
        "delivered_at", Time, "When the message was delivered; null: it has not been delivered."
    ),
    column(
        "failure",
        Text(),
        "Class of the last attempt's error; null: no attempt failed, or the last one succeeded.",
    ),
    UniqueConstraint("key"),
    Index(
        "alert_notifications_next_attempt_at_idx",
        "next_attempt_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
    ),
    schema=OPERATIONS,
    comment="A queue: the messages about alerts, each delivered at least once.",
)

alert_mutes = Table(
    "alert_mutes",
    metadata,
    column("rule", Text(), "Name of the rule.", primary_key=True),
    column("muted_until", Time, "Time until which the rule queues no message.", nullable=False),
    column(
        "muted_at",
        Time,
        "When the rule was muted, or when its mute was last repaired after a change of the clock.",
        nullable=False,
        server_default=text("now()"),
    ),
    schema=OPERATIONS,
    comment="Muted rules. They are evaluated, but queue no messages.",
)

alert_evaluation = Table(
    "alert_evaluation",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column("evaluated_at", Time, "When the rules were last evaluated."),
    column(
        "definitions",
        JSONB,
        "By rule and hash of its definition: when the definition was last evaluated, in seconds "
        "since 1970. The time can be up to five minutes too early. Entries older than 15 minutes "
        "do not count.",
        nullable=False,
        server_default=text("'{}'::jsonb"),
    ),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="When the alerts were last evaluated. A process locks the row while it evaluates.",
)
