-- Runs count on the day on which they started, steps and calls on theirs. Pruned runs still count.
WITH run_days AS (
    SELECT workflow_id, day,
           CAST(sum(runs) AS bigint) AS runs,
           {%- for outcome in ['succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped'] %}
           CAST(COALESCE(sum(runs) FILTER (WHERE outcome = '{{ outcome }}'), 0) AS bigint)
               AS {{ outcome }},
           {%- endfor %}
           CAST(COALESCE(sum(runs) FILTER (
               WHERE outcome NOT IN ('succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped')
           ), 0) AS bigint) AS unfinished,
           orchestra.array_concat_agg(buckets) FILTER (WHERE outcome = 'succeeded') AS buckets,
           orchestra.array_concat_agg(counts) FILTER (WHERE outcome = 'succeeded') AS counts,
           orchestra.array_concat_agg(buckets) FILTER (WHERE outcome IN ('soft_failed', 'failed'))
               AS failed_buckets,
           orchestra.array_concat_agg(counts) FILTER (WHERE outcome IN ('soft_failed', 'failed'))
               AS failed_counts,
           orchestra.duration_quantile(buckets, counts, 0.5) FILTER (WHERE outcome = 'succeeded')
               AS p50_ms,
           orchestra.duration_quantile(buckets, counts, 0.95) FILTER (WHERE outcome = 'succeeded')
               AS p95_ms
    FROM {{ ref('int_orchestra__daily_runs') }}
    WHERE outcome IS NOT NULL
    GROUP BY workflow_id, day
), usage_days AS (
    SELECT u.workflow_id, u.day,
           CAST(sum(u.steps) AS bigint) AS steps,
           CAST(sum(u.succeeded) AS bigint) AS succeeded_steps,
           CAST(sum(u.soft_failed) AS bigint) AS soft_failed_steps,
           CAST(sum(u.failed) AS bigint) AS failed_steps,
           CAST(sum(u.calls) AS bigint) AS calls,
           {%- for name in ['input_tokens', 'cached_input_tokens', 'output_tokens',
                            'reasoning_tokens', 'total_tokens'] %}
           CAST(sum(u.{{ name }}) AS bigint) AS {{ name }},
           {%- endfor %}
           CAST(sum(u.untotalled_calls) AS bigint) AS untotalled_calls,
           CASE WHEN min(k.currency) = max(k.currency) THEN sum(k.cost) END AS cost,
           CASE WHEN min(k.currency) = max(k.currency) THEN min(k.currency) END AS currency,
           CAST(CASE WHEN min(k.currency) <> max(k.currency) THEN sum(u.calls)
                     ELSE sum(CASE WHEN k.cost IS NULL THEN u.calls ELSE u.unmetered_calls END)
                END AS bigint) AS unpriced_calls,
           sum(u.reported_cost) AS reported_cost,
           CAST(sum(u.reported_calls) AS bigint) AS reported_calls
    FROM {{ ref('int_orchestra__daily_usage') }} AS u
    LEFT JOIN {{ source('orchestra', 'prices') }} AS p
      ON p.model = u.model AND u.calls > u.unmetered_calls
     AND orchestra.price_applies(p, u.service_tier, u.context_tier,
         CAST(u.day AS timestamp) AT TIME ZONE 'UTC')
    CROSS JOIN LATERAL (
        SELECT c.cost, CASE WHEN c.cost IS NOT NULL THEN p.currency END AS currency
        FROM (SELECT orchestra.call_cost({{ orchestra.orchestra_usage('u') }},
                         u.calls - u.unmetered_calls, p) AS cost) AS c
        OFFSET 0
    ) AS k
    WHERE u.steps IS NOT NULL
    GROUP BY u.workflow_id, u.day
)
SELECT workflow_id,
       COALESCE(w.workflow_name, workflow_id) AS workflow_name,
       day,
       {%- for name in ['runs', 'succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped',
                        'unfinished'] %}
       COALESCE(r.{{ name }}, 0) AS {{ name }},
       {%- endfor %}
       COALESCE(r.buckets, '{}') AS buckets,
       COALESCE(r.counts, '{}') AS counts,
       COALESCE(r.failed_buckets, '{}') AS failed_buckets,
       COALESCE(r.failed_counts, '{}') AS failed_counts,
       r.p50_ms,
       r.p95_ms,
       COALESCE(u.steps, 0) AS steps,
       COALESCE(u.succeeded_steps, 0) AS succeeded_steps,
       COALESCE(u.soft_failed_steps, 0) AS soft_failed_steps,
       COALESCE(u.failed_steps, 0) AS failed_steps,
       COALESCE(u.calls, 0) AS calls,
       COALESCE(u.untotalled_calls, 0) AS untotalled_calls,
       {%- for name in ['input_tokens', 'cached_input_tokens', 'output_tokens',
                        'reasoning_tokens', 'total_tokens'] %}
       CASE WHEN u.calls > 0 THEN u.{{ name }} ELSE 0 END AS {{ name }},
       {%- endfor %}
       u.cost,
       u.currency,
       COALESCE(u.unpriced_calls, 0) AS unpriced_calls,
       u.reported_cost,
       COALESCE(u.reported_calls, 0) AS reported_calls
FROM run_days AS r
FULL JOIN usage_days AS u USING (workflow_id, day)
LEFT JOIN {{ ref('stg_orchestra__workflows') }} AS w USING (workflow_id)
