"""SIGINT, SIGTERM and SIGHUP: the first requests a clean shutdown, the second ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(asyncio.Event):
    """An event that the first signal sets."""

    number: int | None = None
    """The number of the first signal."""

    def receive(self, number: int) -> None:
        """Set the event at the first signal; end the process at the second.

        A closed terminal sends SIGHUP more than once: the kernel does, and the shell.
        """
        if self.is_set():
            if number == signal.SIGHUP:
                return
            # Nothing is lost: runs that were not committed are re-read when their lease expires.
            os._exit(128 + number)
        self.number = number
        self.set()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Provide an event that the first signal sets.

    A second SIGINT or SIGTERM ends the process with status 130 or 143. Use it in the main thread,
    inside a running event loop.
    """
    loop = asyncio.get_running_loop()
    stop = Stop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Under nohup the signal is ignored, and must stay ignored.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.receive, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
