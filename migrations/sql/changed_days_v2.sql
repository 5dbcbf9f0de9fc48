-- A transaction that has written the runs of these rows has queued their days, and holds the runs'
-- locks. It does so in nearly every load, which writes a run together with its steps. To lock each
-- of these runs once more would write to the run's row and to the WAL.
-- A run that a subtransaction has written is looked up.
CREATE OR REPLACE FUNCTION orchestra_etl.mark_days_of_parts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    run_ids text[];
BEGIN
    IF NOT EXISTS (SELECT FROM orchestra_etl.export_state
                   WHERE payloads OR TG_TABLE_NAME = 'steps') THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME IN ('inputs', 'outputs') THEN
        run_ids := ARRAY(SELECT DISTINCT s.run_id
                         FROM before AS b JOIN orchestra.steps AS s ON s.id = b.step_id);
    ELSIF TG_OP = 'INSERT' THEN
        run_ids := ARRAY(SELECT DISTINCT run_id FROM after);
    ELSIF TG_OP = 'DELETE' THEN
        run_ids := ARRAY(SELECT DISTINCT run_id FROM before);
    ELSE
        run_ids := ARRAY(SELECT run_id FROM before UNION SELECT run_id FROM after);
    END IF;
    IF EXISTS (SELECT FROM orchestra.runs
               WHERE id = ANY (run_ids) AND xmin <> CAST(pg_current_xact_id() AS xid)) THEN
        WITH locked AS (
            SELECT start_time, first_seen_at FROM orchestra.runs
            WHERE id = ANY (run_ids) AND xmin <> CAST(pg_current_xact_id() AS xid)
            ORDER BY id FOR SHARE
        )
        INSERT INTO orchestra_etl.changed_days (day)
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) FROM locked
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
