"""Lines about the progress of a command."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print a step and, if it succeeds, its duration; on a terminal, count the seconds."""
    begun = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1):
            print(f"\r{what} ... {time.monotonic() - begun:.0f} s", end="", flush=True)

    print(f"{what} ...", end="", flush=True)
    ticking = threading.Thread(target=tick, daemon=True)
    if sys.stdout.isatty():
        ticking.start()
    ended = ""
    try:
        yield
        ended = f" {time.monotonic() - begun:.0f} s"
    finally:
        done.set()
        if ticking.is_alive():
            ticking.join()
        again = f"\r{what} ..." if sys.stdout.isatty() else ""
        print(f"{again}{ended}", flush=True)
