"""The group roles, and which of them a user lacks to whom PostgreSQL refuses something (SQLSTATE 42501)."""

from __future__ import annotations

import re

from psycopg.sql import Identifier
from sqlalchemy import Connection, Row, text

from etl.tables import ANALYTICS, OPERATIONS

MIGRATOR = "orchestra_migrator"
LOADER = "orchestra_loader"
ANALYST = "orchestra_analyst"
PAYLOAD_ANALYST = "orchestra_payload_analyst"

# A message that PostgreSQL may write in any language: of its words only those count that name an object of ours.
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_WORDS = 200

# What the loader may do to a table, of which this user may not; views and tables alike.
_OBJECTS = text("""
    WITH object AS (
        SELECT 1 AS rank, c.relname AS word, format('%I.%I', n.nspname, c.relname) AS name, c.relowner AS owner,
               (SELECT string_agg(p, ', ') FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p
                WHERE NOT has_table_privilege(c.oid, p)
                  AND (has_table_privilege(l.oid, c.oid, p) OR (p <> 'DELETE' AND has_any_column_privilege(l.oid, c.oid, p)))
               ) AS missing
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_roles AS l ON l.rolname = :loader
        WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        UNION ALL
        SELECT 2, p.proname, format('%I.%I', n.nspname, p.proname), p.proowner,
               CASE WHEN NOT has_function_privilege(p.oid, 'EXECUTE') AND has_function_privilege(l.oid, p.oid, 'EXECUTE')
                    THEN 'EXECUTE' END
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        LEFT JOIN pg_roles AS l ON l.rolname = :loader
        WHERE n.nspname = ANY (CAST(:schemas AS text[]))
        UNION ALL
        SELECT 3, n.nspname, format('schema %I', n.nspname), n.nspowner,
               CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(l.oid, n.oid, 'USAGE')
                    THEN 'USAGE' END
        FROM pg_namespace AS n LEFT JOIN pg_roles AS l ON l.rolname = :loader
        WHERE n.nspname = ANY (CAST(:schemas AS text[]))
    )
    SELECT name, missing, pg_get_userbyid(owner) AS owner FROM object
    WHERE word = ANY (CAST(:words AS text[])) ORDER BY rank, name LIMIT 1
""")

_USER = text("""
    SELECT current_user AS name, current_setting('server_version_num')::integer >= 160000 AS grants_inherit,
           (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = :schema) AS owner
""")

_MEMBERSHIP = text("""
    SELECT pg_has_role(oid, 'MEMBER') AS is_member, pg_has_role(oid, 'USAGE') AS inherits FROM pg_roles WHERE rolname = :role
""")


def quoted(name: str) -> str:
    """A name as SQL has it; what is no printable character, which a name may hold, is replaced."""
    shown = "".join(one if one.isprintable() else "?" for one in name)
    return shown if re.fullmatch(r"[a-z_][a-z0-9_]*", shown) else Identifier(shown).as_string()


def explain(connection: Connection, message: str, *, changes_schema: bool = False) -> str:
    """Who was refused what, and which role would allow it.

    Args:
        connection: of the same user, in a transaction that works.
        message: PostgreSQL's, in any language; nothing of it is shown but names of objects in our schemas.
        changes_schema: whether it was an upgrade, for which the owner is needed whatever was refused.
    """
    words = list(dict.fromkeys(_WORD.findall(message)))[:_WORDS]
    user = connection.execute(_USER, {"schema": OPERATIONS}).one()
    found = connection.execute(
        _OBJECTS, {"words": words, "schemas": [ANALYTICS, OPERATIONS], "loader": LOADER}
    ).one_or_none()
    owner = (found.owner if found is not None else None) or user.owner
    what = f"on {found.name}" if found is not None else f"in the schemas {ANALYTICS} and {OPERATIONS}"
    loads = found is not None and found.missing is not None and not changes_schema
    lacking = f"{found.missing} {what}" if found is not None and loads else f"a privilege {what}"
    role = LOADER if loads else MIGRATOR
    return (
        f"the database user {quoted(user.name)} lacks {lacking}, which the role {role} has (SQLSTATE 42501): "
        f"{_advice(connection, user, role, owner)}"
    )


def _advice(connection: Connection, user: Row[tuple[str, bool, str | None]], role: str, owner: str | None) -> str:
    name = quoted(user.name)
    as_owner = f"connect as {quoted(owner)}, who owns the object" if owner else "connect as the database's owner"
    known = connection.execute(_MEMBERSHIP, {"role": role}).one_or_none()
    if known is None:
        return (
            f"{as_owner}, or let an administrator run `orchestra-etl db roles` (it makes that role) and "
            f"GRANT {role} TO {name}"
        )
    if known.inherits:
        return f"{name} is a member of it, but its grants are incomplete: let {role}'s members run `orchestra-etl db roles`"
    if known.is_member:
        how = f"GRANT {role} TO {name} WITH INHERIT TRUE" if user.grants_inherit else f"ALTER ROLE {name} INHERIT"
        return f"{name} is a member of it without inheriting from it; let an administrator run {how}"
    return f"let an administrator run GRANT {role} TO {name}, or {as_owner}"
