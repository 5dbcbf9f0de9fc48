"""The SQL functions below the rollups: histograms and quantiles of durations."""

from __future__ import annotations

import math
from random import Random

import psycopg
import pytest

from tests.rollup_oracle import bucket
from tests.support import query

SPREAD = "SELECT n, exp(ln(0.2::float8) + n * 0.0007) AS ms FROM generate_series(1, 30000) AS n"
"""30,000 durations from 0.2 ms to some days, evenly spread on a logarithmic scale."""


def exact(values: list[float], q: float) -> float:
    """Return the exact quantile `q` of n values: the one of rank ⌈q·n⌉."""
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


def test_buckets(database_url: str) -> None:
    """A bucket's duration is within 2 % of the duration; an impossible duration has no bucket."""
    sql = (
        "SELECT ms, b, orchestra.bucket_duration(b) AS d"
        f" FROM ({SPREAD}) AS s, orchestra.duration_bucket(ms) AS b"
    )
    rows = query(database_url, sql)
    assert [row["b"] for row in rows] == [bucket(row["ms"]) for row in rows]
    assert all(abs(row["d"] / row["ms"] - 1) < 0.02 for row in rows if row["ms"] >= 1)
    odd = (
        "SELECT orchestra.duration_bucket(ms) AS b"
        " FROM unnest('{0, 0.99, -1, -1e-9, NULL, NaN, Infinity}'::float8[]) AS ms"
    )
    assert [row["b"] for row in query(database_url, odd)] == [0, 0, None, None, None, None, None]
    # The longest possible distance between two times of the schema, in milliseconds.
    assert query(database_url, "SELECT orchestra.duration_bucket(3.2e14) < 32767 AS fits") == [
        {"fits": True}
    ]


HISTOGRAMS = """
    CREATE TABLE drawn AS SELECT * FROM unnest(%s::float8[], %s::int[]) AS d (ms, part);
    CREATE TABLE histograms AS
    SELECT part, array_agg(b::smallint ORDER BY b) AS buckets,
        array_agg(n::integer ORDER BY b) AS counts
    FROM (SELECT part, orchestra.duration_bucket(ms) AS b, count(*) AS n
          FROM drawn GROUP BY 1, 2) AS counted GROUP BY part;
"""
BOTH = """
    SELECT (SELECT orchestra.duration_quantile(buckets, counts, {q})
            FROM histograms WHERE {where}) AS stored,
           (SELECT orchestra.duration_quantile(orchestra.duration_bucket(ms), 1, {q})
            FROM drawn WHERE {where}) AS counted,
           (SELECT orchestra.histogram_quantile(orchestra.duration_histogram(buckets, counts), {q})
            FROM histograms WHERE {where}) AS merged
"""


@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.95, 0.999, 1.0])
def test_quantiles(database_url: str, q: float) -> None:
    """All three ways to compute a quantile agree and are within 2 % of the exact value."""
    random = Random(17)
    values = [random.lognormvariate(7, 2) + 1 for _ in range(4000)]
    parts = [random.randrange(40) for _ in values]
    with psycopg.connect(database_url, autocommit=True) as connection:
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(HISTOGRAMS, [values, parts])
    for where, among in (
        ("true", values),
        ("part = 3", [v for v, part in zip(values, parts, strict=True) if part == 3]),
    ):
        (row,) = query(database_url, BOTH.format(q=q, where=where))
        assert row["stored"] == row["counted"] == row["merged"]
        assert abs(row["stored"] / exact(among, q) - 1) < 0.02


def test_quantiles_of_nothing(database_url: str) -> None:
    """No durations have no quantile, nulls are ignored, and an invalid share is an error."""
    nothing = """
        SELECT orchestra.duration_quantile(b, n, 0.5) AS one
        FROM (VALUES (NULL::int, 5::bigint), (4, NULL)) AS v (b, n)
        UNION ALL SELECT orchestra.duration_quantile(NULL::int, NULL::bigint, 0.5) WHERE false
        UNION ALL SELECT orchestra.duration_quantile('{}'::smallint[], '{}'::int[], 0.5)
        UNION ALL SELECT orchestra.duration_quantile(NULL::smallint[], NULL::int[], 0.5)
        UNION ALL SELECT orchestra.histogram_quantile(orchestra.duration_histogram('{}', '{}'), 0.5)
        UNION ALL SELECT orchestra.histogram_quantile(orchestra.duration_histogram(NULL, NULL), 0.5)
        UNION ALL SELECT orchestra.histogram_quantile(
            orchestra.duration_histogram('{3}', '{1}') FILTER (WHERE false), 0.5)
        UNION ALL SELECT orchestra.histogram_quantile(NULL, 0.5)
    """
    assert query(database_url, nothing) == [{"one": None}] * 8
    for share in ("-0.1", "1.1"):
        for call in ("duration_quantile(1, 1, {})", "histogram_quantile(ARRAY[1], {})"):
            with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="between 0 and 1"):
                query(database_url, f"SELECT orchestra.{call.format(share)}")


def test_odd_buckets_do_not_change_a_quantile(database_url: str) -> None:
    """Buckets out of range, or without a positive count, are ignored and cause no error."""
    [row] = query(
        database_url,
        """
        SELECT orchestra.bucket_duration(4) AS expected,
               (SELECT orchestra.duration_quantile(b, n, 0.9)
                FROM (VALUES (-1, 50), (-2147483648, 9), (4, 9), (9, 0), (9, -9)) AS v (b, n)
               ) AS counted,
               (SELECT orchestra.duration_quantile(
                    '{-32768, -1, 4, 9, 12}'::smallint[], '{7, 50, 9, -9}'::int[], 0.9)) AS stored,
               (SELECT orchestra.histogram_quantile(
                    orchestra.duration_histogram('{-32768, -1, 4, 9, 12}', '{7, 50, 9, -9}'), 0.9)
               ) AS merged,
               (SELECT orchestra.duration_quantile(b, 1, 1.0)
                FROM (VALUES (2147483647), (4)) AS v (b)) AS longest,
               orchestra.bucket_duration(32767) AS stored_longest
        """,
    )
    assert row["counted"] == row["stored"] == row["merged"] == row["expected"]
    assert row["longest"] == row["stored_longest"] < math.inf


def test_quantiles_in_parallel(database_url: str) -> None:
    """Two parallel workers yield the same quantiles and histograms as one process."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE many AS SELECT n % 7 AS part, ms FROM ({SPREAD}) AS s")
        connection.execute("ALTER TABLE many SET (parallel_workers = 2)")
        connection.execute(
            "CREATE TABLE histograms AS"
            " SELECT part, ARRAY[orchestra.duration_bucket(ms)::smallint] AS buckets,"
            " ARRAY[1] AS counts FROM many WHERE ms IS NOT NULL"
        )
        connection.execute("ALTER TABLE histograms SET (parallel_workers = 2)")
        connection.execute("ANALYZE many; ANALYZE histograms")
        for sql in (
            "SELECT part, orchestra.duration_quantile(orchestra.duration_bucket(ms), 1, 0.9)"
            " FROM many GROUP BY part",
            "SELECT part, orchestra.duration_quantile(buckets, counts, 0.9)"
            " FROM histograms GROUP BY part",
            "SELECT part, orchestra.duration_histogram(buckets, counts)"
            " FROM histograms GROUP BY part",
        ):
            connection.execute("SET max_parallel_workers_per_gather = 0")
            alone = sorted(connection.execute(sql).fetchall())
            connection.execute(
                "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0;"
                " SET parallel_tuple_cost = 0"
            )
            plan = "\n".join(
                row[0]
                for row in connection.execute(f"EXPLAIN (ANALYZE, COSTS off) {sql}").fetchall()
            )
            assert "Partial" in plan
            assert "Workers Launched: 2" in plan
            assert sorted(connection.execute(sql).fetchall()) == alone
            assert len(alone) == 7


def test_distinct_texts_are_counted(database_url: str) -> None:
    """`count_distinct` counts a list's texts as count(DISTINCT …) does: without nulls."""
    for items, count in ((["a", "b", "a", "B", None], 3), ([None], 0), ([], 0), (None, 0)):
        assert query(database_url, "SELECT orchestra.count_distinct(%s::text[]) AS n", items) == [
            {"n": count}
        ]
