"""The columns of a step that come from its payloads: node type, model, usage, reported error.

Small typed views read only the members that matter; everything else stays unparsed. A value of an
unexpected type counts as missing and never raises an error.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from etl.transform.content_drift import UNKNOWN_SHAPES, unknown_shapes
from etl.transform.fields import MAX_TEXT_CHARACTERS
from etl.transform.model_responses import Completion, may_hold_usage
from etl.transform.scanner import REFUSALS
from etl.transform.usage_parts import usage_of
from etl.transform.usage_quantities import FLAGS, MONEY, WORDS
from etl.transform.usage_reading import OUTPUTS, UNREAD, Deviation
from etl.transform.usual_usage import usual_usage
from etl.usage import NO_USAGE, Usage

MAX_ERROR_CHARACTERS = 2_000
"""The longest reported error that is stored; the whole text stays in the payload."""

# What programs write if there is no error. The SQL function `is_error_text`, which checks the API's
# own `error`, must match the same texts.
_BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_ERROR = re.compile(
    rf"""[{_BLANK}"']*+"""
    r"(?:none|null|nil|<nil>|undefined|nan|n/?a|-++|0|false|no errors?|ok|success"
    r"|\{\s*+\}|\[\s*+\])?"
    rf"""[{_BLANK}"'.]*+""",
    re.IGNORECASE | re.ASCII,
)
_FALSE = frozenset({"false", "no", "0"})
_RESPONSES = ("chat.completion", "text_completion", "response")
"""The values of `object` that show a model's response, even if it reports no usage."""
_MAY_NAME_OTHER_MODELS = ("integration", "code")
"""Node types whose outputs may name a model that did not respond in this step."""
# Quantities that describe a call, but are not usage.
_NO_USE = WORDS | FLAGS
_FAILED = frozenset({"error", "failed", "failure"})
REMOVED_ERROR = "(removed by a redaction rule)"
"""The text stored for an error that redaction removed: the step still counts as having an error."""

LATE_ERROR = f"(an error of which the first {MAX_ERROR_CHARACTERS:,} characters say nothing)"
"""The text stored for an error whose first `MAX_ERROR_CHARACTERS` would not count as an error.

The database sees only the stored text.
"""


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
    messages: Raw | UnsetType = UNSET
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


class _Result(Struct, gc=False):
    error: Raw | UnsetType = UNSET
    successful: Any = None
    successfull: Any = None  # The API uses both spellings.
    success: Any = None
    data: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


_OUTPUTS = msgspec.json.Decoder(_Outputs)
_INPUTS = msgspec.json.Decoder(_Inputs)
_CHOICES = msgspec.json.Decoder(list[_Choice])
_RESULT = msgspec.json.Decoder(_Result)
_ANY = msgspec.json.Decoder()

_NO_OUTPUTS, _NO_INPUTS, _NO_RESULT = _Outputs(), _Inputs(), _Result()
_NO_CHOICES: list[_Choice] = []

_View = TypeVar("_View")


class Generation(Struct, frozen=True, gc=False):
    """The columns of a step that come from its payloads; None if unknown."""

    node_type: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    usage: Usage = NO_USAGE
    finish_reason: str | None = None
    reported_error: str | None = None
    """The error in the payload; the SQL function `outcome` combines it with the step's state."""
    deviations: tuple[Deviation, ...] = ()
    """Members that should report usage, but could not be read; payloads of an unknown shape."""


def read_generation(inputs: Raw | None, outputs: Raw | None) -> Generation:
    """Read the columns from a step's payloads: JSON, or None if the step lacks the payload."""
    input_view = _view(_INPUTS, inputs, _NO_INPUTS)
    output_view = _view(_OUTPUTS, outputs, _NO_OUTPUTS)
    is_model = output_view.object in _RESPONSES
    if output_view.choices is not UNSET and output_view.usage is not UNSET:
        usage = usual_usage(output_view.usage, output_view.service_tier, output_view.response_cost)
        if usage is not None:
            read = _chat(input_view, output_view, usage)
            # The choices hold the answer.
            return read if input_view.messages is not UNSET else _checked(read, inputs, None)
        is_model = True
    result = _view(_RESULT, output_view.result, _NO_RESULT)
    completion = None
    if outputs is not None and (is_model or _may_report_usage(outputs, output_view, result)):
        completion = Completion()
        completion.look(bytes(outputs), OUTPUTS)
    node_type = "model" if is_model else _node_type(input_view, output_view, result)
    if is_model:
        error = _model_error(output_view, _view(_CHOICES, output_view.choices, _NO_CHOICES))
    elif node_type == "code":
        # In a code node, `success` means what its author chose. Only errors count.
        error = _error(result.error) or _error_text(output_view.error)
    else:
        error = (
            _error(result.error)
            or _error_text(output_view.error)
            or _no_success(result)
            or _no_success(output_view)
        )
    read = Generation(
        node_type,
        _request_model(input_view),
        None
        if output_view.model is None or node_type in _MAY_NAME_OTHER_MODELS
        else _short(output_view.model),
        reported_error=error,
    )
    if completion is not None:
        read = _with_usage(read, completion)
    if not _is_call(read):
        return read
    return _checked(
        read,
        None if input_view.messages is not UNSET else inputs,
        None if completion is not None and completion.may_answer else outputs,
    )


def _is_call(read: Generation) -> bool:
    """Return whether the step called a model, as the SQL function `is_call` decides.

    The database also looks at the step's state.
    """
    return (
        read.usage != NO_USAGE
        or read.finish_reason is not None
        or (
            (read.response_model is not None or read.request_model is not None)
            and read.node_type not in _MAY_NAME_OTHER_MODELS
        )
    )


def _checked(read: Generation, inputs: Raw | None, outputs: Raw | None) -> Generation:
    """Add a deviation for each payload of a call that has an unknown shape; None is not checked.

    The outputs of a call that failed are not checked: it needs no answer.
    """
    found = unknown_shapes(inputs, outputs if read.reported_error is None else None)
    if not found:
        return read
    return msgspec.structs.replace(read, deviations=(*read.deviations, *found))


def _may_report_usage(outputs: Raw, output_view: _Outputs, result: _Result) -> bool:
    if output_view.usage is not UNSET or result.usage is not UNSET:
        return True
    # The API wraps an integration's response in an envelope: only the content is searched.
    if result.data is not UNSET:
        return may_hold_usage(result.data)
    return may_hold_usage(outputs if output_view.result is UNSET else output_view.result)


def _with_usage(read: Generation, completion: Completion) -> Generation:
    """Add the usage of the response that was found in the payloads."""
    found, deviations = completion.read()
    # Money and quantities that cannot be read count as a model's usage only if a model is named:
    # without a model, any service can have reported them.
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


def _node_type(input_view: _Inputs, output_view: _Outputs, result: _Result) -> str | None:
    if input_view.code is not UNSET:
        return "code"
    if (
        (input_view.app_name is not None and input_view.action is not None)
        or result.successful is not None
        or result.successfull is not None
        or result.error is not UNSET
    ):
        return "integration"
    if input_view.query is not UNSET and (
        output_view.documents is not UNSET or output_view.chunks is not UNSET
    ):
        return "knowledge_retrieval"
    return "conditional" if input_view.conditions is not UNSET else None


def is_error(value: object) -> bool:
    """Return whether the value of a member such as `error` is an error.

    These are no errors: null, false, 0, blank text, words for nothing such as `None`, and lists and
    objects that contain only such values.
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


def with_facts_of(original: Generation, redacted: Generation) -> Generation:
    """Return what may be stored of a redacted step: redacted values with the original facts.

    A rule changes values. It never changes the type of the node that the step executed, nor
    whether the step reported an error, nor whether its payloads have a known shape.

    Args:
        original: read from the API's response.
        redacted: read after redaction.
    """
    error = None if original.reported_error is None else redacted.reported_error or REMOVED_ERROR
    deviations = tuple(
        one
        for one in redacted.deviations
        if one.kind not in UNKNOWN_SHAPES or one in original.deviations
    )
    return msgspec.structs.replace(
        redacted, node_type=original.node_type, reported_error=error, deviations=deviations
    )


def _chat(input_view: _Inputs, output_view: _Outputs, usage: Usage) -> Generation:
    choices = _view(_CHOICES, output_view.choices, _NO_CHOICES)
    return Generation(
        node_type="model",
        request_model=_request_model(input_view),
        response_model=_short(output_view.model),
        usage=usage,
        finish_reason=(_short(choices[0].finish_reason) or _short(choices[0].stop_reason))
        if choices
        else None,
        reported_error=_model_error(output_view, choices),
    )


def _request_model(input_view: _Inputs) -> str | None:
    for name in (input_view.model, input_view.modelId, input_view.model_id, input_view.model_name):
        if name is not None:
            return _short(name)
    return None


def _model_error(output_view: _Outputs, choices: list[_Choice]) -> str | None:
    return _error_text(output_view.error) or next(filter(None, map(_choice_error, choices)), None)


def _choice_error(choice: _Choice) -> str | None:
    """Return the error that ended a model's response; None if there was none."""
    return _error(choice.error) or _bad_end(choice.finish_reason)


def _bad_end(reason: object) -> str | None:
    ended_badly = isinstance(reason, str) and reason.strip().casefold() in _FAILED
    return f"finish_reason: {reason}"[:MAX_ERROR_CHARACTERS] if ended_badly else None


def _error_text(error: Raw | UnsetType) -> str | None:
    """Return the error in an output named `error`; a number or boolean there is a result."""
    return None if error is UNSET or bytes(error)[:1] not in b'"{[' else _error(error)


def _error(error: Raw | UnsetType) -> str | None:
    """Return the text of an error; None if the value is not an error."""
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
    """Return an error if the result says that it was not successful, else None."""
    if result.successful is None and result.successfull is None and result.success is None:
        return None
    if _is_false(result.successful) or _is_false(result.successfull):
        return "reported successful: false"
    return "reported success: false" if _is_false(result.success) else None


def _is_false(value: object) -> bool:
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
