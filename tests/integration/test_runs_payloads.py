"""`runs show --payloads` prints prompts and answers as text, and other payloads as JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from etl.cli.run_payloads import LONGEST_ON_A_TERMINAL
from etl.schema import upgrade
from tests.command_line import Command, command_line
from tests.integration.test_runs_compare import A, store_run, store_step
from tests.support import query


def _on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output a terminal of 80 columns without colours."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def _call(url: str, inputs: Any, outputs: Any, **columns: Any) -> None:
    """Store a run with one call of a model."""
    store_run(url, A)
    store_step(
        url,
        A,
        "model",
        inputs=json.dumps(inputs),
        outputs=json.dumps(outputs),
        response_model="m",
        **columns,
    )


REQUEST = {
    "model": "m",
    "temperature": 0.70,
    "max_tokens": 100,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Which animal?\n\n\tlook: here"},
                {"type": "image_url", "image_url": {"url": "https://images.example/1.png"}},
            ],
        },
    ],
}
RESPONSE = {
    "model": "m",
    "choices": [
        {
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "A cat.\nPerhaps.",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "search", "arguments": '{"q": "cat\\u001b[2J"}'},
                    }
                ],
            },
        }
    ],
}


def test_a_call_is_shown_as_text(command: Command, database_url: str) -> None:
    """System text, prompt, answer, tools, parameters and the number of images can be read.

    The JSON that they come from is not printed; JSON of other steps is.
    """
    _call(database_url, REQUEST, RESPONSE)
    store_step(database_url, A, "slack", at=2, inputs='{"text": "A cat."}')
    printed = command("runs", "show", A, "--payloads").out
    head = f"model {A}-model-0"
    assert printed[printed.index(f"{head} call") :].splitlines() == [
        f"{head} call",
        "  max_tokens 100, temperature 0.7, 1 image",
        "",
        f"{head} system",
        "  Be brief.",
        "",
        f"{head} prompt",
        "  Which animal?",
        "",
        "      look: here",
        "",
        f"{head} answer",
        "  A cat.",
        "  Perhaps.",
        "",
        f"{head} tools",
        r'  search {"q": "cat\u001b[2J"}',
        "",
        f"slack {A}-slack-2 inputs",
        "{",
        '  "text": "A cat."',
        "}",
    ]


def test_the_texts_in_json(command: Command, database_url: str) -> None:
    """`--json` has the texts of each call beside its payloads, and null without `--payloads`."""
    _call(database_url, REQUEST, RESPONSE)
    (step,) = command("runs", "show", A, "--payloads", "--json").json["steps"]
    assert step["payloads"]["inputs"]["data"] == REQUEST
    assert {
        name: step[name]
        for name in ("system", "prompt", "answer", "tools", "images", "audio", "parameters")
    } == {
        "system": "Be brief.",
        "prompt": "Which animal?\n\n\tlook: here",
        "answer": "A cat.\nPerhaps.",
        "tools": [{"name": "search", "arguments": {"q": "cat\x1b[2J"}}],
        "images": 1,
        "audio": 0,
        "parameters": {"temperature": 0.7, "max_tokens": 100},
    }
    (step,) = command("runs", "show", A, "--json").json["steps"]
    assert (step["payloads"], step["prompt"], step["parameters"]) == (None, None, None)


def test_an_unknown_shape_is_shown_as_json(command: Command, database_url: str) -> None:
    """What is not understood of a call is shown as JSON, and what was removed is named."""
    _call(database_url, {"model": "m", "strange": {"words": "Which?"}}, RESPONSE)
    store_step(database_url, A, "pruned", at=2, inputs=json.dumps(REQUEST), response_model="m")
    query(
        database_url,
        "UPDATE orchestra.inputs SET data = NULL, note = 'pruned' WHERE step_id = %s",
        f"{A}-pruned-2",
    )
    printed = command("runs", "show", A, "--payloads").out
    assert f"model {A}-model-0 inputs\n{{\n" in printed
    assert '    "words": "Which?"\n' in printed
    assert f"model {A}-model-0 answer\n  A cat.\n" in printed
    assert f"pruned {A}-pruned-2 inputs (pruned)\n" in printed


HOSTILE = (
    "\x1b]0;title\x07\x1b[2J\r\nnext\u2028line \u202eright to left\u202c\n"
    "\x9b31m[bold]markup[/bold]\x08\x00\n" + "مرحبا بالعالم " * 20 + "\n" + "晴れ🌧️👨‍👩‍👧" * 30
).replace("\x00", "")


@pytest.mark.parametrize("columns", ["20", "80"])
def test_hostile_text_is_harmless(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """Escapes, direction marks and markup in texts, tools and parameters reach no terminal.

    Line breaks stay, and lines of wide characters fit the terminal.
    """
    request = {"model": "m", "prompt": HOSTILE, "stop": HOSTILE, HOSTILE: 1}
    response = json.loads(json.dumps(RESPONSE))
    message = response["choices"][0]["message"]
    message["content"] = HOSTILE
    message["tool_calls"][0]["function"] = {"name": HOSTILE, "arguments": HOSTILE}
    _call(database_url, request, response)
    monkeypatch.setenv("COLUMNS", columns)
    for terminal in (False, True):
        if terminal:
            _on_a_terminal(monkeypatch)
        printed = command("runs", "show", A, "--payloads").out
        assert not re.search(
            "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", printed
        )
        assert "answer\n" in printed
        assert r"\x1b]0;title\x07" in printed.replace("\n  ", "")
        assert "[bold]markup[/bold]" in printed.replace("\n  ", "")
        text = printed[printed.index("answer\n") : printed.index("tools\n")]
        assert r"2J" + "\n  next" in text
    assert "晴れ" in text
    assert max(map(cell_len, text.splitlines()[1:])) <= 80


def test_a_long_text_is_cut_on_a_terminal_only(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows the beginning of a long text and how to see the rest; a pipe gets all."""
    words = "word " * 10_000
    _call(
        database_url,
        {"model": "m", "prompt": f"{words}END"},
        {"model": "m", "strange": f"{words}END"},
    )
    assert command("runs", "show", A, "--payloads").out.count("END") == 2
    _on_a_terminal(monkeypatch)
    printed = command("runs", "show", A, "--payloads").out
    assert "END" not in printed
    assert len(printed) < 3 * LONGEST_ON_A_TERMINAL
    rest = len(words) + 3 - LONGEST_ON_A_TERMINAL
    assert f"\n  … {rest:,} more characters: `--json` prints all\n" in printed
    assert len(re.findall("more characters: `--json` prints all\n", printed)) == 2


def test_a_schema_without_the_texts(
    empty_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the schema's upgrade, calls are shown as JSON, and the log names the upgrade."""
    upgrade(empty_database_url, revision="0001")
    _call(empty_database_url, REQUEST, RESPONSE)
    command = command_line(tmp_path, monkeypatch, capsys, "", DATABASE_URL=empty_database_url)
    printed = command("runs", "show", A, "--payloads")
    assert printed.status == 0
    assert f"model {A}-model-0 inputs\n{{\n" in printed.out
    assert "run `orchestra-etl db upgrade`" in printed.err
    assert command("runs", "compare", A, A).status == 0
