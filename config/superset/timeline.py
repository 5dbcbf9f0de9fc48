"""Fill the gaps of a time series at the grain of its query.

If an hour has no row, a line chart connects its neighbours, and the only two bars of a day are
drawn hours wide. Superset can add missing rows, but only at the interval that the chart names,
while the filter Grain changes the grain of the query. `fill_at_grain` makes it use the coarser of
the two. The chart still sets the method: without a row a count is 0, and a rate, a percentile or a
cost is unknown.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from superset.common.query_object import QueryObject

RULES = {"PT1H": "1h", "P1D": "1D", "P1W": "W-MON", "P1M": "MS", "P3M": "QS", "P1Y": "YS"}
"""Pandas' interval for each grain, the finest first. Weeks begin on Monday, as in PostgreSQL."""
SHORTEST = {"1h": pd.Timedelta(hours=1), "1D": pd.Timedelta(days=1)}
MAX_ROWS = 20_000
"""Maximum number of rows of a filled series: two years of hours.

One run with a wrong year must not use all memory.
"""


def fill_at_grain() -> None:
    """Make Superset fill the gaps of a series at the grain of its query."""
    process = QueryObject.exec_post_processing

    def exec_post_processing(query: QueryObject, rows: pd.DataFrame) -> pd.DataFrame:
        stored = query.post_processing
        query.post_processing = [
            step if step.get("operation") != "resample" else adapted
            for step in stored
            if step.get("operation") != "resample"
            or (adapted := _adapted(step, query, rows)) is not None
        ]
        try:
            return process(query, rows)
        finally:
            # It is part of the key of the cached result.
            query.post_processing = stored

    QueryObject.exec_post_processing = exec_post_processing


def _adapted(step: dict[str, Any], query: QueryObject, rows: pd.DataFrame) -> dict[str, Any] | None:
    """Return the step at the grain of the query; None if the series would be too long."""
    axes = [
        one
        for one in query.columns
        if isinstance(one, dict) and one.get("columnType") == "BASE_AXIS"
    ]
    options = step["options"]
    order = list(RULES.values())
    if len(axes) != 1 or axes[0]["label"] not in rows or options["rule"] not in order:
        return step
    rule = max(
        options["rule"], RULES.get(axes[0].get("timeGrain"), options["rule"]), key=order.index
    )
    times = rows[axes[0]["label"]].dropna()
    if (
        not times.empty
        and (times.max() - times.min()) / SHORTEST.get(rule, pd.Timedelta(days=7)) > MAX_ROWS
    ):
        return None
    return {**step, "options": {**options, "rule": rule}}
