CREATE VIEW orchestra.workflow_hourly AS
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
       r.counts,
       r.failed_buckets,
       r.failed_counts
FROM orchestra.run_rollup AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id;

COMMENT ON VIEW orchestra.workflow_hourly IS
    'Runs by hour, workflow and organisation: outcomes and histograms of durations. Success rate: '
    'succeeded / (succeeded + soft_failed + failed). Percentiles of successes: '
    'duration_quantile(buckets, counts, 0.95) over any rows; of failures, from failed_buckets and '
    'failed_counts.';
COMMENT ON COLUMN orchestra.workflow_hourly.hour IS
    'The hour (UTC) in which the runs started, or were first seen if not started.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_name IS
    'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.workflow_hourly.organization_id IS
    'The organisation; null if the runs name none.';
COMMENT ON COLUMN orchestra.workflow_hourly.runs IS 'Runs.';
COMMENT ON COLUMN orchestra.workflow_hourly.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN orchestra.workflow_hourly.soft_failed IS
    'Runs with a successful status that carry an error, or have a step that does (see outcome).';
COMMENT ON COLUMN orchestra.workflow_hourly.failed IS 'Runs that failed.';
COMMENT ON COLUMN orchestra.workflow_hourly.cancelled IS 'Runs that were cancelled.';
COMMENT ON COLUMN orchestra.workflow_hourly.skipped IS 'Runs that were skipped.';
COMMENT ON COLUMN orchestra.workflow_hourly.unfinished IS
    'Runs that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.workflow_hourly.buckets IS
    'Buckets of the durations of the runs that succeeded (see duration_bucket), ascending; runs '
    'without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.workflow_hourly.counts IS
    'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.workflow_hourly.failed_buckets IS
    'Like buckets, for runs that failed or soft-failed.';
COMMENT ON COLUMN orchestra.workflow_hourly.failed_counts IS
    'Number of durations in each of failed_buckets.';
