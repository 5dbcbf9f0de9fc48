"""The files of the dbt package that repeat the database's comments or the dashboards' files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).parents[1] / "dbt"
SOURCES = PACKAGE / "models" / "sources.yml"
DESCRIPTIONS = PACKAGE / "models" / "descriptions.md"
EXPOSURES = PACKAGE / "models" / "exposures.yml"
_ASSETS = PACKAGE.parent / "config" / "superset" / "assets"

_HEAD = "Written by `make docs` from the comments in the database."

# The age of the oldest complete sweep: it moves while no run changes, and stops with the pipeline.
_CLOCK = "SELECT swept_at FROM orchestra.pipeline_health"
_FRESHNESS = {
    "warn_after": {"count": 1, "period": "hour"},
    "error_after": {"count": 1, "period": "day"},
}
_TIMED = ("runs", "steps")
_CONTENT = " Content: only orchestra_payload_analyst can read it."

Relation = Mapping[str, Any]
"""A table or view: `name`, `comment` and `columns`, each with `name`, `type` and `comment`."""


def sources(relations: Sequence[Relation], private: Mapping[str, Sequence[str]]) -> str:
    """Return the sources: every table and view of the schema `orchestra`.

    Args:
        relations: the tables and views.
        private: columns with content, by table.
    """
    tables = []
    for one in relations:
        table: dict[str, Any] = {"name": one["name"], "description": one["comment"]}
        if one["name"] in _TIMED:
            table["config"] = {"loaded_at_query": _CLOCK, "freshness": _FRESHNESS}
        content = private.get(one["name"], ())
        table["columns"] = [
            {
                "name": column["name"],
                "data_type": column["type"],
                "description": column["comment"] + (_CONTENT if column["name"] in content else ""),
            }
            for column in one["columns"]
        ]
        tables.append(table)
    source = {
        "name": "orchestra",
        "schema": "orchestra",
        "description": "The run history of Orchestra workflows, as orchestra-etl stores it.",
        "tables": tables,
    }
    return _yaml(_HEAD, {"sources": [source]})


def descriptions(relations: Sequence[Relation]) -> str:
    """Return the comments of all columns as blocks that the models' descriptions name."""
    parts = [f"<!-- {_HEAD} -->\n"]
    parts += [
        f"\n{{% docs {one['name']}__{column['name']} %}}\n{column['comment']}\n{{% enddocs %}}\n"
        for one in relations
        for column in one["columns"]
    ]
    return "".join(parts)


def exposures(relations: Sequence[Relation]) -> str:
    """Return the exposures: each dashboard, with the tables and views that its charts read."""
    known = {one["name"] for one in relations}
    reads: dict[str, set[str]] = {}
    for path in (_ASSETS / "datasets").rglob("*.yaml"):
        dataset = yaml.safe_load(path.read_text())
        found = re.findall(r"\borchestra\.(\w+)", dataset.get("sql") or "")
        reads[dataset["uuid"]] = known & {*found, dataset["table_name"]}
    dashboards = []
    for path in sorted((_ASSETS / "dashboards").glob("*.yaml")):
        text = path.read_text()
        charts = [chart.read_text() for chart in (_ASSETS / "charts" / path.stem).glob("*.yaml")]
        used = [reads[uuid] for uuid in reads if any(uuid in one for one in (text, *charts))]
        dashboard = yaml.safe_load(text)
        dashboards.append(
            {
                "name": dashboard["slug"].replace("-", "_"),
                "label": dashboard["dashboard_title"],
                "type": "dashboard",
                "maturity": "high",
                "description": dashboard["description"],
                "owner": {"name": "orchestra-etl"},
                "depends_on": [
                    f"source('orchestra', '{name}')" for name in sorted(set().union(*used))
                ],
            }
        )
    return _yaml("Written by `make docs` from config/superset/assets.", {"exposures": dashboards})


def _yaml(head: str, content: Mapping[str, Any]) -> str:
    text = yaml.dump(
        {"version": 2, **content}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return f"# {head}\n{text}"


class _Dumper(yaml.SafeDumper):
    """Writes repeated values again instead of as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
