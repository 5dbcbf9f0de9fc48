{{
    config(
        unique_key=['workflow_id', 'day'],
        indexes=[{'columns': ['workflow_id', 'day']}],
    )
}}
{% set sums = orchestra.orchestra_kinds() + ['total_tokens'] %}

-- Calls that agree in model, service tier, length of the input and kinds of usage have the same
-- price. A day is added up again as a whole. A day without any step left keeps one row of nulls.
WITH changed AS (
    {{ orchestra.orchestra_changed_days(
        '(SELECT workflow_id, day, built_at FROM ' ~ ref('int_orchestra__steps')
            ~ ' WHERE absent_since IS NULL) AS present',
        ref('stg_orchestra__pruned_usage'), 'steps') }}
), added AS (
    SELECT s.workflow_id, s.day,
           CASE WHEN s.is_call THEN s.model END AS model,
           CASE WHEN s.is_call THEN s.service_tier END AS service_tier,
           s.context_tier,
           s.usage_kinds,
           count(*) AS steps,
           count(*) FILTER (WHERE s.outcome = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE s.outcome = 'soft_failed') AS soft_failed,
           count(*) FILTER (WHERE s.outcome = 'failed') AS failed,
           count(*) FILTER (WHERE s.is_call) AS calls,
           count(*) FILTER (WHERE s.is_unmetered) AS unmetered_calls,
           count(*) FILTER (WHERE s.is_untotalled) AS untotalled_calls,
           count(s.reported_cost) AS reported_calls,
           {%- for name in sums %}
           CAST(sum(s.{{ name }}) AS bigint) AS {{ name }},
           {%- endfor %}
           sum(s.reported_cost) AS reported_cost
    FROM changed
    JOIN {{ ref('int_orchestra__steps') }} AS s USING (workflow_id, day)
    WHERE s.absent_since IS NULL
    GROUP BY s.workflow_id, s.day, 3, 4, s.context_tier, s.usage_kinds
    UNION ALL
    SELECT p.workflow_id, p.day, p.model, p.service_tier, p.context_tier, p.usage_kinds,
           p.steps, p.succeeded, p.soft_failed, p.failed,
           p.calls, p.unmetered_calls, p.untotalled_calls, p.reported_calls,
           {%- for name in sums %}
           p.{{ name }},
           {%- endfor %}
           p.reported_cost
    FROM changed
    JOIN {{ ref('stg_orchestra__pruned_usage') }} AS p USING (workflow_id, day)
)
SELECT workflow_id, day, COALESCE(changed.state, '') AS state,
       added.model, added.service_tier, added.context_tier, added.usage_kinds,
       added.steps, added.succeeded, added.soft_failed, added.failed,
       added.calls, added.unmetered_calls, added.untotalled_calls, added.reported_calls,
       {%- for name in sums %}
       added.{{ name }},
       {%- endfor %}
       added.reported_cost
FROM changed
LEFT JOIN added USING (workflow_id, day)
