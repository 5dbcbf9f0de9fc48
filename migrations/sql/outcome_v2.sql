CREATE OR REPLACE FUNCTION orchestra.outcome(state text, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN state = 'succeeded' AND reported_error IS NOT NULL THEN 'soft_failed' ELSE state END $$;

COMMENT ON FUNCTION orchestra.outcome(text, text) IS
    'How a step ended: its state, but soft_failed where it succeeded and an integration reported an error. Success rate: succeeded / (succeeded + soft_failed + failed).';

-- A code node or an integration may have an input of its own that is called model; a skipped step only says what it would ask.
CREATE OR REPLACE FUNCTION orchestra.is_call(
    state text, node_type text, model text, input_tokens bigint, output_tokens bigint, total_tokens bigint
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT num_nonnulls(input_tokens, output_tokens, total_tokens) > 0
        OR (model IS NOT NULL AND COALESCE(node_type, '') NOT IN ('code', 'integration') AND state NOT IN ('pending', 'skipped'))
$$;

COMMENT ON FUNCTION orchestra.is_call(text, text, text, bigint, bigint, bigint) IS
    'Whether a step called a model: it reports tokens, or names a model, is neither code nor an integration, and was neither skipped nor is it still to come.';

-- One that failed and reports nothing is taken to have cost nothing; one that runs will still report.
CREATE OR REPLACE FUNCTION orchestra.is_unmetered(
    state text, node_type text, model text, input_tokens bigint, output_tokens bigint, total_tokens bigint
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT input_tokens IS NULL AND output_tokens IS NULL AND (state = 'succeeded' OR total_tokens IS NOT NULL)
       AND orchestra.is_call(state, node_type, model, input_tokens, output_tokens, total_tokens)
$$;

COMMENT ON FUNCTION orchestra.is_unmetered(text, text, text, bigint, bigint, bigint) IS
    'Whether a step called a model without saying how many tokens went in or came out, so that no price tells what it cost.';

-- The first that says something; empty texts, objects and lists say nothing.
CREATE OR REPLACE FUNCTION orchestra.error_message(error jsonb, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        CASE jsonb_typeof(error)
            WHEN 'object' THEN COALESCE(
                NULLIF(error ->> 'message', ''), NULLIF(error #>> '{error,message}', ''),
                NULLIF(error ->> 'detail', ''), NULLIF(error #>> '{error,detail}', ''),
                NULLIF(error ->> 'error', ''), NULLIF(error::text, '{}'))
            WHEN 'array' THEN NULLIF(error::text, '[]')
            WHEN 'string' THEN NULLIF(error #>> '{}', '')
            WHEN 'number' THEN error::text
            WHEN 'boolean' THEN NULLIF(error::text, 'false')
        END,
        NULLIF(reported_error, ''))
$$;

COMMENT ON FUNCTION orchestra.error_message(jsonb, text) IS
    'What an error says, as plain text: the API''s own error, else what an integration reported.';

-- In this order: keys lose their quotes; what stands under a key that tells the kind of failure loses them, too, so that its words
-- stay; every other quoted text goes, one that the cut has left open included. Then ids: UUIDs; hexadecimal numbers; words of
-- letters and digits that are long, or stand behind a prefix such as req_. Last the numbers, but for a status of three digits.
-- Only the beginning is folded, which tells what went wrong: a message may hold a whole document.
CREATE OR REPLACE FUNCTION orchestra.failure_pattern(message text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT left(btrim(
        regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        regexp_replace(regexp_replace(regexp_replace(
        left(message, 4000),
        '["'']([[:alpha:]][[:alnum:]_.-]{0,40})["'']: *', '\1: ', 'g'),
        '\m(code|detail|error|message|msg|reason|status|title|type): "((?:[^"\\]|\\.)*)"', '\1: \2', 'g'),
        '\m(code|detail|error|message|msg|reason|status|title|type): ''((?:[^''\\]|\\.)*)''', '\1: \2', 'g'),
        '\\["''][^"''\\]*\\["'']|"(?:[^"\\]|\\.)*"|`[^`]*`|“[^”]*”|«[^»]*»|(?<![[:alnum:]])[''‘](?:[^''’\\]|\\.)*[''’](?![[:alnum:]])', '<text>', 'g'),
        CASE WHEN length(message) > 4000 THEN '["`“«][^"`”»]*$|(?<![[:alnum:]])[''‘][^''’]*$' ELSE '(?!)' END, '<text>'),
        '[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', '<id>', 'g'),
        '(?<![[:alnum:]])(?:0[xX][0-9a-fA-F]+|(?=[[:alnum:]]*[0-9])(?=[[:alnum:]]*[[:alpha:]])(?:[0-9a-fA-F]{8,}|[[:alnum:]]{16,}))(?![[:alnum:]])',
            '<id>', 'g'),
        '\m([[:alpha:]]{2,12}[_-])(?=[[:alnum:]]*[0-9])(?=[[:alnum:]]*[[:alpha:]])[[:alnum:]]{8,}(?![[:alnum:]])', '\1<id>', 'g'),
        '(?<![0-9])(?:(?<!\m(?:code|status|status code|error|http(?:/[0-9.]+)?)[:=]? ?)[0-9]+|[0-9]{1,2}(?![0-9])|[0-9]{4,})(?:[.,:][0-9]+)*',
            '<n>', 'gi'),
        '[[:space:]]+', ' ', 'g')), 500)
$$;

COMMENT ON FUNCTION orchestra.failure_pattern(text) IS
    'A failure''s message with its numbers, ids and quoted texts replaced: failures of one kind have one pattern.';
