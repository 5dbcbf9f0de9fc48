{# Runs and outcomes by workflow and day, and the histograms of their durations. #}
{{ orchestra.orchestra_differences(
    'SELECT workflow_id, day, runs, succeeded, soft_failed, failed, cancelled, skipped, unfinished,
            p50_ms, p95_ms
     FROM ' ~ ref('agg_workflow_daily') ~ ' WHERE runs > 0',
    'SELECT workflow_id, CAST(hour AT TIME ZONE \'UTC\' AS date) AS day,
            CAST(sum(runs) AS bigint), CAST(sum(succeeded) AS bigint),
            CAST(sum(soft_failed) AS bigint), CAST(sum(failed) AS bigint),
            CAST(sum(cancelled) AS bigint), CAST(sum(skipped) AS bigint),
            CAST(sum(unfinished) AS bigint),
            orchestra.duration_quantile(buckets, counts, 0.5),
            orchestra.duration_quantile(buckets, counts, 0.95)
     FROM ' ~ source('orchestra', 'workflow_hourly') ~ ' GROUP BY 1, 2') }}
