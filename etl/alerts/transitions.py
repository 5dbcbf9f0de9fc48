"""What follows from a verdict: the next state of a rule and subject, and the messages to send.

An alert that fires is resolved only by a verdict that the rule is not breached. While the verdict
is unknown, the alert keeps firing, and its `reason` says why. The time of a breach counts from the
first of consecutive verdicts; an unknown verdict between them restarts it. While processes evaluate
different definitions of a rule (`definitions`), its alerts can begin but not end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from etl.alerts.definitions import KEPT
from etl.alerts.rules import Rule
from etl.alerts.verdicts import Verdict

_CONTESTED = f"a process with other settings evaluated the rule in the last {KEPT / 60:g} minutes"

State = Literal["ok", "pending", "firing", "resolved", "unknown"]
Kind = Literal["firing", "reminder", "resolved"]


class Alert(msgspec.Struct, frozen=True):
    """The state of a rule and subject, as it is stored."""

    rule: str
    subject: str
    workflow_id: str
    state: State
    since: datetime
    node: str | None = None
    model: str | None = None
    organisation: str | None = None
    label: str | None = None
    value: float | None = None
    threshold: float | None = None
    reason: str | None = None
    channels: tuple[str, ...] = ()
    """The channels for which the message that the alert fires was queued."""
    notified_at: datetime | None = None
    reminders: int = 0
    sequence: int = 0


class Notice(msgspec.Struct, frozen=True):
    """A message to be sent to a channel."""

    kind: Kind
    channel: str
    alert: Alert
    """The state that the message is about; for `resolved`, the new one."""

    @property
    def key(self) -> str:
        """Identifies the message, also in a repetition: 32 hexadecimal digits."""
        one = self.alert
        number = one.reminders if self.kind == "reminder" else 0
        parts = (one.rule, one.subject, str(one.sequence), self.kind, str(number), self.channel)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Transition(msgspec.Struct, frozen=True):
    """The change of a state."""

    alert: Alert | None
    """The new state; None: the subject is ok and always was, so that nothing is stored."""
    messages: tuple[Notice, ...] = ()


def follow(
    stored: Alert | None,
    rule: Rule,
    workflow_id: str,
    verdict: Verdict,
    at: datetime,
    *,
    is_muted: bool,
    is_contested: bool,
) -> Transition:
    """Return what follows from a verdict.

    Args:
        stored: the state until now; None: the subject was always ok.
        rule: the rule.
        workflow_id: the workflow.
        verdict: the verdict.
        at: database time of the verdict.
        is_muted: whether to send no message, except that an alert is resolved.
        is_contested: whether another definition of the rule was evaluated recently, so that this
            verdict must not end a breach.
    """
    before = stored or Alert(
        rule=rule.name,
        subject=rule.subject(workflow_id),
        workflow_id=workflow_id,
        state="ok",
        since=at,
        label=rule.label,
        **msgspec.structs.asdict(rule.part),
    )
    match verdict.is_breached:
        case True:
            return _breached(before, rule, verdict, at, is_muted=is_muted)
        case False if is_contested and before.state in ("pending", "firing"):
            return keep(before)
        case False:
            return _holding(before, verdict, at)
        case None:
            return _unknown(before, verdict, at)


def end(stored: Alert, at: datetime) -> Transition:
    """Return what follows if no rule covers the subject any more."""
    verdict = Verdict(False, stored.value, stored.threshold)
    ended = _holding(stored, verdict, at)
    if ended.alert is None or stored.state != "firing":
        return ended
    reason = "no rule covers it any more"
    alert = msgspec.structs.replace(ended.alert, reason=reason)
    return Transition(alert, _messages("resolved", stored.channels, alert))


def keep(stored: Alert) -> Transition:
    """Return what follows if the rule of the state may belong to another process."""
    if stored.state != "firing":
        return Transition(stored)
    return Transition(msgspec.structs.replace(stored, reason=_CONTESTED))


def _breached(
    before: Alert, rule: Rule, verdict: Verdict, at: datetime, *, is_muted: bool
) -> Transition:
    found = msgspec.structs.replace(
        before, value=verdict.value, threshold=verdict.threshold, reason=None
    )
    if before.state != "firing":
        # A later time than now shows that the database's clock was set back.
        since = min(before.since, at) if before.state == "pending" else at
        if at - since < timedelta(seconds=rule.hold):
            return Transition(msgspec.structs.replace(found, state="pending", since=since))
        found = msgspec.structs.replace(
            found,
            state="firing",
            since=at,
            channels=(),
            notified_at=None,
            reminders=0,
            sequence=before.sequence + 1,
        )
    if found.notified_at is not None and found.notified_at > at:
        # The database's clock was set back: the next reminder is due after `repeat` from now on.
        found = msgspec.structs.replace(found, notified_at=at)
    if is_muted:
        return Transition(found)
    # Channels without a message: all at first and after a mute, then those that were added.
    new = tuple(channel for channel in rule.notify if channel not in found.channels)
    notified = tuple(channel for channel in rule.notify if channel in found.channels)
    is_due = (
        rule.repeat is not None
        and found.notified_at is not None
        and at - found.notified_at >= timedelta(seconds=rule.repeat)
    )
    if new:
        found = msgspec.structs.replace(found, channels=(*found.channels, *new), notified_at=at)
    messages = _messages("firing", new, found)
    if is_due and notified:
        found = msgspec.structs.replace(found, reminders=found.reminders + 1, notified_at=at)
        messages += _messages("reminder", notified, found)
    return Transition(found, messages)


def _holding(before: Alert, verdict: Verdict, at: datetime) -> Transition:
    """Return what follows if the rule is not breached."""
    if before.state == "firing":
        found = msgspec.structs.replace(
            before,
            state="resolved",
            since=at,
            value=verdict.value,
            threshold=verdict.threshold,
            reason=None,
        )
        return Transition(found, _messages("resolved", before.channels, found))
    if not before.sequence:
        return Transition(None)
    if before.state in ("ok", "resolved"):
        return Transition(before)
    found = msgspec.structs.replace(
        before, state="ok", since=at, value=None, threshold=None, reason=None
    )
    return Transition(found)


def _unknown(before: Alert, verdict: Verdict, at: datetime) -> Transition:
    if before.state == "firing":
        return Transition(msgspec.structs.replace(before, reason=verdict.reason))
    found = msgspec.structs.replace(
        before,
        state="unknown",
        since=before.since if before.state == "unknown" else at,
        value=verdict.value,
        threshold=verdict.threshold,
        reason=verdict.reason,
    )
    return Transition(found)


def _messages(kind: Kind, channels: Sequence[str], alert: Alert) -> tuple[Notice, ...]:
    return tuple(Notice(kind, channel, alert) for channel in channels)
