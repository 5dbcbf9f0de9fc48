"""Log events about changes of a run's tracking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from etl.ledger.lifecycle import Decision
from etl.pipeline.reading import Reading

log = structlog.get_logger(__name__)


def log_changes(readings: Sequence[Reading], verdicts: Mapping[str, Decision]) -> None:
    """Log `tracking_changed`, with a reason, for each run whose tracking changes.

    A run that becomes `stale` or `gone` is a warning, because it may need attention. A run that
    becomes `final` is the normal case, logged at level debug.

    Args:
        readings: the readings that were loaded.
        verdicts: the decision about each run, by its id.
    """
    for reading in readings:
        claim, verdict = reading.claim, verdicts[reading.claim.run_id]
        if verdict.tracking == claim.known.tracking:
            continue
        level = {"final": "debug", "open": "info"}.get(verdict.tracking, "warning")
        getattr(log, level)(
            "tracking_changed",
            run=claim.run_id,
            workflow=claim.workflow_id,
            before=claim.known.tracking,
            tracking=verdict.tracking,
            reason=_reason(reading, verdict),
        )


def _reason(reading: Reading, verdict: Decision) -> str:
    if verdict.tracking == "gone":
        return "the API returns 404 for it and no longer lists it"
    if verdict.tracking == "open":
        return "it changed after it had been given up"
    if verdict.tracking == "stale":
        why = "its reads fail" if reading.steps is None else "it is still running"
        return f"polling.give_up_after has passed, and {why}"
    if not reading.has_steps:
        return "it is over, and no step appeared in the time for late steps"
    if reading.run_state is None:
        return "its steps are over, and every check found them unchanged"
    return "it is over, and was read after its end or found unchanged"
