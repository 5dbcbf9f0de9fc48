"""What a step's payloads tell about it: its kind, its model and tokens, a failure under a `completed` status.

Small typed views of the payloads' text; everything else in them stays unparsed. A value of another type
than expected reads as missing, never as an error.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from etl.transform.fields import MAX_BIGINT, MAX_TEXT_CHARACTERS
from etl.transform.scanner import REFUSALS

MAX_ERROR_CHARACTERS = 2_000
"""Of a reported error; the whole text stays in the payload."""

REMOVED_ERROR = "(removed by a redaction rule)"
"""Stands for a reported error whose text no rule has left: that there was one is still counted."""


class _Outputs(Struct, gc=False):
    object: Any = None
    model: Any = None
    choices: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    documents: Raw | UnsetType = UNSET
    chunks: Raw | UnsetType = UNSET


class _Inputs(Struct, gc=False):
    model: Any = None
    app_name: Any = None
    action: Any = None
    code: Raw | UnsetType = UNSET
    query: Raw | UnsetType = UNSET
    conditions: Raw | UnsetType = UNSET


class _Choice(Struct, gc=False):
    finish_reason: Any = None


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


_OUTPUTS = msgspec.json.Decoder(_Outputs)
_INPUTS = msgspec.json.Decoder(_Inputs)
_CHOICES = msgspec.json.Decoder(list[_Choice])
_USAGE = msgspec.json.Decoder(_Usage)
_DETAILS = msgspec.json.Decoder(_Details)
_RESULT = msgspec.json.Decoder(_Result)
_ANY = msgspec.json.Decoder()

_NO_OUTPUTS, _NO_INPUTS, _NO_RESULT, _NO_USAGE, _NO_DETAILS = _Outputs(), _Inputs(), _Result(), _Usage(), _Details()

_View = TypeVar("_View")


class Generation(Struct, frozen=True, gc=False):
    """The columns of a step that come from its payloads; None where they do not tell."""

    node_type: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    reported_error: str | None = None
    """What an integration's result calls an error; whether it counts is for the step's state to say."""


def read_generation(inputs: Raw | None, outputs: Raw | None) -> Generation:
    """Read a step's payloads (JSON, None where there is none)."""
    given = _view(_INPUTS, inputs, _NO_INPUTS)
    made = _view(_OUTPUTS, outputs, _NO_OUTPUTS)
    if made.object == "chat.completion" or (made.choices is not UNSET and made.usage is not UNSET):
        return _model(given, made)
    if given.code is not UNSET:
        return Generation("code", _short(given.model))
    result = _view(_RESULT, made.result, _NO_RESULT)
    if (
        (given.app_name is not None and given.action is not None)
        or result.successful is not None
        or result.successfull is not None
        or result.error is not UNSET
    ):
        return Generation("integration", _short(given.model), reported_error=_reported_error(result))
    node_type = None
    if given.query is not UNSET and (made.documents is not UNSET or made.chunks is not UNSET):
        node_type = "knowledge_retrieval"
    elif given.conditions is not UNSET:
        node_type = "conditional"
    return Generation(node_type, _short(given.model), _short(made.model))


def with_facts_of(answered: Generation, left: Generation) -> Generation:
    """What may be stored of a redacted step: its values as the rules left them, its facts as the API answered them.

    A rule changes what a value says. It never changes what kind of node the step executed, nor whether it reported an error.
    """
    error = None if answered.reported_error is None else left.reported_error or REMOVED_ERROR
    return msgspec.structs.replace(left, node_type=answered.node_type, reported_error=error)


def _model(given: _Inputs, made: _Outputs) -> Generation:
    usage = _view(_USAGE, made.usage, _NO_USAGE)
    took = _view(_DETAILS, usage.prompt_tokens_details or usage.input_tokens_details, _NO_DETAILS)
    gave = _view(_DETAILS, usage.completion_tokens_details or usage.output_tokens_details, _NO_DETAILS)
    choices: list[_Choice] = _view(_CHOICES, made.choices, [])
    return Generation(
        "model",
        _short(given.model),
        _short(made.model),
        _count(usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens),
        _count(usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens),
        _count(usage.total_tokens),
        _count(took.cached_tokens),
        _count(gave.reasoning_tokens),
        _short(choices[0].finish_reason) if choices else None,
    )


def _reported_error(result: _Result) -> str | None:
    error = _view(_ANY, result.error, None)
    if error:
        text = error if isinstance(error, str) else bytes(result.error or b"").decode()
        return text[:MAX_ERROR_CHARACTERS]
    if result.successful is False or result.successfull is False:
        return "reported successful: false"
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


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_BIGINT else None
