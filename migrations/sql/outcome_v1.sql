CREATE FUNCTION orchestra.outcome(state text, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN state = 'succeeded' AND reported_error IS NOT NULL THEN 'soft_failed' ELSE state END $$;

COMMENT ON FUNCTION orchestra.outcome(text, text) IS
    'How a step ended: its state, but soft_failed where it succeeded and an integration reported an error. Success rate: succeeded / (succeeded + soft_failed + failed).';

CREATE FUNCTION orchestra.error_message(error jsonb, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        CASE jsonb_typeof(error)
            WHEN 'object' THEN COALESCE(error ->> 'message', error ->> 'detail', error ->> 'error', error::text)
            WHEN 'null' THEN NULL
            ELSE error #>> '{}'
        END,
        reported_error)
$$;

COMMENT ON FUNCTION orchestra.error_message(jsonb, text) IS
    'What an error says, as plain text: the API''s own error, else what an integration reported.';

-- Only the beginning is folded: it tells what went wrong, and a message may hold a whole document.
CREATE FUNCTION orchestra.failure_pattern(message text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        left(message, 500),
        '"[^"]*"|`[^`]*`|(?<![[:alnum:]])''[^'']*''(?![[:alnum:]])', '<text>', 'g'),
        '[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', '<id>', 'g'),
        '\m(?:0[xX][0-9a-fA-F]+|(?=[[:alnum:]]*[0-9])(?:[0-9a-fA-F]{8,}|[[:alnum:]]{16,}))\M', '<id>', 'g'),
        '[0-9]+(?:[.,:][0-9]+)*', '<n>', 'g'),
        '[[:space:]]+', ' ', 'g'))
$$;

COMMENT ON FUNCTION orchestra.failure_pattern(text) IS
    'A failure''s message with its numbers, ids and quoted texts replaced: failures of one kind have one pattern.';
