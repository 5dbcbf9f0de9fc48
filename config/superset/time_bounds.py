"""Write the bounds of a time range as constants.

Superset writes them as calls of `to_timestamp` and `to_date`. Their result depends on the session's
settings, so PostgreSQL calls them again for each row that it compares. Over 90 days that was up to
half of the time of a query on the rollups.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import types
from superset.db_engine_specs.postgres import PostgresEngineSpec


def write_constants() -> None:
    """Make Superset write a bound as a constant; the session's time zone applies, as before."""
    PostgresEngineSpec.convert_dttm = classmethod(_constant)


def _constant(
    cls: type[PostgresEngineSpec], target_type: str, dttm: datetime, db_extra: Any = None
) -> str | None:
    sqla_type = cls.get_sqla_column_type(target_type)
    if isinstance(sqla_type, types.Date):
        return f"DATE '{dttm.date().isoformat()}'"
    if isinstance(sqla_type, types.DateTime):
        return f"TIMESTAMPTZ '{dttm.isoformat(sep=' ', timespec='microseconds')}'"
    return None
