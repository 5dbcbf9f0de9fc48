-- Usage without impossible numbers, and what the pipeline's own views derive from a step. OFFSET 0
-- makes PostgreSQL compute each value once.
SELECT called.step_id,
       called.run_id,
       called.workflow_id,
       called.node_id,
       called.node_type,
       called.position,
       called.organization_id,
       called.user_id,
       called.status,
       called.state,
       called.outcome,
       called.start_time,
       called.end_time,
       called.duration_ms,
       called.request_model,
       called.response_model,
       called.model,
       called.service_tier,
       called.is_call,
       orchestra.is_unmetered(called.outcome, called.is_call, called.has_usage, called.used)
           AS is_unmetered,
       orchestra.is_untotalled(called.outcome, called.is_call, called.has_usage, called.used,
           called.total_tokens) AS is_untotalled,
       CASE WHEN called.is_call THEN orchestra.context_tier((called.used).input_tokens) END
           AS context_tier,
       CASE WHEN called.is_call THEN orchestra.kinds_of(called.used) END AS usage_kinds,
       {%- for kind in orchestra.orchestra_kinds() %}
       (called.used).{{ kind }},
       {%- endfor %}
       called.total_tokens,
       called.reported_cost,
       called.finish_reason,
       orchestra.is_cut_off(called.finish_reason) AS is_cut_off,
       called.error,
       called.redaction_policy,
       called.absent_since,
       called.first_seen_at,
       called.updated_at
FROM (
    SELECT s.id AS step_id, s.run_id, s.workflow_id, s.node_id, s.node_type, s.position,
           s.organization_id, s.user_id, s.status, s.state, s.start_time, s.end_time,
           s.duration_ms, s.request_model, s.response_model, s.service_tier, s.reported_cost,
           s.finish_reason, s.redaction_policy, s.absent_since, s.first_seen_at, s.updated_at,
           left(orchestra.error_message(s.error, s.reported_error), 500) AS error,
           u.model, u.outcome, u.used, u.has_usage, u.total_tokens,
           orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason, u.has_usage)
               AS is_call
    FROM {{ source('orchestra', 'steps') }} AS s
    CROSS JOIN LATERAL (
        SELECT COALESCE(s.response_model, s.request_model) AS model,
               orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
               orchestra.plausible_usage(raw.used) AS used,
               orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage,
               orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens)
                   AS total_tokens
        FROM (SELECT {{ orchestra.orchestra_usage('s') }} AS used) AS raw
        OFFSET 0
    ) AS u
) AS called
