"""Where the tests' own PostgreSQL servers keep their data."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def new_home() -> Path:
    """An empty folder that a server's user can enter; pytest's own folders are, as root, closed to that user.

    It lies in memory where there is room: a server is a thousand files, and on a busy disk making
    and removing them takes most of a test's time.
    """
    home = Path(tempfile.mkdtemp(prefix="orchestra-etl-test-", dir=_memory()))
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return home


def _memory() -> Path | None:
    memory = Path("/dev/shm")
    try:
        roomy = shutil.disk_usage(memory).free > 2 << 30
        usable = os.access(memory, os.W_OK) and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    except OSError:
        return None
    return memory if roomy and usable else None
