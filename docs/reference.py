"""Write the files that are generated from the code: references, and schemas.

`make docs` runs this; tests compare the files with its output.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import psycopg
import typer
from psycopg.rows import dict_row
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typer.cli import get_docs_for_click

from docs import content_shapes, dbt_package
from etl.cli.commands import app
from etl.embedded.binaries import psql_path
from etl.embedded.postgres import EmbeddedPostgres
from etl.export.lake_tables import WHOLE_TABLES, day_tables
from etl.records import State
from etl.schema import upgrade
from etl.settings.alerts import NotifySettings
from etl.settings.models import Settings
from etl.settings.names import LISTS, SECTIONS
from etl.settings.sources import _NAMED, PREFIX
from etl.settings.values import Duration, _duration_text
from etl.tables import ANALYTICS, PRIVATE
from etl.usage import CONTEXT_TIERS

REFERENCE = Path(__file__).parent / "reference"
SETTINGS_SCHEMA = REFERENCE.parents[1] / "etl" / "settings" / "etl.schema.json"
SCHEMA_SQL = REFERENCE.parents[1] / "migrations" / "schema.sql"
SHAPES_SQL = SCHEMA_SQL.with_name("sql") / "content_shapes_v2.sql"
_DURATION = next(one for one in get_args(Duration) if hasattr(one, "func"))
_HEAD = "<!-- Written by `make docs` from {source}. -->\n\n"

_CONFIGURATION = """\
# Configuration

Settings come from one file and from the environment. The environment wins.

The program uses the first of these files that exists:

1. the file named by `--config` or `ORCHESTRA_ETL_CONFIG`;
2. `config/etl.toml` in the working directory;
3. `etl.toml` in the user's configuration folder (on Linux `~/.config/orchestra-etl`).

Without a file it uses the defaults. `orchestra-etl config init` writes
`config/etl.toml` from [this template](../../etl/settings/etl.toml), which explains every setting;
`config init --user` writes the user's own file. Neither overwrites a file. Files are UTF-8, or
UTF-16 with a byte order mark.

- Durations have a unit: `500ms`, `90s`, `1h30m`, `7d`.
- File names in the file are relative to it.
- A misspelt name is an error that suggests the nearest name.
- A setting that two variables set, or a duplicate key in a JSON object, is an error.

`orchestra-etl config check` tries the settings, the API and the database. `orchestra-etl config
show` prints the settings in force, with secrets masked, and names the file.

`ORCHESTRA_ETL_HOME` names the data folder of the embedded database.

The first line of the file names a JSON Schema. Editors with Taplo, such as Visual Studio Code with
Even Better TOML, complete names and mark mistakes with it. `config init` writes the schema beside
the file as `etl.schema.json`. After an upgrade, write it again with `orchestra-etl config schema`.
The schema expects numbers, `true` and `false` without quotes, and words in lower case; the program
also accepts other spellings.
"""
_SCHEMA = """\
# Schema

The schema `orchestra` is for analysts. `orchestra_etl` belongs to the service and can change with
any release; tables and views of `orchestra` keep their meaning. All times are UTC.

Columns with a † contain content. Only `orchestra_payload_analyst` can read them;
`orchestra_analyst` can read everything else in `orchestra`. See
[Security](../explanation/security.md).
"""
_LAKE = """\
# Lake

The tables that [`export`](../how-to/export-to-a-lake.md) writes, with Iceberg's types. Every column
can be null. JSON is text, and times are UTC.
"""


def configuration() -> str:
    """Return the reference of the settings."""
    parts = [
        _HEAD.format(source="etl/settings"),
        _CONFIGURATION,
    ]
    for name, model in SECTIONS.items():
        parts.append(
            f"\n## {_title(name)}\n\n{_sentences(inspect.getdoc(model))}\n\n"
            f"{''.join(_fields(name, model))}"
        )
    parts.append(
        f"\n## `[notify.NAME]`\n\n{_sentences(inspect.getdoc(NotifySettings))}\n\n"
        f"`url_file`: {_docstrings(NotifySettings)['url_file']}\n\n"
        "`ORCHESTRA_ETL_NOTIFY` takes all channels as JSON, by name.\n"
    )
    parts.append(
        f"\n## `[states]`\n\n{_docstrings(Settings)['states']}"
        " `ORCHESTRA_ETL_STATES` takes the same as JSON.\n"
    )
    return "".join(parts)


def _title(section: str) -> str:
    return f"`[[{section}]]`" if section in LISTS or "." in section else f"`[{section}]`"


def _sentences(text: str | None) -> str:
    return " ".join((text or "").split())


def _fields(section: str, model: type[BaseModel]) -> Iterator[str]:
    texts = _docstrings(model)
    listed = section in LISTS or "." in section
    if listed:
        variable = PREFIX + section.upper().replace(".", "__")
        yield f"One table per entry. `{variable}` takes all of them, as a JSON list.\n\n"
        yield "| name | default | what it is |\n|---|---|---|\n"
    else:
        yield "| name | in the environment | default | what it is |\n|---|---|---|---|\n"
    named = {setting: variable for variable, setting in _NAMED.items()}
    for key, field in model.model_fields.items():
        name = field.alias or key
        text = texts[name].replace("|", "\\|")
        default = _default(field)
        if listed:
            yield f"| `{name}` | {default} | {text} |\n"
        else:
            variable = named.get((section, name), f"{PREFIX}{section.upper()}__{name.upper()}")
            yield f"| `{name}` | `{variable}` | {default} | {text} |\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    is_duration = any(getattr(one, "func", None) is _DURATION.func for one in field.metadata)
    return f"`{_duration_text(value) if is_duration else value}`"


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the string below each field in the source, by the name in the file.

    A field without one is missing.
    """
    [body] = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
        ):
            assert isinstance(below.value, ast.Constant)
            known = model.model_fields.get(field.target.id)
            name = (known and known.alias) or field.target.id
            found[name] = _sentences(str(below.value.value))
    return found


_ENVIRONMENT_ONLY = (("api", "api_key"), ("redaction", "key"))


class _TomlSchema(GenerateJsonSchema):
    """JSON Schema for TOML, which has no null; a setting that is left out has its default."""

    schema_dialect = "http://json-schema.org/draft-07/schema#"
    """The newest version that the TOML plug-ins of editors support."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        default = found.pop("default", None)
        if default is None or "$ref" in found:
            return found
        is_duration = found["type"] == "string" and isinstance(default, float)
        return {**found, "default": _duration_text(default) if is_duration else default}


def settings_schema() -> str:
    """Return the JSON Schema of the configuration file, for editors.

    It accepts every valid file whose values are written as in the reference. Only the program
    checks what a pattern cannot say, such as a JSONPath, and rules between values that a variable
    can also set. `tests/unit/test_settings_schema.py` lists them.
    """
    found = Settings.model_json_schema(schema_generator=_TomlSchema)
    sections: tuple[type[BaseModel], ...] = (Settings, NotifySettings, *SECTIONS.values())
    models = {model.__name__: model for model in sections}
    for name, part in ((Settings.__name__, found), *found["$defs"].items()):
        texts = _docstrings(models[name])
        del part["title"]
        part["description"] = _sentences(part["description"])
        for key, value in part["properties"].items():
            if key in texts:
                value["description"] = texts[key]
    for section, key in _ENVIRONMENT_ONLY:
        del found["$defs"][SECTIONS[section].__name__]["properties"][key]
    # From modules that the settings import only when they check a value.
    found["properties"]["states"]["additionalProperties"]["enum"] = list(get_args(State))
    tiers = found["$defs"]["PriceSettings"]["properties"]["above_input_tokens"]
    tiers["enum"] = [0, *CONTEXT_TIERS]
    found["title"] = "Configuration of orchestra-etl"
    ordered = {"$schema": _TomlSchema.schema_dialect, **found}
    return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"


_RELATIONS = """
    SELECT n.nspname AS schema, c.relname AS name, c.oid, c.relkind = 'v' AS is_view,
           obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('orchestra', 'orchestra_etl') AND c.relkind IN ('r', 'v')
    ORDER BY n.nspname, c.relkind, c.relname
"""
_COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AS required, col_description(a.attrelid, a.attnum) AS comment
    FROM pg_attribute AS a
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
_FUNCTIONS = """
    SELECT format('orchestra.%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid))
               COLLATE "C" AS name,
           obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc AS p
    WHERE p.pronamespace = 'orchestra'::regnamespace AND p.prorettype <> 'trigger'::regtype
    ORDER BY 1
"""


def schema(url: str) -> str:
    """Return the reference of a migrated database."""
    parts = [
        _HEAD.format(source="the comments in the database"),
        _SCHEMA,
    ]
    payloads = {table.fullname: set(columns) for table, columns in PRIVATE.items()}
    # With this search path, type names include their schema, whatever the user's own path is.
    with psycopg.connect(
        url, row_factory=dict_row, options="-c search_path=pg_catalog"
    ) as connection:
        for one in connection.execute(_RELATIONS).fetchall():
            content = payloads.get(f"{one['schema']}.{one['name']}", set())
            rows = connection.execute(_COLUMNS, [one["oid"]]).fetchall()
            parts.append(
                f"\n## {'View' if one['is_view'] else 'Table'} `{one['schema']}.{one['name']}`\n\n"
                f"{_cell(one['comment'])}\n\n"
            )
            parts += _table(rows, content, null=not one["is_view"])
        parts.append("\n## Functions\n\n| function | what it does |\n|---|---|\n")
        parts += [
            f"| `{one['name']}` | {_cell(one['comment'])} |\n"
            for one in connection.execute(_FUNCTIONS).fetchall()
        ]
    return "".join(parts)


def dbt_files(url: str) -> dict[Path, str]:
    """Return the generated files of the dbt package, from a migrated database."""
    with psycopg.connect(
        url, row_factory=dict_row, options="-c search_path=pg_catalog"
    ) as connection:
        relations = [
            {
                "name": one["name"],
                "comment": _sentences(one["comment"]),
                "columns": [
                    {**row, "comment": _sentences(row["comment"])}
                    for row in connection.execute(_COLUMNS, [one["oid"]]).fetchall()
                ],
            }
            for one in connection.execute(_RELATIONS).fetchall()
            if one["schema"] == ANALYTICS
        ]
    private = {table.name: columns for table, columns in PRIVATE.items()}
    return {
        dbt_package.SOURCES: dbt_package.sources(relations, private),
        dbt_package.DESCRIPTIONS: dbt_package.descriptions(relations),
        dbt_package.EXPOSURES: dbt_package.exposures(relations),
    }


_SCHEMA_SQL = """\
-- The whole schema after the newest revision, written by `make docs` with pg_dump. For reading
-- only: `orchestra-etl db upgrade` creates the schema with the revisions in `versions`.

SET check_function_bodies = false; -- Some functions come before functions that they call.

"""
# Removes what pg_dump writes around each object and around the whole dump.
_CLEANINGS = (
    (r"\A.*?(?=CREATE SCHEMA)", ""),
    (r"\n*--\n-- Name: [^\n]*; Type: COMMENT;[^\n]*\n--\n+", "\n"),
    (r"--\n-- (?:Name: |PostgreSQL database dump complete)[^\n]*\n--\n+", ""),
    (r"^(?:SET default_|\\unrestrict )[^\n]*\n", ""),
    (r"\n{3,}", "\n\n"),
)


def schema_sql(url: str) -> str:
    """Return the statements that create a migrated database's schema, without its grants."""
    what = ("--schema-only", "--no-owner", "--no-privileges")
    where = ("--schema=orchestra", "--schema=orchestra_etl", f"--dbname={url}")
    command = [str(psql_path().with_name("pg_dump")), *what, *where]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    for pattern, replacement in _CLEANINGS:
        dumped = re.sub(pattern, replacement, dumped, flags=re.DOTALL | re.MULTILINE)
    return _SCHEMA_SQL + dumped.rstrip() + "\n"


def _table(rows: Sequence[Any], content: set[str], *, null: bool) -> Iterator[str]:
    if rows:
        yield "| column | type | what it is |\n|---|---|---|\n"
    for row in rows:
        kind = f"{row['type']}, null" if null and not row["required"] else row["type"]
        mark = " †" if row["name"] in content else ""
        yield f"| `{row['name']}`{mark} | {kind} | {_cell(row['comment'])} |\n"


def _cell(text: str | None) -> str:
    return _sentences(text).replace("|", "\\|")


def lake() -> str:
    """Return the reference of the lake's tables."""
    parts = [_HEAD.format(source="etl/export/lake_tables.py"), _LAKE]
    for table in (*day_tables(payloads=True), *WHOLE_TABLES):
        kept = "A partition for each `run_day`." if table.is_by_day else "Without partitions."
        content = " Only with `payloads = true`." if table.has_content else ""
        rows = [msgspec.structs.asdict(one) for one in table.columns]
        parts.append(f"\n## `{table.name}`\n\n{_sentences(table.comment)} {kept}{content}\n\n")
        parts += _table(rows, set(), null=False)
    return "".join(parts)


def commands() -> str:
    """Return the reference of the command line: typer's, with whole texts in its lists.

    Lines that the terminal does not wrap, such as examples, become blocks of code.
    """
    command: Any = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="orchestra-etl", title="Commands"
    )
    # The mark of paragraphs that are not wrapped.
    text = text.replace("\b", "")
    text = re.sub(r"\n+([^\n]+:)\n((?:  .+(?:\n|$))+)", _code_block, text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    lines, group = [], command
    for line in text.splitlines():
        if heading := re.fullmatch(r"#+ `orchestra-etl (.+)`", line):
            group = command
            for name in heading[1].split():
                group = group.commands[name]
        listed = re.match(r"\* `([a-z][a-z-]*)`: ", line)
        lines.append(
            listed[0] + group.commands[listed[1]].help.partition("\n")[0] if listed else line
        )
    return _HEAD.format(source="the commands' help") + "\n".join(lines).rstrip() + "\n"


def _code_block(found: re.Match[str]) -> str:
    label, block = found[1], textwrap.dedent(found[2]).rstrip()
    if label != "Examples:":
        return f"\n\n{label}\n\n```\n{block}\n```\n"
    examples = "\n".join(f"$ {line}" for line in block.splitlines())
    return f"\n\n{label}\n\n```console\n{examples}\n```\n"


def main() -> int:
    """Write every page."""
    (REFERENCE / "commands.md").write_text(commands())
    (REFERENCE / "configuration.md").write_text(configuration())
    (REFERENCE / "lake.md").write_text(lake())
    SETTINGS_SCHEMA.write_text(settings_schema())
    SHAPES_SQL.write_text(content_shapes.sql())
    (REFERENCE / "model-calls.md").write_text(content_shapes.page())
    home = Path(tempfile.mkdtemp(prefix="orchestra-etl-docs-"))
    home.chmod(0o711)
    try:
        with EmbeddedPostgres(home) as server:
            upgrade(server.url)
            (REFERENCE / "schema.md").write_text(schema(server.url))
            SCHEMA_SQL.write_text(schema_sql(server.url))
            for path, text in dbt_files(server.url).items():
                path.write_text(text)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(
        "docs/reference/*.md, etl.schema.json, migrations/**/*.sql and the generated files of"
        " dbt/models are written"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
