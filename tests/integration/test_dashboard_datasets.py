"""The datasets of the dashboards: they know what the views have."""

from __future__ import annotations

import pytest
import yaml

from tests.conftest import ROOT
from tests.support import query

DATASETS = ROOT / "config" / "superset" / "assets" / "datasets" / "orchestra"


@pytest.mark.parametrize(
    "view", ["model_usage", "run_summary", "step_timeline", "cost_differences"]
)
def test_a_dataset_has_the_columns_of_its_view(view: str, database_url: str) -> None:
    """A dataset of usage has every column of its view that a dashboard can show, and no other but what it computes itself."""
    dataset = yaml.safe_load((DATASETS / f"{view}.yaml").read_text())
    sql = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'orchestra'"
        f" AND table_name = '{view}' AND data_type <> 'jsonb'"
    )
    columns = {row["column_name"] for row in query(database_url, sql)}
    assert {one["column_name"] for one in dataset["columns"] if "expression" not in one} == columns
    assert all(one["verbose_name"] for one in dataset["columns"])
