"""Misbehaviours of the simulated API; each field is one effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Endpoint = Literal["workflows", "runs", "run", "steps", "execute"]

ENDPOINTS: tuple[Endpoint, ...] = ("workflows", "runs", "run", "steps", "execute")


class Misbehaviour(msgspec.Struct, frozen=True, kw_only=True):
    """A misbehaviour: the first fields select requests, the others are its effects.

    Several misbehaviours can hit one request. If they set the same effect, the last one applies.
    """

    endpoints: tuple[Endpoint, ...] = ENDPOINTS
    workflow_id: str | None = None
    """Only requests about this workflow."""
    run_id: str | None = None
    """Only requests about this run."""
    probability: float = 1.0
    """Share of the matching requests that it hits."""
    count: int | None = None
    """Maximum number of requests that it hits; None: no limit."""

    delay: float = 0.0
    """Seconds before anything is sent."""
    status: int | None = None
    """Status of the response, with an error text unless `body` is set; the API does nothing."""
    body: bytes | None = None
    """Body of the response, with status 200 unless `status` is set."""
    content_type: str = "application/json"
    """Content type of a response that `status` or `body` sets."""
    headers: Mapping[str, str] = {}
    """Headers that are added to every response."""
    list_cap: int | None = None
    """The run list ends after this many runs, the newest ones."""
    grow_by: int = 0
    """New runs that start in the workflow after each page of the list (histories only)."""
    pad_bytes: int = 0
    """Number of spaces after the JSON of the response."""
    drip_headers: float = 0.0
    """Seconds between two bytes of the status line and headers."""
    drip_body: float = 0.0
    """Seconds between two bytes of the body."""
    cut: Literal["length", "close", "silent"] | None = None
    """Close the connection early. `length` sends the whole Content-Length and half of the body;
    `close` sends half of the body without a length, so that only the JSON shows the loss; `silent`
    sends nothing."""


MISBEHAVIOURS: dict[str, Misbehaviour] = {
    "rate-limited": Misbehaviour(status=429, headers={"Retry-After": "1"}, probability=0.05),
    "server-error": Misbehaviour(status=500, probability=0.05),
    "unavailable": Misbehaviour(status=503, probability=0.05),
    "slow": Misbehaviour(delay=3.0, probability=0.05),
    "dripping": Misbehaviour(drip_body=0.02, probability=0.01),
    "dripping-headers": Misbehaviour(drip_headers=0.1, probability=0.01),
    "truncated": Misbehaviour(cut="length", probability=0.05),
    "cut-off": Misbehaviour(cut="close", probability=0.05),
    "disconnecting": Misbehaviour(cut="silent", probability=0.05),
    "malformed": Misbehaviour(body=b'[{"id": "8c862c02-2aed", "status": compl', probability=0.05),
    "html": Misbehaviour(
        body=b"<!doctype html><title>Just a moment</title><h1>Please wait</h1>\n",
        content_type="text/html",
        probability=0.05,
    ),
    "not-found": Misbehaviour(status=404, endpoints=("run", "steps"), probability=0.02),
    "growing": Misbehaviour(grow_by=3, endpoints=("runs",)),
    "capped": Misbehaviour(list_cap=100, endpoints=("runs",)),
    "steps-only": Misbehaviour(status=404, endpoints=("workflows", "runs", "run")),
}
"""Predefined misbehaviours by name, for `orchestra-etl simulate`."""

_EFFECTS = tuple(
    name
    for name in Misbehaviour.__struct_fields__
    if name not in ("endpoints", "workflow_id", "run_id", "probability", "count")
)

NONE = Misbehaviour()
"""No misbehaviour."""


def combine(active: list[Misbehaviour]) -> Misbehaviour:
    """Return one misbehaviour with all effects; of equal effects, the last one applies."""
    effects = {}
    for misbehaviour in active:
        for name in _EFFECTS:
            value = getattr(misbehaviour, name)
            if value != getattr(NONE, name):
                effects[name] = value
    return msgspec.structs.replace(NONE, **effects)
