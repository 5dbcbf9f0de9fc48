{{
    config(
        unique_key='step_id',
        indexes=[
            {'columns': ['step_id'], 'unique': true},
            {'columns': ['run_id']},
            {'columns': ['changed_at']},
            {'columns': ['workflow_id', 'day', 'built_at']},
        ],
        pre_hook='{{ orchestra.orchestra_delete_removed() }}',
    )
}}
-- depends_on: {{ ref('stg_orchestra__removed_runs') }}

-- Absent steps stay here, marked, so that a step which becomes absent is followed like any other
-- change. A step without a start counts on the day of its run, so it is copied with its run, too.
{% if is_incremental() %}
WITH touched AS (
    SELECT step_id FROM {{ ref('stg_orchestra__steps') }}
    WHERE updated_at >= {{ orchestra.orchestra_copied_until() }}
    UNION
    SELECT s.step_id
    FROM {{ ref('stg_orchestra__runs') }} AS r
    JOIN {{ ref('stg_orchestra__steps') }} AS s ON s.run_id = r.run_id
    WHERE r.updated_at >= {{ orchestra.orchestra_copied_until() }}
)
{% endif %}
SELECT s.*,
       COALESCE(s.start_time, r.time) AS time,
       CAST(COALESCE(s.start_time, r.time) AT TIME ZONE 'UTC' AS date) AS day,
       GREATEST(s.updated_at, r.updated_at) AS changed_at,
       now() AS built_at
FROM {{ ref('stg_orchestra__steps') }} AS s
JOIN {{ ref('stg_orchestra__runs') }} AS r ON r.run_id = s.run_id
{% if is_incremental() %}
WHERE s.step_id IN (SELECT step_id FROM touched)
{% endif %}
