"""Reads a lake by its path, as another program does: without the database and its catalog."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.table import StaticTable

_TWO_NUMBERS = re.compile(rb"\A(?:[\x80-\xff]*[\x00-\x7f]){2}")
"""What precedes the data of a block of an Avro file: its number of rows, and of bytes."""


def table(location: Path, name: str, namespace: str = "orchestra") -> StaticTable:
    """Return a table as its version hint names it."""
    folder = location / namespace / name / "metadata"
    hint = (folder / "version-hint.text").read_text()
    return StaticTable.from_metadata(str(folder / f"{hint}.metadata.json"))


def arrow(location: Path, name: str) -> pa.Table:
    """Return all rows of a table."""
    return table(location, name).scan().to_arrow()


def rows(location: Path, name: str) -> list[dict[str, Any]]:
    """Return all rows of a table, in the order of their keys."""
    found = arrow(location, name).to_pylist()
    return sorted(found, key=lambda row: str(row.get("id", row.get("step_id", row.get("run_id")))))


def files_with(location: Path, text: str) -> list[Path]:
    """Return every file in the lake whose bytes contain a text, decompressed or not.

    Parquet files are decoded: their pages are compressed.
    """
    found = []
    for path in sorted(location.rglob("*")):
        if path.is_file() and text.encode() in _bytes(path):
            found.append(path)
    return found


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".parquet":
        from pyarrow import parquet

        decoded = parquet.read_table(path, partitioning=None)
        return content + repr(decoded.to_pylist()).encode()
    if path.suffix == ".avro":
        # The mark that ends the header and each block also ends the file. Iceberg deflates blocks.
        for block in content.split(content[-16:])[1:-1]:
            content += zlib.decompress(_TWO_NUMBERS.sub(b"", block, count=1), -15)
    return content
