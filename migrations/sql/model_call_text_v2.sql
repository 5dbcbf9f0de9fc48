-- The functions below read requests and responses of models by the places of content_shapes. No value
-- raises an error, and none takes more than a few passes: paths are `lax`, arrays are read up to
-- 10,000 elements, texts are parsed as JSON up to 2^20 characters and 100 levels. The result for a
-- value beyond a bound is null, never a part of it. Their plans are long: compiling them (JIT) takes
-- thousands of times as long as one execution, so those that a query calls directly switch it off.

-- PostgreSQL before 16 can only try to parse a text, and an exception block is not parallel safe. So this
-- checks the text first: it replaces strings and numbers by one letter each, and then the innermost
-- lists and objects, until one letter is left.
CREATE OR REPLACE FUNCTION orchestra.parsed_json(said text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000
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

COMMENT ON FUNCTION orchestra.parsed_json(text) IS
    'The value of a JSON text; null if the text is not JSON, if jsonb cannot hold it, or if it has '
    'more than 2^20 characters, 100 levels, or a number of more than 250 digits.';

-- A line that starts with a bracket begins an event, any other continues the one before it.
CREATE OR REPLACE FUNCTION orchestra.stream_events(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.stream_events(jsonb) IS
    'The events of a stream that is kept as a text or as a list of lines, as an array: server-sent '
    'events, or lines of JSON; null for anything else, if an event is not JSON, and beyond the '
    'bounds of parsed_json.';

-- Some integrations return the response as a JSON text, or the events of a stream as a text. The
-- planner can inline this function.
CREATE OR REPLACE FUNCTION orchestra.opened(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 100
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

COMMENT ON FUNCTION orchestra.opened(jsonb) IS
    'A payload; that of a JSON text with an object or an array; the events of a stream that is kept '
    'as a text or as a list of lines; null for any other text.';

-- A request or response is not searched for another one.
CREATE OR REPLACE FUNCTION orchestra.model_bodies(payload jsonb, direction text)
RETURNS TABLE (place integer[], streamed boolean, body jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 ROWS 2
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

COMMENT ON FUNCTION orchestra.model_bodies(jsonb, text) IS
    'The requests or responses (the direction) in a payload, with their position, and whether an '
    'array contains them. Searched are the payload, its containers (see request_containers and '
    'response_containers) and elements of arrays of at most 10,000, to a depth of 5.';

-- Some models write their reasoning before the answer, and some servers leave it there.
CREATE OR REPLACE FUNCTION orchestra.without_reasoning(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN r.tag IS NULL THEN said
                ELSE NULLIF(ltrim(substr(said, NULLIF(strpos(said, r.tag), 0) + length(r.tag)),
                                  E' \t\n\r'), '') END
    FROM (SELECT '</' || substring(said FROM '^[ \t\n\r]*<(think|thinking)>') || '>' OFFSET 0)
        AS r (tag)
$$;

COMMENT ON FUNCTION orchestra.without_reasoning(text) IS
    'An answer without a block <think> or <thinking> at its start; null if nothing follows the '
    'block, or if it has no end.';

CREATE OR REPLACE FUNCTION orchestra.parts_text(content jsonb, separator text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 100
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.parts_text(jsonb, text) IS
    'The texts of a list of parts, joined with the separator; null if there is none.';

-- The planner can inline this function; most contents are texts.
CREATE OR REPLACE FUNCTION orchestra.content_text(content jsonb, separator text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE jsonb_typeof(content) WHEN 'string' THEN NULLIF(content #>> '{}', '')
                                      ELSE orchestra.parts_text(content, separator) END
$$;

COMMENT ON FUNCTION orchestra.content_text(jsonb, text) IS
    'The text of a message''s content, be it a text or a list of parts, without reasoning; several '
    'texts joined with the separator; null if there is none.';

CREATE OR REPLACE FUNCTION orchestra.request_messages(inputs jsonb)
RETURNS TABLE (ordinal bigint, role text, text text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 ROWS 4
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

COMMENT ON FUNCTION orchestra.request_messages(jsonb) IS
    'The messages of a model''s request that have text, in their order, with the role that wrote '
    'them; a prompt without a role is the user''s. No row for an unknown shape, and for more than '
    '10,000 messages.';

CREATE OR REPLACE FUNCTION orchestra.prompt_text(inputs jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
AS $$
    SELECT CASE WHEN count(*) = 1 THEN min(m.text)
                ELSE string_agg(m.role || ': ' || m.text, E'\n\n' ORDER BY m.ordinal) END
    FROM orchestra.request_messages(inputs) AS m
    WHERE m.role NOT IN ('system', 'developer')
$$;

COMMENT ON FUNCTION orchestra.prompt_text(jsonb) IS
    'What a step''s inputs ask a model, without the system text: the text of the only message, or '
    'each message as "role: text" with a blank line between; null for an unknown shape, for a '
    'request without text, and for more than 10,000 messages.';

CREATE OR REPLACE FUNCTION orchestra.system_text(inputs jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
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

COMMENT ON FUNCTION orchestra.system_text(jsonb) IS
    'The system text in a step''s inputs: that of the request, and its system and developer '
    'messages, with a blank line between; null if there is none, or for an unknown shape.';

-- A stream can report the whole answer at its end. Its pieces are then not repeated.
CREATE OR REPLACE FUNCTION orchestra.answer_text(outputs jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.answer_text(jsonb) IS
    'The visible answer in a step''s outputs, without reasoning: the parts of a message and the '
    'events of a stream joined without anything between, several choices with a blank line between; '
    'null for an unknown shape, for an answer without text, and for more than 10,000 events.';

CREATE OR REPLACE FUNCTION orchestra.called_tools(outputs jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.called_tools(jsonb) IS
    'The tools that a model calls in a step''s outputs, in their order, as objects with name and '
    'arguments; arguments that are a JSON text are parsed. Null if it calls none, or for an '
    'unknown shape.';

-- All parts of all contents of a request or response.
CREATE OR REPLACE FUNCTION orchestra.content_parts(body jsonb) RETURNS SETOF jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 ROWS 4
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.content_parts(jsonb) IS
    'The parts that are objects in all contents of a model''s request or response.';

-- A payload is a request or contains responses, never both.
CREATE OR REPLACE FUNCTION orchestra.media_bodies(payload jsonb) RETURNS SETOF jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 ROWS 2
AS $$
    WITH requests AS (SELECT body FROM orchestra.model_bodies(payload, 'request'))
    SELECT body FROM requests
    UNION ALL
    SELECT body FROM orchestra.model_bodies(payload, 'response')
    WHERE NOT EXISTS (SELECT FROM requests)
$$;

COMMENT ON FUNCTION orchestra.media_bodies(jsonb) IS
    'The requests of a model in a payload; if there are none, the responses.';

CREATE OR REPLACE FUNCTION orchestra.image_count(payload jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
AS $$
    SELECT CAST(sum(
        (SELECT count(*) FROM orchestra.content_parts(b.body) AS c (part)
         WHERE orchestra.is_image(c.part))
        + (SELECT count(*) FROM orchestra.image_places() AS p
           CROSS JOIN LATERAL jsonb_path_query(b.body, p.path, '{}', true) AS m (medium)
           WHERE b.body ? p.member AND jsonb_typeof(m.medium) <> 'null')) AS integer)
    FROM orchestra.media_bodies(payload) AS b (body)
$$;

COMMENT ON FUNCTION orchestra.image_count(jsonb) IS
    'The number of images in the inputs or outputs of a step that called a model; null for an '
    'unknown shape.';

CREATE OR REPLACE FUNCTION orchestra.audio_count(payload jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
AS $$
    SELECT CAST(sum(
        (SELECT count(*) FROM orchestra.content_parts(b.body) AS c (part)
         WHERE orchestra.is_audio(c.part))
        + (SELECT count(*) FROM orchestra.audio_places() AS p
           CROSS JOIN LATERAL jsonb_path_query(b.body, p.path, '{}', true) AS m (medium)
           WHERE b.body ? p.member AND jsonb_typeof(m.medium) <> 'null')) AS integer)
    FROM orchestra.media_bodies(payload) AS b (body)
$$;

COMMENT ON FUNCTION orchestra.audio_count(jsonb) IS
    'The number of pieces of audio in the inputs or outputs of a step that called a model; null '
    'for an unknown shape.';

CREATE OR REPLACE FUNCTION orchestra.call_parameters(inputs jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 SET jit = off
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.call_parameters(jsonb) IS
    'The settings in a step''s inputs, such as temperature and max_tokens: those of the known names '
    '(see parameter_names), and other numbers and booleans that are no ids; null for an unknown '
    'shape.';
