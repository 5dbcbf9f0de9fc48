-- Names, versions and costs can change for runs that do not change, so they are joined when read.
SELECT r.run_id,
       r.workflow_id,
       COALESCE(w.workflow_name, r.workflow_id) AS workflow_name,
       v.workflow_version_id,
       v.version AS workflow_version,
       r.organization_id,
       r.user_id,
       r.state,
       r.outcome,
       r.tracking,
       r.time,
       r.day,
       r.start_time,
       r.end_time,
       r.duration_ms,
       r.steps,
       r.succeeded_steps,
       r.soft_failed_steps,
       r.failed_steps,
       r.first_failed_node,
       r.first_error,
       r.calls,
       r.untotalled_calls,
       r.input_tokens,
       r.cached_input_tokens,
       r.cache_write_tokens,
       r.output_tokens,
       r.reasoning_tokens,
       r.total_tokens,
       CASE WHEN c.one_currency THEN c.cost END AS cost,
       CASE WHEN c.one_currency THEN c.currency END AS currency,
       CASE WHEN c.one_currency THEN r.calls - c.priced_calls ELSE r.calls END AS unpriced_calls,
       r.reported_cost,
       r.reported_calls,
       r.first_seen_at,
       r.updated_at
FROM {{ ref('int_orchestra__runs') }} AS r
LEFT JOIN {{ ref('stg_orchestra__workflows') }} AS w ON w.workflow_id = r.workflow_id
LEFT JOIN {{ ref('dim_workflow_versions') }} AS v
  ON v.workflow_id = r.workflow_id AND v.valid_from <= r.time
 AND (v.valid_until > r.time OR v.valid_until IS NULL)
CROSS JOIN LATERAL (
    SELECT sum(cost) AS cost,
           min(currency) AS currency,
           COALESCE(min(currency) = max(currency), false) AS one_currency,
           count(cost) AS priced_calls
    FROM {{ ref('int_orchestra__call_costs') }}
    WHERE run_id = r.run_id
) AS c
