"""Inflation of gzip in pieces of bounded size, so that a few kilobytes cannot fill the memory."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

PIECE_BYTES = 64 * 1024
"""The largest input and the largest output of one inflation step."""

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for the gzip format with its checksum."""


class Gunzip:
    """Inflates a stream of one or more gzip members that arrives in chunks."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        """Whether the stream may end here; False inside a member, where an end means truncation."""
        return self._member.eof

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Yield the inflated chunk in pieces of at most `PIECE_BYTES`.

        Raises:
            zlib.error: the stream is not gzip, or its checksum is wrong.
        """
        data: bytes | memoryview = chunk
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            piece = self._member.decompress(data, PIECE_BYTES)
            # After a full piece, zlib may hold further output although it has taken all the input.
            while piece:
                yield piece
                piece = self._member.decompress(self._member.unconsumed_tail, PIECE_BYTES)
            data = self._member.unused_data


def gunzip(body: bytes) -> bytes:
    """Inflate a complete body; the caller has checked with `Gunzip` that the result fits."""
    # BytesIO returns its buffer without a copy; joining the pieces would need twice the memory.
    inflated = io.BytesIO()
    stream = Gunzip()
    view = memoryview(body)
    # In chunks, because zlib copies the rest of its input for every piece.
    for start in range(0, len(view), PIECE_BYTES):
        for piece in stream.feed(view[start : start + PIECE_BYTES]):
            inflated.write(piece)
    return inflated.getvalue()
