-- For lists of runs: the view computes from steps run by run, after conditions on runs and LIMIT
-- have chosen the runs. A condition on the outcome is also cheap: its subquery uses an index of its
-- own. OFFSET 0 keeps the planner from collecting the soft failures of all runs first.
CREATE OR REPLACE VIEW orchestra.run_summary AS
SELECT r.id AS run_id,
       r.workflow_id,
       COALESCE(w.name, r.workflow_id) AS workflow_name,
       COALESCE(w.labels, '{}') AS labels,
       -- The next version was already in force if its date says so, unless the one before it was
       -- seen since that date.
       (SELECT CASE WHEN next.api_updated_at <= begun.time
                     AND (last.first_seen_at <= next.api_updated_at OR last.first_seen_at IS NULL)
               THEN next.version ELSE last.version END
        FROM (SELECT COALESCE(r.start_time, r.first_seen_at) AS time) AS begun
        LEFT JOIN LATERAL (
            SELECT v.version, v.first_seen_at
            FROM orchestra.workflow_versions AS v
            WHERE v.workflow_id = r.workflow_id AND v.first_seen_at <= begun.time
            ORDER BY v.first_seen_at DESC
            LIMIT 1) AS last ON true
        LEFT JOIN LATERAL (
            SELECT v.version, v.api_updated_at
            FROM orchestra.workflow_versions AS v
            WHERE v.workflow_id = r.workflow_id AND v.first_seen_at > begun.time
            ORDER BY v.first_seen_at
            LIMIT 1) AS next ON true) AS workflow_version,
       r.organization_id,
       r.user_id,
       r.state,
       CASE WHEN r.state = 'succeeded' AND EXISTS (
                SELECT FROM orchestra.steps AS f
                WHERE f.run_id = r.id AND (f.error IS NOT NULL OR f.reported_error IS NOT NULL)
                    AND f.absent_since IS NULL
                  AND orchestra.outcome(f.state, f.error, f.reported_error) = 'soft_failed'
                OFFSET 0)
            THEN 'soft_failed' ELSE orchestra.outcome(r.state, r.error, NULL) END AS outcome,
       r.tracking,
       r.start_time,
       r.end_time,
       r.duration_ms,
       s.steps,
       s.succeeded_steps,
       s.soft_failed_steps,
       s.failed_steps,
       s.first_failed_node,
       left(COALESCE(s.first_error, orchestra.error_message(r.error, NULL)), 500) AS first_error,
       s.calls,
       s.input_tokens,
       s.output_tokens,
       s.cached_input_tokens,
       s.reasoning_tokens,
       s.total_tokens,
       CASE WHEN s.one_currency THEN s.cost END AS cost,
       CASE WHEN s.one_currency THEN s.currency END AS currency,
       CASE WHEN s.one_currency THEN s.calls - s.priced_calls ELSE s.calls END AS unpriced_calls,
       r.first_seen_at,
       r.updated_at,
       s.untotalled_calls,
       s.cache_write_tokens,
       s.reported_cost,
       s.reported_calls,
       COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at) AS observed_at
FROM orchestra.runs AS r
LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
LEFT JOIN LATERAL (
    SELECT count(*) AS steps,
           count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded_steps,
           count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed_steps,
           count(*) FILTER (WHERE outcome = 'failed') AS failed_steps,
           (array_agg(node_id ORDER BY outcome = 'failed' DESC, start_time, position, id)
                FILTER (WHERE outcome IN ('failed', 'soft_failed')))[1] AS first_failed_node,
           (array_agg(error ORDER BY outcome = 'failed' DESC, start_time, position, id)
                FILTER (WHERE outcome IN ('failed', 'soft_failed')))[1] AS first_error,
           count(*) FILTER (WHERE is_call) AS calls,
           CAST(COALESCE(sum(input_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END)
               AS bigint) AS input_tokens,
           CAST(COALESCE(sum(output_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END)
               AS bigint) AS output_tokens,
           CAST(COALESCE(sum(cached_input_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END)
               AS bigint) AS cached_input_tokens,
           CAST(COALESCE(sum(reasoning_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END)
               AS bigint) AS reasoning_tokens,
           CAST(COALESCE(sum(total_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END)
               AS bigint) AS total_tokens,
           sum(cost) AS cost,
           min(currency) AS currency,
           COALESCE(min(currency) = max(currency), false) AS one_currency,
           count(cost) AS priced_calls,
           count(*) FILTER (WHERE is_untotalled) AS untotalled_calls,
           CAST(sum(cache_write_tokens) AS bigint) AS cache_write_tokens,
           sum(reported_cost) AS reported_cost,
           count(reported_cost) AS reported_calls
    FROM (
        SELECT called.id, called.node_id, called.position, called.start_time, called.outcome,
               called.error, called.is_call,
               orchestra.is_untotalled(called.outcome, called.is_call, called.has_usage,
                   called.used, called.total_tokens)
                   AS is_untotalled,
               (called.used).input_tokens, (called.used).output_tokens,
               (called.used).cached_input_tokens, (called.used).reasoning_tokens,
               (called.used).cache_write_tokens, called.total_tokens, called.reported_cost,
               k.cost, CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency
        FROM (
            SELECT s.id, s.node_id, s.position, s.start_time,
                   COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
                   orchestra.error_message(s.error, s.reported_error) AS error,
                   s.service_tier, s.reported_cost,
                   u.model, u.outcome, u.used, u.has_usage, u.total_tokens,
                   orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason, u.has_usage)
                       AS is_call
            FROM orchestra.steps AS s
            CROSS JOIN LATERAL (
                SELECT COALESCE(s.response_model, s.request_model) AS model,
                       orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                       orchestra.plausible_usage(raw.used) AS used,
                       orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage,
                       orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens)
                           AS total_tokens
                FROM (SELECT CAST(ROW(
                            s.input_tokens, s.cached_input_tokens, s.cache_write_tokens,
                            s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens,
                            s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens,
                            s.output_tokens, s.reasoning_tokens, s.output_audio_tokens,
                            s.output_image_tokens, s.output_video_tokens, s.citation_tokens,
                            s.other_tokens, s.web_searches, s.file_searches, s.tool_uses,
                            s.audio_ms, s.document_pages, s.search_units,
                            s.unread_quantities
                        ) AS orchestra.usage) AS used) AS raw
                OFFSET 0
            ) AS u
            WHERE s.run_id = r.id AND s.absent_since IS NULL
        ) AS called
        LEFT JOIN orchestra.prices AS p
          ON p.model = called.model AND called.is_call
         AND NOT orchestra.is_unmetered(called.outcome, called.is_call, called.has_usage,
             called.used)
         AND orchestra.price_applies(p, called.service_tier,
             orchestra.context_tier((called.used).input_tokens), called.time)
        CROSS JOIN LATERAL (SELECT orchestra.call_cost(called.used, 1, p) AS cost OFFSET 0) AS k
    ) AS judged
) AS s ON true;

COMMENT ON VIEW orchestra.run_summary IS
    'One row per run with totals of its steps: outcome, failures, tokens, cost. For lists: filter '
    'by time or workflow, or LIMIT the runs.';
COMMENT ON COLUMN orchestra.run_summary.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.run_summary.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.run_summary.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.run_summary.labels IS 'The workflow''s labels, from the configuration.';
COMMENT ON COLUMN orchestra.run_summary.workflow_version IS
    'The version of the workflow in force when the run started. A version begins when it was '
    'first seen or, if the API sends a date, at the last change of the workflow before that; null '
    'before the first version.';
COMMENT ON COLUMN orchestra.run_summary.organization_id IS
    'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.run_summary.user_id IS 'The user; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.run_summary.state IS
    'The run''s own status normalised: pending, running, succeeded, failed, cancelled, skipped or '
    'unknown.';
COMMENT ON COLUMN orchestra.run_summary.outcome IS
    'The state, but soft_failed if that is a success and the run carries an error, or one of its '
    'steps failed softly (see outcome). Success rate: succeeded / (succeeded + soft_failed + '
    'failed).';
COMMENT ON COLUMN orchestra.run_summary.tracking IS
    'open: still polled; final: not read again; stale: open for too long, read once a day; gone: '
    'the API no longer has it.';
COMMENT ON COLUMN orchestra.run_summary.start_time IS 'When it started.';
COMMENT ON COLUMN orchestra.run_summary.end_time IS 'When it ended; null while it runs.';
COMMENT ON COLUMN orchestra.run_summary.duration_ms IS
    'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.run_summary.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.run_summary.succeeded_steps IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.run_summary.soft_failed_steps IS
    'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.run_summary.failed_steps IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.run_summary.first_failed_node IS
    'Node of the first step that failed; if none did, of the first that failed softly.';
COMMENT ON COLUMN orchestra.run_summary.first_error IS
    'The first 500 characters of that step''s error, else of the run''s own error.';
COMMENT ON COLUMN orchestra.run_summary.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.run_summary.input_tokens IS
    'Input tokens, including those read from and written to a cache. Summed over the calls that '
    'report it; null if there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.output_tokens IS
    'Output tokens, including reasoning. Summed over the calls that report it; null if there are '
    'calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; '
    'null if there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; '
    'null if there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.cost IS
    'Cost of the priced calls, by the prices of their days; null if no call has a price and '
    'reported usage, or if prices are in several currencies.';
COMMENT ON COLUMN orchestra.run_summary.currency IS 'The currency of cost.';
COMMENT ON COLUMN orchestra.run_summary.unpriced_calls IS
    'Calls missing from cost: without a price for all their usage, or successful without reported '
    'usage; all calls if prices are in several currencies.';
COMMENT ON COLUMN orchestra.run_summary.first_seen_at IS 'When the run was first loaded.';
COMMENT ON COLUMN orchestra.run_summary.updated_at IS
    'When the content of its own row last changed.';
COMMENT ON COLUMN orchestra.run_summary.untotalled_calls IS
    'Calls missing from total_tokens, because they report no tokens.';
COMMENT ON COLUMN orchestra.run_summary.cache_write_tokens IS
    'Input tokens written to a cache, part of input_tokens. Summed over the calls that report it; '
    'null if none does.';
COMMENT ON COLUMN orchestra.run_summary.reported_cost IS
    'Cost in US dollars, as providers report it. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.run_summary.reported_calls IS 'Calls whose provider reports a cost.';
COMMENT ON COLUMN orchestra.run_summary.observed_at IS
    'When its row or its steps were last requested from the API. A run without an end ran at least '
    'until then.';
