"""Decoding of the steps endpoint's responses, from bytes to records.

`scanner` splits a response into steps and members by a fast or a tolerant method. The code here is
the same for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from types import MappingProxyType

from msgspec import Raw

from etl.dead_letter_buffer import cut
from etl.records import DecodedSteps, Rejected, RejectionReason, Step
from etl.transform.fields import Fields, Findings, usable_id
from etl.transform.generation import Generation, read_generation, with_facts_of
from etl.transform.payloads import may_be_refused, payload
from etl.transform.redact import NotRedactable, Policy
from etl.transform.scanner import (
    ALWAYS_READ,
    Element,
    elements,
    has_too_many_members,
    is_strict_json,
)
from etl.transform.states import StateMap
from etl.transform.step_columns import StepColumns, read_columns, read_usual
from etl.transform.tolerant_json import Malformed, Members, is_json

TRANSFORM_VERSION = 2
"""The version of the decoding. Raise it whenever the same bytes give different records.

It is part of `content_hash`, by which the load skips stored rows. With the old hash, rows that a
newer version decodes differently would count as unchanged and would never be written.
"""

# Maximum number of steps decoded from a response: one for each 256 bytes of it. A decoded step
# takes at most five times as much memory.
_STEP_BYTES = 256
# `_is_json` does not read an element of this many bytes tolerantly: that takes a microsecond for
# each bracket.
_LARGE = 1 << 20
_NO_NODE_TYPES: Mapping[str, str] = MappingProxyType({})


def decode_steps(
    body: bytes,
    *,
    workflow_id: str,
    run_id: str,
    states: StateMap,
    node_types: Mapping[str, str] = _NO_NODE_TYPES,
    policy: Policy | None = None,
    now: datetime | None = None,
) -> DecodedSteps:
    """Decode one complete response of the steps endpoint.

    No content raises an error, and memory is proportional to the size of the body.

    Args:
        body: the response body.
        workflow_id: the run's workflow.
        run_id: the run.
        states: the mapping from status to state.
        node_types: node type by node id, if the workflow's graph is known.
        policy: the workflow's redaction rules; None if there are none.
        now: about the time of the response, to detect implausible times; None if unknown.

    Returns:
        The steps. Elements that cannot become a step are in `rejected`, with their bytes;
        `readable` is False if the body is not a JSON array.
    """
    try:
        return _decoded(
            body,
            workflow_id,
            run_id=run_id,
            states=states,
            node_types=node_types,
            policy=policy,
            now=now,
        )
    except Malformed:
        return DecodedSteps((), (not_an_array(body, policy),), readable=False)


def _decoded(
    body: bytes,
    workflow_id: str,
    run_id: str,
    states: StateMap,
    node_types: Mapping[str, str],
    policy: Policy | None,
    now: datetime | None,
) -> DecodedSteps:
    may_be_odd = policy is None and may_be_refused(body)
    version = None if policy is None else policy.version
    findings = Findings("step", now=now)
    steps: dict[str, Step] = {}
    own_texts: dict[str, Raw] = {}
    position = -1
    # jsonb may refuse a part of an odd response, and rules need the members.
    read = (
        partial(read_usual, latest=findings.latest) if policy is None and not may_be_odd else None
    )
    for element in elements(body, most=max(ALWAYS_READ, len(body) // _STEP_BYTES), read=read):
        position += element.number
        own, members, suspect = element.own, element.members, may_be_odd or not element.strict
        original = None
        if policy is not None and members is not None:
            try:
                original = generation_of(
                    members, suspect=not element.strict or may_be_refused(bytes(own))
                )
                own, members, suspect = policy.step(own, members)
            except NotRedactable as error:
                findings.dead_letters.add(
                    policy.withhold_unredactable(error, own, usable_id(members.get("id")))
                )
                continue
        columns: StepColumns | None = element.record
        step_id = None if members is None else usable_id(members.get("id"))
        if columns is not None:
            step_id = columns.id
        if step_id is None:
            reject_element(findings, element, own=own, members=members, policy=policy)
            continue
        if step_id in steps:
            earlier = bytes(own_texts[step_id])
            if earlier == bytes(own):
                continue
            findings.reject(
                "duplicate_id",
                "A later step of the same response has the same id.",
                earlier,
                step_id,
            )
            del steps[step_id]  # The later step also determines the position in the order.
        own_texts[step_id] = own
        if columns is None:
            assert members is not None
            columns = read_columns(
                Fields(step_id, members, findings, suspect=suspect, keep_raw=policy is None),
                step_id,
            )
        steps[step_id] = _step(
            columns,
            position=position,
            own=own,
            context=f"{TRANSFORM_VERSION}\0{workflow_id}\0{run_id}\0{position}",
            findings=findings,
            states=states,
            node_types=node_types,
            original=original,
            policy_version=version,
        )
    return DecodedSteps(
        tuple(steps.values()), findings.rejected, findings.drift, digest=_digest(steps.values())
    )


def not_an_array(body: bytes, policy: Policy | None) -> Rejected:
    """Return the dead letter of a response, without its bytes if there are redaction rules."""
    reason: RejectionReason = "not_an_array"
    detail = "The response is not a JSON array."
    return (
        cut(Rejected(reason, detail, body))
        if policy is None
        else policy.withhold(reason, detail, body)
    )


def reject_element(
    findings: Findings, element: Element, own: Raw, members: Members | None, policy: Policy | None
) -> None:
    """Add a dead letter for an element that has no members, or no usable id.

    If there are members, `own` is the element after redaction. If there are none, the element
    cannot be redacted: its bytes are not kept if there are rules.
    """
    body = bytes(own)
    if members is not None:
        findings.reject(
            "unusable_id",
            "The id is missing, empty, too long, or not text that PostgreSQL can hold.",
            body,
        )
        return
    reason: RejectionReason
    if element.unread:
        reason, detail = (
            "too_many",
            "The response has more elements than its length allows.",
        )
    elif has_too_many_members(own):
        reason, detail = (
            "too_many",
            "An element of the response has too many members.",
        )
    elif element.strict or (not body.startswith(b"{") and _is_json(body, element.number)):
        reason, detail = "not_an_object", "An element of the response is not a JSON object."
    else:
        reason, detail = "malformed", "An element of the response is not well-formed JSON."
    rejected = (
        Rejected(reason, detail, body) if policy is None else policy.withhold(reason, detail, body)
    )
    findings.dead_letters.add(rejected, count=element.number)


def _is_json(body: bytes, number: int) -> bool:
    """Return whether the text of `number` elements is JSON.

    A single small element is read tolerantly; anything else must conform to the standard.
    """
    return (
        is_json(body) if number == 1 and len(body) < _LARGE else is_strict_json(b"[" + body + b"]")
    )


def _step(
    columns: StepColumns,
    *,
    position: int,
    own: Raw,
    context: str,
    findings: Findings,
    states: StateMap,
    node_types: Mapping[str, str],
    original: Generation | None,
    policy_version: str | None,
) -> Step:
    node_id, status = columns.node_id, columns.status
    state = states.state_of(status)
    if state == "unknown" and status is not None:
        findings.add_drift("status", "unknown_status", status)
    inputs, outputs = columns.inputs, columns.outputs
    seen = read_generation(
        None if inputs is None else inputs.data, None if outputs is None else outputs.data
    )
    if original is not None:
        seen = with_facts_of(original, seen)
    for deviation in seen.deviations:
        findings.add_drift(deviation.path, deviation.kind, deviation.found)
    node_type = seen.node_type if node_id is None else node_types.get(node_id, seen.node_type)
    # The hash covers everything that the row depends on: if the step's workflow or node type is
    # corrected later, the row must be written again.
    digest = hashlib.blake2b(f"{context}\0{state}\0{node_type}\0".encode(), digest_size=16)
    if policy_version is not None:
        # Redaction may remove the error from the bytes. The hash must still change if the step
        # reports an error for the first time.
        digest.update(f"{policy_version}\0{seen.reported_error is not None}\0".encode())
    digest.update(own)
    return Step(
        id=columns.id,
        position=position,
        node_id=node_id,
        node_type=node_type,
        user_id=columns.user_id,
        organization_id=columns.organization_id,
        status=status,
        state=state,
        start_time=columns.start_time,
        end_time=columns.end_time,
        api_elapsed_seconds=columns.api_elapsed_seconds,
        api_tokens=columns.api_tokens,
        request_model=seen.request_model,
        response_model=seen.response_model,
        usage=seen.usage,
        finish_reason=seen.finish_reason,
        error=columns.error,
        reported_error=seen.reported_error,
        step_metadata=columns.step_metadata,
        extra=columns.extra,
        inputs=inputs,
        outputs=outputs,
        content_hash=digest.digest(),
        source=own,
        redaction_policy=policy_version,
    )


def generation_of(members: Members, *, suspect: bool) -> Generation:
    """Return the columns that come from a step's payloads; `suspect` as in `payloads.payload`."""

    def readable(name: str) -> Raw | None:
        raw = members.get(name)
        return None if raw is None else payload(raw, suspect=suspect).data

    return read_generation(readable("inputs"), readable("outputs"))


def _digest(steps: Iterable[Step]) -> bytes:
    lines = sorted([f"{step.id}\0{step.status}\0{step.end_time}\n" for step in steps])
    return hashlib.blake2b("".join(lines).encode(), digest_size=16).digest()
