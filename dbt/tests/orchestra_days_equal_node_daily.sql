{# Steps and calls by workflow and day. #}
{{ orchestra.orchestra_differences(
    'SELECT workflow_id, day, steps, succeeded_steps, soft_failed_steps, failed_steps, calls,
            untotalled_calls, total_tokens
     FROM ' ~ ref('agg_workflow_daily') ~ ' WHERE steps > 0',
    'SELECT workflow_id, day, sum(steps), sum(succeeded), sum(soft_failed), sum(failed), sum(calls),
            sum(untotalled_calls),
            CASE WHEN sum(calls) = 0 THEN 0
                 ELSE sum(total_tokens) FILTER (WHERE calls > 0) END
     FROM ' ~ source('orchestra', 'node_daily') ~ ' GROUP BY 1, 2') }}
