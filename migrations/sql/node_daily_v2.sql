CREATE OR REPLACE VIEW orchestra.node_daily AS
SELECT s.day,
       s.workflow_id,
       COALESCE(w.name, s.workflow_id) AS workflow_name,
       s.organization_id,
       s.node_id,
       s.node_type,
       s.model,
       s.succeeded + s.soft_failed + s.failed + s.cancelled + s.skipped + s.unfinished AS steps,
       s.succeeded,
       s.soft_failed,
       s.failed,
       s.cancelled,
       s.skipped,
       s.unfinished,
       s.calls,
       s.total_tokens,
       s.buckets,
       s.counts
FROM orchestra.step_rollup_daily AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id;

COMMENT ON VIEW orchestra.node_daily IS
    'Steps by day, workflow, organisation, node and model: outcomes and a histogram of durations. Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles: duration_quantile(buckets, counts, 0.95) over any rows.';
COMMENT ON COLUMN orchestra.node_daily.day IS 'The day (UTC) in which the steps started; of those not started, the day of their run.';
COMMENT ON COLUMN orchestra.node_daily.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.node_daily.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.node_daily.organization_id IS 'The organisation; null where no step names one.';
COMMENT ON COLUMN orchestra.node_daily.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.node_daily.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.node_daily.model IS 'The model that answered, else the one that was asked for; null: no model.';
COMMENT ON COLUMN orchestra.node_daily.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.node_daily.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.node_daily.soft_failed IS 'Steps that succeeded although an integration reported an error.';
COMMENT ON COLUMN orchestra.node_daily.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.node_daily.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.node_daily.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.node_daily.unfinished IS 'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.node_daily.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.node_daily.total_tokens IS 'Total tokens.';
COMMENT ON COLUMN orchestra.node_daily.buckets IS 'Buckets of durations that occur (see duration_bucket), rising.';
COMMENT ON COLUMN orchestra.node_daily.counts IS 'How many durations each of these buckets holds.';
