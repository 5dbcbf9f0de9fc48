"""The signals that end a command cleanly."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from etl.signals import stop_on_signals


@pytest.fixture
def hang_up() -> Iterator[None]:
    """Restore what the process does on SIGHUP; the tests themselves may run under nohup."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


async def _received(number: signal.Signals, times: int = 1) -> int | None:
    """Send this process a signal, and return the number that the event then has."""
    with stop_on_signals() as stop:
        for _ in range(times):
            os.kill(os.getpid(), number)
            # The loop calls the handler in its next turns.
            for _ in range(3):
                await asyncio.sleep(0)
        return stop.number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_requests_a_stop(hang_up: None, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal set the event; the handlers end with the block."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = signal.getsignal(number)
    assert asyncio.run(_received(number)) == number
    assert signal.getsignal(number) is before


def test_a_closed_terminal_signals_twice(hang_up: None) -> None:
    """A second SIGHUP leaves the time for a clean end: both the kernel and the shell send one."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert asyncio.run(_received(signal.SIGHUP, times=2)) == signal.SIGHUP


def test_a_closed_terminal_does_not_end_what_nohup_started(hang_up: None) -> None:
    """SIGHUP stays ignored if the process was started to ignore it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert asyncio.run(_received(signal.SIGHUP)) is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
