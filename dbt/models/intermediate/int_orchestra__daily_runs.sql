{{
    config(
        unique_key=['workflow_id', 'day'],
        indexes=[{'columns': ['workflow_id', 'day']}],
    )
}}

-- A day is added up again as a whole. A day without any run left keeps one row without an outcome.
WITH changed AS (
    {{ orchestra.orchestra_changed_days(
        ref('int_orchestra__runs'), ref('stg_orchestra__pruned_runs'), 'runs') }}
), added AS (
    SELECT workflow_id, day, outcome,
           CAST(sum(runs) AS bigint) AS runs,
           COALESCE(array_agg(bucket) FILTER (WHERE bucket IS NOT NULL), '{}') AS buckets,
           COALESCE(array_agg(CAST(runs AS integer)) FILTER (WHERE bucket IS NOT NULL), '{}')
               AS counts
    FROM (
        SELECT r.workflow_id, r.day, r.outcome,
               CAST(orchestra.duration_bucket(r.duration_ms) AS smallint) AS bucket,
               count(*) AS runs
        FROM changed
        JOIN {{ ref('int_orchestra__runs') }} AS r USING (workflow_id, day)
        GROUP BY r.workflow_id, r.day, r.outcome, bucket
    ) AS counted
    GROUP BY workflow_id, day, outcome
    UNION ALL
    SELECT p.workflow_id, p.day, p.outcome, p.runs, p.buckets, p.counts
    FROM changed
    JOIN {{ ref('stg_orchestra__pruned_runs') }} AS p USING (workflow_id, day)
)
SELECT workflow_id, day, COALESCE(changed.state, '') AS state,
       added.outcome, added.runs, added.buckets, added.counts
FROM changed
LEFT JOIN added USING (workflow_id, day)
