"""Ids in request paths: which ids are allowed, and how they are escaped."""

from __future__ import annotations

import re
from urllib.parse import quote

from etl.errors import InvalidIdentifier

MAX_LENGTH = 2000
"""The longest escaped id, in bytes.

Servers accept request lines of about 8,000 bytes, and a path contains up to two ids.
"""

_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,100}", re.ASCII)


def path_segment(identifier: str) -> str:
    """Return the id, escaped, as one segment of a path.

    Dot segments are refused even after an escaped slash, because some servers and proxies unescape
    the path before they resolve dot segments.

    Raises:
        InvalidIdentifier: the id is empty or too long, contains control characters or lone
            surrogates, or would change the meaning of the path.
    """
    if _PLAIN.fullmatch(identifier):  # The fast path: nearly all ids are UUIDs.
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
    """Return whether the id can be used in a request path."""
    try:
        path_segment(identifier)
    except InvalidIdentifier:
        return False
    return True
