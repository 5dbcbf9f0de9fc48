"""The export of the history to Apache Iceberg tables, which any engine can read."""
