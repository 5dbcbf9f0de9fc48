"""The memory of an export with wide payloads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import query

pytestmark = pytest.mark.slow

# Measured: 280 MB with payloads of 55 KB, and 6 MB more for each MB of the largest value.
WIDE_MB = 350
FOR_EACH_MB = 6
VALUE_MB = 50

PROGRAM = """
import re, sys
from etl.database import Database
from etl.export import exporter
from etl.export.destination import Destination
assert exporter.run(Database(sys.argv[1]), Destination(sys.argv[2], payloads=True)).complete
# `ru_maxrss` would include the memory of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""

# Random hexadecimal digits, which compression at most halves.
STEPS = """
    WITH run AS (
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
        VALUES ('r', 'w', 'succeeded', 'api', 'final', '2026-11-03 12:00Z')
    ), step AS (
        INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)
        SELECT 's' || n, 'r', 'w', n, 'succeeded', 'h' FROM generate_series(1, 1000) AS n
        RETURNING id
    )
    INSERT INTO orchestra.{} (step_id, data, size_bytes)
    SELECT s.id, to_jsonb((SELECT string_agg(md5(random()::text || k || s.id), '')
                           FROM generate_series(1, 1700) AS k)), 55000
    FROM step AS s
"""


def _peak(url: str, lake: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(lake)], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_memory_is_bounded_by_the_largest_value(database_url: str, tmp_path: Path) -> None:
    """A day of wide payloads takes as much memory as its largest value, and a fixed sum."""
    query(database_url, STEPS.format("inputs"))
    query(
        database_url,
        "INSERT INTO orchestra.outputs SELECT step_id, data, size_bytes FROM orchestra.inputs",
    )
    assert _peak(database_url, tmp_path / "lake") < WIDE_MB
    query(
        database_url,
        "UPDATE orchestra.inputs SET data = to_jsonb("
        " (SELECT string_agg(md5(random()::text || k), '') FROM generate_series(1, %s) AS k))"
        " WHERE step_id = 's1'",
        VALUE_MB * 1_000_000 // 32,
    )
    assert _peak(database_url, tmp_path / "lake") < WIDE_MB + FOR_EACH_MB * VALUE_MB
