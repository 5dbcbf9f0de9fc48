"""What a step's payloads tell about it: its kind, its model and tokens, an error under a `completed` status.

Small typed views of the payloads' text; everything else in them stays unparsed. A value of another
type than expected reads as missing, never as an error.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from etl.transform.fields import MAX_TEXT_CHARACTERS, MAX_TOKENS
from etl.transform.model_responses import OUTPUTS, Completion, may_hold_usage
from etl.transform.scanner import REFUSALS
from etl.transform.usage_names import FLAGS, MONEY, WORDS
from etl.transform.usage_parts import plain_usage, usage_of
from etl.transform.usage_reading import UNREAD, Deviation
from etl.usage import NO_USAGE, STANDARD, Usage

MAX_ERROR_CHARACTERS = 2_000
"""Of a reported error; the whole text stays in the payload."""

# What programs write where there is no error; as in the SQL function `is_error_text`, which judges
# the API's own.
_BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_ERROR = re.compile(
    rf"""[{_BLANK}"']*+"""
    r"(?:none|null|nil|<nil>|undefined|nan|n/?a|-++|0|false|no errors?|ok|success|\{\s*+\}|\[\s*+\])?"
    rf"""[{_BLANK}"'.]*+""",
    re.IGNORECASE | re.ASCII,
)
_FALSE = frozenset({"false", "no", "0"})
_RESPONSES = ("chat.completion", "text_completion", "response")
"""What an object is called that is the response of a model, whether it tells usage or not."""
_NOT_BY_THEMSELVES = ("integration", "code")
"""Nodes whose outputs name a model that need not have answered here."""
_NO_USE = WORDS | FLAGS
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
    service_tier: Any = None
    response_cost: Any = None


class _Inputs(Struct, gc=False):
    model: Any = None
    modelId: Any = None
    model_id: Any = None
    model_name: Any = None
    app_name: Any = None
    action: Any = None
    code: Raw | UnsetType = UNSET
    query: Raw | UnsetType = UNSET
    conditions: Raw | UnsetType = UNSET


class _Choice(Struct, gc=False):
    finish_reason: Any = None
    stop_reason: Any = None
    error: Raw | UnsetType = UNSET


_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None


class _UsualDetails(Struct, gc=False, forbid_unknown_fields=True):
    cached_tokens: _Count = None
    reasoning_tokens: _Count = None
    audio_tokens: _Count = None
    image_tokens: _Count = None
    video_tokens: _Count = None
    text_tokens: _Count = None
    accepted_prediction_tokens: _Count = None
    rejected_prediction_tokens: _Count = None


class _UsualUsage(Struct, gc=False, forbid_unknown_fields=True):
    """Names of `usage_names` that nearly all responses have, read in one go. With any other name, the table reads them all."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _UsualDetails | None = None
    completion_tokens_details: _UsualDetails | None = None
    queue_time: Any = None
    prompt_time: Any = None
    completion_time: Any = None
    total_time: Any = None


class _Result(Struct, gc=False):
    error: Raw | UnsetType = UNSET
    successful: Any = None
    successfull: Any = None  # the API's own spelling, beside the right one
    success: Any = None
    data: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


_OUTPUTS = msgspec.json.Decoder(_Outputs)
_INPUTS = msgspec.json.Decoder(_Inputs)
_CHOICES = msgspec.json.Decoder(list[_Choice])
_USUAL: msgspec.json.Decoder[_UsualUsage | None] = msgspec.json.Decoder(_UsualUsage)
_RESULT = msgspec.json.Decoder(_Result)
_ANY = msgspec.json.Decoder()

_NO_OUTPUTS, _NO_INPUTS, _NO_RESULT = _Outputs(), _Inputs(), _Result()
_NO_CHOICES: list[_Choice] = []
_NO_DETAILS = _UsualDetails()

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
    deviations: tuple[Deviation, ...] = ()
    """What should tell usage, and is not read."""


def read_generation(inputs: Raw | None, outputs: Raw | None) -> Generation:
    """Read a step's payloads (JSON, None where there is none)."""
    given = _view(_INPUTS, inputs, _NO_INPUTS)
    made = _view(_OUTPUTS, outputs, _NO_OUTPUTS)
    is_model = made.object in _RESPONSES
    if made.choices is not UNSET and made.usage is not UNSET:
        if (usual := _view(_USUAL, made.usage, None)) is not None and (
            usage := _usual_usage(usual, made)
        ) is not None:
            return _chat(given, made, usage)
        is_model = True
    result = _view(_RESULT, made.result, _NO_RESULT)
    completion = None
    if outputs is not None and (is_model or _may_tell_usage(outputs, made, result)):
        completion = Completion()
        completion.look(bytes(outputs), OUTPUTS)
    node_type = "model" if is_model else _node_type(given, made, result)
    if is_model:
        error = _model_error(made, _view(_CHOICES, made.choices, _NO_CHOICES))
    elif node_type == "code":
        # What its author calls a success is the author's own affair, an error is one.
        error = _error(result.error) or _error_text(made.error)
    else:
        error = (
            _error(result.error)
            or _error_text(made.error)
            or _no_success(result)
            or _no_success(made)
        )
    read = Generation(
        node_type,
        _request_model(given),
        None if made.model is None or node_type in _NOT_BY_THEMSELVES else _short(made.model),
        reported_error=error,
    )
    return read if completion is None else _with_usage(read, completion)


def _may_tell_usage(outputs: Raw, made: _Outputs, result: _Result) -> bool:
    if made.usage is not UNSET or result.usage is not UNSET:
        return True
    # What an integration gives stands in an envelope of the API: nothing else is looked at.
    if result.data is not UNSET:
        return may_hold_usage(result.data)
    return may_hold_usage(outputs if made.result is UNSET else made.result)


def _with_usage(read: Generation, completion: Completion) -> Generation:
    """What the payloads tell, together with the response that was found in them."""
    found, deviations = completion.read()
    # Money alone, or what cannot be read, may be anybody's; beside the name of a model it is that
    # of a call.
    model = completion.model or read.request_model
    if read.node_type != "model" and (
        _NO_USE if model is not None else _NO_USE | MONEY | {UNREAD}
    ).issuperset(found):
        return msgspec.structs.replace(read, deviations=tuple(deviations)) if deviations else read
    usage, dropped = usage_of(found)
    for name in dropped:
        deviations.note(f"{OUTPUTS}.{name}", "implausible_number", 0)
    reason = completion.finish_reason
    return msgspec.structs.replace(
        read,
        node_type=read.node_type or "model",
        response_model=completion.model or read.response_model,
        usage=usage,
        finish_reason=reason,
        reported_error=read.reported_error or _bad_end(reason),
        deviations=tuple(deviations),
    )


def _node_type(given: _Inputs, made: _Outputs, result: _Result) -> str | None:
    if given.code is not UNSET:
        return "code"
    if (
        (given.app_name is not None and given.action is not None)
        or result.successful is not None
        or result.successfull is not None
        or result.error is not UNSET
    ):
        return "integration"
    if given.query is not UNSET and (made.documents is not UNSET or made.chunks is not UNSET):
        return "knowledge_retrieval"
    return "conditional" if given.conditions is not UNSET else None


def is_error(value: object) -> bool:
    """Whether a value in the place of an error says something.

    Null, false, 0, blanks, words for nothing such as `None`, and lists and objects of nothing else
    do not.
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

    A rule changes what a value says. It never changes what kind of node the step executed, nor
    whether it reported an error.
    """
    error = None if answered.reported_error is None else left.reported_error or REMOVED_ERROR
    return msgspec.structs.replace(left, node_type=answered.node_type, reported_error=error)


def _usual_usage(used: _UsualUsage, made: _Outputs) -> Usage | None:
    """What `usage_of` makes of the names that nearly all responses have; None where it takes more to decide."""
    took, gave = (
        used.prompt_tokens_details or _NO_DETAILS,
        used.completion_tokens_details or _NO_DETAILS,
    )
    read, wrote, cached, reasoning = (
        used.prompt_tokens,
        used.completion_tokens,
        took.cached_tokens,
        gave.reasoning_tokens,
    )
    if (
        read is None
        or wrote is None
        or (used.total_tokens is not None and used.total_tokens != read + wrote)
        or (cached is not None and cached > read)
        or (reasoning is not None and reasoning > wrote)
        or took.audio_tokens
        or took.image_tokens
        or took.video_tokens
        or gave.audio_tokens
        or gave.image_tokens
        or gave.video_tokens
        or took.reasoning_tokens
        or gave.cached_tokens
        or made.service_tier not in (None, "default")
        or made.response_cost is not None
    ):
        return None
    return plain_usage(
        read=read,
        wrote=wrote,
        cached=cached,
        reasoning=reasoning,
        service_tier=None if made.service_tier is None else STANDARD,
    )


def _chat(given: _Inputs, made: _Outputs, usage: Usage) -> Generation:
    choices = _view(_CHOICES, made.choices, _NO_CHOICES)
    return Generation(
        node_type="model",
        request_model=_request_model(given),
        response_model=_short(made.model),
        usage=usage,
        finish_reason=(_short(choices[0].finish_reason) or _short(choices[0].stop_reason))
        if choices
        else None,
        reported_error=_model_error(made, choices),
    )


def _request_model(given: _Inputs) -> str | None:
    for name in (given.model, given.modelId, given.model_id, given.model_name):
        if name is not None:
            return _short(name)
    return None


def _model_error(made: _Outputs, choices: list[_Choice]) -> str | None:
    return _error_text(made.error) or next(filter(None, map(_choice_error, choices)), None)


def _choice_error(choice: _Choice) -> str | None:
    """The error with which a model's answer broke off."""
    return _error(choice.error) or _bad_end(choice.finish_reason)


def _bad_end(reason: object) -> str | None:
    ended_badly = isinstance(reason, str) and reason.strip().casefold() in _FAILED
    return f"finish_reason: {reason}"[:MAX_ERROR_CHARACTERS] if ended_badly else None


def _error_text(error: Raw | UnsetType) -> str | None:
    """An output called `error`, where it holds words: a number of that name is a result."""
    return None if error is UNSET or bytes(error)[:1] not in b'"{[' else _error(error)


def _error(error: Raw | UnsetType) -> str | None:
    """What an error says, as text; None where it says nothing."""
    if error is UNSET or bytes(memoryview(error)[:5]) == b"null":
        return None
    found = _view(_ANY, error, None)
    if not is_error(found):
        return None
    text = (found if isinstance(found, str) else bytes(error or b"").decode())[
        :MAX_ERROR_CHARACTERS
    ]
    return text if is_error(text) else LATE_ERROR


def _no_success(result: _Result | _Outputs) -> str | None:
    """What to say where a result calls itself no success."""
    if _says_no(result.successful) or _says_no(result.successfull):
        return "reported successful: false"
    return "reported success: false" if _says_no(result.success) else None


def _says_no(value: object) -> bool:
    return value is False or (isinstance(value, str) and value.strip().casefold() in _FALSE)


def _view(
    decoder: msgspec.json.Decoder[_View], text: Raw | UnsetType | None, otherwise: _View
) -> _View:
    if not text:
        return otherwise
    try:
        return decoder.decode(text)
    except REFUSALS:
        return otherwise


def _short(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS else None
