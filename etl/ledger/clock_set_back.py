"""The repair of the ledger after the database's clock was set back.

The database's clock decides when runs are due. If it was set back, runs are due at times that lie
hours or years ahead, although their pauses are at most a day.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

# Seconds. `now()` of a transaction that began earlier is earlier, so a stored time may lie ahead of
# it by as long as a transaction waits. A later time shows that the clock was set back.
_WAITS = 300

AHEAD = f"now() + interval '{_WAITS} seconds'"
"""The time (SQL) that the database's clock can have written only before it was set back."""

_NEWEST = "GREATEST(opened_at, listed_at, run_observed_at, steps_observed_at, not_found_since)"

# One such run proves it for all: a run whose reads fail keeps its old times. The times of a run
# keep their order, because the newest observation of the run decides.
_REPAIR = text(f"""
    WITH waiting AS (
        SELECT run_id, GREATEST({_NEWEST} - now(), interval '0') AS ahead
        FROM orchestra_etl.run_ledger
        WHERE due_at > now()
          AND (EXISTS (SELECT FROM orchestra_etl.run_ledger
                       WHERE due_at > now() AND {_NEWEST} > {AHEAD})
               OR EXISTS (SELECT FROM orchestra_etl.sweeps WHERE started_at > {AHEAD}))
        ORDER BY run_id
        FOR UPDATE
    )
    UPDATE orchestra_etl.run_ledger AS l
    SET due_at = now(),
        opened_at = l.opened_at - w.ahead,
        listed_at = l.listed_at - w.ahead,
        run_observed_at = l.run_observed_at - w.ahead,
        steps_observed_at = l.steps_observed_at - w.ahead,
        not_found_since = l.not_found_since - w.ahead
    FROM waiting AS w
    WHERE l.run_id = w.run_id
""")


def repair(connection: Connection) -> int:
    """Let waiting runs be read now if the clock was set back; return how many there were."""
    return connection.execute(_REPAIR).rowcount
