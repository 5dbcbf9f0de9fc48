"""The inputs and outputs in `runs show`: calls of models as text, everything else as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from etl.cli.context import console
from etl.cli.display import styled
from etl.terminal import counted, paragraphs, plain, safe_json

if TYPE_CHECKING:
    from etl.reports.runs import RunDetail, StepDetail

LONGEST_ON_A_TERMINAL = 4000
"""Maximum number of characters of a text that a terminal shows: about a screen of 50 lines."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TOOLS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def print_payloads(run: RunDetail) -> None:
    """Print the inputs and outputs of a run and its steps."""
    own = run.payloads
    if own is not None:
        _print_json("run inputs", own.inputs, None)
        _print_json("run outputs", own.outputs, own.note)
    for step in run.steps:
        title = f"{plain(step.node_id or '', 200)} {plain(step.id)}".strip()
        _print_facts(title, step)
        for name, payload in (step.payloads or {}).items():
            texts = list(_inputs(step) if name == "inputs" else _outputs(step))
            if texts:
                for word, text in texts:
                    _print_title(f"{title} {word}", payload.note)
                    _print_text(text)
            else:
                _print_json(f"{title} {name}", payload.data, payload.note)


def _inputs(step: StepDetail) -> Iterator[tuple[str, str]]:
    """Yield the system text and the prompt; nothing if the step's inputs are not understood."""
    if step.system is not None:
        yield "system", step.system
    if step.prompt is not None:
        yield "prompt", step.prompt


def _outputs(step: StepDetail) -> Iterator[tuple[str, str]]:
    """Yield the model's answer; nothing if the step's outputs are not understood."""
    if step.answer is not None:
        yield "answer", step.answer
    if step.tools is not None:
        yield "tools", "\n".join(map(_tool, _TOOLS.decode(step.tools)))


def _tool(tool: dict[str, msgspec.Raw]) -> str:
    name = tool.get("name", msgspec.Raw(b"null"))
    arguments = tool.get("arguments", msgspec.Raw(b"null"))
    return f"{plain(_value(name), 200)} {_json(arguments)}"


def _print_facts(title: str, step: StepDetail) -> None:
    """Print the call's parameters and its media on one line, if there are any."""
    facts = []
    if step.parameters is not None:
        for name, value in _OBJECT.decode(step.parameters).items():
            facts.append(f"{plain(name, 60)} {plain(_value(value), 100)}")
    for number, noun in ((step.images, "image"), (step.audio, "piece")):
        if number:
            facts.append(counted(number, noun) + (" of audio" if noun == "piece" else ""))
    if facts:
        _print_title(f"{title} call", None)
        _print_text(plain(", ".join(facts), 1000))


def _value(raw: msgspec.Raw) -> str:
    """Return a JSON string as its text, and any other value as JSON."""
    value: Any = msgspec.json.decode(raw) if bytes(raw)[:1] == b'"' else None
    return value if isinstance(value, str) else _json(raw)


def _json(raw: msgspec.Raw) -> str:
    return safe_json(bytes(raw).decode())


def _print_title(title: str, note: str | None) -> None:
    out = console()
    out.print()
    out.print(
        styled(title, "bold"), styled(f" ({plain(note, 200)})" if note else "", "dim"), sep=""
    )


def _print_text(text: str) -> None:
    """Print a text, indented; a terminal shows its beginning, wrapped."""
    out = console()
    shown, rest = _beginning(text)
    lines = paragraphs(shown).split("\n")
    if out.soft_wrap:
        out.print(styled("\n".join(f"  {line}".rstrip() for line in lines)))
        return
    for line in lines:
        for part in styled(line).wrap(out, max(out.width - 2, 20), overflow="fold"):
            part.rstrip()
            out.print("  ", part, sep="", soft_wrap=True)
    if rest:
        out.print(styled(f"  {rest}", "dim"))


def _print_json(title: str, data: msgspec.Raw | None, note: str | None) -> None:
    _print_title(title, note)
    if data is not None:
        shown, rest = _beginning(msgspec.json.format(bytes(data), indent=2).decode())
        out = console()
        out.print(styled(safe_json(shown)), soft_wrap=True)
        if rest:
            out.print(styled(rest, "dim"))


def _beginning(text: str) -> tuple[str, str]:
    """Return what is shown of a text, and a line about the rest; empty if there is none."""
    rest = len(text) - LONGEST_ON_A_TERMINAL
    if rest <= 0 or not sys.stdout.isatty():
        return text, ""
    return text[:-rest], f"… {counted(rest, 'more character')}: `--json` prints all"
