"""The generated files agree with the code."""

from __future__ import annotations

import re

from docs import content_shapes, reference
from tests.conftest import ROOT
from tests.support import query


def test_the_tables_of_the_lake() -> None:
    """The reference describes every table and column of the lake."""
    assert (ROOT / "docs" / "reference" / "lake.md").read_text() == reference.lake(), (
        "run `make docs`"
    )


def test_the_configuration_is_documented_as_it_is() -> None:
    """The reference describes every setting with its variable, default and description."""
    assert (
        ROOT / "docs" / "reference" / "configuration.md"
    ).read_text() == reference.configuration(), "run `make docs`"


def test_the_commands_are_documented_as_they_are() -> None:
    """The reference shows every command with its help and its options."""
    assert (ROOT / "docs" / "reference" / "commands.md").read_text() == reference.commands(), (
        "run `make docs`"
    )


def test_the_reference_of_commands_is_plain_markdown() -> None:
    """The page has no control characters or cut sentences, and examples only in code blocks."""
    text = reference.commands()
    assert text.replace("\n", "").isprintable()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = prose.splitlines()
    assert [line for line in lines if line.startswith("  ") or line.endswith("...")] == []


def test_the_schema_for_editors_is_that_of_the_settings() -> None:
    """The JSON Schema of the configuration file agrees with the settings' models."""
    assert reference.SETTINGS_SCHEMA.read_text() == reference.settings_schema(), "run `make docs`"


def test_the_schema_is_documented_as_it_is(database_url: str) -> None:
    """The reference describes every table, column, view and function of an upgraded database."""
    assert (ROOT / "docs" / "reference" / "schema.md").read_text() == reference.schema(
        database_url
    ), "run `make docs`"


def test_the_dbt_package_repeats_the_database_and_the_dashboards(database_url: str) -> None:
    """The package's descriptions are the database's comments; its exposures are the dashboards."""
    for path, text in reference.dbt_files(database_url).items():
        assert path.read_text() == text, "run `make docs`"


def test_the_whole_schema_is_in_one_file(database_url: str) -> None:
    """`schema.sql` is the dump of an upgraded database, and restores the same schema."""
    assert reference.SCHEMA_SQL.read_text() == reference.schema_sql(database_url), "run `make docs`"
    query(database_url, "DROP SCHEMA orchestra, orchestra_etl CASCADE")
    query(database_url, reference.SCHEMA_SQL.read_text())
    assert reference.schema_sql(database_url) == reference.SCHEMA_SQL.read_text()


def test_the_shapes_of_model_calls_are_the_loads() -> None:
    """The SQL functions and the page list the places that the load knows."""
    assert reference.SHAPES_SQL.read_text() == content_shapes.sql(), "run `make docs`"
    page = ROOT / "docs" / "reference" / "model-calls.md"
    assert page.read_text() == content_shapes.page(), "run `make docs`"
