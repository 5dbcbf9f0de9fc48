"""The workflows that the simulator runs: their names, nodes and texts."""

from __future__ import annotations

import uuid
from itertools import pairwise
from random import Random
from typing import Any, Literal

import msgspec

NodeType = Literal["model", "code", "integration", "knowledge_retrieval", "conditional", "end"]


class Node(msgspec.Struct, frozen=True):
    """One node of a workflow's graph."""

    id: str
    type: NodeType
    app: str = ""
    """The app of an integration: slack, github, notion, gmail or perplexityai."""
    embeds: bool = False
    """Whether the model returns an embedding instead of a text."""


class Template(msgspec.Struct, frozen=True):
    """A template from which the simulator makes any number of workflows."""

    name: str
    description: str
    nodes: tuple[Node, ...]
    """The nodes in running order. A `conditional` can skip the next node; the last one is the
    End node."""
    prompts: tuple[str, ...]
    sentences: tuple[str, ...]
    """The sentences of the models' and documents' texts."""
    output_is_object: bool
    """Whether the API shows the End node's output as an object, or as a string; it does both."""
    media: str = ""
    """Media that some inputs of its models include: AUDIO, IMAGE or empty."""
    slower_node: str = ""
    """The node that takes longer from version 2 on."""
    later_model: str = ""
    """The model of all runs from version 2 on; empty: it varies, as it does in version 1."""
    repeated_node: str = ""
    """The node that runs again if its model's text was cut off."""


TEMPLATES: tuple[Template, ...] = (
    Template(
        name="weather jokes",
        description="Tells a joke about today's weather and posts it to the team's channel.",
        nodes=(
            Node("fetch_forecast", "code"),
            Node("model", "model"),
            Node("is_funny", "conditional"),
            Node("slack_integration", "integration", "slack"),
            Node("end", "end"),
        ),
        prompts=(
            "Tell me a joke about the weather",
            "Tell me a joke about the rain in Bergen",
            "A joke about fog, please, for people who sail",
            "Un chiste sobre el calor de Sevilla ☀️",
        ),
        sentences=(
            "Why was the weather forecast sad?\n\nBecause it had a lot of problems and was feeling "
            "a little under.",
            'The cloud said to the sun: "You are blocking my light."',
            "What do you call a month of rain in Bergen? A short one.",
            "Fog is only a cloud that could not find a parking place. 🌫️",
            "At −5 °C the thermometer asked for a raise, and got half a degree.",
            "Two winds meet. One of them says: I am a big fan.",
            "¿Qué le dijo el viento a la puerta? Nada, la puerta ya se había cerrado.",
            "The barometer resigned because of the pressure.",
            "Lightning never strikes the same punchline twice. ⚡",
            "A snowman's favourite breakfast? Frosted flakes, naturally.",
        ),
        output_is_object=False,
    ),
    Template(
        name="support triage",
        description="Reads a customer's ticket, finds the matching help pages, answers it or opens "
        "an issue.",
        nodes=(
            Node("embed_ticket", "model", embeds=True),
            Node("help_pages", "knowledge_retrieval"),
            Node("classify", "model"),
            Node("needs_engineer", "conditional"),
            Node("open_issue", "integration", "github"),
            Node("answer", "model"),
            Node("end", "end"),
        ),
        prompts=(
            "The export to CSV stops at row 65536 since Monday.",
            "I cannot sign in: the code arrives after it has expired.",
            "Please delete my account and everything you know of me.",
            "Invoices show the wrong currency (€ instead of CHF).",
        ),
        sentences=(
            "Category: billing; priority: P2; language: de.",
            "The customer reports that the export ends at row 65536, which is the limit of the old "
            "file format.",
            "Please open Settings → Exports and choose the format “CSV (large)”.",
            "The one-time code is valid for 5 minutes; a mail gateway held it back for 7.",
            "We could reproduce this in release 4.12.3 and not in 4.12.2.",
            "Your request was forwarded to an engineer; you will hear from us within two working "
            "days.",
            "See also: https://help.example.com/articles/2381?lang=en#limits",
            "The account's region is eu-central-1; no incident was open at that time.",
            "Thank you for your patience, and sorry for the trouble!",
            'Logs show "connection reset by peer" 14 times between 09:02 and 09:05 UTC.',
        ),
        output_is_object=True,
        media="AUDIO",
        slower_node="answer",
    ),
    Template(
        name="invoice reader",
        description="Takes invoices from the mailbox, extracts their fields, checks supplier and "
        "sums, and files them.",
        nodes=(
            Node("read_mail", "integration", "gmail"),
            Node("extract_fields", "model"),
            Node("check_supplier", "integration", "perplexityai"),
            Node("check_sums", "code"),
            Node("needs_approval", "conditional"),
            Node("file_invoice", "integration", "notion"),
            Node("end", "end"),
        ),
        prompts=(
            "Read the newest invoice of ACME Tools GmbH",
            "Read all invoices that arrived since yesterday",
            "Check invoice 2024-0815 against the order",
        ),
        sentences=(
            '{"supplier": "ACME Tools GmbH", "number": "2024-0815", "net": 1180.00, "vat": 224.20, '
            '"total": 1404.20}',
            "Position 3: 12 × hex bolt M8×40, unit price 0.42 €, sum 5.04 €.",
            "The supplier's VAT id DE123456789 is well-formed.",
            "Payable within 14 days with 2 % discount, 30 days net.",
            "Net and VAT add up to the total; the rounding difference is 0.00.",
            "The delivery note LS-77123 is mentioned but not attached.",
            "IBAN DE02 1203 0000 0000 2020 51, BIC BYLADEM1001.",
            "The second page is a scan of low quality; confidence 0.71.",
            "Société Générale d'Équipement: facture n° 55-019, à régler avant le 31 août.",
        ),
        output_is_object=True,
        media="IMAGE",
        later_model="o3-mini",
        repeated_node="extract_fields",
    ),
)


class SimulatedWorkflow(msgspec.Struct, frozen=True):
    """One of the simulated workflows."""

    id: str
    name: str
    template: Template
    nodes: tuple[Node, ...]
    """The template's nodes, shortened or repeated to the requested length."""
    repeated_node: str = ""
    """As in the template; empty if a length was requested, so that a succeeded run has that many
    steps."""


def make_workflow(seed: int, index: int, length: int | None) -> SimulatedWorkflow:
    """Make the workflow of this index, with `length` nodes; None: those of the template."""
    template = TEMPLATES[index % len(TEMPLATES)]
    rounds = index // len(TEMPLATES)
    name = f"{template.name} {rounds + 1}" if rounds else template.name
    workflow_id = str(uuid.UUID(int=Random((seed << 16) + index).getrandbits(128), version=4))
    *before, end = template.nodes
    chain = []
    for position in range(len(before) if length is None else length - 1):
        node = before[position % len(before)]
        again = position // len(before)
        chain.append(msgspec.structs.replace(node, id=f"{node.id}_{again + 1}") if again else node)
    return SimulatedWorkflow(
        id=workflow_id,
        name=name,
        template=template,
        nodes=(*chain, end),
        repeated_node=template.repeated_node if length is None else "",
    )


# The differences between versions of a workflow.


def temperature(version: int) -> float:
    """Return the temperature of all models."""
    return round(0.2 + version % 8 / 10, 1)


def slowness(template: Template, node: Node, version: int) -> float:
    """Return the factor of the node's duration, relative to others of its type."""
    if node.embeds:
        return 0.1
    return 1.4 if version > 1 and node.id == template.slower_node else 1.0


def fixed_model(template: Template, version: int) -> str | None:
    """Return the model that all runs request; None if it varies."""
    return template.later_model or None if version > 1 else None


def graph(workflow: SimulatedWorkflow, version: int) -> dict[str, Any]:
    """Return the workflow's graph as the API shows it."""
    chain = workflow.nodes
    edges = []
    for position, (source, target) in enumerate(pairwise(chain)):
        edges.append({"id": f"{source.id}-{target.id}", "source": source.id, "target": target.id})
        if source.type == "conditional" and position + 2 < len(chain):
            beyond = chain[position + 2].id
            edges[-1]["sourceHandle"] = "true"
            edges.append(
                {
                    "id": f"{source.id}-{beyond}",
                    "source": source.id,
                    "target": beyond,
                    "sourceHandle": "false",
                }
            )
    return {
        "nodes": [
            {
                "id": node.id,
                "type": node.type,
                "position": {"x": 240 * position, "y": 80},
                "data": {"label": node.id.replace("_", " ").capitalize()}
                | ({"temperature": temperature(version)} if node.type == "model" else {})
                | ({"app_name": node.app} if node.app else {}),
            }
            for position, node in enumerate(chain)
        ],
        "edges": edges,
    }
