"""A simulated history and the command line, for tests of what redaction leaves in the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.simulator.history import History
from tests.command_line import Command
from tests.stored_text import columns_with, statistics_with
from tests.support import configuration, query

KEY = "0123456789abcdef" * 2


class RedactedWorld:
    """A workflow, a database, and rules of redaction."""

    def __init__(
        self, folder: Path, url: str, history: History, command: Command, patch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.url, self.history = folder, url, history
        self.command, self.patch = command, patch
        self.workflow = history.workflow_ids[0]
        self.runs = history.run_ids(self.workflow)

    def configure(self, *rules: tuple[str, str], key: str = KEY) -> None:
        """Put these rules into force, with this key."""
        made = "".join(
            f'[[redaction.rules]]\npath = "{path}"\naction = "{action}"\n' for path, action in rules
        )
        (self.folder / "etl.toml").write_text(configuration(self.workflow, more=made))
        self.patch.setenv("ORCHESTRA_REDACTION_KEY", key)

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run a command, check its exit status and return what it prints."""
        done = self.command(*arguments)
        assert done.status == status, (arguments, done.out, done.err)
        return done.out

    def traces(self, text: str) -> set[str]:
        """Return the columns and planner statistics of both schemas that contain the text."""
        return columns_with(self.url, text) | statistics_with(self.url, text)

    def one(self, sql: str, *parameters: object) -> Any:
        """Return the only value of a statement's result."""
        ((value,),) = [row.values() for row in query(self.url, sql, *parameters)]
        return value
