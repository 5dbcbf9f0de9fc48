-- Assigns lanes to intervals in the order of their starts. Intervals of a lane do not overlap, and
-- there are no more lanes than overlapping intervals. A loop, because each lane depends on all
-- earlier ones: 5,000 steps take 20 ms, a recursive query 7 s.
CREATE OR REPLACE FUNCTION orchestra.lanes(starts timestamptz[], ends timestamptz[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    free_at timestamptz[] := '{}';
    lanes integer[] := '{}';
    lane integer;
BEGIN
    FOR ordinal IN 1 .. cardinality(starts) LOOP
        lane := 1;
        WHILE free_at[lane] > starts[ordinal] LOOP
            lane := lane + 1;
        END LOOP;
        free_at[lane] := CASE WHEN ends[ordinal] IS NULL THEN 'infinity'
            ELSE GREATEST(starts[ordinal], ends[ordinal]) END;
        lanes[ordinal] := lane;
    END LOOP;
    RETURN lanes;
END
$$;

COMMENT ON FUNCTION orchestra.lanes(timestamptz[], timestamptz[]) IS
    'For each interval, in the order of their starts, the first free lane, from 1; an end of null '
    'means never.';

-- For one run at a time: a condition on run_id chooses the run, and everything is computed for that
-- run.
CREATE OR REPLACE VIEW orchestra.step_timeline AS
SELECT r.id AS run_id,
       r.workflow_id,
       COALESCE(w.name, r.workflow_id) AS workflow_name,
       s.id AS step_id,
       s.position,
       s.node_id,
       s.node_type,
       s.model,
       s.state,
       s.outcome,
       s.start_time,
       s.end_time,
       CAST(extract(epoch FROM s.start_time - s.run_begun) * 1000 AS double precision) AS offset_ms,
       s.duration_ms,
       CAST(extract(epoch FROM s.start_time - COALESCE(s.waited_since, s.run_begun)) * 1000
           AS double precision) AS wait_ms,
       s.lane,
       s.execution,
       s.executions,
       s.error,
       CASE WHEN s.is_call THEN 1 ELSE 0 END AS calls,
       (s.used).input_tokens,
       (s.used).output_tokens,
       s.total_tokens,
       k.cost,
       CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
       (s.used).cached_input_tokens,
       (s.used).reasoning_tokens,
       (s.used).cache_write_tokens,
       s.service_tier,
       CASE WHEN s.is_call THEN orchestra.kinds_of(s.used) END AS usage_kinds,
       s.reported_cost,
       s.finish_reason,
       orchestra.is_cut_off(s.finish_reason) AS cut_off,
       l.steps_observed_at AS observed_at
FROM orchestra.runs AS r
LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
CROSS JOIN LATERAL (
    WITH ordered AS (
        SELECT s.id, s.position, s.node_id, s.node_type, u.model, s.state, u.outcome, s.start_time,
               s.end_time, s.duration_ms,
               orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason, u.has_usage)
                   AS is_call,
               orchestra.error_message(s.error, s.reported_error) AS error,
               u.used, u.has_usage, u.total_tokens, s.service_tier, s.reported_cost,
               s.finish_reason,
               LEAST(r.start_time, min(s.start_time) OVER ()) AS run_begun,
               row_number() OVER (ORDER BY s.start_time, s.position, s.id) AS ordinal,
               CASE WHEN s.state <> 'skipped'
                    THEN row_number() OVER (PARTITION BY s.node_id, s.state = 'skipped'
                                            ORDER BY s.start_time, s.position, s.id)
                    END AS execution,
               count(*) FILTER (WHERE s.state <> 'skipped')
               OVER (PARTITION BY s.node_id) AS executions
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
                        s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms,
                        s.document_pages, s.search_units,
                        s.unread_quantities
                    ) AS orchestra.usage) AS used) AS raw
            OFFSET 0
        ) AS u
        WHERE s.run_id = r.id AND s.absent_since IS NULL
    ), placed AS (
        SELECT l.ordinal, l.lane
        FROM (SELECT orchestra.lanes(array_agg(start_time ORDER BY ordinal),
                                     array_agg(end_time ORDER BY ordinal)) AS lanes
              FROM ordered
              WHERE start_time IS NOT NULL) AS counted
        CROSS JOIN LATERAL unnest(counted.lanes) WITH ORDINALITY AS l (lane, ordinal)
    ), ended AS (
        SELECT end_time, ordinal, row_number() OVER (ORDER BY end_time, ordinal) AS number
        FROM ordered
        WHERE end_time IS NOT NULL
    ), waited AS (
        -- The number of steps that had ended when a step started. All steps with the same end count
        -- together.
        SELECT ordinal, max(number) OVER (ORDER BY at, number NULLS LAST RANGE UNBOUNDED PRECEDING)
            AS ended
        FROM (SELECT end_time AS at, NULL AS ordinal, number FROM ended
              UNION ALL SELECT start_time, ordinal, NULL AS number FROM ordered
                  WHERE start_time IS NOT NULL) AS events
    )
    SELECT o.*, placed.lane,
           -- A step that took no time does not wait for its own end.
           CASE WHEN last.ordinal = o.ordinal THEN before.end_time
               ELSE last.end_time END AS waited_since
    FROM ordered AS o
    LEFT JOIN placed ON placed.ordinal = o.ordinal
    LEFT JOIN waited ON waited.ordinal = o.ordinal
    LEFT JOIN ended AS last ON last.number = waited.ended
    LEFT JOIN ended AS before ON before.number = waited.ended - 1
) AS s
LEFT JOIN orchestra.prices AS p
  ON p.model = s.model AND s.is_call
 AND NOT orchestra.is_unmetered(s.outcome, s.is_call, s.has_usage, s.used)
 AND orchestra.price_applies(p, s.service_tier, orchestra.context_tier((s.used).input_tokens),
                             COALESCE(s.start_time, r.start_time, r.first_seen_at))
CROSS JOIN LATERAL (SELECT orchestra.call_cost(s.used, 1, p) AS cost OFFSET 0) AS k;

COMMENT ON VIEW orchestra.step_timeline IS
    'One row per step, placed in its run: offset, wait, lane, execution. For one run at a time: '
    'filter by run_id.';
COMMENT ON COLUMN orchestra.step_timeline.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.step_timeline.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.step_timeline.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.step_timeline.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.step_timeline.position IS 'Index in the API''s response, from 0.';
COMMENT ON COLUMN orchestra.step_timeline.node_id IS 'The node that it executed.';
COMMENT ON COLUMN orchestra.step_timeline.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.step_timeline.model IS
    'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.step_timeline.state IS
    'The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.step_timeline.outcome IS
    'The state, but soft_failed if that is a success and the step carries an error (see outcome).';
COMMENT ON COLUMN orchestra.step_timeline.start_time IS 'When it started.';
COMMENT ON COLUMN orchestra.step_timeline.end_time IS 'When it ended; null while it runs.';
COMMENT ON COLUMN orchestra.step_timeline.offset_ms IS
    'Milliseconds from the beginning of the run, or of its first step if that is earlier.';
COMMENT ON COLUMN orchestra.step_timeline.duration_ms IS
    'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.step_timeline.wait_ms IS
    'Milliseconds between the last earlier end of another step, or the beginning of the run, and '
    'its start.';
COMMENT ON COLUMN orchestra.step_timeline.lane IS
    'The row to draw it in, from 1: the first free one, so that steps of a lane do not overlap; '
    'null if it has not started.';
COMMENT ON COLUMN orchestra.step_timeline.execution IS
    'Which execution of its node within the run this is, from 1; null if it was skipped.';
COMMENT ON COLUMN orchestra.step_timeline.executions IS 'How often the run executed the node.';
COMMENT ON COLUMN orchestra.step_timeline.error IS
    'The message of its error: the API''s own, else the one that its payload reports.';
COMMENT ON COLUMN orchestra.step_timeline.calls IS
    '1 if it is a call of a model (see is_call), else 0.';
COMMENT ON COLUMN orchestra.step_timeline.input_tokens IS
    'Input tokens, including those read from and written to a cache.';
COMMENT ON COLUMN orchestra.step_timeline.output_tokens IS 'Output tokens, including reasoning.';
COMMENT ON COLUMN orchestra.step_timeline.total_tokens IS
    'Total tokens: as reported, else the sum of input and output if both are known.';
COMMENT ON COLUMN orchestra.step_timeline.cost IS
    'Cost by the prices of its day (UTC), service tier and length of the input; null if the model '
    'or a kind of usage of the call has no price, or if it succeeded without reported usage.';
COMMENT ON COLUMN orchestra.step_timeline.currency IS 'The currency of cost; null without cost.';
COMMENT ON COLUMN orchestra.step_timeline.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.step_timeline.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens.';
COMMENT ON COLUMN orchestra.step_timeline.cache_write_tokens IS
    'Input tokens written to a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.step_timeline.service_tier IS
    'The provider''s service tier; null if the call names none; the price of standard then '
    'applies.';
COMMENT ON COLUMN orchestra.step_timeline.usage_kinds IS
    'For calls: bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.step_timeline.reported_cost IS
    'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.step_timeline.finish_reason IS
    'Why the model stopped, in its provider''s words.';
COMMENT ON COLUMN orchestra.step_timeline.cut_off IS
    'Whether it stopped because it ran out of tokens (see is_cut_off); null if it does not say '
    'why.';
COMMENT ON COLUMN orchestra.step_timeline.observed_at IS
    'When the run''s steps were last requested from the API. A step without an end ran at least '
    'until then.';
