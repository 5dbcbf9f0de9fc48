"""Secrets that must never appear in any output, put into everything that a worker receives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

API_KEY = "canary-key-7f3d9c51"
PASSWORD = "canary-password-b2e8"
PAYLOAD = "canary-payload-c64e10"

ALL = (API_KEY, PASSWORD, PAYLOAD)


def with_password(url: str) -> str:
    """Return the database URL with a password; the test server requires none and ignores it."""
    parts = urlsplit(url)
    user = parts.username or "postgres"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{PASSWORD}@{host}"))


@dataclass(frozen=True)
class Canaries:
    """The folder that collects all output of the workers and the database servers."""

    folder: Path

    def size(self) -> str:
        """Return the amount of output to search, as a phrase."""
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB searched"

    def leaks(self) -> list[str]:
        """Return the canaries found in the output, with file name and line number."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file():
                continue
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                found += [
                    f"{canary} in {path.name}:{number}" for canary in ALL if canary.encode() in line
                ]
        return found
