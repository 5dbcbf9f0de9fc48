"""Leave charts that a user may not open out of the dashboards.

Superset shows such a chart as an error. This is only for the eyes: the role decides who gets data.
"""

from __future__ import annotations

from typing import Any

from marshmallow import post_dump
from superset.daos.dashboard import DashboardDAO
from superset.dashboards import api
from superset.utils import json


def leave_out_closed_charts() -> None:
    """Make Superset's responses about a dashboard leave out charts that the user may not open."""
    find, datasets = DashboardDAO.get_by_id_or_slug, DashboardDAO.get_datasets_for_dashboard

    def get_charts(id_or_slug: str) -> list[Any]:
        return [one for one in find(id_or_slug).slices if _is_open(one)]

    def get_datasets(id_or_slug: str) -> list[dict[str, Any]]:
        used = {one.datasource_id for one in get_charts(id_or_slug)}
        return [one for one in datasets(id_or_slug) if one["id"] in used]

    DashboardDAO.get_charts_for_dashboard = staticmethod(get_charts)
    DashboardDAO.get_datasets_for_dashboard = staticmethod(get_datasets)
    # The first is for a request that names columns, as the browser's does.
    api.DashboardGetResponseSchema = _OpenCharts
    api.DashboardRestApi.dashboard_get_response_schema = _OpenCharts()


class _OpenCharts(api.DashboardGetResponseSchema):
    @post_dump(pass_original=True)
    def leave_out(self, response: dict[str, Any], dashboard: Any, **_: Any) -> dict[str, Any]:
        closed = [one for one in dashboard.slices if not _is_open(one)]
        if not closed:
            return response
        if "position_json" in response:
            position = _without(json.loads(response["position_json"]), {one.id for one in closed})
            response = {**response, "position_json": json.dumps(position)}
        if "charts" in response:
            names = {one.chart for one in closed}
            charts = [name for name in response["charts"] if name not in names]
            response = {**response, "charts": charts}
        return response


def _is_open(chart: Any) -> bool:
    from superset import security_manager

    return chart.datasource is None or security_manager.can_access_datasource(chart.datasource)


def _without(position: dict[str, Any], charts: set[int]) -> dict[str, Any]:
    """Return a layout without these charts, and without the rows that only they are in."""
    gone = {
        name
        for name, one in position.items()
        if isinstance(one, dict) and one.get("meta", {}).get("chartId") in charts
    }
    gone |= {
        name
        for name, one in position.items()
        if isinstance(one, dict)
        and one["type"] == "ROW"
        and one["children"]
        and gone.issuperset(one["children"])
    }
    return {
        name: {**one, "children": [child for child in one["children"] if child not in gone]}
        if isinstance(one, dict) and "children" in one
        else one
        for name, one in position.items()
        if name not in gone
    }
