"""Where answers are decoded: small ones at once, large ones beside the event loop, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Bytes. What decoding more takes is too long for the event loop to stand still: it renews the
# leases meanwhile.
LARGE = 1 << 20

# Not the threads of everything else: several large answers would take them all, and the database
# could not be asked for anything. One, because two would take no less time, and twice the memory.
_BESIDE = ThreadPoolExecutor(1, thread_name_prefix="decode")


async def decoded(size: int, decode: Callable[[], T]) -> T:
    """What `decode` gives, which has so many bytes to go through."""
    if size <= LARGE:
        return decode()
    return await asyncio.get_running_loop().run_in_executor(_BESIDE, decode)
