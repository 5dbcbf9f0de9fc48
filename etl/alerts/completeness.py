"""Why figures of a workflow in a period of the past may be incomplete."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection

from etl.alerts import knowledge
from etl.alerts.knowledge import PATIENCE, Known, Pauses
from etl.terminal import counted

_MINUTE = timedelta(minutes=1)


def problems(
    connection: Connection, workflow: str, begun: datetime, ended: datetime
) -> tuple[str, ...]:
    """Return what may be missing from a period of a workflow, a short sentence each.

    Args:
        connection: in a transaction.
        workflow: the workflow's id.
        begun: the start of the period.
        ended: the first moment after the period; a later time than now counts as now.
    """
    at = knowledge.now(connection)
    found = knowledge.read(connection, at, Pauses({workflow: None}))
    return tuple(_problems(found[0], begun, min(ended, at))) if found else ()


def _problems(known: Known, begun: datetime, ended: datetime) -> Iterator[str]:
    if known.complete_until is None:
        yield "no sweep has completed yet"
    elif known.complete_until < ended - timedelta(seconds=PATIENCE):
        yield f"no complete sweep since {_time(known.complete_until)}"
    if known.since is not None and known.since > begun:
        yield f"the history begins at {_time(known.since)}"
    if known.has_gap(begun, ended):
        yield "runs may have been missed: see `gaps list`"
    if known.horizon is not None and known.is_pruned(begun):
        yield f"runs that ended before {_time(known.horizon)} are pruned"
    if known.is_recomputed:
        yield "the rollups of many hours are being recomputed"
    if known.is_stuck(begun, ended):
        yield "the rollups of some hours cannot be computed"
    # Waiting runs are counted by whole minutes.
    first, last = begun.replace(second=0, microsecond=0), ended + _MINUTE
    if unread := known.unread.within(first, last):
        yield f"{counted(unread, 'run is', 'runs are')} not read yet"
    if late := known.late.within(first, last):
        yield f"{counted(late, 'open run is', 'open runs are')} not re-read in time"
    # The run or step of a dead letter started before it was first seen.
    lost = known.lost_runs.total - known.lost_runs.before(first)
    lost += known.lost_steps.total - known.lost_steps.before(first)
    if lost:
        yield counted(lost, "record is a dead letter", "records are dead letters")


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%MZ}"
