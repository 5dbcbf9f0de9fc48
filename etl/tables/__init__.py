"""Every table of both schemas: the schema's one truth. Alembic revisions are checked against it.

`orchestra` is what analysts read; `orchestra_etl` is what the service needs to do its work. Times
are `timestamptz` in UTC; ids are text compared byte by byte, because the API's ids are not always
UUIDs.
"""

from etl.tables import operations, prices, rollups
from etl.tables.analytics import PAYLOADS, PRIVATE, inputs, outputs, run_payloads, runs, steps
from etl.tables.columns import ANALYTICS, OPERATIONS, metadata

__all__ = [
    "ANALYTICS",
    "OPERATIONS",
    "PAYLOADS",
    "PRIVATE",
    "inputs",
    "metadata",
    "operations",
    "outputs",
    "prices",
    "rollups",
    "run_payloads",
    "runs",
    "steps",
]
