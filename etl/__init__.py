"""The durable run history of Orchestra AI workflows, in PostgreSQL."""
