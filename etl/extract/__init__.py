"""Requests to the API: the client, and the walk through a run list."""

from etl.imports import certificates_unread, without

# The command line of httpx takes 30 ms to import.
with without("click"):
    import httpx  # noqa: F401
# The client has a TLS context of its own.
with certificates_unread():
    import aiohttp  # noqa: F401
