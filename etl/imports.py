"""Imports of libraries without optional modules that this program does not use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*modules: str) -> Iterator[None]:
    """Let the block's imports find none of these modules, as if they were not installed.

    Libraries with an optional command line or optional colours import these if they can, which
    delays the start of every command. A module that is already imported stays.
    """
    hidden = [one for one in modules if one not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for one in hidden:
            del sys.modules[one]
