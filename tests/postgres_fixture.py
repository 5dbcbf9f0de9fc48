"""Folders of tests: in memory if there is room, among them those of PostgreSQL servers.

On a disk, creating a file takes ten times as much work as in memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def new_home() -> Path:
    """Return an empty folder that a server's user can enter.

    As root, pytest's own folders are closed to that user. The folder is in memory if there is room:
    a server is a thousand files, and on a busy disk creating and removing them takes most of a
    test's time.
    """
    home = Path(tempfile.mkdtemp(prefix="orchestra-etl-test-", dir=memory()))
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return home


def processes_in(home: Path) -> list[int]:
    """Return the process ids of the PostgreSQL servers that keep their data in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue  # the process has just ended
        if b"-D" in arguments and os.fsencode(home) in arguments[arguments.index(b"-D") + 1]:
            found.append(int(path.parent.name))
    return found


def memory() -> Path | None:
    """Return a folder in memory if it has room and can hold programs."""
    folder = Path("/dev/shm")
    try:
        roomy = shutil.disk_usage(folder).free > 2 << 30
        usable = os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & os.ST_NOEXEC
    except OSError:
        return None
    return folder if roomy and usable else None
