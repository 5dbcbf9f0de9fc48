"""Naming rules that readers rely on, checked over the package and the helpers of the tests."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "etl"
POSITIONAL = 4
# The arguments of these are a list: a table's columns, the parts of a date, the paths of shapes.
LISTS = frozenset({"Table", "datetime", "_queue", "rows"})


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    """Parse every module of the package, by its path."""
    return {
        str(path.relative_to(PACKAGE.parent)): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@pytest.fixture(scope="module")
def helpers() -> dict[str, ast.Module]:
    """Parse every module that tests import, by its path."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text())
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if not path.name.startswith(("test_", "conftest"))
    }


@pytest.mark.parametrize(("part", "least"), [("modules", 100), ("helpers", 50)])
def test_no_two_public_classes_share_a_name(
    part: str, least: int, request: pytest.FixtureRequest
) -> None:
    """The name of a public class leads to one module, in the package and in the helpers."""
    found = defaultdict(list)
    for path, module in request.getfixturevalue(part).items():
        for node in module.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    assert len(found) > least
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_no_call_has_more_than_four_positional_arguments(modules: dict[str, ast.Module]) -> None:
    """Calls with more than four arguments name them, so that none is mistaken for another."""
    calls = [
        (path, call)
        for path, module in modules.items()
        for call in ast.walk(module)
        if isinstance(call, ast.Call)
    ]
    assert len(calls) > 1000
    assert list(_too_long(calls)) == []


def _too_long(calls: list[tuple[str, ast.Call]]) -> Iterator[str]:
    for path, call in calls:
        name = ast.unparse(call.func).rpartition(".")[2]
        plain = [one for one in call.args if not isinstance(one, ast.Starred)]
        if len(plain) > POSITIONAL and name not in LISTS:
            yield f"{path}:{call.lineno}: {name}"
