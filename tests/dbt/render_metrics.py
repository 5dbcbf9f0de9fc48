"""Print MetricFlow's SQL for metrics: `render_metrics.py METRICS GROUP_BY ...`.

It runs in dbt's environment, reads `semantic_manifest.json` of the working directory, and prints a
JSON list with a statement for each pair of arguments. Nothing is sent to a database.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from metricflow.engine.metricflow_engine import MetricFlowEngine, MetricFlowQueryRequest
from metricflow.protocols.sql_client import SqlEngine
from metricflow.sql.render.postgres import PostgresSQLSqlPlanRenderer
from metricflow_semantic_interfaces.implementations.semantic_manifest import (
    PydanticSemanticManifest,
)
from metricflow_semantic_interfaces.transformations.pydantic_rule_set import (
    PydanticSemanticManifestTransformRuleSet,
)
from metricflow_semantic_interfaces.transformations.semantic_manifest_transformer import (
    PydanticSemanticManifestTransformer,
)
from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup

manifest = PydanticSemanticManifestTransformer.transform(
    PydanticSemanticManifest.parse_raw(Path("semantic_manifest.json").read_text()),
    ordered_rule_sequences=PydanticSemanticManifestTransformRuleSet().all_rules,
)
client = SimpleNamespace(
    sql_engine_type=SqlEngine.POSTGRES, sql_plan_renderer=PostgresSQLSqlPlanRenderer()
)
engine = MetricFlowEngine(SemanticManifestLookup(manifest), cast(Any, client))
arguments = [text.split(",") for text in sys.argv[1:]]
requests = [
    MetricFlowQueryRequest.create(metric_names=metrics, group_by_names=group_by)
    for metrics, group_by in zip(arguments[::2], arguments[1::2], strict=True)
]
print(json.dumps([engine.explain(one).sql_statement.sql for one in requests]))
