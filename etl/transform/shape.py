"""The description of a place in a payload: of a prompt, answer, tool call or medium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Part = Literal[
    "prompt",
    "system",
    "parameter",
    "settings",
    "image_input",
    "audio_input",
    "file_input",
    "answer",
    "tool",
    "image",
    "audio",
    "other",
    "role",
    "content",
    "text",
    "nested",
    "image_part",
    "audio_part",
    "tool_name",
    "tool_arguments",
]
PARTS: dict[Part, str] = {
    "prompt": "Messages of a request, or its prompt as text",
    "system": "The system text of a request, apart from its messages",
    "parameter": "Settings of a request, in addition to all numbers and booleans that are not ids",
    "settings": "Objects of settings of a request",
    "image_input": "Images of a request, apart from those in contents",
    "audio_input": "Audio of a request, apart from that in contents",
    "file_input": "Files of a request, such as documents",
    "answer": "The text of a response, or its content",
    "tool": "Tool calls of a response",
    "image": "Images of a response, apart from those in contents",
    "audio": "Audio of a response, apart from that in contents",
    "other": "Results that are not text, such as embeddings",
    "role": "In a message: who wrote it",
    "content": "In a message: its content, a text or a list of parts",
    "text": "In a part of a content: its text",
    "nested": "In a part of a content: parts inside it",
    "image_part": "In a content: parts that are images",
    "audio_part": "In a content: parts that are audio",
    "tool_name": "In a tool call: the name of the tool",
    "tool_arguments": "In a tool call: the arguments",
}
"""The meaning of each part. A path without another start begins at the request or response."""
REQUEST: tuple[Part, ...] = ("prompt", "system", "image_input", "audio_input", "file_input")
"""The parts that show that an object is a request."""
RESPONSE: tuple[Part, ...] = ("answer", "tool", "image", "audio", "other")
"""The parts that show that an object is a response."""

Kind = Literal["whole", "delta", "either", "json"]

# Not the methods of jsonpath, such as type().
_MEMBER = re.compile(r"\.(\w+)(?![\w(])", re.ASCII)
# Parentheses of a condition can contain others.
_CONDITION = re.compile(r" \? \((?:[^()]|\([^()]*\))*\)", re.ASCII)
_LAST_CONDITION = re.compile(r" && exists \(@\.(\w+)\)\)$", re.ASCII)


class Shape(NamedTuple):
    """A place in a request or a response."""

    part: Part
    api: str
    """The API. If several rows of one part fit a payload, those of the first API count."""
    path: str
    """The place as an SQL/JSON path, from `each` on."""
    source: str
    """The public page that documents it."""
    each: str = "$"
    """The path to the alternatives, such as the choices; the text of each is an answer."""
    kind: Kind = "whole"
    """`delta`: a piece in an event of a stream; `either`: a piece in an event, or the whole in a
    complete response; `json`: not a text, but a value that is shown as JSON.
    """

    @property
    def member(self) -> str:
        """The first member; empty if the path names none."""
        return next(iter(self.members), "")

    @property
    def members(self) -> tuple[str, ...]:
        """The members that the path names, outside of its conditions.

        If its last condition ends with `&& exists (@.name)`, this member is part of the path.
        """
        last = _LAST_CONDITION.findall(self.whole)
        return (*_MEMBER.findall(_CONDITION.sub("", self.whole)), *last)

    @property
    def whole(self) -> str:
        """The path from the request or response on."""
        return self.path if self.each == "$" else self.each + self.path.removeprefix("$")


def rows(part: Part, api: str, source: str, *paths: str, **more: str) -> Iterator[Shape]:
    """Return a row for each path."""
    return (Shape(part, api, path, source, **more) for path in paths)  # type: ignore[arg-type]
