"""Secrets that must never be seen again, put into everything that a worker is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

API_KEY = "canary-key-7f3d9c51"
PASSWORD = "canary-password-b2e8"
PAYLOAD = "canary-payload-c64e10"

ALL = (API_KEY, PASSWORD, PAYLOAD)


def with_password(url: str) -> str:
    """The database URL with a password in it; the test server asks for none, and does not mind."""
    parts = urlsplit(url)
    user = parts.username or "postgres"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{PASSWORD}@{host}"))


@dataclass(frozen=True)
class Canaries:
    """Where everything is gathered that the workers and the database servers say."""

    folder: Path

    def size(self) -> str:
        """How much there is to search, in words."""
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB searched"

    def sung(self) -> list[str]:
        """The canaries that were found in what was said, with the file's name and line number; empty where all is well."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file():
                continue
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                found += [
                    f"{canary} in {path.name}:{number}" for canary in ALL if canary.encode() in line
                ]
        return found
