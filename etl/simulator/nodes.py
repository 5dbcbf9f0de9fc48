"""The inputs and outputs of each type of node in a simulated run.

Payloads have the shape of real responses: for a model that of its provider, for an integration
`result.data`, `result.error` and `result.successful`. All random draws use the `Random` that is
passed in.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import NamedTuple

from etl.simulator import completions, providers
from etl.simulator.model_calls import Call, Expected, Payload
from etl.simulator.workflows import TEMPLATES, Node, NodeType, Template


class NodeContext(NamedTuple):
    """What a node knows when it starts."""

    template: Template
    run_id: str
    prompt: str
    node_texts: dict[str, str]
    """The texts of the nodes that ran directly before, by node id."""
    started: float
    """Start time, in seconds since 1970."""
    model: str
    temperature: float
    step_bytes: int


class NodeResult(NamedTuple):
    """The inputs and outputs of one node."""

    inputs: Payload
    outputs: Payload
    text: str = ""
    """The text for the next nodes; empty if the node adds none."""
    expected: Expected | None = None
    """The meaning of the outputs as a call of a model; None if the node calls no model."""


SECONDS: dict[NodeType, tuple[float, float]] = {
    "model": (0.6, 9.0),
    "code": (0.02, 0.5),
    "integration": (0.3, 3.0),
    "knowledge_retrieval": (0.1, 1.2),
    "conditional": (0.001, 0.01),
    "end": (0.0005, 0.003),
}
"""The shortest and the longest duration of a node of each type."""

TIME_OUT_SECONDS = 30.0
"""Duration of a step that fails with a timeout; longer than any other step."""

_SYSTEM_PROMPT = "You are a careful assistant. Answer briefly, and say so when you do not know."

# Size of a model step as JSON without its texts, measured on the recorded sample.
_MODEL_STEP_FRAME_BYTES = 1350


def run_node(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    """Return the inputs and outputs of the node's step if it succeeds."""
    work = _PERFORMERS[node.type](node, random, situation)
    work.inputs["run_id"] = situation.run_id
    work.inputs["input_data"] = {"prompt": situation.prompt, **situation.node_texts}
    return work


def failure(node: Node, random: Random) -> tuple[str | Payload, bool]:
    """Return the error of a failed step of this node, and whether it is a timeout."""
    kind = int(random.random() * 4)
    digits = f"{random.getrandbits(40):010x}"
    if kind == 0:
        return (
            f"Request timed out after {TIME_OUT_SECONDS} seconds (request id: req_{digits})",
            True,
        )
    if node.type == "model" and kind < 3:
        used = 29000 + int(random.random() * 1000)
        return (
            "Error code: 429 - Rate limit reached for tokens per minute: "
            f"Limit 30000, Used {used}, Requested {1000 + used % 977}. "
            f"Please try again in {used % 60}.{used % 9}s.",
            False,
        )
    if node.type in ("model", "code"):
        column = 20 + int(random.random() * 400)
        return (
            f"JSONDecodeError: Expecting ',' delimiter: line 1 column {column} (char {column - 1})",
            False,
        )
    if node.type == "integration":
        return f"{node.app} answered 503 Service Unavailable (trace id {digits})", False
    return {"code": 504, "message": f"Index kb-{digits} is being rebuilt", "retryable": True}, False


def soft_failure(node: Node, random: Random, outputs: Payload) -> None:
    """Make an integration's outputs say that the app refused, although the step completes.

    The app's data is then mostly missing.
    """
    kind = int(random.random() * 3)
    result = outputs["result"]
    if kind < 2:
        digits = f"{random.getrandbits(32):08x}"
        result["error"] = (
            f"{node.app}: not_found: no channel, page or repository with id {digits}"
            if kind
            else f"{node.app}: rate limited, retry after {1 + int(random.random() * 59)} seconds "
            f"(request {digits})"
        )
        result["data"] = None
    # Real apps are not consistent: some set the error and leave `successful` true, others only set
    # `successful` to false.
    if kind != 1:
        result["successfull"] = result["successful"] = False


def run_outputs(template: Template, text: str) -> str | Payload:
    """Return the End node's output in the workflow's form: a string or an object."""
    return {"output": text, "format": "markdown"} if template.output_is_object else text


def prompt_for(template: Template, random: Random) -> str:
    """Draw the prompt that starts a run."""
    return template.prompts[int(random.random() * len(template.prompts))]


def _model(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    if node.embeds:
        model, text = providers.EMBEDDING_MODEL, situation.prompt
        asked: Payload = {
            "model": model,
            "input": text,
            "dimensions": 8,
            "encoding_format": "float",
        }
        outputs, expected = providers.embedding(len(text) // 4 + 1, random)
        return NodeResult(asked, outputs, expected=expected)
    read = next(reversed(situation.node_texts.values()), "")
    prompt = f"{situation.prompt}\n\n{read}" if read else situation.prompt
    frame = _MODEL_STEP_FRAME_BYTES + len(read) * 2 + len(situation.prompt) * 2
    room = max(situation.step_bytes - frame, 80)
    text = _passage(situation.template, random, int(room * (0.7 + 0.6 * random.random())))
    draw = random.random()
    call = Call(
        topic=situation.template.name,
        text=text,
        written=len(text) // 4 + 1,
        tokens=(len(_SYSTEM_PROMPT) + len(prompt)) // 4 + 8,
        end="done" if draw < 0.88 else "cut_off" if draw < 0.96 else "tool",
        media=situation.template.media,
        created=int(situation.started) + 1,
    )
    outputs, expected = providers.answer(situation.model, call, random)
    inputs: Payload = {
        "model": situation.model,
        "stream": False,
        "max_tokens": 8192,
        "temperature": situation.temperature,
        "top_p": 1,
        "top_k": 50,
        "repetition_penalty": 0,
        "messages": [
            {"role": "system", "content": _SYSTEM_PROMPT},
            {"role": "user", "content": prompt},
        ],
    }
    return NodeResult(inputs, outputs, text, expected)


def _code(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    value = int(random.random() * 100_000) / 100
    inputs: Payload = {
        "language": "python",
        "code": "def main(inputs):\n"
        "    rows = parse(inputs)\n"
        "    return {'rows': len(rows), 'value': mean(rows)}\n",
        "timeout": 30,
    }
    rows = int(random.random() * 500)
    outputs: Payload = {
        "result": {"rows": rows, "value": value, "valid": rows > 0},
        "stdout": f"parsed {rows} rows\n",
        "stderr": "",
        "exit_code": 0,
    }
    return NodeResult(inputs, outputs, f"{rows} rows, value {value}")


def _integration(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    text = next(reversed(situation.node_texts.values()), situation.prompt)
    expected = None
    if node.app == "perplexityai":
        question = f"Is this supplier registered? {situation.prompt}"
        found = _passage(situation.template, random, 300)
        data, expected = completions.perplexity(question, found, int(situation.started) + 1, random)
        action, mapping = (
            "PERPLEXITYAI_PERPLEXITY_AI_SEARCH",
            {"model": "sonar", "userContent": question},
        )
    else:
        action, mapping, data = _app_call(node.app, random, situation, text)
    inputs: Payload = {
        "app_name": node.app,
        "action": action,
        "entity_id": "a***********m",
        "workspace_type": "local",
        "input_mapping": mapping,
        "tool_config": {"tool_type": node.app},
    }
    outputs: Payload = {
        "result": {"data": data, "error": None, "successfull": True, "successful": True}
    }
    return NodeResult(
        inputs, outputs, text if node.app != "gmail" else data["messages"][0]["snippet"], expected
    )


def _app_call(
    app: str, random: Random, situation: NodeContext, text: str
) -> tuple[str, Payload, Payload]:
    """Return an app's action, the request's data, and the response's data."""
    number = int(random.random() * 100_000)
    if app == "slack":
        data: Payload = {
            "ok": True,
            "channel": "C0257V9FS09",
            "ts": f"{situation.started + 1:.6f}",
            "warning": "missing_charset",
            "response_metadata": {"warnings": ["missing_charset"]},
        }
        return (
            "SLACK_SHARE_A_ME_MESSAGE_IN_A_CHANNEL",
            {"channel": "orchestra-demo", "text": text},
            data,
        )
    if app == "github":
        data = {
            "id": 2_900_000_000 + number,
            "number": number,
            "html_url": f"https://github.com/example/support/issues/{number}",
            "state": "open",
            "title": situation.prompt,
            "labels": [{"name": "support"}, {"name": "triage"}],
            "comments": 0,
        }
        return (
            "GITHUB_CREATE_AN_ISSUE",
            {"owner": "example", "repo": "support", "title": situation.prompt},
            data,
        )
    if app == "notion":
        page = f"{random.getrandbits(128):032x}"
        data = {
            "object": "page",
            "id": page,
            "url": f"https://www.notion.so/Invoice-{number}-{page}",
            "archived": False,
            "properties": {
                "Total": {"type": "number", "number": number / 100},
                "Paid": {"checkbox": False},
            },
        }
        return (
            "NOTION_CREATE_NOTION_PAGE",
            {"parent_id": "invoices", "title": f"Invoice {number}", "text": text},
            data,
        )
    snippet = _passage(situation.template, random, 160)
    data = {
        "messages": [
            {
                "id": f"{random.getrandbits(64):016x}",
                "subject": f"Invoice {number}",
                "snippet": snippet,
                "size": number,
            }
        ],
        "resultSizeEstimate": 1,
    }
    return "GMAIL_FETCH_EMAILS", {"query": "has:attachment subject:invoice", "max_results": 1}, data


def _knowledge_retrieval(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    passages = [_passage(situation.template, random, 200) for _ in range(2)]
    documents = [
        {
            "document_id": f"doc_{random.getrandbits(48):012x}",
            "score": round(0.95 - 0.1 * rank - 0.05 * random.random(), 6),
            "content": passage,
            "metadata": {"source": f"help/{rank + 1}.md", "page": rank + 1},
        }
        for rank, passage in enumerate(passages)
    ]
    inputs: Payload = {
        "knowledge_base_id": "kb-support-2025",
        "query": situation.prompt,
        "top_k": 2,
        "min_score": 0.5,
    }
    return NodeResult(inputs, {"documents": documents, "total": len(documents)}, passages[0])


def _conditional(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    score = round(random.random(), 3)
    holds = score > 0.3
    inputs: Payload = {
        "conditions": [{"left": "score", "operator": ">", "right": 0.3}],
        "logic": "and",
        "score": score,
    }
    return NodeResult(inputs, {"condition_met": holds, "branch": "true" if holds else "false"})


def _end(node: Node, random: Random, situation: NodeContext) -> NodeResult:
    text = next(reversed(situation.node_texts.values()), situation.prompt)
    return NodeResult({"output_format": "markdown"}, {"output": text}, text)


_PERFORMERS = {
    "model": _model,
    "code": _code,
    "integration": _integration,
    "knowledge_retrieval": _knowledge_retrieval,
    "conditional": _conditional,
    "end": _end,
}


_SENTENCES = {template.name: template.sentences for template in TEMPLATES}


@cache
def _corpus(name: str) -> tuple[str, tuple[int, ...]]:
    """Return a long text of the template's sentences, and where each sentence starts."""
    random = Random(name)
    sentences = _SENTENCES[name]
    starts = []
    pieces = []
    length = 0
    while length < 65_536:
        sentence = sentences[int(random.random() * len(sentences))]
        starts.append(length)
        pieces.append(sentence)
        length += len(sentence) + 1
    return " ".join(pieces), tuple(starts)


def _passage(template: Template, random: Random, size: int) -> str:
    """Return about `size` characters of the template's text, from the start of a sentence."""
    corpus, starts = _corpus(template.name)
    start = starts[int(random.random() * len(starts))]
    if start + size > len(corpus):
        corpus = corpus * (size // len(corpus) + 2)
    return corpus[start : start + size].rstrip()
