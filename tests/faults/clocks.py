"""Wrong clocks in a worker, while the database and the API have the right time.

`install` is called in the worker. It reads these environment variables:

    CLOCK_OFF          offset of the worker's wall clock, in seconds
    CLOCK_SET_AFTER    seconds after the start at which the offset begins; 0: from the start
    CLOCK_SET_WHEN     a path: the offset begins when a file has this name
    MONOTONIC_JUMP     size of the jump of the monotonic clock, in seconds
    MONOTONIC_JUMP_AT  number of the request for steps just before which it jumps
"""

from __future__ import annotations

import importlib
import itertools
import os
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

from etl.extract.client import OrchestraClient
from etl.records import ApiResponse

# The modules in which the product and its scheduler read the time with `datetime.now`.
MODULES = (
    "etl.ledger.clock",
    "etl.extract.http_dates",
    "etl.service.job_runner",
    "apscheduler.schedulers.base",
    "apscheduler.executors.base",
    "apscheduler.triggers.interval",
)


def install() -> None:
    """Set this process's clocks wrong, now or later."""
    wall, monotonic = time.time, time.monotonic
    born = monotonic()
    off, off_after = (
        float(os.environ.pop("CLOCK_OFF", 0)),
        float(os.environ.pop("CLOCK_SET_AFTER", 0)),
    )
    signal = os.environ.pop("CLOCK_SET_WHEN", None)
    jump, jump_at = (
        float(os.environ.pop("MONOTONIC_JUMP", 0)),
        int(os.environ.pop("MONOTONIC_JUMP_AT", 0)),
    )
    requests = itertools.count(1)
    jumped = 0.0
    read_steps = OrchestraClient.steps

    async def jump_and_read(self: OrchestraClient, workflow_id: str, run_id: str) -> ApiResponse:
        nonlocal jumped
        if next(requests) == jump_at:
            jumped = jump
        return await read_steps(self, workflow_id, run_id)

    def shift() -> float:
        is_set = monotonic() - born >= off_after and (signal is None or os.path.exists(signal))
        return off if is_set else 0.0

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class Wrong(datetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=shift())

    time.time = lambda: wall() + shift()
    time.monotonic = lambda: monotonic() + jumped
    OrchestraClient.steps = jump_and_read  # type: ignore[method-assign]
    for name in MODULES:
        module = importlib.import_module(name)
        if hasattr(module, "datetime"):
            module.datetime = Wrong  # type: ignore[attr-defined]
