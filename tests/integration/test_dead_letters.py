"""The commands `dead-letters` and `gaps`: list, show, retry, discard and acknowledge."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection

from etl.database import Database
from etl.ledger import claims, dead_letters
from tests.command_line import TRIAGE, WEATHER, Command
from tests.support import query, wait_until

BODY = b'{"id": 7, "\xff": "\x00'


def _letter(
    url: str,
    run: str,
    content: str = "h",
    *,
    workflow: str = WEATHER,
    resolution: str | None = None,
) -> int:
    (row,) = query(
        url,
        "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, step_id, reason, detail,"
        " content_hash, body, occurrences, last_seen_at, resolution, resolved_at)"
        " VALUES (%s, %s, 's', 'malformed', 'the element is cut off', convert_to(%s, 'UTF8'), %s,"
        " 3, now() - interval '1 h', %s::text,"
        " CASE WHEN %s::text IS NOT NULL THEN now() END) RETURNING id",
        workflow, run, content, BODY, resolution, resolution,
    )  # fmt: skip
    return int(row["id"])


def _known(url: str, run: str, *, tracking: str = "final") -> None:
    query(
        url,
        "INSERT INTO orchestra_etl.run_ledger"
        " (run_id, workflow_id, source, tracking, due_at, fencing_token, leased_until)"
        " VALUES (%s, %s, 'list', %s, NULL, 4, now() + interval '1 h')",
        run, WEATHER, tracking,
    )  # fmt: skip


def _gap(url: str) -> int:
    (row,) = query(
        url,
        "INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail)"
        " VALUES (%s, '2026-11-01 10:00Z', NULL, 'more runs came than it lists') RETURNING id",
        WEATHER,
    )
    return int(row["id"])


def test_dead_letters_are_listed_and_shown(command: Command, database_url: str) -> None:
    """`list` shows open dead letters, `list --all` also resolved ones, and `show` all of one."""
    open_one = _letter(database_url, "run-1")
    _letter(database_url, "run-2", resolution="loaded")
    _letter(database_url, "", workflow=TRIAGE)
    assert [one["run_id"] for one in command("dead-letters", "list", "--json").json] == [
        "run-1",
        "",
    ]
    assert len(command("dead-letters", "list", "--json", "--all").json) == 3
    assert [
        one["run_id"] for one in command("dead-letters", "list", "--json", "-w", TRIAGE).json
    ] == [""]
    text = command("dead-letters", "list").out
    assert max(map(len, text.splitlines())) <= 80
    assert "run run-1, step s: the element is cut off" in " ".join(text.split())
    shown = command("dead-letters", "show", str(open_one)).out
    assert "malformed: the element is cut off" in shown
    assert "3 times" in shown
    assert command("dead-letters", "show", str(open_one), "--json").json["size_bytes"] == len(BODY)
    assert command("dead-letters", "show", "99").status == 2
    assert command("dead-letters", "show", "99", "--body").status == 2


def test_the_body_is_written_byte_by_byte(tmp_path: Path, database_url: str) -> None:
    """`show --body` writes exactly the stored bytes, even invalid UTF-8 and NUL."""
    number = _letter(database_url, "run-1")
    (tmp_path / "etl.toml").write_text("")
    written = subprocess.run(
        [
            sys.executable,
            "-m",
            "etl",
            "--config",
            str(tmp_path / "etl.toml"),
            "dead-letters",
            "show",
            str(number),
            "--body",
        ],
        env={"DATABASE_URL": database_url},
        capture_output=True,
        check=True,
        timeout=240,
    )
    assert (written.stdout, written.stderr) == (BODY, b"")


def test_retry_requests_a_newer_read(command: Command, database_url: str) -> None:
    """A retry makes the run due, raises its fencing token and clears its lease."""
    _known(database_url, "run-1")
    _known(database_url, "other")
    number = _letter(database_url, "run-1")
    assert command("dead-letters", "retry", str(number), "--json").json == {
        "dead_letters": 1,
        "runs": 1,
        "without_run": [],
        "conflicts": 0,
        "removed": 0,
    }
    rows = query(
        database_url,
        "SELECT run_id, tracking, fencing_token, leased_until IS NULL AS free,"
        " due_at <= now() AS due"
        " FROM orchestra_etl.run_ledger ORDER BY run_id",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("other", "final", 4, False, None),
        ("run-1", "open", 5, True, True),
    ]
    database = Database(database_url)
    try:
        claimed = database.transaction(lambda c: claims.claim(c, limit=10, lease=60))
    finally:
        database.close()
    assert [claim.run_id for claim in claimed] == ["run-1"]


def test_retry_of_everything(command: Command, database_url: str) -> None:
    """`retry --all` retries dead letters of known and unknown runs, and names those of the list."""
    _letter(database_url, "run-1")
    _letter(database_url, "run-2", workflow=TRIAGE)
    row_of_list = _letter(database_url, "")
    _letter(database_url, "resolved", resolution="discarded")
    printed = command("dead-letters", "retry", "--all")
    assert "2 runs will be re-read" in printed.out
    assert f"have no run that can be re-read: {row_of_list};" in printed.out
    rows = query(
        database_url, "SELECT run_id, workflow_id FROM orchestra_etl.run_ledger ORDER BY run_id"
    )
    assert [tuple(row.values()) for row in rows] == [("run-1", WEATHER), ("run-2", TRIAGE)]


def test_retry_reopens_a_discarded_dead_letter(command: Command, database_url: str) -> None:
    """A retry reopens a discarded dead letter."""
    number = _letter(database_url, "run-1", resolution="discarded")
    assert command("dead-letters", "retry", str(number)).status == 0
    (row,) = query(database_url, "SELECT resolution, resolved_at FROM orchestra_etl.dead_letters")
    assert tuple(row.values()) == (None, None)


def test_discard_resolves_and_keeps_the_bytes(command: Command, database_url: str) -> None:
    """A discard resolves open dead letters and keeps bytes and earlier resolutions."""
    first, second = _letter(database_url, "run-1"), _letter(database_url, "run-2")
    _letter(database_url, "run-3", resolution="loaded")
    assert command("dead-letters", "discard", str(first)).out == "1 dead letter discarded\n"
    assert [one["id"] for one in command("dead-letters", "list", "--json").json] == [second]
    assert command("dead-letters", "discard", "--all", "--json").json == {"discarded": 1}
    rows = query(
        database_url, "SELECT resolution, body FROM orchestra_etl.dead_letters ORDER BY id"
    )
    assert [row["resolution"] for row in rows] == ["discarded", "discarded", "loaded"]
    assert all(bytes(row["body"]) == BODY for row in rows)
    assert (
        command("dead-letters", "list").out
        == "no open dead letters; 3 resolved dead letters: --all shows them\n"
    )
    _letter(database_url, "run-4")
    assert command("dead-letters", "list").out.endswith(
        "and 3 resolved dead letters: --all shows them\n"
    )
    assert "resolved" not in command("dead-letters", "list", "--all").out
    assert command("dead-letters", "show", str(first), "--body", "--json").status == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("work", [dead_letters.retry, dead_letters.discard])
def test_a_load_of_the_same_run_is_waited_for(
    database_url: str,
    work: Callable[[Connection, list[int] | None], object],
    order: tuple[int, int],
) -> None:
    """A command locks runs before dead letters, as a load does, so the two cannot deadlock."""
    _known(database_url, "run-1")
    letters = [_letter(database_url, "run-1", content) for content in "ab"]
    first, second = (letters[at] for at in order)
    database = Database(database_url)
    settling = threading.Thread(target=database.transaction, args=(lambda c: work(c, None),))
    blocked = (
        "SELECT 1 AS one FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(database_url) as load:
        # A deadlock would end this session, because its timeout is the shorter one.
        load.execute("SET deadlock_timeout = '50ms'")
        load.execute("SELECT FROM orchestra_etl.run_ledger FOR UPDATE")
        load.execute("UPDATE orchestra_etl.dead_letters SET occurrences = 9 WHERE id = %s", [first])
        settling.start()
        wait_until(lambda: query(database_url, blocked) != [])
        load.execute(
            "UPDATE orchestra_etl.dead_letters SET occurrences = 9 WHERE id = %s", [second]
        )
    settling.join(10)
    database.close()
    rows = query(database_url, "SELECT occurrences FROM orchestra_etl.dead_letters")
    assert [row["occurrences"] for row in rows] == [9, 9]


@pytest.mark.parametrize("what", ["dead-letters retry", "dead-letters discard", "gaps ack"])
def test_wrong_ids_change_nothing(command: Command, database_url: str, what: str) -> None:
    """An unknown id, no id, or ids together with `--all` change nothing and are explained."""
    _known(database_url, "run-1")
    good = _gap(database_url) if what == "gaps ack" else _letter(database_url, "run-1")
    before = _state(database_url)
    for arguments in ((str(good), "99"), (), (str(good), "--all")):
        printed = command(*what.split(), *arguments)
        assert (printed.status, printed.out) == (2, "")
        assert len(printed.err.splitlines()) == 1
    assert _state(database_url) == before
    assert "99" in command(*what.split(), str(good), "99").err


def _state(url: str) -> list[object]:
    tables = ("run_ledger", "dead_letters", "gaps")
    return [query(url, f"SELECT * FROM orchestra_etl.{table} ORDER BY 1") for table in tables]


def test_gaps_are_listed_and_acknowledged(command: Command, database_url: str) -> None:
    """An acknowledged gap leaves the list, not the table, and keeps its first acknowledgement."""
    query(database_url, "INSERT INTO orchestra.workflows (id) VALUES (%s)", WEATHER)
    first, second = _gap(database_url), _gap(database_url)
    text = command("gaps", "list").out
    assert max(map(len, text.splitlines())) <= 80
    assert "2026-11-01 10:00:00Z" in text
    assert "more runs came than it lists" in text
    assert command("gaps", "ack", str(first)).out == "1 gap acknowledged\n"
    noted = query(
        database_url, "SELECT acknowledged_at FROM orchestra_etl.gaps WHERE id = %s", first
    )
    assert [gap["id"] for gap in command("gaps", "list", "--json").json] == [second]
    assert command("gaps", "ack", "--all", "--json").json == {"acknowledged": 1}
    assert (
        query(database_url, "SELECT acknowledged_at FROM orchestra_etl.gaps WHERE id = %s", first)
        == noted
    )
    assert (
        command("gaps", "list").out
        == "no gaps to acknowledge; 2 acknowledged gaps: --all shows them\n"
    )
    third = _gap(database_url)
    assert command("gaps", "list").out.endswith("and 2 acknowledged gaps: --all shows them\n")
    assert [gap["id"] for gap in command("gaps", "list", "--all", "--json").json] == [
        first,
        second,
        third,
    ]
    assert len(command("gaps", "list", "--all", "--json", "-w", WEATHER).json) == 3
    assert command("gaps", "list", "--all", "--json", "-w", TRIAGE).status == 2


def test_a_letter_without_a_workflow_is_listed_by_its_detail(
    command: Command, database_url: str
) -> None:
    """A workflow without a usable id has no name and no run: only its detail is shown."""
    _letter(database_url, "", workflow="")
    query(database_url, "UPDATE orchestra_etl.dead_letters SET step_id = NULL")
    assert "\n  the element is cut off" in command("dead-letters", "list").out
