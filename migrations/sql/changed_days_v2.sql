-- Triggers queue the days of every write for the export to a lake: by a load, an erasure, retention,
-- a redaction, a changed state map or a person. They do nothing until the export is set up. They
-- run as the schema's owner, so that writers need no rights on the queue.
-- Change detection by `updated_at` would lose the rows of a transaction that commits late, and see
-- neither pruned payloads nor the former day of a run that moves.

-- The writers' order of locks: an upgrade must not deadlock with a load.
LOCK TABLE orchestra.runs, orchestra.run_payloads, orchestra.steps, orchestra.inputs,
    orchestra.outputs IN SHARE ROW EXCLUSIVE MODE;

CREATE OR REPLACE FUNCTION orchestra_etl.run_day(start_time timestamptz, first_seen_at timestamptz)
RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CAST(
    CASE WHEN start_time BETWEEN '0001-01-01T00:00Z' AND '9999-12-31T23:59:59.999999Z'
         THEN start_time
         WHEN first_seen_at BETWEEN '0001-01-01T00:00Z' AND '9999-12-31T23:59:59.999999Z'
         THEN first_seen_at
         ELSE '0001-01-01T00:00Z' END AT TIME ZONE 'UTC' AS date);

CREATE OR REPLACE FUNCTION orchestra_etl.mark_days_of_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM orchestra_etl.export_state) THEN
        RETURN NULL;
    END IF;
    -- A run that moves to another day changes both days.
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO orchestra_etl.changed_days (day)
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) FROM before
        ON CONFLICT DO NOTHING;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO orchestra_etl.changed_days (day)
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) FROM after
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

-- The runs are locked until the transaction ends. Otherwise a run that moves to another day in the
-- meantime could be looked up in its former day, and its new day could be exported before this
-- transaction is visible. The day of a run that is gone was queued when the run was deleted.
-- A payload is inserted with its run or step, or together with a change of it.
-- PostgreSQL would plan a statement with an array anew in each call: four times the cost.
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

CREATE OR REPLACE FUNCTION orchestra_etl.mark_every_day() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.changed_days (day) SELECT day FROM orchestra_etl.export_days
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER mark_inserted_days AFTER INSERT ON orchestra.runs
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_runs();
CREATE OR REPLACE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.runs
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_runs();
CREATE OR REPLACE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.runs
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_runs();
CREATE OR REPLACE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.runs
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
CREATE OR REPLACE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.run_payloads
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.run_payloads
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.run_payloads
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
CREATE OR REPLACE TRIGGER mark_inserted_days AFTER INSERT ON orchestra.steps
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.steps
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.steps
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.steps
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
CREATE OR REPLACE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.inputs
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.inputs
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.inputs
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();
CREATE OR REPLACE TRIGGER mark_updated_days AFTER UPDATE ON orchestra.outputs
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_deleted_days AFTER DELETE ON orchestra.outputs
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_days_of_parts();
CREATE OR REPLACE TRIGGER mark_truncated_days AFTER TRUNCATE ON orchestra.outputs
    FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_every_day();

COMMENT ON FUNCTION orchestra_etl.run_day(timestamptz, timestamptz) IS
    'The UTC day of a run in the lake: of its start; if that is missing or outside the years 1 to '
    '9999, of when the run was first seen.';
COMMENT ON FUNCTION orchestra_etl.mark_days_of_runs() IS
    'Queues the days of runs that are written, before and after.';
COMMENT ON FUNCTION orchestra_etl.mark_days_of_parts() IS
    'Queues the days of the runs whose steps or payloads are written.';
COMMENT ON FUNCTION orchestra_etl.mark_every_day() IS 'Queues every exported day.';
COMMENT ON TRIGGER mark_inserted_days ON orchestra.runs IS
    'Queues the days of runs that are inserted, for the export to a lake.';
COMMENT ON TRIGGER mark_updated_days ON orchestra.runs IS
    'Queues the days of runs that change, for the export to a lake.';
COMMENT ON TRIGGER mark_deleted_days ON orchestra.runs IS
    'Queues the days of runs that are deleted, for the export to a lake.';
COMMENT ON TRIGGER mark_truncated_days ON orchestra.runs IS
    'Queues every exported day when the table is truncated.';
COMMENT ON TRIGGER mark_updated_days ON orchestra.run_payloads IS
    'Queues the days of payloads of runs that change, for the export to a lake.';
COMMENT ON TRIGGER mark_deleted_days ON orchestra.run_payloads IS
    'Queues the days of payloads of runs that are deleted, for the export to a lake.';
COMMENT ON TRIGGER mark_truncated_days ON orchestra.run_payloads IS
    'Queues every exported day when the table is truncated.';
COMMENT ON TRIGGER mark_inserted_days ON orchestra.steps IS
    'Queues the days of steps that are inserted, for the export to a lake.';
COMMENT ON TRIGGER mark_updated_days ON orchestra.steps IS
    'Queues the days of steps that change, for the export to a lake.';
COMMENT ON TRIGGER mark_deleted_days ON orchestra.steps IS
    'Queues the days of steps that are deleted, for the export to a lake.';
COMMENT ON TRIGGER mark_truncated_days ON orchestra.steps IS
    'Queues every exported day when the table is truncated.';
COMMENT ON TRIGGER mark_updated_days ON orchestra.inputs IS
    'Queues the days of inputs of steps that change, for the export to a lake.';
COMMENT ON TRIGGER mark_deleted_days ON orchestra.inputs IS
    'Queues the days of inputs of steps that are deleted, for the export to a lake.';
COMMENT ON TRIGGER mark_truncated_days ON orchestra.inputs IS
    'Queues every exported day when the table is truncated.';
COMMENT ON TRIGGER mark_updated_days ON orchestra.outputs IS
    'Queues the days of outputs of steps that change, for the export to a lake.';
COMMENT ON TRIGGER mark_deleted_days ON orchestra.outputs IS
    'Queues the days of outputs of steps that are deleted, for the export to a lake.';
COMMENT ON TRIGGER mark_truncated_days ON orchestra.outputs IS
    'Queues every exported day when the table is truncated.';
