"""The runbook explains every reason, exit status and alert."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import get_args

import pytest
import yaml

from etl import errors
from etl.exit_status import ExitStatus
from etl.records import RejectionReason
from tests.conftest import ROOT

RUNBOOK = (ROOT / "docs" / "how-to" / "operations.md").read_text()
ALERTS = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text())


def _headings(section: str) -> set[str]:
    text = re.split(rf"^## {section}$", RUNBOOK, flags=re.MULTILINE)[1].split("\n## ")[0]
    return set(re.findall(r"^### (.+)$", text, re.MULTILINE))


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    """The runbook has exactly the reasons of dead letters in the code."""
    assert _headings("Dead letters") == set(get_args(RejectionReason))


def test_every_exit_status_is_explained() -> None:
    """Each exit status has a heading, and errors end with one of these statuses."""
    raised = {
        getattr(one, "exit_status", 1) for one in vars(errors).values() if isinstance(one, type)
    }
    assert raised <= set(ExitStatus)
    assert _headings("Exit statuses") == {str(int(status)) for status in ExitStatus}


def test_every_alert_links_to_its_heading() -> None:
    """Each alert rule has a severity, a summary, and a link to its own heading."""
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == _headings("Alerts")
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert (
            rule["annotations"]["runbook_url"]
            == f"docs/how-to/operations.md#{rule['alert'].lower()}"
        )


def test_prometheus_understands_its_files() -> None:
    """Prometheus' own checker accepts the rules and the scrape configuration that names them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "config", ROOT / "config" / "prometheus" / "scrape.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert f"{len(rules)} rules found" in done.stdout
