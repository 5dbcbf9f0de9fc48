-- A kind without usage needs no price. A used kind without a price makes the cost unknown.
CREATE OR REPLACE FUNCTION orchestra.part_cost(quantity bigint, price numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN quantity > 0 THEN quantity * price ELSE 0 END $$;

COMMENT ON FUNCTION orchestra.part_cost(bigint, numeric) IS
    'A part of call_cost: a quantity times its price; 0 if the quantity is 0 or null, else null '
    'if it has no price.';

-- The planner inlines all of these functions and computes only the parts of `charged` that are
-- used. Many calls use only plain input and output: `charged` would change nothing, and one check
-- skips it. Most others use only text tokens: one check skips all other kinds. A fee for the call
-- is due if anything is charged: kinds_of(used) > 0, which would double the time to plan
-- step_timeline. Cached input and reasoning are charged only within the tokens that include them.
CREATE OR REPLACE FUNCTION orchestra.call_cost(
    used orchestra.usage, calls bigint, prices orchestra.prices
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN prices.currency IS NOT NULL THEN
        CASE WHEN num_nonnulls(
                used.cache_write_tokens, used.cache_write_1h_tokens, used.input_audio_tokens,
                used.cached_audio_tokens, used.input_image_tokens, used.cached_image_tokens,
                used.input_video_tokens, used.output_audio_tokens, used.output_image_tokens,
                used.output_video_tokens, used.citation_tokens, used.other_tokens,
                used.web_searches, used.file_searches, used.tool_uses, used.audio_ms,
                used.document_pages, used.search_units, used.unread_quantities
            ) = 0 AND COALESCE(used.cached_input_tokens, 0) = 0
              AND COALESCE(used.reasoning_tokens, 0) = 0
              AND COALESCE(prices.calls_per_thousand, 0) = 0
        THEN (orchestra.part_cost(used.input_tokens, prices.input_per_million)
              + orchestra.part_cost(used.output_tokens, prices.output_per_million)) * 0.000001
        ELSE
          (orchestra.part_cost((orchestra.charged(used)).input_tokens, prices.input_per_million)
           + orchestra.part_cost((orchestra.charged(used)).cached_input_tokens,
               prices.cached_input_per_million)
           + orchestra.part_cost((orchestra.charged(used)).output_tokens, prices.output_per_million)
           + orchestra.part_cost((orchestra.charged(used)).reasoning_tokens,
               prices.reasoning_per_million)) * 0.000001
          + CASE WHEN num_nonnulls(
                  used.cache_write_tokens, used.cache_write_1h_tokens, used.input_audio_tokens,
                  used.cached_audio_tokens, used.input_image_tokens, used.cached_image_tokens,
                  used.input_video_tokens, used.output_audio_tokens, used.output_image_tokens,
                  used.output_video_tokens, used.citation_tokens, used.other_tokens,
                  used.web_searches, used.file_searches, used.tool_uses, used.audio_ms,
                  used.document_pages, used.search_units,
                  used.unread_quantities
              ) = 0 THEN 0 ELSE
              (orchestra.part_cost((orchestra.charged(used)).cache_write_tokens,
                  prices.cache_write_per_million)
               + orchestra.part_cost(used.cache_write_1h_tokens, prices.cache_write_1h_per_million)
               + orchestra.part_cost((orchestra.charged(used)).input_audio_tokens,
                   prices.input_audio_per_million)
               + orchestra.part_cost(used.cached_audio_tokens, prices.cached_audio_per_million)
               + orchestra.part_cost((orchestra.charged(used)).input_image_tokens,
                   prices.input_image_per_million)
               + orchestra.part_cost(used.cached_image_tokens, prices.cached_image_per_million)
               + orchestra.part_cost(used.input_video_tokens, prices.input_video_per_million)
               + orchestra.part_cost(used.output_audio_tokens, prices.output_audio_per_million)
               + orchestra.part_cost(used.output_image_tokens, prices.output_image_per_million)
               + orchestra.part_cost(used.output_video_tokens, prices.output_video_per_million)
               + orchestra.part_cost(used.citation_tokens, prices.citation_per_million)
               + orchestra.part_cost(used.other_tokens, prices.other_per_million)) * 0.000001
              + (orchestra.part_cost(used.web_searches, prices.web_searches_per_thousand)
                 + orchestra.part_cost(used.file_searches, prices.file_searches_per_thousand)
                 + orchestra.part_cost(used.tool_uses, prices.tool_uses_per_thousand)
                 + orchestra.part_cost(used.document_pages, prices.document_pages_per_thousand)
                 + orchestra.part_cost(used.search_units, prices.search_units_per_thousand)
                 + orchestra.part_cost(used.unread_quantities, prices.unread_per_thousand)
                ) * 0.001
              + CASE WHEN used.audio_ms > 0 THEN used.audio_ms * prices.audio_per_hour / 3600000
                ELSE 0 END
            END
          + CASE WHEN prices.calls_per_thousand > 0
                      AND GREATEST(used.input_tokens, used.cache_write_tokens,
                                   used.cache_write_1h_tokens, used.input_audio_tokens,
                                   used.cached_audio_tokens, used.input_image_tokens,
                                   used.cached_image_tokens, used.input_video_tokens,
                                   used.output_tokens, used.output_audio_tokens,
                                   used.output_image_tokens, used.output_video_tokens,
                                   used.citation_tokens, used.other_tokens, used.web_searches,
                                   used.file_searches, used.tool_uses, used.audio_ms,
                                   used.document_pages, used.search_units,
                                   used.unread_quantities) > 0
                 THEN orchestra.part_cost(calls, prices.calls_per_thousand) * 0.001 ELSE 0 END
        END
    END
$$;

COMMENT ON FUNCTION orchestra.call_cost(orchestra.usage, bigint, orchestra.prices) IS
    'The cost of usage and of this number of calls by these prices: each kind is charged at its '
    'own price (see charged), and each call at the price of a call. Null without prices, or if a '
    'used kind has no price; calls without usage cost nothing.';

CREATE OR REPLACE FUNCTION orchestra.cost_parts(
    used orchestra.usage, calls bigint, prices orchestra.prices
) RETURNS TABLE (kind text, quantity bigint, price numeric, per bigint, cost numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT part.kind, part.quantity, part.price, part.per, part.quantity * part.price / part.per
    FROM orchestra.charged(used) AS charged
    CROSS JOIN LATERAL (
        VALUES
            (1, 'input_tokens', charged.input_tokens, prices.input_per_million, 1000000),
            (2, 'cached_input_tokens',
             charged.cached_input_tokens, prices.cached_input_per_million, 1000000),
            (3, 'cache_write_tokens',
             charged.cache_write_tokens, prices.cache_write_per_million, 1000000),
            (4, 'cache_write_1h_tokens',
             charged.cache_write_1h_tokens, prices.cache_write_1h_per_million, 1000000),
            (5, 'input_audio_tokens',
             charged.input_audio_tokens, prices.input_audio_per_million, 1000000),
            (6, 'cached_audio_tokens',
             charged.cached_audio_tokens, prices.cached_audio_per_million, 1000000),
            (7, 'input_image_tokens',
             charged.input_image_tokens, prices.input_image_per_million, 1000000),
            (8, 'cached_image_tokens',
             charged.cached_image_tokens, prices.cached_image_per_million, 1000000),
            (9, 'input_video_tokens',
             charged.input_video_tokens, prices.input_video_per_million, 1000000),
            (10, 'output_tokens', charged.output_tokens, prices.output_per_million, 1000000),
            (11, 'reasoning_tokens',
             charged.reasoning_tokens, prices.reasoning_per_million, 1000000),
            (12, 'output_audio_tokens',
             charged.output_audio_tokens, prices.output_audio_per_million, 1000000),
            (13, 'output_image_tokens',
             charged.output_image_tokens, prices.output_image_per_million, 1000000),
            (14, 'output_video_tokens',
             charged.output_video_tokens, prices.output_video_per_million, 1000000),
            (15, 'citation_tokens', charged.citation_tokens, prices.citation_per_million, 1000000),
            (16, 'other_tokens', charged.other_tokens, prices.other_per_million, 1000000),
            (17, 'web_searches', charged.web_searches, prices.web_searches_per_thousand, 1000),
            (18, 'file_searches', charged.file_searches, prices.file_searches_per_thousand, 1000),
            (19, 'tool_uses', charged.tool_uses, prices.tool_uses_per_thousand, 1000),
            (20, 'audio_ms', charged.audio_ms, prices.audio_per_hour, 3600000),
            (21, 'document_pages',
             charged.document_pages, prices.document_pages_per_thousand, 1000),
            (22, 'search_units', charged.search_units, prices.search_units_per_thousand, 1000),
            (23, 'unread_quantities', charged.unread_quantities, prices.unread_per_thousand, 1000),
            (24, 'calls',
             CASE WHEN orchestra.kinds_of(used) > 0 AND prices.calls_per_thousand > 0
                  THEN calls END,
             prices.calls_per_thousand, 1000)
    ) AS part (number, kind, quantity, price, per)
    WHERE part.quantity > 0
    ORDER BY part.number
$$;

COMMENT ON FUNCTION orchestra.cost_parts(orchestra.usage, bigint, orchestra.prices) IS
    'The arithmetic of call_cost, with one row per kind that is charged: the quantity, the price, '
    'the number of units the price is for, and the cost; null if the kind has no price. The costs '
    'add up to call_cost.';

CREATE OR REPLACE FUNCTION orchestra.price_applies(
    prices orchestra.prices, service_tier text, context_tier integer, at timestamptz
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT prices.service_tier = COALESCE(service_tier, 'standard')
       AND prices.above_input_tokens <= COALESCE(context_tier, 0)
       AND (prices.up_to_input_tokens > COALESCE(context_tier, 0)
           OR prices.up_to_input_tokens IS NULL)
       AND prices.valid_from <= CAST(at AT TIME ZONE 'UTC' AS date)
       AND (prices.valid_until > CAST(at AT TIME ZONE 'UTC' AS date) OR prices.valid_until IS NULL)
$$;

COMMENT ON FUNCTION orchestra.price_applies(orchestra.prices, text, integer, timestamptz) IS
    'Whether these prices of a model apply to calls of this tier of service (null: standard) and '
    'of the input (see context_tier; null: short) at this time.';
