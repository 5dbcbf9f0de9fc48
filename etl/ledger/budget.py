"""The request budget: one token bucket in the database, shared by all replicas."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, text

_CREATE = text(
    "INSERT INTO orchestra_etl.request_budget (id, available) VALUES (1, 0)"
    " ON CONFLICT (id) DO NOTHING"
)

# Seconds, more than the longest pause that a client requests. A later end of a pause shows that the
# clock was set back.
LONGEST_PAUSE = 300.0

# At most one second's worth of requests accumulates, so that no burst follows a pause. The
# statement uses clock_timestamp and not now(): it locks the row first, and the time it waits for
# that lock must count. The condition on `available`, which is never null, makes PostgreSQL read the
# clock after it has locked the row.
_DRAW = text(f"""
    WITH held AS (
        SELECT available, refilled_at, not_before
        FROM orchestra_etl.request_budget
        WHERE id = 1
        FOR UPDATE
    ), refilled AS (
        SELECT c.at,
               CASE WHEN h.not_before <= c.at + interval '{LONGEST_PAUSE} seconds'
                    THEN h.not_before END AS not_before,
               LEAST(GREATEST(:rate, 1),
                     h.available + :rate * GREATEST(EXTRACT(epoch FROM c.at - h.refilled_at), 0)
                    ) AS available
        FROM held AS h,
             LATERAL (SELECT clock_timestamp() AS at WHERE h.available IS NOT NULL) AS c
    ), granted AS (
        SELECT at, not_before, available,
               CASE WHEN not_before > at THEN 0
                    ELSE LEAST(floor(available), :wanted) END AS requests
        FROM refilled
    )
    UPDATE orchestra_etl.request_budget AS b
    SET available = g.available - g.requests, refilled_at = g.at
    FROM granted AS g
    WHERE b.id = 1
    RETURNING g.requests,
              GREATEST(EXTRACT(epoch FROM g.not_before - g.at), 0) AS pause,
              b.available
""")

_PAUSE = text(f"""
    SELECT GREATEST(EXTRACT(epoch FROM not_before - clock_timestamp()), 0)
    FROM orchestra_etl.request_budget
    WHERE id = 1 AND not_before <= clock_timestamp() + interval '{LONGEST_PAUSE} seconds'
""")

_HOLD_OFF = text(f"""
    INSERT INTO orchestra_etl.request_budget AS b (id, available, not_before)
    VALUES (1, 0, clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (id) DO UPDATE
    SET not_before = CASE
        WHEN b.not_before > clock_timestamp() + interval '{LONGEST_PAUSE} seconds'
        THEN excluded.not_before ELSE GREATEST(b.not_before, excluded.not_before) END
""")


class Grant(msgspec.Struct, frozen=True):
    """Permission to start requests now."""

    requests: int
    """Number of requests; 0: none yet."""
    wait: float
    """Seconds to wait before the next attempt to draw, if `requests` is 0; otherwise 0."""


def draw(connection: Connection, *, rate: float, wanted: int) -> Grant:
    """Take up to `wanted` requests from the budget of `rate` requests a second."""
    parameters = {"rate": rate, "wanted": wanted}
    row = connection.execute(_DRAW, parameters).one_or_none()
    if row is None:
        connection.execute(_CREATE)
        row = connection.execute(_DRAW, parameters).one()
    if row.requests >= 1:
        return Grant(int(row.requests), 0.0)
    return Grant(0, max(float(row.pause or 0), (1 - row.available) / rate))


def pause(connection: Connection) -> float:
    """Return the remaining seconds of the pause that the server requested; 0: there is none."""
    return float(connection.execute(_PAUSE).scalar_one_or_none() or 0)


def hold_off(connection: Connection, seconds: float) -> None:
    """Let no replica send a request during the next `seconds`; a longer pause stays."""
    connection.execute(_HOLD_OFF, {"seconds": seconds})
