"""What PostgreSQL holds of a day: the number of its rows, and a digest of their versions.

The digest covers the id and the version (`xmin`) of each row. A row's version changes with every
write, even one that leaves `updated_at` alone, such as pruning. So equal digests prove that nothing
was written since, without reading the content; and the digest reveals nothing about content.
`verify` with `deep` compares the values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date

import msgspec
from sqlalchemy import Connection

from etl.database import allow_long
from etl.export.lake_tables import LakeTable

# By table of the lake: the rows of PostgreSQL that its rows are made from.
_VERSIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "runs": (("r", "id"),),
    "steps": (("s", "id"),),
    # They follow from the runs and steps.
    "step_failures": (),
    "run_payloads": (("p", "run_id"),),
    "step_payloads": (("i", "step_id"), ("o", "step_id")),
}


class DayState(msgspec.Struct, frozen=True):
    """The rows of a day in PostgreSQL."""

    rows: Mapping[str, int]
    """By table of the lake."""
    digest: str


def describe(connection: Connection, tables: Iterable[LakeTable], day: date) -> DayState:
    """Return the state of a day, as this transaction sees it.

    Args:
        connection: in a transaction, with the settings for reading days.
        tables: the tables that are exported.
        day: the day.
    """
    allow_long(connection)
    digest = hashlib.blake2b(digest_size=16)
    rows = {}
    for table in tables:
        versions = "".join(
            f", sum(hashtextextended({alias}.{key}, CAST(CAST({alias}.xmin AS text) AS bigint)))"
            for alias, key in _VERSIONS[table.name]
        )
        found = connection.exec_driver_sql(
            f"SELECT count(*){versions} FROM {table.source}", {"day": day}
        ).one()
        rows[table.name] = found[0]
        digest.update(f"{table.name} {' '.join(map(str, found))}\n".encode())
    return DayState(rows, digest.hexdigest())
