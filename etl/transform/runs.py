"""The run list and single runs, from bytes to records."""

from __future__ import annotations

import hashlib
from datetime import UTC

from etl.records import DecodedPage, DecodedRun, ListedRun, Run
from etl.transform.decode import not_an_array, reject_element
from etl.transform.fields import Fields, Findings, object_of, parse_time, text_of, usable_id
from etl.transform.payloads import may_be_refused
from etl.transform.scanner import Members, split
from etl.transform.states import StateMap

_KNOWN = frozenset(
    (
        "id",
        "status",
        "start_time",
        "end_time",
        "elapsed_time",
        "error",
        "inputs",
        "outputs",
        "user_id",
        "organization_id",
    )
)


def decode_page(body: bytes) -> DecodedPage:
    """Decode one page of the run list, in its order; nothing in it raises.

    A row stays JSON, its members in their own bytes; of rows with one id the last one stands. `readable` is False where
    the body is no JSON array.
    """
    parts = split(body)
    if parts is None:
        return DecodedPage((), (not_an_array(body),), readable=False)
    findings = Findings("run")
    runs: dict[str, ListedRun] = {}
    ids: list[str | None] = []
    for own, members in parts.elements:
        run_id = None if members is None else usable_id(members.get("id"))
        ids.append(run_id)
        if members is None or run_id is None:
            reject_element(findings, own, members)
            continue
        listed = _listed(run_id, members)
        earlier = runs.pop(run_id, listed)
        if earlier.listing != listed.listing:
            findings.reject(
                "duplicate_id", f"A later row of the same page has the run's id {run_id!a}.", earlier.listing
            )
        runs[run_id] = listed
    return DecodedPage(tuple(runs.values()), tuple(findings.rejected), tuple(ids))


def decode_single_run(body: bytes, run_id: str) -> ListedRun | None:
    """Find the run in the answer to a request for it alone: a list holding it, or the bare object.

    None where the answer does not hold a run of that id.
    """
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        body = b"[" + body.removeprefix(b"\xef\xbb\xbf") + b"]"
    return next((run for run in decode_page(body).runs if run.id == run_id), None)


def decode_run(listing: bytes, *, states: StateMap) -> DecodedRun:
    """Decode a run's own row as `ListedRun.listing` keeps it. Raises ValueError where it is no such row."""
    parts = split(b"[" + listing + b"]")
    members = parts.elements[0][1] if parts is not None and len(parts.elements) == 1 else None
    run_id = None if members is None else usable_id(members.get("id"))
    if parts is None or members is None or run_id is None:
        raise ValueError("not the listing of a run")
    findings = Findings("run")
    fields = Fields(run_id, members, findings, suspect=not parts.strict or may_be_refused(listing))
    status = fields.text("status")
    state = states.state_of(status)
    if state == "unknown" and status is not None:
        findings.deviates("status", "unknown_status", status)
    run = Run(
        id=run_id,
        status=status,
        state=state,
        start_time=fields.time("start_time"),
        end_time=fields.time("end_time"),
        api_elapsed_seconds=fields.number("elapsed_time"),
        user_id=fields.text("user_id"),
        organization_id=fields.text("organization_id"),
        error=fields.json("error"),
        inputs=fields.payload("inputs"),
        outputs=fields.payload("outputs"),
        extra=fields.rest(_KNOWN),
    )
    return DecodedRun(run, tuple(findings.rejected), findings.drift)


def _listed(run_id: str, members: Members) -> ListedRun:
    listing = {name: raw for name, raw in members.items() if name != "all_outputs"}
    lasting = object_of({name: raw for name, raw in listing.items() if name != "elapsed_time"})
    start_time = parse_time(text_of(members.get("start_time")) or "")
    if start_time is not None and start_time.tzinfo is None:
        start_time = start_time.replace(tzinfo=UTC)
    return ListedRun(
        id=run_id,
        listing=object_of(listing),
        listing_hash=hashlib.blake2b(lasting, digest_size=16).digest(),
        start_time=start_time,
    )
