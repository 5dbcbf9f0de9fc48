{{ config(materialized='view') }}

-- A view, because a changed price changes the cost of past calls.
SELECT s.step_id,
       s.run_id,
       p.provider,
       k.cost,
       CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency
FROM {{ ref('int_orchestra__steps') }} AS s
CROSS JOIN LATERAL (SELECT {{ orchestra.orchestra_usage('s') }} AS used OFFSET 0) AS u
LEFT JOIN {{ source('orchestra', 'prices') }} AS p
  ON p.model = s.model AND NOT s.is_unmetered
 AND orchestra.price_applies(p, s.service_tier, s.context_tier, s.time)
CROSS JOIN LATERAL (SELECT orchestra.call_cost(u.used, 1, p) AS cost OFFSET 0) AS k
WHERE s.is_call AND s.absent_since IS NULL
