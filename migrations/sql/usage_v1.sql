-- Functions take and return usage as one value.
CREATE TYPE orchestra.usage AS (
    input_tokens bigint, cached_input_tokens bigint, cache_write_tokens bigint,
    cache_write_1h_tokens bigint, input_audio_tokens bigint, cached_audio_tokens bigint,
    input_image_tokens bigint, cached_image_tokens bigint, input_video_tokens bigint,
    output_tokens bigint, reasoning_tokens bigint, output_audio_tokens bigint,
    output_image_tokens bigint, output_video_tokens bigint, citation_tokens bigint,
    other_tokens bigint, web_searches bigint, file_searches bigint, tool_uses bigint,
    audio_ms bigint, document_pages bigint,
    search_units bigint, unread_quantities bigint
);

COMMENT ON TYPE orchestra.usage IS
    'The usage of a model call, by kind; null if the call does not report the kind.';

-- Published prices change above these numbers of input tokens.
CREATE FUNCTION orchestra.context_tier(input_tokens bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN input_tokens <= 32000 THEN 0
                WHEN input_tokens <= 100000 THEN 32000
                WHEN input_tokens <= 128000 THEN 100000
                WHEN input_tokens <= 199999 THEN 128000
                WHEN input_tokens <= 200000 THEN 199999
                WHEN input_tokens <= 256000 THEN 200000
                WHEN input_tokens <= 272000 THEN 256000
                WHEN input_tokens <= 512000 THEN 272000
                WHEN input_tokens <= 524288 THEN 512000
                WHEN input_tokens > 524288 THEN 524288
           END
$$;

COMMENT ON FUNCTION orchestra.context_tier(bigint) IS
    'The highest threshold of input tokens that a call exceeds above which published prices '
    'change, or 0; null for null.';

-- Parts must not exceed what contains them.
CREATE FUNCTION orchestra.plausible_usage(used orchestra.usage) RETURNS orchestra.usage
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CAST(ROW(
        orchestra.token_count(used.input_tokens),
        CASE WHEN num_nulls(orchestra.token_count(used.cached_input_tokens),
            orchestra.token_count(used.input_tokens)) = 0
             THEN LEAST(used.cached_input_tokens, used.input_tokens) END,
        orchestra.token_count(used.cache_write_tokens),
        orchestra.token_count(used.cache_write_1h_tokens),
        orchestra.token_count(used.input_audio_tokens),
        orchestra.token_count(used.cached_audio_tokens),
        orchestra.token_count(used.input_image_tokens),
        orchestra.token_count(used.cached_image_tokens),
        orchestra.token_count(used.input_video_tokens), orchestra.token_count(used.output_tokens),
        CASE WHEN num_nulls(orchestra.token_count(used.reasoning_tokens),
            orchestra.token_count(used.output_tokens)) = 0
             THEN LEAST(used.reasoning_tokens, used.output_tokens) END,
        orchestra.token_count(used.output_audio_tokens),
        orchestra.token_count(used.output_image_tokens),
        orchestra.token_count(used.output_video_tokens),
        orchestra.token_count(used.citation_tokens), orchestra.token_count(used.other_tokens),
        orchestra.token_count(used.web_searches), orchestra.token_count(used.file_searches),
        orchestra.token_count(used.tool_uses), orchestra.token_count(used.audio_ms),
        orchestra.token_count(used.document_pages),
        orchestra.token_count(used.search_units), orchestra.token_count(used.unread_quantities)
    ) AS orchestra.usage)
$$;

COMMENT ON FUNCTION orchestra.plausible_usage(orchestra.usage) IS
    'Usage as reported, without numbers that are not plausible (see token_count); no more cached '
    'input than input, and no more reasoning than output.';

CREATE FUNCTION orchestra.charged(used orchestra.usage) RETURNS orchestra.usage
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CAST(ROW(
        GREATEST(COALESCE(used.input_tokens, 0) - COALESCE(used.cached_input_tokens, 0)
                 - COALESCE(used.cache_write_tokens, 0)
                 - COALESCE(used.input_audio_tokens, 0) - COALESCE(used.input_image_tokens, 0)
                 - COALESCE(used.input_video_tokens, 0)
                 + COALESCE(used.cached_audio_tokens, 0)
                 + COALESCE(used.cached_image_tokens, 0), 0),
        GREATEST(LEAST(COALESCE(used.cached_input_tokens, 0), COALESCE(used.input_tokens, 0))
                 - COALESCE(used.cached_audio_tokens, 0)
                 - COALESCE(used.cached_image_tokens, 0), 0),
        GREATEST(used.cache_write_tokens - COALESCE(used.cache_write_1h_tokens, 0), 0),
        used.cache_write_1h_tokens,
        GREATEST(used.input_audio_tokens - COALESCE(used.cached_audio_tokens, 0), 0),
        used.cached_audio_tokens,
        GREATEST(used.input_image_tokens - COALESCE(used.cached_image_tokens, 0), 0),
        used.cached_image_tokens,
        used.input_video_tokens,
        GREATEST(COALESCE(used.output_tokens, 0) - COALESCE(used.reasoning_tokens, 0)
                 - COALESCE(used.output_audio_tokens, 0)
                 - COALESCE(used.output_image_tokens, 0) - COALESCE(used.output_video_tokens, 0)
                 - COALESCE(used.citation_tokens, 0), 0),
        LEAST(COALESCE(used.reasoning_tokens, 0), COALESCE(used.output_tokens, 0)),
        used.output_audio_tokens,
        used.output_image_tokens,
        used.output_video_tokens,
        used.citation_tokens,
        used.other_tokens,
        used.web_searches,
        used.file_searches,
        used.tool_uses,
        used.audio_ms,
        used.document_pages,
        used.search_units,
        used.unread_quantities
    ) AS orchestra.usage)
$$;

COMMENT ON FUNCTION orchestra.charged(orchestra.usage) IS
    'The quantity that is charged at the price of each kind of usage: without the parts that have '
    'prices of their own, never below 0. Nothing is counted twice.';

CREATE FUNCTION orchestra.kinds_of(used orchestra.usage) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN (orchestra.charged(used)).input_tokens > 0 THEN 1 ELSE 0 END
         + CASE WHEN (orchestra.charged(used)).cached_input_tokens > 0 THEN 2 ELSE 0 END
         + CASE WHEN (orchestra.charged(used)).cache_write_tokens > 0 THEN 4 ELSE 0 END
         + CASE WHEN used.cache_write_1h_tokens > 0 THEN 8 ELSE 0 END
         + CASE WHEN (orchestra.charged(used)).input_audio_tokens > 0 THEN 16 ELSE 0 END
         + CASE WHEN used.cached_audio_tokens > 0 THEN 32 ELSE 0 END
         + CASE WHEN (orchestra.charged(used)).input_image_tokens > 0 THEN 64 ELSE 0 END
         + CASE WHEN used.cached_image_tokens > 0 THEN 128 ELSE 0 END
         + CASE WHEN used.input_video_tokens > 0 THEN 256 ELSE 0 END
         + CASE WHEN (orchestra.charged(used)).output_tokens > 0 THEN 512 ELSE 0 END
         + CASE WHEN (orchestra.charged(used)).reasoning_tokens > 0 THEN 1024 ELSE 0 END
         + CASE WHEN used.output_audio_tokens > 0 THEN 2048 ELSE 0 END
         + CASE WHEN used.output_image_tokens > 0 THEN 4096 ELSE 0 END
         + CASE WHEN used.output_video_tokens > 0 THEN 8192 ELSE 0 END
         + CASE WHEN used.citation_tokens > 0 THEN 16384 ELSE 0 END
         + CASE WHEN used.other_tokens > 0 THEN 32768 ELSE 0 END
         + CASE WHEN used.web_searches > 0 THEN 65536 ELSE 0 END
         + CASE WHEN used.file_searches > 0 THEN 131072 ELSE 0 END
         + CASE WHEN used.tool_uses > 0 THEN 262144 ELSE 0 END
         + CASE WHEN used.audio_ms > 0 THEN 524288 ELSE 0 END
         + CASE WHEN used.document_pages > 0 THEN 1048576 ELSE 0 END
         + CASE WHEN used.search_units > 0 THEN 2097152 ELSE 0 END
         + CASE WHEN used.unread_quantities > 0 THEN 4194304 ELSE 0 END
$$;

COMMENT ON FUNCTION orchestra.kinds_of(orchestra.usage) IS
    'Bit mask of the kinds of usage with a charged quantity: the usage_kinds of a step.';

CREATE FUNCTION orchestra.usage_kinds(usage_kinds integer) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT ARRAY(
        SELECT name
        FROM unnest(ARRAY[
            'input_tokens', 'cached_input_tokens', 'cache_write_tokens', 'cache_write_1h_tokens',
            'input_audio_tokens', 'cached_audio_tokens', 'input_image_tokens',
            'cached_image_tokens', 'input_video_tokens', 'output_tokens', 'reasoning_tokens',
            'output_audio_tokens', 'output_image_tokens', 'output_video_tokens', 'citation_tokens',
            'other_tokens', 'web_searches', 'file_searches', 'tool_uses', 'audio_ms',
            'document_pages', 'search_units',
            'unread_quantities'
        ]) WITH ORDINALITY AS k (name, number)
        WHERE usage_kinds & (1 << CAST(number - 1 AS integer)) > 0
        ORDER BY number)
$$;

COMMENT ON FUNCTION orchestra.usage_kinds(integer) IS
    'The names of the kinds of usage in the column usage_kinds of steps and rollups: those with a '
    'quantity that is charged at its own price.';
