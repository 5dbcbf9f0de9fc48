"""Imports of libraries without optional modules and certificates that a command does not use."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self


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


@contextmanager
def certificates_unread() -> Iterator[None]:
    """Let TLS contexts that the block's imports create read the certificates when they connect.

    aiohttp creates one when it is imported, and the certificates take a third of that time.
    """
    create = ssl.create_default_context
    ssl.create_default_context = _LateContext  # type: ignore[assignment]
    try:
        yield
    finally:
        ssl.create_default_context = create


class _LateContext(ssl.SSLContext):
    """The default TLS context of a client, created at its first connection."""

    def __new__(cls) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection; asyncio begins all with this method."""
        return self._context.wrap_bio(*arguments, **named)
