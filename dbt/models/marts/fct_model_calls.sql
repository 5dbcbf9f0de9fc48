SELECT s.step_id,
       s.run_id,
       s.workflow_id,
       COALESCE(w.workflow_name, s.workflow_id) AS workflow_name,
       s.node_id,
       s.organization_id,
       s.user_id,
       s.outcome,
       s.time,
       s.day,
       s.start_time,
       s.end_time,
       s.duration_ms,
       c.provider,
       s.model,
       s.request_model,
       s.response_model,
       s.service_tier,
       s.context_tier,
       s.usage_kinds,
       {%- for kind in orchestra.orchestra_kinds() %}
       s.{{ kind }},
       {%- endfor %}
       s.total_tokens,
       s.is_untotalled,
       c.cost,
       c.currency,
       s.reported_cost,
       s.finish_reason,
       s.is_cut_off,
       s.error,
       s.updated_at
FROM {{ ref('int_orchestra__steps') }} AS s
JOIN {{ ref('int_orchestra__runs') }} AS r ON r.run_id = s.run_id
JOIN {{ ref('int_orchestra__call_costs') }} AS c ON c.step_id = s.step_id
LEFT JOIN {{ ref('stg_orchestra__workflows') }} AS w ON w.workflow_id = s.workflow_id
