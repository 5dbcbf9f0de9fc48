"""The building blocks of the tables of both schemas."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, Text, text
from sqlalchemy.types import TypeEngine

ANALYTICS = "orchestra"
OPERATIONS = "orchestra_etl"

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

Id = Text(collation="C")
Time = DateTime(timezone=True)
Bytes = LargeBinary()


def column(
    name: str,
    kind: TypeEngine[Any] | type[TypeEngine[Any]],
    comment: str,
    *more: Any,
    **options: Any,
) -> Column[Any]:
    """Return a column with its comment."""
    return Column(name, kind, *more, comment=comment, **options)


def now(name: str, comment: str) -> Column[Any]:
    """Return a column for a time that is set when the row is created."""
    return column(name, Time, comment, nullable=False, server_default=text("now()"))
