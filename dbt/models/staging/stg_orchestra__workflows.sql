SELECT id AS workflow_id,
       COALESCE(name, id) AS workflow_name,
       description,
       labels,
       first_seen_at,
       updated_at
FROM {{ source('orchestra', 'workflows') }}
