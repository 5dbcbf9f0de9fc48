-- A trigger, because sweeps of programs before this revision complete here too. The watermark moves
-- only when the latest sweep completes, so started_at is the time at which that sweep began.
CREATE FUNCTION orchestra_etl.mark_complete() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.complete_until := NEW.started_at;
    RETURN NEW;
END
$$;

CREATE TRIGGER mark_complete BEFORE UPDATE ON orchestra_etl.sweeps
    FOR EACH ROW WHEN (NEW.watermark <> OLD.watermark)
    EXECUTE FUNCTION orchestra_etl.mark_complete();

COMMENT ON FUNCTION orchestra_etl.mark_complete() IS
    'Stores when a sweep that completes began.';
COMMENT ON TRIGGER mark_complete ON orchestra_etl.sweeps IS
    'Stores when a sweep that completes began.';
