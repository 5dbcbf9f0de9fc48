"""Draw the charts once if the address of the page already chooses what they show.

On the dashboard Run, Superset draws no chart before the filter Run has a value (`requiredFirst`):
without a link, the newest run. With a link to a run, it draws the charts at once, but requests
their data twice more when it applies the filter, which changes nothing. Without `requiredFirst`,
it requests them once.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import prison
from flask import request
from marshmallow import post_dump
from superset.daos.dashboard import DashboardDAO
from superset.dashboards import api
from superset.utils import json


def draw_once() -> None:
    """Make Superset's responses about a dashboard wait for no filter that the address chooses."""
    update = DashboardDAO.update

    class Chosen(api.DashboardGetResponseSchema):
        @post_dump(pass_original=True)
        def wait_for_others(
            self, response: dict[str, Any], dashboard: Any, **_: Any
        ) -> dict[str, Any]:
            chosen = _chosen(dashboard.id)
            if not chosen or not response.get("json_metadata"):
                return response
            metadata = json.loads(response["json_metadata"])
            for one in _filters(metadata):
                if one["id"] in chosen:
                    one.pop("requiredFirst", None)
            return {**response, "json_metadata": json.dumps(metadata)}

    def keep(dashboard: Any, properties: dict[str, Any], *rest: Any) -> Any:
        """Save the dashboard with what such a response lacks, if its page saves it."""
        if properties.get("json_metadata"):
            metadata = json.loads(properties["json_metadata"])
            stored = _filters(json.loads(dashboard.json_metadata or "{}"))
            waiting = {one["id"] for one in stored if one.get("requiredFirst")}
            for one in _filters(metadata):
                if one["id"] in waiting:
                    one["requiredFirst"] = True
            properties = {**properties, "json_metadata": json.dumps(metadata)}
        return update(dashboard, properties, *rest)

    api.DashboardGetResponseSchema = Chosen
    api.DashboardRestApi.dashboard_get_response_schema = Chosen()
    DashboardDAO.update = staticmethod(keep)


def _filters(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return metadata.get("native_filter_configuration") or []


def _chosen(dashboard: int) -> set[str]:
    """Return the filters that have a value in the address of the page that sent the request.

    A link has the filters' state itself; Superset then replaces it by the key of a stored state.
    """
    from superset.extensions import cache_manager
    from superset.temporary_cache.utils import cache_key

    named = parse_qs(urlsplit(request.referrer or "").query)
    try:
        if "native_filters" in named:
            state = prison.loads(named["native_filters"][0])
        elif "native_filters_key" in named:
            key = cache_key(dashboard, named["native_filters_key"][0])
            stored = cache_manager.filter_state_cache.get(key) or {}
            state = json.loads(stored.get("value") or "{}")
        else:
            return set()
        return {name for name, one in state.items() if one["filterState"].get("value")}
    except (prison.decoder.ParserException, AttributeError, KeyError, TypeError, ValueError):
        # Superset's own page reads the address, and reports what it cannot read.
        return set()
