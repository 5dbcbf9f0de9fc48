"""The tables that are exported as a whole when their rows have changed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from etl.export.lake_tables import WHOLE_TABLES, LakeTable

_DIGEST = "SELECT md5(string_agg(md5(CAST(t AS text)), '' ORDER BY CAST(t AS text))) FROM ({}) AS t"


def changed(
    connection: Connection, exported: Mapping[str, str | None]
) -> dict[LakeTable, str | None]:
    """Return the tables whose rows differ from those in the lake, with the digests of the rows.

    Args:
        connection: sees the rows.
        exported: the digests of the rows in the lake, by table.
    """
    found = {}
    for table in WHOLE_TABLES:
        current = digest(connection, table)
        if table.name not in exported or exported[table.name] != current:
            found[table] = current
    return found


def digest(connection: Connection, table: LakeTable) -> str | None:
    """Return the digest of a table's rows; None if there are none."""
    found: str | None = connection.execute(text(_DIGEST.format(table.query))).scalar_one()
    return found
