"""The same export for dlt: its `sql_database` source to its `filesystem` destination.

Run it as `python dlt_export.py DATABASE_URL FOLDER TABLE_FORMAT`, in dlt's own virtual environment.
TABLE_FORMAT is `iceberg`, or `none` for Parquet files without a table. The source uses its fastest
backend, which reads into Arrow.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

import dlt
import sqlalchemy
from dlt.sources.sql_database import sql_database

TABLES = ["runs", "steps", "step_failures", "prices", "workflows", "workflow_versions"]


def main(database_url: str, folder: str, table_format: str) -> None:
    """Run the pipeline once."""
    os.environ |= {
        "DLT_DATA_DIR": f"{folder}/work",
        "NORMALIZE__WORKERS": "2",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "DATA_WRITER__FILE_MAX_ITEMS": "100000",
    }
    source = sql_database(
        sqlalchemy.create_engine(database_url.replace("://", "+psycopg2://", 1)),
        schema="orchestra",
        table_names=TABLES,
        backend="pyarrow",
        chunk_size=50_000,
    )
    pipeline = dlt.pipeline(
        "lake",
        destination=dlt.destinations.filesystem(f"file://{folder}/lake"),
        dataset_name="orchestra",
        pipelines_dir=f"{folder}/work",
    )
    pipeline.run(
        source,
        write_disposition="replace",
        loader_file_format="parquet",
        table_format=cast(Any, table_format if table_format != "none" else None),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
