"""The signals that end a command cleanly."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from etl.signals import stop_on_signals

DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """Let the process do what it does in a terminal: these tests may run in the background."""
    before = {number: signal.getsignal(number) for number in DEFAULTS}
    for number, handler in DEFAULTS.items():
        signal.signal(number, handler)
    yield
    for number, former in before.items():
        signal.signal(number, former)


async def _received(number: signal.Signals, times: int = 1) -> int | None:
    """Send this process a signal, and return the number that the event then has."""
    with stop_on_signals() as stop:
        for _ in range(times):
            os.kill(os.getpid(), number)
            # The loop calls the handler in its next turns.
            for _ in range(3):
                await asyncio.sleep(0)
        return stop.number


@pytest.mark.parametrize("number", DEFAULTS)
def test_the_first_signal_requests_a_stop(number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal set the event; the handlers end with the block."""
    assert asyncio.run(_received(number)) == number
    assert signal.getsignal(number) is DEFAULTS[number]


def test_a_closed_terminal_signals_twice() -> None:
    """A second SIGHUP leaves the time for a clean end: both the kernel and the shell send one."""
    assert asyncio.run(_received(signal.SIGHUP, times=2)) == signal.SIGHUP


def test_a_closed_terminal_does_not_end_what_nohup_started() -> None:
    """SIGHUP stays ignored if the process was started to ignore it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert asyncio.run(_received(signal.SIGHUP)) is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
