"""Read a lake's tables with Spark through Iceberg's JDBC catalog, and print figures as JSON.

Run it in the environment of `make test-spark` as `python read.py PORT DATABASE WAREHOUSE FOLDER
TABLE...`: the port on which the database accepts connections, its name, the lake's location, a
folder for temporary files, and names of tables. The result has the figures of
`tests/lake/engines.py` for each column.
"""

from __future__ import annotations

import glob
import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyspark
import snowpark_connect_deps_iceberg
from pyspark.sql import SparkSession

DRIVER = "/usr/share/java/postgresql.jar"
"""The JDBC driver of Debian's package libpostgresql-jdbc-java."""

JACKSON = "com/fasterxml/jackson"
RELOCATED = f"org/apache/iceberg/shaded/{JACKSON}"
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4}
"""Bytes of each kind of constant in a class file, except texts."""


def relocated_jackson(folder: Path) -> str:
    """Write a jar of Spark's Jackson under the name that Iceberg's runtime expects.

    Iceberg publishes its runtime with this jar inside; the package from the index lacks it.
    """
    path = folder / "relocated-jackson.jar"
    with zipfile.ZipFile(path, "w") as target:
        for name in ("annotations", "core", "databind"):
            [jar] = glob.glob(f"{pyspark.__path__[0]}/jars/jackson-{name}-[0-9]*.jar")
            with zipfile.ZipFile(jar) as source:
                for member in source.namelist():
                    if member.startswith(JACKSON) and member.endswith(".class"):
                        renamed = member.replace(JACKSON, RELOCATED)
                        target.writestr(renamed, _renamed(source.read(member)))
    return str(path)


def _renamed(data: bytes) -> bytes:
    """Return a class file in which each text names the relocated package."""
    [count] = struct.unpack_from(">H", data, 8)
    parts, offset, number = [data[:10]], 10, 1
    while number < count:
        tag = data[offset]
        if tag == 1:
            [length] = struct.unpack_from(">H", data, offset + 1)
            text = data[offset + 3 : offset + 3 + length]
            for mark in ("/", "."):
                old, new = (one.replace("/", mark).encode() for one in (JACKSON, RELOCATED))
                text = text.replace(old, new)
            parts.append(struct.pack(">BH", 1, len(text)) + text)
            offset += 3 + length
        else:
            parts.append(data[offset : offset + 1 + _SIZES[tag]])
            offset += 1 + _SIZES[tag]
        number += 2 if tag in (5, 6) else 1
    return b"".join([*parts, data[offset:]])


def session(port: str, database: str, warehouse: str, folder: Path) -> SparkSession:
    """Start Spark on this machine, with the lake as the catalog `orchestra_etl`."""
    [runtime] = glob.glob(
        f"{snowpark_connect_deps_iceberg.__path__[0]}/jars/iceberg-spark-runtime-3.5_2.12-*.jar"
    )
    catalog = "spark.sql.catalog.orchestra_etl"
    settings = {
        "spark.jars": ",".join((runtime, DRIVER, relocated_jackson(folder))),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.local.dir": str(folder),
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        f"{catalog}.type": "jdbc",
        f"{catalog}.uri": f"jdbc:postgresql://127.0.0.1:{port}/{database}"
        "?currentSchema=orchestra_etl",
        f"{catalog}.jdbc.user": "lake_reader",
        f"{catalog}.jdbc.schema-version": "V1",
        f"{catalog}.warehouse": warehouse,
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def figures(spark: SparkSession, table: str) -> dict[str, list[Any]]:
    """Return the figures of each column."""
    frame = spark.table(f"orchestra_etl.orchestra.{table}")
    selected, widths = [], []
    for name, kind in frame.dtypes:
        column = f"`{name}`"
        values = [f"count({column})"]
        if kind == "string":
            values.append(f"sum(length({column}))")
        elif kind in ("bigint", "int") or kind.startswith("decimal"):
            values.append(f"sum({column})")
        elif kind == "timestamp":
            values += [f"unix_micros(min({column}))", f"unix_micros(max({column}))"]
        else:
            values += [f"min({column})", f"max({column})"]
        selected += values
        widths.append((name, len(values)))
    row = list(frame.selectExpr(*selected).collect()[0])
    found = {}
    for name, count in widths:
        found[name] = row[:count]
        del row[:count]
    return found


if __name__ == "__main__":
    port, database, warehouse, folder, *tables = sys.argv[1:]
    spark = session(port, database, warehouse, Path(folder))
    print(json.dumps({table: figures(spark, table) for table in tables}, default=str))
    spark.stop()
