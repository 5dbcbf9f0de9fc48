"""Reads a lake by its path, as another program does: without the database and its catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.table import StaticTable


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
        import zlib

        # The blocks of Iceberg's manifests are deflated: every position may begin one.
        for place in range(len(content)):
            try:
                content += zlib.decompressobj(-15).decompress(content[place:])
            except zlib.error:
                continue
    return content
