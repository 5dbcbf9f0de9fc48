"""Where the exported rows come from: the database, and its server's history.

A restored database believes that the lake holds what its last export before the backup wrote. The
lake may hold more, or less. So a restore is detected, and everything is exported again.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

# The name of the current WAL file begins with the timeline: eight hexadecimal digits.
HERE = """
    SELECT CAST(c.system_identifier AS text) AS system_identifier,
           CAST(CAST('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS bit(32)) AS integer)
               AS timeline,
           CAST(d.oid AS bigint) AS database_oid
    FROM pg_control_system() AS c, pg_database AS d
    WHERE d.datname = current_database()
"""
"""The query of this database's identity: of its cluster, of the cluster's timeline, and its own.

A physical copy has the same system identifier. A recovery to an earlier time, and a promotion,
begin a new timeline. A dump that is restored into another database of the cluster has another oid.
"""
_LOST = text(f"""
    SELECT e.system_identifier <> h.system_identifier AS other_server,
           e.timeline <> h.timeline AS other_timeline,
           e.database_oid <> h.database_oid AS other_database,
           pg_snapshot_xmax(e.snapshot) > pg_snapshot_xmax(pg_current_snapshot()) AS went_back,
           e.exported_at IS NOT NULL AND NOT EXISTS (SELECT FROM orchestra_etl.iceberg_tables)
               AS no_catalog
    FROM orchestra_etl.export_state AS e, ({HERE}) AS h
    WHERE e.id = 1
""")


def why_invalid(connection: Connection) -> str | None:
    """Return why the last export is not valid for this database; None if it is valid or missing."""
    row = connection.execute(_LOST).one_or_none()
    if row is None:
        return None
    if row.other_server:
        return "this is not the PostgreSQL cluster that was exported"
    if row.other_database:
        return "this is not the database that was exported"
    if row.other_timeline:
        return "the PostgreSQL server was restored or promoted since the last export"
    if row.went_back:
        return "the PostgreSQL server was restored to a time before the last export"
    if row.no_catalog:
        return "the catalog has lost the lake's tables"
    return None
