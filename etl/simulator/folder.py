"""A folder of recorded answers, served as they are.

    <folder>/workflows.json                           optional
    <folder>/<workflow id>/runs.json                  optional: the whole list, newest first
    <folder>/<workflow id>/<run id>/steps.json
    <folder>/<workflow id>/<run id>/run.json          optional

A file that is not there is a 404. Files are read at each request, so a change shows at once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Folder:
    """The answers in a folder."""

    def __init__(self, path: Path) -> None:
        """Serve what is below `path`. Raises FileNotFoundError where that is no folder."""
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        self._path = path

    def now(self) -> datetime:
        """Return the real time."""
        return datetime.now(UTC)

    def read(self, *names: str) -> bytes:
        """Return a file's bytes. Raises KeyError where there is none, or a name would lead elsewhere."""
        for name in names:
            if name in ("", ".", "..") or any(character in name for character in "/\\:\0"):
                raise KeyError(name)
        try:
            return self._path.joinpath(*names).read_bytes()
        except (OSError, UnicodeEncodeError):
            raise KeyError(names) from None

    def page(self, workflow_id: str, limit: int, offset: int) -> bytes:
        """Return a page of the recorded list, each row byte for byte. Raises KeyError where there is no list.

        Raises msgspec.DecodeError where the file holds no JSON array.
        """
        rows = msgspec.json.decode(self.read(workflow_id, "runs.json"), type=list[msgspec.Raw])
        return msgspec.json.encode(rows[offset : offset + limit])
