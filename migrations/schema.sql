-- The whole schema after the newest revision, written by `make docs` with pg_dump. For reading
-- only: `orchestra-etl db upgrade` creates the schema with the revisions in `versions`.

SET check_function_bodies = false; -- Some functions come before functions that they call.

CREATE SCHEMA orchestra;

CREATE SCHEMA orchestra_etl;

CREATE TYPE orchestra.usage AS (
	input_tokens bigint,
	cached_input_tokens bigint,
	cache_write_tokens bigint,
	cache_write_1h_tokens bigint,
	input_audio_tokens bigint,
	cached_audio_tokens bigint,
	input_image_tokens bigint,
	cached_image_tokens bigint,
	input_video_tokens bigint,
	output_tokens bigint,
	reasoning_tokens bigint,
	output_audio_tokens bigint,
	output_image_tokens bigint,
	output_video_tokens bigint,
	citation_tokens bigint,
	other_tokens bigint,
	web_searches bigint,
	file_searches bigint,
	tool_uses bigint,
	audio_ms bigint,
	document_pages bigint,
	search_units bigint,
	unread_quantities bigint
);
COMMENT ON TYPE orchestra.usage IS 'The usage of a model call, by kind; null if the call does not report the kind.';

CREATE FUNCTION orchestra.answer_places() RETURNS TABLE(ordinal integer, api text, member text, alternatives jsonpath, path jsonpath, kind text)
    LANGUAGE sql IMMUTABLE ROWS 2 PARALLEL SAFE
    AS $_$
    VALUES
        (169, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.content', 'whole'),
        (170, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.refusal', 'whole'),
        (171, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.audio.transcript', 'whole'),
        (172, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.content', 'delta'),
        (173, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.refusal', 'delta'),
        (174, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.audio.transcript', 'delta'),
        (175, 'OpenAI completions', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.text', 'either'),
        (176, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "message").content', 'whole'),
        (177, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_text.delta").delta', 'delta'),
        (178, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.refusal.delta").delta', 'delta'),
        (179, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.audio.transcript.delta").delta', 'delta'),
        (180, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.text.delta").delta', 'delta'),
        (181, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_audio_transcript.delta").delta', 'delta'),
        (182, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.audio_transcript.delta").delta', 'delta'),
        (183, 'OpenAI transcription', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "transcript.text.delta").delta', 'delta'),
        (184, 'Gemini', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts', 'either'),
        (185, 'Gemini interactions', 'steps', jsonpath 'lax $',
            jsonpath 'lax $.steps[*] ? (@.type == "model_output").content', 'whole'),
        (186, 'Bedrock Converse', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output.message.content', 'whole'),
        (187, 'Bedrock Converse', 'contentBlockDelta', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockDelta.delta.text', 'delta'),
        (188, 'Bedrock, Titan', 'results', jsonpath 'lax $.results[*]',
            jsonpath 'lax $.outputText', 'whole'),
        (189, 'Bedrock, Titan', 'outputText', jsonpath 'lax $',
            jsonpath 'lax $.outputText', 'either'),
        (190, 'Bedrock, Llama', 'generation', jsonpath 'lax $',
            jsonpath 'lax $.generation ? (@.type() == "string")', 'either'),
        (191, 'Bedrock, Mistral', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.text', 'either'),
        (192, 'Mistral conversations', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "message.output").content', 'whole'),
        (193, 'Mistral conversations', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "message.output.delta").content', 'delta'),
        (194, 'xAI by gRPC', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.message.content', 'whole'),
        (195, 'Mistral OCR', 'pages', jsonpath 'lax $.pages[*]',
            jsonpath 'lax $.markdown', 'whole'),
        (196, 'Bedrock, Cohere', 'generations', jsonpath 'lax $.generations[*][*]',
            jsonpath 'lax $.text', 'either'),
        (197, 'Bedrock, AI21', 'completions', jsonpath 'lax $.completions[*]',
            jsonpath 'lax $.data.text', 'whole'),
        (198, 'Cohere chat', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.message.content', 'delta'),
        (199, 'Anthropic', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.text', 'delta'),
        (200, 'Anthropic batches', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message ? (@.type == "message").content', 'whole'),
        (201, 'Ollama', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.content', 'either'),
        (202, 'Anthropic completions', 'completion', jsonpath 'lax $',
            jsonpath 'lax $.completion ? (@.type() == "string")', 'either'),
        (203, 'Cohere chat v1', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.event_type == "text-generation").text', 'delta'),
        (204, 'AI SDK', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").text ? (@.type() == "string")', 'delta'),
        (205, 'AI SDK', 'textDelta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").textDelta ? (@.type() == "string")', 'delta'),
        (206, 'AI SDK', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").delta ? (@.type() == "string")', 'delta'),
        (207, 'OpenAI transcription', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (!(@.type like_regex "^response[.]|-delta$")).text ? (@.type() == "string")', 'whole'),
        (208, 'LangChain', 'kwargs', jsonpath 'lax $',
            jsonpath 'lax $.kwargs.content', 'whole'),
        (209, 'LangChain', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "AIMessageChunk").content', 'delta'),
        (210, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").content', 'whole'),
        (211, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.content', 'whole'),
        (212, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.content', 'whole'),
        (213, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (!(@.type == "thought_summary")).content', 'whole'),
        (214, 'Ollama', 'response', jsonpath 'lax $',
            jsonpath 'lax $.response ? (@.type() == "string")', 'either'),
        (215, 'Hugging Face', 'generated_text', jsonpath 'lax $',
            jsonpath 'lax $.generated_text ? (@.type() == "string")', 'whole'),
        (216, 'AI SDK objects', 'object', jsonpath 'lax $',
            jsonpath 'lax $ ? (!exists (@.type)) ? (exists (@.finishReason) || @.object.type() == "object" || @.object.type() == "array").object', 'json')
$_$;
COMMENT ON FUNCTION orchestra.answer_places() IS 'The places in a model''s response that hold answers, as JSON paths by API (see the reference of model calls).';

CREATE FUNCTION orchestra.answer_text(outputs jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $_$
    WITH said AS (
        SELECT DISTINCT ON (b.place, a.ordinal)
               b.place, a.ordinal, t.text,
               p.kind IN ('whole', 'json') OR (p.kind = 'either' AND NOT b.streamed) AS is_whole,
               COALESCE(b.body ->> 'responseId', b.body ->> 'id') AS response_id,
               CASE WHEN CAST(p.alternatives AS text) <> '$'
                    THEN COALESCE(a.value -> 'index', '0') END AS choice
        FROM orchestra.model_bodies(outputs, 'response') AS b
        JOIN orchestra.answer_places() AS p ON b.body ? p.member
        CROSS JOIN LATERAL jsonb_path_query(b.body, p.alternatives, '{}', true)
            WITH ORDINALITY AS a (value, ordinal)
        CROSS JOIN LATERAL (
            SELECT jsonb_path_query_array(a.value, p.path, '{}', true) OFFSET 0) AS c (contents)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN p.kind <> 'json' THEN orchestra.parts_text(c.contents, '')
                        WHEN jsonb_array_length(c.contents) = 1 THEN c.contents ->> 0
                        ELSE c.contents #>> '{}' END
            OFFSET 0
        ) AS t (text)
        WHERE c.contents <> '[]' AND t.text IS NOT NULL
        ORDER BY b.place, a.ordinal, p.ordinal
    ), answers AS (
        SELECT min(s.place) AS place, min(s.ordinal) AS ordinal,
               string_agg(s.text, '' ORDER BY s.place, s.ordinal) AS text
        FROM (SELECT said.*, bool_or(is_whole) OVER () AS any_whole FROM said) AS s
        WHERE s.is_whole OR NOT s.any_whole
        GROUP BY CASE WHEN s.is_whole THEN s.place END, CASE WHEN s.is_whole THEN s.ordinal END,
                 CASE WHEN NOT s.is_whole THEN s.response_id END,
                 CASE WHEN NOT s.is_whole THEN s.choice END
    )
    SELECT string_agg(orchestra.without_reasoning(a.text), E'\n\n' ORDER BY a.place, a.ordinal)
    FROM answers AS a
$_$;
COMMENT ON FUNCTION orchestra.answer_text(outputs jsonb) IS 'The visible answer in a step''s outputs, without reasoning. The parts of a message and the events of a stream are joined without a separator; several choices are separated by a blank line. Null for an unknown shape, for an answer without text, and for more than 10,000 events.';

CREATE FUNCTION orchestra.audio_count(payload jsonb) RETURNS integer
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $$
    SELECT CAST(sum(
        (SELECT count(*) FROM orchestra.content_parts(b.body) AS c (part)
         WHERE orchestra.is_audio(c.part))
        + (SELECT count(*) FROM orchestra.audio_places() AS p
           CROSS JOIN LATERAL jsonb_path_query(b.body, p.path, '{}', true) AS m (medium)
           WHERE b.body ? p.member AND jsonb_typeof(m.medium) <> 'null')) AS integer)
    FROM orchestra.media_bodies(payload) AS b (body)
$$;
COMMENT ON FUNCTION orchestra.audio_count(payload jsonb) IS 'The number of pieces of audio in the inputs or outputs of a step that called a model; null for an unknown shape.';

CREATE FUNCTION orchestra.audio_places() RETURNS TABLE(ordinal integer, api text, member text, alternatives jsonpath, path jsonpath, kind text)
    LANGUAGE sql IMMUTABLE ROWS 2 PARALLEL SAFE
    AS $_$
    VALUES
        (291, 'AI SDK', 'files', jsonpath 'lax $',
            jsonpath 'lax $.files[*] ? (@.mediaType starts with "audio/")', 'whole'),
        (292, 'OpenAI chat', 'choices', jsonpath 'lax $',
            jsonpath 'lax $.choices[*].message.audio.data', 'whole'),
        (293, 'OpenAI transcription', 'file', jsonpath 'lax $',
            jsonpath 'lax $.file', 'whole')
$_$;
COMMENT ON FUNCTION orchestra.audio_places() IS 'The places that hold audio outside the content of messages, as JSON paths by API (see the reference of model calls).';

CREATE FUNCTION orchestra.bounded(total numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN total > 1000000000000000000 THEN 1000000000000000000
                ELSE CAST(total AS bigint) END
$$;
COMMENT ON FUNCTION orchestra.bounded(total numeric) IS 'A sum of quantities as a bigint, at most 10^18, so that an implausible number cannot overflow.';

CREATE FUNCTION orchestra.bucket_duration(bucket integer) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN bucket > 0
           THEN exp((LEAST(bucket, 18096) - 0.5::double precision) * 0.03922071315328133)
           ELSE 0.5 END
$$;
COMMENT ON FUNCTION orchestra.bucket_duration(bucket integer) IS 'The geometric mean of a bucket''s bounds in milliseconds. It differs by at most 2 % from every duration in the bucket. 0.5 for bucket 0.';

CREATE TABLE orchestra.prices (
    model text NOT NULL COLLATE pg_catalog."C",
    service_tier text DEFAULT 'standard'::text NOT NULL,
    above_input_tokens integer DEFAULT 0 NOT NULL,
    up_to_input_tokens integer,
    valid_from date NOT NULL,
    valid_until date,
    provider text,
    currency text NOT NULL,
    input_per_million numeric,
    cached_input_per_million numeric,
    cache_write_per_million numeric,
    cache_write_1h_per_million numeric,
    input_audio_per_million numeric,
    cached_audio_per_million numeric,
    input_image_per_million numeric,
    cached_image_per_million numeric,
    input_video_per_million numeric,
    output_per_million numeric,
    reasoning_per_million numeric,
    output_audio_per_million numeric,
    output_image_per_million numeric,
    output_video_per_million numeric,
    citation_per_million numeric,
    other_per_million numeric,
    web_searches_per_thousand numeric,
    file_searches_per_thousand numeric,
    tool_uses_per_thousand numeric,
    audio_per_hour numeric,
    document_pages_per_thousand numeric,
    search_units_per_thousand numeric,
    unread_per_thousand numeric,
    calls_per_thousand numeric,
    source text NOT NULL,
    CONSTRAINT prices_model_check CHECK ((length(model) <= 500))
);
COMMENT ON TABLE orchestra.prices IS 'Known prices of the models seen in calls, by service tier, length of the input and day. A model without a row has no known price.';
COMMENT ON COLUMN orchestra.prices.model IS 'The model, as the rollups name it.';
COMMENT ON COLUMN orchestra.prices.service_tier IS 'The service tier.';
COMMENT ON COLUMN orchestra.prices.above_input_tokens IS 'For calls with more input tokens than this.';
COMMENT ON COLUMN orchestra.prices.up_to_input_tokens IS 'For calls with at most this many input tokens; null: no limit.';
COMMENT ON COLUMN orchestra.prices.valid_from IS 'First day (UTC) of the price; 0001-01-01: the price has no known start and applies to every earlier day.';
COMMENT ON COLUMN orchestra.prices.valid_until IS 'First day (UTC) on which the price no longer applies; null: no known end.';
COMMENT ON COLUMN orchestra.prices.provider IS 'The provider; null: unknown.';
COMMENT ON COLUMN orchestra.prices.currency IS 'Currency of the prices, such as USD.';
COMMENT ON COLUMN orchestra.prices.input_per_million IS 'Price per million: input tokens; null: unknown.';
COMMENT ON COLUMN orchestra.prices.cached_input_per_million IS 'Price per million: input tokens read from a cache; null: unknown.';
COMMENT ON COLUMN orchestra.prices.cache_write_per_million IS 'Price per million: input tokens written to a cache; null: unknown.';
COMMENT ON COLUMN orchestra.prices.cache_write_1h_per_million IS 'Price per million: input tokens written to a cache that keeps them for an hour; null: unknown.';
COMMENT ON COLUMN orchestra.prices.input_audio_per_million IS 'Price per million: input tokens of audio; null: unknown.';
COMMENT ON COLUMN orchestra.prices.cached_audio_per_million IS 'Price per million: input tokens of audio read from a cache; null: unknown.';
COMMENT ON COLUMN orchestra.prices.input_image_per_million IS 'Price per million: input tokens of images; null: unknown.';
COMMENT ON COLUMN orchestra.prices.cached_image_per_million IS 'Price per million: input tokens of images read from a cache; null: unknown.';
COMMENT ON COLUMN orchestra.prices.input_video_per_million IS 'Price per million: input tokens of video; null: unknown.';
COMMENT ON COLUMN orchestra.prices.output_per_million IS 'Price per million: output tokens; null: unknown.';
COMMENT ON COLUMN orchestra.prices.reasoning_per_million IS 'Price per million: output tokens of reasoning; null: unknown.';
COMMENT ON COLUMN orchestra.prices.output_audio_per_million IS 'Price per million: output tokens of audio; null: unknown.';
COMMENT ON COLUMN orchestra.prices.output_image_per_million IS 'Price per million: output tokens of images; null: unknown.';
COMMENT ON COLUMN orchestra.prices.output_video_per_million IS 'Price per million: output tokens of video; null: unknown.';
COMMENT ON COLUMN orchestra.prices.citation_per_million IS 'Price per million: output tokens of citations; null: unknown.';
COMMENT ON COLUMN orchestra.prices.other_per_million IS 'Price per million: tokens of unknown kind; null: unknown.';
COMMENT ON COLUMN orchestra.prices.web_searches_per_thousand IS 'Price per thousand: web searches by the provider; null: unknown.';
COMMENT ON COLUMN orchestra.prices.file_searches_per_thousand IS 'Price per thousand: file searches by the provider; null: unknown.';
COMMENT ON COLUMN orchestra.prices.tool_uses_per_thousand IS 'Price per thousand: uses of other tools that the provider charges by use; null: unknown.';
COMMENT ON COLUMN orchestra.prices.audio_per_hour IS 'Price per hour: audio charged by duration; null: unknown.';
COMMENT ON COLUMN orchestra.prices.document_pages_per_thousand IS 'Price per thousand: document pages read; null: unknown.';
COMMENT ON COLUMN orchestra.prices.search_units_per_thousand IS 'Price per thousand: search units of a reranking model; null: unknown.';
COMMENT ON COLUMN orchestra.prices.unread_per_thousand IS 'Price per thousand: reported quantities of usage that could not be read; null: unknown.';
COMMENT ON COLUMN orchestra.prices.calls_per_thousand IS 'Price per thousand: calls; null: unknown.';
COMMENT ON COLUMN orchestra.prices.source IS 'Where the price comes from: config, set (orchestra-etl prices set), added (this program''s own list, from the provider''s page) or default (the package genai-prices).';

CREATE FUNCTION orchestra.call_cost(used orchestra.usage, calls bigint, prices orchestra.prices) RETURNS numeric
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
COMMENT ON FUNCTION orchestra.call_cost(used orchestra.usage, calls bigint, prices orchestra.prices) IS 'The cost of this usage and this number of calls at these prices: each kind is charged at its own price (see charged), and each call at the price of a call. Null without prices, or if a used kind has no price; calls without usage cost nothing.';

CREATE FUNCTION orchestra.call_parameters(inputs jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $_$
    SELECT COALESCE(jsonb_object_agg(e.name, e.value ORDER BY e.own)
                        FILTER (WHERE e.name = ANY (orchestra.parameter_names())
                                   OR (jsonb_typeof(e.value) IN ('number', 'boolean')
                                       AND e.name !~ '(^|_)id$|Id$')),
                    '{}')
    FROM (
        SELECT b.body FROM orchestra.model_bodies(inputs, 'request') AS b ORDER BY b.place LIMIT 1
    ) AS b
    CROSS JOIN LATERAL (
        SELECT true AS own, o.name, o.value FROM jsonb_each(b.body) AS o (name, value)
        UNION ALL
        SELECT false, o.name, o.value
        FROM unnest(orchestra.settings_names()) AS s (name)
        CROSS JOIN LATERAL jsonb_each(
            CASE WHEN jsonb_typeof(b.body -> s.name) = 'object' THEN b.body -> s.name END
        ) AS o (name, value)
    ) AS e
    WHERE jsonb_typeof(e.value) <> 'null'
    HAVING count(*) > 0
$_$;
COMMENT ON FUNCTION orchestra.call_parameters(inputs jsonb) IS 'The settings in a step''s inputs, such as temperature and max_tokens: the fields with known names (see parameter_names), and other numbers and booleans, except ids; null for an unknown shape.';

CREATE FUNCTION orchestra.called_tools(outputs jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $_$
    WITH found AS (
        SELECT b.place, p.api, p.ordinal AS place_ordinal, p.kind <> 'delta' AS is_whole,
               a.ordinal AS choice, t.ordinal, orchestra.tool_name(t.tool) #>> '{}' AS name,
               orchestra.tool_arguments(t.tool) AS arguments, a.value -> 'index' AS choice_number,
               COALESCE(t.tool -> 'index', b.body -> 'index', b.body -> 'output_index',
                        jsonb_path_query_first(b.body, 'lax $.*.contentBlockIndex', '{}', true))
                   AS number
        FROM orchestra.model_bodies(outputs, 'response') AS b
        JOIN orchestra.tool_places() AS p ON b.body ? p.member
        CROSS JOIN LATERAL jsonb_path_query(b.body, p.alternatives, '{}', true)
            WITH ORDINALITY AS a (value, ordinal)
        CROSS JOIN LATERAL jsonb_path_query(a.value, p.path, '{}', true)
            WITH ORDINALITY AS t (tool, ordinal)
        WHERE jsonb_typeof(t.tool) = 'object'
    ), chosen AS (
        SELECT f.*, bool_or(f.is_whole AND f.name IS NOT NULL) OVER () AS any_whole,
               first_value(f.api) OVER (PARTITION BY f.place ORDER BY f.place_ordinal) AS first_api
        FROM found AS f
    ), merged AS (
        SELECT min(c.place) AS place, min(c.choice) AS choice, min(c.place_ordinal) AS place_ordinal,
               min(c.ordinal) AS ordinal, max(c.name) AS name,
               string_agg(c.arguments #>> '{}', '' ORDER BY c.place, c.ordinal)
                   FILTER (WHERE jsonb_typeof(c.arguments) = 'string') AS said,
               jsonb_agg(c.arguments ORDER BY c.place, c.ordinal)
                   FILTER (WHERE jsonb_typeof(c.arguments) <> 'string') -> 0 AS arguments
        FROM chosen AS c
        WHERE c.api = c.first_api AND c.is_whole = c.any_whole
        GROUP BY CASE WHEN c.is_whole THEN c.place END, CASE WHEN c.is_whole THEN c.choice END,
                 CASE WHEN c.is_whole THEN c.place_ordinal END,
                 CASE WHEN c.is_whole THEN c.ordinal END,
                 CASE WHEN NOT c.is_whole THEN c.choice_number END,
                 CASE WHEN NOT c.is_whole THEN c.number END
    )
    SELECT jsonb_agg(jsonb_build_object('name', m.name, 'arguments', COALESCE(
               orchestra.parsed_json(NULLIF(m.said, '')), to_jsonb(NULLIF(m.said, '')), m.arguments))
               ORDER BY m.place, m.choice, m.ordinal, m.place_ordinal)
    FROM merged AS m WHERE m.name IS NOT NULL
$_$;
COMMENT ON FUNCTION orchestra.called_tools(outputs jsonb) IS 'The tools that a model calls in a step''s outputs, in the order of the calls, as objects with name and arguments; arguments that are a JSON text are parsed. Null if it calls none, or for an unknown shape.';

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
COMMENT ON FUNCTION orchestra.charged(used orchestra.usage) IS 'For each kind of usage, the quantity charged at its price: the reported quantity minus the parts with prices of their own, at least 0. No token is charged twice.';

CREATE FUNCTION orchestra.content_parts(body jsonb) RETURNS SETOF jsonb
    LANGUAGE sql IMMUTABLE COST 1000 ROWS 4 PARALLEL SAFE
    AS $_$
    WITH parts AS (
        SELECT i.part
        FROM orchestra.prompt_places() AS p
        CROSS JOIN LATERAL jsonb_path_query(body, p.path, '{}', true) AS m (message)
        CROSS JOIN LATERAL jsonb_path_query(orchestra.message_content(m.message), 'lax $[*]', '{}',
            true) AS i (part)
        WHERE body ? p.member
        UNION ALL
        SELECT i.part
        FROM orchestra.answer_places() AS p
        CROSS JOIN LATERAL jsonb_path_query(body, p.alternatives, '{}', true) AS a (value)
        CROSS JOIN LATERAL jsonb_path_query(a.value, p.path, '{}', true) AS c (content)
        CROSS JOIN LATERAL jsonb_path_query(c.content, 'lax $[*]', '{}', true) AS i (part)
        WHERE body ? p.member
    )
    SELECT p.part FROM parts AS p WHERE jsonb_typeof(p.part) = 'object'
    UNION ALL
    SELECT i.part
    FROM parts AS p
    CROSS JOIN LATERAL jsonb_array_elements(orchestra.inner_parts(p.part)) AS i (part)
$_$;
COMMENT ON FUNCTION orchestra.content_parts(body jsonb) IS 'All parts that are objects, from every content in a model''s request or response.';

CREATE FUNCTION orchestra.content_text(content jsonb, separator text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE jsonb_typeof(content) WHEN 'string' THEN NULLIF(content #>> '{}', '')
                                      ELSE orchestra.parts_text(content, separator) END
$$;
COMMENT ON FUNCTION orchestra.content_text(content jsonb, separator text) IS 'The text of a message''s content, which is a text or a list of parts, without reasoning; several texts are joined with the separator; null if there is no text.';

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
COMMENT ON FUNCTION orchestra.context_tier(input_tokens bigint) IS 'The highest price threshold that the input tokens of a call exceed, or 0; null for null. A price threshold is a number of input tokens above which published prices change.';

CREATE FUNCTION orchestra.cost_parts(used orchestra.usage, calls bigint, prices orchestra.prices) RETURNS TABLE(kind text, quantity bigint, price numeric, per bigint, cost numeric)
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
COMMENT ON FUNCTION orchestra.cost_parts(used orchestra.usage, calls bigint, prices orchestra.prices) IS 'The calculation of call_cost, as one row per charged kind: the quantity, the price, the number of units the price is for, and the cost, which is null if the kind has no price. The costs add up to call_cost.';

CREATE FUNCTION orchestra.count_distinct(items text[]) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT count(DISTINCT item COLLATE "C") FROM unnest(items) AS i (item) $$;
COMMENT ON FUNCTION orchestra.count_distinct(items text[]) IS 'The number of distinct texts: count_distinct(array_agg(x)) equals count(DISTINCT x), and is faster if rows are grouped.';

CREATE FUNCTION orchestra.critical_path(starts timestamp with time zone[], ends timestamp with time zone[], run_starts timestamp with time zone, run_ends timestamp with time zone, OUT took bigint[], OUT waited bigint[], OUT waited_at_end bigint) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    steps integer := COALESCE(cardinality(ends), 0);
    later integer := 0;
    at timestamptz := run_ends;
    ends_at timestamptz;
    gap bigint;
BEGIN
    took := array_fill(NULL::bigint, ARRAY[steps]);
    waited := took;
    FOR ordinal IN 1 .. steps LOOP
        ends_at := LEAST(ends[ordinal], run_ends);
        IF ends_at <= at AND ends_at >= run_starts THEN
            gap := extract(epoch FROM at - ends_at) * 1000000;
            IF later = 0 THEN
                waited_at_end := gap;
            ELSE
                waited[later] := gap;
            END IF;
            at := GREATEST(LEAST(starts[ordinal], ends_at), run_starts);
            took[ordinal] := extract(epoch FROM ends_at - at) * 1000000;
            later := ordinal;
        END IF;
    END LOOP;
    gap := extract(epoch FROM at - run_starts) * 1000000;
    IF later = 0 THEN
        waited_at_end := gap;
    ELSE
        waited[later] := gap;
    END IF;
END
$$;
COMMENT ON FUNCTION orchestra.critical_path(starts timestamp with time zone[], ends timestamp with time zone[], run_starts timestamp with time zone, run_ends timestamp with time zone, OUT took bigint[], OUT waited bigint[], OUT waited_at_end bigint) IS 'The steps that a run waited for, found from its end: the step that ended last, then the step that ended last before that one started, and so on. Pass the steps in descending order of their ends. took: microseconds of each step on the path; waited: microseconds from the end of the previous step on the path to this step''s start; both are null for a step that is not on the path. Together with waited_at_end, they add up to the duration of the run.';

CREATE FUNCTION orchestra.duration_bucket(ms double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE
        WHEN ms >= 1 AND ms < 'Infinity' THEN (floor(ln(ms) / 0.03922071315328133) + 1)::integer
        WHEN ms >= 0 AND ms < 1 THEN 0
    END
$$;
COMMENT ON FUNCTION orchestra.duration_bucket(ms double precision) IS 'The bucket of a duration in milliseconds: bucket 0 is below 1 ms, and each further bucket ends 4 % higher; null for null and for negative durations.';

CREATE FUNCTION orchestra.duration_histogram_add(state bigint[], buckets smallint[], counts integer[]) RETURNS bigint[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    FOR ordinal IN 1 .. COALESCE(cardinality(buckets), 0) LOOP
        IF buckets[ordinal] >= 0 AND counts[ordinal] > 0 THEN
            state[buckets[ordinal]] := COALESCE(state[buckets[ordinal]], 0) + counts[ordinal];
        END IF;
    END LOOP;
    RETURN state;
END
$$;
COMMENT ON FUNCTION orchestra.duration_histogram_add(state bigint[], buckets smallint[], counts integer[]) IS 'A part of the aggregate duration_histogram: adds a stored histogram.';

CREATE FUNCTION orchestra.duration_histogram_merge(one bigint[], other bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    FOR bucket IN COALESCE(array_lower(other, 1), 0) .. COALESCE(array_upper(other, 1), -1) LOOP
        IF other[bucket] > 0 THEN
            one[bucket] := COALESCE(one[bucket], 0) + other[bucket];
        END IF;
    END LOOP;
    RETURN one;
END
$$;
COMMENT ON FUNCTION orchestra.duration_histogram_merge(one bigint[], other bigint[]) IS 'A part of the aggregate duration_histogram: merges the counts of parallel workers.';

CREATE FUNCTION orchestra.duration_quantile_add(state double precision[], buckets smallint[], counts integer[], q double precision) RETURNS double precision[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    IF state[0] IS NULL THEN
        IF NOT q BETWEEN 0 AND 1 THEN
            RAISE numeric_value_out_of_range USING MESSAGE = 'a quantile lies between 0 and 1';
        END IF;
        state[0] := q;
    END IF;
    FOR ordinal IN 1 .. COALESCE(cardinality(buckets), 0) LOOP
        IF buckets[ordinal] >= 0 AND counts[ordinal] > 0 THEN
            state[buckets[ordinal] + 1] := COALESCE(state[buckets[ordinal] + 1], 0)
                + counts[ordinal];
        END IF;
    END LOOP;
    RETURN state;
END
$$;
COMMENT ON FUNCTION orchestra.duration_quantile_add(state double precision[], buckets smallint[], counts integer[], q double precision) IS 'A part of the aggregate duration_quantile: adds a stored histogram.';

CREATE FUNCTION orchestra.duration_quantile_add(state double precision[], bucket integer, count bigint, q double precision) RETURNS double precision[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    IF state[0] IS NULL THEN
        IF NOT q BETWEEN 0 AND 1 THEN
            RAISE numeric_value_out_of_range USING MESSAGE = 'a quantile lies between 0 and 1';
        END IF;
        state[0] := q;
    END IF;
    -- There are no buckets below 0, and no double above bucket 18096.
    IF bucket >= 0 AND count > 0 THEN
        bucket := LEAST(bucket, 18096);
        state[bucket + 1] := COALESCE(state[bucket + 1], 0) + count;
    END IF;
    RETURN state;
END
$$;
COMMENT ON FUNCTION orchestra.duration_quantile_add(state double precision[], bucket integer, count bigint, q double precision) IS 'A part of the aggregate duration_quantile: adds a bucket.';

CREATE FUNCTION orchestra.duration_quantile_end(state double precision[]) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    total double precision := 0;
    up_to double precision := 0;
BEGIN
    FOR n IN 1 .. COALESCE(array_upper(state, 1), 0) LOOP
        total := total + COALESCE(state[n], 0);
    END LOOP;
    FOR n IN 1 .. COALESCE(array_upper(state, 1), 0) LOOP
        up_to := up_to + COALESCE(state[n], 0);
        IF state[n] > 0 AND up_to >= state[0] * total THEN
            RETURN orchestra.bucket_duration(n - 1);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra.duration_quantile_end(state double precision[]) IS 'A part of the aggregate duration_quantile: the duration at the quantile.';

CREATE FUNCTION orchestra.duration_quantile_merge(one double precision[], other double precision[]) RETURNS double precision[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    one[0] := COALESCE(one[0], other[0]);
    FOR n IN 1 .. COALESCE(array_upper(other, 1), 0) LOOP
        IF other[n] > 0 THEN
            one[n] := COALESCE(one[n], 0) + other[n];
        END IF;
    END LOOP;
    RETURN one;
END
$$;
COMMENT ON FUNCTION orchestra.duration_quantile_merge(one double precision[], other double precision[]) IS 'A part of the aggregate duration_quantile: merges the counts of parallel workers.';

CREATE FUNCTION orchestra.error_message(error jsonb, reported_error text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE
        WHEN orchestra.is_error(error) THEN COALESCE(
            (SELECT said #>> '{}'
             FROM unnest(ARRAY[
                 error -> 'message', error #> '{error,message}', error -> 'detail',
                 error #> '{error,detail}', error -> 'error'
             ]) WITH ORDINALITY AS m (said, ordinal)
             WHERE orchestra.is_error(said)
             ORDER BY ordinal
             LIMIT 1),
            error #>> '{}')
        WHEN orchestra.is_error_text(reported_error) THEN reported_error
    END
$$;
COMMENT ON FUNCTION orchestra.error_message(error jsonb, reported_error text) IS 'The message of an error as plain text: the API''s own error, else the one that the step''s payload reports; null if there is neither.';

CREATE FUNCTION orchestra.explain_cost(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) RETURNS TABLE(currency text, part text, version text, node_id text, model text, service_tier text, context_tier integer, kind text, before numeric, after numeric, amount numeric)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    AS $$
    SELECT * FROM orchestra.explain_cost(
        workflow, since, until, against_since, against_until, NULL, NULL, NULL)
$$;
COMMENT ON FUNCTION orchestra.explain_cost(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) IS 'Why the cost of a workflow differs between two periods. The row baseline holds the cost of the baseline period; the other rows hold the parts of the difference, which add up to it exactly, for each currency. before and after: the factor in the baseline period and in the period.';

CREATE FUNCTION orchestra.explain_cost(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone, only_organisation text, only_node text, only_model text) RETURNS TABLE(currency text, part text, version text, node_id text, model text, service_tier text, context_tier integer, kind text, before numeric, after numeric, amount numeric)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    AS $$
    WITH used AS MATERIALIZED (
        -- Calls with the same price and the same kinds of usage, of which either all have a cost or
        -- none has.
        SELECT c.side, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
               c.usage_kinds, p.valid_from, min(c.at) AS at,
               CAST(sum(c.calls) AS bigint) AS calls,
               CAST(sum(c.unmetered_calls) AS bigint) AS unmetered,
               CAST(ROW(
                   orchestra.bounded(sum((c.used).input_tokens)),
                   orchestra.bounded(sum((c.used).cached_input_tokens)),
                   orchestra.bounded(sum((c.used).cache_write_tokens)),
                   orchestra.bounded(sum((c.used).cache_write_1h_tokens)),
                   orchestra.bounded(sum((c.used).input_audio_tokens)),
                   orchestra.bounded(sum((c.used).cached_audio_tokens)),
                   orchestra.bounded(sum((c.used).input_image_tokens)),
                   orchestra.bounded(sum((c.used).cached_image_tokens)),
                   orchestra.bounded(sum((c.used).input_video_tokens)),
                   orchestra.bounded(sum((c.used).output_tokens)),
                   orchestra.bounded(sum((c.used).reasoning_tokens)),
                   orchestra.bounded(sum((c.used).output_audio_tokens)),
                   orchestra.bounded(sum((c.used).output_image_tokens)),
                   orchestra.bounded(sum((c.used).output_video_tokens)),
                   orchestra.bounded(sum((c.used).citation_tokens)),
                   orchestra.bounded(sum((c.used).other_tokens)),
                   orchestra.bounded(sum((c.used).web_searches)),
                   orchestra.bounded(sum((c.used).file_searches)),
                   orchestra.bounded(sum((c.used).tool_uses)),
                   orchestra.bounded(sum((c.used).audio_ms)),
                   orchestra.bounded(sum((c.used).document_pages)),
                   orchestra.bounded(sum((c.used).search_units)),
                   orchestra.bounded(sum((c.used).unread_quantities))
               ) AS orchestra.usage) AS used
        FROM orchestra.explained_calls(
            workflow, since, until, against_since, against_until,
            only_organisation, only_node, only_model) AS c
        LEFT JOIN orchestra.prices AS p
          ON p.model = c.model
         AND orchestra.price_applies(p, c.service_tier, c.context_tier, c.at)
        GROUP BY c.side, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
                 c.usage_kinds, p.valid_from
    ), calls AS MATERIALIZED (
        SELECT u.side, u.version, u.node_id, u.model, u.service_tier, u.context_tier, u.calls,
               u.unmetered, u.calls - u.unmetered AS metered, u.used, p AS prices,
               CASE WHEN orchestra.call_cost(u.used, u.calls - u.unmetered, p) IS NOT NULL
                   THEN p.currency END AS currency
        FROM used AS u
        LEFT JOIN orchestra.prices AS p
          ON p.model = u.model AND p.valid_from = u.valid_from AND u.calls > u.unmetered
         AND orchestra.price_applies(p, u.service_tier, u.context_tier, u.at)
    ), periods AS (
        SELECT p.side, p.version, sum(p.runs) AS runs
        FROM orchestra.explained_periods(
            workflow, since, until, against_since, against_until, only_organisation) AS p
        GROUP BY p.side, p.version
    ), versions AS (
        -- Without a run that started in a period, its calls belong to earlier runs: these count as
        -- one run.
        SELECT v.version, v.runs_0, v.runs_1, sum(v.runs_0) OVER () AS all_0,
               sum(v.runs_1) OVER () AS all_1
        FROM (
            SELECT p.version,
                   COALESCE(sum(GREATEST(p.runs, s.least)) FILTER (WHERE p.side = 0), 0) AS runs_0,
                   COALESCE(sum(GREATEST(p.runs, s.least)) FILTER (WHERE p.side = 1), 0) AS runs_1
            FROM periods AS p
            CROSS JOIN LATERAL (
                SELECT CASE WHEN EXISTS (SELECT FROM calls AS c WHERE c.side = p.side)
                    THEN 1 ELSE 0 END AS least
            ) AS s
            GROUP BY p.version
        ) AS v
    ), nodes AS (
        SELECT c.version, c.node_id,
               COALESCE(sum(c.calls) FILTER (WHERE c.side = 0), 0) AS calls_0,
               COALESCE(sum(c.calls) FILTER (WHERE c.side = 1), 0) AS calls_1,
               COALESCE(sum(c.unmetered) FILTER (WHERE c.side = 0), 0) AS unmetered_0,
               COALESCE(sum(c.unmetered) FILTER (WHERE c.side = 1), 0) AS unmetered_1,
               COALESCE(sum(c.metered) FILTER (WHERE c.side = 0 AND c.currency IS NULL), 0)
                   AS unpriced_0,
               COALESCE(sum(c.metered) FILTER (WHERE c.side = 1 AND c.currency IS NULL), 0)
                   AS unpriced_1
        FROM calls AS c
        GROUP BY c.version, c.node_id
    ), models AS (
        SELECT m.*, sum(m.calls_0) OVER node AS priced_0, sum(m.calls_1) OVER node AS priced_1
        FROM (
            SELECT c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
                   COALESCE(sum(c.metered) FILTER (WHERE c.side = 0), 0) AS calls_0,
                   COALESCE(sum(c.metered) FILTER (WHERE c.side = 1), 0) AS calls_1
            FROM calls AS c
            WHERE c.currency IS NOT NULL
            GROUP BY c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier
        ) AS m
        WINDOW node AS (PARTITION BY m.currency, m.version, m.node_id)
    ), kinds AS (
        SELECT c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
               part.kind, part.per,
               COALESCE(sum(part.quantity) FILTER (WHERE c.side = 0), 0) AS used_0,
               COALESCE(sum(part.quantity) FILTER (WHERE c.side = 1), 0) AS used_1,
               COALESCE(sum(part.quantity * part.price) FILTER (WHERE c.side = 0), 0) AS charged_0,
               COALESCE(sum(part.quantity * part.price) FILTER (WHERE c.side = 1), 0) AS charged_1
        FROM calls AS c
        CROSS JOIN LATERAL orchestra.cost_parts(c.used, c.metered, c.prices) AS part
        WHERE c.currency IS NOT NULL
        GROUP BY c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
                 part.kind, part.per
    ), costs AS (
        SELECT c.currency,
               round(COALESCE(sum(orchestra.ratio(k.charged_0, k.per)), 0), 12) AS cost_0,
               round(COALESCE(sum(orchestra.ratio(k.charged_1, k.per)), 0), 12) AS cost_1
        FROM (SELECT DISTINCT m.currency FROM models AS m) AS c
        LEFT JOIN kinds AS k ON k.currency = c.currency
        GROUP BY c.currency
    ), priced AS (
        -- A price is not the workflow's own: if a node lacks it in a period, it is that of other
        -- nodes and versions.
        SELECT k.*,
               orchestra.ratio(sum(k.charged_0) OVER everywhere, sum(k.used_0) OVER everywhere)
                   AS usual_0,
               orchestra.ratio(sum(k.charged_1) OVER everywhere, sum(k.used_1) OVER everywhere)
                   AS usual_1
        FROM kinds AS k
        WINDOW everywhere AS (
            PARTITION BY k.currency, k.model, k.service_tier, k.context_tier, k.kind)
    ), known AS (
        -- Null: the period has no calls below this place.
        SELECT k.currency, k.version, k.node_id, k.model, k.service_tier, k.context_tier, k.kind,
               k.per, v.all_0 AS runs_0, v.all_1 AS runs_1,
               orchestra.ratio(v.runs_0, v.all_0) AS version_0,
               orchestra.ratio(v.runs_1, v.all_1) AS version_1,
               orchestra.ratio(n.calls_0, v.runs_0) AS calls_0,
               orchestra.ratio(n.calls_1, v.runs_1) AS calls_1,
               orchestra.ratio(m.priced_0, n.calls_0) AS priced_0,
               orchestra.ratio(m.priced_1, n.calls_1) AS priced_1,
               orchestra.ratio(n.unpriced_0, n.calls_0) AS unpriced_0,
               orchestra.ratio(n.unpriced_1, n.calls_1) AS unpriced_1,
               orchestra.ratio(n.unmetered_0, n.calls_0) AS unmetered_0,
               orchestra.ratio(n.unmetered_1, n.calls_1) AS unmetered_1,
               orchestra.ratio(m.calls_0, m.priced_0) AS model_0,
               orchestra.ratio(m.calls_1, m.priced_1) AS model_1,
               orchestra.ratio(k.used_0, m.calls_0) AS used_0,
               orchestra.ratio(k.used_1, m.calls_1) AS used_1,
               COALESCE(orchestra.ratio(k.charged_0, k.used_0), k.usual_0, k.usual_1) AS price_0,
               COALESCE(orchestra.ratio(k.charged_1, k.used_1), k.usual_1, k.usual_0) AS price_1
        FROM priced AS k
        -- Arrays, because nulls in them are equal, and a join can hash them.
        JOIN versions AS v ON ARRAY[v.version] = ARRAY[k.version]
        JOIN nodes AS n ON ARRAY[n.version, n.node_id] = ARRAY[k.version, k.node_id]
        JOIN models AS m
          ON m.currency = k.currency AND m.model = k.model
         AND ARRAY[m.version, m.node_id, m.service_tier, CAST(m.context_tier AS text)]
           = ARRAY[k.version, k.node_id, k.service_tier, CAST(k.context_tier AS text)]
    ), factors AS (
        SELECT k.currency, k.version, k.node_id, k.model, k.service_tier, k.context_tier, k.kind,
               k.per, k.runs_0, k.runs_1,
               COALESCE(k.version_0, k.version_1) AS version_0,
               COALESCE(k.version_1, k.version_0) AS version_1,
               COALESCE(k.calls_0, k.calls_1) AS calls_0,
               COALESCE(k.calls_1, k.calls_0) AS calls_1,
               COALESCE(k.priced_0, k.priced_1) AS priced_0,
               COALESCE(k.priced_1, k.priced_0) AS priced_1,
               COALESCE(k.unpriced_0, k.unpriced_1) AS unpriced_0,
               COALESCE(k.unpriced_1, k.unpriced_0) AS unpriced_1,
               COALESCE(k.unmetered_0, k.unmetered_1) AS unmetered_0,
               COALESCE(k.unmetered_1, k.unmetered_0) AS unmetered_1,
               COALESCE(k.model_0, k.model_1) AS model_0,
               COALESCE(k.model_1, k.model_0) AS model_1,
               COALESCE(k.used_0, k.used_1) AS used_0,
               COALESCE(k.used_1, k.used_0) AS used_1,
               k.price_0 / k.per AS price_0, k.price_1 / k.per AS price_1
        FROM known AS k
    ), effects AS (
        SELECT f.currency, e.*,
               CASE WHEN e.depth >= 3 THEN f.version END AS version,
               CASE WHEN e.depth >= 2 THEN f.node_id END AS node_id,
               CASE WHEN e.depth >= 4 THEN f.model END AS model,
               CASE WHEN e.depth >= 4 THEN f.service_tier END AS service_tier,
               CASE WHEN e.depth >= 4 THEN f.context_tier END AS context_tier,
               CASE WHEN e.depth >= 5 THEN f.kind END AS kind
        FROM factors AS f
        -- What lies below each level: y of the formula.
        CROSS JOIN LATERAL (SELECT f.price_0 AS y_0, f.price_1 AS y_1) AS used
        CROSS JOIN LATERAL (SELECT f.used_0 * used.y_0 AS y_0, f.used_1 * used.y_1 AS y_1) AS model
        CROSS JOIN LATERAL (
            SELECT f.model_0 * model.y_0 AS y_0, f.model_1 * model.y_1 AS y_1) AS priced
        CROSS JOIN LATERAL (
            SELECT f.priced_0 * priced.y_0 AS y_0, f.priced_1 * priced.y_1 AS y_1) AS calls
        CROSS JOIN LATERAL (
            SELECT f.calls_0 * calls.y_0 AS y_0, f.calls_1 * calls.y_1 AS y_1) AS version
        CROSS JOIN LATERAL (
            SELECT f.version_0 * version.y_0 AS y_0, f.version_1 * version.y_1 AS y_1) AS runs
        -- The product of the means of the factors above each level.
        CROSS JOIN LATERAL (SELECT orchestra.midpoint(f.runs_0, f.runs_1) AS x) AS below_runs
        CROSS JOIN LATERAL (
            SELECT below_runs.x * orchestra.midpoint(f.version_0, f.version_1) AS x
        ) AS below_version
        CROSS JOIN LATERAL (
            SELECT below_version.x * orchestra.midpoint(f.calls_0, f.calls_1) AS x
        ) AS below_calls
        CROSS JOIN LATERAL (
            SELECT below_calls.x * orchestra.midpoint(f.priced_0, f.priced_1) AS x
        ) AS below_priced
        CROSS JOIN LATERAL (
            SELECT below_priced.x * orchestra.midpoint(f.model_0, f.model_1) AS x
        ) AS below_model
        CROSS JOIN LATERAL (
            SELECT below_model.x * orchestra.midpoint(f.used_0, f.used_1) AS x
        ) AS below_used
        CROSS JOIN LATERAL (
            SELECT (f.unpriced_1 - f.unpriced_0) AS unpriced,
                   (f.unmetered_1 - f.unmetered_0) AS unmetered,
                   below_calls.x * orchestra.midpoint(priced.y_0, priced.y_1) AS weight
        ) AS without
        CROSS JOIN LATERAL (
            VALUES
                (1, 'runs', f.runs_0, f.runs_1,
                 (f.runs_1 - f.runs_0) * orchestra.midpoint(runs.y_0, runs.y_1)),
                (2, 'version', NULL, NULL,
                 below_runs.x * (f.version_1 - f.version_0)
                     * orchestra.midpoint(version.y_0, version.y_1)),
                (3, CASE WHEN f.calls_0 = 0 OR f.calls_1 = 0 THEN 'nodes' ELSE 'calls' END,
                 f.calls_0, f.calls_1,
                 below_version.x * (f.calls_1 - f.calls_0)
                     * orchestra.midpoint(calls.y_0, calls.y_1)),
                (3, 'unpriced', f.unpriced_0, f.unpriced_1, -without.unpriced * without.weight),
                (3, 'unmetered', f.unmetered_0, f.unmetered_1, -without.unmetered * without.weight),
                (3, 'currencies', 1 - f.priced_0 - f.unpriced_0 - f.unmetered_0,
                 1 - f.priced_1 - f.unpriced_1 - f.unmetered_1,
                 (f.priced_1 - f.priced_0 + without.unpriced + without.unmetered) * without.weight),
                (4, 'models', f.model_0, f.model_1,
                 below_priced.x * (f.model_1 - f.model_0)
                     * orchestra.midpoint(model.y_0, model.y_1)),
                (5, 'usage', f.used_0, f.used_1,
                 below_model.x * (f.used_1 - f.used_0) * orchestra.midpoint(used.y_0, used.y_1)),
                (5, 'prices', f.price_0 * f.per, f.price_1 * f.per,
                 below_used.x * (f.price_1 - f.price_0))
        ) AS e (depth, part, before, after, amount)
    ), summed AS (
        SELECT e.currency, e.part, e.version, e.node_id, e.model, e.service_tier, e.context_tier,
               e.kind, max(e.before) AS before, max(e.after) AS after,
               round(sum(e.amount), 12) AS amount
        FROM effects AS e
        GROUP BY e.currency, e.part, e.version, e.node_id, e.model, e.service_tier, e.context_tier,
                 e.kind
        HAVING round(sum(e.amount), 12) <> 0
    ), ranked AS (
        SELECT s.*,
               c.cost_1 - c.cost_0 - sum(s.amount) OVER (PARTITION BY s.currency) AS rounding,
               row_number() OVER (
                   PARTITION BY s.currency
                   ORDER BY abs(s.amount) DESC, s.part, s.version, s.node_id, s.model,
                            s.service_tier, s.context_tier, s.kind
               ) AS rank
        FROM summed AS s
        JOIN costs AS c ON c.currency = s.currency
    )
    SELECT c.currency, 'baseline', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, c.cost_0
    FROM costs AS c
    UNION ALL
    SELECT r.currency, r.part, r.version, r.node_id, r.model, r.service_tier, r.context_tier,
           r.kind, trim_scale(round(r.before, 12)), trim_scale(round(r.after, 12)),
           CASE WHEN r.rank = 1 THEN r.amount + r.rounding ELSE r.amount END
    FROM ranked AS r
$$;
COMMENT ON FUNCTION orchestra.explain_cost(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone, only_organisation text, only_node text, only_model text) IS 'Like explain_cost with five arguments, only for the calls of one organisation, node or model; null: all. With an organisation, only its runs count.';

CREATE FUNCTION orchestra.explain_duration(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) RETURNS TABLE(part text, node_id text, before numeric, after numeric, amount numeric)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    AS $$
    WITH runs AS (
        SELECT s.side, r.id, r.start_time, r.end_time
        FROM (VALUES (0, against_since, against_until), (1, since, until))
            AS s (side, begins, ends)
        JOIN orchestra.runs AS r
          ON r.workflow_id = workflow AND r.start_time >= s.begins AND r.start_time < s.ends
        WHERE r.state = 'succeeded' AND r.end_time >= r.start_time
          AND orchestra.outcome(r.state, r.error, NULL) = 'succeeded'
    ), paths AS MATERIALIZED (
        SELECT r.side, r.start_time, r.end_time, s.nodes,
               orchestra.critical_path(s.starts, s.ends, r.start_time, r.end_time) AS path
        FROM runs AS r
        CROSS JOIN LATERAL (
            SELECT array_agg(s.node_id ORDER BY s.end_time DESC, s.start_time, s.position, s.id)
                       FILTER (WHERE s.end_time >= s.start_time) AS nodes,
                   array_agg(s.start_time ORDER BY s.end_time DESC, s.start_time, s.position, s.id)
                       FILTER (WHERE s.end_time >= s.start_time) AS starts,
                   array_agg(s.end_time ORDER BY s.end_time DESC, s.start_time, s.position, s.id)
                       FILTER (WHERE s.end_time >= s.start_time) AS ends,
                   bool_or(orchestra.outcome(s.state, s.error, s.reported_error) = 'soft_failed')
                       AS soft_failed
            FROM orchestra.steps AS s
            WHERE s.run_id = r.id AND s.absent_since IS NULL
            OFFSET 0  -- a look-up for each run, or the planner may read all steps
        ) AS s
        WHERE s.soft_failed IS NOT TRUE
    ), totals AS (
        SELECT count(*) FILTER (WHERE p.side = 0) AS runs_0,
               count(*) FILTER (WHERE p.side = 1) AS runs_1,
               sum(extract(epoch FROM p.end_time - p.start_time) * 1000)
                   FILTER (WHERE p.side = 0) AS ms_0,
               sum(extract(epoch FROM p.end_time - p.start_time) * 1000)
                   FILTER (WHERE p.side = 1) AS ms_1
        FROM paths AS p
    ), means AS (
        SELECT t.runs_0, t.runs_1, round(orchestra.ratio(t.ms_0, t.runs_0), 6) AS mean_0,
               round(orchestra.ratio(t.ms_1, t.runs_1), 6) AS mean_1
        FROM totals AS t
        WHERE t.runs_0 > 0 AND t.runs_1 > 0
    ), on_path AS (
        SELECT p.side, s.node_id, s.took, s.waited, s.took IS NOT NULL AS is_step
        FROM paths AS p
        CROSS JOIN LATERAL unnest(p.nodes, (p.path).took, (p.path).waited)
            AS s (node_id, took, waited)
        WHERE s.took IS NOT NULL
        UNION ALL
        SELECT p.side, NULL, NULL, (p.path).waited_at_end, false
        FROM paths AS p
    ), nodes AS (
        SELECT n.node_id, n.is_step, m.runs_0, m.runs_1,
               COALESCE(sum(n.steps) FILTER (WHERE n.side = 0), 0) AS steps_0,
               COALESCE(sum(n.steps) FILTER (WHERE n.side = 1), 0) AS steps_1,
               COALESCE(sum(n.took) FILTER (WHERE n.side = 0), 0) * 0.001 AS took_0,
               COALESCE(sum(n.took) FILTER (WHERE n.side = 1), 0) * 0.001 AS took_1,
               COALESCE(sum(n.waited) FILTER (WHERE n.side = 0), 0) * 0.001 AS waited_0,
               COALESCE(sum(n.waited) FILTER (WHERE n.side = 1), 0) * 0.001 AS waited_1
        FROM (
            SELECT o.side, o.node_id, o.is_step, count(o.took) AS steps, sum(o.took) AS took,
                   sum(o.waited) AS waited
            FROM on_path AS o
            GROUP BY o.side, o.node_id, o.is_step
        ) AS n
        CROSS JOIN means AS m
        GROUP BY n.node_id, n.is_step, m.runs_0, m.runs_1
    ), factors AS (
        -- A node that is on the path in one period only takes as long in the other.
        SELECT n.node_id, n.is_step, orchestra.ratio(n.steps_0, n.runs_0) AS often_0,
               orchestra.ratio(n.steps_1, n.runs_1) AS often_1,
               COALESCE(orchestra.ratio(n.took_0, n.steps_0), orchestra.ratio(n.took_1, n.steps_1))
                   AS ms_0,
               COALESCE(orchestra.ratio(n.took_1, n.steps_1), orchestra.ratio(n.took_0, n.steps_0))
                   AS ms_1,
               orchestra.ratio(n.waited_0, n.runs_0) AS waited_0,
               orchestra.ratio(n.waited_1, n.runs_1) AS waited_1
        FROM nodes AS n
    ), effects AS (
        SELECT e.part, f.node_id, e.before, e.after, round(e.amount, 6) AS amount
        FROM factors AS f
        CROSS JOIN LATERAL (
            VALUES
                (CASE WHEN f.often_0 = 0 OR f.often_1 = 0 THEN 'nodes' ELSE 'executions' END,
                 f.often_0, f.often_1,
                 (f.often_1 - f.often_0) * orchestra.midpoint(f.ms_0, f.ms_1)),
                ('time', f.ms_0, f.ms_1,
                 orchestra.midpoint(f.often_0, f.often_1) * (f.ms_1 - f.ms_0)),
                (CASE WHEN f.is_step THEN 'waiting' ELSE 'waiting_at_end' END,
                 f.waited_0, f.waited_1, f.waited_1 - f.waited_0)
        ) AS e (part, before, after, amount)
        WHERE round(e.amount, 6) <> 0
    ), ranked AS (
        SELECT e.*, m.mean_1 - m.mean_0 - sum(e.amount) OVER () AS rounding,
               row_number() OVER (ORDER BY abs(e.amount) DESC, e.part, e.node_id) AS rank
        FROM effects AS e
        CROSS JOIN means AS m
    )
    SELECT 'baseline', NULL, NULL, NULL, m.mean_0
    FROM means AS m
    UNION ALL
    SELECT r.part, r.node_id, trim_scale(round(r.before, 6)), trim_scale(round(r.after, 6)),
           CASE WHEN r.rank = 1 THEN r.amount + r.rounding ELSE r.amount END
    FROM ranked AS r
$$;
COMMENT ON FUNCTION orchestra.explain_duration(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) IS 'Why the mean duration of the successful runs of a workflow differs between two periods, in milliseconds. The row baseline holds the mean of the baseline period; the other rows hold the parts of the difference, which add up to it exactly: one per node on the critical path (see critical_path), and waiting. No row if a period has no such run.';

CREATE FUNCTION orchestra.explain_failures(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) RETURNS TABLE(part text, outcome text, node_id text, fingerprint text, pattern text, before bigint, after bigint, amount numeric)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    AS $$
    WITH periods AS MATERIALIZED (
        SELECT * FROM orchestra.explained_periods(
            workflow, since, until, against_since, against_until)
    ), failed AS MATERIALIZED (
        SELECT s.side, f.outcome, f.node_id, f.fingerprint, min(f.pattern) AS pattern,
               count(*) AS steps
        FROM (VALUES (0, against_since, against_until), (1, since, until))
            AS s (side, begins, ends)
        JOIN orchestra.step_failures AS f
          ON f.workflow_id = workflow AND f.time >= s.begins AND f.time < s.ends
        GROUP BY s.side, f.outcome, f.node_id, f.fingerprint
        UNION ALL
        -- Of failures of pruned runs, only the number is known.
        SELECT p.side, n.outcome, r.node_id, NULL, NULL, sum(n.steps)
        FROM periods AS p
        JOIN orchestra.step_rollup AS r
          ON r.workflow_id = workflow AND r.hour >= p.begins AND r.hour < p.ends
         AND r.hour <= p.period_ends - interval '1 hour' AND r.ordinal < 0
        CROSS JOIN LATERAL (VALUES ('failed', r.failed), ('soft_failed', r.soft_failed))
            AS n (outcome, steps)
        WHERE n.steps > 0
        GROUP BY p.side, n.outcome, r.node_id
    ), totals AS (
        -- Failures in a period in which no run started belong to earlier runs, which count as one.
        SELECT GREATEST(COALESCE(r.runs_0, 0), LEAST(f.steps_0, 1)) AS runs_0,
               GREATEST(COALESCE(r.runs_1, 0), LEAST(f.steps_1, 1)) AS runs_1,
               f.steps_0, f.steps_1
        FROM (SELECT sum(p.runs) FILTER (WHERE p.side = 0) AS runs_0,
                     sum(p.runs) FILTER (WHERE p.side = 1) AS runs_1
              FROM periods AS p) AS r
        CROSS JOIN (SELECT COALESCE(sum(f.steps) FILTER (WHERE f.side = 0), 0) AS steps_0,
                           COALESCE(sum(f.steps) FILTER (WHERE f.side = 1), 0) AS steps_1
                    FROM failed AS f) AS f
    ), groups AS (
        SELECT f.outcome, f.node_id, f.fingerprint, min(f.pattern) AS pattern,
               COALESCE(sum(f.steps) FILTER (WHERE f.side = 0), 0) AS steps_0,
               COALESCE(sum(f.steps) FILTER (WHERE f.side = 1), 0) AS steps_1
        FROM failed AS f
        GROUP BY f.outcome, f.node_id, f.fingerprint
    ), rated AS (
        -- Failures a run. Without runs in a period, the rate is that of the other.
        SELECT g.*, t.runs_0, t.runs_1,
               COALESCE(orchestra.ratio(g.steps_0, t.runs_0), orchestra.ratio(g.steps_1, t.runs_1))
                   AS rate_0,
               COALESCE(orchestra.ratio(g.steps_1, t.runs_1), orchestra.ratio(g.steps_0, t.runs_0))
                   AS rate_1
        FROM groups AS g
        CROSS JOIN totals AS t
    ), effects AS (
        SELECT 'runs' AS part, NULL AS outcome, NULL AS node_id, NULL AS fingerprint,
               NULL AS pattern, max(r.runs_0) AS before, max(r.runs_1) AS after,
               round(sum((r.runs_1 - r.runs_0) * orchestra.midpoint(r.rate_0, r.rate_1)), 6)
                   AS amount
        FROM rated AS r
        UNION ALL
        SELECT CASE WHEN r.fingerprint IS NULL THEN 'pruned' WHEN r.rate_0 = 0 THEN 'new'
                    WHEN r.rate_1 = 0 THEN 'gone' WHEN r.rate_1 > r.rate_0 THEN 'grown'
                    ELSE 'shrunk' END,
               r.outcome, r.node_id, r.fingerprint, r.pattern, r.steps_0, r.steps_1,
               round(orchestra.midpoint(r.runs_0, r.runs_1) * (r.rate_1 - r.rate_0), 6)
        FROM rated AS r
    ), ranked AS (
        SELECT e.*, t.steps_1 - t.steps_0 - sum(e.amount) OVER () AS rounding,
               row_number() OVER (ORDER BY abs(e.amount) DESC, e.part, e.outcome, e.node_id,
                   e.fingerprint) AS rank
        FROM effects AS e
        CROSS JOIN totals AS t
        WHERE e.amount <> 0
    )
    SELECT 'baseline', NULL, NULL, NULL, NULL, NULL, NULL, t.steps_0
    FROM totals AS t
    UNION ALL
    SELECT r.part, r.outcome, r.node_id, r.fingerprint, r.pattern, CAST(r.before AS bigint),
           CAST(r.after AS bigint),
           CASE WHEN r.rank = 1 THEN r.amount + r.rounding ELSE r.amount END
    FROM ranked AS r
$$;
COMMENT ON FUNCTION orchestra.explain_failures(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) IS 'Why the number of failed and soft-failed steps of a workflow differs between two periods. The row baseline holds the number of the baseline period; the other rows hold the parts of the difference, which add up to it exactly: the number of runs, and the failures per run by node and pattern. before and after: the number of runs, or of failed steps.';

CREATE FUNCTION orchestra.explained_calls(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) RETURNS TABLE(side integer, version text, node_id text, model text, service_tier text, context_tier integer, usage_kinds integer, at timestamp with time zone, calls bigint, unmetered_calls bigint, used orchestra.usage)
    LANGUAGE sql STABLE ROWS 10000 PARALLEL SAFE
    AS $$
    SELECT * FROM orchestra.explained_calls(
        workflow, since, until, against_since, against_until, NULL, NULL, NULL)
$$;
COMMENT ON FUNCTION orchestra.explained_calls(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) IS 'The calls of models in two periods of a workflow. Side 1 is the period since/until, side 0 the baseline. Whole hours are read from step_rollup, the rest from steps.';

CREATE FUNCTION orchestra.explained_calls(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone, only_organisation text, only_node text, only_model text) RETURNS TABLE(side integer, version text, node_id text, model text, service_tier text, context_tier integer, usage_kinds integer, at timestamp with time zone, calls bigint, unmetered_calls bigint, used orchestra.usage)
    LANGUAGE sql STABLE ROWS 10000 PARALLEL SAFE
    AS $$
    WITH periods AS MATERIALIZED (
        SELECT * FROM orchestra.explained_periods(
            workflow, since, until, against_since, against_until, only_organisation)
    )
    SELECT p.side, p.version, s.node_id, s.model, s.service_tier, s.context_tier, s.usage_kinds,
           s.hour, s.calls, s.unmetered_calls,
           CAST(ROW(
               s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens,
               s.input_audio_tokens, s.cached_audio_tokens, s.input_image_tokens,
               s.cached_image_tokens, s.input_video_tokens, s.output_tokens, s.reasoning_tokens,
               s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens,
               s.citation_tokens, s.other_tokens, s.web_searches, s.file_searches, s.tool_uses,
               s.audio_ms, s.document_pages, s.search_units, s.unread_quantities
           ) AS orchestra.usage)
    FROM periods AS p
    JOIN orchestra.step_rollup AS s
      ON s.workflow_id = workflow AND s.hour >= p.begins AND s.hour < p.ends
     AND s.hour <= p.period_ends - interval '1 hour'
     AND (s.ordinal < 0 OR s.hour <= p.ends - interval '1 hour')
    WHERE s.calls > 0
      AND (only_organisation IS NULL OR s.organization_id = only_organisation)
      AND (only_node IS NULL OR s.node_id = only_node)
      AND (only_model IS NULL OR s.model = only_model)
    UNION ALL
    SELECT c.side, c.version, c.node_id, c.model, c.service_tier,
           orchestra.context_tier((c.used).input_tokens), orchestra.kinds_of(c.used), c.time, 1,
           CASE WHEN orchestra.is_unmetered(c.outcome, true, c.has_usage, c.used)
               THEN 1 ELSE 0 END,
           c.used
    FROM (
        SELECT p.side, p.version, s.node_id, s.service_tier, found.time, u.model, u.outcome, u.used,
               u.has_usage,
               orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason, u.has_usage)
                   AS is_call
        FROM periods AS p
        CROSS JOIN LATERAL orchestra.partial_hours(p.begins, p.ends) AS part
        CROSS JOIN LATERAL (
            SELECT s.start_time AS time, s.id
            FROM orchestra.steps AS s
            WHERE s.workflow_id = workflow
              AND s.start_time >= part.begins AND s.start_time < part.ends
            UNION ALL
            SELECT r.time, s.id
            FROM (
                SELECT r.id, r.start_time AS time
                FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow
                  AND r.start_time >= part.begins AND r.start_time < part.ends
                UNION ALL
                SELECT r.id, r.first_seen_at
                FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow AND r.start_time IS NULL
                  AND r.first_seen_at >= part.begins AND r.first_seen_at < part.ends
            ) AS r
            JOIN orchestra.steps AS s ON s.run_id = r.id AND s.start_time IS NULL
        ) AS found
        JOIN orchestra.steps AS s ON s.id = found.id AND s.absent_since IS NULL
         AND (only_organisation IS NULL OR s.organization_id = only_organisation)
         AND (only_node IS NULL OR s.node_id = only_node)
        CROSS JOIN LATERAL (
            SELECT COALESCE(s.response_model, s.request_model) AS model,
                   orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                   orchestra.plausible_usage(raw.used) AS used,
                   orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage
            FROM (SELECT CAST(ROW(
                    s.input_tokens, s.cached_input_tokens, s.cache_write_tokens,
                    s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens,
                    s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens,
                    s.output_tokens, s.reasoning_tokens, s.output_audio_tokens,
                    s.output_image_tokens, s.output_video_tokens, s.citation_tokens,
                    s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms,
                    s.document_pages, s.search_units, s.unread_quantities
                ) AS orchestra.usage) AS used) AS raw
            OFFSET 0
        ) AS u
    ) AS c
    WHERE c.is_call AND (only_model IS NULL OR c.model = only_model)
$$;
COMMENT ON FUNCTION orchestra.explained_calls(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone, only_organisation text, only_node text, only_model text) IS 'Like explained_calls with five arguments, only for one organisation, node or model; null: all.';

CREATE FUNCTION orchestra.explained_periods(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) RETURNS TABLE(side integer, version text, begins timestamp with time zone, ends timestamp with time zone, period_ends timestamp with time zone, runs bigint)
    LANGUAGE sql STABLE ROWS 4 PARALLEL SAFE
    AS $$
    SELECT * FROM orchestra.explained_periods(
        workflow, since, until, against_since, against_until, NULL)
$$;
COMMENT ON FUNCTION orchestra.explained_periods(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone) IS 'The parts of two periods of a workflow in which one version was in force, with the number of runs that started in each. Side 1 is the period since/until, side 0 the baseline. Runs in whole hours are counted from rollups, the others from the table runs.';

CREATE FUNCTION orchestra.explained_periods(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone, only_organisation text) RETURNS TABLE(side integer, version text, begins timestamp with time zone, ends timestamp with time zone, period_ends timestamp with time zone, runs bigint)
    LANGUAGE sql STABLE ROWS 4 PARALLEL SAFE
    AS $$
    WITH versions AS (
        SELECT v.version, v.since, lead(v.since, 1, 'infinity') OVER (ORDER BY v.since) AS ends
        FROM (
            SELECT b.version, b.since, row_number() OVER (ORDER BY b.since) > 1
                   AND b.version IS NOT DISTINCT FROM lag(b.version) OVER (ORDER BY b.since)
                       AS is_same
            FROM (
                SELECT CAST(NULL AS text) AS version, CAST('-infinity' AS timestamptz) AS since
                UNION ALL
                -- The rule of run_summary.
                SELECT seen.version,
                       CASE WHEN seen.api_updated_at < seen.first_seen_at
                             AND (seen.before <= seen.api_updated_at OR seen.before IS NULL)
                           THEN seen.api_updated_at ELSE seen.first_seen_at END
                FROM (SELECT w.version, w.first_seen_at, w.api_updated_at,
                             lag(w.first_seen_at) OVER (ORDER BY w.first_seen_at) AS before
                      FROM orchestra.workflow_versions AS w
                      WHERE w.workflow_id = workflow) AS seen
            ) AS b
        ) AS v
        WHERE NOT v.is_same
    ), stretches AS (
        SELECT p.side, v.version, GREATEST(p.begins, v.since) AS begins,
               LEAST(p.ends, v.ends) AS ends, p.ends AS period_ends
        FROM (VALUES (0, against_since, against_until), (1, since, until))
            AS p (side, begins, ends)
        JOIN versions AS v ON GREATEST(p.begins, v.since) < LEAST(p.ends, v.ends)
    ), counted AS (
        SELECT s.*, rolled.runs + partial.runs AS runs
        FROM stretches AS s
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(r.runs), 0) AS runs
            FROM orchestra.run_rollup AS r
            WHERE r.workflow_id = workflow AND r.hour >= s.begins AND r.hour < s.ends
              AND r.hour <= s.period_ends - interval '1 hour'
              AND (r.ordinal < 0 OR r.hour <= s.ends - interval '1 hour')
              AND (only_organisation IS NULL OR r.organization_id = only_organisation)
        ) AS rolled
        CROSS JOIN LATERAL (
            SELECT count(*) AS runs
            FROM orchestra.partial_hours(s.begins, s.ends) AS part
            CROSS JOIN LATERAL (
                SELECT FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow
                  AND r.start_time >= part.begins AND r.start_time < part.ends
                  AND (only_organisation IS NULL OR r.organization_id = only_organisation)
                UNION ALL
                SELECT FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow AND r.start_time IS NULL
                  AND r.first_seen_at >= part.begins AND r.first_seen_at < part.ends
                  AND (only_organisation IS NULL OR r.organization_id = only_organisation)
            ) AS found
        ) AS partial
    )
    SELECT c.side, other.version, c.begins, c.ends, c.period_ends, CAST(c.runs AS bigint)
    FROM counted AS c
    CROSS JOIN LATERAL (
        SELECT o.version
        FROM counted AS o
        WHERE o.side = c.side
        ORDER BY o.runs > 0 DESC, o.runs > 0 AND o.begins <= c.begins DESC,
                 CASE WHEN o.runs > 0 AND o.begins <= c.begins THEN o.begins END DESC, o.begins
        LIMIT 1
    ) AS other
$$;
COMMENT ON FUNCTION orchestra.explained_periods(workflow text, since timestamp with time zone, until timestamp with time zone, against_since timestamp with time zone, against_until timestamp with time zone, only_organisation text) IS 'Like explained_periods with five arguments, only for the runs of one organisation; null: all.';

CREATE FUNCTION orchestra.failure_pattern(message text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    digits CONSTANT text := '0123456789';
    hidden CONSTANT text := U&'\E010\E011\E012\E013\E014\E015\E016\E017\E018\E019';
    code CONSTANT text := U&'\\1\E000\\2\E001';
    separated CONSTANT text := '[ "'']*(?:[:=#]|is|was)?[ "'']*[[(]?["'']?';
    -- Neither a quantity nor the beginning of a longer number or word.
    ends CONSTANT text := '(?![[:alnum:]_]|[.,:][0-9]| ?%|[ -]?(?:ms|s|sec|secs|seconds?|minutes?|hours?|days?|bytes?|[kmgt]i?b|rows?|'
        || 'records?|items?|files?|tokens?|times|results?|attempts?|retries|requests?|characters?|chars?)\M)';
    months CONSTANT text := '(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*';
    days CONSTANT text := '(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?';
    clock CONSTANT text := '[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?(?:Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})\M)?';
    pattern text := translate(left(message, 4000), hidden || U&'\E000\E001', '');
BEGIN
    -- Keys lose their quotes. So do values under a key that names the kind of failure, so that
    -- their words stay, and quoted status lines.
    pattern := regexp_replace(pattern, '["'']([[:alpha:]][[:alnum:]_.-]{0,40})["'']: *', '\1: ', 'g');
    pattern := regexp_replace(pattern,
        '\m(code|detail|error|message|msg|reason|status|title|type): "((?:[^"\\]|\\.)*)"', '\1: \2', 'g');
    pattern := regexp_replace(pattern,
        '\m(code|detail|error|message|msg|reason|status|title|type): ''((?:[^''\\]|\\.)*)''', '\1: \2', 'g');
    pattern := regexp_replace(pattern, '(["''])([1-5][0-9]{2} [A-Z][A-Za-z -]{1,40})\1', '\2', 'g');

    -- Users, times and addresses.
    pattern := regexp_replace(pattern, '(://)[^/@[:space:]]+@', '\1<user>@', 'g');
    pattern := regexp_replace(pattern, '[[:alnum:]](?:[[:alnum:]._%+''-]*[[:alnum:]_+-])?@[[:alpha:]][[:alnum:].-]*[[:alnum:]]', '<email>', 'g');
    pattern := regexp_replace(pattern, '(/(?:home|Users)/)[^/:"''[:space:]]+', '\1<user>', 'g');
    pattern := regexp_replace(pattern, '(/(?:tmp|var/folders)/)[^:,"''[:space:])]+', '\1<id>', 'g');
    pattern := regexp_replace(pattern, '\m[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ]' || clock || ')?|' || days || '\m[0-9]{1,2}[ -]' || months
        || '[ -][0-9]{2,4}\M(?: ' || clock || ')?|' || days || '\m' || months || ' +[0-9]{1,2},? (?:[0-9]{4} )?' || clock
        || '(?: [0-9]{4}\M)?|\m[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?\M', '<time>', 'gi');
    pattern := regexp_replace(pattern, '\m(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:/[0-9]{1,2})?(?::[0-9]{1,5})?\M', '<ip>', 'g');
    IF pattern ~* ':[0-9a-f]{0,4}:|-[0-9a-f]{2}-' THEN
        pattern := regexp_replace(pattern, '(?<![[:alnum:]:])(?=[0-9a-f:]*[0-9])(?:(?:[0-9a-f]{1,4}[:-]){5,7}[0-9a-f]{1,4}'
            || '|(?:(?:[0-9a-f]{1,4}:){1,6}|:):(?:[0-9a-f]{1,4}:){0,6}[0-9a-f]{1,4})(?![[:alnum:]:])', '<ip>', 'gi');
    END IF;
    pattern := regexp_replace(pattern,
        '\+[0-9][0-9 ().-]{6,18}[0-9]|(?<![[:alnum:]])\(?[0-9]{3}\)?[ .-][0-9]{3}[ .-][0-9]{4}\M', '<phone>', 'g');

    -- Codes: SQLSTATEs; numbers behind a word for a code; those of HTTP; those of a vendor, such as
    -- ORA-00001.
    pattern := regexp_replace(pattern, '(\msql[ _-]?state[ :="''([]{0,4})([0-9A-Z]{5})\M', code, 'gi');
    pattern := regexp_replace(pattern, '(\merror [0-9]+ \(|\[)([0-9A-Z]{5})(?=\)|\] ?\[)', code, 'gi');
    pattern := regexp_replace(pattern, '(\merror:? )([0-9A-Z]{5})(?=:)', code, 'g');
    pattern := regexp_replace(pattern, '(\m(?:hresult|ntstatus|error|exception|code|status)' || separated || ')(0x[0-9a-f]{8})\M', code, 'gi');
    pattern := regexp_replace(pattern, '(\m(?:errno|winerror|(?:os|system|win32|socket) error|hresult|sqlcode|signal|rc|retcode|returncode'
        || '|exit(?:ed)?(?: with)?(?:[ _-]?(?:code|status|value))?)' || separated || ')(-?[0-9]{1,10})' || ends, code, 'gi');
    pattern := regexp_replace(pattern, '((?:\m|_)(?:(?:[[:alpha:]]+[ _-]?)?code|(?:http|grpc)?[ _-]?status|http(?:/[0-9.]+)?|err|msg|curl:?)'
        || separated || ')(-?[0-9]{1,5})' || ends, code, 'gi');
    pattern := regexp_replace(pattern, '(\merror(?:[ :=#]{1,2}[[(]?|[[(]))([0-9]{3})' || ends, code, 'gi');
    pattern := regexp_replace(pattern, '(\merror #?)([0-9]{1,5})' || ends, code, 'gi');
    pattern := regexp_replace(pattern, '(\m(?:returned|responded|response|answered|received|got|failed|with)[ :=([]{1,3})([1-5][0-9]{2})'
        || ends, code, 'gi');
    pattern := regexp_replace(pattern, '()\m([1-5][0-9]{2})(?= (?:Bad|Unauthorized|Payment|Forbidden|Not|Method|Proxy|Request|Conflict|Gone|'
        || 'Length|Precondition|Payload|Content|Unsupported|Unprocessable|Locked|Too|Internal|Service|Gateway|HTTP|Insufficient)\M)', code, 'gi');
    pattern := regexp_replace(pattern, '(\m(?:ORA|TNS|PLS|DPY|DPI|RMAN|SQL|PGRST|AADSTS|TS|CS|NU|MSB|NETSDK|ERR|EC|WSA|HTTP|HY|XX|P0|E)[-_]?)'
        || '([0-9]{3,6}[A-Z]?)\M', code, 'g');
    pattern := regexp_replace(pattern, '(^[^[:alnum:]]*[A-Z]{2,10}[-_]?)([0-9]{2,6})(?=:)', code);
    SELECT string_agg(CASE WHEN number % 2 = 0 THEN translate(part, digits, hidden) ELSE part END, '' ORDER BY number)
    INTO pattern
    FROM regexp_split_to_table(pattern, U&'[\E000\E001]') WITH ORDINALITY AS p (part, number);

    -- All other quoted texts, including one whose end was cut off.
    pattern := regexp_replace(pattern,
        '\\["''][^"''\\]*\\["'']|"(?:[^"\\]|\\.)*"|`[^`]*`|“[^”]*”|«[^»]*»|(?<![[:alnum:]])[''‘](?:[^''’\\]|\\.)*[''’](?![[:alnum:]])',
        '<text>', 'g');
    IF length(message) > 4000 THEN
        pattern := regexp_replace(pattern, '["`“«][^"`”»]*$|(?<![[:alnum:]])[''‘][^''’]*$', '<text>');
    END IF;

    -- Ids: UUIDs; hexadecimal numbers; long words of letters and digits, or such words behind a
    -- prefix such as req_.
    pattern := regexp_replace(pattern, '[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', '<id>', 'g');
    pattern := regexp_replace(pattern, '(?<![[:alnum:]])(?:0[xX][0-9a-fA-F]+|(?=[[:alnum:]]*[0-9])(?=[[:alnum:]]*[[:alpha:]])'
        || '(?:[0-9a-fA-F]{8,}|[[:alnum:]]{16,}))(?![[:alnum:]])', '<id>', 'g');
    pattern := regexp_replace(pattern,
        '\m([[:alpha:]]{2,12}[_-])(?=[[:alnum:]]*[0-9])(?=[[:alnum:]]*[[:alpha:]])[[:alnum:]]{8,}(?![[:alnum:]])', '\1<id>', 'g');
    pattern := regexp_replace(pattern, '[0-9]+(?:[.,:][0-9]+)*', '<n>', 'g');

    RETURN left(btrim(regexp_replace(translate(pattern, hidden, digits), '[[:space:]]+', ' ', 'g')), 500);
END
$_$;
COMMENT ON FUNCTION orchestra.failure_pattern(message text) IS 'A failure''s message with numbers, ids, times, addresses, names and quoted texts replaced; codes are kept. Failures of one kind have one pattern.';

CREATE FUNCTION orchestra.has_usage(used orchestra.usage, total_tokens bigint, reported_cost numeric) RETURNS boolean
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
COMMENT ON FUNCTION orchestra.has_usage(used orchestra.usage, total_tokens bigint, reported_cost numeric) IS 'Whether a step reports any usage or cost of a call.';

CREATE FUNCTION orchestra.histogram_quantile(histogram bigint[], q double precision) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    wanted double precision := 0;
    up_to bigint := 0;
    durations bigint;
BEGIN
    IF NOT q BETWEEN 0 AND 1 THEN
        RAISE numeric_value_out_of_range USING MESSAGE = 'a quantile lies between 0 and 1';
    END IF;
    FOREACH durations IN ARRAY histogram LOOP
        wanted := wanted + COALESCE(durations, 0);
    END LOOP;
    wanted := wanted * q;
    FOR bucket IN COALESCE(array_lower(histogram, 1), 0)
        .. COALESCE(array_upper(histogram, 1), -1) LOOP
        up_to := up_to + COALESCE(histogram[bucket], 0);
        IF histogram[bucket] > 0 AND up_to >= wanted THEN
            RETURN orchestra.bucket_duration(bucket);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra.histogram_quantile(histogram bigint[], q double precision) IS 'A quantile in milliseconds of a histogram merged by duration_histogram: the same as duration_quantile, but several quantiles share one merge.';

CREATE FUNCTION orchestra.image_count(payload jsonb) RETURNS integer
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $$
    SELECT CAST(sum(
        (SELECT count(*) FROM orchestra.content_parts(b.body) AS c (part)
         WHERE orchestra.is_image(c.part))
        + (SELECT count(*) FROM orchestra.image_places() AS p
           CROSS JOIN LATERAL jsonb_path_query(b.body, p.path, '{}', true) AS m (medium)
           WHERE b.body ? p.member AND jsonb_typeof(m.medium) <> 'null')) AS integer)
    FROM orchestra.media_bodies(payload) AS b (body)
$$;
COMMENT ON FUNCTION orchestra.image_count(payload jsonb) IS 'The number of images in the inputs or outputs of a step that called a model; null for an unknown shape.';

CREATE FUNCTION orchestra.image_places() RETURNS TABLE(ordinal integer, api text, member text, alternatives jsonpath, path jsonpath, kind text)
    LANGUAGE sql IMMUTABLE ROWS 2 PARALLEL SAFE
    AS $_$
    VALUES
        (270, 'OpenAI images', 'data', jsonpath 'lax $',
            jsonpath 'lax $.data[*].b64_json', 'whole'),
        (271, 'OpenAI images', 'data', jsonpath 'lax $',
            jsonpath 'lax $.data[*].url', 'whole'),
        (272, 'OpenAI images', 'image', jsonpath 'lax $',
            jsonpath 'lax $.image[*]', 'whole'),
        (273, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "image_generation_call").result', 'whole'),
        (274, 'OpenRouter', 'choices', jsonpath 'lax $',
            jsonpath 'lax $.choices[*].message.images[*]', 'whole'),
        (275, 'OpenAI images', 'b64_json', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "image_generation.completed" || @.type == "image_edit.completed").b64_json', 'whole'),
        (276, 'Vertex, Imagen', 'predictions', jsonpath 'lax $',
            jsonpath 'lax $.predictions[*].bytesBase64Encoded', 'whole'),
        (277, 'Vertex, Imagen', 'predictions', jsonpath 'lax $',
            jsonpath 'lax $.predictions[*].gcsUri', 'whole'),
        (278, 'Vertex, Imagen', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].referenceImages[*].referenceImage', 'whole'),
        (279, 'Vertex, Imagen', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].image', 'whole'),
        (280, 'Gemini by Python', 'generated_images', jsonpath 'lax $',
            jsonpath 'lax $.generated_images[*].image', 'whole'),
        (281, 'Gemini by Python', 'generatedImages', jsonpath 'lax $',
            jsonpath 'lax $.generatedImages[*].image', 'whole'),
        (282, 'Bedrock, Titan images', 'textToImageParams', jsonpath 'lax $',
            jsonpath 'lax $.textToImageParams.conditionImage', 'whole'),
        (283, 'Bedrock, Titan images', 'inPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.inPaintingParams.image', 'whole'),
        (284, 'Bedrock, Titan images', 'outPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.outPaintingParams.image', 'whole'),
        (285, 'Bedrock, Titan images', 'imageVariationParams', jsonpath 'lax $',
            jsonpath 'lax $.imageVariationParams.images[*]', 'whole'),
        (286, 'Ollama', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[*].images[*]', 'whole'),
        (287, 'OpenRouter images', 'input_references', jsonpath 'lax $',
            jsonpath 'lax $.input_references[*]', 'whole'),
        (288, 'Bedrock, Titan images', 'images', jsonpath 'lax $',
            jsonpath 'lax $.images[*]', 'whole'),
        (289, 'Stability', 'artifacts', jsonpath 'lax $',
            jsonpath 'lax $.artifacts[*].base64', 'whole'),
        (290, 'AI SDK', 'files', jsonpath 'lax $',
            jsonpath 'lax $.files[*] ? (@.mediaType starts with "image/")', 'whole'),
        (294, 'Mistral OCR', 'document', jsonpath 'lax $',
            jsonpath 'lax $.document ? (@.type == "image_url").image_url', 'whole')
$_$;
COMMENT ON FUNCTION orchestra.image_places() IS 'The places that hold images outside the content of messages, as JSON paths by API (see the reference of model calls).';

CREATE FUNCTION orchestra.inner_parts(part jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE
        WHEN part @? 'lax $ ? (@.type == "tool-result").output ? (@.type == "content").value[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "tool-result").output ? (@.type == "content").value[*]', '{}', true)
        WHEN part @? 'lax $.citationsContent.content[*]' THEN
            jsonb_path_query_array(part, 'lax $.citationsContent.content[*]', '{}', true)
        WHEN part @? 'lax $ ? (@.type == "search_result").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "search_result").content[*]', '{}', true)
        WHEN part @? 'lax $ ? (@.type == "document").source ? (@.type == "content").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "document").source ? (@.type == "content").content[*]', '{}', true)
        WHEN part @? 'lax $ ? (@.type == "tool_result").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "tool_result").content[*]', '{}', true)
        WHEN part @? 'lax $.toolResult.content[*]' THEN
            jsonb_path_query_array(part, 'lax $.toolResult.content[*]', '{}', true)
    END
$_$;
COMMENT ON FUNCTION orchestra.inner_parts(part jsonb) IS 'The parts inside a part of a content (see the reference of model calls); null if there are none.';

CREATE FUNCTION orchestra.is_audio(part jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT part @? 'lax $.inlineData ? (@.mimeType starts with "audio/")'
        OR part @? 'lax $.fileData ? (@.mimeType starts with "audio/")'
        OR part @? 'lax $.inline_data ? (@.mime_type starts with "audio/")'
        OR part @? 'lax $.file_data ? (@.mime_type starts with "audio/")'
        OR part @? 'lax $ ? (@.type == "file" && @.mediaType starts with "audio/")'
        OR part @? 'lax $ ? (@.type == "input_audio")'
        OR part @? 'lax $ ? (@.type == "output_audio")'
        OR part @? 'lax $ ? (@.type == "audio")'
        OR part @? 'lax $.audio.source'
$_$;
COMMENT ON FUNCTION orchestra.is_audio(part jsonb) IS 'Whether a part of a content is audio (see the reference of model calls).';

CREATE FUNCTION orchestra.is_call(state text, node_type text, model text, finish_reason text, has_usage boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT has_usage OR finish_reason IS NOT NULL
        OR (model IS NOT NULL AND COALESCE(node_type, '') NOT IN ('code', 'integration')
            AND state NOT IN ('pending', 'skipped'))
$$;
COMMENT ON FUNCTION orchestra.is_call(state text, node_type text, model text, finish_reason text, has_usage boolean) IS 'Whether a step called a model: it reports usage (see has_usage) or why the model stopped, or names a model, is neither code nor an integration, and was neither skipped nor pending.';

CREATE FUNCTION orchestra.is_cut_off(finish_reason text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
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
$_$;
COMMENT ON FUNCTION orchestra.is_cut_off(finish_reason text) IS 'Whether a model stopped because it ran out of tokens, by its finish reason in any provider''s spelling: length, max_tokens, MAX_TOKENS, max_output_tokens, model_length, model_context_window_exceeded, ...; null for null.';

CREATE FUNCTION orchestra.is_error(value jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT COALESCE(
        jsonb_path_exists(value,
            'strict $.** ? (@.type() == "number" && @ != 0 || @.type() == "boolean" && @ == true)')
        OR EXISTS (SELECT FROM jsonb_path_query(value, 'strict $.** ? (@.type() == "string")')
            AS t (said)
                   WHERE orchestra.is_error_text(said #>> '{}')),
        false)
$_$;
COMMENT ON FUNCTION orchestra.is_error(value jsonb) IS 'Whether a value in an error field is an error. Not errors: null, false, 0, a text that is no error (see is_error_text), and a list or object that contains only such values.';

CREATE FUNCTION orchestra.is_error_text(said text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT said COLLATE "C" !~* ('^[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"'']*'
        || '(none|null|nil|<nil>|undefined|nan|n/?a|-+|0|false|no errors?|ok|success|\{[[:space:]]*\}|\[[[:space:]]*\])?'
        || '[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"''.]*$')
$_$;
COMMENT ON FUNCTION orchestra.is_error_text(said text) IS 'Whether a text in an error field is an error: neither blank nor a placeholder such as None or null; null for null.';

CREATE FUNCTION orchestra.is_image(part jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT part @? 'lax $ ? (@.type == "image_url")'
        OR part @? 'lax $ ? (@.type == "input_image")'
        OR part @? 'lax $ ? (@.type == "image")'
        OR part @? 'lax $.image.source'
        OR part @? 'lax $.inlineData ? (@.mimeType starts with "image/")'
        OR part @? 'lax $.fileData ? (@.mimeType starts with "image/")'
        OR part @? 'lax $.inline_data ? (@.mime_type starts with "image/")'
        OR part @? 'lax $.file_data ? (@.mime_type starts with "image/")'
        OR part @? 'lax $ ? (@.type == "file" && @.mediaType starts with "image/")'
$_$;
COMMENT ON FUNCTION orchestra.is_image(part jsonb) IS 'Whether a part of a content is an image (see the reference of model calls).';

CREATE FUNCTION orchestra.is_request(body jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT jsonb_typeof(body) = 'object' AND (
        (body ? 'messages' AND (body @? 'lax $.messages[*]'
            OR body @? 'lax $.messages[*].images[*]'))
        OR (body ? 'contents' AND (body @? 'lax $.contents[*]'))
        OR (body ? 'content' AND (body @? 'lax $.content ? (exists (@.parts))'))
        OR (body ? 'requests' AND (body @? 'lax $.requests[*].content'))
        OR (body ? 'chat_history' AND (body @? 'lax $.chat_history[*]'))
        OR (body ? 'message' AND (body @? 'lax $.message ? (@.type() == "string")'))
        OR (body ? 'input' AND (body @? 'lax $.input ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'))
        OR (body ? 'inputs' AND (body @? 'lax $.inputs ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'))
        OR (body ? 'prompt' AND (body @? 'lax $.prompt ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'))
        OR (body ? 'inputText' AND (body @? 'lax $.inputText'))
        OR (body ? 'textToImageParams' AND (body @? 'lax $.textToImageParams.text'
            OR body @? 'lax $.textToImageParams.conditionImage'))
        OR (body ? 'inPaintingParams' AND (body @? 'lax $.inPaintingParams.text'
            OR body @? 'lax $.inPaintingParams.image'))
        OR (body ? 'imageVariationParams' AND (body @? 'lax $.imageVariationParams.text'
            OR body @? 'lax $.imageVariationParams.images[*]'))
        OR (body ? 'outPaintingParams' AND (body @? 'lax $.outPaintingParams.text'
            OR body @? 'lax $.outPaintingParams.image'))
        OR (body ? 'colorGuidedGenerationParams' AND (body @? 'lax $.colorGuidedGenerationParams.text'))
        OR (body ? 'text_prompts' AND (body @? 'lax $.text_prompts[*].text'))
        OR (body ? 'instances' AND (body @? 'lax $.instances[*].prompt'
            OR body @? 'lax $.instances[*].content'
            OR body @? 'lax $.instances[*].referenceImages[*].referenceImage'
            OR body @? 'lax $.instances[*].image'))
        OR (body ? 'item' AND (body @? 'lax $ ? (@.type == "conversation.item.create").item'))
        OR (body ? 'texts' AND (body @? 'lax $.texts[*]'))
        OR (body ? 'query' AND (body @? 'lax $ ? (exists (@.documents)).query'))
        OR (body ? 'userContent' AND (body @? 'lax $.userContent'))
        OR (body ? 'document_annotation_prompt' AND (body @? 'lax $.document_annotation_prompt'))
        OR (body ? 'document' AND (body @? 'lax $.document.document_url ? (!(@ starts with "data:"))'
            OR body @? 'lax $.document ? (@.type == "image_url").image_url'
            OR body @? 'lax $.document ? (@.type == "document_url" || @.type == "file")'))
        OR (body ? 'system' AND (body @? 'lax $.system'))
        OR (body ? 'systemInstruction' AND (body @? 'lax $.systemInstruction.parts'
            OR body @? 'lax $.systemInstruction ? (@.type() == "string")'))
        OR (body ? 'session' AND (body @? 'lax $ ? (@.type == "session.update").session.instructions'))
        OR (body ? 'response' AND (body @? 'lax $ ? (@.type == "response.create").response.instructions'))
        OR (body ? 'system_instruction' AND (body @? 'lax $.system_instruction ? (@.type() == "string")'
            OR body @? 'lax $.system_instruction.parts'))
        OR (body ? 'config' AND (body @? 'lax $.config.system_instruction ? (@.type() == "string")'
            OR body @? 'lax $.config.system_instruction.parts'
            OR body @? 'lax $.config.systemInstruction ? (@.type() == "string")'
            OR body @? 'lax $.config.systemInstruction.parts'))
        OR (body ? 'instructions' AND (body @? 'lax $.instructions ? (@.type() == "string")'))
        OR (body ? 'preamble' AND (body @? 'lax $.preamble'))
        OR (body ? 'systemContent' AND (body @? 'lax $.systemContent'))
        OR (body ? 'image' AND (body @? 'lax $.image[*]'))
        OR (body ? 'input_references' AND (body @? 'lax $.input_references[*]'))
        OR (body ? 'file' AND (body @? 'lax $.file')))
$_$;
COMMENT ON FUNCTION orchestra.is_request(body jsonb) IS 'Whether an object is a known request of a model (see the reference of model calls).';

CREATE FUNCTION orchestra.is_response(body jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT jsonb_typeof(body) = 'object' AND (
        (body ? 'choices' AND (body @? 'lax $.choices[*].message.content'
            OR body @? 'lax $.choices[*].message.refusal'
            OR body @? 'lax $.choices[*].message.audio.transcript'
            OR body @? 'lax $.choices[*].delta.content'
            OR body @? 'lax $.choices[*].delta.refusal'
            OR body @? 'lax $.choices[*].delta.audio.transcript'
            OR body @? 'lax $.choices[*].text'
            OR body @? 'lax $.choices[*].message.tool_calls[*]'
            OR body @? 'lax $.choices[*].message.function_call'
            OR body @? 'lax $.choices[*].delta.tool_calls[*]'
            OR body @? 'lax $.choices[*].delta.function_call'
            OR body @? 'lax $.choices[*].message.images[*]'
            OR body @? 'lax $.choices[*].message.audio.data'))
        OR (body ? 'output' AND (body @? 'lax $.output[*] ? (@.type == "message").content'
            OR body @? 'lax $.output.message.content'
            OR body @? 'lax $.output[*] ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")'
            OR body @? 'lax $.output.message.content[*].toolUse'
            OR body @? 'lax $.output[*] ? (@.type == "image_generation_call").result'))
        OR (body ? 'delta' AND (body @? 'lax $ ? (@.type == "response.output_text.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.refusal.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.audio.transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.text.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.output_audio_transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.audio_transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "transcript.text.delta").delta'
            OR body @? 'lax $.delta.message.content'
            OR body @? 'lax $.delta.text'
            OR body @? 'lax $ ? (@.type == "text-delta").delta ? (@.type() == "string")'
            OR body @? 'lax $.delta ? (@.type == "input_json_delta" && exists (@.partial_json))'
            OR body @? 'lax $.delta.message.tool_calls'
            OR body @? 'lax $.delta ? (@.type == "arguments_delta" && exists (@.arguments))'
            OR body @? 'lax $.delta ? (@.type == "function_call" && exists (@.name))'))
        OR (body ? 'candidates' AND (body @? 'lax $.candidates[*].content.parts'
            OR body @? 'lax $.candidates[*].content.parts[*].functionCall'
            OR body @? 'lax $.candidates[*].content.parts[*].function_call'))
        OR (body ? 'steps' AND (body @? 'lax $.steps[*] ? (@.type == "model_output").content'
            OR body @? 'lax $.steps[*] ? (@.type == "function_call")'))
        OR (body ? 'contentBlockDelta' AND (body @? 'lax $.contentBlockDelta.delta.text'
            OR body @? 'lax $.contentBlockDelta.delta.toolUse'))
        OR (body ? 'results' AND (body @? 'lax $.results[*].outputText'
            OR body @? 'lax $.results[*].relevance_score'
            OR body @? 'lax $.results[*].categories'))
        OR (body ? 'outputText' AND (body @? 'lax $.outputText'))
        OR (body ? 'generation' AND (body @? 'lax $.generation ? (@.type() == "string")'))
        OR (body ? 'outputs' AND (body @? 'lax $.outputs[*].text'
            OR body @? 'lax $.outputs[*] ? (@.type == "message.output").content'
            OR body @? 'lax $.outputs[*].message.content'
            OR body @? 'lax $.outputs[*] ? (@.type == "function.call" || @.type == "tool.execution")'
            OR body @? 'lax $.outputs[*] ? (@.type == "function_call")'
            OR body @? 'lax $.outputs[*].message.tool_calls[*]'
            OR body @? 'lax $.outputs[*].message.toolCalls[*]'))
        OR (body ? 'content' AND (body @? 'lax $ ? (@.type == "message.output.delta").content'
            OR body @? 'lax $ ? (@.type == "AIMessageChunk").content'
            OR body @? 'lax $ ? (!(@.type == "thought_summary")).content'
            OR body @? 'lax $.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")'
            OR body @? 'lax $.content[*] ? (@.type == "tool-call")'))
        OR (body ? 'pages' AND (body @? 'lax $.pages[*].markdown'))
        OR (body ? 'generations' AND (body @? 'lax $.generations[*][*].text'
            OR body @? 'lax $.generations[*][*].message.kwargs.tool_calls[*]'))
        OR (body ? 'completions' AND (body @? 'lax $.completions[*].data.text'))
        OR (body ? 'message' AND (body @? 'lax $.message ? (@.type == "message").content'
            OR body @? 'lax $.message.content'
            OR body @? 'lax $.message.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")'
            OR body @? 'lax $.message.tool_calls[*]'))
        OR (body ? 'completion' AND (body @? 'lax $.completion ? (@.type() == "string")'))
        OR (body ? 'text' AND (body @? 'lax $ ? (@.event_type == "text-generation").text'
            OR body @? 'lax $ ? (@.type == "text-delta").text ? (@.type() == "string")'
            OR body @? 'lax $ ? (!(@.type like_regex "^response[.]|-delta$")).text ? (@.type() == "string")'))
        OR (body ? 'textDelta' AND (body @? 'lax $ ? (@.type == "text-delta").textDelta ? (@.type() == "string")'))
        OR (body ? 'kwargs' AND (body @? 'lax $.kwargs.content'
            OR body @? 'lax $.kwargs.tool_calls[*]'))
        OR (body ? 'messages' AND (body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").content'
            OR body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.content'
            OR body @? 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.content'
            OR body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").tool_calls[*]'
            OR body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.tool_calls[*]'
            OR body @? 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.tool_calls[*]'))
        OR (body ? 'response' AND (body @? 'lax $.response ? (@.type() == "string")'))
        OR (body ? 'generated_text' AND (body @? 'lax $.generated_text ? (@.type() == "string")'))
        OR (body ? 'object' AND (body @? 'lax $ ? (!exists (@.type)) ? (exists (@.finishReason) || @.object.type() == "object" || @.object.type() == "array").object'))
        OR (body ? 'item' AND (body @? 'lax $ ? (@.type == "response.output_item.done").item ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")'))
        OR (body ? 'content_block' AND (body @? 'lax $.content_block ? (@.type like_regex "^(server_|mcp_)?tool_use$")'))
        OR (body ? 'contentBlockStart' AND (body @? 'lax $.contentBlockStart.start.toolUse'))
        OR (body ? 'step' AND (body @? 'lax $.step ? (@.type == "function_call")'))
        OR (body ? 'output_index' AND (body @? 'lax $ ? (@.type like_regex "^(function.call|tool.execution).(delta|started)$" && exists (@.output_index))'))
        OR (body ? 'tool_call_chunks' AND (body @? 'lax $.tool_call_chunks[*]'))
        OR (body ? 'tool_calls' AND (body @? 'lax $.tool_calls[*]'))
        OR (body ? 'toolCalls' AND (body @? 'lax $.toolCalls[*]'))
        OR (body ? 'toolName' AND (body @? 'lax $ ? (@.type == "tool-call" && exists (@.toolName))'
            OR body @? 'lax $ ? (@.type == "tool-input-available" && exists (@.toolName))'))
        OR (body ? 'data' AND (body @? 'lax $.data[*].b64_json'
            OR body @? 'lax $.data[*].url'
            OR body @? 'lax $.data[*].embedding'))
        OR (body ? 'b64_json' AND (body @? 'lax $ ? (@.type == "image_generation.completed" || @.type == "image_edit.completed").b64_json'))
        OR (body ? 'predictions' AND (body @? 'lax $.predictions[*].bytesBase64Encoded'
            OR body @? 'lax $.predictions[*].gcsUri'
            OR body @? 'lax $.predictions[*].embeddings'))
        OR (body ? 'generated_images' AND (body @? 'lax $.generated_images[*].image'))
        OR (body ? 'generatedImages' AND (body @? 'lax $.generatedImages[*].image'))
        OR (body ? 'images' AND (body @? 'lax $.images[*]'))
        OR (body ? 'artifacts' AND (body @? 'lax $.artifacts[*].base64'))
        OR (body ? 'files' AND (body @? 'lax $.files[*] ? (@.mediaType starts with "image/")'
            OR body @? 'lax $.files[*] ? (@.mediaType starts with "audio/")'))
        OR (body ? 'embedding' AND (body @? 'lax $.embedding'))
        OR (body ? 'embeddings' AND (body @? 'lax $.embeddings'))
        OR (body ? 'promptFeedback' AND (body @? 'lax $.promptFeedback.blockReason'))
        OR (body ? 'prompt_feedback' AND (body @? 'lax $.prompt_feedback.block_reason'))
        OR (body ? 'embeddingsByType' AND (body @? 'lax $.embeddingsByType'))
        OR (body ? 'classifications' AND (body @? 'lax $.classifications[*]')))
$_$;
COMMENT ON FUNCTION orchestra.is_response(body jsonb) IS 'Whether an object is a known response of a model (see the reference of model calls).';

CREATE FUNCTION orchestra.is_unmetered(outcome text, is_call boolean, has_usage boolean, plausible orchestra.usage) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT is_call AND (outcome = 'succeeded' OR has_usage)
        AND NOT orchestra.has_usage(plausible, NULL, NULL)
$$;
COMMENT ON FUNCTION orchestra.is_unmetered(outcome text, is_call boolean, has_usage boolean, plausible orchestra.usage) IS 'Whether a step with this outcome is a call of a model without any known plausible usage, so that its cost is unknown.';

CREATE FUNCTION orchestra.is_untotalled(outcome text, is_call boolean, has_usage boolean, plausible orchestra.usage, total_tokens bigint) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT is_call AND (outcome = 'succeeded' OR has_usage) AND total_tokens IS NULL
       AND (num_nonnulls(plausible.audio_ms, plausible.document_pages, plausible.search_units) = 0
            OR num_nonnulls(plausible.input_tokens, plausible.output_tokens) > 0)
$$;
COMMENT ON FUNCTION orchestra.is_untotalled(outcome text, is_call boolean, has_usage boolean, plausible orchestra.usage, total_tokens bigint) IS 'Whether a step with this outcome is a call of a model whose total tokens (see total_tokens) are not known. A call that is charged by time, pages or searches and reports no tokens counts as 0 tokens.';

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
COMMENT ON FUNCTION orchestra.kinds_of(used orchestra.usage) IS 'Bit mask of the kinds of usage with a charged quantity: the usage_kinds of a step.';

CREATE FUNCTION orchestra.lanes(starts timestamp with time zone[], ends timestamp with time zone[]) RETURNS integer[]
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
COMMENT ON FUNCTION orchestra.lanes(starts timestamp with time zone[], ends timestamp with time zone[]) IS 'For each interval, in the order of the starts, the first free lane, from 1. An interval whose end is null never ends.';

CREATE FUNCTION orchestra.media_bodies(payload jsonb) RETURNS SETOF jsonb
    LANGUAGE sql IMMUTABLE COST 1000 ROWS 2 PARALLEL SAFE
    AS $$
    WITH requests AS (SELECT body FROM orchestra.model_bodies(payload, 'request'))
    SELECT body FROM requests
    UNION ALL
    SELECT body FROM orchestra.model_bodies(payload, 'response')
    WHERE NOT EXISTS (SELECT FROM requests)
$$;
COMMENT ON FUNCTION orchestra.media_bodies(payload jsonb) IS 'The requests of a model in a payload; if the payload has none, its responses.';

CREATE FUNCTION orchestra.message_content(message jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT COALESCE(
        jsonb_path_query_first(message, 'lax $.content', '{}', true),
        jsonb_path_query_first(message, 'lax $.parts', '{}', true),
        jsonb_path_query_first(message, 'lax $.message ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type like_regex "_call_output$").output', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type like_regex "^function[._]result$").result', '{}', true),
        jsonb_path_query_first(message, 'lax $.data.content', '{}', true),
        jsonb_path_query_first(message, 'lax $.kwargs.content', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.text))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type == "image")', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.inlineData))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.inline_data))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.fileData))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.file_data))', '{}', true),
        jsonb_path_query_first(message, 'lax $[1] ? (exists ($[0] ? (@ like_regex "^(system|developer|user|human|assistant|ai|tool|function)$")))', '{}', true))
$_$;
COMMENT ON FUNCTION orchestra.message_content(message jsonb) IS 'The content of a message (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.message_role(message jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT COALESCE(
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($ ? (@.type like_regex "_call_output$|^function[._]result$")))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.content[*] ? (@.type == "tool_result")) && !exists ($.content[*] ? (@.type != "tool_result")))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.content[*].toolResult) && !exists ($.content[*] ? (!exists (@.toolResult))))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.parts[*].functionResponse) && !exists ($.parts[*] ? (!exists (@.functionResponse))))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.parts[*].function_response) && !exists ($.parts[*] ? (!exists (@.function_response))))', '{}', true),
        jsonb_path_query_first(message, 'lax "model" ? ($.type == "model_output")', '{}', true),
        jsonb_path_query_first(message, 'lax $.role ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(message, 'lax $.type ? (@ == "system" || @ == "human" || @ == "ai" || @ == "tool")', '{}', true),
        jsonb_path_query_first(message, 'lax $[0] ? (@ like_regex "^(system|developer|user|human|assistant|ai|tool|function)$" && exists ($[1]))', '{}', true))
$_$;
COMMENT ON FUNCTION orchestra.message_role(message jsonb) IS 'The role that wrote a message of a request (see the reference of model calls); null if the message names none.';

CREATE FUNCTION orchestra.midpoint(before numeric, after numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT (before + after) * 0.5 $$;
COMMENT ON FUNCTION orchestra.midpoint(before numeric, after numeric) IS 'The mean of two numbers.';

CREATE FUNCTION orchestra.model_bodies(payload jsonb, direction text) RETURNS TABLE(place integer[], streamed boolean, body jsonb)
    LANGUAGE sql IMMUTABLE COST 1000 ROWS 2 PARALLEL SAFE
    AS $$
    WITH RECURSIVE looked (place, streamed, value, is_body) AS (
        SELECT CAST('{}' AS integer[]), false, o.value,
               CASE direction WHEN 'request' THEN orchestra.is_request(o.value)
                              ELSE orchestra.is_response(o.value) END
        FROM (SELECT orchestra.opened(payload) OFFSET 0) AS o (value)
        UNION ALL
        SELECT l.place || CAST(i.ordinal AS integer), l.streamed OR i.is_event, i.value,
               CASE direction WHEN 'request' THEN orchestra.is_request(i.value)
                              ELSE orchestra.is_response(i.value) END
        FROM looked AS l
        CROSS JOIN LATERAL (
            SELECT e.ordinal, true, e.value
            FROM jsonb_array_elements(
                CASE WHEN jsonb_typeof(l.value) = 'array' THEN
                    CASE WHEN jsonb_array_length(l.value) <= 10000 THEN l.value END
                END) WITH ORDINALITY AS e (value, ordinal)
            WHERE jsonb_typeof(e.value) = 'object'
            UNION ALL
            SELECT c.ordinal, false, orchestra.opened(l.value -> c.name)
            FROM unnest(CASE direction WHEN 'request' THEN orchestra.request_containers()
                                       ELSE orchestra.response_containers() END)
                WITH ORDINALITY AS c (name, ordinal)
            WHERE jsonb_typeof(l.value) = 'object' AND l.value ? c.name
            OFFSET 0
        ) AS i (ordinal, is_event, value)
        WHERE NOT l.is_body AND cardinality(l.place) < 5
          AND jsonb_typeof(i.value) IN ('object', 'array')
    )
    SELECT place, streamed, value FROM looked WHERE is_body
$$;
COMMENT ON FUNCTION orchestra.model_bodies(payload jsonb, direction text) IS 'The requests or responses (the direction) in a payload, with their position, and whether an array contains them. The search covers the payload, its containers (see request_containers and response_containers) and the elements of arrays of at most 10,000 elements, to a depth of 5.';

CREATE FUNCTION orchestra.opened(payload jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE jsonb_typeof(payload)
               WHEN 'string' THEN
                   -- JSON has no line end between } and {, not even in a string.
                   CASE WHEN payload #>> '{}' ~ '^[ \t\n\r]*(data|event|id|retry)?:'
                             OR payload #>> '{}' ~ '^[ \t\n\r]*\{.*\}[ \t]*[\n\r]\s*\{'
                        THEN orchestra.stream_events(payload)
                        WHEN payload #>> '{}' ~ '^[ \t\n\r]*[[{]'
                        THEN orchestra.parsed_json(payload #>> '{}') END
               WHEN 'array' THEN
                   CASE WHEN jsonb_typeof(payload -> 0) = 'string'
                             AND payload ->> 0 ~ '^[ \t\n\r]*((data|event|id|retry)?:|\{)'
                        THEN COALESCE(orchestra.stream_events(payload), payload)
                        ELSE payload END
               ELSE payload END
$$;
COMMENT ON FUNCTION orchestra.opened(payload jsonb) IS 'A payload in the form that the other functions search. A JSON text with an object or an array is parsed; a stream that is kept as a text or as a list of lines becomes an array of its events; any other text becomes null; everything else is unchanged.';

CREATE FUNCTION orchestra.outcome(state text, error jsonb, reported_error text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN state = 'succeeded' AND (error IS NOT NULL OR reported_error IS NOT NULL)
                 AND (orchestra.is_error(error) OR orchestra.is_error_text(reported_error))
           THEN 'soft_failed' ELSE state END
$$;
COMMENT ON FUNCTION orchestra.outcome(state text, error jsonb, reported_error text) IS 'How a step or run ended: its state, or soft_failed if the state is succeeded but the step or run carries an error, its own or one that its payload reports. Success rate: succeeded / (succeeded + soft_failed + failed).';

CREATE FUNCTION orchestra.parameter_names() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ARRAY[
        'temperature',
        'top_p',
        'n',
        'stop',
        'seed',
        'max_tokens',
        'max_completion_tokens',
        'presence_penalty',
        'frequency_penalty',
        'logit_bias',
        'logprobs',
        'top_logprobs',
        'response_format',
        'stream',
        'stream_options',
        'tool_choice',
        'parallel_tool_calls',
        'reasoning_effort',
        'verbosity',
        'service_tier',
        'modalities',
        'audio',
        'prediction',
        'web_search_options',
        'store',
        'max_output_tokens',
        'max_tool_calls',
        'reasoning',
        'truncation',
        'include',
        'background',
        'prompt_cache_retention',
        'dimensions',
        'encoding_format',
        'size',
        'quality',
        'style',
        'moderation',
        'output_format',
        'output_compression',
        'input_fidelity',
        'language',
        'timestamp_granularities',
        'voice',
        'speed',
        'chunking_strategy',
        'thinking',
        'stop_sequences',
        'top_k',
        'output_config',
        'context_management',
        'max_tokens_to_sample',
        'format',
        'think',
        'keep_alive',
        'raw',
        'search_parameters',
        'reasoning_format',
        'safe_prompt',
        'random_seed',
        'prompt_mode',
        'pages',
        'table_format',
        'confidence_scores_granularity',
        'p',
        'k',
        'citation_options',
        'safety_mode',
        'strict_tools',
        'input_type',
        'embedding_types',
        'truncate',
        'top_n',
        'provider',
        'models',
        'transforms',
        'route',
        'min_p',
        'top_a',
        'repetition_penalty',
        'resolution',
        'aspect_ratio',
        'max_gen_len',
        'performanceConfig',
        'guardrailConfig',
        'serviceTier',
        'maxTokens',
        'maxOutputTokens',
        'topP',
        'topK',
        'presencePenalty',
        'frequencyPenalty',
        'stopSequences',
        'toolChoice',
        'maxRetries',
        'maxSteps',
        'providerOptions',
        'candidateCount',
        'responseMimeType',
        'responseSchema',
        'responseModalities',
        'thinkingConfig',
        'speechConfig',
        'imageConfig',
        'mediaResolution',
        'safetySettings',
        'candidate_count',
        'response_mime_type',
        'response_schema',
        'response_modalities',
        'thinking_config',
        'safety_settings',
        'responseJsonSchema',
        'response_json_schema',
        'speech_config',
        'media_resolution',
        'thinking_level'
    ]
$$;
COMMENT ON FUNCTION orchestra.parameter_names() IS 'The fields of a request that are settings (see the reference of model calls).';

CREATE FUNCTION orchestra.parsed_json(said text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE COST 1000 PARALLEL SAFE
    AS $$
DECLARE
    skeleton text;
    before text;
BEGIN
    IF said IS NULL OR length(said) > 1048576 OR said !~ '^[ \t\n\r]*[[{"0-9tfn-]' THEN
        RETURN NULL;
    END IF;
    -- jsonb has neither NUL nor lone surrogates.
    skeleton := replace(said, '\\', '');
    IF skeleton ~ '\\u' THEN
        IF regexp_replace(skeleton, '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '',
                          'g') ~ '\\u(?:0000|[dD][89a-fA-F])' THEN
            RETURN NULL;
        END IF;
    END IF;
    skeleton := regexp_replace(skeleton,
        '"(?:[^"\\\u0001-\u001f]|\\["/bfnrt]|\\u[0-9a-fA-F]{4})*"', 's', 'g');
    -- A longer number may be beyond numeric.
    skeleton := regexp_replace(skeleton,
        '-?(?:0|[1-9][0-9]{0,250})(?:\.[0-9]{1,250})?(?:[eE][-+]?[0-9]{1,3})?(?![0-9.eE+-])', 'v', 'g');
    skeleton := regexp_replace(skeleton, 'true|false|null', 'v', 'g');
    IF skeleton ~ '[^][{}:,sv \t\n\r]' OR skeleton ~ '[sv][ \t\n\r]*[sv]' THEN
        RETURN NULL;
    END IF;
    skeleton := regexp_replace(skeleton, '[ \t\n\r]+', '', 'g');
    FOR depth IN 0 .. 100 LOOP
        IF skeleton IN ('s', 'v') THEN
            RETURN said::jsonb;
        END IF;
        before := skeleton;
        skeleton := regexp_replace(skeleton,
            '\[(?:[sv](?:,[sv])*)?\]|\{(?:s:[sv](?:,s:[sv])*)?\}', 'v', 'g');
        EXIT WHEN skeleton = before;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra.parsed_json(said text) IS 'The value of a JSON text; null if the text is not JSON, if jsonb cannot hold it, or if it has more than 2^20 characters, 100 levels, or a number of more than 250 digits.';

CREATE FUNCTION orchestra.part_cost(quantity bigint, price numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT CASE WHEN quantity > 0 THEN quantity * price ELSE 0 END $$;
COMMENT ON FUNCTION orchestra.part_cost(quantity bigint, price numeric) IS 'A part of call_cost: a quantity times its price; 0 if the quantity is 0 or null, else null if it has no price.';

CREATE FUNCTION orchestra.part_text(part jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT COALESCE(
        jsonb_path_query_first(part, 'lax $ ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (!(@.thought == true || @.type == "reasoning" || @.type == "thinking" || @.type == "redacted_thinking" || @.type == "summary_text" || @.type == "reasoning_text")).text ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $.refusal ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $.transcript ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "document").source ? (@.type == "text").data', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "document").document.data', '{}', true),
        jsonb_path_query_first(part, 'lax $.functionResponse.response', '{}', true),
        jsonb_path_query_first(part, 'lax $.function_response.response', '{}', true),
        jsonb_path_query_first(part, 'lax $.json ? (@.type() == "object")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "tool-result").output ? (@.type != "content").value', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "tool-result").result', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (exists (@.outcome)).stdout', '{}', true),
        jsonb_path_query_first(part, 'lax $.guardContent.text.text', '{}', true),
        jsonb_path_query_first(part, 'lax $.document.source.text', '{}', true))
$_$;
COMMENT ON FUNCTION orchestra.part_text(part jsonb) IS 'The text of a part of a content (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.partial_hours(INOUT begins timestamp with time zone, INOUT ends timestamp with time zone) RETURNS SETOF record
    LANGUAGE sql STABLE ROWS 2 PARALLEL SAFE
    AS $$
    SELECT begins, LEAST(ends, first.hour)
    FROM (SELECT date_trunc('hour', begins + interval '1 hour' - interval '1 microsecond', 'UTC')
              AS hour) AS first
    WHERE begins < LEAST(ends, first.hour)
    UNION ALL
    SELECT last.hour, ends
    FROM (SELECT date_trunc('hour', ends, 'UTC') AS hour) AS last
    WHERE begins <= last.hour AND last.hour < ends
$$;
COMMENT ON FUNCTION orchestra.partial_hours(INOUT begins timestamp with time zone, INOUT ends timestamp with time zone) IS 'The parts of a period that are not whole hours (UTC): at most one at its start and one at its end.';

CREATE FUNCTION orchestra.parts_text(content jsonb, separator text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT string_agg(t.said, separator ORDER BY p.ordinal)
    FROM jsonb_path_query(content, 'lax $[*][*]', '{}', true) WITH ORDINALITY AS p (part, ordinal)
    CROSS JOIN LATERAL (
        SELECT COALESCE(
            orchestra.part_text(p.part) #>> '{}',
            (SELECT string_agg(orchestra.part_text(i.part) #>> '{}', separator ORDER BY i.ordinal)
             FROM jsonb_array_elements(orchestra.inner_parts(p.part))
                 WITH ORDINALITY AS i (part, ordinal)))
        OFFSET 0
    ) AS t (said)
    WHERE t.said <> ''
$_$;
COMMENT ON FUNCTION orchestra.parts_text(content jsonb, separator text) IS 'The texts of a list of parts, joined with the separator; null if there is none.';

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
COMMENT ON FUNCTION orchestra.plausible_usage(used orchestra.usage) IS 'Usage as reported, without numbers that are not plausible (see token_count); no more cached input than input, and no more reasoning than output.';

CREATE FUNCTION orchestra.price_applies(prices orchestra.prices, service_tier text, context_tier integer, at timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT prices.service_tier = COALESCE(service_tier, 'standard')
       AND prices.above_input_tokens <= COALESCE(context_tier, 0)
       AND (prices.up_to_input_tokens > COALESCE(context_tier, 0)
           OR prices.up_to_input_tokens IS NULL)
       AND prices.valid_from <= CAST(at AT TIME ZONE 'UTC' AS date)
       AND (prices.valid_until > CAST(at AT TIME ZONE 'UTC' AS date) OR prices.valid_until IS NULL)
$$;
COMMENT ON FUNCTION orchestra.price_applies(prices orchestra.prices, service_tier text, context_tier integer, at timestamp with time zone) IS 'Whether these prices of a model apply to a call with this service tier (null: standard) and context tier (null: 0) at this time.';

CREATE FUNCTION orchestra.prompt_places() RETURNS TABLE(ordinal integer, api text, member text, alternatives jsonpath, path jsonpath, kind text)
    LANGUAGE sql IMMUTABLE ROWS 2 PARALLEL SAFE
    AS $_$
    VALUES
        (1, 'OpenAI chat', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[*]', 'whole'),
        (2, 'Gemini', 'contents', jsonpath 'lax $',
            jsonpath 'lax $.contents[*]', 'whole'),
        (3, 'Gemini embeddings', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content ? (exists (@.parts))', 'whole'),
        (4, 'Gemini embeddings', 'requests', jsonpath 'lax $',
            jsonpath 'lax $.requests[*].content', 'whole'),
        (5, 'Cohere chat v1', 'chat_history', jsonpath 'lax $',
            jsonpath 'lax $.chat_history[*]', 'whole'),
        (6, 'Cohere chat v1', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message ? (@.type() == "string")', 'whole'),
        (7, 'OpenAI responses', 'input', jsonpath 'lax $',
            jsonpath 'lax $.input ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")', 'whole'),
        (8, 'Mistral conversations', 'inputs', jsonpath 'lax $',
            jsonpath 'lax $.inputs ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")', 'whole'),
        (9, 'OpenAI completions', 'prompt', jsonpath 'lax $',
            jsonpath 'lax $.prompt ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")', 'whole'),
        (10, 'Bedrock, Titan', 'inputText', jsonpath 'lax $',
            jsonpath 'lax $.inputText', 'whole'),
        (11, 'Bedrock, Titan images', 'textToImageParams', jsonpath 'lax $',
            jsonpath 'lax $.textToImageParams.text', 'whole'),
        (12, 'Bedrock, Titan images', 'inPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.inPaintingParams.text', 'whole'),
        (13, 'Bedrock, Titan images', 'imageVariationParams', jsonpath 'lax $',
            jsonpath 'lax $.imageVariationParams.text', 'whole'),
        (14, 'Bedrock, Titan images', 'outPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.outPaintingParams.text', 'whole'),
        (15, 'Bedrock, Titan images', 'colorGuidedGenerationParams', jsonpath 'lax $',
            jsonpath 'lax $.colorGuidedGenerationParams.text', 'whole'),
        (16, 'Bedrock, Stability', 'text_prompts', jsonpath 'lax $',
            jsonpath 'lax $.text_prompts[*].text', 'whole'),
        (17, 'Vertex, Imagen', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].prompt', 'whole'),
        (18, 'Vertex, embeddings', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].content', 'whole'),
        (19, 'OpenAI realtime', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "conversation.item.create").item', 'whole'),
        (20, 'Cohere embeddings', 'texts', jsonpath 'lax $',
            jsonpath 'lax $.texts[*]', 'whole'),
        (21, 'Cohere reranking', 'query', jsonpath 'lax $',
            jsonpath 'lax $ ? (exists (@.documents)).query', 'whole'),
        (22, 'Perplexity by Composio', 'userContent', jsonpath 'lax $',
            jsonpath 'lax $.userContent', 'whole'),
        (23, 'Mistral OCR', 'document_annotation_prompt', jsonpath 'lax $',
            jsonpath 'lax $.document_annotation_prompt', 'whole'),
        (24, 'Mistral OCR', 'document', jsonpath 'lax $',
            jsonpath 'lax $.document.document_url ? (!(@ starts with "data:"))', 'whole')
$_$;
COMMENT ON FUNCTION orchestra.prompt_places() IS 'The places in a model''s request that hold its messages or prompt, as JSON paths by API (see the reference of model calls).';

CREATE FUNCTION orchestra.prompt_text(inputs jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $$
    SELECT CASE WHEN count(*) = 1 THEN min(m.text)
                ELSE string_agg(m.role || ': ' || m.text, E'\n\n' ORDER BY m.ordinal) END
    FROM orchestra.request_messages(inputs) AS m
    WHERE m.role NOT IN ('system', 'developer')
$$;
COMMENT ON FUNCTION orchestra.prompt_text(inputs jsonb) IS 'The prompt in a step''s inputs, without the system text: the text of the only message, or each message as "role: text", separated by blank lines; null for an unknown shape, for a request without text, and for more than 10,000 messages.';

CREATE FUNCTION orchestra.ratio(count numeric, total numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT count * 1.000000000000000000000000 / NULLIF(total, 0) $$;
COMMENT ON FUNCTION orchestra.ratio(count numeric, total numeric) IS 'A count divided by its total, to 24 decimals; null if the total is 0 or null.';

CREATE FUNCTION orchestra.request_containers() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ARRAY[
        'body',
        'request',
        'requests',
        'params',
        'data',
        'payload',
        'json',
        'input',
        'input_mapping',
        'arguments',
        'kwargs',
        'modelInput'
    ]
$$;
COMMENT ON FUNCTION orchestra.request_containers() IS 'The fields of a payload that can contain a request (see the reference of model calls).';

CREATE FUNCTION orchestra.request_messages(inputs jsonb) RETURNS TABLE(ordinal bigint, role text, text text)
    LANGUAGE sql IMMUTABLE COST 1000 ROWS 4 PARALLEL SAFE
    AS $$
    WITH written AS (
        SELECT b.place, p.api, p.ordinal, m.ordinal AS number,
               -- The names of protobuf are such as ROLE_USER.
               regexp_replace(
                   lower(orchestra.message_role(m.message) #>> '{}'), '^role_', '') AS role,
               CASE WHEN jsonb_typeof(m.message) = 'string' THEN NULLIF(m.message #>> '{}', '')
                    ELSE orchestra.content_text(c.content, E'\n') END AS text
        FROM orchestra.model_bodies(inputs, 'request') AS b
        JOIN orchestra.prompt_places() AS p ON b.body ? p.member
        CROSS JOIN LATERAL jsonb_path_query(b.body, p.path, '{}', true)
            WITH ORDINALITY AS m (message, ordinal)
        CROSS JOIN LATERAL (SELECT orchestra.message_content(m.message) OFFSET 0) AS c (content)
    ), placed AS (
        SELECT w.*, first_value(w.api) OVER (PARTITION BY w.place ORDER BY w.ordinal) AS first_api,
               count(*) OVER () AS messages
        FROM written AS w WHERE w.text IS NOT NULL
    )
    SELECT row_number() OVER (ORDER BY p.place, p.ordinal, p.number),
           CASE WHEN length(p.role) BETWEEN 1 AND 100 THEN p.role ELSE 'user' END, p.text
    FROM placed AS p WHERE p.api = p.first_api AND p.messages <= 10000
$$;
COMMENT ON FUNCTION orchestra.request_messages(inputs jsonb) IS 'The messages of a model''s request that have text, in their order, with the role that wrote them; a prompt without a role is the user''s. No row for an unknown shape, and for more than 10,000 messages.';

CREATE FUNCTION orchestra.response_containers() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ARRAY[
        'response',
        'response_data',
        'message',
        'delta',
        'metadata',
        'x_groq',
        'body',
        'result',
        'data',
        'chunks',
        'events',
        'stream',
        'modelOutput'
    ]
$$;
COMMENT ON FUNCTION orchestra.response_containers() IS 'The fields of a payload that can contain a response (see the reference of model calls).';

CREATE FUNCTION orchestra.search(query text, workflow text DEFAULT NULL::text, node text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '7 days'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone, within text DEFAULT 'all'::text, max_hits integer DEFAULT 100) RETURNS TABLE("time" timestamp with time zone, workflow_id text, run_id text, step_id text, node_id text, place text, snippet text, hit_start integer, hit_length integer)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $_$
DECLARE
    folded CONSTANT text := orchestra.search_fold(query);
    pattern CONSTANT text := orchestra.search_pattern(query);
    part CONSTANT text := orchestra.search_part(folded);
    is_indexed CONSTANT boolean := orchestra.search_is_indexed(query);
    first CONSTANT timestamptz := COALESCE(since, '-infinity');
    slice_start timestamptz;
    slice_end timestamptz := COALESCE(until, 'infinity');
    slice_began timestamptz;
    slice_runs bigint := 200;
    runs bigint := 0;
    uses_index boolean := false;
    frequency bigint;
    hits integer := 0;
    added integer;
    statement CONSTANT text := $sql$
        SELECT h.time, h.workflow_id, h.run_id, h.step_id, h.node_id,
               CASE WHEN NOT m.has_it THEN h.place WHEN h.place = 'input' THEN 'prompt'
                    ELSE 'answer' END,
               f.snippet, f.hit_start, f.hit_length
        FROM (SELECT * FROM (%s) AS found
              ORDER BY time DESC, run_id, start_time DESC NULLS LAST, step_id, place LIMIT $7) AS h
        CROSS JOIN LATERAL (
            SELECT CASE WHEN h.step_id IS NULL THEN NULL
                        WHEN h.place = 'input' THEN orchestra.search_prompt(h.data)
                        WHEN h.place = 'output' THEN orchestra.answer_text(h.data) END AS said
            OFFSET 0
        ) AS own
        CROSS JOIN LATERAL (
            SELECT COALESCE(strpos(orchestra.search_fold(own.said), $1) > 0, false) AS has_it
            OFFSET 0
        ) AS m
        CROSS JOIN LATERAL orchestra.search_snippet(
            CASE WHEN m.has_it THEN own.said WHEN h.place = 'output'
                 THEN orchestra.search_output(h.data) ELSE COALESCE(orchestra.search_text(h.data), h.said) END,
            $1) AS f
        ORDER BY h.time DESC, h.run_id, h.start_time DESC NULLS LAST, h.step_id, h.place
    $sql$;
BEGIN
    IF query !~ '[^[:space:]]' OR length(query) > 1000 THEN
        RAISE 'a search needs a phrase of 1 to 1,000 characters, not only blanks'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF within NOT IN ('prompts', 'answers', 'errors', 'all') THEN
        RAISE 'a search is within prompts, answers, errors or all'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WHILE hits < max_hits AND slice_end > first LOOP
        slice_began := clock_timestamp();
        uses_index := is_indexed AND runs >= 200 AND runs * max_hits > hits * 4000;
        IF uses_index THEN
            frequency := COALESCE(frequency, orchestra.search_frequency(folded));
            uses_index := runs * 10 >= frequency;
        END IF;
        slice_start := first;
        IF NOT uses_index THEN
            SELECT COALESCE(min(newest.start_time), first) INTO slice_start
            FROM (
                SELECT r.start_time FROM orchestra.runs AS r
                WHERE r.start_time >= first AND r.start_time < slice_end
                  AND (workflow IS NULL OR r.workflow_id = workflow)
                ORDER BY r.start_time DESC LIMIT slice_runs
            ) AS newest;
        END IF;
        RETURN QUERY EXECUTE format(statement, (
            SELECT string_agg(format($sql$
                SELECT COALESCE(r.start_time, r.first_seen_at) AS time, r.workflow_id,
                       r.id AS run_id, %s, %L AS place, %s
                FROM orchestra.runs AS r %s
                WHERE (r.start_time >= $3 AND r.start_time < $4
                       OR r.start_time IS NULL AND r.first_seen_at >= $3 AND r.first_seen_at < $4)
                  AND ($5 IS NULL OR r.workflow_id = $5) AND %s
                  AND %s %s strpos(orchestra.search_fold(%s), $1) > 0
                $sql$,
                CASE WHEN b.of_steps THEN 's.id AS step_id, s.node_id, s.start_time'
                     ELSE 'NULL AS step_id, NULL AS node_id, NULL::timestamptz AS start_time' END,
                b.place,
                CASE WHEN b.content IS NULL THEN format('NULL::jsonb AS data, %s AS said', b.said)
                     ELSE format('%s AS data, NULL AS said', b.content) END,
                CASE WHEN b.of_steps THEN 'JOIN orchestra.steps AS s ON s.run_id = r.id ' ELSE ''
                END || b.joined,
                CASE WHEN b.of_steps
                     THEN 's.absent_since IS NULL AND ($6 IS NULL OR s.node_id = $6)'
                     ELSE '$6 IS NULL' END || b.condition,
                CASE WHEN uses_index THEN format('orchestra.search_key(%s) LIKE $2 AND', b.said)
                     ELSE '' END,
                CASE WHEN b.content IS NOT NULL
                     THEN format('orchestra.search_may_contain(%s, $8, %L) AND',
                                 b.content, b.of_steps AND b.place = 'output') END,
                b.said
            ), ' UNION ALL ')
            FROM (VALUES
                ('prompts', true, 'input', 'JOIN orchestra.inputs AS p ON p.step_id = s.id',
                 'p.data', 'orchestra.search_text(p.data)',
                 CASE within WHEN 'prompts'
                 THEN ' AND strpos(orchestra.search_fold(orchestra.search_prompt(p.data)), $1) > 0'
                 ELSE '' END),
                ('answers', true, 'output', 'JOIN orchestra.outputs AS p ON p.step_id = s.id',
                 'p.data', 'orchestra.search_output(p.data)',
                 CASE within WHEN 'answers'
                 THEN ' AND strpos(orchestra.search_fold(orchestra.answer_text(p.data)), $1) > 0'
                 ELSE '' END),
                ('errors', true, 'error', '', NULL,
                 'orchestra.search_error(s.error, s.reported_error)',
                 ' AND (s.error IS NOT NULL OR s.reported_error IS NOT NULL)'),
                ('errors', false, 'error', '', NULL, 'orchestra.search_error(r.error, NULL)',
                 ' AND r.error IS NOT NULL'),
                ('all', false, 'input', 'JOIN orchestra.run_payloads AS p ON p.run_id = r.id',
                 'p.inputs', 'orchestra.search_text(p.inputs)', ''),
                ('all', false, 'output', 'JOIN orchestra.run_payloads AS p ON p.run_id = r.id',
                 'p.outputs', 'orchestra.search_text(p.outputs)', '')
            ) AS b (part, of_steps, place, joined, content, said, condition)
            WHERE within IN ('all', b.part)
        ))
            USING folded, pattern, slice_start, slice_end, workflow, node, max_hits - hits,
                part;
        GET DIAGNOSTICS added = ROW_COUNT;
        hits := hits + added;
        slice_end := slice_start;
        runs := runs + slice_runs;
        IF clock_timestamp() - slice_began < interval '0.2 s' THEN
            slice_runs := slice_runs * 2;
        ELSIF clock_timestamp() - slice_began > interval '1 s' THEN
            slice_runs := GREATEST(slice_runs / 2, 50);
        END IF;
    END LOOP;
END
$_$;
COMMENT ON FUNCTION orchestra.search(query text, workflow text, node text, since timestamp with time zone, until timestamp with time zone, within text, max_hits integer) IS 'Payloads and errors that contain a phrase, newest run first: at most max_hits. Case is ignored. workflow and node: only these; since, until: only runs that started at or after since and before until; within: prompts, answers, errors or all, which is these and every other string of inputs and outputs. Only members of orchestra_payload_analyst may use it.';

CREATE FUNCTION orchestra.search_error(error jsonb, reported_error text) RETURNS text
    LANGUAGE sql IMMUTABLE COST 1000 PARALLEL SAFE
    AS $$ SELECT concat_ws(E'\n', orchestra.search_text(error), reported_error) $$;
COMMENT ON FUNCTION orchestra.search_error(error jsonb, reported_error text) IS 'The searched text of an error: the API''s own error, and the error that the payload reports.';

CREATE FUNCTION orchestra.search_fold(said text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT replace(replace(lower(said COLLATE pg_catalog.pg_c_utf8), 'ς', 'σ'), E'i\u0307', 'i') COLLATE "C"
$$;
COMMENT ON FUNCTION orchestra.search_fold(said text) IS 'The text in lower case. A search compares folded texts.';

CREATE FUNCTION orchestra.search_frequency(folded text) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH sizes AS (
        SELECT c.relname, c.reltuples AS rows,
               CASE WHEN c.reltuples > 0 THEN LEAST(100000 / c.reltuples, 100) ELSE 0 END AS percent
        FROM pg_catalog.pg_class AS c
        WHERE c.oid IN ('orchestra.inputs'::regclass, 'orchestra.outputs'::regclass)
    ), sampled AS (
        SELECT 'inputs' AS relname,
               strpos(orchestra.search_fold(orchestra.search_text(p.data)), folded) > 0 AS has_it
        FROM orchestra.inputs AS p
        TABLESAMPLE SYSTEM ((SELECT percent FROM sizes WHERE relname = 'inputs'))
        UNION ALL
        SELECT 'outputs',
               strpos(orchestra.search_fold(orchestra.search_output(p.data)), folded) > 0
        FROM orchestra.outputs AS p
        TABLESAMPLE SYSTEM ((SELECT percent FROM sizes WHERE relname = 'outputs'))
    )
    SELECT COALESCE(sum(t.frequency), 0)
    FROM (
        SELECT max(z.rows) * count(*) FILTER (WHERE s.has_it) / count(*) AS frequency
        FROM sampled AS s JOIN sizes AS z USING (relname) GROUP BY s.relname
    ) AS t
$$;
COMMENT ON FUNCTION orchestra.search_frequency(folded text) IS 'Estimated number of inputs and outputs that contain a folded phrase, from a sample of about 1,000 rows of each table; 0 before the first ANALYZE.';

CREATE FUNCTION orchestra.search_is_indexed(query text) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT orchestra.search_pattern(query) ~ '[a-z0-9]{3}' AND (
        SELECT count(*) = 5
        FROM unnest(ARRAY['inputs', 'outputs', 'run_payloads', 'steps', 'runs']) AS t (name)
        JOIN pg_catalog.pg_index AS i
          ON i.indexrelid = to_regclass(format('orchestra.%I', t.name || '_search_idx'))
        WHERE i.indisvalid)
$$;
COMMENT ON FUNCTION orchestra.search_is_indexed(query text) IS 'Whether an index serves a search for the phrase: `orchestra-etl db index-search` builds it, and the phrase needs a word of three letters or digits, or a character beyond ASCII.';

CREATE FUNCTION orchestra.search_key(said text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN octet_length(said) = length(said) THEN lower(said COLLATE "C")
           ELSE regexp_replace(orchestra.search_fold(said), '[^\u0001-\u007f]+', E'\x01', 'g')
                || E'\n'
                || translate(
                    convert_from(convert_to(
                        regexp_replace(orchestra.search_fold(said), '[\u0001-\u007f]+', ' ', 'g'),
                        'UTF8'), 'LATIN1'),
                    E'\u00e4\u00e5\u00e6\u00e7\u00e8\u00e9\u00d0\u00d1\u00d8\u00d9\u00da\u00db\u00e2'
                    '\u00e3\u00ef\u00f0\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089'
                    '\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096'
                    '\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0\u00a1\u00a2\u00a3'
                    '\u00a4\u00a5\u00a6\u00a7\u00a8\u00a9\u00aa\u00ab\u00ac\u00ad\u00ae\u00af\u00b0'
                    '\u00b1\u00b2\u00b3\u00b4\u00b5\u00b6\u00b7\u00b8\u00b9\u00ba\u00bb\u00bc\u00bd'
                    '\u00be\u00bf\u00c0\u00c1\u00c2\u00c3\u00c4\u00c5\u00c6\u00c7\u00c8\u00c9\u00ca'
                    '\u00cb\u00cc\u00cd\u00ce\u00cf\u00d2\u00d3\u00d4\u00d5\u00d6\u00d7\u00dc\u00dd'
                    '\u00de\u00df\u00e0\u00e1\u00ea\u00eb\u00ec\u00ed\u00ee\u00f1\u00f2\u00f3\u00f4',
                    repeat('abcdefghijklmnopqrstuvwxyz0123456789', 4))
           END COLLATE "C"
$$;
COMMENT ON FUNCTION orchestra.search_key(said text) IS 'The text as the search index holds it: in lower case and ASCII only; other characters are mapped to ASCII.';

CREATE FUNCTION orchestra.search_may_contain(data jsonb, part text, is_output boolean) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE COST 250 PARALLEL SAFE
    AS $$
DECLARE
    said CONSTANT text := orchestra.search_fold(CAST(data AS text));
BEGIN
    RETURN strpos(said, part) > 0 OR is_output AND octet_length(said) - octet_length(
        replace(replace(replace(replace(replace(replace(replace(said,
            '"content": "', '"content": '), '"text": "', '"text": '), '"delta": "', '"delta": '),
            '"response": "', '"response": '), '"completion": "', '"completion": '),
            '"generation": "', '"generation": '), '"outputtext": "', '"outputtext": ')) > 1;
END
$$;
COMMENT ON FUNCTION orchestra.search_may_contain(data jsonb, part text, is_output boolean) IS 'False only if search_text, or search_output of an output, cannot contain a folded phrase with this part (search_part).';

CREATE FUNCTION orchestra.search_output(data jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE COST 1000 PARALLEL SAFE
    AS $_$
    SELECT concat_ws(E'\n', orchestra.search_text(data),
        CASE WHEN jsonb_path_exists(data, 'strict $.** ? (@.type() == "array" && @.size() > 1)')
        THEN (
            SELECT CASE WHEN count(*) > 1 THEN left(string_agg(chunk.said #>> '{}', ''), 1000000) END
            FROM jsonb_path_query(data, 'strict $.** ? (@.type() == "object").keyvalue() ? ('
                '@.key == "content" || @.key == "text" || @.key == "delta" || @.key == "response" '
                '|| @.key == "completion" || @.key == "generation" || @.key == "outputText"'
                ').value ? (@.type() == "string")') AS chunk (said)
        ) END)
$_$;
COMMENT ON FUNCTION orchestra.search_output(data jsonb) IS 'The searched text of an output: search_text, and the joined chunks of a streamed answer.';

CREATE FUNCTION orchestra.search_part(folded text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT part FROM regexp_split_to_table(folded, '[\u0001-\u001f"\\]+') AS part
    ORDER BY length(part) DESC LIMIT 1
$$;
COMMENT ON FUNCTION orchestra.search_part(folded text) IS 'The longest part of a folded phrase that JSON does not escape.';

CREATE FUNCTION orchestra.search_pattern(query text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT '%' || replace(
        regexp_replace(orchestra.search_key(left(orchestra.search_fold(query), 100)),
                       '([\\%_])', '\\\1', 'g'),
        E'\n', '%') || '%'
$$;
COMMENT ON FUNCTION orchestra.search_pattern(query text) IS 'The LIKE pattern of a phrase. The key (search_key) of every text that contains the phrase matches it.';

CREATE FUNCTION orchestra.search_prompt(data jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT concat_ws(E'\n\n', orchestra.system_text(data), orchestra.prompt_text(data)) $$;
COMMENT ON FUNCTION orchestra.search_prompt(data jsonb) IS 'The searched text of a prompt: the system text, then the prompt.';

CREATE FUNCTION orchestra.search_snippet(said text, folded text, OUT snippet text, OUT hit_start integer, OUT hit_length integer) RETURNS record
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT p.before || '«' || p.hit || '»' || p.after, length(p.before) + 2, length(p.hit)
    FROM (
        SELECT CASE WHEN c.place > 41 THEN '…' ELSE '' END
               || substr(c.said, GREATEST(c.place - 40, 1), LEAST(c.place - 1, 40)) AS before,
               substr(c.said, c.place, length(folded)) AS hit,
               substr(c.said, c.place + length(folded), 40)
               || CASE WHEN length(c.said) >= c.place + length(folded) + 40 THEN '…' ELSE '' END
               AS after
        FROM (
            SELECT translate(CASE WHEN length(f.text) = length(f.said) THEN f.said ELSE f.text END,
                             E'\n\r\t', '   ') AS said,
                   strpos(f.text, folded) AS place
            FROM (SELECT search_snippet.said, orchestra.search_fold(search_snippet.said) AS text
                  OFFSET 0) AS f
            OFFSET 0
        ) AS c
        OFFSET 0
    ) AS p
$$;
COMMENT ON FUNCTION orchestra.search_snippet(said text, folded text, OUT snippet text, OUT hit_start integer, OUT hit_length integer) IS 'The first occurrence of a folded phrase in a text: the hit between « and », with 40 characters on each side, and its position in the snippet.';

CREATE FUNCTION orchestra.search_text(data jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE COST 1000 PARALLEL SAFE
    AS $_$
    SELECT left(string_agg(t.said, E'\n'), 1000000)
    FROM (SELECT found.value #>> '{}' AS said
          FROM jsonb_path_query(data, 'strict $.** ? (@.type() == "string")') AS found (value)
         ) AS t
    WHERE t.said !~ '^data:[^,]{0,200};base64,'
      AND NOT (octet_length(t.said) >= 1000 AND left(t.said, 1000) !~ '[^A-Za-z0-9+/_=-]')
$_$;
COMMENT ON FUNCTION orchestra.search_text(data jsonb) IS 'The searched text of a value: its strings, each on lines of its own, without images and other base64, up to 1,000,000 characters.';

CREATE FUNCTION orchestra.settings_names() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ARRAY[
        'inferenceConfig',
        'additionalModelRequestFields',
        'textGenerationConfig',
        'imageGenerationConfig',
        'generationConfig',
        'generation_config',
        'config',
        'text',
        'parameters',
        'options',
        'completion_args'
    ]
$$;
COMMENT ON FUNCTION orchestra.settings_names() IS 'The fields of a request whose object holds settings (see the reference of model calls).';

CREATE FUNCTION orchestra.stream_events(payload jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE COST 1000 PARALLEL SAFE
    AS $_$
    SELECT orchestra.parsed_json('[' || substr(string_agg(
               CASE WHEN left(l.said, 1) IN ('{', '[') THEN ',' ELSE E'\n' END || l.said, ''
               ORDER BY l.ordinal), 2) || ']')
    FROM (
        SELECT i.ordinal, CASE WHEN s.is_json THEN i.line
                               WHEN starts_with(i.line, 'data:')
                               THEN regexp_replace(i.line, '^data: ?', '') END AS said
        FROM (
            SELECT translate(a.said, E'\r', E'\n'), left(ltrim(a.said, E' \t\n\r'), 1) = '{'
            FROM (
                SELECT string_agg(t.value #>> '{}', E'\n' ORDER BY t.ordinal)
                FROM jsonb_path_query(payload, 'lax $[*] ? (@.type() == "string")')
                    WITH ORDINALITY AS t (value, ordinal)
            ) AS a (said)
            -- 10,000 events of three lines, each with two characters at its end.
            WHERE length(a.said) <= 1048576
              AND length(a.said) - length(translate(a.said, E'\r\n', '')) <= 60000
              AND a.said ~ '^[ \t\n\r]*(data: ?[[{]|(event|id|retry)?:|\{)'
            OFFSET 0
        ) AS s (said, is_json)
        CROSS JOIN LATERAL string_to_table(s.said, E'\n') WITH ORDINALITY AS i (line, ordinal)
    ) AS l
    WHERE l.said NOT IN ('', '[DONE]')
$_$;
COMMENT ON FUNCTION orchestra.stream_events(payload jsonb) IS 'The events of a stream that is kept as a text or as a list of lines (server-sent events, or lines of JSON), as an array; null for anything else, if an event is not JSON, and beyond the limits of parsed_json.';

CREATE FUNCTION orchestra.system_places() RETURNS TABLE(ordinal integer, api text, member text, alternatives jsonpath, path jsonpath, kind text)
    LANGUAGE sql IMMUTABLE ROWS 2 PARALLEL SAFE
    AS $_$
    VALUES
        (25, 'Anthropic', 'system', jsonpath 'lax $',
            jsonpath 'lax $.system', 'whole'),
        (26, 'Gemini', 'systemInstruction', jsonpath 'lax $',
            jsonpath 'lax $.systemInstruction.parts', 'whole'),
        (27, 'Gemini', 'systemInstruction', jsonpath 'lax $',
            jsonpath 'lax $.systemInstruction ? (@.type() == "string")', 'whole'),
        (28, 'OpenAI realtime', 'session', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "session.update").session.instructions', 'whole'),
        (29, 'OpenAI realtime', 'response', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.create").response.instructions', 'whole'),
        (30, 'Gemini by Python', 'system_instruction', jsonpath 'lax $',
            jsonpath 'lax $.system_instruction ? (@.type() == "string")', 'whole'),
        (31, 'Gemini by Python', 'system_instruction', jsonpath 'lax $',
            jsonpath 'lax $.system_instruction.parts', 'whole'),
        (32, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.system_instruction ? (@.type() == "string")', 'whole'),
        (33, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.system_instruction.parts', 'whole'),
        (34, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.systemInstruction ? (@.type() == "string")', 'whole'),
        (35, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.systemInstruction.parts', 'whole'),
        (36, 'OpenAI responses', 'instructions', jsonpath 'lax $',
            jsonpath 'lax $.instructions ? (@.type() == "string")', 'whole'),
        (37, 'Cohere chat v1', 'preamble', jsonpath 'lax $',
            jsonpath 'lax $.preamble', 'whole'),
        (38, 'Perplexity by Composio', 'systemContent', jsonpath 'lax $',
            jsonpath 'lax $.systemContent', 'whole')
$_$;
COMMENT ON FUNCTION orchestra.system_places() IS 'The places in a model''s request that hold the system text, as JSON paths by API (see the reference of model calls).';

CREATE FUNCTION orchestra.system_text(inputs jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE COST 10000 PARALLEL SAFE
    SET jit TO 'off'
    AS $$
    SELECT string_agg(t.text, E'\n\n' ORDER BY t.own, t.place, t.ordinal)
    FROM (
        SELECT 0 AS own, b.place, p.ordinal, orchestra.content_text(c.content, E'\n') AS text
        FROM orchestra.model_bodies(inputs, 'request') AS b
        JOIN orchestra.system_places() AS p ON b.body ? p.member
        CROSS JOIN LATERAL (
            SELECT jsonb_path_query_array(b.body, p.path, '{}', true) OFFSET 0) AS c (content)
        UNION ALL
        SELECT 1, '{}', m.ordinal, m.text
        FROM orchestra.request_messages(inputs) AS m WHERE m.role IN ('system', 'developer')
    ) AS t
    WHERE t.text IS NOT NULL
$$;
COMMENT ON FUNCTION orchestra.system_text(inputs jsonb) IS 'The system text in a step''s inputs: that of the request, and its system and developer messages, separated by blank lines; null if there is none, or for an unknown shape.';

CREATE FUNCTION orchestra.token_count(tokens bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT CASE WHEN tokens BETWEEN 0 AND 1000000000000 THEN tokens END $$;
COMMENT ON FUNCTION orchestra.token_count(tokens bigint) IS 'A number of tokens, as reported; null if it is not plausible: below 0, or above 10^12.';

CREATE FUNCTION orchestra.tool_arguments(tool jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT COALESCE(
        jsonb_path_query_first(tool, 'lax $.function.arguments', '{}', true),
        jsonb_path_query_first(tool, 'lax $.custom.input', '{}', true),
        jsonb_path_query_first(tool, 'lax $.arguments', '{}', true),
        jsonb_path_query_first(tool, 'lax $.input', '{}', true),
        jsonb_path_query_first(tool, 'lax $.partial_json', '{}', true),
        jsonb_path_query_first(tool, 'lax $.args', '{}', true),
        jsonb_path_query_first(tool, 'lax $.parameters', '{}', true),
        jsonb_path_query_first(tool, 'lax $.action', '{}', true),
        jsonb_path_query_first(tool, 'lax $.operation', '{}', true),
        jsonb_path_query_first(tool, 'lax $.queries', '{}', true),
        jsonb_path_query_first(tool, 'lax $.code', '{}', true))
$_$;
COMMENT ON FUNCTION orchestra.tool_arguments(tool jsonb) IS 'The arguments of a tool call (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.tool_name(tool jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT COALESCE(
        jsonb_path_query_first(tool, 'lax $.function.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.custom.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.toolName ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.type ? (@ like_regex "^(web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")', '{}', true))
$_$;
COMMENT ON FUNCTION orchestra.tool_name(tool jsonb) IS 'The name of the tool that a tool call names (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.tool_places() RETURNS TABLE(ordinal integer, api text, member text, alternatives jsonpath, path jsonpath, kind text)
    LANGUAGE sql IMMUTABLE ROWS 2 PARALLEL SAFE
    AS $_$
    VALUES
        (217, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (218, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.function_call', 'whole'),
        (219, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.tool_calls[*]', 'delta'),
        (220, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.function_call', 'delta'),
        (221, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")', 'whole'),
        (222, 'OpenAI responses', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_item.done").item ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")', 'delta'),
        (223, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")', 'whole'),
        (224, 'Anthropic batches', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")', 'whole'),
        (225, 'Anthropic', 'content_block', jsonpath 'lax $',
            jsonpath 'lax $.content_block ? (@.type like_regex "^(server_|mcp_)?tool_use$")', 'delta'),
        (226, 'Anthropic', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "input_json_delta" && exists (@.partial_json))', 'delta'),
        (227, 'Gemini', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts[*].functionCall', 'whole'),
        (228, 'Gemini by Python', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts[*].function_call', 'whole'),
        (229, 'Bedrock Converse', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output.message.content[*].toolUse', 'whole'),
        (230, 'Bedrock Converse', 'contentBlockStart', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockStart.start.toolUse', 'delta'),
        (231, 'Bedrock Converse', 'contentBlockDelta', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockDelta.delta.toolUse', 'delta'),
        (232, 'Ollama', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (233, 'Cohere chat', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.message.tool_calls', 'delta'),
        (234, 'Mistral conversations', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "function.call" || @.type == "tool.execution")', 'whole'),
        (235, 'Gemini interactions', 'steps', jsonpath 'lax $',
            jsonpath 'lax $.steps[*] ? (@.type == "function_call")', 'whole'),
        (236, 'Gemini interactions', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "function_call")', 'whole'),
        (237, 'Gemini interactions', 'step', jsonpath 'lax $',
            jsonpath 'lax $.step ? (@.type == "function_call")', 'delta'),
        (238, 'Gemini interactions', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "arguments_delta" && exists (@.arguments))', 'delta'),
        (239, 'Gemini interactions', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "function_call" && exists (@.name))', 'delta'),
        (240, 'Mistral conversations', 'output_index', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type like_regex "^(function.call|tool.execution).(delta|started)$" && exists (@.output_index))', 'delta'),
        (241, 'xAI by gRPC', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (242, 'xAI by gRPC', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.message.toolCalls[*]', 'whole'),
        (243, 'LangChain', 'kwargs', jsonpath 'lax $',
            jsonpath 'lax $.kwargs.tool_calls[*]', 'whole'),
        (244, 'LangChain', 'tool_call_chunks', jsonpath 'lax $',
            jsonpath 'lax $.tool_call_chunks[*]', 'delta'),
        (245, 'LangChain', 'tool_calls', jsonpath 'lax $',
            jsonpath 'lax $.tool_calls[*]', 'whole'),
        (246, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").tool_calls[*]', 'whole'),
        (247, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.tool_calls[*]', 'whole'),
        (248, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.tool_calls[*]', 'whole'),
        (249, 'LangChain', 'generations', jsonpath 'lax $',
            jsonpath 'lax $.generations[*][*].message.kwargs.tool_calls[*]', 'whole'),
        (250, 'AI SDK', 'toolCalls', jsonpath 'lax $',
            jsonpath 'lax $.toolCalls[*]', 'whole'),
        (251, 'AI SDK', 'toolName', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "tool-call" && exists (@.toolName))', 'whole'),
        (252, 'AI SDK', 'toolName', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "tool-input-available" && exists (@.toolName))', 'whole'),
        (253, 'AI SDK, a provider', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type == "tool-call")', 'whole')
$_$;
COMMENT ON FUNCTION orchestra.tool_places() IS 'The places in a model''s response that hold tool calls, as JSON paths by API (see the reference of model calls).';

CREATE FUNCTION orchestra.total_tokens(input_tokens bigint, output_tokens bigint, total_tokens bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT COALESCE(orchestra.token_count(total_tokens),
                    orchestra.token_count(input_tokens) + orchestra.token_count(output_tokens))
$$;
COMMENT ON FUNCTION orchestra.total_tokens(input_tokens bigint, output_tokens bigint, total_tokens bigint) IS 'The total tokens of a call: as reported, else the sum of input and output if both are known, else null.';

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
COMMENT ON FUNCTION orchestra.usage_kinds(usage_kinds integer) IS 'The names of the kinds of usage in the column usage_kinds of steps and rollups: those with a quantity that is charged at its own price.';

CREATE TABLE orchestra.step_rollup (
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    hour timestamp with time zone NOT NULL,
    ordinal integer NOT NULL,
    organization_id text COLLATE pg_catalog."C",
    node_id text,
    node_type text,
    model text,
    service_tier text,
    context_tier integer,
    usage_kinds integer,
    succeeded bigint NOT NULL,
    soft_failed bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    skipped bigint NOT NULL,
    unfinished bigint NOT NULL,
    calls bigint NOT NULL,
    unmetered_calls bigint NOT NULL,
    untotalled_calls bigint NOT NULL,
    reported_calls bigint NOT NULL,
    input_tokens bigint,
    cached_input_tokens bigint,
    cache_write_tokens bigint,
    cache_write_1h_tokens bigint,
    input_audio_tokens bigint,
    cached_audio_tokens bigint,
    input_image_tokens bigint,
    cached_image_tokens bigint,
    input_video_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    output_audio_tokens bigint,
    output_image_tokens bigint,
    output_video_tokens bigint,
    citation_tokens bigint,
    other_tokens bigint,
    web_searches bigint,
    file_searches bigint,
    tool_uses bigint,
    audio_ms bigint,
    document_pages bigint,
    search_units bigint,
    unread_quantities bigint,
    total_tokens bigint,
    reported_cost numeric,
    buckets smallint[] NOT NULL,
    counts integer[] NOT NULL,
    failed_buckets smallint[] NOT NULL,
    failed_counts integer[] NOT NULL,
    responses bigint,
    cut_off_responses bigint
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02', autovacuum_analyze_scale_factor='0.02');
COMMENT ON TABLE orchestra.step_rollup IS 'Steps by hour, workflow, organisation, node and model: outcomes, tokens and histograms of durations.';
COMMENT ON COLUMN orchestra.step_rollup.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.step_rollup.hour IS 'The hour (UTC) in which the steps started; for steps without a start, the hour of their run.';
COMMENT ON COLUMN orchestra.step_rollup.ordinal IS 'Number of the row within its workflow and hour; negative: counts of pruned runs.';
COMMENT ON COLUMN orchestra.step_rollup.organization_id IS 'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.step_rollup.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.step_rollup.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.step_rollup.model IS 'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.step_rollup.service_tier IS 'For calls: the provider''s service tier; null if they name none.';
COMMENT ON COLUMN orchestra.step_rollup.context_tier IS 'For calls: the highest price threshold of input tokens that they exceed; 0 if they exceed none. A price threshold is a number of input tokens above which prices can change.';
COMMENT ON COLUMN orchestra.step_rollup.usage_kinds IS 'For calls: bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.step_rollup.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.step_rollup.soft_failed IS 'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.step_rollup.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.step_rollup.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.step_rollup.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.step_rollup.unfinished IS 'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.step_rollup.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.step_rollup.unmetered_calls IS 'Calls that report no usage, so that their cost is unknown.';
COMMENT ON COLUMN orchestra.step_rollup.untotalled_calls IS 'Calls missing from total_tokens, because they report no tokens.';
COMMENT ON COLUMN orchestra.step_rollup.reported_calls IS 'Calls whose provider reports a cost.';
COMMENT ON COLUMN orchestra.step_rollup.input_tokens IS 'Input tokens, including those read from and written to a cache. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.cache_write_1h_tokens IS 'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.input_audio_tokens IS 'Input tokens of audio, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.cached_audio_tokens IS 'Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.input_image_tokens IS 'Input tokens of images, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.cached_image_tokens IS 'Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.input_video_tokens IS 'Input tokens of video, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.output_tokens IS 'Output tokens, including reasoning. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.output_audio_tokens IS 'Output tokens of audio, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.output_image_tokens IS 'Output tokens of images, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.output_video_tokens IS 'Output tokens of video, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.citation_tokens IS 'Output tokens of citations, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.other_tokens IS 'Tokens of unknown kind: those in the reported total beyond input and output. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.web_searches IS 'Web searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.file_searches IS 'File searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.tool_uses IS 'Uses of other tools that the provider charges by use. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.audio_ms IS 'Audio charged by duration, in milliseconds. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.document_pages IS 'Document pages read. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.search_units IS 'Search units of a reranking model. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.unread_quantities IS 'Reported quantities of usage that could not be read: their cost is unknown. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.total_tokens IS 'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.reported_cost IS 'Cost in US dollars, as providers report it. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup.buckets IS 'Buckets of the durations of the steps that succeeded (see duration_bucket), ascending; steps without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.step_rollup.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.step_rollup.failed_buckets IS 'Like buckets, for steps that failed or soft-failed.';
COMMENT ON COLUMN orchestra.step_rollup.failed_counts IS 'Number of durations in each of failed_buckets.';
COMMENT ON COLUMN orchestra.step_rollup.responses IS 'Calls that report why the model stopped (see finish_reason). Null: there are no calls, or the row was computed before revision 0006 or by an older program.';
COMMENT ON COLUMN orchestra.step_rollup.cut_off_responses IS 'Responses that ended because the model ran out of tokens (see is_cut_off); null if responses is null.';

CREATE TABLE orchestra.workflows (
    id text NOT NULL COLLATE pg_catalog."C",
    name text,
    description text,
    labels jsonb DEFAULT '{}'::jsonb,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE orchestra.workflows IS 'The workflows whose runs are stored.';
COMMENT ON COLUMN orchestra.workflows.id IS 'The workflow''s id.';
COMMENT ON COLUMN orchestra.workflows.name IS 'Its name: from the configuration, else from the API.';
COMMENT ON COLUMN orchestra.workflows.description IS 'Its description, from the API.';
COMMENT ON COLUMN orchestra.workflows.labels IS 'Labels from the configuration, such as team and environment.';
COMMENT ON COLUMN orchestra.workflows.first_seen_at IS 'When this workflow was first stored.';
COMMENT ON COLUMN orchestra.workflows.updated_at IS 'When this row last changed.';

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
        CASE
            WHEN (k.cost IS NOT NULL) THEN p.currency
            ELSE NULL::text
        END AS currency,
        CASE
            WHEN (k.cost IS NULL) THEN s.calls
            ELSE s.unmetered_calls
        END AS unpriced_calls,
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
   FROM (((orchestra.step_rollup s
     LEFT JOIN orchestra.workflows w ON ((w.id = s.workflow_id)))
     LEFT JOIN orchestra.prices p ON (((p.model = s.model) AND (s.calls > s.unmetered_calls) AND orchestra.price_applies(p.*, s.service_tier, s.context_tier, s.hour))))
     CROSS JOIN LATERAL ( SELECT orchestra.call_cost(ROW(s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens, s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens, s.output_tokens, s.reasoning_tokens, s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens, s.citation_tokens, s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms, s.document_pages, s.search_units, s.unread_quantities)::orchestra.usage, (s.calls - s.unmetered_calls), p.*) AS cost
         OFFSET 0) k)
  WHERE (s.calls > 0);
COMMENT ON VIEW orchestra.model_usage IS 'Calls of models by hour, workflow, organisation, node, model, service tier, length of the input and kinds of usage: quantities and cost.';
COMMENT ON COLUMN orchestra.model_usage.hour IS 'The hour (UTC) in which the steps started; for steps without a start, the hour of their run.';
COMMENT ON COLUMN orchestra.model_usage.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.model_usage.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.model_usage.organization_id IS 'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.model_usage.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.model_usage.model IS 'The model that responded, else the requested one; null if tokens are reported without a model.';
COMMENT ON COLUMN orchestra.model_usage.provider IS 'The provider whose price applies; null if there is none.';
COMMENT ON COLUMN orchestra.model_usage.calls IS 'Calls (see is_call).';
COMMENT ON COLUMN orchestra.model_usage.input_tokens IS 'Input tokens, including those read from and written to a cache. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.output_tokens IS 'Output tokens, including reasoning. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.total_tokens IS 'Total tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cost IS 'Cost by the prices of the day (UTC), service tier and length of the input; null if the model or a kind of usage of the calls has no price, or if no call reports usage. Add up within one currency only.';
COMMENT ON COLUMN orchestra.model_usage.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.model_usage.unpriced_calls IS 'Calls missing from cost: without a price for all their usage, or successful without reported usage.';
COMMENT ON COLUMN orchestra.model_usage.untotalled_calls IS 'Calls missing from total_tokens, because they report no tokens.';
COMMENT ON COLUMN orchestra.model_usage.service_tier IS 'The provider''s service tier. Null if the call names none: the standard price then applies.';
COMMENT ON COLUMN orchestra.model_usage.context_tier IS 'The highest price threshold of input tokens that the calls exceed; 0 if they exceed none; null if unknown. A price threshold is a number of input tokens above which prices can change.';
COMMENT ON COLUMN orchestra.model_usage.usage_kinds IS 'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.model_usage.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cache_write_1h_tokens IS 'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.input_audio_tokens IS 'Input tokens of audio, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_audio_tokens IS 'Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.input_image_tokens IS 'Input tokens of images, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_image_tokens IS 'Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.input_video_tokens IS 'Input tokens of video, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.output_audio_tokens IS 'Output tokens of audio, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.output_image_tokens IS 'Output tokens of images, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.output_video_tokens IS 'Output tokens of video, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.citation_tokens IS 'Output tokens of citations, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.other_tokens IS 'Tokens of unknown kind: those in the reported total beyond input and output. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.web_searches IS 'Web searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.file_searches IS 'File searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.tool_uses IS 'Uses of other tools that the provider charges by use. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.audio_ms IS 'Audio charged by duration, in milliseconds. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.document_pages IS 'Document pages read. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.search_units IS 'Search units of a reranking model. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.unread_quantities IS 'Reported quantities of usage that could not be read: their cost is unknown. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.model_usage.reported_cost IS 'Cost in US dollars, as providers report it. Summed over the calls that report it; null if none does.';
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
COMMENT ON FUNCTION orchestra.usage_of(calls orchestra.model_usage) IS 'The usage in a row of model_usage as one value, for cost_parts and call_cost.';

CREATE FUNCTION orchestra.without_reasoning(said text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN r.tag IS NULL THEN said
                ELSE NULLIF(ltrim(substr(said, NULLIF(strpos(said, r.tag), 0) + length(r.tag)),
                                  E' \t\n\r'), '') END
    FROM (SELECT '</' || substring(said FROM '^[ \t\n\r]*<(think|thinking)>') || '>' OFFSET 0)
        AS r (tag)
$$;
COMMENT ON FUNCTION orchestra.without_reasoning(said text) IS 'An answer without the block <think> or <thinking> at its start; null if nothing follows the block, or if the block has no end.';

CREATE FUNCTION orchestra_etl.mark_complete() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    NEW.complete_until := NEW.started_at;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION orchestra_etl.mark_complete() IS 'Stores when a sweep that completes began.';

CREATE FUNCTION orchestra_etl.mark_days_of_parts() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    run_ids text[];
BEGIN
    IF NOT EXISTS (SELECT FROM orchestra_etl.export_state
                   WHERE payloads OR TG_TABLE_NAME = 'steps') THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME IN ('inputs', 'outputs') THEN
        run_ids := ARRAY(SELECT DISTINCT s.run_id
                         FROM before AS b JOIN orchestra.steps AS s ON s.id = b.step_id);
    ELSIF TG_OP = 'INSERT' THEN
        run_ids := ARRAY(SELECT DISTINCT run_id FROM after);
    ELSIF TG_OP = 'DELETE' THEN
        run_ids := ARRAY(SELECT DISTINCT run_id FROM before);
    ELSE
        run_ids := ARRAY(SELECT run_id FROM before UNION SELECT run_id FROM after);
    END IF;
    IF EXISTS (SELECT FROM orchestra.runs
               WHERE id = ANY (run_ids) AND xmin <> CAST(pg_current_xact_id() AS xid)) THEN
        WITH locked AS (
            SELECT start_time, first_seen_at FROM orchestra.runs
            WHERE id = ANY (run_ids) AND xmin <> CAST(pg_current_xact_id() AS xid)
            ORDER BY id FOR SHARE
        )
        INSERT INTO orchestra_etl.changed_days (day)
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) FROM locked
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra_etl.mark_days_of_parts() IS 'Queues the days of the runs whose steps or payloads are written.';

CREATE FUNCTION orchestra_etl.mark_days_of_runs() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM orchestra_etl.export_state) THEN
        RETURN NULL;
    END IF;
    -- A run that moves to another day changes both days.
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO orchestra_etl.changed_days (day)
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) FROM before
        ON CONFLICT DO NOTHING;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO orchestra_etl.changed_days (day)
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) FROM after
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra_etl.mark_days_of_runs() IS 'Queues the days of runs that are written, before and after.';

CREATE FUNCTION orchestra_etl.mark_every_day() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO orchestra_etl.changed_days (day) SELECT day FROM orchestra_etl.export_days
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra_etl.mark_every_day() IS 'Queues every exported day.';

CREATE FUNCTION orchestra_etl.mark_runs() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
            FROM before;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
            FROM after;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra_etl.mark_runs() IS 'Queues the rollup groups of runs that are written, before and after.';

CREATE FUNCTION orchestra_etl.mark_steps() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    run_ids text[] := '{}';
    more text[];
BEGIN
    IF TG_OP <> 'INSERT' THEN
        run_ids := ARRAY(SELECT DISTINCT run_id FROM before WHERE error IS NOT NULL
            OR reported_error IS NOT NULL OR start_time IS NULL);
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', start_time, 'UTC') FROM before
            WHERE start_time IS NOT NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        more := ARRAY(SELECT DISTINCT run_id FROM after WHERE error IS NOT NULL
            OR reported_error IS NOT NULL OR start_time IS NULL);
        run_ids := run_ids || more;
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', start_time, 'UTC') FROM after
            WHERE start_time IS NOT NULL;
    END IF;
    IF run_ids <> '{}' THEN
        PERFORM FROM orchestra.runs WHERE id = ANY (run_ids) ORDER BY id FOR SHARE;
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
        FROM orchestra.runs
        WHERE id = ANY (run_ids);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION orchestra_etl.mark_steps() IS 'Queues the rollup groups of steps that are written, before and after.';

CREATE FUNCTION orchestra_etl.run_day(start_time timestamp with time zone, first_seen_at timestamp with time zone) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((CASE WHEN ((start_time >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (start_time <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)) THEN start_time WHEN ((first_seen_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (first_seen_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)) THEN first_seen_at ELSE '0001-01-01 00:00:00+00'::timestamp with time zone END AT TIME ZONE 'UTC'::text))::date;
COMMENT ON FUNCTION orchestra_etl.run_day(start_time timestamp with time zone, first_seen_at timestamp with time zone) IS 'The UTC day of a run in the lake: of its start; if that is missing or outside the years 1 to 9999, of when the run was first seen.';

CREATE AGGREGATE orchestra.array_concat_agg(buckets smallint[]) (
    SFUNC = array_cat,
    STYPE = smallint[],
    INITCOND = '{}',
    COMBINEFUNC = array_cat,
    PARALLEL = safe
);
COMMENT ON AGGREGATE orchestra.array_concat_agg(buckets smallint[]) IS 'The concatenation of arrays: buckets of histograms.';

CREATE AGGREGATE orchestra.array_concat_agg(counts integer[]) (
    SFUNC = array_cat,
    STYPE = integer[],
    INITCOND = '{}',
    COMBINEFUNC = array_cat,
    PARALLEL = safe
);
COMMENT ON AGGREGATE orchestra.array_concat_agg(counts integer[]) IS 'The concatenation of arrays: counts of histograms.';

CREATE AGGREGATE orchestra.duration_histogram(buckets smallint[], counts integer[]) (
    SFUNC = orchestra.duration_histogram_add,
    STYPE = bigint[],
    INITCOND = '{}',
    COMBINEFUNC = orchestra.duration_histogram_merge,
    PARALLEL = safe
);
COMMENT ON AGGREGATE orchestra.duration_histogram(buckets smallint[], counts integer[]) IS 'Merges stored histograms of durations into one array, for histogram_quantile: the number of durations in each bucket, by the bucket''s number.';

CREATE AGGREGATE orchestra.duration_quantile(buckets smallint[], counts integer[], q double precision) (
    SFUNC = orchestra.duration_quantile_add,
    STYPE = double precision[],
    INITCOND = '[0:0]={NULL}',
    FINALFUNC = orchestra.duration_quantile_end,
    COMBINEFUNC = orchestra.duration_quantile_merge,
    PARALLEL = safe
);
COMMENT ON AGGREGATE orchestra.duration_quantile(buckets smallint[], counts integer[], q double precision) IS 'A quantile of durations in milliseconds, from stored histograms, with an error of at most 2 %. Correct for any grouping, because it merges the histograms; averages of percentiles are not.';

CREATE AGGREGATE orchestra.duration_quantile(bucket integer, count bigint, q double precision) (
    SFUNC = orchestra.duration_quantile_add,
    STYPE = double precision[],
    INITCOND = '[0:0]={NULL}',
    FINALFUNC = orchestra.duration_quantile_end,
    COMBINEFUNC = orchestra.duration_quantile_merge,
    PARALLEL = safe
);
COMMENT ON AGGREGATE orchestra.duration_quantile(bucket integer, count bigint, q double precision) IS 'A quantile of durations in milliseconds, from counts by bucket, with an error of at most 2 %. Correct for any grouping, because it merges the counts; averages of percentiles are not.';

CREATE TABLE orchestra_etl.alert_episodes (
    rule text NOT NULL,
    subject text NOT NULL COLLATE pg_catalog."C",
    sequence bigint NOT NULL,
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    node text,
    model text,
    organisation text,
    label text,
    metric text NOT NULL,
    fired_at timestamp with time zone NOT NULL,
    value double precision,
    threshold double precision,
    resolved_at timestamp with time zone
);
COMMENT ON TABLE orchestra_etl.alert_episodes IS 'One row for each time that an alert fired, muted or not.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.rule IS 'Name of the rule.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.subject IS 'What the rule was evaluated for: the workflow''s id, followed by the node, model, organisation and label that the rule names.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.sequence IS 'Number of this firing of the rule and subject, from 1.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.node IS 'The node that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.model IS 'The model that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.organisation IS 'The organisation that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.label IS 'The label that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.metric IS 'The metric.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.fired_at IS 'When it fired.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.value IS 'The metric when it fired, in seconds for durations.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.threshold IS 'The threshold when it fired.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.resolved_at IS 'When it was resolved; null: it still fires.';

CREATE VIEW orchestra.alerts AS
 SELECT e.rule,
    e.workflow_id,
    COALESCE(w.name, e.workflow_id) AS workflow_name,
    e.node,
    e.model,
    e.organisation,
    e.label,
    e.metric,
        CASE
            WHEN (e.resolved_at IS NULL) THEN 'firing'::text
            ELSE 'resolved'::text
        END AS state,
    e.fired_at,
    e.resolved_at,
    e.value,
    e.threshold
   FROM (orchestra_etl.alert_episodes e
     LEFT JOIN orchestra.workflows w ON ((w.id = e.workflow_id)));
COMMENT ON VIEW orchestra.alerts IS 'One row for each time that an alert fired, muted or not.';
COMMENT ON COLUMN orchestra.alerts.rule IS 'Name of the rule in the configuration.';
COMMENT ON COLUMN orchestra.alerts.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.alerts.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.alerts.node IS 'The node that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.model IS 'The model that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.organisation IS 'The organisation that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.label IS 'The label that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.metric IS 'The metric.';
COMMENT ON COLUMN orchestra.alerts.state IS 'firing or resolved.';
COMMENT ON COLUMN orchestra.alerts.fired_at IS 'When it fired.';
COMMENT ON COLUMN orchestra.alerts.resolved_at IS 'When it was resolved; null: it still fires.';
COMMENT ON COLUMN orchestra.alerts.value IS 'The metric when it fired, in seconds for durations.';
COMMENT ON COLUMN orchestra.alerts.threshold IS 'The threshold when it fired.';

CREATE TABLE orchestra.runs (
    id text NOT NULL COLLATE pg_catalog."C",
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    organization_id text COLLATE pg_catalog."C",
    user_id text COLLATE pg_catalog."C",
    status text,
    state text NOT NULL,
    status_source text NOT NULL,
    tracking text NOT NULL,
    start_time timestamp with time zone,
    end_time timestamp with time zone,
    duration_ms double precision GENERATED ALWAYS AS (((EXTRACT(epoch FROM (end_time - start_time)) * (1000)::numeric))::double precision) STORED,
    api_elapsed_seconds double precision,
    error jsonb,
    extra jsonb,
    redaction_policy text,
    content_hash bytea,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02', autovacuum_analyze_scale_factor='0.02');
COMMENT ON TABLE orchestra.runs IS 'One row per run of a workflow.';
COMMENT ON COLUMN orchestra.runs.id IS 'The run''s id.';
COMMENT ON COLUMN orchestra.runs.workflow_id IS 'The workflow this is a run of.';
COMMENT ON COLUMN orchestra.runs.organization_id IS 'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.runs.user_id IS 'The user who started the run; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.runs.status IS 'The status as the API returns it; null if it returns none.';
COMMENT ON COLUMN orchestra.runs.state IS 'The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.runs.status_source IS 'api: the API returned the status; derived: it follows from the steps.';
COMMENT ON COLUMN orchestra.runs.tracking IS 'open: still polled; final: not read again; stale: open for too long, read once a day; gone: the API no longer has it.';
COMMENT ON COLUMN orchestra.runs.start_time IS 'When the run started, according to the API.';
COMMENT ON COLUMN orchestra.runs.end_time IS 'When the run ended, according to the API; null while it runs.';
COMMENT ON COLUMN orchestra.runs.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.runs.api_elapsed_seconds IS 'The API''s elapsed_time: whole seconds, truncated. Use duration_ms.';
COMMENT ON COLUMN orchestra.runs.error IS 'The run''s error as the API returns it.';
COMMENT ON COLUMN orchestra.runs.extra IS 'Fields that the API''s description lacks, and values of a wrong type, as received.';
COMMENT ON COLUMN orchestra.runs.redaction_policy IS 'Version of the redaction rules that were in force when this row was written; null: no rules.';
COMMENT ON COLUMN orchestra.runs.content_hash IS 'Hash of the stored run. A run with an equal hash is not written again.';
COMMENT ON COLUMN orchestra.runs.first_seen_at IS 'When this run was first loaded.';
COMMENT ON COLUMN orchestra.runs.updated_at IS 'When the content of this row last changed. A read that finds no change leaves it as it is.';

CREATE TABLE orchestra.steps (
    id text NOT NULL COLLATE pg_catalog."C",
    run_id text NOT NULL COLLATE pg_catalog."C",
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    node_id text,
    node_type text,
    "position" integer NOT NULL,
    user_id text COLLATE pg_catalog."C",
    organization_id text COLLATE pg_catalog."C",
    status text,
    state text NOT NULL,
    start_time timestamp with time zone,
    end_time timestamp with time zone,
    duration_ms double precision GENERATED ALWAYS AS (((EXTRACT(epoch FROM (end_time - start_time)) * (1000)::numeric))::double precision) STORED,
    api_elapsed_seconds double precision,
    api_tokens bigint,
    request_model text,
    response_model text,
    input_tokens bigint,
    cached_input_tokens bigint,
    cache_write_tokens bigint,
    cache_write_1h_tokens bigint,
    input_audio_tokens bigint,
    cached_audio_tokens bigint,
    input_image_tokens bigint,
    cached_image_tokens bigint,
    input_video_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    output_audio_tokens bigint,
    output_image_tokens bigint,
    output_video_tokens bigint,
    citation_tokens bigint,
    other_tokens bigint,
    web_searches bigint,
    file_searches bigint,
    tool_uses bigint,
    audio_ms bigint,
    document_pages bigint,
    search_units bigint,
    unread_quantities bigint,
    total_tokens bigint,
    usage_kinds integer,
    service_tier text,
    reported_cost numeric,
    finish_reason text,
    error jsonb,
    reported_error text,
    step_metadata jsonb,
    extra jsonb,
    redaction_policy text,
    content_hash bytea NOT NULL,
    absent_since timestamp with time zone,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02', autovacuum_analyze_scale_factor='0.02');
COMMENT ON TABLE orchestra.steps IS 'One row per step of a run.';
COMMENT ON COLUMN orchestra.steps.id IS 'The step''s id: the key of every upsert.';
COMMENT ON COLUMN orchestra.steps.run_id IS 'The run this step belongs to.';
COMMENT ON COLUMN orchestra.steps.workflow_id IS 'The workflow of the run.';
COMMENT ON COLUMN orchestra.steps.node_id IS 'The node of the workflow that this step executed.';
COMMENT ON COLUMN orchestra.steps.node_type IS 'model, integration, code, ...: from the graph, else from the payload''s shape, else null.';
COMMENT ON COLUMN orchestra.steps."position" IS 'Index in the API''s response, from 0.';
COMMENT ON COLUMN orchestra.steps.user_id IS 'The user; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.steps.organization_id IS 'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.steps.status IS 'The status as the API returns it.';
COMMENT ON COLUMN orchestra.steps.state IS 'The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.steps.start_time IS 'When the step started.';
COMMENT ON COLUMN orchestra.steps.end_time IS 'When the step ended; null while it runs.';
COMMENT ON COLUMN orchestra.steps.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.steps.api_elapsed_seconds IS 'The API''s elapsed_time: whole seconds, truncated. Use duration_ms.';
COMMENT ON COLUMN orchestra.steps.api_tokens IS 'The API''s tokens: documented as 0 today. Use the token columns.';
COMMENT ON COLUMN orchestra.steps.request_model IS 'The requested model (inputs.model, or the provider''s own field).';
COMMENT ON COLUMN orchestra.steps.response_model IS 'The model that responded (outputs.model, or the provider''s own field).';
COMMENT ON COLUMN orchestra.steps.input_tokens IS 'Input tokens, including those read from and written to a cache.';
COMMENT ON COLUMN orchestra.steps.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.steps.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.steps.cache_write_1h_tokens IS 'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens.';
COMMENT ON COLUMN orchestra.steps.input_audio_tokens IS 'Input tokens of audio, part of input_tokens.';
COMMENT ON COLUMN orchestra.steps.cached_audio_tokens IS 'Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens.';
COMMENT ON COLUMN orchestra.steps.input_image_tokens IS 'Input tokens of images, part of input_tokens.';
COMMENT ON COLUMN orchestra.steps.cached_image_tokens IS 'Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens.';
COMMENT ON COLUMN orchestra.steps.input_video_tokens IS 'Input tokens of video, part of input_tokens.';
COMMENT ON COLUMN orchestra.steps.output_tokens IS 'Output tokens, including reasoning.';
COMMENT ON COLUMN orchestra.steps.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens.';
COMMENT ON COLUMN orchestra.steps.output_audio_tokens IS 'Output tokens of audio, part of output_tokens.';
COMMENT ON COLUMN orchestra.steps.output_image_tokens IS 'Output tokens of images, part of output_tokens.';
COMMENT ON COLUMN orchestra.steps.output_video_tokens IS 'Output tokens of video, part of output_tokens.';
COMMENT ON COLUMN orchestra.steps.citation_tokens IS 'Output tokens of citations, part of output_tokens.';
COMMENT ON COLUMN orchestra.steps.other_tokens IS 'Tokens of unknown kind: those in the reported total beyond input and output.';
COMMENT ON COLUMN orchestra.steps.web_searches IS 'Web searches by the provider.';
COMMENT ON COLUMN orchestra.steps.file_searches IS 'File searches by the provider.';
COMMENT ON COLUMN orchestra.steps.tool_uses IS 'Uses of other tools that the provider charges by use.';
COMMENT ON COLUMN orchestra.steps.audio_ms IS 'Audio charged by duration, in milliseconds.';
COMMENT ON COLUMN orchestra.steps.document_pages IS 'Document pages read.';
COMMENT ON COLUMN orchestra.steps.search_units IS 'Search units of a reranking model.';
COMMENT ON COLUMN orchestra.steps.unread_quantities IS 'Reported quantities of usage that could not be read: their cost is unknown.';
COMMENT ON COLUMN orchestra.steps.total_tokens IS 'Total tokens as reported, if at least the sum of input and output; else that sum.';
COMMENT ON COLUMN orchestra.steps.usage_kinds IS 'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.steps.service_tier IS 'The provider''s service tier: standard, batch, flex, priority, fast or another; null if the call names none.';
COMMENT ON COLUMN orchestra.steps.reported_cost IS 'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.steps.finish_reason IS 'Why the model stopped, in its provider''s words: stop, length, max_tokens, ... (see is_cut_off).';
COMMENT ON COLUMN orchestra.steps.error IS 'The step''s error as the API returns it.';
COMMENT ON COLUMN orchestra.steps.reported_error IS 'The error that the step''s payload reports; a soft failure if its status is a success.';
COMMENT ON COLUMN orchestra.steps.step_metadata IS 'step_metadata as the API returns it.';
COMMENT ON COLUMN orchestra.steps.extra IS 'Fields that the API''s description lacks, and values of a wrong type, as received.';
COMMENT ON COLUMN orchestra.steps.redaction_policy IS 'Version of the redaction rules that were in force when this row and its payloads were written; null: no rules.';
COMMENT ON COLUMN orchestra.steps.content_hash IS 'Hash of the step as received. A step with an equal hash is not written again.';
COMMENT ON COLUMN orchestra.steps.absent_since IS 'Time since which the API''s response no longer contains this step; null while it does.';
COMMENT ON COLUMN orchestra.steps.first_seen_at IS 'When this step was first loaded.';
COMMENT ON COLUMN orchestra.steps.updated_at IS 'When the content of this row last changed. A read that finds no change leaves it as it is.';

CREATE VIEW orchestra.cost_differences AS
 SELECT called."time",
    called.workflow_id,
    COALESCE(w.name, called.workflow_id) AS workflow_name,
    called.organization_id,
    called.run_id,
    called.step_id,
    called.node_id,
    called.model,
    p.provider,
    called.service_tier,
    called.usage_kinds,
    k.cost,
        CASE
            WHEN (k.cost IS NOT NULL) THEN p.currency
            ELSE NULL::text
        END AS currency,
    called.reported_cost,
        CASE
            WHEN (p.currency = 'USD'::text) THEN (k.cost - called.reported_cost)
            ELSE NULL::numeric
        END AS difference,
        CASE
            WHEN ((p.currency = 'USD'::text) AND (called.reported_cost > (0)::numeric)) THEN (k.cost / called.reported_cost)
            ELSE NULL::numeric
        END AS ratio
   FROM (((( SELECT s.id AS step_id,
            s.run_id,
            s.workflow_id,
            s.organization_id,
            s.node_id,
            u.model,
            s.service_tier,
            s.reported_cost,
            COALESCE(s.start_time, r.start_time, r.first_seen_at) AS "time",
            u.used,
            u.outcome,
            orchestra.kinds_of(u.used) AS usage_kinds
           FROM ((orchestra.steps s
             JOIN orchestra.runs r ON ((r.id = s.run_id)))
             CROSS JOIN LATERAL ( SELECT COALESCE(s.response_model, s.request_model) AS model,
                    orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                    orchestra.plausible_usage(ROW(s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens, s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens, s.output_tokens, s.reasoning_tokens, s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens, s.citation_tokens, s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms, s.document_pages, s.search_units, s.unread_quantities)::orchestra.usage) AS used
                 OFFSET 0) u)
          WHERE ((s.reported_cost IS NOT NULL) AND (s.absent_since IS NULL))) called
     LEFT JOIN orchestra.workflows w ON ((w.id = called.workflow_id)))
     LEFT JOIN orchestra.prices p ON (((p.model = called.model) AND (NOT orchestra.is_unmetered(called.outcome, true, true, called.used)) AND orchestra.price_applies(p.*, called.service_tier, orchestra.context_tier((called.used).input_tokens), called."time"))))
     CROSS JOIN LATERAL ( SELECT orchestra.call_cost(called.used, (1)::bigint, p.*) AS cost
         OFFSET 0) k);
COMMENT ON VIEW orchestra.cost_differences IS 'Calls whose provider reports their cost, compared with their cost by the known prices. A ratio far from 1 means a wrong price, a discount, or usage that was read wrongly.';
COMMENT ON COLUMN orchestra.cost_differences."time" IS 'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.cost_differences.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.cost_differences.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.cost_differences.organization_id IS 'The organisation; null if the step names none.';
COMMENT ON COLUMN orchestra.cost_differences.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.cost_differences.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.cost_differences.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.cost_differences.model IS 'The model that responded, else the requested one; null if none is named.';
COMMENT ON COLUMN orchestra.cost_differences.provider IS 'The provider whose price applies; null if there is none.';
COMMENT ON COLUMN orchestra.cost_differences.service_tier IS 'The provider''s service tier. Null if the call names none: the standard price then applies.';
COMMENT ON COLUMN orchestra.cost_differences.usage_kinds IS 'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.cost_differences.cost IS 'Cost by the prices of its day (UTC); null if any part of its usage has no price.';
COMMENT ON COLUMN orchestra.cost_differences.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.cost_differences.reported_cost IS 'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.cost_differences.difference IS 'cost minus reported_cost; null if cost is null or not in US dollars.';
COMMENT ON COLUMN orchestra.cost_differences.ratio IS 'cost divided by reported_cost; null if cost is null or not in US dollars, or if reported_cost is 0.';

CREATE TABLE orchestra_etl.dead_letters (
    id bigint NOT NULL,
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    run_id text NOT NULL COLLATE pg_catalog."C",
    step_id text COLLATE pg_catalog."C",
    reason text NOT NULL,
    detail text NOT NULL,
    content_hash bytea NOT NULL,
    body bytea NOT NULL,
    occurrences integer DEFAULT 1 NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    resolved_at timestamp with time zone,
    resolution text
);
COMMENT ON TABLE orchestra_etl.dead_letters IS 'Records that could not be loaded, with their bytes.';
COMMENT ON COLUMN orchestra_etl.dead_letters.id IS 'The dead letter''s id.';
COMMENT ON COLUMN orchestra_etl.dead_letters.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra_etl.dead_letters.run_id IS 'The run; empty for a row of the run list without a usable id.';
COMMENT ON COLUMN orchestra_etl.dead_letters.step_id IS 'The step, if its id is known.';
COMMENT ON COLUMN orchestra_etl.dead_letters.reason IS 'The reason code.';
COMMENT ON COLUMN orchestra_etl.dead_letters.detail IS 'One sentence for the operator, without payload.';
COMMENT ON COLUMN orchestra_etl.dead_letters.content_hash IS 'Hash of the body; a keyed hash if the body is not kept.';
COMMENT ON COLUMN orchestra_etl.dead_letters.body IS 'The bytes that could not be loaded; empty if redaction rules do not allow storing them.';
COMMENT ON COLUMN orchestra_etl.dead_letters.occurrences IS 'How often it was seen.';
COMMENT ON COLUMN orchestra_etl.dead_letters.first_seen_at IS 'When it was first set aside.';
COMMENT ON COLUMN orchestra_etl.dead_letters.last_seen_at IS 'When it was last set aside.';
COMMENT ON COLUMN orchestra_etl.dead_letters.resolved_at IS 'When a later read loaded the record, or a user discarded it.';
COMMENT ON COLUMN orchestra_etl.dead_letters.resolution IS 'loaded or discarded.';

CREATE TABLE orchestra_etl.gaps (
    id bigint NOT NULL,
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    detected_at timestamp with time zone DEFAULT now() NOT NULL,
    after_time timestamp with time zone,
    before_time timestamp with time zone,
    detail text NOT NULL,
    acknowledged_at timestamp with time zone
);
COMMENT ON TABLE orchestra_etl.gaps IS 'Periods in which runs may have appeared and disappeared without being listed.';
COMMENT ON COLUMN orchestra_etl.gaps.id IS 'Number of the gap.';
COMMENT ON COLUMN orchestra_etl.gaps.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra_etl.gaps.detected_at IS 'When the gap was found.';
COMMENT ON COLUMN orchestra_etl.gaps.after_time IS 'Start of the newest run known before the gap.';
COMMENT ON COLUMN orchestra_etl.gaps.before_time IS 'Start of the oldest run listed after the gap.';
COMMENT ON COLUMN orchestra_etl.gaps.detail IS 'What the sweep observed.';
COMMENT ON COLUMN orchestra_etl.gaps.acknowledged_at IS 'When a user acknowledged it.';

CREATE TABLE orchestra_etl.run_ledger (
    run_id text NOT NULL COLLATE pg_catalog."C",
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL,
    tracking text DEFAULT 'open'::text NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    listing bytea,
    listing_hash bytea,
    start_time timestamp with time zone,
    listed_at timestamp with time zone,
    listed_sweep bigint,
    priority smallint DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT now(),
    fencing_token bigint DEFAULT 0 NOT NULL,
    leased_until timestamp with time zone,
    steps_observed_at timestamp with time zone,
    run_observed_at timestamp with time zone,
    run_state text,
    run_end_time timestamp with time zone,
    read_digest bytea,
    checks smallint DEFAULT 0 NOT NULL,
    attempts smallint DEFAULT 0 NOT NULL,
    last_error text,
    not_found_since timestamp with time zone,
    reopened_by text,
    removed_at timestamp with time zone
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02', autovacuum_analyze_scale_factor='0.02');
COMMENT ON TABLE orchestra_etl.run_ledger IS 'One row per known run: what is known about it, when it is due, and its claim.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_id IS 'The run.';
COMMENT ON COLUMN orchestra_etl.run_ledger.workflow_id IS 'Its workflow, according to the run list.';
COMMENT ON COLUMN orchestra_etl.run_ledger.source IS 'How the run was first found: list, config, track or request.';
COMMENT ON COLUMN orchestra_etl.run_ledger.tracking IS 'open, final, stale or gone; erased or pruned: a tombstone, never read again.';
COMMENT ON COLUMN orchestra_etl.run_ledger.first_seen_at IS 'When the run entered the ledger.';
COMMENT ON COLUMN orchestra_etl.run_ledger.opened_at IS 'When tracking was last set to open. The run''s age is counted from here.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listing IS 'The run''s row of the run list, kept until a poll has loaded it.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listing_hash IS 'Hash of the run''s row when it was last seen, in the run list or in a response for this run alone.';
COMMENT ON COLUMN orchestra_etl.run_ledger.start_time IS 'When the run started, according to the run list; null if no list has contained the run.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listed_at IS 'Database time at which the page with this listing was requested.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listed_sweep IS 'Number of the sweep that listed the run. If it is not above sweeps.watermark, a complete sweep has listed the run.';
COMMENT ON COLUMN orchestra_etl.run_ledger.priority IS '0 live, 1 backfill.';
COMMENT ON COLUMN orchestra_etl.run_ledger.due_at IS 'When the run is next polled; null: never.';
COMMENT ON COLUMN orchestra_etl.run_ledger.fencing_token IS 'Raised by every claim and by every request for a newer read; a load with an older token is refused.';
COMMENT ON COLUMN orchestra_etl.run_ledger.leased_until IS 'End of the claim in force; null: not claimed, or the claim is consumed.';
COMMENT ON COLUMN orchestra_etl.run_ledger.steps_observed_at IS 'Database time of the request that returned the steps as they are stored.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_observed_at IS 'Database time of the request that returned the run''s own row as it is stored.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_state IS 'The run''s state in its own row of the API, as last loaded.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_end_time IS 'The run''s end in its own row of the API, as last loaded.';
COMMENT ON COLUMN orchestra_etl.run_ledger.read_digest IS 'Digest of step ids, statuses and end times at the last read.';
COMMENT ON COLUMN orchestra_etl.run_ledger.checks IS 'Consecutive reads that found the run finished and nothing new.';
COMMENT ON COLUMN orchestra_etl.run_ledger.attempts IS 'Consecutive reads that failed.';
COMMENT ON COLUMN orchestra_etl.run_ledger.last_error IS 'Why the last read failed, in one line.';
COMMENT ON COLUMN orchestra_etl.run_ledger.not_found_since IS 'Time since which the API has returned 404 for the steps; null: it does not.';
COMMENT ON COLUMN orchestra_etl.run_ledger.reopened_by IS 'What last requested a newer read of a run that was already known: list, config, track, reread, repair or states; null: nothing has.';
COMMENT ON COLUMN orchestra_etl.run_ledger.removed_at IS 'When the run was erased or pruned. Afterwards, only its ids and times are kept.';

CREATE TABLE orchestra_etl.sweeps (
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    fencing_token bigint DEFAULT 0 NOT NULL,
    leased_until timestamp with time zone,
    watermark bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone,
    swept_at timestamp with time zone,
    reconciled_at timestamp with time zone,
    new_runs integer,
    listed_runs integer,
    known_runs bigint,
    repaired_runs integer,
    last_error text,
    list_problem text,
    complete_until timestamp with time zone
);
COMMENT ON TABLE orchestra_etl.sweeps IS 'The state of each workflow''s sweeps of the run list.';
COMMENT ON COLUMN orchestra_etl.sweeps.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra_etl.sweeps.fencing_token IS 'Number of the latest sweep.';
COMMENT ON COLUMN orchestra_etl.sweeps.leased_until IS 'End of the running sweep''s lease; null: no sweep is running.';
COMMENT ON COLUMN orchestra_etl.sweeps.watermark IS 'Number of the last complete sweep: every run that it or an earlier one listed is known.';
COMMENT ON COLUMN orchestra_etl.sweeps.started_at IS 'When the last sweep began.';
COMMENT ON COLUMN orchestra_etl.sweeps.swept_at IS 'When the last complete sweep ended.';
COMMENT ON COLUMN orchestra_etl.sweeps.reconciled_at IS 'When the last complete walk of the whole list began.';
COMMENT ON COLUMN orchestra_etl.sweeps.new_runs IS 'New runs that the last complete sweep found.';
COMMENT ON COLUMN orchestra_etl.sweeps.listed_runs IS 'Rows of the run list at the last walk of the whole list.';
COMMENT ON COLUMN orchestra_etl.sweeps.known_runs IS 'Known runs of the workflow at the last walk of the whole list; more than listed_runs if the list has dropped runs.';
COMMENT ON COLUMN orchestra_etl.sweeps.repaired_runs IS 'Runs that the last walk of the whole list found missing from the tables and queued for a re-read.';
COMMENT ON COLUMN orchestra_etl.sweeps.last_error IS 'Why the last sweep failed, in one line; null: it did not fail.';
COMMENT ON COLUMN orchestra_etl.sweeps.list_problem IS 'How the run list deviates from the API''s description, found by the last walk to the end of the list; null: it does not deviate.';
COMMENT ON COLUMN orchestra_etl.sweeps.complete_until IS 'When the last complete sweep began; null: no sweep has completed since this column was added.';

CREATE VIEW orchestra.coverage AS
 WITH counted AS (
         SELECT run_ledger.workflow_id,
            count(*) AS known,
            count(*) FILTER (WHERE (run_ledger.tracking = 'open'::text)) AS open,
            count(*) FILTER (WHERE (run_ledger.tracking = 'final'::text)) AS final,
            count(*) FILTER (WHERE (run_ledger.tracking = 'stale'::text)) AS stale,
            count(*) FILTER (WHERE (run_ledger.tracking = 'gone'::text)) AS gone,
            count(*) FILTER (WHERE (run_ledger.tracking = ANY (ARRAY['erased'::text, 'pruned'::text]))) AS removed
           FROM orchestra_etl.run_ledger
          GROUP BY run_ledger.workflow_id
        ), conflicting AS (
         SELECT d.workflow_id,
            count(*) AS runs
           FROM orchestra_etl.dead_letters d
          WHERE ((d.reason = 'id_conflict'::text) AND (d.step_id IS NULL) AND (NOT (EXISTS ( SELECT
                   FROM orchestra_etl.run_ledger l
                  WHERE ((l.run_id = d.run_id) AND (l.workflow_id = d.workflow_id))))))
          GROUP BY d.workflow_id
        ), relevant AS (
         SELECT counted_1.workflow_id
           FROM counted counted_1
        UNION
         SELECT sweeps.workflow_id
           FROM orchestra_etl.sweeps
        UNION
         SELECT conflicting_1.workflow_id
           FROM conflicting conflicting_1
        )
 SELECT relevant.workflow_id,
    w.name AS workflow_name,
    oldest.start_time AS complete_since,
        CASE
            WHEN (s.watermark > 0) THEN COALESCE(s.complete_until, LEAST(s.started_at, s.swept_at))
            ELSE NULL::timestamp with time zone
        END AS complete_until,
    gaps."all" AS gaps,
    gaps.unacknowledged AS unacknowledged_gaps,
    COALESCE(counted.known, (0)::bigint) AS known_runs,
    (((COALESCE(counted.known, (0)::bigint) - unsettled.unread) - unsettled.gone_unread) - COALESCE(counted.removed, (0)::bigint)) AS read_runs,
    unsettled.unread AS unread_runs,
    unsettled.gone_unread AS lost_runs,
    COALESCE(counted.open, (0)::bigint) AS open_runs,
    COALESCE(counted.final, (0)::bigint) AS final_runs,
    COALESCE(counted.stale, (0)::bigint) AS stale_runs,
    COALESCE(counted.gone, (0)::bigint) AS gone_runs,
    COALESCE(counted.removed, (0)::bigint) AS removed_runs,
    s.swept_at,
    s.reconciled_at,
    s.repaired_runs,
    s.new_runs,
    s.listed_runs,
    COALESCE((s.known_runs > s.listed_runs), false) AS window_full,
    COALESCE(conflicting.runs, (0)::bigint) AS conflicting_runs
   FROM (((((((relevant
     LEFT JOIN orchestra.workflows w ON ((w.id = relevant.workflow_id)))
     LEFT JOIN counted ON ((counted.workflow_id = relevant.workflow_id)))
     LEFT JOIN conflicting ON ((conflicting.workflow_id = relevant.workflow_id)))
     LEFT JOIN orchestra_etl.sweeps s ON ((s.workflow_id = relevant.workflow_id)))
     LEFT JOIN LATERAL ( SELECT r.start_time
           FROM (orchestra.runs r
             JOIN orchestra_etl.run_ledger l ON ((l.run_id = r.id)))
          WHERE ((r.workflow_id = relevant.workflow_id) AND (r.start_time IS NOT NULL) AND (l.listed_sweep <= s.watermark))
          ORDER BY r.start_time
         LIMIT 1) oldest ON (true))
     CROSS JOIN LATERAL ( SELECT count(*) FILTER (WHERE ((l.steps_observed_at IS NULL) AND (l.tracking <> 'gone'::text))) AS unread,
            count(*) FILTER (WHERE ((l.steps_observed_at IS NULL) AND (l.tracking = 'gone'::text))) AS gone_unread
           FROM orchestra_etl.run_ledger l
          WHERE ((l.workflow_id = relevant.workflow_id) AND (l.tracking = ANY (ARRAY['open'::text, 'stale'::text, 'gone'::text])))) unsettled)
     CROSS JOIN LATERAL ( SELECT count(*) AS "all",
            count(*) FILTER (WHERE (g.acknowledged_at IS NULL)) AS unacknowledged
           FROM orchestra_etl.gaps g
          WHERE (g.workflow_id = relevant.workflow_id)) gaps);
COMMENT ON VIEW orchestra.coverage IS 'One row per workflow: the period in which every run is known, the gaps in it, how many runs have been read, and whether the API''s list still contains all known runs.';
COMMENT ON COLUMN orchestra.coverage.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.coverage.workflow_name IS 'The workflow''s name; null if it has none.';
COMMENT ON COLUMN orchestra.coverage.complete_since IS 'Start of the oldest stored run that a complete sweep listed.';
COMMENT ON COLUMN orchestra.coverage.complete_until IS 'When the last complete sweep began. Every run that started from complete_since to this time is known, except in gaps and except conflicting_runs.';
COMMENT ON COLUMN orchestra.coverage.gaps IS 'Periods in which runs may have appeared and disappeared without being listed.';
COMMENT ON COLUMN orchestra.coverage.unacknowledged_gaps IS 'Gaps that no user has acknowledged.';
COMMENT ON COLUMN orchestra.coverage.known_runs IS 'Runs in the ledger.';
COMMENT ON COLUMN orchestra.coverage.read_runs IS 'Runs whose steps have been read at least once.';
COMMENT ON COLUMN orchestra.coverage.unread_runs IS 'Known runs that were never read.';
COMMENT ON COLUMN orchestra.coverage.lost_runs IS 'Runs that the API no longer had before their steps were ever read.';
COMMENT ON COLUMN orchestra.coverage.open_runs IS 'Runs that are still polled.';
COMMENT ON COLUMN orchestra.coverage.final_runs IS 'Runs that are not read again.';
COMMENT ON COLUMN orchestra.coverage.stale_runs IS 'Runs that were open for too long; they are read once a day.';
COMMENT ON COLUMN orchestra.coverage.gone_runs IS 'Runs that the API no longer has.';
COMMENT ON COLUMN orchestra.coverage.removed_runs IS 'Runs that were erased or pruned here.';
COMMENT ON COLUMN orchestra.coverage.swept_at IS 'When the last complete sweep ended.';
COMMENT ON COLUMN orchestra.coverage.reconciled_at IS 'When the last complete walk of the whole list began.';
COMMENT ON COLUMN orchestra.coverage.repaired_runs IS 'Runs that this walk found missing from the tables and queued for a re-read.';
COMMENT ON COLUMN orchestra.coverage.new_runs IS 'New runs that the last complete sweep found.';
COMMENT ON COLUMN orchestra.coverage.listed_runs IS 'Rows of the run list at the last walk of the whole list.';
COMMENT ON COLUMN orchestra.coverage.window_full IS 'Whether the last walk of the whole list found fewer runs than are known: the list is then full, and each new run pushes an old one out.';
COMMENT ON COLUMN orchestra.coverage.conflicting_runs IS 'Runs that were set aside because another workflow has a run with the same id.';

CREATE TABLE orchestra.step_failures (
    step_id text NOT NULL COLLATE pg_catalog."C",
    run_id text NOT NULL COLLATE pg_catalog."C",
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    node_id text,
    organization_id text COLLATE pg_catalog."C",
    "time" timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    fingerprint text NOT NULL,
    pattern text NOT NULL,
    message text NOT NULL
);
COMMENT ON TABLE orchestra.step_failures IS 'One row per step that failed or soft-failed, with the kind of failure.';
COMMENT ON COLUMN orchestra.step_failures.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.step_failures.run_id IS 'Its run.';
COMMENT ON COLUMN orchestra.step_failures.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.step_failures.node_id IS 'Its node.';
COMMENT ON COLUMN orchestra.step_failures.organization_id IS 'Its organisation.';
COMMENT ON COLUMN orchestra.step_failures."time" IS 'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.step_failures.outcome IS 'failed or soft_failed.';
COMMENT ON COLUMN orchestra.step_failures.fingerprint IS 'Hash of the pattern: the same for failures of one kind.';
COMMENT ON COLUMN orchestra.step_failures.pattern IS 'The message with its numbers, ids and quoted texts replaced.';
COMMENT ON COLUMN orchestra.step_failures.message IS 'The first 500 characters of the error.';

CREATE VIEW orchestra.failure_groups AS
 SELECT g.workflow_id,
    COALESCE(w.name, g.workflow_id) AS workflow_name,
    g.node_id,
    g.outcome,
    g.fingerprint,
    g.pattern,
    ( SELECT f.message
           FROM orchestra.step_failures f
          WHERE ((f.workflow_id = g.workflow_id) AND (f."time" = g.last_time) AND (f.fingerprint = g.fingerprint) AND (NOT (f.node_id IS DISTINCT FROM g.node_id)) AND (f.outcome = g.outcome))
          ORDER BY f.step_id DESC
         LIMIT 1) AS example,
    g.first_time,
    g.last_time,
    g.steps,
    g.runs
   FROM (( SELECT of_runs.workflow_id,
            of_runs.node_id,
            of_runs.outcome,
            of_runs.fingerprint,
            min(of_runs.pattern) AS pattern,
            min(of_runs.first_time) AS first_time,
            max(of_runs.last_time) AS last_time,
            (sum(of_runs.steps))::bigint AS steps,
            count(*) AS runs
           FROM ( SELECT step_failures.workflow_id,
                    step_failures.node_id,
                    step_failures.outcome,
                    step_failures.fingerprint,
                    step_failures.run_id,
                    min(step_failures.pattern) AS pattern,
                    min(step_failures."time") AS first_time,
                    max(step_failures."time") AS last_time,
                    count(*) AS steps
                   FROM orchestra.step_failures
                  GROUP BY step_failures.workflow_id, step_failures.node_id, step_failures.outcome, step_failures.fingerprint, step_failures.run_id) of_runs
          GROUP BY of_runs.workflow_id, of_runs.node_id, of_runs.outcome, of_runs.fingerprint) g
     LEFT JOIN orchestra.workflows w ON ((w.id = g.workflow_id)));
COMMENT ON VIEW orchestra.failure_groups IS 'Kinds of failures by workflow and node, over all stored runs. To choose a period, group the view failures instead.';
COMMENT ON COLUMN orchestra.failure_groups.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.failure_groups.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.failure_groups.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.failure_groups.outcome IS 'failed or soft_failed.';
COMMENT ON COLUMN orchestra.failure_groups.fingerprint IS 'Hash of the pattern.';
COMMENT ON COLUMN orchestra.failure_groups.pattern IS 'The message with its numbers, ids and quoted texts replaced.';
COMMENT ON COLUMN orchestra.failure_groups.example IS 'The first 500 characters of the latest error of this kind.';
COMMENT ON COLUMN orchestra.failure_groups.first_time IS 'When the first of these steps started.';
COMMENT ON COLUMN orchestra.failure_groups.last_time IS 'When the last of these steps started.';
COMMENT ON COLUMN orchestra.failure_groups.steps IS 'Steps that failed in this way.';
COMMENT ON COLUMN orchestra.failure_groups.runs IS 'Runs that have such a step.';

CREATE VIEW orchestra.failures AS
 SELECT f."time",
    f.workflow_id,
    COALESCE(w.name, f.workflow_id) AS workflow_name,
    f.organization_id,
    f.run_id,
    f.step_id,
    f.node_id,
    f.outcome,
    f.fingerprint,
    f.pattern,
    f.message
   FROM (orchestra.step_failures f
     LEFT JOIN orchestra.workflows w ON ((w.id = f.workflow_id)));
COMMENT ON VIEW orchestra.failures IS 'One row per step that failed or soft-failed, with the kind of failure.';
COMMENT ON COLUMN orchestra.failures."time" IS 'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.failures.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.failures.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.failures.organization_id IS 'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.failures.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.failures.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.failures.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.failures.outcome IS 'failed or soft_failed.';
COMMENT ON COLUMN orchestra.failures.fingerprint IS 'Hash of the pattern: the same for failures of one kind.';
COMMENT ON COLUMN orchestra.failures.pattern IS 'The message with its numbers, ids and quoted texts replaced.';
COMMENT ON COLUMN orchestra.failures.message IS 'The first 500 characters of the error.';

CREATE TABLE orchestra.inputs (
    step_id text NOT NULL COLLATE pg_catalog."C",
    data jsonb,
    size_bytes bigint NOT NULL,
    raw bytea,
    note text
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02', autovacuum_analyze_scale_factor='0.02');
COMMENT ON TABLE orchestra.inputs IS 'The inputs of each step.';
COMMENT ON COLUMN orchestra.inputs.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.inputs.data IS 'The value; if it is null, note says why.';
COMMENT ON COLUMN orchestra.inputs.size_bytes IS 'Length of the value as the API sent it.';
COMMENT ON COLUMN orchestra.inputs.raw IS 'The exact bytes; only set if jsonb cannot hold the value.';
COMMENT ON COLUMN orchestra.inputs.note IS 'Why raw is filled, or why data is null.';

CREATE TABLE orchestra.outputs (
    step_id text NOT NULL COLLATE pg_catalog."C",
    data jsonb,
    size_bytes bigint NOT NULL,
    raw bytea,
    note text
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02', autovacuum_analyze_scale_factor='0.02');
COMMENT ON TABLE orchestra.outputs IS 'The outputs of each step.';
COMMENT ON COLUMN orchestra.outputs.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.outputs.data IS 'The value; if it is null, note says why.';
COMMENT ON COLUMN orchestra.outputs.size_bytes IS 'Length of the value as the API sent it.';
COMMENT ON COLUMN orchestra.outputs.raw IS 'The exact bytes; only set if jsonb cannot hold the value.';
COMMENT ON COLUMN orchestra.outputs.note IS 'Why raw is filled, or why data is null.';

CREATE VIEW orchestra.model_calls AS
 SELECT s.id AS step_id,
    s.run_id,
    s.workflow_id,
    COALESCE(w.name, s.workflow_id) AS workflow_name,
    s.organization_id,
    s.node_id,
    COALESCE(s.start_time, r.start_time, r.first_seen_at) AS "time",
    s.start_time,
    s.end_time,
    s.duration_ms,
    u.outcome,
    p.provider,
    COALESCE(s.response_model, s.request_model) AS model,
    s.request_model,
    s.response_model,
    s.service_tier,
    (u.used).input_tokens AS input_tokens,
    (u.used).cached_input_tokens AS cached_input_tokens,
    (u.used).cache_write_tokens AS cache_write_tokens,
    (u.used).cache_write_1h_tokens AS cache_write_1h_tokens,
    (u.used).input_audio_tokens AS input_audio_tokens,
    (u.used).cached_audio_tokens AS cached_audio_tokens,
    (u.used).input_image_tokens AS input_image_tokens,
    (u.used).cached_image_tokens AS cached_image_tokens,
    (u.used).input_video_tokens AS input_video_tokens,
    (u.used).output_tokens AS output_tokens,
    (u.used).reasoning_tokens AS reasoning_tokens,
    (u.used).output_audio_tokens AS output_audio_tokens,
    (u.used).output_image_tokens AS output_image_tokens,
    (u.used).output_video_tokens AS output_video_tokens,
    (u.used).citation_tokens AS citation_tokens,
    (u.used).other_tokens AS other_tokens,
    (u.used).web_searches AS web_searches,
    (u.used).file_searches AS file_searches,
    (u.used).tool_uses AS tool_uses,
    (u.used).audio_ms AS audio_ms,
    (u.used).document_pages AS document_pages,
    (u.used).search_units AS search_units,
    (u.used).unread_quantities AS unread_quantities,
    orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens) AS total_tokens,
    orchestra.kinds_of(u.used) AS usage_kinds,
    k.cost,
        CASE
            WHEN (k.cost IS NOT NULL) THEN p.currency
            ELSE NULL::text
        END AS currency,
    s.reported_cost,
    s.finish_reason,
    orchestra.is_cut_off(s.finish_reason) AS is_cut_off,
    orchestra.error_message(s.error, s.reported_error) AS error,
    orchestra.system_text(i.data) AS system,
    orchestra.prompt_text(i.data) AS prompt,
    orchestra.answer_text(o.data) AS answer,
    orchestra.called_tools(o.data) AS tools,
    ( SELECT (sum(c.found))::integer AS sum
           FROM ( VALUES (orchestra.image_count(i.data)), (orchestra.image_count(o.data))) c(found)) AS images,
    ( SELECT (sum(c.found))::integer AS sum
           FROM ( VALUES (orchestra.audio_count(i.data)), (orchestra.audio_count(o.data))) c(found)) AS audio,
    orchestra.call_parameters(i.data) AS parameters,
    s.redaction_policy,
    s.updated_at
   FROM (((((((orchestra.steps s
     JOIN orchestra.runs r ON ((r.id = s.run_id)))
     LEFT JOIN orchestra.workflows w ON ((w.id = s.workflow_id)))
     LEFT JOIN orchestra.inputs i ON ((i.step_id = s.id)))
     LEFT JOIN orchestra.outputs o ON ((o.step_id = s.id)))
     CROSS JOIN LATERAL ( SELECT orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
            orchestra.plausible_usage(raw.used) AS used,
            orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage
           FROM ( SELECT ROW(s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens, s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens, s.output_tokens, s.reasoning_tokens, s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens, s.citation_tokens, s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms, s.document_pages, s.search_units, s.unread_quantities)::orchestra.usage AS used) raw
         OFFSET 0) u)
     LEFT JOIN orchestra.prices p ON (((p.model = COALESCE(s.response_model, s.request_model)) AND (NOT orchestra.is_unmetered(u.outcome, true, u.has_usage, u.used)) AND orchestra.price_applies(p.*, s.service_tier, orchestra.context_tier((u.used).input_tokens), COALESCE(s.start_time, r.start_time, r.first_seen_at)))))
     CROSS JOIN LATERAL ( SELECT orchestra.call_cost(u.used, (1)::bigint, p.*) AS cost
         OFFSET 0) k)
  WHERE ((s.absent_since IS NULL) AND orchestra.is_call(s.state, s.node_type, COALESCE(s.response_model, s.request_model), s.finish_reason, u.has_usage));
COMMENT ON VIEW orchestra.model_calls IS 'One row per call of a model (see is_call): its usage, cost, prompt and answer. It shows payloads, so only orchestra_payload_analyst can read it. A text is null if its payload is not stored, if the payload holds no such text, or if the payload''s shape is not known. The loader counts unknown shapes as drift.';
COMMENT ON COLUMN orchestra.model_calls.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.model_calls.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.model_calls.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.model_calls.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.model_calls.organization_id IS 'The organisation; null if the step names none.';
COMMENT ON COLUMN orchestra.model_calls.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.model_calls."time" IS 'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.model_calls.start_time IS 'When the step started.';
COMMENT ON COLUMN orchestra.model_calls.end_time IS 'When the step ended; null while it runs.';
COMMENT ON COLUMN orchestra.model_calls.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.model_calls.outcome IS 'How the step ended (see outcome).';
COMMENT ON COLUMN orchestra.model_calls.provider IS 'The provider whose price applies; null if there is none.';
COMMENT ON COLUMN orchestra.model_calls.model IS 'The model that responded, else the requested one; null if none is named.';
COMMENT ON COLUMN orchestra.model_calls.request_model IS 'The requested model (inputs.model, or the provider''s own field).';
COMMENT ON COLUMN orchestra.model_calls.response_model IS 'The model that responded (outputs.model, or the provider''s own field).';
COMMENT ON COLUMN orchestra.model_calls.service_tier IS 'The provider''s service tier: standard, batch, flex, priority, fast or another; null if the call names none.';
COMMENT ON COLUMN orchestra.model_calls.input_tokens IS 'Input tokens, including those read from and written to a cache.';
COMMENT ON COLUMN orchestra.model_calls.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cache_write_1h_tokens IS 'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens.';
COMMENT ON COLUMN orchestra.model_calls.input_audio_tokens IS 'Input tokens of audio, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cached_audio_tokens IS 'Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.input_image_tokens IS 'Input tokens of images, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.cached_image_tokens IS 'Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.input_video_tokens IS 'Input tokens of video, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_tokens IS 'Output tokens, including reasoning.';
COMMENT ON COLUMN orchestra.model_calls.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_audio_tokens IS 'Output tokens of audio, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_image_tokens IS 'Output tokens of images, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.output_video_tokens IS 'Output tokens of video, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.citation_tokens IS 'Output tokens of citations, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_calls.other_tokens IS 'Tokens of unknown kind: those in the reported total beyond input and output.';
COMMENT ON COLUMN orchestra.model_calls.web_searches IS 'Web searches by the provider.';
COMMENT ON COLUMN orchestra.model_calls.file_searches IS 'File searches by the provider.';
COMMENT ON COLUMN orchestra.model_calls.tool_uses IS 'Uses of other tools that the provider charges by use.';
COMMENT ON COLUMN orchestra.model_calls.audio_ms IS 'Audio charged by duration, in milliseconds.';
COMMENT ON COLUMN orchestra.model_calls.document_pages IS 'Document pages read.';
COMMENT ON COLUMN orchestra.model_calls.search_units IS 'Search units of a reranking model.';
COMMENT ON COLUMN orchestra.model_calls.unread_quantities IS 'Reported quantities of usage that could not be read: their cost is unknown.';
COMMENT ON COLUMN orchestra.model_calls.total_tokens IS 'Total tokens (see total_tokens).';
COMMENT ON COLUMN orchestra.model_calls.usage_kinds IS 'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.model_calls.cost IS 'Cost by the prices of its day (UTC); null if any part of its usage has no price, or if it succeeded without reported usage.';
COMMENT ON COLUMN orchestra.model_calls.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.model_calls.reported_cost IS 'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.model_calls.finish_reason IS 'Why the model stopped, in its provider''s words.';
COMMENT ON COLUMN orchestra.model_calls.is_cut_off IS 'Whether the model stopped because it ran out of tokens (see is_cut_off); null if finish_reason is null.';
COMMENT ON COLUMN orchestra.model_calls.error IS 'The step''s error; null if it carries none.';
COMMENT ON COLUMN orchestra.model_calls.system IS 'The system text (see system_text).';
COMMENT ON COLUMN orchestra.model_calls.prompt IS 'The prompt, without the system text (see prompt_text).';
COMMENT ON COLUMN orchestra.model_calls.answer IS 'The visible answer (see answer_text).';
COMMENT ON COLUMN orchestra.model_calls.tools IS 'The tools that the model called (see called_tools).';
COMMENT ON COLUMN orchestra.model_calls.images IS 'Number of images in the inputs and outputs (see image_count).';
COMMENT ON COLUMN orchestra.model_calls.audio IS 'Number of pieces of audio in the inputs and outputs (see audio_count).';
COMMENT ON COLUMN orchestra.model_calls.parameters IS 'Settings of the call, such as temperature (see call_parameters).';
COMMENT ON COLUMN orchestra.model_calls.redaction_policy IS 'Version of the redaction rules that were in force when the step and its payloads were written; null: no rules.';
COMMENT ON COLUMN orchestra.model_calls.updated_at IS 'When the content of the step''s row last changed. A read that finds no change leaves it as it is.';

CREATE TABLE orchestra.step_rollup_daily (
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    day date NOT NULL,
    ordinal integer NOT NULL,
    organization_id text COLLATE pg_catalog."C",
    node_id text,
    node_type text,
    model text,
    service_tier text,
    context_tier integer,
    usage_kinds integer,
    succeeded bigint NOT NULL,
    soft_failed bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    skipped bigint NOT NULL,
    unfinished bigint NOT NULL,
    calls bigint NOT NULL,
    unmetered_calls bigint NOT NULL,
    untotalled_calls bigint NOT NULL,
    reported_calls bigint NOT NULL,
    input_tokens bigint,
    cached_input_tokens bigint,
    cache_write_tokens bigint,
    cache_write_1h_tokens bigint,
    input_audio_tokens bigint,
    cached_audio_tokens bigint,
    input_image_tokens bigint,
    cached_image_tokens bigint,
    input_video_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    output_audio_tokens bigint,
    output_image_tokens bigint,
    output_video_tokens bigint,
    citation_tokens bigint,
    other_tokens bigint,
    web_searches bigint,
    file_searches bigint,
    tool_uses bigint,
    audio_ms bigint,
    document_pages bigint,
    search_units bigint,
    unread_quantities bigint,
    total_tokens bigint,
    reported_cost numeric,
    buckets smallint[] NOT NULL,
    counts integer[] NOT NULL,
    failed_buckets smallint[] NOT NULL,
    failed_counts integer[] NOT NULL
);
COMMENT ON TABLE orchestra.step_rollup_daily IS 'step_rollup by day: the same figures except the responses, for queries over weeks and months.';
COMMENT ON COLUMN orchestra.step_rollup_daily.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.step_rollup_daily.day IS 'The day (UTC) whose hours are added up.';
COMMENT ON COLUMN orchestra.step_rollup_daily.ordinal IS 'Number of the row within its workflow and day.';
COMMENT ON COLUMN orchestra.step_rollup_daily.organization_id IS 'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.step_rollup_daily.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.step_rollup_daily.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.step_rollup_daily.model IS 'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.step_rollup_daily.service_tier IS 'For calls: the provider''s service tier; null if they name none.';
COMMENT ON COLUMN orchestra.step_rollup_daily.context_tier IS 'For calls: the highest price threshold of input tokens that they exceed; 0 if they exceed none. A price threshold is a number of input tokens above which prices can change.';
COMMENT ON COLUMN orchestra.step_rollup_daily.usage_kinds IS 'For calls: bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.step_rollup_daily.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.step_rollup_daily.soft_failed IS 'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.step_rollup_daily.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.step_rollup_daily.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.step_rollup_daily.unfinished IS 'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.step_rollup_daily.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.step_rollup_daily.unmetered_calls IS 'Calls that report no usage, so that their cost is unknown.';
COMMENT ON COLUMN orchestra.step_rollup_daily.untotalled_calls IS 'Calls missing from total_tokens, because they report no tokens.';
COMMENT ON COLUMN orchestra.step_rollup_daily.reported_calls IS 'Calls whose provider reports a cost.';
COMMENT ON COLUMN orchestra.step_rollup_daily.input_tokens IS 'Input tokens, including those read from and written to a cache. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cache_write_1h_tokens IS 'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.input_audio_tokens IS 'Input tokens of audio, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cached_audio_tokens IS 'Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.input_image_tokens IS 'Input tokens of images, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cached_image_tokens IS 'Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.input_video_tokens IS 'Input tokens of video, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.output_tokens IS 'Output tokens, including reasoning. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.output_audio_tokens IS 'Output tokens of audio, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.output_image_tokens IS 'Output tokens of images, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.output_video_tokens IS 'Output tokens of video, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.citation_tokens IS 'Output tokens of citations, part of output_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.other_tokens IS 'Tokens of unknown kind: those in the reported total beyond input and output. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.web_searches IS 'Web searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.file_searches IS 'File searches by the provider. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.tool_uses IS 'Uses of other tools that the provider charges by use. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.audio_ms IS 'Audio charged by duration, in milliseconds. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.document_pages IS 'Document pages read. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.search_units IS 'Search units of a reranking model. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.unread_quantities IS 'Reported quantities of usage that could not be read: their cost is unknown. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.total_tokens IS 'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.reported_cost IS 'Cost in US dollars, as providers report it. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.step_rollup_daily.buckets IS 'Buckets of the durations of the steps that succeeded (see duration_bucket), ascending; steps without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.step_rollup_daily.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.step_rollup_daily.failed_buckets IS 'Like buckets, for steps that failed or soft-failed.';
COMMENT ON COLUMN orchestra.step_rollup_daily.failed_counts IS 'Number of durations in each of failed_buckets.';

CREATE VIEW orchestra.node_daily AS
 SELECT s.day,
    s.workflow_id,
    COALESCE(w.name, s.workflow_id) AS workflow_name,
    s.organization_id,
    s.node_id,
    s.node_type,
    s.model,
    (sum((((((s.succeeded + s.soft_failed) + s.failed) + s.cancelled) + s.skipped) + s.unfinished)))::bigint AS steps,
    (sum(s.succeeded))::bigint AS succeeded,
    (sum(s.soft_failed))::bigint AS soft_failed,
    (sum(s.failed))::bigint AS failed,
    (sum(s.cancelled))::bigint AS cancelled,
    (sum(s.skipped))::bigint AS skipped,
    (sum(s.unfinished))::bigint AS unfinished,
    (sum(s.calls))::bigint AS calls,
        CASE
            WHEN (sum(s.calls) = (0)::numeric) THEN (0)::bigint
            WHEN (count(s.total_tokens) FILTER (WHERE (s.calls > 0)) > 0) THEN (LEAST(sum(s.total_tokens), ('9223372036854775807'::bigint)::numeric))::bigint
            ELSE NULL::bigint
        END AS total_tokens,
    orchestra.array_concat_agg(s.buckets) AS buckets,
    orchestra.array_concat_agg(s.counts) AS counts,
    orchestra.array_concat_agg(s.failed_buckets) AS failed_buckets,
    orchestra.array_concat_agg(s.failed_counts) AS failed_counts,
    (sum(s.untotalled_calls))::bigint AS untotalled_calls
   FROM (orchestra.step_rollup_daily s
     LEFT JOIN orchestra.workflows w ON ((w.id = s.workflow_id)))
  GROUP BY s.day, s.workflow_id, w.name, s.organization_id, s.node_id, s.node_type, s.model;
COMMENT ON VIEW orchestra.node_daily IS 'Steps by day, workflow, organisation, node and model: outcomes and histograms of durations. Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles of successes: duration_quantile(buckets, counts, 0.95) over any rows; of failures, from failed_buckets and failed_counts.';
COMMENT ON COLUMN orchestra.node_daily.day IS 'The day (UTC) in which the steps started; for steps without a start, the day of their run.';
COMMENT ON COLUMN orchestra.node_daily.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.node_daily.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.node_daily.organization_id IS 'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.node_daily.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.node_daily.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.node_daily.model IS 'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.node_daily.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.node_daily.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.node_daily.soft_failed IS 'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.node_daily.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.node_daily.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.node_daily.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.node_daily.unfinished IS 'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.node_daily.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.node_daily.total_tokens IS 'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.node_daily.buckets IS 'Buckets of the durations of the steps that succeeded (see duration_bucket), unordered and possibly repeated; steps without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.node_daily.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.node_daily.failed_buckets IS 'Like buckets, for steps that failed or soft-failed.';
COMMENT ON COLUMN orchestra.node_daily.failed_counts IS 'Number of durations in each of failed_buckets.';
COMMENT ON COLUMN orchestra.node_daily.untotalled_calls IS 'Calls missing from total_tokens, because they report no tokens.';

CREATE VIEW orchestra.node_hourly AS
 SELECT s.hour,
    s.workflow_id,
    COALESCE(w.name, s.workflow_id) AS workflow_name,
    s.organization_id,
    s.node_id,
    s.node_type,
    s.model,
    (sum((((((s.succeeded + s.soft_failed) + s.failed) + s.cancelled) + s.skipped) + s.unfinished)))::bigint AS steps,
    (sum(s.succeeded))::bigint AS succeeded,
    (sum(s.soft_failed))::bigint AS soft_failed,
    (sum(s.failed))::bigint AS failed,
    (sum(s.cancelled))::bigint AS cancelled,
    (sum(s.skipped))::bigint AS skipped,
    (sum(s.unfinished))::bigint AS unfinished,
    (sum(s.calls))::bigint AS calls,
        CASE
            WHEN (sum(s.calls) = (0)::numeric) THEN (0)::bigint
            WHEN (count(s.total_tokens) FILTER (WHERE (s.calls > 0)) > 0) THEN (LEAST(sum(s.total_tokens), ('9223372036854775807'::bigint)::numeric))::bigint
            ELSE NULL::bigint
        END AS total_tokens,
    orchestra.array_concat_agg(s.buckets) AS buckets,
    orchestra.array_concat_agg(s.counts) AS counts,
    orchestra.array_concat_agg(s.failed_buckets) AS failed_buckets,
    orchestra.array_concat_agg(s.failed_counts) AS failed_counts,
    (sum(s.untotalled_calls))::bigint AS untotalled_calls
   FROM (orchestra.step_rollup s
     LEFT JOIN orchestra.workflows w ON ((w.id = s.workflow_id)))
  GROUP BY s.hour, s.workflow_id, w.name, s.organization_id, s.node_id, s.node_type, s.model;
COMMENT ON VIEW orchestra.node_hourly IS 'Steps by hour, workflow, organisation, node and model: outcomes and histograms of durations. Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles of successes: duration_quantile(buckets, counts, 0.95) over any rows; of failures, from failed_buckets and failed_counts.';
COMMENT ON COLUMN orchestra.node_hourly.hour IS 'The hour (UTC) in which the steps started; for steps without a start, the hour of their run.';
COMMENT ON COLUMN orchestra.node_hourly.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.node_hourly.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.node_hourly.organization_id IS 'The organisation; null if no step names one.';
COMMENT ON COLUMN orchestra.node_hourly.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.node_hourly.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.node_hourly.model IS 'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.node_hourly.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.node_hourly.succeeded IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.node_hourly.soft_failed IS 'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.node_hourly.failed IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.node_hourly.cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN orchestra.node_hourly.skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN orchestra.node_hourly.unfinished IS 'Steps that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.node_hourly.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.node_hourly.total_tokens IS 'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.node_hourly.buckets IS 'Buckets of the durations of the steps that succeeded (see duration_bucket), unordered and possibly repeated; steps without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.node_hourly.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.node_hourly.failed_buckets IS 'Like buckets, for steps that failed or soft-failed.';
COMMENT ON COLUMN orchestra.node_hourly.failed_counts IS 'Number of durations in each of failed_buckets.';
COMMENT ON COLUMN orchestra.node_hourly.untotalled_calls IS 'Calls missing from total_tokens, because they report no tokens.';

CREATE TABLE orchestra.run_rollup (
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    hour timestamp with time zone NOT NULL,
    ordinal integer NOT NULL,
    organization_id text COLLATE pg_catalog."C",
    runs bigint NOT NULL,
    succeeded bigint NOT NULL,
    soft_failed bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    skipped bigint NOT NULL,
    unfinished bigint NOT NULL,
    buckets smallint[] NOT NULL,
    counts integer[] NOT NULL,
    failed_buckets smallint[] NOT NULL,
    failed_counts integer[] NOT NULL
);
COMMENT ON TABLE orchestra.run_rollup IS 'Runs by hour, workflow and organisation: outcomes and histograms of durations.';
COMMENT ON COLUMN orchestra.run_rollup.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.run_rollup.hour IS 'The hour (UTC) in which the runs started, or were first seen if not started.';
COMMENT ON COLUMN orchestra.run_rollup.ordinal IS 'Number of the row within its workflow and hour; negative: counts of pruned runs.';
COMMENT ON COLUMN orchestra.run_rollup.organization_id IS 'The organisation; null if the run names none.';
COMMENT ON COLUMN orchestra.run_rollup.runs IS 'Runs.';
COMMENT ON COLUMN orchestra.run_rollup.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN orchestra.run_rollup.soft_failed IS 'Runs with a successful status that carry an error, or have a step that does (see outcome).';
COMMENT ON COLUMN orchestra.run_rollup.failed IS 'Runs that failed.';
COMMENT ON COLUMN orchestra.run_rollup.cancelled IS 'Runs that were cancelled.';
COMMENT ON COLUMN orchestra.run_rollup.skipped IS 'Runs that were skipped.';
COMMENT ON COLUMN orchestra.run_rollup.unfinished IS 'Runs that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.run_rollup.buckets IS 'Buckets of the durations of the runs that succeeded (see duration_bucket), ascending; runs without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.run_rollup.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.run_rollup.failed_buckets IS 'Like buckets, for runs that failed or soft-failed.';
COMMENT ON COLUMN orchestra.run_rollup.failed_counts IS 'Number of durations in each of failed_buckets.';

CREATE VIEW orchestra.workflow_hourly AS
 SELECT r.hour,
    r.workflow_id,
    COALESCE(w.name, r.workflow_id) AS workflow_name,
    r.organization_id,
    r.runs,
    r.succeeded,
    r.soft_failed,
    r.failed,
    r.cancelled,
    r.skipped,
    r.unfinished,
    r.buckets,
    r.counts,
    r.failed_buckets,
    r.failed_counts
   FROM (orchestra.run_rollup r
     LEFT JOIN orchestra.workflows w ON ((w.id = r.workflow_id)));
COMMENT ON VIEW orchestra.workflow_hourly IS 'Runs by hour, workflow and organisation: outcomes and histograms of durations. Success rate: succeeded / (succeeded + soft_failed + failed). Percentiles of successes: duration_quantile(buckets, counts, 0.95) over any rows; of failures, from failed_buckets and failed_counts.';
COMMENT ON COLUMN orchestra.workflow_hourly.hour IS 'The hour (UTC) in which the runs started, or were first seen if not started.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.workflow_hourly.organization_id IS 'The organisation; null if the runs name none.';
COMMENT ON COLUMN orchestra.workflow_hourly.runs IS 'Runs.';
COMMENT ON COLUMN orchestra.workflow_hourly.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN orchestra.workflow_hourly.soft_failed IS 'Runs with a successful status that carry an error, or have a step that does (see outcome).';
COMMENT ON COLUMN orchestra.workflow_hourly.failed IS 'Runs that failed.';
COMMENT ON COLUMN orchestra.workflow_hourly.cancelled IS 'Runs that were cancelled.';
COMMENT ON COLUMN orchestra.workflow_hourly.skipped IS 'Runs that were skipped.';
COMMENT ON COLUMN orchestra.workflow_hourly.unfinished IS 'Runs that are pending or running, or whose status is not known.';
COMMENT ON COLUMN orchestra.workflow_hourly.buckets IS 'Buckets of the durations of the runs that succeeded (see duration_bucket), ascending; runs without a valid duration are not counted.';
COMMENT ON COLUMN orchestra.workflow_hourly.counts IS 'Number of durations in each of these buckets.';
COMMENT ON COLUMN orchestra.workflow_hourly.failed_buckets IS 'Like buckets, for runs that failed or soft-failed.';
COMMENT ON COLUMN orchestra.workflow_hourly.failed_counts IS 'Number of durations in each of failed_buckets.';

CREATE VIEW orchestra.open_runs AS
 WITH usual AS MATERIALIZED (
         SELECT workflow_hourly.workflow_id,
            COALESCE(orchestra.duration_quantile(workflow_hourly.buckets, workflow_hourly.counts, (0.95)::double precision), orchestra.duration_quantile(workflow_hourly.failed_buckets, workflow_hourly.failed_counts, (0.95)::double precision)) AS p95_ms
           FROM orchestra.workflow_hourly
          WHERE (workflow_hourly.hour >= (now() - '30 days'::interval))
          GROUP BY workflow_hourly.workflow_id
        )
 SELECT unfinished.run_id,
    unfinished.workflow_id,
    COALESCE(w.name, unfinished.workflow_id) AS workflow_name,
    unfinished.organization_id,
    unfinished.user_id,
    unfinished.state,
    unfinished.tracking,
    unfinished.start_time,
    unfinished.age_ms,
    usual.p95_ms AS usual_p95_ms,
    COALESCE((unfinished.age_ms > usual.p95_ms), false) AS overdue,
    s.steps,
    s.finished_steps,
    s.running_node,
    unfinished.observed_at
   FROM (((( SELECT r.id AS run_id,
            r.workflow_id,
            r.organization_id,
            r.user_id,
            r.state,
            r.tracking,
            r.start_time,
            read.observed_at,
            GREATEST(((EXTRACT(epoch FROM (read.observed_at - COALESCE(r.start_time, r.first_seen_at))) * (1000)::numeric))::double precision, (0)::double precision) AS age_ms
           FROM ((orchestra.runs r
             LEFT JOIN orchestra_etl.run_ledger l ON ((l.run_id = r.id)))
             CROSS JOIN LATERAL ( SELECT COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at) AS observed_at) read)
          WHERE ((r.state = ANY (ARRAY['pending'::text, 'running'::text, 'unknown'::text])) AND (r.tracking <> ALL (ARRAY['final'::text, 'gone'::text])))) unfinished
     LEFT JOIN orchestra.workflows w ON ((w.id = unfinished.workflow_id)))
     LEFT JOIN usual ON ((usual.workflow_id = unfinished.workflow_id)))
     LEFT JOIN LATERAL ( SELECT count(*) AS steps,
            count(*) FILTER (WHERE (steps.state = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text, 'skipped'::text]))) AS finished_steps,
            (array_agg(steps.node_id ORDER BY steps.start_time, steps."position", steps.id) FILTER (WHERE (steps.state = 'running'::text)))[1] AS running_node
           FROM orchestra.steps
          WHERE ((steps.run_id = unfinished.run_id) AND (steps.absent_since IS NULL))) s ON (true));
COMMENT ON VIEW orchestra.open_runs IS 'Runs that have not ended, compared with the usual duration of their workflow. Runs that the API no longer has are left out.';
COMMENT ON COLUMN orchestra.open_runs.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.open_runs.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.open_runs.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.open_runs.organization_id IS 'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.open_runs.user_id IS 'The user; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.open_runs.state IS 'pending, running or unknown.';
COMMENT ON COLUMN orchestra.open_runs.tracking IS 'open: still polled; stale: open for too long, read once a day.';
COMMENT ON COLUMN orchestra.open_runs.start_time IS 'When the run started; null if it has not started.';
COMMENT ON COLUMN orchestra.open_runs.age_ms IS 'Milliseconds from the run''s start to observed_at; if the run has not started, from when it was first seen.';
COMMENT ON COLUMN orchestra.open_runs.usual_p95_ms IS '95th percentile of the durations of the workflow''s successful runs of the last 30 days, in milliseconds; of its failed runs if none succeeded; null if none has ended.';
COMMENT ON COLUMN orchestra.open_runs.overdue IS 'Whether age_ms exceeds usual_p95_ms.';
COMMENT ON COLUMN orchestra.open_runs.steps IS 'Its steps so far.';
COMMENT ON COLUMN orchestra.open_runs.finished_steps IS 'Steps that have ended.';
COMMENT ON COLUMN orchestra.open_runs.running_node IS 'The node that has been running longest; null: no node is running.';
COMMENT ON COLUMN orchestra.open_runs.observed_at IS 'When the API last reported that the run had not ended. If the service has stopped, the run may have ended since then.';

CREATE TABLE orchestra_etl.changed_groups (
    id bigint NOT NULL,
    workflow_id text COLLATE pg_catalog."C",
    hour timestamp with time zone,
    queued_at timestamp with time zone DEFAULT now() NOT NULL,
    failed_at timestamp with time zone,
    cause text
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');
COMMENT ON TABLE orchestra_etl.changed_groups IS 'A queue: the rollup groups whose runs or steps have changed since they were last computed.';
COMMENT ON COLUMN orchestra_etl.changed_groups.id IS 'Order of arrival.';
COMMENT ON COLUMN orchestra_etl.changed_groups.workflow_id IS 'The workflow; null: every group must be computed.';
COMMENT ON COLUMN orchestra_etl.changed_groups.hour IS 'The hour of the runs or steps that changed; null: see workflow_id.';
COMMENT ON COLUMN orchestra_etl.changed_groups.queued_at IS 'When it was queued.';
COMMENT ON COLUMN orchestra_etl.changed_groups.failed_at IS 'When its computation last failed, to be retried later; null: it has not failed.';
COMMENT ON COLUMN orchestra_etl.changed_groups.cause IS 'SQLSTATE of the last failure.';

CREATE TABLE orchestra_etl.drift (
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    subject text NOT NULL,
    field text NOT NULL,
    kind text NOT NULL,
    found text NOT NULL,
    occurrences bigint NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_run_id text NOT NULL COLLATE pg_catalog."C"
);
COMMENT ON TABLE orchestra_etl.drift IS 'Differences between the API''s responses and its description.';
COMMENT ON COLUMN orchestra_etl.drift.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra_etl.drift.subject IS 'step, run or workflow.';
COMMENT ON COLUMN orchestra_etl.drift.field IS 'The field.';
COMMENT ON COLUMN orchestra_etl.drift.kind IS 'unknown_field, wrong_type, unknown_status, ...';
COMMENT ON COLUMN orchestra_etl.drift.found IS 'The type or status found.';
COMMENT ON COLUMN orchestra_etl.drift.occurrences IS 'Number of loaded steps or runs that show the difference.';
COMMENT ON COLUMN orchestra_etl.drift.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN orchestra_etl.drift.last_seen_at IS 'When it was last seen.';
COMMENT ON COLUMN orchestra_etl.drift.last_run_id IS 'The latest run that shows the difference.';

CREATE VIEW orchestra.pipeline_health AS
 SELECT now() AS checked_at,
    ( SELECT max(runs.start_time) AS max
           FROM orchestra.runs) AS newest_run_start,
    swept.swept_at,
    (EXTRACT(epoch FROM (now() - swept.swept_at)))::double precision AS behind_seconds,
    ledger.due AS due_runs,
    ledger.open AS open_runs,
    ledger.failing AS failing_runs,
    ( SELECT count(*) AS count
           FROM orchestra_etl.dead_letters
          WHERE (dead_letters.resolved_at IS NULL)) AS dead_letters,
    ( SELECT count(*) AS count
           FROM orchestra_etl.gaps
          WHERE (gaps.acknowledged_at IS NULL)) AS unacknowledged_gaps,
    ( SELECT count(*) AS count
           FROM orchestra_etl.changed_groups) AS waiting_groups,
    ( SELECT count(*) AS count
           FROM orchestra_etl.drift) AS drift,
    swept.never AS unswept_workflows,
    ( SELECT count(*) AS count
           FROM orchestra_etl.dead_letters d
          WHERE ((d.reason = 'id_conflict'::text) AND (d.step_id IS NULL) AND (NOT (EXISTS ( SELECT
                   FROM orchestra_etl.run_ledger l
                  WHERE ((l.run_id = d.run_id) AND (l.workflow_id = d.workflow_id))))))) AS conflicting_runs
   FROM (( SELECT min(s.swept_at) AS swept_at,
            count(*) FILTER (WHERE (s.swept_at IS NULL)) AS never
           FROM ( SELECT sweeps.swept_at,
                    sweeps.started_at,
                    max(sweeps.started_at) OVER () AS newest
                   FROM orchestra_etl.sweeps) s
          WHERE (s.started_at > (s.newest - '7 days'::interval))) swept
     CROSS JOIN ( SELECT count(*) FILTER (WHERE (run_ledger.due_at <= now())) AS due,
            count(*) FILTER (WHERE (run_ledger.tracking = 'open'::text)) AS open,
            count(*) FILTER (WHERE ((run_ledger.tracking = ANY (ARRAY['open'::text, 'stale'::text])) AND (run_ledger.attempts > 0))) AS failing
           FROM orchestra_etl.run_ledger
          WHERE (run_ledger.due_at IS NOT NULL)) ledger);
COMMENT ON VIEW orchestra.pipeline_health IS 'One row: how fresh the data is and what needs attention. `orchestra-etl status` shows the same by workflow.';
COMMENT ON COLUMN orchestra.pipeline_health.checked_at IS 'The current time: when the transaction of this query began.';
COMMENT ON COLUMN orchestra.pipeline_health.newest_run_start IS 'Start of the newest run that is stored.';
COMMENT ON COLUMN orchestra.pipeline_health.swept_at IS 'The oldest of the times at which each workflow''s last complete sweep ended; null: no sweep is complete. Workflows whose last sweep began more than a week before the latest one do not count.';
COMMENT ON COLUMN orchestra.pipeline_health.behind_seconds IS 'Seconds from swept_at to checked_at.';
COMMENT ON COLUMN orchestra.pipeline_health.due_runs IS 'Runs due to be read now.';
COMMENT ON COLUMN orchestra.pipeline_health.open_runs IS 'Runs that are still polled.';
COMMENT ON COLUMN orchestra.pipeline_health.failing_runs IS 'Runs whose last read failed and will be retried.';
COMMENT ON COLUMN orchestra.pipeline_health.dead_letters IS 'Open dead letters: records that were set aside and neither loaded later nor discarded.';
COMMENT ON COLUMN orchestra.pipeline_health.unacknowledged_gaps IS 'Gaps that no user has acknowledged.';
COMMENT ON COLUMN orchestra.pipeline_health.waiting_groups IS 'Entries in the queue of rollup groups to recompute; 0 when the rollups are current.';
COMMENT ON COLUMN orchestra.pipeline_health.drift IS 'Kinds of difference between the API''s responses and its description.';
COMMENT ON COLUMN orchestra.pipeline_health.unswept_workflows IS 'Workflows without a complete sweep.';
COMMENT ON COLUMN orchestra.pipeline_health.conflicting_runs IS 'Runs that were set aside because another workflow has a run with the same id; including discarded ones.';

CREATE VIEW orchestra.removed_runs AS
 SELECT run_id,
    workflow_id,
    tracking,
    removed_at
   FROM orchestra_etl.run_ledger
  WHERE (removed_at IS NOT NULL);
COMMENT ON VIEW orchestra.removed_runs IS 'Runs that were erased or pruned here. Copies of runs and steps must remove them, too. A run that was never loaded, because it was older than the retention, also has a row here.';
COMMENT ON COLUMN orchestra.removed_runs.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.removed_runs.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.removed_runs.tracking IS 'erased: on request; pruned: by retention.';
COMMENT ON COLUMN orchestra.removed_runs.removed_at IS 'When the run was removed.';

CREATE TABLE orchestra.run_payloads (
    run_id text NOT NULL COLLATE pg_catalog."C",
    inputs jsonb,
    outputs jsonb,
    inputs_raw bytea,
    outputs_raw bytea,
    note text
);
COMMENT ON TABLE orchestra.run_payloads IS 'The inputs and outputs of each run.';
COMMENT ON COLUMN orchestra.run_payloads.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.run_payloads.inputs IS 'The run''s input variables.';
COMMENT ON COLUMN orchestra.run_payloads.outputs IS 'The output of the End node.';
COMMENT ON COLUMN orchestra.run_payloads.inputs_raw IS 'The exact bytes of inputs; only set if jsonb cannot hold the value.';
COMMENT ON COLUMN orchestra.run_payloads.outputs_raw IS 'The exact bytes of outputs; only set if jsonb cannot hold the value.';
COMMENT ON COLUMN orchestra.run_payloads.note IS 'Why a raw column is filled, or why a value is null.';

CREATE TABLE orchestra.run_requests (
    id bigint NOT NULL,
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    run_id text NOT NULL COLLATE pg_catalog."C",
    requested_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT run_requests_run_id_length_check CHECK (((octet_length(run_id) >= 1) AND (octet_length(run_id) <= 512))),
    CONSTRAINT run_requests_workflow_id_length_check CHECK (((octet_length(workflow_id) >= 1) AND (octet_length(workflow_id) <= 512)))
);
COMMENT ON TABLE orchestra.run_requests IS 'A queue: insert a run to have it tracked. The service empties it.';
COMMENT ON COLUMN orchestra.run_requests.id IS 'Order of arrival.';
COMMENT ON COLUMN orchestra.run_requests.workflow_id IS 'The workflow the run belongs to.';
COMMENT ON COLUMN orchestra.run_requests.run_id IS 'The run to be tracked.';
COMMENT ON COLUMN orchestra.run_requests.requested_at IS 'When the request was made.';

ALTER TABLE orchestra.run_requests ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME orchestra.run_requests_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE orchestra.workflow_versions (
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    first_seen_at timestamp with time zone NOT NULL,
    version text,
    graph jsonb,
    api_updated_at timestamp with time zone
);
COMMENT ON TABLE orchestra.workflow_versions IS 'Versions of workflows in the order in which they were first seen; append-only.';
COMMENT ON COLUMN orchestra.workflow_versions.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.workflow_versions.first_seen_at IS 'When this version was first seen.';
COMMENT ON COLUMN orchestra.workflow_versions.version IS 'The version as the API names it.';
COMMENT ON COLUMN orchestra.workflow_versions.graph IS 'Nodes and edges as the API returns them.';
COMMENT ON COLUMN orchestra.workflow_versions.api_updated_at IS 'The API''s time of the workflow''s last change when this version was first seen: the version was in force from then at the latest. Null if the API does not say.';

CREATE VIEW orchestra.run_summary AS
 SELECT r.id AS run_id,
    r.workflow_id,
    COALESCE(w.name, r.workflow_id) AS workflow_name,
    COALESCE(w.labels, '{}'::jsonb) AS labels,
    ( SELECT
                CASE
                    WHEN ((next.api_updated_at <= begun."time") AND ((last.first_seen_at <= next.api_updated_at) OR (last.first_seen_at IS NULL))) THEN next.version
                    ELSE last.version
                END AS version
           FROM ((( SELECT COALESCE(r.start_time, r.first_seen_at) AS "time") begun
             LEFT JOIN LATERAL ( SELECT v.version,
                    v.first_seen_at
                   FROM orchestra.workflow_versions v
                  WHERE ((v.workflow_id = r.workflow_id) AND (v.first_seen_at <= begun."time"))
                  ORDER BY v.first_seen_at DESC
                 LIMIT 1) last ON (true))
             LEFT JOIN LATERAL ( SELECT v.version,
                    v.api_updated_at
                   FROM orchestra.workflow_versions v
                  WHERE ((v.workflow_id = r.workflow_id) AND (v.first_seen_at > begun."time"))
                  ORDER BY v.first_seen_at
                 LIMIT 1) next ON (true))) AS workflow_version,
    r.organization_id,
    r.user_id,
    r.state,
        CASE
            WHEN ((r.state = 'succeeded'::text) AND (EXISTS ( SELECT
               FROM orchestra.steps f
              WHERE ((f.run_id = r.id) AND ((f.error IS NOT NULL) OR (f.reported_error IS NOT NULL)) AND (f.absent_since IS NULL) AND (orchestra.outcome(f.state, f.error, f.reported_error) = 'soft_failed'::text))
             OFFSET 0))) THEN 'soft_failed'::text
            ELSE orchestra.outcome(r.state, r.error, NULL::text)
        END AS outcome,
    r.tracking,
    r.start_time,
    r.end_time,
    r.duration_ms,
    s.steps,
    s.succeeded_steps,
    s.soft_failed_steps,
    s.failed_steps,
    s.first_failed_node,
    "left"(COALESCE(s.first_error, orchestra.error_message(r.error, NULL::text)), 500) AS first_error,
    s.calls,
    s.input_tokens,
    s.output_tokens,
    s.cached_input_tokens,
    s.reasoning_tokens,
    s.total_tokens,
        CASE
            WHEN s.one_currency THEN s.cost
            ELSE NULL::numeric
        END AS cost,
        CASE
            WHEN s.one_currency THEN s.currency
            ELSE NULL::text
        END AS currency,
        CASE
            WHEN s.one_currency THEN (s.calls - s.priced_calls)
            ELSE s.calls
        END AS unpriced_calls,
    r.first_seen_at,
    r.updated_at,
    s.untotalled_calls,
    s.cache_write_tokens,
    s.reported_cost,
    s.reported_calls,
    COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at) AS observed_at
   FROM (((orchestra.runs r
     LEFT JOIN orchestra_etl.run_ledger l ON ((l.run_id = r.id)))
     LEFT JOIN orchestra.workflows w ON ((w.id = r.workflow_id)))
     LEFT JOIN LATERAL ( SELECT count(*) AS steps,
            count(*) FILTER (WHERE (judged.outcome = 'succeeded'::text)) AS succeeded_steps,
            count(*) FILTER (WHERE (judged.outcome = 'soft_failed'::text)) AS soft_failed_steps,
            count(*) FILTER (WHERE (judged.outcome = 'failed'::text)) AS failed_steps,
            (array_agg(judged.node_id ORDER BY (judged.outcome = 'failed'::text) DESC, judged.start_time, judged."position", judged.id) FILTER (WHERE (judged.outcome = ANY (ARRAY['failed'::text, 'soft_failed'::text]))))[1] AS first_failed_node,
            (array_agg(judged.error ORDER BY (judged.outcome = 'failed'::text) DESC, judged.start_time, judged."position", judged.id) FILTER (WHERE (judged.outcome = ANY (ARRAY['failed'::text, 'soft_failed'::text]))))[1] AS first_error,
            count(*) FILTER (WHERE judged.is_call) AS calls,
            (COALESCE(sum(judged.input_tokens), (
                CASE
                    WHEN bool_or(judged.is_call) THEN NULL::integer
                    ELSE 0
                END)::numeric))::bigint AS input_tokens,
            (COALESCE(sum(judged.output_tokens), (
                CASE
                    WHEN bool_or(judged.is_call) THEN NULL::integer
                    ELSE 0
                END)::numeric))::bigint AS output_tokens,
            (COALESCE(sum(judged.cached_input_tokens), (
                CASE
                    WHEN bool_or(judged.is_call) THEN NULL::integer
                    ELSE 0
                END)::numeric))::bigint AS cached_input_tokens,
            (COALESCE(sum(judged.reasoning_tokens), (
                CASE
                    WHEN bool_or(judged.is_call) THEN NULL::integer
                    ELSE 0
                END)::numeric))::bigint AS reasoning_tokens,
            (COALESCE(sum(judged.total_tokens), (
                CASE
                    WHEN bool_or(judged.is_call) THEN NULL::integer
                    ELSE 0
                END)::numeric))::bigint AS total_tokens,
            sum(judged.cost) AS cost,
            min(judged.currency) AS currency,
            COALESCE((min(judged.currency) = max(judged.currency)), false) AS one_currency,
            count(judged.cost) AS priced_calls,
            count(*) FILTER (WHERE judged.is_untotalled) AS untotalled_calls,
            (sum(judged.cache_write_tokens))::bigint AS cache_write_tokens,
            sum(judged.reported_cost) AS reported_cost,
            count(judged.reported_cost) AS reported_calls
           FROM ( SELECT called.id,
                    called.node_id,
                    called."position",
                    called.start_time,
                    called.outcome,
                    called.error,
                    called.is_call,
                    orchestra.is_untotalled(called.outcome, called.is_call, called.has_usage, called.used, called.total_tokens) AS is_untotalled,
                    (called.used).input_tokens AS input_tokens,
                    (called.used).output_tokens AS output_tokens,
                    (called.used).cached_input_tokens AS cached_input_tokens,
                    (called.used).reasoning_tokens AS reasoning_tokens,
                    (called.used).cache_write_tokens AS cache_write_tokens,
                    called.total_tokens,
                    called.reported_cost,
                    k.cost,
                        CASE
                            WHEN (k.cost IS NOT NULL) THEN p.currency
                            ELSE NULL::text
                        END AS currency
                   FROM ((( SELECT s_1.id,
                            s_1.node_id,
                            s_1."position",
                            s_1.start_time,
                            COALESCE(s_1.start_time, r.start_time, r.first_seen_at) AS "time",
                            orchestra.error_message(s_1.error, s_1.reported_error) AS error,
                            s_1.service_tier,
                            s_1.reported_cost,
                            u.model,
                            u.outcome,
                            u.used,
                            u.has_usage,
                            u.total_tokens,
                            orchestra.is_call(s_1.state, s_1.node_type, u.model, s_1.finish_reason, u.has_usage) AS is_call
                           FROM (orchestra.steps s_1
                             CROSS JOIN LATERAL ( SELECT COALESCE(s_1.response_model, s_1.request_model) AS model,
                                    orchestra.outcome(s_1.state, s_1.error, s_1.reported_error) AS outcome,
                                    orchestra.plausible_usage(raw.used) AS used,
                                    orchestra.has_usage(raw.used, s_1.total_tokens, s_1.reported_cost) AS has_usage,
                                    orchestra.total_tokens(s_1.input_tokens, s_1.output_tokens, s_1.total_tokens) AS total_tokens
                                   FROM ( SELECT ROW(s_1.input_tokens, s_1.cached_input_tokens, s_1.cache_write_tokens, s_1.cache_write_1h_tokens, s_1.input_audio_tokens, s_1.cached_audio_tokens, s_1.input_image_tokens, s_1.cached_image_tokens, s_1.input_video_tokens, s_1.output_tokens, s_1.reasoning_tokens, s_1.output_audio_tokens, s_1.output_image_tokens, s_1.output_video_tokens, s_1.citation_tokens, s_1.other_tokens, s_1.web_searches, s_1.file_searches, s_1.tool_uses, s_1.audio_ms, s_1.document_pages, s_1.search_units, s_1.unread_quantities)::orchestra.usage AS used) raw
                                 OFFSET 0) u)
                          WHERE ((s_1.run_id = r.id) AND (s_1.absent_since IS NULL))) called
                     LEFT JOIN orchestra.prices p ON (((p.model = called.model) AND called.is_call AND (NOT orchestra.is_unmetered(called.outcome, called.is_call, called.has_usage, called.used)) AND orchestra.price_applies(p.*, called.service_tier, orchestra.context_tier((called.used).input_tokens), called."time"))))
                     CROSS JOIN LATERAL ( SELECT orchestra.call_cost(called.used, (1)::bigint, p.*) AS cost
                         OFFSET 0) k)) judged) s ON (true));
COMMENT ON VIEW orchestra.run_summary IS 'One row per run with totals of its steps: outcome, failures, tokens, cost. For lists: filter by time or workflow, or LIMIT the runs.';
COMMENT ON COLUMN orchestra.run_summary.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.run_summary.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.run_summary.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.run_summary.labels IS 'The workflow''s labels, from the configuration.';
COMMENT ON COLUMN orchestra.run_summary.workflow_version IS 'Version of the workflow when the run started; null before the first version. A version begins when it was first seen, or earlier: at the workflow''s last change before that, if the API sends its time.';
COMMENT ON COLUMN orchestra.run_summary.organization_id IS 'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.run_summary.user_id IS 'The user; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.run_summary.state IS 'The run''s own status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.run_summary.outcome IS 'The state; or soft_failed if the state is succeeded but the run carries an error or one of its steps soft-failed (see outcome). Success rate: succeeded / (succeeded + soft_failed + failed).';
COMMENT ON COLUMN orchestra.run_summary.tracking IS 'open: still polled; final: not read again; stale: open for too long, read once a day; gone: the API no longer has it.';
COMMENT ON COLUMN orchestra.run_summary.start_time IS 'When it started.';
COMMENT ON COLUMN orchestra.run_summary.end_time IS 'When it ended; null while it runs.';
COMMENT ON COLUMN orchestra.run_summary.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.run_summary.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.run_summary.succeeded_steps IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.run_summary.soft_failed_steps IS 'Steps with a successful status that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.run_summary.failed_steps IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.run_summary.first_failed_node IS 'Node of the first step that failed; if none failed, of the first step that soft-failed.';
COMMENT ON COLUMN orchestra.run_summary.first_error IS 'The first 500 characters of that step''s error, else of the run''s own error.';
COMMENT ON COLUMN orchestra.run_summary.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.run_summary.input_tokens IS 'Input tokens, including those read from and written to a cache. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.output_tokens IS 'Output tokens, including reasoning. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.total_tokens IS 'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.cost IS 'Cost of the priced calls, by the prices of their days; null if no call has a price and reported usage, or if prices are in several currencies.';
COMMENT ON COLUMN orchestra.run_summary.currency IS 'The currency of cost.';
COMMENT ON COLUMN orchestra.run_summary.unpriced_calls IS 'Calls missing from cost: without a price for all their usage, or successful without reported usage; all calls if prices are in several currencies.';
COMMENT ON COLUMN orchestra.run_summary.first_seen_at IS 'When the run was first loaded.';
COMMENT ON COLUMN orchestra.run_summary.updated_at IS 'When the content of the run''s own row last changed. Changes of its steps do not count.';
COMMENT ON COLUMN orchestra.run_summary.untotalled_calls IS 'Calls missing from total_tokens, because they report no tokens.';
COMMENT ON COLUMN orchestra.run_summary.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.run_summary.reported_cost IS 'Cost in US dollars, as providers report it. Summed over the calls that report it; null if none does.';
COMMENT ON COLUMN orchestra.run_summary.reported_calls IS 'Calls whose provider reports a cost.';
COMMENT ON COLUMN orchestra.run_summary.observed_at IS 'When the run''s row or its steps were last requested from the API. A run without an end had not ended at that time.';

CREATE VIEW orchestra.step_timeline AS
 SELECT r.id AS run_id,
    r.workflow_id,
    COALESCE(w.name, r.workflow_id) AS workflow_name,
    s.id AS step_id,
    s."position",
    s.node_id,
    s.node_type,
    s.model,
    s.state,
    s.outcome,
    s.start_time,
    s.end_time,
    ((EXTRACT(epoch FROM (s.start_time - s.run_begun)) * (1000)::numeric))::double precision AS offset_ms,
    s.duration_ms,
    ((EXTRACT(epoch FROM (s.start_time - COALESCE(s.waited_since, s.run_begun))) * (1000)::numeric))::double precision AS wait_ms,
    s.lane,
    s.execution,
    s.executions,
    s.error,
        CASE
            WHEN s.is_call THEN 1
            ELSE 0
        END AS calls,
    (s.used).input_tokens AS input_tokens,
    (s.used).output_tokens AS output_tokens,
    s.total_tokens,
    k.cost,
        CASE
            WHEN (k.cost IS NOT NULL) THEN p.currency
            ELSE NULL::text
        END AS currency,
    (s.used).cached_input_tokens AS cached_input_tokens,
    (s.used).reasoning_tokens AS reasoning_tokens,
    (s.used).cache_write_tokens AS cache_write_tokens,
    s.service_tier,
        CASE
            WHEN s.is_call THEN orchestra.kinds_of(s.used)
            ELSE NULL::integer
        END AS usage_kinds,
    s.reported_cost,
    s.finish_reason,
    orchestra.is_cut_off(s.finish_reason) AS cut_off,
    l.steps_observed_at AS observed_at
   FROM (((((orchestra.runs r
     LEFT JOIN orchestra_etl.run_ledger l ON ((l.run_id = r.id)))
     LEFT JOIN orchestra.workflows w ON ((w.id = r.workflow_id)))
     CROSS JOIN LATERAL ( WITH ordered AS (
                 SELECT s_1.id,
                    s_1."position",
                    s_1.node_id,
                    s_1.node_type,
                    u.model,
                    s_1.state,
                    u.outcome,
                    s_1.start_time,
                    s_1.end_time,
                    s_1.duration_ms,
                    orchestra.is_call(s_1.state, s_1.node_type, u.model, s_1.finish_reason, u.has_usage) AS is_call,
                    orchestra.error_message(s_1.error, s_1.reported_error) AS error,
                    u.used,
                    u.has_usage,
                    u.total_tokens,
                    s_1.service_tier,
                    s_1.reported_cost,
                    s_1.finish_reason,
                    LEAST(r.start_time, min(s_1.start_time) OVER ()) AS run_begun,
                    row_number() OVER (ORDER BY s_1.start_time, s_1."position", s_1.id) AS ordinal,
                        CASE
                            WHEN (s_1.state <> 'skipped'::text) THEN row_number() OVER (PARTITION BY s_1.node_id, (s_1.state = 'skipped'::text) ORDER BY s_1.start_time, s_1."position", s_1.id)
                            ELSE NULL::bigint
                        END AS execution,
                    count(*) FILTER (WHERE (s_1.state <> 'skipped'::text)) OVER (PARTITION BY s_1.node_id) AS executions
                   FROM (orchestra.steps s_1
                     CROSS JOIN LATERAL ( SELECT COALESCE(s_1.response_model, s_1.request_model) AS model,
                            orchestra.outcome(s_1.state, s_1.error, s_1.reported_error) AS outcome,
                            orchestra.plausible_usage(raw.used) AS used,
                            orchestra.has_usage(raw.used, s_1.total_tokens, s_1.reported_cost) AS has_usage,
                            orchestra.total_tokens(s_1.input_tokens, s_1.output_tokens, s_1.total_tokens) AS total_tokens
                           FROM ( SELECT ROW(s_1.input_tokens, s_1.cached_input_tokens, s_1.cache_write_tokens, s_1.cache_write_1h_tokens, s_1.input_audio_tokens, s_1.cached_audio_tokens, s_1.input_image_tokens, s_1.cached_image_tokens, s_1.input_video_tokens, s_1.output_tokens, s_1.reasoning_tokens, s_1.output_audio_tokens, s_1.output_image_tokens, s_1.output_video_tokens, s_1.citation_tokens, s_1.other_tokens, s_1.web_searches, s_1.file_searches, s_1.tool_uses, s_1.audio_ms, s_1.document_pages, s_1.search_units, s_1.unread_quantities)::orchestra.usage AS used) raw
                         OFFSET 0) u)
                  WHERE ((s_1.run_id = r.id) AND (s_1.absent_since IS NULL))
                ), placed AS (
                 SELECT l_1.ordinal,
                    l_1.lane
                   FROM (( SELECT orchestra.lanes(array_agg(ordered.start_time ORDER BY ordered.ordinal), array_agg(ordered.end_time ORDER BY ordered.ordinal)) AS lanes
                           FROM ordered
                          WHERE (ordered.start_time IS NOT NULL)) counted
                     CROSS JOIN LATERAL unnest(counted.lanes) WITH ORDINALITY l_1(lane, ordinal))
                ), ended AS (
                 SELECT ordered.end_time,
                    ordered.ordinal,
                    row_number() OVER (ORDER BY ordered.end_time, ordered.ordinal) AS number
                   FROM ordered
                  WHERE (ordered.end_time IS NOT NULL)
                ), waited AS (
                 SELECT events.ordinal,
                    max(events.number) OVER (ORDER BY events.at, events.number RANGE UNBOUNDED PRECEDING) AS ended
                   FROM ( SELECT ended.end_time AS at,
                            NULL::bigint AS ordinal,
                            ended.number
                           FROM ended
                        UNION ALL
                         SELECT ordered.start_time,
                            ordered.ordinal,
                            NULL::bigint AS number
                           FROM ordered
                          WHERE (ordered.start_time IS NOT NULL)) events
                )
         SELECT o.id,
            o."position",
            o.node_id,
            o.node_type,
            o.model,
            o.state,
            o.outcome,
            o.start_time,
            o.end_time,
            o.duration_ms,
            o.is_call,
            o.error,
            o.used,
            o.has_usage,
            o.total_tokens,
            o.service_tier,
            o.reported_cost,
            o.finish_reason,
            o.run_begun,
            o.ordinal,
            o.execution,
            o.executions,
            placed.lane,
                CASE
                    WHEN (last.ordinal = o.ordinal) THEN before.end_time
                    ELSE last.end_time
                END AS waited_since
           FROM ((((ordered o
             LEFT JOIN placed ON ((placed.ordinal = o.ordinal)))
             LEFT JOIN waited ON ((waited.ordinal = o.ordinal)))
             LEFT JOIN ended last ON ((last.number = waited.ended)))
             LEFT JOIN ended before ON ((before.number = (waited.ended - 1))))) s)
     LEFT JOIN orchestra.prices p ON (((p.model = s.model) AND s.is_call AND (NOT orchestra.is_unmetered(s.outcome, s.is_call, s.has_usage, s.used)) AND orchestra.price_applies(p.*, s.service_tier, orchestra.context_tier((s.used).input_tokens), COALESCE(s.start_time, r.start_time, r.first_seen_at)))))
     CROSS JOIN LATERAL ( SELECT orchestra.call_cost(s.used, (1)::bigint, p.*) AS cost
         OFFSET 0) k);
COMMENT ON VIEW orchestra.step_timeline IS 'One row per step, placed in its run: offset, wait, lane, execution. For one run at a time: filter by run_id.';
COMMENT ON COLUMN orchestra.step_timeline.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.step_timeline.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.step_timeline.workflow_name IS 'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.step_timeline.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.step_timeline."position" IS 'Index in the API''s response, from 0.';
COMMENT ON COLUMN orchestra.step_timeline.node_id IS 'The node that it executed.';
COMMENT ON COLUMN orchestra.step_timeline.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.step_timeline.model IS 'The model that responded, else the requested one; null: no model.';
COMMENT ON COLUMN orchestra.step_timeline.state IS 'The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.step_timeline.outcome IS 'The state; or soft_failed if the state is succeeded but the step carries an error (see outcome).';
COMMENT ON COLUMN orchestra.step_timeline.start_time IS 'When it started.';
COMMENT ON COLUMN orchestra.step_timeline.end_time IS 'When it ended; null while it runs.';
COMMENT ON COLUMN orchestra.step_timeline.offset_ms IS 'Milliseconds from the start of the run to the start of the step. If the first step started before the run, they count from that step.';
COMMENT ON COLUMN orchestra.step_timeline.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.step_timeline.wait_ms IS 'Milliseconds from the latest end of another step before this step''s start to this step''s start; from the start of the run if no step ended before.';
COMMENT ON COLUMN orchestra.step_timeline.lane IS 'The lane in which to draw the step, from 1: the first free lane, so that steps of a lane do not overlap; null if the step has not started.';
COMMENT ON COLUMN orchestra.step_timeline.execution IS 'Which execution of its node within the run this is, from 1; null if it was skipped.';
COMMENT ON COLUMN orchestra.step_timeline.executions IS 'Number of executions of the node in the run.';
COMMENT ON COLUMN orchestra.step_timeline.error IS 'The message of the step''s error: the API''s own error, else the one that the step''s payload reports.';
COMMENT ON COLUMN orchestra.step_timeline.calls IS '1 if the step is a call of a model (see is_call), else 0.';
COMMENT ON COLUMN orchestra.step_timeline.input_tokens IS 'Input tokens, including those read from and written to a cache.';
COMMENT ON COLUMN orchestra.step_timeline.output_tokens IS 'Output tokens, including reasoning.';
COMMENT ON COLUMN orchestra.step_timeline.total_tokens IS 'Total tokens: as reported, else the sum of input and output if both are known.';
COMMENT ON COLUMN orchestra.step_timeline.cost IS 'Cost by the prices of its day (UTC), service tier and length of the input; null if the model or a kind of usage of the call has no price, or if it succeeded without reported usage.';
COMMENT ON COLUMN orchestra.step_timeline.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.step_timeline.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.step_timeline.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens.';
COMMENT ON COLUMN orchestra.step_timeline.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.step_timeline.service_tier IS 'The provider''s service tier. Null if the call names none: the standard price then applies.';
COMMENT ON COLUMN orchestra.step_timeline.usage_kinds IS 'For calls: bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.step_timeline.reported_cost IS 'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.step_timeline.finish_reason IS 'Why the model stopped, in its provider''s words.';
COMMENT ON COLUMN orchestra.step_timeline.cut_off IS 'Whether the model stopped because it ran out of tokens (see is_cut_off); null if finish_reason is null.';
COMMENT ON COLUMN orchestra.step_timeline.observed_at IS 'When the run''s steps were last requested from the API. A step without an end had not ended at that time.';

CREATE TABLE orchestra_etl.alembic_version (
    version_num character varying(32) NOT NULL,
    oldest_program text DEFAULT '0001'::text NOT NULL COLLATE pg_catalog."C"
);
COMMENT ON TABLE orchestra_etl.alembic_version IS 'The revision of the schema.';
COMMENT ON COLUMN orchestra_etl.alembic_version.version_num IS 'The revision.';
COMMENT ON COLUMN orchestra_etl.alembic_version.oldest_program IS 'Head revision of the oldest program that may use this schema.';

CREATE TABLE orchestra_etl.alert_evaluation (
    id smallint NOT NULL,
    evaluated_at timestamp with time zone,
    definitions jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT alert_evaluation_one_row_check CHECK ((id = 1))
);
COMMENT ON TABLE orchestra_etl.alert_evaluation IS 'When the alerts were last evaluated. A process locks the row while it evaluates.';
COMMENT ON COLUMN orchestra_etl.alert_evaluation.id IS 'Always 1.';
COMMENT ON COLUMN orchestra_etl.alert_evaluation.evaluated_at IS 'When the rules were last evaluated.';
COMMENT ON COLUMN orchestra_etl.alert_evaluation.definitions IS 'By rule and hash of its definition: when the definition was last evaluated, in seconds since 1970. The time can be up to five minutes too early. Entries older than 15 minutes do not count.';

CREATE TABLE orchestra_etl.alert_mutes (
    rule text NOT NULL,
    muted_until timestamp with time zone NOT NULL,
    muted_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE orchestra_etl.alert_mutes IS 'Muted rules. They are evaluated, but queue no messages.';
COMMENT ON COLUMN orchestra_etl.alert_mutes.rule IS 'Name of the rule.';
COMMENT ON COLUMN orchestra_etl.alert_mutes.muted_until IS 'Time until which the rule queues no message.';
COMMENT ON COLUMN orchestra_etl.alert_mutes.muted_at IS 'When the rule was muted, or when its mute was last repaired after a change of the clock.';

CREATE TABLE orchestra_etl.alert_notifications (
    id bigint NOT NULL,
    rule text NOT NULL,
    subject text NOT NULL COLLATE pg_catalog."C",
    sequence bigint NOT NULL,
    kind text NOT NULL,
    channel text NOT NULL,
    key text NOT NULL,
    content jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone DEFAULT now(),
    leased_until timestamp with time zone,
    delivered_at timestamp with time zone,
    failure text
);
COMMENT ON TABLE orchestra_etl.alert_notifications IS 'A queue: the messages about alerts, each delivered at least once.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.id IS 'Order of the messages.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.rule IS 'Name of the rule.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.subject IS 'What the rule was evaluated for: the workflow''s id, followed by the node, model, organisation and label that the rule names.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.sequence IS 'Number of the firing that the message is about, as in alert_episodes.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.kind IS 'firing, reminder or resolved.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.channel IS 'The channel that the message is sent to.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.key IS 'Identifier of the message, equal in every delivery, so that a receiver can detect a repetition.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.content IS 'The values and names in the message, from the evaluation.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.created_at IS 'When it was queued.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.attempts IS 'Attempts to deliver it.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.next_attempt_at IS 'When the next delivery is attempted; null: the message was delivered or abandoned.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.leased_until IS 'When the claim of the current attempt ends; null: no attempt is running.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.delivered_at IS 'When the message was delivered; null: it has not been delivered.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.failure IS 'Class of the last attempt''s error; null: no attempt failed, or the last one succeeded.';

ALTER TABLE orchestra_etl.alert_notifications ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME orchestra_etl.alert_notifications_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE orchestra_etl.alerts (
    rule text NOT NULL,
    subject text NOT NULL COLLATE pg_catalog."C",
    workflow_id text NOT NULL COLLATE pg_catalog."C",
    node text,
    model text,
    organisation text,
    label text,
    state text NOT NULL,
    since timestamp with time zone NOT NULL,
    value double precision,
    threshold double precision,
    reason text,
    channels text[] NOT NULL,
    notified_at timestamp with time zone,
    reminders integer DEFAULT 0 NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL
);
COMMENT ON TABLE orchestra_etl.alerts IS 'The state of each rule and subject. A subject that was always ok has no row.';
COMMENT ON COLUMN orchestra_etl.alerts.rule IS 'Name of the rule.';
COMMENT ON COLUMN orchestra_etl.alerts.subject IS 'What the rule was evaluated for: the workflow''s id, followed by the node, model, organisation and label that the rule names.';
COMMENT ON COLUMN orchestra_etl.alerts.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra_etl.alerts.node IS 'The node that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alerts.model IS 'The model that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alerts.organisation IS 'The organisation that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alerts.label IS 'The label that the rule names; null: none.';
COMMENT ON COLUMN orchestra_etl.alerts.state IS 'ok, pending (a breach that has not lasted long enough), firing, resolved, or unknown.';
COMMENT ON COLUMN orchestra_etl.alerts.since IS 'When the state began.';
COMMENT ON COLUMN orchestra_etl.alerts.value IS 'The metric, in seconds for durations; null: the metric has no value.';
COMMENT ON COLUMN orchestra_etl.alerts.threshold IS 'The bound that the metric is compared with; null: unknown.';
COMMENT ON COLUMN orchestra_etl.alerts.reason IS 'Why the rule could not be evaluated; null: it was evaluated. A firing alert continues to fire meanwhile.';
COMMENT ON COLUMN orchestra_etl.alerts.channels IS 'The channels for which the message that the alert fires was queued.';
COMMENT ON COLUMN orchestra_etl.alerts.notified_at IS 'When the last message was queued; null: no message was queued.';
COMMENT ON COLUMN orchestra_etl.alerts.reminders IS 'Reminders queued since it fired.';
COMMENT ON COLUMN orchestra_etl.alerts.sequence IS 'How many times the alert has fired.';

CREATE TABLE orchestra_etl.changed_days (
    day date NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    queued_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');
COMMENT ON TABLE orchestra_etl.changed_days IS 'A queue: the days whose runs, steps or payloads have changed since they were last exported. It stays empty until the first export.';
COMMENT ON COLUMN orchestra_etl.changed_days.day IS 'The UTC day of runs that changed.';
COMMENT ON COLUMN orchestra_etl.changed_days.xid IS 'The transaction that changed them.';
COMMENT ON COLUMN orchestra_etl.changed_days.queued_at IS 'When the transaction began.';

ALTER TABLE orchestra_etl.changed_groups ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME orchestra_etl.changed_groups_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE orchestra_etl.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME orchestra_etl.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE orchestra_etl.export_days (
    day date NOT NULL,
    runs bigint DEFAULT 0 NOT NULL,
    steps bigint DEFAULT 0 NOT NULL,
    step_failures bigint DEFAULT 0 NOT NULL,
    run_payloads bigint DEFAULT 0 NOT NULL,
    step_payloads bigint DEFAULT 0 NOT NULL,
    archived_runs bigint DEFAULT 0 NOT NULL,
    digest text NOT NULL,
    complete_until timestamp with time zone,
    gaps integer DEFAULT 0 NOT NULL,
    snapshot_ids jsonb DEFAULT '{}'::jsonb NOT NULL,
    exported_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE orchestra_etl.export_days IS 'The days in the lake, each as of its last export.';
COMMENT ON COLUMN orchestra_etl.export_days.day IS 'The UTC day: a partition of each of the lake''s tables.';
COMMENT ON COLUMN orchestra_etl.export_days.runs IS 'Rows of the day in the lake''s table runs.';
COMMENT ON COLUMN orchestra_etl.export_days.steps IS 'Rows of the day in the lake''s table steps.';
COMMENT ON COLUMN orchestra_etl.export_days.step_failures IS 'Rows of the day in the lake''s table step_failures.';
COMMENT ON COLUMN orchestra_etl.export_days.run_payloads IS 'Rows of the day in the lake''s table run_payloads.';
COMMENT ON COLUMN orchestra_etl.export_days.step_payloads IS 'Rows of the day in the lake''s table step_payloads.';
COMMENT ON COLUMN orchestra_etl.export_days.archived_runs IS 'How many of these runs are only in the lake: they were pruned here.';
COMMENT ON COLUMN orchestra_etl.export_days.digest IS 'Digest of the day''s rows in PostgreSQL when they were exported.';
COMMENT ON COLUMN orchestra_etl.export_days.complete_until IS 'Every run of the day that started before this time is in the lake, except in gaps; null: unknown.';
COMMENT ON COLUMN orchestra_etl.export_days.gaps IS 'Number of the gaps that touch the day.';
COMMENT ON COLUMN orchestra_etl.export_days.snapshot_ids IS 'For each table of the lake: the snapshot that wrote the day.';
COMMENT ON COLUMN orchestra_etl.export_days.exported_at IS 'When the day was last exported.';

CREATE TABLE orchestra_etl.export_state (
    id smallint NOT NULL,
    location text NOT NULL,
    namespace text NOT NULL,
    payloads boolean NOT NULL,
    system_identifier text NOT NULL,
    timeline integer NOT NULL,
    database_oid bigint NOT NULL,
    definition text,
    snapshot pg_snapshot,
    whole_tables jsonb DEFAULT '{}'::jsonb NOT NULL,
    published boolean DEFAULT true NOT NULL,
    erased_runs bigint DEFAULT 0 NOT NULL,
    exported_at timestamp with time zone,
    activated_at timestamp with time zone DEFAULT now() NOT NULL,
    collected_at timestamp with time zone,
    CONSTRAINT export_state_one_row_check CHECK ((id = 1))
);
COMMENT ON TABLE orchestra_etl.export_state IS 'The export to a lake. While there is no row, no change is queued.';
COMMENT ON COLUMN orchestra_etl.export_state.id IS 'Always 1.';
COMMENT ON COLUMN orchestra_etl.export_state.location IS 'Where the lake is.';
COMMENT ON COLUMN orchestra_etl.export_state.namespace IS 'The namespace of its tables.';
COMMENT ON COLUMN orchestra_etl.export_state.payloads IS 'Whether it holds payloads.';
COMMENT ON COLUMN orchestra_etl.export_state.system_identifier IS 'System identifier of the exported PostgreSQL cluster.';
COMMENT ON COLUMN orchestra_etl.export_state.timeline IS 'The cluster''s timeline at the last export.';
COMMENT ON COLUMN orchestra_etl.export_state.database_oid IS 'The database''s OID in the cluster.';
COMMENT ON COLUMN orchestra_etl.export_state.definition IS 'Version of the definition of the lake''s tables; null: nothing is exported yet.';
COMMENT ON COLUMN orchestra_etl.export_state.snapshot IS 'The transactions that the last complete export could see; null: no export is complete.';
COMMENT ON COLUMN orchestra_etl.export_state.whole_tables IS 'For each table that is exported as a whole: digest of its rows at the last export.';
COMMENT ON COLUMN orchestra_etl.export_state.published IS 'Whether the files version-hint.text name the tables'' metadata of the last commit.';
COMMENT ON COLUMN orchestra_etl.export_state.erased_runs IS 'Total number of erased runs when the lake was last searched for erased runs.';
COMMENT ON COLUMN orchestra_etl.export_state.exported_at IS 'When the last complete export ended; null: no export is complete.';
COMMENT ON COLUMN orchestra_etl.export_state.activated_at IS 'When the queue changed_days was switched on.';
COMMENT ON COLUMN orchestra_etl.export_state.collected_at IS 'When files that the lake no longer needs were last searched for; null: never.';

ALTER TABLE orchestra_etl.gaps ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME orchestra_etl.gaps_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE orchestra_etl.iceberg_namespace_properties (
    catalog_name character varying(255) NOT NULL,
    namespace character varying(255) NOT NULL,
    property_key character varying(255) NOT NULL,
    property_value character varying(1000) NOT NULL
);
COMMENT ON TABLE orchestra_etl.iceberg_namespace_properties IS 'The namespaces of the lake, in the form of Iceberg''s JDBC catalog.';
COMMENT ON COLUMN orchestra_etl.iceberg_namespace_properties.catalog_name IS 'The catalog.';
COMMENT ON COLUMN orchestra_etl.iceberg_namespace_properties.namespace IS 'The namespace.';
COMMENT ON COLUMN orchestra_etl.iceberg_namespace_properties.property_key IS 'The property.';
COMMENT ON COLUMN orchestra_etl.iceberg_namespace_properties.property_value IS 'Its value.';

CREATE TABLE orchestra_etl.iceberg_tables (
    catalog_name character varying(255) NOT NULL,
    table_namespace character varying(255) NOT NULL,
    table_name character varying(255) NOT NULL,
    metadata_location character varying(1000),
    previous_metadata_location character varying(1000),
    iceberg_type character varying(5)
);
COMMENT ON TABLE orchestra_etl.iceberg_tables IS 'The lake''s tables, in the form of Iceberg''s JDBC catalog.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.catalog_name IS 'The catalog.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.table_namespace IS 'The namespace.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.table_name IS 'The table.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.metadata_location IS 'The table''s current metadata file.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.previous_metadata_location IS 'The table''s previous metadata file.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.iceberg_type IS 'TABLE or VIEW; null: a table.';

CREATE TABLE orchestra_etl.locks (
    name text NOT NULL
);
COMMENT ON TABLE orchestra_etl.locks IS 'Rows that processes lock for work that only one process may do at a time. Only the loader may lock them.';
COMMENT ON COLUMN orchestra_etl.locks.name IS 'What is locked.';

CREATE TABLE orchestra_etl.price_rules (
    model text NOT NULL COLLATE pg_catalog."C",
    service_tier text DEFAULT 'standard'::text NOT NULL,
    above_input_tokens integer DEFAULT 0 NOT NULL,
    valid_from date NOT NULL,
    provider text,
    currency text NOT NULL,
    input_per_million numeric,
    cached_input_per_million numeric,
    cache_write_per_million numeric,
    cache_write_1h_per_million numeric,
    input_audio_per_million numeric,
    cached_audio_per_million numeric,
    input_image_per_million numeric,
    cached_image_per_million numeric,
    input_video_per_million numeric,
    output_per_million numeric,
    reasoning_per_million numeric,
    output_audio_per_million numeric,
    output_image_per_million numeric,
    output_video_per_million numeric,
    citation_per_million numeric,
    other_per_million numeric,
    web_searches_per_thousand numeric,
    file_searches_per_thousand numeric,
    tool_uses_per_thousand numeric,
    audio_per_hour numeric,
    document_pages_per_thousand numeric,
    search_units_per_thousand numeric,
    unread_per_thousand numeric,
    calls_per_thousand numeric,
    set_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT price_rules_model_check CHECK ((length(model) <= 500))
);
COMMENT ON TABLE orchestra_etl.price_rules IS 'Price rules set by command. Rules of the configuration take precedence.';
COMMENT ON COLUMN orchestra_etl.price_rules.model IS 'The models that the rule applies to: a name in which * stands for any characters.';
COMMENT ON COLUMN orchestra_etl.price_rules.service_tier IS 'The service tier.';
COMMENT ON COLUMN orchestra_etl.price_rules.above_input_tokens IS 'For calls with more input tokens than this.';
COMMENT ON COLUMN orchestra_etl.price_rules.valid_from IS 'First day (UTC) of the price; 0001-01-01: the price applies to every earlier day.';
COMMENT ON COLUMN orchestra_etl.price_rules.provider IS 'The provider; null: that of the default prices.';
COMMENT ON COLUMN orchestra_etl.price_rules.currency IS 'Currency of the prices, such as USD.';
COMMENT ON COLUMN orchestra_etl.price_rules.input_per_million IS 'Price per million: input tokens; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.cached_input_per_million IS 'Price per million: input tokens read from a cache; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.cache_write_per_million IS 'Price per million: input tokens written to a cache; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.cache_write_1h_per_million IS 'Price per million: input tokens written to a cache that keeps them for an hour; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.input_audio_per_million IS 'Price per million: input tokens of audio; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.cached_audio_per_million IS 'Price per million: input tokens of audio read from a cache; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.input_image_per_million IS 'Price per million: input tokens of images; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.cached_image_per_million IS 'Price per million: input tokens of images read from a cache; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.input_video_per_million IS 'Price per million: input tokens of video; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.output_per_million IS 'Price per million: output tokens; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.reasoning_per_million IS 'Price per million: output tokens of reasoning; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.output_audio_per_million IS 'Price per million: output tokens of audio; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.output_image_per_million IS 'Price per million: output tokens of images; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.output_video_per_million IS 'Price per million: output tokens of video; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.citation_per_million IS 'Price per million: output tokens of citations; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.other_per_million IS 'Price per million: tokens of unknown kind; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.web_searches_per_thousand IS 'Price per thousand: web searches by the provider; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.file_searches_per_thousand IS 'Price per thousand: file searches by the provider; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.tool_uses_per_thousand IS 'Price per thousand: uses of other tools that the provider charges by use; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.audio_per_hour IS 'Price per hour: audio charged by duration; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.document_pages_per_thousand IS 'Price per thousand: document pages read; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.search_units_per_thousand IS 'Price per thousand: search units of a reranking model; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.unread_per_thousand IS 'Price per thousand: reported quantities of usage that could not be read; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.calls_per_thousand IS 'Price per thousand: calls; null: not set by the rule.';
COMMENT ON COLUMN orchestra_etl.price_rules.set_at IS 'When it was set.';

CREATE TABLE orchestra_etl.rebuilds (
    transform_version smallint NOT NULL,
    after_step_id text COLLATE pg_catalog."C",
    steps bigint DEFAULT 0 NOT NULL,
    changed bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);
COMMENT ON TABLE orchestra_etl.rebuilds IS 'Progress of orchestra-etl rebuild, which derives the columns of stored steps again with newer rules.';
COMMENT ON COLUMN orchestra_etl.rebuilds.transform_version IS 'Version of the rules that derive columns from payloads.';
COMMENT ON COLUMN orchestra_etl.rebuilds.after_step_id IS 'Id of the last step that is done, in the order of ids; null: none yet.';
COMMENT ON COLUMN orchestra_etl.rebuilds.steps IS 'Steps done so far.';
COMMENT ON COLUMN orchestra_etl.rebuilds.changed IS 'Steps that changed.';
COMMENT ON COLUMN orchestra_etl.rebuilds.started_at IS 'When the rebuild started; null: not yet.';
COMMENT ON COLUMN orchestra_etl.rebuilds.finished_at IS 'When all steps were done; null: not yet.';

CREATE TABLE orchestra_etl.redaction_policies (
    version text NOT NULL,
    rules jsonb NOT NULL,
    first_used_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE orchestra_etl.redaction_policies IS 'The redaction rules that stored rows were written under.';
COMMENT ON COLUMN orchestra_etl.redaction_policies.version IS 'The version, as in redaction_policy of the rows.';
COMMENT ON COLUMN orchestra_etl.redaction_policies.rules IS 'The rules of this version, without any key.';
COMMENT ON COLUMN orchestra_etl.redaction_policies.first_used_at IS 'When the version was first in force.';

CREATE TABLE orchestra_etl.request_budget (
    id smallint NOT NULL,
    available double precision NOT NULL,
    refilled_at timestamp with time zone DEFAULT now() NOT NULL,
    not_before timestamp with time zone,
    CONSTRAINT request_budget_one_row_check CHECK ((id = 1))
);
COMMENT ON TABLE orchestra_etl.request_budget IS 'The request budget that all replicas share.';
COMMENT ON COLUMN orchestra_etl.request_budget.id IS 'Always 1.';
COMMENT ON COLUMN orchestra_etl.request_budget.available IS 'Requests that may start now.';
COMMENT ON COLUMN orchestra_etl.request_budget.refilled_at IS 'When available was last recomputed.';
COMMENT ON COLUMN orchestra_etl.request_budget.not_before IS 'No replica sends a request before this time, because the server requested a pause; null: no pause.';

CREATE TABLE orchestra_etl.resolved_prices (
    id smallint NOT NULL,
    fingerprint bytea NOT NULL,
    resolved_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT resolved_prices_one_row_check CHECK ((id = 1))
);
COMMENT ON TABLE orchestra_etl.resolved_prices IS 'Hash of the inputs from which orchestra.prices was last computed. While they are unchanged, the prices are not computed again.';
COMMENT ON COLUMN orchestra_etl.resolved_prices.id IS 'Always 1.';
COMMENT ON COLUMN orchestra_etl.resolved_prices.fingerprint IS 'Hash of the models, the rules and the version of the default prices.';
COMMENT ON COLUMN orchestra_etl.resolved_prices.resolved_at IS 'When the prices were last resolved.';

CREATE TABLE orchestra_etl.retention (
    id smallint NOT NULL,
    payload_horizon timestamp with time zone,
    run_horizon timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT retention_one_row_check CHECK ((id = 1))
);
COMMENT ON TABLE orchestra_etl.retention IS 'How far back data is kept. Both horizons only move forward.';
COMMENT ON COLUMN orchestra_etl.retention.id IS 'Always 1.';
COMMENT ON COLUMN orchestra_etl.retention.payload_horizon IS 'Payloads of runs that ended before this time are pruned, and not stored again.';
COMMENT ON COLUMN orchestra_etl.retention.run_horizon IS 'Runs that ended before this time are pruned, and not read again.';
COMMENT ON COLUMN orchestra_etl.retention.updated_at IS 'When a horizon last moved.';

CREATE TABLE orchestra_etl.state_map (
    status text NOT NULL,
    state text NOT NULL
);
COMMENT ON TABLE orchestra_etl.state_map IS 'The configured mapping from statuses to states with which the stored states were computed.';
COMMENT ON COLUMN orchestra_etl.state_map.status IS 'A status in lower case, without spaces, hyphens and underscores.';
COMMENT ON COLUMN orchestra_etl.state_map.state IS 'The state that the configuration maps the status to.';

CREATE TABLE orchestra_etl.upgrade_lock (
);
COMMENT ON TABLE orchestra_etl.upgrade_lock IS 'Empty; the running upgrade holds a lock on it.';

CREATE TABLE orchestra_etl.workflow_refresh (
    id smallint NOT NULL,
    refreshed_at timestamp with time zone NOT NULL,
    CONSTRAINT workflow_refresh_one_row_check CHECK ((id = 1))
);
COMMENT ON TABLE orchestra_etl.workflow_refresh IS 'When the list of workflows was last read from the API.';
COMMENT ON COLUMN orchestra_etl.workflow_refresh.id IS 'Always 1.';
COMMENT ON COLUMN orchestra_etl.workflow_refresh.refreshed_at IS 'When GET /workflows was last read.';

ALTER TABLE ONLY orchestra.inputs
    ADD CONSTRAINT inputs_pkey PRIMARY KEY (step_id);

ALTER TABLE ONLY orchestra.outputs
    ADD CONSTRAINT outputs_pkey PRIMARY KEY (step_id);

ALTER TABLE ONLY orchestra.prices
    ADD CONSTRAINT prices_pkey PRIMARY KEY (model, service_tier, above_input_tokens, valid_from);

ALTER TABLE ONLY orchestra.run_payloads
    ADD CONSTRAINT run_payloads_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY orchestra.run_requests
    ADD CONSTRAINT run_requests_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra.run_rollup
    ADD CONSTRAINT run_rollup_pkey PRIMARY KEY (workflow_id, hour, ordinal);

ALTER TABLE ONLY orchestra.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra.step_failures
    ADD CONSTRAINT step_failures_pkey PRIMARY KEY (step_id);

ALTER TABLE ONLY orchestra.step_rollup_daily
    ADD CONSTRAINT step_rollup_daily_pkey PRIMARY KEY (workflow_id, day, ordinal);

ALTER TABLE ONLY orchestra.step_rollup
    ADD CONSTRAINT step_rollup_pkey PRIMARY KEY (workflow_id, hour, ordinal);

ALTER TABLE ONLY orchestra.steps
    ADD CONSTRAINT steps_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra.workflow_versions
    ADD CONSTRAINT workflow_versions_pkey PRIMARY KEY (workflow_id, first_seen_at);

ALTER TABLE ONLY orchestra.workflows
    ADD CONSTRAINT workflows_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY orchestra_etl.alert_episodes
    ADD CONSTRAINT alert_episodes_pkey PRIMARY KEY (rule, subject, sequence);

ALTER TABLE ONLY orchestra_etl.alert_evaluation
    ADD CONSTRAINT alert_evaluation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.alert_mutes
    ADD CONSTRAINT alert_mutes_pkey PRIMARY KEY (rule);

ALTER TABLE ONLY orchestra_etl.alert_notifications
    ADD CONSTRAINT alert_notifications_key_key UNIQUE (key);

ALTER TABLE ONLY orchestra_etl.alert_notifications
    ADD CONSTRAINT alert_notifications_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (rule, subject);

ALTER TABLE ONLY orchestra_etl.changed_days
    ADD CONSTRAINT changed_days_pkey PRIMARY KEY (day, xid);

ALTER TABLE ONLY orchestra_etl.changed_groups
    ADD CONSTRAINT changed_groups_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.dead_letters
    ADD CONSTRAINT dead_letters_workflow_id_run_id_reason_content_hash_key UNIQUE (workflow_id, run_id, reason, content_hash);

ALTER TABLE ONLY orchestra_etl.drift
    ADD CONSTRAINT drift_pkey PRIMARY KEY (workflow_id, subject, field, kind, found);

ALTER TABLE ONLY orchestra_etl.export_days
    ADD CONSTRAINT export_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY orchestra_etl.export_state
    ADD CONSTRAINT export_state_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.gaps
    ADD CONSTRAINT gaps_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.iceberg_namespace_properties
    ADD CONSTRAINT iceberg_namespace_properties_pkey PRIMARY KEY (catalog_name, namespace, property_key);

ALTER TABLE ONLY orchestra_etl.iceberg_tables
    ADD CONSTRAINT iceberg_tables_pkey PRIMARY KEY (catalog_name, table_namespace, table_name);

ALTER TABLE ONLY orchestra_etl.locks
    ADD CONSTRAINT locks_pkey PRIMARY KEY (name);

ALTER TABLE ONLY orchestra_etl.price_rules
    ADD CONSTRAINT price_rules_pkey PRIMARY KEY (model, service_tier, above_input_tokens, valid_from);

ALTER TABLE ONLY orchestra_etl.rebuilds
    ADD CONSTRAINT rebuilds_pkey PRIMARY KEY (transform_version);

ALTER TABLE ONLY orchestra_etl.redaction_policies
    ADD CONSTRAINT redaction_policies_pkey PRIMARY KEY (version);

ALTER TABLE ONLY orchestra_etl.request_budget
    ADD CONSTRAINT request_budget_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.resolved_prices
    ADD CONSTRAINT resolved_prices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.retention
    ADD CONSTRAINT retention_pkey PRIMARY KEY (id);

ALTER TABLE ONLY orchestra_etl.run_ledger
    ADD CONSTRAINT run_ledger_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY orchestra_etl.state_map
    ADD CONSTRAINT state_map_pkey PRIMARY KEY (status);

ALTER TABLE ONLY orchestra_etl.sweeps
    ADD CONSTRAINT sweeps_pkey PRIMARY KEY (workflow_id);

ALTER TABLE ONLY orchestra_etl.workflow_refresh
    ADD CONSTRAINT workflow_refresh_pkey PRIMARY KEY (id);

CREATE INDEX run_rollup_hour_idx ON orchestra.run_rollup USING btree (hour);

CREATE INDEX runs_start_time_idx ON orchestra.runs USING btree (start_time);

CREATE INDEX runs_unfinished_idx ON orchestra.runs USING btree (workflow_id) WHERE (state = ANY (ARRAY['pending'::text, 'running'::text, 'unknown'::text]));

CREATE INDEX runs_unstarted_idx ON orchestra.runs USING btree (workflow_id, first_seen_at) WHERE (start_time IS NULL);

CREATE INDEX runs_updated_at_idx ON orchestra.runs USING brin (updated_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX runs_workflow_id_start_time_idx ON orchestra.runs USING btree (workflow_id, start_time);

CREATE INDEX step_failures_time_idx ON orchestra.step_failures USING btree ("time");

CREATE INDEX step_failures_workflow_id_time_idx ON orchestra.step_failures USING btree (workflow_id, "time");

CREATE INDEX step_rollup_daily_day_idx ON orchestra.step_rollup_daily USING btree (day);

CREATE INDEX step_rollup_daily_model_idx ON orchestra.step_rollup_daily USING btree (model) WHERE (length(model) <= 500);

CREATE INDEX step_rollup_hour_idx ON orchestra.step_rollup USING btree (hour);

CREATE INDEX step_rollup_uncounted_idx ON orchestra.step_rollup USING btree (hour, workflow_id) WHERE ((calls > 0) AND (responses IS NULL) AND (ordinal > 0));

CREATE INDEX steps_error_idx ON orchestra.steps USING btree (run_id) WHERE ((error IS NOT NULL) OR (reported_error IS NOT NULL));

CREATE INDEX steps_reported_cost_idx ON orchestra.steps USING btree (start_time) WHERE (reported_cost IS NOT NULL);

CREATE INDEX steps_run_id_idx ON orchestra.steps USING btree (run_id);

CREATE INDEX steps_unstarted_idx ON orchestra.steps USING btree (run_id) WHERE (start_time IS NULL);

CREATE INDEX steps_updated_at_idx ON orchestra.steps USING brin (updated_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX steps_workflow_id_start_time_idx ON orchestra.steps USING btree (workflow_id, start_time);

CREATE INDEX alert_episodes_fired_at_idx ON orchestra_etl.alert_episodes USING btree (fired_at);

CREATE INDEX alert_notifications_next_attempt_at_idx ON orchestra_etl.alert_notifications USING btree (next_attempt_at) WHERE (next_attempt_at IS NOT NULL);

CREATE INDEX dead_letters_run_id_idx ON orchestra_etl.dead_letters USING btree (run_id) WHERE (resolved_at IS NULL);

CREATE INDEX gaps_workflow_id_idx ON orchestra_etl.gaps USING btree (workflow_id);

CREATE INDEX run_ledger_due_idx ON orchestra_etl.run_ledger USING btree (priority, due_at) WHERE (due_at IS NOT NULL);

CREATE INDEX run_ledger_workflow_id_tracking_idx ON orchestra_etl.run_ledger USING btree (workflow_id, tracking);

CREATE TRIGGER mark_deleted AFTER DELETE ON orchestra.runs REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_runs();
COMMENT ON TRIGGER mark_deleted ON orchestra.runs IS 'Queues the rollup groups of runs that are deleted.';

CREATE TRIGGER mark_deleted AFTER DELETE ON orchestra.steps REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_steps();
COMMENT ON TRIGGER mark_deleted ON orchestra.steps IS 'Queues the rollup groups of steps that are deleted.';

CREATE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.inputs REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_deleted_days ON orchestra.inputs IS 'Queues the days of inputs of steps that are deleted, for the export to a lake.';

CREATE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.outputs REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_deleted_days ON orchestra.outputs IS 'Queues the days of outputs of steps that are deleted, for the export to a lake.';

CREATE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.run_payloads REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_deleted_days ON orchestra.run_payloads IS 'Queues the days of payloads of runs that are deleted, for the export to a lake.';

CREATE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.runs REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_runs();
COMMENT ON TRIGGER mark_deleted_days ON orchestra.runs IS 'Queues the days of runs that are deleted, for the export to a lake.';

CREATE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.steps REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_deleted_days ON orchestra.steps IS 'Queues the days of steps that are deleted, for the export to a lake.';

CREATE TRIGGER mark_inserted AFTER INSERT ON orchestra.runs REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_runs();
COMMENT ON TRIGGER mark_inserted ON orchestra.runs IS 'Queues the rollup groups of runs that are inserted.';

CREATE TRIGGER mark_inserted AFTER INSERT ON orchestra.steps REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_steps();
COMMENT ON TRIGGER mark_inserted ON orchestra.steps IS 'Queues the rollup groups of steps that are inserted.';

CREATE TRIGGER mark_inserted_days AFTER INSERT ON orchestra.runs REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_runs();
COMMENT ON TRIGGER mark_inserted_days ON orchestra.runs IS 'Queues the days of runs that are inserted, for the export to a lake.';

CREATE TRIGGER mark_inserted_days AFTER INSERT ON orchestra.steps REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_inserted_days ON orchestra.steps IS 'Queues the days of steps that are inserted, for the export to a lake.';

CREATE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.inputs FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
COMMENT ON TRIGGER mark_truncated_days ON orchestra.inputs IS 'Queues every exported day when the table is truncated.';

CREATE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.outputs FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
COMMENT ON TRIGGER mark_truncated_days ON orchestra.outputs IS 'Queues every exported day when the table is truncated.';

CREATE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.run_payloads FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
COMMENT ON TRIGGER mark_truncated_days ON orchestra.run_payloads IS 'Queues every exported day when the table is truncated.';

CREATE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.runs FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
COMMENT ON TRIGGER mark_truncated_days ON orchestra.runs IS 'Queues every exported day when the table is truncated.';

CREATE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.steps FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
COMMENT ON TRIGGER mark_truncated_days ON orchestra.steps IS 'Queues every exported day when the table is truncated.';

CREATE TRIGGER mark_updated AFTER UPDATE ON orchestra.runs REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_runs();
COMMENT ON TRIGGER mark_updated ON orchestra.runs IS 'Queues the rollup groups of runs that change.';

CREATE TRIGGER mark_updated AFTER UPDATE ON orchestra.steps REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_steps();
COMMENT ON TRIGGER mark_updated ON orchestra.steps IS 'Queues the rollup groups of steps that change.';

CREATE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.inputs REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_updated_days ON orchestra.inputs IS 'Queues the days of inputs of steps that change, for the export to a lake.';

CREATE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.outputs REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_updated_days ON orchestra.outputs IS 'Queues the days of outputs of steps that change, for the export to a lake.';

CREATE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.run_payloads REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_updated_days ON orchestra.run_payloads IS 'Queues the days of payloads of runs that change, for the export to a lake.';

CREATE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.runs REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_runs();
COMMENT ON TRIGGER mark_updated_days ON orchestra.runs IS 'Queues the days of runs that change, for the export to a lake.';

CREATE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.steps REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
COMMENT ON TRIGGER mark_updated_days ON orchestra.steps IS 'Queues the days of steps that change, for the export to a lake.';

CREATE TRIGGER mark_complete BEFORE UPDATE ON orchestra_etl.sweeps FOR EACH ROW WHEN ((new.watermark <> old.watermark)) EXECUTE FUNCTION orchestra_etl.mark_complete();
COMMENT ON TRIGGER mark_complete ON orchestra_etl.sweeps IS 'Stores when a sweep that completes began.';

ALTER TABLE ONLY orchestra.inputs
    ADD CONSTRAINT inputs_step_id_fkey FOREIGN KEY (step_id) REFERENCES orchestra.steps(id) ON DELETE CASCADE;

ALTER TABLE ONLY orchestra.outputs
    ADD CONSTRAINT outputs_step_id_fkey FOREIGN KEY (step_id) REFERENCES orchestra.steps(id) ON DELETE CASCADE;

ALTER TABLE ONLY orchestra.run_payloads
    ADD CONSTRAINT run_payloads_run_id_fkey FOREIGN KEY (run_id) REFERENCES orchestra.runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY orchestra.step_failures
    ADD CONSTRAINT step_failures_step_id_fkey FOREIGN KEY (step_id) REFERENCES orchestra.steps(id) ON DELETE CASCADE;

ALTER TABLE ONLY orchestra.steps
    ADD CONSTRAINT steps_run_id_fkey FOREIGN KEY (run_id) REFERENCES orchestra.runs(id) ON DELETE CASCADE;
