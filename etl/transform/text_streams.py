"""Streams of events that a workflow keeps as one text: server-sent events, or lines of JSON.

The SQL function `stream_events` reads them by the same rules.
"""

from __future__ import annotations

import re

_STREAM = re.compile(r"[ \t\n\r]*(?:data: ?[\[{]|(?:event|id|retry)?:|\{)")
_LINE_ENDS = re.compile(r"[\r\n]+")
_DATA = re.compile("data: ?")


def events_of(text: str) -> bytes | None:
    """Return the events of a stream as a JSON array, which may be malformed; None for other texts.

    A line that starts with a bracket begins an event, any other continues the one before it.
    """
    if (start := _STREAM.match(text)) is None:
        return None
    lines = _LINE_ENDS.split(text)
    if not start[0].endswith("{") or "data" in start[0]:
        lines = [_DATA.sub("", line, count=1) for line in lines if line.startswith("data:")]
    joined = "".join(
        f",{line}" if line.startswith(("{", "[")) else f"\n{line}"
        for line in lines
        if line not in ("", "[DONE]")
    )
    return b"[" + joined[1:].encode() + b"]"
