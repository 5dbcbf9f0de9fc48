"""What a place of a prompt, answer, tool call or medium in a payload is."""

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
    "prompt": "messages of a request, or its prompt as text",
    "system": "the system text of a request that is not one of its messages",
    "parameter": "a setting of a request",
    "settings": "an object of settings of a request",
    "image_input": "images of a request that are not part of a content",
    "audio_input": "audio of a request that is not part of a content",
    "answer": "the text of a response",
    "tool": "tools that a response calls",
    "image": "images of a response that are not part of a content",
    "audio": "audio of a response that is not part of a content",
    "other": "a result that is no text, such as an embedding",
    "role": "in a message: who wrote it",
    "content": "in a message: its content",
    "text": "in a part of a content: its text",
    "nested": "in a part of a content: the parts inside it",
    "image_part": "in a part of a content: an image",
    "audio_part": "in a part of a content: audio",
    "tool_name": "in a tool call: the name of the tool",
    "tool_arguments": "in a tool call: the arguments",
}
"""The meaning of each part. A path without another start begins at the request or response."""
REQUEST: tuple[Part, ...] = ("prompt", "system", "image_input", "audio_input")
"""The parts that show that an object is a request."""
RESPONSE: tuple[Part, ...] = ("answer", "tool", "image", "audio", "other")
"""The parts that show that an object is a response."""

Kind = Literal["whole", "delta", "either"]

# Behind the start and its conditions, whose parentheses can contain others.
_FIRST_MEMBER = re.compile(r"\$(?: \? \((?:[^()]|\([^()]*\))*\))*\.(\w+)", re.ASCII)


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
    """`delta`: a piece in an event of a stream; `either`: the same in events and in whole ones."""

    @property
    def member(self) -> str:
        """The first member of the path; empty if it starts with the value itself."""
        found = _FIRST_MEMBER.match(self.whole)
        return "" if found is None else found[1]

    @property
    def whole(self) -> str:
        """The path from the request or response on."""
        return self.each + self.path.removeprefix("$")


def rows(part: Part, api: str, source: str, *paths: str, **more: str) -> Iterator[Shape]:
    """Return a row for each path."""
    return (Shape(part, api, path, source, **more) for path in paths)  # type: ignore[arg-type]
