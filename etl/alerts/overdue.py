"""The open runs that take longer than usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

# The runs that `orchestra.open_runs` calls overdue, with the same percentile, by one scan of the
# rollup for all workflows.
_OVERDUE = text("""
    WITH open AS MATERIALIZED (
        SELECT r.workflow_id, r.organization_id, l.attempts > 0
                   OR l.due_at < :at - make_interval(secs => :patience) AS late,
               CAST(extract(epoch FROM
                   COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at)
                       - COALESCE(r.start_time, r.first_seen_at)) * 1000
                   AS double precision) AS age_ms
        FROM orchestra.runs AS r
        LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
        WHERE r.state IN ('pending', 'running', 'unknown') AND r.tracking NOT IN ('final', 'gone')
          AND r.workflow_id = ANY (CAST(:workflow_ids AS text[]))
    ), ended AS (
        SELECT h.workflow_id, b.failures, b.bucket, sum(b.durations) AS durations
        FROM orchestra.run_rollup AS h
        CROSS JOIN LATERAL (
            SELECT bucket, false AS failures, durations
            FROM unnest(h.buckets, h.counts) AS s (bucket, durations)
            UNION ALL
            SELECT bucket, true, durations
            FROM unnest(h.failed_buckets, h.failed_counts) AS f (bucket, durations)
        ) AS b
        WHERE h.workflow_id IN (SELECT workflow_id FROM open)
          AND h.hour >= :at - interval '720 hours'
        GROUP BY 1, 2, 3
    ), ranked AS (
        SELECT workflow_id, failures, bucket,
               sum(durations) OVER (PARTITION BY workflow_id, failures ORDER BY bucket) AS up_to,
               sum(durations) OVER (PARTITION BY workflow_id, failures) AS total
        FROM ended
    ), usual AS MATERIALIZED (
        -- Without a success, the failures count.
        SELECT DISTINCT ON (workflow_id) workflow_id,
               orchestra.bucket_duration(min(bucket)) AS p95_ms
        FROM ranked
        WHERE CAST(up_to AS double precision)
              >= CAST(0.95 AS double precision) * CAST(total AS double precision)
        GROUP BY workflow_id, failures
        ORDER BY workflow_id, failures
    )
    SELECT o.workflow_id, o.organization_id AS organisation,
           count(*) FILTER (WHERE o.age_ms > u.p95_ms AND o.late IS NOT TRUE) AS overdue,
           count(*) FILTER (WHERE o.age_ms > u.p95_ms AND o.late) AS late
    FROM open AS o
    LEFT JOIN usual AS u ON u.workflow_id = o.workflow_id
    GROUP BY 1, 2
""")


def overdue(
    connection: Connection, workflows: Sequence[str], at: datetime, patience: float
) -> Mapping[str, list[tuple[str | None, int, int]]]:
    """Return the open runs that take longer than usual, by workflow and organisation.

    For each organisation: their number, and the number of those whose read is `patience` seconds
    late, so that they may have ended.
    """
    found: dict[str, list[tuple[str | None, int, int]]] = {}
    parameters = {"workflow_ids": list(workflows), "at": at, "patience": patience}
    for row in connection.execute(_OVERDUE, parameters):
        found.setdefault(row.workflow_id, []).append((row.organisation, row.overdue, row.late))
    return found
