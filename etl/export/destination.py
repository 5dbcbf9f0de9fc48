"""Where the lake is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from etl.transform.redact import Redaction


class Destination(msgspec.Struct, frozen=True):
    """Where the lake is, and what it holds."""

    location: str
    """A local folder or a URL such as `s3://bucket/lake`, without a slash at its end."""
    namespace: str = "orchestra"
    payloads: bool = False
    file_bytes: int = 128 << 20
    """Bytes after which a day's rows continue in another file."""
    redaction: Redaction | None = None
    """The rules under which an export writes what only the lake has; None: there are no rules."""

    @property
    def folder(self) -> str:
        """The folder of the namespace."""
        return f"{self.location}/{self.namespace}"
