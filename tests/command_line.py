"""The command line inside the test process, for tests of its output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.cli.commands import run

WEATHER, TRIAGE = "1234f567-bb12-1234-b7cd-f7a71a98cd24", "99999999-bb12-1234-b7cd-f7a71a98cd24"


class Printed(msgspec.Struct, frozen=True):
    """The result of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return standard output, parsed as JSON."""
        return json.loads(self.out)


Command = Callable[..., Printed]


def command_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    toml: str,
    **variables: str,
) -> Command:
    """Return a function that runs the command with this configuration and these variables."""
    config = folder / "etl.toml"
    config.write_text(toml)
    for name, value in {"COLUMNS": "80", **variables}.items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str) -> Printed:
        capsys.readouterr()
        status = run(["--config", str(config), *arguments])
        printed = capsys.readouterr()
        return Printed(status, printed.out, printed.err)

    return command
