"""Fixtures of the tests of the command as a process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_fixture import new_home, processes_in


@pytest.fixture
def home() -> Iterator[Path]:
    """Provide a folder for an embedded server's data, and kill all servers in it afterwards."""
    folder = new_home()
    yield folder
    for process in processes_in(folder):
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
