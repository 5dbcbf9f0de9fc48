"""What is asked of the API: the client, and the walk through a run list."""
