"""The usage in a model's response, for every provider."""

from __future__ import annotations

import json
import random
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from genai_prices.data_snapshot import get_snapshot
from msgspec import Raw

from etl.transform.content_shapes import CONTAINERS
from etl.transform.generation import Generation, read_generation
from etl.transform.usage_names import FINISH_REASONS, NAMES, Name
from etl.transform.usage_quantities import ALL
from etl.transform.usage_tree import tree
from etl.usage import BITS, KINDS, Usage, charged
from tests.provider_bodies import SAMPLES, ProviderBody

_COUNTED = tuple(kind.name for kind in KINDS if kind.name.endswith("_tokens"))


def read(outputs: Any, inputs: Any = None) -> Generation:
    """Read the usage of a step with these payloads."""
    return read_generation(Raw(json.dumps(inputs).encode()), Raw(json.dumps(outputs).encode()))


def known(usage: Usage) -> dict[str, Any]:
    """Return the fields of a usage that are not None."""
    fields = msgspec.structs.asdict(usage)
    kinds = fields.pop("usage_kinds")
    assert kinds == sum(BITS[name] for name in charged(usage))
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_shape(sample: ProviderBody) -> None:
    """Each provider's body gives the documented usage, model and finish reason, without drift."""
    seen = read(sample.body)
    assert known(seen.usage) == sample.usage
    assert (seen.response_model, seen.finish_reason) == (sample.model, sample.finish_reason)
    assert seen.deviations == ()


# This project's kinds by their names in genai-prices.
_THEIRS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "cache_audio_read_tokens": "cached_audio_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "input_image_tokens": "input_image_tokens",
    "output_image_tokens": "output_image_tokens",
    "output_citation_tokens": "citation_tokens",
}


@pytest.mark.parametrize(
    "sample",
    [sample for sample in SAMPLES if sample.extractor is not None],
    ids=lambda sample: sample.name,
)
def test_as_genai_prices_reads_it(sample: ProviderBody) -> None:
    """genai-prices finds the same in each body that it can read, so costs by it are the same."""
    provider, flavor = sample.extractor or ("", "")
    (extractor,) = [
        one
        for found in get_snapshot().providers
        if found.id == provider
        for one in found.extractors or ()
        if one.api_flavor == flavor
    ]
    _, theirs = extractor.extract(sample.body)
    ours = read(sample.body).usage
    for name, kind in _THEIRS.items():
        assert (getattr(theirs, name, None) or 0) == (getattr(ours, kind) or 0), name


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # The total decides; without one, a name that only the provider has, or the only possible
        # reading.
        ({"completion_tokens": 50, "total_tokens": 60,
          "completion_tokens_details": {"reasoning_tokens": 40}}, (50, 60)),
        ({"completion_tokens": 50, "total_tokens": 100,
          "completion_tokens_details": {"reasoning_tokens": 40}}, (90, 100)),
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}},
         (50, 60)),
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 60}},
         (110, 120)),
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40},
          "num_sources_used": 0}, (90, 100)),
        ({"completion_tokens": 50, "total_tokens": 60,
          "completion_tokens_details": {"reasoning_tokens": 70}}, (120, 130)),
    ],
)  # fmt: skip
def test_reasoning_inside_or_beside(usage: dict[str, Any], expected: tuple[int, int]) -> None:
    """The total shows whether reasoning is part of the completion or beside it."""
    used = read(
        {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 10, **usage}}
    ).usage
    assert (used.output_tokens, used.total_tokens) == expected
    assert used.other_tokens is None


@pytest.mark.parametrize(
    "response",
    [
        {
            "object": "list",
            "data": [],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        },
        {
            "model": "llama3.2",
            "response": "a",
            "done": True,
            "prompt_eval_count": 26,
            "eval_count": 290,
        },
    ],
    ids=["embeddings", "ollama"],
)
def test_several_responses_without_ids(response: dict[str, Any]) -> None:
    """Several responses without ids are a call of unknown cost, and drift.

    The last of them does not stand for all. A single one is read.
    """
    assert read([response]).usage.input_tokens in (8, 26)
    several = read({"result": {"data": [response, response]}})
    assert known(several.usage) == {"unread_quantities": 2}
    assert [(one.path, one.kind) for one in several.deviations] == [
        ("outputs.result.data[].usage", "unknown_usage")
    ]


def test_unexplained_tokens_of_a_total_are_other() -> None:
    """Tokens of the total that no name explains count as other tokens, without a price."""
    used = read(
        {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}}
    ).usage
    assert known(used) == {
        "input_tokens": 10,
        "output_tokens": 5,
        "other_tokens": 25,
        "total_tokens": 40,
    }


@pytest.mark.parametrize("wrong", [-10, 1.5, "abc", 2**63, True, {"a": 1}, [7]], ids=repr)
@pytest.mark.parametrize(
    "name", ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]
)
def test_unreadable_quantities_are_counted(name: str, wrong: object) -> None:
    """A quantity that cannot be read is counted, so that the readable ones do not count as all."""
    other = {
        "prompt": "completion_tokens",
        "completion": "prompt_tokens",
        "input": "output_tokens",
        "output": "input_tokens",
    }
    usage = {name: wrong, other[name.partition("_")[0]]: 5}
    seen = read({"model": "m", "choices": [], "usage": usage})
    assert seen.usage.unread_quantities == 1
    assert (seen.usage.input_tokens, seen.usage.output_tokens).count(5) == 1
    assert seen.usage.total_tokens is None
    assert len(seen.deviations) == 1


@pytest.mark.parametrize("name", ["chunks", "events", "stream"])
def test_events_of_a_stream_under_a_name(name: str) -> None:
    """The events of a stream are read under each name that libraries give them."""
    events = [
        {"messageStart": {"role": "assistant"}},
        {"messageStop": {"stopReason": "max_tokens"}},
        {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}}},
    ]
    for outputs in ({name: events}, {"result": {"data": {name: events}}}):
        seen = read(outputs)
        assert known(seen.usage) == {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        assert seen.finish_reason == "max_tokens"


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: {"result": {"data": one}}])
@pytest.mark.parametrize(
    "form",
    [
        lambda events: "".join(f"data: {one}\r\n\r\n" for one in events) + "data: [DONE]\r\n\r\n",
        lambda events: ": wait\n\n" + "".join(f"event: a\ndata:{one}\n\n" for one in events),
        lambda events: "\n".join(events) + "\n",
        lambda events: [*(f"data: {one}" for one in events), ""],
    ],
    ids=["server-sent events", "with comments and names", "lines of JSON", "a list of lines"],
)
@pytest.mark.parametrize(
    "events",
    [
        [{"id": "c", "model": "m", "choices": [{"delta": {"content": "a"}}]},
         {"id": "c", "model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]},
         {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}],
        [{"type": "message_start", "message": {"id": "m", "model": "m",
                                               "usage": {"input_tokens": 3, "output_tokens": 1}}},
         {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
         {"type": "message_delta", "delta": {"stop_reason": "stop"},
          "usage": {"output_tokens": 4}}],
        [{"type": "response.created", "response": {"id": "r", "usage": None}},
         {"type": "response.completed", "response": {
             "id": "r", "object": "response", "model": "m", "status": "stop",
             "usage": {"input_tokens": 3, "output_tokens": 4}}}],
    ],
    ids=["OpenAI chat", "Anthropic", "OpenAI responses"],
)  # fmt: skip
def test_a_stream_as_text(events: list[Any], form: Any, wrap: Any) -> None:
    """The usage of a stream that is kept as a text is read as that of its events."""
    found = read(wrap(form([json.dumps(one) for one in events])))
    assert found == read(wrap(events))
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 4)
    assert (found.response_model, found.finish_reason) == ("m", "stop")


def test_an_unreadable_total_or_cost_leaves_the_parts() -> None:
    """An unreadable total or reported cost does not change what is charged."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": "x", "cost": "y"}
    assert known(read({"model": "m", "choices": [], "usage": usage}).usage) == {
        "input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "left", "paths"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5,
          "prompt_tokens_details": {"cached_tokens": 11}},
         {"unread_quantities": 1}, {"outputs.cached_input_tokens"}),
        ({"prompt_tokens": 10, "completion_tokens": 5,
          "completion_tokens_details": {"audio_tokens": 6}},
         {"unread_quantities": 1}, {"outputs.output_audio_tokens"}),
        ({"prompt_tokens": 10, "completion_tokens": 5,
          "prompt_tokens_details": {"audio_tokens": 8, "image_tokens": 8}},
         {"input_audio_tokens": 8, "unread_quantities": 1}, {"outputs.input_image_tokens"}),
        # If everything is from the cache, so is the audio.
        ({"prompt_tokens": 10, "completion_tokens": 5,
          "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 8}},
         {"cached_input_tokens": 10, "input_audio_tokens": 8, "cached_audio_tokens": 8}, set()),
    ],
)  # fmt: skip
def test_a_part_larger_than_its_whole_is_left_out(
    usage: dict[str, Any], left: dict[str, int], paths: set[str]
) -> None:
    """A part that is larger than its whole is left out and counted as drift; the whole stays."""
    seen = read({"choices": [], "usage": usage})
    assert known(seen.usage) == {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, **left}
    assert {(one.path, one.kind) for one in seen.deviations} == {
        (path, "implausible_number") for path in paths
    }


@pytest.mark.parametrize(
    ("outputs", "paths"),
    [
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "speech_tokens": 7}},
         ["outputs.usage.speech_tokens"]),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "by_tool": {"a": {"tool_tokens": 3}}}},
         ["outputs.usage.by_tool.a.tool_tokens"]),
        ({"model": "m", "llm_usage": {"tokens_in": 5, "tokens_out": 6}},
         ["outputs.llm_usage.tokens_in", "outputs.llm_usage.tokens_out"]),
        ({"result": {"data": {"response": {"token_usage": {"prompt": 5, "tokens": 3}},
                              "usage_total": 4}}},
         ["outputs.result.data.response.token_usage.tokens", "outputs.result.data.usage_total"]),
        # What else contains a response is not known.
        ({"answer": {"usage": {"prompt_tokens": 5, "completion_tokens": 6}}},
         ["outputs.answer.usage.completion_tokens", "outputs.answer.usage.prompt_tokens"]),
        ({"result": {"data": {"llm_output": {"token_usage": {"total_tokens": 5}},
                              "successful": True}}},
         ["outputs.result.data.llm_output.token_usage.total_tokens"]),
        ({"answer": {"usage": {"disk": 3}}}, []),
        ([_completion | {"id": str(number)} for number,
          _completion in enumerate([SAMPLES[0].body] * 2)], ["outputs[].usage"]),
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "new_tokens": 0,
                                   "token_limit": 9, "a": "tokens"}},
         []),
    ],
)  # fmt: skip
def test_unknown_usage_names_are_counted(outputs: Any, paths: list[str]) -> None:
    """Numbers under an unknown name that suggests tokens or usage are drift with their path."""
    found = [one.path for one in read(outputs).deviations if one.kind == "unknown_usage"]
    assert sorted(found) == sorted(paths)


@pytest.mark.parametrize(
    ("inputs", "outputs", "node_type", "model"),
    [
        ({"app_name": "openai", "action": "CHAT"}, {"result": {"data": SAMPLES[0].body,
                                                               "error": None}}, "integration",
                                                               "gpt-4o"),
        ({"app_name": "openai", "action": "CHAT"},
         {"result": {"data": {"response_data": SAMPLES[0].body}, "error": None}},
         "integration", "gpt-4o"),
        ({"app_name": "slack", "action": "SEND"}, {"model": "m", "result": {"data": {"ok": True}}},
         "integration", None),
        ({"code": "..."}, {"result": SAMPLES[0].body}, "code", "gpt-4o"),
        ({"code": "..."}, {"result": {"usage": {"cpu": 3}}}, "code", None),
        ({"query": "q"}, {"documents": [], "usage": {"total_tokens": 5, "prompt_tokens": 5}},
         "knowledge_retrieval", None),
        ({"modelId": "titan"}, {"inputTextTokenCount": 5}, "model", None),
        ({"model_name": "m"}, {"type": "message", "model": "c",
                               "usage": {"input_tokens": 1, "output_tokens": 1}}, "model", "c"),
        ({}, {"usage": {"requests": 1}}, None, None),
        ({}, {"usage": {"speed": "fast"}, "service_tier": "gold"}, None, None),
    ],
)  # fmt: skip
def test_a_response_with_usage_is_a_call(
    inputs: Any, outputs: Any, node_type: str | None, model: str | None
) -> None:
    """A response in any node's outputs is read; the node keeps its type, or is a model."""
    seen = read(outputs, inputs)
    assert (seen.node_type, seen.response_model) == (node_type, model)
    assert seen.request_model == (inputs.get("modelId") or inputs.get("model_name"))


@pytest.mark.parametrize(
    ("more", "tier"),
    [
        ({"service_tier": "auto"}, "standard"),
        ({"service_tier": "Priority"}, "priority"),
        ({"service_tier": "scale"}, "scale"),
        ({"service_tier": ""}, None),
        ({"service_tier": "x" * 60}, "x" * 50),
        (
            {
                "usage": {
                    "input_tokens": 1,
                    "output_tokens": 1,
                    "speed": "fast",
                    "inference_geo": "us",
                }
            },
            "fast us",
        ),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "inference_geo": "global"}}, None),
        (
            {"usage": {"input_tokens": 1, "output_tokens": 1}, "service_tier": "a\x00\x1b[31m"},
            "a\ufffd\ufffd[31m",
        ),
        ({"service_tier": ["flex"]}, None),
    ],
)
def test_tiers(more: dict[str, Any], tier: str | None) -> None:
    """A service tier is in lower case, short, and harmless to a terminal and PostgreSQL."""
    assert (
        read({"usage": {"input_tokens": 1, "output_tokens": 1}, **more}).usage.service_tier == tier
    )


@pytest.mark.parametrize("cost", ["a", True, -1, 10**7, [1], float("1e300")])
def test_no_cost(cost: object) -> None:
    """An invalid reported cost is not kept, and is counted as drift."""
    seen = read(
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": cost}}
    )
    assert seen.usage.reported_cost is None
    assert [one.path for one in seen.deviations] == ["outputs.usage.cost"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(9, 9000), ("9", 9000), (9.25, 9250), (-1, None), ("long", None), (10**10, None)],
)
def test_seconds(seconds: object, expected: int | None) -> None:
    """Whole seconds are read as text too; a value that is not a duration is None."""
    assert (
        read({"model": "w", "usage": {"type": "duration", "seconds": seconds}}).usage.audio_ms
        == expected
    )


def test_a_cost_without_a_model_is_no_call() -> None:
    """An amount in `usage.cost` without a model is no call; with a model it is the call's cost."""
    bill = {"result": {"data": {"usage": {"cost": 12.5, "unit": "kWh"}}, "error": None}}
    assert known(read(bill).usage) == {}
    assert known(read(bill, {"model": "m"}).usage) == {"reported_cost": Decimal("12.5")}


def test_a_small_cost_is_exact() -> None:
    """A cost with an exponent stays the exact decimal."""
    seen = read(
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 1.5e-07}}
    )
    assert seen.usage.reported_cost == Decimal("0.00000015")


def test_the_table_of_names() -> None:
    """Each name has its public page and one meaning, and a wrong row is refused."""
    assert len({path for path, _, _ in NAMES}) == len(NAMES)
    for path, quantity, source in NAMES:
        assert source.startswith("https://"), path
        assert quantity is None or quantity in ALL, path
    assert all(source.startswith("https://") for _, source in FINISH_REASONS)
    with pytest.raises(ValueError, match="not a quantity"):
        tree([Name("usage.x", "speech", "https://example.com")])
    with pytest.raises(ValueError, match="two quantities"):
        tree(
            [
                Name("usage.x", "input", "https://example.com"),
                Name("usage.x", "output", "https://example.com"),
            ]
        )


def _anything(random: random.Random, depth: int = 3) -> Any:
    kinds = 7 if depth else 5
    match random.randrange(kinds):
        case 0:
            return random.choice([None, True, False, "", "7", "100.0", "tokens", "TEXT", "1h"])
        case 1 | 2 | 3:
            return random.choice([0, 1, 7, 100, 10**12, 10**12 + 1, 2**70, -1, 1e300])
        case 4:
            return random.choice([0.0, 7.0, 7.5, -0.5, 1e-9])
        case 5:
            return [_anything(random, depth - 1) for _ in range(random.randrange(4))]
        case _:
            return {
                random.choice(_WORDS): _anything(random, depth - 1)
                for _ in range(random.randrange(8))
            }


_WORDS = sorted(
    {part.partition("[")[0] for name in NAMES for part in name.path.split(".")} | set(CONTAINERS)
)


def _body(random: random.Random) -> dict[str, Any]:
    """Return a body with some names of the table, mostly with plausible numbers."""
    body: dict[str, Any] = {}
    for name in random.sample(NAMES, random.randrange(1, 12)):
        *way, last = name.path.split(".")
        at: Any = body
        for part in way:
            member, bracket, condition = part.partition("[")
            if bracket:
                by, _, value = condition.removesuffix("]").partition("=")
                elements = at.setdefault(member, [])
                if not isinstance(elements, list):
                    break
                elements.append({by: value} if by else {})
                at = elements[-1]
            else:
                at = at.setdefault(member, {})
            if not isinstance(at, dict):
                break
        else:
            at[last] = random.randrange(1_000) if random.random() < 0.95 else _anything(random, 2)
    return body


def _check(seen: Generation) -> None:
    usage = seen.usage
    known(usage)
    leaves = charged(usage)
    assert all(quantity > 0 for quantity in leaves.values()), usage
    whole = (usage.input_tokens or 0) + (usage.output_tokens or 0) + (usage.other_tokens or 0)
    assert sum(quantity for name, quantity in leaves.items() if name in _COUNTED) == whole, usage
    if usage.total_tokens is not None:
        assert usage.total_tokens >= (usage.input_tokens or 0) + (usage.output_tokens or 0)
    for kind in KINDS:
        for container in kind.part_of:
            assert (getattr(usage, kind.name) or 0) <= (getattr(usage, container) or 0), (
                kind.name,
                usage,
            )
    assert len(seen.deviations) <= 20


@pytest.mark.parametrize("seed", range(20))
def test_parts_add_up(seed: int) -> None:
    """For any names the charges add up to input, output and other, without a double count.

    None is negative.
    """
    chance = random.Random(seed)
    for _ in range(100):
        _check(read(_body(chance)))


@pytest.mark.parametrize("seed", range(20))
def test_any_json_is_read(seed: int) -> None:
    """Any JSON in any place of a body gives a usage that adds up, and never an error."""
    chance = random.Random(seed)
    for _ in range(100):
        usage = {name: _anything(chance) for name in chance.sample(_WORDS, chance.randrange(12))}
        member = chance.choice(
            [
                "usage",
                "usageMetadata",
                "usage_metadata",
                "meta",
                "result",
                "response",
                "chunks",
                "data",
            ]
        )
        _check(
            read(
                {"choices": _anything(chance), member: usage}
                if chance.random() < 0.5
                else {member: usage}
            )
        )
        _check(read(_anything(chance, 4)))


def test_the_usual_way_is_the_tables_way() -> None:
    """The names read in one pass give the table's result, for any numbers."""
    chance = random.Random(7)
    for _ in range(500):
        usage = {
            name: chance.choice([None, 0, 5, 10, 20, 10**12 + 1, -1, "7"])
            for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        } | {
            details: {name: chance.choice([0, 5, 10]) for name in names}
            for details, names in (
                (
                    "prompt_tokens_details",
                    ("cached_tokens", "audio_tokens", "text_tokens", "video_tokens"),
                ),
                ("completion_tokens_details", ("reasoning_tokens", "audio_tokens", "image_tokens")),
            )
            if chance.random() < 0.5
        }
        more: dict[str, Any] = chance.choice(
            [{}, {"service_tier": "default"}, {"service_tier": "flex"}, {"service_tier": 7}]
        )
        usual = read({"choices": [], "usage": usage, **more})
        by_table = read({"result": {"usage": usage, **more}})
        if by_table.node_type is None:
            assert set(known(usual.usage)) <= {"service_tier", "unread_quantities"}
            continue
        assert usual.usage == by_table.usage, usage
        assert [one.kind for one in usual.deviations] == [
            one.kind for one in by_table.deviations if one.kind != "unknown_answer"
        ]


@pytest.mark.parametrize(
    "outputs",
    [
        b'{"usage":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"result":' * 5_000 + b'{"usage":1}' + b"}" * 5_000,
        b'{"usage":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b"[" + b'{"usage":{"prompt_tokens":1}},' * 100_000 + b"1]",
        b'{"usage":{' + b",".join(b'"%d_tokens":1' % number for number in range(20_000)) + b"}}",
        b'{"usage":{"iterations":[' + b'{"type":"x","a_tokens":1},' * 50_000 + b"1]}}",
        b'{"result":"' + b'{\\"usage\\":1} ' * 50_000 + b'"}',
    ],
    ids=[
        "deep usage",
        "deep results",
        "deep arrays",
        "many chunks",
        "many names",
        "many elements",
        "long text",
    ],
)
def test_reading_is_bounded(outputs: bytes) -> None:
    """Nesting and any number of chunks, names or elements take time in proportion to their bytes.

    They give no error.
    """
    start = time.process_time()
    seen = read_generation(None, Raw(outputs))
    assert time.process_time() - start < 2
    assert len(seen.deviations) <= 20


def test_the_page_lists_the_names() -> None:
    """docs/reference/usage.md has the current table of names."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "usage.md").read_text()
    listed = page.partition("<!-- names -->\n")[2].partition("<!-- /names -->")[0]
    assert listed == names_table(), "write names_table() of tests/unit/test_usage.py there"


def names_table() -> str:
    """Return the table of names as the page has it: the names in a response, by quantity."""
    lines = ["| what | where |", "|---|---|"]
    for quantity in sorted(ALL):
        paths = [f"[`{path}`]({source})" for path, one, source in NAMES if one == quantity]
        lines.append(f"| {quantity} | {', '.join(paths)} |")
    paths = [f"[`{path}`]({source})" for path, source in FINISH_REASONS]
    return "\n".join([*lines, f"| finish_reason | {', '.join(paths)} |", ""])
