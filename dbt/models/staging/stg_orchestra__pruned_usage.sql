-- The steps and the usage of pruned runs, which the rollups keep.
SELECT workflow_id,
       CAST(hour AT TIME ZONE 'UTC' AS date) AS day,
       model,
       service_tier,
       context_tier,
       usage_kinds,
       succeeded + soft_failed + failed + cancelled + skipped + unfinished AS steps,
       succeeded,
       soft_failed,
       failed,
       calls,
       unmetered_calls,
       untotalled_calls,
       reported_calls,
       {%- for kind in orchestra.orchestra_kinds() %}
       {{ kind }},
       {%- endfor %}
       total_tokens,
       reported_cost
FROM {{ source('orchestra', 'step_rollup') }}
WHERE ordinal < 0
