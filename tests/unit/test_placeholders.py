"""The columns of a step whose payloads are gone, after redaction rules."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from etl.transform.placeholders import PLACES
from etl.transform.redact import Redaction, RedactionRule
from etl.transform.stored import StoredPayload, StoredRow, redact_names, redact_step
from etl.usage import BITS, KINDS, Usage, charged

_USAGE: dict[str, Any] = {kind.name: 1 for kind in KINDS} | {
    "input_tokens": 100,
    "output_tokens": 50,
    "total_tokens": 151,
    "cached_input_tokens": 10,
    "cache_write_tokens": 5,
    "service_tier": "flex",
    "reported_cost": Decimal("0.5"),
}
_STORED: dict[str, Any] = {
    "id": "s", "user_id": None, "organization_id": None, "node_id": None, "status": "completed",
    "start_time": None,
    "end_time": None, "api_elapsed_seconds": None, "api_tokens": 0, "error": None,
    "step_metadata": None, "extra": None,
    "reported_error": None, "request_model": "requested", "response_model": "answered",
    "finish_reason": "stop", **_USAGE,
}  # fmt: skip
_STORED["usage_kinds"] = sum(BITS[name] for name in charged(Usage(**_USAGE)))
_GONE = StoredPayload(None, None)


def _path(payload: str, place: tuple[str, ...]) -> str:
    way = ""
    for part in place:
        member, bracket, condition = part.partition("[")
        by, _, value = condition.removesuffix("]").partition("=")
        way += f"['{member}']" + (f"[?@['{by}']=='{value}']" if by else "[*]" if bracket else "")
    return f"$.{payload}{way}"


def _left(path: str, action: Any = "drop") -> dict[str, Any]:
    policy = Redaction([RedactionRule(path, action)], "k" * 32).policy("w")
    assert policy is not None
    return redact_step(StoredRow(_STORED, {"inputs": _GONE, "outputs": _GONE}), policy).columns


@pytest.mark.parametrize(
    ("payload", "column"),
    [(payload, column) for payload, places in PLACES.items() for column in places],
)
def test_a_rule_for_any_place_reaches_the_column(payload: str, column: str) -> None:
    """A rule with any provider's name clears the column of that value; the others keep theirs."""
    for place in PLACES[payload][column]:
        if place == ("usage", "cost", "total_cost"):
            continue  # The number is in its place.
        left = _left(_path(payload, place))
        assert left[column] is None, place
        changed = {name for name in left if name in _STORED and left[name] != _STORED[name]}
        assert changed <= {column, "usage_kinds"}, place


def test_texts_are_masked_and_other_places_untouched() -> None:
    """A column has a masked text like the payload; a rule for another place changes nothing."""
    assert _left("$.outputs.choices[*].finish_reason", "mask")["finish_reason"] == "********"
    untouched = _left("$.outputs.usage.prompt")
    assert {name: untouched[name] for name in Usage.__struct_fields__} == {
        name: _STORED[name] for name in Usage.__struct_fields__
    }
    everything = _left("$.outputs")
    # That something could not be read is a fact, not content.
    counted = {name: everything.pop(name) for name in ("unread_quantities", "usage_kinds")}
    assert counted == {"unread_quantities": 1, "usage_kinds": BITS["unread_quantities"]}
    assert {
        value
        for name, value in everything.items()
        if name in (*Usage.__struct_fields__, "response_model")
    } == {None}
    assert everything["request_model"] == "requested"


@pytest.mark.parametrize("name", ["model", "modelVersion", "model_version", "modelId"])
@pytest.mark.parametrize("is_call", [True, False])
def test_models_of_hours(name: str, is_call: bool) -> None:
    """A rule for any name of a model also applies to the model by which steps were counted."""
    for path, expected in ((f"$.outputs.{name}", None), ("$.outputs.other", "m")):
        policy = Redaction([RedactionRule(path, "drop")], "k" * 32).policy("w")
        assert policy is not None
        names = redact_names(policy, organization_id="o", node_id="n", model="m", is_call=is_call)
        assert names == ("o", expected)
