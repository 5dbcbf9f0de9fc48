"""Read a lake by its path with another engine, and print what it finds as JSON.

Run it in the environment of `make test-lake` as `python engines.py ENGINE`. Standard input is a
JSON object: `lake`, the folder of the tables; `tables`, their names; `s3`, the settings of an
object store or null; `sql`, statements for DuckDB, by name. The result has `columns`, by table and
column: the number of values that are not null, and their sum, extremes or summed length. For
DuckDB, it also has the rows of each statement. No engine uses the catalog or this project's code.
"""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

VIEWS = "config/duckdb/orchestra.sql"

Figures = dict[str, dict[str, list[Any]]]


def of_duckdb(given: Mapping[str, Any]) -> dict[str, Any]:
    """Use DuckDB with its extension for Iceberg, and the views of this project."""
    connection = _duckdb(given)
    found: Figures = {}
    for table in given["tables"]:
        source = f"iceberg_scan('{given['lake']}/{table}')"
        kinds = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        found[table] = _by_sql(
            [(row[0], row[1].lower()) for row in kinds],
            source,
            '"',
            {"time": "epoch_us({0})", "length": "length({0})"},
            lambda sql: connection.execute(sql).fetchall()[0],
        )
    rows = {}
    for name, sql in given.get("sql", {}).items():
        result = connection.execute(sql)
        names = [column[0] for column in result.description]
        rows[name] = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    return {"columns": found, "rows": rows}


def _duckdb(given: Mapping[str, Any]) -> Any:
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("avro", "iceberg", "httpfs"):
        package = __import__(f"duckdb_extension_{name}")
        [path] = glob.glob(f"{package.__path__[0]}/extensions/*/{name}.duckdb_extension")
        connection.execute(f"LOAD '{path}'")
    if given.get("s3"):
        store = given["s3"]
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{store['key']}', SECRET '{store['secret']}',"
            f" ENDPOINT '{store['host']}', USE_SSL false, URL_STYLE 'path', REGION 'us-east-1')"
        )
    connection.execute(f"SET VARIABLE lake = '{given['lake']}'")
    with open(VIEWS) as file:
        connection.execute(file.read())
    return connection


def of_clickhouse(given: Mapping[str, Any]) -> dict[str, Any]:
    """Use ClickHouse's engine, as chdb."""
    from chdb import session

    # The engine reads local files only below its working directory.
    os.chdir(given["lake"])
    with session.Session() as engine:

        def run_query(sql: str) -> Any:
            text = str(engine.query(sql, "JSONCompactStrings"))
            return json.loads(text)["data"]

        found = {}
        for table in given["tables"]:
            source = f"icebergLocal('{table}', SETTINGS iceberg_use_version_hint = 1)"
            kinds = [
                (name, kind.removeprefix("Nullable(").lower())
                for name, kind, *_ in run_query(f"DESCRIBE TABLE {source}")
            ]
            found[table] = _by_sql(
                kinds,
                source,
                "`",
                {"time": "toUnixTimestamp64Micro({0})", "length": "lengthUTF8({0})"},
                lambda sql: run_query(sql)[0],
            )
        return {"columns": found}


def of_polars(given: Mapping[str, Any]) -> dict[str, Any]:
    """Use Polars."""
    os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"
    import polars

    found: Figures = {}
    for table in given["tables"]:
        frame = polars.scan_iceberg(f"{given['lake']}/{table}")
        wanted = []
        for name, kind in frame.collect_schema().items():
            column = polars.col(name)
            values = [column.count()]
            if kind == polars.String:
                values.append(column.str.len_chars().sum())
            elif kind.is_integer() or kind.is_decimal():
                values.append(column.sum())
            elif kind == polars.Datetime:
                values += [column.min().dt.timestamp("us"), column.max().dt.timestamp("us")]
            else:
                values += [column.min(), column.max()]
            wanted += [one.alias(f"{name} {at}") for at, one in enumerate(values)]
        [row] = frame.select(wanted).collect().to_dicts()
        found[table] = {}
        for name, value in row.items():
            found[table].setdefault(name.split()[0], []).append(value)
    return {"columns": found}


def _by_sql(
    kinds: list[tuple[str, str]],
    source: str,
    quote: str,
    functions: Mapping[str, str],
    run_query: Callable[[str], Any],
) -> dict[str, list[Any]]:
    """Return the figures of a table's columns.

    Args:
        kinds: each column's name and type, in lower case.
        source: the table, as SQL.
        quote: the character around names.
        functions: SQL for the microseconds of a time, and for the length of a text.
        run_query: runs a query and returns its only row.
    """
    selected, widths = [], []
    for name, kind in kinds:
        column = f"{quote}{name}{quote}"
        values = [f"count({column})"]
        if kind.startswith(("varchar", "string")):
            values.append(f"sum({functions['length'].format(column)})")
        elif kind.startswith(("bigint", "integer", "int", "decimal")):
            values.append(f"sum({column})")
        elif kind.startswith(("timestamp", "datetime")):
            values += [functions["time"].format(f"{one}({column})") for one in ("min", "max")]
        else:
            values += [f"min({column})", f"max({column})"]
        selected += values
        widths.append((name, len(values)))
    row = list(run_query(f"SELECT {', '.join(selected)} FROM {source}"))
    found = {}
    for name, count in widths:
        found[name] = row[:count]
        del row[:count]
    return found


if __name__ == "__main__":
    engine = {"duckdb": of_duckdb, "clickhouse": of_clickhouse, "polars": of_polars}[sys.argv[1]]
    print(json.dumps(engine(json.load(sys.stdin)), default=str))
