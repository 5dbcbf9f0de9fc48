SELECT s.step_id,
       s.run_id,
       s.workflow_id,
       COALESCE(w.workflow_name, s.workflow_id) AS workflow_name,
       s.node_id,
       s.node_type,
       s.position,
       s.organization_id,
       s.user_id,
       s.state,
       s.outcome,
       s.time,
       s.day,
       s.start_time,
       s.end_time,
       s.duration_ms,
       s.model,
       s.is_call,
       s.total_tokens,
       s.error,
       s.first_seen_at,
       s.updated_at
FROM {{ ref('int_orchestra__steps') }} AS s
JOIN {{ ref('int_orchestra__runs') }} AS r ON r.run_id = s.run_id
LEFT JOIN {{ ref('stg_orchestra__workflows') }} AS w ON w.workflow_id = s.workflow_id
WHERE s.absent_since IS NULL
