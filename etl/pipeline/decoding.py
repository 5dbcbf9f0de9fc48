"""Where answers are decoded: small ones at once, large ones beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Bytes. What decoding more takes is too long for the event loop to stand still: it renews the leases meanwhile.
LARGE = 1 << 20


async def decoded(size: int, decode: Callable[[], T]) -> T:
    """What `decode` gives, which has so many bytes to go through."""
    return await asyncio.to_thread(decode) if size > LARGE else decode()
