"""What a step's payloads tell about it: its kind, its model and tokens, an error under a `completed` status.

Small typed views of the payloads' text; everything else in them stays unparsed. A value of another type
than expected reads as missing, never as an error.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from etl.transform.fields import MAX_TEXT_CHARACTERS, MAX_TOKENS
from etl.transform.scanner import REFUSALS
from etl.usage import NO_USAGE, Usage, kinds_of

MAX_ERROR_CHARACTERS = 2_000
"""Of a reported error; the whole text stays in the payload."""

# What programs write where there is no error; as in the SQL function `says_something`, which judges the API's own.
_BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_ERROR = re.compile(
    rf"""[{_BLANK}"']*+"""
    r"(?:none|null|nil|<nil>|undefined|nan|n/?a|-++|0|false|no errors?|ok|success|\{\s*+\}|\[\s*+\])?"
    rf"""[{_BLANK}"'.]*+""",
    re.IGNORECASE | re.ASCII,
)
_FALSE = frozenset({"false", "no", "0"})
_FAILED = frozenset({"error", "failed", "failure"})
REMOVED_ERROR = "(removed by a redaction rule)"
"""Stands for a reported error whose text no rule has left: that there was one is still counted."""

LATE_ERROR = f"(an error of which the first {MAX_ERROR_CHARACTERS:,} characters say nothing)"
"""Stands for a reported error that was cut before its first word: the database judges what is stored."""


class _Outputs(Struct, gc=False):
    object: Any = None
    model: Any = None
    choices: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    documents: Raw | UnsetType = UNSET
    chunks: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    successful: Any = None
    successfull: Any = None
    success: Any = None


class _Inputs(Struct, gc=False):
    model: Any = None
    app_name: Any = None
    action: Any = None
    code: Raw | UnsetType = UNSET
    query: Raw | UnsetType = UNSET
    conditions: Raw | UnsetType = UNSET


class _Choice(Struct, gc=False):
    finish_reason: Any = None
    error: Raw | UnsetType = UNSET


class _Usage(Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: Raw | UnsetType = UNSET
    completion_tokens_details: Raw | UnsetType = UNSET
    input_tokens_details: Raw | UnsetType = UNSET
    output_tokens_details: Raw | UnsetType = UNSET


class _Details(Struct, gc=False):
    cached_tokens: Any = None
    reasoning_tokens: Any = None


class _Result(Struct, gc=False):
    error: Raw | UnsetType = UNSET
    successful: Any = None
    successfull: Any = None  # the API's own spelling, beside the right one
    success: Any = None


_OUTPUTS = msgspec.json.Decoder(_Outputs)
_INPUTS = msgspec.json.Decoder(_Inputs)
_CHOICES = msgspec.json.Decoder(list[_Choice])
_USAGE = msgspec.json.Decoder(_Usage)
_DETAILS = msgspec.json.Decoder(_Details)
_RESULT = msgspec.json.Decoder(_Result)
_ANY = msgspec.json.Decoder()

_NO_OUTPUTS, _NO_INPUTS, _NO_RESULT, _NO_COUNTS, _NO_DETAILS = _Outputs(), _Inputs(), _Result(), _Usage(), _Details()

_View = TypeVar("_View")


class Generation(Struct, frozen=True, gc=False):
    """The columns of a step that come from its payloads; None where they do not tell."""

    node_type: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    usage: Usage = NO_USAGE
    finish_reason: str | None = None
    reported_error: str | None = None
    """What the payload calls an error; what that means beside the step's state, the SQL function `outcome` says."""
    implausible: tuple[str, ...] = ()
    """Members of `usage` that hold no plausible number of tokens."""


def read_generation(inputs: Raw | None, outputs: Raw | None) -> Generation:
    """Read a step's payloads (JSON, None where there is none)."""
    given = _view(_INPUTS, inputs, _NO_INPUTS)
    made = _view(_OUTPUTS, outputs, _NO_OUTPUTS)
    if made.object == "chat.completion" or (made.choices is not UNSET and made.usage is not UNSET):
        return _model(given, made)
    result = _view(_RESULT, made.result, _NO_RESULT)
    if given.code is not UNSET:
        # What its author calls a success is the author's own affair, an error is one.
        return Generation("code", _short(given.model), reported_error=_error(result.error) or _error_text(made.error))
    node_type = None
    if (
        (given.app_name is not None and given.action is not None)
        or result.successful is not None
        or result.successfull is not None
        or result.error is not UNSET
    ):
        node_type = "integration"
    elif given.query is not UNSET and (made.documents is not UNSET or made.chunks is not UNSET):
        node_type = "knowledge_retrieval"
    elif given.conditions is not UNSET:
        node_type = "conditional"
    return Generation(
        node_type,
        _short(given.model),
        None if node_type == "integration" else _short(made.model),
        reported_error=_error(result.error) or _error_text(made.error) or _no_success(result) or _no_success(made),
    )


def is_error(value: object) -> bool:
    """Whether a value in the place of an error says something.

    Null, false, 0, blanks, words for nothing such as `None`, and lists and objects of nothing else do not.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, str):
            if not _NO_ERROR.fullmatch(one):
                return True
        elif one:
            return True
    return False


def with_facts_of(answered: Generation, left: Generation) -> Generation:
    """What may be stored of a redacted step: its values as the rules left them, its facts as the API answered them.

    A rule changes what a value says. It never changes what kind of node the step executed, nor whether it reported an error.
    """
    error = None if answered.reported_error is None else left.reported_error or REMOVED_ERROR
    return msgspec.structs.replace(left, node_type=answered.node_type, reported_error=error)


def _model(given: _Inputs, made: _Outputs) -> Generation:
    usage = _view(_USAGE, made.usage, _NO_COUNTS)
    took = _view(_DETAILS, usage.prompt_tokens_details or usage.input_tokens_details, _NO_DETAILS)
    gave = _view(_DETAILS, usage.completion_tokens_details or usage.output_tokens_details, _NO_DETAILS)
    choices: list[_Choice] = _view(_CHOICES, made.choices, [])
    implausible: list[str] = []

    def count(source: Struct, *names: str) -> int | None:
        for name in names:
            value = getattr(source, name)
            if value is not None:
                if type(value) is int and 0 <= value <= MAX_TOKENS:
                    return value
                implausible.append(name)
                return None
        return None

    read, written = count(usage, "prompt_tokens", "input_tokens"), count(usage, "completion_tokens", "output_tokens")
    total = count(usage, "total_tokens")
    if total is None and read is not None and written is not None:
        total = read + written
    used = Usage(
        input_tokens=read,
        cached_input_tokens=count(took, "cached_tokens"),
        output_tokens=written,
        reasoning_tokens=count(gave, "reasoning_tokens"),
        total_tokens=total,
    )
    return Generation(
        "model",
        _short(given.model),
        _short(made.model),
        msgspec.structs.replace(used, usage_kinds=kinds_of(used)),
        _short(choices[0].finish_reason) if choices else None,
        _error_text(made.error) or next(filter(None, map(_choice_error, choices)), None),
        tuple(implausible),
    )


def _choice_error(choice: _Choice) -> str | None:
    """The error with which a model's answer broke off."""
    if (error := _error(choice.error)) is not None:
        return error
    reason = choice.finish_reason
    ended_badly = isinstance(reason, str) and reason.strip().casefold() in _FAILED
    return f"finish_reason: {reason}"[:MAX_ERROR_CHARACTERS] if ended_badly else None


def _error_text(error: Raw | UnsetType) -> str | None:
    """An output called `error`, where it holds words: a number of that name is a result."""
    return None if error is UNSET or bytes(error)[:1] not in b'"{[' else _error(error)


def _error(error: Raw | UnsetType) -> str | None:
    """What an error says, as text; None where it says nothing."""
    found = _view(_ANY, error, None)
    if not is_error(found):
        return None
    text = (found if isinstance(found, str) else bytes(error or b"").decode())[:MAX_ERROR_CHARACTERS]
    return text if is_error(text) else LATE_ERROR


def _no_success(result: _Result | _Outputs) -> str | None:
    """What to say where a result calls itself no success."""
    for name, value in (
        ("successful", result.successful),
        ("successful", result.successfull),
        ("success", result.success),
    ):
        if value is False or (isinstance(value, str) and value.strip().casefold() in _FALSE):
            return f"reported {name}: false"
    return None


def _view(decoder: msgspec.json.Decoder[_View], text: Raw | UnsetType | None, otherwise: _View) -> _View:
    if not text:
        return otherwise
    try:
        return decoder.decode(text)
    except REFUSALS:
        return otherwise


def _short(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS else None
