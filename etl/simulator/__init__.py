"""A simulator of the API: a real HTTP server on loopback that serves a generated history."""
