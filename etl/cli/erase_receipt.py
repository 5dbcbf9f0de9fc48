"""The receipt of an erasure: every place, what was removed there, and what cannot be reached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from etl.cli.lake_cleaning import LakeReceipt
from etl.errors import ConfigurationError, system_reason

if TYPE_CHECKING:
    from etl.admin.erase import EraseReport, Selection

OUT_OF_REACH = (
    "PostgreSQL's backups, archived WAL, and replicas that lag behind",
    "disk pages that PostgreSQL has freed and not overwritten yet",
    "copies made by other programs: dumps, warehouses, BI extracts, spreadsheets",
    "the Orchestra server itself",
)
"""The places that hold copies and that this program does not know."""

OUT_OF_REACH_OF_LAKE = (
    "former versions of objects, if the store of the lake keeps versions or backups",
    "copies of the lake, and caches of engines that have read it",
)


class Receipt(msgspec.Struct, frozen=True):
    """The receipt; it names the person, as the request did."""

    version: str
    """Version of the program."""
    begun_at: datetime
    ended_at: datetime
    selection: dict[str, Any]
    """The erased runs, as they were requested."""
    runs: int
    database: dict[str, int]
    """By table of PostgreSQL: removed rows; those of `run_ledger` stay as ids without content."""
    lake: LakeReceipt | None
    """None: the history was never exported to a lake."""
    not_searched: dict[str, int]
    """Runs that may belong to the person and whose user or organisation is hidden or unknown."""
    out_of_reach: list[str]
    """Places that can hold copies and that this program cannot reach."""
    complete: bool
    """Whether every place that this program knows was reached and searched."""


def receipt(
    selection: Selection,
    found: EraseReport,
    lake: LakeReceipt | None,
    *,
    version: str,
    begun_at: datetime,
) -> Receipt:
    """Return the receipt of an erasure that has ended."""
    hidden = msgspec.structs.asdict(found.hidden)
    not_searched = {name: runs for name, runs in hidden.items() if runs}
    if found.not_read:
        not_searched["not_read"] = found.not_read
    return Receipt(
        version=version,
        begun_at=begun_at,
        ended_at=datetime.now(UTC),
        selection={
            name: value for name, value in msgspec.structs.asdict(selection).items() if value
        },
        runs=found.runs,
        database={name: rows for name, rows in found.rows.items() if rows},
        lake=lake,
        not_searched=not_searched,
        out_of_reach=[*OUT_OF_REACH, *(OUT_OF_REACH_OF_LAKE if lake is not None else ())],
        complete=not not_searched and (lake is None or lake.removed is not None),
    )


@contextmanager
def opened(path: Path | None) -> Iterator[Path | None]:
    """Create the receipt's file before anything is removed; an error removes it if it is empty.

    Raises:
        ConfigurationError: the file exists, or cannot be created.
    """
    if path is None:
        yield None
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise ConfigurationError(f"--receipt: {path} exists: name another file") from None
    except OSError as error:
        raise ConfigurationError(
            f"--receipt: {path} cannot be created: {system_reason(error)}"
        ) from None
    try:
        yield path
    finally:
        with suppress(OSError):
            if not path.stat().st_size:
                path.unlink()


def write(path: Path, made: Receipt) -> None:
    """Write the receipt as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
