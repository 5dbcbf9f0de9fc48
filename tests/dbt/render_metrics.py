"""Print MetricFlow's SQL for metrics: `render_metrics.py METRICS GROUP_BY`, in dbt's environment.

It reads `semantic_manifest.json` of the working directory. Nothing is sent to a database.
"""

from __future__ import annotations

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
metrics, group_by = (text.split(",") for text in sys.argv[1:])
request = MetricFlowQueryRequest.create(metric_names=metrics, group_by_names=group_by)
print(engine.explain(request).sql_statement.sql)
