"""The delivery of notifications from the outbox `orchestra_etl.alert_notifications`.

The evaluation writes a notification in the transaction that changes the alert. A delivery claims it
for the time of a lease, sends it outside any transaction, and then marks it as delivered. If the
process crashes in between, the lease ends and the message is sent again, with the same key: at
least once. A process that is stopped releases its claim. Replicas skip each other's leases. The
notifications of one alert keep their order in each channel, so that "resolved" never arrives before
"firing".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec
import structlog
from sqlalchemy import Connection, Row, text

from etl.alerts.channels import DEADLINE, Channels, NotDelivered
from etl.alerts.content import Content, Evidence
from etl.alerts.evidence import evidence_for
from etl.alerts.message import Kind, Message, compose
from etl.database import Database
from etl.errors import ConfigurationError

_Row = Row[tuple[object, ...]]
log = structlog.get_logger(__name__)

# Seconds. Longer than a message can take: its evidence, and the deadline for sending it.
LEASE = 3 * DEADLINE
# Seconds for which a message that is being sent may go on after a stop. Then its claim is released.
STOP_PATIENCE = 2.0
# Seconds until the first retry. The pause doubles with each attempt, up to the longest one.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
# The longest pause in seconds that a receiver can request.
LONGEST_REQUESTED_PAUSE = 3600.0
# Seconds for which the outbox keeps what was delivered or given up.
KEPT = 30 * 86400.0
# Seconds after which a notification that no channel accepted is given up: it is out of date.
GIVE_UP_AFTER = 86400.0

_EXISTS = text("SELECT to_regclass('orchestra_etl.alert_notifications') IS NOT NULL")

_EXPIRE = text("""
    UPDATE orchestra_etl.alert_notifications
    SET next_attempt_at = NULL, leased_until = NULL,
        failure = CASE WHEN channel = ANY (CAST(:channels AS text[]))
                       THEN failure ELSE 'the channel is not configured' END
    WHERE next_attempt_at <= now() AND (leased_until IS NULL OR leased_until < now())
      AND created_at < now() - make_interval(secs => :give_up_after)
    RETURNING rule, channel, kind
""")

# The first attempt never waits. A time twice as far in the future as any lease or pause shows that
# the database's clock was set back. Twice, because `now()` of a transaction that began earlier is
# earlier.
_CLAIM = text("""
    WITH due AS (
        SELECT n.id
        FROM orchestra_etl.alert_notifications AS n
        WHERE n.channel = :channel
          AND (n.next_attempt_at <= now() OR (n.attempts = 0 AND n.next_attempt_at IS NOT NULL)
               OR n.next_attempt_at > now() + make_interval(secs => 2 * :longest_pause))
          AND ((n.leased_until IS NULL OR n.leased_until < now())
               OR n.leased_until > now() + make_interval(secs => 2 * :lease))
          AND NOT EXISTS (
              SELECT FROM orchestra_etl.alert_notifications AS earlier
              WHERE earlier.rule = n.rule AND earlier.subject = n.subject
                AND earlier.channel = n.channel AND earlier.id < n.id
                AND earlier.next_attempt_at IS NOT NULL)
        ORDER BY n.next_attempt_at, n.id
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE orchestra_etl.alert_notifications AS n
    SET leased_until = now() + make_interval(secs => :lease), attempts = n.attempts + 1
    FROM due
    WHERE n.id = due.id
    RETURNING n.id, n.key, n.rule, n.kind, n.channel, n.attempts, n.content::text AS content
""")

# `attempts` identifies the claim: if its lease has ended, the next claim decides.
_RELEASE = text("""
    UPDATE orchestra_etl.alert_notifications SET leased_until = NULL
    WHERE id = :id AND attempts = :attempts AND delivered_at IS NULL
""")

_DELIVERED = text("""
    UPDATE orchestra_etl.alert_notifications
    SET delivered_at = now(), next_attempt_at = NULL, leased_until = NULL, failure = NULL
    WHERE id = :id AND delivered_at IS NULL
""")

_FORGET = text("""
    DELETE FROM orchestra_etl.alert_notifications
    WHERE next_attempt_at IS NULL AND created_at < now() - make_interval(secs => :kept)
""")

_FAILED = text("""
    UPDATE orchestra_etl.alert_notifications
    SET next_attempt_at = CASE WHEN created_at >= now() - make_interval(secs => :give_up_after)
                               THEN now() + make_interval(secs => :pause) END,
        leased_until = NULL, failure = :failure
    WHERE id = :id AND attempts = :attempts AND delivered_at IS NULL
""")


class Delivery(msgspec.Struct, frozen=True):
    """One attempt to deliver a notification."""

    rule: str
    channel: str
    kind: Kind
    failure: str | None = None
    """Why it failed, without the channel's URL; None: it was delivered."""


class Courier:
    """Delivers the notifications that are due."""

    def __init__(
        self,
        database: Database,
        channels: Channels,
        *,
        dashboards: str | None = None,
    ) -> None:
        """Prepare the delivery.

        Args:
            database: holds the outbox, and the history that messages are completed from.
            channels: the configured channels.
            dashboards: the base URL of Superset, for links; None: no links.
        """
        self._database = database
        self._channels = channels
        self._dashboards = dashboards
        self._outbox_exists = False

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the configured channels."""
        return self._channels.names

    async def deliver_all(self, stop: asyncio.Event | None = None) -> list[Delivery]:
        """Deliver to every channel what is due, side by side (see `deliver`)."""
        tasks = [asyncio.create_task(self.deliver(one, stop)) for one in self.channels]
        try:
            done = await asyncio.gather(*tasks)
        finally:
            # After an error of one channel, no delivery of another may go on in the background.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [one for deliveries in done for one in deliveries]

    async def deliver(self, channel: str, stop: asyncio.Event | None = None) -> list[Delivery]:
        """Deliver to one channel what is due, until one attempt fails, and return the attempts.

        An idle check costs two index scans. Once `stop` is set, a message that is being sent has
        `STOP_PATIENCE` to finish, and no other begins.

        Raises:
            DatabaseError: the database cannot be used. What has been sent by then may be sent
                again.
        """
        stop = stop or asyncio.Event()
        done: list[Delivery] = []
        while not stop.is_set() and not (done and done[-1].failure):
            given_up, claimed = await self._database.in_thread(lambda c: self._claim(c, channel))
            for row in given_up:
                log.error("notification_given_up", **row._mapping)
            if claimed is None:
                break
            attempt = asyncio.create_task(self._attempt(claimed))
            try:
                finished = await _finished(attempt, stop)
            finally:
                # No effect on a finished attempt.
                attempt.cancel()
                await asyncio.wait({attempt})
            if not finished:
                await self._release(claimed)
                break
            done.append(attempt.result())
        return done

    async def _release(self, row: _Row) -> None:
        """Let the next delivery claim a notification at once."""
        parameters = {"id": row.id, "attempts": row.attempts}
        await self._database.in_thread(lambda c: c.execute(_RELEASE, parameters))

    async def _attempt(self, row: _Row) -> Delivery:
        """Send a claimed notification and record the result."""
        message = await self._database.in_thread(lambda c: self._complete(c, row))
        wait: float | None = None
        failure: str | None = None
        try:
            await self._channels.send(row.channel, message)
        except NotDelivered as error:
            failure, wait = str(error), error.retry_after
        except ConfigurationError as error:
            failure = str(error)
        if failure is None:
            await self._database.in_thread(lambda c: self._settle(c, row))
            log.info("notification_delivered", rule=row.rule, channel=row.channel, kind=row.kind)
        else:
            parameters = {
                "id": row.id,
                "attempts": row.attempts,
                "failure": failure,
                "pause": pause_after(row.attempts, wait),
                "give_up_after": GIVE_UP_AFTER,
            }
            await self._database.in_thread(lambda c: c.execute(_FAILED, parameters))
            log.warning(
                "notification_failed",
                rule=row.rule,
                channel=row.channel,
                kind=row.kind,
                attempts=row.attempts,
                problem=failure,
            )
        return Delivery(row.rule, row.channel, row.kind, failure)

    def _claim(self, connection: Connection, channel: str) -> tuple[Sequence[_Row], _Row | None]:
        """Claim the channel's next notification; return also those that are given up."""
        if not self._outbox_exists and not connection.execute(_EXISTS).scalar_one():
            # The schema is of an earlier revision, with which the rest of the service works.
            return (), None
        self._outbox_exists = True
        parameters = {"channels": list(self.channels), "give_up_after": GIVE_UP_AFTER}
        given_up = connection.execute(_EXPIRE, parameters).all()
        claimed = connection.execute(
            _CLAIM,
            {"channel": channel, "lease": LEASE, "longest_pause": LONGEST_REQUESTED_PAUSE},
        ).one_or_none()
        return given_up, claimed

    def _complete(self, connection: Connection, row: _Row) -> Message:
        """Return the message of a claimed notification."""
        content = msgspec.json.decode(row.content, type=Content)
        # A message that an alert is resolved needs no examples.
        evidence = Evidence() if row.kind == "resolved" else evidence_for(connection, content)
        return compose(
            key=row.key,
            kind=row.kind,
            rule=row.rule,
            content=content,
            evidence=evidence,
            dashboards=self._dashboards,
        )

    def _settle(self, connection: Connection, row: _Row) -> None:
        """Record that a notification is delivered, and forget old ones."""
        connection.execute(_DELIVERED, {"id": row.id})
        connection.execute(_FORGET, {"kept": KEPT})


async def _finished(attempt: asyncio.Task[Delivery], stop: asyncio.Event) -> bool:
    """Wait for an attempt, at most `STOP_PATIENCE` after `stop`; return whether it is finished."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({attempt, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not attempt.done():
            await asyncio.wait({attempt}, timeout=STOP_PATIENCE)
        return attempt.done()
    finally:
        stopping.cancel()


def pause_after(attempts: int, requested: float | None) -> float:
    """Return the seconds until the next attempt.

    Args:
        attempts: attempts so far, at least 1.
        requested: seconds for which the receiver requests a pause; None: it requests none.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 20))
    # Half of the pause is random, so that messages that failed together are not retried together.
    pause = longest * random.uniform(0.5, 1.0)
    return max(pause, min(requested or 0.0, LONGEST_REQUESTED_PAUSE))
