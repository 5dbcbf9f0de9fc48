"""Fixtures of the tests of single parts with a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Command, command_line


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> Command:
    """Provide the command line with this test's database and no configuration file."""
    return command_line(tmp_path, monkeypatch, capsys, "", DATABASE_URL=database_url)
