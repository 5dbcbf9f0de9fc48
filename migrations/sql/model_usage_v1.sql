-- The price of a day applies to its hours. Costs follow prices that become known or are corrected
-- later. The calls of one row of step_rollup have the same tier, length of the input and kinds of
-- usage: either all of them have a price, or none has.
CREATE VIEW orchestra.model_usage AS
SELECT s.hour,
       s.workflow_id,
       COALESCE(w.name, s.workflow_id) AS workflow_name,
       s.organization_id,
       s.node_id,
       s.model,
       p.provider,
       s.calls,
       s.input_tokens,
       s.output_tokens,
       s.cached_input_tokens,
       s.reasoning_tokens,
       s.total_tokens,
       k.cost,
       CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
       CASE WHEN k.cost IS NULL THEN s.calls ELSE s.unmetered_calls END AS unpriced_calls,
       s.untotalled_calls,
       s.service_tier,
       s.context_tier,
       s.usage_kinds,
       s.cache_write_tokens,
       s.cache_write_1h_tokens,
       s.input_audio_tokens,
       s.cached_audio_tokens,
       s.input_image_tokens,
       s.cached_image_tokens,
       s.input_video_tokens,
       s.output_audio_tokens,
       s.output_image_tokens,
       s.output_video_tokens,
       s.citation_tokens,
       s.other_tokens,
       s.web_searches,
       s.file_searches,
       s.tool_uses,
       s.audio_ms,
       s.document_pages,
       s.search_units,
       s.unread_quantities,
       s.reported_cost,
       s.reported_calls
FROM orchestra.step_rollup AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
LEFT JOIN orchestra.prices AS p
  ON p.model = s.model AND s.calls > s.unmetered_calls
 AND orchestra.price_applies(p, s.service_tier, s.context_tier, s.hour)
CROSS JOIN LATERAL (
    SELECT orchestra.call_cost(CAST(ROW(
            s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens,
            s.input_audio_tokens, s.cached_audio_tokens, s.input_image_tokens,
            s.cached_image_tokens, s.input_video_tokens, s.output_tokens, s.reasoning_tokens,
            s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens, s.citation_tokens,
            s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms,
            s.document_pages, s.search_units,
            s.unread_quantities
        ) AS orchestra.usage), s.calls - s.unmetered_calls, p) AS cost
    OFFSET 0  -- or it would be worked out once for each of its uses
) AS k
WHERE s.calls > 0;

COMMENT ON VIEW orchestra.model_usage IS
    'Calls of models by hour, workflow, organisation, node, model, service tier, length of the '
    'input and kinds of usage: quantities and cost.';
COMMENT ON COLUMN orchestra.model_usage.hour IS
    'The hour (UTC) in which the steps started; for steps without a start, the hour of their run.';
COMMENT ON COLUMN orchestra.model_usage.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.model_usage.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.model_usage.organization_id IS
    'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.model_usage.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.model_usage.model IS
    'The model that responded, else the requested one; null if tokens are reported without a '
    'model.';
COMMENT ON COLUMN orchestra.model_usage.provider IS
    'The provider whose price applies; null if there is none.';
COMMENT ON COLUMN orchestra.model_usage.calls IS 'Calls (see is_call).';
COMMENT ON COLUMN orchestra.model_usage.input_tokens IS
    'Input tokens, including those read from and written to a cache. Summed over the calls that '
    'report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.output_tokens IS
    'Output tokens, including reasoning. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; '
    'null if none does.';
COMMENT ON COLUMN orchestra.model_usage.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; '
    'null if none does.';
COMMENT ON COLUMN orchestra.model_usage.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cost IS
    'Cost by the prices of the day (UTC), service tier and length of the input; null if the model '
    'or a kind of usage of the calls has no price, or if no call reports usage. Add up within one '
    'currency only.';
COMMENT ON COLUMN orchestra.model_usage.currency IS 'The currency of cost; null without cost.';
COMMENT ON COLUMN orchestra.model_usage.unpriced_calls IS
    'Calls missing from cost: without a price for all their usage, or successful without reported '
    'usage.';
COMMENT ON COLUMN orchestra.model_usage.untotalled_calls IS
    'Calls missing from total_tokens, because they report no tokens.';
COMMENT ON COLUMN orchestra.model_usage.service_tier IS
    'The provider''s service tier; null if the calls name none; the price of standard then '
    'applies.';
COMMENT ON COLUMN orchestra.model_usage.context_tier IS
    'The length of the input: the highest threshold of input tokens that it exceeds, of those '
    'above which prices can change, else 0; null if unknown.';
COMMENT ON COLUMN orchestra.model_usage.usage_kinds IS
    'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.model_usage.cache_write_tokens IS
    'Input tokens written to a cache, part of input_tokens. Summed over the calls that report it; '
    'null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cache_write_1h_tokens IS
    'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens. '
    'Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.input_audio_tokens IS
    'Input tokens of audio, part of input_tokens. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_audio_tokens IS
    'Input tokens of audio read from a cache, part of input_audio_tokens and of '
    'cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.input_image_tokens IS
    'Input tokens of images, part of input_tokens. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_image_tokens IS
    'Input tokens of images read from a cache, part of input_image_tokens and of '
    'cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.input_video_tokens IS
    'Input tokens of video, part of input_tokens. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.output_audio_tokens IS
    'Output tokens of audio, part of output_tokens. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.output_image_tokens IS
    'Output tokens of images, part of output_tokens. Summed over the calls that report it; null '
    'if none does.';
COMMENT ON COLUMN orchestra.model_usage.output_video_tokens IS
    'Output tokens of video, part of output_tokens. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.citation_tokens IS
    'Output tokens of citations, part of output_tokens. Summed over the calls that report it; '
    'null if none does.';
COMMENT ON COLUMN orchestra.model_usage.other_tokens IS
    'Tokens of unknown kind: those in the reported total beyond input and output. Summed over the '
    'calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.web_searches IS
    'Web searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.file_searches IS
    'File searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.tool_uses IS
    'Uses of other tools that the provider charges by use. Summed over the calls that report it; '
    'null if none does.';
COMMENT ON COLUMN orchestra.model_usage.audio_ms IS
    'Audio charged by duration, in milliseconds. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.document_pages IS
    'Document pages read. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.search_units IS
    'Search units of a reranking model. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.unread_quantities IS
    'Reported quantities of usage that could not be read: their cost is unknown. Summed over the '
    'calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.reported_cost IS
    'Cost in US dollars, as providers report it. Summed over the calls that report it; null if '
    'none does.';
COMMENT ON COLUMN orchestra.model_usage.reported_calls IS 'Calls whose provider reports a cost.';

CREATE FUNCTION orchestra.usage_of(calls orchestra.model_usage) RETURNS orchestra.usage
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CAST(ROW(
        calls.input_tokens, calls.cached_input_tokens, calls.cache_write_tokens,
        calls.cache_write_1h_tokens, calls.input_audio_tokens, calls.cached_audio_tokens,
        calls.input_image_tokens, calls.cached_image_tokens, calls.input_video_tokens,
        calls.output_tokens, calls.reasoning_tokens, calls.output_audio_tokens,
        calls.output_image_tokens, calls.output_video_tokens, calls.citation_tokens,
        calls.other_tokens, calls.web_searches, calls.file_searches, calls.tool_uses,
        calls.audio_ms, calls.document_pages, calls.search_units, calls.unread_quantities
    ) AS orchestra.usage)
$$;

COMMENT ON FUNCTION orchestra.usage_of(orchestra.model_usage) IS
    'The usage in a row of model_usage as one value, for cost_parts and call_cost.';
