"""The dbt package installs as documented, is documented itself, and notices what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from etl.usage import KINDS
from tests.conftest import ROOT
from tests.dbt.conftest import PAGE, Project, World, blocks, named_files

MARTS = ("fct_runs", "fct_steps", "fct_model_calls", "dim_workflow_versions", "agg_workflow_daily")


@contextmanager
def changed(world: World, sql: str, back: str) -> Iterator[None]:
    """Change the database, and change it back."""
    world.query(sql)
    try:
        yield
    finally:
        world.query(back)


def test_the_documented_project_was_built(world: World) -> None:
    """Every model of the documentation's table is in the login's own schema, and has rows."""
    [table] = re.findall(r"\| model \|.*?\n\n", PAGE, re.DOTALL)
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert named == {*MARTS, "fct_model_call_texts"}
    for name in MARTS:
        [row] = world.query(f"SELECT count(*) AS n FROM marts.{name}")
        assert row["n"] > 0, name
    built = world.query("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'marts'")
    assert built == [{"tableowner": "dbt"}]


def test_the_package_installs_from_a_path(world: World, tmp_path: Path) -> None:
    """The other form of packages.yml, with a checkout's path, installs the same package."""
    project = Project(tmp_path)
    [_, by_path] = named_files()["packages.yml"]
    [package] = by_path["packages"]
    assert package["local"].endswith("/dbt")
    package["local"] = str(ROOT / "dbt")
    project.write(
        {
            "dbt_project.yml": named_files()["dbt_project.yml"][0],
            "packages.yml": by_path,
            "profiles.yml": yaml.safe_load((world.project.folder / "profiles.yml").read_text()),
        }
    )
    project("deps")
    assert (tmp_path / "dbt_packages" / "orchestra" / "dbt_project.yml").exists()


def test_every_documented_command_is_run_here() -> None:
    """The page's dbt commands are those that these tests run."""
    commands = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    assert [words[1:] for words in commands if words[0] == "dbt"] == [
        ["deps"], ["build"], ["source", "freshness"], ["docs", "generate"],
    ]  # fmt: skip


def test_the_kinds_of_usage_are_the_programs() -> None:
    """The package's list of the kinds of usage is that of the type in the database."""
    text = (ROOT / "dbt" / "macros" / "usage.sql").read_text()
    [listed] = re.findall(r"return\(\[(.*?)\]\)", text, re.DOTALL)
    assert re.findall(r"'(\w+)'", listed) == [kind.name for kind in KINDS]


def test_every_column_is_documented(world: World) -> None:
    """`dbt docs generate` finds a description for each mart, source and column in the database."""
    world.project("docs", "generate")
    catalog, manifest = (world.project.artifact(f"{name}.json") for name in ("catalog", "manifest"))
    described = {
        id: node["columns"]
        for nodes in ("nodes", "sources")
        for id, node in manifest[nodes].items()
        if node.get("description")
    }
    checked = 0
    for nodes in ("nodes", "sources"):
        for id, found in catalog[nodes].items():
            name = id.rpartition(".")[2]
            if nodes == "sources" or name in MARTS:
                texts = {column: d["description"] for column, d in described[id].items()}
                assert set(found["columns"]) == set(texts), id
                assert all(texts.values()), id
                checked += len(texts)
            elif id in manifest["nodes"]:
                assert id in described
    assert checked > 500


def test_freshness_follows_the_pipelines_clock(world: World) -> None:
    """An idle pipeline is fresh although its newest row is a day old; a stopped one is stale."""
    [newest] = world.query("SELECT now() - max(updated_at) AS age FROM orchestra.runs")
    assert newest["age"].total_seconds() > 86_000
    assert world.project("source", "freshness").count("PASS freshness of orchestra") == 2
    move = "UPDATE orchestra_etl.sweeps SET swept_at = swept_at {} interval '2 days'"
    with changed(world, move.format("-"), move.format("+")):
        printed = world.project("source", "freshness", status=1)
    assert printed.count("ERROR STALE freshness of orchestra") == 2


def test_a_broken_row_fails_the_tests(world: World) -> None:
    """`dbt test` fails for an unknown state, a step without a run, and a figure that differs."""
    [run] = world.query(
        "SELECT run_id AS id FROM marts.int_orchestra__runs"
        " WHERE state = 'succeeded' AND day < now() - interval '3 days' ORDER BY run_id LIMIT 1"
    )
    table = "marts.int_orchestra__runs"
    world.query(f"CREATE TABLE public.kept AS SELECT * FROM {table}")
    world.query(f"UPDATE {table} SET state = 'odd', duration_ms = 0 WHERE run_id = %s", run["id"])
    world.query(
        f"DELETE FROM {table} WHERE run_id = (SELECT max(run_id) FROM {table} WHERE day < now() -"
        " interval '3 days')"
    )
    try:
        printed = world.project("test", status=1)
    finally:
        world.query(f"DELETE FROM {table}")
        world.query(f"INSERT INTO {table} SELECT * FROM public.kept")
        world.query("DROP TABLE public.kept")
    failed = set(re.findall(r"FAIL \d+ (\w+)", printed))
    assert {
        "orchestra_runs_equal_run_summary",
        "orchestra_calls_equal_model_usage",
    } < failed
    assert any(name.startswith("accepted_values_fct_runs_state") for name in failed)


def test_only_payload_analysts_build_the_texts(world: World) -> None:
    """With the documented settings, a payload analyst builds the texts; an analyst is refused.

    The other documented settings take effect, too: a mart as a table, and other limits of age.
    """
    project = named_files()["dbt_project.yml"]
    merged = {key: value for part in project for key, value in part.items()}
    assert {"models", "sources", "vars"} <= merged.keys()
    world.project.write({"dbt_project.yml": merged})
    select = ("--select", "fct_model_call_texts", "fct_runs")
    try:
        assert "permission denied for view model_calls" in world.project("build", *select, status=1)
        with changed(
            world,
            "GRANT orchestra_payload_analyst TO dbt",
            "REVOKE orchestra_payload_analyst FROM dbt",
        ):
            world.project("build", *select)
            world.query("SET ROLE dbt; SELECT count(prompt) FROM marts.fct_model_call_texts")
        manifest = world.project.artifact("manifest.json")
    finally:
        world.project.write({"dbt_project.yml": project[0]})
        world.query("DROP VIEW marts.fct_model_call_texts")
        world.query("DROP TABLE marts.fct_runs")
    assert manifest["nodes"]["model.orchestra.fct_runs"]["config"]["materialized"] == "table"
    limits = manifest["sources"]["source.orchestra.orchestra.runs"]["freshness"]
    assert limits["warn_after"] == {"count": 10, "period": "minute"}


@pytest.mark.parametrize("table", ["inputs", "outputs"])
def test_a_plain_analyst_reads_no_content(world: World, table: str) -> None:
    """The login that built everything else may not read payloads."""
    [row] = world.query(
        "SELECT has_column_privilege('dbt', %s, 'data', 'SELECT') AS may", f"orchestra.{table}"
    )
    assert row["may"] is False
