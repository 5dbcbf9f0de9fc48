-- A workflow without an attempted sweep for a week, while others were swept, has been removed from
-- the configuration. The small index of runs to be read covers due, open and failing runs, however
-- large the ledger is.
CREATE VIEW orchestra.pipeline_health AS
SELECT now() AS checked_at,
       (SELECT max(start_time) FROM orchestra.runs) AS newest_run_start,
       swept.swept_at,
       CAST(extract(epoch FROM now() - swept.swept_at) AS double precision) AS behind_seconds,
       ledger.due AS due_runs,
       ledger.open AS open_runs,
       ledger.failing AS failing_runs,
       (SELECT count(*) FROM orchestra_etl.dead_letters WHERE resolved_at IS NULL) AS dead_letters,
       (SELECT count(*) FROM orchestra_etl.gaps WHERE acknowledged_at IS NULL)
           AS unacknowledged_gaps,
       (SELECT count(*) FROM orchestra_etl.changed_groups) AS waiting_groups,
       (SELECT count(*) FROM orchestra_etl.drift) AS drift,
       swept.never AS unswept_workflows,
       -- A dead letter without a step is about the run itself. Discarding it changes nothing.
       (SELECT count(*) FROM orchestra_etl.dead_letters AS d
        WHERE reason = 'id_conflict' AND step_id IS NULL
          AND NOT EXISTS (SELECT FROM orchestra_etl.run_ledger AS l
                          WHERE l.run_id = d.run_id AND l.workflow_id = d.workflow_id))
                              AS conflicting_runs
FROM (
    SELECT min(swept_at) AS swept_at, count(*) FILTER (WHERE swept_at IS NULL) AS never
    FROM (SELECT swept_at, started_at, max(started_at) OVER () AS newest
        FROM orchestra_etl.sweeps) AS s
    WHERE started_at > newest - interval '7 days'
) AS swept
CROSS JOIN (
    SELECT count(*) FILTER (WHERE due_at <= now()) AS due,
           count(*) FILTER (WHERE tracking = 'open') AS open,
           count(*) FILTER (WHERE tracking IN ('open', 'stale') AND attempts > 0) AS failing
    FROM orchestra_etl.run_ledger
    WHERE due_at IS NOT NULL
) AS ledger;

COMMENT ON VIEW orchestra.pipeline_health IS
    'One row: how fresh the data is and what needs attention. `orchestra-etl status` shows the '
    'same by workflow.';
COMMENT ON COLUMN orchestra.pipeline_health.checked_at IS 'Now.';
COMMENT ON COLUMN orchestra.pipeline_health.newest_run_start IS
    'Start of the newest run that is stored.';
COMMENT ON COLUMN orchestra.pipeline_health.swept_at IS
    'The oldest of the workflows'' last complete sweeps; null: there was none. A workflow without '
    'a sweep in the week before the latest one is left out.';
COMMENT ON COLUMN orchestra.pipeline_health.behind_seconds IS 'Seconds since then.';
COMMENT ON COLUMN orchestra.pipeline_health.due_runs IS 'Runs due to be read now.';
COMMENT ON COLUMN orchestra.pipeline_health.open_runs IS 'Runs that are still polled.';
COMMENT ON COLUMN orchestra.pipeline_health.failing_runs IS
    'Runs whose last read failed and will be retried.';
COMMENT ON COLUMN orchestra.pipeline_health.dead_letters IS
    'Open dead letters: records that were set aside and neither loaded later nor discarded.';
COMMENT ON COLUMN orchestra.pipeline_health.unacknowledged_gaps IS
    'Gaps that no user has acknowledged.';
COMMENT ON COLUMN orchestra.pipeline_health.waiting_groups IS
    'Entries in the queue of rollup groups to recompute; 0 when the rollups are current.';
COMMENT ON COLUMN orchestra.pipeline_health.drift IS
    'Kinds of difference between the API''s responses and its description.';
COMMENT ON COLUMN orchestra.pipeline_health.unswept_workflows IS
    'Workflows without a complete sweep.';
COMMENT ON COLUMN orchestra.pipeline_health.conflicting_runs IS
    'Runs that were set aside because another workflow has a run of the same id; including '
    'discarded ones.';
