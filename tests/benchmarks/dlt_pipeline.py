"""The same job for dlt: its REST source with parallel children, merge by key, and JSON columns.

Run it as `python dlt_pipeline.py BASE_URL WORKFLOW_ID DATABASE_URL FOLDER MODE FORMAT`, in dlt's
own virtual environment. With MODE `full` each run reads the whole list and every run's steps, and
sees every change. With MODE `new` it uses dlt's cursor, by start time: it reads only runs that
started since the last time, and never re-reads a run that was running then.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import dlt
from dlt.sources.rest_api import rest_api_resources

CONCURRENCY = "16"


def main(
    base_url: str, workflow_id: str, database_url: str, folder: str, mode: str, file_format: str
) -> None:
    """Run the pipeline once."""
    os.environ |= {
        "DLT_DATA_DIR": folder,
        "EXTRACT__WORKERS": CONCURRENCY,
        "EXTRACT__MAX_PARALLEL_ITEMS": "100",
        "NORMALIZE__WORKERS": "2",
        "LOAD__WORKERS": "4",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        # Files of this many rows are normalised and loaded in parallel.
        "DATA_WRITER__FILE_MAX_ITEMS": "10000",
    }
    as_json = {"data_type": "json"}
    runs: dict[str, Any] = {
        "name": "runs",
        "primary_key": "id",
        "columns": dict.fromkeys(("inputs", "outputs", "all_outputs", "error"), as_json),
        "endpoint": {
            "path": f"workflows/{workflow_id}/runs",
            "params": {"limit": 100},
            "paginator": {
                "type": "offset",
                "limit": 100,
                "total_path": None,
                "stop_after_empty_page": True,
            },
        },
    }
    if mode == "new":
        runs["endpoint"]["incremental"] = {"cursor_path": "start_time", "row_order": "desc"}
    steps: dict[str, Any] = {
        "name": "steps",
        "primary_key": "id",
        "parallelized": True,
        "include_from_parent": ["id"],
        "columns": dict.fromkeys(("inputs", "outputs", "step_metadata", "error"), as_json),
        "endpoint": {
            "path": f"workflows/{workflow_id}/runs/{{resources.runs.id}}/steps",
            "paginator": "single_page",
        },
    }
    resources = rest_api_resources(
        {
            "client": {"base_url": base_url, "auth": {"type": "bearer", "token": "simulated-key"}},
            "resource_defaults": {"write_disposition": "merge", "max_table_nesting": 0},
            "resources": [runs, steps],
        }
    )
    # dlt requires a host and a password before the path; libpq takes a socket's folder there.
    url = urlsplit(database_url)
    [host] = parse_qs(url.query)["host"]
    credentials = f"postgresql://{url.username}:unused@{quote(host, safe='')}{url.path}"
    pipeline = dlt.pipeline(
        "history",
        destination=dlt.destinations.postgres(credentials),
        dataset_name="dlt_history",
        pipelines_dir=folder,
    )
    pipeline.run(resources, loader_file_format=file_format)


if __name__ == "__main__":
    main(*sys.argv[1:])
