-- The counts of pruned runs, which the rollups keep. Failures and soft failures share a histogram.
SELECT r.workflow_id,
       CAST(r.hour AT TIME ZONE 'UTC' AS date) AS day,
       o.outcome,
       o.runs,
       o.buckets,
       o.counts
FROM {{ source('orchestra', 'run_rollup') }} AS r
CROSS JOIN LATERAL (
    VALUES ('succeeded', r.succeeded, r.buckets, r.counts),
           ('soft_failed', r.soft_failed, '{}', '{}'),
           ('failed', r.failed, r.failed_buckets, r.failed_counts),
           ('cancelled', r.cancelled, '{}', '{}'),
           ('skipped', r.skipped, '{}', '{}'),
           ('unknown', r.unfinished, '{}', '{}')
) AS o (outcome, runs, buckets, counts)
WHERE r.ordinal < 0 AND o.runs > 0
