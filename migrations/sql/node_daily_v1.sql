-- Calls of different tiers, lengths of the input or kinds of usage have separate rows in
-- step_rollup_daily, and one row here.
CREATE VIEW orchestra.node_daily AS
SELECT s.day,
       s.workflow_id,
       COALESCE(w.name, s.workflow_id) AS workflow_name,
       s.organization_id,
       s.node_id,
       s.node_type,
       s.model,
       CAST(sum(s.succeeded + s.soft_failed + s.failed + s.cancelled + s.skipped + s.unfinished)
           AS bigint) AS steps,
       CAST(sum(s.succeeded) AS bigint) AS succeeded,
       CAST(sum(s.soft_failed) AS bigint) AS soft_failed,
       CAST(sum(s.failed) AS bigint) AS failed,
       CAST(sum(s.cancelled) AS bigint) AS cancelled,
       CAST(sum(s.skipped) AS bigint) AS skipped,
       CAST(sum(s.unfinished) AS bigint) AS unfinished,
       CAST(sum(s.calls) AS bigint) AS calls,
       -- Steps that are not calls have 0 tokens, which say nothing about the usage of calls.
       CASE WHEN sum(s.calls) = 0 THEN 0
            WHEN count(s.total_tokens) FILTER (WHERE s.calls > 0) > 0
            THEN CAST(LEAST(sum(s.total_tokens), 9223372036854775807) AS bigint) END
                AS total_tokens,
       orchestra.array_concat_agg(s.buckets) AS buckets,
       orchestra.array_concat_agg(s.counts) AS counts,
       orchestra.array_concat_agg(s.failed_buckets) AS failed_buckets,
       orchestra.array_concat_agg(s.failed_counts) AS failed_counts,
       CAST(sum(s.untotalled_calls) AS bigint) AS untotalled_calls
FROM orchestra.step_rollup_daily AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
GROUP BY s.day, s.workflow_id, w.name, s.organization_id, s.node_id, s.node_type, s.model;

COMMENT ON VIEW orchestra.node_daily IS
    'Steps by day, workflow, organisation, node and model: outcomes and histograms of durations. '
    'Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles of successes: '
    'duration_quantile(buckets, counts, 0.95) over any rows; of failures, from failed_buckets and '
    'failed_counts.';
COMMENT ON COLUMN orchestra.node_daily.day IS
    'The day (UTC) in which the steps started; for steps without a start, the day of their run.';
COMMENT ON COLUMN orchestra.node_daily.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.node_daily.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.node_daily.organization_id IS
    'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.node_daily.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.node_daily.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.node_daily.model IS
    'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.node_daily.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.node_daily.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.node_daily.soft_failed IS
    'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.node_daily.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.node_daily.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.node_daily.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.node_daily.unfinished IS
    'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.node_daily.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.node_daily.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if there are calls and none does.';
COMMENT ON COLUMN orchestra.node_daily.buckets IS
    'Buckets of the durations of the steps that succeeded (see duration_bucket), unordered and '
    'possibly repeated; steps without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.node_daily.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.node_daily.failed_buckets IS
    'Like buckets, for steps that failed or soft-failed.';
COMMENT ON COLUMN orchestra.node_daily.failed_counts IS
    'Number of durations in each of failed_buckets.';
COMMENT ON COLUMN orchestra.node_daily.untotalled_calls IS
    'Calls missing from total_tokens, because they report no tokens.';
