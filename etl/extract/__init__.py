"""Requests to the API: the client, and the walk through a run list."""

from etl.imports import without

# The command line of httpx takes 30 ms to import.
with without("click"):
    import httpx  # noqa: F401
