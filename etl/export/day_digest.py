"""What PostgreSQL holds of a day: a digest of the versions of its rows.

The digest covers the number of the rows, and the id and the version (`xmin`) of each. A row's
version changes with every write, even one that leaves `updated_at` alone, such as pruning. So equal
digests prove that nothing was written since, without reading the content; and the digest reveals
nothing about content. `verify` with `deep` compares the values.

PostgreSQL hashes each row. An export adds up the hashes while it reads the day for the lake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import date

from sqlalchemy import Connection

from etl.database import allow_long
from etl.export.lake_tables import LakeTable

_MODULUS = 1 << 64


class DayDigest:
    """The digest of a day, from the rows of its tables in any order."""

    def __init__(self) -> None:
        """Start with no rows."""
        self._tables: dict[str, tuple[int, int]] = {}

    def add(self, table: LakeTable, rows: int, hashes: int) -> None:
        """Add rows of a table.

        Args:
            table: the table.
            rows: their number.
            hashes: the sum of their hashes; see `LakeTable.version`.
        """
        before = self._tables.get(table.name, (0, 0))
        self._tables[table.name] = (before[0] + rows, (before[1] + hashes) % _MODULUS)

    def text(self) -> str:
        """Return the digest."""
        digest = hashlib.blake2b(digest_size=16)
        for name, (rows, hashes) in sorted(self._tables.items()):
            if rows:
                digest.update(f"{name} {rows} {hashes}\n".encode())
        return digest.hexdigest()


def describe(connection: Connection, tables: Iterable[LakeTable], day: date) -> str:
    """Return the digest of a day, as this transaction sees it.

    Args:
        connection: in a transaction, with the settings for reading days.
        tables: the tables that are exported.
        day: the day.
    """
    allow_long(connection)
    digest = DayDigest()
    for table in tables:
        if table.version is not None:
            found = connection.exec_driver_sql(
                f"SELECT count(*), COALESCE(sum({table.version}), 0) FROM {table.source}",
                {"day": day},
            ).one()
            digest.add(table, *map(int, found))
    return digest.text()
