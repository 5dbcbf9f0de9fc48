"""Where responses are decoded: small ones in the event loop, large ones in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Bytes. Larger bodies are decoded in a thread, so that the event loop can renew leases.
LARGE = 1 << 20

# The default threads are not used, because several large responses would occupy all of them, and no
# database query could run. There is one thread, because two would take as long, and twice the
# memory.
_DECODER = ThreadPoolExecutor(1, thread_name_prefix="decode")


async def decoded(size: int, decode: Callable[[], T]) -> T:
    """Return the result of `decode`, which processes `size` bytes."""
    if size <= LARGE:
        # All responses that the event loop has received together are then decoded one right after
        # the other. While the decoder's code stays in the processor's caches, a read takes 0.9 of
        # the CPU time.
        await asyncio.sleep(0)
        return decode()
    return await asyncio.get_running_loop().run_in_executor(_DECODER, decode)
