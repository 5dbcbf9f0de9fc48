{# Runs, outcomes, steps, calls, tokens and costs by workflow, day and currency. #}
{% set figures %}
    count(*) AS runs,
    count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed,
    count(*) FILTER (WHERE outcome = 'failed') AS failed,
    sum(steps) AS steps, sum(failed_steps) AS failed_steps, sum(calls) AS calls,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(total_tokens) AS total_tokens, sum(cost) AS cost, sum(unpriced_calls) AS unpriced_calls,
    sum(reported_cost) AS reported_cost, sum(CAST(duration_ms AS numeric)) AS duration_ms
{% endset %}
{{ orchestra.orchestra_differences(
    'SELECT workflow_id, day, currency, ' ~ figures ~ ' FROM ' ~ ref('fct_runs')
    ~ ' GROUP BY 1, 2, 3',
    'SELECT workflow_id, CAST(COALESCE(start_time, first_seen_at) AT TIME ZONE \'UTC\' AS date)
        AS day, currency, ' ~ figures ~ ' FROM ' ~ source('orchestra', 'run_summary')
    ~ ' WHERE COALESCE(start_time, first_seen_at) >= now() - interval \''
    ~ (var('orchestra_compared_days') + 1) ~ ' days\' GROUP BY 1, 2, 3') }}
