"""Decoding of the run list and of single runs, from bytes to records."""

from __future__ import annotations

import hashlib
from datetime import datetime

from msgspec import Raw
from msgspec.json import Decoder

from etl.records import DecodedPage, DecodedRun, ListedRun, Run
from etl.transform.decode import not_an_array, reject_element
from etl.transform.fields import (
    MAX_ELAPSED_SECONDS,
    Fields,
    Findings,
    object_of,
    time_of,
    usable_id,
)
from etl.transform.payloads import may_be_refused
from etl.transform.redact import NotRedactable, Policy
from etl.transform.scanner import (
    ALWAYS_READ,
    REFUSALS,
    check_utf8,
    elements,
    members_of,
    split,
)
from etl.transform.states import StateMap
from etl.transform.step_columns import Usual, json_of, payload_of
from etl.transform.tolerant_json import Malformed, Members

_USUAL = Decoder(Usual)
_KNOWN = frozenset(Usual.__struct_fields__)

# Maximum number of rows read from a page: one for each 64 bytes of it, and no more than one
# statement writes to the ledger.
_ROW_BYTES = 64
_MAX_ROWS = 100_000


def decode_page(
    body: bytes, *, policy: Policy | None = None, now: datetime | None = None
) -> DecodedPage:
    """Decode one page of the run list, in its order.

    No content raises an error, and memory is proportional to the size of the body. A row stays
    JSON, and its members stay byte for byte; only `all_outputs` is removed, because it repeats the
    steps' outputs. Of several rows with the same id, the last one counts.

    Args:
        body: the response body.
        policy: the workflow's redaction rules; None if there are none.
        now: about the time of the response, to detect implausible times; None if unknown.

    Returns:
        The rows; `readable` is False if the body is not a JSON array.
    """
    try:
        return _page(body, policy, now)
    except Malformed:
        return DecodedPage((), (not_an_array(body, policy),), readable=False)


def _page(body: bytes, policy: Policy | None, now: datetime | None) -> DecodedPage:
    findings = Findings("run", now=now)
    runs: dict[str, ListedRun] = {}
    rows: list[str | int] = []
    for element in elements(body, most=min(_MAX_ROWS, max(ALWAYS_READ, len(body) // _ROW_BYTES))):
        own, members = element.own, element.members
        if element.unread or element.number > 1:
            # Elements that are not runs also count for paging, up to `ALWAYS_READ`.
            number = min(element.number, max(0, ALWAYS_READ - len(rows)))
            rows.extend(hash((bytes(own), place)) for place in range(number))
            reject_element(findings, element, own=own, members=None, policy=policy)
            continue
        run_id = None if members is None else usable_id(members.get("id"))
        rows.append(hash(bytes(own)) if run_id is None else run_id)
        if members is not None:
            members.pop("all_outputs", None)
        if policy is not None and members is not None:
            try:
                # `all_outputs` is not stored, so it need not be redactable.
                own, members, _ = policy.run(Raw(object_of(members)), members)
            except NotRedactable as error:
                findings.dead_letters.add(policy.withhold_unredactable(error, own))
                continue
        if members is None or run_id is None:
            reject_element(findings, element, own=own, members=members, policy=policy)
            continue
        listed = _listed(run_id, members, findings.latest)
        earlier = runs.pop(run_id, listed)
        if earlier.listing != listed.listing:
            findings.reject(
                "duplicate_id",
                f"A later row of the same page has the run's id {run_id!a}.",
                earlier.listing,
            )
        runs[run_id] = listed
    return DecodedPage(tuple(runs.values()), findings.rejected, tuple(rows))


def decode_single_run(
    body: bytes, run_id: str, *, policy: Policy | None = None, now: datetime | None = None
) -> ListedRun | None:
    """Return the run in the response to a request for a single run: a list, or the bare object.

    None if the response does not contain a run with this id.
    """
    page = decode_page(_as_array(body), policy=policy, now=now)
    return next((run for run in page.runs if run.id == run_id), None)


def split_single_run(body: bytes, run_id: str) -> tuple[Raw, Members] | None:
    """Return the bytes and the members of the run that `decode_single_run` decodes.

    None if the response does not contain a run with this id. `all_outputs` is left out.
    """
    found = split(_as_array(body))
    for own, members in reversed(found.elements) if found is not None else ():
        if members is not None and usable_id(members.get("id")) == run_id:
            if members.pop("all_outputs", None) is not None:
                own = Raw(object_of(members))
            return own, members
    return None


def _as_array(body: bytes) -> bytes:
    """Put a bare object into an array; return any other body as it is."""
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return b"[" + body.removeprefix(b"\xef\xbb\xbf") + b"]"
    return body


def decode_run(
    listing: bytes, *, states: StateMap, policy: Policy | None = None, now: datetime | None = None
) -> DecodedRun:
    """Decode a run's own row from `ListedRun.listing`.

    Args:
        listing: the row, which may have been redacted by other rules than `policy`.
        states: the mapping from status to state.
        policy: the workflow's redaction rules; None if there are none.
        now: about the time of the response, to detect implausible times; None if unknown.

    Raises:
        ValueError: the bytes are not a run's row.
        NotRedactable: there are rules, and the row cannot be redacted.
    """
    if policy is None and (usual := _read_usual(listing, states, now)) is not None:
        return DecodedRun(usual)
    found = members_of(listing)
    run_id = None if found is None else usable_id(found[0].get("id"))
    if found is None or run_id is None:
        raise ValueError("not the listing of a run")
    own, (members, strict) = Raw(listing), found
    findings = Findings("run", now=now)
    if policy is None:
        suspect = not strict or may_be_refused(listing)
    else:
        own, members, suspect = policy.run(own, members)
    fields = Fields(None, members, findings, suspect=suspect, keep_raw=policy is None)
    status = fields.text("status")
    state = states.state_of(status)
    if state == "unknown" and status is not None:
        findings.add_drift("status", "unknown_status", status)
    run = Run(
        id=run_id,
        status=status,
        state=state,
        start_time=fields.time("start_time"),
        end_time=fields.time("end_time"),
        api_elapsed_seconds=fields.number("elapsed_time", most=MAX_ELAPSED_SECONDS),
        user_id=fields.text("user_id"),
        organization_id=fields.text("organization_id"),
        error=fields.json("error"),
        inputs=fields.payload("inputs"),
        outputs=fields.payload("outputs"),
        extra=fields.rest(_KNOWN),
        source=own,
        redaction_policy=None if policy is None else policy.version,
    )
    return DecodedRun(run, findings.rejected, findings.drift)


def _read_usual(listing: bytes, states: StateMap, now: datetime | None) -> Run | None:
    """Read a row of the usual form in one pass; return None for any other, with the same result."""
    try:
        check_utf8(listing)
        row = _USUAL.decode(listing)
    except REFUSALS:
        return None
    state = states.state_of(row.status)
    times = row.times(Findings("run", now=now).latest)
    if times is None or state == "unknown" or may_be_refused(listing):
        return None
    return Run(
        id=row.id,
        status=row.status,
        state=state,
        start_time=times[0],
        end_time=times[1],
        api_elapsed_seconds=row.elapsed_time,
        user_id=row.user_id,
        organization_id=row.organization_id,
        error=json_of(row.error),
        extra=None,
        inputs=payload_of(row.inputs),
        outputs=payload_of(row.outputs),
        source=Raw(listing),
    )


def _listed(run_id: str, members: Members, latest: datetime) -> ListedRun:
    lasting = object_of({name: raw for name, raw in members.items() if name != "elapsed_time"})
    return ListedRun(
        id=run_id,
        listing=object_of(members),
        listing_hash=hashlib.blake2b(lasting, digest_size=16).digest(),
        start_time=time_of(members.get("start_time"), latest=latest),
        end_time=time_of(members.get("end_time"), latest=latest),
    )
