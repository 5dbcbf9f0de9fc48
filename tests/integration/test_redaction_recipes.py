"""Each redaction recipe of the documentation removes from the API's sample what it promises."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from etl.simulator.history import History
from etl.simulator.server import Simulator
from etl.transform import remaining_copies
from etl.transform.redact import Policy, Redaction, RedactionRule
from etl.transform.scanner import split
from tests.command_line import Command, command_line
from tests.stored_text import columns_with
from tests.support import configuration, environment, query

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef" * 2
CANARY = "canary-7f3a"
ADDRESS = f"{CANARY}@example.com"
PERSON = "person-19c2"

_BLOCK = re.compile(r"^### (.+?)$.*?^```toml$(.*?)^```$", re.MULTILINE | re.DOTALL)
_EVERY_RULE = re.compile(r"^#? ?\[\[redaction\.rules\]\]$", re.MULTILINE)


def recipes() -> dict[str, str]:
    """Return the TOML of every documented example of redaction rules, by title."""
    found = {
        title: body
        for title, body in _BLOCK.findall((ROOT / "docs/how-to/redact.md").read_text())
        if "[[redaction" in body
    }
    config = (ROOT / "etl/settings/etl.toml").read_text()
    example = re.search(r"^# (\[\[redaction\.rules\]\]\n(?:#.*\n)+)", config, re.MULTILINE)
    assert example is not None
    lines = [line.removeprefix("# ") for line in example[1].splitlines()]
    # The example names a workflow and a node that the reader replaces.
    found["etl/settings/etl.toml"] = "\n".join(
        line for line in lines if not line.startswith(("workflow", "node"))
    )
    return found


def _with(value: Any, text: str, *, keep: frozenset[str] = frozenset()) -> Any:
    """Return the value with this text in each of its strings, except in members named in `keep`."""
    if isinstance(value, str):
        return f"{text} {value}"
    if isinstance(value, dict):
        return {
            name: inner if name in keep else _with(inner, text, keep=keep)
            for name, inner in value.items()
        }
    return [_with(inner, text, keep=keep) for inner in value] if isinstance(value, list) else value


def everywhere(element: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a step or run with this text in every string except identities, times and states."""
    stay = (
        "id",
        "node_id",
        "user_id",
        "organization_id",
        "status",
        "start_time",
        "end_time",
        "elapsed_time",
        "tokens",
    )
    changed = {
        name: value if name in stay else _with(value, text) for name, value in element.items()
    }
    outputs = element.get("outputs")
    if isinstance(outputs, dict) and outputs.get("object") == "chat.completion":
        changed["outputs"] |= {name: outputs[name] for name in ("object", "model")}
        changed["outputs"]["usage"] = {**outputs["usage"], "note": text}
    return {
        **changed,
        "error": {"message": text},
        "step_metadata": [{"m": text}],
        "surprise": {"deep": [text]},
    }


def of_person(element: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a step or run of this person, with the person also named in an inner object."""
    of = {"user_id": text, "organization_id": text}
    return {**element, **of, "step_metadata": {"caller": of}, "surprise": [of]}


PLACES: dict[str, tuple[Callable[[dict[str, Any], str], dict[str, Any]], str]] = {
    "Keep no content": (everywhere, CANARY),
    "Mask all texts": (everywhere, CANARY),
    "Hash users and organisations": (of_person, PERSON),
    "Mask texts with an e-mail address": (everywhere, ADDRESS),
    "etl/settings/etl.toml": (everywhere, CANARY),
}
"""The function that plants a text in the sample, and that text, by recipe."""


def test_every_recipe_is_tested() -> None:
    """Each example of redaction rules in the documentation or configuration has a canary here."""
    assert set(recipes()) == set(PLACES)
    shown = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "etl/settings/etl.toml"]
    rules = sum(len(tomllib.loads(toml)["redaction"]["rules"]) for toml in recipes().values())
    assert sum(len(_EVERY_RULE.findall(path.read_text())) for path in shown) == rules


@pytest.fixture
def sample(sample_steps: bytes) -> list[dict[str, Any]]:
    """Provide the API's own sample with two more steps.

    One has bare texts as payloads; one passes on another step's outputs.
    """
    steps: list[dict[str, Any]] = json.loads(sample_steps)
    model = steps[0]
    return [
        *steps,
        {**model, "id": "bare", "node_id": "bare", "inputs": "said", "outputs": "answered"},
        {
            **model,
            "id": "passed",
            "node_id": "passed",
            "inputs": model["outputs"],
            "surprise": model["outputs"],
        },
    ]


@pytest.fixture
def served(database_url: str) -> Iterator[tuple[History, Simulator]]:
    """Provide a server with one finished run."""
    history = History(seed=3, workflows=1, runs_per_workflow=1, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield history, simulator


@pytest.mark.parametrize("title", PLACES)
def test_a_recipe_is_complete(
    title: str,
    sample: list[dict[str, Any]],
    served: tuple[History, Simulator],
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A recipe removes the canary everywhere, in force from the start or applied later.

    Without the recipe, the canary is stored in many places.
    """
    place, text = PLACES[title]
    history, simulator = served
    (workflow,) = history.workflow_ids
    (run_id,) = history.run_ids(workflow)
    steps = [place(step, text) for step in sample]
    bad = json.dumps(place({"inputs": {"text": "no id"}}, text))
    simulator.steps_bodies[run_id] = (json.dumps(steps)[:-1] + f", {bad}]").encode()
    row = {"inputs": {"text": "said"}, "outputs": sample[0]["outputs"], "error": None}
    history.change_run(
        run_id, **{name: value for name, value in place(row, text).items() if name != "id"}
    )
    variables = environment(database_url, simulator.base_url, ORCHESTRA_REDACTION_KEY=KEY)
    command = command_line(tmp_path, monkeypatch, capsys, configuration(workflow), **variables)
    assert command("sync").status == 6  # the step without an id
    assert len(columns_with(database_url, text)) >= 6
    (tmp_path / "etl.toml").write_text(configuration(workflow, more=recipes()[title]))
    shown = command("redact", "preview", run_id, "--json").json
    assert shown["remaining_copies"] == []
    assert command("redact", "apply").status == 0
    assert columns_with(database_url, text) == set()
    assert command("backfill", "--reread").status in {0, 6}
    assert columns_with(database_url, text) == set()
    kept = query(
        database_url,
        "SELECT state, response_model, total_tokens, user_id IS NOT NULL AS named, reported_error"
        " FROM orchestra.steps WHERE node_id = 'model' AND run_id = %s",
        run_id,
    )
    states = {"Keep no content": True, "Mask all texts": True, "etl/settings/etl.toml": False}
    model, tokens = ("virtuoso-medium", 84) if states.get(title, True) else (None, None)
    assert [
        (one["state"], one["response_model"], one["total_tokens"], one["named"]) for one in kept
    ] == [("succeeded", model, tokens, True)]


# Copies of a removed text


def _policy(*rules: RedactionRule) -> Policy:
    policy = Redaction(rules, KEY).policy("w")
    assert policy is not None
    return policy


def _elements(
    *steps: dict[str, Any], run: dict[str, Any] | None = None
) -> list[remaining_copies.Element]:
    made: list[remaining_copies.Element] = []
    for element, of_run in [
        *((step, False) for step in steps),
        *([(run, True)] if run is not None else []),
    ]:
        parts = split(b"[" + json.dumps(element).encode() + b"]")
        assert parts is not None
        ((own, members),) = parts.elements
        assert members is not None
        made.append((Raw(own), members, of_run))
    return made


def _places(
    *rules: RedactionRule, steps: list[dict[str, Any]], run: dict[str, Any] | None = None
) -> list[tuple[str | None, str]]:
    return [
        (one.step_id, one.path)
        for one in remaining_copies.find_copies(
            _policy(*rules), "r", _elements(*steps, run=run)
        ).found
    ]


MESSAGES = RedactionRule("$.outputs.choices[*].message", "drop")


def test_copies_in_the_next_step_of_the_sample(sample_steps: bytes) -> None:
    """In the sample, both places of the next step that repeat the model's text are found.

    Roles and ids are not taken for copies.
    """
    steps = json.loads(sample_steps)
    assert _places(MESSAGES, steps=steps) == [
        (steps[1]["id"], "$['inputs']['input_mapping']['text']"),
        (steps[1]["id"], "$['inputs']['input_data']['model']"),
    ]
    complete = RedactionRule("$['inputs', 'outputs']", "drop")
    assert _places(complete, steps=steps) == []


def test_a_text_is_found_in_any_form() -> None:
    """A removed text is found in any form, and in any place.

    The forms are: inside another text, as JSON in a text, as a member's name, and as a long part.
    The places include errors, unknown fields and the run's own row.
    """
    said = 'The "quoted" answer of the model\nand its second line'
    step = {
        "id": "a",
        "node_id": "n",
        "outputs": {"choices": [{"message": {"role": "assistant", "content": said}}]},
    }
    other = {
        "id": "b", "error": f"cannot send: {said}", "surprise": [json.dumps({"text": said})],
        "inputs": {said: 1, "role": "assistant"},
        "step_metadata": {"preview": said[4:30], "short": said[:6]},
    }  # fmt: skip
    run = {"id": "r", "outputs": {"End": said}}
    found = _places(MESSAGES, steps=[step, other], run=run)
    assert {path for _, path in found} == {
        "$['error']", "$['surprise'][0]",
        f"$['inputs']['{json.dumps(said)[1:-1]}']".replace('\\"', '"'),
        "$['step_metadata']['preview']", "$['outputs']['End']",
    }  # fmt: skip
    assert [step_id for step_id, _ in found].count(None) == 1


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search ends at a number of places, and after enough work it compares whole texts only.

    The result then says that the search is incomplete.
    """
    many = {"id": "a", "inputs": [f"text number {number}" for number in range(500)]}
    copies = {"id": "b", "outputs": many["inputs"]}
    rule = RedactionRule("$.inputs", "drop")
    found = remaining_copies.find_copies(_policy(rule), "r", _elements(many, copies))
    assert (len(found.found), found.complete) == (remaining_copies.MAX_FOUND, False)
    monkeypatch.setattr(remaining_copies, "MAX_WORK", 1000)
    unlike = {
        "id": "b",
        "outputs": ["something else"] * 500,
        "error": many["inputs"][7],
        "step_metadata": "x text number 7 x",
    }
    found = remaining_copies.find_copies(_policy(rule), "r", _elements(many, unlike))
    assert ([one.path for one in found.found], found.complete) == (["$['error']"], False)


def test_preview_shows_where_a_text_still_stands(
    served: tuple[History, Simulator],
    sample_steps: bytes,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`redact preview` names the rule, node and path of each copy that remains, never the text.

    It also names a rule that removes nothing.
    """
    history, simulator = served
    (workflow,) = history.workflow_ids
    (run_id,) = history.run_ids(workflow)
    simulator.steps_bodies[run_id] = sample_steps
    history.change_run(
        run_id,
        outputs={"End": json.loads(sample_steps)[0]["outputs"]["choices"][0]["message"]["content"]},
    )
    rules = f'[[redaction.rules]]\npath = "{MESSAGES.path}"\naction = "drop"\n'
    rules += '[[redaction.rules]]\npath = "$.status"\naction = "mask"\n'
    variables = environment(database_url, simulator.base_url, ORCHESTRA_REDACTION_KEY=KEY)
    command: Command = command_line(
        tmp_path, monkeypatch, capsys, configuration(workflow, more=rules), **variables
    )
    arguments = ("redact", "preview", run_id, "--workflow", workflow)
    shown = command(*arguments)
    words = " ".join(shown.out.split())
    assert "REMAIN" in words
    assert "node slack_integration" in words
    assert "$['inputs']['input_data']['model']" in words
    assert "$['outputs']['End'] the run's own row" in words
    assert "3 matches, NONE REMOVED: mask $.status" in words
    assert "weather" not in shown.out
    found = command(*arguments, "--json")
    assert [(one["rule"], one["node_id"]) for one in found.json["remaining_copies"]] == [
        (1, "slack_integration"), (1, "slack_integration"), (1, None),
    ]  # fmt: skip
    assert "weather" not in found.out
