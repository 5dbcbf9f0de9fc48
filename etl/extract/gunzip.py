"""Inflates gzip in pieces of bounded size, so that a few kilobytes cannot fill the memory."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

PIECE_BYTES = 64 * 1024
"""The most that one step of inflating gives, and takes."""

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for the gzip format with its checksum."""


class Gunzip:
    """Inflates a stream of one or more gzip members that arrives in chunks."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        """Whether the stream may end here; False inside a member: what arrived so far is truncated."""
        return self._member.eof

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Give what the chunk inflates to, in pieces of at most `PIECE_BYTES`.

        Raises zlib.error where the stream is no gzip or its checksum is wrong.
        """
        data: bytes | memoryview = chunk
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            piece = self._member.decompress(data, PIECE_BYTES)
            # A full piece may have left output behind inside zlib although all the input is in.
            while piece:
                yield piece
                piece = self._member.decompress(self._member.unconsumed_tail, PIECE_BYTES)
            data = self._member.unused_data


def gunzip(body: bytes) -> bytes:
    """Inflate a whole, complete body; the caller knows that the result fits (see `Gunzip`)."""
    # BytesIO gives its buffer away without a copy; joining the pieces would need twice the memory.
    inflated = io.BytesIO()
    stream = Gunzip()
    view = memoryview(body)
    # In chunks, for zlib copies the rest of its input at every piece.
    for start in range(0, len(view), PIECE_BYTES):
        for piece in stream.feed(view[start : start + PIECE_BYTES]):
            inflated.write(piece)
    return inflated.getvalue()
