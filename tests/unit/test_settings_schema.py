"""The JSON Schema of the configuration file: editors accept what the program accepts."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from docs import reference
from etl.alert_metrics import CONDITIONS
from etl.errors import ConfigurationError
from etl.settings import load, names
from etl.settings.alerts import AlertSettings, NotifySettings
from etl.settings.values import Duration
from tests.conftest import ROOT
from tests.examples import examples

SCHEMA: dict[str, Any] = json.loads(reference.SETTINGS_SCHEMA.read_text())
EXAMPLE = (ROOT / "etl" / "settings" / "etl.toml").read_text()
DOCUMENTED = [
    pytest.param(block, id=f"{path.name} {number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for number, block in enumerate(
        re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    )
]
SECRETS = {"api.api_key", "redaction.key"}


@functools.cache
def _validator() -> Any:
    # The import takes two seconds, which only the process that runs these tests should spend.
    import jsonschema

    return jsonschema.Draft7Validator(SCHEMA)


def _problems(text: str) -> list[str]:
    """Return the schema's errors for this TOML; days are strings to it, as to the editors."""
    values = json.loads(json.dumps(tomllib.loads(text), default=str))
    return [error.message for error in _validator().iter_errors(values)]


def _program_accepts(path: Path, text: str) -> bool:
    path.write_text(text)
    try:
        load(path, {"ORCHESTRA_REDACTION_KEY": "k" * 32})
    except ConfigurationError:
        return False
    return True


def _names() -> Iterator[str]:
    """Yield every setting that the schema knows, by the program's names."""
    yield from SCHEMA["properties"]
    models = {model.__name__: section for section, model in names.SECTIONS.items()}
    models["NotifySettings"] = "notify.NAME"
    for model, part in SCHEMA["$defs"].items():
        yield from (f"{models[model]}.{key}" for key in part["properties"])


def test_the_schema_has_every_setting() -> None:
    """The schema is valid, and knows each setting with its description, and no secret."""
    _validator().check_schema(SCHEMA)
    assert {*_names()} == {*names.KNOWN, "notify.NAME.url_file"} - SECRETS
    for part in SCHEMA["$defs"].values():
        assert all(value["description"] for value in part["properties"].values())
        assert part["additionalProperties"] is False


def test_the_example_names_the_schema() -> None:
    """The example names the schema in its first line and fits it, with every setting in force."""
    first = EXAMPLE.splitlines()[0]
    assert (ROOT / "etl" / "settings" / first.removeprefix("#:schema ")).samefile(
        reference.SETTINGS_SCHEMA
    )
    assert _problems(EXAMPLE) == []
    everything = re.sub(r"^# (?=\[|\w+ = )", "", EXAMPLE, flags=re.MULTILINE)
    assert everything.count("\n[[") == 4
    assert _problems(everything) == []


@pytest.mark.parametrize("block", DOCUMENTED)
def test_documented_settings_fit_the_schema(block: str, tmp_path: Path) -> None:
    """The program and the schema accept each example of the documentation."""
    assert _program_accepts(tmp_path / "etl.toml", block)
    assert _problems(block) == []


@pytest.mark.parametrize(
    "text",
    [
        '[api]\nbase_urls = "https://example.com"',
        '[[workflows]]\nid = "a"\nlabel = { team = "b" }',
        "[polling]\nlease = 60",
        '[retention]\nruns = "a year"',
        "[[prices]]\ninput = 1.0\noutput = 1.0",
        '[[prices]]\nmodel = "a"\ninput = -1\noutput = 1',
        '[[prices]]\nmodel = "a"\ncalls = true',
        '[[redaction.rules]]\npath = "$.inputs"\naction = "hide"',
        '[[alerts]]\nname = "a"\nmetric = "errors"\nabove = 1',
        '[[alerts]]\nname = "a"\nmetric = "lag"\nabove = "soon"',
        "[notify.ops]",
        "[service]\nport = 65536",
        '[states]\nreviewed = "done"',
        "[colours]",
        "workflows = {}",
        '[api]\nbase_url = "ftp://host"',
        '[api]\nbase_url = "https://user:password@host/"',
        '[api]\nheader_name = "X Key"',
        '[dashboards]\nurl = "superset.example.com"',
        '[database]\nurl = "mysql://host/name"',
        '[[workflows]]\nid = ""',
        '[[workflows]]\nid = " a"',
        '[[workflows]]\nid = "a"\ncron = "every hour"',
        '[[workflows]]\nid = "a"\ninterval = "0s"',
        '[polling]\nlease = "0.0h"',
        '[polling]\nlease = "5.s"',
        '[[prices]]\nmodel = ""\ninput = 1\noutput = 1',
        '[[prices]]\nmodel = "a"\ninput = "free"\noutput = 1',
        '[[prices]]\nmodel = "a"\ninput = 1\noutput = 1\ncurrency = "Euro"',
        '[[prices]]\nmodel = "a"\ninput = 1\noutput = 1\nvalid_from = "1 May 2026"',
        '[[redaction.rules]]\npath = "inputs"\naction = "drop"',
        '[[alerts]]\nname = " a"\nmetric = "runs"\nabove = 1',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nlabel = "team"',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nabove_usual = true',
        '[api]\nbase_url = "https://host:port/"',
        '[api]\nbase_url = "https://münchen.example/"',
        '[api]\nbase_url = "https://:443"',
        '[database]\nurl = "postgresql://host/a\\u0007"',
        '[[workflows]]\nid = "a\\tb"',
        f'[[workflows]]\nid = "{"a" * 513}"',
        '[[workflows]]\nid = "a"\ncron = "? * * * *"',
        '[[workflows]]\nid = "a"\ncron = "@daily"\ninterval = "1m"',
        f'[[prices]]\nmodel = "{"a" * 501}"\ncalls = 1',
        f'[[prices]]\nmodel = "a"\ncalls = 1\nservice_tier = "{"a" * 51}"',
        '[[prices]]\nmodel = "a"\ncalls = 1\nabove_input_tokens = 1000',
        '[[prices]]\nmodel = "a"\ncalls = "1.2.3"',
        f'[[alerts]]\nname = "{"a" * 257}"\nmetric = "runs"\nabove = 1',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nlabel = " a=b"',
        '[[alerts]]\nname = "a"\nmetric = "runs"',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nbelow = 2',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nbelow = 0',
        '[[alerts]]\nname = "a"\nmetric = "lag"\nbelow = "0s"',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nrepeat = "1h"',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nnotify = ["ops", "ops"]\n'
        '[notify.ops]\nurl_file = "ops"',
        '[export]\nlocation = "https://bucket/lake"',
        '[export]\nlocation = "s3://bucket/a lake"',
        '[export]\nlocation = "the\\nlake"',
        '[export]\nnamespace = "Lake"',
        *(name.replace(".", " = { ") + ' = "secret" }' for name in sorted(SECRETS)),
    ],
)
def test_the_schema_refuses_what_the_program_refuses(text: str, tmp_path: Path) -> None:
    """The schema refuses unknown names, wrong types, values that are invalid alone, and secrets."""
    assert not _program_accepts(tmp_path / "etl.toml", text)
    assert _problems(text)


@pytest.mark.parametrize(
    "text",
    [
        '[[prices]]\nmodel = "a"\ncalls = 5',
        '[[prices]]\nmodel = "a"\ninput = "0.10"\noutput = 1\nvalid_from = 2026-01-01',
        '[[workflows]]\nid = "a"\nlabels = { "any name" = "b" }\nruns = ["r"]',
        '[states]\n"needs review" = "running"',
        '[[alerts]]\nname = "a"\nmetric = "lag"\nabove = "15m"\nfor = "5m"\nnotify = ["ops"]\n'
        '[notify.ops]\nurl_file = "ops"',
        '[database]\nurl_file = "~/url"\nlock_timeout = "0s"',
        '[database]\nurl = " Embedded "',
        '[database]\nurl = "postgresql+psycopg://etl@/history"',
        '[api]\nbase_url = " HTTPS://[::1]:8443/a@b/ "\nheader_name = "X-Key"\ndeadline = ".5 S"',
        '[[workflows]]\nid = "a b"\ncron = "@Daily"',
        '[[workflows]]\nid = "ä"\ncron = " */5 9-17 * jan,feb mon "\nname = ""',
        '[[redaction.rules]]\npath = "$..[*]"\naction = "mask"',
        '[[redaction.rules]]\npath = """$\n.a"""\naction = "mask"',
        '[api]\nbase_url = "https://host:/"',
        '[[prices]]\nmodel = "a"\ncalls = " 1_000.5e-0 "\nabove_input_tokens = 200_000',
        '[[alerts]]\nname = "a"\nmetric = "runs"\nbelow = 0.5\nlabel = "a=" ',
        '[[alerts]]\nname = "a b"\nmetric = "runs"\nabove = 1\nlabel = "team=a=b"',
        '[export]\nlocation = "s3://bucket/lake"\nnamespace = "lake_2"',
        '[export]\nlocation = "~/the lake"',
        "",
    ],
)
def test_the_schema_accepts_what_the_program_accepts(text: str, tmp_path: Path) -> None:
    """The schema accepts prices without tokens, free table names, file names, days, no content."""
    assert _program_accepts(tmp_path / "etl.toml", text)
    assert _problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('[[workflows]]\nid = "a\\u200Bb"', id="a character that is not printable"),
        pytest.param('[service]\nhost = "a\\u0000"', id="NUL in a text"),
        pytest.param(f'[[workflows]]\nid = "{"ä" * 257}"', id="a text that is too long in bytes"),
        pytest.param('[[workflows]]\nid = "a/../b"', id="an id with a dot segment"),
        pytest.param('[[workflows]]\nid = "null"', id="an id that is JSON or in quotes"),
        pytest.param('[polling]\nlease = "36526d"', id="a duration that is too long"),
        pytest.param(
            '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nover = "90s"',
            id="a duration that is not whole minutes",
        ),
        pytest.param("[api]\nrequests_per_second = inf", id="a number that is not finite"),
        pytest.param(
            "[polling]\nreconcile_pages = 1e300", id="a whole number beyond 64 bits as a float"
        ),
        pytest.param(
            '[[prices]]\nmodel = "a"\ncalls = 0.0000000000001', id="a price with too many digits"
        ),
        pytest.param('[[prices]]\nmodel = "a"\ncalls = "1e10"', id="a price in quotes, too high"),
        pytest.param(
            '[[prices]]\nmodel = "a"\ncalls = 1\nvalid_from = "2026-02-30"',
            id="a day that does not exist, if the editor ignores `format`",
        ),
        pytest.param("[[workflows]]\nid = 2026-01-31", id="a day without quotes as a text"),
        pytest.param('[api]\nbase_url = "https://host:65536"', id="a port that is too high"),
        pytest.param(
            '[[workflows]]\nid = "a"\ncron = "60 * * * *"', id="a cron field out of its range"
        ),
        pytest.param(
            '[[workflows]]\nid = "a"\ncron = "0 0 30 2 *"', id="a cron line that never comes due"
        ),
        pytest.param(
            '[[redaction.rules]]\npath = "$.a["\naction = "drop"', id="a JSONPath's grammar"
        ),
        pytest.param('[api]\napi_key_file = "~no-such-user/key"', id="a user without a home"),
        pytest.param('[export]\nlocation = "s3://user@bucket"', id="a user in a store's URL"),
        pytest.param(
            '[[prices]]\nmodel = "a"\ninput = 1', id="prices of tokens without input or output"
        ),
        pytest.param(
            '[database]\nurl = "embedded"\nurl_file = "url"',
            id="two alternatives, which a variable can replace",
        ),
        pytest.param('[export]\nevery = "1h"', id="a setting that needs another section or value"),
        pytest.param(
            '[polling]\nopen_interval_min = "2h"\nopen_interval_max = "1h"',
            id="two values in the wrong order",
        ),
        pytest.param(
            '[[alerts]]\nname = "a"\nmetric = "lag"\nabove = 1', id="a value that fits no metric"
        ),
        pytest.param(
            '[[alerts]]\nname = "a"\nmetric = "lag"\nabove = "1s"\nnode = "a"',
            id="a setting that the metric does not have",
        ),
        pytest.param(
            '[[alerts]]\nname = "a"\nmetric = "runs"\nabove = 1\nnotify = ["ops"]',
            id="a name that is defined nowhere",
        ),
        pytest.param(
            '[[workflows]]\nid = "a"\n[[workflows]]\nid = "a"\nname = "b"',
            id="a name that two tables share",
        ),
    ],
)
def test_only_the_program_refuses(text: str, tmp_path: Path) -> None:
    """These mistakes pass the schema, because a pattern cannot say them simply, or at all."""
    assert _problems(text) == []
    assert not _program_accepts(tmp_path / "etl.toml", text)


_TEXTS = (
    *(
        "1h30m",
        ".5 s",
        "0ms",
        "name",
        "a b",
        "X-Key",
        "lake_2",
        "USD",
        "2026-01-31",
        "1_0.5e-3",
        "-0",
    ),
    *("https://[::1]:8443/a@b/", "http://host", "postgresql://u@h/n", "Embedded", "s3://b/lake"),
    *("~/the lake", "*/5 9-17 * jan,feb mon", "@daily", "team=a=b", "$.inputs[*]", "$['a']"),
)
_CHARACTERS = (
    st.sampled_from(" \t\n\0.:/=@*,-_0123456789eEsmhdaA[]'\"\u00a0ä\x7f") | st.characters()
)


@st.composite
def _nearly(draw: st.DrawFn) -> str:
    """Draw a text that some setting accepts, with up to two characters too many or replaced."""
    text = draw(st.sampled_from(_TEXTS))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(_CHARACTERS) + text[at + draw(st.integers(0, 2)) :]
    return text


_REQUIRED: dict[str, dict[str, Any]] = {
    "WorkflowSettings": {"id": "a"},
    "PriceSettings": {"model": "a", "input": 1, "output": 1},
    "AlertSettings": {"name": "a", "metric": "runs"},
    "RedactionRuleSettings": {"path": "$.a", "action": "drop"},
}


@functools.cache
def _rules() -> list[tuple[type[BaseModel], str, set[str], Any]]:
    """Return each setting: its section and name, and its types and validator in the schema."""
    import jsonschema

    sections: list[type[BaseModel]] = [*names.SECTIONS.values(), NotifySettings]
    found = []
    for section in sections:
        for key, rule in (
            SCHEMA["$defs"].get(section.__name__, {"properties": {}})["properties"].items()
        ):
            kinds = [one["type"] for one in rule.get("anyOf", [rule])]
            kinds = kinds[0] if isinstance(kinds[0], list) else kinds
            found.append((section, key, set(kinds), jsonschema.Draft7Validator(rule)))
    return found


@settings(max_examples=examples(400))
@given(_nearly() | st.integers(-2, 70_000) | st.integers() | st.floats())
def test_the_program_refuses_what_the_schema_refuses(value: str | float) -> None:
    """No value of a setting's type is a mistake only in an editor; words are in lower case."""
    kinds = {"string"} if isinstance(value, str) else {"number"}
    kinds |= {"integer"} if isinstance(value, int) else set()
    for section, key, types, validator in _rules():
        one = value.lower() if isinstance(value, str) and "enum" in validator.schema else value
        if types & kinds and not validator.is_valid(one):
            others = dict(_REQUIRED.get(section.__name__, {}))
            if section is AlertSettings and key not in CONDITIONS:
                others["above"] = 1
            with pytest.raises(ValidationError):
                section.model_validate({**others, key: one})


@given(
    st.text(alphabet=" .0159٣dhmsDHMS\t", max_size=12) | st.from_regex(r"(\d+ ?(ms|s|M|h|d) ?)+")
)
def test_every_duration_of_the_program_fits_the_schema(text: str) -> None:
    """The schema accepts every duration that the program accepts."""
    try:
        found = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        return
    polling = SCHEMA["$defs"]["PollingSettings"]["properties"]
    assert re.search(polling["settle_after"]["pattern"], text)
    if found:
        assert re.search(polling["lease"]["pattern"], text)
