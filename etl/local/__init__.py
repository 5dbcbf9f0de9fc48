"""What the project brings to run on one machine alone: a PostgreSQL server, a simulator of the API, a demonstration."""
