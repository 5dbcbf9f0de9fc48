-- MATERIALIZED: otherwise PostgreSQL may compute `usual` once per run.
CREATE OR REPLACE VIEW orchestra.open_runs AS
WITH usual AS MATERIALIZED (
    SELECT workflow_id, COALESCE(orchestra.duration_quantile(buckets, counts, 0.95),
                                 orchestra.duration_quantile(failed_buckets, failed_counts, 0.95)
                                ) AS p95_ms
    FROM orchestra.workflow_hourly
    WHERE hour >= now() - interval '30 days'
    GROUP BY workflow_id
)
SELECT unfinished.run_id,
       unfinished.workflow_id,
       COALESCE(w.name, unfinished.workflow_id) AS workflow_name,
       unfinished.organization_id,
       unfinished.user_id,
       unfinished.state,
       unfinished.tracking,
       unfinished.start_time,
       unfinished.age_ms,
       usual.p95_ms AS usual_p95_ms,
       COALESCE(unfinished.age_ms > usual.p95_ms, false) AS overdue,
       s.steps,
       s.finished_steps,
       s.running_node,
       unfinished.observed_at
FROM (
    SELECT r.id AS run_id, r.workflow_id, r.organization_id, r.user_id, r.state, r.tracking,
           r.start_time,
           read.observed_at,
           -- The source's clock can be ahead of the database's.
           GREATEST(CAST(extract(epoch FROM
               read.observed_at - COALESCE(r.start_time, r.first_seen_at)) * 1000
               AS double precision), 0) AS age_ms
    FROM orchestra.runs AS r
    LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
    CROSS JOIN LATERAL (
        SELECT COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at)
            AS observed_at
    ) AS read
    WHERE r.state IN ('pending', 'running', 'unknown') AND r.tracking NOT IN ('final', 'gone')
) AS unfinished
LEFT JOIN orchestra.workflows AS w ON w.id = unfinished.workflow_id
LEFT JOIN usual ON usual.workflow_id = unfinished.workflow_id
LEFT JOIN LATERAL (
    SELECT count(*) AS steps,
           count(*) FILTER (WHERE state IN ('succeeded', 'failed', 'cancelled', 'skipped'))
               AS finished_steps,
           (array_agg(node_id ORDER BY start_time, position, id)
               FILTER (WHERE state = 'running'))[1] AS running_node
    FROM orchestra.steps
    WHERE run_id = unfinished.run_id AND absent_since IS NULL
) AS s ON true;

COMMENT ON VIEW orchestra.open_runs IS
    'Runs that have not ended, compared with the usual duration of their workflow. Runs that the '
    'API no longer has are left out.';
COMMENT ON COLUMN orchestra.open_runs.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.open_runs.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.open_runs.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.open_runs.organization_id IS
    'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.open_runs.user_id IS 'The user; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.open_runs.state IS 'pending, running or unknown.';
COMMENT ON COLUMN orchestra.open_runs.tracking IS 'open: still polled; stale: given up as open.';
COMMENT ON COLUMN orchestra.open_runs.start_time IS 'When it started; null if it has not.';
COMMENT ON COLUMN orchestra.open_runs.age_ms IS
    'Milliseconds from its start, or from when it was first seen if not started, to observed_at.';
COMMENT ON COLUMN orchestra.open_runs.usual_p95_ms IS
    '95th percentile of the durations of the workflow''s successful runs of the last 30 days, in '
    'milliseconds; of its failed runs if none succeeded; null if none has ended.';
COMMENT ON COLUMN orchestra.open_runs.overdue IS 'Whether age_ms exceeds usual_p95_ms.';
COMMENT ON COLUMN orchestra.open_runs.steps IS 'Its steps so far.';
COMMENT ON COLUMN orchestra.open_runs.finished_steps IS 'Steps that have ended.';
COMMENT ON COLUMN orchestra.open_runs.running_node IS
    'The node that has been running longest; null: no node is running.';
COMMENT ON COLUMN orchestra.open_runs.observed_at IS
    'When the API last said that it had not ended. If the service has stopped, the run may have '
    'ended since then.';
