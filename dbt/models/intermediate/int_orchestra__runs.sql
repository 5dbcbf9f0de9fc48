{{
    config(
        unique_key='run_id',
        indexes=[
            {'columns': ['run_id'], 'unique': true},
            {'columns': ['changed_at']},
            {'columns': ['workflow_id', 'day', 'built_at']},
        ],
        pre_hook='{{ orchestra.orchestra_delete_missing_runs() }}',
    )
}}

{% if is_incremental() %}
WITH touched AS (
    SELECT run_id FROM {{ ref('stg_orchestra__runs') }}
    WHERE updated_at >= {{ orchestra.orchestra_copied_until() }}
    UNION
    SELECT run_id FROM {{ ref('int_orchestra__steps') }}
    WHERE changed_at >= {{ orchestra.orchestra_copied_until() }}
)
{% endif %}
SELECT r.run_id,
       r.workflow_id,
       r.organization_id,
       r.user_id,
       r.status,
       r.state,
       CASE WHEN r.state = 'succeeded' AND s.soft_failed_steps > 0 THEN 'soft_failed'
            ELSE r.own_outcome END AS outcome,
       r.tracking,
       r.start_time,
       r.end_time,
       r.duration_ms,
       r.time,
       r.day,
       r.redaction_policy,
       s.steps,
       s.succeeded_steps,
       s.soft_failed_steps,
       s.failed_steps,
       s.first_failed_node,
       COALESCE(s.first_error, r.error) AS first_error,
       s.calls,
       s.untotalled_calls,
       s.input_tokens,
       s.cached_input_tokens,
       s.cache_write_tokens,
       s.output_tokens,
       s.reasoning_tokens,
       s.total_tokens,
       s.reported_cost,
       s.reported_calls,
       r.first_seen_at,
       r.updated_at,
       GREATEST(r.updated_at, s.changed_at) AS changed_at,
       now() AS built_at
FROM {{ ref('stg_orchestra__runs') }} AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS steps,
           count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded_steps,
           count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed_steps,
           count(*) FILTER (WHERE outcome = 'failed') AS failed_steps,
           (array_agg(node_id ORDER BY outcome = 'failed' DESC, start_time, position, step_id)
                FILTER (WHERE outcome IN ('failed', 'soft_failed')))[1] AS first_failed_node,
           (array_agg(error ORDER BY outcome = 'failed' DESC, start_time, position, step_id)
                FILTER (WHERE outcome IN ('failed', 'soft_failed')))[1] AS first_error,
           count(*) FILTER (WHERE is_call) AS calls,
           count(*) FILTER (WHERE is_untotalled) AS untotalled_calls,
           {{ orchestra.orchestra_sum('input_tokens') }} AS input_tokens,
           {{ orchestra.orchestra_sum('cached_input_tokens') }} AS cached_input_tokens,
           CAST(sum(cache_write_tokens) AS bigint) AS cache_write_tokens,
           {{ orchestra.orchestra_sum('output_tokens') }} AS output_tokens,
           {{ orchestra.orchestra_sum('reasoning_tokens') }} AS reasoning_tokens,
           {{ orchestra.orchestra_sum('total_tokens') }} AS total_tokens,
           sum(reported_cost) AS reported_cost,
           count(reported_cost) AS reported_calls,
           max(changed_at) AS changed_at
    FROM {{ ref('int_orchestra__steps') }} AS s
    WHERE s.run_id = r.run_id AND s.absent_since IS NULL
) AS s
{% if is_incremental() %}
WHERE r.run_id IN (SELECT run_id FROM touched)
{% endif %}
