"""The request budget: one token bucket in the database, which all replicas draw from in blocks."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, text

_CREATE = text(
    "INSERT INTO orchestra_etl.request_budget (id, available) VALUES (1, 0) ON CONFLICT (id) DO NOTHING"
)

# One second's worth may be saved up, so that a pause does not turn into a burst. clock_timestamp,
# not now(): the row is locked first, and time spent waiting for that lock must count.
_DRAW = text("""
    WITH held AS (
        SELECT available, refilled_at, not_before FROM orchestra_etl.request_budget WHERE id = 1 FOR UPDATE
    ), refilled AS (
        SELECT c.at, h.not_before,
               LEAST(GREATEST(:rate, 1), h.available + :rate * GREATEST(EXTRACT(epoch FROM c.at - h.refilled_at), 0)) AS available
        FROM held AS h, LATERAL (SELECT clock_timestamp() AS at WHERE h.available IS NOT NULL) AS c
    ), granted AS (
        SELECT at, not_before, available,
               CASE WHEN not_before > at THEN 0 ELSE LEAST(floor(available), :wanted) END AS requests
        FROM refilled
    )
    UPDATE orchestra_etl.request_budget AS b
    SET available = g.available - g.requests, refilled_at = g.at
    FROM granted AS g
    WHERE b.id = 1
    RETURNING g.requests, GREATEST(EXTRACT(epoch FROM g.not_before - g.at), 0) AS pause, b.available
""")

_PAUSE = text("""
    SELECT GREATEST(EXTRACT(epoch FROM not_before - clock_timestamp()), 0) FROM orchestra_etl.request_budget WHERE id = 1
""")

_HOLD_OFF = text("""
    INSERT INTO orchestra_etl.request_budget AS b (id, available, not_before)
    VALUES (1, 0, clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (id) DO UPDATE SET not_before = GREATEST(b.not_before, excluded.not_before)
""")


class Grant(msgspec.Struct, frozen=True):
    """What may be started."""

    requests: int
    wait: float
    """Seconds after which to ask again, where `requests` is 0."""


def draw(connection: Connection, *, rate: float, wanted: int) -> Grant:
    """Take up to `wanted` requests out of the budget of `rate` requests a second."""
    parameters = {"rate": rate, "wanted": wanted}
    row = connection.execute(_DRAW, parameters).one_or_none()
    if row is None:
        connection.execute(_CREATE)
        row = connection.execute(_DRAW, parameters).one()
    if row.requests >= 1:
        return Grant(int(row.requests), 0.0)
    return Grant(0, max(float(row.pause or 0), (1 - row.available) / rate))


def pause(connection: Connection) -> float:
    """Seconds for which nobody may send a request, because the server asked for it."""
    return float(connection.execute(_PAUSE).scalar_one_or_none() or 0)


def hold_off(connection: Connection, seconds: float) -> None:
    """Let no replica send a request for so long."""
    connection.execute(_HOLD_OFF, {"seconds": seconds})
