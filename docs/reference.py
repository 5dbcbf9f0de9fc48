"""Write what follows from the code: the reference of the settings and that of the schema.

`make docs` runs it; tests compare the files with what it would write.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from etl.embedded.binaries import psql_path
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from etl.settings.models import Settings
from etl.settings.sources import _LISTS, _NAMED, _SECTIONS, PREFIX
from etl.settings.values import Duration, _duration_text
from etl.tables import PRIVATE

HERE = Path(__file__).parent
SCHEMA_SQL = HERE.parent / "migrations" / "schema.sql"
_DURATION = next(one for one in get_args(Duration) if hasattr(one, "func"))
_HEAD = "<!-- Written by `make docs` from {source}. -->\n\n"

_CONFIGURATION = """\
# Configuration

Settings come from one file, and from the environment, which wins. The file is the one that `--config` or `ORCHESTRA_ETL_CONFIG`
names, else `config/etl.toml` in the working folder, else `etl.toml` in the user's configuration folder (on Linux
`~/.config/orchestra-etl`). Without a file the defaults hold. `orchestra-etl config init` writes one that explains every setting,
`config init --user` writes the user's own; neither overwrites a file, and both say which file is used from now on where there
are two. The file is UTF-8, or UTF-16 with a byte order mark.

A setting that two variables set, or a key that stands twice in an object of JSON, is an error that names the variables.

Durations have a unit (`500ms`, `90s`, `1h30m`, `7d`); file names in the file are relative to it. A misspelt name is an error
that says which one is nearest. `orchestra-etl config check` tries the settings, the API and the database; `orchestra-etl config
show` prints what is in force, secrets masked, and names the file. [`config/etl.toml`](../config/etl.toml) is what `config init`
writes: every setting with its default.

`ORCHESTRA_ETL_HOME` names the data folder, where the embedded database lives.
"""
_SCHEMA = """\
# Schema

Schema `orchestra` is for analysts, `orchestra_etl` is the service's own. Times are UTC. Columns with a † hold content: only
`orchestra_payload_analyst` reads them, everything else in `orchestra` is open to `orchestra_analyst`
([security.md](security.md)). A stored table keeps its meaning from release to release; what is in `orchestra_etl` may change.
"""


def configuration() -> str:
    """The reference of the settings."""
    parts = [
        _HEAD.format(source="etl/settings"),
        _CONFIGURATION,
    ]
    for name, model in _SECTIONS.items():
        parts.append(
            f"\n## {_title(name)}\n\n{_sentences(inspect.getdoc(model))}\n\n{''.join(_fields(name, model))}"
        )
    parts.append(
        f"\n## `[states]`\n\n{_docstrings(Settings)['states']} `ORCHESTRA_ETL_STATES` takes the same as JSON.\n"
    )
    return "".join(parts)


def _title(section: str) -> str:
    return f"`[[{section}]]`" if section in _LISTS or "." in section else f"`[{section}]`"


def _sentences(text: str | None) -> str:
    return " ".join((text or "").split())


def _fields(section: str, model: type[BaseModel]) -> Iterator[str]:
    told = _docstrings(model)
    listed = section in _LISTS or "." in section
    if listed:
        variable = PREFIX + section.upper().replace(".", "__")
        yield f"A table each; in the environment all of them, as a JSON list, in `{variable}`.\n\n"
        yield "| name | default | what it is |\n|---|---|---|\n"
    else:
        yield "| name | in the environment | default | what it is |\n|---|---|---|---|\n"
    named = {setting: variable for variable, setting in _NAMED.items()}
    for name, field in model.model_fields.items():
        text = told[name].replace("|", "\\|")
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
    """What stands below each field in the source. Raises KeyError, by its user, where nothing does."""
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
            found[field.target.id] = _sentences(str(below.value.value))
    return found


_RELATIONS = """
    SELECT n.nspname AS schema, c.relname AS name, c.oid, c.relkind = 'v' AS is_view,
           obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('orchestra', 'orchestra_etl') AND c.relkind IN ('r', 'v')
    ORDER BY n.nspname, c.relkind, c.relname
"""
_COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
           col_description(a.attrelid, a.attnum) AS comment
    FROM pg_attribute AS a
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
_FUNCTIONS = """
    SELECT format('orchestra.%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) COLLATE "C" AS name,
           obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc AS p
    WHERE p.pronamespace = 'orchestra'::regnamespace AND p.prorettype <> 'trigger'::regtype
    ORDER BY 1
"""


def schema(url: str) -> str:
    """The reference of a migrated database."""
    parts = [
        _HEAD.format(source="the comments in the database"),
        _SCHEMA,
    ]
    payloads = {table.fullname: set(columns) for table, columns in PRIVATE.items()}
    # Types have their schema's name, whoever the user is.
    with psycopg.connect(
        url, row_factory=dict_row, options="-c search_path=pg_catalog"
    ) as connection:
        for one in connection.execute(_RELATIONS).fetchall():
            content = payloads.get(f"{one['schema']}.{one['name']}", set())
            rows = connection.execute(_COLUMNS, [one["oid"]]).fetchall()
            parts.append(
                f"\n## {'View' if one['is_view'] else 'Table'} `{one['schema']}.{one['name']}`\n\n{_cell(one['comment'])}\n\n"
            )
            parts += _table(rows, content, null=not one["is_view"])
        parts.append("\n## Functions\n\n| function | what it does |\n|---|---|\n")
        parts += [
            f"| `{one['name']}` | {_cell(one['comment'])} |\n"
            for one in connection.execute(_FUNCTIONS).fetchall()
        ]
    return "".join(parts)


_SCHEMA_SQL = """\
-- The whole schema as the newest revision leaves it, written by `make docs` with pg_dump.
-- For reading only: `orchestra-etl db upgrade` creates the schema by the revisions in `versions`.

SET check_function_bodies = false; -- Some functions stand before what they call.

"""
# What pg_dump writes around each object, and around all of them.
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
    yield "| column | type | what it is |\n|---|---|---|\n"
    for row in rows:
        kind = f"{row['type']}, null" if null and not row["required"] else row["type"]
        yield f"| `{row['name']}`{' †' if row['name'] in content else ''} | {kind} | {_cell(row['comment'])} |\n"


def _cell(text: str | None) -> str:
    return _sentences(text).replace("|", "\\|")


def main() -> int:
    """Write all of them."""
    (HERE / "configuration.md").write_text(configuration())
    home = Path(tempfile.mkdtemp(prefix="orchestra-etl-docs-"))
    home.chmod(0o711)
    try:
        with EmbeddedPostgres(home) as server:
            upgrade(server.url)
            (HERE / "schema.md").write_text(schema(server.url))
            SCHEMA_SQL.write_text(schema_sql(server.url))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("docs/configuration.md, docs/schema.md and migrations/schema.sql are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
