"""Functions called in a worker before its command: crashes around a delivery, and its guards."""

from __future__ import annotations

import os
import signal
from typing import Any

from etl.alerts import delivery, evaluation
from etl.alerts.channels import Channels
from etl.service import daemon
from tests.faults.database_guards import replaced


def quick_alerts() -> None:
    """Shorten the intervals of the alerts' jobs; this is not a guard."""
    daemon.PACE = daemon.Pace(tick=0.1, clock_check=1.0, evaluate=0.5, notify=0.1)
    evaluation.EVERY = 0.4


def short_lease() -> None:
    """Make a claim on a notification end soon; this is not a guard."""
    delivery.LEASE = 0.5


def killed_before_sending() -> None:
    """Let the worker die when it has claimed a notification."""

    async def send(self: Channels, name: str, message: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Channels.send = send  # type: ignore[method-assign]


def killed_after_sending() -> None:
    """Let the worker die when the receiver has the message."""
    original = Channels.send

    async def send(self: Channels, name: str, message: Any) -> None:
        await original(self, name, message)
        os.kill(os.getpid(), signal.SIGKILL)

    Channels.send = send  # type: ignore[method-assign]


def no_lease_end() -> None:
    """Let a crashed worker keep its claim on a notification forever."""
    short_lease()
    replaced(
        delivery,
        "_CLAIM",
        "(n.leased_until IS NULL OR n.leased_until < now())",
        "n.leased_until IS NULL",
    )


def no_lease() -> None:
    """Let a claim on a notification keep no other worker from claiming it."""
    replaced(delivery, "_CLAIM", "n.leased_until < now()", "true")
