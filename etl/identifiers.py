"""Ids in requests: which of them can stand in a path, and how."""

from __future__ import annotations

import re
from urllib.parse import quote

from etl.errors import InvalidIdentifier

MAX_LENGTH = 2000
"""In bytes as written into the path: servers take request lines of about 8,000 bytes, and two ids go into one."""

_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,100}", re.ASCII)


def path_segment(identifier: str) -> str:
    """The id as one segment of a path.

    Dot segments are refused even behind an escaped slash: there are servers and proxies that
    unescape before they resolve them.

    Raises:
        InvalidIdentifier: it would change the path's meaning, or is too long.
    """
    if _PLAIN.fullmatch(identifier):  # nearly all are UUIDs
        return identifier
    try:
        segment = quote(identifier, safe="")
    except UnicodeEncodeError:
        segment = ""
    if (
        not segment
        or len(segment) > MAX_LENGTH
        or re.search(r"[\x00-\x1f\x7f-\x9f]", identifier)
        or not {".", ".."}.isdisjoint(re.split(r"[/\\]", identifier))
    ):
        raise InvalidIdentifier(f"not usable as an id in a request: {identifier[:100]!a}")
    return segment


def is_path_segment(identifier: str) -> bool:
    """Whether the id can be asked for at all."""
    try:
        path_segment(identifier)
    except InvalidIdentifier:
        return False
    return True
