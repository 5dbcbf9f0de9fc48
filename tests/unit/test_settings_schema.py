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
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from docs import reference
from etl.errors import ConfigurationError
from etl.settings import load, sources
from etl.settings.values import Duration
from tests.conftest import ROOT

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
    models = {model.__name__: section for section, model in sources._SECTIONS.items()}
    models["NotifySettings"] = "notify.NAME"
    for model, part in SCHEMA["$defs"].items():
        yield from (f"{models[model]}.{key}" for key in part["properties"])


def test_the_schema_has_every_setting() -> None:
    """The schema is valid, and knows each setting with its description, and no secret."""
    _validator().check_schema(SCHEMA)
    assert {*_names()} == {*sources._KNOWN, "notify.NAME.url_file"} - SECRETS
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
        '[export]\nlocation = "https://bucket/lake"',
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


@given(
    st.text(alphabet=" .0159٣dhmsDHMS\t", max_size=12) | st.from_regex(r"(\d+ ?(ms|s|M|h|d) ?)+")
)
def test_every_duration_of_the_program_fits_the_schema(text: str) -> None:
    """The schema accepts every duration that the program accepts."""
    try:
        found = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        return
    settings = SCHEMA["$defs"]["PollingSettings"]["properties"]
    assert re.search(settings["settle_after"]["pattern"], text)
    if found:
        assert re.search(settings["lease"]["pattern"], text)
