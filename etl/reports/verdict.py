"""The verdict on a workflow: whether data arrives, whether a person must act, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from sqlalchemy import Row

from etl.terminal import counted

Verdict = Literal["ok", "warning", "failing"]
_BY_SEVERITY: tuple[Verdict, ...] = ("ok", "warning", "failing")


class WatchedWorkflow(msgspec.Struct, frozen=True):
    """A workflow, with the limits that decide its verdict."""

    id: str
    max_age: float
    """Seconds after which the last complete sweep, or a due live run, counts as overdue."""
    name: str | None = None
    discover: bool = True
    """Whether its run list is swept."""


class Reason(msgspec.Struct, frozen=True):
    """Why a verdict is not `ok`."""

    level: Literal["warning", "failing"]
    text: str


def reasons_of(row: Row[tuple[object, ...]], watched: WatchedWorkflow) -> tuple[Reason, ...]:
    """Return the reasons against `ok`.

    `failing` means that no data arrives, `warning` that a person must act.
    """
    reasons: list[Reason] = []
    overdue = row.at - timedelta(seconds=watched.max_age)
    if watched.discover:
        if row.swept_at is None:
            if row.last_error is not None:
                reasons.append(
                    Reason(
                        "failing",
                        f"no sweep has completed yet; the last one failed: {row.last_error}",
                    )
                )
            elif not row.sweeping:
                reasons.append(
                    Reason(
                        "warning",
                        "not swept yet: start `orchestra-etl serve`, or run `orchestra-etl sync`",
                    )
                )
        elif row.swept_at < overdue:
            why = row.last_error or "check that the service runs"
            reasons.append(
                Reason("failing", f"no complete sweep since {_instant(row.swept_at)}: {why}")
            )
        elif row.last_error is not None:
            reasons.append(Reason("warning", f"the last sweep failed: {row.last_error}"))
        if row.list_problem is not None:
            reasons.append(Reason("warning", f"the run list: {row.list_problem}"))
    if row.oldest_live_due is not None and row.oldest_live_due < overdue:
        reasons.append(
            Reason(
                "failing",
                f"runs have waited to be read since {_instant(row.oldest_live_due)}: "
                "check that the service runs",
            )
        )
    if row.failing:
        reasons.append(
            Reason(
                "warning",
                f"reading fails for runs: {row.failing:,} (`orchestra-etl runs show` shows why)",
            )
        )
    if row.unacknowledged_gaps:
        reasons.append(
            Reason(
                "warning",
                f"gaps not acknowledged: {row.unacknowledged_gaps:,} (`orchestra-etl gaps list`)",
            )
        )
    if row.conflicting_runs:
        taken = (
            "runs not stored because another workflow has a run with the same id: "
            f"{row.conflicting_runs:,}"
        )
        reasons.append(Reason("warning", f"{taken} (`orchestra-etl dead-letters list --all`)"))
    if row.repaired_runs:
        missing = (
            "runs missing from the tables at the last walk of the whole list: "
            f"{row.repaired_runs:,}"
        )
        reasons.append(
            Reason("warning", f"{missing}; they are read again: find out who deletes them")
        )
    if row.stuck_hours:
        reasons.append(
            Reason(
                "warning",
                f"hours that cannot be counted: {row.stuck_hours:,} "
                "(`orchestra-etl rollups verify`)",
            )
        )
    if row.dead_letters:
        reasons.append(
            Reason(
                "warning", f"dead letters: {row.dead_letters:,} (`orchestra-etl dead-letters list`)"
            )
        )
    if row.window_full and row.new_runs is not None and 2 * row.new_runs > row.listed_runs:
        reasons.append(
            Reason(
                "warning",
                f"the last sweep found {counted(row.new_runs, 'new run')} where the list shows "
                f"{row.listed_runs:,}: sweep more often",
            )
        )
    return tuple(reasons)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of these verdicts; `ok` if there is none."""
    return max(verdicts, key=_BY_SEVERITY.index, default="ok")


def _instant(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"
