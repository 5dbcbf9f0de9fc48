"""Which part of each day is complete: every run that started in it is known and was read.

A reader of the lake can tell complete days from open ones: a day is complete up to
`complete_until`, except in its gaps, and for each workflow from its first listed run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import msgspec
from sqlalchemy import Connection, text

from etl.database import allow_long

# Sweeps show every run that starts before they begin. Runs of the day that are listed but not read
# yet are not in the lake. A gap without a start or an end can touch every day before or after it.
# Runs that the API forgot before they were read are missing for ever, as in a gap.
#
# `until` is the earliest `complete_until` of the view coverage, none if a workflow has conflicting
# runs. The view itself counts every run of the ledger: half of PostgreSQL's part of the export of a
# changed day. Before revision 0004, sweeps have no column complete_until.
_DAYS = """
    WITH swept AS (
        SELECT CASE WHEN bool_and(s.until IS NOT NULL) AND NOT EXISTS (
                    SELECT FROM orchestra_etl.dead_letters AS d
                    WHERE d.reason = 'id_conflict' AND d.step_id IS NULL AND NOT EXISTS (
                        SELECT FROM orchestra_etl.run_ledger AS l
                        WHERE l.run_id = d.run_id AND l.workflow_id = d.workflow_id))
                    THEN min(s.until) END AS until
        FROM (SELECT CASE WHEN w.watermark > 0
                          THEN COALESCE(
                              CAST(to_jsonb(w) ->> 'complete_until' AS timestamptz),
                              LEAST(w.started_at, w.swept_at)) END AS until
              FROM orchestra_etl.sweeps AS w) AS s
    ), missing AS MATERIALIZED (
        SELECT orchestra_etl.run_day(start_time, first_seen_at) AS day, tracking = 'gone' AS lost,
               min(COALESCE(start_time, first_seen_at)) AS first, count(*) AS runs
        FROM orchestra_etl.run_ledger
        WHERE steps_observed_at IS NULL AND tracking IN ('open', 'stale', 'gone')
        GROUP BY 1, 2
    )
    SELECT d.day, d.midnight,
           CASE WHEN swept.until IS NOT NULL
                THEN LEAST(swept.until, unread.first, d.midnight + interval '1 day')
           END AS complete_until,
           CAST(COALESCE(lost.runs, 0) + gaps.number AS integer) AS gaps
    FROM (SELECT day, CAST(day AS timestamp) AT TIME ZONE 'UTC' AS midnight
          FROM unnest({days}) AS u (day)) AS d
    CROSS JOIN swept
    LEFT JOIN missing AS unread ON unread.day = d.day AND NOT unread.lost
    LEFT JOIN missing AS lost ON lost.day = d.day AND lost.lost
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM orchestra_etl.gaps AS g
        WHERE COALESCE(g.after_time, '-infinity') < d.midnight + interval '1 day'
          AND COALESCE(g.before_time, g.detected_at) >= d.midnight
    ) AS gaps
"""
_DESCRIBE = text(_DAYS.format(days="CAST(:days AS date[])"))

_EVERY = "ARRAY(SELECT day FROM orchestra_etl.export_days)"
_REFRESH = text(f"""
    UPDATE orchestra_etl.export_days AS e
    SET complete_until = c.complete_until, gaps = c.gaps
    FROM ({_DAYS.format(days=_EVERY)}) AS c
    WHERE e.day = c.day
      AND (e.complete_until, e.gaps) IS DISTINCT FROM (c.complete_until, c.gaps)
      AND (e.exported_at = now() OR e.gaps <> c.gaps OR
           (e.complete_until >= c.midnight + interval '1 day')
           IS DISTINCT FROM (c.complete_until >= c.midnight + interval '1 day'))
""")


class Completeness(msgspec.Struct, frozen=True):
    """How much of a day's runs is known."""

    complete_until: datetime | None
    """Every run of the day that started before this time is known and was read.

    At most the end of the day. None: no workflow is swept, a sweep was never complete, or runs of
    two workflows have the same id.
    """
    gaps: int
    """Number of the gaps that touch the day, and of its runs that the API forgot unread."""


def describe(connection: Connection, days: Sequence[date]) -> dict[date, Completeness]:
    """Return how complete each of these days is."""
    allow_long(connection)
    return {
        row.day: Completeness(row.complete_until, row.gaps)
        for row in connection.execute(_DESCRIBE, {"days": list(days)})
    }


def refresh(connection: Connection) -> int:
    """Bring the exported days up to date; return how many changed.

    A day becomes complete when sweeps reach its end, even if none of its rows changes. An open day
    that this transaction does not export keeps its time: otherwise each sweep would change it.
    """
    allow_long(connection)
    return connection.execute(_REFRESH).rowcount
