CREATE OR REPLACE VIEW orchestra.workflow_hourly AS
SELECT r.hour,
       r.workflow_id,
       COALESCE(w.name, r.workflow_id) AS workflow_name,
       r.organization_id,
       r.runs,
       r.succeeded,
       r.soft_failed,
       r.failed,
       r.cancelled,
       r.skipped,
       r.unfinished,
       r.buckets,
       r.counts
FROM orchestra.run_rollup AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id;

COMMENT ON VIEW orchestra.workflow_hourly IS
    'Runs by hour, workflow and organisation: outcomes and a histogram of durations. Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles: duration_quantile(buckets, counts, 0.95) over any rows.';
COMMENT ON COLUMN orchestra.workflow_hourly.hour IS 'The hour (UTC) in which the runs started, or were first seen if not started.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.workflow_hourly.organization_id IS 'The organisation; null where the runs name none.';
COMMENT ON COLUMN orchestra.workflow_hourly.runs IS 'Runs.';
COMMENT ON COLUMN orchestra.workflow_hourly.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN orchestra.workflow_hourly.soft_failed IS 'Runs that succeeded although a step of theirs failed softly.';
COMMENT ON COLUMN orchestra.workflow_hourly.failed IS 'Runs that failed.';
COMMENT ON COLUMN orchestra.workflow_hourly.cancelled IS 'Runs that were cancelled.';
COMMENT ON COLUMN orchestra.workflow_hourly.skipped IS 'Runs that were skipped.';
COMMENT ON COLUMN orchestra.workflow_hourly.unfinished IS 'Runs that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.workflow_hourly.buckets IS 'Buckets of durations that occur (see duration_bucket), rising.';
COMMENT ON COLUMN orchestra.workflow_hourly.counts IS 'How many durations each of these buckets holds.';
