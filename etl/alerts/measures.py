"""The figures of windows, such as the number of failed runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from etl.alerts import figure_queries
from etl.alerts.rules import Part

_HOUR = timedelta(hours=1)

_BUCKETS = text("""
    SELECT bucket, orchestra.bucket_duration(bucket) / 1000 AS seconds
    FROM unnest(CAST(:buckets AS int[])) AS b (bucket)
""")


class Window(msgspec.Struct, frozen=True, eq=False):
    """A period of a workflow, from `begun` to before `ended`: whole minutes in UTC."""

    workflow_id: str
    begun: datetime
    ended: datetime


class Figures(msgspec.Struct):
    """Sums over the runs or steps of a part of a workflow in a window."""

    total: int = 0
    """Runs or steps."""
    succeeded: int = 0
    soft_failed: int = 0
    failed: int = 0
    unfinished: int = 0
    cost: Decimal = Decimal(0)
    currencies: set[str] = msgspec.field(default_factory=set)
    tokens: int = 0
    unpriced: int = 0
    """Calls missing from `cost`."""
    untotalled: int = 0
    """Calls missing from `tokens`."""
    durations: dict[int, int] = msgspec.field(default_factory=dict)
    """The number of durations of successes in each bucket, if they were read."""

    @property
    def ended(self) -> int:
        """The number of those that succeeded or failed."""
        return self.succeeded + self.soft_failed + self.failed


class WantedWindows(msgspec.Struct):
    """The windows to read, in order, and the parts that rules need of any of them."""

    windows: dict[Window, None] = msgspec.field(default_factory=dict)
    parts: set[Part] = msgspec.field(default_factory=set)
    timed_windows: dict[Window, None] = msgspec.field(default_factory=dict)
    """The windows whose durations are needed."""
    timed_parts: set[Part] = msgspec.field(default_factory=set)


class Measures:
    """The figures of windows, by parts of the workflow."""

    def __init__(self) -> None:
        """Create measures without any window."""
        self._figures: dict[tuple[bool, Window, Part], Figures] = {}
        self.seconds: dict[int, float] = {}
        """The duration that each bucket stands for."""

    def read(
        self,
        connection: Connection,
        wanted: WantedWindows,
        *,
        of_steps: bool,
    ) -> None:
        """Read the figures of the runs, or the steps, of these windows.

        Args:
            connection: in a READ COMMITTED transaction.
            wanted: the windows, and their parts.
            of_steps: whether to read steps.
        """
        windows, parts = list(wanted.windows), list(wanted.parts)
        if not windows:
            return
        numbers = {window: number for number, window in enumerate(windows)}
        parameters = {
            "numbers": list(range(len(windows))),
            "workflow_ids": [window.workflow_id for window in windows],
            "begins": [window.begun for window in windows],
            "ends": [window.ended for window in windows],
            "with_durations": [numbers[window] for window in wanted.timed_windows],
            **_pieces(windows),
            "parts": list(range(len(parts))),
            "organisations": [part.organisation for part in parts],
            "nodes": [part.node for part in parts],
            "models": [part.model for part in parts],
            "timed": [part in wanted.timed_parts for part in parts],
        }
        query = figure_queries.STEPS if of_steps else figure_queries.RUNS
        for number, part, *figures in connection.execute(query, parameters):
            self._figures[of_steps, windows[number], parts[part]] = _figures(*figures)
        buckets = {bucket for one in self._figures.values() for bucket in one.durations}
        if buckets := buckets.difference(self.seconds):
            found = connection.execute(_BUCKETS, {"buckets": sorted(buckets)})
            self.seconds.update((row.bucket, row.seconds) for row in found)

    def figures(self, window: Window, part: Part, *, of_steps: bool) -> Figures:
        """Return the sums over a part of a window."""
        return self._figures.get((of_steps, window, part)) or Figures()


def _pieces(windows: Iterable[Window]) -> dict[str, list[Any]]:
    """Return the parts of hours that lie only partly in a window, one for each hour."""
    found: dict[tuple[str, datetime], tuple[datetime, datetime]] = {}
    for window in windows:
        for hour in {window.begun.replace(minute=0), window.ended.replace(minute=0)}:
            begun, ended = max(window.begun, hour), min(window.ended, hour + _HOUR)
            if begun >= ended or ended - begun == _HOUR:
                continue
            key = (window.workflow_id, hour)
            other = found.get(key, (begun, ended))
            found[key] = (min(begun, other[0]), max(ended, other[1]))
    ordered = sorted(found.items())
    return {
        "piece_workflow_ids": [workflow_id for (workflow_id, _), _ in ordered],
        "piece_hours": [hour for (_, hour), _ in ordered],
        "piece_begins": [begun for _, (begun, _) in ordered],
        "piece_ends": [ended for _, (_, ended) in ordered],
    }


def _figures(
    total: int,
    succeeded: int,
    soft_failed: int,
    failed: int,
    unfinished: int,
    unpriced: int,
    tokens: int,
    untotalled: int,
    currency: str | None,
    other_currency: str | None,
    cost: Decimal | None,
    buckets: Sequence[int] | None,
    counts: Sequence[int] | None,
) -> Figures:
    """Return the figures of a row of `figure_queries`."""
    return Figures(
        total=total,
        succeeded=succeeded,
        soft_failed=soft_failed,
        failed=failed,
        unfinished=unfinished,
        cost=cost or Decimal(0),
        currencies={one for one in (currency, other_currency) if one is not None},
        tokens=tokens,
        unpriced=unpriced,
        untotalled=untotalled,
        durations=dict(zip(buckets or (), counts or (), strict=True)),
    )
