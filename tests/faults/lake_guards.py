"""Guards of the lake's store that the negative controls switch off."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import psycopg


def short_limits() -> None:
    """Give up a request to the store after a second, so that a test is quick."""
    _limit("1")


def no_limits() -> None:
    """Wait for the store for hours."""
    _limit("10000")


def _limit(seconds: str) -> None:
    from etl.export import store

    store._LIMITS.update(dict.fromkeys(store._LIMITS, seconds))


def early_consumption() -> None:
    """Take the days from the queue before they are exported, in a transaction of its own."""
    from etl.export import part

    original = part.export

    def export(*arguments: Any, **more: Any) -> Any:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("DELETE FROM orchestra_etl.changed_days")
        return original(*arguments, **more)

    part.export = export


def trusting_verification() -> None:
    """Believe the numbers of rows in the manifests, and read no file."""
    from etl.export import verify

    def counted(self: Any, day: date, table: Any) -> int:
        found = 0
        for task in self._lake.table(table).table.scan().plan_files():
            if task.file.file_path in self._files[table.name].get(day, ()):
                found += task.file.record_count
        return found

    verify._Verification._counted = counted  # type: ignore[method-assign]


def a_commit_for_each_table() -> None:
    """Commit each table of the lake for itself, and take some time in between."""
    from etl.export.lake import Lake

    def commit(
        self: Lake, properties: Mapping[str, str], *, expire_before: datetime
    ) -> dict[str, int]:
        found = {}
        for name, one in self._open.items():
            snapshot = one.commit(properties, expire_before=expire_before)
            if snapshot is not None:
                found[name] = snapshot
                self._catalog.engine.exec_driver_sql("COMMIT")  # type: ignore[attr-defined]
                time.sleep(0.3)
                self._catalog.engine.exec_driver_sql(  # type: ignore[attr-defined]
                    "BEGIN ISOLATION LEVEL REPEATABLE READ"
                )
        return found

    Lake.commit = commit  # type: ignore[method-assign]


def late_listing() -> None:
    """List the store as it was at the listing before: without new files, with deleted ones."""
    from etl.export.store import Store, StoredFile

    original = Store.files

    def files(self: Store) -> Iterator[Any]:
        listing = Path(os.environ["ORCHESTRA_ETL_CONFIG"]).with_suffix(".listing")
        before = json.loads(listing.read_text()) if listing.exists() else []
        listing.write_text(json.dumps([(one.path, one.size) for one in original(self)]))
        yield from (StoredFile(path, size) for path, size in before)

    Store.files = files  # type: ignore[method-assign]


def slow_commits() -> None:
    """Take a second between the last file of an export and its commit."""
    from etl.export import days

    original = days.record

    def record(*arguments: Any) -> None:
        time.sleep(1.0)
        original(*arguments)

    days.record = record  # type: ignore[assignment]


def no_export_lock() -> None:
    """Let two processes export at once."""
    from etl.export import state

    state._HOLD = state._FIND
