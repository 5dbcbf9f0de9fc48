"""A revision created by a test, like one of a later release."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from etl import schema
from tests.conftest import ROOT

HEAD = schema.head()
LATER = f"{int(HEAD) + 1:04}"
_REVISION = """
from alembic import op

revision = {later!r}
down_revision = {head!r}
branch_labels = depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in {committed!r}:
            run(statement)
    for statement in {statements!r}:
        run(statement)


def run(statement: str) -> None:
    op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
"""


def add_revision(
    migrations: Path, statements: Sequence[str] = (), committed: Sequence[str] = ()
) -> None:
    """Add the revision `LATER` to a copy of the folder `migrations`.

    Args:
        migrations: the copy, which is created if it is missing.
        statements: SQL that the revision runs in its transaction.
        committed: SQL that it runs before, each statement committed by itself.
    """
    if not migrations.exists():
        shutil.copytree(
            ROOT / "migrations", migrations, ignore=shutil.ignore_patterns("__pycache__")
        )
    text = _REVISION.format(
        later=LATER, head=schema.head(), statements=[*statements], committed=[*committed]
    )
    (migrations / "versions" / f"{LATER}_later.py").write_text(text)


def bring_later_revision(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    statements: Sequence[str] = (),
    committed: Sequence[str] = (),
) -> Path:
    """Make this process a later release with the head `LATER`; return its folder of revisions."""
    migrations = folder / "later-migrations"
    add_revision(migrations, statements, committed)
    monkeypatch.setattr(schema, "_migrations", lambda: migrations)
    return migrations
