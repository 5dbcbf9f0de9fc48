"""Decoding of the list of workflows, from bytes to records."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from etl.errors import ApiUnavailable
from etl.identifiers import is_path_segment
from etl.records import MAX_ID_BYTES, DecodedWorkflows, Rejected, Workflow
from etl.transform.fields import time_of, usable_id
from etl.transform.payloads import storable
from etl.transform.scanner import ALWAYS_READ, REFUSALS, elements
from etl.transform.tolerant_json import Malformed, Members

_ANY = msgspec.json.Decoder()
_UNUSABLE = (
    "A workflow in GET /workflows has no id, or an id that does not fit in a request's path: "
    "its runs cannot be read."
)
# Maximum dead letters of one response: a long list of other things must not fill the table.
_MAX_REJECTED = 100

# Maximum number of workflows read from a response: one for each 64 bytes of it.
_WORKFLOW_BYTES = 64


def decode_workflows(body: bytes) -> DecodedWorkflows:
    """Decode the response to `GET /workflows`; of workflows with the same id, the last counts.

    Raises:
        ApiUnavailable: the body is not a JSON array, which must not be read as "no workflows".
    """
    workflows: dict[str, Workflow] = {}
    rejected: dict[bytes, Rejected] = {}
    try:
        for element in elements(body, most=max(ALWAYS_READ, len(body) // _WORKFLOW_BYTES)):
            members = element.members
            # Only the id of a rejected element is kept: the rest may be a graph with prompts.
            own = (
                b""
                if members is None
                else bytes(members.get("workflow_id", members.get("id", b"")))
            )
            id_ = usable_id(Raw(own)) if own else None
            if members is not None and id_ is not None and is_path_segment(id_):
                workflows[id_] = _workflow(id_, members)
            elif len(rejected) < _MAX_REJECTED:
                rejected[own] = Rejected("unusable_id", _UNUSABLE, own[:MAX_ID_BYTES])
    except Malformed:
        raise ApiUnavailable(
            "the response to GET /workflows is not a JSON array; check api.base_url"
        ) from None
    return DecodedWorkflows(tuple(workflows.values()), tuple(rejected.values()))


def node_types_of(graph: object) -> dict[str, str]:
    """Return the node types in a parsed graph, by node id; other shapes of nodes are skipped.

    `nodes` is a list or an object keyed by id. A `type` in the node's `data` takes precedence over
    its outer `type`, which graph editors use for the look of the node.
    """
    nodes = graph.get("nodes") if isinstance(graph, dict) else None
    if isinstance(nodes, dict):
        pairs = list(nodes.items())
    elif isinstance(nodes, list):
        pairs = [(node.get("id"), node) for node in nodes if isinstance(node, dict)]
    else:
        return {}
    types: dict[str, str] = {}
    for node_id, node in pairs:
        if isinstance(node_id, str) and isinstance(node, dict):
            data = node.get("data")
            inner = data.get("type") if isinstance(data, dict) else None
            node_type = inner if isinstance(inner, str) and inner else node.get("type")
            if isinstance(node_type, str) and node_type:
                types[node_id] = node_type
    return types


def _workflow(workflow_id: str, members: Members) -> Workflow:
    graph = _storable(members, "graph")
    return Workflow(
        id=workflow_id,
        name=_text(members, "name"),
        description=_text(members, "description"),
        version=_text(members, "version"),
        graph=graph,
        node_types=node_types_of(_parsed(graph)),
        updated_at=time_of(members.get("updated_at")),
    )


def _storable(members: Members, name: str) -> str | None:
    raw = bytes(members.get(name, b""))
    data = None if raw in (b"", b"null") else storable(raw).data
    return None if data is None else data.decode()


def _parsed(text: str | None) -> object:
    try:
        return None if text is None else _ANY.decode(text)
    except REFUSALS:
        return None


def _text(members: Members, name: str) -> str | None:
    """Return a string unchanged, any other value as JSON: a version may be a number."""
    text = _storable(members, name)
    value = _parsed(text)
    return value if isinstance(value, str) else text
