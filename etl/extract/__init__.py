"""Requests to the API: the client, and the walk through a run list."""
