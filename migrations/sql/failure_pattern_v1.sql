-- Codes are numbers that distinguish kinds of failures. The function finds them first and hides
-- their digits as characters of Unicode's private use area, which no later pattern treats as digits.
-- At the end it turns them into digits again.
-- Only the beginning of a message is used: it says what went wrong, and a message may contain a
-- whole document.
CREATE FUNCTION orchestra.failure_pattern(message text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
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
$$;

COMMENT ON FUNCTION orchestra.failure_pattern(text) IS
    'A failure''s message with numbers, ids, times, addresses, names and quoted texts replaced; '
    'codes stay. Failures of one kind have one pattern.';
