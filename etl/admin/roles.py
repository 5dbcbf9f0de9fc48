"""Group roles with least privileges, driven by the list of tables and of their payload columns.

The roles belong to the whole cluster, what they may do to one database. Nothing here is ever dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects import postgresql

from etl.database import Database
from etl.errors import DatabaseError
from etl.tables import ANALYTICS, OPERATIONS, PRIVATE, analytics, metadata, operations, prices, rollups

MIGRATOR = "orchestra_migrator"
LOADER = "orchestra_loader"
ANALYST = "orchestra_analyst"
PAYLOAD_ANALYST = "orchestra_payload_analyst"

PURPOSES: Mapping[str, str] = {
    MIGRATOR: "owns both schemas: db upgrade, prune, erase, untrack",
    LOADER: "what sync, serve, backfill, track, status, dead-letters and gaps need",
    ANALYST: "reads everything in orchestra but payloads and hashes of them",
    PAYLOAD_ANALYST: "reads payloads, too",
}

_READ = "SELECT"
_APPENDED = "SELECT, INSERT"
_UPSERTED = "SELECT, INSERT, UPDATE"
_REDACTED = "SELECT, INSERT, UPDATE, DELETE"
"""Redaction rules that come later leave nothing of a payload: its row goes."""

LOADED: Mapping[Table, str] = {
    analytics.workflows: _UPSERTED,
    # Rows that an older program or schema has left undated are dated once.
    analytics.workflow_versions: f"{_APPENDED}, UPDATE (updated_at)",
    analytics.runs: _UPSERTED,
    analytics.run_payloads: _REDACTED,
    analytics.steps: _UPSERTED,
    analytics.inputs: _REDACTED,
    analytics.outputs: _REDACTED,
    # Groups are computed anew, whole; redaction rules that come later take away names.
    rollups.step_rollup: "SELECT, INSERT, DELETE, UPDATE (organization_id, model)",
    rollups.step_rollup_daily: "SELECT, INSERT, DELETE, UPDATE (organization_id, model)",
    rollups.run_rollup: "SELECT, INSERT, DELETE, UPDATE (organization_id)",
    rollups.step_failures: _REDACTED,
    prices.prices: _REDACTED,
    prices.price_rules: _REDACTED,
    prices.resolved_prices: _UPSERTED,
    # The queues and the map are emptied.
    rollups.changed_groups: "SELECT, INSERT, DELETE",
    rollups.dirty_groups: "SELECT, INSERT, DELETE",
    # To lock a row takes the right to change it.
    operations.locks: "SELECT, UPDATE",
    analytics.run_requests: "SELECT, DELETE",
    operations.state_map: "SELECT, INSERT, DELETE",
    operations.run_ledger: _UPSERTED,
    operations.sweeps: _UPSERTED,
    operations.gaps: _UPSERTED,
    operations.dead_letters: _UPSERTED,
    operations.drift: _UPSERTED,
    operations.request_budget: _UPSERTED,
    operations.described: _UPSERTED,
    operations.redaction_policies: _APPENDED,
    operations.retention: _READ,
}
"""What the loader may do to each table."""

_SCHEMAS = f"{ANALYTICS}, {OPERATIONS}"
_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]


class Applied(msgspec.Struct, frozen=True):
    """What was done."""

    created: tuple[str, ...]
    """Roles that were not there before."""
    former_owners: tuple[str, ...]
    """Ordinary users who owned a part of the schema until now, and have lost what they could do by that."""


_MAY_CREATE = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")

_EXISTING = text("SELECT rolname FROM pg_roles WHERE rolname = ANY (CAST(:names AS text[]))")

# Whoever makes the roles must be able to hand over to the migrator, and to upgrade later. A superuser is a member of all.
_IS_MEMBER = text("SELECT pg_has_role(CAST(:member AS name), CAST(:role AS name), 'USAGE')")

_DATABASE = text("""
    SELECT quote_ident(datname) AS name, pg_has_role(datdba, 'USAGE') AS mine FROM pg_database WHERE datname = current_database()
""")

_MAY_WORK = text("""
    SELECT bool_and(has_database_privilege(w.role, current_database(), w.privilege))
    FROM unnest(CAST(:roles AS text[]), CAST(:privileges AS text[])) AS w (role, privilege)
""")

# The sequence of an identity column (deptype i) follows its table.
_OBJECTS = """
    SELECT 'SCHEMA' AS kind, quote_ident(nspname) AS name, nspowner AS owner, 0 AS place
    FROM pg_namespace WHERE nspname = ANY (CAST(:schemas AS text[]))
    UNION ALL
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
           format('%I.%I', n.nspname, c.relname), c.relowner, 1
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend AS d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i' AND c.relkind = 'S')
    UNION ALL
    SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, 1
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = ANY (CAST(:schemas AS text[]))
"""

_OWNED = text(f"""
    SELECT o.kind, o.name, r.rolname AS owner, r.rolsuper OR r.rolname = current_user AS keeps_all
    FROM ({_OBJECTS}) AS o JOIN pg_roles AS r ON r.oid = o.owner
    WHERE r.rolname <> :migrator
    ORDER BY o.place, o.name
""")

# Views run with the right of their owner, who reads everything: one that reads a payload column, itself or by another
# view, shows payloads. (A whole row taken as one value leaves no such trace in the catalogue; no view of ours may do that.)
_VIEWS = text("""
    WITH RECURSIVE revealing AS (
        SELECT w.ev_class
        FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[])) AS p (table_name, column_name)
        JOIN pg_attribute AS a ON a.attrelid = to_regclass(p.table_name) AND a.attname = p.column_name
        JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
        JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
        UNION
        SELECT w.ev_class
        FROM revealing AS v
        JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.ev_class
        JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    )
    SELECT format('%I.%I', n.nspname, c.relname) AS name,
           c.oid IN (SELECT ev_class FROM revealing) AS reveals
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('v', 'm')
    ORDER BY 1
""")

_IN_USE = text(f"""
    SELECT pg_get_userbyid(nspowner) = '{MIGRATOR}' AND pg_has_role(nspowner, 'USAGE')
    FROM pg_namespace WHERE nspname = '{ANALYTICS}'
""")


def apply(database: Database) -> Applied:
    """Create the roles, or bring them up to date, in one transaction.

    Args:
        database: with the current schema, connected as the schema's owner with CREATEROLE, or as a superuser.

    Raises:
        DatabaseError: this user may not do that; nothing was changed.
    """
    return database.transaction(_apply)


def refresh(database: Database) -> bool:
    """Bring the grants up to date after an upgrade, where this database uses the roles; whether it does.

    A user who is no member of the migrator cannot have upgraded anything, and changes nothing.
    """
    return database.transaction(_refresh)


def _apply(connection: Connection) -> Applied:
    _wait_for_upgrades(connection)
    existing = set(connection.execute(_EXISTING, {"names": list(PURPOSES)}).scalars())
    missing = [role for role in PURPOSES if role not in existing]
    if missing and not connection.execute(_MAY_CREATE).scalar_one():
        raise DatabaseError(
            "this database user may not create roles: run `orchestra-etl db roles` once as a user with CREATEROLE, "
            "such as the server's administrator"
        )
    for role in missing:
        connection.exec_driver_sql(f"CREATE ROLE {role} NOLOGIN")
        connection.exec_driver_sql(f"COMMENT ON ROLE {role} IS 'orchestra-etl: {PURPOSES[role]}'")
    me = connection.exec_driver_sql("SELECT current_user").scalar_one()
    for member, role in ((PAYLOAD_ANALYST, ANALYST), (me, MIGRATOR)):
        if not connection.execute(_IS_MEMBER, {"member": member, "role": role}).scalar_one():
            connection.exec_driver_sql(f"GRANT {role} TO {_quote(member)}")
    _open_database(connection)
    former_owners = _hand_over(connection)
    _grant(connection)
    return Applied(tuple(missing), former_owners)


def _refresh(connection: Connection) -> bool:
    if not connection.execute(_IN_USE).scalar_one_or_none():
        return False
    _wait_for_upgrades(connection)
    _grant(connection)
    return True


def _wait_for_upgrades(connection: Connection) -> None:
    """Grants made side by side, or beside an upgrade, would fail: they change the same rows of the catalogue."""
    connection.exec_driver_sql(f"LOCK TABLE {OPERATIONS}.alembic_version IN SHARE ROW EXCLUSIVE MODE")


def _open_database(connection: Connection) -> None:
    database = connection.execute(_DATABASE).one()
    wanted = {MIGRATOR: ("CONNECT", "TEMPORARY"), LOADER: ("CONNECT", "TEMPORARY"), ANALYST: ("CONNECT",)}
    grants = [
        f"GRANT {', '.join(privileges)} ON DATABASE {database.name} TO {role}" for role, privileges in wanted.items()
    ]
    if database.mine:
        for grant in grants:
            connection.exec_driver_sql(grant)
    pairs = [(role, privilege) for role, privileges in wanted.items() for privilege in privileges]
    roles, names = zip(*pairs, strict=True)
    if not connection.execute(_MAY_WORK, {"roles": list(roles), "privileges": list(names)}).scalar_one():
        raise DatabaseError(f"this user does not own the database: its owner must first run {'; '.join(grants)}")


def _hand_over(connection: Connection) -> tuple[str, ...]:
    """Make the migrator the owner of everything; the ordinary users who were it."""
    found = connection.execute(_OWNED, {"schemas": [ANALYTICS, OPERATIONS], "migrator": MIGRATOR}).all()
    for one in found:
        connection.exec_driver_sql(f"ALTER {one.kind} {one.name} OWNER TO {MIGRATOR}")
    return tuple(sorted({one.owner for one in found if not one.keeps_all}))


def _grant(connection: Connection) -> None:
    # As the owner: then a later run, whoever does it, can take back what this one gives.
    connection.exec_driver_sql(f"SET LOCAL ROLE {MIGRATOR}")
    hidden = [(table.fullname, column) for table, columns in PRIVATE.items() for column in columns]
    views = connection.execute(
        _VIEWS, {"schema": ANALYTICS, "tables": [one[0] for one in hidden], "columns": [one[1] for one in hidden]}
    ).all()
    for statement in (*_revocations(), *_grants(), *_view_grants({row.name: row.reveals for row in views})):
        connection.exec_driver_sql(statement)


def _revocations() -> Iterator[str]:
    everybody = f"PUBLIC, {LOADER}, {ANALYST}, {PAYLOAD_ANALYST}"
    for kind in ("TABLES", "SEQUENCES", "ROUTINES"):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA {_SCHEMAS} FROM {everybody}"
    yield f"REVOKE ALL ON SCHEMA {_SCHEMAS} FROM {everybody}"


def _grants() -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {_SCHEMAS} TO {LOADER}"
    yield f"GRANT USAGE ON SCHEMA {ANALYTICS} TO {ANALYST}"
    yield f"GRANT SELECT ON {OPERATIONS}.alembic_version TO {LOADER}"
    yield f"GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {_SCHEMAS} TO {LOADER}"
    yield f"GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {ANALYTICS} TO {ANALYST}"
    for table, privileges in LOADED.items():
        yield f"GRANT {privileges} ON {table.fullname} TO {LOADER}"
    for table in metadata.sorted_tables:
        if table.schema != ANALYTICS:
            continue
        private = PRIVATE.get(table)
        if private is None:
            yield f"GRANT SELECT ON {table.fullname} TO {ANALYST}"
        else:
            open_to_all = [column.name for column in table.columns if column.name not in private]
            yield f"GRANT SELECT ({', '.join(map(_quote, open_to_all))}) ON {table.fullname} TO {ANALYST}"
            yield f"GRANT SELECT ({', '.join(map(_quote, private))}) ON {table.fullname} TO {PAYLOAD_ANALYST}"


def _view_grants(reveals: Mapping[str, bool]) -> Iterator[str]:
    for view, reveals_payloads in reveals.items():
        yield f"GRANT SELECT ON {view} TO {PAYLOAD_ANALYST if reveals_payloads else ANALYST}, {LOADER}"
