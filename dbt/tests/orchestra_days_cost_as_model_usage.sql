{# Costs by workflow and day, where all prices of the day have one currency. #}
{{ orchestra.orchestra_differences(
    'SELECT workflow_id, day, currency, round(cost, 9) AS cost, calls, unpriced_calls,
            reported_cost
     FROM ' ~ ref('agg_workflow_daily') ~ ' WHERE cost IS NOT NULL',
    'SELECT workflow_id, CAST(hour AT TIME ZONE \'UTC\' AS date) AS day, min(currency),
            round(sum(cost), 9), sum(calls), sum(unpriced_calls), sum(reported_cost)
     FROM ' ~ source('orchestra', 'model_usage') ~ '
     GROUP BY 1, 2 HAVING min(currency) = max(currency)') }}
