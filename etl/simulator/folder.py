"""A folder of recorded responses, served unchanged.

    <folder>/workflows.json                           optional
    <folder>/<workflow id>/runs.json                  optional: the whole list, newest first
    <folder>/<workflow id>/<run id>/steps.json
    <folder>/<workflow id>/<run id>/run.json          optional

A missing file is a 404. Each request reads its file again, so that a change takes effect at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Folder:
    """The recorded responses in a folder."""

    def __init__(self, path: Path) -> None:
        """Serve the files below `path`. Raises FileNotFoundError if it is not a folder."""
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        self._path = path

    def now(self) -> datetime:
        """Return the real time."""
        return datetime.now(UTC)

    def read(self, *names: str) -> bytes:
        """Return a file's bytes.

        Raises:
            KeyError: the file does not exist, or a name is not a plain file name.
        """
        for name in names:
            if name in ("", ".", "..") or any(character in name for character in "/\\:\0"):
                raise KeyError(name)
        try:
            return self._path.joinpath(*names).read_bytes()
        except (OSError, UnicodeEncodeError):
            raise KeyError(names) from None

    def page(self, workflow_id: str, limit: int, offset: int) -> bytes:
        """Return a page of the recorded list, with each row byte for byte.

        Raises:
            KeyError: there is no list.
            msgspec.DecodeError: the file is not a JSON array, even if it is read tolerantly.
        """
        recorded = self.read(workflow_id, "runs.json")
        rows: Sequence[bytes | msgspec.Raw]
        try:
            rows = msgspec.json.decode(recorded, type=list[msgspec.Raw])
        except msgspec.DecodeError:
            rows = _tolerantly_read_rows(recorded)
            if not rows:
                raise
        return b"[" + b",".join(rows[offset : offset + limit]) + b"]"


def _tolerantly_read_rows(array: bytes) -> list[bytes]:
    """Split a JSON array that may contain lone surrogates, NaN and bytes that are not UTF-8.

    Returns no rows if it is not an array.
    """
    text = array.decode("latin-1")  # one character for each byte
    decoder = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
    rows: list[bytes] = []
    separator, end = "[", 0
    while found := re.compile(rf"\s*\{separator}\s*", re.ASCII).match(text, end):
        try:
            _, end = decoder.raw_decode(text, found.end())
        except (ValueError, RecursionError):
            return []
        rows.append(array[found.end() : end])
        separator = ","
    return rows if text[end:].strip() == "]" else []
