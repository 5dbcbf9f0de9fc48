-- The texts are read only if they are selected: the planner drops columns that nobody uses, and
-- then the payloads' tables too. It must not inline the functions that read them: it would take a
-- quarter of a second to plan them, and the server many seconds to compile them (JIT).
CREATE VIEW orchestra.model_calls AS
SELECT s.id AS step_id,
       s.run_id,
       s.workflow_id,
       COALESCE(w.name, s.workflow_id) AS workflow_name,
       s.organization_id,
       s.node_id,
       COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
       s.start_time,
       s.end_time,
       s.duration_ms,
       u.outcome,
       p.provider,
       COALESCE(s.response_model, s.request_model) AS model,
       s.request_model,
       s.response_model,
       s.service_tier,
       (u.used).input_tokens,
       (u.used).cached_input_tokens,
       (u.used).cache_write_tokens,
       (u.used).cache_write_1h_tokens,
       (u.used).input_audio_tokens,
       (u.used).cached_audio_tokens,
       (u.used).input_image_tokens,
       (u.used).cached_image_tokens,
       (u.used).input_video_tokens,
       (u.used).output_tokens,
       (u.used).reasoning_tokens,
       (u.used).output_audio_tokens,
       (u.used).output_image_tokens,
       (u.used).output_video_tokens,
       (u.used).citation_tokens,
       (u.used).other_tokens,
       (u.used).web_searches,
       (u.used).file_searches,
       (u.used).tool_uses,
       (u.used).audio_ms,
       (u.used).document_pages,
       (u.used).search_units,
       (u.used).unread_quantities,
       orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens) AS total_tokens,
       orchestra.kinds_of(u.used) AS usage_kinds,
       k.cost,
       CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
       s.reported_cost,
       s.finish_reason,
       orchestra.is_cut_off(s.finish_reason) AS is_cut_off,
       orchestra.error_message(s.error, s.reported_error) AS error,
       orchestra.system_text(i.data) AS system,
       orchestra.prompt_text(i.data) AS prompt,
       orchestra.answer_text(o.data) AS answer,
       orchestra.called_tools(o.data) AS tools,
       (SELECT CAST(sum(c.found) AS integer)
        FROM (VALUES (orchestra.image_count(i.data)), (orchestra.image_count(o.data))) AS c (found)) AS images,
       (SELECT CAST(sum(c.found) AS integer)
        FROM (VALUES (orchestra.audio_count(i.data)), (orchestra.audio_count(o.data))) AS c (found)) AS audio,
       orchestra.call_parameters(i.data) AS parameters,
       s.redaction_policy,
       s.updated_at
FROM orchestra.steps AS s
JOIN orchestra.runs AS r ON r.id = s.run_id
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id
LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id
CROSS JOIN LATERAL (
    SELECT orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
           orchestra.plausible_usage(raw.used) AS used,
           orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage
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
LEFT JOIN orchestra.prices AS p
  ON p.model = COALESCE(s.response_model, s.request_model)
 AND NOT orchestra.is_unmetered(u.outcome, true, u.has_usage, u.used)
 AND orchestra.price_applies(p, s.service_tier, orchestra.context_tier((u.used).input_tokens),
     COALESCE(s.start_time, r.start_time, r.first_seen_at))
CROSS JOIN LATERAL (SELECT orchestra.call_cost(u.used, 1, p) AS cost OFFSET 0) AS k
WHERE s.absent_since IS NULL
  AND orchestra.is_call(s.state, s.node_type, COALESCE(s.response_model, s.request_model),
      s.finish_reason, u.has_usage);

COMMENT ON VIEW orchestra.model_calls IS
    'One row per call of a model (see is_call): its usage, cost, prompt and answer. It shows '
    'payloads, so only orchestra_payload_analyst can read it. A text is null if its payload is not '
    'stored, if it holds no such text, or if its shape is not known, which the load counts as '
    'drift.';
COMMENT ON COLUMN orchestra.model_calls.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.model_calls.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.model_calls.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.model_calls.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.model_calls.organization_id IS
    'The organisation; null if the step names none.';
COMMENT ON COLUMN orchestra.model_calls.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.model_calls.time IS
    'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.model_calls.start_time IS 'When the step started.';
COMMENT ON COLUMN orchestra.model_calls.end_time IS 'When the step ended; null while it runs.';
COMMENT ON COLUMN orchestra.model_calls.duration_ms IS
    'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.model_calls.outcome IS 'How the step ended (see outcome).';
COMMENT ON COLUMN orchestra.model_calls.provider IS
    'The provider whose price applies; null if there is none.';
COMMENT ON COLUMN orchestra.model_calls.model IS
    'The model that responded, else the requested one; null if none is named.';
COMMENT ON COLUMN orchestra.model_calls.request_model IS
    'The requested model (inputs.model, or the provider''s own field).';
COMMENT ON COLUMN orchestra.model_calls.response_model IS
    'The model that responded (outputs.model, or the provider''s own field).';
COMMENT ON COLUMN orchestra.model_calls.service_tier IS
    'The provider''s service tier: standard, batch, flex, priority, fast or another; null if '
    'the call names none.';
COMMENT ON COLUMN orchestra.model_calls.input_tokens IS
    'Input tokens, including those read from and written to a cache.';
COMMENT ON COLUMN orchestra.model_calls.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cache_write_tokens IS
    'Input tokens written to a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cache_write_1h_tokens IS
    'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens.';
COMMENT ON COLUMN orchestra.model_calls.input_audio_tokens IS
    'Input tokens of audio, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cached_audio_tokens IS
    'Input tokens of audio read from a cache, part of input_audio_tokens and of '
    'cached_input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.input_image_tokens IS
    'Input tokens of images, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cached_image_tokens IS
    'Input tokens of images read from a cache, part of input_image_tokens and of '
    'cached_input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.input_video_tokens IS
    'Input tokens of video, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_tokens IS 'Output tokens, including reasoning.';
COMMENT ON COLUMN orchestra.model_calls.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_audio_tokens IS
    'Output tokens of audio, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_image_tokens IS
    'Output tokens of images, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_video_tokens IS
    'Output tokens of video, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.citation_tokens IS
    'Output tokens of citations, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.other_tokens IS
    'Tokens of unknown kind: those in the reported total beyond input and output.';
COMMENT ON COLUMN orchestra.model_calls.web_searches IS 'Web searches by the provider.';
COMMENT ON COLUMN orchestra.model_calls.file_searches IS 'File searches by the provider.';
COMMENT ON COLUMN orchestra.model_calls.tool_uses IS
    'Uses of other tools that the provider charges by use.';
COMMENT ON COLUMN orchestra.model_calls.audio_ms IS 'Audio charged by duration, in milliseconds.';
COMMENT ON COLUMN orchestra.model_calls.document_pages IS 'Document pages read.';
COMMENT ON COLUMN orchestra.model_calls.search_units IS 'Search units of a reranking model.';
COMMENT ON COLUMN orchestra.model_calls.unread_quantities IS
    'Reported quantities of usage that could not be read: their cost is unknown.';
COMMENT ON COLUMN orchestra.model_calls.total_tokens IS 'Total tokens (see total_tokens).';
COMMENT ON COLUMN orchestra.model_calls.usage_kinds IS
    'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.model_calls.cost IS
    'Cost by the prices of its day (UTC); null if any part of its usage has no price, or if it '
    'succeeded without reported usage.';
COMMENT ON COLUMN orchestra.model_calls.currency IS 'The currency of cost; null without cost.';
COMMENT ON COLUMN orchestra.model_calls.reported_cost IS
    'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.model_calls.finish_reason IS
    'Why the model stopped, in its provider''s words.';
COMMENT ON COLUMN orchestra.model_calls.is_cut_off IS
    'Whether it stopped because it ran out of tokens (see is_cut_off); null if it does not say '
    'why.';
COMMENT ON COLUMN orchestra.model_calls.error IS 'The step''s error; null if it carries none.';
COMMENT ON COLUMN orchestra.model_calls.system IS 'The system text (see system_text).';
COMMENT ON COLUMN orchestra.model_calls.prompt IS 'What the model was asked (see prompt_text).';
COMMENT ON COLUMN orchestra.model_calls.answer IS 'The visible answer (see answer_text).';
COMMENT ON COLUMN orchestra.model_calls.tools IS
    'The tools that the model called (see called_tools).';
COMMENT ON COLUMN orchestra.model_calls.images IS
    'Number of images in the inputs and outputs (see image_count).';
COMMENT ON COLUMN orchestra.model_calls.audio IS
    'Number of pieces of audio in the inputs and outputs (see audio_count).';
COMMENT ON COLUMN orchestra.model_calls.parameters IS
    'Settings of the call, such as temperature (see call_parameters).';
COMMENT ON COLUMN orchestra.model_calls.redaction_policy IS
    'Version of the redaction rules this row and its payloads were written under; null: no '
    'rules.';
COMMENT ON COLUMN orchestra.model_calls.updated_at IS
    'When the content of this row last changed; an unchanged read does not touch it.';
