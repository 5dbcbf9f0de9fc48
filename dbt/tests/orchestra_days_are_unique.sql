SELECT workflow_id, day
FROM {{ ref('agg_workflow_daily') }}
GROUP BY workflow_id, day
HAVING count(*) > 1
