"""The group roles, and which of them a user lacks to whom PostgreSQL refuses something (SQLSTATE 42501)."""

from __future__ import annotations

import re

from psycopg.sql import Identifier
from sqlalchemy import Connection, text

from etl.tables import ANALYTICS, OPERATIONS

MIGRATOR = "orchestra_migrator"
LOADER = "orchestra_loader"
ANALYST = "orchestra_analyst"
PAYLOAD_ANALYST = "orchestra_payload_analyst"

# A message that PostgreSQL may write in any language: of its words only those count that name an
# object of ours.
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
    SELECT current_user AS name, pg_has_role(r.oid, 'MEMBER') AS is_member, pg_has_role(r.oid, 'USAGE') AS inherits,
           (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = :schema) AS owner
    FROM (SELECT) AS one LEFT JOIN pg_roles AS r ON r.rolname = :role
""")


def quoted(name: str) -> str:
    """A name as SQL has it; what is no printable character, which a name may hold, is replaced."""
    shown = "".join(one if one.isprintable() else "?" for one in name)
    return shown if re.fullmatch(r"[a-z_][a-z0-9_]*", shown) else Identifier(shown).as_string()


def membership(connection: Connection, role: str, member: str) -> str:
    """The statement that makes somebody a member of a role with all that it may do.

    Since PostgreSQL 16 that is said with the grant; before, the member's own INHERIT decided.
    """
    since_16 = connection.execute(
        text("SELECT current_setting('server_version_num')::integer >= 160000")
    ).scalar_one()
    return f"GRANT {role} TO {quoted(member)}" + (
        " WITH INHERIT TRUE, SET TRUE" if since_16 else ""
    )


def explain(connection: Connection, message: str, *, changes_schema: bool = False) -> str:
    """Who was refused what, and which role would allow it.

    Args:
        connection: of the same user, in a transaction that works.
        message: PostgreSQL's, in any language; nothing of it is shown but names of objects in our schemas.
        changes_schema: whether it was an upgrade, for which the owner is needed whatever was refused.
    """
    words = list(dict.fromkeys(_WORD.findall(message)))[:_WORDS]
    found = connection.execute(
        _OBJECTS, {"words": words, "schemas": [ANALYTICS, OPERATIONS], "loader": LOADER}
    ).one_or_none()
    if found is None:
        return lacks(
            connection, f"a privilege in the schemas {ANALYTICS} and {OPERATIONS}", MIGRATOR
        )
    if changes_schema:
        return lacks(connection, f"a privilege on {found.name}", MIGRATOR, found.owner)
    if found.missing is None:
        more = f"; if {LOADER} should have it, too, run `orchestra-etl db roles` again"
        return lacks(connection, f"a privilege on {found.name}", MIGRATOR, found.owner) + more
    return lacks(connection, f"{found.missing} on {found.name}", LOADER, found.owner)


def lacks(connection: Connection, what: str, role: str, owner: str | None = None) -> str:
    """That this user lacks something which a role of ours has, and what would help.

    Args:
        connection: of this user.
        what: such as `INSERT on orchestra.runs`.
        role: one of the four above.
        owner: of the object; None: the schema's.
    """
    user = connection.execute(_USER, {"schema": OPERATIONS, "role": role}).one()
    name, owner = quoted(user.name), owner or user.owner
    as_owner = (
        f"connect as {quoted(owner)}, who owns it" if owner else "connect as the database's owner"
    )
    if user.is_member is None:
        advice = f"{as_owner}, or let an administrator run `orchestra-etl db roles`, then GRANT {role} TO {name}"
    elif user.inherits:
        advice = f"{name} is a member of it, but what it may do was changed by hand: run `orchestra-etl db roles` again"
    elif user.is_member:
        statement = membership(connection, role, user.name)
        advice = (
            f"{name} is a member of it that does not inherit: let an administrator run {statement}"
        )
        if "INHERIT" not in statement:
            advice = f"{name} is a member of it that does not inherit: let an administrator run ALTER ROLE {name} INHERIT"
    else:
        advice = f"let an administrator run GRANT {role} TO {name}, or {as_owner}"
    return f"the database user {name} lacks {what}, which the role {role} has (SQLSTATE 42501): {advice}"
