"""What can be wrong with the simulator's answers, one field an effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Endpoint = Literal["workflows", "runs", "run", "steps", "execute"]

ENDPOINTS: tuple[Endpoint, ...] = ("workflows", "runs", "run", "steps", "execute")


class Misbehaviour(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong with some requests: the first fields say with which, the others what.

    Several misbehaviours may hit one request; where they give the same field, the later one counts.
    """

    endpoints: tuple[Endpoint, ...] = ENDPOINTS
    workflow_id: str | None = None
    """Only requests about this workflow."""
    run_id: str | None = None
    """Only requests about this run."""
    probability: float = 1.0
    """Share of the matching requests that are hit."""
    count: int | None = None
    """How many requests are hit at most."""

    delay: float = 0.0
    """Seconds before anything is sent."""
    status: int | None = None
    """Answer with this status and, unless `body` is given, an error text; nothing is looked up or started."""
    body: bytes | None = None
    """Answer with these bytes instead, with status 200 unless `status` is given."""
    content_type: str = "application/json"
    """Of the answer given by `status` or `body`."""
    headers: Mapping[str, str] = {}
    """Added to whatever is answered."""
    list_cap: int | None = None
    """The list shows the newest this many runs, and then is empty."""
    grow_by: int = 0
    """After each page of the list, this many new runs start in the workflow (histories only)."""
    pad_bytes: int = 0
    """So many spaces follow the answer's JSON."""
    drip_headers: float = 0.0
    """Seconds between any two bytes of the status line and headers."""
    drip_body: float = 0.0
    """Seconds between any two bytes of the body."""
    cut: Literal["length", "close", "silent"] | None = None
    """Send half of the body and close the connection, either after a Content-Length of the whole (`length`) or
    without any (`close`: nothing but the JSON itself tells); `silent` closes without sending a
    byte."""


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
"""Ready-made misbehaviours by name, for trials."""

_EFFECTS = tuple(
    name
    for name in Misbehaviour.__struct_fields__
    if name not in ("endpoints", "workflow_id", "run_id", "probability", "count")
)

NONE = Misbehaviour()
"""Nothing is wrong."""


def combine(active: list[Misbehaviour]) -> Misbehaviour:
    """Return the effects of all of them in one; of the same effect the last one's."""
    effects = {}
    for misbehaviour in active:
        for name in _EFFECTS:
            value = getattr(misbehaviour, name)
            if value != getattr(NONE, name):
                effects[name] = value
    return msgspec.structs.replace(NONE, **effects)
