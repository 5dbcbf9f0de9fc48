"""Every table of both schemas, in its current form; tests check the Alembic revisions against it.

Analysts read `orchestra`; `orchestra_etl` belongs to the service. Times are `timestamptz` in UTC.
Ids are text that is compared byte by byte, because the API's ids are not always UUIDs.
"""

from etl.tables import alerts, lake, operations, prices, rollups
from etl.tables.analytics import PAYLOADS, PRIVATE, inputs, outputs, run_payloads, runs, steps
from etl.tables.columns import ANALYTICS, OPERATIONS, metadata

__all__ = [
    "ANALYTICS",
    "OPERATIONS",
    "PAYLOADS",
    "PRIVATE",
    "alerts",
    "inputs",
    "lake",
    "metadata",
    "operations",
    "outputs",
    "prices",
    "rollups",
    "run_payloads",
    "runs",
    "steps",
]
