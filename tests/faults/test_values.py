"""Duplicated, broken, hostile or refused values become dead letters; the rest is loaded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reading
from etl.transform import decode, fields, payloads, runs
from tests.faults.responses import changed, emptied
from tests.faults.suite import Fault
from tests.faults.world import World, world
from tests.hostile import (
    CLEAN_VALUES,
    IMPLAUSIBLE_TIMES,
    MALFORMED_VALUES,
    READABLE_TIMES,
    REFUSED_VALUES,
    TIMES_WITHOUT_ZONE,
    UNREADABLE_TIMES,
    UNUSABLE_IDS,
    USABLE_IDS,
    step_with,
)
from tests.support import query

HERE = "tests.faults.test_values"

# Fault 16: the same id twice


class Own(str):
    """An id that is equal to nothing but itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def nothing_is_the_same() -> None:
    """Recognise no id when it appears again."""
    honest = fields.usable_id

    def usable_id(raw: Any) -> str | None:
        found = honest(raw)
        return None if found is None else Own(found)

    for module in (decode, runs):
        module.usable_id = usable_id  # type: ignore[attr-defined]


def _row(run: str, mark: str = "") -> dict[str, Any]:
    return {"id": run, "status": "completed", "start_time": "2025-03-13T02:41:14Z",
            "end_time": "2025-03-13T02:41:18Z",
            "inputs": {"mark": mark}}  # fmt: skip


def _step(id: str, mark: str) -> dict[str, Any]:
    return {"id": id, "status": "completed", "outputs": {"mark": mark}}


LISTED = (
    [_row("a"), _row("a"), _row("b", "old"), _row("b", "new"), _row("B"), _row("both"), _row("a")],
    [_row("both"), _row("other"), _row("other")],
)
"""Rows of two workflows' lists."""
STEPS = {
    "a": [_step("1", "a"), _step("1", "a"), _step("x", "a"), _step("X", "a")],
    "b": [_step("2", "old"), _step("3", "b"), _step("2", "new"), _step("shared", "b")],
    "B": [_step("shared", "B"), _step("4", "B"), _step("4", "B"), _step("4", "B")],
    "both": [_step("5", "both")],
    "other": [_step("6", "other"), _step("shared", "other"), _step("6", "other")],
}
RUNS = {"B": "", "a": "", "b": "new", "both": "", "other": ""}
"""The marks of the runs."""
STORED = {"1": "a", "x": "a", "X": "a", "2": "new", "3": "b", "4": "B", "5": "both", "6": "other"}
"""The marks of the steps that only one run has."""


def _doubled(found: World, *without: str) -> list[str]:
    """Return what is stored wrongly from two lists and five responses full of duplicates."""
    lists = dict(zip(found.history.workflow_ids, LISTED, strict=True))

    def answer(request: web.Request, call: Any, response: web.Response) -> web.Response:
        if call.endpoint == "runs":
            offset, limit = (int(request.query[name]) for name in ("offset", "limit"))
            return web.json_response(lists[call.workflow_id][offset : offset + limit])
        return response

    found.simulator.steps_bodies.update(
        {run: json.dumps(steps).encode() for run, steps in STEPS.items()}
    )
    log_size = found.log.stat().st_size
    with changed(found.simulator, answer):
        status = found.sync(without=without)
    problems = [] if status == 6 else [f"status {status}, not 6"]
    if b"21000" in found.log.read_bytes()[log_size:]:
        problems.append("the database refused a batch with 21000")
    rows = query(found.url, "SELECT run_id, inputs ->> 'mark' AS mark FROM orchestra.run_payloads")
    if {row["run_id"]: row["mark"] for row in rows} != RUNS:
        problems.append(f"runs {rows}")
    stored = query(
        found.url,
        (
            "SELECT s.id, s.run_id, o.data ->> 'mark' AS mark FROM orchestra.steps s"
            " JOIN orchestra.outputs o ON o.step_id = s.id"
        ),
    )
    if {row["id"]: row["mark"] for row in stored if row["id"] != "shared"} != STORED:
        problems.append(f"steps {stored}")
    (owner,) = [row["run_id"] for row in stored if row["id"] == "shared"] or [""]
    if [row["mark"] for row in stored if row["id"] == "shared"] != [owner]:
        problems.append("the shared step belongs to the wrong run")
    letters = Counter(
        row["reason"] for row in query(found.url, "SELECT reason FROM orchestra_etl.dead_letters")
    )
    # The older row of b and the older step 2 are duplicates. The shared step conflicts in the two
    # runs that came later, and so does the run that both lists show.
    if letters != {"duplicate_id": 2, "id_conflict": 3}:
        problems.append(f"dead letters {dict(letters)}")
    return problems


@pytest.mark.fault(
    16,
    "the same id twice: in a page, a response, a batch, two workflows",
    "C Q",
    guard="one row per id",
)
def test_duplicated_ids(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Each duplicated id is stored once with its last value; the others become dead letters.

    The database refuses no batch.
    """

    def problems(*without: str) -> list[str]:
        emptied(database_url)
        with world(database_url, tmp_path, log, workflows=2, runs_per_workflow=0) as found:
            return _doubled(found, *without)

    assert problems() == []
    fault.injected(sum(map(len, LISTED)) + sum(map(len, STEPS.values())))
    fault.control(problems(f"{HERE}:nothing_is_the_same"))


# Fault 22: bodies

ODD_BODIES: tuple[bytes, ...] = (
    b"",
    b" \n",
    b"null",
    b"{}",
    b'{"detail": "Not Found"}',
    b"<!doctype html><title>Just a moment</title>",
    b"\xff\xfe[\x00]\x00",
    b"[",
    b"[[]",
    b'[{"id": "s", "status": "comp',
    b"[]]",
    b"[] []",
    b"\x00",
    b"\x1f\x8b\x08\x00",
)
"""Whole responses that are not an array of steps."""
LARGE = b'"' + b"x" * (50 << 20) + b'"'


@dataclass(frozen=True)
class Body:
    """A response for a run's steps."""

    whole: bytes
    value: bytes | None = None
    """The outputs of its only step, if the body is a step."""
    kept: bool = True
    """Whether that step can be stored; otherwise its bytes become a dead letter."""


def _bodies() -> list[Body]:
    # `null` is an empty list, as servers in Go write it.
    found = [Body(one) for one in ODD_BODIES if one != b"null"]
    for kept, values in ((True, CLEAN_VALUES + REFUSED_VALUES), (False, MALFORMED_VALUES)):
        for value in values:
            step = step_with(value, b'"hostile-%d"' % len(found))
            found.append(Body(b"[" + step + b"]", value, kept))
    step = step_with(b"1", b'"hostile-%d"' % len(found))
    found.append(Body(b"\xef\xbb\xbf[" + step + b"]\r\n", b"1"))
    found.append(Body(b"[" + step_with(LARGE, b'"hostile-%d"' % len(found)) + b"]", LARGE))
    return found


def as_it_comes() -> None:
    """Store payloads as they come: rewrite nothing for jsonb, and keep no bytes beside it."""

    def storable(value: bytes) -> payloads.Storable:
        return payloads.Storable(value.decode(errors="replace").encode(), None)

    payloads.storable = storable
    fields.storable = storable  # type: ignore[attr-defined]


def _same(value: bytes, stored: dict[str, Any]) -> bool:
    """Return whether the stored form has the whole value, in `data` or as bytes in `raw`."""
    if stored["raw"] is not None:
        return bytes(stored["raw"]) == value
    if len(value) > 1 << 20:
        return bool(stored["size"] == len(value))
    if value.count(b"[") + value.count(b"{") > 300:  # This is deeper than Python reads.
        return str(stored["data"]).replace(" ", "") == value.decode().replace(" ", "").replace(
            "\n", ""
        )
    return _parsed(stored["data"]) == _parsed(value)


def _parsed(text: str | bytes) -> object:
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def _hostile(found: World, bodies: Sequence[tuple[int, Body]], *without: str) -> list[str]:
    """Store each body as the steps of its own run beside good runs; return all losses."""
    (workflow,) = found.history.workflow_ids
    victims = found.history.run_ids(workflow, len(bodies), offset=10)
    good = [one for one in found.history.run_ids(workflow) if one not in set(victims)]
    found.simulator.steps_bodies.update(
        {run: body.whole for run, (_, body) in zip(victims, bodies, strict=True)}
    )
    status = found.sync(without=without)
    problems = [] if status == 6 else [f"status {status}, not 6"]
    rows = query(
        found.url,
        "SELECT step_id, raw, octet_length(data::text) AS size,"
        " CASE WHEN octet_length(data::text) < 1000000 THEN data::text END AS data"
        " FROM orchestra.outputs WHERE step_id LIKE 'hostile-%%'",
    )
    stored = {row["step_id"]: row for row in rows}
    letters: dict[str, list[dict[str, Any]]] = {}
    for row in query(found.url, "SELECT run_id, reason, body FROM orchestra_etl.dead_letters"):
        letters.setdefault(row["run_id"], []).append(row)
    for run, (number, body) in zip(victims, bodies, strict=True):
        form = stored.get(f"hostile-{number}")
        if body.value is not None and body.kept:
            if form is None or not _same(body.value, form):
                problems.append(f"body {number} is not stored: {body.whole[:60]!r}")
        elif form is not None or not any(
            bytes(one["body"]).strip() in body.whole for one in letters.get(run, ())
        ):
            problems.append(f"body {number} is no dead letter: {body.whole[:60]!r}")
    if {
        row["run_id"] for row in query(found.url, "SELECT run_id FROM orchestra_etl.run_ledger")
    } != {*victims, *good}:
        problems.append("not every run is in the ledger")
    # Some bodies are nested deeper than the oracle reads.
    query(found.url, "DELETE FROM orchestra.steps WHERE id LIKE 'hostile-%'")
    return problems + _of(found, good)


def _of(found: World, good: Sequence[str]) -> list[str]:
    """Return what is missing of the good runs."""
    own = {step["id"] for run in good for step in found.history.steps(run)} | {*good}
    return [one for one in found.complete() if one.split()[1].rstrip(":") in own]


@pytest.mark.fault(
    22, "more than 80 hostile JSON bodies", "C Q", guard="rewriting, and bytes in `raw`"
)
def test_hostile_bodies(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Each hostile body is stored exactly, in `raw` if jsonb cannot hold it, or is a dead letter.

    The good runs beside it are complete.
    """
    bodies = list(enumerate(_bodies()))

    def problems(chosen: Sequence[tuple[int, Body]], *without: str) -> list[str]:
        emptied(database_url)
        options: dict[str, Any] = {
            "workflows": 1,
            "runs_per_workflow": len(chosen) + 20,
            "steps_per_run": 2,
        }
        with world(database_url, tmp_path, log, **options) as found:
            return _hostile(found, chosen, *without)

    assert len(bodies) >= 80
    assert problems(bodies) == []
    fault.injected(len(bodies))
    refused = [one for one in bodies if one[1].value in REFUSED_VALUES[:8]]
    fault.control(
        [one for one in problems(refused, f"{HERE}:as_it_comes") if "is not stored" in one]
    )


# Fault 23: ids and times


def any_id() -> None:
    """Accept any text as an id."""
    for module in (decode, runs):
        module.usable_id = fields.text_of  # type: ignore[attr-defined]


def _odd_ids_and_times(found: World, *without: str) -> list[str]:
    """Put each id and time of the corpus into a step among good ones; return what goes wrong."""
    (workflow,) = found.history.workflow_ids
    victim, *good = found.history.run_ids(workflow)
    # A live response cannot have a time far in the future.
    readable = [(text, None if time > "2090" else time) for text, time in READABLE_TIMES]
    times = [
        *readable,
        *TIMES_WITHOUT_ZONE,
        *((text, None) for text in (*IMPLAUSIBLE_TIMES, *UNREADABLE_TIMES)),
    ]
    steps = [step_with(b"%d" % index, raw) for index, (raw, _) in enumerate(USABLE_IDS)]
    steps += [step_with(b"1", raw) for raw in UNUSABLE_IDS]
    dated = [{"id": f"time {index}", "start_time": text} for index, (text, _) in enumerate(times)]
    steps += [json.dumps(step).encode() for step in dated]
    found.simulator.steps_bodies[victim] = b"[" + b",".join(steps) + b"]"
    status = found.sync(without=without)
    problems = [] if status == 6 else [f"status {status}, not 6"]
    rows = query(
        found.url,
        "SELECT s.id, s.start_time, s.extra ->> 'start_time' AS kept, o.data AS outputs"
        " FROM orchestra.steps s"
        " LEFT JOIN orchestra.outputs o ON o.step_id = s.id WHERE s.run_id = %s",
        victim,
    )
    stored = {row["id"]: row for row in rows}
    for index, (raw, id) in enumerate(USABLE_IDS):
        if stored.get(id, {}).get("outputs") != index:
            problems.append(f"the step with id {raw[:40]!r} is missing")
    letters = query(
        found.url, "SELECT body FROM orchestra_etl.dead_letters WHERE reason = 'unusable_id'"
    )
    aside = {bytes(row["body"]) for row in letters}
    lost = [raw for raw in UNUSABLE_IDS if step_with(b"1", raw) not in aside]
    problems += [f"the step with id {raw[:40]!r} is no dead letter" for raw in lost]
    for index, (text, expected) in enumerate(times):
        row = stored.get(f"time {index}", {"start_time": None, "kept": None})
        time = row["start_time"]
        if (time.isoformat() if time else None) != expected or (
            expected is None and row["kept"] != text
        ):
            problems.append(f"{text[:40]!r} is {time}, kept {row['kept']!r:.40}")
    if len(stored) != len(USABLE_IDS) + len(times):
        problems.append(f"{len(stored)} steps, not {len(USABLE_IDS) + len(times)}")
    return problems + _of(found, good)


@pytest.mark.fault(23, "more than 80 odd ids and times", "C Q", guard="check of ids")
def test_odd_ids_and_times(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Each usable id and readable time is stored as meant; the others are kept in `extra` or apart.

    Unusable ids become dead letters with their steps; unreadable times stay in `extra`.
    """

    def problems(*without: str) -> list[str]:
        emptied(database_url)
        with world(
            database_url, tmp_path, log, workflows=1, runs_per_workflow=20, steps_per_run=2
        ) as found:
            return _odd_ids_and_times(found, *without)

    assert problems() == []
    times = (READABLE_TIMES, TIMES_WITHOUT_ZONE, IMPLAUSIBLE_TIMES, UNREADABLE_TIMES)
    count = len(USABLE_IDS) + len(UNUSABLE_IDS) + sum(map(len, times))
    assert count >= 80
    fault.injected(count)
    fault.control(problems(f"{HERE}:any_id"))


# Fault 24: a row that PostgreSQL refuses


def all_or_nothing() -> None:
    """Give up a refused batch as a whole."""

    def load(self: Loader, readings: Sequence[Reading]) -> LoadReport:
        return self._database.transaction(lambda c: self._load(c, readings, isolate=False))

    Loader.load = load  # type: ignore[method-assign]


def _poisoned(found: World, table: str, column: str, *without: str) -> list[str]:
    """Load a thousand rows of which the table refuses one; return what else is missing."""
    (workflow,) = found.history.workflow_ids
    run = found.history.run_ids(workflow)[77]
    poison = found.history.steps(run)[3]["id"]
    query(
        found.url,
        f"ALTER TABLE orchestra.{table} ADD CONSTRAINT poison CHECK ({column} <> '{poison}')",
    )
    try:
        status = found.sync(without=without)
    finally:
        query(found.url, f"ALTER TABLE orchestra.{table} DROP CONSTRAINT poison")
    problems = [] if status == 6 else [f"status {status}, not 6"]
    (landed,) = query(found.url, "SELECT count(*) AS n FROM orchestra.steps")
    if landed["n"] != 999:
        problems.append(f"{landed['n']} steps stored, not 999")
    letters = query(found.url, "SELECT run_id, step_id, reason FROM orchestra_etl.dead_letters")
    if letters != [{"run_id": run, "step_id": poison, "reason": "rejected"}]:
        problems.append(f"dead letters {letters}")
    return (
        problems
        + [one for one in found.complete() if one != f"step {poison} is missing"]
        + found.witnessed()
    )


@pytest.mark.fault(
    24, "one row in a thousand that PostgreSQL refuses", "C Q", guard="bisection of a refused batch"
)
@pytest.mark.parametrize(("table", "column"), [("steps", "id"), ("outputs", "step_id")])
def test_one_poison_row(
    fault: Fault, table: str, column: str, database_url: str, tmp_path: Path, log: Path
) -> None:
    """One refused step or payload in a thousand becomes a dead letter, and 999 are stored."""

    def problems(*without: str) -> list[str]:
        emptied(database_url)
        options: dict[str, Any] = {
            "workflows": 1,
            "runs_per_workflow": 200,
            "steps_per_run": 5,
            "failure_rate": 0,
        }
        with world(database_url, tmp_path, log, **options) as found:
            return _poisoned(found, table, column, *without)

    assert problems() == []
    fault.injected()
    fault.control([one for one in problems(f"{HERE}:all_or_nothing") if "steps stored" in one])
