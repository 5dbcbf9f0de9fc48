-- Triggers queue the groups of every write: by a load, an erasure, a changed state map or a person.
-- They run as the schema's owner, so that writers of steps and runs need no rights on the queue.
-- A group is an hour of a workflow. A run counts in the hour of its start, else in the hour in
-- which it was first seen; a step in the hour of its start, else in the hour of its run. A step with
-- an error can also make its run a soft failure.
-- The trigger locks the runs that it looks up until the transaction ends. Otherwise a run that
-- moves to another hour in the meantime could be looked up in its old hour, and its new hour could
-- be computed before this transaction is visible.
CREATE FUNCTION orchestra_etl.mark_steps() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run_ids text[] := '{}';
    more text[];
BEGIN
    IF TG_OP <> 'INSERT' THEN
        run_ids := ARRAY(SELECT DISTINCT run_id FROM before WHERE error IS NOT NULL
            OR reported_error IS NOT NULL OR start_time IS NULL);
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', start_time, 'UTC') FROM before
            WHERE start_time IS NOT NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        more := ARRAY(SELECT DISTINCT run_id FROM after WHERE error IS NOT NULL
            OR reported_error IS NOT NULL OR start_time IS NULL);
        run_ids := run_ids || more;
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', start_time, 'UTC') FROM after
            WHERE start_time IS NOT NULL;
    END IF;
    IF run_ids <> '{}' THEN
        PERFORM FROM orchestra.runs WHERE id = ANY (run_ids) ORDER BY id FOR SHARE;
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
        FROM orchestra.runs
        WHERE id = ANY (run_ids);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION orchestra_etl.mark_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
            FROM before;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC')
            FROM after;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER mark_inserted AFTER INSERT ON orchestra.steps
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_steps();
CREATE TRIGGER mark_updated AFTER UPDATE ON orchestra.steps
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT
        EXECUTE FUNCTION orchestra_etl.mark_steps();
CREATE TRIGGER mark_deleted AFTER DELETE ON orchestra.steps
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_steps();
CREATE TRIGGER mark_inserted AFTER INSERT ON orchestra.runs
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_runs();
CREATE TRIGGER mark_updated AFTER UPDATE ON orchestra.runs
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT
        EXECUTE FUNCTION orchestra_etl.mark_runs();
CREATE TRIGGER mark_deleted AFTER DELETE ON orchestra.runs
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_runs();

COMMENT ON FUNCTION orchestra_etl.mark_steps() IS
    'Queues the rollup groups of steps that are written, before and after.';
COMMENT ON FUNCTION orchestra_etl.mark_runs() IS
    'Queues the rollup groups of runs that are written, before and after.';
COMMENT ON TRIGGER mark_inserted ON orchestra.steps IS
    'Queues the rollup groups of steps that are inserted.';
COMMENT ON TRIGGER mark_updated ON orchestra.steps IS
    'Queues the rollup groups of steps that change.';
COMMENT ON TRIGGER mark_deleted ON orchestra.steps IS
    'Queues the rollup groups of steps that are deleted.';
COMMENT ON TRIGGER mark_inserted ON orchestra.runs IS
    'Queues the rollup groups of runs that are inserted.';
COMMENT ON TRIGGER mark_updated ON orchestra.runs IS
    'Queues the rollup groups of runs that change.';
COMMENT ON TRIGGER mark_deleted ON orchestra.runs IS
    'Queues the rollup groups of runs that are deleted.';
