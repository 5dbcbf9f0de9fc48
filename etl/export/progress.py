"""How far an export has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from etl.export.lake import Lake

Progress = Callable[[int, int, int], None]
"""Called after each day with the days done, the days left, and the rows written."""


class ExportPart(msgspec.Struct, frozen=True):
    """The result of one transaction."""

    lake: Lake | None
    """The lake, to be published after the commit; None if nothing has changed."""
    days: Sequence[date]
    """The days that were replaced."""
    rows: Mapping[str, int]
    """By table: the rows that were written."""
    waiting: int
    """The days that are still queued."""
