"""The locks of an embedded server, by which several processes can use it.

The first process that uses a server starts it, the last stops it. Three flocks beside its data
decide which process is first or last. The kernel releases a flock however its holder dies; a file
of process ids would stay behind.

* `postgres-18.start.lock`, exclusive: held while a process starts or stops the server.
* `postgres-18.users.lock`, shared: held by every process that uses the server. The process that can
  make it exclusive is the last.
* `postgres-18.server.lock`, exclusive: inherited by every process of the server (and by initdb).
  While one of them lives, no second server is started. Once it is free, `postmaster.pid` is stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from etl.embedded.account import open_for_owner
from etl.errors import DatabaseUnavailable


class ServerLocks:
    """This process's part in the locks of one data folder."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._users: int | None = None

    @property
    def is_user(self) -> bool:
        """Whether this process uses the server."""
        return self._users is not None

    def _open(self, name: str) -> int:
        return open_for_owner(self._data.with_name(f"{self._data.name}.{name}.lock"), os.O_RDWR)

    @contextlib.contextmanager
    def starting(self, seconds: float) -> Iterator[None]:
        """Hold the start lock.

        Raises:
            DatabaseUnavailable: another process still holds it after this many seconds.
        """
        descriptor = self._open("start")
        try:
            deadline = time.monotonic() + seconds
            while not _try_exclusive(descriptor):
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(
                        f"another process is still starting or stopping {self._data}: try again"
                    )
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def server(self) -> Iterator[int | None]:
        """Hold the server's lock; yield None if a process of a server, or initdb, holds it."""
        descriptor = self._open("server")
        try:
            yield descriptor if _try_exclusive(descriptor) else None
        finally:
            os.close(descriptor)

    def use(self) -> None:
        """Become a user of the server; the caller holds the start lock."""
        self._users = self._open("users")
        fcntl.flock(self._users, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[bool]:
        """Cease to be a user; yield whether this process was the last one.

        The caller holds the start lock.
        """
        users, self._users = self._users, None
        if users is None:
            yield False
            return
        try:
            yield _try_exclusive(users)
        finally:
            os.close(users)


def _try_exclusive(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
