-- For count(DISTINCT ...) PostgreSQL sorts all rows by all columns of a grouping: 0.8 s for 160,000
-- failures by kind. This aggregate collects the values and sorts them group by group: 0.15 s.
CREATE FUNCTION orchestra.count_distinct(items text[]) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT count(DISTINCT item COLLATE "C") FROM unnest(items) AS i (item) $$;

COMMENT ON FUNCTION orchestra.count_distinct(text[]) IS
    'The number of distinct texts: count_distinct(array_agg(x)) equals count(DISTINCT x), and is '
    'faster if rows are grouped.';
