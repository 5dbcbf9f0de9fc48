SELECT run_id,
       workflow_id,
       tracking AS removed_by,
       removed_at
FROM {{ source('orchestra', 'removed_runs') }}
