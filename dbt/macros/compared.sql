{# The days of workflows that tests compare with the pipeline's own views: the last days, without
   those that have changed since the marts were built or, by the look-back, may have. #}
{% macro orchestra_compared_days() %}
    SELECT w.workflow_id, d.day
    FROM {{ ref('stg_orchestra__workflows') }} AS w
    CROSS JOIN (
        SELECT CAST(day AS date) AS day
        FROM generate_series(
            CAST(now() AT TIME ZONE 'UTC' AS date) - {{ var('orchestra_compared_days') }},
            CAST(now() AT TIME ZONE 'UTC' AS date), interval '1 day') AS day
    ) AS d
    EXCEPT
    (
        WITH since AS (
            SELECT max(built_at) - interval '{{ var("orchestra_lookback") }}' AS time
            FROM {{ ref('int_orchestra__runs') }}
        ), moved AS (
            SELECT run_id FROM {{ ref('stg_orchestra__runs') }}
            WHERE updated_at >= (SELECT time FROM since)
            UNION
            SELECT run_id FROM {{ ref('stg_orchestra__steps') }}
            WHERE updated_at >= (SELECT time FROM since)
            UNION
            SELECT run_id FROM {{ ref('stg_orchestra__removed_runs') }}
            WHERE removed_at >= (SELECT time FROM since)
        )
        -- Where these runs and their steps count now, and where they counted at the build.
        SELECT workflow_id, day FROM {{ ref('stg_orchestra__runs') }} JOIN moved USING (run_id)
        UNION
        SELECT r.workflow_id, CAST(COALESCE(s.start_time, r.time) AT TIME ZONE 'UTC' AS date)
        FROM moved
        JOIN {{ ref('stg_orchestra__runs') }} AS r USING (run_id)
        JOIN {{ ref('stg_orchestra__steps') }} AS s USING (run_id)
        UNION
        SELECT workflow_id, day FROM {{ ref('int_orchestra__runs') }} JOIN moved USING (run_id)
        UNION
        SELECT workflow_id, day FROM {{ ref('int_orchestra__steps') }} JOIN moved USING (run_id)
    )
{% endmacro %}


{# The rows of one of two queries that the other lacks, on the days that are compared. #}
{% macro orchestra_differences(here, there) %}
WITH compared AS MATERIALIZED ({{ orchestra.orchestra_compared_days() }}),
here AS (SELECT h.* FROM ({{ here }}) AS h JOIN compared USING (workflow_id, day)),
there AS (SELECT t.* FROM ({{ there }}) AS t JOIN compared USING (workflow_id, day))
(SELECT 'the marts' AS only_in, * FROM here EXCEPT ALL SELECT 'the marts', * FROM there)
UNION ALL
(SELECT 'the history' AS only_in, * FROM there EXCEPT ALL SELECT 'the history', * FROM here)
{% endmacro %}
