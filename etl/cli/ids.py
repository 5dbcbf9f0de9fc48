"""Ids on the command line and on standard input, as shells and programs such as `jq` write them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import typer

from etl.errors import ConfigurationError

T = TypeVar("T", str, list[str], None)
LARGEST_INPUT = 64 * 1024 * 1024
"""The largest input in bytes. More than a million ids fit."""


def bare_id(value: T) -> T:
    """Return the ids unchanged.

    Raises:
        typer.BadParameter: an id is JSON, such as an id in quotes.
    """
    from etl.settings.values import refuse_json

    ids: Sequence[str] = [value] if isinstance(value, str) else value or ()
    for one in ids:
        try:
            refuse_json(one)
        except ValueError as error:
            raise typer.BadParameter(f"{one[:80]!r} {error}") from None
    return value


def given(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the ids in these arguments; `-` stands for standard input.

    Raises:
        ConfigurationError: an argument, or a line of the input, is neither an id nor JSON that
            contains ids.
    """
    for argument in arguments:
        if argument == "-":
            yield from _found_in(_standard_input(), "the input", "a line of the input")
        elif argument[:1] in ("{", "[", '"'):
            yield from _found_in(argument, "an argument", "an argument")
        else:
            yield argument


def _standard_input() -> str:
    from etl.settings.values import decode

    if sys.stdin is None:
        raise ConfigurationError("`-` reads standard input, which is closed")
    content = sys.stdin.buffer.read(LARGEST_INPUT + 1)
    if len(content) > LARGEST_INPUT:
        raise ConfigurationError(f"the input is larger than {LARGEST_INPUT:,} bytes")
    try:
        return decode(content)
    except ValueError as error:
        raise ConfigurationError(f"the input {error}") from None


def _found_in(text: str, source: str, part: str) -> Iterator[str]:
    """Yield the ids of a text: one per line, or in JSON values, which may span lines."""
    decoder, at = json.JSONDecoder(), 0
    while True:
        at = next((place for place in range(at, len(text)) if not text[place].isspace()), len(text))
        if at == len(text):
            return
        if text[at] in '{["':
            try:
                value, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                raise ConfigurationError(
                    f"{part} starts like JSON, but is not valid JSON"
                ) from None
            if text[at : at + 1].strip():
                raise ConfigurationError(
                    f"{part} continues after a JSON value: put a line break there, not a comma"
                )
            yield from _ids_of(value, source)
        else:
            end = _line_end(text, at)
            line, at = text[at:end].strip(), end
            if len(line.split()) > 1:
                raise ConfigurationError(f"{part} is neither an id nor a response of Execute")
            if line.endswith((",", ";")):
                raise ConfigurationError(
                    f"{part} ends with {line[-1]!r}: write one id per line, and nothing else"
                )
            yield line


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _ids_of(value: Any, source: str) -> Iterator[str]:
    """Yield the ids of a string, a response of Execute, or an array of these."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and not isinstance(one.get("run_id"), str):
            raise ConfigurationError(f"a response in {source} has no run_id")
        if not isinstance(one, dict | str):
            raise ConfigurationError(
                f"{source} contains JSON other than strings, responses of Execute, or arrays of"
                " these"
            )
        yield one["run_id"] if isinstance(one, dict) else one
