"""What SIGINT and SIGTERM do: the first asks for an end in good order, the second ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(asyncio.Event):
    """Set by the first signal, whose number it keeps."""

    number: int | None = None

    def receive(self, number: int) -> None:
        """Take a signal."""
        if self.is_set():
            # Nothing is lost by this: what was not committed is read again once its lease has
            # ended.
            os._exit(128 + number)
        self.number = number
        self.set()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """An event that the first signal sets; at the second the process ends with 130 (SIGINT) or 143 (SIGTERM).

    To be used inside a running event loop, in the main thread.
    """
    loop = asyncio.get_running_loop()
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.receive, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
