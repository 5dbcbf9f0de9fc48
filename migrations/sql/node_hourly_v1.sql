-- Concatenated histograms merge to the same result, and concatenating is cheaper than merging here.
CREATE AGGREGATE orchestra.array_concat_agg(buckets smallint[]) (
    SFUNC = array_cat, STYPE = smallint[], INITCOND = '{}', COMBINEFUNC = array_cat, PARALLEL = SAFE
);

COMMENT ON AGGREGATE orchestra.array_concat_agg(smallint[]) IS
    'The concatenation of arrays: buckets of histograms.';

CREATE AGGREGATE orchestra.array_concat_agg(counts integer[]) (
    SFUNC = array_cat, STYPE = integer[], INITCOND = '{}', COMBINEFUNC = array_cat, PARALLEL = SAFE
);

COMMENT ON AGGREGATE orchestra.array_concat_agg(integer[]) IS
    'The concatenation of arrays: counts of histograms.';

-- Calls of different tiers, lengths of the input or kinds of usage have separate rows in
-- step_rollup, and one row here.
CREATE VIEW orchestra.node_hourly AS
SELECT s.hour,
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
FROM orchestra.step_rollup AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
GROUP BY s.hour, s.workflow_id, w.name, s.organization_id, s.node_id, s.node_type, s.model;

COMMENT ON VIEW orchestra.node_hourly IS
    'Steps by hour, workflow, organisation, node and model: outcomes and histograms of durations. '
    'Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles of successes: '
    'duration_quantile(buckets, counts, 0.95) over any rows; of failures, from failed_buckets and '
    'failed_counts.';
COMMENT ON COLUMN orchestra.node_hourly.hour IS
    'The hour (UTC) in which the steps started; for steps without a start, the hour of their run.';
COMMENT ON COLUMN orchestra.node_hourly.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.node_hourly.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.node_hourly.organization_id IS
    'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.node_hourly.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.node_hourly.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.node_hourly.model IS
    'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.node_hourly.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.node_hourly.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.node_hourly.soft_failed IS
    'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.node_hourly.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.node_hourly.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.node_hourly.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.node_hourly.unfinished IS
    'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.node_hourly.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.node_hourly.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if there are calls and none does.';
COMMENT ON COLUMN orchestra.node_hourly.buckets IS
    'Buckets of the durations of the steps that succeeded (see duration_bucket), unordered and '
    'possibly repeated; steps without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.node_hourly.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.node_hourly.failed_buckets IS
    'Like buckets, for steps that failed or soft-failed.';
COMMENT ON COLUMN orchestra.node_hourly.failed_counts IS
    'Number of durations in each of failed_buckets.';
COMMENT ON COLUMN orchestra.node_hourly.untotalled_calls IS
    'Calls missing from total_tokens, because they report no tokens.';
