"""Write the places of `etl/transform/content_shapes.py` as SQL functions and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from etl.transform.content_shapes import (
    CONTAINERS,
    MAX_DEPTH,
    REQUEST_CONTAINERS,
    SHAPES,
)
from etl.transform.shape import PARTS, REQUEST, RESPONSE, Part, Shape

_HEAD = """\
-- Written by `make docs` from etl/transform/content_shapes.py, which names the public page of each
-- place. The functions of model_call_text use these.
"""
_SCALAR = """
CREATE OR REPLACE FUNCTION orchestra.{name}({argument} jsonb) RETURNS {type}
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT {body}
$$;

COMMENT ON FUNCTION orchestra.{name}(jsonb) IS
    '{comment}';
"""
_PLACES = """
CREATE OR REPLACE FUNCTION orchestra.{name}()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        {rows}
$$;

COMMENT ON FUNCTION orchestra.{name}() IS
    '{comment}';
"""
_NAMES = """
CREATE OR REPLACE FUNCTION orchestra.{name}() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        {rows}
    ]
$$;

COMMENT ON FUNCTION orchestra.{name}() IS
    '{comment}';
"""
_IN_TABLE = "(see the reference of model calls)"


def sql() -> str:
    """Return the SQL functions that find the places."""
    return "".join(
        (
            _HEAD,
            _is_body("is_request", REQUEST, "Whether an object is a known request of a model"),
            _is_body("is_response", RESPONSE, "Whether an object is a known response of a model"),
            _first("message_role", "message", "role", "Who wrote a message of a request"),
            _first("message_content", "message", "content", "The content of a message"),
            _first("part_text", "part", "text", "The text of a part of a content"),
            _first("tool_name", "tool", "tool_name", "The name of the tool that a tool call names"),
            _first("tool_arguments", "tool", "tool_arguments", "The arguments of a tool call"),
            _inner_parts(),
            _is_part("is_image", "image_part", "Whether a part of a content is an image"),
            _is_part("is_audio", "audio_part", "Whether a part of a content is audio"),
            _places("prompt_places", ("prompt",), "The messages of a request, or its prompt"),
            _places("system_places", ("system",), "The system text of a request"),
            _places("answer_places", ("answer",), "The answers of a response"),
            _places("tool_places", ("tool",), "The tools that a response calls"),
            _places("image_places", ("image", "image_input"), "Images beside contents"),
            _places("audio_places", ("audio", "audio_input"), "Audio beside contents"),
            _names("parameter_names", _members("parameter"), "The settings of a request"),
            _names("settings_names", _members("settings"), "Objects with settings of a request"),
            _names("request_containers", REQUEST_CONTAINERS, "Objects around a request"),
            _names("response_containers", CONTAINERS, "Objects around a response"),
        )
    )


def _of(*parts: Part) -> list[tuple[int, Shape]]:
    return [(ordinal, one) for ordinal, one in enumerate(SHAPES, 1) if one.part in parts]


def _members(part: Part) -> list[str]:
    return list(dict.fromkeys(one.member for _, one in _of(part)))


def _path(path: str) -> str:
    return f"'lax {path}'"


def _is_body(name: str, parts: Sequence[Part], comment: str) -> str:
    """Return a function that looks at the members first, and only then at their values."""
    by_member: dict[str, list[str]] = {}
    for _, one in _of(*parts):
        by_member.setdefault(one.member, []).append(f"body @? {_path(one.whole)}")
    cases = [
        f"(body ? '{member}' AND ({tests}))"
        for member, found in by_member.items()
        if (tests := "\n            OR ".join(dict.fromkeys(found)))
    ]
    body = "jsonb_typeof(body) = 'object' AND (\n        " + "\n        OR ".join(cases) + ")"
    return _SCALAR.format(
        name=name, argument="body", type="boolean", body=body, comment=f"{comment} {_IN_TABLE}."
    )


def _first(name: str, argument: str, part: Part, comment: str) -> str:
    found = [
        f"jsonb_path_query_first({argument}, {_path(one.path)}, '{{}}', true)"
        for _, one in _of(part)
    ]
    return _SCALAR.format(
        name=name,
        argument=argument,
        type="jsonb",
        body="COALESCE(\n        " + ",\n        ".join(found) + ")",
        comment=f"{comment} {_IN_TABLE}; null if there is none.",
    )


def _inner_parts() -> str:
    found = [
        f"WHEN part @? {_path(one.path)}"
        f" THEN\n            jsonb_path_query_array(part, {_path(one.path)}, '{{}}', true)"
        for _, one in _of("nested")
    ]
    return _SCALAR.format(
        name="inner_parts",
        argument="part",
        type="jsonb",
        body="CASE\n        " + "\n        ".join(found) + "\n    END",
        comment=f"The parts inside a part of a content {_IN_TABLE}; null if there are none.",
    )


def _is_part(name: str, part: Part, comment: str) -> str:
    found = [f"part @? {_path(one.path)}" for _, one in _of(part)]
    return _SCALAR.format(
        name=name,
        argument="part",
        type="boolean",
        body="\n        OR ".join(found),
        comment=f"{comment} {_IN_TABLE}.",
    )


def _places(name: str, parts: Sequence[Part], comment: str) -> str:
    rows = [
        f"({ordinal}, '{one.api}', '{one.member}', jsonpath {_path(one.each)},"
        f"\n            jsonpath {_path(one.path)}, '{one.kind}')"
        for ordinal, one in _of(*parts)
    ]
    return _PLACES.format(
        name=name, rows=",\n        ".join(rows), comment=f"{comment} {_IN_TABLE}."
    )


def _names(name: str, names: Iterable[str], comment: str) -> str:
    rows = ",\n        ".join(f"'{one}'" for one in names)
    return _NAMES.format(name=name, rows=rows, comment=f"{comment} {_IN_TABLE}.")


_PAGE = """\
<!-- Written by `make docs` from etl/transform/content_shapes.py. -->

# Model calls

The view `orchestra.model_calls` reads prompts, answers, tools, media and settings from the payloads
of each call, with functions that also work on any other payload (`orchestra.prompt_text(inputs)`,
`orchestra.answer_text(outputs)` and so on, see [Schema](schema.md#functions)). They know the places
listed below.

- **Request**: the step's inputs; a JSON text; or what these members contain, to a depth of {depth}:
  {request_containers}.
- **Response**: the step's outputs; a JSON text; an array of responses or of the events of a stream;
  or what these members contain, to a depth of {depth}: {response_containers}.
- **Stream as text**: the events of a stream can also be one text, or a list of lines: server-sent
  events (`data: {{…}}`), or a JSON object a line.
- **First API**: if a request or response has places of several APIs, those of the API that is
  listed first count.
- **Prompt**: the text of the only message. If there are several, each is written as `role: text`,
  with a blank line between them. Parts of a message are joined with a line break. System and
  developer messages are in `system`. A message with nothing but results of tools has the role
  `tool`, even if the API sends it as the user's.
- **Answer**: the visible text. Reasoning is left out, even if the answer starts with it as
  `<think>…</think>` or `<thinking>…</thinking>`. A generated object is JSON. If the outputs
  are a state with messages, the last message is the answer. Parts of a message and events of a
  stream are joined without a separator, several choices with a blank line. If a stream also reports
  the whole answer, the view shows the whole answer.
- **Limits**: with more than 10,000 messages or events, or a JSON text of more than 2^20 characters
  or 100 levels, the result is null, never a part of the text.
- **Unknown shapes** give null. The load counts them as drift: `unknown_prompt` if the inputs of a
  call have no member of a known request, `unknown_answer` if its outputs have no member of a known
  response. Calls that failed need no answer. What redaction removes does not count. `orchestra-etl
  status` shows drift; report a missing place to the developers of this program.

A path is an SQL/JSON path in mode `lax`.
"""


def page() -> str:
    """Return the reference page of the places."""
    names = {
        "request_containers": ", ".join(f"`{name}`" for name in REQUEST_CONTAINERS),
        "response_containers": ", ".join(f"`{name}`" for name in CONTAINERS),
    }
    parts = [_PAGE.format(depth=MAX_DEPTH, **names)]
    for part, meaning in PARTS.items():
        parts.append(f"\n## {part.replace('_', ' ').capitalize()}\n\n{meaning}.\n\n")
        parts.append("| API | paths |\n|---|---|\n")
        by_api: dict[tuple[str, str], list[str]] = {}
        for _, one in _of(part):
            path = one.whole.replace("|", "\\|")
            by_api.setdefault((one.api, one.source), []).append(f"`{path}`")
        parts += (
            f"| [{api}]({source}) | {' '.join(dict.fromkeys(paths))} |\n"
            for (api, source), paths in by_api.items()
        )
    return "".join(parts)
