"""Every benchmark, the soak and the release dump run once on tiny data, so that none breaks unseen.

`make bench-tiny` runs these. Figures of such sizes mean nothing, so no speed limit applies: only
errors fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = ROOT / "tests"
TINY: Mapping[str, Sequence[str]] = {
    # The slowest module comes first, because other processes run the rest meanwhile.
    "tests.benchmarks.charts": [
        "--runs=300", "--repetitions=1", "--limit=600", "--dashboard=run",
    ],
    "tests.benchmarks.growth": [
        "--runs=100", "--repetitions=1", "--large-bytes=100000", "--plot=load.svg",
        "--json=growth.json",
    ],
    "tests.benchmarks": [
        "--runs=20", "--repetitions=1", "--shapes=5 steps, small", "--json=figures.json",
        "--plot=figures.svg",
    ],
    "tests.faults.soak": ["--runs=20", "--kills=2"],
    "tests.benchmarks.analytics": ["--runs=100", "--repetitions=1", "--limit=600"],
    "tests.benchmarks.export": ["--runs=100", "--json=export.json"],
    "tests.benchmarks.search": ["--runs=200", "--loaded=5", "--json=search.json"],
    "tests.benchmarks.alerts": [
        "--rules=100", "--workflows=3", "--runs=100", "--repetitions=1", "--limit=600",
    ],
    "tests.benchmarks.rebuild": ["--runs=5", "--large-bytes=10000"],
    "tests.benchmarks.load_stage": ["--runs=5", "--repetitions=1", "--json=stages.json"],
    "tests.benchmarks.churn": ["--runs=10", "--rounds=1"],
    "tests.benchmarks.fetch": ["--requests=20"],
    "tests.faults.release": ["--to=released"],
}  # fmt: skip
"""The arguments with which each module takes seconds."""
PARTS = {
    "dlt_export", "dlt_pipeline", "hand_written", "launch", "limit", "singer_tap",
    "engines", "read",
}  # fmt: skip
"""Scripts that benchmarks and tests start, each in its own process."""


@pytest.mark.parametrize("module", TINY)
def test_an_entry_point_runs(module: str, tmp_path: Path) -> None:
    """The module runs to its end on a tiny size, prints a result and writes its files."""
    done = subprocess.run(
        [sys.executable, "-m", module, *TINY[module]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    for argument in TINY[module]:
        if written := re.search(r"=(.+\.(?:svg|json))$", argument):
            assert (tmp_path / written[1]).stat().st_size > 0
    if module == "tests.benchmarks":
        for peer in ("hand-written", "dlt, all runs", "Singer"):
            assert peer in done.stdout, f"{peer} was left out"


def test_no_entry_point_is_left_out() -> None:
    """Everything that can run as a module or that the Makefile runs is run here."""
    runnable = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in TESTS.rglob("*.py")
        if re.search(r"^if __name__ == .__main__.", path.read_text(), re.MULTILINE)
        and path.stem not in PARTS
    }
    made = set(re.findall(r"-m (tests\.[\w.]+)", (ROOT / "Makefile").read_text()))

    assert runnable == set(TINY)
    assert made <= runnable
