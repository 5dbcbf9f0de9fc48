"""Searches for a text in a database, for tests that it has been removed."""

from __future__ import annotations

from tests.support import query

COLUMNS = """
    SELECT format('%I.%I', table_schema, table_name) AS place,
           concat_ws('.', table_schema, table_name, column_name) AS name,
           CASE data_type WHEN 'bytea' THEN format('encode(%I, ''escape'')', column_name)
                ELSE format('%I::text', column_name) END AS value
    FROM information_schema.columns
    JOIN pg_tables ON (schemaname, tablename) = (table_schema, table_name)
    WHERE schemaname IN ('orchestra', 'orchestra_etl')
"""
# Only tables with rows: an empty table keeps the statistics of its last rows.
SAMPLED = """
    SELECT DISTINCT format('%%I.%%I', schemaname, tablename) AS place FROM pg_stats
    WHERE position(%s IN concat(most_common_vals, histogram_bounds)) > 0
"""


def columns_with(url: str, text: str) -> set[str]:
    """Return every column of both schemas that contains the text, bytes included."""
    # One statement, because a connection for each column would take most of the test's time.
    looks = [
        f"SELECT '{one['name']}' AS name WHERE EXISTS"
        f" (SELECT FROM {one['place']} WHERE position(%s IN {one['value']}) > 0)"
        for one in query(url, COLUMNS)
    ]
    found = query(url, " UNION ALL ".join(looks), *[text] * len(looks))
    return {row["name"] for row in found}


def statistics_with(url: str, text: str) -> set[str]:
    """Return every table with rows whose statistics hold the text, as `pg_stats.schema.table`."""
    tables = [row["place"] for row in query(url, SAMPLED, text)]
    return {
        f"pg_stats.{table}"
        for table in tables
        if query(url, f"SELECT 1 AS one FROM {table} LIMIT 1")
    }
