"""Detection of what PostgreSQL's jsonb refuses, and the nearest form that it accepts.

The text is never parsed: values keep every digit and character. If jsonb refuses a token, only that
token is rewritten, and the exact bytes are stored in `raw`. The limits are measured with
PostgreSQL 15 and 18.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import NamedTuple

import msgspec
from msgspec import Raw

from etl.records import Payload
from etl.transform.scanner import REFUSALS, check_utf8

MAX_DEPTH = 5_000
"""The deepest nesting that is stored as JSON.

At the default `max_stack_depth`, the server fails between 14,518 and 16,332 levels.
"""

# `numeric` holds 131,072 digits before the decimal point and 16,383 after it, once the exponent is
# applied.
_MAX_WHOLE_DIGITS = 131_072
_MAX_FRACTION_DIGITS = 16_383

# A jsonb container holds 2**28 - 1 bytes. The server collects an object's members in one allocation
# of less than 1 GB, which is enough for 8.4 million. No text below 32 MiB can reach either limit.
_ALWAYS_FITS_BYTES = 32 * 1024 * 1024
_MAX_CONTAINER_BYTES = 2**28 - 1
_MAX_ELEMENTS = 8_000_000
# Maximum bytes that an element takes besides its text: entry, header of a number, alignment.
_OVERHEAD_BYTES = 16

# A number beyond the limits of `numeric` has an exponent of six digits (or a sign and five), or
# more than 6,384 digits in a row. Of the shorter exponents, -9999 leaves room for 6,384 digits
# after the point, and 99999 leaves room for 31,073 digits before it.
_SHAPES = bytes.maketrans(b"0123456789+-E{", b"000000000000e[")
_BIG_EXPONENT = b"0e000000"
_EXPONENT = re.compile(rb"[0-9][eE][+-]?[0-9]++(?:[ \t\n\r,\]}]|$)")
_STRIDE = 3_000
_NEIGHBOURING_DIGITS = re.compile(rb"[0-9](?=[0-9])")

_OPENING = ord("[")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_DEPTH_PIECE = 4_096
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

# The next token that may need a change or changes the depth: a bracket, a string with an escape or
# a control character, a long number, NaN, infinity. The order of alternatives matters, as in
# `scanner`.
_TOKEN = re.compile(
    r'(?:-?[0-9][0-9.eE+-]{0,4}+(?![0-9.eE+-])|"[^"\\\x00-\x1f]*+"|[^"\[\]{}NI0-9-]++)*+'
    r'("(?:\\.|[^"\\]++)*+"|[\[\]{}]|NaN|-?Infinity|-?[0-9][0-9.eE+-]*+)',
    re.DOTALL,
)
_ESCAPE = re.compile(
    # A pair of surrogates is one character.
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
    # Any other escape as a whole: the second half of an escaped backslash must not start an escape.
    r"|\\."
)
_CONTROL = re.compile(r"[\x00-\x1f]")
_VALID = msgspec.json.Decoder(Raw)
# A pattern finds it in half the time that `in` takes: it jumps from one backslash to the next.
_NUL = re.compile(rb"\\(?:u0000)")


class Storable(NamedTuple):
    """A JSON value in a form that jsonb accepts."""

    data: bytes | None
    """JSON text in UTF-8; None if no form of the value fits."""
    note: str | None
    """What was changed; None if nothing was."""


def may_be_refused(body: bytes) -> bool:
    """Return whether jsonb might refuse something in this text, which must be strict JSON.

    False means that jsonb certainly accepts the text. The check takes about 2 ns a byte: a whole
    response is checked once, and single values only if the response is suspect.
    """
    return len(body) > _ALWAYS_FITS_BYTES or _may_need_rewriting(body)


def storable(value: bytes) -> Storable:
    """Return a JSON value, read tolerantly, in a form that jsonb accepts, and what was changed."""
    try:
        check_utf8(value)
        _VALID.decode(value)
        needs_rewriting = _may_need_rewriting(value)
    except REFUSALS:
        needs_rewriting = True
    data = value
    replaced: list[str] = []
    if needs_rewriting:
        text, replaced = _rewrite(value)
        data = text.encode()
    if _too_large(data):
        return Storable(None, "too large for jsonb")
    return Storable(data, f"jsonb cannot hold: {', '.join(replaced)}" if replaced else None)


def payload(value: Raw, *, suspect: bool, keep_raw: bool = True) -> Payload:
    """Return a value for a payload column.

    If not `suspect`, jsonb is known to accept the value unchanged. If not `keep_raw`, what jsonb
    cannot hold is lost, and the note says so.
    """
    size = len(value)
    if not suspect:
        return Payload(value, size)
    exact = bytes(value)
    data, note = storable(exact)
    if note is None:
        return Payload(value, size)
    kept = None if data is None else Raw(data)
    if not keep_raw:
        return Payload(kept, size, None, f"{note}; not kept: the workflow has redaction rules")
    return Payload(kept, size, exact, note)


def _may_need_rewriting(body: bytes) -> bool:
    if _NUL.search(body):
        return True
    shapes = body.translate(_SHAPES)
    found = shapes.find(_BIG_EXPONENT)
    while found >= 0:
        # Most are parts of hexadecimal ids, which continue with a letter or end a string.
        if _EXPONENT.match(body, found):
            return True
        found = shapes.find(_BIG_EXPONENT, found + 1)
    # Probes are 3,000 bytes apart, so 6,000 digits in a row contain two neighbouring probes.
    for match in _NEIGHBOURING_DIGITS.finditer(body[::_STRIDE]):
        probe = match.start() * _STRIDE
        if body[probe : probe + _STRIDE].isdigit():
            return True
    return len(body) > 2 * MAX_DEPTH and shapes.count(b"[") > MAX_DEPTH and _is_too_deep(body)


def _is_too_deep(body: bytes) -> bool:
    """Return whether the text is nested more deeply than `MAX_DEPTH`.

    The text may be a large response. It is read in pieces, so that memory is bounded by two copies.
    Only pieces that could exceed the limit are read bracket by bracket.
    """
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = 0
    in_string = False
    for start in range(0, len(text), _DEPTH_PIECE):
        parts = text[start : start + _DEPTH_PIECE].split(b'"')
        brackets = b"".join(parts[in_string::2]).translate(_BRACKETS, _NO_BRACKETS)
        in_string ^= len(parts) % 2 == 0
        openings = brackets.count(b"[")
        if depth + openings > MAX_DEPTH:
            steps = (1 if bracket == _OPENING else -1 for bracket in brackets)
            if max(accumulate(steps, initial=depth)) > MAX_DEPTH:
                return True
        depth += 2 * openings - len(brackets)
    return False


def _rewrite(value: bytes) -> tuple[str, list[str]]:
    """Replace every token that jsonb refuses; return the text and the kinds of replacements.

    The kinds are in the order of their first appearance.
    """
    replaced: dict[str, None] = {}
    text = value.decode(errors="replace")
    if text.encode() != value:
        replaced["bytes that are not UTF-8"] = None
    pieces: list[str] = []
    position = copied = depth = cut = 0
    while match := _TOKEN.match(text, position):
        start, position = match.span(1)
        token = match[1]
        first = token[0]
        if first in "[{":
            depth += 1
            cut = start if depth == MAX_DEPTH + 1 else cut
            continue
        if first in "]}":
            depth -= 1
            if depth != MAX_DEPTH:
                continue
            start, replacement = cut, _quote(text[cut:position])
            replaced[f"nesting beyond {MAX_DEPTH} levels"] = None
        elif depth > MAX_DEPTH:
            continue
        elif first == '"':
            replacement = _clean_string(token, replaced)
            if replacement == token:
                continue
        elif first == "N" or token.endswith("y"):
            replacement = _quote(token)
            replaced["NaN or infinity"] = None
        elif _fits_numeric(token):
            continue
        else:
            replacement = _quote(token)
            replaced["a number beyond numeric"] = None
        pieces += (text[copied:start], replacement)
        copied = position
    pieces.append(text[copied:])
    return "".join(pieces), list(replaced)


def _quote(text: str) -> str:
    """Return the text as a JSON string that jsonb accepts."""
    return json.dumps(text.replace("\0", "\ufffd"), ensure_ascii=False)


def _clean_string(token: str, replaced: dict[str, None]) -> str:
    def escape(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        replaced["NUL" if match[1] == "0000" else "a lone surrogate"] = None
        return "\\ufffd"

    def control(match: re.Match[str]) -> str:
        replaced["NUL" if match[0] == "\0" else "an unescaped control character"] = None
        return "\\ufffd" if match[0] == "\0" else f"\\u{ord(match[0]):04x}"

    if "\\" in token:
        token = _ESCAPE.sub(escape, token)
    return _CONTROL.sub(control, token)


def _fits_numeric(number: str) -> bool:
    mantissa, _, exponent_digits = number.lower().partition("e")
    if len(exponent_digits.lstrip("+-0")) > 6:  # int() refuses thousands of digits.
        return False
    exponent = int(exponent_digits or 0)
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    significant = (whole + fraction).lstrip("0")
    if len(fraction) - exponent > _MAX_FRACTION_DIGITS:
        return False
    return not significant or len(significant) - len(fraction) + exponent <= _MAX_WHOLE_DIGITS


def _too_large(data: bytes) -> bool:
    if len(data) <= _ALWAYS_FITS_BYTES:
        return False
    elements = 1 + data.count(b",") + data.count(b"[") + data.count(b"{")
    return elements > _MAX_ELEMENTS or len(data) + _OVERHEAD_BYTES * elements > _MAX_CONTAINER_BYTES
