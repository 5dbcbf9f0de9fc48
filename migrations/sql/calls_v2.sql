CREATE OR REPLACE FUNCTION orchestra.has_usage(used orchestra.usage, total_tokens bigint,
    reported_cost numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT num_nonnulls(
        used.input_tokens, used.cached_input_tokens, used.cache_write_tokens,
        used.cache_write_1h_tokens, used.input_audio_tokens, used.cached_audio_tokens,
        used.input_image_tokens, used.cached_image_tokens, used.input_video_tokens,
        used.output_tokens, used.reasoning_tokens, used.output_audio_tokens,
        used.output_image_tokens, used.output_video_tokens, used.citation_tokens, used.other_tokens,
        used.web_searches, used.file_searches, used.tool_uses, used.audio_ms, used.document_pages,
        used.search_units, used.unread_quantities,
        total_tokens, reported_cost
    ) > 0
$$;

COMMENT ON FUNCTION orchestra.has_usage(orchestra.usage, bigint, numeric) IS
    'Whether a step reports any usage or cost of a call.';

-- A code node or an integration may have an input of its own named model. A skipped step only says
-- which model it would call.
CREATE OR REPLACE FUNCTION orchestra.is_call(state text, node_type text, model text, finish_reason text,
    has_usage boolean)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT has_usage OR finish_reason IS NOT NULL
        OR (model IS NOT NULL AND COALESCE(node_type, '') NOT IN ('code', 'integration')
            AND state NOT IN ('pending', 'skipped'))
$$;

COMMENT ON FUNCTION orchestra.is_call(text, text, text, text, boolean) IS
    'Whether a step called a model: it reports usage (see has_usage) or why the model stopped, or '
    'names a model, is neither code nor an integration, and was neither skipped nor pending.';

-- A call that failed or soft-failed and reports nothing counts as free. A running call may still
-- report.
CREATE OR REPLACE FUNCTION orchestra.is_unmetered(outcome text, is_call boolean, has_usage boolean,
    plausible orchestra.usage)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT is_call AND (outcome = 'succeeded' OR has_usage)
        AND NOT orchestra.has_usage(plausible, NULL, NULL)
$$;

COMMENT ON FUNCTION orchestra.is_unmetered(text, boolean, boolean, orchestra.usage) IS
    'Whether a step, given its outcome, is a call of a model without any known plausible usage, '
    'so that its cost is unknown.';

-- Calls charged by duration, pages or searches report no tokens.
CREATE OR REPLACE FUNCTION orchestra.is_untotalled(
    outcome text, is_call boolean, has_usage boolean, plausible orchestra.usage, total_tokens bigint
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT is_call AND (outcome = 'succeeded' OR has_usage) AND total_tokens IS NULL
       AND (num_nonnulls(plausible.audio_ms, plausible.document_pages, plausible.search_units) = 0
            OR num_nonnulls(plausible.input_tokens, plausible.output_tokens) > 0)
$$;

COMMENT ON FUNCTION orchestra.is_untotalled(text, boolean, boolean, orchestra.usage, bigint) IS
    'Whether a step, given its outcome, is a call of a model whose total tokens (see '
    'total_tokens) are not known. A call that is charged by time, pages or searches and reports '
    'no tokens used none.';

-- The usual spellings come first: two regular expressions for each call take ten times as long.
-- Others ignore separators: MAX_TOKENS, FinishReason.MAX_TOKENS and max-tokens are the same. Stops
-- by a filter or a person do not count.
CREATE OR REPLACE FUNCTION orchestra.is_cut_off(finish_reason text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN finish_reason IN ('stop', 'STOP', 'end_turn', 'COMPLETE', 'completed', 'stop_sequence',
                               'tool_calls', 'tool_use', 'function_call', 'eos_token') THEN false
        WHEN finish_reason IN ('length', 'max_tokens', 'MAX_TOKENS', 'max_output_tokens') THEN true
        ELSE regexp_replace(lower(finish_reason COLLATE "C"), '[^a-z]', '', 'g')
             ~ ('^(finishreason|stopreason|reason)?('
             || 'length|maxlength|maxlen|modellength|maxcontext|errorlimit'
             || '|max(imum)?(new|output|completion|prompt)?tokens(reached|exceeded)?'
             || '|tokenlimit(reached|exceeded)?'
             || '|(model)?(context)(window|length)(reached|exceeded)?)$')
    END
$$;

COMMENT ON FUNCTION orchestra.is_cut_off(text) IS
    'Whether a model stopped because it ran out of tokens, by its finish reason in any '
    'provider''s spelling: length, max_tokens, MAX_TOKENS, max_output_tokens, model_length, '
    'model_context_window_exceeded, ...; null for null.';
