{# Calls, tokens and costs by workflow, day, model and currency. Pruned runs count only there.
   The charge for audio by the hour is a quotient, whose last digit depends on the order of sums. #}
{% set pruned %}
    SELECT workflow_id, day FROM {{ ref('stg_orchestra__pruned_usage') }}
{% endset %}
{{ orchestra.orchestra_differences(
    'SELECT workflow_id, day, model, currency, count(*) AS calls,
            sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
            sum(total_tokens) AS total_tokens, round(sum(cost), 9) AS cost,
            sum(reported_cost) AS reported_cost
     FROM ' ~ ref('fct_model_calls') ~ ' WHERE (workflow_id, day) NOT IN (' ~ pruned ~ ')
     GROUP BY 1, 2, 3, 4',
    'SELECT workflow_id, CAST(hour AT TIME ZONE \'UTC\' AS date) AS day, model, currency,
            sum(calls), sum(input_tokens), sum(output_tokens), sum(total_tokens),
            round(sum(cost), 9), sum(reported_cost)
     FROM ' ~ source('orchestra', 'model_usage') ~ '
     WHERE (workflow_id, CAST(hour AT TIME ZONE \'UTC\' AS date)) NOT IN (' ~ pruned ~ ')
     GROUP BY 1, 2, 3, 4') }}
