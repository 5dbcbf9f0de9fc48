"""The same job for Singer: a tap of the Singer SDK, whose messages a `target-postgres` stores.

Run it as `python singer_tap.py --config FILE | target-postgres --config FILE`, in Singer's own
virtual environment. Like every tap with parent and child streams, it requests the steps of one run
after the other. It reads everything each time, and so sees changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import requests
from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import BearerTokenAuthenticator
from singer_sdk.pagination import BaseOffsetPaginator

PAGE = 100
# A payload is any JSON value; the target stores what can be an object as jsonb.
PAYLOAD = th.CustomType({"type": ["object", "string", "number", "boolean", "null"]})


class _Pages(BaseOffsetPaginator):
    def has_more(self, response: requests.Response) -> bool:
        return bool(response.json())


class _Stream(RESTStream[int]):
    primary_keys = ("id",)

    @property
    def url_base(self) -> str:
        return str(self.config["base_url"])

    @property
    def authenticator(self) -> BearerTokenAuthenticator:
        return BearerTokenAuthenticator(token="simulated-key")


class Runs(_Stream):
    """The run list."""

    name = "runs"
    path = "/workflows/{workflow_id}/runs"
    schema: ClassVar[dict[str, Any]] = th.PropertiesList(
        *(th.Property(name, th.StringType) for name in ("id", "status", "start_time", "end_time")),
        *(th.Property(name, PAYLOAD) for name in ("error", "inputs", "outputs")),
    ).to_dict()

    def get_new_paginator(self) -> _Pages:
        """Return a paginator that ends at the first empty page."""
        return _Pages(start_value=0, page_size=PAGE)

    def get_url_params(self, context: Any, next_page_token: int | None) -> dict[str, Any]:
        """Return the query of a page."""
        return {"limit": PAGE, "offset": next_page_token or 0}

    def get_child_context(self, record: dict[str, Any], context: Any) -> dict[str, Any]:
        """Return what the request for the run's steps needs."""
        return {"run_id": record["id"]}


class Steps(_Stream):
    """The steps of each run."""

    name = "steps"
    path = "/workflows/{workflow_id}/runs/{run_id}/steps"
    parent_stream_type = Runs
    # Otherwise the state would grow with each run, and be written again and again.
    state_partitioning_keys: ClassVar[list[str]] = []
    schema: ClassVar[dict[str, Any]] = th.PropertiesList(
        *(
            th.Property(name, th.StringType)
            for name in (
                "id", "run_id", "workflow_id", "node_id", "user_id", "organization_id", "status",
                "start_time", "end_time",
            )
        ),
        th.Property("elapsed_time", th.NumberType),
        th.Property("tokens", th.IntegerType),
        *(
            th.Property(name, PAYLOAD)
            for name in ("error", "step_metadata", "inputs", "outputs")
        ),
    ).to_dict()  # fmt: skip

    def post_process(self, row: dict[str, Any], context: Any = None) -> dict[str, Any]:
        """Return a step with the id of its run."""
        return {**row, "run_id": context["run_id"]}


class OrchestraTap(Tap):
    """A tap of one workflow."""

    name = "tap-orchestra"
    config_jsonschema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property("base_url", th.StringType, required=True),
        th.Property("workflow_id", th.StringType, required=True),
    ).to_dict()

    def discover_streams(self) -> Iterable[_Stream]:
        """Return both streams."""
        return [Runs(self), Steps(self)]


if __name__ == "__main__":
    OrchestraTap.cli()
